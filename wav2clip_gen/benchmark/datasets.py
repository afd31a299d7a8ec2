"""Data sets in the layouts in which they are published, and folders of one's own."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wav2clip_gen.benchmark.clips import Clip, Dataset
from wav2clip_gen.benchmark.tables import MOST_MISSING, SOUNDS, Finder, Row, read_rows
from wav2clip_gen.errors import SettingsError, W2CError

FOLDS = 5  # that a set without splits is divided into
SPLITS = {  # as folders and shards name them
    "train": "train", "dev": "train", "val": "val", "valid": "val", "validation": "val", "test": "test", "eval": "test",
}  # fmt: skip
URBAN = (
    "air_conditioner", "car_horn", "children_playing", "dog_bark", "drilling",
    "engine_idling", "gun_shot", "jackhammer", "siren", "street_music",
)  # fmt: skip
STEMS = ("mixture", "drums", "bass", "other", "vocals")  # in the order of the streams of a `.stem.mp4`
CLOTHO = {"development": "train", "validation": "val", "evaluation": "test"}
CLOTHO_FOLDERS = (*CLOTHO, *(f"clotho_audio_{split}" for split in CLOTHO), "clotho_audio")


@dataclass(frozen=True)
class Layout:
    """How a published set is recognized and read."""

    marks: tuple[str, ...]  # glob patterns of what lies in its folder; one is enough
    page: str  # where it comes from
    read: Callable[[Path, Reading], Dataset]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What the readers share."""

    name: str
    page: str
    most_missing: float = MOST_MISSING

    def rows(self, path: Path, *columns: str, **options: Any) -> list[Row]:
        """`read_rows` for this set."""
        return read_rows(path, *columns, page=self.page, **options)

    def dataset(self, clips: Sequence[Clip], finder: Finder, **facts: Any) -> Dataset:
        """The set, if enough of its sounds are there."""
        notes = finder.notes(page=self.page, most_missing=self.most_missing)
        return Dataset(name=self.name, clips=tuple(clips), notes=notes, **facts)


def open_dataset(folder: Path, name: str = "auto", *, most_missing: float = MOST_MISSING) -> Dataset:
    """Read what is known of the clips of a data set; no sound is decoded.

    Args:
        folder: The set as it is unpacked, or one shard of sounds.
        name: One of `LAYOUTS`, or "auto" for the one whose table lies in the folder.
        most_missing: Share of the clips that may be missing.

    Raises:
        SettingsError: There is no layout of that name.
        W2CError: The folder or a table is missing or damaged, or too many sounds are missing.
    """
    if folder.suffix == ".tar" and folder.is_file():
        return read_shards(folder, Reading(name=folder.stem, page=""))
    if not folder.is_dir():
        raise W2CError(f"{folder}: no such folder", hint="give the data set's folder with --data")
    if name == "auto":
        fits = (known for known, layout in LAYOUTS.items() if any(any(folder.glob(mark)) for mark in layout.marks))
        name = next(fits, "folder")
    if name not in LAYOUTS:
        raise SettingsError(f"there is no layout {name!r}", hint=f"choose from: auto, {', '.join(LAYOUTS)}")
    layout = LAYOUTS[name]
    return layout.read(folder, Reading(name=name, page=layout.page, most_missing=most_missing))


def read_esc50(folder: Path, reading: Reading) -> Dataset:
    """ESC-50: `meta/esc50.csv`, five folds of 50 classes; a recording is a Freesound upload."""
    finder, clips, classes = Finder((folder / "audio",)), [], dict[int, str]()
    for row in reading.rows(folder / "meta" / "esc50.csv", "filename", "fold", "target", "category"):
        target = int(row.number_in("target"))
        if classes.setdefault(target, row["category"]) != row["category"]:
            raise row.fault(f"target {target} is {classes[target]} elsewhere, and {row['category']} here")
        recording = row.values.get("src_file") or row["filename"].split("-")[1]
        if path := finder.find(row["filename"]):
            clips.append(_labeled(row["filename"], path, (row["category"],), row["fold"], recording))
    return reading.dataset(clips, finder, classes=tuple(classes[target] for target in sorted(classes)), folds=True)


def read_urbansound8k(folder: Path, reading: Reading) -> Dataset:
    """UrbanSound8K: `metadata/UrbanSound8K.csv`, ten folds of ten classes; the clips are cut already."""
    finder, clips = Finder((folder / "audio",)), []
    for row in reading.rows(folder / "metadata" / "UrbanSound8K.csv", "slice_file_name", "fsID", "fold", "class"):
        label = row.one_of("class", URBAN)
        if path := finder.find(f"fold{row['fold']}/{row['slice_file_name']}"):
            clips.append(_labeled(row["slice_file_name"], path, (label,), row["fold"], row["fsID"]))
    return reading.dataset(clips, finder, classes=URBAN, folds=True)


def read_vggsound(folder: Path, reading: Reading) -> Dataset:
    """VGGSound: `vggsound.csv` without a header (id, start, label, split) and sounds or videos `ID_SSSSSS.*`."""
    finder = Finder((*(folder / name for name in ("audio", "video", "Wav/train", "Wav/test")), folder))
    clips, names = [], ("id", "start", "label", "split")
    for row in reading.rows(folder / "vggsound.csv", *names, header=False):
        split = row.one_of("split", ("train", "test"))
        key = f"{row['id']}_{int(row.number_in('start')):06d}"
        if path := finder.find(key):
            clips.append(_labeled(key, path, (row["label"],), split, row["id"]))
    return reading.dataset(clips, finder, classes=_classes(clips))


def read_fsd50k(folder: Path, reading: Reading) -> Dataset:
    """FSD50K: `FSD50K.ground_truth/{dev,eval}.csv`, 200 classes, many to a clip."""
    truth = folder / "FSD50K.ground_truth"
    vocabulary_rows = reading.rows(truth / "vocabulary.csv", "number", "label", "mid", header=False)
    vocabulary = {row["label"] for row in vocabulary_rows}
    finder, clips = Finder((folder / "FSD50K.dev_audio", folder / "FSD50K.eval_audio")), []
    for table in ("dev", "eval"):
        for row in reading.rows(truth / f"{table}.csv", "fname", "labels", *(["split"] if table == "dev" else [])):
            labels = tuple(row["labels"].split(","))
            if unknown := [label for label in labels if label not in vocabulary]:
                raise row.fault(f"the class {unknown[0]!r} is not in vocabulary.csv")
            split = row.one_of("split", ("train", "val")) if table == "dev" else "test"
            if path := finder.find(row["fname"]):
                clips.append(_labeled(row["fname"], path, labels, split, row["fname"]))
    return reading.dataset(clips, finder, classes=tuple(sorted(vocabulary)), many_labels=True)


def read_clotho(folder: Path, reading: Reading) -> Dataset:
    """Clotho: `clotho_captions_SPLIT.csv` with five captions a sound; the first edition has no validation split."""
    finder, clips = Finder(tuple(folder / name for name in CLOTHO_FOLDERS)), []
    columns = tuple(f"caption_{number}" for number in range(1, 6))
    for split, ours in CLOTHO.items():
        table = folder / f"clotho_captions_{split}.csv"
        if split == "validation" and not table.exists():
            continue
        for row in reading.rows(table, "file_name", may_be_empty=columns):
            captions = tuple(row[column] for column in columns if row[column])
            if not captions:
                raise row.fault("has no caption")
            if path := finder.find(row["file_name"]):
                clips.append(_captioned(row["file_name"], path, captions, ours, row["file_name"]))
    return reading.dataset(clips, finder)


def read_audiocaps(folder: Path, reading: Reading) -> Dataset:
    """AudioCaps, `{train,val,test}.csv`; sounds named by the number of the clip, or of the video."""
    finder, clips = Finder((folder / "audio", folder)), dict[str, Clip]()
    for split in ("train", "val", "test"):
        table = folder / f"{split}.csv"
        for row in reading.rows(table, "audiocap_id", "youtube_id", "start_time", "caption") if table.exists() else []:
            key = f"{row['youtube_id']}_{row['start_time']}"
            if key in clips:  # more captions of the same sound
                clips[key] = replace(clips[key], captions=(*clips[key].captions, row["caption"]))
                continue
            stems = (row["audiocap_id"], key, row["youtube_id"])
            if path := finder.find(*(f"{inside}{stem}" for inside in ("", f"{split}/") for stem in stems)):
                clips[key] = _captioned(key, path, (row["caption"],), split, row["youtube_id"])
    return reading.dataset(tuple(clips.values()), finder)


def read_musiccaps(folder: Path, reading: Reading) -> Dataset:
    """MusicCaps: `musiccaps-public.csv`; sounds `YTID.*` of the ten seconds, AudioSet's evaluation part is the test."""
    finder, clips = Finder((folder / "audio", folder)), []
    for row in reading.rows(folder / "musiccaps-public.csv", "ytid", "start_s", "end_s", "caption", "is_audioset_eval"):
        split = "test" if row["is_audioset_eval"].lower() in ("true", "1") else "train"
        if path := finder.find(row["ytid"], f"[{row['ytid']}]-[{row['start_s']}-{row['end_s']}]"):
            clips.append(_captioned(row["ytid"], path, (row["caption"],), split, row["ytid"]))
    return reading.dataset(clips, finder)


def read_musdb18(folder: Path, reading: Reading) -> Dataset:
    """musdb18 and its HQ form: each song's mixture and stems as clips, labeled with the stem."""
    clips: list[Clip] = []
    for split in ("train", "test"):
        for path in sorted((folder / split).glob("*.stem.mp4")):
            song = path.name.removesuffix(".stem.mp4")
            stems = [_labeled(f"{song}/{stem}", path, (stem,), split, song) for stem in STEMS]
            clips += [replace(clip, stream=number) for number, clip in enumerate(stems)]
        for path in sorted((folder / split).glob("*/mixture.wav")):
            song, files = path.parent.name, {stem: path.with_stem(stem) for stem in STEMS}
            if missing := [file for file in files.values() if not file.is_file()]:
                raise W2CError(f"{missing[0]}: no such stem", hint=f"get it from the set's page: {reading.page}")
            clips += [_labeled(f"{song}/{stem}", file, (stem,), split, song) for stem, file in files.items()]
    if not clips:
        raise W2CError(f"{folder}: no songs in train or test", hint=f"get them from the set's page: {reading.page}")
    return Dataset(name=reading.name, clips=tuple(clips), classes=STEMS)


def read_shards(folder: Path, reading: Reading) -> Dataset:
    """WebDataset shards (`*.tar`, in the folder or in `audio/`): KEY.SUFFIX with KEY.json, KEY.cls or KEY.txt.

    The JSON's `label`, `labels`, `caption`, `captions`, `fold`, `split` and `fsid` are used where they are there. A set
    in which not every clip has a fold or a split is divided into five folds.
    """
    from wav2clip_gen.training.data import read_shard

    clips: list[Clip] = []
    skipped: list[str] = []
    for path in sorted((*folder.glob("*.tar"), *folder.glob("audio/*.tar"))) or [folder]:
        for example in read_shard(path, path.stem, [suffix.removeprefix(".") for suffix in SOUNDS], skipped):
            facts = example.metadata
            labels = facts.get("labels") or [facts.get("label", facts.get("cls"))]
            captions = facts.get("captions") or [facts.get("caption", facts.get("txt"))]
            clip = Clip(
                key=example.key, path=path, offset=example.data.offset, length=example.data.length,
                labels=tuple(str(label) for label in labels if label not in (None, "")),
                captions=tuple(str(caption) for caption in captions if caption),
                split=str(facts.get("fold", facts.get("split", ""))), recording=str(facts.get("fsid", example.key)),
            )  # fmt: skip
            clips.append(clip)
    folds = all(clip.split.isdigit() for clip in clips)
    if not folds and all(clip.split in SPLITS for clip in clips):
        clips = [replace(clip, split=SPLITS[clip.split]) for clip in clips]
    elif not folds:
        clips, folds = [_in_fold(clip) for clip in clips], True
    notes = [f"{len(skipped)} members of the shards cannot be read: {', '.join(skipped[:3])}"] if skipped else []
    return Dataset(
        name=reading.name, clips=tuple(clips), classes=_classes(clips), folds=folds,
        many_labels=any(len(clip.labels) > 1 for clip in clips), notes=notes,
    )  # fmt: skip


def read_folder(folder: Path, reading: Reading) -> Dataset:
    """Any folder of class folders of sounds, perhaps under train, val and test; without these, in five folds."""
    splits = {path: SPLITS[path.name.lower()] for path in sorted(folder.glob("*/")) if path.name.lower() in SPLITS}
    clips = []
    for parent, split in splits.items() or [(folder, "")]:
        for path in sorted(path for path in parent.glob("*/*") if path.suffix.lower() in SOUNDS):
            clip = _labeled(str(path.relative_to(folder)), path, (path.parent.name,), split, path.stem)
            clips.append(clip if split else _in_fold(clip))
    if not clips:
        known = ", ".join(f"{name} ({layout.marks[0]})" for name, layout in LAYOUTS.items() if layout.page)
        what = f"{folder}: neither a known data set nor folders of sounds, one for each class"
        raise W2CError(what, hint=f"a data set is known by what lies in its folder: {known}")
    name = re.sub(r"\W+", "-", folder.resolve().name).strip("-") or reading.name
    return Dataset(name=name, clips=tuple(clips), classes=_classes(clips), folds=not splits)


def _labeled(key: str, path: Path, labels: tuple[str, ...], split: str, recording: str) -> Clip:
    return Clip(key=key, path=path, labels=labels, split=split, recording=recording)


def _captioned(key: str, path: Path, captions: tuple[str, ...], split: str, recording: str) -> Clip:
    return Clip(key=key, path=path, captions=captions, split=split, recording=recording)


def _in_fold(clip: Clip) -> Clip:
    """The clip in a fold that its recording decides."""
    digest = hashlib.sha1(clip.recording.encode(), usedforsecurity=False).digest()
    return replace(clip, split=str(1 + digest[0] % FOLDS))


def _classes(clips: Sequence[Clip]) -> tuple[str, ...]:
    return tuple(sorted({label for clip in clips for label in clip.labels}))


LAYOUTS = {
    "esc50": Layout(("meta/esc50.csv",), "https://github.com/karolpiczak/ESC-50", read_esc50),
    "urbansound8k": Layout(("metadata/UrbanSound8K.csv",), "https://urbansounddataset.weebly.com", read_urbansound8k),
    "vggsound": Layout(("vggsound.csv",), "https://www.robots.ox.ac.uk/~vgg/data/vggsound", read_vggsound),
    "fsd50k": Layout(("FSD50K.ground_truth",), "https://zenodo.org/records/4060432", read_fsd50k),
    "clotho": Layout(("clotho_captions_*.csv",), "https://zenodo.org/records/4783391", read_clotho),
    "audiocaps": Layout(("test.csv", "val.csv"), "https://audiocaps.github.io", read_audiocaps),
    "musiccaps": Layout(("musiccaps-public.csv",), "https://huggingface.co/datasets/google/MusicCaps", read_musiccaps),
    "musdb18": Layout(("t*/*.stem.mp4", "t*/*/mixture.wav"), "https://zenodo.org/records/1117372", read_musdb18),
    "shards": Layout(("*.tar", "audio/*.tar"), "", read_shards),
    "folder": Layout((), "", read_folder),
}
