"""What an open page costs the film that it shows: `make bench`, on a quiet machine.

A client in a process of its own asks as an open page does, and rests, in turns of some seconds; frames that are made
meanwhile are compared with those that are made while it rests.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from tests import previews
from tests.conftest import SAMPLES
from wav2clip_gen.config import Settings
from wav2clip_gen.job import prepare
from wav2clip_gen.models.registry import Models
from wav2clip_gen.pipeline import render_job
from wav2clip_gen.progress import Progress

pytestmark = pytest.mark.benchmark

TURN = 2.0  # seconds
FILM = {
    "sound": {"duration": 12.0},
    "picture": {"width": 64, "height": 64, "fps": 120, "painted_fps": 120},
    "painting": {"cuts": 4, "steps": 2},
    "run": {"seed": 7},
}  # many short frames
PAGE = """
import http.client, json, sys, time
place, path, turn = sys.argv[1], sys.argv[2], float(sys.argv[3])
page = http.client.HTTPConnection(place)
def ask(address):
    page.request("GET", path + address)
    return page.getresponse().read()
while True:
    if time.monotonic() // turn % 2:
        ask(f"frame/1-{json.loads(ask('status'))['frames']}.jpg")
        time.sleep(1)
    time.sleep(.05)
"""


def test_an_open_page(table: list[tuple[str, str]], mini: Models, tmp_path: Path) -> None:
    job = prepare(SAMPLES / "africa.ogg", tmp_path / "film.mp4", Settings().merged(FILM), selection=mini.selection)
    ends: list[float] = []

    def show(progress: Progress) -> None:
        run.live.show(progress)
        if progress.stage == "optimize" and progress.done:
            ends.append(time.monotonic())

    with previews.running() as run:
        run.begin(job)
        page = urlsplit(run.server.url)
        with subprocess.Popen([sys.executable, "-c", PAGE, page.netloc, page.path, str(TURN)]) as client:
            pictures = run.live.show_picture
            list(render_job(job, load=lambda *_, **__: mini, on_progress=show, on_picture=pictures))
            client.kill()
    spent, turns = np.diff(ends), np.array(ends[1:]) // TURN
    asked = turns % 2 == 1
    pairs = [  # of neighbouring turns
        np.median(spent[turns == turn]) / np.median(spent[turns == turn + 1])
        for turn in sorted(set(turns[asked]))
        if min((turns == turn).sum(), (turns == turn + 1).sum()) > 4
    ]
    error = statistics.stdev(pairs) / len(pairs) ** 0.5
    name = "optimizing while the preview is open, relative to the same film while it is not"
    table.append((name, f"{statistics.mean(pairs):.3f} ± {error:.3f} (standard error of {len(pairs)} pairs)"))


@pytest.mark.parametrize("side", [128, 512])
def test_the_work_for_a_page(side: int, table: list[tuple[str, str]], tmp_path: Path) -> None:
    """Of the processor, whatever else it does."""
    rng = np.random.default_rng(0)
    with previews.running() as run:
        run.begin(previews.make_job(tmp_path))
        spent = 0.0
        for number in range(1, 51):
            run.live.show_picture(rng.integers(0, 256, (side, side, 3), np.uint8))
            before = time.process_time()
            run.ask("status")
            run.ask(f"frame/1-{number}.jpg")
            spent += time.process_time() - before
    name = f"processor time for an open page of a film of {side} px, with that of the client"
    table.append((name, f"{1000 * spent / 50:.1f} ms a second"))
