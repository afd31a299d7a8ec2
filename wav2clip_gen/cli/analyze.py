"""`w2c-gen analyze song.wav`: features, sections and labels of a track, before a film is made of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wav2clip_gen.cli import options
from wav2clip_gen.cli.app import INTERRUPTED
from wav2clip_gen.config import Settings
from wav2clip_gen.errors import SettingsError

if TYPE_CHECKING:
    from wav2clip_gen.models.registry import Models, ModelSelection

app = typer.Typer(
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

OUTPUT_PANEL, LABELS_PANEL = {"rich_help_panel": "Output"}, {"rich_help_panel": "Labels"}
JSON_HELP = "Write SONG.analysis.json [dim](default, with --plot)[/]"
CSV_HELP = "Write SONG.analysis.csv, a row for each frame."
PLOT_HELP = "Write SONG.analysis.png [dim](default, with --json; needs the extra `plot`)[/]"
FILE_HELP = "Labels to choose from, one per line [dim](default: 191 everyday sounds, scenes and instruments)[/]"
NO_LABELS_HELP = "Measure only, without loading a network."


@dataclass(frozen=True)
class AnalysisPlan:
    """What is computed for each track, and where the files go."""

    settings: Settings  # span, frame rate, stems
    demucs_repo: Path | None
    formats: tuple[str, ...]  # of json, csv, png
    folder: Path
    overwrite: bool
    labels: tuple[str, ...]
    selection: ModelSelection | None  # None: sections are not labelled

    def outputs(self, source: Path) -> dict[str, Path]:
        """Format -> file of a track."""
        from wav2clip_gen.job import fill

        return {one: self.folder / fill(f"{{stem}}.analysis.{one}", source, self.settings) for one in self.formats}

    @cached_property
    def models(self) -> Models | None:
        """The networks, loaded on first use."""
        from wav2clip_gen.models.registry import choose_device, load_models

        if self.selection is None:
            return None
        return load_models(self.selection, device=choose_device(self.settings.run.device))


@app.command()
@options.with_options(
    "start", "duration", "fps", "stem_file", "separator", "demucs_repo", "models", "weights_dir", "device", "debug"
)
def analyze(
    *,
    out_dir: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the files.", **OUTPUT_PANEL)] = Path(),
    json: Annotated[bool, typer.Option("--json", help=JSON_HELP, **OUTPUT_PANEL)] = False,
    csv: Annotated[bool, typer.Option("--csv", help=CSV_HELP, **OUTPUT_PANEL)] = False,
    plot: Annotated[bool, typer.Option("--plot", help=PLOT_HELP, **OUTPUT_PANEL)] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files.", **OUTPUT_PANEL)] = False,
    stems: Annotated[str | None, options.stems_option("Stems to analyze as well, each by itself")] = None,
    labels: Annotated[
        Path | None, typer.Option("--labels", "--words", metavar="FILE", help=FILE_HELP, **LABELS_PANEL)
    ] = None,
    no_labels: Annotated[bool, typer.Option("--no-labels", "--no-words", help=NO_LABELS_HELP, **LABELS_PANEL)] = False,
    **shared: Any,
) -> None:
    """Analyze a track and its stems: loudness, onsets, beats, spectral centroid, bands, chroma, sections, labels.

    The labels are the concepts nearest to the sound embedding of each section, with their margins. They show what the
    sound would guide a film towards.
    """
    from wav2clip_gen import analysis
    from wav2clip_gen.cli import console
    from wav2clip_gen.models.registry import select_models

    formats = tuple(name for name, wanted in (("json", json), ("csv", csv), ("png", plot)) if wanted)
    inputs: list[Path] = shared["inputs"] or []
    with console.errors_shown(debug=shared["debug"]):
        settings = Settings().merged(options.settings_given(shared | {"stems": stems}))
        settings.require_guidance()  # by stems, if files of them are given
        if no_labels and labels:
            raise SettingsError("--labels and --no-labels contradict each other", hint="leave one of them out")
        selection = None if no_labels else select_models(settings.run, shared["weights_dir"])
        if selection:
            selection.require()
        plan = AnalysisPlan(
            settings=settings,
            demucs_repo=shared["demucs_repo"],
            formats=_check_formats(formats),
            folder=out_dir,
            overwrite=overwrite,
            selection=selection,
            labels=() if no_labels else analysis.read_labels(labels or analysis.LABELS),
        )
        _check_names(inputs, plan)
    code = 0
    for source in inputs:
        try:
            with console.errors_shown(debug=shared["debug"]):
                _analyze(source, plan)
        except typer.Exit as failure:  # the other tracks are still analyzed
            code = max(code, failure.exit_code)
            if failure.exit_code == INTERRUPTED:
                break
    raise typer.Exit(code)


def _check_formats(formats: tuple[str, ...]) -> tuple[str, ...]:
    """The formats asked for, or the default ones; errors are those of `require_matplotlib`."""
    from wav2clip_gen.plot import require_matplotlib

    if "png" in formats:
        require_matplotlib()
    if not formats and not find_spec("matplotlib"):
        typer.echo("note: no plot without matplotlib: pip install 'wav2clip-gen[plot]'", err=True)
        return ("json",)
    return formats or ("json", "png")


def _check_names(sources: list[Path], plan: AnalysisPlan) -> None:
    """Raise a SettingsError if there is no track, or two would be written to the same files."""
    if not sources:
        raise SettingsError("no track was given", hint="w2c-gen analyze song.wav, or w2c-gen analyze --help")
    if len({tuple(plan.outputs(source).values()) for source in sources}) < len(sources):
        raise SettingsError(
            f"several tracks of the same name cannot all go to {plan.folder}", hint="analyze them one by one"
        )


def _analyze(source: Path, plan: AnalysisPlan) -> None:
    """Analyze one track; the paths of its files go to stdout, sections and labels to stderr."""
    from wav2clip_gen import analysis
    from wav2clip_gen.audio.timeline import Timeline
    from wav2clip_gen.cli import console
    from wav2clip_gen.files import check_output
    from wav2clip_gen.job import open_song, plan_song_stems
    from wav2clip_gen.plot import write_plot
    from wav2clip_gen.progress import Progress

    settings = plan.settings
    track = open_song(source, settings)
    outputs = plan.outputs(source)
    for path in outputs.values():
        check_output(path, overwrite=plan.overwrite, option="--out-dir")
    listener = console.PlainListener()
    found = analysis.analyze(
        track,
        Timeline.of(track, fps=settings.picture.fps, window=settings.sound.window, hop=settings.sound.hop),
        stems=plan_song_stems(track, settings, plan.demucs_repo),
        models=plan.models,
        labels=plan.labels,
        on_separation=lambda share: listener.show(Progress(stage="separate", done=round(100 * share), total=100)),
    )
    writers = {"json": analysis.write_json, "csv": analysis.write_csv, "png": write_plot}
    for name, path in outputs.items():
        writers[name](found, path)
    console.tell_analysis(found)
    for path in outputs.values():
        typer.echo(path)
