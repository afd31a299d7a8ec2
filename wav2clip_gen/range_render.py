"""Generate a range of a finished film anew; see `ranges`."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wav2clip_gen import ffmpeg, record
from wav2clip_gen.audio.track import open_track
from wav2clip_gen.drawing import clock
from wav2clip_gen.errors import OutputError, VideoError
from wav2clip_gen.files import hash_file
from wav2clip_gen.job import check_outputs, record_path
from wav2clip_gen.painting import Division, Painter, measured, paint_segment
from wav2clip_gen.pipeline import condition_films, load_job_models, load_stems, open_job_work
from wav2clip_gen.progress import Film, OnProgress, StageClock, ignore
from wav2clip_gen.ranges import RangeJob
from wav2clip_gen.record import FrameValues
from wav2clip_gen.resume import begin_or_resume, plan_film, refuse_other
from wav2clip_gen.synthesis.segments import Segment, interpolate_pictures, run_in
from wav2clip_gen.video.chunks import WorkFolder, open_work
from wav2clip_gen.video.claim import publish_film
from wav2clip_gen.video.cut import cut, picture_checksums, read_pictures
from wav2clip_gen.video.division import AFTER, BEFORE, Chunk
from wav2clip_gen.video.mux import mux
from wav2clip_gen.video.reactivity import Onsets, measure_reactivity, visual_change
from wav2clip_gen.video.verify import verify_film
from wav2clip_gen.video.writer import Picture

if TYPE_CHECKING:
    from torch import Tensor

    from wav2clip_gen.models.registry import Models
    from wav2clip_gen.synthesis.optimizer import HostCopy
    from wav2clip_gen.synthesis.segments import Shown

NEAR = 4  # seconds between a kept state and a range that begins with it; a run-in costs less
State = tuple[int, Mapping[str, "Tensor"]]  # the frame that it leads to, and an optimiser's state


def render_range(
    job: RangeJob,
    *,
    load: Callable[..., Models] | None = None,
    stop: Callable[[], bool] = lambda: False,
    on_progress: OnProgress = ignore,
    on_picture: Callable[[Picture], None] = lambda picture: None,
) -> Generator[Film, None, None]:
    """Generate the range of a film, and make the film with it.

    `job` is from `prepare_range`; the other arguments and the errors are those of `pipeline.render_job`.

    Raises:
        KeyboardInterrupt: `stop` returned true; what is finished is kept.
    """
    stages, new = StageClock(on_progress), job.replaced
    inner = replace(job, out=job.work)
    shown = job.timeline.until(new.stop - new.start)  # what messages about finished parts refer to
    with ExitStack() as stack:
        stack.enter_context(open_work(job.out, job.timeline, keep=True))  # that no other run makes this film
        work = stack.enter_context(open_job_work(replace(inner, timeline=shown), stages))
        work.out = job.out
        check_outputs(job)
        if record.load(record_path(job.original.film)) != job.original.content:
            raise OutputError(f"{job.original.film} was replaced meanwhile by another run", hint="start again")
        models = load_job_models(job, load, stages)
        hashes = record.hash_inputs(job, models)
        plan = plan_film(inner, models, hashes) | {
            "film": hash_file(job.original.film),
            "range": [new.start, new.stop, new.fade_in, new.fade_out],
        }
        refuse_other(inner, work, plan)
        (division,), onsets = condition_films(inner, load_stems(job, stages), models, stages)
        stages.begin("optimize")
        checksums = picture_checksums(job.original.film)
        state = _kept_state(job, checksums)
        division = replace(division, segments=(_segment(division, job, state),))
        begin_or_resume(division, work, plan, stages)
        values = _paint(division, job, work, models, state, stop=stop, stages=stages, on_picture=on_picture)
        with record.song_unchanged(job.track.path, hashes[job.track.path]):
            yield _finish(
                division, job, work, models, values, onsets=onsets, hashes=hashes, checksums=checksums, stages=stages
            )


def _kept_state(job: RangeJob, checksums: Sequence[str]) -> State | None:
    """The newest state before a range in the film's own work folder, of chunks that the film still shows."""
    start, found = job.replaced.start, list[Chunk]()
    work = WorkFolder(job.original.film, job.timeline)
    for path in work.path.glob("chunk-*.json"):
        try:
            chunk = Chunk(**json.loads(path.read_text(encoding="utf-8"))["chunk"])
        except (OSError, ValueError, TypeError, KeyError):
            continue
        near = chunk.stop <= start <= chunk.stop + NEAR * job.timeline.fps
        if near and chunk.half != BEFORE:  # that segment is not shown at its end
            work.note(chunk)
            found.append(chunk)
    for chunk in sorted(found, key=lambda one: -one.stop):
        picture = work.path / f"{(chunk.whole if chunk.half == AFTER else chunk).name}.mp4"
        state = work.state(chunk) if picture.is_file() else None
        if state and picture_checksums(picture) == list(checksums[chunk.start : chunk.stop]):
            return chunk.stop, state
    return None


def _segment(division: Division, job: RangeJob, state: State | None) -> Segment:
    """The range as a segment: with the frames before it that lead to it from a state, or a run-in."""
    start, stop = job.replaced.start, job.replaced.stop
    before = start - state[0] + 1 if state else run_in(start, job.painted)
    return Segment(number=0, start=start, stop=stop, run_in=before)


class RangePainter(Painter):
    """Paints a range that begins with a state, or with the film's own picture, and crosses into the film."""

    def __init__(self, division: Division, job: RangeJob, models: Models, state: State | None) -> None:
        """Begin with a state, if there is one."""
        super().__init__(division.part(0), models)
        new, picture = job.replaced, job.settings.picture
        self._new, self._vqgan, fps = new, models.vqgan, job.timeline.fps
        size = self._grid.size if self._grid else (picture.width, picture.height)
        film = job.original.film

        def read(frames: range) -> dict[int, Picture]:
            return dict(zip(frames, read_pictures(film, frames, fps, size), strict=True))

        self._old = read(range(new.start, new.start + new.fade_in)) | read(range(new.stop - new.fade_out, new.stop))
        if state:
            place, tensors = state
            if job.seed != job.original.settings.run.seed:
                own = next(iter(self._optimizers.values())).generator.get_state()
                tensors = {name: own if name.endswith(".generator") else value for name, value in tensors.items()}
            self.restore(tensors, place)
        elif new.start or new.fade_in:
            before = max(0, self._last)
            (whole,) = read(range(before, before + 1)).values()
            for optimizer, one in zip(self._optimizers.values(), self._split(whole), strict=True):
                optimizer.start_from(_tensor(one, self._device)[None])

    def _split(self, whole: Picture) -> list[Picture]:
        return self._grid.split(whole) if self._grid else [whole]

    def _decode(self, number: int, shown: Sequence[Shown]) -> list[HostCopy]:
        from wav2clip_gen.synthesis.optimizer import to_bytes

        made = super()._decode(number, shown)
        if number not in self._old:
            return made
        before, after = (
            [_tensor(one, self._device) for one in each]
            for each in (self._split(self._old[number]), [copy.numpy() for copy in made])
        )
        weight = self._new.weight(number)
        return [to_bytes(interpolate_pictures(self._vqgan, *pair, weight)) for pair in zip(before, after, strict=True)]


def _tensor(picture: Picture, device: Any) -> Tensor:
    import torch

    return torch.from_numpy(picture.copy()).to(device).permute(2, 0, 1) / 255


def _paint(
    division: Division,
    job: RangeJob,
    work: WorkFolder,
    models: Models,
    state: State | None,
    *,
    stop: Callable[[], bool],
    stages: StageClock,
    on_picture: Callable[[Picture], None],
) -> list[FrameValues]:
    """Paint what is not finished of a range; gives what was measured of each of its frames."""
    finished = [work.finished(chunk) for chunk in division.chunks]
    done, total = sum(len(one.frames) for one in finished if one), job.replaced.stop - job.replaced.start
    if done:
        times = (clock(float(frames / job.timeline.fps)) for frames in (done, total))
        stages.report(message="resuming at {} of {}".format(*times), done=done, total=total)
    if not all(finished):
        painter = RangePainter(division, job, models, state)
        with closing(paint_segment(division.part(0), work, models, stop=stop, painter=painter)) as events:
            for painted in events:
                if painted.picture is not None and painted.values:
                    done += 1
                    on_picture(painted.picture)
                    loss, similarity = painted.values.loss, painted.values.similarity
                    stages.report(done=done, total=total, loss=loss, similarity=similarity)
    known = [work.finished(chunk) for chunk in division.chunks]
    if not all(known):
        raise KeyboardInterrupt  # stopped
    return [values for one in known if one for values in measured(one)]


def _finish(
    division: Division,
    job: RangeJob,
    work: WorkFolder,
    models: Models,
    values: list[FrameValues],
    *,
    onsets: Onsets,
    hashes: dict[Path, str | None],
    checksums: list[str],
    stages: StageClock,
) -> Film:  # fmt: skip
    """Join range and film, verify the film, and give it and its record their names."""
    stages.begin("mux")
    new, original, frames = job.replaced, job.original, job.timeline.frames
    pieces = cut(original.film, [edge for edge in (new.start, new.stop) if 0 < edge < frames], work.path)
    before = [(pieces[0].name, new.start)] * (new.start > 0)
    after = [(pieces[-1].name, frames - new.stop)] * (new.stop < frames)
    work.join(division.chunks, before=before, after=after)
    tags = {"title": ffmpeg.read_title(original.film) or "", "comment": _summary(job, models)}
    mux(work.picture, open_track(original.film), work.film, metadata=tags, plan=replace(job.sound, copied=True))
    stages.begin("verify")
    fps, song = job.timeline.fps, job.track
    sync = verify_film(work.film, frames=frames, fps=fps, duration=song.duration, sound=song)
    joined = picture_checksums(work.film)
    if joined[: new.start] + joined[new.stop :] != checksums[: new.start] + checksums[new.stop :]:
        hint = "was it made by another ffmpeg? generate the whole film"
        raise VideoError(f"{original.film} cannot be joined with new frames without a change", hint=hint)
    reactivity = measure_reactivity(visual_change(work.film), onsets, fps)
    film = Film(
        path=job.out,
        record=record_path(job.out),
        frames=frames,
        seconds=sync.picture_seconds,
        seed=job.seed,
        sync=sync,
        reactivity=reactivity,
        timings=stages.finish(),
        segments=original.content.get("segments", [0]),
    )

    def named(path: Path) -> Film:
        return replace(film, path=path, record=record_path(path))

    path = publish_film(
        work.film,
        work.record,
        job.out,
        lambda path: _describe(job, record.describe(job, models, named(path), values, hashes)),
        partial=False,
        overwrite=job.overwrite,
    )
    work.published = True
    return named(path)


def _summary(job: RangeJob, models: Models) -> str:
    """The comment in the film's metadata."""
    earlier = [one["range"] for one in job.original.content.get("ranges", [])]
    whole = record.summary(replace(job, settings=job.original.settings), models)
    return f"{whole}; generated again: {', '.join([*earlier, job.written])}"


def _describe(job: RangeJob, described: dict[str, Any]) -> dict[str, Any]:
    """The record of the film: what it was made with, and what each range was made with since."""
    old, new = job.original.content, job.replaced
    own = ("w2c-gen", "settings", "stems", "demucs_repo", "pictures", "family", "versions", "seconds", "cut_batch")
    entry = {"range": job.written, "start": new.start, "stop": new.stop}
    entry |= {"fade_in": new.fade_in, "fade_out": new.fade_out, **{name: described[name] for name in own}}

    def patched(values: list[Any], fresh: list[Any]) -> list[Any]:
        return [*values[: new.start], *fresh, *values[new.stop :]]

    frames, fresh = old["frames"], described["frames"]
    none: list[Any] = [None] * (new.stop - new.start)
    pictures = {
        name: {key: patched(one[key], fresh["pictures"].get(name, {}).get(key, none)) for key in one}
        for name, one in frames.get("pictures", {}).items()
    }
    known = {key: patched(frames[key], fresh[key]) for key in ("loss", "similarity")}
    return {
        **old,
        "film": described["film"],
        "ranges": [*old.get("ranges", []), entry],
        **{name: described[name] for name in ("sync", "reactivity")},
        "frames": {**known, "pictures": pictures},
    }
