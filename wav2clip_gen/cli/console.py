"""What users, logs and programs see on stderr while a command runs. Rich is imported only here."""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, SpinnerColumn, TextColumn
from rich.progress import Progress as Bar
from rich.table import Table as RichTable

from wav2clip_gen.cli.app import INTERRUPTED
from wav2clip_gen.cli.streams import mute
from wav2clip_gen.devices import is_out_of_memory
from wav2clip_gen.drawing import clock
from wav2clip_gen.errors import W2CError
from wav2clip_gen.evaluation.suite import Table, markdown
from wav2clip_gen.job import Job, films, pictures
from wav2clip_gen.progress import STAGES, Estimate, Film, Pace, Progress, Storyboard
from wav2clip_gen.units import describe_bytes

INTERVAL = 5.0  # seconds between two lines of plain progress
if TYPE_CHECKING:
    from wav2clip_gen.cli.batch import Batch
    from wav2clip_gen.video.writer import Picture

stderr = Console(stderr=True, highlight=False, soft_wrap=True)


@contextmanager
def errors_shown(*, debug: bool = False, reported: set[str] | None = None) -> Iterator[None]:
    """Turn what goes wrong inside into two lines and an exit code; `debug` shows where it came from.

    What is in `reported` is not shown again.
    """
    try:
        yield
    except typer.Exit:
        raise
    except BrokenPipeError:  # the reader of stdout is gone; Python's last flush would fail again
        mute(sys.stdout)
        raise typer.Exit(1) from None
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            stderr.print(traceback.format_exc(), markup=False)
        what, hint, code = _explain(error)
        if reported is not None:
            if what in reported:
                raise typer.Exit(code) from None
            reported.add(what)
        stderr.print(f"[bold red]error:[/] {escape(what)}" if code != INTERRUPTED else f"[yellow]{what}[/]")
        if hint:
            stderr.print(f"[bold]hint:[/] {escape(hint)}")
        raise typer.Exit(code) from None


def _explain(error: BaseException) -> tuple[str, str, int]:
    """What happened, what to do, and the exit code."""
    if isinstance(error, KeyboardInterrupt):
        return f"interrupted: {str(error) or 'nothing half-finished was left behind'}", "", INTERRUPTED
    if isinstance(error, W2CError):
        return error.what, error.hint, error.exit_code
    if is_out_of_memory(error):
        return "out of memory", "lower --size or --cuts, or close other programs", 1
    what = " ".join(f"{type(error).__name__}: {error}".split())
    return f"this should not happen: {what}", "run it again with --debug, and report what it shows", 1


def print_path(path: Path) -> None:
    """Print a path to stdout, as the bytes that it has on the disk."""
    typer.echo(os.fsencode(path))


def show_table(table: Table) -> None:
    """Show a table on stdout: drawn on a terminal, as Markdown in a pipe."""
    stdout = Console(highlight=False)
    if not stdout.is_terminal:
        typer.echo(f"## {table.title}\n\n{markdown(table)}\n")
        return
    drawn = RichTable(*table.header, title=escape(table.title), title_justify="left", caption_justify="left")
    drawn.caption = "\n".join(escape(note) for note in table.notes)
    for row in table.rows:
        drawn.add_row(*(escape(cell) for cell in row))
    stdout.print(drawn)


def show_rows(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Rows of cells: a table in a terminal, else lines."""
    if not stderr.is_terminal:
        for row in rows:
            stderr.print("  ".join(cell for cell in row if cell), markup=False)
        return
    table = RichTable(*header)
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    stderr.print(table)


@dataclass
class Speed:
    """The speed of the optimisation, measured from the second frame on: the first has more steps."""

    job: Job
    pace: Pace = field(default_factory=Pace)

    def update(self, progress: Progress) -> str:
        """Speed and time left; empty until there is a second frame."""
        per_frame = self.pace.update(progress)
        if per_frame is None:
            return ""
        settings, fps = self.job.settings, float(self.job.timeline.fps)
        optimized = len(pictures(settings)) * settings.picture.optimized_fps / fps
        steps = settings.painting.steps * optimized / per_frame
        left = per_frame * progress.left
        song = per_frame * fps
        whole = f", {clock(left + per_frame * progress.later)} for all songs" if progress.later else ""
        return f"{steps:.3g} it/s, {song:.3g} s per second of song, {clock(left)} left{whole}"


def describe_job(job: Job) -> list[str]:
    """Input and output of a job, a line each."""
    track, picture, painting = job.track, job.settings.picture, job.settings.painting
    channels = "1 channel" if track.channels == 1 else f"{track.channels} channels"
    count, size = len(pictures(job.settings)), f"{picture.width}x{picture.height}"
    shape = size if count == 1 else f"{count} pictures of {size}"
    film = f"{job.timeline.frames} frames of {shape} at {picture.fps:g} fps, {painting.steps} steps "
    film += "per frame" if picture.optimized_fps == picture.fps else f"for each of {picture.optimized_fps:g} a second"
    sheet = f"one picture of {size} per section, {painting.first_steps} steps each"
    return [
        f"{track.path.name}: {track.duration:.2f} s, {track.sample_rate} Hz, {channels}",
        *describe_stems(job),
        *(f"{made.out}: {sheet if made.storyboard else film}, seed {job.seed}" for made in films(job)),
    ]


def describe_stems(job: Job) -> list[str]:
    """The stems of a job with their weights and origins, in a line; none where no stem is needed."""
    if job.stems is None:
        return []
    weights = {stem.name: stem.weight for stem in job.settings.stems}
    stems = [
        f"{name}{'' if weights.get(name, 1) == 1 else f' x {weights[name]:g}'} ({origin})"
        for name, origin in job.stems.origins.items()
    ]
    return [f"stems: {', '.join(stems)}"]


def describe_film(film: Film) -> list[str]:
    """A finished film: size, cost, measured sync and reactivity; seed and record."""
    work = sum(film.timings.values())
    late = film.sync.offset_seconds
    offset = "cannot be measured" if late is None else f"{late * 1000:+.1f} ms"
    lines = [
        f"{film.frames} frames, {film.seconds:.2f} s in {clock(work)}, {work / film.seconds:.1f} s per second of song; "
        f"sound offset {offset}, length difference {film.sync.difference_seconds * 1000:+.1f} ms",
        f"follows the beat: {film.reactivity}",
        f"seed {film.seed}, record {film.record}",
    ]
    return [f"stopped: the finished frames are in {film.path}", *lines] if film.partial else lines


class TaskProgress:
    """Shows on stderr how far each part of a long task is, and how much time is left."""

    def __init__(self) -> None:
        self._part = ""
        self._began = self._shown = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the current part began."""
        return time.monotonic() - self._began

    def __call__(self, part: str, done: int, total: int) -> None:
        """Tell how many steps of a part are done; a total of 0 only begins it."""
        now = time.monotonic()
        if part != self._part:
            self._part, self._began, self._shown = part, now, now
        if total and (done == total or now - self._shown >= INTERVAL):
            self._shown = now
            left = (now - self._began) / max(done, 1) * (total - done)
            more = f", {clock(left)} left" if done < total else ""
            typer.echo(f"{part}: {done}/{total}{more}", err=True)


class Listener:
    """Follows a run silently; the base of the listeners that show it."""

    @contextmanager
    def following(self, job: Job, place: str = "") -> Iterator[None]:
        """Follow one job; `place`: which of several it is, as in 3/30."""
        yield

    def show(self, progress: Progress) -> None:
        """Show the state of the run."""

    def note(self, text: str) -> None:
        """Show a note."""

    def show_film(self, film: Film) -> None:
        """Show a finished film."""

    def show_page(self, page: Path) -> None:
        """Show where the page of a film, or of several, was written."""

    def show_preview(self, url: str, tunnel: str = "") -> None:
        """Show where the run can be watched; `tunnel`: what leads there from another machine."""
        stderr.print(f"preview: {url}" + (f" (from another machine: {tunnel})" if tunnel else ""), markup=False)

    def show_picture(self, picture: Picture) -> None:
        """Show the newest frame."""

    def offer_stop(self, request: Callable[[], None]) -> None:
        """Take what stops the film gently."""

    def show_storyboard(self, storyboard: Storyboard) -> None:
        """Show a finished storyboard."""

    def show_estimate(self, estimate: Estimate) -> None:
        """Show the cost of a film."""

    def show_batch(self, batch: Batch) -> None:
        """Show what became of all tracks; without progress only where some failed."""
        if batch.failed and batch.summary():
            stderr.print(batch.summary(), markup=False)

    def print_path(self, path: Path) -> None:
        """Print the path of a finished file to stdout; where that fails, the run goes on."""
        try:
            print_path(path)
        except OSError as error:
            mute(sys.stdout)
            self.note(f"{path} is finished, but stdout does not take its name: {error.strerror}")


class PlainListener(Listener):
    """Lines for logs and pipes, some seconds apart."""

    def __init__(self) -> None:
        self._shown, self._stage = 0.0, ""

    @contextmanager
    def following(self, job: Job, place: str = "") -> Iterator[None]:
        self._speed, self._shown, self._stage = Speed(job), 0.0, ""
        first, *others = describe_job(job)
        for line in [f"{place} {first}".strip(), *others]:
            self._print(line)
        for note in job.notes:
            self.note(note)
        yield

    def note(self, text: str) -> None:
        self._print(f"note: {text}")

    def show(self, progress: Progress) -> None:
        if progress.stage != self._stage:
            self._stage = progress.stage
            self._begin_stage(progress.stage)
        if progress.message:
            self._print(progress.message)
        if progress.done:
            self._advance(progress)

    def show_film(self, film: Film) -> None:
        for line in describe_film(film):
            self._print(line)

    def show_page(self, page: Path) -> None:
        self._print(f"page {page}")

    def show_estimate(self, estimate: Estimate) -> None:
        memory = f", {describe_bytes(estimate.memory)} of memory" if estimate.memory else ""
        disk = f", up to {describe_bytes(estimate.disk)} on the disk"
        self._print(
            f"about {clock(estimate.seconds)} with models {estimate.family} on {estimate.device} "
            f"({estimate.per_song_second:.1f} s per second of song){memory}{disk}; nothing was made"
        )

    def show_batch(self, batch: Batch) -> None:
        if batch.summary():
            self._print(batch.summary())

    def _begin_stage(self, stage: str) -> None:
        self._print(STAGES[stage])

    def _advance(self, progress: Progress) -> None:
        speed, now = self._speed_of(progress), time.monotonic()
        if progress.message:  # it has the same content
            return
        if now - self._shown < INTERVAL and not (progress.stage == "optimize" and progress.done in (1, progress.total)):
            return
        self._shown = now
        done = f"{STAGES[progress.stage]}, {progress.done / progress.total:.0%}"
        frame = f"frame {progress.done}/{progress.total}" + (f", {speed}" if speed else "")
        self._print(frame if progress.stage == "optimize" else done)

    def _speed_of(self, progress: Progress) -> str:
        return self._speed.update(progress) if progress.stage == "optimize" else ""

    def _print(self, line: str) -> None:
        stderr.print(line, markup=False)


class JsonListener(Listener):
    """One JSON object per line, for programs."""

    @contextmanager
    def following(self, job: Job, place: str = "") -> Iterator[None]:
        frames, seconds = job.timeline.frames, job.track.duration
        stems = job.stems.origins if job.stems else {}
        job_facts = {"track": job.track.path, "frames": frames, "seconds": seconds, "seed": job.seed, "stems": stems}
        for film in films(job):
            self._print("job", film=film.out, **job_facts, **({"place": place} if place else {}))
        for note in job.notes:
            self.note(note)
        yield

    def note(self, text: str) -> None:
        self._print("note", text=text)

    def show(self, progress: Progress) -> None:
        self._print("progress", **asdict(progress))

    def show_film(self, film: Film) -> None:
        self._print("film", **asdict(film))

    def show_page(self, page: Path) -> None:
        self._print("page", path=page)

    def show_preview(self, url: str, tunnel: str = "") -> None:
        self._print("preview", url=url, tunnel=tunnel)

    def show_storyboard(self, storyboard: Storyboard) -> None:
        self._print("storyboard", **asdict(storyboard))

    def show_estimate(self, estimate: Estimate) -> None:
        self._print("estimate", **asdict(estimate))

    def show_batch(self, batch: Batch) -> None:
        if batch.summary():
            facts = {"made": batch.made, "skipped": batch.skipped, "failed": batch.failed}
            self._print("batch", text=batch.summary(), **facts, interrupted=batch.interrupted)

    def _print(self, event: str, **fields: object) -> None:
        typer.echo(json.dumps({"event": event, **fields}, default=str), err=True)


class BarListener(PlainListener):
    """A progress bar, for a terminal."""

    @contextmanager
    def following(self, job: Job, place: str = "") -> Iterator[None]:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed}/{task.total} {task.fields[speed]}"),
        )
        with (
            Bar(*columns, console=stderr, transient=True, redirect_stdout=False) as self._bar,
            super().following(job, place),
        ):
            self._frames, self._place = job.timeline.frames, place
            self._task = self._bar.add_task("", total=self._frames, speed="")
            yield

    def print_path(self, path: Path) -> None:
        self._bar.stop()  # else the path is printed behind the bar, where stdout is the same terminal
        super().print_path(path)
        self._bar.start()

    def _begin_stage(self, stage: str) -> None:
        self._bar.reset(self._task, total=self._frames, description=f"{self._place} {STAGES[stage]}".strip(), speed="")

    def _advance(self, progress: Progress) -> None:
        speed = self._speed_of(progress)
        self._bar.update(self._task, total=progress.total, completed=progress.done, speed=speed)


def listener(kind: str | None = None) -> Listener:
    """A listener by its name ("bar", "plain", "json", "none"); by default the one that suits stderr."""
    kind = kind or ("bar" if stderr.is_terminal else "plain")
    return {"bar": BarListener, "plain": PlainListener, "json": JsonListener, "none": Listener}[kind]()
