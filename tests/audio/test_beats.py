from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.audio.conftest import Save, features_of, noise
from wav2clip_gen.audio.beats import onset_times, track_beats
from wav2clip_gen.audio.features import Features

RATE = 44_100


def clicks(times: NDArray[np.float64], seconds: float) -> NDArray[np.float32]:
    """Short decaying tones at the given seconds over a faint noise, (n, 1)."""
    song = 1e-4 * np.random.default_rng(1).standard_normal(round(seconds * RATE))
    n = np.arange(1400)
    for time in times:
        song[round(time * RATE) :][: len(n)] += (0.5 * np.sin(2 * np.pi * 1000 * n / RATE) * np.exp(-n / 350))[
            : len(song) - round(time * RATE)
        ]
    return song[:, None].astype(np.float32)


def measured(save: Save, song: NDArray[np.float32]) -> Features:
    return features_of(save("song.wav", song, RATE))


@pytest.mark.parametrize("tempo", [60, 75, 97.3, 120, 128, 174])
def test_beats_of_a_click_track(save: Save, tempo: float) -> None:
    times = np.arange(0.5, 19.9, 60 / tempo)
    found = measured(save, clicks(times, 20))
    assert found.tempo == pytest.approx(tempo, rel=0.005)
    assert len(found.beats) == len(times)
    np.testing.assert_allclose(found.beats, times, atol=0.01)


def test_beats_go_on_where_one_is_left_out(save: Save) -> None:
    times = np.arange(0.5, 19.9, 0.5)
    found = measured(save, clicks(np.delete(times, [9, 20, 21]), 20))
    np.testing.assert_allclose(found.beats, times, atol=0.03)


def test_onsets_are_at_the_attacks(save: Save) -> None:
    times = np.array([0.4, 0.6, 1.31, 1.47, 2.0, 3.33, 3.5, 4.777])
    found = measured(save, clicks(times, 6))
    assert len(found.onsets) == len(times)
    np.testing.assert_allclose(found.onsets, times, atol=0.01)
    assert abs(np.mean(found.onsets - times)) < 0.003


def test_a_signal_without_a_pulse_has_no_tempo(save: Save) -> None:
    tone = 0.3 * np.sin(2 * np.pi * 220 * np.arange(5 * RATE) / RATE)[:, None].astype(np.float32)
    for song in (noise(20), tone):
        found = measured(save, song)
        assert (found.tempo, len(found.beats)) == (None, 0)


def test_short_or_constant_curves_have_no_pulse() -> None:
    for strength in (np.zeros(1), np.ones(1), np.ones(2), np.zeros(500), np.ones(500)):
        assert track_beats(strength)[0] is None
    assert len(onset_times(np.zeros(500))) == len(onset_times(np.ones(2))) == 0
