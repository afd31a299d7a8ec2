"""What a tagger hears in sounds without a label, as a target beside the labels.

Student and teacher hear the same window (Beyer et al., arXiv 2106.05237). The teacher's tags that can be seen are
points of CLIP's space, so its scores say how near a sound should be to each of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wav2clip_gen.audio.track import ENCODER_RATE, open_track
from wav2clip_gen.errors import SoundError, TrainingError, VideoError
from wav2clip_gen.training.anchors import Concepts
from wav2clip_gen.training.sounds import Sound, Sounds
from wav2clip_gen.training.yamnet import load_tags, load_yamnet

SUFFIXES = (".aac", ".aif", ".aiff", ".flac", ".m4a", ".mp3", ".ogg", ".opus", ".wav")
LONGEST = 600.0  # seconds of a file that are used


class Teacher:
    """YAMNet, and where what it knows lies in CLIP's space."""

    def __init__(self, data: Path, concepts: Concepts, *, device: torch.device) -> None:
        """Read the teacher of the training data.

        Raises:
            TrainingError: It is missing or damaged.
        """
        tags = load_tags(data, concepts)
        self._tags, self._network = tags, load_yamnet(data).to(device)
        self._vectors = tags.vectors.to(device)

    def loss(self, embeddings: Tensor, windows: Tensor, scale: Tensor) -> Tensor:
        """Cross-entropy between the tags' shares in windows (B, N) at 16 kHz and those in embeddings (B, D).

        A window counts as much as the teacher is sure of its best tag, so what it does not know weighs nothing.
        """
        return soft_contrast(embeddings, self._tags.scores(self._network(windows)), self._vectors, scale)


def soft_contrast(embeddings: Tensor, scores: Tensor, vectors: Tensor, scale: Tensor) -> Tensor:
    """Mean over sounds of their surest score times the cross-entropy of embeddings (B, D) to scores (B, G)."""
    shares = scores / scores.sum(dim=1, keepdim=True).clamp(min=1e-6)
    entropy = F.cross_entropy(scale * embeddings @ vectors.T, shares, reduction="none")
    return (scores.amax(dim=1) * entropy).mean()


def load_unlabelled(folder: Path) -> Sounds:
    """The sound files of a folder and of those in it, at 16 kHz mono, without labels.

    Raises:
        TrainingError: There is no such folder, or no sound in it that can be read.
    """
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    pieces, skipped = [], []
    for path in paths:
        try:
            blocks = list(open_track(path, duration=LONGEST).mono_blocks(ENCODER_RATE))
        except (SoundError, VideoError):
            skipped.append(path.name)
            continue
        samples = (np.concatenate(blocks).clip(-1, 1) * 32767).astype(np.int16)
        pieces.append(Sound.of(samples, key=path.name, set="unlabelled", group=str(path)))
    if not pieces:
        what = f"none of its {len(paths)} sounds can be read" if paths else "there is no sound file in it"
        raise TrainingError(f"{folder}: {what}", hint="give another folder with --unlabelled")
    return Sounds(tuple(pieces), tuple(skipped))


def without_label(pieces: Sequence[Sound], labels: Sequence[str]) -> tuple[Sound, ...]:
    """The pieces whose label is none of `labels`."""
    known = set(labels)
    return tuple(piece for piece in pieces if piece.label not in known)
