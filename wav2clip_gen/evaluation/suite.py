"""The measures of a family, how they are run, and their tables. Imports torch only when a measure runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wav2clip_gen.config import suggestion
from wav2clip_gen.errors import SettingsError, W2CError

if TYPE_CHECKING:
    from wav2clip_gen.models.registry import Models

MEASURES = {  # name and what it measures
    "vqgan": "reconstruction of photographs, and use of the codebook",
    "clip": "concepts that the image tower finds in clean and in adversarial pictures",
    "wav2clip": "zero-shot classification of sounds by the names of their classes",
    "retrieval": "sounds retrieved by text, and pictures retrieved by sounds",
    "film": "classes that independent networks find in films of sounds",
}
Row = tuple[str, str, str]  # measure, figure, chance


@dataclass(frozen=True, kw_only=True)
class Table:
    """The result of a measure: rows and notes for a reader, and the same figures as values for JSON."""

    title: str
    rows: list[Row]
    notes: list[str]
    figures: dict[str, Any]
    header: Row = ("measure", "figure", "chance")

    @classmethod
    def of(cls, measure: str, rows: list[Row], figures: dict[str, Any], *more: str, **shown: Any) -> Table:
        """The table of a measure, with the title and the notes of `notes.yaml`, and `more` notes.

        The notes are filled with the figures and with what is only `shown`.
        """
        import yaml

        texts = yaml.safe_load(Path(__file__).with_name("notes.yaml").read_text(encoding="utf-8"))[measure]
        notes = [note.format(**figures, **shown) for note in texts["notes"]]
        return cls(title=texts["title"], rows=rows, notes=[*notes, *more], figures=figures)


def percent(share: float) -> str:
    """A share as `62.2 %`."""
    return f"{100 * share:.1f} %"


def format_share(right: int, total: int) -> str:
    """A share with its counts, as `62.2 % (166 of 267)`."""
    return f"{percent(right / total)} ({right:,} of {total:,})"


def markdown(table: Table) -> str:
    """The table in Markdown, without its title."""
    lines = [table.header, ("---", "---", "---"), *table.rows]
    body = "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
    return "\n\n".join([body, *table.notes])


def section_markers(name: str) -> tuple[str, str]:
    """The comments around a generated section."""
    return f"<!-- {name}: made by `w2c-gen evaluate` -->", f"<!-- end of {name} -->"


def fill_sections(path: Path, sections: dict[str, str]) -> str:
    """The text of a page with the content between the markers of each section replaced.

    Raises:
        W2CError: It cannot be read, or does not have the markers of a section once.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise W2CError(f"{path}: cannot be read ({error.strerror})", hint="--write takes an existing page") from None
    for name, content in sections.items():
        begin, end = section_markers(name)
        pieces = re.split(f"{re.escape(begin)}.*?{re.escape(end)}", text, flags=re.DOTALL)
        if len(pieces) != 2:
            message = f"{path}: has {len(pieces) - 1} places for the table {name}, not one"
            raise W2CError(message, hint=f"write these two comments once: {begin} {end}")
        text = f"{pieces[0]}{begin}\n\n{content}\n\n{end}{pieces[1]}"
    return text


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
        W2CError: The data lacks what a measure needs, or the judges of the films are not installed.
    """
    from wav2clip_gen.evaluation import film
    from wav2clip_gen.evaluation import measures as figures
    from wav2clip_gen.evaluation.held_out import HeldOut

    held_out = HeldOut(data, limit, seed)
    if "film" in measures:
        film.load_judges()  # fails now instead of after an hour
    for name in measures:
        on_progress(name, 0, 0)
        measure = film.measure_film if name == "film" else getattr(figures, f"measure_{name}")
        yield name, measure(family, held_out, on_progress=partial(on_progress, name))
