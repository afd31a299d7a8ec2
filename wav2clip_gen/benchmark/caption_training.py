"""Training a decoder of captions: on frames of sounds, or on the vectors of texts alone."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from wav2clip_gen.benchmark.caption_decoder import PAD, CaptionDecoder, Vocabulary
from wav2clip_gen.benchmark.caption_scores import Words
from wav2clip_gen.benchmark.clips import Clip
from wav2clip_gen.benchmark.encoders import Encoded, SoundEncoder
from wav2clip_gen.config import read_yaml
from wav2clip_gen.errors import SettingsError
from wav2clip_gen.training.schedule import PlateauSchedule, epoch_order, seeded, step_generator

Mode = Literal["supervised", "text"]
Show = Callable[[str, int, int], None]  # what is done, how much of it, and of how much

PROTOCOL = Path(__file__).with_name("protocols") / "caption.yaml"
TRAINING, VALIDATION = "train", "val"  # splits
ROUNDS = 12  # of k-means
BUCKET = 32  # batches


@dataclass(frozen=True, kw_only=True)
class CaptionProtocol:
    """Settings of the task, as `protocols/caption.yaml` explains them."""

    hop: float
    minimum_count: int
    width: int
    heads: int
    feedforward: int
    dropout: float
    batch: int
    learning_rate: float
    weight_decay: float
    label_smoothing: float
    epochs: int
    patience: int
    validation: float
    noise: float
    memory: int
    temperature: float
    longest: int
    beam: int
    length_penalty: float
    no_repeat: int


def read_protocol(path: Path = PROTOCOL) -> CaptionProtocol:
    """Read the settings of the task.

    Raises:
        SettingsError: The file cannot be read, or has not exactly these settings.
    """
    content = read_yaml(path)
    names = {item.name for item in fields(CaptionProtocol)}
    if wrong := sorted(names ^ content.keys()):
        raise SettingsError(f"{path}: missing or unknown: {', '.join(wrong)}", hint=f"copy and change {PROTOCOL}")
    return CaptionProtocol(**content)


class Example(NamedTuple):
    """A caption to learn, and what it is of."""

    features: Tensor  # (T, D)
    tokens: Tensor  # (L + 2,)


@dataclass(frozen=True)
class Captioned:
    """A clip with the words of its captions, and its features where it has a sound."""

    clip: Clip
    texts: list[Words]
    encoded: Encoded | None


def divide(clips: Sequence[Captioned], *, share: float, seed: int) -> tuple[list[Captioned], list[Captioned]]:
    """The training and the validation part; clips of one recording stay together where a share is held out."""
    training, validation = ([one for one in clips if one.clip.split == name] for name in (TRAINING, VALIDATION))
    if not validation:
        sources = sorted({_source(one) for one in training})
        order = epoch_order(len(sources), epoch=0, seed=seed).tolist() if sources else []
        held_out = {sources[place] for place in order[: max(1, round(share * len(sources)))]}
        validation = [one for one in training if _source(one) in held_out]
        training = [one for one in training if _source(one) not in held_out]
    return training, validation


def _source(one: Captioned) -> str:
    return one.clip.recording or one.clip.key


def train(
    clips: Sequence[Captioned],
    encoder: SoundEncoder,
    *,
    mode: Mode,
    center: Tensor,
    seed: int,
    protocol: CaptionProtocol,
    show: Show,
) -> CaptionDecoder:
    """Train a decoder on clips with captions.

    Args:
        clips: Of the training part and perhaps of a validation part; for "supervised", with sounds.
        encoder: Of the sounds; from text alone, its text side embeds the captions.
        mode: "supervised", or "text" for text alone.
        center: The mean (E,) of sounds' vectors, which is subtracted from each at test time; of no use to "supervised".
        seed: Of all random numbers.
        protocol: Settings.
        show: Called with the progress.

    Raises:
        SettingsError: There is too little to train on, or the encoder has no text side.
    """
    parts = divide(clips, share=protocol.validation, seed=seed)
    if not all(parts):
        what = "sounds with captions" if mode == "supervised" else "captions"
        raise SettingsError(
            f"too few {what} to train on", hint="the split train needs some, or use a split of your own"
        )
    vocabulary = Vocabulary.of((words for one in parts[0] for words in one.texts), protocol.minimum_count)
    if not vocabulary.words:
        what = f"no word occurs in {protocol.minimum_count} captions of the training part"
        raise SettingsError(what, hint="lower minimum_count in the protocol")
    memory, deviation = torch.zeros(0, 1), torch.ones_like(center)
    if mode == "supervised":
        frames = torch.cat([one.encoded.frames for one in parts[0] if one.encoded])
        center, deviation = frames.mean(dim=0), frames.std(dim=0, correction=0) + 1e-6
        features = [[(f - center) / deviation for f in _repeated_frames(part)] for part in parts]
    else:
        features = _embed_texts(parts, encoder)
        if protocol.temperature:
            memory = cluster(torch.cat(features[0]), protocol.memory, seed=seed)
    with seeded(seed):
        decoder = CaptionDecoder(
            words=vocabulary.words,
            features=features[0][0].shape[-1],
            of_frames=mode == "supervised",
            longest=protocol.longest,
            width=protocol.width,
            heads=protocol.heads,
            feedforward=protocol.feedforward,
            memory=len(memory),
            temperature=protocol.temperature,
            dropout=protocol.dropout,
        )
        training, validation = (
            [Example(f, vocabulary.encode(w, protocol.longest)) for f, w in zip(of_part, _all_texts(part), strict=True)]
            for of_part, part in zip(features, parts, strict=True)
        )
        noise = protocol.noise if mode == "text" else 0.0
        fit(decoder, training, validation, noise=noise, seed=seed, protocol=protocol, show=show)
    decoder.mean, decoder.deviation = center, deviation
    if len(memory):
        decoder.memory = memory
    return decoder.eval().requires_grad_(False)


def _all_texts(part: Sequence[Captioned]) -> list[Words]:
    return [words for one in part for words in one.texts]


def _repeated_frames(part: Sequence[Captioned]) -> list[Tensor]:
    return [one.encoded.frames for one in part if one.encoded for _ in one.texts]


def _embed_texts(parts: Sequence[Sequence[Captioned]], encoder: SoundEncoder) -> list[list[Tensor]]:
    """The vectors (1, E) of all captions of each part, less the mean of the first part's, of unit length."""
    vectors = [encoder.encode_texts([" ".join(words) for words in _all_texts(part)]) for part in parts]
    mean = vectors[0].mean(dim=0)
    return [list(F.normalize(of_part - mean, dim=-1).unsqueeze(1)) for of_part in vectors]


def cluster(vectors: Tensor, count: int, *, seed: int) -> Tensor:
    """Directions (`count` at most, D) of clusters of unit vectors (N, D): k-means by cosine."""
    centers = vectors[epoch_order(len(vectors), epoch=0, seed=seed)[:count]]
    for _ in range(ROUNDS):
        nearest = (vectors @ centers.T).argmax(dim=1)
        sums = torch.zeros_like(centers).index_add_(0, nearest, vectors)
        centers = torch.where(sums.norm(dim=1, keepdim=True) > 1e-6, F.normalize(sums, dim=-1), centers)
    return centers


def fit(
    decoder: CaptionDecoder,
    training: Sequence[Example],
    validation: Sequence[Example],
    *,
    noise: float,
    seed: int,
    protocol: CaptionProtocol,
    show: Show,
) -> None:
    """Train until the validation loss no longer falls, and keep the best weights.

    Its dropout draws from torch's global generator, which the caller seeds.
    """
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=protocol.learning_rate, weight_decay=protocol.weight_decay)
    schedule = PlateauSchedule(optimizer, factor=0.5, patience=1, stop_after=protocol.patience)
    best = decoder.state_dict()
    for epoch in range(protocol.epochs):
        decoder.train()
        for step, batch in enumerate(_shuffled_batches(training, protocol.batch, epoch=epoch, seed=seed)):
            rng = step_generator(seed, epoch * len(training) + step)
            loss, count = _loss(decoder, batch, noise, rng, smoothing=protocol.label_smoothing)
            optimizer.zero_grad(set_to_none=True)
            (loss / count).backward()
            torch.nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
            optimizer.step()
        held_out = _evaluate(decoder, validation, noise, seed=seed, batch=protocol.batch)
        if schedule.update(held_out):
            best = copy.deepcopy(decoder.state_dict())
        show("epochs", epoch + 1, protocol.epochs)
        if schedule.exhausted:
            break
    decoder.load_state_dict(best)


@torch.no_grad()
def _evaluate(decoder: CaptionDecoder, examples: Sequence[Example], noise: float, *, seed: int, batch: int) -> float:
    """Mean cross-entropy of the next word, with the same noise each time."""
    decoder.eval()
    losses, counts = zip(
        *(
            _loss(decoder, some, noise, step_generator(seed, step))
            for step, some in enumerate(_batches(examples, batch))
        ),
        strict=True,
    )
    return float(sum(losses)) / sum(counts)


def _batches(examples: Sequence[Example], size: int) -> list[Sequence[Example]]:
    """Batches of captions of similar length, which need little padding."""
    examples = sorted(examples, key=lambda one: len(one.tokens))
    return [examples[start : start + size] for start in range(0, len(examples), size)]


def _shuffled_batches(examples: Sequence[Example], size: int, *, epoch: int, seed: int) -> Iterator[Sequence[Example]]:
    """All examples in a random order; only those of `BUCKET` batches that follow each other are sorted by length."""
    shuffled = [examples[place] for place in epoch_order(len(examples), epoch=epoch, seed=seed).tolist()]
    for start in range(0, len(shuffled), BUCKET * size):
        batches = _batches(shuffled[start : start + BUCKET * size], size)
        yield from (batches[place] for place in epoch_order(len(batches), epoch=epoch, seed=seed).tolist())


def _loss(
    decoder: CaptionDecoder, batch: Sequence[Example], noise: float, rng: torch.Generator, *, smoothing: float = 0.0
) -> tuple[Tensor, int]:
    """Sum of the cross-entropies of all next words, and their number."""
    tokens = pad_sequence([one.tokens for one in batch], batch_first=True, padding_value=PAD)
    features = pad_sequence([one.features for one in batch], batch_first=True)
    lengths = torch.tensor([len(one.features) for one in batch])
    padding = torch.arange(features.shape[1]) >= lengths.unsqueeze(1)
    if noise:
        features = F.normalize(features + noise * torch.randn(features.shape, generator=rng), dim=-1)
    states = decoder(tokens[:, :-1], features, padding if padding.any() else None)
    target = tokens[:, 1:]
    is_word = target != PAD
    scores = decoder.score(states[is_word])  # not of the padding, which is half of all
    return F.cross_entropy(scores, target[is_word], reduction="sum", label_smoothing=smoothing), len(scores)
