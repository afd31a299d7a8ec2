"""The frames of a film, painted chunk by chunk into its work folder, each segment by itself."""

from __future__ import annotations

import time
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from wav2clip_gen.config import Settings
from wav2clip_gen.job import Job, pictures
from wav2clip_gen.memory import shortage_explained
from wav2clip_gen.record import FrameValues
from wav2clip_gen.synthesis.segments import Segment, crossfade_weight, interpolate, pack, unpack
from wav2clip_gen.video.chunks import Finished, WorkFolder
from wav2clip_gen.video.division import AFTER, Chunk, divide
from wav2clip_gen.video.grid import Grid
from wav2clip_gen.video.writer import FilmWriter, Picture

if TYPE_CHECKING:
    from torch import Tensor

    from wav2clip_gen.models.registry import Models
    from wav2clip_gen.synthesis.modulation import ParameterCurves
    from wav2clip_gen.synthesis.optimizer import HostCopy
    from wav2clip_gen.synthesis.segments import Shown

AHEAD = 8  # frames that a GPU is given before the first of them is waited for
Stop = Callable[[], bool]
Events = Generator["Painted", None, None]


@dataclass(frozen=True, eq=False)
class Part:
    """A segment, and all that it is painted from; small enough to be sent to another process."""

    job: Job
    segment: Segment
    chunks: tuple[Chunk, ...]  # in order, with its halves of seams
    painted: tuple[int, ...]  # the frames that are optimised
    targets: dict[str, Any]  # (n, D) float32 of each picture, by caption: one for each of `painted`
    parameters: ParameterCurves


@dataclass(frozen=True, eq=False)
class Division:
    """The segments of a film and their chunks, and what all of it is painted from."""

    job: Job
    segments: tuple[Segment, ...]
    targets: dict[str, Any]  # (P, D) float32 of each picture, by caption: one for each frame that is optimised
    parameters: ParameterCurves

    @cached_property
    def chunks(self) -> tuple[Chunk, ...]:
        """The chunks of the film, in order."""
        return chunks_of(self.job, self.segments)

    @cached_property
    def seams(self) -> tuple[Chunk, ...]:
        """Those that show two segments."""
        return tuple(chunk for chunk in self.chunks if chunk.seam)

    @cached_property
    def all_chunks(self) -> tuple[Chunk, ...]:
        """The chunks of the film, and the halves of seams."""
        return (*self.chunks, *chain.from_iterable(seam.halves for seam in self.seams))

    def chunks_of_segment(self, number: int) -> tuple[Chunk, ...]:
        """What is painted of a segment, in order."""
        own = (chunk for chunk in self.all_chunks if chunk.segment == number and not (chunk.seam and not chunk.half))
        return tuple(sorted(own, key=lambda chunk: chunk.start))

    def part(self, number: int) -> Part:
        """A segment by its number."""
        segment = self.segments[number]
        painted = tuple(map(int, segment.painted(self.job.painted)))
        place = int(self.job.painted.searchsorted(painted[0]))
        return Part(
            self.job,
            segment,
            self.chunks_of_segment(number),
            painted,
            {caption: targets[place : place + len(painted)] for caption, targets in self.targets.items()},
            self.parameters.between(painted[0], painted[-1] + 1),
        )


def chunks_of(job: Job, segments: Sequence[Segment]) -> tuple[Chunk, ...]:
    """The chunks of a film: those of each segment, and the seam before it."""
    painted = job.painted.tolist()
    found = list[Chunk]()
    for segment in segments:
        start, reach, number = segment.start, segment.fade_in, segment.number
        if reach:
            found.append(Chunk(number=len(found), start=start - reach, stop=start + reach, segment=number, seam=True))
        found += divide(segment.alone, painted, job.timeline.fps, segment=number, number=len(found))
    return tuple(found)


@dataclass(frozen=True, eq=False)
class Painted:
    """A frame of a chunk was written, or, without one, the chunk is finished."""

    chunk: Chunk
    frame: int | None = None
    values: FrameValues | None = None
    picture: Picture | None = None
    notes: tuple[str, ...] = ()  # for the user


@dataclass(frozen=True, eq=False)
class Frame:
    """A frame before it is decoded."""

    number: int
    shown: tuple[Shown, ...]  # of each picture
    measured: dict[str, HostCopy | None]  # (2,) loss and similarity of each picture, by caption
    cut_batch: int

    @cached_property
    def values(self) -> FrameValues:
        """What is recorded of it; waits for the device."""
        each = [one.numpy().tolist() if one else (None, None) for one in self.measured.values()]
        loss, similarity = (_mean(column) for column in zip(*each, strict=True))
        by_caption = dict(zip(self.measured, map(tuple, each), strict=True)) if len(each) > 1 else {}
        return FrameValues(loss, similarity, by_caption, self.cut_batch)


class Painter:
    """Optimises the frames of a segment in order: one picture, or a grid of several with the same seed."""

    def __init__(self, part: Part, models: Models) -> None:
        """Start anew."""
        import torch

        from wav2clip_gen.synthesis.optimizer import FrameOptimizer, generator_for

        self._job, self._part, self._selection, self._device = part.job, part, models.selection, models.device
        self._grid = grid_of(part.job.settings)
        self._targets = {name: torch.from_numpy(one).to(models.device) for name, one in part.targets.items()}
        self._last = part.painted[0] - 1  # the frame that was optimised last
        self._ready = deque[Frame]()  # those that can be decoded, and were not
        self._carried: dict[str, Tensor] = {}  # the state before they were made
        self._notes = list[str]()
        seed = part.job.seed + part.segment.number
        with shortage_explained(part.job.settings, models.selection):
            self._optimizers = {
                caption: FrameOptimizer(
                    models,
                    part.job.settings,
                    generator=generator_for(seed, models.device),
                    seed=part.job.seed,
                    on_note=self._note,
                )
                for caption in part.targets
            }

    def _note(self, note: str) -> None:
        if note not in self._notes:  # each picture of a grid has the same
            self._notes.append(note)

    def take_notes(self) -> tuple[str, ...]:
        """What the user should know, once."""
        notes, self._notes = tuple(self._notes), []
        return notes

    def run_up(self, frames: range) -> Iterator[None]:
        """Optimise until the first of some frames can be decoded, those before it unseen; yields after each."""
        while True:
            while self._ready and self._ready[0].number < frames.start:
                self._ready.popleft()
            if self._ready:
                return
            self._advance(frames.stop)
            yield

    def frames(self, frames: range) -> Iterator[Frame]:
        """Frames that follow those before, not decoded."""
        for number in frames:
            if not self._ready:
                self._advance(frames.stop)
            assert self._ready[0].number == number
            yield self._ready.popleft()

    def _advance(self, stop: int) -> None:
        """Optimise a frame; where it is not before `stop`, the state is kept."""
        part, after = self._part, self._last
        place = bisect_right(part.painted, after)
        index = part.painted[place]
        if index >= stop and after >= part.painted[0]:
            self._carried = self._state()
        with shortage_explained(self._job.settings, self._selection):
            each = [
                one.advance(index, self._targets[caption][place], part.parameters, after=after)
                for caption, one in self._optimizers.items()
            ]
        self._last, batch = index, min(one.cut_batch for one in self._optimizers.values())
        for number, made in enumerate(zip(*each, strict=True), after + 1):
            shown, measured = zip(*made, strict=True)
            self._ready.append(Frame(number, shown, dict(zip(self._optimizers, measured, strict=True)), batch))

    def decode(self, number: int, shown: Sequence[Shown]) -> Callable[[], Picture]:
        """Begin to decode a frame; what is returned waits for it."""
        with shortage_explained(self._job.settings, self._selection):
            copies = self._decode(number, shown)

        def wait() -> Picture:
            pictures = [one.numpy() for one in copies]
            return self._grid.join(pictures) if self._grid else pictures[0]

        return wait

    def decode_ahead(self, frames: Iterable[Frame]) -> Iterator[tuple[Frame, Picture]]:
        """Decode frames in order; a GPU goes on with later ones while a picture is used."""
        waiting = deque[tuple[Frame, Callable[[], Picture]]]()
        for frame in frames:
            waiting.append((frame, self.decode(frame.number, frame.shown)))
            if len(waiting) > (AHEAD if self._device.type == "cuda" else 0):
                done, wait = waiting.popleft()
                yield done, wait()
        yield from ((done, wait()) for done, wait in waiting)

    def _decode(self, number: int, shown: Sequence[Shown]) -> list[HostCopy]:
        view = self._part.parameters.view(number)
        return [one.picture(each, view) for one, each in zip(self._optimizers.values(), shown, strict=True)]

    def state(self, stop: int) -> dict[str, Tensor]:
        """All that the frames from `stop` on depend on, which is next; see `FrameOptimizer.state`."""
        return self._carried if self._last >= stop else self._state()

    def _state(self) -> dict[str, Tensor]:
        each = enumerate(self._optimizers.values())
        return {f"{number}.{name}": value for number, one in each for name, value in one.state().items()}

    def restore(self, state: Mapping[str, Tensor], stop: int) -> None:
        """Continue from what `state(stop)` gave."""
        self._ready.clear()
        self._last = self._part.painted[bisect_left(self._part.painted, stop) - 1]
        for number, one in enumerate(self._optimizers.values()):
            one.restore(_with_prefix(state, f"{number}."))

    def pack(self, frames: Sequence[Frame]) -> dict[str, Tensor]:
        """What frames are decoded from, to be kept."""
        each = enumerate(zip(*(frame.shown for frame in frames), strict=True))
        return {f"seam.{number}.{name}": value for number, shown in each for name, value in pack(shown).items()}

    def unpack(self, kept: Mapping[str, Tensor]) -> list[tuple[Shown, ...]]:
        """What `pack` was given, of each frame."""
        each = [unpack(_with_prefix(kept, f"seam.{number}."), self._device) for number in range(len(self._optimizers))]
        return [*zip(*each, strict=True)]


def _with_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def paint_segment(
    part: Part, work: WorkFolder, models: Models, *, stop: Stop, painter: Painter | None = None
) -> Events:
    """Paint the chunks of a segment that are not finished.

    Args:
        part: The segment.
        work: The folder of its film, with what is finished of it already.
        models: Networks.
        stop: Called after each frame; when it returns true, the segment ends there.
        painter: Begins the segment; by default a new one.
    """
    missing, painter, before = work.missing(part.chunks), painter or Painter(part, models), part.chunks[0]
    position = before.start
    for chunk in part.chunks:
        if chunk in missing:
            if position != chunk.start:
                state = work.state(before)
                assert state
                painter.restore(state, before.stop)
            if stop() and chunk.start:  # a film has at least one frame
                return
            yield from _paint_chunk(part, work, painter, chunk, stop=stop)
            if not work.finished(chunk):
                return
            position = chunk.stop
        before = chunk


def _paint_chunk(part: Part, work: WorkFolder, painter: Painter, chunk: Chunk, *, stop: Stop) -> Events:
    """Paint a chunk, or half a seam; it is finished unless the film is stopped within it."""
    began, made, span = time.perf_counter(), list[Frame](), range(chunk.start, chunk.stop)
    for _ in painter.run_up(span):
        if stop() and chunk.start:
            return
    frames = painter.frames(span)
    if chunk.half:
        for frame in frames:
            made.append(frame)
            if stop():
                return
    else:
        with _film_writer(work.part(chunk), part.job, chunk.start) as writer:
            for frame, picture in painter.decode_ahead(frames):
                writer.write(picture)
                made.append(replace(frame, shown=()))
                yield Painted(chunk, frame.number, frame.values, picture, painter.take_notes())
                if stop():
                    break
    if len(made) == chunk.stop - chunk.start:
        state = painter.state(chunk.stop) | (painter.pack(made) if chunk.half else {})
        values = [asdict(frame.values) for frame in made]
        work.finish(chunk, state, values, seconds=time.perf_counter() - began)
        yield Painted(chunk)


def paint_seam(part: Part, seam: Chunk, work: WorkFolder, models: Models, *, stop: Stop) -> Events:
    """Decode a seam from its halves; `part`: the segment after it."""
    began, painter = time.perf_counter(), Painter(part, models)
    boundary, reach = part.segment.start, part.segment.fade_in
    kept = [work.state(half) for half in seam.halves]
    values = [measured(done) for half in seam.halves if (done := work.finished(half))]
    before, after = (painter.unpack(one) for one in kept if one)
    shown = list[FrameValues]()
    with _film_writer(work.part(seam), part.job, seam.start) as writer:
        for place, number in enumerate(range(seam.start, seam.stop)):
            weight = crossfade_weight(number, boundary, reach)
            pairs = zip(before[place], after[place], strict=True)
            picture = painter.decode(number, [interpolate(*pair, weight) for pair in pairs])()
            writer.write(picture)
            shown.append(values[number >= boundary][place])
            yield Painted(seam, number, shown[-1], picture)
            if stop():
                break
    if len(shown) == seam.stop - seam.start:
        work.finish(seam, {}, [*map(asdict, shown)], seconds=time.perf_counter() - began)
        yield Painted(seam)


def paint_here(division: Division, work: WorkFolder, models: Models, *, stop: Stop) -> Events:
    """Paint what is not finished of a film in this process, one segment after the other."""
    seams = {seam.segment: seam for seam in division.seams}
    for segment in division.segments:
        part, seam = division.part(segment.number), seams.get(segment.number)
        if work.missing(part.chunks):
            for painted in paint_segment(part, work, models, stop=stop):
                yield painted
                if seam and painted.frame is None and painted.chunk.half == AFTER and work.is_ready(seam):
                    yield from paint_seam(part, seam, work, models, stop=stop)
        if stop():
            return
        if seam and work.is_ready(seam):
            yield from paint_seam(part, seam, work, models, stop=stop)


def threads_for(segments: int) -> int:
    """Threads that paint a film on a CPU: one where it has several segments, with however many workers."""
    import torch

    return torch.get_num_threads() if segments == 1 else 1


def grid_of(settings: Settings) -> Grid | None:
    """The grid of a film with several pictures."""
    picture = settings.picture
    return Grid(list(pictures(settings)), size=(picture.width, picture.height)) if picture.layout == "grid" else None


def _film_writer(path: Path, job: Job, first: int) -> FilmWriter:
    picture, grid = job.settings.picture, grid_of(job.settings)
    size = grid.size if grid else (picture.width, picture.height)
    return FilmWriter(
        path, size=size, fps=job.timeline.fps, upscale=picture.upscale, frames_dir=job.frames_dir, first=first
    )


def measured(done: Finished) -> list[FrameValues]:
    """What was measured of the frames of a finished chunk."""
    return [
        FrameValues(**(one | {"pictures": {name: tuple(pair) for name, pair in one["pictures"].items()}}))
        for one in done.frames
    ]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
