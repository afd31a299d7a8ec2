from __future__ import annotations

from itertools import pairwise

import numpy as np

from tests.audio.conftest import Save, noise
from wav2clip_gen.audio.features import loudness
from wav2clip_gen.audio.track import open_track
from wav2clip_gen.audio.windows import Timeline


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


def test_silence_is_silent_and_one_click_is_loud(save: Save) -> None:
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
