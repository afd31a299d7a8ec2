"""The measures of a family, and how they are run. Imports torch only when a measure runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from wav2clip_gen.config import suggestion
from wav2clip_gen.errors import SettingsError
from wav2clip_gen.evaluation.tables import Table

if TYPE_CHECKING:
    from wav2clip_gen.models.registry import Models

MEASURES = {  # the module of this package that has the function `measure`, and what that measures
    "vqgan": "reconstruction of photographs, and use of the codebook",
    "clip": "concepts that the image tower finds in clean and in adversarial pictures",
    "wav2clip": "zero-shot classification of sounds by the names of their classes",
    "retrieval": "sounds retrieved by text, and pictures retrieved by sounds",
    "film": "classes that an independent network finds in films of sounds",
}


def select_measures(names: str | None) -> tuple[str, ...]:
    """Read `vqgan,film` as measures, in the order of `MEASURES`; None is all of them.

    Raises:
        SettingsError: There is no such measure.
    """
    if names is None:
        return tuple(MEASURES)
    selected = [name.strip() for name in names.split(",")]
    for name in selected:
        if name not in MEASURES:
            raise SettingsError(f"there is no measure {name!r}", hint=suggestion(name, list(MEASURES)))
    return tuple(name for name in MEASURES if name in selected)


def evaluate(
    family: Models,
    data: Path,
    *,
    measures: tuple[str, ...] = tuple(MEASURES),
    limit: int | None = None,
    seed: int = 0,
    on_progress: Callable[[str, int, int], None] = lambda measure, done, total: None,
) -> Iterator[tuple[str, Table]]:
    """Run measures on held-out data, and yield the name and the table of each.

    Args:
        family: The networks.
        data: Folder of the training data, as weights/README.md describes it.
        measures: Of `MEASURES`.
        limit: Maximum number of pictures, sounds and films, of each kind.
        seed: Selects them, and seeds the adversary and the films.
        on_progress: Called with the measure, the examples done, and their total: 0 when the measure starts.

    Raises:
        W2CError: The data lacks what a measure needs, or the judge of the films is not installed.
    """
    from wav2clip_gen.evaluation.held_out import HeldOut
    from wav2clip_gen.evaluation.judge import load_judge

    held_out = HeldOut(data, limit, seed)
    if "film" in measures:
        load_judge()  # fails now instead of after an hour
    for name in measures:
        on_progress(name, 0, 0)
        measure = import_module(f"wav2clip_gen.evaluation.{name}").measure
        yield name, measure(family, held_out, on_progress=partial(on_progress, name))
