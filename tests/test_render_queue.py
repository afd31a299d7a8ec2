"""Several songs: workers without work begin with the next, and each film is the one that it is alone."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.films import DIVIDED, make_films, names, paint_with, write_song
from wav2clip_gen.config import Settings, View
from wav2clip_gen.errors import SoundError
from wav2clip_gen.job import Job, prepare
from wav2clip_gen.models.registry import Models
from wav2clip_gen.progress import Progress
from wav2clip_gen.render_queue import RenderQueue
from wav2clip_gen.synthesis.modulation import ParameterCurves
from wav2clip_gen.tasks import Places

PATIENCE = 120.0  # seconds


@dataclass(frozen=True, eq=False)
class Following(ParameterCurves):
    """Curves that wait at frame 20 until another film has a finished chunk."""

    other: Path = Path()  # a folder

    def view(self, frame: int) -> View:
        """See above."""
        end = time.monotonic() + PATIENCE
        while frame == 20 and not ([*self.other.glob("film.w2c/chunk-*.json")] or (self.other / "film.mp4").exists()):
            if time.monotonic() > end:
                raise TimeoutError("nothing of the other film was generated")
            time.sleep(0.02)
        return super().view(frame)


def prepare_songs(folder: Path, letters: str, settings: Settings, mini: Models) -> list[Job]:
    """The same song under several names, for two workers."""
    jobs = list[Job]()
    for letter in letters:
        (folder / letter).mkdir()
        song = write_song(folder / letter)
        jobs.append(prepare(song, song.with_name("film.mp4"), settings, selection=mini.selection, workers="2"))
    return jobs


def test_free_places_go_to_the_first_film_that_has_a_task() -> None:
    first, second, places = (object(), object(), Places(2))
    films: Any = (first, second)
    with places.shared_by(films[0]), places.shared_by(films[1]):
        assert places.has_room
        assert places.take(films[0])
        assert not places.take(films[1])  # the first may have another task
        places.rest(films[0])
        assert places.take(films[1])
        assert not places.take(films[0])
        places.give_back()
        assert not places.take(films[1])
        assert places.take(films[0])
        assert not places.has_room


def test_one_task_at_a_time_computes_with_several_threads() -> None:
    films: Any = (object(), object(), object())
    places = Places(3)
    with places.shared_by(films[0]), places.shared_by(films[1]), places.shared_by(films[2]):
        assert places.take(films[0], threads=4)
        places.rest(films[0])
        assert not places.take(films[1], threads=4)
        assert places.take(films[2])
        places.give_back(4)
        places.rest(films[2])
        assert places.take(films[1], threads=4)


@pytest.mark.slow
@pytest.mark.usefixtures("short_chunks")
def test_films_that_share_workers_are_those_that_they_are_alone(tmp_path: Path, small: Settings, mini: Models) -> None:
    settings, reported = small.merged(DIVIDED), list[Progress]()
    jobs = prepare_songs(tmp_path, "abc", settings, mini)
    whole = make_films(write_song(tmp_path), settings, mini, workers="1").content
    jobs[1].track.path.unlink()
    follow: dict[str, Any] = {"stop": lambda: False, "on_progress": reported.append, "on_picture": lambda picture: None}
    with RenderQueue(jobs, lambda *_, **__: mini) as queue:
        (first,) = queue.render(jobs[0], **follow)
        with pytest.raises(SoundError, match=r"song\.wav"):
            list(queue.render(jobs[1], **follow))
        (last,) = queue.render(jobs[2], **follow)
    assert first.path.read_bytes() == last.path.read_bytes() == whole
    assert reported[0].later == 56
    assert reported[-1].later == 0
    assert names(tmp_path / "a") == names(tmp_path / "c") == ["film.json", "film.mp4", "song.wav"]


@pytest.mark.slow
@pytest.mark.usefixtures("short_chunks")
def test_the_next_song_is_generated_before_the_first_is_finished(
    tmp_path: Path, small: Settings, mini: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = small.merged(DIVIDED)
    whole = make_films(write_song(tmp_path), settings, mini, workers="1").content
    paint_with(monkeypatch, Following, of=lambda part: part.job.out.parent.name == "a", other=tmp_path / "b")
    jobs = prepare_songs(tmp_path, "ab", settings, mini)
    follow: dict[str, Any] = {"stop": lambda: False, "on_progress": lambda _: None, "on_picture": lambda _: None}
    with RenderQueue(jobs, lambda *_, **__: mini) as queue:
        films = [film for job in jobs for film in queue.render(job, **follow)]
    assert [film.path.read_bytes() for film in films] == [whole, whole]
