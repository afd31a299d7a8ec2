"""Results of a task: every prediction as JSON, and a table that compares encoders as Markdown."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from wav2clip_gen import __version__
from wav2clip_gen.errors import OutputError
from wav2clip_gen.files import written

Figure = tuple[float, float] | float  # with the deviation over seeds, or alone


@dataclass(frozen=True, kw_only=True)
class Result:
    """What one encoder reached in one task on one data set."""

    task: str
    dataset: str
    encoder: str
    identity: str  # of the encoder's weights
    figures: dict[str, Figure]  # name of a measure -> its value; shares from 0 to 1
    chance: dict[str, float] = field(default_factory=dict)  # of the same names, where it is known
    settings: dict[str, Any] = field(default_factory=dict)  # of the task: protocol, seeds, templates
    notes: list[str] = field(default_factory=list)  # for the reader
    predictions: list[dict[str, Any]] = field(default_factory=list)  # one for each clip


def save_result(result: Result, folder: Path) -> Path:
    """Write `TASK-DATASET-ENCODER.json`, and anew the table of all encoders there as `TASK-DATASET.md`.

    Returns:
        The table's path.

    Raises:
        OutputError: A file cannot be written, or another result there cannot be read.
    """
    stem = f"{result.task}-{result.dataset}"
    with written(folder / f"{stem}-{result.encoder}.json") as path:
        content = {"w2c-gen": __version__, **asdict(result)}
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    table = folder / f"{stem}.md"
    with written(table) as path:
        path.write_text(markdown(read_results(folder, result.task, result.dataset)), "utf-8")
    return table


def read_results(folder: Path, task: str, dataset: str) -> list[Result]:
    """The results of all encoders in one task on one data set, by the encoders' names.

    Raises:
        OutputError: One is damaged, or of another version.
    """
    found = [read_result(path) for path in sorted(folder.glob(f"{task}-{dataset}-*.json"))]
    return [one for one in found if one.dataset == dataset]  # another set's name may begin alike


def read_result(path: Path) -> Result:
    """A result that `save_result` wrote.

    Raises:
        OutputError: It is damaged, or of another version.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        content.pop("w2c-gen")
        return Result(**content)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{path}: no result of `w2c-gen benchmark` ({error})", hint="move it elsewhere") from None


def markdown(results: list[Result]) -> str:
    """A table of some encoders' results in one task on one data set: a row for each measure."""
    names = list(dict.fromkeys(name for result in results for name in result.figures))
    chance = {name: value for result in results for name, value in result.chance.items()}
    lines = [f"**{results[0].task}, {results[0].dataset}**", ""]
    lines += [f"| measure | {' | '.join(result.encoder for result in results)} | chance |"]
    lines += ["| --- " * (len(results) + 2) + "|"]
    for name in names:
        cells = [_format(result.figures.get(name)) for result in results]
        lines.append(f"| {name} | {' | '.join(cells)} | {_format(chance.get(name))} |")
    notes = list(dict.fromkeys(note for result in results for note in result.notes))
    return "\n".join([*lines, *("\n" + note for note in notes)]) + "\n"


def _format(figure: Figure | None) -> str:
    if figure is None:
        return ""
    if isinstance(figure, tuple | list):
        return f"{_format(figure[0])} ± {_format(figure[1])}"
    return f"{figure:.3f}" if abs(figure) < 10 else f"{figure:,.0f}"
