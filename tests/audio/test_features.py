from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.audio.conftest import Save, features_of, noise
from wav2clip_gen.audio.decode import FEATURE_RATE as RATE
from wav2clip_gen.audio.decode import decode
from wav2clip_gen.audio.features import ENERGY, Features, band_sums, power_spectra
from wav2clip_gen.audio.smoothing import normalize_to_peak, zero_phase_smooth
from wav2clip_gen.audio.structure import HOP
from wav2clip_gen.audio.timeline import Timeline
from wav2clip_gen.audio.track import Track, open_track


def loudness(track: Track, timeline: Timeline) -> NDArray[np.float64]:
    return normalize_to_peak(decode(track, timeline, rates=()).levels).values


def test_loudness_follows_the_music(save: Save) -> None:
    song = noise(3.0, 8_000)
    song[:8_000] = 0
    song[8_000:16_000] *= 0.25
    track = open_track(save("song.wav", song, 8_000))
    loud = loudness(track, Timeline.of(track, fps=10))
    assert loud.shape == (30,)
    assert loud[:10].max() == 0
    assert 0.15 < loud[10:20].mean() < 0.3
    assert 0.85 < loud[20:].mean() <= 1


def test_loudness_is_the_root_mean_square_of_each_frame(save: Save) -> None:
    song = noise(25.3, 8_000)  # longer than two blocks
    track = open_track(save("song.wav", song, 8_000))
    timeline = Timeline.of(track, fps=29.97)
    edges = timeline.frame_edges()
    plain = np.array([np.sqrt(np.square(song[a:b], dtype=np.float64).mean()) for a, b in pairwise(edges)])
    expected = np.clip(plain / np.percentile(plain, 99), 0, 1)
    np.testing.assert_allclose(loudness(track, timeline), expected, rtol=1e-6)


def test_silence_is_silent_and_a_click_is_loud(save: Save) -> None:
    song = np.zeros((80_000, 1), np.float32)
    track = open_track(save("silence.wav", song, 8_000))
    assert loudness(track, Timeline.of(track, fps=30)).max() == 0
    song[40_000] = 1
    track = open_track(save("click.wav", song, 8_000))
    assert loudness(track, Timeline.of(track, fps=30)).argmax() == 150


def test_the_shortest_tracks_have_a_loudness(save: Save) -> None:
    for samples in (1, 2, 1_001):
        track = open_track(save("dot.wav", np.full((samples, 1), 0.5, np.float32), 8_000))
        for fps in (1, 23.976, 1000):
            loud = loudness(track, Timeline.of(track, fps=fps))
            np.testing.assert_allclose(loud, 1)


def features(save: Save, song: NDArray[np.floating], rate: int = 22_050, fps: float = 12) -> Features:
    return features_of(save("song.wav", song.reshape(len(song), -1).astype(np.float32), rate), fps)


def sine(hertz: float, seconds: float = 3.0, rate: int = 22_050) -> NDArray[np.float64]:
    return 0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


@pytest.mark.parametrize(("hertz", "band"), [(100, "low"), (1000, "mid"), (5000, "high")])
def test_a_tone_lies_in_its_own_band(save: Save, hertz: float, band: str) -> None:
    found = features(save, sine(hertz))
    for name in ("low", "mid", "high"):
        inner = found.curves[name].values[3:-3]
        assert (inner > 0.99).all() if name == band else (inner < 0.05).all()
    assert found.curves[band].high == pytest.approx(0.3 / np.sqrt(2), rel=0.01)
    assert found.curves["loudness"].high == pytest.approx(0.3 / np.sqrt(2), rel=0.01)


def test_the_a_weighted_loudness_is_less_for_low_tones(save: Save) -> None:
    low, middle = (features(save, sine(hertz)).curves["loudness_a"].high for hertz in (100, 1000))
    assert 20 * np.log10(low / middle) == pytest.approx(-19.1, abs=0.3)


def test_the_centroid_rises_from_a_low_to_a_high_tone(save: Save) -> None:
    centroid = features(save, np.concatenate([sine(440), sine(3520)])).curves["centroid"]
    hertz = 2 ** (centroid.low + centroid.values * (centroid.high - centroid.low))
    assert hertz[10] == pytest.approx(440, rel=0.05)
    assert hertz[-10] == pytest.approx(3520, rel=0.05)
    assert centroid.values[10] < 0.1
    assert centroid.values[-10] > 0.9


def test_chroma_names_the_notes_of_a_chord(save: Save) -> None:
    chord = sine(261.63) + sine(329.63) + sine(392.0)  # C, E, G
    chroma = features(save, chord).chroma[5:-5]
    assert (np.sort(np.argsort(chroma)[:, -3:]) == [0, 4, 7]).all()
    assert (np.delete(chroma, [0, 4, 7], axis=1) < 0.3).all()
    assert features(save, sine(5000)).chroma[5:-5].max() == 0  # no note


def test_an_onset_is_strong_in_the_frame_where_it_sounds(save: Save) -> None:
    song = np.zeros(22_050 * 4)
    song[44_100:44_700] = 0.5 * np.random.default_rng(0).standard_normal(600)  # at 2 s
    onset = features(save, song, fps=25).curves["onset"].values
    assert onset.argmax() in (49, 50)
    assert np.delete(onset, [48, 49, 50, 51]).max() < 0.05


def test_smoothing_does_not_come_late() -> None:
    peak = np.zeros(101)
    peak[50] = 1
    found = zero_phase_smooth(peak, 3.0)
    assert found.argmax() == 50
    np.testing.assert_allclose(found, found[::-1], atol=1e-12)
    assert found[53] / found[50] == pytest.approx(0.5, rel=1e-4)
    np.testing.assert_allclose(zero_phase_smooth(np.full((9, 2), 0.7), 5.0), 0.7)
    assert zero_phase_smooth(np.array([1.0, 5.0]), 1.0, np.array([1.0, 0.0]))[1] == pytest.approx(1.0)


def test_each_row_may_be_smoothed_by_a_half_life_of_its_own() -> None:
    peak, rows = np.eye(9)[4], np.arange(9.0)
    np.testing.assert_allclose(zero_phase_smooth(peak, 3.0 + 1e-9 * rows), zero_phase_smooth(peak, 3.0), atol=1e-6)
    found = zero_phase_smooth(peak, np.where(rows < 7, 3.0, 0.0))
    assert found[7:] == pytest.approx([0, 0], abs=1e-12)
    assert 0 < found[6] < found[5] < found[4]


def test_the_same_song_has_the_same_features_however_it_is_read(save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    song = noise(21, 22_050, 1) * np.linspace(0.1, 1, 21 * 22_050)[:, None]
    first = features(save, song)
    monkeypatch.setattr(Track.blocks, "__defaults__", (0.317,))
    again = features(save, song)
    for name, curve in first.curves.items():
        np.testing.assert_allclose(again.curves[name].values, curve.values, atol=1e-5)
    np.testing.assert_allclose(again.chroma, first.chroma, atol=1e-5)
    np.testing.assert_allclose(again.spectrogram, first.spectrogram, atol=1e-3)
    np.testing.assert_allclose(again.onsets, first.onsets, atol=1e-4)


@pytest.mark.parametrize(
    ("samples", "rate", "channels"),
    [(1, 8_000, 1), (1, 96_000, 1), (2, 44_100, 2), (700, 22_050, 1), (8_000, 8_000, 1), (48_000, 48_000, 8)],
)
@pytest.mark.parametrize("silent", [False, True])
@pytest.mark.parametrize("fps", [1, 23.976, 120])
def test_everything_has_numbers_for_features(
    save: Save, samples: int, rate: int, channels: int, silent: bool, fps: float
) -> None:
    song = noise(1.0, max(rate, samples), channels)[:samples] * (not silent)
    found = features(save, song.reshape(samples, channels), rate, fps)
    frames = -(-samples * fps // rate)
    for curve in found.curves.values():
        assert abs(len(curve.values) - frames) <= 1
        assert np.isfinite([curve.low, curve.high, *curve.values]).all()
        assert 0 <= curve.values.min() <= curve.values.max() <= 1
        assert not silent or curve.values.max() == 0
    assert found.chroma.shape == (len(found.levels), 12)
    assert np.isfinite(found.chroma).all()
    assert np.isfinite(found.spectrogram).all()
    assert found.sections[[0, -1]].tolist() == [0, samples / rate]
    assert not silent or (len(found.onsets), len(found.beats), found.tempo) == (0, 0, None)


def spectra_of_the_whole(samples: NDArray[np.floating], size: int) -> NDArray[np.float64]:
    """Power spectra, a column at a time, of the whole signal with silence around it."""
    padded = np.pad(samples.astype(np.float64), size // 2)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
    pieces = [padded[start : start + size] for start in range(0, len(samples) + 1, HOP)]
    return np.square(np.abs(np.fft.rfft(np.array(pieces) * window, axis=1)) * 2 / window.sum())


@pytest.mark.parametrize("samples", [1, 100, 256, 257, 1023, 30_000])
@pytest.mark.parametrize("size", [1024, 4096])
def test_spectra_of_blocks_are_those_of_the_whole(samples: int, size: int) -> None:
    sound = noise(2.0, channels=1)[:samples, 0]
    expected = spectra_of_the_whole(sound, size)
    assert len(expected) == 1 + samples // HOP
    for cuts in ([], [1], [samples // 3, samples // 3, samples // 2], list(range(0, samples, 777))):
        pieces = power_spectra(np.split(sound, cuts), size)
        np.testing.assert_allclose(np.concatenate(list(pieces)), expected, rtol=1e-3, atol=1e-7)


def test_a_sine_has_power_one_and_its_mean_square() -> None:
    hertz = 200 * RATE / 4096
    sound = np.sin(2 * np.pi * hertz / RATE * np.arange(20_000)).astype(np.float32)
    power = next(power_spectra([sound], 4096))[30]
    assert power.argmax() == 200
    assert power.max() == pytest.approx(1, abs=1e-3)
    assert ENERGY * power.sum() == pytest.approx(0.5, abs=1e-3)


def test_bands_split_the_bins_that_an_edge_cuts() -> None:
    edges = np.array([0.0, 1000.0, 1500.0, RATE / 2])
    sums = band_sums(np.ones((1, 513)), edges, 1024)
    np.testing.assert_allclose(sums[0, 1], 500 * 1024 / RATE)
    np.testing.assert_allclose(sums.sum(), 512)  # half of the first bin and half of the last lie outside
