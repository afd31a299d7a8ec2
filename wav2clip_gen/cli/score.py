"""`w2c-gen score film.mp4 song.wav`: what is measured of a film, also of one that another program made."""

from __future__ import annotations

import json as jsonlib
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wav2clip_gen.cli import options
from wav2clip_gen.cli.app import TYPER
from wav2clip_gen.config import Settings

if TYPE_CHECKING:
    from wav2clip_gen.score import Score
    from wav2clip_gen.video.reactivity import Measure, Reactivity

app = typer.Typer(**TYPER)

SONG_HELP = "The song that it plays [dim](default: the film's own sound, whose offset is then not measured)[/]"
CORRELATION = "follows the beat: correlation of visual change and onset strength"
ALIGNMENT = "AV-Align: onsets that meet a peak of visual change, of all onsets and peaks"
HEADER = ("measure", "figure", "chance (95 %, 99 %)")
FLICKER = "flicker: mean difference of neighbouring frames"


@app.command(cls=options.Command)
def score(
    film: Annotated[Path, typer.Argument(metavar="FILM", help="A film, of any program.")],
    song: Annotated[Path | None, typer.Argument(metavar="SONG", help=SONG_HELP, show_default=False)] = None,
    *,
    start: Annotated[str, typer.Option(metavar="TIME", help="Start of the film in the song, as 75 or 1:15.")] = "0",
    json: Annotated[bool, typer.Option("--json", help="For programs: one JSON object on stdout.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Measure how a film follows its song: offset of the sound, reaction to onsets against chance, flicker.

    Chance is what 95 of 100 shifts of the sound stay below, and 99 of 100: a film that follows its song is above both.
    """
    from wav2clip_gen.cli import console
    from wav2clip_gen.score import score_film

    with console.errors_shown(debug=debug):
        settings = Settings().merged({"sound": {"start": start}})
        found = score_film(film, song, start=settings.sound.start)
        if json:
            typer.echo(jsonlib.dumps(asdict(found), indent=2, default=str))
        else:
            _show(found)


def _show(found: Score) -> None:
    """A table on stdout."""
    from wav2clip_gen.cli import console
    from wav2clip_gen.environment import readable
    from wav2clip_gen.evaluation.suite import Row, Table

    against = f"against {found.song.name}" if found.song else "against its own sound"
    rows: list[Row] = [
        ("film", _describe_picture(found), ""),
        ("offset of the sound at start, middle and end", _describe_offsets(found), ""),
        _row(CORRELATION, found.reactivity.correlation, found.reactivity),
        _row(ALIGNMENT, found.reactivity.alignment, found.reactivity),
        (
            FLICKER,
            "cannot be measured: there is one frame"
            if found.flicker is None
            else f"{100 * found.flicker:.2f} % of full range",
            "",
        ),
    ]
    title = readable(f"{found.film.name} {against}")
    console.show_table(Table(title=title, rows=rows, notes=[*found.notes], figures={}, header=HEADER))


def _describe_picture(found: Score) -> str:
    if found.frames == 1:
        return "1 frame"
    return f"{found.frames} frames, {found.fps:.6g} fps, {found.seconds:.2f} s"


def _describe_offsets(found: Score) -> str:
    if found.offsets is None:
        return "no song to compare with" if found.song is None else "the film has no sound"
    return ", ".join("cannot be measured" if late is None else f"{1000 * late:+.1f} ms" for late in found.offsets)


def _row(name: str, measure: Measure, found: Reactivity) -> tuple[str, str, str]:
    if measure.value is None:
        return name, str(found), ""
    return name, f"{measure.value:.2f}", f"{measure.chance:.2f}, {measure.chance_99:.2f}"
