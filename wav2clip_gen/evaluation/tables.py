"""Figures as tables: for a terminal, for a pipe, and for the sections of a page that are not written by hand."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from wav2clip_gen.errors import W2CError
from wav2clip_gen.files import appear_whole

if TYPE_CHECKING:
    from wav2clip_gen.evaluation.ranks import Ranking


@dataclass(frozen=True, kw_only=True)
class Table:
    """Measures, a row each, under a title; the notes say what they were taken on."""

    title: str
    rows: tuple[tuple[str, str, str], ...]  # measure, figure, chance
    notes: tuple[str, ...] = ()
    header: tuple[str, str, str] = ("measure", "figure", "chance")


class Figures(Protocol):
    """What an evaluation gives: a frozen dataclass that can show itself."""

    def table(self) -> Table:
        """The figures, for people."""


def percent(share: float) -> str:
    """A share as `62.2 %`."""
    return f"{100 * share:.1f} %"


def counted(right: int, of: int) -> str:
    """A share with its counts, as `62.2 % (166 of 267)`."""
    return f"{percent(right / of)} ({right:,} of {of:,})"


def hit_rows(what: str, ranking: Ranking, *, measure: str = "top-{}") -> tuple[tuple[str, str, str], ...]:
    """A row for each k of a ranking; `measure` is what a hit among the first k is called."""
    return tuple(
        (f"{what}: {measure.format(k)}", counted(hits, ranking.questions), percent(ranking.chances[k]))
        for k, hits in ranking.hits.items()
    )


def markdown(table: Table) -> str:
    """The table in Markdown, without its title."""
    lines = [table.header, ("---", "---", "---"), *table.rows]
    body = "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
    return "\n\n".join([body, *table.notes])


def check_sections(path: Path, names: list[str]) -> None:
    """Make sure that a page has a place for each section, before any work is done for it.

    Raises:
        W2CError: It cannot be read, or has no such place.
    """
    _fill(path, dict.fromkeys(names, ""))


def write_sections(path: Path, sections: dict[str, str]) -> None:
    """Replace what stands between each section's two comments in a page; all else stays as it is.

    Raises:
        W2CError: The page cannot be read, or has no such place.
        OutputError: It cannot be written.
    """
    text = _fill(path, sections)
    with appear_whole(path) as part:
        part.write_text(text, encoding="utf-8")


def borders(name: str) -> tuple[str, str]:
    """The comments around a section."""
    return f"<!-- {name}: made by `w2c-gen evaluate` -->", f"<!-- end of {name} -->"


def _fill(path: Path, sections: dict[str, str]) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise W2CError(f"{path}: cannot be read ({error.strerror})", hint="--write takes a page that exists") from None
    for name, content in sections.items():
        begin, end = borders(name)
        parts = re.split(f"{re.escape(begin)}.*?{re.escape(end)}", text, flags=re.DOTALL)
        if len(parts) != 2:
            what = f"{path}: has {len(parts) - 1} places for the table {name}, not one"
            raise W2CError(what, hint=f"write these two comments once: {begin} {end}")
        text = f"{parts[0]}{begin}\n\n{content}\n\n{end}{parts[1]}"
    return text
