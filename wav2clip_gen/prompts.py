"""Prompts from files: subtitles, lyrics and tables, with the times at which they pull. Knows no torch.

Every format becomes the same thing, a `Prompt`; what is wrong with a file is told with its line.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from wav2clip_gen.config import Prompt, parse_time
from wav2clip_gen.errors import SettingsError

Line = tuple[int, str]  # its number, from 1, and its text

STAMP = re.compile(r"\[(\d+):(\d+(?:[.:]\d+)?)\]")  # of lyrics: [mm:ss.xx]
ARROW = re.compile(r"(\S+)\s*-->\s*(\S+).*")  # of subtitles, with settings of a cue behind it
MARKUP = re.compile(r"<[^>]*>|\{\\[^}]*\}")  # <i>, {\an8}


def read_prompts(path: Path) -> tuple[Prompt, ...]:
    """Read the prompts in a file.

    Args:
        path: `.srt` or `.vtt` subtitles; `.lrc` lyrics, where each line pulls until the next; `.csv` with a head of
            `text` and any of `start`, `end`, `weight`; `.json` or `.yaml`, a list of texts or of the same fields;
            `.txt`, a line each as `--prompt` takes it.

    Raises:
        SettingsError: The file cannot be read, is of another kind, or something in it makes no sense.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        known = ", ".join(sorted(READERS))
        raise SettingsError(f"{path}: no prompts are read from such a file", hint=f"give one of {known}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror})", hint="check --prompts") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{path}: is not UTF-8 text", hint="save it again as UTF-8") from None
    prompts = tuple(_told(path, reader(text)))
    if not prompts:
        raise SettingsError(f"{path}: holds no prompts", hint="is it the right file?")
    return prompts


class _BadLineError(Exception):
    """What is wrong in a line, for `_told` to put the file's name to."""

    def __init__(self, number: int, what: str, hint: str) -> None:
        super().__init__(what)
        self.number, self.what, self.hint = number, what, hint


def _told(path: Path, prompts: Iterator[Prompt]) -> Iterator[Prompt]:
    try:
        yield from prompts
    except _BadLineError as error:
        raise SettingsError(f"{path}, line {error.number}: {error.what}", hint=error.hint) from None


def _at(number: int, make: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Call `make`; what it has against its arguments is the fault of line `number`."""
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
    """SubRip and WebVTT: blocks that hold a line of two times, and below it the words."""
    for block in _blocks(text):
        arrows = [place for place, (_, line) in enumerate(block) if "-->" in line]
        if not arrows:
            number, line = block[0]
            if line.split(" ")[0] in ("WEBVTT", "NOTE", "STYLE", "REGION"):
                continue
            raise _BadLineError(number, f"{line!r} has no times above it", "write 00:00:12,000 --> 00:00:30,000")
        number, line = block[arrows[0]]
        found = ARROW.fullmatch(line)
        if not found:
            raise _BadLineError(number, f"{line!r} are no two times", "write 00:00:12,000 --> 00:00:30,000")
        start, end = (_at(number, parse_time, time.replace(",", ".")) for time in found.groups())
        words = " ".join(MARKUP.sub("", line) for _, line in block[arrows[0] + 1 :]).strip()
        if words:  # an empty cue says nothing
            yield _at(number, Prompt, text=words, start=start, end=end)


def _blocks(text: str) -> Iterator[list[Line]]:
    """What stands between empty lines."""
    block: list[Line] = []
    for number, line in [*_lines(text), (0, "")]:
        if line:
            block.append((number, line))
        elif block:
            yield block
            block = []


def _lyrics(text: str) -> Iterator[Prompt]:
    """LRC: stamps before the words; each line pulls until the next one, an empty line ends it."""
    sung: list[tuple[float, int, str]] = []
    offset = 0.0
    for number, line in _lines(text):
        words = STAMP.sub("", line)
        stamps = STAMP.findall(line[: len(line) - len(words.lstrip())] if words else line)
        if found := re.fullmatch(r"\[offset:\s*([-+]?\d+)\]", line):
            offset = int(found[1]) / 1000  # ms by which the words shall come earlier
        elif stamps:
            times = (int(minutes) * 60 + float(rest.replace(":", ".")) for minutes, rest in stamps)
            sung += [(time, number, words.strip()) for time in times]
        elif line and not re.fullmatch(r"\[[a-zA-Z#]+:.*\]", line):
            raise _BadLineError(number, f"{line!r} has no time", "write [01:15.50] the words")
    sung.sort()
    for place, (start, number, words) in enumerate(sung):
        end = sung[place + 1][0] - offset if place + 1 < len(sung) else None
        begin = max(start - offset, 0.0)
        if words and (end is None or end > begin):
            yield _at(number, Prompt, text=words, start=begin, end=end)


def _table(text: str) -> Iterator[Prompt]:
    rows = csv.DictReader(text.splitlines())
    if "text" not in (rows.fieldnames or ()):
        raise _BadLineError(1, "the table's head does not name a column `text`", "begin with: start,end,text,weight")
    for row in rows:
        filled = {name.strip(): value.strip() for name, value in row.items() if name and value and value.strip()}
        yield _at(rows.line_num, _from_fields, filled)


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
        raise _BadLineError(1, "holds no list of prompts", 'write ["a stormy sea", {"text": "night", "start": 12}]')
    for place, item in enumerate(content, 1):
        line = next((number for number, written in _lines(text) if str(_name(item)) in written), place)
        if isinstance(item, dict):
            yield _at(line, _from_fields, item)
        elif isinstance(item, str):
            yield _at(line, Prompt.parse, item)
        else:
            raise _BadLineError(line, f"a prompt is words, not {item!r}", "write texts, or text, start, end and weight")


def _name(item: Any) -> Any:
    return item.get("text", item) if isinstance(item, dict) else item


def _from_fields(given: dict[str, Any]) -> Prompt:
    """A prompt of named fields, whose numbers and times may be written out."""
    known = [item.name for item in fields(Prompt)]
    strangers = [str(name) for name in given if name not in known]
    if strangers:
        raise SettingsError(f"a prompt has no field {strangers[0]!r}", hint=f"choose from: {', '.join(known)}")
    values = dict(given)
    for name in ("start", "end"):
        if isinstance(values.get(name), str):
            values[name] = parse_time(values[name])
    if isinstance(values.get("weight"), str):
        try:
            values["weight"] = float(values["weight"])
        except ValueError:
            raise SettingsError(f"{values['weight']!r} is no weight", hint="write a number, such as 0.7") from None
    return Prompt(**values)


READERS: dict[str, Callable[[str], Iterator[Prompt]]] = {
    ".csv": _table, ".json": _list, ".lrc": _lyrics, ".srt": _subtitles, ".txt": _plain, ".vtt": _subtitles,
    ".yaml": _list, ".yml": _list,
}  # fmt: skip
