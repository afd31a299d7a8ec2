"""Distill CLIP into the sound encoder (Wu et al., arXiv 2110.11499) from labeled sounds and images, and a tagger.

The paper has videos: a sound, and the frames that go with it. The small family has labeled sounds and labeled images,
so the "image" of a sound is the mean CLIP embedding of the images of its label, in addition to the label's names as
the text tower reads them. Labels are few. YAMNet teaches what else is in a sound, labeled or not: it scores 521 tags,
and their names are texts too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wav2clip_gen.audio.track import ENCODER_RATE
from wav2clip_gen.errors import TrainingError, WeightsError
from wav2clip_gen.models import checkpoints, convert
from wav2clip_gen.models.clip import Perceptor
from wav2clip_gen.models.wav2clip import Wav2CLIP, Wav2CLIPConfig, windows_of
from wav2clip_gen.models.yamnet import CLASSES, YAMNet
from wav2clip_gen.training.data import HINT, Array, ImageDataset, Loader, load_images
from wav2clip_gen.training.distill import DistillationModel, standardized_spectrogram
from wav2clip_gen.training.mini.audio import (
    AudioExample,
    freesound_numbers,
    label_names,
    load_audio,
    load_audio_labels,
    load_unlabeled,
    merged_labels,
    tag_names,
)
from wav2clip_gen.training.mini.concepts import (
    Concepts,
    ReadPhrases,
    data_notes,
    image_concepts,
    load_concepts,
    require_known_labels,
)
from wav2clip_gen.training.mini.windows import (
    loud_starts,
    mask_spectrogram,
    normalized,
    random_excerpts,
    random_levels,
    windows_at,
)
from wav2clip_gen.training.schedule import seeded
from wav2clip_gen.training.settings import LabeledAudioSettings
from wav2clip_gen.training.trainer import TrainTask

MINI = Wav2CLIPConfig(width=48)
WINDOW = ENCODER_RATE  # samples, 1 s
TEACHER_LEVEL = 0.1  # standard deviation of the samples that the teacher is given
READ = 256  # phrases at a time
MOST_WINDOWS = 16  # of a sound that is embedded as a whole
CONTEXT = 4 * ENCODER_RATE  # samples that the standardization is computed over, as over the whole track in inference
TEMPLATES = ("{}", "a {}", "the sound of {}", "the sound of a {}")  # what stands before a name must not change it
LEAST_SCORE = 0.02  # score below which a tag is not in a sound
CERTAIN = 0.3  # score of the first tag from which the teacher's answer counts in full
RARE = -4.0  # log odds of a tag at the start
TAGGING = 10.0  # weight of the plain scores of the tags, relative to their names
FEWEST_IMAGES = 8  # for which the mean of a concept's images is a useful target
SHARPENING = 0.5  # share of the mean over all concepts that is subtracted from each: the rest guides more clearly
SHARPNESS = 40.0  # inverse temperature over the concepts that stand in for one without images
MOST_IMAGES = 400  # that a concept's mean is taken over


def load_teacher(data: Path) -> YAMNet:
    """YAMNet with the weights in the training data's folder, frozen.

    Raises:
        TrainingError: The file is missing, damaged, or holds other arrays.
    """
    try:
        network = convert.read_network(data / "teachers" / "yamnet.npz", role="yamnet", config={})
    except WeightsError as error:
        raise TrainingError(error.what, hint=HINT) from None
    assert isinstance(network, YAMNet)
    return network


class Names:
    """Classes with several names each, and the text vectors of all of them."""

    def __init__(self, names: Sequence[Sequence[str]], read: ReadPhrases, device: torch.device) -> None:
        texts = [[template.format(name) for name in these for template in TEMPLATES] for these in names]
        self.vectors = read([text for these in texts for text in these]).to(device)
        self._counts = torch.tensor([len(these) for these in texts])
        self._starts = self._counts.cumsum(0) - self._counts

    def draw(self, generator: torch.Generator) -> Tensor:
        """A vector (K, D) of each class, of a random name."""
        chosen = (torch.rand(len(self._counts), generator=generator) * self._counts).long()
        return self.vectors[(self._starts + chosen).to(self.vectors.device)]

    def means(self) -> Tensor:
        """The unit vector (K, D) of each class over its names."""
        parts = self.vectors.split(self._counts.tolist())
        return torch.stack([F.normalize(part.mean(dim=0), dim=0) for part in parts])


class Batch(NamedTuple):
    """Windows of sound, first those with a label."""

    spectrogram: Tensor  # (B, 1, 257, T), standardized
    shares: Tensor  # (L, K) of each label in the first L windows
    windows: Tensor  # (B, N), as the teacher is given them: without noise, all equally loud


class TaggingModel(DistillationModel):
    """The sound encoder, and the plain scores of the teacher's tags from its features."""

    def __init__(self, config: Wav2CLIPConfig) -> None:
        super().__init__(config)
        self.tagger = nn.Linear(8 * config.width, CLASSES)
        nn.init.constant_(self.tagger.bias, RARE)


class LabeledAudioTask(TrainTask[TaggingModel]):
    """Train the sound encoder to embed a sound at the images and the names of its label and of the teacher's tags."""

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
        """Read sounds and images, and embed images and names with the trained towers at `clip`.

        Raises:
            TrainingError: Some of the data is missing, or no label is a name or shows something.
        """
        super().__init__(settings or LabeledAudioSettings(), **common)
        train, held_out, skipped = load_audio(data, loader=self.loader)
        self._perceptor = cast(Perceptor, checkpoints.load(clip, role="clip")).to(self.device)
        concepts, _ = load_concepts(data, self._read)
        self.labels = load_audio_labels(data, sorted({example.label for example in train}), concepts, self._read)
        table = set(merged_labels(data).values()).union(self.labels.names)
        known = {(example.set, example.label): example.label in table for example in train}
        require_known_labels(known, table=data / "text" / "audio_labels.csv")
        self.train, self.validation = (
            [example for example in side if example.label in self.labels.names] for side in (train, held_out)
        )
        if not (self.train and self.validation):
            raise TrainingError(
                f"{data}: no sound has a label that is a name or shows something, on both sides of the split",
                hint="are the labels in text/audio_labels.csv? see 'Training them again' in weights/README.md",
            )
        images = load_images(data, "train", loader=Loader(memory=0, workers=self.loader.workers))  # each is used once
        shown = image_concepts(data, images.info, concepts)
        self.images = self._image_targets(images, shown, concepts)
        self._load_teacher(data, held_out)
        self.skipped += skipped + images.skipped
        self.notes = data_notes(self.skipped, loader=self.loader)
        self.data_facts = {
            "sets": sorted({example.set for example in self.train}), "pieces": len(self.train),
            "sets without labels": sorted({example.set for example in self.unlabeled}),
            "pieces without labels": len(self.unlabeled),
            "freesound": freesound_numbers(self.train),
            "labels": len(self.labels.names), "tags": CLASSES if self.teacher else 0,
            "clip": checkpoints.digest(clip)[:12],
        }  # fmt: skip
        synonyms = label_names(data)
        named = [synonyms.get(name, (name.replace("_", " "),)) for name in self.labels.names]
        self.names = Names(named, self._read, self.device)
        self.text = self.names.means()
        self._show_concepts(shown, concepts)
        self._columns = {name: column for column, name in enumerate(self.labels.names)}
        labels = [example.label for example in self.train]
        self._weights = torch.tensor([labels.count(label) ** -0.5 for label in labels])
        with seeded(self.seed):
            self.network = TaggingModel(config)
            self.network.to(self.device).train()
        weights = [parameter for parameter in self.network.parameters() if parameter is not self.network.log_scale]
        groups = [
            {"params": weights, "weight_decay": 0.05},
            # a short run has no time for a temperature that moves by 0.001 a step
            {"params": [self.network.log_scale], "weight_decay": 0.0, "scale": 10.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=self.settings.learning_rate, betas=(0.9, 0.98))

    @torch.no_grad()
    def _read(self, phrases: Sequence[str]) -> Tensor:
        """Unit vectors (N, D), on the CPU, of phrases, as the trained text tower reads them."""
        parts = [list(phrases[start : start + READ]) for start in range(0, len(phrases), READ)]
        vectors = [self._perceptor.encode_text(part).float().cpu() for part in parts]
        return torch.cat([torch.zeros(0, Wav2CLIPConfig.embedding), *vectors])

    def _load_teacher(self, data: Path, held_out: list[AudioExample]) -> None:
        """The teacher, the names of its tags, and the sounds that only it knows something about."""
        self.teacher = load_teacher(data).to(self.device) if self.settings.teacher else None
        self.tags = Names(tag_names(data), self._read, self.device) if self.teacher else None
        self.unlabeled: list[AudioExample] = []
        self.skipped = ()
        if self.teacher and self.settings.unlabeled:
            self.unlabeled, self.skipped = load_unlabeled(data, held_out, loader=self.loader)

    def _show_concepts(self, pictured: list[list[int]], concepts: Concepts) -> None:
        """The vectors (C, D) of all concepts that can be seen, and their shares (K, C) in each label.

        A film chooses among what the pictures show, most of which no sound comes from: those are negatives.
        """
        rows = sorted({row for rows in (*self.labels.concepts, *pictured) for row in rows})
        self.concepts = concepts.vectors[rows].to(self.device)
        shares = torch.zeros(len(self.labels.names), len(rows))
        for number, these in enumerate(self.labels.concepts):
            for row in these:
                shares[number, rows.index(row)] = 1 / len(these)
        self.shown = shares.to(self.device)

    def _image_targets(self, images: ImageDataset, shown: list[list[int]], concepts: Concepts) -> Tensor:
        """For each label the unit vector (K, D) of the images of its concepts."""
        means, known = concept_means(self._perceptor, images, shown, len(concepts.names))
        shared = F.normalize(means[known].mean(dim=0), dim=-1)
        means = F.normalize(means - SHARPENING * shared, dim=-1)
        targets = interpolate_images(self.labels.text, concepts.vectors[known], means[known])
        for number, rows in enumerate(self.labels.concepts):
            with_images = [row for row in rows if known[row]]
            if with_images:
                targets[number] = F.normalize(means[with_images].mean(dim=0), dim=-1)
        return targets.to(self.device)

    def losses(self, step: int, progress: float, generator: torch.Generator) -> dict[str, Tensor]:
        """Contrast sounds with names, concepts and images of their labels, and with the names of the teacher's tags."""
        batch = self._load_batch(generator)
        shares, count = batch.shares, len(batch.shares)
        with self.autocast():
            features, embeddings = self.network(batch.spectrogram)
            projected = F.normalize(self.network.image_transform(self.images), dim=-1)
            tags = self.network.tagger(features * features.shape[1] ** 0.5)
        features, embeddings, projected = features.float(), embeddings.float(), projected.float()
        scale, smoothing = self.network.scale, self.settings.smoothing
        named, labeled = embeddings[:count], features[:count]
        own = F.normalize(shares @ self.images, dim=-1)
        names = scale * named @ self.names.draw(generator).T
        terms = {
            "sound-name": F.cross_entropy(names, shares, label_smoothing=smoothing),
            "sound-concept": weighted_entropy(self._perceptor.scale * named @ self.concepts.T, shares @ self.shown),
            "sound-image": 0.25 * label_contrast(scale * named @ self.images.T, shares, smoothing=smoothing),
            "sound-projected image": 0.5 * label_contrast(scale * labeled @ projected.T, shares, smoothing=smoothing),
            "cosine": self.settings.cosine * (1 - (named * own).sum(dim=-1)).mean(),
        }
        if self.teacher is not None and self.tags is not None:
            with torch.autocast(self.device.type, enabled=False):
                scores = self.teacher(batch.windows)
            certain = (scores.amax(dim=1, keepdim=True) / CERTAIN).clamp(max=1)
            likely_tags = certain * F.normalize(F.relu(scores - LEAST_SCORE), p=1, dim=1)
            logits = scale * embeddings @ self.tags.draw(generator).T
            terms["sound-tag"] = self.settings.teacher * weighted_entropy(logits, likely_tags)
            plain = F.binary_cross_entropy_with_logits(tags.float(), scores)
            terms["tags"] = self.settings.teacher * TAGGING * plain
        return terms

    def _load_batch(self, generator: torch.Generator) -> Batch:
        settings, device = self.settings, self.device
        foreign = round(settings.unlabeled * settings.batch) if self.unlabeled else 0
        chosen = torch.multinomial(self._weights, settings.batch - foreign, generator=generator).tolist()
        others = torch.randint(max(len(self.unlabeled), 1), (foreign,), generator=generator).tolist()
        first = [self.train[index] for index in chosen] + [self.unlabeled[index] for index in others]
        contexts = self._excerpts(first, generator)

        mixed = (torch.rand(len(first), generator=generator) < settings.mixing).nonzero().flatten()
        parts = 0.2 + 0.3 * torch.rand(len(mixed), 1, generator=generator)
        second = [
            self.train[index] for index in torch.multinomial(self._weights, max(len(mixed), 1), generator=generator)
        ]
        if len(mixed):
            at, share = mixed.to(device), parts.to(device)
            contexts[at] = normalized((1 - share) * contexts[at] + share * self._excerpts(second, generator))
        shares = torch.zeros(len(first), len(self.labels.names))
        for line, example in enumerate(first[: len(chosen)]):
            shares[line, self._columns[example.label]] = 1.0
        for line, part, example in zip(mixed.tolist(), parts[:, 0].tolist(), second, strict=False):
            shares[line] *= 1 - part
            shares[line, self._columns[example.label]] += part

        starts = loud_starts(contexts, WINDOW, generator=generator)
        clean = TEACHER_LEVEL * windows_at(contexts, starts, WINDOW)
        noise = torch.where(torch.rand(len(first), 1, generator=generator) < 0.5, 10.0, 0.0)
        noise *= 10 ** (-1.5 - 1.5 * torch.rand(len(first), 1, generator=generator))
        contexts = contexts + noise.to(device) * torch.randn_like(contexts)
        contexts = contexts * random_levels(len(first), generator=generator).to(device)
        windows = windows_at(contexts, starts, WINDOW)
        encoder = self.network.encoder.audio_encoder
        spectrogram = standardized_spectrogram(encoder, contexts.unbind(), windows.unbind(), device=device)
        masked = mask_spectrogram(spectrogram, generator=generator)
        return Batch(masked, shares[: len(chosen)].to(device), clean)

    def _excerpts(self, examples: Sequence[AudioExample], generator: torch.Generator) -> Tensor:
        """Excerpts (B, CONTEXT) of sounds at a random speed and pitch, all equally loud."""
        samples = [example.samples for example in examples]
        return normalized(random_excerpts(samples, CONTEXT, generator=generator, device=self.device))

    @torch.no_grad()
    def scores(self, network: TaggingModel) -> dict[str, float]:
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

    def exported(self, network: TaggingModel) -> Wav2CLIP:
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


def weighted_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy to targets (B, C) that sum to a weight of at most 1, over the number of targets."""
    return -(targets * logits.log_softmax(dim=1)).sum(dim=1).mean()


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
    """The unit vector (D,) of a sound of int16 samples, from at most `MOST_WINDOWS` of its windows."""
    windows = windows_of(torch.as_tensor(samples).float() / 32768, WINDOW, WINDOW // 2)
    chosen = torch.linspace(0, len(windows) - 1, min(MOST_WINDOWS, len(windows))).long()
    return encoder.encode_sound(windows[chosen])[1]
