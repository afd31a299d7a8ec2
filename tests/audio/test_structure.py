from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.audio.conftest import Save, features_of, noise
from tests.conftest import ROOT, SAMPLES
from wav2clip_gen.audio.features import Features
from wav2clip_gen.audio.structure import boundaries, onset_times, track_beats

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


def sections(save: Save, song: np.ndarray) -> np.ndarray:
    return features_of(save("song.wav", song, 22_050)).sections


def tone(seconds: float, *hertz: float) -> np.ndarray:
    t = np.arange(round(seconds * 22_050)) / 22_050
    return np.sum([0.1 * np.sin(2 * np.pi * pitch * t) for pitch in hertz], axis=0)[:, None]


def test_two_different_halves_are_two_sections(save: Save) -> None:
    found = sections(save, np.concatenate([noise(10, 22_050, 1), tone(10, 300)]))
    np.testing.assert_allclose(found, [0, 10, 20], atol=0.3)


def test_a_new_harmony_is_a_new_section(save: Save) -> None:
    song = np.concatenate([tone(12, 261.6, 329.6, 392.0), tone(9, 277.2, 349.2, 415.3), tone(9, 261.6, 329.6, 392.0)])
    np.testing.assert_allclose(sections(save, song), [0, 12, 21, 30], atol=0.3)


def test_the_sample_song_changes_where_the_drums_enter_and_where_the_bass_leaves() -> None:
    np.testing.assert_allclose(features_of(SAMPLES / "song" / "mix.ogg").sections, [0, 4, 12, 16], atol=0.3)


def test_a_uniform_signal_is_one_section(save: Save) -> None:
    for song in (noise(30, 22_050, 1), tone(30, 300), np.zeros((22_050 * 30, 1)), noise(0.3, 22_050, 1)):
        assert sections(save, song).tolist() == [0, len(song) / 22_050]


def test_a_boundary_falls_on_the_beat() -> None:
    features = np.repeat([[0.0, 5.0], [5.0, 0.0]], 40, axis=0)
    assert boundaries(features, 0.25, 20.0, np.array([9.5, 10.2, 10.9])).tolist() == [0, 10.2, 20]
    assert boundaries(features, 0.25, 20.0, np.array([9.0, 11.0])).tolist() == [0, 10, 20]


MEASURE = """
import sys
from pathlib import Path
from wav2clip_gen.audio.decode import FEATURE_RATE, decode
from wav2clip_gen.audio.features import measure
from wav2clip_gen.audio.timeline import Timeline
from wav2clip_gen.audio.track import open_track
track = open_track(Path(sys.argv[1]), duration=4)
timeline = Timeline.of(track, fps=12)
assert len(measure(decode(track, timeline, [FEATURE_RATE]), timeline).onsets) > 4
"""


@pytest.mark.slow
@pytest.mark.more
def test_processes_that_compile_librosas_code_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "numba"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", MEASURE, str(SAMPLES / "africa.ogg")]
    processes = [subprocess.Popen(command, cwd=ROOT, env=environment) for _ in range(3)]
    assert [process.wait(timeout=300) for process in processes] == [0, 0, 0]
