from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Write
from wav2clip_gen.analysis.words import EVERYDAY, SURE, Meaning, Word, name_spans, nearest, read_words
from wav2clip_gen.audio.decode import loudness
from wav2clip_gen.audio.timeline import Timeline, iterate_windows
from wav2clip_gen.audio.track import open_track
from wav2clip_gen.errors import SettingsError
from wav2clip_gen.models.families import Family


def test_everyday_words_are_many_and_different() -> None:
    words = read_words()
    assert 150 <= len(words) <= 200
    assert len(words) == len(EVERYDAY.read_text().splitlines())


def test_the_nearest_words_come_first_with_their_margins() -> None:
    vocabulary = np.eye(16)
    sound = np.zeros(16)
    sound[[3, 7]] = 0.8, 0.6
    best = nearest(sound, vocabulary, tuple("abcdefghijklmnop"))
    assert [(word.text, word.cosine) for word in best[:2]] == [("d", 0.8), ("h", 0.6)]
    cosines = vocabulary @ sound
    assert best[0].margin == pytest.approx((0.8 - cosines.mean()) / cosines.std())


def test_a_meaning_is_a_guess_below_the_threshold() -> None:
    assert Meaning(()).guessing
    assert Meaning((Word("rain", 0.2, SURE - 0.01),)).guessing
    assert not Meaning((Word("rain", 0.2, SURE),)).guessing


def test_each_span_has_words_of_its_own_and_silence_has_none(mini: Family, write_sound: Write) -> None:
    rng = np.random.default_rng(0)
    t = np.arange(16_000 * 4) / 16_000
    tone = 0.3 * np.sin(2 * np.pi * 440 * t)
    track = open_track(write_sound(np.concatenate([0.3 * rng.standard_normal(len(t)), tone, 0 * t])))
    timeline = Timeline.of(track, fps=12)
    edges, words = np.array([0.0, 4.0, 8.0, 12.0]), read_words()
    windows = mini.wav2clip.embed(lambda: iterate_windows(track.mono_blocks(), timeline)).numpy()
    heard = name_spans(windows, timeline, edges, loudness(track, timeline), family=mini, words=words)
    assert heard[0].words[0].text != heard[1].words[0].text
    assert heard[2].words == ()


@pytest.mark.parametrize(("content", "says"), [(b"a dog\na cat", "too few"), (b"\xff\xfe" * 40, "not a text")])
def test_words_that_cannot_be_used_are_refused(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "words.txt"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=says):
        read_words(path)
