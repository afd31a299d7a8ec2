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

from wav2clip_gen.audio.downmix import mix_down
from wav2clip_gen.audio.timeline import Timeline
from wav2clip_gen.audio.track import ENCODER_RATE, Resampler, Samples, Track
from wav2clip_gen.errors import OutputError

Floats = NDArray[np.float64]

FEATURE_RATE = 22_050  # Hz, of the signal that features are measured on


@dataclass(frozen=True, eq=False)
class DecodedTrack:
    """A track's levels, and its mono signals on disk."""

    levels: Floats  # (F,) RMS over each frame's samples and all channels; 1 is full scale
    signals: dict[int, _Signal]  # by sample rate

    def mono_blocks(self, rate: int = ENCODER_RATE) -> Iterator[Samples]:
        """Stream the mono signal at one of the decoded rates as (n,) float32; any number of times."""
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
    edges, energies, position = timeline.frame_edges(), np.zeros(timeline.frames), 0
    signals = {rate: _Signal(track, rate) for rate in rates}
    try:
        for block in track.blocks():
            squares = np.square(block, dtype=np.float64).mean(axis=0)
            owners = np.searchsorted(edges, position + np.arange(len(squares)), side="right") - 1
            sums = np.bincount(owners - owners[0], weights=squares)
            energies[owners[0] : owners[0] + len(sums)] += sums
            position += len(squares)
            mono = mix_down(block, track.mono_weights)
            for signal in signals.values():
                signal.append(signal.resampler.push(mono))
        for signal in signals.values():
            signal.append(signal.resampler.finish())
            signal.file.flush()
    except OSError as error:
        raise OutputError(
            f"cannot write temporary audio to {tempfile.gettempdir()}: {error.strerror}",
            hint="free some disk space there, or set TMPDIR to another folder",
        ) from error
    counts = np.diff(edges)
    levels = np.sqrt(energies / np.maximum(counts, 1))
    if counts[-1] == 0:  # the last frame may begin less than half a sample before the end
        levels[-1] = levels[-2]
    return DecodedTrack(levels, signals)


class _Signal:
    """The mono signal of a track at one sample rate, in a temporary file without a name."""

    def __init__(self, track: Track, rate: int) -> None:
        self.file: IO[bytes] = tempfile.TemporaryFile(prefix="w2c-")  # noqa: SIM115 - see the next line
        weakref.finalize(self, self.file.close)
        self.resampler = Resampler(track, rate)
        self._lengths: list[int] = []  # of the blocks, in samples

    def append(self, samples: Samples) -> None:
        """Write (n,) samples at the signal's rate, which may be none."""
        if len(samples):
            self.file.write(np.ascontiguousarray(samples, np.float32).data)
            self._lengths.append(len(samples))

    def blocks(self) -> Iterator[Samples]:
        """Read the signal in the blocks in which it was written."""
        position = 0
        for length in self._lengths:
            self.file.seek(position * 4)
            yield np.frombuffer(self.file.read(length * 4), np.float32)
            position += length
