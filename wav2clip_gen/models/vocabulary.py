"""The words that a text tower was trained on, in a file next to its weights, and a note on others. Imports no torch.

Only the small family has such a list. Its text tower embeds the words of its training like its teacher (mean cosine
0.79, measured from the anchors' center) and held-out words almost at random (0.20), even plurals of known words.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from unicodedata import category

from wav2clip_gen.errors import WeightsError
from wav2clip_gen.files import appear_whole

FILE = "words.txt.gz"  # sorted, one per line
SHORTEST = 3  # letters: shorter words carry little, and were left out of the training
NAMED = 5  # unknown words in one note
SYMBOLS = re.compile(r"[^\w\s\x00-\x7f]+")  # emoji, and punctuation beyond ASCII


def words_in(texts: Iterable[str]) -> list[str]:
    """The words of some texts in lower case, each once, in their order."""
    found = (word for text in texts for word in re.findall(r"[^\W\d_]+", text.lower()))
    return list(dict.fromkeys(found))


def write_words(words: Iterable[str], weights: Path) -> Path:
    """Write a vocabulary next to a weights file, the same bytes for the same words."""
    path = weights.with_name(FILE)
    with appear_whole(path, option="folder") as scratch:
        scratch.write_bytes(gzip.compress("\n".join(sorted(set(words))).encode(), mtime=0))
    return path


def read_words(weights: Path) -> frozenset[str] | None:
    """The vocabulary next to a weights file; None where there is none, as for published networks.

    Raises:
        WeightsError: It is damaged.
    """
    path = weights.with_name(FILE)
    if not path.is_file():
        return None
    try:
        words = frozenset(gzip.decompress(path.read_bytes()).decode().split())
    except (OSError, EOFError, zlib.error, UnicodeDecodeError):
        words = frozenset()
    if not words:
        raise WeightsError(f"{path}: not a readable list of words", hint="reinstall w2c-gen, or delete it")
    return words


def note_unknown(texts: Iterable[str], weights: Path, *, name: str) -> str:
    """A line about words that the text tower called `name` has not learned; empty if it knows them all.

    Raises:
        WeightsError: Its vocabulary is damaged.
    """
    texts = [text for text in texts if text.strip()]
    known = read_words(weights) if texts else None
    if known is None:
        return ""
    unknown = list(dict.fromkeys(word for text in texts for word in _unknown_in(text, known)))
    if not unknown:
        return ""
    named = ", ".join(f'"{word}"' for word in unknown[:NAMED])
    rest = f" and {len(unknown) - NAMED} more" if len(unknown) > NAMED else ""
    similar = [like for word in unknown[:NAMED] for like in _similar_word(word, known)]
    hint = f"; it knows {', '.join(similar)}" if similar else ""
    return f"{name} has not learned the word{'s' * (len(unknown) > 1)} {named}{rest}, and guesses{hint}"


def _unknown_in(text: str, known: frozenset[str]) -> list[str]:
    """The words and symbols of a text that are unknown; short words and numbers only if it has nothing else."""
    words = words_in([text])
    symbols = [run for run in SYMBOLS.findall(text) if any(category(sign).startswith("S") for sign in run)]
    unknown = [word for word in words if word not in known and (len(word) >= SHORTEST or not word.isascii())]
    if unknown or symbols or not known.isdisjoint(words):
        return unknown + symbols
    return re.findall(r"[^\W_]+", text.lower()) or [text.strip()]


def _similar_word(word: str, known: frozenset[str]) -> list[str]:
    """The known word with the most similar spelling, in quotes, if there is one."""
    candidates = sorted(other for other in known if other[:1] == word[0] and len(other) >= SHORTEST)
    return [f'"{like}"' for like in get_close_matches(word, candidates, n=1, cutoff=0.85)]
