"""Tables, and the sections of a page that they are written into."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import ROOT
from wav2clip_gen.errors import SettingsError, W2CError
from wav2clip_gen.evaluation import suite
from wav2clip_gen.evaluation.suite import MEASURES, select_measures

TABLE = suite.Table(title="Sounds", rows=[("top-1 | all", "62.2 %", "0.7 %")], notes=["Held out."], figures={})


def page(path: Path, *names: str) -> Path:
    middle = "\n".join("\nold figures\n".join(suite.section_markers(name)) for name in names)
    path.write_text(f"# Card\n{middle}\nthe end\n")
    return path


def test_markdown_has_a_row_each_and_the_notes_below() -> None:
    head, rule, row, gap, note = suite.markdown(TABLE).splitlines()
    assert (head, rule) == ("| measure | figure | chance |", "| --- | --- | --- |")
    assert row == r"| top-1 \| all | 62.2 % | 0.7 % |"
    assert (gap, note) == ("", "Held out.")


def test_a_share_has_its_counts() -> None:
    assert suite.format_share(166, 267) == "62.2 % (166 of 267)"


def test_only_the_named_section_is_replaced(tmp_path: Path) -> None:
    path = page(tmp_path / "card.md", "mini clip", "mini film")
    text = suite.fill_sections(path, {"mini film": "new figures"})
    assert text.count("old figures") == text.count("new figures") == 1
    assert text.index("old figures") < text.index("new figures")
    assert text.startswith("# Card\n")
    assert text.endswith("\nthe end\n")
    path.write_text(text)
    assert "new figures" not in suite.fill_sections(path, {"mini film": "newer figures"})


def test_a_page_without_the_markers_is_refused_untouched(tmp_path: Path) -> None:
    path = page(tmp_path / "card.md", "mini clip", "mini clip")
    before = path.read_text()
    for name, count in (("mini film", "0 places"), ("mini clip", "2 places")):
        with pytest.raises(W2CError, match=count) as error:
            suite.fill_sections(path, {name: "x"})
        assert suite.section_markers(name)[0] in error.value.hint
    assert path.read_text() == before
    with pytest.raises(W2CError, match="cannot be read"):
        suite.fill_sections(tmp_path / "nowhere.md", {"mini film": "x"})


def test_the_model_card_has_a_filled_section_for_each_measure() -> None:
    card = (ROOT / "weights" / "README.md").read_text()
    for name in MEASURES:
        begin, end = suite.section_markers(f"mini {name}")
        section = card.partition(begin)[2].partition(end)[0]
        assert "| --- |" in section, name
        assert "SHA-256" in section, name


def test_measures_are_selected_in_their_own_order() -> None:
    assert select_measures(None) == tuple(MEASURES)
    assert select_measures("film, vqgan") == ("vqgan", "film")


def test_an_unknown_measure_is_named() -> None:
    with pytest.raises(SettingsError, match="'vqagn'") as error:
        select_measures("vqagn")
    assert error.value.hint == "did you mean vqgan?"
