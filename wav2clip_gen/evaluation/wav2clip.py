"""What the sound encoder hears in recordings it was not trained on, asked in words through the text tower."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from wav2clip_gen.errors import W2CError
from wav2clip_gen.evaluation.classes import AUDIOSET, ESC_50, audioset_names, in_words
from wav2clip_gen.evaluation.held_out import HeldOut, embed_sounds, embed_words, supervision
from wav2clip_gen.evaluation.parts import OnProgress
from wav2clip_gen.evaluation.ranks import Ranking, rank
from wav2clip_gen.evaluation.tables import Table, hit_rows, percent
from wav2clip_gen.models.registry import Models


@dataclass(frozen=True, kw_only=True)
class Wav2CLIPFigures:
    """Rank of a sound's own name among names that the text tower read."""

    esc50: Ranking  # ESC-50's clips over its 50 class names
    mean_of_classes: float  # top-1 of each class that there are clips of, averaged
    classes: int  # that there are clips of
    joined: Ranking  # with the pieces of other sets that belong to a class of ESC-50
    audioset: Ranking  # the same pieces over AudioSet's names
    supervision: str

    def table(self) -> Table:
        """The figures, for people."""
        rows = (
            *hit_rows("ESC-50 clips over its 50 class names", self.esc50),
            (
                f"the same, top-1, mean over the {self.classes} classes with clips",
                percent(self.mean_of_classes),
                percent(self.esc50.chances[1]),
            ),
            *hit_rows("and pieces of other sets of the same classes", self.joined),
            *hit_rows(f"the same pieces over {self.audioset.candidates} AudioSet names", self.audioset),
        )
        return Table(
            title="Wav2CLIP: the name of a sound, by the text tower",
            rows=rows,
            notes=(
                "Held out: recordings (fold 4 of ESC-50, a quarter of the other recordings)."
                f" The sound encoder: {self.supervision}."
                " The question is `the sound of NAME`, read by the text tower, which was trained apart; the training's"
                " own scores ask with the vectors that the encoder was trained towards. A piece may have several right"
                " AudioSet names; the classes that AudioSet has no name for are left out there.",
            ),
        )


def measure_wav2clip(family: Models, held_out: HeldOut, *, on_progress: OnProgress) -> Wav2CLIPFigures:
    """Ask for the names of held-out sounds.

    Raises:
        W2CError: None of them belongs to a class of ESC-50.
    """
    pieces = tuple(piece for piece in held_out.sounds if piece.label in ESC_50)
    of_esc = torch.tensor([piece.set == "esc" for piece in pieces], dtype=torch.bool)
    of_audioset = torch.tensor([piece.label in AUDIOSET for piece in pieces], dtype=torch.bool)
    if not (of_esc & of_audioset).any():
        raise W2CError("none of the held-out sounds is a clip of ESC-50", hint="raise --limit, or leave wav2clip out")
    on_progress(0, len(pieces))
    heard = embed_sounds(family, pieces)
    on_progress(len(pieces), len(pieces))

    truth = torch.tensor([ESC_50.index(piece.label) for piece in pieces])
    scores = heard @ embed_words(family, [in_words(name) for name in ESC_50]).T
    right = torch.nn.functional.one_hot(truth, len(ESC_50)).bool()
    best = (scores.argmax(dim=1) == truth)[of_esc].double()
    classes = truth[of_esc].unique()

    names = audioset_names(held_out.data)
    columns = {name: number for number, name in enumerate(names)}
    theirs = torch.zeros(len(pieces), len(names), dtype=torch.bool)
    for line, piece in enumerate(pieces):
        theirs[line, [columns[name] for name in AUDIOSET.get(piece.label, ())]] = True
    their_scores = heard @ embed_words(family, [in_words(name) for name in names]).T
    return Wav2CLIPFigures(
        esc50=rank(scores[of_esc], right[of_esc]),
        mean_of_classes=torch.stack([best[truth[of_esc] == one].mean() for one in classes]).mean().item(),
        classes=len(classes),
        joined=rank(scores, right),
        audioset=rank(their_scores[of_audioset], theirs[of_audioset]),
        supervision=supervision(family),
    )
