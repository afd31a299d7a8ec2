"""Runs that only pretend to make films, for the tests of the page that shows them."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import soundfile

from wav2clip_gen import ffmpeg
from wav2clip_gen.config import Settings
from wav2clip_gen.job import Job, prepare
from wav2clip_gen.live import Live
from wav2clip_gen.live_server import Server
from wav2clip_gen.progress import Film, Progress
from wav2clip_gen.video.chunks import FRAGMENTS
from wav2clip_gen.video.writer import FilmWriter, Picture

FPS, FRAMES = 4, 16


def make_job(folder: Path, name: str = "song", **settings: Any) -> Job:
    """The job of a film of 4 s, of 32x32 px."""
    song = folder / f"{name}.wav"
    soundfile.write(song, np.sin(np.arange(4 * 16_000) / 8), 16_000)
    quick: dict[str, Any] = {"picture": {"width": 32, "height": 32, "fps": FPS}, "run": {"seed": 7}}
    return prepare(song, folder / f"{name}.mp4", Settings().merged(quick).merged(settings))


def picture(number: int) -> Picture:
    """A frame of one color."""
    return np.full((32, 32, 3), 10 * number, np.uint8)


def write_film(path: Path, frames: int = FRAMES) -> Path:
    """A film without sound, as it grows."""
    whole = path.with_suffix(".once.mp4")
    with FilmWriter(whole, size=(32, 32), fps=Fraction(FPS)) as writer:
        for number in range(frames):
            writer.write(picture(number))
    copied = ["-i", ffmpeg.file_url(whole), "-c", "copy", *FRAGMENTS, "-f", "mp4", "-y", ffmpeg.file_url(path)]
    ffmpeg.run(copied, purpose="write fragments")
    whole.unlink()
    return path


def finished_part(film: Path) -> Path:
    """Where the finished part of a film is."""
    folder = film.with_suffix(".w2c")
    folder.mkdir(exist_ok=True)
    return folder / "finished.mp4"


@dataclass
class Run:
    """A run, its server, and how often it was stopped."""

    live: Live
    server: Server
    stops: list[int] = field(default_factory=list)

    def ask(
        self, address: str, *, method: str = "GET", host: str = "", path: str = "", **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of an answer; `address`: below that of the page."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=10)
        given = {"Host": host or f"127.0.0.1:{self.server.port}", **headers}
        connection.request(method, path or f"/{self.server.token}/{address}", headers=given)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer.status, {name: value for name, value in answer.getheaders()}, body

    def status(self) -> dict[str, Any]:
        """The state that the page is told."""
        code, _, body = self.ask("status")
        assert code == 200
        return dict(json.loads(body))

    def begin(self, job: Job, place: str = "") -> None:
        """Begin a film that can be stopped."""
        self.live.begin(job, place)
        self.live.offer_stop(lambda: self.stops.append(self.live.current.number))

    def paint(self, number: int) -> None:
        """Finish a frame, counted from 1."""
        self.live.show_picture(picture(number))
        self.live.show(Progress(stage="optimize", done=number, total=FRAMES, loss=1.0, similarity=0.01 * number))

    def grow(self, frames: int = FRAMES) -> Path:
        """Encode frames."""
        part = finished_part(self.live.current.job.out)
        whole = write_film(part.with_suffix(".whole.mp4")).read_bytes()
        starts = [found.start() - 4 for found in re.finditer(b"moof", whole)]
        with part.open("ab") as file:
            file.write(whole[file.tell() : starts[frames] if frames < FRAMES else None])
        return part

    def finish_film(self, *, partial: bool = False, page: str = "") -> Path:
        """Finish the film; `page`: the content of its report."""
        scene = self.live.current
        path = write_film(scene.job.out.with_suffix(".partial.mp4") if partial else scene.job.out)
        finished_part(scene.job.out).unlink(missing_ok=True)
        facts = dict.fromkeys(("sync", "reactivity"), Mock())
        record = path.with_suffix(".json")
        self.live.show_film(
            Film(path=path, record=record, frames=FRAMES, seconds=4.0, seed=7, partial=partial, **facts)
        )
        if page:
            path.with_suffix(".html").write_text(page, encoding="utf-8")
            self.live.show_page(path.with_suffix(".html"))
        return path


@contextmanager
def running() -> Iterator[Run]:
    """A run with a server."""
    live = Live()
    with Server(live) as server:
        yield Run(live, server)
        server.shutdown()
