"""Images of the training data: decoded by several threads, kept in memory as far as they fit, cropped batch by batch.

Besides the shard's own metadata (JSON: `set`, `label`, `anchors`, `captions`, all optional) a member `KEY.cls` gives
the label and `KEY.txt` a caption, as in other WebDataset tars.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from wav2clip_gen.errors import TrainingError
from wav2clip_gen.training.shards import PACKED, ByteRange, Example, read_shards

Array = NDArray[Any]
Decode = Callable[[bytes], Array | None]  # None if it cannot be decoded

MEMORY = 2_000_000_000  # bytes; what `weights/README.md` describes takes 1.7 GB of images or 0.3 GB of sounds
CHUNK = 64  # examples for each worker at a time
SIZES = {"natural": 128, "tiny": 64}  # kind of images -> pixels along each side
SMALLEST = 15 / 16  # of that size: smaller images would be blurred by enlarging
SUFFIXES = (PACKED, "webp", "jpg", "jpeg", "png")


@dataclass
class Loader:
    """Decodes the data of a run and bounds what is kept of it. Neither changes what is learned."""

    memory: int = MEMORY  # bytes of decoded images and sounds, at most
    workers: int = min(os.cpu_count() or 1, 8)  # threads that decode
    kept: int = 0  # bytes so far
    decoded: int = 0  # bytes that keeping all would take

    def fits(self, array: Array) -> bool:
        """Whether an array may be kept; counts it."""
        self.decoded += array.nbytes
        if self.kept + array.nbytes > self.memory:
            return False
        self.kept += array.nbytes
        return True

    def notes(self) -> tuple[str, ...]:
        """What the user should know if not all is kept."""
        if self.kept == self.decoded:
            return ()
        kept, whole = (f"{size / 1e9:.3g}" for size in (self.kept, self.decoded))
        return (f"{kept} of {whole} GB of decoded data fit into --memory; the rest is decoded at each use",)

    def decode(self, spans: Sequence[ByteRange], decode: Decode) -> Iterator[Array | None]:
        """Read and decode in order, some at a time, so that few wait to be consumed."""
        workers = min(self.workers, len(spans))
        if workers <= 1:
            yield from map(_read, repeat(decode), spans)
            return
        with ThreadPoolExecutor(workers) as pool:
            for start in range(0, len(spans), CHUNK * workers):
                yield from pool.map(_read, repeat(decode), spans[start : start + CHUNK * workers])


def _read(decode: Decode, span: ByteRange) -> Array | None:
    try:
        return decode(span.read())
    except OSError:
        return None


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
            if loader.fits(array):
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


class ImageDataset:
    """Square images of one size; indexing gives those chosen, (B, 3, S, S) uint8."""

    def __init__(
        self,
        decoded: DecodedExamples,
        info: Sequence[ImageInfo],
        *,
        size: int,
        skipped: tuple[str, ...] = (),
        rows: Sequence[int] | None = None,
    ) -> None:
        """Use `rows` of what is decoded, all by default; `info` belongs to these rows."""
        self.info, self.size, self.skipped = tuple(info), size, skipped
        self._decoded = decoded
        self._rows = range(len(decoded)) if rows is None else rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, chosen: Tensor | Sequence[int] | slice) -> Tensor:
        if isinstance(chosen, slice):
            rows = list(self._rows[chosen])
        else:
            rows = [self._rows[index] for index in (chosen.tolist() if isinstance(chosen, Tensor) else chosen)]
        found = self._decoded.take(rows)
        stacked = np.stack(found) if found else np.empty((0, self.size, self.size, 3), np.uint8)
        return torch.from_numpy(stacked).permute(0, 3, 1, 2)

    def subset(self, chosen: Sequence[int]) -> ImageDataset:
        """Only the chosen images."""
        info, rows = [self.info[index] for index in chosen], [self._rows[index] for index in chosen]
        return ImageDataset(self._decoded, info, size=self.size, skipped=self.skipped, rows=rows)


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
    known = [info[example.data] for example in decoded.examples]
    return ImageDataset(decoded, known, size=SIZES[kind], skipped=(*skipped, *decoded.skipped))


def _image_info(example: Example) -> ImageInfo:
    """Check and convert an image's metadata.

    Raises:
        TypeError: A value has the wrong type.
    """
    metadata = {name: value for name, value in example.metadata.items() if value is not None}
    label = metadata.get("label", metadata.get("cls", ""))
    if not isinstance(label, str | int):
        raise TypeError("label")
    captions = metadata.get("captions", metadata.get("caption", metadata.get("txt", ())))
    return ImageInfo(
        key=example.key,
        set=str(metadata.get("set", example.set)),
        label=str(label),
        anchors=_texts(metadata.get("anchors", ())),
        captions=() if "anchors" in metadata else _texts([captions] if isinstance(captions, str) else captions),
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


def epoch_order(count: int, *, epoch: int, seed: int) -> Tensor:
    """The random order (count,) of the examples in an epoch."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))


def batch_indices(count: int, batch: int, *, step: int, seed: int) -> Tensor:
    """The examples (batch,) of a step: each once per epoch, shuffled anew for each epoch."""
    positions = torch.arange(step * batch, (step + 1) * batch)
    epochs = positions // count
    orders = {epoch: epoch_order(count, epoch=epoch, seed=seed) for epoch in epochs.unique().tolist()}
    pairs = zip(epochs.tolist(), (positions % count).tolist(), strict=True)
    return torch.stack([orders[epoch][position] for epoch, position in pairs])


def random_crops(images: Tensor, size: int, *, generator: torch.Generator, whole: float = 0.3) -> Tensor:
    """A random square (B, 3, size, size) in [0, 1] of each image (B, 3, S, S) uint8, mirrored or not.

    A share `whole` of the images is scaled down instead of cropped.

    Raises:
        TrainingError: The images are smaller than that.
    """
    if size > images.shape[-1]:
        raise TrainingError(
            f"crops of {size} px cannot be cut from pictures of {images.shape[-1]} px", hint="use larger pictures"
        )
    margin = images.shape[-1] - size + 1
    crops = []
    for image in images:
        scale, top, left, mirror = torch.rand(4, generator=generator).tolist()
        if scale < whole:
            crop = F.interpolate(image[None].float(), size=(size, size), mode="area")[0]
        else:
            row, column = int(top * margin), int(left * margin)
            crop = image[:, row : row + size, column : column + size].float()
        crops.append(crop.flip(-1) if mirror < 0.5 else crop)
    return torch.stack(crops) / 255
