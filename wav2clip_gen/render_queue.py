"""The films of several songs, made with the same workers: those without work begin with the next song.

Each song is made in a thread; what it reports is shown when it has its turn.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from threading import Event, Thread
from typing import TYPE_CHECKING

from wav2clip_gen.cluster import cluster_places, connect
from wav2clip_gen.cost import usual_segments
from wav2clip_gen.job import Job, films
from wav2clip_gen.painting import Stop, threads_for
from wav2clip_gen.pipeline import render_job
from wav2clip_gen.progress import Film, OnProgress, Progress
from wav2clip_gen.tasks import POLL, Places
from wav2clip_gen.video.writer import Picture
from wav2clip_gen.workers import JOIN, Workers, choose_devices

if TYPE_CHECKING:
    from wav2clip_gen.models.registry import Models

MANY = 10**6  # segments of all songs
LoadModels = Callable[..., "Models"]


class Rendering:
    """The films of a job, made in a thread."""

    def __init__(self, job: Job, load: LoadModels | None, places: Places) -> None:
        """Begin."""
        self.stop, self.shown, self.painting = Event(), Event(), Event()
        self.left = frames_of(job)  # that are still to be made
        self.finished = False  # all films are complete
        self._job, self._load, self._places, self._cancelled = job, load, places, Event()
        self.events = queue.SimpleQueue[Progress | Picture | Film | BaseException]()
        self.thread = Thread(target=self._run, daemon=True)
        self.thread.start()

    def cancel(self) -> None:
        """End it, at the latest at its next report; what is finished is kept."""
        self._cancelled.set()

    def _run(self) -> None:
        try:
            made = render_job(
                self._job,
                load=self._load,
                stop=self._stopped,
                on_progress=self._report,
                on_picture=self._show,
                places=self._places,
            )
            complete = True
            for film in made:
                complete &= not film.partial
                self.events.put(film)
            self.finished = complete
        except BaseException as error:  # it is raised where the song has its turn
            self.events.put(error)
        self.left = 0

    def _stopped(self) -> bool:
        if self._cancelled.is_set():
            raise KeyboardInterrupt
        return self.stop.is_set()

    def _report(self, progress: Progress) -> None:
        if self._cancelled.is_set():
            raise KeyboardInterrupt
        if progress.stage == "optimize":
            self.painting.set()
            self.left = progress.left
        if self.shown.is_set() or progress.message or not progress.done:
            self.events.put(progress)

    def _show(self, picture: Picture) -> None:
        if self.shown.is_set():
            self.events.put(picture)


class RenderQueue:
    """Makes the films of jobs, each when it has its turn; a context manager, which ends the workers."""

    def __init__(self, jobs: Sequence[Job], load: LoadModels | None = None) -> None:
        """`load`: loads the networks, as `load_models` does."""
        self._jobs, self._load = [*jobs], load
        self._places: Places | None = None
        self._begun = dict[int, Rendering]()  # by the place of the job

    def __enter__(self) -> RenderQueue:
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._begun.values():
            one.cancel()
        for one in self._begun.values():
            one.thread.join(JOIN)
        if self._places:
            self._places.end()

    def is_finished(self, job: Job) -> bool:
        """Whether the films of a job were finished before its turn."""
        begun = self._begun.get(self._place_of(job))
        return bool(begun and begun.finished)

    def render(
        self, job: Job, *, stop: Stop, on_progress: OnProgress, on_picture: Callable[[Picture], None]
    ) -> Generator[Film, None, None]:
        """Make the films of a job, or take what was made of them. Arguments and errors are those of `render_job`."""
        place = self._place_of(job)

        def show(progress: Progress) -> None:
            on_progress(replace(progress, later=self._later(place)))

        self._places = self._places or self._open()
        if self._places is None:
            yield from render_job(job, load=self._load, stop=stop, on_progress=show, on_picture=on_picture)
            return
        for event in self._follow(self._begin(place, self._places), self._places, stop):
            if isinstance(event, Film):
                yield event
            elif isinstance(event, Progress):
                show(event)
            else:
                on_picture(event)

    def _follow(self, one: Rendering, places: Places, stop: Stop) -> Iterator[Progress | Picture | Film]:
        """What a song reports, until it is made; meanwhile others are begun."""
        one.shown.set()
        while one.thread.is_alive() or not one.events.empty():
            try:
                if stop() and not one.stop.is_set():
                    one.stop.set()
                    self._cancel_others(one)
                event = self._next(one, places)
            except KeyboardInterrupt:
                one.cancel()
                self._cancel_others(one)
                event = self._ending(one)
            if isinstance(event, BaseException):
                raise event
            if event is not None:
                yield event

    def _next(self, one: Rendering, places: Places) -> Progress | Picture | Film | BaseException | None:
        """What was reported next; None where nothing was for a while."""
        self._begin_another(places)
        try:
            return one.events.get(timeout=POLL)
        except queue.Empty:
            return None

    def _ending(self, one: Rendering) -> BaseException:
        """How a cancelled song ended: its error tells what is kept."""
        one.thread.join(JOIN)
        while not one.events.empty():
            event = one.events.get()
            if isinstance(event, BaseException):
                return event
        return KeyboardInterrupt()

    def _begin(self, place: int, places: Places) -> Rendering:
        if place not in self._begun:
            self._begun[place] = Rendering(self._jobs[place], self._load, places)
        return self._begun[place]

    def _begin_another(self, places: Places) -> None:
        """Begin the next song, if workers have nothing else to do, and no other song is being prepared."""
        alive = [one for one in self._begun.values() if one.thread.is_alive()]
        prepared = all(one.painting.is_set() and not one.stop.is_set() for one in alive)
        if prepared and places.has_room and len(alive) <= places.count:
            place = next((place for place in range(len(self._jobs)) if place not in self._begun), None)
            if place is not None and place > min(self._begun):
                self._begin(place, places)

    def _cancel_others(self, one: Rendering) -> None:
        for other in self._begun.values():
            if other is not one:
                other.cancel()

    def _later(self, place: int) -> int:
        """Frames that are still to be made of the songs after one."""
        after = range(place + 1, len(self._jobs))
        return sum(self._begun[one].left if one in self._begun else frames_of(self._jobs[one]) for one in after)

    def _place_of(self, job: Job) -> int:
        return next(place for place, one in enumerate(self._jobs) if one is job)

    def _open(self) -> Places | None:
        """Workers, where several would have something to do; else each film is made as it is alone."""
        from wav2clip_gen.devices import choose_device

        job = self._jobs[0]
        if len(self._jobs) == 1 or any(one.selection != job.selection for one in self._jobs):
            return None
        divided = any(usual_segments(one) > 1 for one in self._jobs)
        if job.cluster:
            connect(job)
            return cluster_places(job) if divided else None
        device = choose_device(job.settings.run.device)
        devices = min((choose_devices(one, device, MANY) for one in self._jobs), key=len)
        shared = divided or device.type == "cuda" or threads_for(1) == 1
        return Workers(job.selection, devices) if len(devices) > 1 and shared else None


def frames_of(job: Job) -> int:
    """Of all films of a job."""
    return job.timeline.frames * len(films(job))
