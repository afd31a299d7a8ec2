"""`w2c-gen analyze song.wav`: features, sections and labels of a track, before a film is made of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wav2clip_gen.cli import options
from wav2clip_gen.cli.app import TYPER
from wav2clip_gen.cli.batch import Batch
from wav2clip_gen.config import MIX, Settings
from wav2clip_gen.drawing import clock
from wav2clip_gen.errors import SettingsError

if TYPE_CHECKING:
    from wav2clip_gen.analysis import Analysis, Section
    from wav2clip_gen.models.registry import Models

app = typer.Typer(**TYPER, rich_markup_mode="rich")

OUTPUT_PANEL, LABELS_PANEL = {"rich_help_panel": "Output"}, {"rich_help_panel": "Labels"}
JSON_HELP = "Write SONG.analysis.json [dim](default, with --plot)[/]"
CSV_HELP = "Write SONG.analysis.csv, a row for each frame."
PLOT_HELP = "Write SONG.analysis.png [dim](default, with --json; needs the extra `plot`)[/]"
FILE_HELP = "Labels to choose from, one per line [dim](default: 191 everyday sounds, scenes and instruments)[/]"
NO_LABELS_HELP = "Measure only, without loading a network."


@app.command(cls=options.Command)
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
    from wav2clip_gen.analysis import LABELS, read_labels
    from wav2clip_gen.cli import console
    from wav2clip_gen.devices import choose_device
    from wav2clip_gen.job import fill
    from wav2clip_gen.models.registry import load_models, select_models

    inputs: list[Path] = shared["inputs"] or []
    with console.errors_shown(debug=shared["debug"]):
        settings = Settings().merged(options.settings_given(shared | {"stems": stems}))
        settings.require_guidance()  # by stems, if files of them are given
        if no_labels and labels:
            raise SettingsError("--labels and --no-labels contradict each other", hint="leave one of them out")
        selection = None if no_labels else select_models(settings.run, shared["weights_dir"])
        if selection:
            selection.require()
        formats = _choose_formats({"json": json, "csv": csv, "png": plot})
        vocabulary = () if no_labels else read_labels(labels or LABELS)
        if not inputs:
            raise SettingsError("no track was given", hint="w2c-gen analyze song.wav, or w2c-gen analyze --help")
        names = [[out_dir / fill(f"{{stem}}.analysis.{one}", source, settings) for one in formats] for source in inputs]
        if len({tuple(paths) for paths in names}) < len(names):
            raise SettingsError(
                f"several tracks of the same name cannot all go to {out_dir}", hint="analyze them one by one"
            )

    @cache
    def models() -> Models | None:
        if selection is None:
            return None
        device = choose_device(settings.run.device, on_note=partial(typer.echo, err=True))
        return load_models(selection, device=device)

    run = partial(
        _analyze,
        settings=settings,
        models=models,
        labels=vocabulary,
        demucs_repo=shared["demucs_repo"],
        overwrite=overwrite,
    )
    batch = Batch(inputs, "tracks analyzed", shared["debug"])
    for source, outputs in zip(inputs, names, strict=True):
        with batch.attempt(source):
            run(source, outputs)
            batch.made.append(source)
        if batch.interrupted:
            break
    console.PlainListener().show_batch(batch)
    raise typer.Exit(batch.code)


def _choose_formats(wanted: dict[str, bool]) -> list[str]:
    """The formats asked for, or the default ones; errors are those of `require_matplotlib`."""
    from wav2clip_gen.plot import require_matplotlib

    if wanted["png"]:
        require_matplotlib()
    if any(wanted.values()):
        return [name for name, chosen in wanted.items() if chosen]
    if find_spec("matplotlib"):
        return ["json", "png"]
    typer.echo("note: no plot without matplotlib: pip install 'wav2clip-gen[plot]'", err=True)
    return ["json"]


def _analyze(
    source: Path,
    outputs: list[Path],
    *,
    settings: Settings,
    models: Callable[[], Models | None],
    labels: tuple[str, ...],
    demucs_repo: Path | None,
    overwrite: bool,
) -> None:
    """Analyze one track; the paths of its files go to stdout, sections and labels to stderr."""
    from wav2clip_gen import analysis
    from wav2clip_gen.audio.timeline import Timeline
    from wav2clip_gen.cli import console
    from wav2clip_gen.files import check_output
    from wav2clip_gen.job import describe_tracks, open_song, plan_song_stems
    from wav2clip_gen.plot import write_plot
    from wav2clip_gen.progress import Progress

    track = open_song(source, settings)
    for path in outputs:
        check_output(path, overwrite=overwrite, option="--out-dir")
    plan = plan_song_stems(track, settings, demucs_repo)
    for note in describe_tracks(track, plan):
        typer.echo(f"note: {note}", err=True)
    listener = console.PlainListener()
    found = analysis.analyze(
        track,
        Timeline.of(track, fps=settings.picture.fps, window=settings.sound.window, hop=settings.sound.hop),
        stems=plan,
        models=models(),
        labels=labels,
        on_separation=lambda share: listener.show(Progress(stage="separate", done=round(100 * share), total=100)),
    )
    writers = {".json": analysis.write_json, ".csv": analysis.write_csv, ".png": write_plot}
    for path in outputs:
        writers[path.suffix](found, path, overwrite=overwrite)
    _show(found)
    for path in outputs:
        console.print_path(path)


def _show(analysis: Analysis) -> None:
    """What was found in a track."""
    from wav2clip_gen.cli import console

    features, path, count = analysis.mix.features, analysis.track.path, len(analysis.mix.sections)
    tempo = "no steady beat" if features.tempo is None else f"{features.tempo:.1f} beats per minute"
    parts = "1 section" if count == 1 else f"{count} sections"
    labels = f"; labels by models {analysis.family}, the nearest of {analysis.vocabulary}" if analysis.family else ""
    head = f"{path.name}: {clock(analysis.track.duration)}, {tempo}, {len(features.onsets)} onsets, {parts}{labels}"
    console.stderr.print(head, markup=False)
    if analysis.stems:
        origins = (f"{name} ({stem.origin})" for name, stem in analysis.stems.items())
        console.stderr.print(f"stems: {', '.join(origins)}", markup=False)
    header = ("time", *(["stem"] if analysis.stems else []), "level", "labels (cosine, margin)", "")
    console.show_rows(header, _section_rows(analysis))


def _section_rows(analysis: Analysis) -> list[tuple[str, ...]]:
    """A row for each section, and below it one for each stem; where there are stems, their names come second."""
    rows: list[tuple[str, ...]] = []
    for number, section in enumerate(analysis.mix.sections):
        if not analysis.stems:
            rows.append(_section_row(section))
            continue
        sounds = {MIX: section, **{name: stem.sections[number] for name, stem in analysis.stems.items()}}
        for name, sound in sounds.items():
            span, *cells = _section_row(sound)
            rows.append((span, name, *cells))
    return rows


def _section_row(section: Section) -> tuple[str, str, str, str]:
    """Time, level, labels, and whether they are uncertain."""
    level = "silent" if section.level is None else f"{section.level:.1f} dB"
    labels = section.labels or ()
    shown = ", ".join(f"{label.text} ({label.cosine:.2f}, {label.margin:+.1f} sd)" for label in labels)
    return (
        f"{clock(section.start)}-{clock(section.stop)}",
        level,
        shown,
        "uncertain" if labels and section.uncertain else "",
    )
