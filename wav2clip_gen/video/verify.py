"""Verify a finished film: decode all of it, compare it with the request, and measure its sync with the song."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wav2clip_gen import ffmpeg
from wav2clip_gen.audio.track import ENCODER_RATE, Samples, Track, survey
from wav2clip_gen.errors import VideoError

COMPARED_SECONDS = 3  # of sound, correlated with the song at each spot
SPOTS = ("start", "middle", "end")
MAX_RATE = 96_000  # Hz, at which sounds are compared
MAX_LAG_SECONDS = 0.5  # the largest offset that can be measured
MIN_SECONDS = 0.1  # of sound, for an offset to be measurable
SOUND_END = 0.05  # s by which copied sound may end earlier: some containers do not tell how long the last packet is
CONTAINER_ROUNDING = 0.01  # s, of the duration in the header
SILENCE = 1e-3  # |sample| below this counts as silence
MIN_CORRELATION = 0.5  # from which the film's sound counts as the song's

Mono = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class FilmFacts:
    """The contents of a film, counted by decoding it, not read from its headers."""

    frames: int
    fps: Fraction  # frames per second, the mean where they are not steady
    steady: bool  # every frame is shown equally long
    width: int  # pixels
    height: int  # pixels
    picture_codec: str
    pixel_format: str
    picture_seconds: float  # frames / fps
    container_seconds: float  # as its header says, to 0.01 s
    sound: Track | None = field(compare=False)  # by its time stamps; None in a film without sound
    sound_codec: str | None  # None in a film without sound
    sample_rate: int  # Hz, 0 without sound
    channels: int  # 0 without sound
    sound_seconds: float  # until the last sample has been played, 0 without sound
    sound_start: float  # seconds from the first frame to the first sample


@dataclass(frozen=True, kw_only=True)
class SyncReport:
    """The measured agreement of picture, sound and song, for the run record."""

    frames: int
    fps: float
    picture_seconds: float
    sound_seconds: float
    container_seconds: float
    difference_seconds: float  # picture minus sound
    offset_seconds: float | None  # of the sound, positive if late, the worst of `offsets`; None if all are
    offsets: tuple[float | None, ...]  # at `SPOTS`; None where silence or brevity prevents measuring


def probe(path: Path) -> FilmFacts:
    """Decode a film from end to end and count its contents.

    Raises:
        VideoError: It cannot be decoded, or has no picture.
    """
    decoding = ["-map", "0:v:0?", "-fps_mode", "passthrough", "-c:v", "rawvideo"]
    decoded = ffmpeg.read_streams(path, decoding, purpose=f"read {path}")
    picture = next((stream for stream in decoded if stream.header["media_type"] == "video"), None)
    if picture is None or picture.packets == 0:
        raise VideoError(f"{path} has no picture", hint="it is not a film")
    described = ffmpeg.describe(path)
    width, height = (int(side) for side in picture.header["dimensions"].split("x"))
    sound = survey(path, tolerance=0.0) if "Audio:" in described else None
    leading = sum(edit.silence for edit in sound.edits if edit.position == 0) / sound.sample_rate if sound else 0.0
    return FilmFacts(
        frames=picture.packets,
        fps=1 / picture.step,
        steady=picture.regular,
        width=width,
        height=height,
        picture_codec=_word(r"Video: (\w+)", described) or "unknown",
        pixel_format=_word(r"Video: .*?, (\w+)", described) or "unknown",
        picture_seconds=float(picture.packets * picture.step),
        container_seconds=_seconds(_word(r"Duration: ([\d:.]+)", described) or "0"),
        sound=sound,
        sound_codec=_word(r"Audio: (\w+)", described),
        sample_rate=sound.sample_rate if sound else 0,
        channels=sound.channels if sound else 0,
        sound_seconds=sound.duration if sound else 0.0,
        sound_start=leading - float(picture.start),
    )


def verify_film(path: Path, *, frames: int, fps: Fraction, duration: float, sound: Track) -> SyncReport:
    """Check a finished film against the request, to within one frame, at its start, in its middle and at its end.

    Args:
        path: The film.
        frames: Expected number of frames.
        fps: Expected frames per second.
        duration: Expected seconds.
        sound: The track whose sound it should have.

    Raises:
        VideoError: Frames are missing, lengths disagree, or the sound is displaced.
    """
    facts = probe(path)
    frame = float(1 / fps)
    _expect(path, facts.frames == frames, f"has {facts.frames} frames instead of {frames}")
    _expect(
        path,
        facts.steady and facts.fps == fps,
        f"plays at {float(facts.fps):g} frames per second, not {float(fps):g}",
    )
    slack = max(frame, SOUND_END)
    for name, seconds, most in (
        ("picture", facts.picture_seconds, frame),
        ("sound", facts.sound_seconds, slack),
        ("container", facts.container_seconds, slack + CONTAINER_ROUNDING),
    ):
        _expect(
            path,
            abs(seconds - duration) <= most,
            f"has {seconds:.4f} s of {name} instead of {duration:.4f} s",
        )
    assert facts.sound
    offsets = measure_offsets(facts.sound, sound)
    for spot, late in zip(SPOTS, offsets, strict=True):
        _expect(path, late is None or abs(late) <= frame, f"has its sound {late or 0:.4f} s late at its {spot}")
    measured = [late for late in offsets if late is not None]
    return SyncReport(
        frames=facts.frames,
        fps=float(facts.fps),
        picture_seconds=facts.picture_seconds,
        sound_seconds=facts.sound_seconds,
        container_seconds=facts.container_seconds,
        difference_seconds=facts.picture_seconds - facts.sound_seconds,
        offset_seconds=max(measured, key=abs, default=None),
        offsets=offsets,
    )


def measure_offsets(film: Track, song: Track) -> tuple[float | None, ...]:
    """Seconds by which the sound of a film is later than the song, at `SPOTS`, by cross-correlation.

    None where the song is silent or too short.

    Raises:
        VideoError: The film has another sound there.
    """
    spots = _find_spots(song)
    margin = math.ceil(MAX_LAG_SECONDS * song.sample_rate)
    spans = [(max(0, start - margin), start + samples.shape[1] + margin) for start, samples in spots]
    excerpts = _read_spans(film, [(first / song.sample_rate, stop / song.sample_rate) for first, stop in spans])
    return tuple(
        _offset(spot, song, excerpt, film, expected=(spot[0] - first) / song.sample_rate)
        for spot, excerpt, (first, _) in zip(spots, excerpts, spans, strict=True)
    )


def _offset(spot: tuple[int, Samples], song: Track, excerpt: Samples, film: Track, *, expected: float) -> float | None:
    """By how many seconds a spot of the song begins later in an excerpt of the film than `expected`."""
    start, samples = spot
    if samples.shape[1] < MIN_SECONDS * song.sample_rate:
        return None
    # at their own rate where that is moderate, as a fraction of a sample matters to a tone
    rate = song.sample_rate if song.sample_rate == film.sample_rate <= MAX_RATE else ENCODER_RATE
    at, reach, correlation = round(expected * rate), round(MAX_LAG_SECONDS * rate), 0.0
    for channel in (
        None,
        *range(min(song.channels, film.channels)),
    ):  # the mean may be next to nothing where channels oppose each other
        wanted, found = _mono(samples, channel, song, rate), _mono(excerpt, channel, film, rate)
        if not (np.abs(wanted) > SILENCE).any():
            continue
        lag, correlation = _best_lag(wanted, found, at, reach)
        if correlation >= MIN_CORRELATION:
            return lag / rate
    raise VideoError(
        f"the sound of {film.path} at {start / song.sample_rate:.3f} s is not that of {song.path} "
        f"(correlation {correlation:.2f})",
        hint="this is a bug: please report it with the command that made the film",
    )


def _find_spots(song: Track) -> list[tuple[int, Samples]]:
    """At each of `SPOTS`, the first `COMPARED_SECONDS` after silence: number of their first sample, and (C, n) samples.

    A spot that is silent up to the next one has no samples.
    """
    length = min(song.samples, round(COMPARED_SECONDS * song.sample_rate))
    anchors = [0, (song.samples - length) // 2, song.samples - length]
    ends = [max(anchors[1], length), max(anchors[2], anchors[1] + length), song.samples]
    found: list[_Excerpt | None] = [None for _ in anchors]
    position = 0
    for block in song.blocks():
        for index, (anchor, end) in enumerate(zip(anchors, ends, strict=True)):
            if found[index] is None:
                begin, searched = max(anchor, position), _part(block, position, anchor, end)
                loud = np.flatnonzero(np.abs(searched).max(axis=0) > SILENCE)
                found[index] = _Excerpt(begin + int(loud[0]), begin + int(loud[0]) + length) if len(loud) else None
            if spot := found[index]:
                spot.add(block, position)
        position += block.shape[1]
    return [(spot.start, spot.samples(song.channels)) for spot in (one or _Excerpt(0, 0) for one in found)]


def _read_spans(track: Track, spans: Sequence[tuple[float, float]]) -> list[Samples]:
    """Parts of a track, between times in seconds, or what there is of them."""
    rate = track.sample_rate
    excerpts = [_Excerpt(round(start * rate), round(stop * rate)) for start, stop in spans]
    position = 0
    for block in track.blocks():
        for one in excerpts:
            one.add(block, position)
        position += block.shape[1]
    return [one.samples(track.channels) for one in excerpts]


@dataclass
class _Excerpt:
    """Collects samples [start, stop) of a stream of blocks."""

    start: int
    stop: int
    _parts: list[Samples] = field(default_factory=list)

    def add(self, block: Samples, position: int) -> None:
        part = _part(block, position, self.start, self.stop)
        if part.shape[1]:
            self._parts.append(part.copy())  # not the whole block

    def samples(self, channels: int) -> Samples:
        return np.concatenate([np.zeros((channels, 0), np.float32), *self._parts], axis=1)


def _part(block: Samples, position: int, start: int, stop: int) -> Samples:
    """What a block that begins at sample `position` has of samples [start, stop)."""
    return block[:, max(start - position, 0) : max(stop - position, 0)]


def _mono(samples: Samples, channel: int | None, track: Track, rate: int) -> Mono:
    """The mean of a track's channels, or one channel, at `rate`; clipped, as damaged files decode to huge peaks."""
    import soxr

    samples = np.clip(samples, -1, 1)
    mono = samples.mean(axis=0, dtype=np.float32) if channel is None else samples[channel]
    return soxr.resample(mono, track.sample_rate, rate)


def _best_lag(song: Mono, film: Mono, expected: int, reach: int) -> tuple[int, float]:
    """By how many samples `song` begins later in `film` than `expected`, and their correlation there (1: the same).

    A steady tone correlates at every period: among equally good lags the smallest is taken.
    """
    size = 1 << (len(song) + len(film) + expected + 2 * reach).bit_length()
    spectrum = np.conj(np.fft.rfft(song, size)) * np.fft.rfft(film, size)
    circular = np.fft.irfft(spectrum, size)
    lags = np.arange(-reach, reach + 1)
    fit = circular[lags + expected]  # a negative place indexes from the end, as needed
    peaks = np.flatnonzero(
        (fit >= np.roll(fit, 1)) & (fit >= np.roll(fit, -1)) & (fit >= fit.max() - 1e-3 * abs(fit.max()))
    )
    best = peaks[np.argmin(np.abs(lags[peaks]))]
    place = int(lags[best]) + expected
    common = film[max(place, 0) : max(place + len(song), 0)]
    power = float(np.linalg.norm(song) * np.linalg.norm(common))
    return int(lags[best]), float(fit[best]) / power if power else 0.0


def _seconds(clock: str) -> float:
    """Read `0:01:15.50`."""
    return sum(float(part) * 60**place for place, part in enumerate(reversed(clock.split(":"))))


def _word(pattern: str, description: str) -> str | None:
    """A name that ffmpeg prints only in its human-readable description."""
    found = re.search(pattern, description)
    return found[1] if found else None


def _expect(path: Path, holds: bool, what: str) -> None:
    if not holds:
        raise VideoError(f"{path} {what}", hint="this is a bug: please report it with the command that made the film")
