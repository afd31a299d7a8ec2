"""Tables of figures, as Markdown and in the generated sections of a page."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wav2clip_gen.errors import W2CError
from wav2clip_gen.files import appear_whole

Row = tuple[str, str, str]  # measure, figure, chance


@dataclass(frozen=True, kw_only=True)
class Table:
    """The result of a measure: rows and notes for a reader, and the same figures as values for JSON."""

    title: str
    rows: list[Row]
    notes: list[str]
    figures: dict[str, Any]
    header: Row = ("measure", "figure", "chance")


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


def write_sections(path: Path, sections: dict[str, str]) -> None:
    """Replace the content of each section of a page, atomically; raises as `fill_sections`, and `OutputError`."""
    text = fill_sections(path, sections)
    with appear_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
