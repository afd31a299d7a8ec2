"""What torch.save wrote, in each of its formats, comes back as torch.load gives it."""

from __future__ import annotations

import pickle
import subprocess
import sys
import tarfile
import zipfile
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from wav2clip_gen.errors import WeightsError
from wav2clip_gen.models.torch_files import read_state_dict

DTYPES = [
    torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.uint8, torch.int8, torch.int16, torch.int32,
    torch.int64, torch.bool, torch.complex64, torch.complex128, torch.uint16, torch.float8_e4m3fn,
]  # fmt: skip
FORMATS = pytest.mark.parametrize("as_zip", [True, False], ids=["zip", "stream"])


def save(value: object, path: Path, *, as_zip: bool = True, **more: Any) -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=as_zip, **more)
    return path


def expect_error(path: Path, words: str) -> None:
    """Reading fails in one line with `words`, with a hint."""
    with pytest.raises(WeightsError) as caught:
        read_state_dict(path)
    assert words in caught.value.what
    assert str(path) in caught.value.what
    assert caught.value.what.isprintable()
    assert caught.value.hint


def same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    """Equal names, kinds, shapes, strides and bits; no gradients."""
    assert list(found) == list(wanted)
    for name, tensor in wanted.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].stride() == tensor.stride()
        assert type(found[name]) is Tensor
        assert not found[name].requires_grad
        bits = (found[name].contiguous().flatten().view(torch.uint8), tensor.detach().contiguous().flatten())
        assert found[name].shape == tensor.shape
        assert torch.equal(bits[0], bits[1].view(torch.uint8))


def every_sort() -> dict[str, Tensor]:
    """Tensors of every sort that a state dict may hold."""
    numbers = torch.arange(60, dtype=torch.float32).reshape(3, 4, 5)
    weight = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    parameter = nn.Parameter(weight.clone())
    noted = nn.Parameter(torch.ones(2))
    noted.note = "an attribute"  # type: ignore[attr-defined]
    tensors = {f"kind.{str(dtype)[6:]}": torch.ones(2, 3).to(dtype) for dtype in DTYPES}
    return tensors | {
        "a.whole": numbers,
        "a.view": numbers[1:, 2],
        "a.transposed": numbers.permute(2, 0, 1),
        "a.repeated": weight[:1].expand(5, 3),
        "a.channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "a.empty": torch.empty(0, 4),
        "a.number": torch.tensor(3.5),
        "a.parameter": parameter,
        "a.tied": parameter,
        "a.frozen": nn.Parameter(torch.ones(3), requires_grad=False),
        "a.noted": noted,
    }


@FORMATS
def test_tensors_of_every_sort_come_back(tmp_path: Path, as_zip: bool) -> None:
    tensors = every_sort()
    if not as_zip:  # the stream has no kinds without a storage class
        tensors = {name: tensor for name, tensor in tensors.items() if not name.endswith(("uint16", "e4m3fn"))}
    path = save(OrderedDict(tensors), tmp_path / "x.pt", as_zip=as_zip)
    found = read_state_dict(path)
    same(found, torch.load(path, weights_only=True))
    found["a.whole"][1, 2, 0] = -1  # a shared storage stays shared
    assert found["a.view"][0, 0] == -1
    assert found["a.transposed"][0, 1, 2] == -1
    assert found["a.tied"].data_ptr() == found["a.parameter"].data_ptr()
    assert torch.load(path, weights_only=True)["a.whole"][1, 2, 0] != -1  # and the file as it was


@FORMATS
@pytest.mark.parametrize("protocol", [1, 2, 3, 4, 5])
def test_every_protocol_is_read(tmp_path: Path, as_zip: bool, protocol: int) -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    path = save(network.state_dict(), tmp_path / "x.pt", as_zip=as_zip, pickle_protocol=protocol)
    same(read_state_dict(path), network.state_dict())


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shapes=st.lists(st.tuples(st.lists(st.integers(0, 5), max_size=4), st.sampled_from(DTYPES)), min_size=1),
    as_zip=st.booleans(),
)
def test_any_shapes_come_back(tmp_path: Path, shapes: list[tuple[list[int], torch.dtype]], as_zip: bool) -> None:
    if not as_zip:
        shapes = [(shape, torch.float32 if dtype in DTYPES[-2:] else dtype) for shape, dtype in shapes]
    tensors = {
        f"layer.{index}": torch.arange(torch.Size(shape).numel()).reshape(shape).to(torch.float32).to(dtype)
        for index, (shape, dtype) in enumerate(shapes)
    }
    same(read_state_dict(save(tensors, tmp_path / "x.pt", as_zip=as_zip)), tensors)


A, B, C = torch.tensor([1.0]), torch.tensor([2.0]), torch.tensor([3.0])
CYCLE: dict[str, Any] = {"weight": A}
CYCLE["around"] = [CYCLE]


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ({"weight": A, "bias": B}, {"weight": A, "bias": B}),
        ({"state_dict": {"a.b": A, "c": B}, "epoch": 3, "loss": C}, {"a.b": A, "c": B}),
        ({"model_state_dict": {"a.weight": A}, "step": B}, {"a.weight": A}),
        ({"weight": A, "branch": {"weight": B}}, {"weight": A}),
        ({"model": {"weight": A, "bias": C}, "step": B}, {"weight": A, "bias": C}),
        ({"g": {"x.w": A, "x.b": B}, "d": {"x.w": C}}, {"x.w": A, "x.b": B}),
        ({"generator": {"w": A}, "discriminator": {"w": B}}, {"w": A}),
        ({"net.w": A, "deep": {"er": {"w": B}}}, {"net.w": A}),
        ({"state_dict": {"a.w": A}, "optimizer": {"state": {0: {"avg": A, "sq": B, "step": C}}}}, {"a.w": A}),
        ({"thing": {"a.w": A}, "optimizer": {"state": {0: {"avg": A, "sq": B, "step": C}}}}, {"a.w": A}),
        ([{"epoch": 1}, {"w": A, "b": B}], {"w": A, "b": B}),
        ({"ema": {0.999: {"w": A}}}, {"w": A}),
        ({"w": A, "notes": ["text", {1, 2}, np.float32(3), torch.Size([2])], "none": None, 7: B}, {"w": A}),
        (defaultdict(Tensor, {"w": A}), {"w": A}),
        (CYCLE, {"weight": A}),
    ],
)
def test_the_state_dict_is_found_wherever_it_lies(tmp_path: Path, value: Any, wanted: dict[str, Tensor]) -> None:
    same(read_state_dict(save(value, tmp_path / "x.pt")), wanted)


def test_a_tar_archive_is_recognised_and_refused(tmp_path: Path) -> None:
    (tmp_path / "pickle").write_bytes(pickle.dumps({"w": 1}))
    with tarfile.open(tmp_path / "x.pt", "w:") as archive:
        archive.add(tmp_path / "pickle", "pickle")
    expect_error(tmp_path / "x.pt", "a tar archive, as torch wrote before version 0.1.10")


@pytest.mark.more
@pytest.mark.slow
def test_a_real_lightning_checkpoint_loads_without_lightning(tmp_path: Path) -> None:
    pytest.importorskip("pytorch_lightning")
    program = f"""
import torch, warnings
warnings.simplefilter("ignore")
import pytorch_lightning as pl
from omegaconf import OmegaConf
from pytorch_lightning.callbacks import ModelCheckpoint
class Net(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.save_hyperparameters({{"config": OmegaConf.create({{"ddconfig": {{"ch": 128}}}})}})
        self.conv = torch.nn.Conv2d(1, 2, 3)
    def training_step(self, batch, index):
        return self.conv(batch).square().mean()
    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())
    def on_save_checkpoint(self, checkpoint):
        checkpoint["callbacks"]["object"] = ModelCheckpoint(monitor="loss")
        checkpoint["strategy"] = type(self.trainer.strategy)
        torch.save(self.state_dict(), {str(tmp_path / "wanted.pt")!r})
net = Net()
trainer = pl.Trainer(max_steps=2, accelerator="cpu", logger=False, enable_progress_bar=False,
                     enable_model_summary=False, enable_checkpointing=False)
trainer.fit(net, torch.utils.data.DataLoader(torch.randn(4, 1, 8, 8)))
trainer.save_checkpoint({str(tmp_path / "real.ckpt")!r})
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with pytest.raises(pickle.UnpicklingError):  # it does hold what torch's own safe reader refuses
        torch.load(tmp_path / "real.ckpt", weights_only=True)
    reader = f"""
import sys
for name in ("pytorch_lightning", "lightning", "lightning_fabric", "omegaconf"):
    sys.modules[name] = None  # to import it fails
import torch
from pathlib import Path
from wav2clip_gen.models.torch_files import read_state_dict
torch.save(read_state_dict(Path({str(tmp_path / "real.ckpt")!r})), {str(tmp_path / "found.pt")!r})
assert not any(name.startswith("pytorch_lightning.") for name in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", reader], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    same(torch.load(tmp_path / "found.pt"), torch.load(tmp_path / "wanted.pt"))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_of_a_large_file_only_what_is_needed_is_read(tmp_path: Path) -> None:
    path = save({f"layer.{index}": torch.ones(10_000_000) for index in range(5)}, tmp_path / "x.pt")  # 200 MB
    program = f"""
from pathlib import Path
from wav2clip_gen.models.torch_files import read_state_dict
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
before = peak()
tensors = read_state_dict(Path({str(path)!r}), lambda name: False)
assert all(tensor.is_meta and tensor.shape == (10_000_000,) for tensor in tensors.values())
none = peak()
tensors = read_state_dict(Path({str(path)!r}), lambda name: name == "layer.3")
assert tensors["layer.3"].sum().item() == 1e7
print(none - before, peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    none, one = (int(word) / 1024 for word in done.stdout.split())  # MiB
    assert none < 20
    assert 30 < one < 140


def rezip(source: Path, target: Path, method: int = zipfile.ZIP_STORED) -> Path:
    """The same archive as another program would write it."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", method) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    return target


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_archive_that_was_packed_anew_is_read(tmp_path: Path, method: int) -> None:
    tensors = every_sort()
    path = rezip(save(tensors, tmp_path / "x.pt"), tmp_path / "y.pt", method)
    found = read_state_dict(path)
    same(found, torch.load(tmp_path / "x.pt", weights_only=True))
    assert all(tensor.untyped_storage().data_ptr() % 16 == 0 for tensor in found.values())


def test_checksums_that_were_never_written_are_not_missed(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        path = save({"w": A}, tmp_path / "x.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    same(read_state_dict(path), {"w": A})


def archive_of_numpy(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, w=A.numpy())


def lfs(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 934\n")


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.mkdir(), "no such file"),
        (lambda path: path.write_bytes(b""), "empty"),
        (lambda path: path.write_text("\n<!DOCTYPE html>\n<html>Not found</html>"), "a web page, not a checkpoint"),
        (lfs, "text, not a checkpoint"),
        (lambda path: path.write_bytes(bytes(range(255, 0, -1))), "bytes, not a checkpoint"),
        (lambda path: path.write_bytes(pickle.dumps({"w": 1})), "a Python pickle that torch.save did not write"),
        (lambda path: save_file({"w": A}, path), "a safetensors file, not a checkpoint"),
        (archive_of_numpy, "a zip archive, but not one that torch.save wrote"),
        (lambda path: save({"epoch": 3, "names": ["w"]}, path), "holds no tensors"),
        (lambda path: save(nn.Linear(2, 2), path), "holds no tensors"),
        (lambda path: torch.jit.script(nn.Linear(2, 2)).save(str(path)), "a TorchScript archive"),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_is_no_checkpoint_is_reported(tmp_path: Path, write: Callable[[Path], object], words: str) -> None:
    write(tmp_path / "x.pt")
    expect_error(tmp_path / "x.pt", words)


@FORMATS
def test_a_file_cut_anywhere_is_reported(tmp_path: Path, as_zip: bool) -> None:
    path = save({"a.w": torch.arange(40.0), "a.b": torch.arange(7)}, tmp_path / "x.pt", as_zip=as_zip)
    whole = path.read_bytes()
    for size in {*range(0, len(whole), 13), *range(len(whole) - 40, len(whole))}:
        path.write_bytes(whole[:size])
        expect_error(path, "")
