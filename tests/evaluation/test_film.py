"""Films of sounds through the real renderer, with judges that always answer the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.evaluation.conftest import LOUD_FROM
from wav2clip_gen.config import Settings
from wav2clip_gen.evaluation import film, suite
from wav2clip_gen.evaluation.held_out import HeldOut
from wav2clip_gen.models.registry import Models
from wav2clip_gen.training.mini.audio import AudioExample

CHIHUAHUA, TABBY = 151, 281  # of ImageNet's labels


class LabelJudge:
    """A judge to whom everything has one label; it keeps its inputs."""

    def __init__(self, label: int) -> None:
        self.label = label
        self.inputs: list[Tensor] = []

    def __call__(self, pictures: Tensor) -> Tensor:
        self.inputs.append(pictures)
        probabilities = torch.full((len(pictures), 1000), 1e-4)
        probabilities[:, self.label] = 0.9
        return probabilities


def piece(label: str, group: str) -> AudioExample:
    return AudioExample.from_samples(np.zeros(1, np.int16), key=f"{label} {group}", set="esc", label=label, group=group)


def test_the_judge_classifies_the_end_of_each_film(
    mini: Models, toy_data: Path, tiny: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub, cats = LabelJudge(CHIHUAHUA), LabelJudge(TABBY)
    monkeypatch.setattr(film, "load_judges", lambda device="cpu": {"Lite0": stub, "Lite1": cats})
    monkeypatch.setattr(film, "settings_from", lambda preset: tiny)
    monkeypatch.setattr(film, "SECONDS", 1.0)
    monkeypatch.setattr(film, "JUDGED", 0.5)
    events: list[tuple[str, int, int]] = []
    ((name, table),) = suite.evaluate(
        mini, toy_data, measures=("film",), limit=2, on_progress=lambda *event: events.append(event)
    )
    figures = table.figures
    assert name == "film"
    assert events == [("film", 0, 0), ("film", 1, 2), ("film", 2, 2)]
    assert [tuple(pictures.shape) for pictures in stub.inputs[:2]] == [(2, 3, 48, 64)] * 2  # of 4 frames at 4 fps
    assert (figures["films"], figures["classes_present"], figures["held_out"], figures["classes"]) == (2, 2, 6, 20)
    dog, cat = figures["judges"]["Lite0"], figures["judges"]["Lite1"]
    assert dog.summed.right == 1
    assert dog.summed.shuffled == pytest.approx(1 / 2)
    assert cat.summed.right == sum(label == "cat" for label in dog.chosen)
    assert cats.inputs[0] is stub.inputs[0]
    for verdict in (dog, cat):
        assert sum(sum(choices.values()) for choices in verdict.chosen.values()) == 2
        assert verdict.tests["photographs"] == (0, 0)  # none has a label of ImageNet
    assert [row[0] for row in table.rows if row[0].endswith("summed: top-1")] == [
        "choice of Lite0, summed: top-1",
        "choice of Lite1, summed: top-1",
    ]
    assert figures["audio_encoder"].films == figures["image_tower"].films == 2
    assert figures["offset"] == pytest.approx(0, abs=0.05)
    assert 0 < figures["flicker"] < 0.5
    assert "2 of 6 held-out sounds" in table.notes[0]

    sound = film.balanced(HeldOut(toy_data).all_sounds)[1]
    same, other = (film.render_sound(mini, sound, tiny, seed=seed)[0] for seed in (1, 2))
    assert same.shape == (4, 3, 48, 64)
    assert torch.equal(same[-2:], stub.inputs[1])  # the film of the second sound has seed 0 + 1
    assert not torch.equal(same, other)


def test_a_film_is_of_the_loudest_stretch(toy_data: Path) -> None:
    for sound in HeldOut(toy_data).sounds:
        assert film.loudest_start(sound.samples) == pytest.approx(LOUD_FROM, abs=0.1)
    assert film.loudest_start(np.ones(100, np.int16)) == 0


def test_films_alternate_between_classes_and_recordings() -> None:
    pieces = [
        piece("dog", "a"),
        piece("dog", "a"),
        piece("dog", "b"),
        piece("clock_tick", "c"),
        piece("clock_alarm", "d"),
    ]
    order = [sound.key for sound in film.balanced(pieces)]
    assert order == ["dog a", "clock_tick c", "dog b", "clock_alarm d", "dog a"]


def test_relative_scores_remove_a_bias() -> None:
    """A judge that prefers dogs, but finds a little more of a cat where there is one."""
    probabilities = torch.full((3, 20), 1e-3)
    probabilities[:, 0] = 0.5
    probabilities[1, 3] = 4e-3
    assert probabilities.argmax(dim=1).tolist() == [0, 0, 0]
    assert film.relative_to_mean(probabilities.log())[1].argmax() == 3
    assert film.JUDGED_CLASSES[3] == "cat"
