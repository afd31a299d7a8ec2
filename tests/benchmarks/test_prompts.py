"""Memory of a long film with many cues on this machine: `make bench` adds it to the table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.benchmarks.test_speed import peak_memory

pytestmark = pytest.mark.benchmark
HOURS = 3


def test_memory(table: list[tuple[str, str]], tmp_path: Path) -> None:
    song, seconds = tmp_path / "long.wav", HOURS * 3600
    with soundfile.SoundFile(song, "w", samplerate=16_000, channels=1) as file:
        for _ in range(seconds // 60):
            file.write(np.random.default_rng(0).normal(0, 0.1, 60 * 16_000))
    for count in (10, 3000):
        cues = tmp_path / f"{count}.csv"
        length = seconds / count
        rows = (f"{length * number:.2f},{length * (number + 1):.2f},a red sky" for number in range(count))
        cues.write_text("\n".join(["start,end,text", *rows]))
        peak = peak_memory(song, "--dry-run", "--models", "mini", "--prompts", cues, "-o", tmp_path / "film.mp4")
        table.append((f"`w2c-gen --dry-run`, peak memory, {HOURS} h with {count:,} cues", f"{peak} MiB"))
