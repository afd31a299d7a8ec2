"""Prompts from files: subtitles, lyrics, tables and lists, with their times.

Every format is read into the same type, `Prompt`, and leniently: what is left out is noted in one `PromptNote` a file,
with its lines, and only a file with nothing usable is an error.
"""

from __future__ import annotations

import csv
import io
import json
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

from wav2clip_gen.captions import CLOCK, read_lyrics, read_substation, read_subtitles, until_next
from wav2clip_gen.config import Prompt, PromptNote, parse_time
from wav2clip_gen.errors import SettingsError
from wav2clip_gen.textfile import BadLineError, TextFile, read_text

COLUMNS = ("text", "start", "end", "weight")
SEPARATORS = "\t;|,"  # the comma last: it may be a decimal one
LONGEST_CUE = 120  # seconds, in the median
TABLE_HINT = "write the header start,end,text,weight, with commas, semicolons or tabs between the columns"
TIMED_ROW = re.compile(rf"\s*\"?\s*({CLOCK}|\d+(?:[.,]\d+)?)\s*\"?\s*")  # the first cell of a table without a header


def read_prompts(path: str | Path, encoding: str | None = None) -> tuple[Prompt, ...]:
    """Read the prompts in a file; lines that are left out, and guesses, are noted in one warning, a `PromptNote`.

    Args:
        path: `.srt`, `.vtt`, `.sbv`, `.ass` or `.ssa` subtitles; `.lrc` lyrics, where each line ends when the next one
            starts; `.csv` or `.tsv` with the column `text` and any of `start`, `end`, `weight`; `.json` or `.yaml`, a
            list of texts or of the same fields; `.txt`, one prompt per line, written as for `--prompt`.
        encoding: Of the text, if it is known.

    Raises:
        SettingsError: The file cannot be read, has an unknown format, or contains no valid prompt.
    """
    path = Path(path)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        hint = f"supported are {', '.join(sorted(READERS))}"
        raise SettingsError(f"{path}: prompts cannot be read from this file format", hint=hint)
    file = read_text(path, encoding)
    try:
        prompts = tuple(reader(file))
        if not prompts and file.first_error:
            raise file.first_error
    except BadLineError as error:
        raise SettingsError(f"{path}, line {error.number}: {error.what}", hint=error.hint) from None
    if not prompts:
        raise SettingsError(f"{path}: contains no prompts", hint="check that it is the right file")
    if file.note:
        warnings.warn(f"{path}: {file.note}", PromptNote, stacklevel=2)
    return prompts


def _written(number: int, text: str, file: TextFile) -> Iterator[Prompt]:
    """A prompt written as for `--prompt`."""
    for prompt, note in file.attempt(number, Prompt.interpret, text):
        if note:
            file.remark(note, number)
        yield prompt


def _from_fields(item: Any) -> Prompt:
    """As `Prompt.read`, but a hundred times faster for texts and numbers: a file may have thousands of prompts."""
    if not isinstance(item, dict) or not isinstance(item.get("text"), str) or not item.keys() <= {*COLUMNS}:
        return Prompt.read(item)
    times = {name: parse_time(item[name]) for name in ("start", "end") if isinstance(item.get(name), str)}
    weight = item.get("weight")
    if isinstance(weight, str):
        with suppress(ValueError):
            weight = float(weight)
    return Prompt(**{**item, **times, **({"weight": weight} if "weight" in item else {})})


def _plain(file: TextFile) -> Iterator[Prompt]:
    lines = [(number, line) for number, line in file.lines() if line and not line.startswith("#")]
    if lines and all("\t" in line and TIMED_ROW.fullmatch(line.split("\t")[0]) for _, line in lines):
        yield from _table(file)  # labels of Audacity
        return
    for number, line in lines:
        yield from _written(number, line, file)


def _table(file: TextFile) -> Iterator[Prompt]:
    """A table with a header; or without, of times and texts."""
    head, _, body = file.text.partition("\n")
    marked = re.fullmatch(r"(?i)\s*\"?sep=(.)\"?\s*", head)  # of Excel
    text, skipped = (body, 1) if marked else (file.text, 0)
    first = next((line for line in text.splitlines() if line.strip()), "")
    separator = marked[1] if marked else _separator(first)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        rows = [
            (skipped + reader.line_num, [cell.strip() for cell in row]) for row in reader if any(map(str.strip, row))
        ]
    except csv.Error as error:
        raise BadLineError(skipped + reader.line_num, f"not a valid table ({error})", TABLE_HINT) from None
    if not rows:
        return
    names = [name.lower() for name in rows[0][1]]
    if "text" in names:
        yield from _named_columns(names, rows[1:], separator, file)
    elif len(names) > 1 and TIMED_ROW.fullmatch(names[0]):
        yield from _timed_rows(rows, separator, file)
    else:
        raise BadLineError(rows[0][0], "the header has no column `text`", TABLE_HINT)


def _separator(line: str) -> str:
    """What stands between the cells of the first line: it makes a column `text`, or a time in the first column."""

    def score(separator: str) -> tuple[bool, int]:
        cells = [cell.strip(' "').lower() for cell in line.split(separator)]
        return ("text" in cells or bool(TIMED_ROW.fullmatch(cells[0])), len(cells))

    return max(SEPARATORS, key=score)


def _joined(cells: list[str], separator: str) -> str:
    """A text with separators in it that no quotes protect."""
    return (separator if separator == "\t" else f"{separator} ").join(cells).strip(f"{separator} ")


def _named_columns(
    names: list[str], rows: list[tuple[int, list[str]]], separator: str, file: TextFile
) -> Iterator[Prompt]:
    unknown = [name for name in names if name and name not in COLUMNS]
    if unknown:
        file.remark(f"not used: column {', '.join(unknown)}")
    is_whisper = names == ["start", "end", "text"] and separator == "\t" and _has_milliseconds(rows)
    if is_whisper:
        file.remark("whole numbers are read as milliseconds, as Whisper writes them")
    for number, row in rows:
        cells = [f"{int(row[0]) / 1000}", f"{int(row[1]) / 1000}", *row[2:]] if is_whisper else row
        if len(row) > len(names) and names[-1] == "text":
            cells = [*cells[: len(names) - 1], _joined(cells[len(names) - 1 :], separator)]
        elif any(row[len(names) :]):
            file.remark("cells without a column are not used", number)
        values = {name: cell for name, cell in zip(names, cells, strict=False) if name in COLUMNS and cell}
        for name in {*values} - {"text"}:
            values[name] = values[name].replace(",", ".")  # decimal comma
        yield from file.attempt(number, _from_fields, values)


def _has_milliseconds(rows: list[tuple[int, list[str]]]) -> bool:
    """Whether all times are whole numbers, and cues would last for minutes if those were seconds."""
    times = [row[:2] for _, row in rows]
    if not all(len(pair) == 2 and all(map(str.isdecimal, pair)) for pair in times):
        return False
    return bool(times) and median(int(end) - int(start) for start, end in times) >= LONGEST_CUE


def _timed_rows(rows: list[tuple[int, list[str]]], separator: str, file: TextFile) -> Iterator[Prompt]:
    """Rows of a start and a text, each of which ends when the next one starts; or of a start, an end and a text."""
    cues = []
    for number, row in rows:
        times = [cell.replace(",", ".") for cell in row[:2] if TIMED_ROW.fullmatch(cell)]
        if not times or not TIMED_ROW.fullmatch(row[0]):
            file.leave_out(number, f"{row[0]!r} is not a time", TABLE_HINT)
        elif len(times) > 1 and len(row) > 2:
            values = {"start": times[0], "end": times[1], "text": _joined(row[2:], separator)}
            yield from file.attempt(number, _from_fields, values)
        else:
            cues.append((parse_time(times[0]), number, _joined(row[1:], separator)))
    yield from until_next(cues, file)


def _list(file: TextFile) -> Iterator[Prompt]:
    import yaml

    text = file.text
    try:
        content = json.loads(text) if text.lstrip().startswith(("[", "{")) else yaml.safe_load(text)
    except json.JSONDecodeError as error:
        raise BadLineError(error.lineno, f"not valid JSON ({error.msg})", "check its commas and quotes") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or "not valid YAML"
        raise BadLineError(mark.line + 1 if mark else 1, problem, "write a list: - a stormy sea") from None
    if isinstance(content, dict):
        content = content.get("prompts", [*_segments(content)] or None)
    if not isinstance(content, list):
        raise BadLineError(1, "contains no list of prompts", 'write ["a stormy sea", {"text": "night", "start": 12}]')
    lines = list(file.lines())
    for place, item in enumerate(content, 1):
        shown = str(item.get("text", item) if isinstance(item, dict) else item)
        number = next((number for number, written in lines if shown in written), place)
        if isinstance(item, str):
            yield from _written(number, item, file)
        else:
            yield from file.attempt(number, _from_fields, item)


def _segments(content: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The segments that Whisper writes, without the columns of its own."""
    segments = content.get("segments")
    for segment in segments if isinstance(segments, list) else ():
        if isinstance(segment, dict) and isinstance(segment.get("text"), str):
            yield {name: segment[name] for name in ("start", "end") if name in segment} | {
                "text": segment["text"].strip()
            }


READERS: dict[str, Callable[[TextFile], Iterator[Prompt]]] = {
    ".ass": read_substation,
    ".csv": _table,
    ".json": _list,
    ".lrc": read_lyrics,
    ".sbv": read_subtitles,
    ".srt": read_subtitles,
    ".ssa": read_substation,
    ".tsv": _table,
    ".txt": _plain,
    ".vtt": read_subtitles,
    ".yaml": _list,
    ".yml": _list,
}
