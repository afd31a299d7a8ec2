"""Verify a finished film: decode all of it, compare it with the request, and measure its sync with the song."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wav2clip_gen import ffmpeg
from wav2clip_gen.audio.track import ENCODER_RATE, Track, open_track
from wav2clip_gen.errors import VideoError

COMPARED_SECONDS = 10  # of sound, correlated with the song
MAX_LAG_SECONDS = 0.5  # the largest offset that can be measured
MIN_SECONDS = 0.1  # of sound, for an offset to be measurable
SILENCE = 1e-3  # |sample| below this counts as silence
MIN_CORRELATION = 0.5  # from which the film's sound counts as the song's

Mono = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class FilmFacts:
    """The contents of a film, counted by decoding it, not read from its headers."""

    frames: int
    fps: Fraction  # frames per second
    steady: bool  # every frame is shown equally long
    width: int  # pixels
    height: int  # pixels
    picture_codec: str
    pixel_format: str
    picture_seconds: float  # frames / fps
    sound_codec: str | None  # None in a film without sound
    sample_rate: int  # Hz, 0 without sound
    channels: int  # 0 without sound
    sound_seconds: float  # decoded samples / sample rate, 0 without sound
    sound_start: float  # seconds from the first frame to the first sample


@dataclass(frozen=True, kw_only=True)
class SyncReport:
    """The measured agreement of picture, sound and song, for the run record."""

    frames: int
    fps: float
    picture_seconds: float
    sound_seconds: float
    difference_seconds: float  # picture minus sound
    offset_seconds: float | None  # of the sound, positive if late; None where silence or brevity prevents measuring


def probe(path: Path) -> FilmFacts:
    """Decode a film from end to end and count its contents.

    Raises:
        VideoError: It cannot be decoded, or has no picture.
    """
    both = ["-map", "0:v:0?", "-map", "0:a:0?", "-fps_mode", "passthrough"]
    decoding = [*both, "-c:v", "rawvideo", "-c:a", "pcm_f32le"]
    decoded = ffmpeg.read_streams(path, decoding, purpose=f"read {path}")
    kinds = {stream.header["media_type"]: stream for stream in decoded}
    picture, sound = kinds.get("video"), kinds.get("audio", ffmpeg.Stream())
    if picture is None or picture.packets == 0:
        raise VideoError(f"{path} has no picture", hint="it is not a film")
    described = ffmpeg.describe(path)
    width, height = (int(side) for side in picture.header["dimensions"].split("x"))
    return FilmFacts(
        frames=picture.packets,
        fps=1 / picture.step,
        steady=picture.regular,
        width=width,
        height=height,
        picture_codec=_word(r"Video: (\w+)", described) or "unknown",
        pixel_format=_word(r"Video: .*?, (\w+)", described) or "unknown",
        picture_seconds=float(picture.packets * picture.step),
        sound_codec=_word(r"Audio: (\w+)", described),
        sample_rate=sound.sample_rate,
        channels=sound.channels,
        sound_seconds=sound.samples / sound.sample_rate if sound.samples else 0.0,
        sound_start=float(sound.start - picture.start) if sound.samples else 0.0,
    )


def verify_film(path: Path, *, frames: int, fps: Fraction, duration: float, sound: Track) -> SyncReport:
    """Check a finished film against the request, to within one frame.

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
    for name, seconds in (("picture", facts.picture_seconds), ("sound", facts.sound_seconds)):
        _expect(
            path,
            abs(seconds - duration) <= frame,
            f"has {seconds:.4f} s of {name} instead of {duration:.4f} s",
        )
    difference = facts.picture_seconds - facts.sound_seconds
    _expect(path, abs(difference) <= frame, f"has picture and sound {abs(difference):.4f} s apart at the end")
    offset = measure_offset(path, sound)
    late = None if offset is None else offset + facts.sound_start
    _expect(path, late is None or abs(late) <= frame, f"has its sound {late or 0:.4f} s late")
    return SyncReport(
        frames=facts.frames,
        fps=float(facts.fps),
        picture_seconds=facts.picture_seconds,
        sound_seconds=facts.sound_seconds,
        difference_seconds=difference,
        offset_seconds=late,
    )


def measure_offset(path: Path, sound: Track) -> float | None:
    """Seconds by which the sound stream of a film is later than the song, by cross-correlation.

    None when the song is silent or too short.

    Raises:
        VideoError: The film has another sound.
    """
    correlation = 0.0
    for channel in (None, *range(sound.channels)):  # the mean may be next to nothing where channels oppose each other
        first, song = _first_sound(sound.mono_blocks(channel=channel))
        if len(song) < MIN_SECONDS * ENCODER_RATE:
            continue
        film = _span(open_track(path).mono_blocks(channel=channel), first, len(song))
        lag, correlation = _best_lag(np.clip(song, -1, 1), film, round(MAX_LAG_SECONDS * ENCODER_RATE))
        if correlation >= MIN_CORRELATION:
            return lag / ENCODER_RATE
    if correlation:
        raise VideoError(
            f"the sound of {path} is not that of {sound.path} (correlation {correlation:.2f})",
            hint="this is a bug: please report it with the command that made the film",
        )
    return None


def _first_sound(blocks: Iterator[Mono]) -> tuple[int, Mono]:
    """The first `COMPARED_SECONDS` after leading silence: number of their first sample, and the samples."""
    position = 0
    for block in blocks:
        loud = np.flatnonzero(np.abs(block) > SILENCE)
        if len(loud):
            kept = [block[loud[0] :]]
            return position + int(loud[0]), _head(kept, blocks, COMPARED_SECONDS * ENCODER_RATE)
        position += len(block)
    return position, np.zeros(0, np.float32)


def _span(blocks: Iterator[Mono], first: int, length: int) -> Mono:
    """Samples [first, first + length) of a stream, or what there is of them."""
    for block in blocks:
        if first < len(block):
            return _head([block[first:]], blocks, length)
        first -= len(block)
    return np.zeros(0, np.float32)


def _head(kept: list[Mono], blocks: Iterator[Mono], length: int) -> Mono:
    """Concatenate `kept` and the blocks that follow, up to `length` samples."""
    while sum(map(len, kept)) < length and (block := next(blocks, None)) is not None:
        kept.append(block)
    return np.concatenate(kept)[:length]


def _best_lag(song: Mono, film: Mono, reach: int) -> tuple[int, float]:
    """By how many samples `film` is later than `song`, and their correlation there (1 for the same sound).

    A steady tone correlates at every period: among equally good lags the smallest is taken.
    """
    size = 1 << max(len(song) + len(film), 2 * reach + 1).bit_length()
    spectrum = np.conj(np.fft.rfft(song, size)) * np.fft.rfft(film, size)
    circular = np.fft.irfft(spectrum, size)
    lags = np.arange(-reach, reach + 1)
    fit = circular[lags]  # a negative lag indexes from the end, as needed
    peaks = np.flatnonzero(
        (fit >= np.roll(fit, 1)) & (fit >= np.roll(fit, -1)) & (fit >= fit.max() - 1e-3 * abs(fit.max()))
    )
    best = peaks[np.argmin(np.abs(lags[peaks]))]
    power = float(np.linalg.norm(song) * np.linalg.norm(film))
    return int(lags[best]), float(fit[best]) / power if power else 0.0


def _word(pattern: str, description: str) -> str | None:
    """A name that ffmpeg prints only in its human-readable description."""
    found = re.search(pattern, description)
    return found[1] if found else None


def _expect(path: Path, holds: bool, what: str) -> None:
    if not holds:
        raise VideoError(f"{path} {what}", hint="this is a bug: please report it with the command that made the film")
