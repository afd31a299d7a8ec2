"""`w2c-gen analyze song.wav`: what is heard in a track, before a film is made of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wav2clip_gen.cli import options
from wav2clip_gen.cli.app import INTERRUPTED
from wav2clip_gen.errors import SettingsError
from wav2clip_gen.settings import Run, Settings

if TYPE_CHECKING:
    from wav2clip_gen.analysis.analyse import Analysis
    from wav2clip_gen.models.registry import Models, ModelSelection

app = typer.Typer(
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

OutDir = Annotated[
    Path,
    typer.Option(
        metavar="DIR", rich_help_panel="Output", show_default=False, help="Folder for the files [dim](default: here)[/]"
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", rich_help_panel="Output", help="Replace older files.")]
Json = Annotated[
    bool,
    typer.Option("--json", rich_help_panel="Output", help="Write SONG.analysis.json [dim](default, with --plot)[/]"),
]
Csv = Annotated[
    bool, typer.Option("--csv", rich_help_panel="Output", help="Write SONG.analysis.csv, a row for each frame.")
]
Plot = Annotated[
    bool,
    typer.Option("--plot", rich_help_panel="Output", help="Write SONG.analysis.png [dim](default, with --json)[/]"),
]
Stems = Annotated[str | None, options.stems_option("Parts of the song that are looked at too, each by itself")]
Words = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        rich_help_panel="Words",
        show_default=False,
        help="Words to choose from, one a line [dim](default: 191 everyday sounds, scenes and instruments)[/]",
    ),
]
NoWords = Annotated[
    bool, typer.Option("--no-words", rich_help_panel="Words", help="Measure only; ask no network for words.")
]


@dataclass(frozen=True)
class Request:
    """What shall be found in each track, and where it goes."""

    settings: Settings  # which span, frames, stems
    demucs_repo: Path | None
    kinds: tuple[str, ...]  # of files: json, csv, png
    folder: Path
    overwrite: bool
    words: tuple[str, ...]  # none: no network is asked
    networks: ModelSelection | None
    load: Callable[[], Models]

    def outputs(self, source: Path) -> dict[str, Path]:
        """Kind -> file of a track."""
        from wav2clip_gen.job import fill

        return {kind: self.folder / fill(f"{{stem}}.analysis.{kind}", source, self.settings) for kind in self.kinds}


@app.command()
def analyze(
    *,
    inputs: options.Inputs = None,
    out_dir: OutDir = Path(),
    json: Json = False,
    csv: Csv = False,
    plot: Plot = False,
    overwrite: Overwrite = False,
    start: options.Start = None,
    duration: options.Duration = None,
    fps: options.Fps = None,
    stems: Stems = None,
    stem_file: options.StemFiles = None,
    separator: options.Separator = None,
    demucs_repo: options.DemucsRepo = None,
    words: Words = None,
    no_words: NoWords = False,
    models: options.Models = None,
    weights_dir: options.WeightsDir = None,
    device: options.Device = None,
    debug: options.Debug = False,
) -> None:
    """Tell what is heard in a track and its stems: loudness, onsets, beats, brightness, bands, chroma, sections, words.

    The words are those nearest to what the sound encoder hears in each section, with their margins, and whether it is
    guessing: a look at what would steer a film, before it is made.
    """
    from wav2clip_gen.cli import console

    kinds = tuple(kind for kind, wanted in (("json", json), ("csv", csv), ("png", plot)) if wanted) or ("json", "png")
    with console.errors_shown(debug=debug):
        changes: dict[str, dict[str, Any]] = {
            "sound": {"start": start, "duration": duration, "separator": separator},
            "picture": {"fps": fps},
            "run": {"models": models, "device": device},
        }
        settings = Settings().merged(options.given(changes) | options.given_stems(stems, stem_file))
        settings.require_steering()  # by stems, if files of them are given
        if no_words and words:
            raise SettingsError("--words and --no-words contradict each other", hint="leave one of them out")
        networks = None if no_words else _choose(settings.run, weights_dir)
        request = Request(
            settings, demucs_repo, kinds, out_dir, overwrite, () if no_words else _vocabulary(words), networks,
            _loader(networks, settings.run.device),
        )  # fmt: skip
        _refuse_same_names(inputs or [], request)
    code = 0
    for source in inputs or []:
        try:
            with console.errors_shown(debug=debug):
                _analyze(source, request)
        except typer.Exit as left:  # one track that fails does not stop the others
            code = max(code, left.exit_code)
            if left.exit_code == INTERRUPTED:
                break
    raise typer.Exit(code)


def _choose(run: Run, weights_dir: Path | None) -> ModelSelection:
    from wav2clip_gen.models.registry import select_models

    networks = select_models(run, weights_dir)
    networks.require()
    return networks


def _loader(networks: ModelSelection | None, device: str) -> Callable[[], Models]:
    """What loads the networks when they are first needed, once for all tracks."""
    loaded: list[Models] = []

    def load() -> Models:
        from wav2clip_gen.models.registry import choose_device, load_models

        if not loaded:
            assert networks is not None
            loaded.append(load_models(networks, device=choose_device(device)))
        return loaded[0]

    return load


def _vocabulary(path: Path | None) -> tuple[str, ...]:
    from wav2clip_gen.analysis.words import EVERYDAY, read_words

    return read_words(path or EVERYDAY)


def _refuse_same_names(sources: list[Path], request: Request) -> None:
    """Raise a SettingsError where there is no track, or two would go to the same place."""
    if not sources:
        raise SettingsError("no track was given", hint="w2c-gen analyze song.wav, or w2c-gen analyze --help")
    if len({tuple(request.outputs(source).values()) for source in sources}) < len(sources):
        raise SettingsError(
            f"several tracks of one name cannot all go to {request.folder}", hint="analyze them one by one"
        )


def _analyze(source: Path, request: Request) -> None:
    """Analyse one track; the paths of what was written go to stdout, the words to stderr."""
    from wav2clip_gen.analysis.analyse import analyse
    from wav2clip_gen.audio.windows import Timeline
    from wav2clip_gen.cli import console
    from wav2clip_gen.files import check_output
    from wav2clip_gen.job import open_song, plan_song_stems

    settings = request.settings
    track = open_song(source, settings)
    outputs = request.outputs(source)
    for path in outputs.values():
        check_output(path, overwrite=request.overwrite, option="--out-dir")
    stems = plan_song_stems(track, settings, request.demucs_repo)
    timeline = Timeline.of(track, fps=settings.picture.fps, window=settings.sound.window, hop=settings.sound.hop)
    family = request.load() if request.words else None
    on_separation = console.PlainListener().separated
    analysis = analyse(track, timeline, family=family, words=request.words, stems=stems, on_separation=on_separation)
    for kind, path in outputs.items():
        _write(analysis, kind, path)
    console.tell_analysis(analysis)
    for path in outputs.values():
        typer.echo(path)


def _write(analysis: Analysis, kind: str, path: Path) -> None:
    from wav2clip_gen.analysis import plot, report

    {"json": report.write_json, "csv": report.write_csv, "png": plot.write_png}[kind](analysis, path)
