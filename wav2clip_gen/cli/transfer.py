"""How the fetching of weights is shown on stderr: a bar in a terminal, else lines some seconds apart."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn

from wav2clip_gen.cli.console import INTERVAL, stderr
from wav2clip_gen.drawing import clock

if TYPE_CHECKING:
    from wav2clip_gen.models.download import Downloading
    from wav2clip_gen.models.fetch import Event

MIB = 2**20


@contextmanager
def following() -> Iterator[Callable[[Event], None]]:
    """Give what shows each event of one part."""
    if not stderr.is_terminal:
        yield PlainShow().show
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[at]}"),
    )
    with Progress(*columns, console=stderr, transient=True) as bar:
        yield BarShow(bar).show


class PlainShow:
    """Lines for logs and pipes."""

    def __init__(self) -> None:
        self._told = time.monotonic()

    def show(self, event: Event) -> None:
        """Tell of an event."""
        from wav2clip_gen.models.download import Downloading

        if not isinstance(event, Downloading):
            self.say(line(event))
        elif time.monotonic() - self._told >= INTERVAL or event.done == event.total:
            self._told = time.monotonic()
            self.say(f"{event.part}: {amount(event)}")

    def say(self, words: str) -> None:
        """Write a line."""
        stderr.print(words, markup=False)


class BarShow(PlainShow):
    """A bar that stays in its place."""

    def __init__(self, bar: Progress) -> None:
        super().__init__()
        self._bar = bar
        self._task: TaskID | None = None

    def show(self, event: Event) -> None:
        """Move the bar, or tell of an event."""
        from wav2clip_gen.models.download import Downloading

        if not isinstance(event, Downloading):
            super().show(event)
            return
        if self._task is None:
            self._task = self._bar.add_task(event.part, at="")
        self._bar.update(self._task, total=event.total, completed=event.done, at=amount(event))


def amount(event: Downloading) -> str:
    """How much has come, how fast, and how long the rest takes."""
    known = event.total is not None and event.rate > 0
    left = f", {clock((event.total - event.done) / event.rate)} left" if known and event.total else ""
    of = f" of {event.total / MIB:.1f}" if event.total else ""
    return f"{event.done / MIB:.1f}{of} MiB, {event.rate / MIB:.1f} MiB/s{left}"


def line(event: Event) -> str:
    """An event in one line."""
    from wav2clip_gen.models import fetch
    from wav2clip_gen.models.download import Retrying

    if isinstance(event, fetch.Trying):
        return f"{event.part}: from {urlsplit(event.source).hostname}"
    if isinstance(event, Retrying):
        return f"{event.part}: {event.reason}; again in {event.seconds:.0f} s"
    if isinstance(event, fetch.Failed):
        return f"{event.part}: {event.reason}"
    if isinstance(event, fetch.Done):
        return f"{event.part}: {event.path}" if event.new else f"{event.part}: in place, {event.path}"
    doing = {fetch.Waiting: "another w2c-gen fetches it, waiting", fetch.Checking: "checking"}
    return f"{event.part}: {doing.get(type(event), 'converting')}"
