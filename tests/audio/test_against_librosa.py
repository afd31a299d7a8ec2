"""What we measure, measured again by librosa, which shares no code with us."""

from __future__ import annotations

from dataclasses import dataclass

import librosa
import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from tests.conftest import SAMPLES
from wav2clip_gen.audio import features, spectra
from wav2clip_gen.audio.features import Features, measure
from wav2clip_gen.audio.separation import STEMS, DspSeparator
from wav2clip_gen.audio.smoothing import zero_phase_smooth
from wav2clip_gen.audio.timeline import Timeline
from wav2clip_gen.audio.track import open_track

Floats = NDArray[np.floating]

RATE, HOP = spectra.RATE, spectra.HOP
COLUMNS = RATE / HOP  # per second
FPS = 20
DRUMS_FROM = {"africa.ogg": 0.0, "song/mix.ogg": 4.0}  # seconds; librosa loses the beat of a guitar alone
AUDIBLE = 0.01  # of the loudest frame (-40 dB); what is more silent has no colour and no pitch worth comparing


@dataclass(frozen=True, eq=False)
class Heard:
    """A sample, as we hear it, and what librosa hears in it."""

    name: str
    found: Features
    magnitudes: Floats  # (bins, K) of windows of 4096 samples
    strength: Floats  # (K,) of onsets, by librosa
    middles: Floats  # (F,) seconds, of the frames

    def at_frames(self, column_values: Floats) -> Floats:
        """Values (K,) between librosa's columns, at our frames (F,)."""
        return np.interp(self.middles, np.arange(len(column_values)) / COLUMNS, column_values)

    @property
    def audible(self) -> NDArray[np.bool_]:
        return self.found.levels > AUDIBLE * self.found.levels.max()


@pytest.fixture(scope="module", params=DRUMS_FROM)
def heard(request: pytest.FixtureRequest) -> Heard:
    track = open_track(SAMPLES / request.param)
    timeline = Timeline.of(track, fps=FPS)
    sound = np.concatenate(list(track.mono_blocks(RATE)))
    return Heard(
        request.param,
        measure(track, timeline),
        magnitudes=np.abs(librosa.stft(sound, n_fft=features.TONE_SIZE, hop_length=HOP)),
        strength=librosa.onset.onset_strength(y=sound, sr=RATE, hop_length=HOP),
        middles=timeline.frame_times() + 0.5 / FPS,
    )


def agreement(ours: Floats, theirs: Floats, within: float) -> float:
    """The F-measure of two lists of ascending times, each of which may be met once."""
    met, taken = 0, 0
    for time in ours:
        while taken < len(theirs) and theirs[taken] < time - within:
            taken += 1
        if taken < len(theirs) and theirs[taken] <= time + within:
            met, taken = met + 1, taken + 1
    return 2 * met / (len(ours) + len(theirs))


def likeness(ours: Floats, theirs: Floats) -> float:
    return float(np.corrcoef(ours, theirs)[0, 1])


def test_onsets_lie_within_50_ms_of_librosas(heard: Heard) -> None:
    onsets = librosa.onset.onset_detect(onset_envelope=heard.strength, sr=RATE, hop_length=HOP, units="time")
    assert agreement(heard.found.onsets, onsets, 0.05) >= 0.9  # measured: 0.97 and 0.92


def test_the_tempo_is_a_strongest_pulse_of_librosas_tempogram(heard: Heard) -> None:
    """librosa's own choice is not asked: of the djembe's 102 and 136, equally strong, it takes the nearer to 120."""
    size = round(8 * COLUMNS)
    tempogram = librosa.feature.tempogram(onset_envelope=heard.strength, sr=RATE, hop_length=HOP, win_length=size)
    pulses, tempi = tempogram.mean(axis=1), librosa.tempo_frequencies(size, hop_length=HOP, sr=RATE)
    usual = (tempi > 60) & (tempi < 240)
    assert heard.found.tempo is not None
    assert np.interp(heard.found.tempo, tempi[:0:-1], pulses[:0:-1]) >= 0.95 * pulses[usual].max()


def test_beats_lie_within_70_ms_of_librosas_at_the_same_tempo(heard: Heard) -> None:
    _, beats = librosa.beat.beat_track(
        onset_envelope=heard.strength, sr=RATE, hop_length=HOP, bpm=heard.found.tempo, units="time"
    )
    start = DRUMS_FROM[heard.name] - 0.1
    ours, theirs = (times[times > start] for times in (heard.found.beats, beats))
    assert agreement(ours, theirs, 0.07) >= 0.9  # measured: 1.00 and 0.98


def test_the_songs_beats_are_those_of_its_score() -> None:
    """120 beats a minute from the first sample on, in the bars before the drums too."""
    track = open_track(SAMPLES / "song" / "mix.ogg")
    beats = measure(track, Timeline.of(track, fps=FPS)).beats
    np.testing.assert_allclose(beats, np.arange(32) / 2, atol=0.04)


def test_the_centroid_is_librosas(heard: Heard) -> None:
    centroid = np.log2(librosa.feature.spectral_centroid(S=heard.magnitudes, sr=RATE)[0] + 1e-9)
    half_life = features.CENTROID_SMOOTHING * COLUMNS
    theirs = heard.at_frames(zero_phase_smooth(centroid, half_life, heard.magnitudes.sum(axis=0)))[heard.audible]
    curve = heard.found.curves["centroid"]
    ours = (curve.low + curve.values * (curve.high - curve.low))[heard.audible]
    assert likeness(ours, theirs) >= 0.99  # measured: 0.9998 and 0.9999
    assert np.median(np.abs(ours - theirs)) < 0.02  # octaves


def test_the_level_is_librosas(heard: Heard) -> None:
    samples, rate = soundfile.read(SAMPLES / heard.name, dtype="float32")
    frame = rate // FPS
    channels = librosa.feature.rms(y=samples.T, frame_length=frame, hop_length=frame, center=False)[:, 0]
    theirs = np.sqrt(np.square(channels).mean(axis=0))
    np.testing.assert_allclose(heard.found.levels[: len(theirs)], theirs, rtol=1e-4, atol=1e-6)


def test_chroma_is_librosas(heard: Heard) -> None:
    power = librosa.feature.chroma_stft(S=heard.magnitudes**2, sr=RATE, tuning=0, norm=None, octwidth=None)
    rows = zero_phase_smooth(np.sqrt(power.T), features.CHROMA_SMOOTHING * COLUMNS)
    theirs = np.stack([heard.at_frames(row) for row in rows.T], axis=1)
    lengths = np.linalg.norm(heard.found.chroma, axis=1) * np.linalg.norm(theirs, axis=1)
    cosines = (heard.found.chroma * theirs).sum(axis=1)[heard.audible] / lengths[heard.audible]
    assert np.median(cosines) >= 0.98  # measured: 0.997 and 0.994
    assert np.percentile(cosines, 5) >= 0.95


@pytest.mark.parametrize("name", DRUMS_FROM)
def test_what_is_short_and_broad_is_shared_out_as_by_librosa(name: str) -> None:
    mix, rate = soundfile.read(SAMPLES / name, dtype="float32", always_2d=True)
    mono = mix.mean(axis=1)
    drums = DspSeparator().separate(mono[None], rate)[STEMS.index("drums"), 0]
    spectrum = librosa.stft(mono, n_fft=4096, hop_length=1024)
    steady, broad = 13, 13  # columns, 0.3 s as ours; bins, where ours are bands
    _, percussive = librosa.decompose.hpss(spectrum, kernel_size=(steady, broad))
    theirs = librosa.istft(percussive, hop_length=1024, length=len(mono))
    assert likeness(drums, theirs) >= 0.95  # measured: 0.992 and 0.977
    assert likeness(mono - drums, mono - theirs) >= 0.98  # measured: 0.991 and 0.998
