"""Embeddings of pictures and texts, and what a family expects of its concepts."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from tests.models.tiny import write_weights
from wav2clip_gen.config import RunSettings
from wav2clip_gen.errors import WeightsError
from wav2clip_gen.models import checkpoints, manifest, registry
from wav2clip_gen.models.clip import ConceptPrior, Perceptor, mix_layouts
from wav2clip_gen.models.registry import Models, load_family


@pytest.fixture(scope="module")
def perceptor() -> Perceptor:
    return Perceptor("w2c-mini").eval().requires_grad_(False)


@torch.no_grad()
def test_pictures_go_the_way_of_encode_image(perceptor: Perceptor) -> None:
    pictures = torch.rand(2, 3, perceptor.size, perceptor.size)
    features = perceptor.model.encode_image((pictures - perceptor.mean) / perceptor.deviation, normalize=True)
    torch.testing.assert_close(perceptor.encode_images(pictures), features)


@torch.no_grad()
def test_texts_go_the_way_of_encode_text(perceptor: Perceptor) -> None:
    texts = ["a dog", "a stormy sea"]
    features = perceptor.model.encode_text(perceptor.tokenizer(texts), normalize=True)
    torch.testing.assert_close(perceptor.encode_text(texts), features)
    torch.testing.assert_close(perceptor.encode_text(texts).norm(dim=-1), torch.ones(2))


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("a stormy sea", ""),
        ("", ""),
        (" ".join(["sea"] * 22), ""),
        (" ".join(["sea"] * 23), "sea"),
        ("Red sky, " * 7 + "a blue sea  at night", "blue sea  at night"),
        ("海" * 40, "海" * 32),
        ("\x00", "\x00"),
    ],
)
def test_what_the_context_of_the_text_tower_leaves_out(perceptor: Perceptor, text: str, end: str) -> None:
    assert perceptor.unread(["a dog", text, "a cat"]) == ["", end, ""]
    with torch.no_grad():
        assert torch.equal(*perceptor.encode_text([text, text.removesuffix(end)]).unbind())


def test_the_gradient_reaches_the_picture(perceptor: Perceptor) -> None:
    pictures = torch.rand(2, 3, perceptor.size, perceptor.size, requires_grad=True)
    embeddings = perceptor.encode_images(pictures)
    torch.testing.assert_close(embeddings.norm(dim=-1), torch.ones(2))
    embeddings[:, 0].sum().backward()
    assert pictures.grad is not None
    assert pictures.grad.abs().amax(dim=(1, 2, 3)).min() > 0


def test_building_one_says_nothing_and_leaves_logging_alone(caplog: pytest.LogCaptureFixture) -> None:
    before = list(logging.getLogger().handlers), list(logging.getLogger().filters)
    Perceptor("w2c-mini")
    assert not caplog.records
    assert (list(logging.getLogger().handlers), list(logging.getLogger().filters)) == before


@pytest.fixture
def colours() -> ConceptPrior:
    """Three concepts: red, green and blue."""
    prior = ConceptPrior(concepts=("red", "green", "blue"), embedding=3, side=2).requires_grad_(False)
    prior.words.copy_(torch.eye(3))
    prior.layouts.copy_(torch.eye(3)[:, :, None, None].expand_as(prior.layouts))
    return prior


def test_a_point_is_read_as_the_concepts_near_it(colours: ConceptPrior) -> None:
    between = torch.tensor([[0.6, 0.8, 0.0], [0.0, 0.0, 1.0]])
    shares = colours.concept_log_probs(between, torch.tensor(10.0)).exp()
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(2))
    assert shares[0, 1] > shares[0, 0] > 100 * shares[0, 2]
    assert shares[1, 2] > 0.99
    softer = colours.concept_log_probs(between, torch.tensor(1.0)).exp()
    assert softer[1, 2] < 0.6


def test_the_layout_of_a_mixture_is_mixed(colours: ConceptPrior) -> None:
    layout = mix_layouts(colours.draw_layouts(0), torch.tensor([0.5, 0.5, 0.0]))
    assert layout.shape == (1, 3, 2, 2)
    assert layout[0, :, 0, 0].tolist() == [0.5, 0.5, 0]


def test_a_seed_chooses_a_layout_of_each_concept() -> None:
    prior = ConceptPrior(concepts=tuple(map(str, range(40))), embedding=3, side=2, modes=3).requires_grad_(False)
    prior.layouts.copy_(torch.arange(120.0)[:, None, None, None].expand_as(prior.layouts))
    drawn = torch.stack([prior.draw_layouts(seed)[:, 0, 0, 0] for seed in (7, 7, 8)])
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert torch.equal(drawn[0] // 3, torch.arange(40.0))
    assert set((drawn[0] % 3).tolist()) == {0, 1, 2}


@pytest.mark.parametrize("concept", ["sea", "violin", "dog", "airplane"])
def test_the_small_family_reads_its_own_words(concept: str, mini: Models) -> None:
    assert mini.prior is not None
    reading = mini.prior.concept_log_probs(mini.clip.encode_text([f"a {concept}"])[0], mini.clip.scale)
    assert mini.prior.concepts[int(reading.argmax())] == concept


def test_the_small_family_expects_the_sky_to_be_blue_and_a_forest_green(mini: Models) -> None:
    assert mini.prior is not None
    where = {name: row for row, name in enumerate(mini.prior.concepts)}
    layouts = mini.prior.layouts.unflatten(0, (-1, mini.prior.modes)).mean(dim=1)
    red, _, blue = layouts[where["airplane"]][:, :5].mean(dim=(1, 2))
    assert blue > red + 0.05
    red, green, blue = layouts[where["forest"]].mean(dim=(1, 2))
    assert green > max(red, blue)


def test_a_family_without_its_prior_is_whole(tmp_path: Path) -> None:
    for role in manifest.ROLES:
        (tmp_path / "mini").mkdir(exist_ok=True)
        (tmp_path / "mini" / f"{role}.safetensors").symlink_to(
            manifest.shipped_folder() / "mini" / f"{role}.safetensors"
        )
    assert "prior" not in registry.select_models(RunSettings(models="mini"), tmp_path).components
    assert load_family("mini", weights_dir=tmp_path).prior is None


def test_a_perceptor_of_another_space_has_no_use_for_the_prior(tmp_path: Path) -> None:
    write_weights(tmp_path / "vit-l-14" / "clip.safetensors")
    assert "prior" not in registry.select_models(RunSettings(models="mini", perceptor="vit-l-14"), tmp_path).components
    assert "prior" in registry.select_models(RunSettings(models="mini", perceptor="vit-b-32"), tmp_path).components


def test_a_damaged_prior_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "prior.safetensors"
    path.write_bytes((manifest.shipped_folder() / "mini" / "prior.safetensors").read_bytes()[:9000])
    with pytest.raises(WeightsError, match="not a readable safetensors file"):
        checkpoints.load(path, role="prior")
