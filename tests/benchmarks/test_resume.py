"""Runs that are killed at random moments: `make bench`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.killing import kill_and_resume

pytestmark = pytest.mark.benchmark

KILLS = 100


def test_films_of_killed_runs(table: list[tuple[str, str]], tmp_path: Path) -> None:
    found = kill_and_resume(tmp_path, kills=KILLS, seed=0)
    figure = f"{found.identical} of {found.finished} films identical; {found.resumed} runs resumed"
    table.append((f"killed {found.killed} times at random moments (kill -9), and resumed", figure))
    assert found.killed == KILLS
    assert found.identical == found.finished > 0
    assert found.left == ["song.wav", "whole.json", "whole.mp4"]
