"""What others than this process can do of a film, and whose turn it is where several films share them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING

from wav2clip_gen.painting import Division, Events, Part, Stop, paint_seam, paint_segment
from wav2clip_gen.video.chunks import WorkFolder
from wav2clip_gen.video.division import Chunk

if TYPE_CHECKING:
    from wav2clip_gen.models.registry import Models

RETRIES = 2  # of a task whose process or machine was lost, without a chunk finished
POLL = 0.1  # seconds between two looks at whether to stop


@dataclass(frozen=True, eq=False)
class Task:
    """A segment to paint, or a seam to decode."""

    part: Part
    seam: Chunk | None  # before the segment
    keep_all: bool
    threads: int = 1  # that compute it, on a CPU

    def painted(self, models: Models, stop: Stop) -> Events:
        """Do it."""
        work = WorkFolder(self.part.job.out, self.part.job.timeline)
        work.keep_all = self.keep_all
        ends = [chunk.whole for chunk in self.part.chunks if chunk.half]
        for chunk in (*self.part.chunks, *ends, *(self.seam.halves if self.seam else ())):
            work.note(chunk)
        if self.seam:
            return paint_seam(self.part, self.seam, work, models, stop=stop)
        return paint_segment(self.part, work, models, stop=stop)


def open_tasks(
    division: Division, work: WorkFolder, others: Collection[tuple[int, Chunk | None]]
) -> Iterator[tuple[int, Chunk | None]]:
    """What can be done of a film, from its start on: segments, and seams before them; but not what others do."""
    seams = {seam.segment: seam for seam in division.seams}
    for segment in division.segments:
        number, seam = segment.number, seams.get(segment.number)
        if seam and work.is_ready(seam) and (number, seam) not in others:
            yield number, seam
        if (number, None) not in others and work.missing(division.chunks_of_segment(number)):
            yield number, None


class Places:
    """Where tasks are done, shared by films: a free place goes to the first film that has a task for it.

    A task that computes with several threads fills all cores, so that there is one of those at a time. Thread-safe.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._free, self._wide = count, False
        self._films = list[Division]()  # in the order in which they came
        self._waiting = set[Division]()  # those that may have a task
        self._lock = Lock()

    @contextmanager
    def shared_by(self, film: Division) -> Iterator[None]:
        """A film has tasks until the end of the block."""
        with self._lock:
            self._films.append(film)
        try:
            yield
        finally:
            with self._lock:
                self._films.remove(film)
                self._waiting.discard(film)

    def take(self, film: Division, threads: int = 1) -> bool:
        """Whether a film may begin a task now; if not, it asks again, or calls `rest`."""
        with self._lock:
            if threads > 1 and self._wide:
                self._waiting.discard(film)
                return False
            self._waiting.add(film)
            before = self._films[: self._films.index(film)]
            if not self._free or self._waiting.intersection(before):
                return False
            self._free -= 1
            self._wide |= threads > 1
            return True

    def give_back(self, threads: int = 1) -> None:
        """A task has ended."""
        with self._lock:
            self._free += 1
            self._wide &= threads == 1

    def rest(self, film: Division) -> None:
        """A film has nothing to begin for now."""
        with self._lock:
            self._waiting.discard(film)

    @property
    def has_room(self) -> bool:
        """Whether a task could be begun that no film has."""
        with self._lock:
            return self._free > 0 and not self._waiting

    def end(self) -> None:
        """End whatever was started."""
