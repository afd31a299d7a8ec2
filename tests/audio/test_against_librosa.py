"""What is measured by own code, measured again by librosa, and the beats of the sample song by its score."""

from __future__ import annotations

import importlib

import librosa
import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from tests.audio.conftest import features_of
from tests.conftest import SAMPLES
from wav2clip_gen.audio import features
from wav2clip_gen.audio.decode import FEATURE_RATE as RATE
from wav2clip_gen.audio.features import Features
from wav2clip_gen.audio.separation import STEMS, DspSeparator
from wav2clip_gen.audio.smoothing import zero_phase_smooth
from wav2clip_gen.audio.structure import COLUMNS, HOP, librosa_lock
from wav2clip_gen.audio.track import open_track

Floats = NDArray[np.floating]

FPS = 20
DRUMS_FROM = {"africa.ogg": 0.0, "song/mix.ogg": 4.0}  # seconds; librosa loses the beat of a guitar alone
AUDIBLE = 0.01  # of the loudest frame (-40 dB); quieter frames are not worth comparing


@pytest.fixture(scope="module", autouse=True)
def _import_librosa() -> None:
    with librosa_lock():
        importlib.import_module("librosa.beat")


@pytest.fixture(scope="module", params=DRUMS_FROM)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def found(name: str) -> Features:
    return features_of(SAMPLES / name, FPS)


@pytest.fixture(scope="module")
def mono(name: str) -> Floats:
    return np.concatenate(list(open_track(SAMPLES / name).mono_blocks(RATE)))


def agreement(ours: Floats, theirs: Floats, within: float) -> float:
    """The F-measure of two lists of ascending times, each of which may be matched once."""
    matched, taken = 0, 0
    for time in ours:
        while taken < len(theirs) and theirs[taken] < time - within:
            taken += 1
        if taken < len(theirs) and theirs[taken] <= time + within:
            matched, taken = matched + 1, taken + 1
    return 2 * matched / (len(ours) + len(theirs))


def likeness(ours: Floats, theirs: Floats) -> float:
    return float(np.corrcoef(ours, theirs)[0, 1])


def test_beats_lie_within_70_ms_of_librosas_at_the_same_tempo(name: str, found: Features, mono: Floats) -> None:
    strength = librosa.onset.onset_strength(y=mono, sr=RATE, hop_length=HOP)
    _, beats = librosa.beat.beat_track(onset_envelope=strength, sr=RATE, hop_length=HOP, bpm=found.tempo, units="time")
    start = DRUMS_FROM[name] - 0.1
    ours, theirs = (times[times > start] for times in (found.beats, beats))
    assert agreement(ours, theirs, 0.07) >= 0.9


def test_the_beats_of_the_song_are_those_of_its_score() -> None:
    """120 beats a minute from the first sample on, in the bars before the drums too."""
    beats = features_of(SAMPLES / "song" / "mix.ogg").beats
    np.testing.assert_allclose(beats, np.arange(32) / 2, atol=0.04)


def test_the_centroid_is_librosas(found: Features, mono: Floats) -> None:
    magnitudes = np.abs(librosa.stft(mono, n_fft=features.TONE_SIZE, hop_length=HOP))
    centroid = np.log2(librosa.feature.spectral_centroid(S=magnitudes, sr=RATE)[0] + 1e-9)
    smooth = zero_phase_smooth(centroid, features.CENTROID_SMOOTHING * COLUMNS, magnitudes.sum(axis=0))
    centres = (np.arange(len(found.levels)) + 0.5) / FPS
    audible = found.levels > AUDIBLE * found.levels.max()
    theirs = np.interp(centres, np.arange(len(smooth)) / COLUMNS, smooth)[audible]
    curve = found.curves["centroid"]
    ours = (curve.low + curve.values * (curve.high - curve.low))[audible]
    assert likeness(ours, theirs) >= 0.99
    assert np.median(np.abs(ours - theirs)) < 0.02  # octaves


def test_the_level_is_librosas(name: str, found: Features) -> None:
    samples, rate = soundfile.read(SAMPLES / name, dtype="float32")
    frame = rate // FPS
    channels = librosa.feature.rms(y=samples.T, frame_length=frame, hop_length=frame, center=False)[:, 0]
    theirs = np.sqrt(np.square(channels).mean(axis=0))
    np.testing.assert_allclose(found.levels[: len(theirs)], theirs, rtol=1e-4, atol=1e-6)


def test_drums_are_the_percussive_part_of_librosas_hpss(name: str) -> None:
    mix, rate = soundfile.read(SAMPLES / name, dtype="float32", always_2d=True)
    whole = mix.mean(axis=1)
    drums = DspSeparator().separate(whole[None], rate)[STEMS.index("drums"), 0]
    spectrum = librosa.stft(whole, n_fft=4096, hop_length=1024)
    steady, broad = 13, 13  # columns, 0.3 s as ours; bins, where ours are bands
    _, percussive = librosa.decompose.hpss(spectrum, kernel_size=(steady, broad))
    theirs = librosa.istft(percussive, hop_length=1024, length=len(whole))
    assert likeness(drums, theirs) >= 0.95
    assert likeness(whole - drums, whole - theirs) >= 0.98
