"""The state dict in a file that torch.save wrote, with nothing of it run or trusted (see `unpickle`).

A checkpoint is a pickle and the storages that it refers to, in a zip archive since torch 1.6, before that in a stream.
torch's own reader takes all storages into memory, and in some versions believes the sizes that a file claims.
"""

from __future__ import annotations

import io
import struct
import sys
import zipfile
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, BinaryIO

import torch
from torch import Tensor

from wav2clip_gen.errors import WeightsError
from wav2clip_gen.models.unpickle import Inert, Key, Storage, StoredTensor, check_key, make_storage, unpickle

LONGEST_NAME = 1000  # characters of a tensor's name
STREAM_MAGIC, STREAM_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # at the start of the format before torch 1.6
_STREAM_MARKS = (STREAM_MAGIC.to_bytes(10, "little"), f"{STREAM_MAGIC}L".encode())  # as pickles hold the number
_DAMAGED = "the file is damaged or incomplete: download it again"
_OTHER = "give another file, such as torch.save writes"


class TorchScriptError(WeightsError):
    """A file is a TorchScript archive: a program and its tensors."""

    def __init__(self, path: Path) -> None:
        what = f"{path}: a TorchScript archive, which is a program, not a checkpoint"
        super().__init__(what, hint="only OpenAI's CLIP is read in this form; else give the state dict")


def read_state_dict(path: Path, needed: Callable[[str], bool] = lambda name: True) -> dict[str, Tensor]:
    """The state dict inside a checkpoint that torch.save wrote, as a zip archive or (before torch 1.6) a stream.

    Of several dicts in the file it is the one with the most tensors; dotted names (`encoder.conv.weight`) are preferred
    to plain ones, which are usually an optimizer's. Quantized, sparse and complex-conjugate tensors are left out.

    Args:
        path: The file.
        needed: Whether a tensor of this name is read; the others are on `meta`, with a shape and no numbers.

    Returns:
        Tensors by name, without gradients. Those that shared a storage in the file still do.

    Raises:
        TorchScriptError: It is a TorchScript archive.
        WeightsError: The file is missing, damaged, dishonest about its sizes, no checkpoint, or holds no tensors.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such file", hint="check the spelling and the folder you are in")
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            root, read = _open(path, file, size)
            stored = _find_tensors(root)
            if not stored:
                hint = "save the state_dict() of a network, not the network"
                raise WeightsError(f"{path}: holds no tensors", hint=hint)
            if sum(tensor.nbytes for tensor in stored.values()) > _unfolded_limit(size):
                raise UnpicklingError(f"its tensors claim to be larger than a file of {size} bytes allows")
            return _fill(stored, read, needed)
    except WeightsError:
        raise
    except PermissionError:
        raise WeightsError(f"{path}: may not be read", hint="make it readable, or give another file") from None
    except Exception as error:  # hostile bytes provoke whatever the standard library raises
        what = " ".join(str(error).split()) or type(error).__name__
        what = "".join(letter if letter.isprintable() else "?" for letter in what[:160])  # it may quote the file
        raise WeightsError(f"{path}: not a readable checkpoint ({what})", hint=_DAMAGED) from None


_Checkpoint = tuple[Any, Callable[[Key], bytes]]  # the value of its pickle, and what reads a storage


def _open(path: Path, file: BinaryIO, size: int) -> _Checkpoint:
    """Read the checkpoint in the format that its first bytes show."""
    head = file.read(512)
    file.seek(0)
    if head.startswith(b"PK\x03\x04"):
        return _read_zip(path, file, size)
    if any(mark in head[:32] for mark in _STREAM_MARKS):
        return _read_stream(file, size)
    if not head:
        raise WeightsError(f"{path}: empty", hint=_DAMAGED)
    if head[257:262] == b"ustar":
        hint = "if you trust it, torch.load it and torch.save its state_dict() again"
        raise WeightsError(f"{path}: a tar archive, as torch wrote before version 0.1.10", hint=hint)
    raise WeightsError(f"{path}: {_kind(head)}, not a checkpoint", hint=_OTHER)


def _kind(head: bytes) -> str:
    """What a file that is no checkpoint seems to be, by its first bytes."""
    if head[8:10] == b'{"':
        return "a safetensors file"
    if head[:1] == b"\x80" and head[1:2] <= b"\x05":
        return "a Python pickle that torch.save did not write"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"<"):
        return "a web page"
    return "text" if text.decode("utf-8", errors="ignore").translate({9: "", 10: "", 13: ""}).isprintable() else "bytes"


def _unfolded_limit(size: int) -> int:
    """Bytes that a file of `size` bytes may unfold to, be it inflated or as tensors that repeat elements."""
    return 16 * size + (64 << 20)


def _check_byte_order(order: str) -> None:
    if order != sys.byteorder:
        raise UnpicklingError(f"its numbers are {order}-endian, this machine's are {sys.byteorder}-endian")


def _read_zip(path: Path, file: BinaryIO, size: int) -> _Checkpoint:
    """Read the format since torch 1.6: `NAME/data.pkl` and one `NAME/data/KEY` per storage. Nothing is extracted."""
    archive = zipfile.ZipFile(file)
    _check_entries(archive.infolist(), size)
    folder = archive.namelist()[0].split("/")[0]
    entries = {entry.filename.removeprefix(f"{folder}/"): entry for entry in archive.infolist()}
    if any(name == "constants.pkl" or name.startswith("code/") for name in entries):
        raise TorchScriptError(path)
    if "data.pkl" not in entries:
        raise UnpicklingError("a zip archive, but not one that torch.save wrote")

    def read(name: str) -> bytes:
        content = archive.read(entries[name])  # no more than the size that was checked, with its checksum
        if len(content) != entries[name].file_size:
            raise UnpicklingError(f"{name} ends too early")
        return content

    def storage(saved: Any) -> Any:
        _, dtype, key, _, count = saved
        entry = entries.get(f"data/{check_key(key)}")
        return make_storage(key, dtype, count, available=entry.file_size if entry else None)

    if "byteorder" in entries:
        _check_byte_order(read("byteorder").decode("ascii"))
    return unpickle(io.BytesIO(read("data.pkl")), storage), lambda key: read(f"data/{key}")


def _check_entries(entries: list[zipfile.ZipInfo], size: int) -> None:
    """Refuse an archive with ambiguous names, names that lead out of its folder, or sizes that cannot be true."""
    for name, count in Counter(entry.filename for entry in entries).items():
        if count > 1:
            raise UnpicklingError(f"two of its entries are called {name}")
        if name.startswith("/") or "\\" in name or ":" in name or ".." in name.split("/"):
            raise UnpicklingError(f"an entry's name leads elsewhere: {name}")
    if any(entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for entry in entries):
        raise UnpicklingError("its entries are compressed in an unusual way")
    if sum(entry.compress_size for entry in entries) > size:
        raise UnpicklingError("its entries overlap or are larger than the file")
    inflated = sum(entry.file_size for entry in entries)
    if inflated > _unfolded_limit(size):
        raise UnpicklingError(f"its entries claim to inflate to {inflated >> 20} MiB")
    for entry in entries:
        if entry.CRC == 0:
            entry.CRC = None  # type: ignore[assignment]  # not recorded, an option of torch.save: not checked


def _read_stream(file: BinaryIO, size: int) -> _Checkpoint:
    """Read the format before torch 1.6: five pickles (magic, version, machine, value, keys), then the storages."""
    announced: dict[Key, Storage] = {}
    places: dict[Key, int] = {}

    def storage(saved: Any) -> Any:
        if saved[0] == "module":  # a class and its source
            return Inert()
        _, dtype, key, _, count, view = saved
        found = make_storage(key, dtype, count)
        if not isinstance(found, Storage):
            raise UnpicklingError("a storage of an unknown type")  # its size, and so the next one's place, is unknown
        whole = announced.setdefault(key, found)
        return whole if view is None else make_storage(key, dtype, view[2], view[1], available=whole.nbytes)

    def read(key: Key) -> bytes:
        file.seek(places[key])
        return file.read(announced[key].nbytes)

    _, protocol, machine = (unpickle(file) for _ in range(3))
    if protocol != STREAM_PROTOCOL:
        raise UnpicklingError("a checkpoint of an unknown version")
    _check_byte_order("little" if machine["little_endian"] else "big")
    root = unpickle(file, storage)
    for key in map(check_key, unpickle(file)):
        (count,) = struct.unpack("<q", file.read(8))
        if count * announced[key].dtype.itemsize != announced[key].nbytes:
            raise UnpicklingError(f"storage {key} has another size than announced")
        places[key] = file.tell()
        if file.seek(announced[key].nbytes, io.SEEK_CUR) > size:
            raise UnpicklingError("the file ends within a storage")
    if missing := announced.keys() - places.keys():
        raise UnpicklingError(f"storage {missing.pop()} is missing")
    return root, read


def _find_tensors(root: Any) -> dict[str, StoredTensor]:
    """The dict with the most tensors; those with dotted names come first, and of equals the outer one."""

    def rank(tensors: dict[str, StoredTensor]) -> tuple[bool, int]:
        return any("." in name for name in tensors), len(tensors)

    best: dict[str, StoredTensor] = {}
    waiting, seen = deque([root]), set()
    while waiting:
        value = waiting.popleft()
        if id(value) in seen or not isinstance(value, dict | list | tuple):
            continue
        seen.add(id(value))
        waiting.extend(value.values() if isinstance(value, dict) else value)
        if isinstance(value, dict):
            tensors = {name: one for name, one in value.items() if isinstance(one, StoredTensor)}
            named = {name: one for name, one in tensors.items() if isinstance(name, str) and len(name) <= LONGEST_NAME}
            best = max(best, named, key=rank)
    return best


def _fill(
    stored: dict[str, StoredTensor], read: Callable[[Key], bytes], needed: Callable[[str], bool]
) -> dict[str, Tensor]:
    """Make tensors of their records; each storage is read once."""
    storages: dict[Key, torch.UntypedStorage] = {}

    def make(tensor: StoredTensor) -> Tensor:
        key = tensor.storage.key
        if key not in storages:
            content = bytearray(read(key))
            empty = torch.UntypedStorage(0)
            storages[key] = torch.frombuffer(content, dtype=torch.uint8).untyped_storage() if content else empty
        start, rest = divmod(tensor.storage.start, tensor.dtype.itemsize)
        if rest:
            raise UnpicklingError("a tensor lies between two numbers")
        return torch.empty(0, dtype=tensor.dtype).set_(
            storages[key], start + tensor.offset, tensor.shape, tensor.stride
        )

    return {
        name: make(tensor) if needed(name) else torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
        for name, tensor in stored.items()
    }
