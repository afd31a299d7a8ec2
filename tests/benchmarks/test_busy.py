"""How films take a machine that does something else as well: `make bench`, on a quiet machine.

Idle threads of OpenMP that spin take the core from the thread that they wait for; see `wav2clip_gen.environment`.
Each figure is the median of the ratios of rounds, and within a round one measurement follows the other.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import ROOT, SAMPLES

pytestmark = pytest.mark.benchmark

ROUNDS = 3
USUAL_SPINNING = {"GOMP_SPINCOUNT": "300000", "KMP_BLOCKTIME": "200"}  # what the libraries do by default


def start(out: Path, **variables: str) -> subprocess.Popen[bytes]:
    """Begin a film of three seconds."""
    film = [str(SAMPLES / "africa.ogg"), "-o", str(out), "--overwrite", "--duration", "3", "--progress", "none"]
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"} | variables
    return subprocess.Popen([sys.executable, "-m", "wav2clip_gen", *film], cwd=ROOT, env=environment)


def together(*films: Path) -> float:
    """Seconds until all films are made, at once."""
    began = time.perf_counter()
    processes = [start(film) for film in films]
    assert [process.wait() for process in processes] == [0] * len(films)
    return time.perf_counter() - began


def painting(out: Path, **variables: str) -> float:
    """Seconds of painting a film."""
    assert start(out, **variables).wait() == 0
    return float(json.loads(out.with_suffix(".json").read_text())["seconds"]["optimize"])


@contextmanager
def busy_core() -> Iterator[None]:
    """Another process that never rests."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        yield
        process.kill()


def test_two_films_at_once(table: list[tuple[str, str]], tmp_path: Path) -> None:
    one, other = tmp_path / "one.mp4", tmp_path / "other.mp4"
    ratios = [together(one, other) / (together(one) + together(other)) for _ in range(ROUNDS)]
    table.append(("two films at once, relative to one after the other", f"{statistics.median(ratios):.2f}"))


def test_a_busy_core(table: list[tuple[str, str]], tmp_path: Path) -> None:
    ratios = []
    for _ in range(ROUNDS):
        with busy_core():
            busy = painting(tmp_path / "film.mp4")
        ratios.append(busy / painting(tmp_path / "film.mp4"))
    name = f"optimizing while one of {os.cpu_count()} cores is busy, relative to a quiet machine"
    table.append((name, f"{statistics.median(ratios):.2f}"))


def test_threads_that_sleep_alone(table: list[tuple[str, str]], tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    ratios = [painting(film) / painting(film, **USUAL_SPINNING) for _ in range(ROUNDS)]
    name = "optimizing on a quiet machine, relative to threads that spin as usual"
    table.append((name, f"{statistics.median(ratios):.2f}"))
