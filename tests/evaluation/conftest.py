"""Data small enough for tests, in the layout of the real one, and families that recognize all or nothing."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import soundfile
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.training.conftest import COLOURS, ToySentences, add, write_pictures, write_table, write_text
from wav2clip_gen.evaluation.held_out import AUDIOSET
from wav2clip_gen.models.registry import Models
from wav2clip_gen.training.mini import concepts

LABELS = ("dog", "cat", "sea_waves")  # and as many steps up from 300 Hz, two octaves each
RECORDINGS = 5
SECONDS = 3.0
LOUD_FROM = 1.0  # seconds; before that the pieces are ten times as quiet


def encoded_tone(number: int) -> bytes:
    """An Ogg file of the tone of one of `LABELS`."""
    t = np.arange(round(SECONDS * 16_000)) / 16_000
    tone = 0.4 * np.sin(2 * np.pi * 300 * 4**number * t) * np.where(t < LOUD_FROM, 0.1, 1.0)
    encoded = io.BytesIO()
    soundfile.write(encoded, tone, 16_000, format="OGG", subtype="VORBIS")
    return encoded.getvalue()


def _write_sounds(path: Path) -> None:
    """A shard of tones of two folds of ESC-50."""
    path.parent.mkdir(parents=True)
    with tarfile.open(path, "w") as tar:
        for number, label in enumerate(LABELS):
            for recording in range(RECORDINGS):
                key = f"{label}_{recording}"
                described = {
                    "set": "esc", "label": label, "anchors": [], "title": key, "author": "-", "licence": "CC0",
                    "source": "made here", "fsid": 100 * number + recording, "fold": 4 if recording < 2 else 1,
                }  # fmt: skip
                add(tar, f"{key}.ogg", encoded_tone(number))
                add(tar, f"{key}.json", json.dumps(described).encode())


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of data; not to be changed. Two sounds of each class are held out, and eight photographs."""
    data = tmp_path_factory.mktemp("evaluation-data")
    for split, count in (("train", 36), ("val", 8)):
        write_pictures(data / "images" / f"{split}-natural-000.tar", count=count, size=128, seed=1)
        write_pictures(data / "images" / f"{split}-tiny-000.tar", count=4, size=64, seed=2)
    _write_sounds(data / "audio" / "audio-toy-000.tar")
    write_text(data / "text")
    sounds = [
        {"set": "esc", "label": label, "human_name": label, "anchors": "" if label == "sea_waves" else label,
         "how": "exact", "esc50_class": label, "clips": RECORDINGS}
        for label in LABELS
    ]  # fmt: skip
    write_table(data / "text" / "audio_labels.csv", sounds)
    (data / "teachers").mkdir()
    names = sorted({name for these in AUDIOSET.values() for name in these})
    write_table(
        data / "teachers" / "yamnet_class_map.csv",
        [{"index": row, "mid": f"/m/{row}", "display_name": name} for row, name in enumerate(names)],
    )
    return data


@pytest.fixture(autouse=True)
def _toy_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(concepts, "SentenceModel", ToySentences)


class _Stub:
    """Networks whose answer to each question is one of the first axes of the space, or always the last."""

    device = torch.device("cpu")
    size = 64

    def __init__(self, *, recognizes: bool) -> None:
        self._recognizes = recognizes

    def _axes(self, numbers: Iterable[int]) -> Tensor:
        return F.one_hot(torch.tensor([number if self._recognizes else 511 for number in numbers]), 512).float()

    def encode_sound(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        """By pitch."""
        found = []
        for window in windows:
            hertz = torch.fft.rfft(window).abs().argmax().item() * 16_000 / len(window)
            found.append(int(np.argmin([abs(np.log(max(hertz, 1) / (300 * 4**at))) for at in range(len(LABELS))])))
        frames = self._axes(found)
        return frames, F.normalize(frames.mean(dim=0), dim=0)

    def encode_text(self, texts: list[str]) -> Tensor:
        """By what they end with; all else lies far from the sounds."""
        words = [name.replace("_", " ") for name in LABELS]
        synonyms = {"bark": 0, "meow": 1, "ocean": 2, "dog bark": 0, "street music": 1}
        found: list[int] = []
        for text in texts:
            name = text.removeprefix("the sound of ")
            found.append(words.index(name) if name in words else synonyms.get(name, 100 + len(found) % 400))
        return self._axes(found)

    def encode_images(self, pictures: Tensor) -> Tensor:
        """By colour."""
        known = {"dog": 0, "cat": 1, "drum": 90, "sea": 2}
        colours = torch.tensor(list(COLOURS.values())) / 255
        nearest = torch.cdist(pictures.mean(dim=(2, 3)), colours).argmin(dim=1).tolist()
        return self._axes(known[list(COLOURS)[at]] for at in nearest)


def _family(mini: Models, *, recognizes: bool) -> Models:
    stub = cast(Any, _Stub(recognizes=recognizes))
    return Models(selection=mini.selection, wav2clip=stub, clip=stub, vqgan=mini.vqgan)


@pytest.fixture
def oracle(mini: Models) -> Models:
    """A family that recognizes everything."""
    return _family(mini, recognizes=True)


@pytest.fixture
def constant(mini: Models) -> Models:
    """A family to which everything is the same."""
    return _family(mini, recognizes=False)
