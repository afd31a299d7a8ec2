"""Time of embedding and probing on this machine: `make bench` adds it to the table."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from tests.benchmark import sets
from tests.benchmarks.test_speed import peak_memory
from wav2clip_gen.benchmark.clips import Clip, Dataset
from wav2clip_gen.benchmark.encoders import Encoded, load_encoder
from wav2clip_gen.benchmark.features import Features, embed
from wav2clip_gen.benchmark.probe import load_protocol, probe

pytestmark = pytest.mark.benchmark

CLIPS = 1700
SIZES = {"log-mel": 128, "mini": 512, "yamnet": 1024, "openl3": 6144}  # dimensions


def write_hour(folder: Path, minutes: int) -> None:
    """Noise in clips of ten seconds, in three class folders."""
    generator = np.random.default_rng(0)
    for number in range(6 * minutes):
        path = folder / sets.CLASSES[number % 3] / f"{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.1 * generator.standard_normal(160_000), 16_000)


def test_an_hour_of_sound(table: list[tuple[str, str]], tmp_path: Path) -> None:
    write_hour(tmp_path / "hour", 60)
    encoder = load_encoder("mini", device=torch.device("cpu"))
    clips = [Clip(key=path.name, path=path) for path in sorted((tmp_path / "hour").glob("*/*.wav"))]
    began = time.perf_counter()
    embed(clips, encoder, cache=tmp_path / "cache")
    computed = time.perf_counter() - began
    began = time.perf_counter()
    embed(clips, encoder, cache=tmp_path / "cache")
    table.append(("embedding an hour of sound for a benchmark (mini, hop 0.5 s)", f"{computed:.1f} s"))
    table.append(("the same from the cache", f"{time.perf_counter() - began:.1f} s"))


def test_memory(table: list[tuple[str, str]], tmp_path: Path) -> None:
    for minutes in (6, 60):
        write_hour(tmp_path / str(minutes), minutes)
        arguments = ("--data", tmp_path / str(minutes), "--out", tmp_path, "--cache", tmp_path / "cache")
        peak = peak_memory("benchmark", "zero-shot", *arguments)
        table.append((f"`w2c-gen benchmark zero-shot`, peak memory, {minutes} min of sound", f"{peak} MiB"))


def test_probes(table: list[tuple[str, str]]) -> None:
    generator = torch.Generator().manual_seed(0)
    clips = tuple(
        Clip(key=str(number), path=Path(), labels=(str(number % 10),), split=str(number % 3 + 1), recording=str(number))
        for number in range(CLIPS)
    )
    dataset = Dataset(name="made up", clips=clips, classes=tuple("0123456789"), folds=True)
    began = time.perf_counter()
    for name, size in SIZES.items():
        means = torch.randn(10, size, generator=generator)
        frames = [means[n % 10] + 8 * torch.randn(1, size, generator=generator) for n in range(CLIPS)]
        features = Features(list(clips), [Encoded(one, one[0]) for one in frames], [])
        probe(dataset, features, load_protocol("hear"), encoder=name, identity=name, seeds=5)
    seconds = time.perf_counter() - began
    table.append((f"probes of {CLIPS} clips, 3 folds, 4 encoders, 5 seeds (protocol hear)", f"{seconds:.0f} s"))
