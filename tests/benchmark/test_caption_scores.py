"""Scores of captions against cases that can be checked by hand, and against 1,040 that published tools scored."""

from __future__ import annotations

import csv
import math
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from tests.conftest import ROOT
from wav2clip_gen.benchmark.caption_scores import METRICS, score_captions, tokenize

DATA = Path(os.environ.get("DATA", ROOT.parent / "shared" / "data"))
GOLDEN = DATA / "captions" / "metrics_reference.csv"
COLUMNS = dict(zip(METRICS, ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider"), strict=True))


def score(*pairs: tuple[str, list[str]]) -> list[dict[str, float]]:
    return score_captions([one.split() for one, _ in pairs], [[*map(str.split, texts)] for _, texts in pairs]).each


def test_a_caption_equal_to_a_reference_has_full_marks() -> None:
    first, _ = score(("a dog barks at night", ["a dog barks at night"]), ("rain falls", ["water runs"]))
    assert [first[name] for name in METRICS[:5]] == pytest.approx([1] * 5)
    assert first["CIDEr-D"] == pytest.approx(10)


def test_bleu_counts_clipped_ngrams_and_punishes_brevity() -> None:
    (found,) = score(("the the the dog", ["the dog barks loudly now", "the dog is the best of all dogs"]))
    brevity = math.exp(1 - 5 / 4)  # the closest reference has five words
    assert found["BLEU-1"] == pytest.approx(brevity * 3 / 4)  # two of the three "the" are in one reference, and "dog"
    assert found["BLEU-2"] == pytest.approx(brevity * math.sqrt(3 / 4 * 1 / 3))


def test_rouge_l_takes_the_longest_common_subsequence() -> None:
    (found,) = score(("a dog barks loudly", ["a big dog growls and barks"]))
    precision, recall = 3 / 4, 3 / 6
    assert found["ROUGE-L"] == pytest.approx(2.44 * precision * recall / (recall + 1.44 * precision))


def test_cider_d_weighs_words_by_how_rare_they_are() -> None:
    common, rare = score(("one bird sings", ["a dog barks"]), ("a train", ["the train"]))
    assert common["CIDEr-D"] == 0
    # "a" is in one of two clips' references as "the" and "train" are: log 2 each; one of two words is right, no pair
    assert rare["CIDEr-D"] == pytest.approx(10 * (1 / 2) / 4)


def test_a_caption_without_words_scores_nothing() -> None:
    empty, full = score(("", ["a dog barks"]), ("a dog barks", ["a dog barks"]))
    assert all(value < 1e-3 for value in empty.values())
    assert full["BLEU-4"] < 0.1  # three words have no four in a row: pycocoevalcap gives (1e-15 / 1e-9) ** (1 / 4)


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("A person's dog, barking; doesn't stop!", "a person 's dog barking does n't stop"),
        ("People talk on a walkie-talkie - loudly...", "people talk on a walkie-talkie loudly"),
        ("The dogs' bowls (two) “clink” at 4:30 p.m.", "the dogs bowls two clink at 4:30 p.m."),
        ("They cannot hear 1,000 birds, I’m sure", "they can not hear 1,000 birds i 'm sure"),
        (" \t", ""),
    ],
)
def test_captions_are_cut_into_words_as_the_penn_treebank_does(caption: str, words: str) -> None:
    assert " ".join(tokenize(caption)) == words


@pytest.mark.skipif(not GOLDEN.is_file(), reason="needs the data folder: DATA=...")
def test_published_scores_are_reproduced() -> None:
    with GOLDEN.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    captions = [row["caption_predicted"].split() for row in rows]
    references = [[row[f"caption_{number}"].split() for number in range(1, 6)] for row in rows]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shutil.which", lambda name: None)
        found = score_captions(captions, references)
    assert len(rows) == 1040
    for name, column in COLUMNS.items():
        assert [scores[name] for scores in found.each] == pytest.approx([float(row[column]) for row in rows], abs=1e-6)
    corpus = [found.corpus[name] for name in METRICS]
    assert corpus == pytest.approx([0.5091, 0.3116, 0.2011, 0.1297, 0.3388, 0.2928], abs=5e-5)


def test_without_java_two_metrics_are_left_out_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    found = score_captions([["a", "dog"]], [[["a", "dog"]]])
    assert list(found.corpus) == [*METRICS]
    reason = "it runs in Java, which is not installed (apt-get install default-jre-headless)."
    assert found.notes == [f"METEOR is left out: {reason}", f"SPICE is left out: {reason}"]


def test_with_java_its_scores_are_added(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    meteor = install(monkeypatch, tmp_path)
    found = score_captions([["a", "dog"], ["rain"]], [[["a", "dog"]], [["water"]]])
    assert [found.corpus["METEOR"], found.corpus["SPICE"]] == [0.5, 0.25]
    assert [scores["METEOR"] for scores in found.each] == [0.75, 0.25]
    assert [scores["SPICE"] for scores in found.each] == [0.5, 0.0]
    assert found.notes == []
    meteor.Meteor.fails = True
    (tmp_path / "lib" / "stanford-corenlp-3.6.0-models.jar").unlink()
    found = score_captions([["a", "dog"]], [[["a", "dog"]]])
    assert found.notes[0] == "METEOR is left out: its program in Java failed (no such memory)."
    assert found.notes[1].startswith("SPICE is left out: its language model is not fetched")


def install(monkeypatch: pytest.MonkeyPatch, folder: Path) -> SimpleNamespace:
    """A Java, and a pycocoevalcap whose scorers give fixed scores."""

    class Meteor:
        fails = False

        def compute_score(self, references: dict[int, list[str]], captions: dict[int, list[str]]) -> object:
            if Meteor.fails:
                raise ValueError("no such\nmemory")
            assert (references[0], captions[0]) == (["a dog"], ["a dog"])
            return 0.5, [0.75, 0.25][: len(captions)]

    class Spice:
        def compute_score(self, references: object, captions: object) -> object:
            return 0.25, [{"All": {"f": 0.5}}, {"All": {"f": 0.0}}]

    meteor, spice = SimpleNamespace(Meteor=Meteor), SimpleNamespace(Spice=Spice, __file__=str(folder / "spice.py"))
    (folder / "lib").mkdir()
    (folder / "lib" / "stanford-corenlp-3.6.0-models.jar").touch()
    package = ModuleType("pycocoevalcap.spice")
    package.spice = spice  # type: ignore[attr-defined]
    for name, module in {"": ModuleType("pycocoevalcap"), ".meteor.meteor": meteor, ".spice": package}.items():
        monkeypatch.setitem(sys.modules, f"pycocoevalcap{name}", module)
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/java")
    return meteor
