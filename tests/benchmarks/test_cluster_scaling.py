"""How long films take with many workers: simulated from measured times of a step, see docs/cluster.md."""

from __future__ import annotations

import pytest

from wav2clip_gen.config import Settings
from wav2clip_gen.workers import shared_time

pytestmark = pytest.mark.benchmark

LENGTH, OPTIMIZED, SHOWN = (
    30,
    194,
    180,
)  # seconds of a segment; its optimized frames, and those without run-in and seams
PLACES = {"8 cores": (8, 0.2245), "4 GPUs": (4, 0.0568), "64 GPUs": (64, 0.0568)}  # workers, seconds of a step


@pytest.mark.parametrize("song", [240, 3600])
def test_simulated_scaling(table: list[tuple[str, str]], song: int) -> None:
    painting = Settings().painting
    for name, (workers, step) in PLACES.items():
        segment = step * (painting.first_steps + painting.steps * (OPTIMIZED - 1))
        whole = step * (painting.first_steps + painting.steps * (SHOWN * song // LENGTH - 1))
        spent = shared_time([segment] * (song // LENGTH), workers)
        figure = f"{spent:.0f} s, {whole / spent:.1f} times as fast as one worker and one piece"
        lost = 1 - SHOWN / OPTIMIZED
        table.append((f"simulated: {song} s on {name}", f"{figure}; {lost:.1%} lost to run-ins and seams"))
