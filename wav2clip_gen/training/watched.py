"""Train the sound encoder on videos, as the paper does (Wu et al., arXiv 2110.11499): what was heard, what was seen.

The negatives of a sound are all other clips of the batch, however many parts and processes that is worked in: the
embeddings of all parts are gathered first, the loss is taken over all of them, and its gradient is then
carried through the network part by part (GradCache, Gao et al., arXiv 2101.06983). Only batch norm sees no more than
a part, on one GPU as on several.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from wav2clip_gen.audio.track import ENCODER_RATE
from wav2clip_gen.errors import SettingsError, TrainingError
from wav2clip_gen.models.wav2clip import Wav2CLIP, Wav2CLIPConfig
from wav2clip_gen.training.clips import CLIP_SECONDS
from wav2clip_gen.training.data import order
from wav2clip_gen.training.distillation import (
    Distillation,
    Views,
    distillation_losses,
    standardised,
    statistics_kept,
)
from wav2clip_gen.training.loop import Recipe, seeded
from wav2clip_gen.training.videos import Pair, Videos

LOSSES = ("clip_loss", "clip_loss_x")
TRAINING_PRECISIONS = ("fp32", "bf16")
CONTEXT = round(CLIP_SECONDS * ENCODER_RATE)  # samples that the statistics are taken from: the whole clip
MOST_VALIDATED = 1024  # clips held out that an evaluation uses
CHUNK = 32  # clips at a time in an evaluation


@dataclass(frozen=True, kw_only=True)
class WatchedTraining:
    """Settings of a run."""

    batch: int = 64  # clips a step, over all parts and processes; each is a negative of all others
    parts: int = 1  # that a process works its share of the batch in, to save memory
    learning_rate: float = 1e-3
    loss: str = "clip_loss_x"
    precision: str = "fp32"
    seconds: float = 5.0  # of a clip that are heard at a time
    fall: float = 0.1  # of the learning rate, where the loss on clips held out no longer falls
    patience: int = 3  # evaluations without gain before that
    stop_after: int = 10  # evaluations without gain before the run ends
    width: int = 64  # of the network; the published one's

    def __post_init__(self) -> None:
        for name, value, allowed in (("loss", self.loss, LOSSES), ("precision", self.precision, TRAINING_PRECISIONS)):
            if value not in allowed:
                raise SettingsError(f"there is no {name} {value!r}", hint=f"choose from: {', '.join(allowed)}")
        if not 0.5 <= self.seconds <= CLIP_SECONDS:
            raise SettingsError(f"{self.seconds:g} s of a clip cannot be heard", hint=f"take 0.5 to {CLIP_SECONDS:g} s")


class Plateau:
    """Lowers the learning rate, and at last ends the run, when a loss no longer falls."""

    def __init__(self, *, fall: float, patience: int, stop_after: int) -> None:
        self._fall, self._patience, self._stop_after = fall, patience, stop_after
        self.best = float("inf")
        self.waited = 0  # evaluations since the best
        self.factor = 1.0  # of the learning rate

    def see(self, loss: float) -> bool:
        """Take note of a loss; whether it is the best so far."""
        if loss < self.best:
            self.best, self.waited = loss, 0
            return True
        self.waited += 1
        if self.waited % self._patience == 0:
            self.factor *= self._fall
        return False

    @property
    def over(self) -> bool:
        """Whether waiting longer is of no use."""
        return self.waited >= self._stop_after

    def state(self) -> dict[str, float]:
        """What a checkpoint must hold."""
        return {"best": self.best, "waited": self.waited, "factor": self.factor}

    def load_state(self, state: dict[str, float]) -> None:
        """Take back what `state` gave."""
        self.best, self.waited, self.factor = state["best"], int(state["waited"]), state["factor"]


class WatchedRecipe(Recipe[Distillation]):
    """The sound encoder learns where the frozen CLIP puts the pictures that were seen with a sound."""

    name = "wav2clip"
    average_decay = 0.0  # the paper keeps the best weights, not a mean

    def __init__(
        self,
        videos: Videos,
        settings: WatchedTraining | None = None,
        *,
        seed: int = 0,
        device: str | torch.device = "cpu",
    ) -> None:
        """Take the videos, which must be prepared.

        Raises:
            TrainingError: Too few of them can be read, or the batch does not fit them or the processes.
        """
        self.settings: WatchedTraining = settings or WatchedTraining()
        self.seed, self.device, self.group = seed, torch.device(device), videos.group
        self._videos = videos
        self.train, self.validation, self.skipped = videos.pairs()
        self._check_batch()
        self.notes = _notes(self.skipped)
        config = Wav2CLIPConfig(width=self.settings.width, embedding=self.train.targets.shape[1])
        with seeded(seed):
            self.network = Distillation(config).to(self.device).train()
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=self.settings.learning_rate)
        self._plateau = Plateau(
            fall=self.settings.fall, patience=self.settings.patience, stop_after=self.settings.stop_after
        )
        self._work: list[tuple[int, Tensor, Tensor]] = []  # this step's parts: seed, spectrograms, images
        self._own: Views | None = None  # what they were seen as, where the gradient is still to be carried on

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which each clip is met once, but for a rest that fills no batch."""
        return len(self.train) // self.settings.batch

    def _check_batch(self) -> None:
        batch, pieces = self.settings.batch, self.settings.parts * self.group.size
        if batch % pieces or batch // pieces < 2:
            raise TrainingError(
                f"a batch of {batch} cannot be worked in {self.settings.parts} parts by {self.group.size} processes",
                hint=f"give --batch a multiple of {pieces}, at least {2 * pieces}",
            )
        if batch > len(self.train):
            raise TrainingError(
                f"{len(self.train)} clips fill no batch of {batch}",
                hint="give a smaller --batch: a clip must not be its own negative",
            )

    def batch(self) -> torch.autocast:
        """Half precision where it was asked for."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.settings.precision == "bf16")

    def losses(self, step: int, progress: float, generator: torch.Generator) -> dict[str, Tensor]:
        """Contrast each sound with what was seen with it, both ways, over the batch of all processes."""
        self._work = self._parts(step, generator)
        if len(self._work) == 1:
            self._own, own = None, self._seen(*self._work[0])
        else:
            with torch.no_grad(), statistics_kept(self.network):
                parts = [self._seen(*part) for part in self._work]
            own = self._own = Views(*(torch.cat(tensors).requires_grad_() for tensors in zip(*parts, strict=True)))
        everyone = Views(*(self._among_all(tensor) for tensor in own))
        return distillation_losses(self.settings.loss, everyone, self.network.scale)

    def backward(self, total: Tensor) -> None:
        """Carry the gradient through the parts, then add up what all processes have."""
        total.backward()
        if self._own is not None:
            length = len(self._own.sound) // len(self._work)
            for number, part in enumerate(self._work):
                chosen = slice(number * length, (number + 1) * length)
                carried = [
                    (tensor, whole.grad[chosen])
                    for tensor, whole in zip(self._seen(*part), self._own, strict=True)
                    if whole.grad is not None and tensor.requires_grad
                ]
                torch.autograd.backward([tensor for tensor, _ in carried], [gradient for _, gradient in carried])
        # every process has taken the whole loss, so the scale has all of its gradient already
        parameters = (p for p in self.network.parameters() if p is not self.network.log_scale)
        self.group.add(p.grad for p in parameters if p.grad is not None)

    def after_step(self, average: Any) -> None:
        """Give all processes the same running statistics."""
        self.group.average(buffer for buffer in self.network.buffers() if buffer.is_floating_point())

    def _seen(self, seed: int, spectrogram: Tensor, images: Tensor) -> Views:
        """Views of a part; dropout is the part's own, so that a second pass is the same as the first."""
        with seeded(seed, self.device), self.batch():
            return self.network.views(spectrogram, images)

    def _among_all(self, own: Tensor) -> Tensor:
        """The rows of all processes; the gradient goes through our own."""
        if self.group.size == 1:
            return own
        parts = list(self.group.gather(own).split(len(own)))
        parts[self.group.rank] = own
        return torch.cat(parts)

    def _parts(self, step: int, generator: torch.Generator) -> list[tuple[int, Tensor, Tensor]]:
        """Our share of the batch, in parts: seed, standardised spectrograms (B, 1, 257, T), images (B, D)."""
        settings, group = self.settings, self.group
        epoch, place = divmod(step, self.steps_per_epoch)
        chosen = order(len(self.train), epoch=epoch, seed=self.seed)[place * settings.batch :][: settings.batch]
        places = torch.rand(settings.batch, generator=generator)
        share = settings.batch // (settings.parts * group.size)
        parts = []
        for part in range(group.rank * settings.parts, (group.rank + 1) * settings.parts):
            rows = slice(part * share, (part + 1) * share)
            pairs = [self.train.pairs[number] for number in chosen[rows].tolist()]
            spectrogram = self._heard(pairs, places[rows].tolist())
            seed = ((self.seed + 1) * 1_000_003 + step) * 1009 + part
            parts.append((seed, spectrogram, self.train.targets[chosen[rows]].to(self.device)))
        return parts

    def _heard(self, pairs: list[Pair], places: list[float]) -> Tensor:
        """Standardised spectrograms of an excerpt of each clip, `places` between its start (0) and its end (1)."""
        length = round(self.settings.seconds * ENCODER_RATE)
        contexts = torch.stack([_filled(pair.sound(0, CONTEXT), CONTEXT) for pair in pairs])
        starts = [
            int(place * (max(min(pair.samples, CONTEXT) - length, 0) + 1))
            for pair, place in zip(pairs, places, strict=True)
        ]
        windows = torch.stack(
            [context[start : start + length] for context, start in zip(contexts, starts, strict=True)]
        )
        encoder = self.network.encoder.audio_encoder
        return standardised(encoder, contexts.to(self.device), windows.to(self.device))

    @torch.no_grad()
    def scores(self, network: Distillation) -> dict[str, float]:
        """The loss on clips held out, and how often a sound's own picture is the nearest (of `clips`)."""
        pairs = self.validation.pairs[:MOST_VALIDATED]
        parts = []
        for start in range(0, len(pairs), CHUNK):
            chunk = list(pairs[start : start + CHUNK])
            images = self.validation.targets[start : start + len(chunk)].to(self.device)
            parts.append(network.views(self._heard(chunk, [0.5] * len(chunk)), images))
        views = Views(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))
        terms = distillation_losses(self.settings.loss, views, network.scale)
        ranked = (views.projected_sound @ views.image.T).argsort(dim=1, descending=True)
        own = torch.arange(len(pairs), device=ranked.device)[:, None]
        scores = {"loss": torch.stack(list(terms.values())).sum().item()}
        for nearest in (1, 5):
            scores[f"recall at {nearest}"] = (ranked[:, :nearest] == own).any(dim=1).float().mean().item()
        return scores | {"clips": float(len(pairs))}

    def learning_rate(self, step: int, steps: int | None, *, cool_down: float) -> float:
        """As it was, until the loss on clips held out no longer falls."""
        return self.settings.learning_rate * self._plateau.factor

    def improved(self, scores: dict[str, float]) -> bool:
        """Whether the loss on clips held out is the lowest so far; the run ends when it has not been for long."""
        better = self._plateau.see(scores["loss"])
        self.finished = self._plateau.over
        return better

    def state(self) -> dict[str, Any]:
        """The plateau's memory."""
        return self._plateau.state()

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what `state` gave."""
        self._plateau.load_state(state)
        self.finished = self._plateau.over

    def conditions(self) -> dict[str, Any]:
        """The clips, the CLIP that saw them and the number of processes decide the run as much as the settings."""
        clips = {"clips trained on": len(self.train), "clips held out": len(self.validation)}
        return {**clips, "clip": self._videos.clip_digest[:12], "processes": self.group.size}

    def part(self, network: Distillation) -> Wav2CLIP:
        """The sound encoder alone."""
        return network.encoder

    def provenance(self) -> dict[str, Any]:
        """Settings and data."""
        return {"settings": asdict(self.settings), **self.conditions(), "clips skipped": len(self.skipped)}


def _filled(sound: Tensor, length: int) -> Tensor:
    """A sound (N,) repeated to (length,)."""
    return sound.repeat(-(-length // len(sound)))[:length]


def _notes(skipped: tuple[str, ...]) -> tuple[str, ...]:
    if not skipped:
        return ()
    named = ", ".join(skipped[:3]) + (", ..." if len(skipped) > 3 else "")
    return (f"{len(skipped)} clips cannot be read and are skipped: {named}",)
