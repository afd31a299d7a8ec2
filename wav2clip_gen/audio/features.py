"""Audio features, frame by frame: frame `i` covers [i / fps, (i + 1) / fps).

Spectra are computed block by block, so that memory does not grow with the samples of a track. librosa is imported only
here and in `structure`, inside functions: it takes 1 s, and 20 s once after its installation, while numba compiles.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from wav2clip_gen.audio.decode import FEATURE_RATE as RATE
from wav2clip_gen.audio.decode import DecodedTrack
from wav2clip_gen.audio.smoothing import Curve, Pool, normalize_range, normalize_to_peak, zero_phase_smooth
from wav2clip_gen.audio.structure import HOP, boundaries, import_librosa, onset_times, track_beats
from wav2clip_gen.audio.timeline import Timeline
from wav2clip_gen.audio.track import Samples

Floats = NDArray[np.float64]
Power = NDArray[np.float32]

FLUX_SIZE = 1024  # samples in a window for onsets, 46 ms: short, to know when
TONE_SIZE = 4096  # samples in a window for all else, 186 ms: long, to know which note
EARLY = 0.009  # seconds by which a window contains an attack before its centre reaches it, measured with clicks
ENERGY = 1 / 3  # mean square of a signal per sum of its power spectrum: a sine spreads over 1.5 bins
MELS = 40
BAND_EDGES = np.array([20.0, 250.0, 2500.0, RATE / 2])  # Hz, around low, mid and high
LOWEST_NOTE, HIGHEST_NOTE = 60.0, 4000.0  # Hz: below, bins are wider than semitones; above, there are only overtones
COMPRESSION = 1e4  # of power in onset strength: what is 40 dB below a track's loud passages still counts
QUIET = 1e-6  # of the largest power (-60 dB): below it there is no centroid and no chroma
STILL = 0.02  # onset strength that counts as none: the flutter of a steady tone
FAINT = 0.01  # of the strongest band (-40 dB): a weaker band is not scaled up
OCTAVE = 1.0  # the least range of the centroid's curve
CELL = 22  # columns, 0.26 s: the resolution of section boundaries
SPECTROGRAM_ROWS = 240
SPECTROGRAM_COLUMNS = 1440  # at most
LOWEST = 30.0  # Hz, the spectrogram's lower edge

# Half-lives of the smoothing, in seconds. Loudness and onsets stay as sharp as they are.
BAND_SMOOTHING = 0.04
CENTROID_SMOOTHING = 0.1
CHROMA_SMOOTHING = 0.15


@dataclass(frozen=True, eq=False)
class Features:
    """Features of a track. Levels and loudness are those of all channels, the rest is of the channels' mean."""

    curves: dict[str, Curve]  # loudness, loudness_a, onset, centroid, low, mid, high
    chroma: Floats  # (F, 12) in [0, 1], C first; the strongest class of a frame is 1, of a silent frame 0
    levels: Floats  # (F,) root mean square; 1 is full scale
    onsets: Floats  # (n,) seconds
    beats: Floats  # (n,) seconds
    tempo: float | None  # beats per minute
    sections: Floats  # (S + 1,) seconds, from 0 to the track's duration
    spectrogram: Floats  # (columns, rows) dB below the loudest; rows from LOWEST to RATE / 2 Hz, in equal ratios


def measure(signal: DecodedTrack, timeline: Timeline) -> Features:
    """Measure everything in a signal that was decoded at `FEATURE_RATE`."""
    import_librosa()
    loudness = normalize_to_peak(signal.levels, unit="of full scale, RMS")
    # loud passages are scaled to a level of 1, so that thresholds suit every track
    gain = np.float32(1 / loudness.high if loudness.high > 0 else 0)
    short, long = (
        power_spectra((gain * block for block in signal.mono_blocks(RATE)), size) for size in (FLUX_SIZE, TONE_SIZE)
    )
    columns = _Columns(timeline)
    strength, attack, timbre = _measure_attacks(short, columns)
    tone, pitch, harmony, image = _measure_tones(long, columns)
    power = tone[:, 1:4].sum(axis=1)
    quiet = QUIET * float(power.max())
    audible = power > max(quiet, QUIET * 1e-12)
    tempo, beats = track_beats(strength)
    beats, duration = beats + EARLY, float(timeline.duration)
    return Features(
        curves=_curves(loudness, tone, attack, audible, float(timeline.fps)),
        chroma=_chroma(pitch, audible, float(timeline.fps), np.sqrt(quiet)),
        levels=signal.levels,
        onsets=_inside(onset_times(strength) + EARLY, duration),
        beats=_inside(beats, duration),
        tempo=tempo,
        sections=boundaries(_cells(timbre, harmony), CELL * HOP / RATE, duration, beats),
        spectrogram=image,
    )


def silenced(features: Features) -> Features:
    """The features of silence: all curves 0, no pitch, no onset and no beat."""
    curves = {name: replace(curve, values=np.zeros_like(curve.values)) for name, curve in features.curves.items()}
    return replace(
        features, curves=curves, chroma=np.zeros_like(features.chroma), onsets=np.zeros(0), beats=np.zeros(0),
        tempo=None,
    )  # fmt: skip


class _Columns:
    """To which frames, cells for sections, and columns of the spectrogram the columns of the spectra belong."""

    def __init__(self, timeline: Timeline) -> None:
        count, fps = 1 + timeline.length_at(RATE) // HOP, timeline.fps
        numbers, width = np.arange(count), min(count, SPECTROGRAM_COLUMNS)
        # exact, as frames are
        self.frames = np.minimum(numbers * HOP * fps.numerator // (RATE * fps.denominator), timeline.frames - 1)
        self.cells, self.image = numbers // CELL, numbers * width // count
        self._times, self._centres = numbers * HOP / RATE, timeline.frame_times() + 0.5 / float(fps)

    def frame_pool(self, width: int, *, peak: bool = False) -> Pool:
        """For `width` values of each frame."""
        return Pool(self.frames, len(self._centres), width, peak=peak)

    def in_frames(self, pool: Pool) -> Floats:
        """The pooled values (F, width), interpolated between columns where frames are shorter than they."""
        pooled, counts = pool.values(), np.bincount(self.frames, minlength=len(self._centres))
        filled = counts > 0
        if filled.all():
            return pooled
        known = np.bincount(self.frames, weights=self._times, minlength=len(pooled))[filled] / counts[filled]
        return np.stack([np.interp(self._centres, known, column[filled]) for column in pooled.T], axis=1)


def _measure_attacks(spectra: Iterable[Power], columns: _Columns) -> tuple[Floats, Floats, Floats]:
    """Onset strength of each column, 1 is the strongest, and of each frame; timbre of each cell, (cells, MELS)."""
    from librosa import filters
    from librosa.onset import onset_strength

    mel = filters.mel(sr=RATE, n_fft=FLUX_SIZE, n_mels=MELS, htk=True, norm=1).T
    attack, timbre = columns.frame_pool(1, peak=True), Pool(columns.cells, int(columns.cells[-1]) + 1, MELS)
    fluxes, last = list[Power](), np.zeros((1, MELS), np.float32)  # log mel spectrum of the previous column
    for power in spectra:
        bands = power @ mel
        timbre.add(bands)
        levels = np.concatenate([last, np.log1p(COMPRESSION * bands)])
        last = levels[-1:]
        fluxes.append(onset_strength(S=levels.T, sr=RATE, hop_length=HOP, center=False)[1:])
        attack.add(fluxes[-1][:, None])
    flux = np.concatenate(fluxes).astype(np.float64)
    return flux / max(float(flux.max()), STILL), columns.in_frames(attack)[:, 0], timbre.values()


def _measure_tones(spectra: Iterable[Power], columns: _Columns) -> tuple[Floats, Floats, Floats, Floats]:
    """Pool what longer windows show.

    Returns:
        (F, 6): A-weighted power, power of three bands, magnitude, and magnitude times Hz, of each frame.
        (F, 12): power of the pitch classes of each frame.
        (cells, 12): the same of each cell.
        (columns, rows): the spectrogram; see `Features`.
    """
    from librosa import A_weighting, fft_frequencies, filters

    hertz = fft_frequencies(sr=RATE, n_fft=TONE_SIZE)
    notes = filters.chroma(sr=RATE, n_fft=TONE_SIZE, tuning=0.0, norm=None, octwidth=None).T
    inside = (hertz >= LOWEST_NOTE) & (hertz <= HIGHEST_NOTE)
    notes = np.square(notes) * inside[:, None]  # squared, a semitone away counts 0.02 instead of 0.14
    with np.errstate(divide="ignore"):  # at 0 Hz
        a_weights = 10 ** (A_weighting(hertz) / 10)[:, None].astype(np.float32)
    hertz = hertz[:, None].astype(np.float32)
    rows = np.geomspace(LOWEST, RATE / 2, SPECTROGRAM_ROWS + 1)
    tone, pitch = columns.frame_pool(6), columns.frame_pool(12)
    harmony = Pool(columns.cells, int(columns.cells[-1]) + 1, 12)
    image = Pool(columns.image, int(columns.image[-1]) + 1, SPECTROGRAM_ROWS)
    for power in spectra:
        magnitudes = np.sqrt(power)
        energies = ENERGY * (power @ a_weights), ENERGY * band_sums(power, BAND_EDGES, TONE_SIZE)
        tone.add(np.concatenate([*energies, magnitudes.sum(axis=1, keepdims=True), magnitudes @ hertz], axis=1))
        pitch.add(power @ notes)
        harmony.add(power @ notes)
        image.add(band_sums(power, rows, TONE_SIZE) / np.diff(rows))
    shown = image.values()
    decibels = 10 * np.log10(np.maximum(shown / (float(shown.max()) or 1.0), 1e-12))
    return columns.in_frames(tone), columns.in_frames(pitch), harmony.values(), decibels


def _curves(loudness: Curve, tone: Floats, attack: Floats, audible: NDArray[np.bool_], fps: float) -> dict[str, Curve]:
    """The curves, by name; `tone` is of a signal in which `loudness.high` was scaled to 1."""

    def scaled(curve: Curve) -> Curve:
        return replace(curve, low=curve.low * loudness.high, high=curve.high * loudness.high)

    weighted, bands, magnitude, moment = np.sqrt(tone[:, 0]), np.sqrt(tone[:, 1:4]), tone[:, 4], tone[:, 5]
    centroid = np.log2(np.where(audible, moment / np.maximum(magnitude, 1e-12), 1))
    centroid = zero_phase_smooth(centroid, CENTROID_SMOOTHING * fps, np.where(audible, magnitude, 0))
    bands = zero_phase_smooth(bands, BAND_SMOOTHING * fps)
    floor = FAINT * max(normalize_to_peak(band).high for band in bands.T)
    curves = {
        "loudness": loudness,
        "loudness_a": scaled(normalize_to_peak(weighted, unit="of full scale, A-weighted RMS")),
        "onset": normalize_to_peak(attack, floor=STILL, unit="mean log ratio"),
        "centroid": normalize_range(centroid, audible, span=OCTAVE, unit="log2 of Hz"),
    }
    for name, band in zip(("low", "mid", "high"), bands.T, strict=True):
        curves[name] = scaled(normalize_to_peak(band, floor=floor, unit="of full scale, RMS"))
    return curves


def _chroma(pitch: Floats, audible: NDArray[np.bool_], fps: float, quiet: float) -> Floats:
    """Pitch classes, (F, 12); see `Features`."""
    pitch = zero_phase_smooth(np.sqrt(pitch), CHROMA_SMOOTHING * fps)
    strongest = pitch.max(axis=1, keepdims=True)
    return np.where(audible[:, None] & (strongest > quiet), pitch / np.maximum(strongest, 1e-12), 0)


def _cells(timbre: Floats, harmony: Floats) -> Floats:
    """Timbre in units of 10 dB, and harmony, of each cell, (cells, 52)."""
    shade = np.log10(np.maximum(timbre / max(float(timbre.max()), 1e-12), QUIET))
    harmony = np.sqrt(harmony)
    strongest = np.maximum(harmony.max(axis=1, keepdims=True), np.sqrt(QUIET) * max(float(harmony.max()), 1e-12))
    return np.concatenate([shade / np.sqrt(MELS / 12), harmony / strongest], axis=1)


def power_spectra(blocks: Iterable[Samples], size: int) -> Iterator[Power]:
    """Power spectra (K, size // 2 + 1) of a stream, by windows (Hann) of `size` samples; a sine of amplitude 1 has 1.

    Column `k` is centred at sample `k * HOP`; both ends are padded with silence. The columns do not depend on how the
    stream is cut into blocks, and only a window of samples is kept.
    """
    from librosa import stft

    edge = np.zeros(size // 2, np.float32)
    buffer = edge
    for block in chain(blocks, [edge]):
        buffer = np.concatenate([buffer, block])
        count = (len(buffer) - size) // HOP + 1
        if count > 0:
            bins = stft(buffer[: (count - 1) * HOP + size], n_fft=size, hop_length=HOP, center=False).T
            buffer = buffer[count * HOP :]
            yield np.float32(4 / size) ** 2 * (np.square(bins.real) + np.square(bins.imag))


def band_sums(power: NDArray[np.floating], edges: Floats, size: int) -> Floats:
    """Power between neighbouring `edges` in Hz, (K, len(edges) - 1); bins that an edge cuts are split."""
    total = np.concatenate([np.zeros((len(power), 1)), np.cumsum(power, axis=1, dtype=np.float64)], axis=1)
    places = np.clip(edges / RATE * size + 0.5, 0, power.shape[1])  # bin b reaches from b - 1/2 to b + 1/2
    low = np.minimum(places.astype(np.int64), power.shape[1] - 1)
    share = places - low
    cumulative = total[:, low] * (1 - share) + total[:, low + 1] * share
    return np.maximum(np.diff(cumulative, axis=1), 0)  # rounding may leave less than nothing


def _inside(seconds: Floats, duration: float) -> Floats:
    return np.clip(seconds[seconds < duration], 0, None)
