from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from wav2clip_gen.models.wav2clip import Wav2CLIP, Wav2CLIPConfig

WINDOW = 16_000


@pytest.fixture(scope="module")
def published_size() -> Wav2CLIP:
    """The published size with seeded random weights and statistics."""
    generator = torch.Generator().manual_seed(3)
    network = Wav2CLIP()
    with torch.no_grad():
        for tensor in [*network.parameters(), *network.buffers()]:
            if tensor.is_floating_point() and tensor.ndim == 1:
                tensor.add_(0.1 * torch.rand(tensor.shape, generator=generator))
            elif tensor.is_floating_point() and tensor.ndim > 1:
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * tensor[0].numel() ** -0.5)
    network.audio_encoder.spectrogram.window.copy_(torch.hann_window(512))
    return network.eval()


@pytest.fixture(scope="module")
def theirs(published_size: Wav2CLIP) -> Any:
    """The PyPI package's network, filled from our state dict under the published names."""
    from wav2clip.model.encoder import ResNetExtractor

    network = ResNetExtractor(checkpoint=published_size.state_dict(), scenario="frozen", transform=True)
    return network.eval()


@pytest.fixture(scope="module")
def track() -> Tensor:
    """Two and a half seconds: a rising tone, then noise."""
    generator = torch.Generator().manual_seed(0)
    t = torch.arange(40_000) / 16_000
    tone = 0.3 * torch.sin(2 * torch.pi * (200 + 300 * t) * t)
    noise = 0.1 * torch.randn(len(t), generator=generator)
    return torch.where(t < 1.25, tone, noise)


@torch.no_grad()
def test_a_clip_is_embedded_as_by_the_published_package(published_size: Wav2CLIP, theirs: Any, track: Tensor) -> None:
    clip = track[None, :WINDOW]
    torch.testing.assert_close(published_size(clip), theirs(clip), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_track_is_embedded_as_by_the_published_package(published_size: Wav2CLIP, theirs: Any, track: Tensor) -> None:
    windows = track.unfold(0, WINDOW, 4000)
    expected = F.normalize(theirs(windows), dim=-1)
    torch.testing.assert_close(published_size.encode_windows(lambda: [windows]), expected, atol=1e-5, rtol=1e-5)


def test_names_are_those_of_the_published_checkpoint(published_size: Wav2CLIP) -> None:
    names = set(published_size.state_dict())
    assert {name.split(".")[0] for name in names} == {"audio_encoder", "audio_transform"}
    assert {"audio_encoder.conv1.weight", "audio_encoder.layer4.1.bn2.running_var"} <= names
    assert {"audio_transform.sequential.0.weight", "audio_transform.sequential.3.bias"} <= names


def test_the_size_of_our_batches_does_not_matter(track: Tensor) -> None:
    torch_windows = track.unfold(0, WINDOW, 3000)
    network = Wav2CLIP(Wav2CLIPConfig(width=8)).eval()
    together = network.encode_windows(lambda: [torch_windows])
    for size in (1, 2, 5):
        apart = network.encode_windows(lambda size=size: torch_windows.split(size))  # type: ignore[misc]
        torch.testing.assert_close(apart, together, atol=2e-6, rtol=0)


def test_windows_may_come_from_numpy(track: Tensor) -> None:
    windows = track.unfold(0, WINDOW, 8000)
    network = Wav2CLIP(Wav2CLIPConfig(width=8)).eval()
    embeddings = network.encode_windows(lambda: [np.asarray(windows)])
    assert embeddings.shape == (len(windows), 512)
    torch.testing.assert_close(embeddings.norm(dim=-1), torch.ones(len(windows)))


def test_silence_has_an_embedding() -> None:
    network = Wav2CLIP(Wav2CLIPConfig(width=8)).eval()
    assert torch.isfinite(network.encode_windows(lambda: [torch.zeros(2, WINDOW)])).all()
