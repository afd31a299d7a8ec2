"""Probes learn what can be learned, by the official folds, and give the same numbers again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.benchmark import sets
from wav2clip_gen.benchmark.clips import Dataset
from wav2clip_gen.benchmark.datasets import open_dataset
from wav2clip_gen.benchmark.encoders import LogMelEncoder
from wav2clip_gen.benchmark.features import Features, embed
from wav2clip_gen.benchmark.probe import PROTOCOLS, Protocol, folds_of, load_protocol, probe, score, subset
from wav2clip_gen.benchmark.results import Result
from wav2clip_gen.errors import SettingsError, W2CError

QUICK = replace(load_protocol("hear"), hidden=(32,), epochs=40, patience=5)
FRAMES = replace(load_protocol("openl3"), hidden=(16,), epochs=30, learning_rate=0.01, patience=10)


@pytest.fixture
def urban(tmp_path: Path) -> tuple[Dataset, Features]:
    dataset = open_dataset(sets.urbansound8k(tmp_path / "set"))
    return dataset, embed(dataset.clips, LogMelEncoder(), cache=tmp_path / "cache")


def run(dataset: Dataset, features: Features, protocol: Protocol, **more: object) -> Result:
    return probe(dataset, features, protocol, encoder="log-mel", identity="1", seeds=2, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("protocol", [QUICK, FRAMES], ids=["clips", "frames"])
def test_a_probe_tells_the_classes_apart(urban: tuple[Dataset, Features], protocol: Protocol) -> None:
    result = run(*urban, protocol)
    assert result.figures["accuracy"][0] > 0.8  # type: ignore[index]
    assert result.figures["mAP"][0] > 0.8  # type: ignore[index]
    assert result.chance["accuracy"] == pytest.approx(1 / 3)
    assert len(result.predictions) == 2 * 27  # each clip is tested once a seed
    right = np.mean([one["predicted"] in one["labels"] for one in result.predictions])
    assert right == pytest.approx(result.figures["accuracy"][0])  # type: ignore[index]
    assert run(*urban, protocol).figures == result.figures


def test_many_labels_have_a_mean_average_precision(tmp_path: Path) -> None:
    dataset = open_dataset(sets.fsd50k(tmp_path / "set"))
    result = run(dataset, embed(dataset.clips, LogMelEncoder(), cache=tmp_path / "cache"), QUICK)
    assert list(result.figures) == ["mAP"]
    assert result.figures["mAP"][0] > 0.8  # type: ignore[index]
    assert result.settings["folds"] == ["test"]


def test_few_shot_takes_shares_of_the_training_clips(urban: tuple[Dataset, Features]) -> None:
    result = run(*urban, QUICK, fractions=(0.01, 1.0))
    assert list(result.figures) == ["accuracy, 1 %", "mAP, 1 %", "accuracy, 100 %", "mAP, 100 %"]
    assert result.figures["accuracy, 100 %"] == run(*urban, QUICK).figures["accuracy"]
    assert result.chance["accuracy, 1 %"] == pytest.approx(1 / 3)
    assert result.task == "few-shot"


def test_a_share_has_each_class() -> None:
    targets = torch.eye(3).repeat(20, 1)
    train = np.arange(30)
    chosen = subset(targets, train, 0.2, seed=0)
    assert set(chosen) <= set(train)
    assert targets[chosen].sum(dim=0).tolist() == [2, 2, 2]
    assert targets[subset(targets, train, 0.01, seed=0)].sum(dim=0).tolist() == [1, 1, 1]
    assert list(subset(targets, train, 0.2, seed=1)) != list(chosen)


def test_the_validation_fold_is_never_the_test_fold(urban: tuple[Dataset, Features]) -> None:
    dataset, features = urban
    folds = folds_of(dataset, features.clips)
    assert [fold.name for fold in folds] == ["1", "2", "3"]
    for fold, validated in zip(folds, ("3", "1", "2"), strict=True):
        splits = [{features.clips[index].split for index in part} for part in (fold.train, fold.val, fold.test)]
        assert splits[1:] == [{validated}, {fold.name}]
        assert splits[0] == {"1", "2", "3"} - splits[1] - splits[2]


def test_a_set_without_validation_takes_some_training_recordings(tmp_path: Path) -> None:
    dataset = open_dataset(sets.class_folders(tmp_path, splits=("train", "test")))
    (fold,) = folds_of(dataset, dataset.clips)
    assert 0 < len(fold.val) < len(fold.train)
    assert len(fold.train) + len(fold.val) == len(fold.test) == 24


def test_sets_that_cannot_be_divided_are_refused(tmp_path: Path) -> None:
    two = open_dataset(sets.urbansound8k(tmp_path / "two", folds=2))
    with pytest.raises(W2CError, match="2 folds have clips"):
        folds_of(two, two.clips)
    dataset = open_dataset(sets.urbansound8k(tmp_path / "set"))
    leaking = [replace(clip, recording="1") for clip in dataset.clips]
    with pytest.raises(W2CError, match="the recording 1 is in more than one of training, validation and test"):
        folds_of(dataset, leaking)
    alike = [replace(clip, labels=("siren",)) for clip in dataset.clips]
    with pytest.raises(W2CError, match="fewer than two classes"):
        folds_of(dataset, alike)
    untested = replace(open_dataset(sets.class_folders(tmp_path / "c", splits=("train", "test"))))
    with pytest.raises(W2CError, match="no clip is for test"):
        folds_of(untested, untested.split("train"))


def test_scores_are_those_of_their_definitions() -> None:
    probabilities = torch.tensor([[0.9, 0.1, 0.0], [0.6, 0.4, 0.0], [0.2, 0.8, 0.0]])
    targets = torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [0, 1.0, 0]])
    found = score(probabilities, targets, many=False)
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["mAP"] == pytest.approx(1.0)  # both classes that occur are ranked rightly
    assert list(score(probabilities, targets, many=True)) == ["mAP"]


def test_protocols_name_their_source() -> None:
    assert {"hear", "openl3"} <= set(PROTOCOLS)
    assert load_protocol("openl3").hidden == (512, 128)
    with pytest.raises(SettingsError, match="no protocol 'her'"):
        load_protocol("her")
