"""What the preview shows of a run: its state, its newest frame, the part that can be played, films in turn."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests import previews, reports
from tests.previews import Run, finished_part
from wav2clip_gen import progress
from wav2clip_gen.live import Growth
from wav2clip_gen.progress import Progress
from wav2clip_gen.video.verify import probe


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """A run that has begun a film."""
    with previews.running() as running:
        running.begin(previews.make_job(tmp_path))
        yield running


def test_the_page_tells_the_song_and_the_settings(run: Run, tmp_path: Path) -> None:
    job = previews.make_job(
        tmp_path, "other", motion={"crossfade": 0.0}, prompts=[{"text": "a <b>lake", "start": 1.0, "end": 2.0}]
    )
    run.begin(job, "2/3")
    page = run.ask("")[2].decode()
    facts = re.findall(r"<span>([^<]*)</span>", page)
    assert facts[:5] == ["2/3", "0:04", "32×32", "4 fps", "seed 7"]
    assert 'style="left:25.000%;width:25.000%" title="a &lt;b&gt;lake"' in page
    assert "<dt>picture.fps</dt>" in page
    assert 'data-number="2"' in page


def test_a_hostile_title_is_text(run: Run, tmp_path: Path) -> None:
    job = previews.make_job(tmp_path)
    object.__setattr__(job.track, "title", reports.HOSTILE)
    run.begin(job)
    run.live.note(reports.HOSTILE)
    page = run.ask("")[2].decode()
    assert "<script>window" not in page
    assert "<img src=x" not in page
    assert run.status()["notes"][-1] == reports.HOSTILE


def test_the_status_follows_the_run(run: Run) -> None:
    assert run.status()["stage"] == "loading the models"
    run.live.show(Progress(stage="load", message="note: a note"))
    run.live.show(Progress(stage="separate", done=30, total=100))
    status = run.status()
    assert (status["stage"], status["done"], status["total"]) == ("separating the stems", 30, 100)
    assert (status["notes"], status["frames"], status["part"]) == (["a note"], 0, "")
    run.live.show(Progress(stage="optimize"))
    for number in (1, 2, 3):
        run.paint(number)
    run.live.current.left = 65.0
    status = run.status()
    assert (status["optimizing"], status["done"], status["total"], status["frames"]) == (True, 3, 16, 3)
    assert (status["left"], status["similarity"], status["stoppable"]) == ("1:05", 0.03, True)
    assert status["curve"]["top"] == [0, 500, 999, *[None] * 13]
    assert (status["curve"]["low"], status["curve"]["high"]) == (0.01, 0.03)
    run.live.show(Progress(stage="optimize", done=4, total=16))  # a frame between optimised ones has no similarity
    run.paint(5)
    status = run.status()
    assert status["similarity"] == 0.05
    assert status["curve"]["top"][:5] == pytest.approx([0, 250, 500, 750, 999], abs=1)


def test_the_time_left_is_measured_from_the_second_frame_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([10.0, 10.5, 11.5])
    monkeypatch.setattr(progress, "time", SimpleNamespace(perf_counter=lambda: next(seconds)))
    lefts = []
    for number in (1, 2, 3):
        run.paint(number)
        lefts.append(run.live.current.left)
    assert lefts == [None, 7.0, 9.75]
    assert run.status()["left"] == "0:10"


def test_a_frame_is_encoded_once_and_only_if_it_is_wanted(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[str] = []
    save = Image.Image.save

    def counted(self: Image.Image, *args: Any, **options: Any) -> None:
        encoded.append(args[1])
        save(self, *args, **options)

    monkeypatch.setattr(Image.Image, "save", counted)
    for number in range(1, 10):
        run.paint(number)
    assert encoded == []
    for _ in range(3):
        code, headers, body = run.ask("frame/1-9.jpg")
        assert (code, headers["Content-Type"]) == (200, "image/jpeg")
    assert encoded == ["JPEG"]
    assert np.abs(np.asarray(Image.open(io.BytesIO(body))).astype(int) - 90).max() <= 1
    assert run.ask("frame/2-9.jpg")[0] == 404


def test_the_part_that_can_be_played_ends_with_a_whole_frame(run: Run, tmp_path: Path) -> None:
    whole = previews.write_film(tmp_path / "whole.mp4").read_bytes()
    growing = finished_part(run.live.current.job.out)
    growing.write_bytes(whole * 2)  # left by an earlier run
    run.status()
    sizes = set()
    for size in [*range(0, len(whole), 100), len(whole)]:
        growing.write_bytes(whole[:size])
        status = run.status()
        sizes.add((status["grown"], status["part"]))
    assert [grown for grown, _ in sorted(sizes)] == [*range(17)]
    assert run.live.current.growth.size <= len(whole)
    code, headers, body = run.ask(next(part for grown, part in sizes if grown == 7))
    assert (code, headers["Content-Type"]) == (200, "video/mp4")
    (tmp_path / "part.mp4").write_bytes(body)
    assert probe(tmp_path / "part.mp4").frames == 7


def test_what_is_no_mp4_has_no_part(tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_bytes(bytes(100))
    growth = Growth(tmp_path / "film.mp4")
    growth.update()
    assert (growth.size, growth.fragments) == (0, 0)


def test_the_song_can_be_played(run: Run) -> None:
    code, headers, body = run.ask("sound/1", Range="bytes=0-3")
    assert (code, headers["Content-Type"], body) == (206, "audio/x-wav", b"RIFF")
    assert run.ask("sound/2")[0] == 404


def test_films_in_turn(run: Run, tmp_path: Path) -> None:
    run.grow(8)
    assert run.status()["part"]
    first = run.finish_film(page='<video src="./song.mp4">')
    assert run.status()["films"] == [
        {"number": 1, "name": "song.mp4", "partial": False, "film": "film/1/song.mp4", "report": "film/1/report"}
    ]
    assert not run.status()["stoppable"]
    run.begin(previews.make_job(tmp_path, "a #1 50% &"), "2/2")
    run.paint(1)
    status = run.status()
    assert (status["number"], status["place"], status["part"], status["frames"]) == (2, "2/2", "", 1)
    assert not status["more"]
    assert run.ask("film/1/song.mp4")[2] == first.read_bytes()
    run.finish_film(partial=True)
    found = run.status()["films"][1]
    assert (found["name"], found["partial"], found["report"]) == ("a #1 50% &.partial.mp4", True, "")
    assert run.ask(found["film"])[0] == 200


def test_one_song_may_have_several_films(run: Run, tmp_path: Path) -> None:
    """With the layout "separate"."""
    stems = [str(previews.make_job(tmp_path, name).track.path) for name in ("drums", "bass")]
    layout: dict[str, Any] = {"picture": {"layout": "separate"}, "stems": ["drums", "bass"]}
    job = previews.make_job(tmp_path, stem_files=[f"drums={stems[0]}", f"bass={stems[1]}"], **layout)
    run.begin(job)
    assert run.status()["more"]
    run.live.show(Progress(stage="optimize"))
    run.paint(1)
    run.finish_film()
    run.live.show(Progress(stage="optimize"))
    run.paint(1)
    status = run.status()
    assert (status["number"], status["more"], status["frames"]) == (3, False, 1)
    assert [one.job.out.name for one in run.live.scenes[1:]] == ["song.drums.mp4", "song.bass.mp4"]
