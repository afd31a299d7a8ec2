"""`w2c-gen train ...`: train the networks; progress goes to stderr, a line at a time.

The options are those of the settings (`training.settings`), and those that all runs share.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import Field, fields
from functools import partial
from inspect import Parameter, Signature
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_type_hints

import typer

from wav2clip_gen.cli.app import INTERRUPTED
from wav2clip_gen.cli.options import describe_default
from wav2clip_gen.errors import TrainingError
from wav2clip_gen.fields import SettingsGroup, describe_range
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
AnyGroup = TypeVar("AnyGroup", bound=SettingsGroup)

app = typer.Typer(
    help="Train the small family: clip first, then vqgan, wav2clip and prior, which all need it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def option(
    name: str, kind: Any, text: str, *flags: str, default: Any = None, panel: str | None = None, **more: Any
) -> Parameter:
    """A command-line option; without a default it may be left out."""
    end = "" if text.endswith("]") else "."
    info = typer.Option(*flags, help=f"{text[:1].upper()}{text[1:]}{end}", rich_help_panel=panel, **more)
    kind = kind if default is not None else kind | None
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, info])


def settings_options(*groups: type[SettingsGroup]) -> list[Parameter]:
    """An option for each setting; None if it is not given, so that the class keeps its default."""
    items: dict[str, list[tuple[Field[Any], Any]]] = {}
    for group in groups:
        for item in fields(group):
            items.setdefault(item.name, []).append((item, get_type_hints(group)[item.name]))
    found = []
    for name, ((item, kind), *_) in items.items():
        defaults = " or ".join(dict.fromkeys(describe_default(each) for each, _ in items[name]))
        text = f"{item.metadata['meaning']} [dim]({describe_range(item)}; default: {defaults})[/]"
        found.append(option(name, kind, text, panel="Settings"))
    return found


DATA = option("data", Path, "Folder of the training data, as weights/README.md describes it", default=REQUIRED)
OUT = option("out", Path, "Folder that the weights go to", show_default="weights/mini of w2c-gen")
MACHINE = [
    option("workers", int, "Threads that decode", min=1, show_default="one per core, at most 8"),
    option("device", str, "Where to train: auto, cpu or cuda", default="auto"),
    option("threads", int, "CPU threads", min=1, show_default="one per core"),
    option("debug", bool, "Show where an error comes from", "--debug", default=False),
]
RUN = [
    OUT,
    option("runs", Path, "Folder of checkpoints and logs; an interrupted run is resumed there", default=Path("runs")),
    option("minutes", float, "Train for so many minutes, instead of --steps"),
    option(
        "score_every", float, "Seconds between two evaluations, each of which writes the weights so far",
        default=600.0, min=1,
    ),
    option("seed", int, "Seed of all random numbers", default=0, min=0),
    option("fresh", bool, "Start anew, or resume the last run", "--fresh/--resume", default=False),
    option("tensorboard", Path, "Also write losses and scores for TensorBoard", metavar="DIR"),
    option(
        "memory", float, "Decoded pictures and sounds to keep; the rest is decoded each time",
        default=2.0, min=0, metavar="GB",
    ),
    *MACHINE,
]  # fmt: skip


def steps_option(default: object, *, name: str = "steps", what: str = "length of the run") -> Parameter:
    """The option for the number of steps."""
    return option(name, int, what, min=1, show_default=str(default))


class Options(SimpleNamespace):
    """The options of a command, and what is made of them."""

    def settings(self, group: type[AnyGroup]) -> AnyGroup:
        """The settings of a group: those that were given, and the defaults of the others."""
        names = [item.name for item in fields(group)]
        return group(**{name: getattr(self, name) for name in names if getattr(self, name) is not None})

    def torch_device(self) -> torch.device:
        """The device; also sets PyTorch's number of threads."""
        import torch

        from wav2clip_gen.devices import choose_device

        if self.threads:
            torch.set_num_threads(self.threads)
        torch.backends.cudnn.benchmark = True  # all batches have one size, or a few
        return choose_device(self.device, on_note=partial(typer.echo, err=True))

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
        """The CLIP to distill: the named one, or the one trained last."""
        from wav2clip_gen.models.registry import find_component

        path, hint = self.out_folder() / "clip.safetensors", "run `w2c-gen train clip` first"
        if name is not None:
            component = find_component(name, "clip")
            path, hint = component.path, component.hint
        if not path.is_file():
            raise TrainingError(f"{path}: there is no trained CLIP to distill", hint=hint)
        return path

    def train(
        self, task: TrainTask[Any], run: str, steps: int | None, *, default: int, share: float = 1, **more: Any
    ) -> Path:
        """Train for the given steps or a share of the given minutes, or the default; returns the weights file."""
        from wav2clip_gen.training.schedule import Schedule
        from wav2clip_gen.training.trainer import Trainer

        minutes = self.minutes and self.minutes * share
        length = default if steps is None and minutes is None else steps
        schedule = Schedule(folder=self.runs / run, steps=length, minutes=minutes, score_every=self.score_every, **more)
        trainer = Trainer(task, schedule, tensorboard=self.tensorboard)
        for event in trainer.run(fresh=self.fresh):
            if task.world.is_main:
                typer.echo(f"{run}: {event.message}", err=True)
        return trainer.weights


def command(
    *options: Parameter, settings: tuple[type[SettingsGroup], ...] = ()
) -> Callable[[Callable[[Options], None]], None]:
    """Register a command that has these options and one for each setting."""
    current = settings_options(*settings)
    names = {parameter.name for parameter in current}
    old = [option(name, int, "", hidden=True) for name, new in DEPRECATED.items() if new in names]

    def register(run: Callable[[Options], None]) -> None:
        def call(**values: Any) -> None:
            from wav2clip_gen.cli import console

            for name, new in DEPRECATED.items():
                value = values.pop(name, None)
                if value is not None:
                    typer.echo(f"note: --{name} is deprecated, use --{new.replace('_', '-')}", err=True)
                    values[new] = value
            with console.errors_shown(debug=values["debug"]):
                try:
                    run(Options(**values))
                except KeyboardInterrupt:
                    typer.echo("interrupted: the same command resumes from the last checkpoint", err=True)
                    raise typer.Exit(INTERRUPTED) from None

        call.__signature__ = Signature([*options, *current, *old])  # type: ignore[attr-defined]
        app.command(run.__name__, help=run.__doc__)(call)

    return register


@command(
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
    from wav2clip_gen.training.mini.clip import ImageTowerTask, TextTowerTask, join_towers

    common, both = options.task(), options.tower == "both"
    image_settings, text_settings = options.settings(ImageTowerSettings), options.settings(TextTowerSettings)
    if options.tower != "text":
        image = ImageTowerTask(options.data, image_settings, **common)
        options.train(image, "clip-image", options.steps, default=IMAGE_STEPS, share=1 - TEXT_SHARE if both else 1)
    if options.tower != "image":
        text = TextTowerTask(options.data, text_settings, **common)
        share = TEXT_SHARE if both else 1
        weights = options.train(text, "clip-text", options.text_steps, default=TEXT_STEPS, share=share)
        write_words(text.words, weights)
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
    option("start", Path, "Weights file to fine-tune, instead of random weights", "--from"),
    steps_option(VQGAN_STEPS),
    *RUN,
    settings=(VQGANSettings,),
)
def vqgan(options: Options) -> None:
    """Train the VQGAN; its perceptual loss needs the `train` extra."""
    from wav2clip_gen.training.mini.vqgan import VQGANTask

    task = VQGANTask(options.data, options.settings(VQGANSettings), start=options.start, **options.task())
    install_weights(options.train(task, "vqgan", options.steps, default=VQGAN_STEPS), options.out_folder())


@command(
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
        if options.videos is not None:
            weights = _distill_videos(options, perceptor, world, device)
        elif world.size > 1:
            message = "several processes train on videos only"
            raise TrainingError(message, hint="give --videos, or start without torchrun")
        else:
            from wav2clip_gen.training.mini.wav2clip import LabeledAudioTask

            task = LabeledAudioTask(options.data, perceptor, options.settings(LabeledAudioSettings), **options.task())
            weights = options.train(task, "wav2clip", options.steps, default=WAV2CLIP_STEPS)
        if world.is_main:
            install_weights(weights, options.out_folder())


def _check_source(options: Options) -> None:
    """Make sure that there is one source of sounds, and no setting of the other one."""
    if (options.data is None) == (options.videos is None):
        raise TrainingError(
            "nothing to train on was given" if options.data is None else "--data and --videos contradict each other",
            hint="give either --data (weights/README.md says what is in that folder) or --videos",
        )
    labeled, distilled = ({item.name for item in fields(group)} for group in (LabeledAudioSettings, DistillSettings))
    foreign, needed = (distilled - labeled, "--videos") if options.videos is None else (labeled - distilled, "--data")
    for name in sorted(foreign):
        if getattr(options, name) is not None:
            flag = f"--{name.replace('_', '-')}"
            raise TrainingError(f"{flag} needs {needed}", hint=f"leave it out, or train with {needed}")


def _distill_videos(options: Options, perceptor: Path, world: World, device: torch.device) -> Path:
    """Embed the frames of the videos, then train on them; returns the weights file."""
    from wav2clip_gen.training.distill import DistillTask
    from wav2clip_gen.training.videos import VideoDataset

    settings = options.settings(DistillSettings)
    videos = VideoDataset(options.videos, perceptor, options.runs, world=world)
    for event in videos.prepare(device):
        typer.echo(f"wav2clip: {event.message}", err=True)
    task = DistillTask(videos, settings, seed=options.seed, device=device)
    epoch = task.steps_per_epoch
    return options.train(task, "wav2clip", options.steps, default=VIDEO_EPOCHS * epoch, score_steps=epoch)


@command(DATA, OUT, *MACHINE)
def prior(options: Options) -> None:
    """Fit the colors of the trained CLIP's concepts: takes minutes, has no checkpoints."""
    from wav2clip_gen.models import checkpoints
    from wav2clip_gen.training.mini.concepts import fit_prior

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
    from wav2clip_gen.training.schedule import writing

    target = folder / weights.name
    with writing(target, f"the weights are in {weights}: make room, or choose another folder with --out"):
        folder.mkdir(parents=True, exist_ok=True)
        with appear_whole(target) as temporary:
            shutil.copyfile(weights, temporary)
    typer.echo(f"wrote {target}", err=True)
