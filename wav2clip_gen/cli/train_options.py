"""The options of `w2c-gen train`: those of the settings (`training.settings`), and those that all runs share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from inspect import Parameter, Signature
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_type_hints

import typer

from wav2clip_gen.cli.app import INTERRUPTED
from wav2clip_gen.errors import TrainingError

if TYPE_CHECKING:
    import torch

    from wav2clip_gen.training.data import Loader
    from wav2clip_gen.training.schedule import Schedule
    from wav2clip_gen.training.trainer import TrainTask

REQUIRED = Parameter.empty
DEPRECATED = {"parts": "micro_batches"}  # old name of an option -> new one
SettingsClass = TypeVar("SettingsClass")


def option(
    name: str, kind: Any, text: str, *flags: str, default: Any = None, panel: str | None = None, **more: Any
) -> Parameter:
    """A command-line option; without a default it may be left out."""
    info = typer.Option(*flags, help=f"{text[:1].upper()}{text[1:]}.", rich_help_panel=panel, **more)
    kind = kind if default is not None else kind | None
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, info])


def settings_options(*classes: Any) -> list[Parameter]:
    """An option for each setting; None if it is not given, so that the class keeps its default."""
    found: dict[str, tuple[Any, Any, list[str]]] = {}  # name -> type, metadata, defaults of the classes
    for each in classes:
        types = get_type_hints(each)
        for field in fields(each):
            *_, defaults = found.setdefault(field.name, (types[field.name], field.metadata, []))
            defaults += [] if str(field.default) in defaults else [str(field.default)]
    return [
        option(name, kind, metadata["help"], min=metadata["min"], show_default=" or ".join(defaults), panel="Settings")
        for name, (kind, metadata, defaults) in found.items()
    ]


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

        from wav2clip_gen.models.registry import choose_device

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
        from wav2clip_gen.models.registry import find_component

        path, hint = self.out_folder() / "clip.safetensors", "run `w2c-gen train clip` first"
        if name is not None:
            component = find_component(name, "clip")
            path, hint = component.path, component.hint
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


def command(
    app: typer.Typer, *options: Parameter, settings: tuple[Any, ...] = ()
) -> Callable[[Callable[[Options], None]], None]:
    """Register a command that has these options and one for each setting."""

    def register(run: Callable[[Options], None]) -> None:
        current = settings_options(*settings)
        names = {parameter.name for parameter in current}
        old = [option(name, int, "", hidden=True) for name, new in DEPRECATED.items() if new in names]

        def call(**values: Any) -> None:
            with _errors_shown(debug=values["debug"]):
                run(Options(**_renamed(values)))

        call.__signature__ = Signature([*options, *current, *old])  # type: ignore[attr-defined]
        app.command(run.__name__, help=run.__doc__)(call)

    return register


def _renamed(values: dict[str, Any]) -> dict[str, Any]:
    """Move the values of deprecated options to their new names, with a note."""
    for old, new in DEPRECATED.items():
        value = values.pop(old, None)
        if value is not None:
            typer.echo(f"note: --{old} is deprecated, use --{new.replace('_', '-')}", err=True)
            values[new] = value
    return values


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
