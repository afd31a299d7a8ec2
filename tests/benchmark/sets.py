"""Made-up data sets of three classes in their official layouts: sounds that even log-mel statistics tell apart."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

RATE = 16_000
CLASSES = ("dog_bark", "siren", "street_music")


def sound(label: str, number: int, seconds: float = 0.4) -> NDArray[Any]:
    """A sound of a class: noise, a tone, or a chord, a little different by its number."""
    times = np.arange(round(seconds * RATE)) / RATE
    if label == CLASSES[0]:
        return 0.3 * np.random.default_rng(number).standard_normal(len(times))
    step = number % 10 + 3 * (number // 1000)  # of recordings in folds, too
    pitches = (2000 + 30 * step,) if label == CLASSES[1] else (200 + 5 * step, 300 + 7 * step)
    return sum((0.3 * np.sin(2 * np.pi * pitch * times) for pitch in pitches), np.zeros(len(times)))


def write(path: Path, label: str, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, sound(label, number), RATE)


def table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]], *, header: bool = True) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows] if header else list(rows))


def urbansound8k(folder: Path, *, folds: int = 3, each: int = 3) -> Path:
    rows = []
    for fold in range(1, folds + 1):
        for number, label in enumerate(CLASSES):
            for take in range(each):
                recording = 1000 * fold + 10 * number + take
                name = f"{recording}-{number}-0-{take}.wav"
                write(folder / "audio" / f"fold{fold}" / name, label, recording)
                rows.append((name, recording, 0, 0.4, 1, fold, number, label))
    columns = ("slice_file_name", "fsID", "start", "end", "salience", "fold", "classID", "class")
    table(folder / "metadata" / "UrbanSound8K.csv", columns, rows)
    return folder


def esc50(folder: Path) -> Path:
    rows = []
    for fold in range(1, 6):
        for target, label in enumerate(CLASSES):
            name = f"{fold}-{fold}{target}7-A-{target}.wav"
            write(folder / "audio" / name, label, fold)
            rows.append((name, fold, target, label, "False", f"{fold}{target}7", "A"))
    columns = ("filename", "fold", "target", "category", "esc10", "src_file", "take")
    table(folder / "meta" / "esc50.csv", columns, rows)
    return folder


def vggsound(folder: Path) -> Path:
    rows = []
    for number in range(12):
        name, label = f"id-{number}", CLASSES[number % 3]
        write(folder / "audio" / f"{name}_{30 + number:06d}.wav", label, number)
        rows.append((name, 30 + number, label, "test" if number >= 6 else "train"))
    table(folder / "vggsound.csv", (), rows, header=False)
    return folder


def fsd50k(folder: Path) -> Path:
    truth = folder / "FSD50K.ground_truth"
    names = ("Bark", "Siren", "Music")
    table(truth / "vocabulary.csv", (), [(n, name, f"/m/{n}") for n, name in enumerate(names)], header=False)
    rows: dict[str, list[tuple[str, ...]]] = {"dev": [], "eval": []}
    for number in range(18):
        part, kind = ("eval" if number >= 12 else "dev"), number % 3
        write(folder / f"FSD50K.{part}_audio" / f"{number}.wav", CLASSES[kind], number)
        labels = f"{names[kind]},{names[0]}" if number % 2 and kind else names[kind]
        rows[part].append(
            (str(number), labels, "/m/0", *(() if part == "eval" else ("val" if number >= 8 else "train",)))
        )
    table(truth / "dev.csv", ("fname", "labels", "mids", "split"), rows["dev"])
    table(truth / "eval.csv", ("fname", "labels", "mids"), rows["eval"])
    return folder


CLOTHO_TEXTS = {"dog_bark": "a dog barks loudly", "siren": "a siren wails", "street_music": "music plays in a street"}


def clotho(folder: Path) -> Path:
    columns = ("file_name", *(f"caption_{n}" for n in range(1, 6)))
    for split in ("development", "evaluation"):
        rows = []
        for number, label in enumerate((*CLASSES, *CLASSES)):
            name = f"{split} {number}.v1.wav"
            write(folder / split / name, label, number)
            text = CLOTHO_TEXTS[label] + (" far away" if split == "development" else "")
            rows.append((name, *[text + (" again" if n == 3 else "") for n in range(5)]))
        table(folder / f"clotho_captions_{split}.csv", columns, rows)
    return folder


def musdb18(folder: Path, *, songs: int = 3) -> Path:
    for number, song in enumerate(("One", "Two", "Three")[:songs]):
        for stem in ("mixture", "drums", "bass", "other", "vocals"):
            write(folder / "train" / song / f"{stem}.wav", CLASSES[number], number)
    return folder


def shards(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / "sounds-000.tar", "w") as tar:
        for number in range(9):
            label = CLASSES[number % 3]
            content = io.BytesIO()
            soundfile.write(content, sound(label, number), RATE, format="WAV")
            facts = {"label": label, "fold": 1 + number // 3, "fsid": 900 + number}
            for suffix, data in (("wav", content.getvalue()), ("json", json.dumps(facts).encode())):
                member = tarfile.TarInfo(f"clip{number}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return folder


def class_folders(folder: Path, *, splits: Sequence[str] = ("",)) -> Path:
    for split in splits:
        for number in range(8):
            for label in CLASSES:
                write(folder / split / label / f"{split or 'x'}{number}{label}.wav", label, number)
    return folder
