"""Retrieval of held-out sounds by text, and of held-out photographs by sounds."""

from __future__ import annotations

from collections.abc import Callable

import torch

from wav2clip_gen.errors import W2CError
from wav2clip_gen.evaluation import held_out as data
from wav2clip_gen.evaluation.ranking import rank
from wav2clip_gen.evaluation.tables import Row, Table
from wav2clip_gen.models.registry import Models

WITHIN = (1, 5, 10)
BATCH = 64


def measure(family: Models, held_out: data.HeldOut, *, on_progress: Callable[[int, int], None]) -> Table:
    """Rank the sounds of a label, and the photographs of what is visible where a sound occurs.

    Raises:
        W2CError: No photograph shows what is visible where one of the sounds occurs.
    """
    pieces, photographs = held_out.sounds, held_out.photographs
    labels = sorted({piece.label for piece in pieces})
    done, total = len(pieces), len(pieces) + len(photographs)
    sounds = data.embed_sounds(family, pieces)
    on_progress(done, total)
    pictures = []
    for batch in data.batches(photographs, family.device, batch=BATCH):
        pictures.append(data.encode_images(family, batch))
        done += len(batch)
        on_progress(done, total)

    same_label = torch.tensor([[piece.label == label for piece in pieces] for label in labels])
    shown = [set(rows) for rows in held_out.shown(photographs, held_out.concept_names)]
    shows_source = torch.tensor([[bool(rows & theirs) for theirs in shown] for rows in held_out.visible(pieces)])
    known = shows_source.any(dim=1)
    if not known.any():
        raise W2CError("no photograph shows what one of the sounds comes from", hint="raise --limit")
    by_text = rank(data.embed_sound_names(family, labels) @ sounds.T, same_label, within=WITHIN)
    by_sound = rank((sounds @ torch.cat(pictures).T)[known], shows_source[known], within=WITHIN)

    rows: list[Row] = []
    for name, ranking in (("text to sound", by_text), ("sound to image", by_sound)):
        rows += ranking.rows(name, metric="recall@{}")
        median = f"{ranking.median:g} of {ranking.candidates:,}"
        rows.append((f"{name}: median rank of the first right one", median, f"{ranking.chance_median:g}"))
    supervision = data.supervision(family)
    note = (
        f"Text to sound: {by_text.questions} labels, as `the sound of NAME`, each among {by_text.candidates} held-out"
        f" pieces of sound. Sound to image: {by_sound.questions} held-out pieces, each among {by_sound.candidates:,}"
        " validation photographs; right are those that show what is visible where the sound occurs. The sound encoder:"
        f" {supervision}."
    )
    figures = {"text_to_sound": by_text, "sound_to_image": by_sound, "supervision": supervision}
    return Table(title="Retrieval", rows=rows, notes=[note], figures=figures)
