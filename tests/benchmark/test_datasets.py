"""Each published layout is read as its tables say; faults name the file and the row."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.benchmark import sets
from wav2clip_gen.benchmark.clips import Clip
from wav2clip_gen.benchmark.datasets import open_dataset
from wav2clip_gen.errors import SettingsError, W2CError


@pytest.mark.parametrize(
    ("make", "clips", "classes", "splits", "first"),
    [
        (sets.urbansound8k, 27, None, ("1", "2", "3"), ("1000-0-0-0.wav", ("dog_bark",), "1", "1000")),
        (sets.esc50, 15, sets.CLASSES, tuple("12345"), ("1-107-A-0.wav", ("dog_bark",), "1", "107")),
        (sets.vggsound, 12, sets.CLASSES, ("test", "train"), ("id-0_000030", ("dog_bark",), "train", "id-0")),
        (sets.fsd50k, 18, ("Bark", "Music", "Siren"), ("test", "train", "val"), ("0", ("Bark",), "train", "0")),
        (sets.clotho, 12, (), ("test", "train"), ("development 0.v1.wav", (), "train", "development 0.v1.wav")),
        (sets.musdb18, 15, None, ("train",), ("One/mixture", ("mixture",), "train", "One")),
        (sets.shards, 9, sets.CLASSES, ("1", "2", "3"), ("clip0", ("dog_bark",), "1", "900")),
    ],
)
def test_official_layouts(
    make: Callable[[Path], Path], clips: int, classes: tuple[str, ...] | None, splits: tuple[str, ...],
    first: tuple[str, tuple[str, ...], str, str], tmp_path: Path,
) -> None:  # fmt: skip
    dataset = open_dataset(make(tmp_path / "set"))
    assert dataset.name == make.__name__
    assert len(dataset.clips) == clips
    assert classes is None or dataset.classes == classes
    assert dataset.splits == splits
    by_key = {clip.key: clip for clip in dataset.clips}
    found = by_key[first[0]]
    assert (found.key, found.labels, found.split, found.recording) == first
    assert len(found.decode(found.read(), 16_000)) == 6400
    assert dataset.notes == []


def test_class_folders_have_folds_or_splits(tmp_path: Path) -> None:
    plain = open_dataset(sets.class_folders(tmp_path / "my sounds"))
    assert (plain.name, plain.classes, plain.folds, len(plain.clips)) == ("my-sounds", sets.CLASSES, True, 24)
    assert set(plain.splits) <= set("12345")
    split = open_dataset(sets.class_folders(tmp_path / "b", splits=("train", "valid", "test")))
    assert (split.folds, split.splits, len(split.split("val"))) == (False, ("test", "train", "val"), 24)


def test_captions_are_read(tmp_path: Path) -> None:
    first = open_dataset(sets.clotho(tmp_path)).clips[0]
    assert first.captions == (*[text := "a dog barks loudly far away"] * 3, f"{text} again", text)


def test_audiocaps_and_musiccaps(tmp_path: Path) -> None:
    caps, music = tmp_path / "caps", tmp_path / "music"
    columns = ("audiocap_id", "youtube_id", "start_time", "caption")
    sets.table(
        caps / "test.csv", columns, [(7, "abc", 30, "a dog"), (8, "abc", 30, "it barks"), (9, "x-y", 0, "a cat")]
    )
    sets.write(caps / "audio" / "abc_30.wav", "siren", 0)
    sets.write(caps / "audio" / "test" / "9.wav", "siren", 1)
    dataset = open_dataset(caps)
    assert [(clip.key, clip.captions, clip.split) for clip in dataset.clips] == [
        ("abc_30", ("a dog", "it barks"), "test"), ("x-y_0", ("a cat",), "test"),
    ]  # fmt: skip
    wide = ("ytid", "start_s", "end_s", "is_audioset_eval", "caption")
    sets.table(music / "musiccaps-public.csv", wide, [("q", 0, 10, "True", "a band"), ("r", 5, 15, "False", "a choir")])
    for name in ("q", "r"):
        sets.write(music / "audio" / f"{name}.wav", "siren", 0)
    assert [clip.split for clip in open_dataset(music).clips] == ["test", "train"]


def test_other_sound_formats_are_found(tmp_path: Path) -> None:
    folder = sets.urbansound8k(tmp_path)
    path = folder / "audio" / "fold1" / "1000-0-0-0.wav"
    path.rename(path.with_suffix(".flac"))
    assert open_dataset(folder).clips[0].path.suffix == ".flac"


def test_missing_clips_are_counted_and_limited(tmp_path: Path) -> None:
    folder = sets.urbansound8k(tmp_path)
    (folder / "audio" / "fold1" / "1000-0-0-0.wav").unlink()
    dataset = open_dataset(folder)
    assert (len(dataset.clips), dataset.notes) == (26, ["1 of 27 sounds are missing: fold1/1000-0-0-0.wav"])
    for take in (1, 2):
        (folder / "audio" / "fold1" / f"100{take}-0-0-{take}.wav").unlink()
    with pytest.raises(W2CError, match="3 of 27 sounds are missing") as caught:
        open_dataset(folder)
    assert "--allow-missing" in caught.value.hint
    assert len(open_dataset(folder, most_missing=0.2).clips) == 24


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("class\n", "label\n", "lacks the column 'class'; it has slice_file_name, fsID"),
        (",dog_bark", ",cat", r"UrbanSound8K.csv:2: class is 'cat', which the set does not have"),
        ("1000-0-0-0.wav,1000", "1000-0-0-0.wav,", r"UrbanSound8K.csv:2: fsID is empty"),
    ],
)
def test_faults_name_the_row(tmp_path: Path, old: str, new: str, what: str) -> None:
    folder = sets.urbansound8k(tmp_path)
    path = folder / "metadata" / "UrbanSound8K.csv"
    text = path.read_bytes().decode().replace("\r\n", "\n")
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(W2CError, match=what):
        open_dataset(folder)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(W2CError, match="no such folder"):
        open_dataset(tmp_path / "nowhere")
    with pytest.raises(W2CError, match=r"esc50\.csv: no such table") as caught:
        open_dataset(tmp_path, "esc50")
    assert "github.com/karolpiczak/ESC-50" in caught.value.hint
    with pytest.raises(W2CError, match="neither a known data set nor folders of sounds"):
        open_dataset(tmp_path)
    with pytest.raises(SettingsError, match="no layout 'esc'"):
        open_dataset(tmp_path, "esc")
    folder = sets.musdb18(tmp_path / "songs")
    (folder / "train" / "One" / "bass.wav").unlink()
    with pytest.raises(W2CError, match=r"bass\.wav: no such stem"):
        open_dataset(folder)


def test_a_table_without_rows_and_one_in_latin_1(tmp_path: Path) -> None:
    folder = sets.clotho(tmp_path)
    path = folder / "clotho_captions_evaluation.csv"
    path.write_bytes(path.read_text().replace("a siren", "une sirène").encode("latin-1"))
    assert open_dataset(folder).split("test")[1].captions[0] == "une sirène wails"
    path.write_text(path.read_text("latin-1").splitlines()[0])
    with pytest.raises(W2CError, match=r"evaluation\.csv: has no rows"):
        open_dataset(folder)
    path.write_text(path.read_text() + "\nx.wav,,,,,\n")
    with pytest.raises(W2CError, match=r"evaluation\.csv:2: has no caption"):
        open_dataset(folder)


def test_a_part_of_a_file_has_a_digest_of_its_own(tmp_path: Path) -> None:
    sets.write(tmp_path / "a.wav", "siren", 0)
    whole = Clip(key="a", path=tmp_path / "a.wav")
    part = Clip(key="a", path=tmp_path / "a.wav", start=0.1, duration=0.2)
    assert whole.hash(whole.read()) != part.hash(part.read())
    assert len(part.decode(part.read(), 8000)) == 1600
