"""Sound to film to judge, by the real path with a judge that looks at colours."""

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
from wav2clip_gen.evaluation.judge import SEEN_AS
from wav2clip_gen.evaluation.parts import Advanced, Began, Event, Measured
from wav2clip_gen.models.families import Family
from wav2clip_gen.training.sounds import Sound


class DogJudge:
    """A judge to whom everything is a Chihuahua; it keeps what it saw."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def __call__(self, pictures: Tensor) -> Tensor:
        self.seen.append(pictures)
        probabilities = torch.full((len(pictures), 1000), 1e-4)
        probabilities[:, 151] = 0.9
        return probabilities


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch, tiny: Settings) -> DogJudge:
    """In the place of the real one; and films of a second's work."""
    stub = DogJudge()
    monkeypatch.setattr(film, "load_judge", lambda device="cpu": stub)
    monkeypatch.setattr(suite, "load_judge", lambda device="cpu": stub)
    monkeypatch.setattr(film, "Settings", lambda: tiny)
    return stub


def piece(label: str, group: str) -> Sound:
    return Sound.of(np.zeros(1, np.int16), key=f"{label} {group}", set="esc", label=label, group=group)


def test_the_judge_looks_at_the_last_second_of_each_film(mini: Family, toy_data: Path, judge: DogJudge) -> None:
    told: list[Event] = []
    found = suite.evaluate(mini, toy_data, parts=("film",), limit=3, on_event=told.append)
    figures = found["film"]
    assert isinstance(figures, film.FilmFigures)
    assert [len(pictures) for pictures in judge.seen[:3]] == [4, 4, 4]  # of 8 frames at 4 fps
    assert judge.seen[0].shape == (4, 3, 48, 64)
    assert (figures.films, figures.classes_heard, figures.held_out, figures.classes) == (3, 3, 6, 20)
    assert figures.summed.right == 1  # the dog's
    assert figures.summed.shuffled == pytest.approx(1 / 3)
    assert figures.by_ear.films == figures.by_eye.films == 3
    assert figures.offset == pytest.approx(0, abs=0.05)
    assert 0 < figures.flicker < 0.5
    assert sum(sum(choices.values()) for choices in figures.chosen.values()) == 3
    assert "3 of 6 held-out sounds" in figures.table().notes[0]
    assert [type(event) for event in told] == [Began, Advanced, Advanced, Advanced, Measured]


def test_the_same_seed_makes_the_same_films(mini: Family, toy_data: Path, tiny: Settings) -> None:
    sound = HeldOut(toy_data).sounds[0]
    (first, _), (again, _), (other, _) = (film.film(mini, sound, tiny, seed=seed) for seed in (1, 1, 2))
    assert first.shape == (8, 3, 48, 64)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_film_is_of_the_loudest_place(toy_data: Path) -> None:
    for sound in HeldOut(toy_data).sounds:
        assert film.loudest(sound.samples) == pytest.approx(LOUD_FROM, abs=0.1)
    assert film.loudest(np.ones(100, np.int16)) == 0


def test_the_first_films_are_of_all_classes_and_recordings() -> None:
    pieces = [
        piece("dog", "a"),
        piece("dog", "a"),
        piece("dog", "b"),
        piece("clock_tick", "c"),
        piece("clock_alarm", "d"),
    ]
    order = [sound.key for sound in film.evenly(pieces)]
    assert order == ["dog a", "clock_tick c", "dog b", "clock_alarm d", "dog a"]


def test_relative_choices_see_through_a_prejudice() -> None:
    """A judge that says dog of everything, but a little more cat where there is one."""
    probabilities = torch.full((3, 20), 1e-3)
    probabilities[:, 0] = 0.5
    probabilities[1, 3] = 4e-3
    assert probabilities.argmax(dim=1).tolist() == [0, 0, 0]
    assert film.from_mean(probabilities.log())[1].argmax() == 3
    assert list(SEEN_AS)[3] == "cat"
