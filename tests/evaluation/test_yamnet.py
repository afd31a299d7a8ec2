"""YAMNet: its published numbers if the training data is at hand, the rest anywhere."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import ROOT
from tests.training.conftest import write_yamnet
from wav2clip_gen.errors import TrainingError
from wav2clip_gen.evaluation.yamnet import YAMNet, load_yamnet, mel_matrix

DATA = Path(os.environ.get("DATA", ROOT.parent / "shared" / "data"))  # as in the Makefile

with_data = pytest.mark.skipif(not (DATA / "teachers" / "yamnet.npz").is_file(), reason="no training data here")


def beep() -> torch.Tensor:
    return 0.5 * torch.sin(2 * math.pi * 1000 * torch.arange(15_600, dtype=torch.float64) / 16_000).float()[None]


def test_a_beep_has_the_stated_log_mel() -> None:
    frames = YAMNet().log_mel(beep())
    assert frames.shape == (1, 96, 64)
    assert frames.mean().item() == pytest.approx(-5.019, abs=5e-4)


def test_the_bands_are_triangles_of_height_one() -> None:
    mel = mel_matrix()
    assert mel.shape == (257, 64)
    assert mel[0].abs().sum() == 0
    assert 0.6 < mel.amax(dim=0).median() <= 1
    assert (mel > 0).sum(dim=1).max() == 2  # neighbours overlap, no more


@with_data
def test_a_beep_has_the_stated_scores() -> None:
    network = load_yamnet(DATA)
    embedding = network.embed(network.log_mel(beep()))
    assert embedding.mean().item() == pytest.approx(0.0938, abs=1e-4)
    assert embedding.max().item() == pytest.approx(6.911, abs=2e-3)
    scores = network(beep())[0]
    assert scores.topk(3).indices.tolist() == [475, 495, 0]
    assert scores[[475, 495, 0]].tolist() == pytest.approx([0.921, 0.084, 0.019], abs=1e-3)


@with_data
def test_silence_has_the_stated_scores() -> None:
    network = load_yamnet(DATA)
    zeros = torch.zeros(1, 15_600)
    assert network(zeros)[0, 494].item() == pytest.approx(1.0, abs=5e-4)
    assert network.embed(network.log_mel(zeros)).mean().item() == pytest.approx(1.7316, abs=1e-4)


def test_weights_are_read_from_their_arrays(tmp_path: Path) -> None:
    original = write_yamnet(tmp_path)
    network = load_yamnet(tmp_path)
    for name, tensor in original.state_dict().items():
        assert torch.equal(network.state_dict()[name], tensor.half().float()), name
    long = network(torch.rand(2, 40_000))
    assert long.shape == (2, 521)
    sound = torch.rand(1, 100)
    torch.testing.assert_close(network(sound), network(torch.nn.functional.pad(sound, (0, 15_500))))


def test_damaged_weights_are_an_error(tmp_path: Path) -> None:
    write_yamnet(tmp_path)
    path = tmp_path / "teachers" / "yamnet.npz"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(TrainingError, match=r"yamnet\.npz: cannot be read"):
        load_yamnet(tmp_path)
    np.savez(path, nothing=np.zeros(1))
    with pytest.raises(TrainingError, match=r"yamnet\.npz: cannot be read"):
        load_yamnet(tmp_path)
    with pytest.raises(TrainingError, match=r"yamnet\.npz"):
        load_yamnet(tmp_path / "nowhere")
