"""The two formats that torch.save wrote before zip archives: a stream of pickles, and before that a tar archive."""

from __future__ import annotations

import mmap
import struct
import tarfile
from io import BufferedReader
from pickle import UnpicklingError
from typing import Any

import torch

from wav2clip_gen.models.archives import Archive, Block, check_byte_order, check_names
from wav2clip_gen.models.opcodes import unpickle, unpickle_next
from wav2clip_gen.models.stored import Global, Key, Storage, StoredTensor, is_count, storage, within

STREAM_MAGIC = 0x1950A86A20F9469CFC6C
STREAM_PROTOCOL = 1001
MOST_MEMBERS = 16  # of a tar archive; torch wrote four

Span = tuple[int, int]  # first byte, and the one behind the last


def is_stream(data: mmap.mmap) -> bool:
    """Whether it starts with the number that torch.save put before its pickles."""
    try:
        return bool(unpickle(data, _no_storages, stop=min(64, len(data))) == STREAM_MAGIC)
    except (UnpicklingError, ValueError, TypeError, LookupError, OverflowError):
        return False


def read_stream(file: BufferedReader, data: mmap.mmap) -> Archive:
    """Read the format before torch 1.6: five pickles (magic, version, machine, value, keys), then the storages.

    Raises:
        UnpicklingError: It is damaged or of another kind; other errors as in `unpickle`.
    """
    _, end = unpickle_next(data, _no_storages)
    version, end = unpickle_next(data, _no_storages, end)
    if version != STREAM_PROTOCOL:
        raise UnpicklingError("a checkpoint of an unknown version")
    machine, end = unpickle_next(data, _no_storages, end)
    check_byte_order("little" if machine["little_endian"] else "big")
    announced: dict[Key, Storage] = {}

    def persistent(saved: Any) -> Storage | Global:
        if saved[0] == "module":  # a class and its source
            return Global("torch", "module")
        _, kind, key, _, count, view = saved
        stored = storage(key, kind, count)
        if isinstance(stored, Global):
            raise UnpicklingError("a storage of an unknown kind")  # nobody knows where the next one would start
        root = announced.setdefault(stored.key, stored)
        if view is None:
            return root
        _, start, count = view
        return storage(key, kind, count, start, room=root.nbytes)

    root, end = unpickle_next(data, persistent, end)
    keys, end = unpickle_next(data, _no_storages, end)
    blocks: dict[Key, Block] = {}
    for key in keys:
        blocks[key], end = _counted(data, end, announced[key].dtype)
        if blocks[key].nbytes != announced[key].nbytes:
            raise UnpicklingError(f"storage {key} has another size than announced")
    if missing := announced.keys() - blocks.keys():
        raise UnpicklingError(f"storage {missing.pop()} is missing")
    return Archive(file=file, data=data, root=root, blocks=blocks)


def is_tar(data: mmap.mmap) -> bool:
    """Whether it starts as a tar archive does."""
    return data[257:262] == b"ustar"


def read_tar(file: BufferedReader, data: mmap.mmap) -> Archive:
    """Read the format of torch's first months: a tar of `sys_info`, `storages`, `tensors` and `pickle`.

    Raises:
        UnpicklingError: It is damaged or of another kind; other errors as in `unpickle`, and TarError.
    """
    spans = _members(file, len(data))
    if missing := {"storages", "tensors", "pickle"} - spans.keys():
        raise UnpicklingError(f"a tar archive without {' and '.join(sorted(missing))}")
    if "sys_info" in spans:
        machine = unpickle(data, _no_storages, *spans["sys_info"])
        check_byte_order("little" if machine["little_endian"] else "big")
    storages, blocks = _storages(data, spans["storages"])
    tensors = _tensors(data, spans["tensors"], storages)

    def persistent(saved: Any) -> Any:
        if isinstance(saved, tuple):  # a class and its source
            return saved[0]
        return tensors[int(saved)] if int(saved) in tensors else storages[int(saved)]

    return Archive(file=file, data=data, root=unpickle(data, persistent, *spans["pickle"]), blocks=blocks)


def _no_storages(_: Any) -> Any:
    raise UnpicklingError("a storage where none belongs")


def _counted(data: mmap.mmap, start: int, dtype: torch.dtype, stop: int | None = None) -> tuple[Block, int]:
    """A storage that starts with the count of its numbers, and the first byte behind it."""
    (count,) = struct.unpack_from("<q", data, start)
    nbytes = count * dtype.itemsize
    end = start + 8 + nbytes
    if count < 0 or end > (len(data) if stop is None else stop):
        raise UnpicklingError("the file ends within a storage")
    return Block(start=start + 8, size=nbytes, nbytes=nbytes), end


def _members(file: BufferedReader, size: int) -> dict[str, Span]:
    """Where the members of a tar archive lie."""
    members: list[tarfile.TarInfo] = []
    file.seek(0)
    with tarfile.open(fileobj=file, mode="r:") as archive:
        while member := archive.next():
            members.append(member)
            if len(members) > MOST_MEMBERS:
                raise UnpicklingError("a tar archive, but not one that torch.save wrote")
    check_names(member.name for member in members)
    if any(not member.isreg() or member.issparse() for member in members):
        raise UnpicklingError("a tar archive with links or other things that are no files")
    spans = {member.name: (member.offset_data, member.offset_data + member.size) for member in members}
    if any(not 0 <= start <= stop <= size for start, stop in spans.values()):
        raise UnpicklingError("the file ends within a member of its archive")
    return spans


def _storages(data: mmap.mmap, span: Span) -> tuple[dict[Key, Storage], dict[Key, Block]]:
    """The storages and their views: a count, then (key, location, kind) and the numbers of each; a list of views."""
    storages: dict[Key, Storage] = {}
    blocks: dict[Key, Block] = {}
    kinds: dict[Key, Any] = {}
    end, stop = span
    count, end = unpickle_next(data, _no_storages, end, stop)
    for _ in range(count):
        (key, _, kind), end = unpickle_next(data, _no_storages, end, stop)
        empty = storage(key, kind, 0)
        if isinstance(empty, Global):
            raise UnpicklingError("a storage of an unknown kind")
        blocks[key], end = _counted(data, end, empty.dtype, stop)
        storages[key], kinds[key] = Storage(key, empty.dtype, 0, blocks[key].nbytes), kind
    views, end = unpickle_next(data, _no_storages, end, stop)
    for key, root, start, count in views:
        view = storage(root, kinds[root], count, start, room=storages[root].nbytes)
        if not isinstance(view, Storage) or not is_count(key):
            raise UnpicklingError("a view of no storage")
        storages[key] = view
    return storages, blocks


def _tensors(data: mmap.mmap, span: Span, storages: dict[Key, Storage]) -> dict[Key, StoredTensor]:
    """The tensors: a count, then for each (key, storage, kind), its dimensions, shape, strides and offset."""
    tensors: dict[Key, StoredTensor] = {}
    end, stop = span
    count, end = unpickle_next(data, _no_storages, end, stop)
    for _ in range(count):
        (key, root, _), end = unpickle_next(data, _no_storages, end, stop)
        dimensions, _ = struct.unpack_from("<ii", data, end)  # written as 4 bytes, then as 8, the first 4 the same
        numbers = struct.unpack_from(f"<{2 * dimensions + 1}q", data, end + 8)
        end += 8 + 8 * len(numbers)
        shape, stride, offset = numbers[:dimensions], numbers[dimensions:-1], numbers[-1]
        if not is_count(key):
            raise UnpicklingError("a tensor without a proper key")
        tensors[key] = within(storages[root], storages[root].dtype, offset, shape, stride)
    return tensors
