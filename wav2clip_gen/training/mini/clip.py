"""Train the small CLIP's two towers, independently: both only depend on the vectors of the concepts.

The image tower is trained towards fixed text vectors: locked-image tuning with the roles reversed (Zhai et al., arXiv
2111.07991). It guides an optimization, so it is trained adversarially: the gradients of a robust network draw shapes
instead of noise (Santurkar et al., arXiv 1906.09453). One step from a random start is enough (Wong et al., arXiv
2001.03994).

The text tower is trained from a name or a short phrase to its vector in CLIP's text space: the table of real embeddings
for its names, and regression from a sentence model (see `concepts`) for common words and "adjective noun" phrases.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wav2clip_gen.models import checkpoints
from wav2clip_gen.models.clip import Perceptor
from wav2clip_gen.models.vocabulary import read_words, words_in, write_words
from wav2clip_gen.training.data import read_arrays
from wav2clip_gen.training.distill import MAX_LOGIT_SCALE
from wav2clip_gen.training.mini.audio import sound_names
from wav2clip_gen.training.mini.concepts import (
    KINDS,
    WORDS,
    Concepts,
    LabeledImages,
    PhraseEncoder,
    ReadPhrases,
    data_notes,
    load_concepts,
)
from wav2clip_gen.training.schedule import seeded, step_generator
from wav2clip_gen.training.settings import ImageTowerSettings, TextTowerSettings
from wav2clip_gen.training.trainer import TrainTask

ARCHITECTURE = "w2c-mini"
SMALLEST_VIEW = 0.35  # share of an image's area
MOST_VALIDATED = 1200  # images of each kind that an evaluation uses
CHUNK = 64  # images at a time in an evaluation
TEMPLATES, ADJECTIVES, PAIRS = (WORDS[name] for name in ("templates", "adjectives", "pairs"))
PHRASES = 8_000  # of "adjective noun", and as many of two nouns
SHARPNESS = 100.0  # of the contrastive loss over the table, as in CLIP
HELD_OUT = 20  # one synonym and one word in so many is kept for the scores


class ImageTowerTask(TrainTask[Perceptor]):
    """Train the image tower to embed an image at the vectors of the concepts it shows."""

    name = "clip"
    settings: ImageTowerSettings

    def __init__(self, data: Path, settings: ImageTowerSettings | None = None, **common: Any) -> None:
        super().__init__(settings or ImageTowerSettings(), **common)
        concepts, encoder = load_concepts(data)
        self.train, self.validation = (
            LabeledImages(data, split, concepts, loader=self.loader) for split in ("train", "val")
        )
        self.skipped = self.train.skipped + self.validation.skipped
        self.notes = data_notes(self.skipped, loader=self.loader, has_encoder=encoder is not None)
        self.columns = {row: column for column, row in enumerate(self.train.used)}
        self.anchors = concepts.vectors[self.train.used].to(self.device)  # (K, D)
        self.anchor_names = [concepts.names[row] for row in self.train.used]
        self.data_facts = {"sets": self.train.sets, "pictures": len(self.train), "concepts": len(self.columns)}
        self._weights = self.train.weights()
        with seeded(self.seed):
            self.network = Perceptor(ARCHITECTURE).to(self.device).train()
            torch.nn.init.constant_(self.network.model.logit_scale, math.log(30.0))
        visual = self.network.model.visual
        decayed = [parameter for parameter in visual.parameters() if parameter.ndim > 1]
        others = [parameter for parameter in visual.parameters() if parameter.ndim <= 1]
        groups = [
            {"params": decayed, "weight_decay": 0.02},
            {"params": [*others, self.network.model.logit_scale], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=self.settings.learning_rate, betas=(0.9, 0.98))

    def losses(self, step: int, progress: float, generator: torch.Generator) -> dict[str, Tensor]:
        """Classify adversarially perturbed images."""
        chosen = torch.multinomial(self._weights, self.settings.batch, generator=generator).tolist()
        images = self._views(chosen, generator).to(self.device)
        targets = self.train.targets(chosen, self.columns).to(self.device)
        targets = (1 - self.settings.smoothing) * targets + self.settings.smoothing / targets.shape[1]
        if self.settings.radius:
            images = self.attack(self.network, images, targets, generator)
        return {"concepts": concept_loss(self.network, targets, self.anchors)(images)}

    @torch.no_grad()
    def after_step(self) -> None:
        """Remove the direction that all anchors share from the tower's last layer.

        No image can learn anything about it, so what is there is left from initialization, and yet it is the
        largest component of any text's vector: it would dominate every text's gradient on an image.
        """
        remove_direction(self.network, self.anchors.mean(dim=0))

    def attack(self, network: Perceptor, images: Tensor, targets: Tensor, generator: torch.Generator) -> Tensor:
        """Perturb images (B, 3, S, S) in [0, 1] against their targets (B, K); see `adversarial_step`."""
        loss, radius = concept_loss(network, targets, self.anchors), self.settings.radius / 2  # for images in [0, 1]
        return adversarial_step(loss, images, radius=radius, generator=generator)

    def _views(self, chosen: list[int], generator: torch.Generator) -> Tensor:
        """Random views (B, 3, size, size) in [0, 1] of chosen images."""
        size = self.network.size
        views = torch.empty(len(chosen), 3, size, size)
        for number in range(len(self.train.datasets)):
            lines = [line for line, index in enumerate(chosen) if index in self.train.of_kind(number)]
            if lines:
                pixels = self.train.subset(number, [chosen[line] for line in lines])[:]
                views[lines] = random_cutouts(pixels, size, generator=generator)
        return views

    def scores(self, network: Perceptor) -> dict[str, float]:
        """Top-1 accuracy over the concepts trained on, of clean and of adversarial validation images."""
        correct: dict[str, list[Tensor]] = {name: [] for name in (*KINDS, *(f"robust {kind}" for kind in KINDS))}
        generator = step_generator(self.seed, -2)
        for number, kind in enumerate(KINDS):
            chosen = self.validation.with_any(number, self.columns)[:MOST_VALIDATED]
            pictures = self.validation.subset(number, chosen).batches(CHUNK, device=self.device, size=network.size)
            shares = self.validation.targets(chosen, self.columns).to(self.device)
            for images, targets in zip(pictures, shares.split(CHUNK), strict=False):
                correct[kind].append(self._is_correct(network, images, targets))
                perturbed = self.attack(network, images, targets, generator)
                correct[f"robust {kind}"].append(self._is_correct(network, perturbed, targets))
        scores = {f"top1 {name}": torch.cat(these).float().mean().item() for name, these in correct.items() if these}
        return scores | {"concepts": float(len(self.columns)), "scale": network.model.logit_scale.exp().item()}

    @torch.no_grad()
    def _is_correct(self, network: Perceptor, images: Tensor, targets: Tensor) -> Tensor:
        best = (network.encode_images(images) @ self.anchors.T).argmax(dim=1, keepdim=True)
        return targets.gather(1, best)[:, 0] > 0


def concept_loss(network: Perceptor, targets: Tensor, anchors: Tensor) -> Callable[[Tensor], Tensor]:
    """Cross-entropy of images (B, 3, S, S) to the shares `targets` (B, K) of concepts with vectors (K, D)."""

    def loss(images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, dtype=torch.bfloat16):
            embeddings = network.encode_images(images)
        scale = network.model.logit_scale.exp().clamp(max=MAX_LOGIT_SCALE)
        return F.cross_entropy(scale * embeddings.float() @ anchors.T, targets)

    return loss


class PerceptualFeatures(nn.Module):
    """Features of the first stages of the robust image tower, as in LPIPS (Zhang et al., arXiv 1801.03924).

    Without LPIPS' learned weights: channels are normalized and count alike.
    """

    def __init__(self, clip: Path) -> None:
        super().__init__()
        self.perceptor = cast(Perceptor, checkpoints.load(clip, role="clip"))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map images (B, 3, H, W) in [0, 1] to four stages' features (B, C, h, w), unit vectors along C."""
        inputs = (images - self.perceptor.mean) / self.perceptor.deviation
        visual: Any = self.perceptor.model.visual
        stages = visual.trunk.forward_intermediates(inputs, indices=[0, 1, 2, 3], intermediates_only=True)
        return [F.normalize(stage.float(), dim=1) for stage in stages]

    def distance(self, outputs: Tensor, images: Tensor) -> Tensor:
        """Mean squared distance of the features, summed over the stages; the gradient flows to `outputs`."""
        with torch.no_grad():
            targets = self(images)
        pairs = zip(self(outputs), targets, strict=True)
        return torch.stack([(one - other).square().sum(dim=1).mean() for one, other in pairs]).sum()


def remove_direction(network: Perceptor, direction: Tensor) -> None:
    """Make a network's image embeddings orthogonal to a direction (D,)."""
    unit = F.normalize(direction, dim=0)
    last = network.model.visual.head.proj.weight  # (D, features)
    last -= unit[:, None] * (unit @ last)


def adversarial_step(
    loss: Callable[[Tensor], Tensor], images: Tensor, *, radius: float, generator: torch.Generator
) -> Tensor:
    """Perturb images (B, 3, S, S) in [0, 1] by one gradient step up a loss, from a random start, within an L2 radius.

    The step is 1.25 times the radius, then projected back onto it, as Wong et al. found best.
    """
    start = torch.randn(images.shape, generator=generator).to(images)
    start = _rescale(start, radius * torch.rand(len(start), generator=generator).to(images))
    perturbed = (images + start).clamp(0, 1).requires_grad_()
    (gradient,) = torch.autograd.grad(loss(perturbed), perturbed)
    change = perturbed.detach() + _rescale(gradient, torch.full_like(gradient[:, 0, 0, 0], 1.25 * radius)) - images
    lengths = torch.linalg.vector_norm(change.flatten(1), dim=1).clamp(max=radius)
    return (images + _rescale(change, lengths)).clamp(0, 1)


def _rescale(changes: Tensor, lengths: Tensor) -> Tensor:
    """Scale each of (B, C, H, W) to its length (B,)."""
    norms = torch.linalg.vector_norm(changes.flatten(1), dim=1).clamp(min=1e-12)
    return changes * (lengths / norms).view(-1, 1, 1, 1)


def random_cutouts(pixels: Tensor, size: int, *, generator: torch.Generator) -> Tensor:
    """A random part (B, 3, size, size) in [0, 1] of each image (B, 3, S, S) uint8, with flips and color jitter."""
    count = len(pixels)

    def draw(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    area, stretch = draw(SMALLEST_VIEW, 1.0), draw(-0.15, 0.15).exp()
    width, height = (area.sqrt() * stretch).clamp(max=1), (area.sqrt() / stretch).clamp(max=1)
    mirror = torch.where(draw(0, 1) < 0.5, -1.0, 1.0)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 0, 2] = width * mirror, draw(-1, 1) * (1 - width)
    theta[:, 1, 1], theta[:, 1, 2] = height, draw(-1, 1) * (1 - height)
    grid = F.affine_grid(theta, [count, 3, size, size], align_corners=False)
    views = F.grid_sample(pixels.float() / 255, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    gray = views.mean(dim=1, keepdim=True)
    views = gray + (views - gray) * draw(0.6, 1.4).view(-1, 1, 1, 1)
    mean = views.mean(dim=(1, 2, 3), keepdim=True)
    views = mean + (views - mean) * draw(0.7, 1.3).view(-1, 1, 1, 1)
    return (views * draw(0.7, 1.3).view(-1, 1, 1, 1)).clamp(0, 1)


@dataclass(frozen=True, eq=False)
class Texts:
    """Texts to insert into a template, and their vectors."""

    texts: tuple[str, ...]
    vectors: Tensor  # (N, 512) unit vectors

    def split(self, every: int) -> tuple[Texts, Texts]:
        """All but one in `every`, and those."""
        kept = [row for row in range(len(self.texts)) if row % every]
        out = [row for row in range(len(self.texts)) if not row % every]
        first, second = (Texts(tuple(self.texts[row] for row in rows), self.vectors[rows]) for rows in (kept, out))
        return first, second


class TextTowerTask(TrainTask[Perceptor]):
    """Train the text tower to embed names and phrases at their vectors."""

    name = "clip"
    settings: TextTowerSettings

    def __init__(self, data: Path, settings: TextTowerSettings | None = None, **common: Any) -> None:
        super().__init__(settings or TextTowerSettings(), **common)
        self.concepts, encoder = load_concepts(data)
        self.notes = data_notes(has_encoder=encoder is not None)
        self.names, self.synonyms = named_texts(data, self.concepts)
        if encoder is not None:
            sounds = [name for name in sound_names(data) if name not in self.concepts.index]
            vectors = torch.cat([self.names.vectors, encoder([f"a {name}" for name in sounds])])
            self.names = Texts((*self.names.texts, *sounds), vectors)
        self.derived, self.held_out = derived_texts(self.concepts, encoder, seed=self.seed).split(HELD_OUT)
        self.data_facts = {"texts": len(self.names.texts) + len(self.derived.texts)}
        self.anchors = self.concepts.vectors.to(self.device)
        self.center = self.anchors.mean(dim=0)
        with seeded(self.seed):
            self.network = Perceptor(ARCHITECTURE).to(self.device)
        self.network.model.visual.requires_grad_(False)
        self.network.model.logit_scale.requires_grad_(False)
        trained = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=self.settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.0)

    @property
    def words(self) -> list[str]:
        """All words that occur in the training texts."""
        return words_in((*self.names.texts, *self.derived.texts))

    def losses(self, step: int, progress: float, generator: torch.Generator) -> dict[str, Tensor]:
        """Embed names and phrases in random templates."""
        named = int(self.settings.named * self.settings.batch) if self.derived.texts else self.settings.batch
        texts, vectors = [], []
        for source, count in ((self.names, named), (self.derived, self.settings.batch - named)):
            if not count:
                continue
            rows = torch.randint(len(source.texts), (count,), generator=generator)
            templates = torch.randint(len(TEMPLATES), (count,), generator=generator).tolist()
            texts += [_fill(TEMPLATES[at], source.texts[row]) for at, row in zip(templates, rows.tolist(), strict=True)]
            vectors.append(source.vectors[rows])
        targets = torch.cat(vectors).to(self.device)
        with self.autocast():
            embeddings = self.network.encode_text(texts)
        embeddings = embeddings.float()
        # the anchors lie close together, so what distinguishes them is measured from their center
        return {
            "direction": 1 - F.cosine_similarity(embeddings - self.center, targets - self.center).mean(),
            "cosine": 1 - (embeddings * targets).sum(dim=-1).mean(),
            "contrast": F.cross_entropy(
                SHARPNESS * embeddings @ self.anchors.T, (SHARPNESS * targets @ self.anchors.T).softmax(dim=1)
            ),
        }

    @torch.no_grad()
    def scores(self, network: Perceptor) -> dict[str, float]:
        """Retrieval of the own concept, for names and held-out synonyms; centered cosine for held-out words."""
        names = list(self.concepts.names)
        found = torch.cat([network.encode_text(names[start : start + 256]) for start in range(0, len(names), 256)])
        own = (found @ self.anchors.T).argmax(dim=1).cpu() == torch.arange(len(names))
        scores = {"top1 names": own.float().mean().item()}
        if self.synonyms.texts:
            similarity = (network.encode_text(list(self.synonyms.texts)) @ self.anchors.T).cpu()
            truth = (self.synonyms.vectors @ self.concepts.vectors.T).argmax(dim=1, keepdim=True)
            for count in (1, 5):
                correct = (similarity.topk(count).indices == truth).any(dim=1)
                scores[f"top{count} held-out synonyms"] = correct.float().mean().item()
        if self.held_out.texts:
            center, texts = self.center.cpu(), self.held_out.texts[:512]
            embeddings = network.encode_text([f"a {text}" for text in texts]).cpu() - center
            targets = self.held_out.vectors[: len(texts)] - center
            scores["cosine held-out words"] = F.cosine_similarity(embeddings, targets).mean().item()
        return scores


def named_texts(data: Path, concepts: Concepts) -> tuple[Texts, Texts]:
    """Names and synonyms with their real embedding, and held-out synonyms."""
    (joined,) = read_arrays(data / "text" / "anchors.npz", "synonyms")
    synonyms = [
        (text.replace("_", " "), row)
        for row, texts in enumerate(joined)
        for text in str(texts).split("|")
        if text and text not in concepts.index
    ]
    trained = [pair for at, pair in enumerate(synonyms) if at % HELD_OUT]
    texts = (*concepts.names, *(text for text, _ in trained))
    named = Texts(texts, concepts.vectors[[*range(len(concepts.names)), *(row for _, row in trained)]])
    held_out = synonyms[::HELD_OUT]
    return named, Texts(tuple(text for text, _ in held_out), concepts.vectors[[row for _, row in held_out]])


def derived_texts(concepts: Concepts, encoder: ReadPhrases | None, *, seed: int) -> Texts:
    """Common words and phrases in random order, with the vectors that the encoder gives them."""
    if not isinstance(encoder, PhraseEncoder):
        return Texts((), concepts.vectors[:0])
    vocabulary = encoder.sentences.vocabulary
    words = {word for word in vocabulary if word.isascii() and word.isalpha() and len(word) >= 3}  # not word pieces
    texts = sorted(words - set(concepts.names)) + noun_phrases(concepts, seed=seed)
    shuffled = [texts[at] for at in torch.randperm(len(texts), generator=step_generator(seed, -4)).tolist()]
    return Texts(tuple(shuffled), encoder([f"a {text}" for text in shuffled]))


def noun_phrases(concepts: Concepts, *, seed: int) -> list[str]:
    """Random "adjective noun" and "noun on a noun" phrases over the table's names."""
    generator = step_generator(seed, -3)
    nouns = torch.randint(len(concepts.names), (3, PHRASES), generator=generator).tolist()
    adjectives = torch.randint(len(ADJECTIVES), (PHRASES,), generator=generator).tolist()
    pairs = torch.randint(len(PAIRS), (PHRASES,), generator=generator).tolist()
    names = concepts.names
    phrases = {f"{WORDS['adjectives'][which]} {names[noun]}" for which, noun in zip(adjectives, nouns[0], strict=True)}
    both = zip(pairs, nouns[1], nouns[2], strict=True)
    return sorted(phrases | {PAIRS[which].format(names[first], names[second]) for which, first, second in both})


def _fill(template: str, text: str) -> str:
    filled = template.format(text)
    starts_with_vowel = text[:1].lower() in "aeiou"
    return filled.replace(f"a {text}", f"an {text}") if starts_with_vowel and not template.startswith("{") else filled


def join_towers(image: Path, text: Path, out: Path) -> None:
    """Write the image tower of one weights file and the text tower of another into a third, with its vocabulary.

    The towers are trained independently: both only depend on the anchors.
    """
    network = checkpoints.load(image, role="clip")
    state = checkpoints.load(text, role="clip").state_dict()
    tower = {name: value for name, value in state.items() if ".visual." not in name and "logit_scale" not in name}
    network.load_state_dict(tower, strict=False)
    training = {"image": checkpoints.read_header(image).training, "text": checkpoints.read_header(text).training}
    checkpoints.save(network, out, training=training)
    words = read_words(text)
    if words is not None:
        write_words(words, out)
