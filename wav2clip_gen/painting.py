"""The frames of a film, painted chunk by chunk into its work folder."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from wav2clip_gen.config import Settings
from wav2clip_gen.drawing import clock
from wav2clip_gen.job import Job, pictures
from wav2clip_gen.memory import shortage_explained
from wav2clip_gen.progress import StageClock
from wav2clip_gen.record import FrameValues
from wav2clip_gen.video.chunks import Chunk, Finished, WorkFolder, divide
from wav2clip_gen.video.grid import Grid
from wav2clip_gen.video.writer import FilmWriter, Picture

SHORTAGE = (
    "memory ran out at frame {frame}: from here on CLIP takes {size} cutouts at a time, as with --cut-batch {size}"
)

if TYPE_CHECKING:
    from torch import Tensor

    from wav2clip_gen.models.registry import Models
    from wav2clip_gen.synthesis.conditioning import Conditioning
    from wav2clip_gen.synthesis.modulation import ParameterCurves


class Painter:
    """Optimises the frames of a segment in order: one picture, or a grid of several with the same seed."""

    def __init__(
        self,
        job: Job,
        models: Models,
        conditioning: Mapping[str, Conditioning],
        parameters: ParameterCurves,
        *,
        state: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Start anew, or continue from a state; `conditioning`: of each picture, by caption."""
        from wav2clip_gen.synthesis.optimizer import FrameOptimizer, generator_for

        self._job, self._selection, self._parameters = job, models.selection, parameters
        self._painted = painted_frames(job)
        self._grid = grid_of(job.settings)
        self._targets = {caption: one.targets.to(models.device) for caption, one in conditioning.items()}
        with shortage_explained(job.settings, models.selection):
            self._optimizers = {
                caption: FrameOptimizer(models, job.settings, generator=generator_for(job.seed, models.device))
                for caption in conditioning
            }
        if state:
            self.restore(state)

    def frames(self, frames: range) -> Iterator[tuple[Picture, FrameValues]]:
        """Frames that follow those before, the last an optimised one."""
        painted = self._painted[bisect_left(self._painted, frames.start) : bisect_left(self._painted, frames.stop)]
        for after, index in pairwise([frames.start - 1, *painted]):
            each = [
                one.frames(index, self._targets[caption][index], self._parameters, after=after)
                for caption, one in self._optimizers.items()
            ]
            for _ in range(after, index):
                with shortage_explained(self._job.settings, self._selection):
                    made = [next(one) for one in each]
                values = [(frame.loss, frame.similarity) for frame in made]
                loss, similarity = (_mean(column) for column in zip(*values, strict=True))
                by_caption = dict(zip(self._optimizers, values, strict=True)) if self._grid else {}
                batch = min(one.cut_batch for one in self._optimizers.values())
                shown = [frame.picture for frame in made]
                picture = self._grid.join(shown) if self._grid else shown[0]
                yield picture, FrameValues(loss, similarity, by_caption, batch)

    def state(self) -> dict[str, Tensor]:
        """All that the frames after those before depend on; see `FrameOptimizer.state`."""
        each = enumerate(self._optimizers.values())
        return {f"{number}.{name}": value for number, one in each for name, value in one.state().items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a state."""
        for number, one in enumerate(self._optimizers.values()):
            own = f"{number}."
            one.restore({name.removeprefix(own): value for name, value in state.items() if name.startswith(own)})


def paint_film(
    job: Job,
    work: WorkFolder,
    painter: Callable[[], Painter],
    *,
    stop: Callable[[], bool],
    stages: StageClock,
    on_picture: Callable[[Picture], None],
) -> tuple[list[FrameValues], float]:
    """Paint the chunks of a film that are not finished, and join all as the picture of the work folder.

    Args:
        job: The film.
        work: Its folder; with what is finished already.
        painter: Makes the painter of its only segment.
        stop: Called after each frame; when it returns true the film ends there.
        stages: Is told the progress.
        on_picture: Called with each frame that was written.

    Returns:
        What was measured of each frame, and the seconds that an earlier run spent on them.
    """
    chunks = chunks_of(job)
    missing, frames, spent, joined = work.missing(chunks), list[FrameValues](), 0.0, list[Chunk]()
    if len(missing) < len(chunks):
        at = missing[0].start if missing else job.timeline.frames
        place, total = clock(float(at / job.timeline.fps)), clock(float(job.timeline.duration))
        stages.report(message=f"resuming at {place} of {total}", done=at, total=job.timeline.frames)
    painting, position, unfinished = painter() if missing else None, 0, 0
    for chunk in chunks:
        if painting is None or chunk not in missing:
            done = work.finished(chunk)
            assert done
            frames, spent = [*frames, *_measured(done)], spent + done.seconds
            joined.append(chunk)
            continue
        if frames and stop():
            break
        if position != chunk.start:
            state = work.state(chunks[chunk.number - 1])
            assert state
            painting.restore(state)
        made = _paint_chunk(job, work, painting, chunk, stop=stop, stages=stages, before=frames, on_picture=on_picture)
        frames, position = [*frames, *made], chunk.stop
        if len(frames) < chunk.stop:
            unfinished = len(made)
            break
        joined.append(chunk)
    work.join(joined, unfinished=unfinished)
    return frames, spent


def _paint_chunk(
    job: Job,
    work: WorkFolder,
    painter: Painter,
    chunk: Chunk,
    *,
    stop: Callable[[], bool],
    stages: StageClock,
    before: Sequence[FrameValues],
    on_picture: Callable[[Picture], None],
) -> list[FrameValues]:
    """Paint a chunk; it is finished unless the film ends within it."""
    began, made, last = time.perf_counter(), list[FrameValues](), before[-1] if before else None
    with _film_writer(work.part(chunk), job, chunk.start, on_picture) as writer:
        for picture, values in painter.frames(range(chunk.start, chunk.stop)):
            writer.write(picture)
            made.append(values)
            done = len(before) + len(made)
            if last and values.cut_batch < last.cut_batch:
                stages.report(message=f"note: {SHORTAGE.format(frame=done - 1, size=values.cut_batch)}")
            last = values
            stages.report(done=done, total=job.timeline.frames, loss=values.loss, similarity=values.similarity)
            if stop():
                break
    if len(made) == chunk.stop - chunk.start:
        plain = [asdict(values) for values in made]
        work.finish(chunk, painter.state(), plain, seconds=time.perf_counter() - began)
    return made


def chunks_of(job: Job) -> tuple[Chunk, ...]:
    """The chunks of a film."""
    return divide(range(job.timeline.frames), painted_frames(job), job.timeline.fps)


def painted_frames(job: Job) -> list[int]:
    """The frames of a film that are optimised."""
    return [int(index) for index in job.timeline.painted_frames(job.settings.picture.painted_fps)]


def grid_of(settings: Settings) -> Grid | None:
    """The grid of a film with several pictures."""
    picture = settings.picture
    return Grid(list(pictures(settings)), size=(picture.width, picture.height)) if picture.layout == "grid" else None


def _film_writer(path: Path, job: Job, first: int, on_picture: Callable[[Picture], None]) -> FilmWriter:
    picture, grid = job.settings.picture, grid_of(job.settings)
    size = grid.size if grid else (picture.width, picture.height)
    return FilmWriter(
        path, size=size, fps=job.timeline.fps, upscale=picture.upscale, frames_dir=job.frames_dir, first=first,
        on_picture=on_picture,
    )  # fmt: skip


def _measured(done: Finished) -> list[FrameValues]:
    return [
        FrameValues(**(one | {"pictures": {name: tuple(pair) for name, pair in one["pictures"].items()}}))
        for one in done.frames
    ]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
