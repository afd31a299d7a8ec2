"""Short-time spectra of a stream of sound, block by block, and the scales on which they are summed up."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wav2clip_gen.audio.track import Samples

RATE = 22_050  # Hz at which tracks are analysed
HOP = 256  # samples from one column of a spectrum to the next, 11.6 ms

ENERGY = 1 / 3  # mean square of a sound, for a sum of 1 over the power of its bins: a sine fills three halves of one

Floats = NDArray[np.float64]
Power = NDArray[np.float32]


class Spectrum:
    """Power spectra of a stream, column `k` centred at sample `k * HOP`; silence is thought at both ends.

    However the stream is cut into blocks, the columns are the same, and only a window of samples is kept.
    """

    def __init__(self, size: int) -> None:
        """Make ready for windows of `size` samples (Hann)."""
        self.size = size
        self._window = np.hanning(size + 1)[:-1].astype(np.float32)
        self._held = np.zeros(size // 2, np.float32)

    def push(self, block: Samples) -> Power:
        """Take (n,) further samples; give the columns that can be told now, (K, size // 2 + 1).

        A sine of amplitude 1 has power 1 in its bin.
        """
        from scipy.fft import rfft

        held = np.concatenate([self._held, block])
        count = max(0, (len(held) - self.size) // HOP + 1)
        self._held = held[count * HOP :]
        if count == 0:
            return np.zeros((0, self.size // 2 + 1), np.float32)
        pieces = np.lib.stride_tricks.sliding_window_view(held, self.size)[: count * HOP : HOP]
        bins = rfft(pieces * self._window, axis=1)
        scale = np.float32(2 / self._window.sum()) ** 2
        return scale * (bins.real**2 + bins.imag**2)

    def finish(self) -> Power:
        """The columns that are left once all samples were given."""
        return self.push(np.zeros(self.size // 2, np.float32))


def columns(samples: int) -> int:
    """How many columns `samples` samples have."""
    return 1 + samples // HOP


def frequencies(size: int) -> Floats:
    """Hz of each bin of a window of `size` samples."""
    return np.fft.rfftfreq(size, 1 / RATE).astype(np.float64)


def a_weights(hertz: Floats) -> Floats:
    """Factors on power that follow the ear at moderate levels (A-weighting, IEC 61672-1), 1 at 1 kHz."""
    f2 = np.square(np.asarray(hertz, np.float64))
    low, mid1, mid2, high = (value**2 for value in (20.598997, 107.65265, 737.86223, 12194.217))
    response: Floats = high * f2**2 / ((f2 + low) * np.sqrt((f2 + mid1) * (f2 + mid2)) * (f2 + high))
    return 10 ** (2.0 / 10) * response**2  # 2 dB bring 1 kHz to 0 dB


def mel_filters(size: int, bands: int) -> Floats:
    """Triangles of equal area over the bins, (size // 2 + 1, bands), equally spaced in mel (O'Shaughnessy)."""
    top = 2595 * np.log10(1 + RATE / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, bands + 2) / 2595) - 1)
    hertz = frequencies(size)[:, None]
    rise = (hertz - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - hertz) / (edges[2:] - edges[1:-1])
    triangles = np.maximum(0, np.minimum(rise, fall))
    return triangles / np.maximum(triangles.sum(axis=0), 1e-9)


def chroma_filters(size: int) -> Floats:
    """Share of each bin in each pitch class, (size // 2 + 1, 12), A at 440 Hz.

    A bin counts for the classes within a semitone, most for the nearest; lower than 60 Hz bins are wider than
    semitones, and higher than 4 kHz there are overtones rather than notes, so neither counts.
    """
    hertz = frequencies(size)
    heard = (hertz >= 60) & (hertz <= 4000)
    pitch = 69 + 12 * np.log2(np.where(heard, hertz, 440) / 440)  # as in MIDI, where C is a multiple of 12
    distance = (pitch[:, None] - np.arange(12) + 6) % 12 - 6
    return np.where(heard[:, None], np.exp(-0.5 * (distance / 0.35) ** 2), 0)


def band_sums(power: NDArray[np.floating], edges: Floats, size: int) -> Floats:
    """Power between neighbouring `edges` in Hz, (K, len(edges) - 1); bins that an edge cuts are shared out."""
    total = np.concatenate([np.zeros((len(power), 1)), np.cumsum(power, axis=1, dtype=np.float64)], axis=1)
    places = np.clip(edges / RATE * size + 0.5, 0, power.shape[1])  # bin b reaches from b - 1/2 to b + 1/2
    low = np.minimum(places.astype(np.int64), power.shape[1] - 1)
    share = places - low
    reached = total[:, low] * (1 - share) + total[:, low + 1] * share
    return np.diff(reached, axis=1)
