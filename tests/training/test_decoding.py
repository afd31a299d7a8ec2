"""Neither memory nor workers change what is learned, only how long it takes."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.conftest import write_pictures
from wav2clip_gen.errors import TrainingError
from wav2clip_gen.models.vqgan import VQGANConfig
from wav2clip_gen.training.data import load_pictures
from wav2clip_gen.training.decoding import Array, Decoded, Reading
from wav2clip_gen.training.loop import Run
from wav2clip_gen.training.plan import Plan, Progress
from wav2clip_gen.training.shards import Example, Place
from wav2clip_gen.training.sounds import load_sounds
from wav2clip_gen.training.vqgan import VQGANRecipe, VQGANTraining

PICTURE = 128 * 128 * 3  # bytes of a decoded picture
SMALL = VQGANConfig(
    ch=32, ch_mult=(1, 1), num_res_blocks=1, attn_resolutions=(), resolution=128,
    z_channels=4, embed_dim=4, n_embed=16, norm_groups=4,
)  # fmt: skip


def examples(folder: Path, count: int) -> list[Example]:
    """So many examples of one byte, their own number."""
    path = folder / "numbers"
    path.write_bytes(bytes(range(count)))
    return [Example(key=str(at), set="", place=Place(path, at, 1), entry={}) for at in range(count)]


def decode(encoded: bytes) -> Array | None:
    return np.frombuffer(encoded, np.uint8) if encoded and encoded != b"\x03" else None


def test_beyond_the_bound_what_is_asked_for_is_decoded_again(toy_data: Path) -> None:
    all_kept, some, none = (Reading(memory=size) for size in (10**9, 10 * PICTURE + 1, 0))
    whole, partly, never = (load_pictures(toy_data, "train", reading=reading) for reading in (all_kept, some, none))
    assert [reading.kept // PICTURE for reading in (all_kept, some, none)] == [36, 10, 0]
    assert {reading.decoded for reading in (all_kept, some, none)} == {36 * PICTURE}
    chosen = torch.tensor([35, 3, 12, 3])
    assert torch.equal(whole.pixels[chosen], partly.pixels[chosen])
    assert torch.equal(whole.pixels[chosen], never.pixels[chosen])
    assert len(whole.pixels[chosen].unique(dim=0)) == 3


def test_what_does_not_fit_is_told(toy_data: Path) -> None:
    small, large = Reading(memory=10 * PICTURE), Reading()
    for reading in (small, large):
        load_pictures(toy_data, "train", reading=reading)
    assert large.notes() == ()
    (note,) = small.notes()
    assert "0.000492 of 0.00177 GB" in note
    assert "--memory" in note


def test_pictures_and_sounds_share_the_bound(toy_data: Path) -> None:
    reading = Reading(memory=40 * PICTURE)
    load_pictures(toy_data, "train", reading=reading)
    before = reading.kept
    train, _ = load_sounds(toy_data, reading=reading)
    assert before == 36 * PICTURE
    assert before < reading.kept <= reading.memory < reading.decoded
    assert all(len(piece.samples) == 24_000 for piece in train.pieces)


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_order_and_names_do_not_depend_on_the_workers(tmp_path: Path, workers: int) -> None:
    def slow_at_first(encoded: bytes) -> Array | None:
        time.sleep(0.002 if encoded < b"\x05" else 0)
        return decode(encoded)

    decoded = Decoded(examples(tmp_path, 200), slow_at_first, Reading(memory=50, workers=workers))
    assert decoded.skipped == ["numbers:3"]
    assert [int(array[0]) for array in decoded.take(range(199))] == [0, 1, 2, *range(4, 200)]


def test_workers_work_at_the_same_time(tmp_path: Path) -> None:
    both = threading.Barrier(2, timeout=10)

    def meet(encoded: bytes) -> Array | None:
        both.wait()
        return decode(encoded)

    assert len(Decoded(examples(tmp_path, 2), meet, Reading(workers=2))) == 2


def test_a_shard_that_changes_while_it_is_used_is_told(tmp_path: Path) -> None:
    decoded = Decoded(examples(tmp_path, 3), decode, Reading(memory=0))
    (tmp_path / "numbers").write_bytes(b"\x00")
    assert decoded[0] == 0
    with pytest.raises(TrainingError, match="numbers: 2 can no longer be read"):
        decoded.take([0, 2])


def losses(data: Path, folder: Path, reading: Reading, seed: int = 0) -> list[dict[str, float]]:
    """Of three steps of a painter."""
    settings = VQGANTraining(batch=2, crop=16, autoencoder=1.0, adversarial=0.0)
    recipe = VQGANRecipe(data, settings, config=SMALL, reading=reading, seed=seed)
    run = Run(recipe, Plan(folder=folder, steps=3, report_every=0))
    return [event.losses for event in run.events() if isinstance(event, Progress)]


def test_memory_and_workers_leave_the_loss_curve_as_it_is(tmp_path: Path) -> None:
    for split, count in (("train", 6), ("val", 1)):
        write_pictures(tmp_path / "images" / f"{split}-natural-000.tar", count=count, size=128, seed=1)
    whole = losses(tmp_path, tmp_path / "a", Reading(workers=1))
    assert losses(tmp_path, tmp_path / "b", Reading(memory=2 * PICTURE, workers=3)) == whole
    assert losses(tmp_path, tmp_path / "c", Reading(), seed=1) != whole
