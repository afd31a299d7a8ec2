from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from tests.training.conftest import write_pictures
from wav2clip_gen.errors import TrainingError
from wav2clip_gen.training.anchors import load_anchors, wanted_by_pictures
from wav2clip_gen.training.data import batch_indices, load_pictures, random_crops


def test_pictures_come_with_what_is_known_of_them(toy_data: Path) -> None:
    pictures = load_pictures(toy_data, "train")
    assert pictures.pixels[:].shape == (36, 3, 128, 128)
    assert pictures.pixels[:].dtype == torch.uint8
    assert not pictures.skipped
    first = pictures.descriptions[0]
    assert (first.set, first.label, first.anchors) == ("toy", "dog", ("dog",))
    red, green, _ = pictures.pixels[:1][0].float().mean(dim=(1, 2)).tolist()
    assert red > green + 100  # the toy dogs are red


def test_a_missing_folder_is_an_error_that_names_the_option(tmp_path: Path) -> None:
    with pytest.raises(TrainingError) as caught:
        load_pictures(tmp_path / "nowhere", "train")
    assert "nowhere" in caught.value.what
    assert "--data" in caught.value.hint


def test_a_damaged_picture_is_skipped_and_named(tmp_path: Path) -> None:
    path = tmp_path / "images" / "train-natural-000.tar"
    write_pictures(path, count=6, size=128, seed=0)
    content = bytearray(path.read_bytes())
    second = content.index(b"WEBPVP8", content.index(b"WEBPVP8") + 10)
    content[second : second + 7] = b"damaged"
    path.write_bytes(content)
    pictures = load_pictures(tmp_path, "train")
    assert len(pictures) == 5
    assert pictures.skipped == ("train-natural-000.tar:cat/1",)


def test_a_truncated_shard_is_skipped_and_named(tmp_path: Path, toy_data: Path) -> None:
    folder = tmp_path / "images"
    shutil.copytree(toy_data / "images", folder)
    (folder / "train-natural-001.tar").write_bytes((folder / "train-natural-000.tar").read_bytes()[:2000])
    pictures = load_pictures(tmp_path, "train")
    assert len(pictures) == 36
    assert any("train-natural-001.tar" in name for name in pictures.skipped)


def test_nothing_readable_is_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "train-natural-000.tar").write_bytes(b"no tar")
    with pytest.raises(TrainingError, match="no readable picture"):
        load_pictures(tmp_path, "train")


@pytest.mark.parametrize("content", [b"set,label\n", b"\xff\xfe\x00", b""], ids=["no columns", "no text", "nothing"])
def test_a_table_that_is_none_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "labels.csv").write_bytes(content)
    with pytest.raises(TrainingError, match=r"labels\.csv: (has no column|cannot be read)") as caught:
        wanted_by_pictures(tmp_path)
    assert "--data" in caught.value.hint


@pytest.mark.parametrize("left", [0, 30, 2000], ids=["nothing", "a start", "half"])
def test_anchors_that_are_damaged_are_told(toy_data: Path, tmp_path: Path, left: int) -> None:
    (tmp_path / "text").mkdir()
    content = (toy_data / "text" / "anchors.npz").read_bytes()
    (tmp_path / "text" / "anchors.npz").write_bytes(content[:left])
    with pytest.raises(TrainingError, match=r"anchors\.npz: cannot be read") as caught:
        load_anchors(tmp_path)
    assert "--data" in caught.value.hint


def test_every_picture_is_seen_once_an_epoch() -> None:
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
