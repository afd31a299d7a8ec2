"""What can be measured in a sound, frame by frame: frame `i` covers [i / fps, (i + 1) / fps)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from wav2clip_gen.audio import spectra
from wav2clip_gen.audio.beats import onset_times, track_beats
from wav2clip_gen.audio.decode import DecodedTrack
from wav2clip_gen.audio.sections import boundaries
from wav2clip_gen.audio.smoothing import Curve, Gathered, normalize_range, normalize_to_peak, zero_phase_smooth
from wav2clip_gen.audio.timeline import Timeline

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

FLUX_SIZE = 1024  # samples in a window for onsets, 46 ms: short, to know when
TONE_SIZE = 4096  # samples in a window for all else, 186 ms: long, to know which note
EARLY = 0.009  # seconds by which a window hears an attack before its middle reaches it, measured with clicks
MELS = 40
BAND_EDGES = np.array([20.0, 250.0, 2500.0, spectra.RATE / 2])  # Hz, around low, mid and high
COMPRESSION = 1e4  # of power in onset strength: what lies 40 dB below a track's loud places still counts
QUIET = 1e-6  # of the loudest power (-60 dB): what lies lower has no colour and no pitch
STILL = 0.02  # onset strength that is none: the flutter of a steady tone
FAINT = 0.01  # of the strongest band (-40 dB): a weaker band is shown as weak as it is
OCTAVE = 1.0  # the least range of the centroid's curve
CELL = 22  # columns, 0.26 s: how finely sections are looked for
SPECTROGRAM_ROWS = 240
SPECTROGRAM_COLUMNS = 1440  # at most
LOWEST = 30.0  # Hz, the spectrogram's lower edge

# Half-lives of the smoothing, in seconds. Loudness and onsets stay as sharp as they are.
BAND_SMOOTHING = 0.04
CENTROID_SMOOTHING = 0.1
CHROMA_SMOOTHING = 0.15


@dataclass(frozen=True, eq=False)
class Features:
    """What was heard in a track. Levels and loudness are those of all channels, the rest is of the channels' mean."""

    curves: dict[str, Curve]  # loudness, loudness_a, onset, centroid, low, mid, high
    chroma: Floats  # (F, 12) in [0, 1], C first; the strongest class of a frame is 1, of a silent frame 0
    levels: Floats  # (F,) root mean square; 1 is full scale
    onsets: Floats  # (n,) seconds
    beats: Floats  # (n,) seconds
    tempo: float | None  # beats per minute
    sections: Floats  # (S + 1,) seconds, from 0 to the track's duration
    spectrogram: Floats  # (columns, rows) dB below the loudest; rows from LOWEST to RATE / 2 Hz, in equal ratios


def measure(signal: DecodedTrack, timeline: Timeline) -> Features:
    """Measure everything; memory does not grow with its samples, but with its frames.

    Args:
        signal: Decoded at `spectra.RATE`.
        timeline: Times of frames.
    """
    level = signal.levels
    loud = normalize_to_peak(level, unit="of full scale, RMS")
    heard = _Hearing(timeline)
    heard.listen(signal, gain=1 / loud.high if loud.high > 0 else 0.0)
    strength = heard.strength
    tempo, beats = track_beats(strength)
    beats, duration = beats + EARLY, float(timeline.duration)
    return Features(
        curves={"loudness": loud, **heard.curves(loud.high)},
        chroma=heard.chroma(),
        levels=level,
        onsets=_inside(onset_times(strength) + EARLY, duration),
        beats=_inside(beats, duration),
        tempo=tempo,
        sections=boundaries(heard.sound_of_cells(), CELL * spectra.HOP / spectra.RATE, duration, beats),
        spectrogram=heard.spectrogram(),
    )


def silenced(features: Features) -> Features:
    """What there is to drive a setting where nothing is heard: all curves 0, no pitch, no onset and no beat."""
    curves = {name: replace(curve, values=np.zeros_like(curve.values)) for name, curve in features.curves.items()}
    return replace(
        features, curves=curves, chroma=np.zeros_like(features.chroma), onsets=np.zeros(0), beats=np.zeros(0),
        tempo=None,
    )  # fmt: skip


class _Hearing:
    """One pass over a track's spectra, gathered into frames, into cells for sections, and into a picture."""

    def __init__(self, timeline: Timeline) -> None:
        count = spectra.columns(timeline.length_at(spectra.RATE))
        numbers = np.arange(count)
        frames = _frames_of_columns(numbers, timeline)
        cells, width = numbers // CELL, min(count, SPECTROGRAM_COLUMNS)
        self._timeline = timeline
        self._times = numbers * spectra.HOP / spectra.RATE
        self._middles = timeline.frame_times() + 0.5 / float(timeline.fps)
        self._flux: list[Floats] = []
        self._tone = Gathered(frames, timeline.frames, 6)  # power by ear, of three bands, magnitude, magnitude times Hz
        self._pitch = Gathered(frames, timeline.frames, 12)
        self._attack = Gathered(frames, timeline.frames, 1, peak=True)
        self._timbre = Gathered(cells, int(cells[-1]) + 1, MELS)
        self._harmony = Gathered(cells, int(cells[-1]) + 1, 12)
        self._picture = Gathered(numbers * width // count, width, SPECTROGRAM_ROWS)

    def listen(self, signal: DecodedTrack, *, gain: float) -> None:
        """Hear the track; `gain` brings its loud places to a level of 1, so that thresholds suit every track."""
        blocks = (np.float32(gain) * block for block in signal.mono_blocks(spectra.RATE))
        short, long = spectra.Spectrum(FLUX_SIZE), spectra.Spectrum(TONE_SIZE)
        hear_attack, hear_tone = self._attack_hearer(), self._tone_hearer()
        for block in blocks:
            hear_attack(short.push(block))
            hear_tone(long.push(block))
        hear_attack(short.finish())
        hear_tone(long.finish())

    def curves(self, loud: float) -> dict[str, Curve]:
        """The curves, by name; `loud` is the level that was brought to 1."""
        tone = self._tone.values(self._middles, self._times)
        by_ear, bands, magnitude, moment = np.sqrt(tone[:, 0]), np.sqrt(tone[:, 1:4]), tone[:, 4], tone[:, 5]
        heard = self._heard()
        centroid = np.log2(np.where(heard, moment / np.maximum(magnitude, 1e-12), 1))
        centroid = zero_phase_smooth(centroid, self._rows(CENTROID_SMOOTHING), np.where(heard, magnitude, 0))
        bands = zero_phase_smooth(bands, self._rows(BAND_SMOOTHING))
        floor = FAINT * max(normalize_to_peak(bands[:, band]).high for band in range(3))
        attack = self._attack.values(self._middles, self._times)[:, 0]
        return {
            "loudness_a": _scaled(normalize_to_peak(by_ear, unit="of full scale, A-weighted RMS"), loud),
            "onset": normalize_to_peak(attack, floor=STILL, unit="mean log ratio"),
            "centroid": normalize_range(centroid, heard, span=OCTAVE, unit="log2 of Hz"),
        } | {
            name: _scaled(normalize_to_peak(bands[:, band], floor=floor, unit="of full scale, RMS"), loud)
            for band, name in enumerate(("low", "mid", "high"))
        }

    def chroma(self) -> Floats:
        """Pitch classes, (F, 12); see `Features`."""
        pitch, heard = np.sqrt(self._pitch.values(self._middles, self._times)), self._heard()
        pitch = zero_phase_smooth(pitch, self._rows(CHROMA_SMOOTHING))
        strongest = pitch.max(axis=1, keepdims=True)
        tonal = heard[:, None] & (strongest > np.sqrt(QUIET * float(self._power().max())))
        return np.where(tonal, pitch / np.maximum(strongest, 1e-12), 0)

    @property
    def strength(self) -> Floats:
        """How strongly sounds set in at each column, (K,); 1 is the strongest."""
        flux = np.concatenate(self._flux)
        return flux / max(float(flux.max()), STILL)

    def sound_of_cells(self) -> Floats:
        """Timbre in units of 10 dB, and harmony, of each cell, (cells, 52)."""
        middles = np.zeros(0)  # no cell is without columns
        timbre = self._timbre.values(middles, self._times)
        harmony = np.sqrt(self._harmony.values(middles, self._times))
        loudest = max(float(timbre.max()), 1e-12)
        shade = np.log10(np.maximum(timbre / loudest, QUIET))
        strongest = np.maximum(harmony.max(axis=1, keepdims=True), np.sqrt(QUIET) * max(float(harmony.max()), 1e-12))
        return np.concatenate([shade / np.sqrt(MELS / 12), harmony / strongest], axis=1)

    def spectrogram(self) -> Floats:
        """The picture of the whole; see `Features`."""
        power = self._picture.values(np.zeros(0), self._times)
        loudest = float(power.max())
        return 10 * np.log10(np.maximum(power / loudest, 1e-12)) if loudest > 0 else np.full_like(power, -120.0)

    def _attack_hearer(self) -> Callable[[spectra.Power], None]:
        """What turns pieces of the short spectrum into onset strength and timbre."""
        mel = spectra.mel_filters(FLUX_SIZE, MELS).astype(np.float32)
        last: list[Floats] = []  # the column before the next piece

        def hear(power: spectra.Power) -> None:
            if len(power) == 0:
                return
            bands = power @ mel
            self._timbre.add(bands)
            loud = np.log1p(COMPRESSION * bands)
            rises = np.diff(loud, axis=0, prepend=last.pop() if last else np.zeros((1, MELS)))
            last.append(loud[-1:])
            flux = np.maximum(rises, 0).mean(axis=1)
            self._flux.append(flux)
            self._attack.add(flux[:, None])

        return hear

    def _tone_hearer(self) -> Callable[[spectra.Power], None]:
        """What turns pieces of the long spectrum into all else."""
        hertz = spectra.frequencies(TONE_SIZE)
        by_ear = spectra.a_weights(hertz).astype(np.float32)[:, None]
        column = hertz.astype(np.float32)[:, None]
        pitches = spectra.chroma_filters(TONE_SIZE).astype(np.float32)
        rows = np.geomspace(LOWEST, spectra.RATE / 2, SPECTROGRAM_ROWS + 1)

        def hear(power: spectra.Power) -> None:
            if len(power) == 0:
                return
            bands = spectra.band_sums(power, BAND_EDGES, TONE_SIZE)
            magnitudes = np.sqrt(power)
            total = magnitudes.sum(axis=1, keepdims=True)
            energy = spectra.ENERGY  # from the power of bins to that of the sound
            self._tone.add(
                np.concatenate([energy * (power @ by_ear), energy * bands, total, magnitudes @ column], axis=1)
            )
            pitch = power @ pitches
            self._pitch.add(pitch)
            self._harmony.add(pitch)
            self._picture.add(spectra.band_sums(power, rows, TONE_SIZE) / np.diff(rows))

        return hear

    def _heard(self) -> NDArray[np.bool_]:
        """Which frames are loud enough to have a colour, (F,)."""
        power = self._power()
        return power > QUIET * max(float(power.max()), 1e-12)

    def _power(self) -> Floats:
        """The power of all bands, (F,)."""
        return self._tone.values(self._middles, self._times)[:, 1:4].sum(axis=1)

    def _rows(self, seconds: float) -> float:
        return seconds * float(self._timeline.fps)


def _frames_of_columns(numbers: Indices, timeline: Timeline) -> Indices:
    """The frame in which each column's middle lies; exact, as frames are."""
    fps = timeline.fps
    frames = numbers * spectra.HOP * fps.numerator // (spectra.RATE * fps.denominator)
    return np.minimum(frames, timeline.frames - 1)


def _scaled(curve: Curve, factor: float) -> Curve:
    return replace(curve, low=curve.low * factor, high=curve.high * factor)


def _inside(seconds: Floats, duration: float) -> Floats:
    return np.clip(seconds[seconds < duration], 0, None)
