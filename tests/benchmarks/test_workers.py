"""How much faster a film of several segments is made by two workers than by one: `make bench`, on a quiet machine."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.conftest import ROOT, SAMPLES
from tests.interruption import has_frames

pytestmark = pytest.mark.benchmark

ROUNDS = 3
SEGMENTS, SECONDS = 4, 10


@pytest.fixture
def song(tmp_path: Path) -> Path:
    samples, rate = soundfile.read(SAMPLES / "africa.ogg")
    samples = np.concatenate([samples] * SEGMENTS)[: SEGMENTS * SECONDS * rate]
    soundfile.write(tmp_path / "song.wav", samples, rate)
    return tmp_path / "song.wav"


def pace(song: Path, workers: int) -> tuple[float, float]:
    """Frames a second, from the first to the last; and seconds of optimizing, with the loading of the models."""
    film = song.with_name("film.mp4")
    options = [
        "--segments",
        str(SECONDS),
        "--workers",
        str(workers),
        "--overwrite",
        "--seed",
        "7",
        "--progress",
        "json",
    ]
    command = [sys.executable, "-m", "wav2clip_gen", str(song), "--out", str(film), *options]
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    times = list[tuple[float, int]]()
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment) as process:
        assert process.stderr
        for line in process.stderr:
            progress = json.loads(line)
            if has_frames(progress):
                times.append((time.perf_counter(), progress["done"]))
    assert process.returncode == 0
    (began, first), *_, (ended, last) = times
    return (last - first) / (ended - began), json.loads(film.with_suffix(".json").read_text())["seconds"]["optimize"]


def test_scaling_from_one_worker_to_two(table: list[tuple[str, str]], song: Path) -> None:
    rounds = [(pace(song, 1), pace(song, 2)) for _ in range(ROUNDS)]
    faster = statistics.median(two[0] / one[0] for one, two in rounds)
    whole = statistics.median(one[1] / two[1] for one, two in rounds)
    name = f"two workers instead of one, {SEGMENTS} segments of {SECONDS} s on {os.cpu_count()} cores"
    table.append((name, f"{faster:.2f} times as fast; {whole:.2f} with the loading of their models"))
