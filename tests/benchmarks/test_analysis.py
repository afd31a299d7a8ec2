"""Time and memory of `w2c-gen analyze` on this machine: `make bench` adds them to the table.

They measure, and assert nothing about speed.
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
import soundfile

from tests.benchmarks.test_speed import SONG, command, median, peak_memory
from tests.conftest import ROOT

pytestmark = pytest.mark.benchmark


def long_song(folder: Path, seconds: int) -> Path:
    """The sample, which is in stereo, repeated."""
    samples, rate = soundfile.read(SONG, dtype="int16", always_2d=True)
    left, path = seconds * rate, folder / f"{seconds}.flac"
    with soundfile.SoundFile(path, "w", samplerate=rate, channels=samples.shape[1]) as song:
        while left > 0:
            song.write(samples[:left])
            left -= len(samples)
    return path


@pytest.mark.parametrize(
    ("label", "options"),
    [
        ("with labels", ()),
        ("--no-labels", ("--no-labels",)),
        ("with labels and two cached stems", ("--stems", "vocals,drums", "--separator", "dsp")),
    ],
)
def test_time(table: list[tuple[str, str]], tmp_path: Path, label: str, options: tuple[str, ...]) -> None:
    arguments = command("analyze", long_song(tmp_path, 240), "--out-dir", tmp_path, "--overwrite", *options)

    def once() -> float:
        began = time.perf_counter()
        subprocess.run(arguments, capture_output=True, check=True, cwd=ROOT)
        return time.perf_counter() - began

    table.append((f"`w2c-gen analyze`, 4 min of stereo, {label}", f"{median(once, 3):.1f} s"))


def test_memory(table: list[tuple[str, str]], tmp_path: Path) -> None:
    for label, seconds in (("4 min", 240), ("1 h", 3600)):
        peak = peak_memory("analyze", long_song(tmp_path, seconds), "--out-dir", tmp_path)
        table.append((f"`w2c-gen analyze`, peak memory, {label} of stereo", f"{peak} MiB"))
