"""A track with the levels of its frames, decoded again whenever it is read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wav2clip_gen.audio.smoothing import normalize_to_peak
from wav2clip_gen.audio.timeline import Timeline
from wav2clip_gen.audio.track import Samples, Track

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class DecodedTrack:
    """A track and the root mean square of each frame over all channels, (F,); 1 is full scale."""

    track: Track
    levels: Floats

    def mono_blocks(self, rate: int) -> Iterator[Samples]:
        """The channels' mean at `rate` Hz as (n,) arrays."""
        return self.track.mono_blocks(rate)


def decode(track: Track, timeline: Timeline) -> DecodedTrack:
    """Decode a track and measure the level of each frame.

    Raises:
        SoundError: The file changed while it was read.
    """
    return DecodedTrack(track, levels(track, timeline))


def loudness(track: Track, timeline: Timeline) -> Floats:
    """Loudness of each frame relative to the loud passages of its own track, (F,) in [0, 1]; silence is 0.

    The root mean square over the frame's samples and all channels, divided by its 99th percentile.
    """
    return normalize_to_peak(levels(track, timeline)).values


def levels(track: Track, timeline: Timeline) -> Floats:
    """The root mean square over each frame's samples and all channels, (F,); 1 is full scale."""
    edges = timeline.frame_edges()
    energies, counts, first = np.zeros(timeline.frames), np.diff(edges), 0
    for block in track.blocks():
        squares = np.square(block, dtype=np.float64).mean(axis=0)
        owners = np.searchsorted(edges, first + np.arange(len(squares)), side="right") - 1
        sums = np.bincount(owners - owners[0], weights=squares)
        energies[owners[0] : owners[0] + len(sums)] += sums
        first += len(squares)
    level = np.sqrt(energies / np.maximum(counts, 1))
    if counts[-1] == 0:  # the last frame may begin less than half a sample before the end
        level[-1] = level[-2]
    return level
