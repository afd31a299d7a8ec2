from __future__ import annotations

import numpy as np

from tests.audio.conftest import Save, features_of, noise
from tests.conftest import SAMPLES
from wav2clip_gen.audio.sections import boundaries


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
