"""OpenL3: the numbers of its published port to PyTorch, and its weights."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.models.test_yamnet import write_hdf5
from wav2clip_gen.errors import WeightsError
from wav2clip_gen.models import checkpoints, convert
from wav2clip_gen.models.openl3 import WINDOW, OpenL3, translate

# What turian/torchopenl3@3cf5485 (torchopenl3/models.py, mel256) computes with the weights of `fill` and the bands
# normalised by their areas, for `windows`: entries 0, 60, 120, ... of 512, then 0, 700, 1400, ... of 6144.
SMALL = (
    (0.16922, 0.29326, 0.18158, 0.39821, 0.24208, 0.30929, 0.225, 0.17762, 0.1711),
    (0.21668, 0.28225, 0.1521, 0.37155, 0.2457, 0.32194, 0.33509, 0.19394, 0.17962),
)
LARGE = (
    (0.15694, 0.15787, -0.06686, -0.14707, 0.10631, -0.10835, 0.1173, 0.14822, 0.02163),
    (0.21668, 0.07244, -0.14644, -0.10509, 0.08943, -0.04208, 0.12795, 0.14307, 0.0101),
)
LEVELS = (
    -80.0,
    -37.145,
    -35.436,
    -35.611,
    -35.334,
    -36.542,
    -35.507,
)  # dB of bands 0, 40, ... of the first, column 100


def fill(network: torch.nn.Module, seed: int) -> None:
    """Weights and statistics, all drawn from NumPy's generator in the order of the names."""
    generator = np.random.default_rng(seed)
    for name, tensor in sorted(network.state_dict().items()):
        if not tensor.is_floating_point() or name.startswith("speclayer."):
            continue
        noise = torch.from_numpy(generator.standard_normal(tuple(tensor.shape), dtype=np.float32))
        if tensor.ndim > 1:
            noise *= tensor[0].numel() ** -0.5
        else:
            noise = 0.1 * noise + (0 if name.endswith(("bias", "mean")) else 1)
        if name.startswith("batch_normalization_1.running"):
            noise = torch.tensor([-40.0 if name.endswith("mean") else 400.0])
        tensor.copy_(noise)


def windows() -> Tensor:
    """Two windows: chirps in noise."""
    time = np.arange(WINDOW) / WINDOW
    noise = np.random.default_rng(1).standard_normal((2, WINDOW))
    chirps = np.sin(2 * np.pi * np.array([[80.0], [3000.0]]) * (1 + time) * time)
    return torch.from_numpy(0.5 * chirps + 0.003 * noise).float()


@pytest.fixture(scope="module")
def network() -> OpenL3:
    built = OpenL3().eval().requires_grad_(False)
    fill(built, seed=2)
    return built


def test_the_front_end_is_the_ports(network: OpenL3) -> None:
    levels = network.log_mel(windows())
    assert levels.shape == (2, 256, 199)
    assert levels.amax(dim=(1, 2)).tolist() == [0, 0]
    assert levels[0, ::40, 100].tolist() == pytest.approx(LEVELS, abs=2e-3)


def test_sound_is_embedded_as_by_the_port(network: OpenL3) -> None:
    small, large = network(windows()), network(windows(), 6144)
    torch.testing.assert_close(small[:, ::60], torch.tensor(SMALL), atol=2e-5, rtol=0)
    torch.testing.assert_close(large[:, ::700], torch.tensor(LARGE), atol=2e-5, rtol=0)
    assert torch.isfinite(network(torch.zeros(1, WINDOW))).all()


def keras_layers(network: OpenL3, *, first: int) -> dict[str, np.ndarray]:
    """The weights as Keras names and lays them out, its layers numbered from `first`."""
    kinds = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
    arrays: dict[str, np.ndarray] = {"melspectrogram_1/freq2mel": np.zeros((4, 4))}
    for name, tensor in network.state_dict().items():
        layer, _, kind = name.rpartition(".")
        kind = kinds.get(kind, "") if layer.startswith("batch") else {"weight": "kernel"}.get(kind, kind)
        if kind:
            place, _, number = layer.rpartition("_")
            if number.isdecimal():
                number = str(int(number) - 1 + first)
                layer = f"{place}_{number}" if number != "0" else place
            arrays[f"{layer}/{kind}"] = tensor.permute(2, 3, 1, 0).numpy() if kind == "kernel" else tensor.numpy()
    return arrays


def test_the_published_file_is_converted(network: OpenL3, tmp_path: Path) -> None:
    plain = write_hdf5(tmp_path / "openl3.h5", keras_layers(network, first=5))  # to conv2d_11, which follows conv2d_9
    packed = tmp_path / "openl3.h5.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes(), compresslevel=1))
    found = convert.read_network(packed, role="openl3", config={}).state_dict()
    assert found.keys() == network.state_dict().keys()
    for name, tensor in network.state_dict().items():
        assert torch.equal(found[name], tensor), name


def test_the_first_layer_of_keras_may_have_no_number(network: OpenL3) -> None:
    arrays = {name: torch.from_numpy(value) for name, value in keras_layers(network, first=0).items()}
    assert {"conv2d/kernel", "conv2d_6/kernel", "batch_normalization/gamma"} < arrays.keys()
    found = translate(arrays)
    for name, tensor in network.state_dict().items():
        assert torch.equal(found[name], tensor), name


def test_the_ports_checkpoint_is_converted(network: OpenL3, tmp_path: Path) -> None:
    original, out = tmp_path / "torchopenl3_mel256_music_512.pth.tar", tmp_path / "openl3.safetensors"
    torch.save({**network.state_dict(), "speclayer.mel_basis": torch.zeros(256, 1025)}, original)
    convert.convert(original, out, role="openl3", config={})
    loaded = checkpoints.load(out, role="openl3")
    assert isinstance(loaded, OpenL3)
    torch.testing.assert_close(loaded.log_mel(windows()), network.log_mel(windows()))
    assert torch.equal(loaded.audio_embedding_layer.weight, network.audio_embedding_layer.weight)


def test_another_network_of_keras_is_refused(network: OpenL3, tmp_path: Path) -> None:
    arrays = {name: value for name, value in keras_layers(network, first=1).items() if not name.startswith("conv2d_7")}
    path = write_hdf5(tmp_path / "other.h5", arrays)
    with pytest.raises(WeightsError, match="6 numbered convolutions and 8 batch norms") as caught:
        convert.read_network(path, role="openl3", config={})
    assert "mel256" in caught.value.hint
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(WeightsError, match="not a readable HDF5 file"):
        convert.read_network(path, role="openl3", config={})
