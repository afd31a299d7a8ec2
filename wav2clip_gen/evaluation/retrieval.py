"""Sounds found by words, and pictures found by sounds, among what was not trained on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from wav2clip_gen.errors import W2CError
from wav2clip_gen.evaluation.classes import in_words
from wav2clip_gen.evaluation.held_out import HeldOut, embed_sounds, embed_words, supervision
from wav2clip_gen.evaluation.parts import OnProgress
from wav2clip_gen.evaluation.ranks import Ranking, rank
from wav2clip_gen.evaluation.tables import Table, hit_rows
from wav2clip_gen.models.families import Family

WITHIN = (1, 5, 10)
BATCH = 64


@dataclass(frozen=True, kw_only=True)
class RetrievalFigures:
    """Rank of the first right find."""

    text_to_sound: Ranking  # a question for each label: its sounds among all held-out ones
    sound_to_image: Ranking  # a question for each sound: pictures of what is seen where it is heard
    supervision: str

    def table(self) -> Table:
        """The figures, for people."""
        rows: list[tuple[str, str, str]] = []
        for what, ranking in (("text to sound", self.text_to_sound), ("sound to image", self.sound_to_image)):
            rows += hit_rows(what, ranking, measure="recall@{}")
            median = f"{ranking.median:g} of {ranking.candidates:,}"
            rows.append((f"{what}: median rank of the first right one", median, f"{ranking.chance_median:g}"))
        return Table(
            title="Retrieval",
            rows=tuple(rows),
            notes=(
                f"Text to sound: {self.text_to_sound.questions} labels, as `the sound of a name`, each among"
                f" {self.text_to_sound.candidates} held-out pieces of sound. Sound to image:"
                f" {self.sound_to_image.questions} held-out pieces, each among {self.sound_to_image.candidates:,}"
                " validation photographs; right are those of what is seen where it is heard."
                f" The sound encoder: {self.supervision}.",
            ),
        )


@torch.no_grad()
def measure_retrieval(family: Family, held_out: HeldOut, *, on_progress: OnProgress) -> RetrievalFigures:
    """Find held-out sounds by words, and validation photographs by held-out sounds.

    Raises:
        W2CError: No photograph shows what one of the sounds comes from.
    """
    pieces, pictures = held_out.sounds, held_out.pictures
    labels = sorted({piece.label for piece in pieces})
    total = len(pieces) + len(pictures)
    heard = embed_sounds(family, pieces)
    on_progress(len(pieces), total)
    own = torch.tensor([[piece.label == label for piece in pieces] for label in labels])
    asked = embed_words(family, [in_words(label) for label in labels])

    seen = []
    for start in range(0, len(pictures), BATCH):
        part = pictures.pixels[start : start + BATCH].to(family.device).float() / 255
        part = F.interpolate(part, size=(family.clip.size, family.clip.size), mode="area")
        seen.append(family.clip.encode_images(part).cpu())
        on_progress(len(pieces) + start + len(part), total)
    shown, wanted = held_out.shown(pictures), held_out.seen_where_heard(pieces)
    right = torch.tensor([[bool(rows & these) for these in shown] for rows in wanted])
    known = right.any(dim=1)
    if not known.any():
        raise W2CError("no photograph shows what one of the sounds comes from", hint="raise --limit")
    return RetrievalFigures(
        text_to_sound=rank(asked @ heard.T, own, within=WITHIN),
        sound_to_image=rank((heard @ torch.cat(seen).T)[known], right[known], within=WITHIN),
        supervision=supervision(family),
    )
