"""Images: decoded, damaged, cropped; neither memory nor workers change what is learned."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.conftest import SMALL_VQGAN, write_pictures
from wav2clip_gen.errors import TrainingError
from wav2clip_gen.training.data import (
    Array,
    ByteRange,
    DecodedExamples,
    Example,
    Loader,
    load_images,
)
from wav2clip_gen.training.mini.audio import load_audio
from wav2clip_gen.training.mini.concepts import Concepts, load_anchors, missing_concepts
from wav2clip_gen.training.mini.vqgan import VQGANTask, random_crops
from wav2clip_gen.training.schedule import Schedule, batch_indices
from wav2clip_gen.training.settings import VQGANSettings
from wav2clip_gen.training.trainer import Trainer

PICTURE = 128 * 128 * 3  # bytes of a decoded picture


def test_images_have_their_metadata(toy_data: Path) -> None:
    pictures = load_images(toy_data, "train")
    assert pictures[:].shape == (36, 3, 128, 128)
    assert pictures[:].dtype == torch.uint8
    assert not pictures.skipped
    first = pictures.info[0]
    assert (first.set, first.label, first.anchors) == ("toy", "dog", ("dog",))
    red, green, _ = pictures[:1][0].float().mean(dim=(1, 2)).tolist()
    assert red > green + 100  # the toy dogs are red


def test_a_missing_folder_is_an_error_that_names_the_option(tmp_path: Path) -> None:
    with pytest.raises(TrainingError) as caught:
        load_images(tmp_path / "nowhere", "train")
    assert "nowhere" in caught.value.what
    assert "--data" in caught.value.hint


def test_a_damaged_picture_is_skipped_and_named(tmp_path: Path) -> None:
    path = tmp_path / "images" / "train-natural-000.tar"
    write_pictures(path, count=6, size=128, seed=0)
    content = bytearray(path.read_bytes())
    second = content.index(b"WEBPVP8", content.index(b"WEBPVP8") + 10)
    content[second : second + 7] = b"damaged"
    path.write_bytes(content)
    pictures = load_images(tmp_path, "train")
    assert len(pictures) == 5
    assert pictures.skipped == ("train-natural-000.tar:cat/1",)


def test_a_truncated_shard_is_skipped_and_named(tmp_path: Path, toy_data: Path) -> None:
    folder = tmp_path / "images"
    shutil.copytree(toy_data / "images", folder)
    (folder / "train-natural-001.tar").write_bytes((folder / "train-natural-000.tar").read_bytes()[:2000])
    pictures = load_images(tmp_path, "train")
    assert len(pictures) == 36
    assert any("train-natural-001.tar" in name for name in pictures.skipped)


def test_nothing_readable_is_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "train-natural-000.tar").write_bytes(b"no tar")
    with pytest.raises(TrainingError, match="no readable picture"):
        load_images(tmp_path, "train")


@pytest.mark.parametrize("content", [b"set,label\n", b"\xff\xfe\x00", b""], ids=["no columns", "no text", "nothing"])
def test_a_table_without_the_columns_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "labels.csv").write_bytes(content)
    with pytest.raises(TrainingError, match=r"labels\.csv: (has no column|cannot be read)") as caught:
        missing_concepts(tmp_path, Concepts((), torch.zeros(0, 512)))
    assert "--data" in caught.value.hint


@pytest.mark.parametrize("left", [0, 30, 2000], ids=["nothing", "a start", "half"])
def test_damaged_anchors_are_an_error(toy_data: Path, tmp_path: Path, left: int) -> None:
    (tmp_path / "text").mkdir()
    content = (toy_data / "text" / "anchors.npz").read_bytes()
    (tmp_path / "text" / "anchors.npz").write_bytes(content[:left])
    with pytest.raises(TrainingError, match=r"anchors\.npz: cannot be read") as caught:
        load_anchors(tmp_path)
    assert "--data" in caught.value.hint


def test_every_image_is_used_once_per_epoch() -> None:
    seen = torch.cat([batch_indices(10, 4, step=step, seed=3) for step in range(5)])
    assert sorted(seen[:10].tolist()) == sorted(seen[10:].tolist()) == list(range(10))
    assert seen[:10].tolist() != seen[10:].tolist()
    assert torch.equal(batch_indices(10, 4, step=2, seed=3), seen[8:12])


def test_a_seed_decides_the_order() -> None:
    one, same, other = (batch_indices(50, 50, step=0, seed=seed).tolist() for seed in (3, 3, 4))
    assert one == same
    assert one != other
    assert sorted(one) == sorted(other)


def test_crops_are_decided_by_their_generator() -> None:
    pixels = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    one, same, other = (random_crops(pixels, 16, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert one.shape == (5, 3, 16, 16)
    assert one.min() >= 0
    assert one.max() <= 1
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_crops_larger_than_the_pictures_are_refused() -> None:
    pixels = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    with pytest.raises(TrainingError, match="64 px cannot be cut from pictures of 32"):
        random_crops(pixels, 64, generator=torch.Generator())


def examples(folder: Path, count: int) -> list[Example]:
    """So many examples of one byte, their own number."""
    path = folder / "numbers"
    path.write_bytes(bytes(range(count)))
    return [Example(key=str(at), set="", data=ByteRange(path, at, 1), metadata={}) for at in range(count)]


def decode(encoded: bytes) -> Array | None:
    return np.frombuffer(encoded, np.uint8) if encoded and encoded != b"\x03" else None


def test_beyond_the_memory_bound_images_are_decoded_at_each_use(toy_data: Path) -> None:
    all_kept, some, none = (Loader(memory=size) for size in (10**9, 10 * PICTURE + 1, 0))
    whole, partly, never = (load_images(toy_data, "train", loader=loader) for loader in (all_kept, some, none))
    assert [loader.kept // PICTURE for loader in (all_kept, some, none)] == [36, 10, 0]
    assert {loader.decoded for loader in (all_kept, some, none)} == {36 * PICTURE}
    chosen = torch.tensor([35, 3, 12, 3])
    assert torch.equal(whole[chosen], partly[chosen])
    assert torch.equal(whole[chosen], never[chosen])
    assert len(whole[chosen].unique(dim=0)) == 3


def test_what_does_not_fit_is_in_the_notes(toy_data: Path) -> None:
    small, large = Loader(memory=10 * PICTURE), Loader()
    for loader in (small, large):
        load_images(toy_data, "train", loader=loader)
    assert large.notes() == ()
    (note,) = small.notes()
    assert "0.000492 of 0.00177 GB" in note
    assert "--memory" in note


def test_pictures_and_sounds_share_the_bound(toy_data: Path) -> None:
    loader = Loader(memory=40 * PICTURE)
    load_images(toy_data, "train", loader=loader)
    before = loader.kept
    train, _, _ = load_audio(toy_data, loader=loader)
    assert before == 36 * PICTURE
    assert before < loader.kept <= loader.memory < loader.decoded
    assert all(len(piece.samples) == 24_000 for piece in train)


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_order_and_names_do_not_depend_on_the_workers(tmp_path: Path, workers: int) -> None:
    def slow_at_first(encoded: bytes) -> Array | None:
        time.sleep(0.002 if encoded < b"\x05" else 0)
        return decode(encoded)

    decoded = DecodedExamples(examples(tmp_path, 200), slow_at_first, Loader(memory=50, workers=workers))
    assert decoded.skipped == ["numbers:3"]
    assert [int(array[0]) for array in decoded.take(range(199))] == [0, 1, 2, *range(4, 200)]


def test_workers_run_concurrently(tmp_path: Path) -> None:
    both = threading.Barrier(2, timeout=10)

    def meet(encoded: bytes) -> Array | None:
        both.wait()
        return decode(encoded)

    assert len(DecodedExamples(examples(tmp_path, 2), meet, Loader(workers=2))) == 2


def test_a_shard_that_changes_during_training_is_an_error(tmp_path: Path) -> None:
    decoded = DecodedExamples(examples(tmp_path, 3), decode, Loader(memory=0))
    (tmp_path / "numbers").write_bytes(b"\x00")
    assert decoded[0] == 0
    with pytest.raises(TrainingError, match="numbers: 2 can no longer be read"):
        decoded.take([0, 2])


def losses(data: Path, folder: Path, loader: Loader, seed: int = 0) -> list[dict[str, float]]:
    """Of three steps of a VQGAN."""
    settings = VQGANSettings(batch=2, crop=16, autoencoder=1.0, adversarial=0.0)
    task = VQGANTask(data, settings, config=SMALL_VQGAN, loader=loader, seed=seed)
    trainer = Trainer(task, Schedule(folder=folder, steps=3, report_every=0))
    return [event.losses for event in trainer.run() if event.losses]


def test_memory_and_workers_do_not_change_the_losses(tmp_path: Path) -> None:
    for split, count in (("train", 6), ("val", 1)):
        write_pictures(tmp_path / "images" / f"{split}-natural-000.tar", count=count, size=128, seed=1)
    whole = losses(tmp_path, tmp_path / "a", Loader(workers=1))
    assert losses(tmp_path, tmp_path / "b", Loader(memory=2 * PICTURE, workers=3)) == whole
    assert losses(tmp_path, tmp_path / "c", Loader(), seed=1) != whole
