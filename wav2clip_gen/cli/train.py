"""`w2c-gen train ...`: train the networks; progress goes to stderr, a line at a time.

The options of a command are those of its settings (`training.settings`), those that all runs share, and its own.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, fields
from inspect import Parameter, Signature
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_type_hints

import typer

from wav2clip_gen.cli.app import INTERRUPTED
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

    from wav2clip_gen.training.data import Loader
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

REQUIRED = Parameter.empty
DEPRECATED = {"parts": "micro_batches"}  # old name of an option -> new one
SettingsClass = TypeVar("SettingsClass")

app = typer.Typer(
    help="Train the small family: clip first, then vqgan, wav2clip and prior, which all need it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def option(name: str, kind: Any, text: str, *flags: str, default: Any = None, **more: Any) -> Parameter:
    """A command-line option; without a default it may be left out."""
    info = typer.Option(*flags, help=text, **more)
    kind = kind if default is not None else kind | None
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, info])


def settings_options(*classes: Any) -> list[Parameter]:
    """An option for each setting; None if it is not given, so that the class keeps its default."""
    found: dict[str, tuple[Any, str, float | None, list[Any]]] = {}
    for each in classes:
        types = get_type_hints(each)
        for field in fields(each):
            metadata = field.metadata
            entry = found.setdefault(field.name, (types[field.name], metadata["help"], metadata["min"], []))
            if field.default is not MISSING and field.default not in entry[3]:
                entry[3].append(field.default)
    return [
        option(name, kind, f"{text[0].upper()}{text[1:]}.", min=minimum, show_default=" or ".join(map(str, defaults)))
        for name, (kind, text, minimum, defaults) in found.items()
    ]


DATA = option("data", Path, "Folder of the training data, as weights/README.md describes it.", default=REQUIRED)
OUT = option("out", Path, "Folder that the weights go to.", show_default="weights/mini of w2c-gen")
WORKERS = option("workers", int, "Threads that decode.", min=1, show_default="one per core, at most 8")
MACHINE = [
    WORKERS,
    option("device", str, "auto, cpu or cuda.", default="auto"),
    option("threads", int, "CPU threads.", min=1, show_default="one per core"),
    option("debug", bool, "Show where an error comes from.", "--debug", default=False),
]
RUN = [
    OUT,
    option("runs", Path, "Folder of checkpoints and logs; an interrupted run is resumed there.", default=Path("runs")),
    option("minutes", float, "Train for so many minutes, instead of --steps."),
    option("seed", int, "Seed of all random numbers.", default=0, min=0),
    option("fresh", bool, "Start anew, or resume the last run.", "--fresh/--resume", default=False),
    option("tensorboard", Path, "Also write losses and scores for TensorBoard.", metavar="DIR"),
    option(
        "memory", float, "Decoded pictures and sounds to keep; the rest is decoded each time.",
        default=2.0, min=0, metavar="GB",
    ),
    *MACHINE,
]  # fmt: skip


def steps_option(default: str, *, name: str = "steps", what: str = "Length of the run") -> Parameter:
    """The option for the number of steps."""
    return option(name, int, f"{what}.", min=1, show_default=default)


class Options(SimpleNamespace):
    """The options of a command, and what is made of them."""

    def given(self, *classes: Any) -> dict[str, Any]:
        """The settings of these classes that were given on the command line."""
        names = [field.name for each in classes for field in fields(each)]
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    def settings(self, each: type[SettingsClass]) -> SettingsClass:
        """The settings of a class, by default its own."""
        return each(**self.given(each))

    def torch_device(self) -> torch.device:
        """The device; also sets PyTorch's number of threads.

        Raises:
            SettingsError: There is no such device.
        """
        import torch

        from wav2clip_gen.models.families import choose_device

        if self.threads:
            torch.set_num_threads(self.threads)
        return choose_device(self.device)

    def loader(self, **more: Any) -> Loader:
        """How the data is decoded and kept."""
        from wav2clip_gen.training.data import Loader

        return Loader(**more, **({"workers": self.workers} if self.workers else {}))

    def task(self) -> dict[str, Any]:
        """What all tasks take that read the data folder."""
        loader = self.loader(memory=round(self.memory * 1e9))
        return {"seed": self.seed, "device": self.torch_device(), "loader": loader}

    def out_folder(self) -> Path:
        """The folder that weights go to: by default that of the shipped ones."""
        from wav2clip_gen.models.manifest import shipped_folder

        return self.out or shipped_folder() / "mini"

    def clip_weights(self, name: str | None = None) -> Path:
        """The CLIP to distill: the named one, or the one trained last.

        Raises:
            TrainingError: It is not there.
            WeightsError, SettingsError: There is no such part or file.
        """
        from wav2clip_gen.models.choice import find

        path, hint = self.out_folder() / "clip.safetensors", "run `w2c-gen train clip` first"
        if name is not None:
            part = find(name, "clip")
            path, hint = part.path, part.hint
        if not path.is_file():
            raise TrainingError(f"{path}: there is no trained CLIP to distill", hint=hint)
        return path

    def schedule(self, name: str, steps: int | None, *, default: int, share: float = 1, **more: Any) -> Schedule:
        """The length of a run: the given steps or a share of the given minutes, or the default.

        Raises:
            TrainingError: Both were given.
        """
        from wav2clip_gen.training.schedule import Schedule

        minutes = self.minutes and self.minutes * share
        length = default if steps is None and minutes is None else steps
        return Schedule(folder=self.runs / name, steps=length, minutes=minutes, **more)

    def train(self, task: TrainTask[Any], schedule: Schedule) -> Path:
        """Train to the end, reporting progress; returns the weights file."""
        from wav2clip_gen.training.trainer import Trainer

        trainer = Trainer(task, schedule, tensorboard=self.tensorboard)
        for event in trainer.run(fresh=self.fresh):
            if task.world.is_main:
                typer.echo(f"{schedule.folder.name}: {event.message}", err=True)
        return trainer.weights


def command(*options: Parameter, settings: tuple[Any, ...] = ()) -> Callable[[Callable[[Options], None]], None]:
    """Register a command that has these options and one for each setting."""

    def register(run: Callable[[Options], None]) -> None:
        old = [option(name, int, "", hidden=True) for name in DEPRECATED if DistillSettings in settings]
        parameters = [*options, *settings_options(*settings), *old]

        def call(**values: Any) -> None:
            with _errors_shown(debug=values["debug"]):
                for parameter in old:
                    name, value = DEPRECATED[parameter.name], values.pop(parameter.name)
                    if value is not None:
                        flag = f"--{name.replace('_', '-')}"
                        typer.echo(f"note: --{parameter.name} is deprecated, use {flag}", err=True)
                        values[name] = value
                run(Options(**values))

        call.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
        app.command(run.__name__, help=run.__doc__)(call)

    return register


@contextmanager
def _errors_shown(*, debug: bool) -> Iterator[None]:
    """Turn errors into messages; Ctrl-C says how to resume."""
    from wav2clip_gen.cli import console

    with console.errors_shown(debug=debug):
        try:
            yield
        except KeyboardInterrupt:
            typer.echo("interrupted: the same command resumes from the last checkpoint", err=True)
            raise typer.Exit(INTERRUPTED) from None


@command(
    DATA,
    option(
        "tower", Literal["image", "text", "both"], "Which half to train; the weights are written once both are.",
        default="both",
    ),
    steps_option(str(IMAGE_STEPS), what="Length of the image tower's run"),
    steps_option(str(TEXT_STEPS), name="text_steps", what="Length of the text tower's run"),
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
    DATA,
    option("start", Path, "Weights file to fine-tune, instead of random weights.", "--from"),
    steps_option(str(VQGAN_STEPS)),
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
    option("data", Path, "Folder of the training data, as weights/README.md describes it."),
    option("videos", Path, "Train on these videos instead, as the paper does.", metavar="FOLDER|CSV"),
    option("perceptor", str, "CLIP to distill: a part's name or a weights file.", show_default="the trained one"),
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
    for name in options.given(other).keys() - {field.name for field in fields(used)}:
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
        typer.echo(f"wav2clip: {event}", err=True)
    task = DistillTask(videos, settings, seed=options.seed, device=device)
    epoch = task.steps_per_epoch
    return task, options.schedule("wav2clip", options.steps, default=VIDEO_EPOCHS * epoch, score_steps=epoch)


@command(DATA, OUT, *MACHINE)
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
