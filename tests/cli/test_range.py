"""`--range`: a part of a finished film again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.cli.refusals import assert_refused
from wav2clip_gen.cli.render import app
from wav2clip_gen.video.cut import picture_checksums

QUICK = ["--size", "32x32", "--fps", "4", "--first-steps", "1", "--steps", "1", "--cuts", "2", "--seed", "3"]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)])


@pytest.fixture
def film(songs: Path) -> Path:
    done = run("a.wav", *QUICK)
    assert done.exit_code == 0, done.stderr
    return songs / "a.mp4"


def test_a_part_of_a_film_is_generated_again(film: Path) -> None:
    before = picture_checksums(film)
    estimated = run(film, "--range", "0:01-0:01.5", "--dry-run", "--progress", "plain")
    assert estimated.exit_code == 0, estimated.stderr
    assert "nothing was made" in estimated.stderr
    done = run(film, "--range", "0:01-0:01.5", "-p", "a boat", "--seed", "5", "--progress", "plain")
    assert (done.exit_code, done.stdout) == (0, f"{film}\n"), done.stderr
    assert "note: 0:00.00-0:01.50 is generated again (6 frames, crossfades included), as" in done.stderr
    assert "frame 6/6" in done.stderr
    assert picture_checksums(film) != before
    (entry,) = json.loads(film.with_suffix(".json").read_text())["ranges"]
    assert (entry["settings"]["run"]["seed"], entry["settings"]["prompts"][0]["text"]) == (5, "a boat")
    replayed = run("--from", film.with_suffix(".json"), "--out", "whole.mp4", "--progress", "plain")
    assert "note: a.json tells of --range 0:01-0:01.5 too, which is left out" in replayed.stderr
    assert picture_checksums(Path("whole.mp4")) == before
    again = ["--range", "0:01-0:01.5", "--out", "other.mp4", "--progress", "none"]
    named = run("--from", film.with_suffix(".json"), *again)
    assert (named.exit_code, named.stdout) == (0, "other.mp4\n"), named.stderr
    assert len(json.loads(Path("other.json").read_text())["ranges"]) == 2


REFUSED = {
    "a.mp4 --range 2-3": "--range 2-3 is outside of the film",
    "a.mp4 --range 1-0.5": "--range 1-0.5 does not end after it begins",
    "a.mp4 --range 0-1 --size 64x64": "the size of a.mp4 is 32x32, and these settings make 64x64",
    "b.wav --range 0-1": "b.wav has no run record b.json next to it",
    "a.mp4 b.mp4 --range 0-1": "--range needs one finished film",
    "--range 0-1": "--range needs one finished film",
    "a.mp4 --range 0-1 --skip-existing": "--range and --skip-existing contradict each other",
    "a.mp4 --range 0-1 --frames-dir f": "--range and --frames-dir contradict each other",
}


def test_what_cannot_be_is_told(film: Path) -> None:
    content = film.read_bytes()
    for line, what in REFUSED.items():
        done = run(*line.split())
        assert_refused(done, what, code=2)
    assert film.read_bytes() == content
