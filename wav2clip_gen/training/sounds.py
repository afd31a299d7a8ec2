"""Sounds from shards: decoded once, split so that no recording is on both sides, varied at each draw.

Beside the shard's own description (JSON: `label`, and of the others what there is) a member `KEY.cls` or `KEY.txt`
gives the label, as in other WebDataset tars.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
import torch.nn.functional as F
from torch import Tensor

from wav2clip_gen.audio.track import ENCODER_RATE
from wav2clip_gen.errors import TrainingError
from wav2clip_gen.training.anchors import Concepts, Deriver
from wav2clip_gen.training.decoding import Array, Decoded, Reading
from wav2clip_gen.training.shards import Example, read_shards
from wav2clip_gen.training.tables import read_table

SOUNDS = ("ogg", "flac", "wav", "mp3", "opus")  # suffixes
LONGEST = 600  # seconds of a piece that are used

VALIDATION_FOLD = 4  # of ESC-50
VALIDATION_SHARE = 4  # one recording in so many of the labels without several folds

# Labels of different sets that mean the same, beside those the data's table already joins.
SAME = {
    "acoustic_guitar": "guitar", "violin_or_fiddle": "violin", "screeching_seagulls": "seagulls",
    "howling_wolf": "wolf", "brownian_noise": "brown_noise", "public_library": "library",
    "vinyl_effect": "vinyl_record", "busy_street": "traffic", "highway": "traffic", "road": "traffic",
    "coffee_shop": "cafe", "water_stream": "river", "flowing_water": "river", "droplets": "water_drops",
    "summer_night": "crickets", "ocean": "sea_waves", "tom_drum": "percussion",
}  # fmt: skip

# What is seen where these are heard: concepts that have pictures, which the data's table leaves out.
SEEN = {
    "sea_waves": ("sea", "seashore"), "rain": ("rain",), "thunderstorm": ("lightning", "storm", "rain"),
    "wind": ("wind", "cloud"), "pouring_water": ("water",), "water_drops": ("water",), "river": ("river",),
    "waterfall": ("waterfall",), "crackling_fire": ("fire", "fireplace"), "city": ("street", "city"),
    "traffic": ("street", "car"), "jungle": ("forest", "jungle"), "night": ("night",),
    "storm": ("storm", "rain"), "night_village": ("night",), "underwater": ("coral reef", "water"),
    "bubbles": ("water",), "church": ("church bells", "altar"), "drum_loop": ("drum",),
    "percussion": ("drum",), "electronic_percussion": ("drum",), "drum_roll": ("drum",),
    "crowd": ("crowd",), "subway_station": ("train",), "creaking_ship": ("ship",),
    "submarine": ("submarine",), "hen": ("chicken",), "rooster": ("chicken",), "crying_baby": ("baby",),
    "guitar": ("guitar",), "synth_bass": ("guitar",),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Sound:
    """One piece of sound."""

    key: str
    set: str  # the data set it comes from
    label: str  # joined over the sets
    group: str  # the recording it was cut from
    read: Callable[[], Array]

    @classmethod
    def of(cls, samples: Array, *, key: str, set: str, label: str = "", group: str = "") -> Sound:
        """A piece whose samples stay in memory."""
        return cls(key, set, label, group or key, lambda: samples)

    @property
    def samples(self) -> Array:
        """The sound (N,), int16 mono at 16 kHz."""
        return self.read()


@dataclass(frozen=True, eq=False)
class Sounds:
    """Pieces of sound on one side of the split."""

    pieces: tuple[Sound, ...]
    skipped: tuple[str, ...] = ()

    @property
    def labels(self) -> list[str]:
        """The labels that occur."""
        return sorted({piece.label for piece in self.pieces})

    @property
    def groups(self) -> set[str]:
        """The recordings that the pieces were cut from."""
        return {piece.group for piece in self.pieces}

    def having(self, labels: Sequence[str]) -> Sounds:
        """Only the pieces with one of `labels`."""
        return Sounds(tuple(piece for piece in self.pieces if piece.label in labels), self.skipped)


def load_sounds(data: Path, *, reading: Reading | None = None) -> tuple[Sounds, Sounds]:
    """Read all sounds and split them into those to train on and those to validate with.

    Raises:
        TrainingError: The folder or its shards are missing, a shard is empty, or no sound can be read.
    """
    joined = joined_labels(data)
    skipped: list[str] = []
    labels = {}
    for example in read_shards(data, "audio", "audio", SOUNDS, skipped):
        label = example.entry.get("label", example.entry.get("cls", example.entry.get("txt")))
        if not isinstance(label, str | int) or label == "" or not isinstance(example.entry.get("fold", 0), int):
            skipped.append(example.name)
        else:
            labels[example.place] = example, str(label)
    decoded = Decoded([example for example, _ in labels.values()], _decode, reading or Reading())
    if not len(decoded):
        raise TrainingError(f"{data}: no readable sound", hint="fetch the data again")
    pieces: list[Sound] = []
    folds: dict[str, int] = {}  # key of a piece -> its fold in ESC-50
    for at, example in enumerate(decoded.examples):
        name, label = set_of(example), labels[example.place][1]
        read = partial(decoded.__getitem__, at)
        pieces.append(Sound(example.key, name, joined.get((name, label), label), recording(example), read))
        if "fold" in example.entry:
            folds[example.key] = example.entry["fold"]
    validation = held_out_groups(pieces, folds)
    train = tuple(piece for piece in pieces if piece.group not in validation)
    held_out = tuple(piece for piece in pieces if piece.group in validation)
    return Sounds(train, (*skipped, *decoded.skipped)), Sounds(held_out)


def set_of(example: Example) -> str:
    """The data set a piece comes from."""
    return str(example.entry.get("set", example.set))


def recording(example: Example) -> str:
    """What tells the recording a piece was cut from: its Freesound number, its source and title, or else its key."""
    entry = example.entry
    number, source = entry.get("fsid"), str(entry.get("source", ""))
    if number is None:
        found = re.search(r"/sounds/(\d+)", source)
        number = found.group(1) if found else None
    if number is not None:
        return f"freesound {number}"
    return f"{set_of(example)} {source} {entry.get('title', example.key)}"


def _decode(encoded: bytes) -> Array | None:
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


def held_out_groups(pieces: Sequence[Sound], folds: dict[str, int]) -> set[str]:
    """The recordings to validate with.

    Labels with several ESC-50 folds give the recordings of one fold. The others (whose clips are all in one
    fold) give a quarter of their recordings, by the order of the names' digests, if they have three or more.
    """
    by_label: dict[str, list[Sound]] = {}
    for piece in pieces:
        by_label.setdefault(piece.label, []).append(piece)
    held_out: set[str] = set()
    for these in by_label.values():
        if len({folds[piece.key] for piece in these if piece.key in folds}) > 1:
            held_out |= {piece.group for piece in these if folds.get(piece.key) == VALIDATION_FOLD}
        else:
            groups = sorted({piece.group for piece in these}, key=lambda name: hashlib.sha1(name.encode()).digest())
            share = max(len(groups) // VALIDATION_SHARE, 1) if len(groups) >= 3 else 0
            held_out |= set(groups[:share])
    return held_out


def joined_labels(data: Path) -> dict[tuple[str, str], str]:
    """(set, label) -> the label joined over the sets."""
    joined = {}
    for row in read_table(data / "text" / "audio_labels.csv", "set", "label", "esc50_class"):
        label = row["esc50_class"] or row["label"]
        joined[row["set"], row["label"]] = SAME.get(label, label)
    return joined


@dataclass(frozen=True, eq=False)
class Labels:
    """Audio labels in CLIP's space."""

    names: tuple[str, ...]
    text: Tensor  # (K, 512) unit vectors, each its own
    seen: tuple[tuple[int, ...], ...]  # rows of the concepts that are seen where a label is heard; may be empty

    def index(self, name: str) -> int:
        """Row of a label."""
        return self.names.index(name)


def label_table(data: Path, names: Sequence[str], concepts: Concepts, derive: Deriver | None) -> Labels:
    """Give each audio label a vector: half of what is seen, half of its own words, so no two are the same."""
    anchors: dict[str, set[str]] = {name: set(SEEN.get(name, ())) for name in names}
    for row in read_table(data / "text" / "audio_labels.csv", "label", "esc50_class", "anchors", "how"):
        label = row["esc50_class"] or row["label"]
        label = SAME.get(label, label)
        if label in anchors and label not in SEEN and row["anchors"] and "(general)" not in row["how"]:
            anchors[label].update(row["anchors"].split("|"))
    rows = {name: sorted(concepts.rows(found)) for name, found in anchors.items()}
    if derive is None:  # labels that nothing is seen of stay out
        rows = {name: found for name, found in rows.items() if found}
        text = torch.zeros(len(rows), concepts.vectors.shape[1])
    else:  # a number is no name
        rows = {name: found for name, found in rows.items() if found or re.search("[^\\W\\d_]", name)}
        text = derive([f"the sound of {name.replace('_', ' ')}" for name in rows])
    for line, found in enumerate(rows.values()):
        if found:
            sight = F.normalize(concepts.vectors[found].mean(dim=0), dim=-1)
            text[line] = F.normalize(text[line] + sight, dim=-1)
    return Labels(tuple(rows), text, tuple(tuple(found) for found in rows.values()))


def excerpt(piece: Sound, length: int, *, generator: torch.Generator, stretch: float = 0.15) -> Tensor:
    """A random part of a piece (length,), played up to `stretch` faster or slower; repeated if too short."""
    factor, place = torch.rand(2, generator=generator).tolist()
    wanted = int(length * (1 + stretch * (2 * factor - 1)))
    samples = piece.samples
    if len(samples) < wanted:
        samples = np.tile(samples, -(-wanted // len(samples)))
    start = int(place * (len(samples) - wanted + 1))
    cut = torch.from_numpy(samples[start : start + wanted].astype(np.float32) / 32768)
    return F.interpolate(cut[None, None], size=length, mode="linear", align_corners=False)[0, 0]


def loud_window(context: Tensor, length: int, *, generator: torch.Generator) -> Tensor:
    """A window (length,) of `context`, the loudest of three drawn: pieces are often padded with silence."""
    starts = torch.randint(len(context) - length + 1, (3,), generator=generator).tolist()
    return max((context[start : start + length] for start in starts), key=lambda window: window.square().sum().item())
