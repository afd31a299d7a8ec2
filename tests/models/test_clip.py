from __future__ import annotations

import logging

import pytest
import torch

from wav2clip_gen.models.clip import Perceptor


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
