"""Texts with times: subtitles and lyrics."""

from __future__ import annotations

import html
import re
import warnings
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

from wav2clip_gen.config import Prompt, parse_time
from wav2clip_gen.textfile import Line, TextFile

CLOCK = r"\d+(?::\d+){1,2}(?:[.,]\d+)?"  # 0:12, 01:15,500, 0:01:15.5
ARROW = re.compile(  # of subtitles, and the comma of .sbv; settings of the cue may follow
    rf"({CLOCK})(?:\s*-{{1,2}}>\s*|,(?=\d+:\d\d:\d\d\.\d{{3}}$))({CLOCK})(?:\s.*)?"
)
HALF_ARROW = re.compile(rf"{CLOCK}\s*-->|-->\s*{CLOCK}")
ARROW_HINT = "write 00:00:12,000 --> 00:00:30,000"
BLOCKS = ("NOTE", "STYLE", "REGION")  # of WebVTT, which are no cues
TIME_TAG = r"<\d+:\d+(?::\d+)?(?:[.,:]\d+)?>"  # before a word, in WebVTT and in lyrics
TAGS = re.compile(  # those of WebVTT, SubRip and SubStation: <i>, <c.yellow>, <v Ann>, <font color="red">, {\an8}
    rf"(?i){TIME_TAG}|</?(?:[ibusc]|ruby|rt|em|strong)(?:\.[^\s<>]*)?\s*>|</?(?:v|lang|font|span)(?:[.\s][^<>]*)?>|"
    r"\{\\[^{}]*\}"
)
BREAKS = re.compile(r"(?i)<br\s*/?>|\\N")
HOLD = 0.05  # seconds, the longest cue that only holds the lines of rolling captions

STAMP = re.compile(r"\[\s*(?:(\d+):)?(\d+):(\d+(?:[.:,]\d+)?)\s*\]\s*")  # of lyrics: [mm:ss.xx], [h:mm:ss.xx]
KNOWN = re.compile(r"(?i)\[(?:ar|al|ti|au|lr|by|re|ve|la|length|offset|tool|id|hash|sign|qq|total|encoding|#)\s*:.*\]")
LYRICS_HINT = "lines look like [mm:ss.xx] text"


@dataclass(frozen=True)
class Cue:
    """A cue of subtitles: the number of its line, times in seconds, lines of text."""

    number: int
    start: float
    end: float
    lines: list[str]


def read_subtitles(file: TextFile) -> Iterator[Prompt]:
    """SubRip, WebVTT and SubViewer: a line of two times, and the lines of text up to the next one."""
    cues = [cue for cue in _cues(file) if cue.lines]
    if _holds(cues) or (re.search(TIME_TAG, file.text) and any(_repeated(*pair) for pair in pairwise(cues))):
        file.remark("rolling captions, whose repeated lines are used once")
        cues = _unroll(cues)
    yield from _prompts(cues, file)


def _prompts(cues: Iterable[Cue], file: TextFile) -> Iterator[Prompt]:
    for cue in cues:
        if cue.end > cue.start:
            text = " ".join(cue.lines)
            yield from file.attempt(cue.number, Prompt, text=text, start=cue.start, end=cue.end)
        else:
            what = "it ends where it starts" if cue.end == cue.start else "it ends before it starts"
            file.leave_out(cue.number, what, "correct its times")


def _cues(file: TextFile) -> Iterator[Cue]:
    """The cues in their order; identifiers, headers and comments are skipped, invalid lines are left out."""
    lines = list(file.lines())
    is_vtt = next((line for _, line in lines if line), "").startswith("WEBVTT")
    starts = [place for place, (_, line) in enumerate(lines) if ARROW.fullmatch(line) or HALF_ARROW.search(line)]
    before = lines[: starts[0]] if starts else lines
    is_numbered = bool(before) and before[-1][1].isdecimal()
    for number, line in before:
        if line and not is_vtt and not (line.isdecimal() and starts):
            file.leave_out(number, "no times before it", ARROW_HINT)
    for place, following in pairwise([*starts, len(lines)]):
        number, line = lines[place]
        found = ARROW.fullmatch(line)
        if not found:
            file.leave_out(number, "it does not contain two times", ARROW_HINT)
            continue
        body = lines[place + 1 : following]
        if following < len(lines) and _is_identifier(body, is_vtt=is_vtt, is_numbered=is_numbered):
            body = body[:-1]
        start, end = (parse_time(time.replace(",", ".")) for time in found.groups())
        texts = (_plain_text(line) for line in _without_blocks(body, is_vtt=is_vtt))
        yield Cue(number, start, end, [text for text in texts if text])


def _is_identifier(body: list[Line], *, is_vtt: bool, is_numbered: bool) -> bool:
    """Whether the last of the lines before a line of times identifies the next cue."""
    last = body[-1][1] if body else ""
    after_gap = len(body) > 1 and not body[-2][1]
    return last.isdecimal() if is_numbered else bool(last) and after_gap and (last.isdecimal() or is_vtt)


def _without_blocks(body: list[Line], *, is_vtt: bool) -> Iterator[str]:
    """The lines of a cue; comments and styles of WebVTT may follow it after an empty line."""
    skipping, before = False, "-"
    for _, line in body:
        skipping = bool(line) and (skipping or (is_vtt and not before and line.split()[0] in BLOCKS))
        if not skipping:
            yield line
        before = line


def _plain_text(line: str) -> str:
    """A line without tags; other angle brackets are text."""
    text = TAGS.sub("", BREAKS.sub(" ", line))
    return " ".join(re.sub(r"&(?:#\w+|\w+);", lambda found: html.unescape(found[0]), text).split())


def _repeated(before: Cue, cue: Cue) -> int:
    """How many of the first lines of a cue are the last ones of the cue before."""
    counts = range(min(len(before.lines), len(cue.lines)), 0, -1)
    count = next((count for count in counts if before.lines[-count:] == cue.lines[:count]), 0)
    return 0 if count == len(cue.lines) and cue.start - before.end > HOLD else count  # sung again after a pause


def _holds(cues: list[Cue]) -> bool:
    """Whether a short cue only repeats lines, as in the rolling captions of YouTube."""
    return any(
        cue.end - cue.start <= HOLD and _repeated(before, cue) == len(cue.lines) for before, cue in pairwise(cues)
    )


def _unroll(cues: list[Cue]) -> list[Cue]:
    """Rolling captions without the lines that each cue repeats of the one before."""
    unrolled = cues[:1]
    for before, cue in pairwise(cues):
        count = _repeated(before, cue)
        if count == len(cue.lines):
            unrolled[-1] = replace(unrolled[-1], end=max(unrolled[-1].end, cue.end))
        else:
            if count:
                unrolled[-1] = replace(unrolled[-1], end=min(unrolled[-1].end, cue.start))
            unrolled.append(replace(cue, lines=cue.lines[count:]))
    return unrolled


def read_substation(file: TextFile) -> Iterator[Prompt]:
    """SubStation Alpha: pysubs2 reads each event by itself, so that one that is not valid costs no other."""
    import pysubs2

    for number, line in file.lines():
        if not re.match(r"Dialogue\s*:", line):
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # of layers and margins, which are not used
                (event,) = pysubs2.SSAFile.from_string(f"[Events]\n{line}\n", format_="ass").get_text_events()
        except (pysubs2.Pysubs2Error, ValueError, LookupError):
            file.leave_out(
                number, "not a valid event", "it looks like Dialogue: 0,0:00:12.00,0:00:30.00,Default,,0,0,0,,TEXT"
            )
            continue
        if text := _plain_text(event.plaintext):
            yield from _prompts([Cue(number, event.start / 1000, event.end / 1000, [text])], file)


def read_lyrics(file: TextFile) -> Iterator[Prompt]:
    """LRC: time stamps before each line, which ends when the next one starts; an empty line only ends another."""
    has_hours = any(hours and re.search(r"[.,]", rest) for hours, _, rest in STAMP.findall(file.text))
    cues: list[tuple[float, int, str]] = []
    offset = 0.0
    for number, line in file.lines():
        stamps = re.match(rf"(?:{STAMP.pattern})+", line)
        if found := re.fullmatch(r"(?i)\[offset\s*:\s*([-+]?\d+)\s*\]", line):
            offset = int(found[1]) / 1000  # by which all lines start earlier
        elif stamps:
            text = re.sub(TIME_TAG, "", STAMP.sub("", line[stamps.end() :]))
            times = (_stamp_time(*stamp, has_hours=has_hours) for stamp in STAMP.findall(stamps[0]))
            cues += [(time, number, " ".join(text.split())) for time in times]
        elif line and not KNOWN.fullmatch(line):
            file.leave_out(number, "no time stamp before it", LYRICS_HINT)
    yield from until_next(((time - offset, number, text) for time, number, text in cues), file)


def _stamp_time(hours: str, minutes: str, rest: str, *, has_hours: bool) -> float:
    """The seconds of a stamp; the last of three whole numbers is hundredths, in a file without hours."""
    if hours and not has_hours and rest.isdecimal():
        hours, minutes, rest = "", hours, f"{minutes}.{rest}"
    return int(hours or 0) * 3600 + int(minutes) * 60 + float(re.sub(r"[:,]", ".", rest))


def until_next(cues: Iterable[tuple[float, int, str]], file: TextFile) -> Iterator[Prompt]:
    """Prompts from times, line numbers and texts: each ends at the next time, at which several may start."""
    ordered = sorted(cues)
    times = sorted({time for time, _, _ in ordered})
    for time, number, text in ordered:
        place = bisect_right(times, time)
        end = times[place] if place < len(times) else None
        if text and end is not None and end <= 0:
            file.leave_out(number, "it ends before the song starts", "check its offset")
        elif text:
            yield from file.attempt(number, Prompt, text=text, start=max(time, 0.0), end=end)
