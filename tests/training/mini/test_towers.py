from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from tests.training.conftest import interrupt, train
from wav2clip_gen.models import checkpoints
from wav2clip_gen.models.vocabulary import read_words, words_in, write_words
from wav2clip_gen.training.mini.image_tower import ImageTowerTask
from wav2clip_gen.training.mini.text_tower import TextTowerTask, join_towers
from wav2clip_gen.training.settings import ImageTowerSettings, TextTowerSettings


def image(data: Path) -> ImageTowerTask:
    return ImageTowerTask(data, ImageTowerSettings(batch=4))


def test_the_image_tower_trains_against_an_adversary(toy_data: Path, tmp_path: Path) -> None:
    task = image(toy_data)
    assert set(task.anchor_names) == {"dog", "cat", "drum", "sea"}
    losses, scores = train(task, tmp_path, 2)
    assert len(losses) == 2
    assert {"top1 natural", "top1 robust natural", "top1 tiny"} <= scores.keys()
    with torch.no_grad():  # orthogonal to what all anchors share
        embeddings = task.network.eval().embed_pictures(torch.rand(3, 3, 64, 64))
    assert (embeddings @ task.anchors.mean(dim=0)).abs().max() < 1e-5


def test_the_adversary_stays_within_its_radius_and_raises_the_loss(toy_data: Path) -> None:
    task = image(toy_data)
    network = task.network.eval()
    generator = torch.Generator().manual_seed(0)
    pictures = 0.2 + 0.6 * torch.rand(4, 3, 64, 64, generator=generator)
    targets = torch.eye(4)
    moved = task.attack(network, pictures, targets, generator)
    distance = torch.linalg.vector_norm((moved - pictures).flatten(1), dim=1)
    assert distance.max() <= task.settings.radius / 2 + 1e-4
    assert moved.min() >= 0
    assert moved.max() <= 1
    before, after = (task.cross_entropy(network, these, targets) for these in (pictures, moved))
    assert after > before


def test_both_towers_are_joined_in_one_file(toy_data: Path, tmp_path: Path) -> None:
    train(image(toy_data), tmp_path / "image", 1)
    task = TextTowerTask(toy_data, TextTowerSettings(batch=8))
    losses, scores = train(task, tmp_path / "text", 2)
    assert {"direction", "cosine", "contrast"} == losses[0].keys()
    assert all(math.isfinite(value) for value in scores.values())
    out = tmp_path / "clip.safetensors"
    write_words(task.words, tmp_path / "text" / "clip.safetensors")
    join_towers(tmp_path / "image" / "clip.safetensors", tmp_path / "text" / "clip.safetensors", out)
    process_group, image_tower, text_tower = (
        checkpoints.load(path, part="clip").state_dict()
        for path in (out, tmp_path / "image" / "clip.safetensors", tmp_path / "text" / "clip.safetensors")
    )
    for name, tensor in process_group.items():
        source = image_tower if ".visual." in name or "logit_scale" in name else text_tower
        assert torch.equal(tensor, source[name]), name
    assert set(checkpoints.read_header(out).training) == {"image", "text"}
    assert set(words_in(task.concepts.names)) <= (read_words(out) or frozenset())


@pytest.mark.parametrize("tower", ["image", "text"])
def test_a_resumed_run_equals_an_uninterrupted_one(toy_data: Path, tmp_path: Path, tower: str) -> None:
    def task() -> ImageTowerTask | TextTowerTask:
        return image(toy_data) if tower == "image" else TextTowerTask(toy_data, TextTowerSettings(batch=4))

    whole, scores = train(task(), tmp_path / "whole", 4)
    interrupt(task(), tmp_path / "parts", 4)
    rest, final = train(task(), tmp_path / "parts", 4)
    assert rest == whole[2:]
    assert final == scores


@pytest.mark.usefixtures("no_sentences")
def test_without_the_sentence_model_derived_concepts_are_left_out(toy_data: Path) -> None:
    tower = image(toy_data)
    assert "sea" not in tower.anchor_names
    assert all("wav2clip-gen[train]" in task.notes[0] for task in (tower, TextTowerTask(toy_data)))
