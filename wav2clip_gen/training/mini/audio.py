"""Sounds of the training data: split so that no recording is on both sides, augmented at each use.

Besides the shard's own metadata (JSON: `label`, the rest is optional) a member `KEY.cls` or `KEY.txt` gives the label,
as in other WebDataset tars.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
import soundfile
import soxr
import torch
import torch.nn.functional as F
from torch import Tensor

from wav2clip_gen.audio.track import ENCODER_RATE
from wav2clip_gen.errors import TrainingError
from wav2clip_gen.training.data import (
    Array,
    ByteRange,
    DecodedExamples,
    Example,
    Loader,
    read_shard,
    read_shards,
    read_table,
)
from wav2clip_gen.training.mini.concepts import WORDS, Concepts, ReadPhrases

SUFFIXES = ("ogg", "flac", "wav", "mp3", "opus")
LONGEST = 600  # seconds of a sound that are used

UNLABELED = ("urbansound8k/fold1.tar", "urbansound8k/fold2.tar")  # used without their labels
ZERO_SHOT = "urbansound8k/fold3.tar"  # never trained on
ZERO_SHOT_TABLE = "urbansound8k/UrbanSound8K.csv"
VALIDATION_FOLD = 4  # of ESC-50
VALIDATION_SHARE = 4  # one recording in so many of the labels without several folds


@dataclass(frozen=True, eq=False)
class AudioExample:
    """A labeled sound."""

    key: str
    set: str  # the data set it comes from
    label: str  # merged over the sets
    group: str  # the recording it was cut from
    read: Callable[[], Array]

    @classmethod
    def from_samples(cls, samples: Array, *, key: str, set: str, label: str = "", group: str = "") -> AudioExample:
        """A sound whose samples stay in memory."""
        return cls(key, set, label, group or key, lambda: samples)

    @property
    def samples(self) -> Array:
        """The sound (N,), int16 mono at 16 kHz."""
        return self.read()


Examples = list[AudioExample]


def load_audio(data: Path, *, loader: Loader | None = None) -> tuple[Examples, Examples, tuple[str, ...]]:
    """Read all sounds: those for training and for validation, and the names of unreadable ones.

    Raises:
        TrainingError: The folder or its shards are missing, a shard is empty, or no sound can be read.
    """
    merged = merged_labels(data)
    skipped: list[str] = []
    labels: dict[ByteRange, str] = {}
    encoded = []
    for example in read_shards(data, "audio", "audio", SUFFIXES, skipped):
        label = example.metadata.get("label", example.metadata.get("cls", example.metadata.get("txt")))
        if not isinstance(label, str | int) or label == "" or not isinstance(example.metadata.get("fold", 0), int):
            skipped.append(example.name)
        else:
            labels[example.data] = str(label)
            encoded.append(example)
    decoded = DecodedExamples(encoded, _decode_sound, loader or Loader())
    if not len(decoded):
        raise TrainingError(f"{data}: no readable sound", hint="fetch the data again")
    examples: list[AudioExample] = []
    folds: dict[str, int] = {}  # key of a sound -> its fold in ESC-50
    for index, example in enumerate(decoded.examples):
        label, read = labels[example.data], partial(decoded.__getitem__, index)
        label = merged.get((example.set, label), label)
        examples.append(AudioExample(example.key, example.set, label, recording_of(example), read))
        if "fold" in example.metadata:
            folds[example.key] = example.metadata["fold"]
    validation = validation_groups(examples, folds)
    train = [example for example in examples if example.group not in validation]
    held_out = [example for example in examples if example.group in validation]
    return train, held_out, (*skipped, *decoded.skipped)


def load_unlabeled(
    data: Path, held_out: Sequence[AudioExample], *, loader: Loader | None = None
) -> tuple[Examples, tuple[str, ...]]:
    """The sounds that are used without a label, if there are any, and the names of unreadable ones.

    Those of a recording that is held out are left out: their names begin with its Freesound number.
    """
    skipped: list[str] = []
    groups = {example.group for example in held_out}
    encoded = [
        example
        for path in (data / name for name in UNLABELED)
        if path.is_file()
        for example in read_shard(path, path.parent.name, SUFFIXES, skipped)
        if f"freesound {PurePosixPath(example.key).name.partition('-')[0]}" not in groups
    ]
    decoded = DecodedExamples(encoded, _decode_sound, loader or Loader())
    found = [
        AudioExample(example.key, example.set, "", example.key, partial(decoded.__getitem__, index))
        for index, example in enumerate(decoded.examples)
    ]
    return found, (*skipped, *decoded.skipped)


def load_zero_shot(data: Path) -> Examples:
    """The clips of UrbanSound8K's fold 3 with their classes, if they are there: sounds of labels never trained on.

    Those of recordings that are also among the training sounds are left out.

    Raises:
        TrainingError: The clips are there, but their table is missing or has no such columns.
    """
    path = data / ZERO_SHOT
    if not path.is_file():
        return []
    rows = read_table(data / ZERO_SHOT_TABLE, "slice_file_name", "class", "in_training_pack")
    classes = {
        row["slice_file_name"].removesuffix(".wav"): row["class"] for row in rows if row["in_training_pack"] == "0"
    }
    encoded = [
        example
        for example in read_shard(path, path.parent.name, SUFFIXES, [])
        if PurePosixPath(example.key).name in classes
    ]
    decoded = DecodedExamples(encoded, _decode_sound, Loader())
    return [
        AudioExample(
            example.key,
            example.set,
            classes[PurePosixPath(example.key).name],
            example.key,
            partial(decoded.__getitem__, index),
        )
        for index, example in enumerate(decoded.examples)
    ]


def recording_of(example: Example) -> str:
    """What identifies the recording a sound was cut from: its Freesound number, its source and title, or its key."""
    metadata = example.metadata
    number, source = metadata.get("fsid"), str(metadata.get("source", ""))
    if number is None:
        found = re.search(r"/sounds/(\d+)", source)
        number = found.group(1) if found else None
    if number is not None:
        return f"freesound {number}"
    return f"{example.set} {source} {metadata.get('title', example.key)}"


def freesound_numbers(examples: Examples) -> list[str]:
    """The Freesound numbers of the recordings of labeled sounds, where known: no benchmark may test on them."""
    found = {example.group.removeprefix("freesound ") for example in examples if example.group.startswith("freesound ")}
    return sorted(found, key=int)


def _decode_sound(encoded: bytes) -> Array | None:
    """A sound (N,), int16 mono at 16 kHz, or None if it is damaged or empty."""
    try:
        with soundfile.SoundFile(io.BytesIO(encoded)) as file:
            # libsndfile does not scale what is stored as floats when it is asked for integers
            kind = "float32" if file.subtype in ("FLOAT", "DOUBLE") else "int16"
            samples, rate = file.read(LONGEST * file.samplerate, dtype=kind, always_2d=True), file.samplerate
        if len(samples) == 0 or (samples.dtype == np.int16 and samples.shape[1] == 1 and rate == ENCODER_RATE):
            return samples[:, 0] if len(samples) else None
        mono = samples.mean(axis=1) / (32768 if samples.dtype == np.int16 else 1)
        resampled = soxr.resample(mono, rate, ENCODER_RATE)
    except Exception:  # the libraries raise whatever the damage leads to
        return None
    return (np.nan_to_num(resampled).clip(-1, 1) * 32767).astype(np.int16) if len(resampled) else None


def validation_groups(examples: Sequence[AudioExample], folds: dict[str, int]) -> set[str]:
    """The recordings to validate with.

    Labels with several ESC-50 folds give the recordings of one fold. The others (whose clips are all in one
    fold) give a quarter of their recordings, by the hashes of their names, if they have three or more.
    """
    by_label: dict[str, list[AudioExample]] = {}
    for example in examples:
        by_label.setdefault(example.label, []).append(example)
    held_out: set[str] = set()
    for these in by_label.values():
        if len({folds[example.key] for example in these if example.key in folds}) > 1:
            held_out |= {example.group for example in these if folds.get(example.key) == VALIDATION_FOLD}
        else:
            groups = sorted({example.group for example in these}, key=lambda name: hashlib.sha1(name.encode()).digest())
            share = max(len(groups) // VALIDATION_SHARE, 1) if len(groups) >= 3 else 0
            held_out |= set(groups[:share])
    return held_out


def merged_labels(data: Path) -> dict[tuple[str, str], str]:
    """(set, label) -> the label merged over the sets."""
    rows = read_table(data / "text" / "audio_labels.csv", "set", "label", "esc50_class")
    return {(row["set"], row["label"]): _merged(row) for row in rows}


def _merged(row: dict[str, str]) -> str:
    label = row["esc50_class"] or row["label"]
    return WORDS["synonyms"].get(label, label)


@dataclass(frozen=True, eq=False)
class AudioLabels:
    """Labels of sounds in CLIP's space."""

    names: tuple[str, ...]
    text: Tensor  # (K, 512) unit vectors, all different
    concepts: tuple[tuple[int, ...], ...]  # rows of the visible concepts of each label; may be empty


def load_audio_labels(data: Path, names: Sequence[str], concepts: Concepts, encoder: ReadPhrases | None) -> AudioLabels:
    """Give each label a vector: half from its visible concepts, half from its own name, so no two are the same."""
    visible: dict[str, set[str]] = {name: set(WORDS["visible"].get(name, ())) for name in names}
    for row in read_table(data / "text" / "audio_labels.csv", "label", "esc50_class", "anchors", "how"):
        label = _merged(row)
        if label in visible and label not in WORDS["visible"] and row["anchors"] and "(general)" not in row["how"]:
            visible[label].update(row["anchors"].split("|"))
    rows = {name: sorted(concepts.rows(found)) for name, found in visible.items()}
    if encoder is None:  # labels without visible concepts are left out
        rows = {name: found for name, found in rows.items() if found}
        text = torch.zeros(len(rows), concepts.vectors.shape[1])
    else:  # a number is no name
        rows = {name: found for name, found in rows.items() if found or re.search("[^\\W\\d_]", name)}
        text = encoder([f"the sound of {name.replace('_', ' ')}" for name in rows])
    for line, found in enumerate(rows.values()):
        if found:
            mean = F.normalize(concepts.vectors[found].mean(dim=0), dim=-1)
            text[line] = F.normalize(text[line] + mean, dim=-1)
    return AudioLabels(tuple(rows), text, tuple(tuple(found) for found in rows.values()))


def tag_names(data: Path) -> list[tuple[str, ...]]:
    """The names of each of YAMNet's tags, such as `("vehicle horn", "car horn", "honking")`; none without the teacher.

    What stands in brackets explains a name and is left out.
    """
    table = data / "teachers" / "yamnet_class_map.csv"
    if not table.is_file():
        return []
    rows = (re.sub(r" *\(.*?\)", "", row["display_name"]) for row in read_table(table, "display_name"))
    return [tuple(dict.fromkeys(name.strip() for name in row.lower().split(","))) for row in rows]


def label_names(data: Path) -> dict[str, tuple[str, ...]]:
    """The names of each label: its own, and those of the labels that mean the same."""
    found: dict[str, dict[str, None]] = {}
    for row in read_table(data / "text" / "audio_labels.csv", "label", "esc50_class"):
        names = (_merged(row), row["label"], row["esc50_class"])
        found.setdefault(_merged(row), {}).update({name.replace("_", " "): None for name in names if name})
    return {label: tuple(names) for label, names in found.items()}


def sound_names(data: Path) -> list[str]:
    """What sounds are called: labels, tags, and for those of a single word also what it does ("drilling")."""
    names = {name for row in (*label_names(data).values(), *tag_names(data)) for name in row}
    words = {name for name in names if name.isalpha() and not name.endswith("ing")}
    return sorted(names | {f"{word.removesuffix('e')}ing" for word in words})
