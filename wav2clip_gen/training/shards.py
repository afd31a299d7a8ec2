"""The files of a training data folder: shards, tables and arrays.

A shard is a WebDataset tar: members whose names are the same up to the first dot belong together, as `KEY.jpg` with
`KEY.json`, `KEY.cls` or `KEY.txt`. Small images may also be packed: `KEY.webps` holds WebP files one after the other
(each states its own length), `KEY.json` the list of their metadata. Nothing is decoded here.
"""

from __future__ import annotations

import csv
import json
import re
import tarfile
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wav2clip_gen.errors import TrainingError

HINT = "give the training data's folder with --data; 'Training them again' in weights/README.md says what is in it"
PACKED = "webps"  # suffix of concatenated WebP files
METADATA = ("json", "cls", "txt")  # suffixes of what is known of an example
MAX_METADATA = 1 << 26  # bytes


@dataclass(frozen=True)
class ByteRange:
    """Where an encoded image or sound lies in a file."""

    path: Path
    offset: int
    length: int

    def read(self) -> bytes:
        """The bytes; fewer than `length` if the file ends before.

        Raises:
            OSError: The file cannot be read.
        """
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.length)


@dataclass(frozen=True, kw_only=True)
class Example:
    """An encoded image or sound of a shard with its metadata."""

    key: str
    set: str  # the data set it comes from, according to the shard's name
    data: ByteRange
    metadata: dict[str, Any]  # with `cls` and `txt` if there are such members

    @property
    def name(self) -> str:
        """Its name in messages."""
        return f"{self.data.path.name}:{self.key}"


def read_shards(data: Path, kind: str, prefix: str, suffixes: Sequence[str], skipped: list[str]) -> list[Example]:
    """All examples of the shards of a kind, in order; the names of unreadable ones are appended to `skipped`.

    Args:
        data: Folder of the training data.
        kind: "images" or "audio".
        prefix: What the shards' names start with; what follows, except for a number, is the name of the set.
        suffixes: Of the members that are examples, without the dot.
        skipped: Receives the names of what cannot be read.

    Raises:
        TrainingError: There is no shard, or a readable one holds no example.
    """
    folder = data / kind
    paths = sorted(folder.glob(f"{prefix}-*.tar"))
    if not paths:
        problem = "no such folder" if not folder.is_dir() else f"holds no shard {prefix}-*.tar"
        raise TrainingError(f"{folder}: {problem}", hint=HINT)
    examples: list[Example] = []
    for path in paths:
        before = len(examples), len(skipped)
        own = re.sub(r"-?\d*$", "", path.stem.removeprefix(f"{prefix}-")) or prefix.rsplit("-", maxsplit=1)[-1]
        for key, members in _group_members(path, skipped).items():
            try:
                found = _with_metadata(key, members, suffixes)
            except (ValueError, KeyError, TypeError, OSError):
                skipped.append(f"{path.name}:{key}")
                continue
            for span, metadata in found:
                examples.append(Example(key=str(metadata.get("key", key)), set=own, data=span, metadata=metadata))
        if (len(examples), len(skipped)) == before:
            raise TrainingError(
                f"{path}: contains no examples", hint=f"a shard has members {', '.join(suffixes)}; or remove it"
            )
    return examples


def _group_members(path: Path, skipped: list[str]) -> dict[str, dict[str, ByteRange]]:
    """Key -> suffix -> byte range of the members of a shard, as far as it can be read."""
    groups: dict[str, dict[str, ByteRange]] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                name = PurePosixPath(member.name)
                stem, _, suffix = name.name.partition(".")
                if not member.isfile() or not stem:
                    continue
                group = groups.setdefault(str(name.with_name(stem)), {})
                if suffix.lower() in group:
                    skipped.append(f"{path.name}:{member.name} (duplicate)")
                group.setdefault(suffix.lower(), ByteRange(path, member.offset_data, member.size))
    except (tarfile.TarError, OSError):
        skipped.append(path.name)
    return groups


def _with_metadata(
    key: str, members: dict[str, ByteRange], suffixes: Sequence[str]
) -> list[tuple[ByteRange, dict[str, Any]]]:
    """The example among the members of a key, or those packed in one, each with its metadata; may be none.

    Raises:
        ValueError, KeyError, TypeError: The metadata is damaged, or belongs to no example.
    """
    span = next((members[suffix] for suffix in suffixes if suffix in members), None)
    if span is None:
        if any(suffix in members for suffix in METADATA):
            raise KeyError(key)
        return []
    metadata: Any = json.loads(_read_text(members["json"])) if "json" in members else {}
    if span == members.get(PACKED):
        return _unpack(span, metadata)
    texts = {name: _read_text(members[name]).decode().strip() for name in ("cls", "txt") if name in members}
    return [(span, {**metadata, **texts})]


def _read_text(span: ByteRange) -> bytes:
    if span.length > MAX_METADATA:
        raise ValueError("too long")
    return span.read()


def _unpack(packed: ByteRange, metadata: list[dict[str, Any]]) -> list[tuple[ByteRange, dict[str, Any]]]:
    """The WebP files in a packed member, each with its metadata.

    Raises:
        ValueError: The numbers of files and of metadata differ, so which belong together is unknown.
        TypeError: An entry of the metadata is no object.
    """
    if not all(isinstance(entry, dict) for entry in metadata):
        raise TypeError("metadata must be objects")
    blob, start, files = packed.read(), 0, []
    while start < len(blob):
        length = 8 + int.from_bytes(blob[start + 4 : start + 8], "little")
        files.append(ByteRange(packed.path, packed.offset + start, length))
        start += length
    return list(zip(files, metadata, strict=True))


def read_table(path: Path, *columns: str) -> list[dict[str, str]]:
    """Rows of a CSV file that has at least these columns; missing cells of a short row are empty.

    Raises:
        TrainingError: The file is missing, no table, or lacks a column.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restval="")
            rows, found = list(reader), reader.fieldnames or ()
    except (OSError, UnicodeDecodeError, csv.Error):
        raise TrainingError(f"{path}: cannot be read", hint=HINT) from None
    missing = [name for name in columns if name not in found]
    if missing:
        raise TrainingError(f"{path}: has no column {', '.join(missing)}", hint=HINT)
    return rows


def read_arrays(path: Path, *names: str) -> list[NDArray[Any]]:
    """The arrays of these names in an npz file.

    Raises:
        TrainingError: The file is missing, damaged, or lacks an array.
    """
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            return [arrays[name] for name in names]
    except (OSError, KeyError, ValueError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise TrainingError(f"{path}: cannot be read ({error})", hint=HINT) from None
