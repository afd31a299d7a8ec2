"""Zero-shot classification: a sound has the class whose name, as a text, lies nearest to it in the shared space."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from wav2clip_gen.benchmark.clips import Dataset, spoken
from wav2clip_gen.benchmark.encoders import SoundEncoder
from wav2clip_gen.benchmark.features import Features
from wav2clip_gen.benchmark.probe import score, targets_of
from wav2clip_gen.benchmark.results import Figure, Result
from wav2clip_gen.errors import SettingsError, W2CError

TEMPLATES = ("{}", "the sound of {}")


def zero_shot(
    dataset: Dataset, features: Features, encoder: SoundEncoder, *, templates: Sequence[str] = TEMPLATES
) -> Result:
    """Classify all clips by the names of the classes, with each template and with the mean of all.

    Raises:
        SettingsError: The encoder has no text side, or a template has no place for the name.
        W2CError: The set has no classes.
    """
    if len(dataset.classes) < 2:
        raise W2CError(f"{dataset.name}: has no classes", hint="zero-shot needs a data set with labels")
    targets, vectors = targets_of(dataset, features.clips), features.vectors
    names = {template: class_vectors(dataset.classes, encoder, template) for template in templates}
    if len(templates) > 1:
        names["all templates"] = F.normalize(torch.stack(list(names.values())).mean(dim=0), dim=1)
    figures: dict[str, Figure] = {}
    chosen = {}
    for template, texts in names.items():
        similarity = F.normalize(vectors, dim=1) @ texts.T
        chosen[template] = similarity.argmax(dim=1).tolist()
        for measure, value in measures(similarity, targets, many=dataset.many_labels).items():
            figures[f"{measure}, {template.format('NAME')}"] = value
    predictions = [
        {"key": clip.key, "labels": clip.labels, **{name: dataset.classes[rows[row]] for name, rows in chosen.items()}}
        for row, clip in enumerate(features.clips)
    ]
    chance = {"top-1": 1 / len(dataset.classes), "top-5": min(5 / len(dataset.classes), 1.0)}
    return Result(
        task="zero-shot", dataset=dataset.name, encoder=encoder.name, identity=encoder.identity, figures=figures,
        chance={name: value for name in figures for measure, value in chance.items() if name.startswith(measure)},
        settings={"templates": list(templates)}, predictions=predictions,
        notes=[*dataset.notes, *features.notes, f"{len(features.clips)} clips of {len(dataset.classes)} classes."],
    )  # fmt: skip


def class_vectors(classes: Sequence[str], encoder: SoundEncoder, template: str) -> Tensor:
    """Unit vectors (K, E) of the names in a template such as "the sound of {}".

    Raises:
        SettingsError: The template has no place for the name, or the encoder no text side.
    """
    if "{}" not in template:
        raise SettingsError(f"the template {template!r} has no {{}}", hint='write "{}" where the name goes')
    return encoder.encode_texts([template.replace("{}", spoken(name)) for name in classes])


def measures(similarity: Tensor, targets: Tensor, *, many: bool) -> dict[str, float]:
    """Top-1 and top-5 accuracy, the mean of the classes' accuracies, and mAP, of similarities (N, K)."""
    precision = score(similarity, targets, many=True)
    if many:
        return precision
    right = targets.gather(1, similarity.argsort(dim=1, descending=True)[:, :5])  # (N, 5)
    of_class = (right[:, :1] * targets).sum(dim=0) / targets.sum(dim=0)
    return {
        "top-1": right[:, 0].mean().item(),
        "top-5": right.amax(dim=1).mean().item(),
        "mean of classes": of_class.nanmean().item(),
        **precision,
    }
