"""Distill CLIP into the sound encoder from videos, as the paper does (Wu et al., arXiv 2110.11499).

f projects sounds into CLIP's space (`audio_transform` of the encoder), g projects images into the space of the sound's
features (only needed for training).

The negatives of a sound are all other clips of the batch, over all micro-batches and processes: all embeddings are
gathered first, the loss is taken over all of them, and its gradient is then propagated through the network one
micro-batch at a time (GradCache, Gao et al., arXiv 2101.06983). Only batch norm sees no more than a micro-batch, on one
GPU as on several.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wav2clip_gen.audio.track import ENCODER_RATE
from wav2clip_gen.errors import TrainingError
from wav2clip_gen.models.wav2clip import Projection, SpectrogramResNet, Wav2CLIP, Wav2CLIPConfig
from wav2clip_gen.training.schedule import PlateauSchedule, epoch_order, seeded
from wav2clip_gen.training.settings import CLIP_SECONDS, DistillSettings
from wav2clip_gen.training.trainer import TrainTask
from wav2clip_gen.training.videos import CachedClip, VideoDataset

MAX_LOGIT_SCALE = 100.0  # as in CLIP
CONTEXT = round(CLIP_SECONDS * ENCODER_RATE)  # samples that the standardization is computed over: the whole clip
MOST_VALIDATED = 1024  # held-out clips that an evaluation uses
CHUNK = 32  # clips at a time in an evaluation


class Embeddings(NamedTuple):
    """What the losses compare, all of unit length and float32."""

    audio: Tensor  # (B, F) features
    projected_audio: Tensor  # (B, D), f of the features
    image: Tensor  # (B, D), CLIP's
    projected_image: Tensor  # (B, F), g of the image


class DistillationModel(nn.Module):
    """The sound encoder and what only its training needs."""

    def __init__(self, config: Wav2CLIPConfig) -> None:
        super().__init__()
        self.encoder = Wav2CLIP(config)
        self.image_transform = Projection(config.embedding, config.embedding, 8 * config.width)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    @property
    def scale(self) -> Tensor:
        """Factor of the cosines: the inverse of the learned temperature."""
        return self.log_scale.exp().clamp(max=MAX_LOGIT_SCALE)

    def forward(self, spectrogram: Tensor) -> tuple[Tensor, Tensor]:
        """Map standardized spectrograms (B, 1, 257, T) to unit features (B, F) and embeddings (B, D)."""
        features = self.encoder.audio_encoder(spectrogram)
        return F.normalize(features, dim=-1), F.normalize(self.encoder.audio_transform(features), dim=-1)

    def embed_pairs(self, spectrogram: Tensor, images: Tensor) -> Embeddings:
        """Embed sounds (B, 1, 257, T) and the CLIP vectors (B, D) of the images that go with them."""
        features, embeddings = self(spectrogram)
        projected = F.normalize(self.image_transform(images), dim=-1)
        return Embeddings(features.float(), embeddings.float(), images.float(), projected.float())


def clip_loss(a: Tensor, b: Tensor, scale: Tensor) -> Tensor:
    """Symmetric InfoNCE between unit vectors (B, D): row i of one belongs to row i of the other."""
    logits = scale * a @ b.T
    own = torch.arange(len(a), device=a.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def distillation_losses(name: str, embeddings: Embeddings, scale: Tensor) -> dict[str, Tensor]:
    """The terms of `clip_loss` (projected sound against image) or of `clip_loss_x`, the paper's cross projection.

    Each projection is compared with the other side as it is, so neither side alone can collapse.
    """
    terms = {"projected sound-image": clip_loss(embeddings.projected_audio, embeddings.image, scale)}
    if name == "clip_loss_x":
        terms["sound-projected image"] = clip_loss(embeddings.audio, embeddings.projected_image, scale)
    return terms


@torch.no_grad()
def standardized_spectrogram(
    encoder: SpectrogramResNet, contexts: Sequence[Tensor], windows: Sequence[Tensor], *, device: torch.device
) -> Tensor:
    """Log spectrograms (B, 1, 257, T) of B windows (N,), each standardized by its longer context (M,)."""
    whole, part = (encoder.log_spectrogram(torch.stack(tuple(these)).to(device)) for these in (contexts, windows))
    mean = whole.mean(dim=(1, 2, 3), keepdim=True)
    deviation = whole.std(dim=(1, 2, 3), keepdim=True)
    return (part - mean) / (deviation + 1e-9)


@contextmanager
def frozen_running_statistics(network: nn.Module) -> Iterator[None]:
    """Let batch norms normalize by the batch without updating their running statistics."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


class MicroBatch(NamedTuple):
    """A part of this process's share of a batch."""

    seed: int  # of its dropout, so that a second pass equals the first
    spectrogram: Tensor  # (B, 1, 257, T), standardized
    images: Tensor  # (B, D) unit vectors


class DistillTask(TrainTask[DistillationModel]):
    """Train the sound encoder to embed a sound where the frozen CLIP embeds the frames of its video."""

    name = "wav2clip"
    ema_decay = 0.0  # the paper keeps the best weights, not an average

    settings: DistillSettings

    def __init__(self, videos: VideoDataset, settings: DistillSettings | None = None, **common: Any) -> None:
        """Take the videos, which must be prepared.

        Raises:
            TrainingError: Too few can be read, or the batch does not divide among the processes.
        """
        super().__init__(settings or DistillSettings(), **common)
        self.world = videos.world
        self.train, self.validation, self.skipped = videos.split()
        self._check_batch()
        if self.skipped:
            named = ", ".join(self.skipped[:3]) + (", ..." if len(self.skipped) > 3 else "")
            self.notes = (f"{len(self.skipped)} clips cannot be read and are skipped: {named}",)
        self.data_facts = {
            "clips trained on": len(self.train), "clips held out": len(self.validation),
            "clips skipped": len(self.skipped), "clip": videos.clip_digest[:12], "processes": self.world.size,
        }  # fmt: skip
        config = Wav2CLIPConfig(width=self.settings.width, embedding=len(self.train[0].target))
        with seeded(self.seed):
            self.network = DistillationModel(config).to(self.device).train()
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=self.settings.learning_rate)
        self.plateau = PlateauSchedule(
            self.optimizer,
            factor=self.settings.lr_factor,
            patience=self.settings.patience,
            stop_after=self.settings.stop_after,
        )
        self._micro_batches: list[MicroBatch] = []  # of this step
        self._cache: Embeddings | None = None  # of this process, if the gradient must still be propagated from them

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in the training clips."""
        return len(self.train) // self.settings.batch

    def _check_batch(self) -> None:
        batch, pieces = self.settings.batch, self.settings.micro_batches * self.world.size
        if batch % pieces or batch // pieces < 2:
            raise TrainingError(
                f"a batch of {batch} cannot be divided into {self.settings.micro_batches} micro-batches"
                f" on each of {self.world.size} processes",
                hint=f"give --batch a multiple of {pieces}, at least {2 * pieces}",
            )
        if batch > len(self.train):
            raise TrainingError(
                f"{len(self.train)} clips fill no batch of {batch}",
                hint="give a smaller --batch: a clip must not be its own negative",
            )

    def autocast(self) -> torch.autocast:
        """Half precision if the settings ask for it."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.settings.precision == "bf16")

    def losses(self, step: int, progress: float, generator: torch.Generator) -> dict[str, Tensor]:
        """Contrast each sound with the image of its clip, both ways, over the batch of all processes."""
        self._micro_batches = self._load_batch(step, generator)
        if len(self._micro_batches) == 1:
            self._cache, own = None, self._embed(self._micro_batches[0])
        else:
            with torch.no_grad(), frozen_running_statistics(self.network):
                embedded = [self._embed(micro_batch) for micro_batch in self._micro_batches]
            own = Embeddings(*(torch.cat(tensors).requires_grad_() for tensors in zip(*embedded, strict=True)))
            self._cache = own
        everyone = Embeddings(*(self.world.all_gather(tensor) for tensor in own))
        return distillation_losses(self.settings.loss, everyone, self.network.scale)

    def backward(self, loss: Tensor) -> None:
        """Propagate the gradient through each micro-batch, then sum it over the processes."""
        loss.backward()
        if self._cache is not None:
            size = len(self._cache.audio) // len(self._micro_batches)
            for number, micro_batch in enumerate(self._micro_batches):
                rows = slice(number * size, (number + 1) * size)
                pairs = [
                    (tensor, cached.grad[rows])
                    for tensor, cached in zip(self._embed(micro_batch), self._cache, strict=True)
                    if cached.grad is not None and tensor.requires_grad
                ]
                torch.autograd.backward([tensor for tensor, _ in pairs], [gradient for _, gradient in pairs])
        # every process has computed the whole loss, so the scale has all of its gradient already
        parameters = (p for p in self.network.parameters() if p is not self.network.log_scale)
        self.world.all_reduce(p.grad for p in parameters if p.grad is not None)

    def after_step(self) -> None:
        """Average the running statistics of batch norm over the processes."""
        self.world.all_reduce((b for b in self.network.buffers() if b.is_floating_point()), mean=True)

    def _embed(self, micro_batch: MicroBatch) -> Embeddings:
        with seeded(micro_batch.seed, self.device), self.autocast():
            return self.network.embed_pairs(micro_batch.spectrogram, micro_batch.images)

    def _load_batch(self, step: int, generator: torch.Generator) -> list[MicroBatch]:
        """This process's share of the batch of a step."""
        settings, world = self.settings, self.world
        epoch, position = divmod(step, self.steps_per_epoch)
        order = epoch_order(len(self.train), epoch=epoch, seed=self.seed)
        chosen = order[position * settings.batch : (position + 1) * settings.batch]
        places = torch.rand(settings.batch, generator=generator)
        size = settings.batch // (settings.micro_batches * world.size)
        micro_batches = []
        for number in range(world.rank * settings.micro_batches, (world.rank + 1) * settings.micro_batches):
            rows = slice(number * size, (number + 1) * size)
            clips = [self.train[index] for index in chosen[rows].tolist()]
            spectrogram = self._spectrogram(clips, places[rows].tolist())
            seed = ((self.seed + 1) * 1_000_003 + step) * 1009 + number
            micro_batches.append(MicroBatch(seed, spectrogram, self._targets(clips)))
        return micro_batches

    def _targets(self, clips: Sequence[CachedClip]) -> Tensor:
        return torch.stack([clip.target for clip in clips]).to(self.device)

    def _spectrogram(self, clips: Sequence[CachedClip], places: list[float]) -> Tensor:
        """Standardized spectrograms of an excerpt of each clip, `places` between its start (0) and its end (1)."""
        length = round(self.settings.seconds * ENCODER_RATE)
        contexts, windows = [], []
        for clip, place in zip(clips, places, strict=True):
            sound = clip.read_sound(0, CONTEXT)
            context = sound.repeat(-(-CONTEXT // len(sound)))[:CONTEXT]
            start = int(place * (max(min(clip.samples, CONTEXT) - length, 0) + 1))
            contexts.append(context)
            windows.append(context[start : start + length])
        encoder = self.network.encoder.audio_encoder
        return standardized_spectrogram(encoder, contexts, windows, device=self.device)

    @torch.no_grad()
    def scores(self, network: DistillationModel) -> dict[str, float]:
        """The loss on held-out clips, and the recall of each sound's own image among those of all `clips`."""
        clips = self.validation[:MOST_VALIDATED]
        batches = []
        for start in range(0, len(clips), CHUNK):
            chunk = clips[start : start + CHUNK]
            batches.append(network.embed_pairs(self._spectrogram(chunk, [0.5] * len(chunk)), self._targets(chunk)))
        embeddings = Embeddings(*(torch.cat(tensors) for tensors in zip(*batches, strict=True)))
        terms = distillation_losses(self.settings.loss, embeddings, network.scale)
        ranked = (embeddings.projected_audio @ embeddings.image.T).argsort(dim=1, descending=True)
        own = torch.arange(len(clips), device=ranked.device)[:, None]
        scores = {"loss": torch.stack(list(terms.values())).sum().item()}
        for nearest in (1, 5):
            scores[f"recall at {nearest}"] = (ranked[:, :nearest] == own).any(dim=1).float().mean().item()
        return scores | {"clips": float(len(clips))}

    def exported(self, network: DistillationModel) -> Wav2CLIP:
        """The sound encoder alone."""
        return network.encoder
