"""Train the text tower of the small CLIP: from a name or a short phrase to its place in CLIP's text space.

The teacher is the table of real embeddings where it has the name, and ridge regression from a sentence model
(see `anchors`) for the common words and the "adjective noun" phrases that prompts are made of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from wav2clip_gen.models import checkpoints
from wav2clip_gen.models.clip import Perceptor
from wav2clip_gen.models.vocabulary import read_words, words_in, write_words
from wav2clip_gen.training.anchors import (
    Concepts,
    Deriver,
    extend,
    load_anchors,
    make_deriver,
    notes,
    wanted_by_pictures,
)
from wav2clip_gen.training.clip import ARCHITECTURE
from wav2clip_gen.training.loop import Recipe, seeded, step_generator
from wav2clip_gen.training.tables import read_arrays

TEMPLATES = (
    "a {}", "{}", "the {}", "a photo of a {}", "a picture of a {}", "a painting of a {}", "an image of {}",
    "a photo of the {}", "{} in the picture", "a close-up of a {}",
)  # fmt: skip
ADJECTIVES = (
    "stormy", "calm", "dark", "bright", "red", "green", "blue", "yellow", "white", "black", "golden",
    "old", "young", "big", "small", "wild", "burning", "frozen", "foggy", "rainy", "snowy", "sunny",
    "colourful", "broken", "wooden", "shiny", "abandoned", "misty", "dancing", "flying", "sleeping",
    "angry", "happy", "ancient", "neon", "abstract", "beautiful", "dusty", "glowing", "cloudy",
)  # fmt: skip
PAIRS = ("{} on a {}", "{} in the {}", "{} and a {}", "{} near a {}", "{} under the {}", "{} with a {}")
PHRASES = 8_000  # of "adjective noun", and as many of two nouns
SHARPNESS = 100.0  # of the contrast over the table, as in CLIP
HELD_OUT = 20  # one synonym and one word in so many is kept for the scores


@dataclass(frozen=True, kw_only=True)
class TextTraining:
    """Settings of a run."""

    batch: int = 128  # texts a step
    learning_rate: float = 2e-3
    named: float = 0.4  # share of a batch that has a real embedding


@dataclass(frozen=True, eq=False)
class Texts:
    """Texts to fill into a template, and where they lie."""

    texts: tuple[str, ...]
    vectors: Tensor  # (N, 512) unit vectors

    def split(self, every: int) -> tuple[Texts, Texts]:
        """All but one in `every`, and those."""
        kept = [row for row in range(len(self.texts)) if row % every]
        out = [row for row in range(len(self.texts)) if not row % every]
        first, second = (Texts(tuple(self.texts[row] for row in rows), self.vectors[rows]) for rows in (kept, out))
        return first, second


class TextRecipe(Recipe[Perceptor]):
    """The text tower learns where a name lies."""

    name = "clip"

    def __init__(
        self,
        data: Path,
        settings: TextTraining | None = None,
        *,
        seed: int = 0,
        device: str | torch.device = "cpu",
    ) -> None:
        self.settings: TextTraining = settings or TextTraining()
        self.seed, self.device = seed, torch.device(device)
        anchors = load_anchors(data)
        derive = make_deriver(anchors)
        self.notes = notes(derived=derive is not None)
        self.concepts = extend(anchors, wanted_by_pictures(data), derive)
        self.names, self.synonyms = named_texts(data, self.concepts)
        self.taught, self.unheard = taught_texts(self.concepts, derive, seed=seed).split(HELD_OUT)
        self.anchors = self.concepts.vectors.to(self.device)
        self.centre = self.anchors.mean(dim=0)
        with seeded(seed):
            self.network = Perceptor(ARCHITECTURE).to(self.device)
        self.network.model.visual.requires_grad_(False)
        self.network.model.logit_scale.requires_grad_(False)
        learned = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        self.optimiser = torch.optim.AdamW(learned, lr=self.settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.0)

    def losses(self, step: int, progress: float, generator: torch.Generator) -> dict[str, Tensor]:
        """Find the vectors of names and phrases in random templates."""
        named = int(self.settings.named * self.settings.batch) if self.taught.texts else self.settings.batch
        texts, vectors = [], []
        for source, count in ((self.names, named), (self.taught, self.settings.batch - named)):
            if not count:
                continue
            rows = torch.randint(len(source.texts), (count,), generator=generator)
            templates = torch.randint(len(TEMPLATES), (count,), generator=generator).tolist()
            texts += [_fill(TEMPLATES[at], source.texts[row]) for at, row in zip(templates, rows.tolist(), strict=True)]
            vectors.append(source.vectors[rows])
        wanted = torch.cat(vectors).to(self.device)
        with self.batch():
            found = self.network.encode_text(texts)
        found = found.float()
        # the anchors lie close together, so what tells them apart is measured from their centre
        return {
            "direction": 1 - F.cosine_similarity(found - self.centre, wanted - self.centre).mean(),
            "cosine": 1 - (found * wanted).sum(dim=-1).mean(),
            "contrast": F.cross_entropy(
                SHARPNESS * found @ self.anchors.T, (SHARPNESS * wanted @ self.anchors.T).softmax(dim=1)
            ),
        }

    @torch.no_grad()
    def scores(self, network: Perceptor) -> dict[str, float]:
        """How often a text's nearest concept is its own: for names, and for synonyms not trained on.

        For words not trained on: cosine to what the teacher says, measured from the centre.
        """
        names = list(self.concepts.names)
        found = torch.cat([network.encode_text(names[start : start + 256]) for start in range(0, len(names), 256)])
        own = (found @ self.anchors.T).argmax(dim=1).cpu() == torch.arange(len(names))
        scores = {"top1 names": own.float().mean().item()}
        if self.synonyms.texts:
            likeness = network.encode_text(list(self.synonyms.texts)) @ self.anchors.T
            truth = (self.synonyms.vectors @ self.concepts.vectors.T).argmax(dim=1, keepdim=True)
            scores["top1 unheard synonyms"] = (likeness.topk(1).indices.cpu() == truth).any(dim=1).float().mean().item()
            scores["top5 unheard synonyms"] = (likeness.topk(5).indices.cpu() == truth).any(dim=1).float().mean().item()
        if self.unheard.texts:
            centre, part = self.centre.cpu(), self.unheard.texts[:512]
            heard = network.encode_text([f"a {text}" for text in part]).cpu() - centre
            meant = self.unheard.vectors[: len(part)] - centre
            scores["cosine unheard words"] = F.cosine_similarity(heard, meant).mean().item()
        return scores

    def conditions(self) -> dict[str, Any]:
        """The texts decide the run as much as the settings."""
        return {"texts": len(self.names.texts) + len(self.taught.texts)}

    @property
    def words(self) -> list[str]:
        """All words that it is trained on, by themselves or in a phrase."""
        return words_in((*self.names.texts, *self.taught.texts))

    def provenance(self) -> dict[str, Any]:
        """Settings and number of texts."""
        return {"settings": asdict(self.settings), **self.conditions()}


def named_texts(data: Path, concepts: Concepts) -> tuple[Texts, Texts]:
    """Names, synonyms and prompts with their real embedding, and synonyms held out."""
    (joined,) = read_arrays(data / "text" / "anchors.npz", "synonyms")
    synonyms = [str(these).split("|") for these in joined]
    texts, rows = list(concepts.names), list(range(len(concepts.names)))
    spare: list[tuple[str, int]] = []
    for row, these in enumerate(synonyms):
        for text in these:
            if text and text not in concepts.index:
                spare.append((text.replace("_", " "), row))
    held_out = spare[::HELD_OUT]
    learned = [pair for at, pair in enumerate(spare) if at % HELD_OUT]
    texts += [text for text, _ in learned]
    rows += [row for _, row in learned]
    named = Texts(tuple(texts), concepts.vectors[rows])
    return named, Texts(tuple(text for text, _ in held_out), concepts.vectors[[row for _, row in held_out]])


def taught_texts(concepts: Concepts, derive: Deriver | None, *, seed: int) -> Texts:
    """Common words and phrases in random order, with what the deriver says of them."""
    if derive is None:
        return Texts((), concepts.vectors[:0])
    texts = common_words(derive.sentences.vocabulary, concepts) + noun_phrases(concepts, seed=seed)
    shuffled = [texts[at] for at in torch.randperm(len(texts), generator=step_generator(seed, -4)).tolist()]
    return Texts(tuple(shuffled), derive([f"a {text}" for text in shuffled]))


def common_words(vocabulary: Sequence[str], concepts: Concepts) -> list[str]:
    """Whole English words of a vocabulary that the table lacks."""
    words = {word for word in vocabulary if word.isascii() and word.isalpha() and len(word) >= 3}
    return sorted(words - set(concepts.names))


def noun_phrases(concepts: Concepts, *, seed: int, count: int = PHRASES) -> list[str]:
    """Random "adjective noun" and "noun on a noun" phrases over the table's names."""
    generator = step_generator(seed, -3)
    nouns = torch.randint(len(concepts.names), (3, count), generator=generator).tolist()
    adjectives = torch.randint(len(ADJECTIVES), (count,), generator=generator).tolist()
    pairs = torch.randint(len(PAIRS), (count,), generator=generator).tolist()
    names = concepts.names
    phrases = {f"{ADJECTIVES[which]} {names[noun]}" for which, noun in zip(adjectives, nouns[0], strict=True)}
    both = zip(pairs, nouns[1], nouns[2], strict=True)
    return sorted(phrases | {PAIRS[which].format(names[first], names[second]) for which, first, second in both})


def _fill(template: str, text: str) -> str:
    filled = template.format(text)
    starts_with_vowel = text[:1].lower() in "aeiou"
    return filled.replace(f"a {text}", f"an {text}") if starts_with_vowel and not template.startswith("{") else filled


def join_towers(image: Path, text: Path, out: Path) -> None:
    """Put the image tower of one weights file and the text tower of another into a third, its vocabulary beside it.

    The towers are trained apart: both only know the anchors.
    """
    network = checkpoints.load(image, role="clip")
    read = checkpoints.load(text, role="clip").state_dict()
    theirs = {name: value for name, value in read.items() if ".visual." not in name and "logit_scale" not in name}
    network.load_state_dict(theirs, strict=False)
    training = {
        "image": checkpoints.read_header(image).training,
        "text": checkpoints.read_header(text).training,
    }
    checkpoints.save(network, out, training=training)
    words = read_words(text)
    if words is not None:
        write_words(words, out)
