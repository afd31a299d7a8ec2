"""All time arithmetic: the only place where seconds, samples, frames and windows are converted.

Frame `i` is shown at exactly `i / fps`; window `w` is centred at `w * hop`. Every number comes from an exact
fraction, never from adding up rounded steps, so nothing drifts however long the song is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice
from math import ceil, floor

import numpy as np
from numpy.typing import NDArray

from wav2clip_gen.audio.track import CHANGED, ENCODER_RATE, Samples, Track
from wav2clip_gen.errors import SettingsError, SoundError

Indices = NDArray[np.int64]

_NTSC = [Fraction(n * 1000, 1001) for n in (24, 30, 48, 60, 120)]


def exact_fps(number: float | str | Fraction) -> Fraction:
    """Frames per second as a fraction: 23.976 and 23.98 mean 24000/1001, 29.97 means 30000/1001, and so on.

    Others are rounded to the nearest fraction over at most 1001, which video containers hold exactly.

    Raises:
        SettingsError: It is not a positive number.
    """
    try:
        fps = number if isinstance(number, Fraction) else Fraction(str(number))
    except (ValueError, ZeroDivisionError):
        fps = Fraction(0)
    if fps <= 0:
        raise SettingsError(f"{number} frames per second cannot be shown", hint="for example 12 or 23.976")
    near = [ntsc for ntsc in _NTSC if fps.denominator > 1 and abs(fps / ntsc - 1) < 2e-4]
    return near[0] if near else fps.limit_denominator(1001)


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """How the samples of a track, the frames of a film and the windows of the audio encoder lie in time."""

    samples: int  # per channel
    sample_rate: int  # Hz
    fps: Fraction  # frames per second
    window: float = 1.0  # seconds that the encoder embeds at once
    hop: float = 0.1  # seconds from one window to the next

    def __post_init__(self) -> None:
        if self.samples < 1 or self.sample_rate < 1:
            raise SoundError("there is no sound to put on a timeline", hint="choose a longer span")
        for name, seconds in (("window", self.window), ("hop", self.hop)):
            if not 0 < seconds < float("inf"):
                raise SettingsError(f"{name} cannot be {seconds:g} s", hint=f"{name} is more than 0 s")
        object.__setattr__(self, "fps", exact_fps(self.fps))

    @classmethod
    def of(cls, track: Track, *, fps: float | str | Fraction, window: float = 1.0, hop: float = 0.1) -> Timeline:
        """The timeline of a track."""
        return cls(samples=track.samples, sample_rate=track.sample_rate, fps=exact_fps(fps), window=window, hop=hop)

    @property
    def duration(self) -> Fraction:
        """Seconds of sound, exactly."""
        return Fraction(self.samples, self.sample_rate)

    @property
    def frames(self) -> int:
        """Number of frames: the video covers the audio, and ends less than a frame after it."""
        return ceil(self.duration * self.fps)

    def until(self, frames: int) -> Timeline:
        """The timeline of the first `frames` frames: with the samples that play while they are shown."""
        return replace(self, samples=min(self.samples, max(1, floor(frames * self.sample_rate / self.fps))))

    @property
    def windows(self) -> int:
        """Number of windows: the centre of the last one is not before the last frame."""
        return ceil((self.frames - 1) / self.fps / _exact(self.hop)) + 1

    def frame_times(self) -> NDArray[np.float64]:
        """When each frame is shown, (F,) seconds."""
        return np.arange(self.frames) * self.fps.denominator / self.fps.numerator

    def frame_edges(self) -> Indices:
        """Samples at which frames begin and end, (F + 1,): frame `i` lasts from edges[i] to edges[i + 1]."""
        edges = [round(index * self.sample_rate / self.fps) for index in range(self.frames + 1)]
        return np.minimum(edges, self.samples)

    def painted_frames(self, fps: float) -> Indices:
        """The frames nearest to `fps` times a second, and the last: those that are optimised; all, if `fps` is more."""
        spacing = max(Fraction(1), self.fps / exact_fps(fps))
        painted = [round(index * spacing) for index in range(ceil(self.frames / spacing))]
        return np.unique(np.minimum([*painted, self.frames - 1], self.frames - 1))

    def frames_between(self, start: float, stop: float) -> slice:
        """The frames that lie mostly between two times in seconds; at least one."""
        first, after = (round(second * float(self.fps)) for second in (start, stop))
        first = min(first, self.frames - 1)
        return slice(first, max(after, first + 1))

    def length_at(self, rate: int) -> int:
        """Number of samples at another rate, the same as `Track.length_at`."""
        return max(1, round(self.duration * rate))

    def window_span(self, index: int, rate: int = ENCODER_RATE) -> tuple[int, int]:
        """Samples [start, stop) of window `index` at `rate`; partly outside the song at its edges."""
        length = self.window_length(rate)
        start = round(index * _exact(self.hop) * rate) - length // 2
        return start, start + length

    def window_length(self, rate: int = ENCODER_RATE) -> int:
        """Samples in a window at `rate`; at least 1."""
        return max(1, round(_exact(self.window) * rate))


def iterate_windows(
    blocks: Iterator[Samples], timeline: Timeline, *, rate: int = ENCODER_RATE, batch: int = 64
) -> Iterator[Samples]:
    """Cut a stream into windows, never buffering more of it than a window, a hop and a block.

    Edges are mirrored, as `np.pad(mode="reflect")` does (repeatedly where the song is very short), so that no window
    contains silence that is not in the song.

    Args:
        blocks: The song as (n,) arrays at `rate`, `timeline.length_at(rate)` samples in all.
        timeline: Where the windows are.
        rate: Hz.
        batch: Windows per batch.

    Yields:
        (B, window_length) float32 with B <= batch, `timeline.windows` rows in all.

    Raises:
        SoundError: The stream ends before the timeline does.
    """
    windows = _windows(blocks, timeline, rate)
    while rows := list(islice(windows, batch)):
        yield np.stack(rows)


def _windows(blocks: Iterator[Samples], timeline: Timeline, rate: int) -> Iterator[Samples]:
    length, last = timeline.length_at(rate), timeline.windows - 1
    # mirrored at the end, the last window reaches back to here; later windows need nothing before it
    turn = 2 * (length - 1) - (timeline.window_span(last, rate)[1] - 1)
    buffer, first = np.zeros(0, np.float32), 0  # the samples that are still needed, and the index of the first
    for index in range(last + 1):
        start, stop = timeline.window_span(index, rate)
        gone = max(0, min(start - first, turn - first, len(buffer)))
        indices = _mirror(np.arange(start, stop), length)
        fresh, first = [buffer[gone:]], first + gone
        end = first + len(fresh[0])
        while end <= indices.max():
            block = next(blocks, None)
            if block is None:
                raise SoundError(f"the sound ends at sample {end}, before the timeline does", hint=CHANGED)
            fresh.append(block)
            end += len(block)
        buffer = np.concatenate(fresh) if len(fresh) > 1 else fresh[0]
        yield buffer[indices - first]


def _mirror(indices: Indices, length: int) -> Indices:
    """Fold indices into [0, length) as if the song were played forwards and backwards in turn."""
    if length == 1:
        return np.zeros_like(indices)
    period = 2 * (length - 1)
    folded = indices % period
    return np.minimum(folded, period - folded)


def _exact(seconds: float) -> Fraction:
    """The decimal fraction that was meant: 0.1 is one tenth, not the float nearest to it."""
    return Fraction(str(seconds))
