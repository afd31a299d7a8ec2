"""`w2c-gen train ...`: make the small family from the training data. Lines of progress go to stderr."""

from __future__ import annotations

from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wav2clip_gen.cli import running

if TYPE_CHECKING:
    import torch

    from wav2clip_gen.training.distributed import Group
    from wav2clip_gen.training.loop import Recipe
    from wav2clip_gen.training.videos import Videos
    from wav2clip_gen.training.watched import WatchedRecipe
    from wav2clip_gen.training.wav2clip import Wav2CLIPRecipe


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


DATA_HELP = "Folder of the training data, as weights/README.md describes it."
Data = Annotated[Path, typer.Option(help=DATA_HELP)]
DataOrVideos = Annotated[Path | None, typer.Option("--data", help=DATA_HELP)]
VideoFolder = Annotated[
    Path | None, typer.Option(metavar="FOLDER|CSV", help="Learn from these videos instead, as the paper does.")
]
Teaching = Annotated[
    str | None,
    typer.Option(help="CLIP that sees the videos: a part's name or a weights file.", show_default="the trained one"),
]
Out = Annotated[
    Path | None, typer.Option(help="Folder that the weights go to.", show_default="weights/mini of w2c-gen")
]
Runs = Annotated[Path, typer.Option(help="Folder of checkpoints and logs; an interrupted run goes on from there.")]
Minutes = Annotated[float | None, typer.Option(help="Train for so many minutes, instead of --steps.")]
Batch = Annotated[int | None, typer.Option(min=1, help="Examples a step.", show_default="the recipe's")]
Seed = Annotated[int, typer.Option(min=0, help="Decides all that is random.")]
Fresh = Annotated[bool, typer.Option("--fresh/--resume", help="Begin anew, or go on where the last run stopped.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Memory = Annotated[
    float, typer.Option(min=0, metavar="GB", help="Decoded pictures and sounds to keep; the rest is decoded each time.")
]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Threads that decode.", show_default="one per core, at most 8")
]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads.", show_default="one per core")]
Debug = Annotated[bool, typer.Option("--debug", help="Show where an error comes from.")]
Parts = Annotated[
    int | None,
    typer.Option(min=1, help="Work a batch of videos in so many parts, to save memory; the negatives stay the same."),
]
Loss = Annotated[str | None, typer.Option(help="clip_loss or clip_loss_x, of videos.")]
Precision = Annotated[str | None, typer.Option(help="fp32 or bf16, of videos.")]
Width = Annotated[int | None, typer.Option(min=1, help="Width of the network that learns from videos.")]
Teacher = Annotated[
    float | None, typer.Option(min=0, help="Weight of what YAMNet hears, with --data.", show_default="0")
]
Unlabelled = Annotated[Path | None, typer.Option(metavar="FOLDER", help="More sounds, without labels, for --teacher.")]
TensorBoard = Annotated[Path | None, typer.Option(metavar="DIR", help="Also write losses and scores for TensorBoard.")]


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
    memory: Memory = 2.0,
    workers: Workers = None,
    device: Device = "auto",
    threads: Threads = None,
    debug: Debug = False,
) -> None:
    """Train the image tower and the text tower into CLIP's text space."""
    with running.shown(debug=debug):
        from wav2clip_gen.models.vocabulary import write_words
        from wav2clip_gen.training.clip import ImageRecipe, ImageTraining
        from wav2clip_gen.training.text import TextRecipe, TextTraining, join_towers

        where = running.prepare(device, threads)
        folders = {name: runs / f"clip-{name}" for name in ("image", "text")}
        both, given = tower is Tower.both, running.chosen(batch=batch)
        if tower is not Tower.text:
            reading = running.reading(memory, workers)
            image = ImageRecipe(data, ImageTraining(**given), reading=reading, seed=seed, device=where)
            share = minutes and minutes * (1 - TEXT_SHARE if both else 1)
            plan = running.plan(folders["image"], steps=steps, minutes=share, default=IMAGE_STEPS)
            running.carry_out(image, plan, fresh=fresh)
        if tower is not Tower.image:
            text = TextRecipe(data, TextTraining(**given), seed=seed, device=where)
            share = minutes and minutes * (TEXT_SHARE if both else 1)
            plan = running.plan(folders["text"], steps=text_steps, minutes=share, default=TEXT_STEPS)
            write_words(text.words, running.carry_out(text, plan, fresh=fresh))
        towers = {name: folder / "clip.safetensors" for name, folder in folders.items()}
        lacking = [name for name, path in towers.items() if not path.exists()]
        if lacking:
            typer.echo(f"clip: no weights written yet, the {lacking[0]} tower is untrained", err=True)
        else:
            target = running.out_folder(out) / "clip.safetensors"
            join_towers(towers["image"], towers["text"], target)
            typer.echo(f"clip: wrote {target}", err=True)


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
    memory: Memory = 2.0,
    workers: Workers = None,
    device: Device = "auto",
    threads: Threads = None,
    debug: Debug = False,
) -> None:
    """Train the painter; with the trained CLIP in place, also on how alike pictures look to that."""
    with running.shown(debug=debug):
        from wav2clip_gen.training.vqgan import VQGANRecipe, VQGANTraining

        where = running.prepare(device, threads)
        perceptor = running.out_folder(out) / "clip.safetensors"
        judge = perceptor if perceptor.exists() else None
        settings = VQGANTraining(**running.chosen(batch=batch))
        begin: dict[str, Any] = {"clip": judge, "start": start, "reading": running.reading(memory, workers)}
        recipe = VQGANRecipe(data, settings, **begin, seed=seed, device=where)
        plan = running.plan(runs / "vqgan", steps=steps, minutes=minutes, default=VQGAN_STEPS)
        running.install(running.carry_out(recipe, plan, fresh=fresh), running.out_folder(out))


@app.command()
def wav2clip(
    *,
    data: DataOrVideos = None,
    videos: VideoFolder = None,
    perceptor: Teaching = None,
    out: Out = None,
    runs: Runs = Path("runs"),
    steps: Annotated[
        int | None,
        typer.Option(min=1, help=f"Length of the run ({WAV2CLIP_STEPS} by default; of videos, {VIDEO_EPOCHS} epochs)."),
    ] = None,
    minutes: Minutes = None,
    batch: Batch = None,
    parts: Parts = None,
    loss: Loss = None,
    precision: Precision = None,
    width: Width = None,
    teacher: Teacher = None,
    unlabelled: Unlabelled = None,
    tensorboard: TensorBoard = None,
    seed: Seed = 0,
    fresh: Fresh = False,
    memory: Memory = 2.0,
    workers: Workers = None,
    device: Device = "auto",
    threads: Threads = None,
    debug: Debug = False,
) -> None:
    """Train the sound encoder: distil the trained CLIP into it, from labelled data or from videos.

    Of videos: `torchrun --nproc-per-node N -m wav2clip_gen train wav2clip --videos ...` takes N GPUs.
    """
    with running.shown(debug=debug):
        from wav2clip_gen.training.distributed import joined, own_device
        from wav2clip_gen.training.videos import Videos

        of_videos = running.chosen(loss=loss, precision=precision, parts=parts, width=width)
        of_data = running.chosen(teacher=teacher, unlabelled=unlabelled)
        _check_source(data, videos, of_videos, of_data)
        where = own_device(running.prepare(device, threads))
        clip = running.trained_clip(out, perceptor)
        length = partial(running.plan, runs / "wav2clip", steps=steps, minutes=minutes)
        recipe: Recipe[Any]
        with joined(where) as group:
            if videos is None:
                of_data |= running.chosen(batch=batch, reading=running.reading(memory, workers))
                recipe = _labelled(data, clip, of_data, group, seed=seed, device=where)
                plan = length(default=WAV2CLIP_STEPS)
            else:
                of_videos |= running.chosen(batch=batch)
                recipe = _watched(Videos(videos, clip, runs, group=group), of_videos, seed=seed, device=where)
                epoch = recipe.steps_per_epoch
                plan = length(default=VIDEO_EPOCHS * epoch, score_steps=epoch)
            weights = running.carry_out(recipe, plan, fresh=fresh, board=tensorboard)
            if group.first:
                running.install(weights, running.out_folder(out))


@app.command()
def prior(
    *,
    data: Data,
    out: Out = None,
    workers: Workers = None,
    device: Device = "auto",
    threads: Threads = None,
    debug: Debug = False,
) -> None:
    """Fit what the trained CLIP's concepts look like: minutes, in one go."""
    with running.shown(debug=debug):
        from wav2clip_gen.models import checkpoints
        from wav2clip_gen.training.prior import fit_prior

        where = running.prepare(device, threads)
        once = running.reading(0, workers)  # each picture is looked at once
        fitted, provenance, notes = fit_prior(data, running.trained_clip(out, None), reading=once, device=where)
        for note in notes:
            typer.echo(f"prior: {note}", err=True)
        target = running.out_folder(out) / "prior.safetensors"
        checkpoints.save(fitted, target, training=provenance)
        scores = "  ".join(f"{name} {value:.4g}" for name, value in provenance["scores"].items())
        typer.echo(f"prior: {scores}\nwrote {target}", err=True)


def _check_source(data: Path | None, videos: Path | None, of_videos: dict[str, Any], of_data: dict[str, Any]) -> None:
    """Make sure that there is one source of sounds, and no option that belongs to the other one.

    Raises:
        TrainingError: There is none or two, or there is such an option.
    """
    from wav2clip_gen.errors import TrainingError

    if (data is None) == (videos is None):
        raise TrainingError(
            "nothing to learn from was given" if data is None else "--data and --videos contradict each other",
            hint="give either --data (weights/README.md says what is in that folder) or --videos",
        )
    stray, needed = (of_videos, "--videos") if videos is None else (of_data, "--data")
    for name in stray:
        raise TrainingError(f"--{name} needs {needed}", hint=f"leave it out, or train with {needed}")


def _labelled(
    data: Path | None, clip: Path, chosen: dict[str, Any], group: Group, *, seed: int, device: torch.device
) -> Wav2CLIPRecipe:
    """The recipe that learns from labelled data.

    Raises:
        TrainingError: Several processes would, or the data is not what it should be.
    """
    from wav2clip_gen.errors import TrainingError
    from wav2clip_gen.training.wav2clip import Wav2CLIPRecipe, Wav2CLIPTraining

    if data is None or group.size > 1:
        raise TrainingError("several processes learn from videos only", hint="give --videos, or start without torchrun")
    others = {name: chosen.pop(name) for name in ("unlabelled", "reading") if name in chosen}
    return Wav2CLIPRecipe(data, clip, Wav2CLIPTraining(**chosen), **others, seed=seed, device=device)


def _watched(videos: Videos, chosen: dict[str, Any], *, seed: int, device: torch.device) -> WatchedRecipe:
    """The recipe that learns from videos, once their pictures are embedded.

    Raises:
        TrainingError: The videos or the settings are not what they should be.
    """
    from wav2clip_gen.training.watched import WatchedRecipe, WatchedTraining

    settings = WatchedTraining(**chosen)
    for event in videos.prepare(device):
        typer.echo(f"wav2clip: {running.line(event)}", err=True)
    return WatchedRecipe(videos, settings, seed=seed, device=device)
