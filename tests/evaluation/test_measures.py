"""Each measure gives full marks to a family that recognizes everything, and none to one that recognizes nothing."""

from __future__ import annotations

import copy
import dataclasses
import shutil
import tarfile
from pathlib import Path

import pytest
import torch

from tests.evaluation.conftest import encoded_tone
from tests.training.conftest import add, write_table
from wav2clip_gen.errors import W2CError
from wav2clip_gen.evaluation import measures
from wav2clip_gen.evaluation.held_out import HeldOut
from wav2clip_gen.evaluation.suite import Table
from wav2clip_gen.models.registry import Models
from wav2clip_gen.training.mini.clip import adversarial_step, concept_loss


def check_progress(done: int, total: int) -> None:
    assert 0 <= done <= total


@pytest.fixture(scope="module")
def held_out(toy_data: Path) -> HeldOut:
    return HeldOut(toy_data)


@pytest.fixture(scope="module")
def reconstruction(mini: Models, held_out: HeldOut) -> Table:
    return measures.measure_vqgan(mini, held_out, on_progress=check_progress)


def test_sounds_of_the_validation_fold_are_held_out(held_out: HeldOut) -> None:
    assert sorted(piece.key for piece in held_out.sounds) == [
        f"{label}_{recording}" for label in ("cat", "dog", "sea_waves") for recording in (0, 1)
    ]
    assert len(held_out.photographs) == 8


def test_the_seed_selects_a_limited_number(toy_data: Path) -> None:
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


def test_sounds_are_classified_by_name(oracle: Models, constant: Models, held_out: HeldOut) -> None:
    table = measures.measure_wav2clip(oracle, held_out, on_progress=check_progress)
    known = table.figures
    esc50 = known["esc50"]
    assert (esc50.ranking.questions, esc50.ranking.candidates, esc50.classes) == (6, 50, 3)
    assert esc50.ranking.hits == known["joined"].hits == {1: 6, 5: 6}
    assert esc50.plain.hits == {1: 6}
    assert known["audioset"].hits[1] == 6
    assert esc50.mean_of_classes == 1
    assert esc50.ranking.chances[1] == pytest.approx(1 / 50)
    assert known["supervision"] == "supervised labels, recordings not trained on"
    assert "supervised labels" in " ".join(table.notes)
    unknown = measures.measure_wav2clip(constant, held_out, on_progress=check_progress).figures
    assert unknown["esc50"].ranking.hits == unknown["audioset"].hits == {1: 0, 5: 0}
    assert known["urbansound8k"] is None
    assert "not in the data folder" in table.notes[-1]


def test_sounds_of_unknown_labels_are_classified_by_name(oracle: Models, toy_data: Path, tmp_path: Path) -> None:
    """The music is called a dog's bark, the clip of a recording that is trained on left out."""
    data = tmp_path / "data"
    shutil.copytree(toy_data, data)
    (data / "urbansound8k").mkdir()
    clips = {
        "1-3-0-0": (0, "dog_bark", 0),
        "2-3-0-0": (0, "dog_bark", 0),
        "3-9-0-0": (0, "street_music", 0),
        "4-9-0-0": (1, "street_music", 1),
    }
    with tarfile.open(data / "urbansound8k" / "fold3.tar", "w") as tar:
        for key, (tone, _, _) in clips.items():
            add(tar, f"audio/fold3/{key}.ogg", encoded_tone(tone))
    rows = [
        {"slice_file_name": f"{key}.wav", "class": name, "in_training_pack": trained}
        for key, (_, name, trained) in clips.items()
    ]
    write_table(data / "urbansound8k" / "UrbanSound8K.csv", rows)
    table = measures.measure_wav2clip(oracle, HeldOut(data), on_progress=check_progress)
    found = table.figures["urbansound8k"]
    assert (found.ranking.questions, found.ranking.candidates, found.classes) == (3, 10, 2)
    assert found.ranking.hits == found.plain.hits == {1: 2}
    assert found.mean_of_classes == pytest.approx(1 / 2)
    assert (
        "UrbanSound8K's fold 3, zero-shot, over its 10 class names: top-1",
        "66.7 % (2 of 3)",
        "10.0 %",
    ) in table.rows
    assert "not in the data folder" not in " ".join(table.notes)
    (data / "urbansound8k" / "UrbanSound8K.csv").unlink()
    with pytest.raises(W2CError, match=r"UrbanSound8K\.csv: cannot be read"):
        measures.measure_wav2clip(oracle, HeldOut(data), on_progress=check_progress)


def test_sounds_and_photographs_are_retrieved(oracle: Models, constant: Models, held_out: HeldOut) -> None:
    known, unknown = (
        measures.measure_retrieval(family, held_out, on_progress=check_progress).figures
        for family in (oracle, constant)
    )
    text_to_sound, sound_to_image = known["text_to_sound"], known["sound_to_image"]
    for ranking in (text_to_sound, sound_to_image):
        assert ranking.hits[1] == ranking.questions
        assert ranking.median == 1
    assert (text_to_sound.questions, text_to_sound.candidates) == (3, 6)
    assert (sound_to_image.questions, sound_to_image.candidates) == (6, 8)
    assert unknown["text_to_sound"].hits[1] == unknown["sound_to_image"].hits[1] == 0
    assert unknown["sound_to_image"].median == 7  # the two right pictures come last


def test_pictures_are_classified_clean_and_adversarial(mini: Models, held_out: HeldOut) -> None:
    figures = measures.measure_clip(mini, held_out, on_progress=check_progress).figures
    assert (figures["radius"], figures["adversary"]) == (2.0, "the one the tower was trained against")
    clean, robust = figures["clean"], figures["robust"]
    assert set(clean) == set(robust) == {"natural", "tiny"}
    concepts = {"dog", "cat", "drum", "sea"}
    for ranking in (*clean.values(), *robust.values()):
        assert ranking.candidates == len(concepts)
        assert ranking.chances[1] == pytest.approx(1 / len(concepts))
    assert clean["natural"].questions == 8


def test_the_adversary_misleads_the_network(mini: Models, held_out: HeldOut) -> None:
    anchors = torch.nn.functional.normalize(torch.randn(4, 512, generator=torch.Generator().manual_seed(0)), dim=1)
    right = torch.eye(4, dtype=torch.bool).repeat(2, 1)
    (pictures,) = held_out.all_pictures("natural").batches(8, device=mini.device, size=mini.clip.size)
    loss = concept_loss(mini.clip, right.float(), anchors)
    changed = adversarial_step(loss, pictures, radius=1.0, generator=torch.Generator().manual_seed(0))
    assert loss(changed) > loss(pictures)
    assert torch.linalg.vector_norm((changed - pictures).flatten(1), dim=1).max() <= 1.0 + 1e-4


def test_photographs_are_reconstructed(reconstruction: Table) -> None:
    figures = reconstruction.figures
    assert (figures["pictures"], figures["size"], figures["codes"]) == (8, 128, 4096)
    assert 10 < figures["psnr"] < 40
    assert figures["distance"] is not None
    assert 1 <= figures["perplexity"] <= figures["codes_used"] <= 8 * 256
    assert figures["lattice"] >= 1
    assert [row[0] for row in reconstruction.rows][:2] == ["PSNR", "LPIPS-like distance"]


def test_a_codebook_of_one_code_has_perplexity_one(mini: Models, held_out: HeldOut, reconstruction: Table) -> None:
    collapsed = copy.deepcopy(mini.vqgan)
    collapsed.quantize.codes[:] = collapsed.quantize.codes.mean(dim=0)
    family = dataclasses.replace(mini, vqgan=collapsed)
    figures = measures.measure_vqgan(family, held_out, on_progress=check_progress).figures
    assert figures["codes_used"] == 1
    assert figures["perplexity"] == pytest.approx(1)
    assert figures["psnr"] < reconstruction.figures["psnr"]
    assert figures["distance"] > reconstruction.figures["distance"]


def test_a_lattice_shows() -> None:
    even = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    steps = measures.mean_steps(even, 8)
    assert (steps.max() / steps.min()).item() == pytest.approx(1, abs=0.1)
    tiles = even[..., ::8, ::8].repeat_interleave(8, -1).repeat_interleave(8, -2)
    steps = measures.mean_steps(tiles, 8)
    assert steps.argmax() == 7  # the step out of a cell
    assert steps[:7].max() == 0
