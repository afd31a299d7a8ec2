"""A range of a finished film, generated anew: `--range 1:05-1:20`. The rest of its picture, and its sound, are copied.

The range is a segment of its own. It begins with the optimiser's state before it, where the work folder of the film
was kept, else with the film's own picture some optimised frames earlier. At both ends it crosses into the film.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wav2clip_gen import record
from wav2clip_gen.audio.timeline import Timeline
from wav2clip_gen.drawing import clock
from wav2clip_gen.errors import OutputError, SettingsError, SoundError
from wav2clip_gen.job import Job, prepare, record_path
from wav2clip_gen.painting import grid_of
from wav2clip_gen.synthesis.segments import CROSSFADE, crossfade_weight
from wav2clip_gen.units import TIME, parse_time
from wav2clip_gen.video.chunks import WorkFolder
from wav2clip_gen.video.claim import same_file
from wav2clip_gen.video.cut import PictureFacts, read_picture

if TYPE_CHECKING:
    from wav2clip_gen.config import Settings
    from wav2clip_gen.progress import Estimate

AGAIN = "--range needs a finished film with the run record that was written with it"


@dataclass(frozen=True, eq=False)
class Original:
    """A finished film and its run record."""

    film: Path
    content: dict[str, Any]
    picture: PictureFacts

    @property
    def settings(self) -> Settings:
        """What it was made with."""
        return record.recorded_settings(self.content, self.film.parent)


@dataclass(frozen=True)
class Replaced:
    """The frames of a film that are made anew: from one of its key frames to another."""

    start: int
    stop: int
    fade_in: int  # frames of the crossfade from the film, from `start` on; 0: none, as it is the film's first frame
    fade_out: int  # frames of the crossfade into the film, up to `stop`; 0: none

    def weight(self, frame: int) -> float:
        """The share of the new picture in a frame."""
        reach = self.fade_in // 2, self.fade_out // 2
        rising = crossfade_weight(frame, self.start + reach[0], reach[0])
        return rising * (1 - crossfade_weight(frame, self.stop - reach[1], reach[1]))


@dataclass(frozen=True, eq=False, kw_only=True)
class RangeJob(Job):
    """A checked range of a film; the track, the timeline and the settings are those of the whole film."""

    original: Original
    written: str  # as asked for
    replaced: Replaced

    @property
    def notes(self) -> tuple[str, ...]:
        """As those of a job, and what is made anew where that is more than was asked for."""
        fps, new = self.timeline.fps, self.replaced
        times = "-".join(_exact_clock(frame / fps) for frame in (new.start, new.stop))
        fades = "" if new.fade_in == new.fade_out == 0 else ", crossfades included"
        why = "the film can only be cut at its key frames"
        return (*super().notes, f"{times} is generated again ({new.stop - new.start} frames{fades}), as {why}")

    @property
    def work(self) -> Path:
        """The film after which its work folder is named."""
        return _work(self.out).out

    def share(self, whole: Estimate) -> Estimate:
        """The cost of the range, from that of the whole film."""
        left = self.timeline.frames - (self.replaced.stop - self.replaced.start)
        return replace(whole, seconds=whole.seconds - whole.per_song_second * float(left / self.timeline.fps))


def parse_range(written: str) -> tuple[float, float]:
    """Read `1:05-1:20` as seconds.

    Raises:
        SettingsError: It is no range, or ends before it begins.
    """
    found = re.fullmatch(rf"\s*({TIME})\s*[-–—]\s*({TIME})\s*", written)
    if not found:
        raise SettingsError(f"--range {written} is not TIME-TIME", hint="write 1:05-1:20, or 65-80")
    start, stop = map(parse_time, found.groups())
    if stop <= start:
        raise SettingsError(f"--range {written} does not end after it begins", hint="write the earlier time first")
    return start, stop


def open_original(film: Path) -> Original:
    """Read the film of which a range is made anew, and its record.

    Raises:
        W2CError: There is no such film, it has no record, or one of an unfinished film; its song is missing or changed.
    """
    path = record_path(film)
    if not film.is_file():
        raise SettingsError(f"{film} does not exist", hint=AGAIN)
    work = _work(film)
    if not path.exists() and work.record.exists() and not work.film.exists():  # killed between film and record
        work.record.replace(path)
    if not path.is_file():
        raise SettingsError(f"{film} has no run record {path.name} next to it", hint=AGAIN)
    content = record.load(path)
    if content.get("partial"):
        raise SettingsError(f"{film} ends early, as its record says", hint=f"finish it first; {AGAIN}")
    song = film.parent / content["track"]["path"]
    found = record.hash_input(song)
    if found != content["track"]["sha256"]:
        what = f"{song}, the song of {film}, {'was changed since' if found else 'is missing'}"
        raise SoundError(what, hint="put it back in its place; for another song, generate the whole film")
    return Original(film, content, read_picture(film))


def prepare_range(
    original: Original, written: str, source: str | Path, out: str | Path | None = None, *, settings: Settings,
    overwrite: bool = False, **options: Any,
) -> RangeJob:  # fmt: skip
    """Check everything that can be checked before a network is loaded.

    Args:
        original: From `open_original`.
        written: The range, such as `1:05-1:20`, in the film's own time.
        source: The song.
        out: The film; by default it replaces the original.
        settings: Of the new frames.
        overwrite: Replace an existing film other than the original.
        options: As those of `prepare`.

    Raises:
        W2CError: As `prepare`; or range, film and settings do not fit together.
    """
    asked, film = parse_range(written), original.film
    out = film if out is None else Path(out)
    if out.absolute().parent.resolve() != film.absolute().parent.resolve():
        hint = "its record names song and images as seen from there; move all of them together later"
        raise OutputError(f"{out} is not in the folder of {film}", hint=hint)
    for name in ("frames_dir", "storyboard"):
        if options.get(name):
            raise SettingsError(f"--range makes no {name.removesuffix('_dir')}", hint="leave one of them out")
    options |= {"workers": "1", "cluster": None}  # it is one segment
    name = str(out).replace("{", "{{").replace("}", "}}")
    unfinished = same_file(_work(out).film, out)  # killed before it had a record
    job = prepare(source, name, settings, overwrite=overwrite or unfinished or same_file(out, film), **options)
    _check_shape(job, original)
    replaced = _replaced(asked, written, job, original.picture)
    return RangeJob(**vars(job), original=original, written=written.strip(), replaced=replaced)


def _work(film: Path) -> WorkFolder:
    """The work folder of a range of a film, which is not that of the film."""
    return WorkFolder(film.with_suffix(".range.mp4"), Timeline(samples=1, sample_rate=1, fps=Fraction(1)))


def _check_shape(job: Job, original: Original) -> None:
    """Refuse settings whose frames do not fit into the film."""
    picture, grid = job.settings.picture, grid_of(job.settings)
    width, height = grid.size if grid else (picture.width, picture.height)
    made = {
        "layout": picture.layout,
        "size": f"{width * picture.upscale}x{height * picture.upscale}",
        "fps": f"{picture.fps:g}",
        "number of frames": job.timeline.frames,
    }
    old, size = original.settings.picture, "x".join(map(str, original.picture.size))
    found = dict(zip(made, (old.layout, size, f"{old.fps:g}", original.picture.frames), strict=True))
    for name, value in made.items():
        if value != found[name]:
            what = f"the {name} of {original.film} is {found[name]}, and these settings make {value}"
            raise SettingsError(what, hint="leave out what changes it, or generate the whole film")


def _replaced(asked: tuple[float, float], written: str, job: Job, picture: PictureFacts) -> Replaced:
    """The frames of a range: widened by crossfades of half a second to a second, and to the film's key frames."""
    fps, end = job.timeline.fps, job.timeline.frames
    start, stop = (round(second * fps) for second in map(Fraction, asked))
    length = _exact_clock(job.timeline.duration)
    if start >= end or asked[1] > job.timeline.duration + 1 / fps:
        raise SettingsError(f"--range {written} is outside of the film", hint=f"it lasts {length}")
    painted = float(min(fps, Fraction(job.settings.picture.painted_fps)))
    if (stop - start) * painted < fps:
        raise SettingsError(f"--range {written} is too short", hint=f"give at least {1 / painted:.2f} s")
    reach = max(1, round(CROSSFADE * fps / 2))
    stop = min(stop, end)
    keys = (*picture.key_frames, end)
    first = keys[bisect_right(keys, max(0, start - reach)) - 1]
    last = keys[bisect_left(keys, min(end, stop + reach))]
    return Replaced(first, last, 2 * min(reach, (start - first) // 2), 2 * min(reach, (last - stop) // 2))


def _exact_clock(seconds: Fraction) -> str:
    """A time with its hundredths: 1:04.50."""
    whole = int(seconds)
    return f"{clock(float(whole))}.{int((seconds - whole) * 100):02}"
