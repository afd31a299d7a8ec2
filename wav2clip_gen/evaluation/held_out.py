"""The held-out data, read once for all measures, its embeddings, and the classes of sounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
import yaml
from torch import Tensor

from wav2clip_gen.errors import W2CError
from wav2clip_gen.models import checkpoints
from wav2clip_gen.models.registry import Models
from wav2clip_gen.training.data import ImageDataset, load_images, read_table
from wav2clip_gen.training.mini.audio import AudioExample, load_audio, load_audio_labels, load_zero_shot
from wav2clip_gen.training.mini.concepts import Concepts, load_anchors, missing_concepts
from wav2clip_gen.training.mini.wav2clip import embed_samples
from wav2clip_gen.training.schedule import step_generator

FOLDERS = ("audio", "images", "text")
TEXTS = 128  # in a batch
CLASSES = yaml.safe_load(Path(__file__).with_name("classes.yaml").read_text(encoding="utf-8"))
AUDIOSET: dict[str, list[str]] = CLASSES["audioset"]  # class of ESC-50 -> its right names in AudioSet
ESC_50 = tuple(AUDIOSET)
URBAN: list[str] = CLASSES["urbansound8k"]


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Validation pictures, and sounds of recordings that are not trained on."""

    data: Path
    limit: int | None = None  # maximum number of pictures, sounds and films, of each kind
    seed: int = 0  # selects them
    _pictures: dict[str, ImageDataset] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        missing = [self.data / name for name in FOLDERS if not (self.data / name).is_dir()]
        if missing:
            raise W2CError(
                f"{missing[0] if self.data.is_dir() else self.data}: no such folder",
                hint="give the data's folder with --data; weights/README.md describes it",
            )

    def generator(self, stream: int) -> torch.Generator:
        """A source of random numbers, one for each purpose."""
        return step_generator(self.seed, stream)

    def sample(self, count: int) -> list[int]:
        """Up to `limit` of `count` examples, in their own order."""
        if self.limit is None or self.limit >= count:
            return list(range(count))
        return sorted(torch.randperm(count, generator=self.generator(-5))[: self.limit].tolist())

    @cached_property
    def photographs(self) -> ImageDataset:
        """A sample of the photographs of 128 px."""
        pictures = self.all_pictures("natural")
        return pictures.subset(self.sample(len(pictures)))

    def all_pictures(self, kind: str) -> ImageDataset:
        """All pictures of a kind, "natural" or "tiny"."""
        if kind not in self._pictures:
            self._pictures[kind] = load_images(self.data, "val", kind=kind)
        return self._pictures[kind]

    @cached_property
    def all_sounds(self) -> tuple[AudioExample, ...]:
        """All pieces of recordings that are not trained on."""
        return tuple(load_audio(self.data)[1])

    @cached_property
    def sounds(self) -> tuple[AudioExample, ...]:
        """A sample of them."""
        return tuple(self.all_sounds[index] for index in self.sample(len(self.all_sounds)))

    @cached_property
    def zero_shot_sounds(self) -> tuple[AudioExample, ...]:
        """A sample of UrbanSound8K's fold 3, whose labels are not trained on; none if it is not in the folder."""
        clips = load_zero_shot(self.data)
        return tuple(clips[index] for index in self.sample(len(clips)))

    @cached_property
    def concept_names(self) -> Concepts:
        """The names of all concepts, without vectors: enough to compare what pictures and sounds show."""
        known = load_anchors(self.data)
        names = (*known.names, *missing_concepts(self.data, known))
        return Concepts(names, torch.zeros(len(names), 1))

    def visible(self, pieces: Sequence[AudioExample]) -> list[set[int]]:
        """For each sound the rows of `concept_names` that are visible where it occurs; may be none."""
        labels = sorted({piece.label for piece in pieces})
        table = load_audio_labels(self.data, labels, self.concept_names, None)
        seen = {name: set(rows) for name, rows in zip(table.names, table.concepts, strict=True)}
        return [seen.get(piece.label, set()) for piece in pieces]

    def audioset_names(self) -> list[str]:
        """The AudioSet names that the data folder lists: YAMNet's 521 of the 527."""
        table = self.data / "teachers" / "yamnet_class_map.csv"
        return [row["display_name"] for row in read_table(table, "display_name")]


@torch.no_grad()
def encode_images(family: Models, pictures: Tensor) -> Tensor:
    """Unit vectors (B, D), on the CPU, of pictures (B, 3, H, W) in [0, 1]."""
    size = family.clip.size
    return family.clip.encode_images(F.interpolate(pictures, size=(size, size), mode="area")).cpu()


@torch.no_grad()
def embed_sounds(family: Models, pieces: Sequence[AudioExample]) -> Tensor:
    """Unit vectors (N, D), on the CPU, of whole pieces."""
    return torch.stack([embed_samples(family.wav2clip, piece.samples) for piece in pieces])


@torch.no_grad()
def encode_texts(family: Models, texts: list[str]) -> Tensor:
    """Unit vectors (N, D), on the CPU."""
    chunks = (texts[start : start + TEXTS] for start in range(0, len(texts), TEXTS))
    return torch.cat([family.clip.encode_text(chunk).cpu() for chunk in chunks])


def embed_sound_names(family: Models, names: Sequence[str], *, template: str = "the sound of {}") -> Tensor:
    """Text embeddings (N, D), on the CPU, of `the sound of NAME`, or of another template."""
    return encode_texts(family, [template.format(name.replace("_", " ").lower()) for name in names])


def supervision(family: Models) -> str:
    """Whether the sound encoder was trained on labels of the same kind, for the notes of a table."""
    training = checkpoints.read_header(family.files["wav2clip"]).training
    if "esc" in training.get("sets", ()):
        return "supervised labels, recordings not trained on"
    return "zero-shot as far as the weights file tells: it names no ESC-50 among its training data"
