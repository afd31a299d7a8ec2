"""The README and the pages of docs/ agree with the code."""

from __future__ import annotations

import ast
import pkgutil
import re
import shlex
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from tests import readme
from tests.conftest import ROOT, SAMPLES
from wav2clip_gen.cli.app import COMMANDS

EVERYWHERE = {"--help", "-h"}
OTHER_TOOLS = {"--nproc-per-node", "--num-cpus"}  # torchrun, ray
REMOVED = {"--teacher"}  # named by the model card

pages = pytest.mark.parametrize("page", readme.WRITTEN, ids=lambda path: str(path.relative_to(ROOT)))


def command_line(command: str) -> Any:
    """A command as Typer builds it."""
    return get_command(import_module(f"wav2clip_gen.cli.{command}").app)


@cache
def options_of(command: str, subcommand: str = "") -> set[str]:
    """All options of a command, hidden ones too."""
    found = command_line(command)
    if subcommand:
        found = found.commands[subcommand]
    return EVERYWHERE | {flag for one in found.params for flag in (*one.opts, *one.secondary_opts)}


@cache
def all_options() -> set[str]:
    names = [(command, "") for command in ("render", *COMMANDS)]
    names += [(group, name) for group in ("train", "weights") for name in command_line(group).commands]
    return set().union(*(options_of(*name) for name in names))


def options_in(words: list[str]) -> set[str]:
    """The options of a shell line of w2c-gen up to a pipe, each without its value."""
    end = next((place for place, word in enumerate(words) if word in ("|", "||", "&&", ";")), len(words))
    return {match[0] for word in words[:end] if (match := re.match(r"--?[a-z][a-z-]*", word))}


def test_generated_pages_are_up_to_date() -> None:
    for path, content in readme.generated_pages().items():
        assert path.read_text() == content, "run `make docs`"


def test_the_readme_is_short() -> None:
    assert len(readme.README.read_text().splitlines()) <= 220


@pages
def test_links_and_pictures_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pages
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)|^make ([a-z-]+)", page.read_text(), re.MULTILINE)) <= {
        pair for target in targets for pair in ((target, ""), ("", target))
    }


@pages
def test_options_of_shell_lines_exist(page: Path) -> None:
    for block in readme.blocks(page, "sh"):
        for line in block.replace("\\\n", "").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["w2c-gen"]:
                command = words[1] if words[1] in COMMANDS else "render"
                subcommand = words[2] if command in ("train", "weights") else ""
                assert options_in(words) <= options_of(command, subcommand), line


@pages
def test_options_in_the_text_exist(page: Path) -> None:
    spans = re.findall(r"`([^`\n]+)`", page.read_text())
    named = {flag for span in spans for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]*", span)}
    assert named <= all_options() | OTHER_TOOLS | REMOVED


@pages
def test_python_blocks_compile_and_their_imports_exist(page: Path) -> None:
    for block in readme.blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("wav2clip_gen"):
                module = import_module(node.module)
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []
            elif isinstance(node, ast.Import):
                assert all(find_spec(alias.name) for alias in node.names)


@pages
def test_names_of_the_package_in_the_text_exist(page: Path) -> None:
    for name in re.findall(r"`(wav2clip_gen[\w./]*)`", page.read_text()):
        if "/" in name:
            assert (ROOT / name).exists(), name
        else:
            pkgutil.resolve_name(name)


@pytest.mark.slow
@pages
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from wav2clip_gen.synthesis.optimizer import FrameOptimizer

    iterate = FrameOptimizer.iterate
    monkeypatch.setattr(FrameOptimizer, "iterate", lambda *given, steps, **more: iterate(*given, steps=1, **more))
    (tmp_path / "song.wav").symlink_to(SAMPLES / "africa.ogg")
    monkeypatch.chdir(tmp_path)
    done = [] if page == readme.README else readme.blocks(readme.README, "python")
    for block in readme.blocks(page, "python"):
        if block not in done:
            exec(compile(block, str(page), "exec"), {"__name__": "__main__"})
