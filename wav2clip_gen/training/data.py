"""Pictures from shards: decoded once, kept in memory as bytes, cut and varied batch by batch.

A shard is a tar of pairs: `NNNN.webps` holds WebP files one after the other (each says its own length),
`NNNN.json` the list of their descriptions in the same order.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from wav2clip_gen.errors import TrainingError

SPLITS = ("train", "val")
WHERE = "give the training data's folder with --data; 'Training them again' in weights/README.md says what is in it"


@dataclass(frozen=True, kw_only=True)
class Description:
    """What is known of a picture."""

    key: str
    set: str  # the data set it comes from
    label: str  # in the words of its set; may be empty
    anchors: tuple[str, ...]  # names of concepts; may be empty


@dataclass(frozen=True, eq=False)
class Pictures:
    """Square pictures of one size, in memory."""

    pixels: Tensor  # (N, 3, S, S) uint8
    descriptions: tuple[Description, ...]
    skipped: tuple[str, ...] = ()  # members that could not be read

    def __len__(self) -> int:
        return len(self.descriptions)

    @property
    def size(self) -> int:
        """Pixels along each side."""
        return self.pixels.shape[-1]


def shards(data: Path, kind: str, pattern: str) -> list[Path]:
    """The shards of a kind ("images", "audio") in the data folder.

    Raises:
        TrainingError: There is no such folder, or no shard in it.
    """
    folder = data / kind
    found = sorted(folder.glob(pattern))
    if not found:
        what = "no such folder" if not folder.is_dir() else f"holds no shard {pattern}"
        raise TrainingError(f"{folder}: {what}", hint=WHERE)
    return found


def load_pictures(data: Path, split: str, *, kind: str = "natural") -> Pictures:
    """Read and decode all pictures of a split.

    Args:
        data: Folder of the training data.
        split: "train" or "val".
        kind: "natural" (128 px) or "tiny" (64 px).

    Raises:
        TrainingError: The folder or its shards are missing, or no picture can be read.
    """
    pixels: list[np.ndarray] = []
    descriptions: list[Description] = []
    skipped: list[str] = []
    for path in shards(data, "images", f"{split}-{kind}-*.tar"):
        for name, described, encoded in _members(path, skipped):
            picture = _decode(encoded)
            if picture is None or (pixels and picture.shape != pixels[0].shape):
                skipped.append(f"{path.name}:{name}")
                continue
            pixels.append(picture)
            descriptions.append(described)
    if not pixels:
        raise TrainingError(f"{data}: no readable picture for {split}-{kind}", hint="fetch the data again")
    stacked = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)
    return Pictures(stacked, tuple(descriptions), tuple(skipped))


def _members(path: Path, skipped: list[str]) -> Iterator[tuple[str, Description, bytes]]:
    """Give (key, description, WebP file) of each picture; what cannot be read is added to `skipped`."""
    for name, blob, listed in _pairs(path, skipped):
        start = 0
        for entry in listed:
            length = 8 + int.from_bytes(blob[start + 4 : start + 8], "little")
            encoded = blob[start : start + length]
            start += length
            try:
                described = _description(entry)
            except (KeyError, TypeError):
                skipped.append(f"{path.name}:{name}")
                continue
            yield described.key, described, encoded


def _pairs(path: Path, skipped: list[str]) -> Iterator[tuple[str, bytes, list[dict[str, Any]]]]:
    """Give (name, joined WebP files, their descriptions) of each pair in a shard."""
    try:
        with tarfile.open(path) as tar:
            for name in [name for name in tar.getnames() if name.endswith(".json")]:
                try:
                    listed = json.loads(_read(tar, name))
                    blob = _read(tar, name.removesuffix(".json") + ".webps")
                except (KeyError, ValueError, OSError, tarfile.TarError):
                    skipped.append(f"{path.name}:{name}")
                    continue
                yield name, blob, listed
    except (tarfile.TarError, OSError):
        skipped.append(path.name)


def _read(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    if file is None:
        raise KeyError(name)
    return file.read()


def _description(entry: dict[str, Any]) -> Description:
    return Description(key=entry["key"], set=entry["set"], label=entry["label"], anchors=tuple(entry["anchors"]))


def _decode(encoded: bytes) -> np.ndarray | None:
    """A square picture (S, S, 3) uint8, or None if the file is damaged."""
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            picture = np.asarray(image.convert("RGB"))
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
        return None
    return picture if picture.shape[0] == picture.shape[1] else None


def order(count: int, *, epoch: int, seed: int) -> Tensor:
    """The order (count,) in which `count` examples are seen in an epoch."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))


def batch_indices(count: int, batch: int, *, step: int, seed: int) -> Tensor:
    """Which examples (batch,) step `step` sees: each once an epoch, in an order drawn anew for each epoch."""
    positions = torch.arange(step * batch, (step + 1) * batch)
    epochs = positions // count
    orders = {epoch: order(count, epoch=epoch, seed=seed) for epoch in epochs.unique().tolist()}
    return torch.stack(
        [orders[epoch][position] for epoch, position in zip(epochs.tolist(), (positions % count).tolist(), strict=True)]
    )


def random_crops(pixels: Tensor, size: int, *, generator: torch.Generator, whole: float = 0.3) -> Tensor:
    """Cut a random square (B, 3, size, size) in [0, 1] out of each picture (B, 3, S, S) uint8.

    Args:
        pixels: The pictures.
        size: Pixels along each side of a cut.
        generator: What decides.
        whole: Share of the pictures that are scaled down instead of cut.

    Raises:
        TrainingError: The pictures are smaller than that.
    """
    if size > pixels.shape[-1]:
        raise TrainingError(
            f"crops of {size} px cannot be cut from pictures of {pixels.shape[-1]} px", hint="use larger pictures"
        )
    margin = pixels.shape[-1] - size + 1
    cuts = []
    for picture in pixels:
        scale, top, left, mirror = torch.rand(4, generator=generator).tolist()
        if scale < whole:
            cut = F.interpolate(picture[None].float(), size=(size, size), mode="area")[0]
        else:
            row, column = int(top * margin), int(left * margin)
            cut = picture[:, row : row + size, column : column + size].float()
        cuts.append(cut.flip(-1) if mirror < 0.5 else cut)
    return torch.stack(cuts) / 255
