"""A checkpoint file opened: what its pickle says, where its storages lie. And the zip format that torch.save writes.

The formats are those that torch.serialization reads; `legacy` has the two older ones. Nothing is ever extracted, so
the names in an archive lead nowhere.
"""

from __future__ import annotations

import mmap
import struct
import sys
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from io import BufferedReader
from pickle import UnpicklingError
from typing import Any

import torch

from wav2clip_gen.models.opcodes import LARGEST_PICKLE, unpickle
from wav2clip_gen.models.stored import Global, Key, Storage, storage

ALIGNMENT = 16  # bytes; torch's kernels expect numbers where numbers may lie
DEFLATED = 8  # method of a zip entry; 0 is stored
ENCRYPTED = 1  # flag of a zip entry
UTF8 = 1 << 11  # flag of a zip entry


class TorchScriptError(UnpicklingError):
    """The archive holds a program, not a state dict."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """Bytes of the file that belong together."""

    start: int
    size: int  # in the file
    nbytes: int  # once inflated
    deflated: bool = False
    crc: int = 0  # CRC-32 of the inflated bytes; 0: not recorded, as torch.save can be told


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A checkpoint: the value of its pickle, and its storages."""

    file: BufferedReader
    data: mmap.mmap  # the whole file; a private map: who writes to it changes memory, not the file
    root: Any
    blocks: dict[Key, Block]

    def storage(self, key: Key) -> torch.UntypedStorage:
        """The bytes of a storage: a view of the file where they lie in it as they are, else a copy.

        Raises:
            UnpicklingError: They are damaged.
        """
        block = self.blocks[key]
        if block.nbytes == 0:
            return torch.UntypedStorage(0)
        if block.deflated:
            return torch.frombuffer(bytearray(read(self.data, block)), dtype=torch.uint8).untyped_storage()
        if block.crc and self._checksum(block) != block.crc:
            raise UnpicklingError(f"storage {key} is not as it was written: its checksum differs")
        if block.start % ALIGNMENT == 0:
            content = torch.frombuffer(self.data, dtype=torch.uint8, count=block.nbytes, offset=block.start)
        else:
            content = torch.empty(block.nbytes, dtype=torch.uint8)
            self.file.seek(block.start)
            if self.file.readinto(content.numpy().data) != block.nbytes:
                raise UnpicklingError("the file ends within a storage")
        return content.untyped_storage()

    def _checksum(self, block: Block) -> int:
        """CRC-32, read from the file and not from the map, whose pages would count as ours."""
        self.file.seek(block.start)
        checksum, left = 0, block.size
        while left and (part := self.file.read(min(left, 1 << 20))):
            checksum, left = zlib.crc32(part, checksum), left - len(part)
        return checksum


def unfolded_limit(size: int) -> int:
    """Bytes that a file of `size` bytes may unfold to, be it inflated or as tensors that repeat elements."""
    return 16 * size + (64 << 20)


def check_names(names: Iterable[str]) -> None:
    """Refuse an archive whose names are not those of a folder's files.

    Raises:
        UnpicklingError: A name leads out of the folder, or stands for two entries.
    """
    for name, count in Counter(names).items():
        if count > 1:
            raise UnpicklingError(f"two of its entries are called {name}")
        if name.startswith("/") or "\\" in name or ":" in name or ".." in name.split("/"):
            raise UnpicklingError(f"an entry's name leads elsewhere: {name}")


def check_byte_order(order: str) -> None:
    """Refuse numbers in the other byte order.

    Raises:
        UnpicklingError: `order` ("little" or "big") is not this machine's.
    """
    if order != sys.byteorder:
        raise UnpicklingError(f"its numbers are {order}-endian, this machine's are {sys.byteorder}-endian")


def read(data: mmap.mmap, block: Block) -> bytes:
    """The bytes of a block, inflated.

    Raises:
        UnpicklingError: They are damaged.
    """
    content = data[block.start : block.start + block.size]
    if block.deflated:
        content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, block.nbytes + 1)
    if len(content) != block.nbytes or (block.crc and zlib.crc32(content) != block.crc):
        raise UnpicklingError("an entry is not as it was written: its checksum differs")
    return content


def read_zip(file: BufferedReader, data: mmap.mmap) -> Archive:
    """Read the format since torch 1.6: `NAME/data.pkl` and one `NAME/data/KEY` a storage.

    Raises:
        UnpicklingError: It is damaged, dishonest or of another kind; other errors as in `unpickle`, and BadZipFile.
    """
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
    check_names(entry.filename for entry in entries)
    inflated = sum(entry.file_size for entry in entries if entry.compress_type)
    if inflated > unfolded_limit(len(data)):
        raise UnpicklingError(f"its entries claim to inflate to {inflated >> 20} MiB")
    blocks = {entry.filename: _block(data, entry) for entry in entries}
    if sum(block.size for block in blocks.values()) > len(data):
        raise UnpicklingError("its entries overlap")
    folder = next(iter(blocks)).split("/")[0]
    if any(name.startswith((f"{folder}/constants.pkl", f"{folder}/code/")) for name in blocks):
        raise TorchScriptError("a TorchScript archive, which is a program, not a checkpoint")
    pickle = blocks.get(f"{folder}/data.pkl")
    if pickle is None:
        raise UnpicklingError("a zip archive, but not one that torch.save wrote")
    if pickle.nbytes > LARGEST_PICKLE:
        raise UnpicklingError(f"a pickle of more than {LARGEST_PICKLE >> 20} MiB")
    if order := blocks.get(f"{folder}/byteorder"):
        check_byte_order(read(data, order)[:8].decode("ascii"))
    found: dict[Key, Block] = {}

    def persistent(saved: Any) -> Storage | Global:
        _, kind, key, _, count = saved
        stored = storage(key, kind, count)
        if isinstance(stored, Storage):
            block = blocks.get(f"{folder}/data/{key}")
            if block is None:
                raise UnpicklingError(f"storage {key} is missing")
            found[key] = block
            stored = storage(key, kind, count, room=block.nbytes)
        return stored

    return Archive(file=file, data=data, root=unpickle(read(data, pickle), persistent), blocks=found)


def _block(data: mmap.mmap, entry: zipfile.ZipInfo) -> Block:
    """Where an entry's bytes lie: behind its local header, which may be longer than the directory says."""
    if entry.flag_bits & ENCRYPTED or entry.compress_type not in (zipfile.ZIP_STORED, DEFLATED):
        raise UnpicklingError("its entries are encrypted, or compressed in an unusual way")
    header = entry.header_offset
    name = entry.orig_filename.encode("utf-8" if entry.flag_bits & UTF8 else "cp437")
    if header < 0 or data[header : header + 4] != b"PK\x03\x04":
        raise UnpicklingError("its directory points to no entry")
    name_length, extra_length = struct.unpack_from("<HH", data, header + 26)
    start = header + 30 + name_length + extra_length
    if data[header + 30 : header + 30 + name_length] != name or start + entry.compress_size > len(data):
        raise UnpicklingError("its directory and its entries do not agree")
    deflated = entry.compress_type == DEFLATED
    if not deflated and entry.file_size != entry.compress_size:
        raise UnpicklingError("an entry claims another size than it has")
    return Block(start=start, size=entry.compress_size, nbytes=entry.file_size, deflated=deflated, crc=entry.CRC)
