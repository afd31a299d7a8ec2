"""What the image tower sees in pictures it was not trained on, clean and changed by an adversary."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from wav2clip_gen.errors import W2CError
from wav2clip_gen.evaluation.held_out import HeldOut
from wav2clip_gen.evaluation.parts import OnProgress
from wav2clip_gen.evaluation.ranks import Ranking, rank
from wav2clip_gen.evaluation.tables import Table, hit_rows
from wav2clip_gen.models import checkpoints
from wav2clip_gen.models.families import Family
from wav2clip_gen.training.clip import ImageRecipe, ImageTraining
from wav2clip_gen.training.loop import step_generator

BATCH = 64
SIZE_OF_RADIUS = 64  # pixels along each side of the pictures that the adversary's radius is given for
KINDS = {"natural": "photographs", "tiny": "Tiny-ImageNet"}


@dataclass(frozen=True, kw_only=True)
class ClipFigures:
    """Rank of a concept that a picture shows among all concepts that the training pictures show."""

    clean: dict[str, Ranking]  # by kind of picture
    robust: dict[str, Ranking]
    radius: float  # of the adversary, L2 in [-1, 1]
    adversary: str  # whose it is
    remarks: tuple[str, ...] = ()  # on the data

    def table(self) -> Table:
        """The figures, for people."""
        rows: list[tuple[str, str, str]] = []
        for kind, ranking in self.clean.items():
            rows += hit_rows(KINDS[kind], ranking)
            rows += hit_rows(f"{KINDS[kind]}, changed by the adversary", self.robust[kind])
        concepts = next(iter(self.clean.values())).candidates
        return Table(
            title="CLIP, image tower: which concept a picture shows",
            rows=tuple(rows),
            notes=(
                f"Validation pictures, not trained on, over {concepts} concepts that were. The adversary takes one"
                f" step from a random start, within an L2 radius of {self.radius:g} over pictures in [-1, 1]:"
                f" {self.adversary}.",
                *self.remarks,
            ),
        )


def measure_clip(family: Family, held_out: HeldOut, *, on_progress: OnProgress) -> ClipFigures:
    """Ask the image tower for the concept of validation pictures that show one.

    Raises:
        W2CError: None of them shows a concept that the training pictures show.
    """
    trained = _training(family).get("radius")
    radius = (ImageTraining().radius if trained is None else trained) * family.clip.size / SIZE_OF_RADIUS
    # the recipe knows which concepts were trained on, and the adversary
    recipe = ImageRecipe(held_out.data, ImageTraining(radius=radius), device=family.device)
    generator = step_generator(held_out.seed, -2)
    places = [
        place
        for place in range(len(recipe.validation))
        if any(row in recipe.columns for row in recipe.validation.concepts[place])
    ]
    by_kind = {
        kind: [place for place in places if recipe.validation.places[place][0] == number]
        for number, kind in enumerate(KINDS)
    }
    chosen = {kind: [these[at] for at in held_out.choose(len(these))] for kind, these in by_kind.items() if these}
    if not chosen:
        raise W2CError(
            "no validation picture shows a concept that was trained on",
            hint="fetch the data again, or give another folder with --data",
        )
    done, total = 0, sum(map(len, chosen.values()))
    clean: dict[str, Ranking] = {}
    robust: dict[str, Ranking] = {}
    for kind, these in chosen.items():
        found: list[Tensor] = []
        moved: list[Tensor] = []
        targets = recipe.validation.targets(these, recipe.columns)
        for start in range(0, len(these), BATCH):
            part = these[start : start + BATCH]
            pictures = _pictures(recipe, part, family.clip.size).to(family.device)
            wanted = targets[start : start + BATCH].to(family.device)
            changed = recipe.attack(family.clip, pictures, wanted, generator) if radius else pictures
            found.append(_likeness(family, pictures, recipe.anchors))
            moved.append(_likeness(family, changed, recipe.anchors))
            done += len(part)
            on_progress(done, total)
        clean[kind], robust[kind] = (rank(torch.cat(scores), targets > 0) for scores in (found, moved))
    own = "the one the tower was trained against" if trained is not None else "not one the tower was trained against"
    return ClipFigures(clean=clean, robust=robust, radius=radius, adversary=own, remarks=recipe.notes)


def _training(family: Family) -> dict[str, float]:
    """The settings that the image tower was trained with, where its file tells them."""
    training = checkpoints.read_header(family.files["clip"]).training
    return training.get("image", training).get("settings", {})


def _pictures(recipe: ImageRecipe, places: list[int], size: int) -> Tensor:
    """Validation pictures (B, 3, size, size) in [0, 1], all of one kind."""
    where = [recipe.validation.places[place] for place in places]
    pixels = recipe.validation.parts[where[0][0]].pixels[[at for _, at in where]]
    return F.interpolate(pixels.float() / 255, size=(size, size), mode="area")


@torch.no_grad()
def _likeness(family: Family, pictures: Tensor, anchors: Tensor) -> Tensor:
    return (family.clip.encode_images(pictures) @ anchors.T).cpu()
