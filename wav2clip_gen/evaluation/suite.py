"""All evaluations of a family, one after the other."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from wav2clip_gen.evaluation.clip import measure_clip
from wav2clip_gen.evaluation.film import measure_film
from wav2clip_gen.evaluation.held_out import HeldOut
from wav2clip_gen.evaluation.judge import load_judge
from wav2clip_gen.evaluation.parts import PARTS, Advanced, Began, Event, Measured
from wav2clip_gen.evaluation.retrieval import measure_retrieval
from wav2clip_gen.evaluation.tables import Figures
from wav2clip_gen.evaluation.vqgan import measure_vqgan
from wav2clip_gen.evaluation.wav2clip import measure_wav2clip
from wav2clip_gen.models.registry import Models

MEASURES: dict[str, Callable[..., Figures]] = {
    "vqgan": measure_vqgan,
    "clip": measure_clip,
    "wav2clip": measure_wav2clip,
    "retrieval": measure_retrieval,
    "film": measure_film,
}


def evaluate(
    family: Models,
    data: Path,
    *,
    parts: tuple[str, ...] = tuple(PARTS),
    limit: int | None = None,
    seed: int = 0,
    on_event: Callable[[Event], None] = lambda event: None,
) -> dict[str, Figures]:
    """Measure what a family is worth on data it was not trained on.

    Args:
        family: The networks.
        data: Folder of the training data, as weights/README.md describes it.
        parts: What to measure, of `PARTS`.
        limit: Pictures, sounds and films at most, of each kind.
        seed: Decides which, the adversary's starts, and the films'.
        on_event: Is told of all that happens.

    Raises:
        W2CError: The data lacks what a part needs, or the judge of the films is not installed.
    """
    held_out = HeldOut(data, limit, seed)
    if "film" in parts:
        load_judge()  # an hour later would be late to learn that it is missing
    found: dict[str, Figures] = {}
    for part in parts:
        on_event(Began(part))
        began = time.perf_counter()

        def advance(done: int, total: int, *, part: str = part) -> None:
            on_event(Advanced(part, done, total))

        found[part] = MEASURES[part](family, held_out, on_progress=advance)
        on_event(Measured(part, found[part], time.perf_counter() - began))
    return found
