"""A transformer decoder of one layer that writes captions, its words, and its file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from wav2clip_gen.benchmark.caption_scores import Words
from wav2clip_gen.benchmark.encoders import Encoded
from wav2clip_gen.errors import WeightsError
from wav2clip_gen.files import written
from wav2clip_gen.models import checkpoints, store

ROLE = "captions"  # of its file
PAD, START, END, UNKNOWN = range(4)  # tokens before those of words
SPECIAL = ("<pad>", "<start>", "<end>", "<unk>")
TRAIN_AGAIN = "train one: `w2c-gen benchmark caption --save FILE`"


class Vocabulary:
    """Words and their numbers."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = tuple(words)
        self.numbers = {word: number for number, word in enumerate(self.words, len(SPECIAL))}

    @classmethod
    def of(cls, captions: Iterable[Words], minimum_count: int) -> Vocabulary:
        """The words that occur in at least so many captions, in alphabetical order."""
        counts = Counter(word for caption in captions for word in set(caption))
        return cls(sorted(word for word, count in counts.items() if count >= minimum_count))

    def __len__(self) -> int:
        return len(SPECIAL) + len(self.words)

    def encode(self, caption: Words, longest: int) -> Tensor:
        """Numbers of a start, the words (`longest` at most) and an end."""
        numbers = [self.numbers.get(word, UNKNOWN) for word in caption[:longest]]
        return torch.tensor([START, *numbers, END])

    def decode(self, numbers: Iterable[int]) -> Words:
        """The words of numbers; starts, ends and padding are left out."""
        names = (*SPECIAL, *self.words)
        return [names[number] for number in numbers if number >= UNKNOWN]


def spell(caption: Words) -> str:
    """A caption as people write it: `does n't` as `doesn't`, without a point."""
    text = ""
    for word in caption:
        joined = not text or word == "n't" or word.startswith("'")
        text += word if joined else f" {word}"
    return text


class CaptionDecoder(nn.Module):
    """Writes a caption word by word, attending to the features of a sound.

    Tokens (B, L) are numbers of `Vocabulary`; features (B, T, D) are frames of sounds, or one vector each (T = 1).
    """

    mean: Tensor  # (D,), subtracted from features
    deviation: Tensor  # (D,), by which they are divided
    memory: Tensor  # (M, D) centered unit vectors of captions, between which that of a sound is interpolated

    def __init__(
        self,
        *,
        words: Sequence[str],
        features: int,
        of_frames: bool,
        longest: int,
        width: int,
        heads: int,
        feedforward: int,
        memory: int = 0,
        temperature: float = 0.0,
        dropout: float = 0.0,
    ) -> None:
        """Build an untrained one.

        Args:
            words: Of its vocabulary.
            features: D.
            of_frames: Whether it attends to the frames of a sound, or to its one vector, of unit length once centered.
            longest: Words of a caption.
            width: Of the layer.
            heads: Of its attention.
            feedforward: Width between its two linear maps.
            memory: M; 0 where sounds are not interpolated between captions.
            temperature: Of the weights of the memory.
            dropout: Share of what is dropped in training.
        """
        super().__init__()
        self.vocabulary, self.of_frames, self.longest = Vocabulary(words), of_frames, longest
        self.config: dict[str, Any] = {
            "words": list(words), "features": features, "of_frames": of_frames, "longest": longest,
            "width": width, "heads": heads, "feedforward": feedforward, "memory": memory, "temperature": temperature,
        }  # fmt: skip
        self.embedding = nn.Embedding(len(self.vocabulary), width)
        self.positions = nn.Parameter(0.02 * torch.randn(longest + 1, width))
        self.project = nn.Sequential(nn.Linear(features, width), nn.LayerNorm(width), nn.Dropout(dropout))
        layer = nn.TransformerDecoderLayer(
            width, heads, feedforward, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.decoder = nn.TransformerDecoder(layer, num_layers=1, norm=nn.LayerNorm(width))
        self.drop = nn.Dropout(dropout)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("deviation", torch.ones(features))
        self.register_buffer("memory", torch.zeros(memory, features))
        self.temperature = temperature

    def prepare(self, encoded: Encoded) -> Tensor:
        """The features (T, D) of a sound: standardised frames, or its centered unit vector.

        The vector is replaced by the mean of the memory, weighted by the softmax of their cosines: that lies where
        vectors of texts do (DeCap, arXiv 2303.03032, equation 4).

        Raises:
            WeightsError: The decoder is made for features of another size.
        """
        found, needed = (encoded.frames if self.of_frames else encoded.vector).shape[-1], len(self.mean)
        if found != needed:
            what = f"the decoder of captions is made for features of {needed} dimensions, not {found}"
            raise WeightsError(what, hint=TRAIN_AGAIN)
        if self.of_frames:
            return (encoded.frames.to(self.mean) - self.mean) / self.deviation
        vector = F.normalize(encoded.vector.to(self.mean) - self.mean, dim=-1)
        if len(self.memory):
            weights = (self.memory @ vector / self.temperature).softmax(dim=0)
            vector = F.normalize(weights @ self.memory, dim=-1)
        return vector.unsqueeze(0)

    def forward(self, tokens: Tensor, features: Tensor, padding: Tensor | None = None) -> Tensor:
        """States (B, L, width) after each of the tokens, which `score` turns into scores of the next word.

        Args:
            tokens: (B, L), L at most `longest` + 1.
            features: (B, T, D) from `prepare`.
            padding: (B, T), true where there is no frame.
        """
        length = tokens.shape[1]
        x = self.drop(self.embedding(tokens) * self.embedding.embedding_dim**0.5 + self.positions[:length])
        future = torch.ones(length, length, dtype=torch.bool, device=tokens.device).triu(1)
        memory = self.project(features)
        return self.decoder(x, memory, tgt_mask=future, memory_key_padding_mask=padding, tgt_is_causal=True)

    def score(self, states: Tensor) -> Tensor:
        """Scores (..., V) of all words after states (..., width)."""
        return states @ self.embedding.weight.T

    @torch.no_grad()
    def write(self, features: Tensor, *, beam: int = 4, length_penalty: float = 1.0, no_repeat: int = 3) -> Words:
        """The likeliest caption for the features (T, D) of a sound, found by beam search.

        Args:
            features: From `prepare`.
            beam: Captions that are followed at a time; 1 always takes the likeliest next word.
            length_penalty: Captions compete by log-probability / words ** length_penalty.
            no_repeat: No n-gram of so many words occurs twice; 0 allows it.
        """
        open_, ended = [(0.0, [START])], list[tuple[float, list[int]]]()
        while open_:
            scores = self._continue(open_, features, no_repeat)
            best = scores.flatten().topk(min(2 * beam, scores.numel()))
            followed: list[tuple[float, list[int]]] = []
            for rank, (score, place) in enumerate(zip(best.values.tolist(), best.indices.tolist(), strict=True)):
                row, token = divmod(place, scores.shape[1])
                grown = [*open_[row][1], token]
                if score == -torch.inf:
                    break
                if token != END and len(followed) < beam:
                    followed.append((score, grown))
                elif token == END and rank < beam:
                    ended.append((score / (len(grown) - 1) ** length_penalty, grown))
            ended = sorted(ended, key=lambda one: -one[0])[:beam]
            open_ = followed
            if followed and len(ended) == beam:  # stop where the best open one is behind already
                score, grown = followed[0]
                open_ = followed if score / (len(grown) - 1) ** length_penalty > ended[-1][0] else []
        return self.vocabulary.decode(ended[0][1]) if ended else []

    def _continue(self, open_: list[tuple[float, list[int]]], features: Tensor, no_repeat: int) -> Tensor:
        """Log-probabilities (B, V) of begun captions, of one length, with each next token; -inf where it may not be."""
        tokens = torch.tensor([one for _, one in open_], device=features.device)
        scores = self.score(self(tokens, features.expand(len(open_), -1, -1))[:, -1]).log_softmax(dim=-1)
        scores[:, [PAD, START, UNKNOWN]] = -torch.inf
        if tokens.shape[1] == 1:
            scores[:, END] = -torch.inf
        if tokens.shape[1] > self.longest:  # no place for another word
            scores[:, END + 1 :] = -torch.inf
        for row, (score, one) in enumerate(open_):
            scores[row, _repeating(one, no_repeat)] = -torch.inf
            scores[row] += score
        return scores


def _repeating(tokens: list[int], size: int) -> list[int]:
    """The tokens that would complete an n-gram of this size for the second time."""
    if size < 1 or len(tokens) < size:
        return []
    start = tokens[len(tokens) - size + 1 :]
    grams = (tokens[place : place + size] for place in range(len(tokens) - size + 1))
    return [gram[-1] for gram in grams if gram[:-1] == start]


def save_decoder(decoder: CaptionDecoder, path: Path, *, training: dict[str, Any]) -> None:
    """Write a decoder with its vocabulary, in float16; `training` tells of which encoder, data and seed it is.

    Raises:
        OutputError: The file cannot be written.
    """
    header = store.Header(role=ROLE, config=decoder.config, training=training)
    tensors = {name: tensor.half().contiguous().cpu() for name, tensor in decoder.state_dict().items()}
    with written(path, option="--save") as part:
        part.touch()
        mode = part.stat().st_mode
        try:
            save_file(tensors, part, metadata=header.metadata())
        except SafetensorError as error:
            raise OSError(0, str(error)) from None
        part.chmod(mode)  # safetensors makes its files unreadable for others


def load_decoder(path: Path) -> tuple[CaptionDecoder, dict[str, Any]]:
    """A decoder in evaluation mode, and what its file says of its training.

    Raises:
        WeightsError: The file is missing, damaged, or holds another network.
    """
    try:
        header = store.read_header(path)
        if header.role != ROLE:
            raise WeightsError(f"{path}: holds a {header.role}, not a decoder of captions")
        try:
            decoder = CaptionDecoder(**header.config)
        except (TypeError, ValueError, AssertionError, RuntimeError):
            raise WeightsError(f"{path}: its configuration builds no decoder of captions") from None
        tensors = checkpoints.read_tensors(path)
        if wrong := checkpoints.differences(decoder.state_dict(), tensors):
            raise WeightsError(f"{path}: {checkpoints.first_three(wrong)}")
    except WeightsError as error:
        raise WeightsError(error.what, hint=TRAIN_AGAIN) from None
    checkpoints.fill(decoder, tensors)
    return decoder, header.training
