"""YAMNet: its published numbers if the training data is at hand, the rest anywhere."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import ROOT
from tests.training.conftest import write_yamnet
from wav2clip_gen.errors import SettingsError, TrainingError, WeightsError
from wav2clip_gen.models import checkpoints, convert, manifest, store
from wav2clip_gen.models.fetch import fetch, install
from wav2clip_gen.models.yamnet import CHANNELS, EPSILON, YAMNet, mel_matrix
from wav2clip_gen.training.mini.wav2clip import load_teacher

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
    network = load_teacher(DATA)
    embedding = network.embed(network.log_mel(beep()))
    assert embedding.mean().item() == pytest.approx(0.0938, abs=1e-4)
    assert embedding.max().item() == pytest.approx(6.911, abs=2e-3)
    scores = network(beep())[0]
    assert scores.topk(3).indices.tolist() == [475, 495, 0]
    assert scores[[475, 495, 0]].tolist() == pytest.approx([0.921, 0.084, 0.019], abs=1e-3)


@with_data
def test_silence_has_the_stated_scores() -> None:
    network = load_teacher(DATA)
    zeros = torch.zeros(1, 15_600)
    assert network(zeros)[0, 494].item() == pytest.approx(1.0, abs=5e-4)
    assert network.embed(network.log_mel(zeros)).mean().item() == pytest.approx(1.7316, abs=1e-4)


def test_weights_are_read_from_their_arrays(tmp_path: Path) -> None:
    original = write_yamnet(tmp_path)
    network = load_teacher(tmp_path)
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
        load_teacher(tmp_path)
    np.savez(path, nothing=np.zeros(1))
    with pytest.raises(TrainingError, match=r"yamnet\.npz: classifier\.bias is missing"):
        load_teacher(tmp_path)
    np.savez(path, nothing=np.array([{}], dtype=object))
    with pytest.raises(TrainingError, match=r"yamnet\.npz: cannot be read"):
        load_teacher(tmp_path)
    with pytest.raises(TrainingError, match=r"yamnet\.npz"):
        load_teacher(tmp_path / "nowhere")


def test_the_arrays_become_weights_of_the_part(tmp_path: Path, folder: Path) -> None:
    original = write_yamnet(tmp_path)
    part = manifest.part("yamnet")
    with pytest.raises(WeightsError, match="no such weights file") as caught:
        store.require_part(part)
    assert caught.value.hint == "run `w2c-gen weights fetch yamnet`"
    path = install(tmp_path / "teachers" / "yamnet.npz", part)
    assert path == folder / "yamnet" / "yamnet.safetensors" == store.require_part(part)
    assert store.verify(part) == "unchanged since it was converted"
    network = checkpoints.load(path, role="yamnet")
    assert isinstance(network, YAMNet)
    sound = torch.rand(1, 16_000, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(network(sound), original.half().float()(sound))


def keras_layers() -> dict[str, np.ndarray]:
    """Arrays named and laid out as in Google's yamnet.h5."""
    generator, inputs = np.random.default_rng(0), 32

    def norm(width: int) -> dict[str, np.ndarray]:
        drawn = generator.normal(size=(2, width))
        return {"beta": drawn[0], "moving_mean": drawn[1], "moving_variance": generator.uniform(0.5, 2, width)}

    layers = {"layer1/conv": {"kernel": generator.normal(size=(3, 3, 1, 32))}, "layer1/conv/bn": norm(32)}
    for number, outputs in enumerate(CHANNELS):
        deep, point = (f"layer{number + 2}/{kind}_conv" for kind in ("depthwise", "pointwise"))
        kernel = {"kernel": generator.normal(size=(1, 1, inputs, outputs)) / inputs**0.5}
        layers |= {deep: {"depthwise_kernel": generator.normal(size=(3, 3, inputs, 1)) / 3}, f"{deep}/bn": norm(inputs)}
        layers |= {point: kernel, f"{point}/bn": norm(outputs)}
        inputs = outputs
    layers["dense"] = {"kernel": generator.normal(size=(inputs, 521)) / 32, "bias": generator.normal(size=521)}
    return {f"{layer}/{name}": value for layer, weights in layers.items() for name, value in weights.items()}


def write_hdf5(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    """A weights file as Keras writes one."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        for name, value in arrays.items():
            layer, _, weight = name.rpartition("/")
            file[f"{layer}/{layer}/{weight}:0"] = value.astype(np.float32)
    return path


def test_the_batch_norm_of_the_published_file_is_folded(tmp_path: Path) -> None:
    arrays = keras_layers()
    path = write_hdf5(tmp_path / "yamnet.h5", arrays)
    network = convert.read_network(path, role="yamnet", config={})
    assert isinstance(network, YAMNet)
    x = torch.rand(1, 32, 6, 5, generator=torch.Generator().manual_seed(0))
    kernel = torch.from_numpy(arrays["layer2/pointwise_conv/kernel"][0, 0]).float()  # (32, 64)
    mean, variance, beta = (
        torch.from_numpy(arrays[f"layer2/pointwise_conv/bn/{name}"]).float().view(-1, 1, 1)
        for name in ("moving_mean", "moving_variance", "beta")
    )
    plain = torch.einsum("b i h w, i o -> b o h w", x, kernel)
    expected = (plain - mean) / (variance + EPSILON).sqrt() + beta
    torch.testing.assert_close(network.layers[2](x), expected, atol=1e-5, rtol=1e-5)
    assert network(torch.rand(1, 16_000)).shape == (1, 521)


def test_without_h5py_the_message_says_how_to_get_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = manifest.part("yamnet")
    path = store.locate_original(part)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\x89HDF\r\n\x1a\n")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(SettingsError, match="needs h5py") as caught:
        list(fetch(part, offline=True))
    assert "pip install 'wav2clip-gen[hdf5]'" in caught.value.hint
    assert path.is_file()  # the same command converts it then
