"""Prompts from files: all formats give the same prompts; what cannot be read is told with its line."""

from __future__ import annotations

import contextlib
import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wav2clip_gen.config import Prompt, PromptNote
from wav2clip_gen.errors import SettingsError
from wav2clip_gen.prompts import READERS, read_prompts

SEA = Prompt(text="a stormy sea", start=1.5, end=4.0)
NIGHT = Prompt(text="night falls", start=4.0, end=70.25)

SAME = {
    "song.srt": (
        "1\n00:00:01,500 --> 00:00:04,000\n<i>a stormy</i>\nsea\n\n"
        "2\n00:00:04,000 --> 00:01:10,250\n{\\an8}night falls\n\n3\n00:02:00,000 --> 00:02:01,000\n\n"
    ),
    "song.vtt": (
        "WEBVTT - a title\n\nNOTE nobody\nsees this\n\nSTYLE\n::cue { color: red }\n\n"
        "first\n00:01.500 --> 00:04.000 align:start\na stormy sea\n\n00:04.000 --> 01:10.250\n<v Ann>night falls\n"
    ),
    "song.sbv": "0:00:01.500,0:00:04.000\na stormy\nsea\n\n0:00:04.000,0:01:10.250\nnight falls\n",
    "song.lrc": "[ar:Somebody]\n[offset:0]\n[00:01.50]a stormy sea\n[00:04.00] night falls\n[01:10.25]\n",
    "song.ass": (
        "[Script Info]\nScriptType: v4.00+\n\n[V4+ Styles]\nFormat: Name, Fontname\nStyle: Default,Arial\n\n[Events]\n"
        "Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\n"
        "Dialogue: 0,0:00:01.50,0:00:04.00,Default,,0,0,0,,{\\k50}a {\\k30}stormy\\Nsea\n"
        "Comment: 0,0:00:02.00,0:00:03.00,Default,,0,0,0,,nobody sees this\n"
        "Dialogue: 0,0:00:04.00,0:01:10.25,Default,,0,0,0,,night falls\n"
    ),
    "song.csv": "start,end,text\n1.5,4,a stormy sea\n0:04, 1:10.25 ,night falls\n",
    "song.tsv": "TEXT\tStart\tEnd\na stormy sea\t1.5\t4\nnight falls\t0:04\t1:10.25\n",
    "song.json": '[{"text": "a stormy sea", "start": 1.5, "end": "0:04"}, "0:04-1:10.25 night falls"]',
    "song.yaml": "- {text: a stormy sea, start: 1.5, end: 4}\n- 0:04-1:10.25 night falls\n",
    "song.yml": "prompts:\n  - 1.5-4 a stormy sea\n  - {text: night falls, start: 4.0, end: '1:10.25'}\n",
    "song.txt": "# what it sings\n\n1.5-4 a stormy sea\n0:04-1:10.25 night falls\n",
}


@pytest.mark.parametrize("name", SAME)
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_all_formats_give_the_same_prompts(name: str, ends: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(b"\xef\xbb\xbf" + SAME[name].replace("\n", ends).encode())
    assert read_prompts(path) == (SEA, NIGHT)


def test_every_format_is_tested() -> None:
    assert {Path(name).suffix for name in SAME} | {".ssa"} == set(READERS)


def test_a_lyric_with_two_time_stamps_is_repeated_and_an_offset_moves_all(tmp_path: Path) -> None:
    path = tmp_path / "song.lrc"
    path.write_text("[offset:+500]\n[00:02.00][00:06.00]the sea\n[00:04.00]the sky\n")
    assert [(one.text, one.start, one.end) for one in read_prompts(path)] == [
        ("the sea", 1.5, 3.5), ("the sky", 3.5, 5.5), ("the sea", 5.5, None),
    ]  # fmt: skip


def test_weights_are_read(tmp_path: Path) -> None:
    path = tmp_path / "song.csv"
    path.write_text("text,weight\na crowd,-0.5\nnight,\n")
    assert [one.weight for one in read_prompts(path)] == [-0.5, 1.0]


WRONG = [
    ("a.srt", "a sea\n", 1, "no times before it"),
    ("a.srt", "1\n00:00:01,500 --> later\na sea\n", 2, "not contain two times"),
    ("a.srt", "1\n00:00:04,000 --> 00:00:01,500\na sea\n", 2, "before it starts"),
    ("a.vtt", "WEBVTT\n\n00:01.500 -->\na sea\n", 3, "not contain two times"),
    ("a.ass", "[Events]\nFormat: Start, Text\nDialogue: never,a sea\n", 3, "not a valid event"),
    ("a.lrc", "[Verse 1]\na sky\n", 1, "no time stamp before"),
    ("a.csv", "start,end\n1,2\n", 1, "column `text`"),
    ("a.csv", "Anfang;Ende\n1;2\n", 1, "column `text`"),
    ("a.csv", "start,text\n\nsoon,a sky\n", 3, "'soon' is not a time"),
    ("a.csv", "start,text\n1,\n", 2, "has no text"),
    ("a.json", '[{"start": 1}]', 1, "has no text"),
    ("a.csv", "text,weight\na sea,heavy\n", 2, "weight must be float, not 'heavy'"),
    ("a.json", '["a sea",\n"a sky"\n', 3, "not valid JSON"),
    ("a.json", '[\n\n{"text": "a sky", "weight": 1000}\n]', 3, "weight cannot be 1000"),
    ("a.json", '{"words": 3}', 1, "no list of prompts"),
    ("a.yaml", "- a sea\n- {text: a sky\n", 3, "expected"),
    ("a.yaml", "-\n- 4\n", 1, "a prompt is a text"),
    ("a.txt", "# times\n0:30-0:12 a sky\n", 2, "before it starts"),
]


@pytest.mark.parametrize(("name", "text", "line", "what"), WRONG)
def test_a_file_with_nothing_usable_is_refused_with_its_first_line(
    name: str, text: str, line: int, what: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(SettingsError) as caught:
        read_prompts(tmp_path / name)
    assert f"{name}, line {line}: " in caught.value.what
    assert what in caught.value.what
    assert caught.value.hint
    assert "\n" not in caught.value.what


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("a.doc", b"a sea", "cannot be read from this file format"),
        ("a.txt", b"", "contains no prompts"),
        ("a.txt", b"\xff\xfe\x00", "is not utf-16 text"),
        ("a.txt", bytes(range(256)) * 3, "its encoding is not recognized"),
        ("a.srt", None, "cannot be read"),
    ],
)
def test_unreadable_files_are_refused(name: str, content: bytes | None, what: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SettingsError, match=what):
        read_prompts(tmp_path / name)


@given(suffix=st.sampled_from(sorted(READERS)), text=st.text())
def test_no_text_crashes(suffix: str, text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("words") / f"a{suffix}"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    with contextlib.suppress(SettingsError), warnings.catch_warnings():
        warnings.simplefilter("ignore", PromptNote)
        assert all(prompt.text for prompt in read_prompts(path))
