"""Pictures from shards: decoded once to squares of one size, cut and varied batch by batch.

Beside the shard's own description (JSON: `set`, `label`, `anchors`, `captions`, all optional) a member `KEY.cls` gives
the label and `KEY.txt` a caption, as in other WebDataset tars.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from wav2clip_gen.errors import TrainingError
from wav2clip_gen.training.decoding import Array, Decoded, Reading
from wav2clip_gen.training.shards import PACKED, Example, read_shards

SIZES = {"natural": 128, "tiny": 64}  # kind of pictures -> pixels along each side
SMALLEST = 15 / 16  # of that size: smaller pictures would be blurred by enlarging
PICTURES = (PACKED, "webp", "jpg", "jpeg", "png")  # suffixes


@dataclass(frozen=True, kw_only=True)
class Description:
    """What is known of a picture."""

    key: str
    set: str  # the data set it comes from
    label: str  # in the words of its set; may be empty
    anchors: tuple[str, ...]  # names of concepts; may be empty
    captions: tuple[str, ...] = ()  # where nobody has looked up the concepts in them


class Pixels:
    """Square pictures of one size, indexed like a tensor (N, 3, S, S) uint8."""

    def __init__(self, decoded: Decoded, size: int, rows: Sequence[int] | None = None) -> None:
        """Show `rows` of what is decoded, all by default."""
        self.size = size
        self._decoded = decoded
        self._rows = range(len(decoded)) if rows is None else rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, chosen: Tensor | Sequence[int] | slice) -> Tensor:
        """The chosen pictures (B, 3, S, S) uint8."""
        found = self._decoded.take(self.rows(chosen))
        stacked = np.stack(found) if found else np.empty((0, self.size, self.size, 3), np.uint8)
        return torch.from_numpy(stacked).permute(0, 3, 1, 2)

    def rows(self, chosen: Tensor | Sequence[int] | slice) -> list[int]:
        """Where the chosen pictures are among all that are decoded."""
        if isinstance(chosen, slice):
            return list(self._rows[chosen])
        return [self._rows[at] for at in (chosen.tolist() if isinstance(chosen, Tensor) else chosen)]

    def some(self, chosen: Tensor | Sequence[int] | slice) -> Pixels:
        """Only the chosen ones."""
        return Pixels(self._decoded, self.size, self.rows(chosen))


@dataclass(frozen=True, eq=False)
class Pictures:
    """Square pictures of one size with what is known of them."""

    pixels: Pixels
    descriptions: tuple[Description, ...]
    skipped: tuple[str, ...] = ()  # members that could not be read

    def __len__(self) -> int:
        return len(self.descriptions)

    @property
    def size(self) -> int:
        """Pixels along each side."""
        return self.pixels.size

    def some(self, chosen: Sequence[int]) -> Pictures:
        """Only the chosen ones."""
        return Pictures(self.pixels.some(chosen), tuple(self.descriptions[at] for at in chosen), self.skipped)


def load_pictures(data: Path, split: str, *, kind: str = "natural", reading: Reading | None = None) -> Pictures:
    """Read and decode all pictures of a split.

    Args:
        data: Folder of the training data.
        split: "train" or "val".
        kind: "natural" (128 px) or "tiny" (64 px).
        reading: By how many threads, and what may be kept in memory.

    Raises:
        TrainingError: The folder or its shards are missing, a shard is empty, or no picture can be read.
    """
    skipped: list[str] = []
    described = []
    for example in read_shards(data, "images", f"{split}-{kind}", PICTURES, skipped):
        try:
            described.append((example, _description(example)))
        except TypeError:
            skipped.append(example.name)
    decode = partial(_decode, size=SIZES[kind])
    decoded = Decoded([example for example, _ in described], decode, reading or Reading())
    if not len(decoded):
        raise TrainingError(f"{data}: no readable picture for {split}-{kind}", hint="fetch the data again")
    places = {example.place: known for example, known in described}
    descriptions = tuple(places[example.place] for example in decoded.examples)
    return Pictures(Pixels(decoded, SIZES[kind]), descriptions, (*skipped, *decoded.skipped))


def _description(example: Example) -> Description:
    """What is told of a picture.

    Raises:
        TypeError: Something is not of the kind it should be.
    """
    told = {name: value for name, value in example.entry.items() if value is not None}
    label = told.get("label", told.get("cls", ""))
    if not isinstance(label, str | int):
        raise TypeError("label")
    captions = told.get("captions", told.get("caption", told.get("txt", ())))
    return Description(
        key=example.key,
        set=str(told.get("set", example.set)),
        label=str(label),
        anchors=_texts(told.get("anchors", ())),
        captions=() if "anchors" in told else _texts([captions] if isinstance(captions, str) else captions),
    )


def _texts(values: object) -> tuple[str, ...]:
    if not isinstance(values, list | tuple) or not all(isinstance(value, str) for value in values):
        raise TypeError("not a list of texts")
    return tuple(values)


def _decode(encoded: bytes, *, size: int) -> Array | None:
    """The middle square (size, size, 3) uint8 of a picture, or None if it is damaged or too small."""
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
