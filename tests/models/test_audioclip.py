"""AudioCLIP: the numbers of the reference code, its checkpoint, and a network small enough for films in tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from wav2clip_gen.errors import WeightsError
from wav2clip_gen.models import checkpoints, convert, manifest
from wav2clip_gen.models.audioclip import SAMPLE_RATE, AudioCLIP, ESResNeXt
from wav2clip_gen.models.clip import Perceptor

SMALL: dict[str, Any] = {"architecture": "w2c-mini", "blocks": [1, 1, 1, 1]}

# What AndreyGuzhov/AudioCLIP@45327aa (model/esresnet) computes with the weights of `fill` for the windows of `windows`:
# entries 0, 100, 200, ... of both embeddings.
EXPECTED = (
    (0.085501, -0.224305, 0.33369, -0.10699, 0.061427, -0.126792, -0.136296, -0.077461, -0.223077, 0.224709, -0.148742),
    (0.090561, -0.235455, 0.343617, -0.106936, 0.064635, -0.131476, -0.134539, -0.058693, -0.233201, 0.22852, -0.185592),  # noqa: E501
)  # fmt: skip


def fill(network: nn.Module, seed: int) -> None:
    """Weights and statistics of an encoder, all drawn from NumPy's generator in the order of the names."""
    generator = np.random.default_rng(seed)
    for name, tensor in sorted(network.state_dict().items()):
        if not tensor.is_floating_point() or name == "window":
            continue
        noise = torch.from_numpy(generator.standard_normal(tuple(tensor.shape), dtype=np.float32))
        if name.startswith("fbsp."):
            bins = torch.arange(len(noise))
            noise = {"m": 1 + noise.abs(), "fb": 1 + 0.2 * noise.tanh(), "fc": bins + noise}.get(name[5:], noise)
        elif tensor.ndim > 1:
            noise *= tensor[0].numel() ** -0.5
        else:
            noise = 0.1 * noise + (0 if name.endswith(("bias", "mean")) else 0.5)
        tensor.copy_(noise.abs() if name.endswith("var") else noise)


def windows() -> Tensor:
    """Two sounds of half a second: chirps in noise."""
    time = np.arange(SAMPLE_RATE // 2) / SAMPLE_RATE
    noise = np.random.default_rng(1).standard_normal((2, len(time)))
    chirps = np.sin(2 * np.pi * np.array([[200.0], [3000.0]]) * (1 + time) * time)
    return torch.from_numpy(0.5 * chirps + 0.01 * noise).float()


@torch.no_grad()
def test_sound_is_embedded_as_by_the_reference_code() -> None:
    network = ESResNeXt(1024).eval()
    fill(network, seed=3)
    embeddings = network(windows())
    assert embeddings.shape == (2, 1024)
    torch.testing.assert_close(embeddings[:, ::100], torch.tensor(EXPECTED), atol=1e-5, rtol=1e-5)


@pytest.fixture(scope="module")
def small() -> AudioCLIP:
    network = checkpoints.random_network("audioclip", SMALL, seed=4)
    assert isinstance(network, AudioCLIP)
    return network


def test_a_published_checkpoint_is_converted(small: AudioCLIP, tmp_path: Path) -> None:
    original, out = tmp_path / "AudioCLIP.pt", tmp_path / "audioclip.safetensors"
    torch.save(small.model.state_dict(), original)
    convert.convert(original, out, role="audioclip", config=SMALL)
    network = checkpoints.load(out, role="audioclip")
    assert isinstance(network, AudioCLIP)
    assert network.blocks == (1, 1, 1, 1)
    sound = windows()[:, :9000]
    torch.testing.assert_close(network.encode_sounds(sound), small.encode_sounds(sound))
    torch.testing.assert_close(network.encode_text(["rain"]), small.encode_text(["rain"]))
    pictures = torch.rand(1, 3, small.size, small.size)
    torch.testing.assert_close(network.encode_images(pictures), small.encode_images(pictures))


def test_its_clip_alone_can_be_taken_from_the_checkpoint(small: AudioCLIP, tmp_path: Path) -> None:
    original = tmp_path / "AudioCLIP.pt"
    torch.save(small.model.state_dict(), original)
    clip = convert.read_network(original, role="clip", config={"architecture": "w2c-mini"})
    assert isinstance(clip, Perceptor)
    torch.testing.assert_close(clip.encode_text(["rain"]), small.encode_text(["rain"]))


def test_a_checkpoint_without_its_sound_is_refused(small: AudioCLIP, tmp_path: Path) -> None:
    original = tmp_path / "CLIP.pt"
    torch.save({name: value for name, value in small.model.state_dict().items() if ".fbsp." not in name}, original)
    with pytest.raises(WeightsError, match=r"audio\.fbsp\.bias is missing"):
        convert.read_network(original, role="audioclip", config=SMALL)


def test_windows_in_batches_are_the_windows_together(small: AudioCLIP) -> None:
    sound = windows()[:, :12_000].repeat(3, 1)
    together = small.audio.encode_windows(lambda: [sound])
    apart = small.audio.encode_windows(lambda: [piece.numpy() for piece in sound.split(2)])
    torch.testing.assert_close(together, apart, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(6))
    silent = small.audio.encode_windows(lambda: [torch.zeros(1, 100)])
    assert torch.isfinite(silent).all()


def test_the_parts_have_the_size_of_their_tensors() -> None:
    tensors = convert.read_structure("audioclip")
    bytes_of_weights = sum(4 * int(np.prod(shape)) for _, shape in tensors.values())
    for name in ("audioclip", "audioclip-full"):
        size = manifest.part(name).size
        assert size is not None
        assert 0 < size - bytes_of_weights < 400 * len(tensors)  # names and the archive's own entries
