from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from wav2clip_gen.errors import OutputError, WeightsError
from wav2clip_gen.models import checkpoints
from wav2clip_gen.models.wav2clip import Wav2CLIP, Wav2CLIPConfig

Tensors = dict[str, Tensor]


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "wav2clip.safetensors"
    checkpoints.save(Wav2CLIP(Wav2CLIPConfig(width=8)), path, training={"steps": 3})
    return path


def rewrite(path: Path, change: Callable[[Tensors], object]) -> None:
    """Change the tensors of a weights file and leave its header as it is."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata=metadata)


def test_a_network_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    path = tmp_path / "wav2clip.safetensors"
    network = Wav2CLIP(Wav2CLIPConfig(width=8)).eval()
    checkpoints.save(network, path, training={"steps": 3})
    loaded = checkpoints.load(path, role="wav2clip")
    assert isinstance(loaded, Wav2CLIP)
    assert loaded.config == network.config
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    windows = torch.randn(2, 16_000, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(loaded(windows), network(windows), atol=0.02, rtol=0.02)  # fp16
    assert checkpoints.read_header(path).training == {"steps": 3}


def test_a_digest_is_of_the_tensors_alone(weights: Path, tmp_path: Path) -> None:
    before = checkpoints.digest(weights)
    other = tmp_path / "other.safetensors"
    checkpoints.save(checkpoints.load(weights, role="wav2clip"), other, training={"steps": 4, "threads": 2})
    assert other.read_bytes() != weights.read_bytes()
    assert checkpoints.digest(other) == before
    rewrite(weights, lambda tensors: next(iter(tensors.values())).view(-1)[:1].add_(1))
    assert checkpoints.digest(weights) != before


def test_nothing_else_is_left_in_the_folder(weights: Path) -> None:
    assert [path.name for path in weights.parent.iterdir()] == [weights.name]


def test_a_full_disk_leaves_the_weights_that_were_there(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(tensors: Tensors, path: Path, **options: Any) -> None:
        path.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    before = weights.read_bytes()
    monkeypatch.setattr(checkpoints, "save_file", half)
    with pytest.raises(OutputError, match="No space left on device"):
        checkpoints.save(Wav2CLIP(Wav2CLIPConfig(width=8)), weights)
    assert weights.read_bytes() == before
    assert list(weights.parent.iterdir()) == [weights]


def test_values_that_are_too_large_for_a_precision_are_reported(tmp_path: Path) -> None:
    network, path = Wav2CLIP(Wav2CLIPConfig(width=8)), tmp_path / "wav2clip.safetensors"
    with torch.no_grad():
        network.audio_encoder.conv1.weight.fill_(1e6)
    with pytest.raises(WeightsError, match=r"1 tensors? .* fp16 cannot hold: audio_encoder.conv1.weight") as caught:
        checkpoints.save(network, path, precision="fp16")
    assert "bf16" in caught.value.hint
    assert not path.exists()
    checkpoints.save(network, path, precision="bf16")
    assert path.exists()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    expect(tmp_path / "clip.safetensors", "no such weights file", role="clip")


def test_a_truncated_file_is_reported(weights: Path) -> None:
    weights.write_bytes(weights.read_bytes()[:5000])
    expect(weights, "not a readable safetensors file")


def test_an_empty_file_is_reported(weights: Path) -> None:
    weights.write_bytes(b"")
    expect(weights, "not a readable safetensors file")


def test_weights_of_others_are_reported(weights: Path) -> None:
    save_file({"x": torch.zeros(1)}, weights)
    expect(weights, "not a weights file of w2c-gen")


def test_another_part_is_reported(weights: Path) -> None:
    expect(weights, "holds a wav2clip, not a vqgan", role="vqgan")


def test_a_later_format_is_reported(weights: Path) -> None:
    header = {"format": 99, "part": "wav2clip", "config": {}, "training": {}}
    save_file(load_file(weights), weights, metadata={"w2c-gen": json.dumps(header)})
    expect(weights, "another version")


def test_a_missing_name_is_reported(weights: Path) -> None:
    rewrite(weights, lambda tensors: tensors.pop("audio_encoder.conv1.weight"))
    expect(weights, "audio_encoder.conv1.weight is missing")


def test_an_unknown_name_is_reported(weights: Path) -> None:
    rewrite(weights, lambda tensors: tensors.update({"stranger": torch.zeros(1)}))
    expect(weights, "stranger is unknown")


def test_a_wrong_shape_is_reported(weights: Path) -> None:
    rewrite(weights, lambda tensors: tensors.update({"audio_encoder.bn1.weight": torch.zeros(9)}))
    expect(weights, "audio_encoder.bn1.weight is (9,), not (8,)")


def test_values_that_are_no_numbers_are_reported(weights: Path) -> None:
    rewrite(weights, lambda tensors: tensors["audio_encoder.bn1.weight"].fill_(torch.nan))
    expect(weights, "audio_encoder.bn1.weight is not finite")


def expect(path: Path, words: str, *, role: str = "wav2clip") -> None:
    """Loading fails in one line with `words`, with a hint."""
    with pytest.raises(WeightsError) as caught:
        checkpoints.load(path, role=role)
    assert words in caught.value.what
    assert "\n" not in caught.value.what
    assert caught.value.hint
