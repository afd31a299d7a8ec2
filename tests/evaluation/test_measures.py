"""Each evaluation gives full marks to a family that knows everything, and none to one that knows nothing."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import pytest
import torch

from wav2clip_gen.errors import W2CError
from wav2clip_gen.evaluation.clip import measure_clip
from wav2clip_gen.evaluation.held_out import HeldOut
from wav2clip_gen.evaluation.retrieval import measure_retrieval
from wav2clip_gen.evaluation.vqgan import measure_vqgan
from wav2clip_gen.evaluation.wav2clip import measure_wav2clip
from wav2clip_gen.models.families import Family


def quiet(done: int, total: int) -> None:
    assert 0 <= done <= total


@pytest.fixture
def held_out(toy_data: Path) -> HeldOut:
    return HeldOut(toy_data)


def test_sounds_of_the_validation_fold_are_held_out(held_out: HeldOut) -> None:
    assert sorted(piece.key for piece in held_out.sounds) == [
        f"{label}_{recording}" for label in ("cat", "dog", "sea_waves") for recording in (0, 1)
    ]
    assert len(held_out.pictures) == 8


def test_a_limit_chooses_by_the_seed(toy_data: Path) -> None:
    few = [[piece.key for piece in HeldOut(toy_data, 3, seed).sounds] for seed in (0, 0, 1, 2, 3)]
    assert [len(keys) for keys in few] == [3] * 5
    assert few[0] == few[1]
    assert any(keys != few[0] for keys in few[2:])


def test_a_missing_folder_names_the_option_and_the_page(tmp_path: Path) -> None:
    with pytest.raises(W2CError, match="nowhere: no such folder") as error:
        HeldOut(tmp_path / "nowhere")
    assert "--data" in error.value.hint
    assert "weights/README.md" in error.value.hint
    (tmp_path / "audio").mkdir()
    with pytest.raises(W2CError, match="images: no such folder"):
        HeldOut(tmp_path)


def test_who_knows_every_sound_names_it(oracle: Family, numb: Family, held_out: HeldOut) -> None:
    known, unknown = (measure_wav2clip(family, held_out, on_progress=quiet) for family in (oracle, numb))
    assert (known.esc50.questions, known.esc50.candidates, known.classes) == (6, 50, 3)
    assert known.esc50.hits == known.joined.hits == {1: 6, 5: 6}
    assert known.audioset.hits[1] == 6
    assert known.mean_of_classes == 1
    assert known.esc50.chances[1] == pytest.approx(1 / 50)
    assert unknown.esc50.hits == unknown.audioset.hits == {1: 0, 5: 0}
    assert known.supervision == "supervised labels, recordings not trained on"
    assert "supervised labels" in " ".join(known.table().notes)


def test_who_knows_all_finds_all(oracle: Family, numb: Family, held_out: HeldOut) -> None:
    known, unknown = (measure_retrieval(family, held_out, on_progress=quiet) for family in (oracle, numb))
    for ranking in (known.text_to_sound, known.sound_to_image):
        assert ranking.share(1) == 1
        assert ranking.median == 1
    assert (known.text_to_sound.questions, known.text_to_sound.candidates) == (3, 6)
    assert (known.sound_to_image.questions, known.sound_to_image.candidates) == (6, 8)
    assert unknown.text_to_sound.share(1) == unknown.sound_to_image.share(1) == 0
    assert unknown.sound_to_image.median == 7  # the two right pictures are put last


def test_the_image_tower_is_asked_clean_and_attacked(mini: Family, held_out: HeldOut) -> None:
    figures = measure_clip(mini, held_out, on_progress=quiet)
    assert (figures.radius, figures.adversary) == (2.0, "the one the tower was trained against")
    assert set(figures.clean) == set(figures.robust) == {"natural", "tiny"}
    concepts = {"dog", "cat", "drum", "sea"}
    for ranking in (*figures.clean.values(), *figures.robust.values()):
        assert ranking.candidates == len(concepts)
        assert ranking.chances[1] == pytest.approx(1 / len(concepts))
    assert figures.clean["natural"].questions == 8


def test_the_adversary_misleads_a_network_that_it_knows(mini: Family, held_out: HeldOut) -> None:
    from wav2clip_gen.training.clip import ImageRecipe, ImageTraining
    from wav2clip_gen.training.loop import step_generator

    recipe = ImageRecipe(held_out.data, ImageTraining(radius=2.0))
    targets = recipe.validation.targets(list(range(8)), recipe.columns)
    pictures = recipe.validation.parts[0].pixels[:8].float() / 255
    changed = recipe.attack(mini.clip, pictures, targets, step_generator(0, -2))
    before, after = (
        ((mini.clip.encode_images(shown) @ recipe.anchors.T) * targets).sum() for shown in (pictures, changed)
    )
    assert after < before
    assert torch.linalg.vector_norm((changed - pictures).flatten(1), dim=1).max() <= 1.0 + 1e-4  # 2 in [-1, 1]


def test_the_painter_is_measured(mini: Family, held_out: HeldOut) -> None:
    figures = measure_vqgan(mini, held_out, on_progress=quiet)
    assert (figures.pictures, figures.size, figures.codes) == (8, 128, 4096)
    assert 10 < figures.psnr < 40
    assert figures.distance is not None
    assert 1 <= figures.perplexity <= figures.codes_used <= 8 * 256
    assert figures.lattice >= 1


def test_a_painter_of_one_code_has_perplexity_one(mini: Family, held_out: HeldOut) -> None:
    vqgan = copy.deepcopy(mini.vqgan)
    vqgan.quantize.codes[:] = vqgan.quantize.codes.mean(dim=0)
    figures = measure_vqgan(dataclasses.replace(mini, vqgan=vqgan), held_out, on_progress=quiet)
    assert figures.codes_used == 1
    assert figures.perplexity == pytest.approx(1)
    whole = measure_vqgan(mini, held_out, on_progress=quiet)
    assert figures.psnr < whole.psnr
    assert whole.distance is not None
    assert figures.distance is not None
    assert figures.distance > whole.distance


def test_a_lattice_shows(mini: Family) -> None:
    from wav2clip_gen.evaluation.vqgan import _steps

    even = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    steps = _steps(even, 8)
    assert (steps.max() / steps.min()).item() == pytest.approx(1, abs=0.1)
    tiles = even[..., ::8, ::8].repeat_interleave(8, -1).repeat_interleave(8, -2)
    steps = _steps(tiles, 8)
    assert steps.argmax() == 7  # the step out of a cell
    assert steps[:7].max() == 0
