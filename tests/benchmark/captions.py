"""A made-up set with captions, and an encoder whose texts and sounds lie apart, as CLIP's do."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from wav2clip_gen.benchmark.caption_training import CaptionProtocol, read_protocol
from wav2clip_gen.benchmark.clips import Clip
from wav2clip_gen.benchmark.encoders import Encoded, SoundEncoder

SIZE = 24  # dimensions
GAP = torch.linspace(-1, 1, SIZE)  # between texts and sounds
CAPTIONS = (
    "a dog barks while people talk",
    "heavy rain falls on a roof",
    "the engine of a car doesn't start",
    "birds sing in the morning",
    "a train passes by and blows its horn",
    "someone turns the pages of a book",
)
TINY: CaptionProtocol = replace(
    read_protocol(), minimum_count=1, width=64, heads=2, feedforward=48, dropout=0.0, batch=3, learning_rate=5e-3,
    label_smoothing=0.0, epochs=40, patience=40, noise=0.02, memory=6, longest=9, beam=2,
)  # fmt: skip


class WordEncoder(SoundEncoder):
    """A text's vector is the mean of fixed random vectors of its words; a sound's is that of its name, and a gap."""

    name, identity, rate = "words", "words-1", 16_000

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        return torch.stack([F.normalize(sum((_vector(w) for w in text.split()), GAP), dim=0) for text in texts])

    def encode(self, sound: Tensor, hop: float) -> Encoded:
        return self.hear("a sound")

    def hear(self, what: str) -> Encoded:
        """A sound that is well described by these words."""
        words = what.lower().replace("doesn't", "does n't").split()
        frames = torch.stack([_vector(word) for word in words])
        return Encoded(frames - 3, F.normalize(F.normalize(frames.sum(dim=0), dim=0) - GAP, dim=0))


def _vector(word: str) -> Tensor:
    seed = int(hashlib.sha256(word.encode()).hexdigest()[:8], 16)
    return torch.randn(SIZE, generator=torch.Generator().manual_seed(seed))


def clip(key: str, *captions: str, split: str = "train") -> Clip:
    return Clip(key=key, path=Path(key), captions=captions, split=split)
