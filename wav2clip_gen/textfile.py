"""A text file that others wrote: decoded, and read leniently, with one note on all that is left out or guessed."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from wav2clip_gen.errors import SettingsError

Line = tuple[int, str]  # number, from 1, and text

NAMED = 5  # line numbers, and remarks, in one note
MARKS = (  # byte order marks; the first two of UTF-32 are those of UTF-16
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
ENCODING_HINT = "name its encoding, as in --encoding cp1252, or save it as UTF-8"


class BadLineError(Exception):
    """A line that is not valid."""

    def __init__(self, number: int, what: str, hint: str) -> None:
        super().__init__(what)
        self.number, self.what, self.hint = number, what, hint


class TextFile:
    """The text of a file, and remarks on its lines."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.first_error: BadLineError | None = None
        self._remarks: dict[str, list[int]] = {}  # what: numbers of lines

    def lines(self) -> Iterator[Line]:
        """All lines with their numbers, without space at their ends."""
        for number, line in enumerate(re.split(r"\r\n|\r|\n", self.text), 1):
            yield number, line.strip()

    def remark(self, what: str, *numbers: int) -> None:
        """Remark something about lines, or about the whole file."""
        self._remarks.setdefault(what, []).extend(numbers)

    def leave_out(self, number: int, what: str, hint: str) -> None:
        """Remark that a line is left out because it is not valid."""
        self.remark(f"left out, {what}", number)
        if self.first_error is None or number < self.first_error.number:
            self.first_error = BadLineError(number, what, hint)

    def attempt(self, number: int, make: Callable[..., Any], *arguments: Any, **named: Any) -> list[Any]:
        """What `make` gives, in a list; the line is left out if that is a SettingsError."""
        try:
            return [make(*arguments, **named)]
        except SettingsError as error:
            self.leave_out(number, error.what, error.hint)
            return []

    @property
    def note(self) -> str:
        """All remarks on one line; empty if there are none."""
        remarks = sorted(self._remarks.items(), key=lambda remark: min(remark[1], default=0))
        parts = [f"{_numbered(numbers)}: {what}" if numbers else what for what, numbers in remarks[:NAMED]]
        more = sum(len(numbers) for _, numbers in remarks[NAMED:])
        return "; ".join(parts) + (f"; and {more} more line{'s' * (more > 1)}" if more else "")


def _numbered(numbers: list[int]) -> str:
    named = sorted(set(numbers))
    more = f" and {len(named) - NAMED} more" if len(named) > NAMED else ""
    return f"line{'s' * (len(named) > 1)} {', '.join(map(str, named[:NAMED]))}{more}"


def read_text(path: Path, encoding: str | None = None) -> TextFile:
    """Read a text file: UTF-8, or what its byte order mark names, or else a guess, which is remarked.

    Args:
        path: The file.
        encoding: Its encoding, if it is known.

    Raises:
        SettingsError: It cannot be read or decoded.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror})", hint="check --prompts") from None
    known = encoding or next((name for mark, name in MARKS if data.startswith(mark)), None)
    if known is None:
        try:
            if b"\0" not in data:
                return TextFile(data.decode("utf-8"))
        except UnicodeDecodeError:
            pass
        return _guessed(data, path)
    try:
        return TextFile(data.decode(known).removeprefix("\ufeff"))
    except LookupError:
        what = f"no encoding of text is called {known!r}"
        raise SettingsError(what, hint="try utf-8, utf-16, cp1252, cp1251, shift_jis, gb18030 or euc_kr") from None
    except UnicodeError as error:
        line = data[: error.start].count(b"\n") + 1 if isinstance(error, UnicodeDecodeError) else 1
        raise SettingsError(f"{path}, line {line}: is not {known} text", hint=ENCODING_HINT) from None


def _guessed(data: bytes, path: Path) -> TextFile:
    """Decode with the likeliest encoding; cp1252 (Western Europe) among those that are as likely as any other."""
    from charset_normalizer import from_bytes

    wide = [] if b"\0" in data else ["utf_16", "utf_16_be", "utf_16_le", "utf_32", "utf_32_be", "utf_32_le"]
    matches = list(from_bytes(data, cp_exclusion=wide))
    if not matches:
        raise SettingsError(f"{path}: is not UTF-8 text, and its encoding is not recognized", hint=ENCODING_HINT)
    best = min(matches, key=lambda one: (one.chaos, -one.coherence, "cp1252" not in one.could_be_from_charset))
    name = "cp1252" if "cp1252" in best.could_be_from_charset else best.encoding
    text = TextFile(str(best).removeprefix("\ufeff"))
    text.remark(f"decoded as {name}, which is a guess; --encoding sets it")
    return text
