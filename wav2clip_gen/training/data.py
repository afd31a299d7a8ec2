"""The training data's folder: its files, and images and sounds decoded by several threads and kept in memory.

A shard is a WebDataset tar: members whose names are the same up to the first dot belong together, as `KEY.jpg` with
`KEY.json`, `KEY.cls` (a label) or `KEY.txt` (a caption). `KEY.json` has the `set`, `label`, `anchors` and `captions` of
an image, all optional. Small images may also be packed: `KEY.webps` holds WebP files one after the other (each states
its own length), `KEY.json` the list of their metadata.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from wav2clip_gen.errors import TrainingError

Array = NDArray[Any]
Decode = Callable[[bytes], Array | None]  # None if it cannot be decoded

HINT = "give the training data's folder with --data; 'Training them again' in weights/README.md says what is in it"
PACKED = "webps"  # suffix of concatenated WebP files
METADATA = ("json", "cls", "txt")  # suffixes of what is known of an example
MEMORY = 2_000_000_000  # bytes; what `weights/README.md` describes takes 1.7 GB of images or 0.3 GB of sounds
CHUNK = 64  # examples for each worker at a time
SIZES = {"natural": 128, "tiny": 64}  # kind of images -> pixels along each side
SMALLEST = 15 / 16  # of that size: smaller images would be blurred by enlarging
SUFFIXES = (PACKED, "webp", "jpg", "jpeg", "png")


@dataclass(frozen=True)
class ByteRange:
    """Where an encoded image or sound lies in a file."""

    path: Path
    offset: int
    length: int

    def read(self) -> bytes:
        """The bytes; fewer than `length` if the file ends before."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.length)


@dataclass(frozen=True, kw_only=True)
class Example:
    """An encoded image or sound of a shard with its metadata."""

    key: str
    set: str  # the data set it comes from, according to its metadata or the shard's name
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
        own = re.sub(r"-?\d*$", "", path.stem.removeprefix(f"{prefix}-")) or prefix.rsplit("-", maxsplit=1)[-1]
        examples += read_shard(path, own, suffixes, skipped)
    return examples


def read_shard(path: Path, own: str, suffixes: Sequence[str], skipped: list[str]) -> list[Example]:
    """The examples of one shard, as `read_shards`; `own` is the set of those whose metadata names none.

    Raises:
        TrainingError: It can be read, and holds no example.
    """
    before, examples = len(skipped), []
    for key, members in _group_members(path, skipped).items():
        try:
            found = _with_metadata(key, members, suffixes)
        except (ValueError, KeyError, TypeError, OSError):
            skipped.append(f"{path.name}:{key}")
            continue
        for span, metadata in found:
            name = own if metadata.get("set") is None else str(metadata["set"])
            examples.append(Example(key=str(metadata.get("key", key)), set=name, data=span, metadata=metadata))
    if not examples and len(skipped) == before:
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
        ValueError, KeyError, TypeError: The metadata is damaged, or belongs to no example; or the numbers of packed
            files and of their metadata differ, so which belong together is unknown.
    """
    span = next((members[suffix] for suffix in suffixes if suffix in members), None)
    if span is None:
        if any(suffix in members for suffix in METADATA):
            raise KeyError(key)
        return []
    metadata: Any = json.loads(members["json"].read()) if "json" in members else {}
    if span != members.get(PACKED):
        texts = {name: members[name].read().decode().strip() for name in ("cls", "txt") if name in members}
        return [(span, {**metadata, **texts})]
    blob, start, files = span.read(), 0, []
    while start < len(blob):
        length = 8 + int.from_bytes(blob[start + 4 : start + 8], "little")
        files.append(ByteRange(span.path, span.offset + start, length))
        start += length
    return [(file, {**entry}) for file, entry in zip(files, metadata, strict=True)]


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


@dataclass
class Loader:
    """Decodes the data of a run and bounds what is kept of it. Neither changes what is learned."""

    memory: int = MEMORY  # bytes of decoded images and sounds, at most
    workers: int = min(os.cpu_count() or 1, 8)  # threads that decode
    kept: int = 0  # bytes so far
    decoded: int = 0  # bytes that keeping all would take

    def notes(self) -> tuple[str, ...]:
        """What the user should know if not all is kept."""
        if self.kept == self.decoded:
            return ()
        kept, whole = (f"{size / 1e9:.3g}" for size in (self.kept, self.decoded))
        return (f"{kept} of {whole} GB of decoded data fit into --memory; the rest is decoded at each use",)

    def decode(self, spans: Sequence[ByteRange], decode: Decode) -> Iterator[Array | None]:
        """Read and decode in order, some at a time, so that few wait to be consumed."""

        def read(span: ByteRange) -> Array | None:
            try:
                return decode(span.read())
            except OSError:
                return None

        with ThreadPoolExecutor(self.workers) as pool:
            for start in range(0, len(spans), CHUNK * self.workers):
                yield from pool.map(read, spans[start : start + CHUNK * self.workers])


class DecodedExamples:
    """The arrays of those examples that can be decoded; what is not kept in memory is decoded at each use."""

    def __init__(self, examples: Sequence[Example], decode: Decode, loader: Loader) -> None:
        """Decode all; the names of those that cannot be decoded are in `skipped`."""
        self.examples: list[Example] = []
        self.skipped: list[str] = []
        self._decode, self._loader = decode, loader
        self._kept: dict[int, Array] = {}
        arrays = loader.decode([example.data for example in examples], decode)
        for example, array in zip(examples, arrays, strict=True):
            if array is None:
                self.skipped.append(example.name)
                continue
            loader.decoded += array.nbytes
            if loader.kept + array.nbytes <= loader.memory:
                loader.kept += array.nbytes
                self._kept[len(self.examples)] = array
            self.examples.append(example)

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Array:
        return self.take([index])[0]

    def take(self, indices: Sequence[int]) -> list[Array]:
        """The arrays of chosen examples.

        Raises:
            TrainingError: A shard has changed since it was first read.
        """
        missing = [index for index in dict.fromkeys(indices) if index not in self._kept]
        spans = [self.examples[index].data for index in missing]
        decoded = dict(zip(missing, self._loader.decode(spans, self._decode), strict=True))
        found = []
        for index in indices:
            array = self._kept.get(index, decoded.get(index))
            if array is None:
                example = self.examples[index]
                raise TrainingError(
                    f"{example.data.path}: {example.key} can no longer be read",
                    hint="do not change the data during training; then the same command resumes",
                )
            found.append(array)
        return found


@dataclass(frozen=True, kw_only=True)
class ImageInfo:
    """What is known of an image."""

    key: str
    set: str  # the data set it comes from
    label: str  # as its set names it; may be empty
    anchors: tuple[str, ...]  # names of concepts; may be empty
    captions: tuple[str, ...] = ()  # if the concepts in them are not looked up yet


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """Square images of one size; indexing gives those chosen, (B, 3, S, S) uint8."""

    decoded: DecodedExamples
    rows: Sequence[int]  # of what is decoded
    info: tuple[ImageInfo, ...]  # of these rows
    size: int
    skipped: tuple[str, ...]  # names of unreadable ones

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, chosen: Tensor | Sequence[int] | slice) -> Tensor:
        if isinstance(chosen, slice):
            rows = list(self.rows[chosen])
        else:
            rows = [self.rows[index] for index in (chosen.tolist() if isinstance(chosen, Tensor) else chosen)]
        found = self.decoded.take(rows)
        stacked = np.stack(found) if found else np.empty((0, self.size, self.size, 3), np.uint8)
        return torch.from_numpy(stacked).permute(0, 3, 1, 2)

    def subset(self, chosen: Sequence[int]) -> ImageDataset:
        """Only the chosen images."""
        info, rows = tuple(self.info[index] for index in chosen), [self.rows[index] for index in chosen]
        return replace(self, info=info, rows=rows)

    def batches(self, batch: int, *, device: torch.device, size: int | None = None) -> Iterator[Tensor]:
        """All images (B, 3, S, S) in [0, 1] on a device, in order, scaled to `size` px if that is given."""
        for start in range(0, len(self), batch):
            pixels = self[start : start + batch].to(device).float() / 255
            yield pixels if size is None else F.interpolate(pixels, size=(size, size), mode="area")


def load_images(data: Path, split: str, *, kind: str = "natural", loader: Loader | None = None) -> ImageDataset:
    """Read and decode all "train" or "val" images of a kind, "natural" (128 px) or "tiny" (64 px).

    Raises:
        TrainingError: The folder or its shards are missing, a shard is empty, or no image can be read.
    """
    skipped: list[str] = []
    info: dict[ByteRange, ImageInfo] = {}
    examples = []
    for example in read_shards(data, "images", f"{split}-{kind}", SUFFIXES, skipped):
        try:
            info[example.data] = _image_info(example)
            examples.append(example)
        except TypeError:
            skipped.append(example.name)
    decoded = DecodedExamples(examples, partial(_decode_image, size=SIZES[kind]), loader or Loader())
    if not len(decoded):
        raise TrainingError(f"{data}: no readable picture for {split}-{kind}", hint="fetch the data again")
    known = tuple(info[example.data] for example in decoded.examples)
    return ImageDataset(decoded, range(len(decoded)), known, SIZES[kind], (*skipped, *decoded.skipped))


def _image_info(example: Example) -> ImageInfo:
    """Check and convert an image's metadata.

    Raises:
        TypeError: A value has the wrong type.
    """
    known = {name: value for name, value in example.metadata.items() if value is not None}
    label = known.get("label", known.get("cls", ""))
    if not isinstance(label, str | int):
        raise TypeError("label")
    captions = known.get("captions", known.get("caption", known.get("txt", ())))
    return ImageInfo(
        key=example.key,
        set=example.set,
        label=str(label),
        anchors=_texts(known.get("anchors", ())),
        captions=() if "anchors" in known else _texts([captions] if isinstance(captions, str) else captions),
    )


def _texts(values: object) -> tuple[str, ...]:
    if not isinstance(values, list | tuple) or not all(isinstance(value, str) for value in values):
        raise TypeError("not a list of texts")
    return tuple(values)


def _decode_image(encoded: bytes, *, size: int) -> Array | None:
    """The center square (size, size, 3) uint8 of an image, or None if it is damaged or too small."""
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            picture = ImageOps.exif_transpose(image).convert("RGB")
    except Exception:  # Pillow raises whatever the damage leads to
        return None
    if picture.size != (size, size):
        if min(picture.size) < SMALLEST * size:
            return None
        picture = ImageOps.fit(picture, (size, size), Image.Resampling.LANCZOS)
    return np.asarray(picture)
