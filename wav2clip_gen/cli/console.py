"""What a person, a log or a program sees on stderr while a film is made. Rich lives only here."""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table as RichTable

from wav2clip_gen.cli.app import INTERRUPTED
from wav2clip_gen.drawing import clock
from wav2clip_gen.errors import W2CError
from wav2clip_gen.evaluation.tables import Table, markdown
from wav2clip_gen.events import Estimate, Event, Film, Finished, FramePainted, Ready, SectionPainted, Silent, Stage
from wav2clip_gen.job import Job, films, pictures
from wav2clip_gen.settings import MIX

EVERY = 5.0  # seconds between two lines of plain progress
STAGES = {
    "load": "loading the networks",
    "separate": "separating the stems",
    "hear": "listening",
    "paint": "painting",
    "join": "joining picture and sound",
    "check": "checking the film",
    "draw": "drawing the sheet",
}

if TYPE_CHECKING:
    from wav2clip_gen.analysis import Analysis, Section

stderr = Console(stderr=True, highlight=False, soft_wrap=True)


@contextmanager
def errors_shown(*, debug: bool = False) -> Iterator[None]:
    """Turn what goes wrong inside into two lines and an exit code; `debug` shows where it came from."""
    try:
        yield
    except typer.Exit:
        raise
    except BrokenPipeError:  # who read our stdout has seen enough; Python's own last flush would complain again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(1) from None
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            stderr.print(traceback.format_exc(), markup=False)
        what, hint, code = _explain(error)
        stderr.print(f"[bold red]error:[/] {escape(what)}" if code != INTERRUPTED else f"[yellow]{what}[/]")
        if hint:
            stderr.print(f"[bold]hint:[/] {escape(hint)}")
        raise typer.Exit(code) from None


def _explain(error: BaseException) -> tuple[str, str, int]:
    """What happened, what to do, and the exit code."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted: nothing half-finished was left behind", "", INTERRUPTED
    if isinstance(error, W2CError):
        return error.what, error.hint, error.exit_code
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "out of memory", "lower --size or --cuts", 1
    what = " ".join(f"{type(error).__name__}: {error}".split())
    return f"this should not happen: {what}", "run it again with --debug, and report what it shows", 1


def show_table(table: Table) -> None:
    """Show a table on stdout: drawn on a terminal, as Markdown in a pipe."""
    stdout = Console(highlight=False)
    if not stdout.is_terminal:
        typer.echo(f"## {table.title}\n\n{markdown(table)}\n")
        return
    drawn = RichTable(*table.header, title=table.title, title_justify="left", caption_justify="left")
    drawn.caption = "\n".join(escape(note) for note in table.notes)
    for row in table.rows:
        drawn.add_row(*(escape(cell) for cell in row))
    stdout.print(drawn)


@dataclass
class Pace:
    """How fast the painting goes, measured after the first frame, whose steps are others."""

    job: Job
    began: float = 0.0

    def update(self, event: FramePainted) -> str:
        """Speed and time left, in words; empty until there is something to tell."""
        now = time.perf_counter()
        if event.index == 0:
            self.began = now
            return ""
        per_frame = (now - self.began) / event.index
        steps = self.job.settings.painting.steps * len(pictures(self.job.settings)) / per_frame
        left = per_frame * (event.frames - event.index - 1)
        song = per_frame * float(self.job.timeline.fps)
        return f"{steps:.3g} it/s, {song:.3g} s per second of song, {clock(left)} left"


def describe_job(job: Job) -> list[str]:
    """What goes in and what will come out, a line each."""
    track, picture, painting = job.track, job.settings.picture, job.settings.painting
    channels = "1 channel" if track.channels == 1 else f"{track.channels} channels"
    count, size = len(pictures(job.settings)), f"{picture.width}x{picture.height}"
    shape = size if count == 1 else f"{count} pictures of {size}"
    film = f"{job.timeline.frames} frames of {shape} at {picture.fps:g} fps, {painting.steps} steps a frame"
    sheet = f"a picture of {size} for each section, {painting.first_steps} steps each"
    return [
        f"{track.path.name}: {track.duration:.2f} s, {track.sample_rate} Hz, {channels}",
        *describe_stems(job),
        *(f"{made.out}: {sheet if made.storyboard else film}, seed {job.seed}" for made in films(job)),
    ]


def describe_stems(job: Job) -> list[str]:
    """Which stems steer and where each comes from, in a line; none where the whole song steers."""
    if job.stems is None:
        return []
    weights = {stem.name: stem.weight for stem in job.settings.stems}
    told = [
        f"{name}{'' if weights.get(name, 1) == 1 else f' x {weights[name]:g}'} ({origin})"
        for name, origin in job.stems.origins.items()
    ]
    return [f"stems: {', '.join(told)}"]


def describe_film(film: Film) -> str:
    """What came out, and how well picture and sound agree."""
    work = sum(film.timings.values())
    late = film.sync.offset_seconds
    offset = "cannot be measured" if late is None else f"{late * 1000:+.1f} ms"
    return (
        f"{film.frames} frames, {film.seconds:.2f} s in {clock(work)}, {work / film.seconds:.1f} s per second of song; "
        f"sound offset {offset}, length difference {film.sync.difference_seconds * 1000:+.1f} ms"
    )


class Listener:
    """Follows a render and says nothing; the base of those that do."""

    @contextmanager
    def following(self, job: Job) -> Iterator[None]:
        """Follow one film."""
        yield

    def show(self, event: Event) -> None:
        """Take note of an event."""

    def separated(self, share: float) -> None:
        """Take note of how much of the song is separated into stems, from 0 to 1."""

    def estimated(self, estimate: Estimate) -> None:
        """Take note of what a film would cost."""


class PlainListener(Listener):
    """Lines for logs and pipes, some seconds apart."""

    _told = 0.0  # when it last did

    @contextmanager
    def following(self, job: Job) -> Iterator[None]:
        self._pace, self._told = Pace(job), 0.0
        for line in [*describe_job(job), *(f"note: {note}" for note in job.notes)]:
            self._say(line)
        yield

    def show(self, event: Event) -> None:
        if isinstance(event, Stage):
            self._say(STAGES[event.name])
        elif isinstance(event, Ready):
            self._say(f"models {event.family} on {event.device}")
        elif isinstance(event, Silent):
            self._say(f"note: silent from start to end: {', '.join(event.stems)}")
        elif isinstance(event, FramePainted):
            self._show_frame(event)
        elif isinstance(event, SectionPainted):
            self._show_section(event)
        elif isinstance(event, Finished):
            for line in _closing(event.film):
                self._say(line)

    def separated(self, share: float) -> None:
        if self._is_time():
            self._say(f"{STAGES['separate']}, {share:.0%}")

    def estimated(self, estimate: Estimate) -> None:
        self._say(_cost(estimate))

    def _show_frame(self, event: FramePainted) -> None:
        pace = self._pace.update(event)
        if self._is_time() or event.index in (0, event.frames - 1):
            self._say(f"frame {event.index + 1}/{event.frames}" + (f", {pace}" if pace else ""))

    def _is_time(self) -> bool:
        """Whether nothing was told for a while."""
        now = time.monotonic()
        late = now - self._told >= EVERY
        if late:
            self._told = now
        return late

    def _show_section(self, event: SectionPainted) -> None:
        words = f"  {', '.join(event.words)}{'  uncertain' if event.guessing else ''}" if event.words else ""
        self._say(f"section {event.index + 1}/{event.sections}  {clock(event.start)}-{clock(event.stop)}{words}")

    def _say(self, line: str) -> None:
        stderr.print(line, markup=False)


class JsonListener(Listener):
    """One JSON object a line, for programs."""

    @contextmanager
    def following(self, job: Job) -> Iterator[None]:
        frames, seconds = job.timeline.frames, job.track.duration
        stems = job.stems.origins if job.stems else {}
        self._tell(
            "job", track=str(job.track.path), film=str(job.out), frames=frames, seconds=seconds, seed=job.seed,
            stems=stems,
        )  # fmt: skip
        for note in job.notes:
            self._tell("note", text=note)
        yield

    def show(self, event: Event) -> None:
        fields = asdict(event) if not isinstance(event, Finished) else asdict(event.film)
        self._tell(type(event).__name__, **fields)

    def separated(self, share: float) -> None:
        self._tell("Separated", share=round(share, 3))

    def estimated(self, estimate: Estimate) -> None:
        self._tell("Estimate", **asdict(estimate))

    def _tell(self, event: str, **fields: object) -> None:
        typer.echo(json.dumps({"event": event, **fields}, default=str), err=True)


class BarListener(PlainListener):
    """A bar that stays in its place, for a terminal."""

    @contextmanager
    def following(self, job: Job) -> Iterator[None]:
        columns = (
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=24),
            TextColumn("{task.completed}/{task.total} {task.fields[pace]}"),
        )  # fmt: skip
        with Progress(*columns, console=stderr, transient=True) as self._bar, super().following(job):
            self._task = self._bar.add_task("", total=job.timeline.frames, pace="")
            yield

    def show(self, event: Event) -> None:
        if isinstance(event, Stage):
            self._bar.update(self._task, description=STAGES[event.name])
        else:
            super().show(event)

    def separated(self, share: float) -> None:
        self._bar.update(self._task, description=f"{STAGES['separate']}, {share:.0%}")

    def _show_frame(self, event: FramePainted) -> None:
        self._bar.update(self._task, completed=event.index + 1, pace=self._pace.update(event))

    def _show_section(self, event: SectionPainted) -> None:
        self._bar.update(self._task, total=event.sections, completed=event.index + 1)
        super()._show_section(event)


def _closing(film: Film) -> list[str]:
    lines = [describe_film(film), f"seed {film.seed}, record {film.record}"]
    return [f"stopped: what was finished is {film.path}", *lines] if film.partial else lines


def _cost(estimate: Estimate) -> str:
    return (
        f"about {clock(estimate.seconds)} with models {estimate.family} on {estimate.device} "
        f"({estimate.per_song_second:.1f} s per second of song); nothing was made"
    )


def listener(kind: str | None = None) -> Listener:
    """A listener by its name ("bar", "plain", "json", "none"); by default what suits stderr."""
    kind = kind or ("bar" if stderr.is_terminal else "plain")
    return {"bar": BarListener, "plain": PlainListener, "json": JsonListener, "none": Listener}[kind]()


def tell_analysis(analysis: Analysis) -> None:
    """What was found in a track: a table in a terminal, else lines."""
    features, path = analysis.features, analysis.track.path
    tempo = "no steady beat" if features.tempo is None else f"{features.tempo:.1f} beats per minute"
    parts = "1 section" if len(analysis.sections) == 1 else f"{len(analysis.sections)} sections"
    labels = f"; labels by models {analysis.family}, the nearest of {analysis.vocabulary}" if analysis.family else ""
    head = f"{path.name}: {clock(analysis.track.duration)}, {tempo}, {len(features.onsets)} onsets, {parts}{labels}"
    stderr.print(head, markup=False)
    if analysis.stems:
        origins = (f"{name} ({stem.origin})" for name, stem in analysis.stems.items())
        stderr.print(f"stems: {', '.join(origins)}", markup=False)
    rows = _section_rows(analysis)
    if not stderr.is_terminal:
        for row in rows:
            stderr.print("  ".join(cell for cell in row if cell), markup=False)
        return
    table = RichTable("time", *(["stem"] if analysis.stems else []), "level", "labels (cosine, margin)", "")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    stderr.print(table)


def _section_rows(analysis: Analysis) -> list[tuple[str, ...]]:
    """A row for each section, and below it one for each stem; where there are stems, their names come second."""
    rows: list[tuple[str, ...]] = []
    for number, section in enumerate(analysis.sections):
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
