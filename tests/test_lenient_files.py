"""Files that others wrote: what is usable is used, and one note has all the rest with its lines."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest

from wav2clip_gen.config import PromptNote
from wav2clip_gen.errors import SettingsError
from wav2clip_gen.prompts import read_prompts

Times = tuple[float | None, float | None, str]


def read(name: str, content: str | bytes, folder: Path, encoding: str | None = None) -> tuple[list[Times], list[str]]:
    """Start, end and text of the prompts in a file, and the notes on it."""
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        prompts = read_prompts(path, encoding)
    assert all(one.category is PromptNote for one in caught)
    notes = [str(one.message).removeprefix(f"{path}: ") for one in caught]
    return [(one.start, one.end, one.text) for one in prompts], notes


def rolling(first: str, hold: str, next_start: str) -> str:
    """The three usual cues of YouTube's captions."""
    at = "align:start position:0%"
    return (
        f"WEBVTT\nKind: captions\nLanguage: en\n\n00:00:00.030 --> 00:00:{first} {at}\n \n"
        f"red<00:00:00.500><c> sky</c>\n\n00:00:{hold.replace(' ', ' --> 00:00:')} {at}\nred sky\n \n\n"
        f"00:00:{next_start} --> 00:00:05.000 {at}\nred sky\nblue<00:00:03.500><c> sea</c>\n"
    )


ROLLING = "rolling captions, whose repeated lines are used once"


@pytest.mark.parametrize(
    "cues",
    [
        rolling("02.720", "02.720 02.730", "02.730"),
        rolling("02.730", "02.720 02.730", "02.730"),
        rolling("02.730", "02.730 02.740", "02.730"),
        rolling("02.730", "02.730 02.730", "02.730"),
    ],
)
@pytest.mark.parametrize("is_converted", [False, True])
def test_rolling_captions_give_each_line_once(cues: str, is_converted: bool, tmp_path: Path) -> None:
    if is_converted:  # to SubRip, without tags
        cues = cues.replace("<c>", "").replace("</c>", "").replace("<00:00:00.500>", "").replace("<00:00:03.500>", "")
        cues = "1\n" + cues.partition("Language: en\n\n")[2]
    name = "song.srt" if is_converted else "song.vtt"
    assert read(name, cues, tmp_path) == ([(0.03, 2.73, "red sky"), (2.73, 5.0, "blue sea")], [ROLLING])


def test_rolling_captions_go_on_after_a_pause(tmp_path: Path) -> None:
    cues = rolling("02.720", "02.720 02.730", "02.730")
    cues += "\n00:00:08.000 --> 00:00:09.000\nblue sea\ngreen<00:00:08.500><c> hill</c>\n"
    cues += "\n00:00:11.000 --> 00:00:12.000\ngreen hill\n"
    found = [(8, 9, "green hill"), (11, 12, "green hill")]
    assert read("song.vtt", cues, tmp_path) == ([(0.03, 2.73, "red sky"), (2.73, 5, "blue sea"), *found], [ROLLING])


def test_what_whisper_writes_is_read(tmp_path: Path) -> None:
    expected = [(0, 2.5, "red sky"), (2.5, 4.02, "blue, sea")]
    table = "start\tend\ttext\n0\t2500\tred sky\n2500\t4020\tblue, sea\n"
    note = "whole numbers are read as milliseconds, as Whisper writes them"
    assert read("song.tsv", table, tmp_path) == (expected, [note])
    seconds = "start\tend\ttext\n0\t2\tred sky\n2\t4\tblue, sea\n"
    assert read("song.tsv", seconds, tmp_path) == ([(0, 2, "red sky"), (2, 4, "blue, sea")], [])
    segments = [
        {"id": 0, "start": start, "end": end, "text": f" {text}", "tokens": [1]} for start, end, text in expected
    ]
    assert read("song.json", json.dumps({"text": "all", "segments": segments}), tmp_path) == (
        expected, []
    )  # fmt: skip


def test_a_chorus_that_repeats_a_line_is_not_rolling(tmp_path: Path) -> None:
    cues = "0:01 --> 0:02\nla la la\n\n0:02 --> 0:03\nla la la\nla la la\n\n0:03 --> 0:04\nla la la\noh\n"
    texts, notes = read("song.srt", cues, tmp_path)
    assert ([text for _, _, text in texts], notes) == (["la la la", "la la la la la la", "la la la oh"], [])


def test_a_cue_without_duration_is_left_out(tmp_path: Path) -> None:
    cues = "1\n00:00:00,000 --> 00:00:01,000\na\n\n2\n00:00:01,000 --> 00:00:01,000\nb\n\n"
    cues += (
        "3\n00:00:03,000 --> 00:00:02,000\nd\n\n4\n00:00:04,000 --> later\ne\n\n5\n00:00:05,000 --> 00:00:06,000\nc\n"
    )
    assert read("song.srt", cues, tmp_path) == (
        [(0, 1, "a"), (5, 6, "c")],
        [
            "line 6: left out, it ends where it starts; line 10: left out, it ends before it starts; "
            "line 14: left out, it does not contain two times"
        ],
    )


@pytest.mark.parametrize(
    ("name", "cues"),
    [
        (
            "an empty line and no gap.srt",
            "1\n00:00:01,000 --> 00:00:02,000\nred\n\nsky\n2\n00:00:02,000 --> 00:00:03,000\n1984\n\n"
            "3\n00:00:03,000 --> 00:00:04,000\nI love you <3 red sky > blue\n",
        ),
        (
            "no numbers.srt",
            "00:00:01.000 --> 00:00:02.000\nred sky\n00:00:02.000 --> 00:00:03.000\n1984\n"
            "0:03-->0:04\nI love you &lt;3 red sky &gt; blue",
        ),
        (
            "single arrows and tags.srt",
            "1\r\n0:01 -> 0:02\r\n<i>red<br>sky</i>\r\n\r\n2\r\n0:02 -> 0:03\r\n{\\an8}1984\r\n\r\n"
            '3\r\n0:03 -> 0:04 X1:0\r\n<font color="red">I love you <3</font>\r\n<b>red sky > blue</b>\r\n',
        ),
        (
            "identifiers and comments.vtt",
            "WEBVTT\n\nintro\n00:01.000 --> 00:02.000\n<v.loud Ann>red</v> <c.yellow>sky\n\nNOTE so\nit is\n\n"
            "00:02.000 --> 00:03.000\n1984\n\nSTYLE\n::cue {}\n\nlast\n00:03.000 --> 00:04.000\nI love "
            "you <3 red sky > blue",
        ),
    ],
)
def test_a_line_of_times_begins_a_cue_and_only_known_tags_go(name: str, cues: str, tmp_path: Path) -> None:
    assert read(name, cues, tmp_path) == (
        [(1, 2, "red sky"), (2, 3, "1984"), (3, 4, "I love you <3 red sky > blue")], []
    )  # fmt: skip


def test_lyrics_of_all_sorts_keep_their_timed_lines(tmp_path: Path) -> None:
    lyrics = (
        '[ar:Somebody]\n[作词: x]\n[Verse 1]\n{"t":0,"c":[{"tx":"words: "}]}\n[offset:+500 ]\n'
        "[00:02.00]<00:02.0> red <00:12.3>sky\n[00:02.00]roter Himmel\n[00:04.00] \nuntimed\n"
        "[00:06.50][1:00:04,50]I <3 you\n[ 00:08.00 ] blue [00:08.50]sea\n[00:00.20]gone\n[00:00.40]\n"
    )
    assert read("song.lrc", lyrics, tmp_path) == (
        [
            (1.5, 3.5, "red sky"), (1.5, 3.5, "roter Himmel"), (6, 7.5, "I <3 you"), (7.5, 3604, "blue sea"),
            (3604, None, "I <3 you"),
        ],
        [
            "lines 2, 3, 4, 9: left out, no time stamp before it; line 12: left out, it ends before the song starts",
        ],
    )  # fmt: skip


def test_three_whole_numbers_are_hours_only_in_lyrics_with_hours(tmp_path: Path) -> None:
    assert read("a.lrc", "[01:02:50]a\n[01:04:00]", tmp_path)[0] == [(62.5, 64, "a")]
    assert read("b.lrc", "[01:02:50]a\n[01:02:52.5]", tmp_path)[0] == [(3770, 3772.5, "a")]


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("excel.csv", "\ufeffStart;End;Text\r\n1,5;4;a stormy sea\r\n;;\r\n4;5;red, blue\r\n"),
        ("sep.csv", "sep=;\r\nText;Start;End\r\na stormy sea;1,5;0:04\r\nred, blue;4,0;5\r\n"),
        ("tabs.csv", "start\tend\ttext\n1.5\t4\ta stormy sea\n4\t5\tred, blue\n"),
        ("headless of excel.csv", "1,5;a stormy sea\r\n4;red, blue\r\n5;\r\n"),
        ("unquoted.csv", "start,end,text\n1.5,4,a stormy sea\n4,5,red, blue\n"),
        ("quoted.csv", '"start","end","text"\n"1,5","4","a stormy sea"\n4,5,"red, blue"\n'),
        ("headless.csv", "0:01.5,a stormy sea\n0:04,red, blue\n0:05,\n"),
        ("headless with ends.csv", "0:01.5,0:04,a stormy sea\n0:04,0:05,red, blue\n"),
        ("audacity.txt", "1.500000\t4.000000\ta stormy sea\n4.000000\t5.000000\tred, blue\n"),
    ],
)
def test_tables_of_others_are_read(name: str, table: str, tmp_path: Path) -> None:
    assert read(name, table, tmp_path) == ([(1.5, 4, "a stormy sea"), (4, 5, "red, blue")], [])


def test_rows_and_columns_that_are_not_used_are_noted(tmp_path: Path) -> None:
    table = "start;text;colour;mood\n1;a sea;blue;calm\nsoon;a sky;;\n3;;;\n4;night;;;more\n"
    assert read("song.csv", table, tmp_path) == (
        [(1, None, "a sea"), (4, None, "night")],
        [
            "not used: column colour, mood; line 3: left out, 'soon' is not a time; "
            "line 4: left out, a prompt has no text; line 5: cells without a column are not used"
        ],
    )
    headless = "0:01,red sky\nlater,blue\n0:03,night\n"
    texts, notes = read("song.csv", headless, tmp_path)
    assert (texts, notes) == ([(1, 3, "red sky"), (3, None, "night")], ["line 2: left out, 'later' is not a time"])
    with pytest.raises(SettingsError) as caught:
        read("song.csv", "Anfang;Ende;Worte\n1;2;a sea\n", tmp_path)
    assert "semicolons" in caught.value.hint


def test_lists_keep_their_valid_items(tmp_path: Path) -> None:
    found = read(
        "song.json", '["a sea",\n4,\n{"text": "a sky", "weight": 1000},\n{"text": "night", "start": 12}]', tmp_path
    )
    assert found[0] == [(None, None, "a sea"), (12, None, "night")]
    assert found[1][0].startswith(
        "line 2: left out, a prompt is a text, not 4; line 3: left out, weight cannot be 1000"
    )


def test_what_is_ambiguous_in_a_list_is_noted_with_its_line(tmp_path: Path) -> None:
    lines = "a sea\n3-5 people\n# times\n0:30-0:12 a sky\n0:01-0:02 the sea, 16:9\n"
    texts, notes = read("song.txt", lines, tmp_path)
    assert texts == [(None, None, "a sea"), (None, None, "3-5 people"), (1, 2, "the sea, 16:9")]
    assert notes == [
        'line 2: "3-5 people" is read as words; for times write "0:03-0:05 people"; '
        "line 4: left out, the prompt 'a sky' ends at 12 s, before it starts; "
        'line 5: "the sea, 16:9" is read as words; for a weight write "the sea, 16:9.0"'
    ]
    assert read("song.yaml", "- 3-5 people\n", tmp_path)[1][0].startswith('line 1: "3-5 people" is read as words')


def test_a_long_note_is_thinned(tmp_path: Path) -> None:
    lines = "\n".join(["[00:01.00]a sea", *("untimed" for _ in range(40))])
    assert read("song.lrc", lines, tmp_path)[1] == [
        "lines 2, 3, 4, 5, 6 and 35 more: left out, no time stamp before it"
    ]
    lines = "\n".join(f"{start}-{start + 5} people" for start in range(30))
    note = read("song.txt", lines, tmp_path)[1][0]
    assert note.count("is read as words") == 5
    assert note.endswith("; and 25 more lines")


def test_an_invalid_event_costs_no_other(tmp_path: Path) -> None:
    head, rest = "[Script Info]\n\n[Events]\n", "Default,,0,0,0,,"
    events = f"Dialogue: 0,never,0:00:02.00,{rest}a\nDialogue: 0,0:00:03.00,0:00:03.00,{rest}b\n"
    events += f"Dialogue: x,0:00:04.00,0:00:05.00,{rest}{{\\an8}}red, sky\\hand <3\n"
    events += f"Dialogue: 0,0:00:05.00,0:00:06.00,{rest}\n"
    assert read("song.ass", head + events, tmp_path) == (
        [(4, 5, "red, sky and <3")],
        ["line 4: left out, not a valid event; line 5: left out, it ends where it starts"],
    )


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_utf_with_a_byte_order_mark_is_read(encoding: str, tmp_path: Path) -> None:
    assert read("song.srt", "1\n0:01 --> 0:02\ncafé 海\n".encode(encoding), tmp_path) == ([(1, 2, "café 海")], [])


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1252", "café noir à la plage"),
        ("cp1252", "naïve “red sky”"),
        ("cp1252", "grüne Hügel"),
        ("cp1251", "красное небо над морем"),
        ("cp932", "赤い空と青い海が見える、夜の街"),
        ("utf_16_le", "red sky and blue sea"),
    ],
)
def test_another_encoding_is_guessed_and_noted_or_set(encoding: str, text: str, tmp_path: Path) -> None:
    content = f"[00:01.00]{text}\n".encode(encoding)
    expected = [(1.0, None, text)]
    assert read("song.lrc", content, tmp_path) == (
        expected, [f"decoded as {encoding}, which is a guess; --encoding sets it"]
    )  # fmt: skip
    assert read("song.lrc", content, tmp_path, encoding) == (expected, [])


@pytest.mark.parametrize(
    ("encoding", "what"),
    [("utf-8", "line 2: is not utf-8 text"), ("nope", "no encoding of text is called 'nope'"), ("hex", "called 'hex'")],
)
def test_a_wrong_encoding_is_refused(encoding: str, what: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=what):
        read("song.lrc", "[00:01.00]a\n[00:02.00]café\n".encode("cp1252"), tmp_path, encoding)
