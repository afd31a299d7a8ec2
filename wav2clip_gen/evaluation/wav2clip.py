"""Zero-shot classification of held-out sounds by the text embeddings of class names."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from wav2clip_gen.errors import W2CError
from wav2clip_gen.evaluation.classes import AUDIOSET, ESC_50
from wav2clip_gen.evaluation.held_out import HeldOut, embed_sound_names, embed_sounds, supervision
from wav2clip_gen.evaluation.ranking import rank
from wav2clip_gen.evaluation.tables import Table, percent
from wav2clip_gen.models.registry import Models

NOTE = (
    "Held out: recordings (fold 4 of ESC-50, a quarter of the other recordings). The sound encoder: {}. The prompt is"
    " `the sound of NAME`, embedded by the text tower, which was trained separately; the training's own scores use the"
    " vectors that the encoder was trained towards. A piece may have several right AudioSet names; the classes that"
    " AudioSet has no name for are left out there."
)


def measure(family: Models, held_out: HeldOut, *, on_progress: Callable[[int, int], None]) -> Table:
    """Rank a sound's own name among ESC-50's and AudioSet's names.

    Raises:
        W2CError: No held-out sound is of a class of ESC-50, or the data's list of AudioSet names is another one.
    """
    pieces = tuple(piece for piece in held_out.sounds if piece.label in ESC_50)
    is_esc = torch.tensor([piece.set == "esc" for piece in pieces], dtype=torch.bool)
    is_audioset = torch.tensor([bool(AUDIOSET[piece.label]) for piece in pieces], dtype=torch.bool)
    if not (is_esc & is_audioset).any():
        raise W2CError("none of the held-out sounds is a clip of ESC-50", hint="raise --limit, or leave wav2clip out")
    on_progress(0, len(pieces))
    sounds = embed_sounds(family, pieces)
    on_progress(len(pieces), len(pieces))

    truth = torch.tensor([ESC_50.index(piece.label) for piece in pieces])
    scores = sounds @ embed_sound_names(family, ESC_50).T
    right = F.one_hot(truth, len(ESC_50)).bool()
    is_top = (scores.argmax(dim=1) == truth)[is_esc].double()
    classes = truth[is_esc].unique()
    mean_of_classes = torch.stack([is_top[truth[is_esc] == one].mean() for one in classes]).mean().item()

    names = held_out.audioset_names()
    columns = {name: number for number, name in enumerate(names)}
    if unknown := {name for theirs in AUDIOSET.values() for name in theirs} - columns.keys():
        raise W2CError(
            f"the data's AudioSet names lack {min(unknown)!r}", hint="put YAMNet's own list of classes there"
        )
    audioset_right = torch.zeros(len(pieces), len(names), dtype=torch.bool)
    for line, piece in enumerate(pieces):
        audioset_right[line, [columns[name] for name in AUDIOSET[piece.label]]] = True
    audioset_scores = sounds @ embed_sound_names(family, names).T

    esc50, joined = rank(scores[is_esc], right[is_esc]), rank(scores, right)
    audioset = rank(audioset_scores[is_audioset], audioset_right[is_audioset])
    mean = f"the same, top-1, mean over the {len(classes)} classes with clips"
    return Table(
        title="Wav2CLIP: classification of sounds by the text tower",
        rows=[
            *esc50.rows("ESC-50 clips over its 50 class names"),
            (mean, percent(mean_of_classes), percent(esc50.chances[1])),
            *joined.rows("and pieces of other sets of the same classes"),
            *audioset.rows(f"the same pieces over {len(names)} AudioSet names"),
        ],
        notes=[NOTE.format(supervision(family))],
        figures={
            "esc50": esc50,
            "mean_of_classes": mean_of_classes,
            "classes": len(classes),
            "joined": joined,
            "audioset": audioset,
            "supervision": supervision(family),
        },
    )
