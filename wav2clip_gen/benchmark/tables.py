"""Tables and files of data sets as their publishers lay them out, with faults that name the row."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from wav2clip_gen.errors import W2CError

SOUNDS = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a", ".mp4", ".webm", ".mkv")  # the first that is there is taken
ENCODINGS = ("utf-8-sig", "cp1252", "latin-1")  # Clotho's second edition has Latin letters
NAMED = 3  # files in a note
MOST_MISSING = 0.05  # share of the clips that may be missing or damaged


@dataclass(frozen=True)
class Row:
    """A row of a table."""

    table: Path
    number: int  # the line in the file
    values: dict[str, str]

    def __getitem__(self, column: str) -> str:
        return self.values[column]

    def fault(self, what: str) -> W2CError:
        """An error that names the row."""
        return W2CError(f"{self.table}:{self.number}: {what}", hint="fetch the table again")

    def number_in(self, column: str) -> float:
        """A column's value as a number.

        Raises:
            W2CError: It is none.
        """
        try:
            return float(self.values[column])
        except ValueError:
            raise self.fault(f"{column} is {self.values[column]!r}, not a number") from None

    def one_of(self, column: str, allowed: tuple[str, ...]) -> str:
        """A column's value, if it is allowed.

        Raises:
            W2CError: It is not.
        """
        value = self.values[column]
        if value not in allowed:
            raise self.fault(f"{column} is {value!r}, which the set does not have")
        return value


def read_rows(
    path: Path, *columns: str, page: str, header: bool = True, may_be_empty: tuple[str, ...] = ()
) -> list[Row]:
    """The rows of a CSV file.

    Args:
        path: The table.
        columns: That it must have, each filled in every row.
        page: Where the data set comes from, for the hint.
        header: Whether the first row names the columns; else `columns` do.
        may_be_empty: Columns that are needed, but not filled in every row.

    Raises:
        W2CError: It is missing, lacks a column, has no row, or a row lacks a value.
    """
    text = _read_text(path, page)
    reader = csv.DictReader(io.StringIO(text, newline=""), fieldnames=None if header else columns)
    missing = [name for name in (*columns, *may_be_empty) if name not in (reader.fieldnames or ())]
    if missing:
        found = ", ".join(reader.fieldnames or ()) or "none"
        raise W2CError(f"{path}: lacks the column {missing[0]!r}; it has {found}", hint=f"the set's page: {page}")
    rows = []
    for values in reader:
        row = Row(path, reader.line_num, {name: (value or "").strip() for name, value in values.items() if name})
        empty = [name for name in columns if not row.values.get(name)]
        if empty:
            raise row.fault(f"{empty[0]} is empty")
        rows.append(row)
    if not rows:
        raise W2CError(f"{path}: has no rows", hint=f"the set's page: {page}")
    return rows


def _read_text(path: Path, page: str) -> str:
    try:
        content = path.read_bytes()
    except OSError:
        raise W2CError(f"{path}: no such table", hint=f"get it from the set's page: {page}") from None
    for encoding in ENCODINGS:
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise AssertionError("latin-1 decodes anything")


@dataclass
class Finder:
    """Finds the sounds that a table names, and counts those that are not there."""

    folders: tuple[Path, ...]  # searched in this order, each once
    found: int = 0
    missing: list[str] = field(default_factory=list)
    _index: dict[str, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for folder in reversed(self.folders):
            self._index |= {str(path.relative_to(folder).with_suffix("")): path for path in _sounds(folder)}

    def find(self, *names: str) -> Path | None:
        """The first of the sounds `NAME.SUFFIX` that is there, whatever the suffix; None is counted as missing."""
        for name in names:
            stem = str(Path(name).with_suffix("")) if Path(name).suffix.lower() in SOUNDS else name
            if path := self._index.get(stem):
                self.found += 1
                return path
        self.missing.append(names[0])
        return None

    def notes(self, *, page: str, most_missing: float = MOST_MISSING) -> list[str]:
        """A note on what is missing.

        Raises:
            W2CError: Nothing is there, or more than the share `most_missing` is not.
        """
        if not self.missing:
            return []
        where = " or ".join(str(folder) for folder in self.folders)
        if not self.found:
            raise W2CError(
                f"{where}: none of the {len(self.missing)} sounds of the table is there",
                hint=f"get them from the set's page: {page}",
            )
        note = missing_note(self.missing, self.found + len(self.missing), "missing")
        if len(self.missing) > most_missing * (self.found + len(self.missing)):
            raise W2CError(f"{where}: {note}", hint="fetch them, or accept more with --allow-missing 0.5")
        return [note]


def missing_note(names: list[str], total: int, what: str) -> str:
    """`3 of 2000 sounds are missing: a.wav, b.wav, c.wav`."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{len(names)} of {total} sounds are {what}: {', '.join(names[:NAMED])}{more}"


def _sounds(folder: Path) -> Iterator[Path]:
    """All sounds under a folder; of one name, the suffix that `SOUNDS` has first comes last."""
    paths = [path for path in folder.rglob("*") if path.suffix.lower() in SOUNDS] if folder.is_dir() else []
    return iter(sorted(paths, key=lambda path: (-SOUNDS.index(path.suffix.lower()), path)))
