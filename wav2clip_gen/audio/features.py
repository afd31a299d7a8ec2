"""What can be measured in a sound, frame by frame."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wav2clip_gen.audio.track import Track
from wav2clip_gen.audio.windows import Timeline

LOUD = 99  # percentile of the frames that counts as fully loud


def loudness(track: Track, timeline: Timeline) -> NDArray[np.float64]:
    """How loud each frame is against the loud places of its own song, (F,) in [0, 1]; silence is 0.

    The root mean square over the frame's samples and all channels, divided by its 99th percentile.
    """
    energies, counts = _frame_energies(track, timeline)
    level = np.sqrt(energies / np.maximum(counts, 1))
    if counts[-1] == 0:  # the last frame may begin less than half a sample before the end
        level[-1] = level[-2]
    loud = np.percentile(level, LOUD) or level.max()
    return np.clip(level / loud, 0, 1) if loud > 0 else level


def _frame_energies(track: Track, timeline: Timeline) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Sum over each frame of the channels' mean square, (F,), and the number of samples summed, (F,)."""
    edges = timeline.frame_edges()
    energies = np.zeros(timeline.frames)
    first = 0
    for block in track.blocks():
        squares = np.square(block, dtype=np.float64).mean(axis=0)
        owners = np.searchsorted(edges, first + np.arange(len(squares)), side="right") - 1
        sums = np.bincount(owners - owners[0], weights=squares)
        energies[owners[0] : owners[0] + len(sums)] += sums
        first += len(squares)
    return energies, np.diff(edges)
