"""`w2c-gen train ...`: make the small family from the training data. Lines of progress go to stderr."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wav2clip_gen.files import appear_whole

if TYPE_CHECKING:
    from wav2clip_gen.training.loop import Recipe
    from wav2clip_gen.training.plan import Event

app = typer.Typer(
    help="Train the small family: clip first, then vqgan and wav2clip, which both need it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# How long the shipped weights were trained; weights/README.md has the scores.
IMAGE_STEPS = 8200
TEXT_STEPS = 4000
VQGAN_STEPS = 19_300
WAV2CLIP_STEPS = 4000
TEXT_SHARE = 0.15  # of the minutes, when both towers are trained


class Tower(str, Enum):
    """Which half of CLIP is trained."""

    image = "image"
    text = "text"
    both = "both"


Data = Annotated[Path, typer.Option(help="Folder of the training data, as weights/README.md describes it.")]
Out = Annotated[
    Path | None, typer.Option(help="Folder that the weights go to.", show_default="weights/mini of w2c-gen")
]
Runs = Annotated[Path, typer.Option(help="Folder of checkpoints and logs; an interrupted run goes on from there.")]
Minutes = Annotated[float | None, typer.Option(help="Train for so many minutes, instead of --steps.")]
Batch = Annotated[int | None, typer.Option(min=1, help="Examples a step.", show_default="the recipe's")]
Seed = Annotated[int, typer.Option(min=0, help="Decides all that is random.")]
Fresh = Annotated[bool, typer.Option("--fresh/--resume", help="Begin anew, or go on where the last run stopped.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads.", show_default="one per core")]
Debug = Annotated[bool, typer.Option("--debug", help="Show where an error comes from.")]


@app.command()
def clip(
    *,
    data: Data,
    out: Out = None,
    runs: Runs = Path("runs"),
    tower: Annotated[
        Tower, typer.Option(help="Which half to train; the weights are written once both are.")
    ] = Tower.both,
    steps: Annotated[int | None, typer.Option(min=1, help=f"Of the image tower ({IMAGE_STEPS} by default).")] = None,
    text_steps: Annotated[int | None, typer.Option(min=1, help=f"Of the text tower ({TEXT_STEPS} by default).")] = None,
    minutes: Minutes = None,
    batch: Batch = None,
    seed: Seed = 0,
    fresh: Fresh = False,
    device: Device = "auto",
    threads: Threads = None,
    debug: Debug = False,
) -> None:
    """Train the image tower and the text tower into CLIP's text space."""

    def work() -> None:
        from wav2clip_gen.training.clip import ImageRecipe, ImageTraining
        from wav2clip_gen.training.text import TextRecipe, TextTraining, join_towers

        where = _prepare(device, threads)
        files = {name: runs / f"clip-{name}" / "clip.safetensors" for name in ("image", "text")}
        both = tower is Tower.both
        if tower is not Tower.text:
            image = ImageRecipe(data, _settings(ImageTraining, batch), seed=seed, device=where)
            share = minutes and minutes * (1 - TEXT_SHARE if both else 1)
            _carry_out(image, "clip-image", runs, steps=steps, default=IMAGE_STEPS, minutes=share, fresh=fresh)
        if tower is not Tower.image:
            text = TextRecipe(data, _settings(TextTraining, batch), seed=seed, device=where)
            share = minutes and minutes * (TEXT_SHARE if both else 1)
            _carry_out(text, "clip-text", runs, steps=text_steps, default=TEXT_STEPS, minutes=share, fresh=fresh)
        lacking = [name for name, path in files.items() if not path.exists()]
        if lacking:
            typer.echo(f"clip: no weights written yet, the {lacking[0]} tower is untrained", err=True)
        else:
            target = _out_folder(out) / "clip.safetensors"
            join_towers(files["image"], files["text"], target)
            typer.echo(f"clip: wrote {target}", err=True)

    _shown(work, debug=debug)


@app.command()
def vqgan(
    *,
    data: Data,
    out: Out = None,
    runs: Runs = Path("runs"),
    start: Annotated[
        Path | None, typer.Option("--from", help="Weights file to train further, instead of beginning from nothing.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help=f"Length of the run ({VQGAN_STEPS} by default).")] = None,
    minutes: Minutes = None,
    batch: Batch = None,
    seed: Seed = 0,
    fresh: Fresh = False,
    device: Device = "auto",
    threads: Threads = None,
    debug: Debug = False,
) -> None:
    """Train the painter; with the trained CLIP in place, also on how alike pictures look to that."""

    def work() -> None:
        from wav2clip_gen.training.vqgan import VQGANRecipe, VQGANTraining

        where = _prepare(device, threads)
        perceptor = _out_folder(out) / "clip.safetensors"
        judge = perceptor if perceptor.exists() else None
        settings = _settings(VQGANTraining, batch)
        recipe = VQGANRecipe(data, settings, clip=judge, start=start, seed=seed, device=where)
        weights = _carry_out(recipe, "vqgan", runs, steps=steps, default=VQGAN_STEPS, minutes=minutes, fresh=fresh)
        _install(weights, _out_folder(out))

    _shown(work, debug=debug)


@app.command()
def wav2clip(
    *,
    data: Data,
    out: Out = None,
    runs: Runs = Path("runs"),
    steps: Annotated[int | None, typer.Option(min=1, help=f"Length of the run ({WAV2CLIP_STEPS} by default).")] = None,
    minutes: Minutes = None,
    batch: Batch = None,
    seed: Seed = 0,
    fresh: Fresh = False,
    device: Device = "auto",
    threads: Threads = None,
    debug: Debug = False,
) -> None:
    """Train the sound encoder: distil the trained CLIP into it."""

    def work() -> None:
        from wav2clip_gen.errors import TrainingError
        from wav2clip_gen.training.wav2clip import Wav2CLIPRecipe, Wav2CLIPTraining

        where = _prepare(device, threads)
        perceptor = _out_folder(out) / "clip.safetensors"
        if not perceptor.exists():
            raise TrainingError(
                f"{perceptor}: there is no trained CLIP to distil", hint="run `w2c-gen train clip` first"
            )
        recipe = Wav2CLIPRecipe(data, perceptor, _settings(Wav2CLIPTraining, batch), seed=seed, device=where)
        length = WAV2CLIP_STEPS
        weights = _carry_out(recipe, "wav2clip", runs, steps=steps, default=length, minutes=minutes, fresh=fresh)
        _install(weights, _out_folder(out))

    _shown(work, debug=debug)


def _shown(work: Callable[[], None], *, debug: bool) -> None:
    """Do the work; errors become lines, Ctrl-C says how to go on."""
    from wav2clip_gen.cli import console
    from wav2clip_gen.cli.app import INTERRUPTED

    with console.errors_shown(debug=debug):
        try:
            work()
        except KeyboardInterrupt:
            typer.echo("interrupted: the same command goes on from the last checkpoint", err=True)
            raise typer.Exit(INTERRUPTED) from None


def _prepare(device: str, threads: int | None) -> Any:
    import torch

    from wav2clip_gen.models.families import choose_device

    if threads:
        torch.set_num_threads(threads)
    return choose_device(device)


def _settings(kind: Callable[..., Any], batch: int | None) -> Any:
    return kind(batch=batch) if batch else kind()


def _out_folder(out: Path | None) -> Path:
    from wav2clip_gen.models.manifest import shipped_folder

    return out or shipped_folder() / "mini"


def _carry_out(
    recipe: Recipe[Any],
    name: str,
    runs: Path,
    *,
    steps: int | None,
    default: int,
    minutes: float | None,
    fresh: bool,
) -> Path:
    """Run a recipe to its end, telling how it goes; give the weights it made."""
    from wav2clip_gen.training.loop import Run
    from wav2clip_gen.training.plan import Plan

    length = default if steps is None and minutes is None else steps
    run = Run(recipe, Plan(folder=runs / name, steps=length, minutes=minutes))
    for event in run.events(fresh=fresh):
        typer.echo(f"{name}: {_line(event)}", err=True)
    return run.weights


def _install(weights: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / weights.name
    with appear_whole(target) as part:
        shutil.copyfile(weights, part)
    typer.echo(f"wrote {target}", err=True)


def _line(event: Event) -> str:
    """What happened, in one line."""
    from wav2clip_gen.training.plan import Finished, Progress, Started

    if isinstance(event, Started):
        return "; ".join([f"going on at step {event.step}" if event.step else "begun", *event.notes])
    if isinstance(event, Progress):
        losses = "  ".join(f"{term} {value:.4f}" for term, value in event.losses.items())
        left = "" if event.steps is None else f"  {_duration((event.steps - event.step) * event.seconds_per_step)} left"
        return f"step {event.step}/{event.steps or '?'}  {losses}  {1 / event.seconds_per_step:.2f} it/s{left}"
    if isinstance(event, Finished):
        return f"finished after {event.step} steps: {event.weights}"
    return f"scores at step {event.step}: " + "  ".join(f"{term} {value:.4g}" for term, value in event.scores.items())


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"
