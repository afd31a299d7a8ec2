from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from tests.training.conftest import interrupt, train
from wav2clip_gen.models import checkpoints
from wav2clip_gen.models.clip import Perceptor
from wav2clip_gen.models.vocabulary import read_words, words_in, write_words
from wav2clip_gen.training.mini.clip import ImageTowerTask, TextTowerTask, concept_loss, join_towers
from wav2clip_gen.training.settings import ImageTowerSettings, TextTowerSettings


@dataclass
class Trained:
    """A tower after three steps."""

    task: ImageTowerTask | TextTowerTask
    losses: list[dict[str, float]]
    scores: dict[str, float]
    weights: Path


def task_of(tower: str, data: Path) -> ImageTowerTask | TextTowerTask:
    if tower == "image":
        return ImageTowerTask(data, ImageTowerSettings(batch=4))
    return TextTowerTask(data, TextTowerSettings(batch=4))


@pytest.fixture(scope="module")
def trained(toy_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trained]:
    """Both towers."""
    towers = {}
    for name in ("image", "text"):
        task, folder = task_of(name, toy_data), tmp_path_factory.mktemp(name)
        towers[name] = Trained(task, *train(task, folder, 3), folder / "clip.safetensors")
    return towers


def test_the_image_tower_trains_against_an_adversary(trained: dict[str, Trained]) -> None:
    task, scores = trained["image"].task, trained["image"].scores
    assert isinstance(task, ImageTowerTask)
    assert set(task.anchor_names) == {"dog", "cat", "drum", "sea"}
    assert {"top1 natural", "top1 robust natural", "top1 tiny"} <= scores.keys()
    network = checkpoints.load(trained["image"].weights, role="clip")
    assert isinstance(network, Perceptor)
    with torch.no_grad():  # orthogonal to what all anchors share
        embeddings = network.encode_images(torch.rand(3, 3, 64, 64))
    assert (embeddings @ task.anchors.mean(dim=0)).abs().max() < 1e-3  # the file is fp16


def test_the_adversary_stays_within_its_radius_and_raises_the_loss(toy_data: Path) -> None:
    task = task_of("image", toy_data)
    assert isinstance(task, ImageTowerTask)
    network = task.network.eval()
    generator = torch.Generator().manual_seed(0)
    pictures = 0.2 + 0.6 * torch.rand(4, 3, 64, 64, generator=generator)
    targets = torch.eye(4)
    moved = task.attack(network, pictures, targets, generator)
    distance = torch.linalg.vector_norm((moved - pictures).flatten(1), dim=1)
    assert distance.max() <= task.settings.radius / 2 + 1e-4
    assert moved.min() >= 0
    assert moved.max() <= 1
    before, after = (concept_loss(network, targets, task.anchors)(these) for these in (pictures, moved))
    assert after > before


def test_both_towers_are_joined_in_one_file(trained: dict[str, Trained], tmp_path: Path) -> None:
    image, text, out = trained["image"].weights, trained["text"].weights, tmp_path / "clip.safetensors"
    task = trained["text"].task
    assert isinstance(task, TextTowerTask)
    assert {"direction", "cosine", "contrast"} == trained["text"].losses[0].keys()
    assert all(math.isfinite(value) for value in trained["text"].scores.values())
    write_words(task.words, text)
    join_towers(image, text, out)
    joined, image_tower, text_tower = (checkpoints.load(path, role="clip").state_dict() for path in (out, image, text))
    for name, tensor in joined.items():
        source = image_tower if ".visual." in name or "logit_scale" in name else text_tower
        assert torch.equal(tensor, source[name]), name
    assert set(checkpoints.read_header(out).training) == {"image", "text"}
    assert set(words_in(task.concepts.names)) <= (read_words(out) or frozenset())


@pytest.mark.parametrize("tower", ["image", "text"])
def test_a_resumed_run_equals_an_uninterrupted_one(
    toy_data: Path, tmp_path: Path, trained: dict[str, Trained], tower: str
) -> None:
    interrupt(task_of(tower, toy_data), tmp_path, 3)
    rest, scores = train(task_of(tower, toy_data), tmp_path, 3)
    assert rest == trained[tower].losses[1:]
    assert scores == trained[tower].scores


@pytest.mark.usefixtures("no_sentences")
def test_without_the_sentence_model_derived_concepts_are_left_out(toy_data: Path) -> None:
    tower = task_of("image", toy_data)
    assert isinstance(tower, ImageTowerTask)
    assert "sea" not in tower.anchor_names
    assert all("wav2clip-gen[train]" in task.notes[0] for task in (tower, task_of("text", toy_data)))
