"""Labels of sections: the vocabulary, the nearest labels and their margins; the plot of an analysis."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import Write
from wav2clip_gen.analysis import CONFIDENT_MARGIN, LABELS, Label, Section, Vocabulary, analyze, read_labels
from wav2clip_gen.audio.timeline import Timeline
from wav2clip_gen.audio.track import open_track
from wav2clip_gen.errors import SettingsError, W2CError
from wav2clip_gen.models.registry import Models
from wav2clip_gen.plot import WIDTH, write_plot


def test_shipped_labels_are_many_and_distinct() -> None:
    labels = read_labels()
    assert 150 <= len(labels) <= 200
    assert len(labels) == len(LABELS.read_text().splitlines())


def test_nearest_labels_come_first_with_their_margins() -> None:
    vocabulary = Vocabulary(tuple("abcdefghijklmnop"), np.eye(16))
    embedding = np.zeros(16)
    embedding[[3, 7]] = 0.8, 0.6
    best = vocabulary.nearest(embedding)
    assert [(label.text, label.cosine) for label in best[:2]] == [("d", 0.8), ("h", 0.6)]
    assert best[0].margin == pytest.approx((0.8 - embedding.mean()) / embedding.std())


def test_labels_below_the_threshold_are_uncertain() -> None:
    assert Section(0, 1, None, ()).uncertain
    assert Section(0, 1, -10, (Label("rain", 0.2, CONFIDENT_MARGIN - 0.01),)).uncertain
    assert not Section(0, 1, -10, (Label("rain", 0.2, CONFIDENT_MARGIN),)).uncertain


def test_each_section_has_its_own_labels_and_silence_has_none(mini: Models, write_sound: Write, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    t = np.arange(16_000 * 4) / 16_000
    tone = 0.3 * np.sin(2 * np.pi * 440 * t)
    sound = write_sound(np.concatenate([0.3 * rng.standard_normal(len(t)), tone, 0 * t]), "$a_b$ 雨.wav")
    track = open_track(sound)
    analysis = analyze(track, Timeline.of(track, fps=12), models=mini, labels=read_labels())
    noise, middle, silence = analysis.mix.sections
    assert [middle.start, silence.start] == pytest.approx([4, 8], abs=0.3)
    assert noise.labels
    assert middle.labels
    assert noise.labels[0].text != middle.labels[0].text
    assert (silence.labels, silence.level) == ((), None)
    write_plot(analysis, tmp_path / "plot.png")  # a name with mathtext and glyphs that the font lacks
    with Image.open(tmp_path / "plot.png") as plot:
        assert plot.width == WIDTH


@pytest.mark.parametrize(("content", "message"), [(b"a dog\na cat", "too few"), (b"\xff\xfe" * 40, "not a text file")])
def test_unusable_label_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=message):
        read_labels(path)


def test_without_matplotlib_the_hint_names_the_extra(mini: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    from wav2clip_gen.plot import require_matplotlib

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(W2CError, match="matplotlib") as error:
        require_matplotlib()
    assert error.value.hint == "pip install 'wav2clip-gen[plot]'"
