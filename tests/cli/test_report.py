"""`w2c-gen report`, and pages by `--report`, as a person types them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tests import reports
from tests.cli.refusals import assert_refused
from wav2clip_gen.cli import render, report
from wav2clip_gen.models import registry
from wav2clip_gen.models.registry import Models, ModelSelection, load_models

QUICK = ["--size", "32x32", "--fps", "4", "--first-steps", "1", "--steps", "1", "--cuts", "2", "--seed", "7"]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(report.app, [str(argument) for argument in arguments])


def run_render(*arguments: object) -> Result:
    return CliRunner().invoke(render.app, [*QUICK, *map(str, arguments)])


@pytest.fixture(scope="module")
def film(mini: Models, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film that tests must not change."""
    return reports.make_film(tmp_path_factory.mktemp("film"), mini)


@pytest.fixture
def copy(film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the film in the current folder, with its record and song."""
    monkeypatch.chdir(tmp_path)
    return reports.moved(film, tmp_path)


def test_a_page_is_written_next_to_the_film(copy: Path) -> None:
    done = run("film.mp4")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "film.html\n", "analyzing the audio\n")
    page = copy.with_suffix(".html").read_text()
    assert 'src="./film.mp4"' in page
    assert "nearest labels" in page
    assert_refused(run("film.mp4"), "film.html exists")
    assert run("film.mp4", "--overwrite", "--no-labels", "--embed").exit_code == 0
    assert 'src="data:video/mp4;base64,' in copy.with_suffix(".html").read_text()


def test_notes_tell_what_the_page_lacks(copy: Path) -> None:
    copy.with_suffix(".json").unlink()
    done = run("film.mp4", "--no-labels", "--out", "page.html")
    assert (done.exit_code, done.stdout) == (0, "page.html\n"), done.stderr
    assert done.stderr.splitlines()[1:] == [
        "note: there is no run record film.json: settings, prompts and similarity are not known"
    ]


def test_several_films_have_several_pages(copy: Path) -> None:
    done = run("film.mp4", "gone.mp4", "--no-labels")
    assert (done.exit_code, done.stdout) == (1, "film.html\n")
    assert done.stderr.splitlines()[-1] == "1 of 2 pages written; failed: gone.mp4"
    assert_refused(run("film.mp4", "b.mp4", "--out", "page.html"), "cannot all go to page.html", code=2)


def test_without_a_film_nothing_happens() -> None:
    assert_refused(run(), "no film was given", code=2)


def test_a_render_writes_the_page_of_its_film(songs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[object] = []

    def load(selection: ModelSelection, **options: Any) -> Models:
        loaded.append(selection)
        return load_models(selection, **options)

    monkeypatch.setattr(registry, "load_models", load)
    done = run_render("a.wav", "--report", "--progress", "json")
    assert (done.exit_code, done.stdout) == (0, "a.mp4\n"), done.stderr
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert [one["path"] for one in events if one["event"] == "page"] == ["a.html"]
    assert 'src="./a.mp4"' in (songs / "a.html").read_text()
    assert not (songs / "index.html").exists()
    assert len(loaded) == 1


def test_several_songs_get_an_index(songs: Path) -> None:
    done = run_render("a.wav", "--report", "--out", "{stem}.mp4")
    assert done.exit_code == 0, done.stderr
    done = run_render("a.wav", "b.wav", "--report", "--skip-existing", "--progress", "plain")
    assert (done.exit_code, done.stdout) == (0, "b.mp4\n"), done.stderr
    assert done.stderr.splitlines()[-2:] == ["page index.html", "1 of 1 films made; 1 skipped"]
    index = (songs / "index.html").read_text()
    assert 'href="./a.html"' in index
    assert 'href="./b.html"' in index


def test_an_existing_page_or_index_is_found_before_the_film_is_made(songs: Path) -> None:
    (songs / "a.html").write_text("mine")
    assert_refused(run_render("a.wav", "--report"), "a.html exists")
    (songs / "index.html").write_text("mine")
    assert_refused(run_render("a.wav", "b.wav", "--report", "--overwrite"), "index.html is no index of films")
    assert not [*songs.glob("*.mp4")]


def test_contradictions_are_refused(songs: Path) -> None:
    assert_refused(run_render("a.wav", "--embed"), "--embed concerns the page", code=2)
    assert_refused(run_render("a.wav", "--report", "--storyboard"), "a storyboard has no page", code=2)


def test_a_dry_run_writes_no_page(songs: Path) -> None:
    done = run_render("a.wav", "b.wav", "--report", "--dry-run")
    assert (done.exit_code, done.stdout) == (0, ""), done.stderr
    assert sorted(path.name for path in songs.iterdir()) == ["a.wav", "b.wav"]
