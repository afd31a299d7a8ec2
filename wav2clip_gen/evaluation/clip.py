"""Classification by the image tower: held-out pictures over the trained concepts, clean and adversarial."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from wav2clip_gen.errors import W2CError
from wav2clip_gen.evaluation.held_out import HeldOut, batches, encode_images
from wav2clip_gen.evaluation.ranking import Ranking, rank
from wav2clip_gen.evaluation.tables import Row, Table
from wav2clip_gen.models import checkpoints
from wav2clip_gen.models.clip import Perceptor
from wav2clip_gen.models.registry import Models
from wav2clip_gen.training.clip import adversarial_step

BATCH = 64
KINDS = {"natural": "photographs", "tiny": "Tiny-ImageNet"}
RADIUS, RADIUS_SIZE = 2.0, 64  # of the adversary if the weights file tells none: L2 over a picture of 64 px in [-1, 1]
MAX_SCALE = 100.0  # of the logits, as in CLIP


def measure(family: Models, held_out: HeldOut, *, on_progress: Callable[[int, int], None]) -> Table:
    """Rank the concepts that validation pictures show among all concepts that training pictures show.

    Raises:
        W2CError: No validation picture shows such a concept.
    """
    concepts, trained, remarks = held_out.trained_concepts()
    columns = {row: column for column, row in enumerate(trained)}
    anchors = concepts.vectors[trained].to(family.device)
    tower_radius = _training_settings(family).get("radius")
    radius = (RADIUS if tower_radius is None else tower_radius) * family.clip.size / RADIUS_SIZE
    examples = {}
    for kind in KINDS:
        pictures = held_out.all_pictures(kind)
        shown = [[columns[row] for row in rows if row in columns] for rows in held_out.shown(pictures, concepts)]
        known = [index for index, found in enumerate(shown) if found]
        chosen = [known[index] for index in held_out.sample(len(known))]
        if chosen:
            examples[kind] = pictures.some(chosen), _multi_hot([shown[index] for index in chosen], len(trained))
    if not examples:
        raise W2CError(
            "no validation picture shows a trained concept", hint="fetch the data again, or give another folder"
        )
    generator = held_out.generator(-2)
    done, total = 0, sum(len(pictures) for pictures, _ in examples.values())
    clean: dict[str, Ranking] = {}
    robust: dict[str, Ranking] = {}
    for kind, (pictures, right) in examples.items():
        embedded: list[Tensor] = []
        attacked: list[Tensor] = []
        for batch, targets in zip(
            batches(pictures, family.device, batch=BATCH, size=family.clip.size), right.split(BATCH), strict=True
        ):
            loss = concept_loss(family.clip, targets.to(family.device), anchors)
            # the radius is that of pictures in [-1, 1], these are in [0, 1]
            changed = adversarial_step(loss, batch, radius=radius / 2, generator=generator) if radius else batch
            embedded.append(encode_images(family, batch))
            attacked.append(encode_images(family, changed))
            done += len(batch)
            on_progress(done, total)
        clean[kind], robust[kind] = (rank(torch.cat(found) @ anchors.T.cpu(), right) for found in (embedded, attacked))
    own = "the one the tower was trained against"
    return _table(clean, robust, radius, own if tower_radius is not None else f"not {own}", remarks)


def _table(
    clean: dict[str, Ranking], robust: dict[str, Ranking], radius: float, adversary: str, remarks: tuple[str, ...]
) -> Table:
    rows: list[Row] = []
    for kind, ranking in clean.items():
        rows += ranking.rows(KINDS[kind])
        rows += robust[kind].rows(f"{KINDS[kind]}, adversarial")
    note = (
        f"Validation pictures, not trained on, over the {next(iter(clean.values())).candidates} concepts of the"
        " training pictures. The adversary takes one gradient step from a random start, within an L2 radius of"
        f" {radius:g} over pictures in [-1, 1]: {adversary}."
    )
    figures = {"clean": clean, "robust": robust, "radius": radius, "adversary": adversary, "remarks": remarks}
    title = "CLIP, image tower: classification of pictures by concept"
    return Table(title=title, rows=rows, notes=[note, *remarks], figures=figures)


def concept_loss(network: Perceptor, right: Tensor, anchors: Tensor) -> Callable[[Tensor], Tensor]:
    """The training loss of pictures (B, 3, S, S) that show the concepts `right`, (B, K) bool."""
    targets = right / right.sum(dim=1, keepdim=True)

    def loss(pictures: Tensor) -> Tensor:
        with torch.autocast(pictures.device.type, dtype=torch.bfloat16):  # as in training
            embeddings = network.encode_images(pictures)
        scale = network.model.logit_scale.exp().clamp(max=MAX_SCALE)
        return F.cross_entropy(scale * embeddings.float() @ anchors.T, targets)

    return loss


def _multi_hot(shown: list[list[int]], columns: int) -> Tensor:
    """Which concepts each picture shows, (B, K) bool."""
    right = torch.zeros(len(shown), columns, dtype=torch.bool)
    for line, found in enumerate(shown):
        right[line, found] = True
    return right


def _training_settings(family: Models) -> dict[str, float]:
    """The settings that the image tower was trained with, if its file tells them."""
    training = checkpoints.read_header(family.files["clip"]).training
    return training.get("image", training).get("settings", {})
