"""Tables of captions, and what is wrong with some."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmark.captions import clip
from wav2clip_gen.benchmark.caption_texts import add_captions, read_texts, same_sounds, texts_of
from wav2clip_gen.benchmark.clips import Dataset
from wav2clip_gen.errors import SettingsError

TABLE = 'file_name,caption_1,caption_2\nrain.wav,Rain falls.,"Heavy rain, on a roof"\ndog.wav,A dog barks,\n'
PLENTY = "개가 짖는 소리가 들리고 비가 내린다. 사람들이 이야기하고 있다. " * 4


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


def test_captions_are_read_from_tables_and_from_lines(tmp_path: Path) -> None:
    first, second = read_texts(write(tmp_path / "a.csv", TABLE, "utf-8-sig"))
    assert (first.key, first.captions, first.split) == ("rain.wav", ("Rain falls.", "Heavy rain, on a roof"), "train")
    assert (second.key, second.captions) == ("dog.wav", ("A dog barks",))
    lines = read_texts(write(tmp_path / "a.txt", "A dog barks\r\n\r\nRain\n"))
    assert [(one.key, one.captions) for one in lines] == [("a.txt:1", ("A dog barks",)), ("a.txt:2", ("Rain",))]


@pytest.mark.parametrize(
    ("text", "encoding", "what", "hint"),
    [
        (TABLE + "café.wav,Des gens parlent au café,près de là\n", "iso-8859-1", "a.csv:4: is not UTF-8", "iconv -f "),
        (TABLE + f"x.wav,{PLENTY},b\n", "cp949", "a.csv:4: is not UTF-8 text", "iconv -f CP949 -t UTF-8 a.csv"),
        ("file_name,text\na.wav,b\n", "utf-8", "no column is called caption; it has file_name, text", "caption_1"),
        (TABLE + "wind.wav, ,\n", "utf-8", "a.csv:4: wind.wav has no caption", "write one, or remove the row"),
        ("file_name,caption_1\n", "utf-8", "a.csv: has no captions", "one a line, or CSV"),
    ],
)
def test_a_bad_table_is_refused(tmp_path: Path, text: str, encoding: str, what: str, hint: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read_texts(write(tmp_path / "a.csv", text, encoding))
    assert what in caught.value.what
    assert hint in caught.value.hint


def test_a_missing_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        read_texts(tmp_path / "none.csv")


def test_captions_read_in_a_wrong_encoding_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"a\.wav: the caption .* was read in a wrong encoding"):
        texts_of(clip("a.wav", "개가 짖는다".encode("cp949").decode("latin-1")))
    assert texts_of(clip("a.wav", "Des gens parlent au café", "")) == [["des", "gens", "parlent", "au", "café"]]


def test_captions_are_added_to_the_clips_of_a_set(tmp_path: Path) -> None:
    sounds = Dataset(name="sounds", clips=(clip("dog.wav", split="1"), clip("cat.wav", "meow", split="2")), folds=True)
    added = add_captions(sounds, write(tmp_path / "a.csv", TABLE))
    assert [(one.key, one.captions, one.split) for one in added.clips] == [
        ("dog.wav", ("A dog barks",), "test"),
        ("cat.wav", (), ""),
    ]
    assert added.notes == ["1 of the 2 sounds with captions are not in the set."]
    with pytest.raises(SettingsError, match="none of its 1 sounds is in sounds"):
        add_captions(sounds, write(tmp_path / "b.csv", "key,caption\nx,a cow\n"))


def test_the_same_sound_is_known_by_key_recording_or_captions() -> None:
    tested = [clip("a.wav", "A dog barks", "rain")]
    training = [clip("a.wav", "x"), clip("b.wav", "a dog barks", "y"), clip("c.wav", "a dog barks", "y", "z")]
    assert same_sounds(training, tested) == {"a.wav", "b.wav"}
