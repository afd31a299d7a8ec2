"""The paper's figures: pictures of classes by text and by sound, and of the stems of songs.

Each picture is optimised from one vector, that of a text or of a whole sound, as the published scripts do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wav2clip_gen.benchmark.clips import Clip, Dataset, spoken
from wav2clip_gen.benchmark.datasets import STEMS
from wav2clip_gen.benchmark.encoders import SoundEncoder, Wav2CLIPEncoder
from wav2clip_gen.benchmark.features import Features, embed, leave_out_trained
from wav2clip_gen.benchmark.tables import MOST_MISSING
from wav2clip_gen.benchmark.tasks import Options
from wav2clip_gen.config import settings_from, suggestion
from wav2clip_gen.drawing import FAINT, GROUND, INK, font, truncate
from wav2clip_gen.errors import SettingsError, W2CError
from wav2clip_gen.images import Picture
from wav2clip_gen.models.registry import Models
from wav2clip_gen.synthesis.optimizer import FrameOptimizer, generator_for

if TYPE_CHECKING:
    from PIL import Image

MOST_COLUMNS = 10
SONGS = 3  # of musdb18, a row each
CENTRAL = 5  # clips of a class of which the one nearest to their mean is shown
SIDE, GAP, LEFT, LINE = 160, 6, 96, 20  # px
STEM_COLUMNS = ("vocals", "bass", "drums", "other", "mixture")  # the order of the paper's figure

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Row:
    """A row of a figure."""

    name: str
    pictures: list[Picture]


def paint(models: Models, vector: Tensor, *, steps: int, seed: int) -> Picture:
    """A picture (H, W, 3) that CLIP sees a unit vector (D,) in, from random colors, by `steps` steps."""
    device = models.device
    settings = settings_from(preset="still")
    large = models.vqgan.config.resolution
    settings = replace(settings, picture=replace(settings.picture, width=large, height=large))
    optimizer = FrameOptimizer(models, settings, generator=generator_for(seed, device), seed=seed)
    optimizer.optimize(vector.float().to(device), steps=steps, temporal_weight=0)
    return optimizer.decode_bytes()


def class_figure(
    dataset: Dataset,
    encoder: Wav2CLIPEncoder,
    *,
    classes: Sequence[str] = (),
    steps: int = 200,
    seed: int = 0,
    template: str = "{}",
    cache: Path | None = None,
    most_damaged: float = MOST_MISSING,
    on_progress: Progress = lambda done, total: None,
) -> Image.Image:
    """A column for each class: above the picture of its name, below that of one of its sounds.

    The sound is the clip that lies nearest to the mean of its class among the first few. Without `classes` the first
    ten of the set that have clips are shown.

    Raises:
        SettingsError: The set has no clips of one of the classes, or there are more than ten.
        W2CError: The set has no classes.
    """
    known = [name for name in dataset.classes if any(name in clip.labels for clip in dataset.clips)]
    if not known:
        raise W2CError(f"{dataset.name}: has no classes", hint="this figure needs a data set with labels")
    for name in classes:
        if name not in known:
            raise SettingsError(f"{dataset.name} has no clips of {name!r}", hint=suggestion(name, known))
    if len(classes) > MOST_COLUMNS:
        raise SettingsError(f"{len(classes)} classes are too many for a figure", hint=f"choose {MOST_COLUMNS} or fewer")
    classes = classes or known[:MOST_COLUMNS]
    clips = [clip for name in classes for clip in _first(dataset, name)]
    features = embed(clips, encoder, frames=False, cache=cache, most_damaged=most_damaged)
    texts = encoder.encode_texts([template.replace("{}", spoken(name)) for name in classes])
    sounds = torch.stack([_central(features, name) for name in classes])
    vectors = [*texts, *sounds]
    pictures = []
    for number, vector in enumerate(vectors):
        pictures.append(paint(encoder.models, vector, steps=steps, seed=seed + number % len(classes)))
        on_progress(number + 1, len(vectors))
    rows = [Row("text", pictures[: len(classes)]), Row("sound", pictures[len(classes) :])]
    return sheet(rows, [spoken(name) for name in classes])


def _first(dataset: Dataset, name: str) -> list[Clip]:
    return [clip for clip in dataset.clips if name in clip.labels][:CENTRAL]


def _central(features: Features, name: str) -> Tensor:
    own = torch.tensor([name in clip.labels for clip in features.clips])
    vectors = F.normalize(features.vectors[own], dim=1)
    return vectors[(vectors @ vectors.mean(dim=0)).argmax()]


def stem_figure(
    dataset: Dataset,
    encoder: Wav2CLIPEncoder,
    *,
    steps: int = 200,
    seed: int = 0,
    cache: Path | None = None,
    on_progress: Progress = lambda done, total: None,
) -> Image.Image:
    """A row for each of the first songs, a column for each stem and the mixture.

    Raises:
        W2CError: The set has no stems.
    """
    if dataset.classes != STEMS:
        raise W2CError(f"{dataset.name}: has no stems", hint="this figure needs musdb18")
    songs = list(dict.fromkeys(clip.recording for clip in dataset.clips))[:SONGS]
    clips = {clip.key: clip for clip in dataset.clips}
    chosen = [clips[f"{song}/{stem}"] for song in songs for stem in STEM_COLUMNS]
    pictures = []
    for number, vector in enumerate(embed(chosen, encoder, frames=False, cache=cache, most_damaged=0).vectors):
        pictures.append(paint(encoder.models, vector, steps=steps, seed=seed))
        on_progress(number + 1, len(chosen))
    width = len(STEM_COLUMNS)
    rows = [Row(song, pictures[width * number : width * (number + 1)]) for number, song in enumerate(songs)]
    return sheet(rows, STEM_COLUMNS)


def sheet(rows: Sequence[Row], columns: Sequence[str]) -> Image.Image:
    """Pictures in rows with their names at the left, and the names of the columns above."""
    from PIL import Image, ImageDraw

    size = (LEFT + len(columns) * (SIDE + GAP), LINE + GAP + len(rows) * (SIDE + GAP))
    page = Image.new("RGB", size, GROUND)
    pen = ImageDraw.Draw(page)
    for column, name in enumerate(columns):
        middle = LEFT + column * (SIDE + GAP) + SIDE / 2
        pen.text((middle, LINE / 2 + GAP / 2), truncate(name, SIDE, 14), fill=INK, font=font(14), anchor="mm")
    for number, row in enumerate(rows):
        top = LINE + GAP + number * (SIDE + GAP)
        pen.text((GAP, top + SIDE / 2), truncate(row.name, LEFT - 2 * GAP, 13), fill=FAINT, font=font(13), anchor="lm")
        for column, picture in enumerate(row.pictures):
            shown = Image.fromarray(np.asarray(picture)).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
            page.paste(shown, (LEFT + column * (SIDE + GAP), top))
    return page


def draw_figure(
    dataset: Dataset, encoder: SoundEncoder, options: Options, *, show: Callable[[str, int, int], None]
) -> Image.Image:
    """The figure of a set: of its stems where it has them, else of its classes, by recordings not trained on.

    Raises:
        SettingsError: The encoder cannot steer pictures, or the set lacks a class that is asked for.
        W2CError: The set has neither stems nor classes.
    """
    if not isinstance(encoder, Wav2CLIPEncoder):
        raise SettingsError(f"{encoder.name} cannot steer pictures", hint="use --encoder mini or wav2clip")
    given: dict[str, Any] = {
        "steps": options.steps, "seed": options.seed, "cache": options.cache,
        "on_progress": partial(show, "pictures painted"),
    }  # fmt: skip
    if dataset.classes == STEMS:
        return stem_figure(dataset, encoder, **given)
    dataset = replace(dataset, clips=tuple(leave_out_trained(dataset, encoder, keep=options.keep_trained)[0]))
    template = (*options.templates, "{}")[0]
    more: dict[str, Any] = {"classes": options.classes, "most_damaged": options.most_missing}
    return class_figure(dataset, encoder, template=template, **more, **given)
