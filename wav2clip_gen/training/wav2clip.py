"""Train the sound encoder by distilling CLIP into it (Wu et al., arXiv 2110.11499).

The paper has videos: a sound, and the frames seen with it. The small family has sounds with labels and
pictures with labels, so what is "seen" is the mean CLIP embedding of the pictures of a label, beside the
label's text embedding.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from wav2clip_gen.audio.track import ENCODER_RATE
from wav2clip_gen.errors import TrainingError
from wav2clip_gen.models import checkpoints
from wav2clip_gen.models.clip import Perceptor
from wav2clip_gen.models.wav2clip import Wav2CLIP, Wav2CLIPConfig
from wav2clip_gen.training.anchors import (
    Concepts,
    extend,
    load_anchors,
    make_deriver,
    notes,
    picture_concepts,
    refuse_unknown,
    wanted_by_pictures,
)
from wav2clip_gen.training.data import Pixels, load_pictures
from wav2clip_gen.training.decoding import Reading
from wav2clip_gen.training.distillation import Distillation, standardised
from wav2clip_gen.training.loop import Recipe, seeded
from wav2clip_gen.training.sounds import Sound, Sounds, excerpt, joined_labels, label_table, load_sounds, loud_window
from wav2clip_gen.training.teacher import Teacher, load_unlabelled, without_label

MINI = Wav2CLIPConfig(width=32)
WINDOW = ENCODER_RATE  # samples, 1 s
CONTEXT = 4 * ENCODER_RATE  # samples that the statistics are taken from, as in use from the whole track
FEWEST_PICTURES = 8  # for which a label's pictures have a mean worth aiming at
SHARPENING = 0.5  # how much of what all pictures share is taken off a label's mean: the rest draws more clearly
MOST_PICTURES = 400  # that a label's mean is taken over


@dataclass(frozen=True, kw_only=True)
class Wav2CLIPTraining:
    """Settings of a run."""

    batch: int = 32  # windows a step
    learning_rate: float = 1e-3
    mixing: float = 0.3  # share of the windows with a second sound mixed in
    smoothing: float = 0.1  # of the labels
    pull: float = 0.5  # weight of the plain cosine to what is seen, beside the contrast
    teacher: float = 0.0  # weight of what a tagger hears in sounds, labelled or not


class Wav2CLIPRecipe(Recipe[Distillation]):
    """The sound encoder learns where the pictures of what it hears lie."""

    name = "wav2clip"

    def __init__(
        self,
        data: Path,
        clip: Path,
        settings: Wav2CLIPTraining | None = None,
        *,
        config: Wav2CLIPConfig = MINI,
        unlabelled: Path | None = None,
        reading: Reading | None = None,
        seed: int = 0,
        device: str | torch.device = "cpu",
    ) -> None:
        """Read sounds and pictures, and embed the pictures with the trained image tower at `clip`.

        `unlabelled` is a folder of more sounds, for the teacher alone.

        Raises:
            TrainingError: Some of the data is missing, or its labels mean nothing that can be seen.
        """
        self.settings: Wav2CLIPTraining = settings or Wav2CLIPTraining()
        self.seed, self.device = seed, torch.device(device)
        anchors = load_anchors(data)
        derive = make_deriver(anchors)
        reading = reading or Reading()
        train, held_out = load_sounds(data, reading=reading)
        self.skipped = train.skipped
        self._clip_digest = checkpoints.digest(clip)[:12]
        perceptor = checkpoints.load(clip, role="clip").to(self.device)
        assert isinstance(perceptor, Perceptor)
        concepts = extend(anchors, wanted_by_pictures(data), derive)
        self.labels = label_table(data, train.labels, concepts, derive)
        table = set(joined_labels(data).values()).union(self.labels.names)
        meant = {(piece.set, piece.label): piece.label in table for piece in train.pieces}
        refuse_unknown(meant, table=data / "text" / "audio_labels.csv")
        self.images = self._image_targets(data, perceptor, concepts, reading).to(self.device)
        self.train, self.validation = (part.having(self.labels.names) for part in (train, held_out))
        if not (self.train.pieces and self.validation.pieces):
            raise TrainingError(
                f"{data}: no sound has a label that can be seen, on both sides of the split",
                hint="do the labels stand in text/audio_labels.csv? see 'Training them again' in weights/README.md",
            )
        self._begin_teaching(data, concepts, train, unlabelled)
        self.notes = notes(self.skipped, derived=derive is not None, reading=reading)
        self.text = self.labels.text.to(self.device)
        counts = {name: 0 for name in self.labels.names}
        for piece in self.train.pieces:
            counts[piece.label] += 1
        self._weights = torch.tensor([counts[piece.label] ** -0.5 for piece in self.train.pieces])
        with seeded(seed):
            self.network = Distillation(config).to(self.device).train()
        weights = [parameter for parameter in self.network.parameters() if parameter is not self.network.log_scale]
        groups = [
            {"params": weights, "weight_decay": 0.05},
            # a short run has no time for a temperature that moves by 0.001 a step
            {"params": [self.network.log_scale], "weight_decay": 0.0, "scale": 10.0},
        ]
        self.optimiser = torch.optim.AdamW(groups, lr=self.settings.learning_rate, betas=(0.9, 0.98))

    def _begin_teaching(self, data: Path, concepts: Concepts, train: Sounds, unlabelled: Path | None) -> None:
        """Read the teacher, and what only that knows something of."""
        self._teacher: Teacher | None = None
        self._taught: tuple[Sound, ...] = ()
        if self.settings.teacher <= 0:
            if unlabelled:
                raise TrainingError(
                    "sounds without labels are for the teacher, which is off", hint="give --teacher 1, or so"
                )
            return
        more = load_unlabelled(unlabelled) if unlabelled else Sounds(())
        self.skipped += more.skipped
        self._teacher = Teacher(data, concepts, device=self.device)
        self._taught = (*more.pieces, *without_label(train.pieces, self.labels.names)) or self.train.pieces

    def _image_targets(self, data: Path, perceptor: Perceptor, concepts: Concepts, reading: Reading) -> Tensor:
        """For each label the unit vector (K, D) of the pictures seen where it is heard."""
        once = Reading(memory=0, workers=reading.workers)  # each is looked at once
        pictures = load_pictures(data, "train", reading=once)
        self.skipped += pictures.skipped
        shown = picture_concepts(data, pictures.descriptions, concepts)
        means, known = concept_means(perceptor, pictures.pixels, shown, len(concepts.names))
        shared = F.normalize(means[known].mean(dim=0), dim=-1)
        means = F.normalize(means - SHARPENING * shared, dim=-1)
        images = Bridge(concepts.vectors[known], means[known])(self.labels.text)
        for number, rows in enumerate(self.labels.seen):
            with_pictures = [row for row in rows if known[row]]
            if with_pictures:
                images[number] = F.normalize(means[with_pictures].mean(dim=0), dim=-1)
        return images

    def losses(self, step: int, progress: float, generator: torch.Generator) -> dict[str, Tensor]:
        """Contrast sounds with what is seen, both ways, in both projections, and with the labels' words."""
        spectrogram, shares = self._batch(generator)
        with self.batch():
            features, embeddings = self.network(spectrogram)
            projected = F.normalize(self.network.image_transform(self.images), dim=-1)
        features, embeddings, projected = features.float(), embeddings.float(), projected.float()
        scale = self.network.scale
        smooth = self.settings.smoothing
        seen = F.normalize(shares @ self.images, dim=-1)
        terms = {
            "sound-image": 0.5 * contrast(scale * embeddings @ self.images.T, shares, smoothing=smooth),
            "sound-projected image": 0.5 * contrast(scale * features @ projected.T, shares, smoothing=smooth),
            "sound-text": 0.5 * F.cross_entropy(scale * embeddings @ self.text.T, shares, label_smoothing=smooth),
            "pull": self.settings.pull * (1 - (embeddings * seen).sum(dim=-1)).mean(),
        }
        if self._teacher is not None:
            spectrogram, windows = self._taught_batch(generator)
            with self.batch():
                _, embeddings = self.network(spectrogram)
            terms["teacher"] = self.settings.teacher * self._teacher.loss(embeddings.float(), windows, scale)
        return terms

    def _taught_batch(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Standardised spectrograms (B / 2, 1, 257, T) and windows (B / 2, N) of sounds that the teacher judges."""
        size = max(self.settings.batch // 2, 2)  # batch norm needs two
        chosen = torch.randint(len(self._taught), (size,), generator=generator).tolist()
        contexts = [self._varied(self._taught[number], generator) for number in chosen]
        windows = [loud_window(context, WINDOW, generator=generator) for context in contexts]
        around, heard = (torch.stack(sounds).to(self.device) for sounds in (contexts, windows))
        return standardised(self.network.encoder.audio_encoder, around, heard), heard

    def _batch(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Standardised spectrograms (B, 1, 257, T) and the share (B, K) of each label in them."""
        settings = self.settings
        chosen = torch.multinomial(self._weights, 2 * settings.batch, generator=generator).view(2, -1)
        shares = torch.zeros(settings.batch, len(self.labels.names))
        contexts, windows = [], []
        for line, (first, second) in enumerate(chosen.T.tolist()):
            context, mix = self._varied(self.train.pieces[first], generator), 0.0
            draws = torch.rand(4, generator=generator).tolist()
            if draws[0] < settings.mixing:
                mix = 0.2 + 0.3 * draws[1]
                context = (1 - mix) * context + mix * self._varied(self.train.pieces[second], generator)
            if draws[2] < 0.5:
                context = context + 10 ** (-0.5 - 1.5 * draws[3]) * context.std() * torch.randn(
                    len(context), generator=generator
                )
            shares[line, self.labels.index(self.train.pieces[first].label)] += 1 - mix
            if mix:
                shares[line, self.labels.index(self.train.pieces[second].label)] += mix
            contexts.append(context)
            windows.append(loud_window(context, WINDOW, generator=generator))
        around, heard = (torch.stack(sounds).to(self.device) for sounds in (contexts, windows))
        spectrogram = standardised(self.network.encoder.audio_encoder, around, heard)
        return mask_bands(spectrogram, generator=generator), shares.to(self.device)

    def _varied(self, piece: Sound, generator: torch.Generator) -> Tensor:
        """A stretch (CONTEXT,) of a piece at a random speed, pitch and level."""
        part = excerpt(piece, CONTEXT, generator=generator)
        level = 0.02 + 0.18 * torch.rand(1, generator=generator)
        return part * level / part.std().clamp(min=1e-4)

    @torch.no_grad()
    def scores(self, network: Distillation) -> dict[str, float]:
        """Top-1 on recordings not trained on: over all labels, and of ESC-50's clips over its labels."""
        pieces, names = self.validation.pieces, self.labels.names
        embeddings = torch.stack([piece_embedding(network.encoder, piece.samples) for piece in pieces])
        truth = torch.tensor([self.labels.index(piece.label) for piece in pieces])
        by_text, by_image = (embeddings @ targets.cpu().T for targets in (self.text, self.images))
        right = (by_text.argmax(dim=1) == truth).float()
        scores = {
            "top1 text": right.mean().item(),
            "top5 text": (by_text.topk(min(5, len(names)), dim=1).indices == truth[:, None])
            .any(dim=1)
            .float()
            .mean()
            .item(),
            "top1 mean of labels": torch.stack([right[truth == label].mean() for label in truth.unique()])
            .mean()
            .item(),
            "top1 image": (by_image.argmax(dim=1) == truth).float().mean().item(),
            "chance": 1 / len(names),
            "pieces": float(len(truth)),
        }
        of_esc = torch.tensor([piece.set == "esc" for piece in pieces])
        columns = torch.tensor(sorted({self.labels.index(p.label) for p in self.train.pieces if p.set == "esc"}))
        if of_esc.any() and len(columns):
            chosen = columns[by_text[of_esc][:, columns].argmax(dim=1)]
            scores["top1 esc"] = (chosen == truth[of_esc]).float().mean().item()
            scores["esc labels"] = float(len(columns))
        return scores

    def part(self, network: Distillation) -> Wav2CLIP:
        """The sound encoder alone."""
        return network.encoder

    def conditions(self) -> dict[str, Any]:
        """The sounds and the CLIP that sees what belongs to them decide the run as much as the settings."""
        sounds = {"pieces": len(self.train.pieces), "without label": len(self._taught)}
        return {**sounds, "labels": len(self.labels.names), "clip": self._clip_digest}

    def provenance(self) -> dict[str, Any]:
        """Settings and data sets."""
        sets = sorted({piece.set for piece in self.train.pieces})
        return {"settings": asdict(self.settings), "sets": sets, "pieces": len(self.train.pieces)}


class Bridge:
    """From words to what their pictures look like, for concepts without pictures: a mean of neighbours."""

    def __init__(self, words: Tensor, pictures: Tensor, *, sharpness: float = 40.0) -> None:
        self._centre = words.mean(dim=0)
        self._words = F.normalize(words - self._centre, dim=-1)
        self._pictures, self._sharpness = pictures, sharpness

    def __call__(self, words: Tensor) -> Tensor:
        """Map text vectors (N, D) to unit image vectors (N, D)."""
        likeness = F.normalize(words - self._centre, dim=-1) @ self._words.T
        return F.normalize((self._sharpness * likeness).softmax(dim=1) @ self._pictures, dim=-1)


def contrast(logits: Tensor, shares: Tensor, *, smoothing: float) -> Tensor:
    """InfoNCE both ways between sounds and targets: logits (B, K), shares (B, K) of each in each sound.

    The paper's negatives are the other clips of the batch. Our targets belong to labels, so all of them can
    be negatives of a sound, and all sounds of a label are positives of its target.
    """
    to_target = F.cross_entropy(logits, shares, label_smoothing=smoothing)
    present = shares.sum(dim=0) > 0
    positives = shares.T[present]
    to_sound = F.cross_entropy(logits.T[present], positives / positives.sum(dim=1, keepdim=True))
    return (to_target + to_sound) / 2


def mask_bands(spectrogram: Tensor, *, generator: torch.Generator) -> Tensor:
    """Blank a band of frequencies and one of columns in each spectrogram (Park et al., arXiv 1904.08779)."""
    masked = spectrogram.clone()
    for picture in masked:
        for axis, widest in ((1, 40), (2, 8)):
            length = picture.shape[axis]
            width, place = torch.rand(2, generator=generator).tolist()
            size = int(width * widest)
            start = int(place * (length - size))
            picture.narrow(axis, start, size).zero_()
    return masked


@torch.no_grad()
def concept_means(
    perceptor: Perceptor, pixels: Pixels | Tensor, shown: list[list[int]], count: int
) -> tuple[Tensor, Tensor]:
    """Mean image embedding (count, D) of each concept's pictures, and which concepts (count,) have enough.

    Raises:
        TrainingError: None has.
    """
    members: dict[int, list[int]] = {}
    for at, rows in enumerate(shown):
        for row in rows:
            if len(members.setdefault(row, [])) < MOST_PICTURES:
                members[row].append(at)
    members = {row: these for row, these in members.items() if len(these) >= FEWEST_PICTURES}
    if not members:
        raise TrainingError(
            f"no concept is shown by {FEWEST_PICTURES} pictures or more", hint="sounds need pictures to aim at"
        )
    needed = sorted({at for these in members.values() for at in these})
    embedded: dict[int, Tensor] = {}
    for start in range(0, len(needed), 64):
        part = needed[start : start + 64]
        pictures = pixels[part].to(perceptor.device).float() / 255
        pictures = F.interpolate(pictures, size=(perceptor.size, perceptor.size), mode="area")
        embedded.update(zip(part, perceptor.encode_images(pictures).cpu(), strict=True))
    dimensions = next(iter(embedded.values())).shape[0]
    means, known = torch.zeros(count, dimensions), torch.zeros(count, dtype=torch.bool)
    for row, these in members.items():
        means[row] = F.normalize(torch.stack([embedded[at] for at in these]).mean(dim=0), dim=-1)
        known[row] = True
    return means, known


def piece_embedding(encoder: Wav2CLIP, samples: Any, *, most: int = 16) -> Tensor:
    """The unit vector (D,) of a whole piece of int16 samples: the mean of its windows that are not silent."""
    sound = torch.as_tensor(samples).float() / 32768
    if len(sound) < WINDOW:
        sound = sound.repeat(-(-WINDOW // len(sound)))[:WINDOW]
    windows = sound.unfold(0, WINDOW, WINDOW // 2)
    windows = windows[torch.linspace(0, len(windows) - 1, min(most, len(windows))).long()]
    loudness = windows.square().mean(dim=1).sqrt()
    windows = windows[loudness >= 0.1 * loudness.max()]
    return F.normalize(encoder.encode_windows(lambda: [windows]).mean(dim=0), dim=0)
