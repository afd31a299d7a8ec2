"""A film from its segments: what is finished, what is painted now, and what was measured of each frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from itertools import takewhile
from typing import TYPE_CHECKING

from wav2clip_gen.cluster import cluster_places, paint_on_cluster
from wav2clip_gen.drawing import clock
from wav2clip_gen.painting import Division, Events, Painted, Stop, measured, paint_here, threads_for
from wav2clip_gen.progress import StageClock
from wav2clip_gen.record import FrameValues
from wav2clip_gen.tasks import Places
from wav2clip_gen.video.chunks import WorkFolder
from wav2clip_gen.video.writer import Picture
from wav2clip_gen.workers import Workers, choose_devices, paint_in_workers

if TYPE_CHECKING:
    from wav2clip_gen.models.registry import Models

SHORTAGE = (
    "memory ran out at frame {frame}: from here on CLIP takes {size} cutouts at a time, as with --cut-batch {size}"
)


def paint_film(
    division: Division,
    work: WorkFolder,
    models: Models,
    *,
    places: Places | None = None,
    stop: Stop,
    stages: StageClock,
    on_picture: Callable[[Picture], None],
) -> tuple[list[FrameValues], float]:
    """Paint the chunks of a film that are not finished, and join all as the picture of the work folder.

    Args:
        division: The film.
        work: Its folder; with what is finished already.
        models: Networks.
        places: Workers, or those of a cluster, that other films share; by default its own.
        stop: Called after each frame; when it returns true the film ends at the first frame that is not finished.
        stages: Is told the progress.
        on_picture: Called with each frame that was written; of frames that workers write, now and then.

    Returns:
        What was measured of each frame, and the seconds that an earlier run spent on them.
    """
    film = _Progress(division, work, stages)
    if film.open:
        with _events(film.open, division, work, models, places, stop=stop, report=film.report) as events:
            for painted in events:
                if painted.picture is not None:
                    on_picture(painted.picture)
                film.note(painted)
    return film.join(), film.earlier


@contextmanager
def _events(
    segments: int,
    division: Division,
    work: WorkFolder,
    models: Models,
    places: Places | None,
    *,
    stop: Stop,
    report: Callable[[str], None],
) -> Iterator[Events]:
    """Paint a film in places that it shares, or as many of its own as `segments` are worth; else in this process."""
    job = division.job
    with ExitStack() as stack:
        if places is None and not job.cluster:
            devices = choose_devices(job, models.device, segments)
            places = Workers(models.selection, devices) if len(devices) > 1 else None
            stack.callback(places.end) if places else None
        if job.cluster and len(division.segments) > 1:
            painting = paint_on_cluster(division, work, places or cluster_places(job), stop=stop)
        elif isinstance(places, Workers):
            painting = paint_in_workers(division, work, places, stop=stop, report=report)
        else:
            painting = paint_here(division, work, models, stop=stop)
            stack.enter_context(threads(threads_for(len(division.segments))))
        yield stack.enter_context(closing(painting))


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Compute with so many threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Progress:
    """What is known of the frames of a film while it is painted."""

    def __init__(self, division: Division, work: WorkFolder, stages: StageClock) -> None:
        self._division, self._work, self._stages = division, work, stages
        again = [chunk for one in division.segments for chunk in work.missing(division.chunks_of_segment(one.number))]
        unfinished = [seam for seam in division.seams if not work.finished(seam)]
        self.open = len({chunk.segment for chunk in (*again, *unfinished)})  # segments that something lacks of
        self.earlier = 0.0  # seconds
        self._values: dict[int, FrameValues] = {}  # by frame
        self._batches: dict[int, int] = {}  # cutouts that CLIP takes at a time, by segment
        for chunk in division.all_chunks:
            done = work.finished(chunk)
            if done and chunk not in again:
                self.earlier += done.seconds
                if not chunk.half:
                    self._values |= dict(zip(range(chunk.start, chunk.stop), measured(done), strict=True))
        self._unseen = {  # by segment, until its first frame is known
            one.number: one.run_in + 2 * one.fade_in for one in division.segments if one.alone.start not in self._values
        }
        if self._values:
            timeline = division.job.timeline
            place, total = (clock(float(one)) for one in (len(self._values) / timeline.fps, timeline.duration))
            self.report(f"resuming at {place} of {total}")

    def note(self, painted: Painted) -> None:
        """Count a frame, and report it."""
        if painted.frame is None or painted.values is None:
            return
        chunk, values = painted.chunk, painted.values
        for note in painted.notes:
            self.report(note)
        if values.cut_batch < self._batches.get(chunk.segment, 0):
            self.report(f"note: {SHORTAGE.format(frame=painted.frame, size=values.cut_batch)}")
        if not chunk.seam:
            self._batches[chunk.segment] = values.cut_batch
        self._unseen.pop(chunk.segment, None)
        self._values[painted.frame] = values
        self.report(loss=values.loss, similarity=values.similarity)

    def report(self, message: str = "", **known: float | None) -> None:
        """Report how many frames are done, with a line for the user or what is known of the newest frame."""
        total = self._division.job.timeline.frames
        unseen = sum(self._unseen.values())
        self._stages.report(message=message, done=len(self._values), total=total, unseen=unseen, **known)

    def join(self) -> list[FrameValues]:
        """Join what is finished without a gap, and return its values."""
        joined = [*takewhile(self._work.finished, self._division.chunks)]
        frames, end = joined[-1].stop if joined else 0, self._division.job.timeline.frames
        last = self._division.chunks[len(joined)].stop if len(joined) < len(self._division.chunks) else end
        unfinished = len([*takewhile(self._values.__contains__, range(frames, last))])
        if not joined and not unfinished:
            raise KeyboardInterrupt  # stopped before the first frame
        self._work.join(joined, unfinished=unfinished)
        return [self._values[number] for number in range(frames + unfinished)]
