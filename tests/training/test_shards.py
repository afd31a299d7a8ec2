"""WebDataset shards: a member for each picture or sound, and members for its metadata."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from tests.training.conftest import add, write_pictures, write_sounds
from wav2clip_gen.errors import TrainingError
from wav2clip_gen.training.data import ImageDataset, load_images
from wav2clip_gen.training.mini.audio import AudioExample, load_audio
from wav2clip_gen.training.mini.clip import ImageTowerTask
from wav2clip_gen.training.mini.concepts import caption_concepts, image_concepts, load_anchors
from wav2clip_gen.training.settings import ImageTowerSettings

Members = dict[str, bytes]
WriteShard = Callable[..., Path]


@pytest.fixture
def write_shard(tmp_path: Path) -> WriteShard:
    """Write members into a shard of the data folder."""

    def write(members: Members, name: str = "images/train-natural-birds-000.tar") -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        with tarfile.open(path, "w") as tar:
            for member, content in members.items():
                add(tar, member, content)
        return path

    return write


def picture(
    kind: str = "png", size: tuple[int, int] = (128, 128), colour: tuple[int, int, int] = (200, 40, 40)
) -> bytes:
    encoded = io.BytesIO()
    Image.new("RGB", size, colour).save(encoded, kind)
    return encoded.getvalue()


def sound(kind: str, *, rate: int = 16_000, channels: int = 1, hertz: float = 1000) -> bytes:
    """A second of a tone, alike in all channels."""
    tone = 0.5 * np.sin(2 * np.pi * hertz * np.arange(rate) / rate)
    encoded = io.BytesIO()
    soundfile.write(encoded, np.stack([tone] * channels, axis=1), rate, format=kind)
    return encoded.getvalue()


def facts(**facts: Any) -> bytes:
    return json.dumps(facts).encode()


@pytest.mark.parametrize("kind", ["jpg", "jpeg", "png", "webp"])
def test_a_picture_may_have_a_member_of_its_own(tmp_path: Path, write_shard: WriteShard, kind: str) -> None:
    write_shard(
        {
            f"in/0001.{kind}": picture(kind.replace("jpg", "jpeg")),
            "in/0001.json": facts(label="wren", anchors=["bird"], set="garden"),
        }
    )
    pictures = load_images(tmp_path, "train")
    (known,) = pictures.info
    assert (known.key, known.set, known.label, known.anchors) == ("in/0001", "garden", "wren", ("bird",))
    red, green, _ = pictures[:][0].float().mean(dim=(1, 2)).tolist()
    assert (red, green) == pytest.approx((200, 40), abs=4)
    assert not pictures.skipped


def test_a_class_or_a_caption_or_nothing_may_be_given(tmp_path: Path, write_shard: WriteShard) -> None:
    alone = {"a.png": picture(), "a.cls": b"17\n", "b.png": picture(), "b.txt": b"A dog on a boat", "c.png": picture()}
    write_shard(alone)
    known = load_images(tmp_path, "train").info
    assert [(one.label, one.captions) for one in known] == [("17", ()), ("", ("A dog on a boat",)), ("", ())]
    assert {one.set for one in known} == {"birds"}  # from the shard's name


def test_captions_give_the_concepts_of_an_image(toy_data: Path, tmp_path: Path, write_shard: WriteShard) -> None:
    write_shard({"b.png": picture(), "b.txt": b"A dog, on a boat!"})
    concepts = load_anchors(toy_data)
    (rows,) = image_concepts(toy_data, load_images(tmp_path, "train").info, concepts)
    assert [concepts.names[row] for row in rows] == ["dog", "boat"]
    assert caption_concepts(["a dog", "a cat", "the dog"], concepts) == concepts.rows(["dog"])


def test_order_in_the_shard_and_unknown_members_do_not_matter(tmp_path: Path, write_shard: WriteShard) -> None:
    write_shard(
        {"a.json": facts(label="dog"), "a.seg.png": picture(), ".notes": b"-", "a.png": picture(), "b.npy": b"-"}
    )
    pictures = load_images(tmp_path, "train")
    assert [known.label for known in pictures.info] == ["dog"]
    assert not pictures.skipped


def test_pictures_of_any_shape_become_squares(tmp_path: Path, write_shard: WriteShard) -> None:
    wide = np.zeros((200, 600, 3), np.uint8)
    wide[:, 200:400] = 255
    encoded = io.BytesIO()
    Image.fromarray(wide).save(encoded, "png")
    write_shard({"a.png": encoded.getvalue()})
    middle = load_images(tmp_path, "train")[:]
    assert middle.shape == (1, 3, 128, 128)
    assert middle.min() > 240


DAMAGE: dict[str, Members] = {
    "no picture": {"bad.json": facts(label="dog")},
    "half a picture": {"bad.png": picture()[:60], "bad.json": facts(label="dog")},
    "no picture at all": {"bad.png": b"something else"},
    "too small": {"bad.png": picture(size=(100, 300))},
    "no JSON": {"bad.png": picture(), "bad.json": b"{"},
    "a list for one picture": {"bad.png": picture(), "bad.json": b"[1]"},
    "a label that is none": {"bad.png": picture(), "bad.json": facts(label=["dog"])},
    "anchors that are one word": {"bad.png": picture(), "bad.json": facts(anchors="dog")},
    "a class that is no text": {"bad.png": picture(), "bad.cls": b"\xff\xfe"},
    "pictures without as many descriptions": {"bad.webps": 2 * picture("webp"), "bad.json": b'[{"key": "x"}]'},
    "packed descriptions that are none": {"bad.webps": picture("webp"), "bad.json": b"[3]"},
}


@pytest.mark.parametrize("members", DAMAGE.values(), ids=list(DAMAGE))
def test_a_damaged_member_is_skipped_and_named(tmp_path: Path, write_shard: WriteShard, members: Members) -> None:
    write_shard({"good.png": picture(), **members, "last.png": picture()})
    pictures = load_images(tmp_path, "train")
    assert [known.key for known in pictures.info] == ["good", "last"]
    assert pictures.skipped == ("train-natural-birds-000.tar:bad",)


def test_of_two_members_of_one_name_the_first_counts(tmp_path: Path) -> None:
    path = tmp_path / "images" / "train-natural-000.tar"
    path.parent.mkdir()
    with tarfile.open(path, "w") as tar:
        for _ in range(2):
            add(tar, "a.png", picture())
    pictures = load_images(tmp_path, "train")
    assert len(pictures) == 1
    assert pictures.skipped == ("train-natural-000.tar:a.png (duplicate)",)


def test_a_truncated_shard_is_read_as_far_as_it_goes(tmp_path: Path, write_shard: WriteShard) -> None:
    path = write_shard({f"{name}.png": picture("bmp") for name in "abc"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    pictures = load_images(tmp_path, "train")
    assert [known.key for known in pictures.info] == ["a"]
    assert set(pictures.skipped) == {f"{path.name}:b", path.name}


@pytest.mark.parametrize("members", [{}, {"a.npy": b"-"}], ids=["nothing", "nothing of use"])
def test_an_empty_shard_is_an_error(tmp_path: Path, write_shard: WriteShard, members: Members) -> None:
    write_shard({"a.png": picture()}, "images/train-natural-000.tar")
    write_shard(members, "images/train-natural-001.tar")
    with pytest.raises(TrainingError, match=r"001\.tar: contains no examples"):
        load_images(tmp_path, "train")


def test_a_compressed_shard_is_skipped_and_named(tmp_path: Path, write_shard: WriteShard) -> None:
    write_shard({"a.png": picture()})
    with tarfile.open(tmp_path / "images" / "train-natural-001.tar", "w:gz") as tar:
        add(tar, "b.png", picture())
    pictures = load_images(tmp_path, "train")
    assert len(pictures) == 1
    assert pictures.skipped == ("train-natural-001.tar",)


@pytest.mark.usefixtures("no_sentences")
def test_a_set_without_known_labels_is_an_error(toy_data: Path, tmp_path: Path, write_shard: WriteShard) -> None:
    (tmp_path / "text").symlink_to(toy_data / "text")
    for split, kind in (("train", "tiny"), ("val", "natural"), ("val", "tiny")):
        size = 128 if kind == "natural" else 64
        write_pictures(tmp_path / "images" / f"{split}-{kind}-000.tar", count=4, size=size, seed=1)
    write_shard({"a.png": picture(), "a.cls": b"17", "b.png": picture(), "b.cls": b"3"})
    with pytest.raises(TrainingError, match="none of the labels of the set 'birds' is known, such as '17'") as caught:
        ImageTowerTask(tmp_path, ImageTowerSettings(batch=2))
    assert "labels.csv" in caught.value.hint
    write_shard({"a.png": picture(), "a.cls": b"17", "b.png": picture(), "b.cls": b"Dog"})
    assert "dog" in ImageTowerTask(tmp_path, ImageTowerSettings(batch=2)).anchor_names


def pieces(data: Path) -> tuple[list[AudioExample], tuple[str, ...]]:
    train, held_out, skipped = load_audio(data)
    return [*train, *held_out], skipped


@pytest.mark.parametrize("kind", ["ogg", "flac", "wav", "mp3"])
def test_a_sound_may_be_of_any_kind_rate_and_channels(
    toy_data: Path, tmp_path: Path, write_shard: WriteShard, kind: str
) -> None:
    (tmp_path / "text").symlink_to(toy_data / "text")
    write_shard(
        {f"a.{kind}": sound(kind, rate=44_100, channels=2), "a.json": facts(label="dog")}, "audio/audio-x-0.tar"
    )
    (piece,), skipped = pieces(tmp_path)
    assert not skipped
    assert (piece.set, piece.label, piece.group) == ("x", "dog", "x  a")
    assert piece.samples.dtype == np.int16
    assert len(piece.samples) == pytest.approx(16_000, abs=1200)  # mp3 has some silence around it
    spectrum = np.abs(np.fft.rfft(piece.samples))
    assert spectrum.argmax() * 16_000 / len(piece.samples) == pytest.approx(1000, abs=2)
    assert np.abs(piece.samples).max() == pytest.approx(16_384, rel=0.1)


@pytest.mark.parametrize("rate", [16_000, 22_050])
def test_floating_point_sound_keeps_its_level(
    toy_data: Path, tmp_path: Path, write_shard: WriteShard, rate: int
) -> None:
    (tmp_path / "text").symlink_to(toy_data / "text")
    encoded = io.BytesIO()
    tone = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(rate) / rate)
    soundfile.write(encoded, tone, rate, format="wav", subtype="FLOAT")
    write_shard({"a.wav": encoded.getvalue(), "a.cls": b"dog"}, "audio/audio-x-0.tar")
    (piece,), _ = pieces(tmp_path)
    assert len(piece.samples) == 16_000
    assert np.abs(piece.samples).max() == pytest.approx(16_384, rel=0.05)


def test_sounds_without_a_label_or_that_are_damaged_are_skipped_and_named(
    toy_data: Path, tmp_path: Path, write_shard: WriteShard
) -> None:
    (tmp_path / "text").symlink_to(toy_data / "text")
    tone = sound("wav")
    members = {
        "good.wav": tone, "good.cls": b"dog", "worded.wav": tone, "worded.txt": b"cat",
        "bare.wav": tone, "half.flac": sound("flac")[:30], "half.cls": b"dog",
        "empty.wav": tone[:44], "empty.cls": b"cat",
        "listed.wav": tone, "listed.json": facts(label=["dog", "cat"]), "lost.json": facts(label="dog"),
    }  # fmt: skip
    write_shard(members, "audio/audio-000.tar")
    found, skipped = pieces(tmp_path)
    assert {piece.key: piece.label for piece in found} == {"good": "dog", "worded": "cat"}
    assert {name.removeprefix("audio-000.tar:") for name in skipped} == {"bare", "half", "empty", "listed", "lost"}


def test_packed_and_single_pictures_go_together(tmp_path: Path, write_shard: WriteShard) -> None:
    write_pictures(tmp_path / "images" / "train-natural-000.tar", count=3, size=128, seed=0)
    write_shard({"a.png": picture(), "a.json": facts(label="dog")})
    pictures: ImageDataset = load_images(tmp_path, "train")
    assert [known.set for known in pictures.info] == ["toy", "toy", "toy", "birds"]


def test_the_same_shards_give_the_same_sides_of_the_split(toy_data: Path, tmp_path: Path) -> None:
    (tmp_path / "text").symlink_to(toy_data / "text")
    write_sounds(tmp_path / "audio" / "audio-toy-000.tar")
    one, same = ({piece.group for piece in load_audio(data)[1]} for data in (toy_data, tmp_path))
    assert one == same
