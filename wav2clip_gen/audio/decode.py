"""Decode a track once: levels per frame, and mono signals at the rates that encoder and features need.

The signals are kept in temporary files, so that they can be read several times (the encoder's standardisation needs a
pass of its own) while memory does not grow with the length of the track.
"""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np
from numpy.typing import NDArray

from wav2clip_gen.audio.timeline import Timeline
from wav2clip_gen.audio.track import ENCODER_RATE, Samples, Track
from wav2clip_gen.errors import OutputError

Floats = NDArray[np.float64]

FEATURE_RATE = 22_050  # Hz, of the signal that features are measured on


@dataclass(frozen=True, eq=False)
class DecodedTrack:
    """A track's levels, and its mono signals on disk."""

    track: Track
    levels: Floats  # (F,) RMS over each frame's samples and all channels; 1 is full scale
    signals: dict[int, _Signal]  # by sample rate

    def mono_blocks(self, rate: int = ENCODER_RATE) -> Iterator[Samples]:
        """Stream the mean of the channels at one of the decoded rates as (n,) float32; any number of times."""
        return self.signals[rate].blocks()


def decode(track: Track, timeline: Timeline, rates: Collection[int] = (ENCODER_RATE,)) -> DecodedTrack:
    """Decode a track in one pass.

    Args:
        track: From `open_track`.
        timeline: Of a track of this length.
        rates: Sample rates in Hz of the mono signals.

    Raises:
        SoundError: The file changed since it was opened.
        OutputError: The folder for temporary files is full.
    """
    levels = _FrameLevels(timeline)
    signals = {rate: _Signal(track, rate) for rate in rates}
    try:
        for block in track.blocks():
            levels.add(block)
            mono = block.mean(axis=0, dtype=np.float32)
            for signal in signals.values():
                signal.write(mono)
        for signal in signals.values():
            signal.finish()
    except OSError as error:
        raise OutputError(
            f"cannot write temporary audio to {tempfile.gettempdir()}: {error.strerror}",
            hint="free some disk space there, or set TMPDIR to another folder",
        ) from error
    return DecodedTrack(track, levels.values(), signals)


class _Signal:
    """The mono signal of a track at one sample rate, in a temporary file without a name."""

    def __init__(self, track: Track, rate: int) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile(prefix="w2c-")  # noqa: SIM115 - closed with this object
        weakref.finalize(self, self._file.close)
        self._lengths: list[int] = []  # of the blocks, in samples
        self._missing = track.length_at(rate)
        self._resampler = None
        if rate != track.sample_rate:
            import soxr

            self._resampler = soxr.ResampleStream(track.sample_rate, rate, 1, dtype="float32", quality="HQ")

    def write(self, mono: Samples) -> None:
        """Append samples (n,) at the track's rate."""
        self._append(self._resampler.resample_chunk(mono) if self._resampler else mono)

    def finish(self) -> None:
        """Flush the resampler, and pad to the exact length."""
        rest = np.zeros(0, np.float32)
        if self._resampler:
            rest = self._resampler.resample_chunk(rest, last=True)[: self._missing]
        self._append(np.pad(rest, (0, self._missing - len(rest))))
        self._file.flush()

    def blocks(self) -> Iterator[Samples]:
        """Read the signal in the blocks in which it was written."""
        position = 0
        for length in self._lengths:
            self._file.seek(position * 4)
            yield np.frombuffer(self._file.read(length * 4), np.float32)
            position += length

    def _append(self, samples: Samples) -> None:
        samples = samples[: self._missing]
        if len(samples):
            self._file.write(np.ascontiguousarray(samples, np.float32).data)
            self._lengths.append(len(samples))
            self._missing -= len(samples)


class _FrameLevels:
    """Root mean square over each frame's samples and all channels, accumulated block by block."""

    def __init__(self, timeline: Timeline) -> None:
        self._edges = timeline.frame_edges()
        self._energies = np.zeros(timeline.frames)
        self._first = 0  # sample number of the next block

    def add(self, block: Samples) -> None:
        """Add samples (C, n)."""
        squares = np.square(block, dtype=np.float64).mean(axis=0)
        owners = np.searchsorted(self._edges, self._first + np.arange(len(squares)), side="right") - 1
        sums = np.bincount(owners - owners[0], weights=squares)
        self._energies[owners[0] : owners[0] + len(sums)] += sums
        self._first += len(squares)

    def values(self) -> Floats:
        """The levels (F,); 1 is full scale."""
        counts = np.diff(self._edges)
        levels = np.sqrt(self._energies / np.maximum(counts, 1))
        if counts[-1] == 0:  # the last frame may begin less than half a sample before the end
            levels[-1] = levels[-2]
        return levels
