"""Checkpoints made to harm: whatever they try, nothing of theirs runs and nothing they name is imported."""

from __future__ import annotations

import io
import os
import pickle
import random
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.models.test_torch_files import FORMATS, expect_error, save
from wav2clip_gen.errors import WeightsError
from wav2clip_gen.models.torch_files import read_state_dict
from wav2clip_gen.models.unpickle import LARGEST_PICKLE, unpickle

UNUSED = "this"  # a module of the standard library that prints when imported, which nothing imports
W = torch.arange(4.0)
STREAM_HEAD = b"".join(
    pickle.dumps(part, protocol=2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
)


class Reduces:
    """Pickles as whatever `__reduce__` is to give."""

    def __init__(self, *reduced: Any) -> None:
        self.reduced = reduced

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduced

    def __call__(self) -> None:
        """Pickle only takes callables to call."""


def touching(marker: Path) -> str:
    """Python that leaves a mark."""
    return f"__import__('pathlib').Path({str(marker)!r}).touch()"


def attacks(marker: Path) -> dict[str, object]:
    """Values whose unpickling leaves a mark, by Python's own unpickler."""
    code = touching(marker)
    inner = pickle.dumps(Reduces(exec, (code,)))
    getter = Reduces(getattr, (Reduces(__import__, ("os",)), "system"))
    return {
        "os.system": Reduces(os.system, (f"touch {marker}",)),
        "exec": Reduces(exec, (code,)),
        "eval": Reduces(eval, (code,)),
        "subprocess": Reduces(subprocess.check_call, (["touch", str(marker)],)),
        "nested": Reduces(pickle.loads, (inner,)),
        "nested by torch": Reduces(torch.storage._load_from_bytes, (inner,)),
        "getattr": Reduces(Reduces(getattr, (Reduces(__import__, ("builtins",)), "exec")), (code,)),
        "chain": Reduces(list, (Reduces(map, (getter, [f"touch {marker}"])),)),
        "state": Reduces(Path, (), {"x": Reduces(exec, (code,))}),
        "list items": Reduces(list, (), None, iter([Reduces(exec, (code,))])),
        "dict items": Reduces(dict, (), None, None, iter([("x", Reduces(exec, (code,)))])),
        "state setter": Reduces(str, (code,), {"x": 1}, None, None, exec),
        "as a name": {Reduces(str, (Reduces(exec, (code,)),)): W},
        "within a tensor": Reduces(torch._utils._rebuild_parameter, (Reduces(exec, (code,)), False, None)),
    }


@FORMATS
@pytest.mark.parametrize("name", sorted(attacks(Path())))
def test_nothing_runs_and_the_other_tensors_are_read(tmp_path: Path, name: str, as_zip: bool) -> None:
    marker = tmp_path / "mark"
    state = {"before": W, "attack": attacks(marker)[name], "after": W + 1}
    path = save({"state_dict": state}, tmp_path / "x.pt", as_zip=as_zip, pickle_protocol=4)
    found = read_state_dict(path)
    assert not marker.exists()
    assert list(found) == ["before", "after"]
    assert torch.equal(found["after"], W + 1)


def test_the_attacks_are_real(tmp_path: Path) -> None:
    names = sorted(attacks(Path()))
    for name in names:
        save(attacks(tmp_path / f"{name}.mark".replace(" ", "-"))[name], tmp_path / f"{name}.pt", pickle_protocol=4)
    program = """
import sys, torch
for path in sys.argv[1:]:
    try:
        torch.load(path, weights_only=False)
    except Exception:  # what is built after the attack may be nonsense
        pass
"""
    paths = [str(tmp_path / f"{name}.pt") for name in names]
    subprocess.run([sys.executable, "-c", program, *paths], check=True)
    assert sorted(path.stem for path in tmp_path.glob("*.mark")) == sorted(name.replace(" ", "-") for name in names)


def with_pickle(path: Path, content: bytes) -> Path:
    """A checkpoint of today with one tensor `W` as storage 0 and a pickle of our own making."""
    save({"w": W}, path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, old in entries.items():
            archive.writestr(name, content if name.endswith("data.pkl") else old)
    return path


def tensor(offset: str = "K\x00", shape: str = "K\x04\x85", stride: str = "K\x01\x85", count: str = "K\x04") -> bytes:
    """Opcodes of a tensor in storage 0."""
    storage = f"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu{count}tQ"
    return f"ctorch._utils\n_rebuild_tensor_v2\n({storage}{offset}{shape}{stride}\x89Ntq\x01R".encode("latin-1")


TENSOR = b"X\x01\x00\x00\x00w" + tensor() + b"s"  # {..., "w": tensor}
CALLS = [
    b"cbuiltins\nexec\n(VCODE\ntR",
    b"(VCODE\nibuiltins\nexec\n",
    b"(cbuiltins\nexec\nVCODE\no",
    b"cbuiltins\nexec\n(VCODE\nt\x81",
    b"cbuiltins\nexec\n(VCODE\nt}\x92",
    b"\x8c\x08builtins\x8c\x04exec\x93(VCODE\ntR",
    b"\x8c\x00\x8c\x04exec\x93(VCODE\ntR",
    b"\x8c\x02..\x8c\x0c__import__.x\x93(VCODE\ntR",
    b"ctorch\nload\n(VCODE\ntR",
    b"ctorch.hub\nload\n(VCODE\ntR",
    b"cimportlib\nimport_module\n(Vthis\ntR",
    b"cthis\ns\n",
    b"cthis\nthing\n)R}(Vx\nI1\nub",
    b"cthis\nthing\n)\x81(VCODE\nlb",
    b"ccollections\nOrderedDict\n)R}V__class__\ncbuiltins\nexec\nsb",
    b"ctorch._utils\n_rebuild_tensor_v2\nN}V__code__\nI1\ns\x86b",  # would change torch's function, or ours
    b"\x82\x01", b"\x83\x01\x00", b"\x84\x01\x00\x00\x00",
    b"\x8f(VCODE\n\x90", b"(VCODE\n\x91",
]  # fmt: skip


@pytest.mark.parametrize("call", CALLS)
def test_hand_made_opcodes_run_nothing(tmp_path: Path, call: bytes) -> None:
    marker = tmp_path / "mark"
    code = touching(marker)
    content = b"\x80\x02}" + b"X\x01\x00\x00\x00x" + call.replace(b"CODE", code.encode()) + b"s" + TENSOR + b"."
    before = set(sys.modules)
    found = read_state_dict(with_pickle(tmp_path / "x.pt", content))
    assert list(found) == ["w"]
    assert torch.equal(found["w"], W)
    assert not marker.exists()
    assert UNUSED not in set(sys.modules) - before


NUMBER = "\x8a\x08" + struct.pack("<q", 1 << 62).decode("latin-1")


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (tensor(shape="K\x05\x85"), "beyond its storage"),
        (tensor(offset="K\x01"), "beyond its storage"),
        (tensor(stride="K\x02\x85"), "beyond its storage"),
        (tensor(offset="J\xff\xff\xff\xff"), "no counts"),
        (tensor(shape="J\xff\xff\xff\xff\x85"), "no counts"),
        (tensor(stride="J\xff\xff\xff\xff\x85"), "no counts"),
        (tensor(shape="G?\xf0\x00\x00\x00\x00\x00\x00\x85"), "no counts"),
        (tensor(shape="K\x02K\x02\x86"), "do not agree"),
        (tensor(shape="(" + 65 * "K\x01" + "t", stride="(" + 65 * "K\x01" + "t"), "do not agree"),
        (tensor(shape=f"{NUMBER}\x85", stride="K\x00\x85"), "larger than a file"),
        (tensor(shape=f"{NUMBER}{NUMBER}\x86", stride="K\x00K\x00\x86"), "larger than a file"),
        (tensor(count=NUMBER), "larger than the bytes it has"),
        (tensor(count="J\xff\xff\xff\xff"), "larger than the bytes it has"),
        (tensor().replace(b"\x000X", b"\x009X"), "storage 9 is missing"),
        (b"K\x01)R", "not callable"),
        (b"h\x63", "99"),
        (b"\x97", "out-of-band"),
        (b"VP\nQ", ""),
        (b"\xff", ""),
        (b"0000", ""),
        (b"X\xff\xff\xff\xff", ""),
    ],
)
def test_tensors_that_cannot_be_are_reported(tmp_path: Path, made: bytes, words: str) -> None:
    content = b"\x80\x02}" + TENSOR + b"X\x01\x00\x00\x00x" + made + b"s."
    expect_error(with_pickle(tmp_path / "x.pt", content), words)


STARTED = b"\x80\x02}" + TENSOR + b"X\x01\x00\x00\x00x"
TUPLES = b")q\x020" + b"h\x02h\x02\x86q\x020" * 200  # to hash the last of them takes 2^200 steps
DICTS = b"}q\x020" + b"}(Va\nh\x02Vb\nh\x02uq\x020" * 60  # the last of them holds 2^60 dicts


@pytest.mark.parametrize(
    "extra",
    [
        b"]" * 100_000 + b"a" * 99_999,  # lists in lists
        TUPLES + b"}h\x02Ns",
        TUPLES + b"\x8f(h\x02\x90",
        TUPLES + b"cbuiltins\nset\n(h\x02tR",
        DICTS + b"h\x02",
        b"}q\x02Va\nh\x02s",  # a dict in itself
        b"](I1\nI2\n\x86e" + b"q\x02" + b"ccollections\nOrderedDict\nh\x02\x85R0" * 1000,
    ],
)
def test_what_would_take_for_ever_is_passed_by(tmp_path: Path, extra: bytes) -> None:
    assert list(read_state_dict(with_pickle(tmp_path / "x.pt", STARTED + extra + b"s."))) == ["w"]


def test_a_dict_of_pairs_as_python_2_wrote_it_is_read_once(tmp_path: Path) -> None:
    twice = b"q\x030](" + 2 * b"ccollections\nOrderedDict\nh\x03\x85R" + b"e."
    strange = b"](h\x02Ne"  # a pair whose key would take for ever to hash
    content = b"\x80\x02" + TUPLES + b"](](Va.w\n" + tensor() + b"e" + strange + b"e" + twice
    assert list(read_state_dict(with_pickle(tmp_path / "x.pt", content))) == ["a.w"]
    again = unpickle(io.BytesIO(b"\x80\x02](](Vx\nNee" + twice))
    assert again == [{"x": None}, {}]  # a list used again and again would fill memory


def test_what_would_take_for_ever_is_no_key_of_a_storage(tmp_path: Path) -> None:
    content = b"\x80\x02" + TUPLES + b"}X\x01\x00\x00\x00x" + tensor().replace(b"X\x01\x00\x00\x000", b"h\x02") + b"s."
    expect_error(with_pickle(tmp_path / "x.pt", content), "a storage without a proper key")
    path = tmp_path / "stream.pt"
    path.write_bytes(STREAM_HEAD + b"\x80\x02}." + b"\x80\x02" + TUPLES + b"]h\x02a." + bytes(64))
    expect_error(path, "a storage without a proper key")


LARGE = b"X" + struct.pack("<I", LARGEST_PICKLE) + bytes(LARGEST_PICKLE)


def test_what_is_without_measure_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    expect_error(with_pickle(path, STARTED + LARGE + b"s."), "a pickle of more than 8 MiB")
    path.write_bytes(STREAM_HEAD + b"\x80\x02" + LARGE + b".")
    expect_error(path, "a pickle of more than 8 MiB")


def stream_with_view(path: Path, start: int, count: int, keys: list[str]) -> Path:
    """A checkpoint before zip archives, with a tensor in `count` numbers of `W`, seen as a storage of its own."""
    view = f"(X\x01\x00\x00\x008K{chr(start)}K{chr(count)}t"
    content = tensor(shape=f"K{chr(count)}\x85").replace(b"K\x04tQ", b"K\x04" + view.encode() + b"tQ")
    numbers = struct.pack("<q", 4) + W.numpy().tobytes()
    path.write_bytes(
        STREAM_HEAD + b"\x80\x02}X\x01\x00\x00\x00w" + content + b"s." + pickle.dumps(keys, protocol=2) + numbers
    )
    return path


def test_a_stream_holds_views_within_their_storages(tmp_path: Path) -> None:
    path = stream_with_view(tmp_path / "x.pt", 1, 2, ["0"])
    found = read_state_dict(path)["w"]
    assert found.tolist() == torch.load(path, weights_only=True)["w"].tolist() == [1.0, 2.0]
    assert found.untyped_storage().data_ptr() % 16 == 0
    expect_error(stream_with_view(path, 2, 3, ["0"]), "storage 0 is larger than the bytes it has")
    expect_error(stream_with_view(path, 1, 2, []), "storage 0 is missing")


def repack(path: Path, change: Callable[[dict[str, bytes]], object], method: int = zipfile.ZIP_STORED) -> Path:
    """Change the entries of a checkpoint's archive."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    change(entries)
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return save({"a.w": W, "a.b": torch.arange(3)}, tmp_path / "x.pt")


@pytest.mark.parametrize("name", ["../../etc/x", "/etc/x", "x/../../y", "..\\x", "C:/x"])
def test_names_that_lead_elsewhere_are_refused(checkpoint: Path, name: str) -> None:
    expect_error(repack(checkpoint, lambda entries: entries.update({name: b""})), "leads elsewhere")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_entries_of_one_name_are_refused(checkpoint: Path) -> None:
    with zipfile.ZipFile(checkpoint, "a") as archive:
        archive.writestr("x/data/0", bytes(16))
    expect_error(checkpoint, "two of its entries are called x/data/0")


def test_a_bomb_is_refused_before_it_goes_off(checkpoint: Path) -> None:
    def inflate(entries: dict[str, bytes]) -> None:
        entries["x/data/0"] = bytes(300_000_000)

    repack(checkpoint, inflate, zipfile.ZIP_DEFLATED)
    assert checkpoint.stat().st_size < 1_000_000
    expect_error(checkpoint, "claim to inflate to 286 MiB")


def test_an_entry_larger_than_it_claims_is_refused(checkpoint: Path) -> None:
    repack(checkpoint, lambda entries: entries.update({"x/data/0": bytes(10_000_000)}), zipfile.ZIP_DEFLATED)
    content = checkpoint.read_bytes().replace(struct.pack("<I", 10_000_000), struct.pack("<I", 16))
    checkpoint.write_bytes(content)
    expect_error(checkpoint, "Bad CRC-32")


def claim(path: Path, size: int) -> None:
    """Change the size of both storages in the archive's directory."""
    content = bytearray(path.read_bytes())
    directory = content.index(b"PK\x01\x02")
    for name in (b"x/data/0", b"x/data/1"):
        struct.pack_into("<II", content, content.index(name, directory) - 46 + 20, size, size)
    path.write_bytes(content)


def test_stored_entries_larger_than_the_file_are_refused(checkpoint: Path) -> None:
    claim(checkpoint, 1 << 30)
    expect_error(checkpoint, "larger than the file")


def test_entries_that_overlap_are_refused(checkpoint: Path) -> None:
    repack(checkpoint, lambda entries: entries.update({"x/data/0": bytes(999), "x/last": bytes(6000)}))
    claim(checkpoint, 5000)
    expect_error(checkpoint, "its entries overlap")


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_damaged_storage_is_reported(checkpoint: Path, method: int) -> None:
    repack(checkpoint, lambda entries: None, method)
    content = bytearray(checkpoint.read_bytes())
    content[content.index(b"x/data/0") + 8 + 5] ^= 1
    checkpoint.write_bytes(content)
    expect_error(checkpoint, "")


def test_other_compressions_and_byte_orders_are_refused(checkpoint: Path) -> None:
    repack(checkpoint, lambda entries: None, zipfile.ZIP_BZIP2)
    expect_error(checkpoint, "compressed in an unusual way")
    repack(checkpoint, lambda entries: entries.update({"x/byteorder": b"big"}))
    expect_error(checkpoint, "big-endian")
    checkpoint.write_bytes(STREAM_HEAD.replace(b"\x88", b"\x89") + b"\x80\x02}.")
    expect_error(checkpoint, "big-endian")


def test_an_error_quotes_no_control_characters(checkpoint: Path) -> None:
    expect_error(repack(checkpoint, lambda entries: entries.update({"../\x1b[2J\nx": b""})), "../?[2J x")


@FORMATS
def test_changed_bytes_give_tensors_or_an_error(tmp_path: Path, as_zip: bool) -> None:
    tensors = {"a.w": torch.arange(12.0).reshape(3, 4).T, "a.b": torch.arange(5)}
    path = save({"state_dict": tensors, "epoch": 3}, tmp_path / "x.pt", as_zip=as_zip)
    whole = path.read_bytes()
    draw = random.Random(0)
    outcomes = set()
    for _ in range(400):
        content = bytearray(whole)
        for _ in range(draw.choice([1, 1, 2, 8])):
            content[draw.randrange(len(content))] = draw.choice([0, 1, 46, 82, 127, 255, draw.randrange(256)])
        path.write_bytes(content)
        try:
            touched = [value.sum() for value in read_state_dict(path).values()]
            outcomes.add(bool(touched))
        except WeightsError:
            outcomes.add(False)
    assert outcomes == {True, False}
