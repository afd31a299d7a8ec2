"""Runs that are killed at random moments: `make bench`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.killing import kill_and_resume

pytestmark = pytest.mark.benchmark

CASES = {"": (100, "none", 1), ", 3 segments": (40, "2.5", 1), ", 3 segments, 2 workers": (12, "2.5", 2)}


@pytest.mark.parametrize("case", CASES)
def test_films_of_killed_runs(case: str, table: list[tuple[str, str]], tmp_path: Path) -> None:
    kills, segments, workers = CASES[case]
    found = kill_and_resume(tmp_path, kills=kills, seed=0, segments=segments, workers=workers)
    figure = f"{found.identical} of {found.finished} films identical; {found.resumed} runs resumed"
    table.append((f"killed {found.killed} times at random moments (kill -9), and resumed{case}", figure))
    assert found.killed == kills
    assert found.identical == found.finished > 0
    assert found.left == ["song.wav", "whole.json", "whole.mp4"]
