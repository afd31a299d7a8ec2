"""Distill CLIP into the sound encoder (Wu et al., arXiv 2110.11499) from labeled sounds and images.

The paper has videos: a sound, and the frames that go with it. The small family has labeled sounds and labeled images,
so the "image" of a sound is the mean CLIP embedding of the images of its label, in addition to the label's text
embedding.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from wav2clip_gen.audio.track import ENCODER_RATE
from wav2clip_gen.errors import TrainingError
from wav2clip_gen.models import checkpoints
from wav2clip_gen.models.clip import Perceptor
from wav2clip_gen.models.wav2clip import Wav2CLIP, Wav2CLIPConfig
from wav2clip_gen.training.data import Array, ImageDataset, Loader, load_images
from wav2clip_gen.training.distill import DistillationModel, standardized_spectrogram
from wav2clip_gen.training.mini.audio import (
    AudioExample,
    load_audio,
    load_audio_labels,
    loud_window,
    merged_labels,
    random_excerpt,
)
from wav2clip_gen.training.mini.concepts import (
    Concepts,
    data_notes,
    image_concepts,
    load_concepts,
    require_known_labels,
)
from wav2clip_gen.training.schedule import seeded
from wav2clip_gen.training.settings import LabeledAudioSettings
from wav2clip_gen.training.trainer import TrainTask

MINI = Wav2CLIPConfig(width=32)
WINDOW = ENCODER_RATE  # samples, 1 s
MOST_WINDOWS = 16  # of a sound that is embedded as a whole
CONTEXT = 4 * ENCODER_RATE  # samples that the standardization is computed over, as over the whole track in inference
FEWEST_IMAGES = 8  # for which the mean of a concept's images is a useful target
SHARPENING = 0.5  # share of the mean over all concepts that is subtracted from each: the rest guides more clearly
SHARPNESS = 40.0  # inverse temperature over the concepts that stand in for one without images
MOST_IMAGES = 400  # that a concept's mean is taken over


class LabeledAudioTask(TrainTask[DistillationModel]):
    """Train the sound encoder to embed a sound at the images and the text of its label."""

    name = "wav2clip"
    settings: LabeledAudioSettings

    def __init__(
        self,
        data: Path,
        clip: Path,
        settings: LabeledAudioSettings | None = None,
        *,
        config: Wav2CLIPConfig = MINI,
        **common: Any,
    ) -> None:
        """Read sounds and images, and embed the images with the trained image tower at `clip`.

        Raises:
            TrainingError: Some of the data is missing, or no label has a visible concept.
        """
        super().__init__(settings or LabeledAudioSettings(), **common)
        train, held_out, skipped = load_audio(data, loader=self.loader)
        concepts, encoder = load_concepts(data)
        self.labels = load_audio_labels(data, sorted({example.label for example in train}), concepts, encoder)
        table = set(merged_labels(data).values()).union(self.labels.names)
        known = {(example.set, example.label): example.label in table for example in train}
        require_known_labels(known, table=data / "text" / "audio_labels.csv")
        self.images, unreadable = self._image_targets(data, clip, concepts)
        self.train, self.validation = (
            [example for example in side if example.label in self.labels.names] for side in (train, held_out)
        )
        if not (self.train and self.validation):
            raise TrainingError(
                f"{data}: no sound has a label with a visible concept, on both sides of the split",
                hint="are the labels in text/audio_labels.csv? see 'Training them again' in weights/README.md",
            )
        self.skipped = skipped + unreadable
        self.notes = data_notes(self.skipped, has_encoder=encoder is not None, loader=self.loader)
        self.data_facts = {
            "sets": sorted({example.set for example in self.train}), "pieces": len(self.train),
            "labels": len(self.labels.names), "clip": checkpoints.digest(clip)[:12],
        }  # fmt: skip
        self.text = self.labels.text.to(self.device)
        labels = [example.label for example in self.train]
        self._weights = torch.tensor([labels.count(label) ** -0.5 for label in labels])
        with seeded(self.seed):
            self.network = DistillationModel(config).to(self.device).train()
        weights = [parameter for parameter in self.network.parameters() if parameter is not self.network.log_scale]
        groups = [
            {"params": weights, "weight_decay": 0.05},
            # a short run has no time for a temperature that moves by 0.001 a step
            {"params": [self.network.log_scale], "weight_decay": 0.0, "scale": 10.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=self.settings.learning_rate, betas=(0.9, 0.98))

    def _image_targets(self, data: Path, clip: Path, concepts: Concepts) -> tuple[Tensor, tuple[str, ...]]:
        """For each label the unit vector (K, D) of the images of its concepts, and the names of unreadable images."""
        perceptor = cast(Perceptor, checkpoints.load(clip, role="clip")).to(self.device)
        images = load_images(data, "train", loader=Loader(memory=0, workers=self.loader.workers))  # each is used once
        shown = image_concepts(data, images.info, concepts)
        means, known = concept_means(perceptor, images, shown, len(concepts.names))
        shared = F.normalize(means[known].mean(dim=0), dim=-1)
        means = F.normalize(means - SHARPENING * shared, dim=-1)
        targets = interpolate_images(self.labels.text, concepts.vectors[known], means[known])
        for number, rows in enumerate(self.labels.concepts):
            with_images = [row for row in rows if known[row]]
            if with_images:
                targets[number] = F.normalize(means[with_images].mean(dim=0), dim=-1)
        return targets.to(self.device), images.skipped

    def losses(self, step: int, progress: float, generator: torch.Generator) -> dict[str, Tensor]:
        """Contrast sounds with images, both ways and in both projections, and with the labels' text."""
        spectrogram, shares = self._load_batch(generator)
        with self.autocast():
            features, embeddings = self.network(spectrogram)
            projected = F.normalize(self.network.image_transform(self.images), dim=-1)
        features, embeddings, projected = features.float(), embeddings.float(), projected.float()
        scale, smoothing = self.network.scale, self.settings.smoothing
        own = F.normalize(shares @ self.images, dim=-1)
        return {
            "sound-image": 0.5 * label_contrast(scale * embeddings @ self.images.T, shares, smoothing=smoothing),
            "sound-projected image": 0.5 * label_contrast(scale * features @ projected.T, shares, smoothing=smoothing),
            "sound-text": 0.5 * F.cross_entropy(scale * embeddings @ self.text.T, shares, label_smoothing=smoothing),
            "cosine": self.settings.cosine * (1 - (embeddings * own).sum(dim=-1)).mean(),
        }

    def _load_batch(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Standardized spectrograms (B, 1, 257, T) and the share (B, K) of each label in them."""
        settings = self.settings
        chosen = torch.multinomial(self._weights, 2 * settings.batch, generator=generator).view(2, -1)
        shares = torch.zeros(settings.batch, len(self.labels.names))
        contexts, windows = [], []
        for line, pair in enumerate(chosen.T.tolist()):
            first, second = (self.train[index] for index in pair)
            context, mix = self._augment(first, generator), 0.0
            draws = torch.rand(4, generator=generator).tolist()
            if draws[0] < settings.mixing:
                mix = 0.2 + 0.3 * draws[1]
                context = (1 - mix) * context + mix * self._augment(second, generator)
            if draws[2] < 0.5:
                level = 10 ** (-0.5 - 1.5 * draws[3]) * context.std()
                context = context + level * torch.randn(len(context), generator=generator)
            shares[line, self.labels.names.index(first.label)] += 1 - mix
            if mix:
                shares[line, self.labels.names.index(second.label)] += mix
            contexts.append(context)
            windows.append(loud_window(context, WINDOW, generator=generator))
        encoder = self.network.encoder.audio_encoder
        spectrogram = standardized_spectrogram(encoder, contexts, windows, device=self.device)
        return mask_spectrogram(spectrogram, generator=generator), shares.to(self.device)

    def _augment(self, example: AudioExample, generator: torch.Generator) -> Tensor:
        """An excerpt (CONTEXT,) of a sound at a random speed, pitch and level."""
        part = random_excerpt(example.samples, CONTEXT, generator=generator)
        level = 0.02 + 0.18 * torch.rand(1, generator=generator)
        return part * level / part.std().clamp(min=1e-4)

    @torch.no_grad()
    def scores(self, network: DistillationModel) -> dict[str, float]:
        """Accuracy on held-out recordings: over all labels, and of ESC-50's clips over its labels."""
        examples, names = self.validation, self.labels.names
        embeddings = torch.stack([embed_samples(network.encoder, example.samples) for example in examples])
        truth = torch.tensor([self.labels.names.index(example.label) for example in examples])
        by_text, by_image = (embeddings @ targets.cpu().T for targets in (self.text, self.images))
        right = (by_text.argmax(dim=1) == truth).float()
        top5 = (by_text.topk(min(5, len(names)), dim=1).indices == truth[:, None]).any(dim=1)
        scores = {
            "top1 text": right.mean().item(),
            "top5 text": top5.float().mean().item(),
            "top1 mean of labels": torch.stack([right[truth == row].mean() for row in truth.unique()]).mean().item(),
            "top1 image": (by_image.argmax(dim=1) == truth).float().mean().item(),
            "chance": 1 / len(names),
            "pieces": float(len(truth)),
        }
        of_esc = torch.tensor([example.set == "esc" for example in examples])
        columns = torch.tensor(sorted({self.labels.names.index(e.label) for e in self.train if e.set == "esc"}))
        if of_esc.any() and len(columns):
            chosen = columns[by_text[of_esc][:, columns].argmax(dim=1)]
            scores["top1 esc"] = (chosen == truth[of_esc]).float().mean().item()
            scores["esc labels"] = float(len(columns))
        return scores

    def exported(self, network: DistillationModel) -> Wav2CLIP:
        """The sound encoder alone."""
        return network.encoder


def interpolate_images(queries: Tensor, words: Tensor, images: Tensor) -> Tensor:
    """Image vectors for text vectors (N, D), from the text and mean image vectors (K, D) of concepts with images.

    They are means weighted by a softmax over the centered cosines.
    """
    center = words.mean(dim=0)
    similarity = F.normalize(queries - center, dim=-1) @ F.normalize(words - center, dim=-1).T
    return F.normalize((SHARPNESS * similarity).softmax(dim=1) @ images, dim=-1)


def label_contrast(logits: Tensor, shares: Tensor, *, smoothing: float) -> Tensor:
    """Symmetric InfoNCE between sounds and labels: logits (B, K), shares (B, K) of each label in each sound.

    The paper's negatives are the other clips of the batch. Our targets belong to labels, so all of them can
    be negatives of a sound, and all sounds of a label are positives of its target.
    """
    to_label = F.cross_entropy(logits, shares, label_smoothing=smoothing)
    present = shares.sum(dim=0) > 0
    positives = shares.T[present]
    to_sound = F.cross_entropy(logits.T[present], positives / positives.sum(dim=1, keepdim=True))
    return (to_label + to_sound) / 2


def mask_spectrogram(spectrogram: Tensor, *, generator: torch.Generator) -> Tensor:
    """Zero a band of frequencies and one of columns in each spectrogram (Park et al., arXiv 1904.08779)."""
    masked = spectrogram.clone()
    for image in masked:
        for axis, widest in ((1, 40), (2, 8)):
            length = image.shape[axis]
            width, place = torch.rand(2, generator=generator).tolist()
            size = int(width * widest)
            start = int(place * (length - size))
            image.narrow(axis, start, size).zero_()
    return masked


@torch.no_grad()
def concept_means(
    perceptor: Perceptor, images: ImageDataset, shown: list[list[int]], count: int
) -> tuple[Tensor, Tensor]:
    """Mean image embedding (count, D) of each concept's images, and which concepts (count,) have enough.

    Raises:
        TrainingError: None has.
    """
    members: dict[int, list[int]] = {}
    for index, rows in enumerate(shown):
        for row in rows:
            if len(members.setdefault(row, [])) < MOST_IMAGES:
                members[row].append(index)
    members = {row: these for row, these in members.items() if len(these) >= FEWEST_IMAGES}
    if not members:
        raise TrainingError(
            f"no concept is shown by {FEWEST_IMAGES} pictures or more", hint="sounds need pictures as targets"
        )
    needed = sorted({index for these in members.values() for index in these})
    place = {index: at for at, index in enumerate(needed)}
    pixels = images.subset(needed).batches(64, device=perceptor.device, size=perceptor.size)
    embedded = torch.cat([perceptor.encode_images(batch).cpu() for batch in pixels])
    means, known = torch.zeros(count, embedded.shape[1]), torch.zeros(count, dtype=torch.bool)
    for row, these in members.items():
        means[row] = F.normalize(embedded[[place[index] for index in these]].mean(dim=0), dim=-1)
        known[row] = True
    return means, known


def embed_samples(encoder: Wav2CLIP, samples: Array) -> Tensor:
    """The unit vector (D,) of a sound of int16 samples: the mean over its windows that are not silent."""
    sound = torch.as_tensor(samples).float() / 32768
    if len(sound) < WINDOW:
        sound = sound.repeat(-(-WINDOW // len(sound)))[:WINDOW]
    windows = sound.unfold(0, WINDOW, WINDOW // 2)
    windows = windows[torch.linspace(0, len(windows) - 1, min(MOST_WINDOWS, len(windows))).long()]
    loudness = windows.square().mean(dim=1).sqrt()
    windows = windows[loudness >= 0.1 * loudness.max()]
    return F.normalize(encoder.encode_windows(lambda: [windows]).mean(dim=0), dim=0)
