"""Runs that are interrupted or killed, and resumed by the same command."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.conftest import Write
from tests.interruption import interrupted
from tests.killing import kill_and_resume
from wav2clip_gen.cli.render import app
from wav2clip_gen.video.verify import probe

QUICK = ("--size", "32x32", "--first-steps", "1", "--steps", "1", "--cuts", "2", "--fps", "8", "--painted-fps", "4")
MORE = (pytest.mark.slow, pytest.mark.more)


@pytest.fixture
def song(write_sound: Write) -> Path:
    """Seven seconds, 56 frames, four chunks."""
    t = np.arange(7 * 16_000) / 16_000
    return write_sound(0.4 * np.sin(2 * np.pi * 330 * t) * (t % 1))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def run(song: Path, out: Path, *options: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(song), "-o", str(out), *QUICK, "--progress", "plain", *options])
    return done.exit_code, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.more)])
def test_an_interrupted_film_is_resumed_with_its_seed_and_is_the_same(number: int, song: Path, tmp_path: Path) -> None:
    out = tmp_path / "film.mp4"
    code, _, stderr = interrupted(song, "-o", out, *QUICK, when=lambda line: line.get("done", 0) > 20, number=number)
    assert code == -number, stderr
    partial = ["film.partial.json", "film.partial.mp4"] * (number == signal.SIGTERM)
    assert names(tmp_path) == [*partial, "film.w2c", "song.wav"]
    if partial:
        assert probe(tmp_path / "film.partial.mp4").frames > 20
    seed = json.loads((tmp_path / "film.w2c" / "plan.json").read_text())["settings.run.seed"]
    code, stderr = run(song, out)
    assert code == 0, stderr
    assert "resuming at 0:0" in stderr
    assert f"seed {seed}" in stderr
    assert names(tmp_path) == ["film.json", "film.mp4", *partial, "song.wav"]
    code, stderr = run(song, tmp_path / "whole.mp4", "--seed", str(seed))
    assert code == 0, stderr
    assert sha256(out) == sha256(tmp_path / "whole.mp4")


@pytest.mark.slow
@pytest.mark.more
def test_what_differs_is_told_and_fresh_begins_anew(song: Path, tmp_path: Path) -> None:
    out = tmp_path / "film.mp4"
    interrupted(song, "-o", out, *QUICK, when=lambda line: line.get("done", 0) > 20, number=signal.SIGKILL)
    code, stderr = run(song, out, "--steps", "2")
    assert code == 1
    assert (
        f"error: {out.with_suffix('.w2c')} is of an interrupted run that differs: painting.steps was 1, now 2" in stderr
    )
    assert "--fresh deletes what it has finished" in stderr
    code, stderr = run(song, out, "--steps", "2", "--fresh", "--keep-work")
    assert code == 0, stderr
    assert "resuming" not in stderr
    assert names(tmp_path) == ["film.json", "film.mp4", "film.w2c", "song.wav"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(
    ("kills", "segments", "workers"),
    [(8, "none", 1), pytest.param(8, "2.5", 1, marks=MORE), pytest.param(3, "2.5", 2, marks=MORE)],
)
def test_films_of_runs_that_are_killed_at_random_are_the_same(
    kills: int, segments: str, workers: int, tmp_path: Path
) -> None:
    """A few times; tests/benchmarks does it a hundred times."""
    found = kill_and_resume(tmp_path, kills=kills, seed=1, segments=segments, workers=workers)
    assert found.killed == kills
    assert found.identical == found.finished > 0
    assert found.resumed > 0
    assert found.left == ["song.wav", "whole.json", "whole.mp4"]
