"""Words that a text tower has not learned are reported, and only those."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from wav2clip_gen.analysis import read_labels as everyday
from wav2clip_gen.errors import WeightsError
from wav2clip_gen.models import manifest
from wav2clip_gen.models.vocabulary import FILE, note_unknown, read_words, words_in, write_words

MINI = manifest.shipped_folder() / "mini" / "clip.safetensors"


def note(*texts: str, weights: Path = MINI) -> str:
    return note_unknown(texts, weights, name="mini-clip")


@pytest.mark.parametrize(
    "text",
    [
        "a stormy sea",
        "A Stormy SEA!",
        "the city on fire, at night",
        "the sea, 4k, hd",
        "",
        "an owl",
        "rain-forest",
        "a sea – blue “sky”",
    ],
)
def test_known_words_need_no_note(text: str) -> None:
    assert note(text) == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("xqzw", 'mini-clip has not learned the word "xqzw", and guesses'),
        ("sunflowers at sea", 'mini-clip has not learned the word "sunflowers", and guesses; it knows "sunflower"'),
        ("xqzw and Kubernetes", 'mini-clip has not learned the words "xqzw", "kubernetes", and guesses'),
        ("an ox", 'mini-clip has not learned the words "an", "ox", and guesses'),
        ("1984, 4k", 'mini-clip has not learned the words "1984", "4k", and guesses'),
        ("!!!", 'mini-clip has not learned the word "!!!", and guesses'),
        ("海", 'mini-clip has not learned the word "海", and guesses'),
        ("🌊", 'mini-clip has not learned the word "🌊", and guesses'),
        ("red sky ☔️ at 5 €", 'mini-clip has not learned the words "☔️", "€", and guesses'),
        ("嵐の海", 'mini-clip has not learned the word "嵐の海", and guesses'),
    ],
)
def test_unknown_words_are_named_with_what_is_spelt_alike(text: str, expected: str) -> None:
    assert note(text) == expected


def test_a_song_full_of_unknown_words_is_one_short_line() -> None:
    line = note(*(f"xqzw{chr(97 + number)}" for number in range(20)), "xqzwa")
    assert line.count("xqzw") == 5
    assert "and 15 more" in line


def test_most_everyday_words_are_known() -> None:
    words = everyday()
    assert sum(note(word) == "" for word in words) >= 0.95 * len(words)


def test_a_network_without_a_list_is_not_spoken_for(tmp_path: Path) -> None:
    assert read_words(tmp_path / "clip.safetensors") is None
    assert note("xqzw", weights=tmp_path / "clip.safetensors") == ""


def test_a_list_is_written_the_same_for_the_same_words(tmp_path: Path) -> None:
    words = words_in(["A dog, a cat", "the dog's bone"])
    assert words == ["a", "dog", "cat", "the", "s", "bone"]
    first = write_words(words, tmp_path / "clip.safetensors").read_bytes()
    assert write_words([*reversed(words), "dog"], tmp_path / "clip.safetensors").read_bytes() == first
    assert read_words(tmp_path / "clip.safetensors") == frozenset(words)


SHORT, NO_TEXT = (gzip.compress(content, mtime=0) for content in (b"dog", b"\xff\xfe"))


@pytest.mark.parametrize("content", [b"", b"a dog", SHORT[:-6], NO_TEXT])
def test_a_damaged_list_is_reported(content: bytes, tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(WeightsError, match=r"words\.txt\.gz: not a readable list"):
        note("a dog", weights=tmp_path / "clip.safetensors")
