"""How `w2c-gen train` carries out a run: on a device, told line by line, its weights put where they belong."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from wav2clip_gen.errors import OutputError
from wav2clip_gen.files import appear_whole

if TYPE_CHECKING:
    import torch

    from wav2clip_gen.training.decoding import Reading
    from wav2clip_gen.training.loop import Recipe
    from wav2clip_gen.training.plan import Event, Plan


def trained_clip(out: Path | None, perceptor: str | None) -> Path:
    """The CLIP to distil: the one that was named, else the one trained last.

    Raises:
        TrainingError: It is not there.
        WeightsError, SettingsError: There is no such part or file.
    """
    from wav2clip_gen.errors import TrainingError
    from wav2clip_gen.models.registry import find_component

    if perceptor is not None:
        component = find_component(perceptor, "clip")
        path, hint = component.path, component.hint
    else:
        path, hint = out_folder(out) / "clip.safetensors", "run `w2c-gen train clip` first"
    if not path.is_file():
        raise TrainingError(f"{path}: there is no trained CLIP to distil", hint=hint)
    return path


@contextmanager
def shown(*, debug: bool) -> Iterator[None]:
    """Turn errors into lines; Ctrl-C says how to go on."""
    from wav2clip_gen.cli import console
    from wav2clip_gen.cli.app import INTERRUPTED

    with console.errors_shown(debug=debug):
        try:
            yield
        except KeyboardInterrupt:
            typer.echo("interrupted: the same command goes on from the last checkpoint", err=True)
            raise typer.Exit(INTERRUPTED) from None


def prepare(device: str, threads: int | None) -> torch.device:
    """The device that was named; PyTorch is given its threads.

    Raises:
        SettingsError: There is no such device here.
    """
    import torch

    from wav2clip_gen.models.registry import choose_device

    if threads:
        torch.set_num_threads(threads)
    return choose_device(device)


def chosen(**options: Any) -> dict[str, Any]:
    """The options that were given."""
    return {name: value for name, value in options.items() if value is not None}


def reading(memory: float, workers: int | None) -> Reading:
    """How the data is read: how many gigabytes of it are kept, and by how many threads it is decoded."""
    from wav2clip_gen.training.decoding import Reading

    return Reading(memory=round(memory * 1e9), **chosen(workers=workers))


def out_folder(out: Path | None) -> Path:
    """The folder that weights go to: the one that was named, else that of the shipped ones."""
    from wav2clip_gen.models.manifest import shipped_folder

    return out or shipped_folder() / "mini"


def plan(
    folder: Path, *, steps: int | None, minutes: float | None, default: int, score_steps: int | None = None
) -> Plan:
    """How long a run is: as many steps or minutes as were asked for, else the default.

    Raises:
        TrainingError: Both were asked for, or none.
    """
    from wav2clip_gen.training.plan import Plan

    length = default if steps is None and minutes is None else steps
    return Plan(folder=folder, steps=length, minutes=minutes, score_steps=score_steps)


def carry_out(recipe: Recipe[Any], plan: Plan, *, fresh: bool, board: Path | None = None) -> Path:
    """Run a recipe to its end, telling how it goes; give the weights it made."""
    from wav2clip_gen.training.board import Board
    from wav2clip_gen.training.loop import Run

    run, name = Run(recipe, plan), plan.folder.name
    with ExitStack() as open_board:
        listeners: list[Callable[[Event], None]] = [lambda event: typer.echo(f"{name}: {line(event)}", err=True)]
        if board is not None and recipe.group.first:
            listeners.append(open_board.enter_context(Board(board)).show)
        for event in run.events(fresh=fresh):
            for listen in listeners if recipe.group.first else ():
                listen(event)
    return run.weights


def install(weights: Path, folder: Path) -> None:
    """Copy the weights that a run made to the folder where they belong.

    Raises:
        OutputError: The disk does not take them.
    """
    target = folder / weights.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with appear_whole(target) as part:
            shutil.copyfile(weights, part)
    except OSError as error:
        raise OutputError(
            f"cannot write {target}: {error.strerror}",
            hint=f"the weights are in {weights}: make room, or choose another folder with --out",
        ) from error
    typer.echo(f"wrote {target}", err=True)


def line(event: Event) -> str:
    """What happened, in one line."""
    from wav2clip_gen.training.plan import Finished, Prepared, Progress, Started

    if isinstance(event, Prepared):
        return f"{event.done}/{event.total} clips embedded, {event.skipped} skipped"
    if isinstance(event, Started):
        return "; ".join([f"going on at step {event.step}" if event.step else "begun", *event.notes])
    if isinstance(event, Progress):
        losses = "  ".join(f"{term} {value:.4f}" for term, value in event.losses.items())
        left = "" if event.steps is None else f"  {_duration((event.steps - event.step) * event.seconds_per_step)} left"
        return f"step {event.step}/{event.steps or '?'}  {losses}  {1 / event.seconds_per_step:.2f} it/s{left}"
    if isinstance(event, Finished):
        lost = f"; {len(event.skipped)} that cannot be read were skipped, log.jsonl names them" if event.skipped else ""
        return f"finished after {event.step} steps: {event.weights}{lost}"
    return f"scores at step {event.step}: " + "  ".join(f"{term} {value:.4g}" for term, value in event.scores.items())


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"
