"""`w2c-gen train ...`: make the small family from the training data. Lines of progress go to stderr."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wav2clip_gen.files import appear_whole

if TYPE_CHECKING:
    from wav2clip_gen.training.loop import Recipe
    from wav2clip_gen.training.plan import Event

app = typer.Typer(
    help="Train the small family: clip first, then vqgan, wav2clip and prior, which all need it.",
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
VIDEO_EPOCHS = 100  # at the most: the run ends before, when the loss on clips held out no longer falls
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
    data: Annotated[
        Path | None, typer.Option(help="Folder of the training data, as weights/README.md describes it.")
    ] = None,
    videos: Annotated[
        Path | None, typer.Option(metavar="FOLDER|CSV", help="Learn from these videos instead, as the paper does.")
    ] = None,
    perceptor: Annotated[
        str | None,
        typer.Option(
            help="CLIP that sees the videos: a part's name or a weights file.", show_default="the trained one"
        ),
    ] = None,
    out: Out = None,
    runs: Runs = Path("runs"),
    steps: Annotated[
        int | None,
        typer.Option(min=1, help=f"Length of the run ({WAV2CLIP_STEPS} by default; of videos, {VIDEO_EPOCHS} epochs)."),
    ] = None,
    minutes: Minutes = None,
    batch: Batch = None,
    parts: Annotated[
        int | None,
        typer.Option(
            min=1, help="Work a batch of videos in so many parts, to save memory; the negatives stay the same."
        ),
    ] = None,
    loss: Annotated[str | None, typer.Option(help="clip_loss or clip_loss_x, of videos.")] = None,
    precision: Annotated[str | None, typer.Option(help="fp32 or bf16, of videos.")] = None,
    width: Annotated[int | None, typer.Option(min=1, help="Width of the network that learns from videos.")] = None,
    teacher: Annotated[
        float | None, typer.Option(min=0, help="Weight of what YAMNet hears, with --data.", show_default="0")
    ] = None,
    unlabelled: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="More sounds, without labels, for --teacher.")
    ] = None,
    tensorboard: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also write losses and scores for TensorBoard.")
    ] = None,
    seed: Seed = 0,
    fresh: Fresh = False,
    device: Device = "auto",
    threads: Threads = None,
    debug: Debug = False,
) -> None:
    """Train the sound encoder: distil the trained CLIP into it, from labelled data or from videos.

    Of videos: `torchrun --nproc-per-node N -m wav2clip_gen train wav2clip --videos ...` takes N GPUs.
    """

    def work() -> None:
        from wav2clip_gen.training.distributed import joined, own_device

        _check_source(data, videos, {"--loss": loss, "--precision": precision, "--parts": parts, "--width": width},
                      {"--teacher": teacher, "--unlabelled": unlabelled})  # fmt: skip
        where = own_device(_prepare(device, threads))
        clip = _trained_clip(out, perceptor)
        carry_out = partial(_carry_out, name="wav2clip", runs=runs, minutes=minutes, fresh=fresh, board=tensorboard)
        with joined(where) as group:
            if videos is not None:
                from wav2clip_gen.training.videos import Videos
                from wav2clip_gen.training.watched import WatchedRecipe, WatchedTraining

                given = {"batch": batch, "parts": parts, "loss": loss, "precision": precision, "width": width}
                settings = WatchedTraining(**_chosen(given))
                found = Videos(videos, clip, runs, group=group)
                for event in found.prepare(where):
                    typer.echo(f"wav2clip: {_line(event)}", err=True)
                watched = WatchedRecipe(found, settings, seed=seed, device=where)
                epoch = watched.steps_per_epoch
                weights = carry_out(watched, steps=steps, default=VIDEO_EPOCHS * epoch, score_steps=epoch)
            else:
                from wav2clip_gen.errors import TrainingError
                from wav2clip_gen.training.wav2clip import Wav2CLIPRecipe, Wav2CLIPTraining

                if data is None or group.size > 1:
                    raise TrainingError(
                        "several processes learn from videos only", hint="give --videos, or start without torchrun"
                    )
                labelled = Wav2CLIPTraining(**_chosen({"batch": batch, "teacher": teacher}))
                recipe = Wav2CLIPRecipe(data, clip, labelled, unlabelled=unlabelled, seed=seed, device=where)
                weights = carry_out(recipe, steps=steps, default=WAV2CLIP_STEPS)
            if group.first:
                _install(weights, _out_folder(out))

    _shown(work, debug=debug)


@app.command()
def prior(
    *, data: Data, out: Out = None, device: Device = "auto", threads: Threads = None, debug: Debug = False
) -> None:
    """Fit what the trained CLIP's concepts look like: minutes, in one go."""

    def work() -> None:
        from wav2clip_gen.models import checkpoints
        from wav2clip_gen.training.prior import fit_prior

        where = _prepare(device, threads)
        fitted, provenance, notes = fit_prior(data, _trained_clip(out, None), device=where)
        for note in notes:
            typer.echo(f"prior: {note}", err=True)
        target = _out_folder(out) / "prior.safetensors"
        checkpoints.save(fitted, target, training=provenance)
        scores = "  ".join(f"{name} {value:.4g}" for name, value in provenance["scores"].items())
        typer.echo(f"prior: {scores}\nwrote {target}", err=True)

    _shown(work, debug=debug)


def _check_source(data: Path | None, videos: Path | None, of_videos: dict[str, Any], of_data: dict[str, Any]) -> None:
    """Make sure that there is one source of sounds, and no option that belongs to the other one.

    Raises:
        TrainingError: There is none or two, or there is such an option.
    """
    from wav2clip_gen.errors import TrainingError

    if (data is None) == (videos is None):
        raise TrainingError(
            "the sound encoder learns from labelled data or from videos",
            hint="give either --data (weights/README.md says what is in that folder) or --videos",
        )
    stray, needed = (of_videos, "--videos") if videos is None else (of_data, "--data")
    given = [name for name, value in stray.items() if value is not None]
    if given:
        raise TrainingError(f"{given[0]} needs {needed}", hint=f"leave it out, or train with {needed}")


def _trained_clip(out: Path | None, perceptor: str | None) -> Path:
    """The CLIP to distil: the one that was named, else the one trained last.

    Raises:
        TrainingError: It is not there.
        WeightsError, SettingsError: There is no such part or file.
    """
    from wav2clip_gen.errors import TrainingError
    from wav2clip_gen.models.choice import find

    if perceptor is not None:
        part = find(perceptor, "clip")
        path, hint = part.path, part.hint
    else:
        path, hint = _out_folder(out) / "clip.safetensors", "run `w2c-gen train clip` first"
    if not path.is_file():
        raise TrainingError(f"{path}: there is no trained CLIP to distil", hint=hint)
    return path


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
    return kind(**_chosen({"batch": batch}))


def _chosen(options: dict[str, Any]) -> dict[str, Any]:
    """The options that were given."""
    return {name: value for name, value in options.items() if value is not None}


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
    score_steps: int | None = None,
    board: Path | None = None,
) -> Path:
    """Run a recipe to its end, telling how it goes; give the weights it made."""
    from wav2clip_gen.training.board import Board
    from wav2clip_gen.training.loop import Run
    from wav2clip_gen.training.plan import Plan

    length = default if steps is None and minutes is None else steps
    run = Run(recipe, Plan(folder=runs / name, steps=length, minutes=minutes, score_steps=score_steps))
    with ExitStack() as open_board:
        listeners: list[Callable[[Event], None]] = [lambda event: typer.echo(f"{name}: {_line(event)}", err=True)]
        if board is not None and recipe.group.first:
            listeners.append(open_board.enter_context(Board(board)).show)
        for event in run.events(fresh=fresh):
            for listen in listeners if recipe.group.first else ():
                listen(event)
    return run.weights


def _install(weights: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / weights.name
    with appear_whole(target) as part:
        shutil.copyfile(weights, part)
    typer.echo(f"wrote {target}", err=True)


def _line(event: Event) -> str:
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
        return f"finished after {event.step} steps: {event.weights}"
    return f"scores at step {event.step}: " + "  ".join(f"{term} {value:.4g}" for term, value in event.scores.items())


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"
