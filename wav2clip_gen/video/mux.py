"""Mux picture and sound, with the song's own packets where mp4 can hold them. Every plan is tried before rendering."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import numpy as np

from wav2clip_gen import ffmpeg
from wav2clip_gen.audio.track import Track, survey
from wav2clip_gen.errors import SoundError, VideoError
from wav2clip_gen.video.writer import FilmWriter

COPIED = frozenset({"aac", "mp3", "alac"})  # whose packets mp4 holds
AAC_RATES = frozenset({96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350})  # Hz
AAC_CHANNELS = frozenset({1, 2, 3, 4, 5, 6, 8})  # ffmpeg's AAC brings the seven of 6.1 out of order
ALAC_CHANNELS = frozenset({1, 2})  # ffmpeg's ALAC knows other layouts than `SPEAKERS` for more
AAC_BIT_RATE = "320k"
SPEAKERS = ("mono", "stereo", "3.0", "quad", "5.0", "5.1", "6.1", "7.1")  # by number of channels
MOST_CHANNELS = len(SPEAKERS)
NOT_PLAYED = {"mp3": "Apple's players", "flac": "Apple's players", "alac": "Chrome and Firefox"}  # from an mp4
TRIAL_SECONDS = 1.0  # of the sound, muxed before rendering
_tried: set[tuple[object, ...]] = set()  # encodings that are possible, with the binary, the channels and the length


@dataclass(frozen=True, kw_only=True)
class SoundPlan:
    """How the sound of a track is put into a film."""

    codec: str  # aac, mp3, alac or flac
    copied: bool  # the song's own packets, untouched
    sample_rate: int  # Hz, in the film
    why: str  # one clause for the run record

    @property
    def note(self) -> str | None:
        """What the user should know before the film is made."""
        if self.codec not in NOT_PLAYED:
            return None
        name, players = self.codec.upper(), NOT_PLAYED[self.codec]
        return (
            f"the film's sound is {name}, which {players} do not play from an mp4; --audio-codec aac plays everywhere"
        )


def plan_sound(track: Track, codec: str = "auto", *, trial: bool = True) -> SoundPlan:
    """Choose how the sound of a track is put into a film; call it before rendering, it may not be possible.

    Args:
        track: The sound.
        codec: `copy`, `aac` or `alac`; `auto`: the first of copy, AAC, ALAC and FLAC that is possible.
        trial: Try each plan, on a second of the track and a blank picture.

    Raises:
        VideoError: The codec cannot hold the track, or none can.
    """
    failed = None
    for plan in _plans(track, codec):
        try:
            if trial:
                _try(track, plan)
            return plan
        except ffmpeg.FFmpegError as error:
            if error.disk_full:
                what = f"cannot write temporary files to {tempfile.gettempdir()}: {error.message}"
                raise VideoError(what, hint="free some disk space there, or set TMPDIR to another folder") from error
            failed = error
    what = f"the sound of {track.path} cannot be put into an mp4"
    if failed:
        raise VideoError(f"{what}: {failed.message}", hint=failed.hint) from failed
    raise VideoError(f"{what} as {codec}: {_obstacle(track, codec)}", hint="leave out --audio-codec")


def mux(
    picture: Path,
    track: Track,
    out: Path,
    *,
    plan: SoundPlan,
    metadata: dict[str, str],
    seconds: float | None = None,
) -> None:
    """Mux a film without sound and the sound of its track.

    Args:
        picture: A film from `FilmWriter`; its stream is copied.
        track: The sound; its span is used, not down-mixed.
        out: The film.
        plan: From `plan_sound`.
        metadata: mp4 tags, such as `title` and `comment`.
        seconds: Length of copied sound; all of it when None.

    Raises:
        VideoError: ffmpeg fails.
    """
    tags = [word for key, text in metadata.items() for word in ("-metadata", f"{key}={_argument(text)}")]
    container = ["-map_metadata", "-1", *tags, "-movflags", "+faststart", "-f", "mp4"]
    target = [*container, "-y", ffmpeg.file_url(out)]
    if plan.copied:
        _copy(picture, track, [*(["-t", str(seconds)] if seconds else []), *target], out)
    else:
        _encode(picture, track, plan, target, out)


def _argument(text: str) -> str:
    """A text for the command line that ffmpeg reads as UTF-8, whatever the encoding of this system."""
    return os.fsdecode(text.encode(errors="replace"))


def _plans(track: Track, codec: str) -> Iterator[SoundPlan]:
    """All plans that may do, the best first."""
    stored = _stored_codec(track) if codec in ("auto", "copy") and track.whole and track.contiguous else None
    if stored in COPIED:
        why = "mp4 holds this codec, and the whole track is used"
        yield SoundPlan(codec=stored, copied=True, sample_rate=track.sample_rate, why=why)
    if codec != "copy" and track.channels > MOST_CHANNELS:
        raise VideoError(
            f"{track.path} has {track.channels} channels, a film holds at most {MOST_CHANNELS}",
            hint="make a version with fewer channels first; nothing is down-mixed implicitly",
        )
    rate, own = track.sample_rate, track.sample_rate in AAC_RATES
    encoded = f"encoded at up to {AAC_BIT_RATE}bit/s"
    aac = SoundPlan(codec="aac", copied=False, sample_rate=rate, why=f"{encoded}, same rate and channels")
    lossless = f"AAC is not possible for {track.channels} channels at {rate} Hz, so it is lossless"
    if codec in ("auto", "aac") and own and _obstacle(track, "aac") is None:
        yield aac
    if codec in ("auto", "alac") and _obstacle(track, "alac") is None:
        yield replace(aac, codec="alac", why=lossless if codec == "auto" else "lossless, as asked for")
    if codec == "auto":
        yield replace(aac, codec="flac", why=lossless)
    if codec in ("auto", "aac") and not own and _obstacle(track, "aac") is None:
        yield replace(aac, sample_rate=_aac_rate(rate), why=f"{encoded}, resampled from {rate} Hz")


def _aac_rate(rate: int) -> int:
    """The highest rate of AAC that divides `rate`, else the nearest below it."""
    below = [one for one in sorted(AAC_RATES, reverse=True) if one <= rate] or [min(AAC_RATES)]
    return next((one for one in below if rate % one == 0 and one >= 44_100), below[0])


def _obstacle(track: Track, codec: str) -> str | None:
    """Why the sound cannot be copied, or encoded with a codec; None where it may be possible."""
    channels = {"aac": AAC_CHANNELS, "alac": ALAC_CHANNELS}
    if codec in channels:
        return None if track.channels in channels[codec] else f"it has {track.channels} channels"
    if not track.whole:
        return "only a part of it is used"
    if not track.contiguous:
        return "its packets do not follow each other without holes, from the file's zero on, in one format"
    stored = _stored_codec(track)
    return None if stored in COPIED else f"{stored} is not among {', '.join(sorted(COPIED))}"


def _stored_codec(track: Track) -> str:
    return ffmpeg.read_sound(track.path, stream=track.stream, copied=True).header.get("codec_id", "unknown")


def _try(track: Track, plan: SoundPlan) -> None:
    """Make a film of a blank picture and the first second of the sound, and play that.

    Whether samples can be encoded does not depend on the song, so that each encoding is tried once.

    Raises:
        FFmpegError: This is not possible.
        VideoError: ffmpeg cannot make films at all.
    """
    samples = min(track.samples, round(TRIAL_SECONDS * track.sample_rate))
    binary = ffmpeg.find_ffmpeg()
    changed = Path(binary).stat().st_mtime_ns
    encoding = (binary, changed, replace(plan, why=""), track.sample_rate, track.channels, samples)
    if encoding in _tried:
        return
    blank = _blank_picture(binary)
    part = replace(track, samples=samples, decoded=min(track.decoded, samples))
    with tempfile.TemporaryDirectory(prefix="w2c-") as folder:
        picture, film = Path(folder) / "picture.mp4", Path(folder) / "trial.mp4"
        picture.write_bytes(blank)
        mux(picture, part, film, plan=plan, metadata={}, seconds=TRIAL_SECONDS)
        try:
            played = survey(film)
        except SoundError as error:
            raise _refused(plan) from error
    if not played.contiguous or (played.sample_rate, played.channels) != (plan.sample_rate, track.channels):
        raise _refused(plan)
    if not plan.copied:
        _tried.add(encoding)


def _refused(plan: SoundPlan) -> ffmpeg.FFmpegError:
    message = f"as {plan.codec}, it does not play from an mp4 as it does from the file"
    return ffmpeg.FFmpegError(message, message=message, hint="convert the song to a wav file first")


@lru_cache(maxsize=1)
def _blank_picture(binary: str) -> bytes:
    """A film of one second without sound, made by the ffmpeg at `binary`.

    Raises:
        VideoError: ffmpeg has no h264 encoder.
    """
    with tempfile.TemporaryDirectory(prefix="w2c-") as folder:
        path = Path(folder) / "blank.mp4"
        with FilmWriter(path, size=(16, 16), fps=Fraction(1)) as writer:
            writer.write(np.zeros((16, 16, 3), np.uint8))
        return path.read_bytes()


def _copy(picture: Path, track: Track, target: list[str], out: Path) -> None:
    inputs = ["-i", ffmpeg.file_url(picture), "-i", ffmpeg.file_url(track.path)]
    streams = ["-map", "0:v:0", "-map", f"1:a:{track.stream}", "-c", "copy"]
    ffmpeg.run([*inputs, *streams, *target], purpose=f"mux {out}")


def _encode(picture: Path, track: Track, plan: SoundPlan, target: list[str], out: Path) -> None:
    """Encode the samples of the track, the same that were analysed."""
    # named, and known to both encoders: where a layout has to be changed, ffmpeg mixes the channels
    speakers = SPEAKERS[track.channels - 1]
    sound = ["-f", "f32le", "-ar", str(track.sample_rate), "-ch_layout", speakers, "-i", "pipe:0"]
    streams_in = ["-i", ffmpeg.file_url(picture), *sound, "-map", "0:v:0", "-map", "1:a:0", "-c:v", "copy"]
    quality = ["-ar", str(plan.sample_rate), *(["-b:a", AAC_BIT_RATE] if plan.codec == "aac" else [])]
    command = [*streams_in, "-c:a", plan.codec, *quality, *target]
    with ffmpeg.feeding(command, purpose=f"mux {out}") as feed:
        for block in track.blocks():
            feed(np.ascontiguousarray(block.T, dtype="<f4").data)
