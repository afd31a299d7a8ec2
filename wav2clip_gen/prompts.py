"""Prompts from files: subtitles, lyrics, tables and lists, with their times.

Every format is read into the same type, `Prompt`; errors name the file and the line.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from wav2clip_gen.config import Prompt, parse_time
from wav2clip_gen.errors import SettingsError

Line = tuple[int, str]  # number, from 1, and text

STAMP = re.compile(r"\[(\d+):(\d+(?:[.:]\d+)?)\]")  # of lyrics: [mm:ss.xx]
ARROW = re.compile(r"(\S+)\s*-->\s*(\S+).*")  # of subtitles; settings of the cue may follow
MARKUP = re.compile(r"<[^>]*>|\{\\[^}]*\}")  # <i>, {\an8}
ARROW_HINT = "write 00:00:12,000 --> 00:00:30,000"


def read_prompts(path: Path) -> tuple[Prompt, ...]:
    """Read the prompts in a file.

    Args:
        path: `.srt` or `.vtt` subtitles; `.lrc` lyrics, where each line ends when the next one starts; `.csv` with the
            column `text` and any of `start`, `end`, `weight`; `.json` or `.yaml`, a list of texts or of the same
            fields; `.txt`, one prompt per line, written as for `--prompt`.

    Raises:
        SettingsError: The file cannot be read, has an unknown format, or a line is not valid.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        hint = f"supported are {', '.join(sorted(READERS))}"
        raise SettingsError(f"{path}: prompts cannot be read from this file format", hint=hint)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror})", hint="check --prompts") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{path}: is not UTF-8 text", hint="save it as UTF-8") from None
    try:
        prompts = tuple(reader(text))
    except _BadLineError as error:
        raise SettingsError(f"{path}, line {error.number}: {error.what}", hint=error.hint) from None
    if not prompts:
        raise SettingsError(f"{path}: contains no prompts", hint="check that it is the right file")
    return prompts


class _BadLineError(Exception):
    """A line that is not valid; `read_prompts` adds the name of the file."""

    def __init__(self, number: int, what: str, hint: str) -> None:
        super().__init__(what)
        self.number, self.what, self.hint = number, what, hint


def _at(number: int, make: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Call `make`; its SettingsError becomes an error of line `number`."""
    try:
        return make(*arguments, **named)
    except SettingsError as error:
        raise _BadLineError(number, error.what, error.hint) from None


def _lines(text: str) -> Iterator[Line]:
    for number, line in enumerate(text.splitlines(), 1):
        yield number, line.strip()


def _plain(text: str) -> Iterator[Prompt]:
    for number, line in _lines(text):
        if line and not line.startswith("#"):
            yield _at(number, Prompt.parse, line)


def _subtitles(text: str) -> Iterator[Prompt]:
    """SubRip and WebVTT: blocks with a line of two times, followed by lines of text."""
    for block in _blocks(text):
        arrows = [place for place, (_, line) in enumerate(block) if "-->" in line]
        if not arrows:
            number, line = block[0]
            if line.split(" ")[0] in ("WEBVTT", "NOTE", "STYLE", "REGION"):
                continue
            raise _BadLineError(number, f"{line!r} has no times before it", ARROW_HINT)
        number, line = block[arrows[0]]
        found = ARROW.fullmatch(line)
        if not found:
            raise _BadLineError(number, f"{line!r} does not contain two times", ARROW_HINT)
        start, end = (_at(number, parse_time, time.replace(",", ".")) for time in found.groups())
        content = " ".join(MARKUP.sub("", line) for _, line in block[arrows[0] + 1 :]).strip()
        if content:
            yield _at(number, Prompt, text=content, start=start, end=end)


def _blocks(text: str) -> Iterator[list[Line]]:
    """The lines between empty lines."""
    block: list[Line] = []
    for number, line in [*_lines(text), (0, "")]:
        if line:
            block.append((number, line))
        elif block:
            yield block
            block = []


def _lyrics(text: str) -> Iterator[Prompt]:
    """LRC: time stamps before each line, which ends when the next one starts; an empty line only ends another."""
    cues: list[tuple[float, int, str]] = []
    offset = 0.0
    for number, line in _lines(text):
        content = STAMP.sub("", line)
        stamps = STAMP.findall(line[: len(line) - len(content.lstrip())] if content else line)
        if found := re.fullmatch(r"\[offset:\s*([-+]?\d+)\]", line):
            offset = int(found[1]) / 1000  # ms by which all lines start earlier
        elif stamps:
            times = (int(minutes) * 60 + float(rest.replace(":", ".")) for minutes, rest in stamps)
            cues += [(time, number, content.strip()) for time in times]
        elif line and not re.fullmatch(r"\[[a-zA-Z#]+:.*\]", line):
            raise _BadLineError(number, f"no time stamp before {line!r}", "lines look like [mm:ss.xx] text")
    cues.sort()
    for place, (time, number, content) in enumerate(cues):
        end = cues[place + 1][0] - offset if place + 1 < len(cues) else None
        start = max(time - offset, 0.0)
        if content and (end is None or end > start):
            yield _at(number, Prompt, text=content, start=start, end=end)


def _table(text: str) -> Iterator[Prompt]:
    rows = csv.DictReader(text.splitlines())
    if "text" not in (rows.fieldnames or ()):
        raise _BadLineError(1, "the header has no column `text`", "write the header start,end,text,weight")
    for row in rows:
        values = {name.strip(): value.strip() for name, value in row.items() if name and value and value.strip()}
        yield _at(rows.line_num, Prompt.read, values)


def _list(text: str) -> Iterator[Prompt]:
    import yaml

    try:
        content = json.loads(text) if text.lstrip().startswith(("[", "{")) else yaml.safe_load(text)
    except json.JSONDecodeError as error:
        raise _BadLineError(error.lineno, f"not valid JSON ({error.msg})", "check its commas and quotes") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or "not valid YAML"
        raise _BadLineError(mark.line + 1 if mark else 1, problem, "write a list: - a stormy sea") from None
    content = content.get("prompts") if isinstance(content, dict) else content
    if not isinstance(content, list):
        raise _BadLineError(1, "contains no list of prompts", 'write ["a stormy sea", {"text": "night", "start": 12}]')
    for place, item in enumerate(content, 1):
        shown = str(item.get("text", item) if isinstance(item, dict) else item)
        line = next((number for number, written in _lines(text) if shown in written), place)
        yield _at(line, Prompt.read, item)


READERS: dict[str, Callable[[str], Iterator[Prompt]]] = {
    ".csv": _table,
    ".json": _list,
    ".lrc": _lyrics,
    ".srt": _subtitles,
    ".txt": _plain,
    ".vtt": _subtitles,
    ".yaml": _list,
    ".yml": _list,
}
