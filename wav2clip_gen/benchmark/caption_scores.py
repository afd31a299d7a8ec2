"""How near captions come to those of people: BLEU, ROUGE-L, CIDEr-D and, where Java is there, METEOR and SPICE.

The first three are written from their papers and equal the scorers of pycocoevalcap, which captioning reports; its
wheel of 104 MB is only needed for the two that run in Java (the extra `captions`).
"""

from __future__ import annotations

import math
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Words = list[str]
NGram = tuple[str, ...]

LONGEST = 4  # words of an n-gram, in BLEU and CIDEr
TINY, SMALL = 1e-15, 1e-9  # pycocoevalcap adds them to numerators and denominators of BLEU
BETA = 1.2  # of ROUGE-L: how much more recall counts than precision
SIGMA = 6.0  # of CIDEr-D: words by which lengths may differ
METRICS = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr-D")

PUNCTUATION = (
    {"''", "'", "``", "`", "-lrb-", "-rrb-", "-lcb-", "-rcb-", "-lsb-", "-rsb-"} | set(".?!,:-;") | {"--", "..."}
)
TOKENS = re.compile(
    r"""
    \d+(?:[.,:/-]\d+)*(?:st|nd|rd|th|s)?(?:-\w+)*   # numbers, 3.5, 4:30, 20-30, 20th
    | (?:[a-z]\.){2,}                             # u.s.
    | (?:mr|mrs|ms|dr|st|vs|etc|jr|sr)\.          # abbreviations keep their point
    | [^\W_]+(?:['’][^\W_]+)*(?:-[^\W_]+(?:['’][^\W_]+)*)*  # words, with hyphens and apostrophes inside
    | \.{2,} | -{2,} | ['’](?:s|re|ve|ll|d|m)\b | [^\s]
    """,
    re.VERBOSE,
)
CLITIC = re.compile(r"(.+?)(n['’]t|['’](?:s|re|ve|ll|d|m))")
JOINED = {"cannot": ("can", "not"), "gonna": ("gon", "na"), "gotta": ("got", "ta"), "wanna": ("wan", "na")}


@dataclass(frozen=True, kw_only=True)
class CaptionScores:
    """Scores of captions against their references."""

    corpus: dict[str, float]  # metric -> of all captions together: BLEU pools its counts, the others are means
    each: list[dict[str, float]]  # the same of each caption
    notes: list[str] = field(default_factory=list)  # which metrics are left out, and why


def tokenize(caption: str) -> Words:
    """The words of a caption in lower case, as the Penn Treebank cuts them, without punctuation.

    Contractions are two words (`does n't`, `dog 's`), words with hyphens one. It stands for the Java tokenizer of
    CoreNLP 3.4.1, with whose tokens captions are scored; see docs/captions.md for where they differ.
    """
    words: Words = []
    for token in TOKENS.findall(caption.lower()):
        plain = token.replace("’", "'")
        if plain in PUNCTUATION or not any(map(str.isalnum, plain)):
            continue
        if plain in JOINED:
            words += JOINED[plain]
        elif match := CLITIC.fullmatch(plain):
            words += match.groups()
        else:
            words.append(plain)
    return words


def score_captions(
    captions: Sequence[Words], references: Sequence[Sequence[Words]], *, java: bool = True
) -> CaptionScores:
    """Score captions, as words, each against its references (at least one), as words too.

    `java`: also by METEOR and SPICE, where they can be had.

    BLEU: Papineni et al., ACL 2002, with the closest reference's length; ROUGE-L: Lin, 2004; CIDEr-D: Vedantam et al.,
    arXiv 1411.5726, with document frequencies from these references, so that it depends on which clips are scored.
    """
    each = [dict.fromkeys(METRICS, 0.0) for _ in captions]
    corpus, bleu = _bleu(captions, references)
    corpus["ROUGE-L"] = corpus["CIDEr-D"] = 0.0
    cider = _cider(captions, references)
    for row, scores, caption, texts, agreement in zip(each, bleu, captions, references, cider, strict=True):
        row |= {**scores, "ROUGE-L": _rouge(caption, texts), "CIDEr-D": agreement}
    for name in ("ROUGE-L", "CIDEr-D"):
        corpus[name] = float(np.mean([row[name] for row in each]))
    notes = []
    for name, score in (("METEOR", _meteor), ("SPICE", _spice)) if java else ():
        try:
            values, whole = score(
                [" ".join(caption) for caption in captions], [[*map(" ".join, t)] for t in references]
            )
        except _LeftOutError as reason:
            notes.append(f"{name} is left out: {reason}.")
            continue
        corpus[name] = whole
        for row, value in zip(each, values, strict=True):
            row[name] = value
    return CaptionScores(corpus=corpus, each=each, notes=notes)


# --- n-grams and subsequences


def _count(words: Words) -> list[Counter[NGram]]:
    """How often each n-gram occurs: a counter for each n from 1."""
    return [Counter(zip(*(words[start:] for start in range(n)), strict=False)) for n in range(1, LONGEST + 1)]


def _bleu(
    captions: Sequence[Words], references: Sequence[Sequence[Words]]
) -> tuple[dict[str, float], list[dict[str, float]]]:
    total, each = np.zeros((2, LONGEST)), []
    lengths = np.zeros(2)
    for caption, texts in zip(captions, references, strict=True):
        allowed = [Counter[NGram]() for _ in range(LONGEST)]
        for text in texts:
            allowed = [most | counts for most, counts in zip(allowed, _count(text), strict=True)]
        found = [(counts & most).total() for counts, most in zip(_count(caption), allowed, strict=True)]
        counts = np.array([found, [max(0, len(caption) - n) for n in range(LONGEST)]], dtype=float)
        closest = min((abs(len(text) - len(caption)), len(text)) for text in texts)[1]
        total += counts
        lengths += len(caption), closest
        each.append(_precision(counts, len(caption), closest))
    return _precision(total, *lengths), each


def _precision(counts: Any, length: float, closest: float) -> dict[str, float]:
    """BLEU-1 to BLEU-4 from counts (2, 4): n-grams that are right, and all."""
    means = np.cumprod((counts[0] + TINY) / (counts[1] + SMALL)) ** (1 / np.arange(1, LONGEST + 1))
    ratio = (length + TINY) / (closest + SMALL)
    brevity = math.exp(1 - 1 / ratio) if ratio < 1 and length else float(length > 0)
    return {f"BLEU-{n}": float(mean * brevity) for n, mean in enumerate(means, 1)}


def _rouge(caption: Words, references: Sequence[Words]) -> float:
    """F-measure of the longest common subsequence: best precision and best recall over the references."""
    if not caption:
        return 0.0
    common = [_common_length(caption, text) for text in references]
    precision = max(common) / len(caption)
    recall = max(length / max(len(text), 1) for length, text in zip(common, references, strict=True))
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision) if precision else 0.0


def _common_length(first: Words, second: Words) -> int:
    """Words of the longest common subsequence."""
    row = [0] * (len(second) + 1)
    for word in first:
        above = row
        row = [0]
        for place, other in enumerate(second):
            row.append(above[place] + 1 if word == other else max(above[place + 1], row[place]))
    return row[-1]


def _cider(captions: Sequence[Words], references: Sequence[Sequence[Words]]) -> list[float]:
    documents = Counter[NGram]()
    counted = [[_count(text) for text in texts] for texts in references]
    for texts in counted:
        documents.update({gram for text in texts for counts in text for gram in counts})
    whole = math.log(max(len(captions), 1))

    def weigh(counts: Counter[NGram]) -> tuple[dict[NGram, float], float]:
        """TF-IDF weights, and their norm."""
        weights = {gram: count * (whole - math.log(max(1, documents[gram]))) for gram, count in counts.items()}
        return weights, math.sqrt(sum(weight**2 for weight in weights.values()))

    scores = []
    for caption, texts, lengths in zip(captions, counted, references, strict=True):
        own, similarities = [weigh(counts) for counts in _count(caption)], []
        for text, words in zip(texts, lengths, strict=True):
            # pycocoevalcap's length of a caption is its number of pairs of words
            gap = max(len(caption) - 1, 0) - max(len(words) - 1, 0)
            cosines = [_clipped_cosine(mine, weigh(counts)) for mine, counts in zip(own, text, strict=True)]
            similarities.append(sum(cosines) / LONGEST * math.exp(-(gap**2) / (2 * SIGMA**2)))
        scores.append(10 * sum(similarities) / len(similarities))
    return scores


def _clipped_cosine(own: tuple[dict[NGram, float], float], other: tuple[dict[NGram, float], float]) -> float:
    product = sum(min(weight, other[0].get(gram, 0.0)) * other[0].get(gram, 0.0) for gram, weight in own[0].items())
    norms = own[1] * other[1]
    return product / norms if norms else 0.0


# --- in Java


class _LeftOutError(Exception):
    """Why a metric cannot be had here."""


def _require_java() -> None:
    if shutil.which("java") is None:
        raise _LeftOutError("it runs in Java, which is not installed (apt-get install default-jre-headless)")


def _failed(error: Exception) -> _LeftOutError:
    return _LeftOutError(f"its program in Java failed ({' '.join(str(error).split())[:200]})")


def _named(captions: list[str], references: list[list[str]]) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
    return dict(enumerate(references)), {number: [caption] for number, caption in enumerate(captions)}


def _meteor(captions: list[str], references: list[list[str]]) -> tuple[list[float], float]:
    """METEOR 1.5 (Denkowski and Lavie, 2014)."""
    _require_java()
    try:
        from pycocoevalcap.meteor.meteor import Meteor
    except ImportError:
        raise _LeftOutError("it needs pip install 'wav2clip-gen[captions]'") from None
    try:
        whole, each = Meteor().compute_score(*_named(captions, references))
    except (OSError, ValueError) as error:
        raise _failed(error) from None
    return each, whole


def _spice(captions: list[str], references: list[list[str]]) -> tuple[list[float], float]:
    """SPICE 1.0 (Anderson et al., arXiv 1607.08822); not a number where it finds nothing to compare."""
    import subprocess

    _require_java()
    try:
        from pycocoevalcap.spice import spice
    except ImportError:
        raise _LeftOutError("it needs pip install 'wav2clip-gen[captions]'") from None
    if not any(Path(spice.__file__).with_name("lib").glob("stanford-corenlp-*-models.jar")):
        fetch = "python -m pycocoevalcap.spice.get_stanford_models"
        raise _LeftOutError(f"its language model is not fetched (0.5 GB, by `{fetch}`)")
    try:
        whole, each = spice.Spice().compute_score(*_named(captions, references))
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise _failed(error) from None
    return [scores["All"]["f"] for scores in each], float(whole)
