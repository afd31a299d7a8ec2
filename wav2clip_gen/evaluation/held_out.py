"""The data that a family was not trained on, read once for all evaluations."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from wav2clip_gen.errors import W2CError
from wav2clip_gen.models import checkpoints
from wav2clip_gen.models.families import Family
from wav2clip_gen.training.anchors import Concepts, load_anchors, picture_concepts, wanted_by_pictures
from wav2clip_gen.training.data import Pictures, load_pictures
from wav2clip_gen.training.loop import step_generator
from wav2clip_gen.training.sounds import Sound, label_table, load_sounds
from wav2clip_gen.training.wav2clip import piece_embedding

FOLDERS = ("audio", "images", "text")


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Validation pictures, and sounds of recordings that the training leaves out."""

    data: Path
    limit: int | None = None  # pictures, sounds and films at most, of each kind
    seed: int = 0  # decides which
    _read: dict[str, Pictures] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        lacking = [self.data / name for name in FOLDERS if not (self.data / name).is_dir()]
        if lacking:
            raise W2CError(
                f"{lacking[0] if self.data.is_dir() else self.data}: no such folder",
                hint="give the data's folder with --data; weights/README.md describes it",
            )

    @cached_property
    def pictures(self) -> Pictures:
        """Photographs of 128 px, as many as are asked for."""
        pictures = self.all_pictures("natural")
        chosen = self.choose(len(pictures))
        return pictures.some(chosen)

    def all_pictures(self, kind: str) -> Pictures:
        """Pictures of a kind ("natural", "tiny"), all of them."""
        if kind not in self._read:
            self._read[kind] = load_pictures(self.data, "val", kind=kind)
        return self._read[kind]

    @cached_property
    def all_sounds(self) -> tuple[Sound, ...]:
        """Pieces of recordings not trained on, all of them."""
        _, held_out = load_sounds(self.data)
        return held_out.pieces

    @cached_property
    def sounds(self) -> tuple[Sound, ...]:
        """As many of them as are asked for."""
        return tuple(self.all_sounds[at] for at in self.choose(len(self.all_sounds)))

    @cached_property
    def _names(self) -> Concepts:
        """The names of all concepts, without vectors: enough to know what shows what."""
        anchors = load_anchors(self.data)
        names = (*anchors.names, *(name for name in wanted_by_pictures(self.data) if name not in anchors.index))
        return Concepts(names, torch.zeros(len(names), 1), torch.zeros(len(names), dtype=torch.bool))

    def shown(self, pictures: Pictures) -> list[set[int]]:
        """For each picture the concepts it shows; may be none."""
        return [set(rows) for rows in picture_concepts(self.data, pictures.descriptions, self._names)]

    def seen_where_heard(self, pieces: tuple[Sound, ...]) -> list[set[int]]:
        """For each piece the concepts that are seen where it is heard; may be none."""
        labels = sorted({piece.label for piece in pieces})
        table = label_table(self.data, labels, self._names, None)
        seen = {name: set(rows) for name, rows in zip(table.names, table.seen, strict=True)}
        return [seen.get(piece.label, set()) for piece in pieces]

    def choose(self, count: int) -> list[int]:
        """Which of `count` examples are looked at, in their own order."""
        if self.limit is None or self.limit >= count:
            return list(range(count))
        return sorted(torch.randperm(count, generator=step_generator(self.seed, -5))[: self.limit].tolist())


@torch.no_grad()
def embed_sounds(family: Family, pieces: tuple[Sound, ...]) -> Tensor:
    """Unit vectors (N, D), on the CPU, of whole pieces."""
    return torch.stack([piece_embedding(family.wav2clip, piece.samples) for piece in pieces])


@torch.no_grad()
def embed_words(family: Family, texts: list[str]) -> Tensor:
    """Unit vectors (N, D), on the CPU, of texts."""
    return torch.cat([family.clip.encode_text(texts[start : start + 128]).cpu() for start in range(0, len(texts), 128)])


def supervision(family: Family) -> str:
    """In what sense the family's sound encoder has not heard the held-out sounds, in words."""
    training = checkpoints.read_header(family.files["wav2clip"]).training
    if "esc" in training.get("sets", ()):
        return "supervised labels, recordings not trained on"
    return "zero-shot as far as the weights file tells: it names no ESC-50 among its training data"
