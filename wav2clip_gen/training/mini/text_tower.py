"""Train the text tower of the small CLIP: from a name or a short phrase to its vector in CLIP's text space.

The targets are the table of real embeddings for its names, and regression from a sentence model (see `concepts`) for
common words and the "adjective noun" phrases that prompts consist of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from wav2clip_gen.models import checkpoints
from wav2clip_gen.models.clip import Perceptor
from wav2clip_gen.models.vocabulary import read_words, words_in, write_words
from wav2clip_gen.training.mini.concepts import Concepts, PhraseEncoder, data_notes, load_concepts
from wav2clip_gen.training.mini.image_tower import ARCHITECTURE
from wav2clip_gen.training.schedule import seeded, step_generator
from wav2clip_gen.training.settings import TextTowerSettings
from wav2clip_gen.training.shards import read_arrays
from wav2clip_gen.training.trainer import TrainTask

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
SHARPNESS = 100.0  # of the contrastive loss over the table, as in CLIP
HELD_OUT = 20  # one synonym and one word in so many is kept for the scores


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

    def __init__(
        self,
        data: Path,
        settings: TextTowerSettings | None = None,
        *,
        seed: int = 0,
        device: str | torch.device = "cpu",
    ) -> None:
        self.settings: TextTowerSettings = settings or TextTowerSettings()
        self.seed, self.device = seed, torch.device(device)
        self.concepts, encoder = load_concepts(data)
        self.notes = data_notes(has_encoder=encoder is not None)
        self.names, self.synonyms = named_texts(data, self.concepts)
        self.derived, self.held_out = derived_texts(self.concepts, encoder, seed=seed).split(HELD_OUT)
        self.data_facts = {"texts": len(self.names.texts) + len(self.derived.texts)}
        self.anchors = self.concepts.vectors.to(self.device)
        self.center = self.anchors.mean(dim=0)
        with seeded(seed):
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


def derived_texts(concepts: Concepts, encoder: PhraseEncoder | None, *, seed: int) -> Texts:
    """Common words and phrases in random order, with the vectors that the encoder gives them."""
    if encoder is None:
        return Texts((), concepts.vectors[:0])
    texts = common_words(encoder.sentences.vocabulary, concepts) + noun_phrases(concepts, seed=seed)
    shuffled = [texts[at] for at in torch.randperm(len(texts), generator=step_generator(seed, -4)).tolist()]
    return Texts(tuple(shuffled), encoder([f"a {text}" for text in shuffled]))


def common_words(vocabulary: Sequence[str], concepts: Concepts) -> list[str]:
    """Whole English words of a vocabulary that the table lacks."""
    words = {word for word in vocabulary if word.isascii() and word.isalpha() and len(word) >= 3}
    return sorted(words - set(concepts.names))


def noun_phrases(concepts: Concepts, *, seed: int) -> list[str]:
    """Random "adjective noun" and "noun on a noun" phrases over the table's names."""
    generator = step_generator(seed, -3)
    nouns = torch.randint(len(concepts.names), (3, PHRASES), generator=generator).tolist()
    adjectives = torch.randint(len(ADJECTIVES), (PHRASES,), generator=generator).tolist()
    pairs = torch.randint(len(PAIRS), (PHRASES,), generator=generator).tolist()
    names = concepts.names
    phrases = {f"{ADJECTIVES[which]} {names[noun]}" for which, noun in zip(adjectives, nouns[0], strict=True)}
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
