"""`w2c-gen train ...`: train the networks; progress goes to stderr, a line at a time."""

from __future__ import annotations

import shutil
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from wav2clip_gen.cli.train_options import DATA, MACHINE, OUT, RUN, Options, command, option, steps_option
from wav2clip_gen.errors import OutputError, TrainingError
from wav2clip_gen.files import appear_whole
from wav2clip_gen.training.settings import (
    DistillSettings,
    ImageTowerSettings,
    LabeledAudioSettings,
    TextTowerSettings,
    VQGANSettings,
)

if TYPE_CHECKING:
    import torch

    from wav2clip_gen.training.distributed import World
    from wav2clip_gen.training.schedule import Schedule
    from wav2clip_gen.training.trainer import TrainTask

# How long the shipped weights were trained; weights/README.md has the scores.
IMAGE_STEPS = 8200
TEXT_STEPS = 4000
VQGAN_STEPS = 19_300
WAV2CLIP_STEPS = 4000
VIDEO_EPOCHS = 100  # at most: the run ends earlier if the loss on held-out clips no longer falls
TEXT_SHARE = 0.15  # of the minutes, if both towers are trained

app = typer.Typer(
    help="Train the small family: clip first, then vqgan, wav2clip and prior, which all need it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@command(
    app,
    DATA,
    option(
        "tower", Literal["image", "text", "both"], "Which half to train; the weights are written once both are",
        default="both",
    ),
    steps_option(IMAGE_STEPS, what="length of the image tower's run"),
    steps_option(TEXT_STEPS, name="text_steps", what="length of the text tower's run"),
    *RUN,
    settings=(ImageTowerSettings, TextTowerSettings),
)  # fmt: skip
def clip(options: Options) -> None:
    """Train the image tower and the text tower into CLIP's text space."""
    from wav2clip_gen.models.vocabulary import write_words
    from wav2clip_gen.training.mini.image_tower import ImageTowerTask
    from wav2clip_gen.training.mini.text_tower import TextTowerTask, join_towers

    common = options.task()
    both = options.tower == "both"
    if options.tower != "text":
        image = ImageTowerTask(options.data, options.settings(ImageTowerSettings), **common)
        share = 1 - TEXT_SHARE if both else 1
        options.train(image, options.schedule("clip-image", options.steps, default=IMAGE_STEPS, share=share))
    if options.tower != "image":
        del common["loader"]
        text = TextTowerTask(options.data, options.settings(TextTowerSettings), **common)
        share = TEXT_SHARE if both else 1
        schedule = options.schedule("clip-text", options.text_steps, default=TEXT_STEPS, share=share)
        write_words(text.words, options.train(text, schedule))
    towers = {name: options.runs / f"clip-{name}" / "clip.safetensors" for name in ("image", "text")}
    missing = [name for name, path in towers.items() if not path.exists()]
    if missing:
        typer.echo(f"clip: no weights written yet, the {missing[0]} tower is untrained", err=True)
        return
    target = options.out_folder() / "clip.safetensors"
    join_towers(towers["image"], towers["text"], target)
    typer.echo(f"clip: wrote {target}", err=True)


@command(
    app,
    DATA,
    option("start", Path, "Weights file to fine-tune, instead of random weights", "--from"),
    steps_option(VQGAN_STEPS),
    *RUN,
    settings=(VQGANSettings,),
)
def vqgan(options: Options) -> None:
    """Train the VQGAN; with the trained CLIP in place, also with a perceptual loss on its features."""
    from wav2clip_gen.training.mini.vqgan import VQGANTask

    perceptor = options.out_folder() / "clip.safetensors"
    task = VQGANTask(
        options.data,
        options.settings(VQGANSettings),
        clip=perceptor if perceptor.exists() else None,
        start=options.start,
        **options.task(),
    )
    weights = options.train(task, options.schedule("vqgan", options.steps, default=VQGAN_STEPS))
    install_weights(weights, options.out_folder())


@command(
    app,
    option("data", Path, "Folder of the training data, as weights/README.md describes it"),
    option("videos", Path, "Train on these videos instead, as the paper does", metavar="FOLDER|CSV"),
    option("perceptor", str, "CLIP to distill: a part's name or a weights file", show_default="the trained one"),
    steps_option(f"{WAV2CLIP_STEPS}; of videos, {VIDEO_EPOCHS} epochs"),
    *RUN,
    settings=(LabeledAudioSettings, DistillSettings),
)
def wav2clip(options: Options) -> None:
    """Train the sound encoder: distill the trained CLIP into it, from labeled data or from videos.

    From videos, `torchrun --nproc-per-node N -m wav2clip_gen train wav2clip --videos ...` uses N GPUs.
    """
    from wav2clip_gen.training.distributed import local_device, process_group

    _check_source(options)
    device = local_device(options.torch_device())
    perceptor = options.clip_weights(options.perceptor)
    with process_group(device) as world:
        if options.videos is None:
            task, schedule = _from_labels(options, perceptor, world)
        else:
            task, schedule = _from_videos(options, perceptor, world, device)
        weights = options.train(task, schedule)
        if world.is_main:
            install_weights(weights, options.out_folder())


def _check_source(options: Options) -> None:
    """Make sure that there is one source of sounds, and no setting of the other one.

    Raises:
        TrainingError: There is none or two, or such a setting was given.
    """
    if (options.data is None) == (options.videos is None):
        raise TrainingError(
            "nothing to train on was given" if options.data is None else "--data and --videos contradict each other",
            hint="give either --data (weights/README.md says what is in that folder) or --videos",
        )
    used, other, needed = LabeledAudioSettings, DistillSettings, "--videos"
    if options.videos is not None:
        used, other, needed = other, used, "--data"  # type: ignore[assignment]
    for name in sorted(options.given(other).keys() - {field.name for field in fields(used)}):
        flag = f"--{name.replace('_', '-')}"
        raise TrainingError(f"{flag} needs {needed}", hint=f"leave it out, or train with {needed}")


def _from_labels(options: Options, perceptor: Path, world: World) -> tuple[TrainTask[Any], Schedule]:
    """Distillation from labeled sounds and images.

    Raises:
        TrainingError: There are several processes, or the data is not what it should be.
    """
    from wav2clip_gen.training.mini.wav2clip import LabeledAudioTask

    if world.size > 1:
        raise TrainingError("several processes train on videos only", hint="give --videos, or start without torchrun")
    task = LabeledAudioTask(options.data, perceptor, options.settings(LabeledAudioSettings), **options.task())
    return task, options.schedule("wav2clip", options.steps, default=WAV2CLIP_STEPS)


def _from_videos(
    options: Options, perceptor: Path, world: World, device: torch.device
) -> tuple[TrainTask[Any], Schedule]:
    """Distillation from videos, once their frames are embedded.

    Raises:
        TrainingError, SettingsError: The videos or the settings are not what they should be.
    """
    from wav2clip_gen.training.distill import DistillTask
    from wav2clip_gen.training.videos import VideoDataset

    settings = options.settings(DistillSettings)
    videos = VideoDataset(options.videos, perceptor, options.runs, world=world)
    for event in videos.prepare(device):
        typer.echo(f"wav2clip: {event.message}", err=True)
    task = DistillTask(videos, settings, seed=options.seed, device=device)
    epoch = task.steps_per_epoch
    return task, options.schedule("wav2clip", options.steps, default=VIDEO_EPOCHS * epoch, score_steps=epoch)


@command(app, DATA, OUT, *MACHINE)
def prior(options: Options) -> None:
    """Fit the colors of the trained CLIP's concepts: takes minutes, has no checkpoints."""
    from wav2clip_gen.models import checkpoints
    from wav2clip_gen.training.mini.prior import fit_prior

    loader = options.loader(memory=0)  # each image is used once
    device = options.torch_device()
    fitted, provenance, notes = fit_prior(options.data, options.clip_weights(), loader=loader, device=device)
    for note in notes:
        typer.echo(f"prior: {note}", err=True)
    target = options.out_folder() / "prior.safetensors"
    checkpoints.save(fitted, target, training=provenance)
    scores = "  ".join(f"{name} {value:.4g}" for name, value in provenance["scores"].items())
    typer.echo(f"prior: {scores}\nwrote {target}", err=True)


def install_weights(weights: Path, folder: Path) -> None:
    """Copy the weights of a run to the folder that families are loaded from.

    Raises:
        OutputError: The disk is full or cannot be written.
    """
    target = folder / weights.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with appear_whole(target) as temporary:
            shutil.copyfile(weights, temporary)
    except OSError as error:
        raise OutputError(
            f"cannot write {target}: {error.strerror}",
            hint=f"the weights are in {weights}: make room, or choose another folder with --out",
        ) from error
    typer.echo(f"wrote {target}", err=True)
