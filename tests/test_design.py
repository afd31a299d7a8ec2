"""Rules of the design: the direction of imports, a command line without torch, no unused dependency."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGE = ROOT / "wav2clip_gen"
LAYERS = (  # each may import from its own layer and those before it
    {
        "environment",
        "errors",
        "files",
        "units",
        "fields",
        "groups",
        "guidance",
        "config",
        "images",
        "drawing",
        "devices",
        "__init__",
    },
    {"textfile", "captions", "prompts"},
    {"ffmpeg"},
    {"audio"},
    {"models", "video"},
    {"synthesis"},
    {
        "analysis",
        "plot",
        "progress",
        "memory",
        "job",
        "cost",
        "record",
        "painting",
        "film",
        "tasks",
        "workers",
        "cluster",
        "resume",
        "pace",
        "pipeline",
        "render_queue",
        "ranges",
        "range_render",
        "contact_sheet",
        "preview",
        "score",
    }
    | {"report", "report_page", "live", "live_server"},
    {"training", "evaluation", "benchmark"},
    {"cli", "__main__"},
)


def layer_of(module: str) -> int:
    return next(number for number, names in enumerate(LAYERS) if module in names)


@cache
def nodes_of(path: Path) -> list[ast.Import | ast.ImportFrom]:
    """The import statements of a file."""
    nodes = ast.walk(ast.parse(path.read_text()))
    return [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]


def imports(path: Path) -> set[str]:
    """Top-level modules of this package that a file imports, anywhere in it."""
    found = set()
    for node in nodes_of(path):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module] if node.module != "wav2clip_gen" else [f"wav2clip_gen.{a.name}" for a in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("wav2clip_gen.")}
    return {name for name in found if not name.startswith("__") or name == "__main__"}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_one_way(path: Path) -> None:
    if path.parent == PACKAGE and path.name == "__init__.py":
        pytest.skip("the public names are imported lazily from all layers")
    own = layer_of(path.relative_to(PACKAGE).parts[0].removesuffix(".py"))
    assert [name for name in imports(path) if layer_of(name) > own] == []


@pytest.mark.parametrize(
    "code",
    [
        "import wav2clip_gen",
        "import wav2clip_gen.cli.app, wav2clip_gen.cli.render, wav2clip_gen.cli.doctor, wav2clip_gen.cli.train",
        "import wav2clip_gen.cli.evaluate, wav2clip_gen.evaluation.suite",
        "import wav2clip_gen.cli.analyze, wav2clip_gen.analysis, wav2clip_gen.plot",
        "import wav2clip_gen.cli.report, wav2clip_gen.report, wav2clip_gen.report_page",
        "import wav2clip_gen.cli.live, wav2clip_gen.live, wav2clip_gen.live_server",
        "import wav2clip_gen.cli.score, wav2clip_gen.score",
        "import wav2clip_gen.preview, wav2clip_gen.contact_sheet, wav2clip_gen.images",
        "import wav2clip_gen.config, wav2clip_gen.errors, wav2clip_gen.job, wav2clip_gen.record",
        "import wav2clip_gen.cli.weights, wav2clip_gen.models.store, wav2clip_gen.models.manifest",
        "import sys; sys.argv = ['w2c-gen', '--help']\nfrom wav2clip_gen.cli.app import main\n"
        "try: main()\nexcept SystemExit: pass",
    ],
)
def test_the_command_line_loads_without_torch(code: str) -> None:
    code += "\nimport sys; heavy = {'torch', 'librosa', 'scipy', 'soundfile', 'PIL', 'requests'} & set(sys.modules)"
    code += "\nassert not heavy, heavy"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_dependency_is_used() -> None:
    """What only tests need is in the extra `dev`."""
    declared = (ROOT / "pyproject.toml").read_text().partition("\ndependencies = [")[2].partition("\n]")[0]
    needed = {name.lower().replace("_", "-") for name in re.findall(r'"([\w-]+)', declared)}
    nodes = [node for path in PACKAGE.rglob("*.py") for node in nodes_of(path)]
    modules = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    modules |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    owners = packages_distributions()
    used = {owner for module in modules for owner in owners.get(module.partition(".")[0], [])}
    assert needed - {name.lower().replace("_", "-") for name in used} == set()


def test_the_public_names_can_be_imported() -> None:
    import wav2clip_gen
    import wav2clip_gen.pipeline  # must not hide the function `render`

    for name in wav2clip_gen.__all__:
        assert getattr(wav2clip_gen, name).__name__ == name
    with pytest.raises(AttributeError, match="nothing_here"):
        _ = wav2clip_gen.nothing_here
