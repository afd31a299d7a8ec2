"""`--preview`: a page that shows the films of a command while they are made."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wav2clip_gen.cli.console import Listener
from wav2clip_gen.errors import SettingsError, W2CError
from wav2clip_gen.live import Live
from wav2clip_gen.live_server import ADDRESS, Server

if TYPE_CHECKING:
    from wav2clip_gen.cli.batch import Batch
    from wav2clip_gen.job import Job
    from wav2clip_gen.progress import Film, Progress
    from wav2clip_gen.video.writer import Picture


def refuse_preview(given: Mapping[str, Any]) -> None:
    """Raise a SettingsError if there is no film to be watched."""
    for name in ("dry_run", "storyboard"):
        if given["preview"] and given[name]:
            flag = f"--{name.replace('_', '-')}"
            raise SettingsError(
                f"{flag} makes no film that --preview could show", hint=f"leave out --preview or {flag}"
            )


@contextmanager
def previewed(listener: Listener, *, wanted: bool) -> Iterator[Listener]:
    """A listener that also keeps a page up to date, until the end of the block; the listener itself if none is wanted.

    Where no port can be opened, a note tells it, and there is no page.
    """
    if not wanted:
        yield listener
        return
    live = Live()
    try:
        server = Server(live)
    except OSError as error:
        listener.note(f"there is no preview, as no port can be opened on {ADDRESS}: {error.strerror}")
        yield listener
        return
    with server:
        tunnel = f"ssh -L {server.port}:{ADDRESS}:{server.port} {socket.gethostname()}"
        listener.show_preview(server.url, tunnel if "SSH_CONNECTION" in os.environ else "")
        try:
            yield PreviewListener(listener, live)
        finally:
            with suppress(KeyboardInterrupt):  # the films are made: nobody has to wait for the page
                server.finish()


class PreviewListener(Listener):
    """Shows a run as another listener does, and on a page; what fails there has no effect on the run."""

    def __init__(self, shown: Listener, live: Live) -> None:
        self._shown, self._live = shown, live

    @contextmanager
    def following(self, job: Job, place: str = "") -> Iterator[None]:
        with self._shown.following(job, place):
            with suppress(Exception):
                self._live.begin(job, place)
            try:
                yield
            except KeyboardInterrupt as error:
                self._live.fail(f"Interrupted: {error}" if str(error) else "Interrupted")
                raise
            except Exception as error:
                self._live.fail(f"Failed: {error.what if isinstance(error, W2CError) else error}")
                raise
            finally:
                self._live.offer_stop(None)

    def offer_stop(self, request: Callable[[], None]) -> None:
        self._live.offer_stop(request)

    def show(self, progress: Progress) -> None:
        self._shown.show(progress)
        with suppress(Exception):
            self._live.show(progress)

    def note(self, text: str) -> None:
        self._shown.note(text)
        with suppress(Exception):
            self._live.note(text)

    def show_picture(self, picture: Picture) -> None:
        with suppress(Exception):
            self._live.show_picture(picture)

    def show_film(self, film: Film) -> None:
        self._shown.show_film(film)
        with suppress(Exception):
            self._live.show_film(film)

    def show_page(self, page: Path) -> None:
        self._shown.show_page(page)
        with suppress(Exception):
            self._live.show_page(page)

    def show_batch(self, batch: Batch) -> None:
        self._shown.show_batch(batch)

    def print_path(self, path: Path) -> None:
        self._shown.print_path(path)
