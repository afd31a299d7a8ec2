"""The README and the generated documentation agree with the code."""

from __future__ import annotations

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest

from tests import readme
from tests.conftest import ROOT, SAMPLES


def test_generated_parts_are_what_the_code_says() -> None:
    text = readme.README.read_text()
    assert text == readme.filled(text), "run `make docs`"
    assert readme.OPTIONS.read_text() == readme.options_page(), "run `make docs`"


def test_links_and_pictures_exist() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", readme.README.read_text()):
        if "://" not in target:
            assert (ROOT / target).exists(), target


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z-]+)", readme.README.read_text()))
    assert named <= targets


def test_options_of_shell_lines_exist() -> None:
    from typer.testing import CliRunner

    from wav2clip_gen.cli.app import COMMANDS

    def known(command: str, *words: str) -> set[str]:
        app = import_module(f"wav2clip_gen.cli.{command}").app
        wanted = "--help-all" if command == "render" else "--help"
        shown = CliRunner().invoke(app, [*words, wanted], env={"COLUMNS": "200"}).output
        return set(re.findall(r"(--?[a-z][a-z-]*)", shown))

    for block in readme.blocks("sh"):
        for line in block.replace("\\\n", "").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["w2c-gen"]:
                command = words[1] if words[1] in COMMANDS else "render"
                inner = [words[2]] if command in ("train", "weights") else []
                used = {word for word in words if re.fullmatch(r"--?[a-z][a-z-]*", word)}
                assert used <= known(command, *inner), line


@pytest.mark.slow
def test_python_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "song.wav").symlink_to(SAMPLES / "africa.ogg")
    monkeypatch.chdir(tmp_path)
    assert readme.blocks("python")
    for block in readme.blocks("python"):
        exec(compile(block, "README.md", "exec"), {})
