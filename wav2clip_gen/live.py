"""What can be seen of a run while it goes on: its stage, its newest frame, the finished part of its film, and a stop.

One thread makes films and writes here; those of a server read. Nothing here has an effect on a film, and nothing is
computed or encoded unless it is asked for. Imports no torch.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from wav2clip_gen.drawing import clock
from wav2clip_gen.environment import readable
from wav2clip_gen.errors import W2CError
from wav2clip_gen.job import Job, films
from wav2clip_gen.progress import STAGES, Film, Pace, Progress
from wav2clip_gen.report import Floats
from wav2clip_gen.video.chunks import WorkFolder

if TYPE_CHECKING:
    from wav2clip_gen.video.writer import Picture

MOST_NOTES = 50
QUALITY = 92  # of the JPEG of the newest frame


@dataclass(eq=False)
class Scene:
    """One film that is made, or was."""

    number: int  # over all songs, from 1
    job: Job
    place: str  # of the song among several, as in 3/30
    similarity: Floats  # (F,) NaN where there is no frame yet
    growth: Growth  # of its finished part
    notes: tuple[str, ...] = ()
    progress: Progress = field(default_factory=lambda: Progress(stage="load"))
    pace: Pace = field(default_factory=Pace)
    left: float | None = None  # seconds of work
    newest: tuple[int, Picture] | None = None  # how many frames there are, and the last of them
    film: Path | None = None  # when it is finished
    partial: bool = False  # it was stopped before its end
    page: Path | None = None  # the report
    failure: str = ""

    @property
    def finished(self) -> dict[str, Any]:
        """Its film, for the page, with addresses below that of the page."""
        name = self.film.name if self.film else ""
        return {
            "number": self.number,
            "name": readable(name),
            "partial": self.partial,
            "film": f"film/{self.number}/{quote(os.fsencode(name))}",
            "report": f"film/{self.number}/report" if self.page else "",
        }


class Growth:
    """How much of an mp4 that grows can be played: each question reads on where the last one ended."""

    def __init__(self, path: Path, refresh: Callable[[], object] = lambda: None) -> None:
        """Follow a file, which may not exist yet; `refresh` makes it grow."""
        self.path = path
        self._refresh = refresh
        self._lock = Lock()
        self._begin(None)

    def _begin(self, file: int | None) -> None:
        self.size = 0  # bytes up to the end of the last complete fragment
        self.fragments = 0
        self._end = 0  # of the last complete box
        self._file = file  # its number on the disk

    def update(self) -> None:
        """Look at what was added."""
        with self._lock, suppress(OSError, ValueError, W2CError):
            self._refresh()
        with self._lock, suppress(OSError), self.path.open("rb") as file:
            facts = os.fstat(file.fileno())
            whole = facts.st_size
            if facts.st_ino != self._file or whole < self._end:  # what an earlier run left was moved away
                self._begin(facts.st_ino)
            while self._end + 8 <= whole:
                file.seek(self._end)
                length, kind = struct.unpack(">I4s", file.read(8))
                if length == 1:
                    (length,) = struct.unpack(">Q", file.read(8))
                if length < 8 or self._end + length > whole:
                    return
                self._end += length
                if kind == b"mdat":
                    self.size, self.fragments = self._end, self.fragments + 1


class Live:
    """The state of a run."""

    def __init__(self) -> None:
        self.scenes: list[Scene] = []
        self.ended = Event()
        self._stop: Callable[[], None] | None = None
        self._waiting: list[Job] = []  # further films of the same song
        self._encoded: tuple[Picture | None, bytes] = (None, b"")
        self._lock = Lock()

    @property
    def current(self) -> Scene:
        """The film that is made, or the last one."""
        return self.scenes[-1]

    # for the thread that makes films

    def begin(self, job: Job, place: str = "") -> None:
        """Follow a song from now on."""
        self._waiting = list(films(job))
        self._begin_film(place, job.notes)

    def _begin_film(self, place: str, notes: tuple[str, ...]) -> None:
        job = self._waiting.pop(0)
        unknown = np.full(job.timeline.frames, np.nan)
        work = WorkFolder(job.out, job.timeline)
        growth = Growth(work.finished_film, work.finished_part)
        scene = Scene(len(self.scenes) + 1, job, place, unknown, growth)
        scene.notes = tuple(map(readable, notes))
        self.scenes.append(scene)

    def offer_stop(self, request: Callable[[], None] | None) -> None:
        """Take what stops the film gently; None: there is nothing to stop."""
        self._stop = request

    def show(self, progress: Progress) -> None:
        """Take the state of the run."""
        if progress.stage == "optimize" and self.current.film and self._waiting:
            self._begin_film(self.current.place, self.current.notes)
        scene = self.current
        if progress.message:
            self.note(progress.message.removeprefix("note: "))
        elif progress.stage == "optimize" and progress.done:
            scene.similarity[progress.done - 1] = np.nan if progress.similarity is None else progress.similarity
            pace = scene.pace.update(progress)
            scene.left = None if pace is None else pace * progress.left
        scene.progress = progress

    def note(self, text: str) -> None:
        """Take a line for the user."""
        self.current.notes = (*self.current.notes, readable(text))[-MOST_NOTES:]

    def show_picture(self, picture: Picture) -> None:
        """Take the newest frame; it is not changed from now on."""
        scene = self.current
        scene.newest = (scene.newest[0] + 1 if scene.newest else 1, picture)

    def show_film(self, film: Film) -> None:
        """Take a finished film."""
        self.current.partial, self.current.film = film.partial, film.path

    def show_page(self, page: Path) -> None:
        """Take the report of the last film."""
        self.current.page = page

    def fail(self, reason: str) -> None:
        """Take the reason why there is no film, a line for the user."""
        self.current.failure = readable(reason)

    # for the threads of a server

    def stop(self, number: int) -> bool:
        """Stop a film gently; False: it is not being made."""
        request, scene = self._stop, self.scene(number)
        if request is None or scene is not self.current or scene.film:
            return False
        request()
        return True

    def newest_frame(self, number: int) -> bytes | None:
        """The newest frame of a film as JPEG, encoded once; None where there is none."""
        from PIL import Image

        scene = self.current
        if scene.number != number or scene.newest is None:
            return None
        picture = scene.newest[1]
        with self._lock:
            if self._encoded[0] is not picture:
                file = io.BytesIO()
                Image.fromarray(picture).save(file, "JPEG", quality=QUALITY, subsampling=0)
                self._encoded = (picture, file.getvalue())
            return self._encoded[1]

    def scene(self, number: int) -> Scene | None:
        """A film by its number."""
        return self.scenes[number - 1] if 1 <= number <= len(self.scenes) else None

    def status(self) -> dict[str, Any]:
        """The state of the run, for the page."""
        scene = self.current
        progress, newest = scene.progress, scene.newest
        known = scene.similarity[np.isfinite(scene.similarity)]  # frames between optimised ones have none
        scene.growth.update()
        song, _, songs = scene.place.partition("/")
        return {
            "number": scene.number,
            "place": scene.place,
            "stage": STAGES[progress.stage],
            "done": progress.done,
            "total": progress.total,
            "optimizing": progress.stage == "optimize",
            "left": "" if scene.left is None or progress.stage != "optimize" else clock(scene.left),
            "similarity": float(known[-1]) if len(known) else None,
            "frames": newest[0] if newest else 0,
            "expected": scene.job.timeline.frames,
            "notes": scene.notes,
            "more": bool(self._waiting) or song != songs,
            "stoppable": self._stop is not None and scene.film is None,
            "part": f"part/{scene.number}-{scene.growth.size}.mp4" if scene.growth.size else "",
            "grown": scene.growth.fragments,
            "failure": scene.failure,
            "films": [one.finished for one in self.scenes if one.film],
            "ended": self.ended.is_set(),
        }
