"""From a song to its four stems, block by block with crossfades, and a separator that needs no network.

`DspSeparator` divides the spectrum of a mix by masks that add up to 1. Drums are what is short and broad (D.
Fitzgerald, "Harmonic/percussive separation using median filtering", DAFx 2010). Of the rest, bass is the low end;
vocals are what does not repeat (Z. Rafii and B. Pardo, "Music/voice separation using the similarity matrix", ISMIR
2012) and is panned to the centre; other is the rest. Unlike in the papers the masks are made for bands instead of bins,
which is several times faster and separates as well. librosa's `hpss` and `nn_filter` on the same bands take 2 and 6
times as long as `_percussive` and `_repeating`, and 1.2 s to import: without them 30 s of stereo take 0.4 s in all.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wav2clip_gen.audio.downmix import invert_opposed
from wav2clip_gen.audio.track import Samples, Track

Spectra = NDArray[np.complex64]
Levels = NDArray[np.floating]  # single precision

STEMS = ("vocals", "drums", "bass", "other")  # what every separator makes, in this order
CROSSFADE = 2.0  # seconds that neighbouring blocks share

WINDOW = 0.093  # seconds: 4096 samples at 44.1 kHz; of 23, 46, 93 and 186 ms the best for drums
OVERLAP = 4  # windows over each sample
SINGLE_BELOW = 1000.0  # Hz: bands of one bin; above, bands of equal ratios
BANDS_PER_OCTAVE = 24
STEADY = 0.3  # seconds, the median filter along time
BROAD = 11  # bands, the median filter along frequency
BASS_FULL, BASS_END = 120.0, 320.0  # Hz: below the first all is bass, above the second nothing
VOICE_FROM = 120.0  # Hz
REPEATS = 12  # most similar moments, of which the background is the median
APART = 0.5  # seconds between moments that may repeat each other
TINY = np.float32(1e-12)


class Separator(Protocol):
    """Separates a block of audio into `STEMS`."""

    name: str  # as in the settings

    @property
    def version(self) -> str:
        """Changes wherever the stems of the same song change."""

    @property
    def is_ready(self) -> bool:
        """Whether all that it needs is on this machine, so that `version` is known at once."""

    def block_seconds(self, rate: int, channels: int) -> float:
        """Length of a block in seconds; more than `CROSSFADE`."""

    def separate(self, block: Samples, rate: int) -> Samples:
        """The stems (4, C, n) of a block (C, n)."""


def separated(song: Track, separator: Separator) -> Iterator[Samples]:
    """The stems as a stream of (4, C, n) arrays, `song.samples` in all.

    Raises:
        SoundError: The song changed while it was read.
    """
    rate, shared = song.sample_rate, round(CROSSFADE * song.sample_rate)
    length = round(separator.block_seconds(rate, song.channels) * rate)
    rise = np.linspace(0, 1, shared, dtype=np.float32)
    fading: Samples | None = None
    for block, is_last in _overlapping(song, length, shared):
        # separators take an inverted channel for sound at the sides
        stems = separator.separate(invert_opposed(block, song.mono_weights), rate)
        stems = invert_opposed(stems, song.mono_weights)
        if fading is not None:
            stems[..., :shared] = fading * (1 - rise) + stems[..., :shared] * rise
        end = stems.shape[2] if is_last else stems.shape[2] - shared
        fading = stems[..., end:]
        yield stems[..., :end]


def _overlapping(song: Track, length: int, shared: int) -> Iterator[tuple[Samples, bool]]:
    """Blocks (C, n) of `length` samples that overlap by `shared`, and whether each is the last, which may differ.

    No block has less than `shared` new samples, because a mask needs some context.
    """
    buffered, count = [np.zeros((song.channels, 0), np.float32)], 0
    for block in song.blocks():
        buffered.append(block)
        count += block.shape[1]
        while count >= length + shared:
            joined = np.concatenate(buffered, axis=1)
            yield joined[:, :length], False
            buffered = [joined[:, length - shared :]]
            count = buffered[0].shape[1]
    yield np.concatenate(buffered, axis=1), True


class DspSeparator:
    """Separates by masks, in a few seconds for a song."""

    name = "dsp"
    version = "1"  # incremented whenever the stems change
    is_ready = True

    def block_seconds(self, rate: int, channels: int) -> float:
        """30 s, in which a song repeats itself, but less where that would take too much memory."""
        return min(30.0, max(6.0, 30.0 * 96_000 / (rate * channels)))

    def separate(self, block: Samples, rate: int) -> Samples:
        """Divide a block (C, n) into (4, C, n): vocals, drums, bass, other, which add up to it."""
        peak = max(np.abs(block).max(), np.finfo(np.float32).tiny)
        spectrum = _Spectrum(block / peak, rate)  # so that no square overflows or underflows
        vocals, drums, bass = (peak * spectrum.masked(mask) for mask in _masks(spectrum))
        return np.stack([vocals, drums, bass, block - vocals - drums - bass])


class _Spectrum:
    """The short-time spectra of a block, and their levels in bands."""

    def __init__(self, block: Samples, rate: int) -> None:
        from scipy.fft import rfft

        self.size = 2 ** max(5, round(np.log2(WINDOW * rate)))  # samples in a window
        self._hop = self.size // OVERLAP
        self._length = block.shape[1]
        self._window = np.sqrt(np.hanning(self.size + 1)[:-1]).astype(np.float32)
        edge = self.size - self._hop
        padded = np.pad(block, ((0, 0), (edge, edge + -self._length % self._hop)))
        pieces = np.lib.stride_tricks.sliding_window_view(padded, self.size, axis=1)[:, :: self._hop]
        self.bins: Spectra = rfft(pieces * self._window, axis=2)  # (C, K, size // 2 + 1)
        self._starts = _band_starts(self.size, rate)
        self._widths = np.diff(self._starts, append=self.size // 2 + 1)
        self.columns = rate / self._hop  # per second
        self.hertz = (self._starts + (self._widths - 1) / 2) * rate / self.size  # centres of the bands
        power = np.square(self.bins.real) + np.square(self.bins.imag)
        self.power: Levels = self._in_bands(power.mean(axis=0))  # (K, bands)

    def centred(self) -> Levels | None:
        """How much of each band is panned to the centre, (K, bands) in [0, 1]; None unless the block is stereo."""
        if len(self.bins) != 2:
            return None
        together = self._in_bands((self.bins[0] * self.bins[1].conj()).real)
        return np.clip(together / np.maximum(self.power, TINY), 0, 1)

    def masked(self, mask: Levels) -> Samples:
        """The signal (C, n) of a mask (K, bands) over the spectra."""
        from scipy.fft import irfft

        share = np.repeat(mask.astype(np.float32), self._widths, axis=1)
        pieces = irfft(self.bins * share, n=self.size, axis=2) * (self._window * np.float32(2 / OVERLAP))
        channels, columns, _ = pieces.shape
        signal = np.zeros((channels, columns + OVERLAP - 1, self._hop), np.float32)
        for number in range(OVERLAP):
            signal[:, number : number + columns] += pieces[:, :, number * self._hop : (number + 1) * self._hop]
        edge = self.size - self._hop
        return signal.reshape(channels, -1)[:, edge : edge + self._length]

    def _in_bands(self, values: Levels) -> Levels:
        return np.add.reduceat(values, self._starts, axis=1) / self._widths.astype(np.float32)


def _band_starts(size: int, rate: int) -> NDArray[np.int64]:
    """The first bin of each band."""
    bins = size // 2 + 1
    single = min(bins, int(SINGLE_BELOW * size / rate))
    octaves = np.log2(bins / single)
    wide = np.geomspace(single, bins, max(2, int(octaves * BANDS_PER_OCTAVE)), endpoint=False)
    return np.unique(np.concatenate([np.arange(single), np.round(wide).astype(np.int64)]))


def _masks(spectrum: _Spectrum) -> tuple[Levels, Levels, Levels]:
    """The masks (K, bands) of vocals, drums and bass."""
    levels = np.sqrt(spectrum.power)
    drums = _percussive(levels, round(STEADY * spectrum.columns))
    rest = levels * (1 - drums)
    slope = np.log(BASS_END / np.maximum(spectrum.hertz, 1)) / np.log(BASS_END / BASS_FULL)
    low = np.clip(slope, 0, 1).astype(np.float32)  # (bands,)
    background = np.minimum(_repeating(rest, APART * spectrum.columns), rest)
    voice = (1 - background / np.maximum(rest, TINY)) * (spectrum.hertz >= VOICE_FROM)
    centred = spectrum.centred()
    if centred is not None:
        voice = voice * centred
    return (1 - drums) * (1 - low) * voice, drums, (1 - drums) * low


def _percussive(levels: Levels, steady: int) -> Levels:
    """How much of each level is short and broad rather than long and narrow, in [0, 1]."""
    long, broad = _medians(levels, steady, axis=0), _medians(levels, BROAD, axis=1)
    return np.square(broad) / (np.square(broad) + np.square(long) + TINY)


def _medians(levels: Levels, width: int, *, axis: int) -> Levels:
    """Running medians over about `width` values, mirrored at the ends."""
    half = min(max(1, width // 2), levels.shape[axis] - 1)
    padding = [(half, half) if number == axis else (0, 0) for number in range(2)]
    around = np.lib.stride_tricks.sliding_window_view(np.pad(levels, padding, mode="reflect"), 2 * half + 1, axis=axis)
    return np.sort(around, axis=2)[:, :, half]


def _repeating(levels: Levels, apart: float) -> Levels:
    """What repeats: the median of the moments most similar to each moment, (K, bands)."""
    count = len(levels)
    shapes = levels / np.maximum(np.linalg.norm(levels, axis=1, keepdims=True), TINY)
    similar = shapes @ shapes.T
    numbers = np.arange(count)
    similar[np.abs(numbers[:, None] - numbers) < apart] = -1  # a moment is not a repetition of itself
    wanted = min(REPEATS, count)
    best = np.argpartition(-similar, wanted - 1, axis=1)[:, :wanted]
    return np.median(levels[best], axis=1)
