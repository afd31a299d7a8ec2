"""Workers: the film does not depend on their number; whatever becomes of them, nothing finished is lost."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.conftest import ROOT
from tests.films import DIVIDED, Made, make_films, names, paint_with, write_song
from tests.interruption import has_frames, interrupted
from wav2clip_gen import workers
from wav2clip_gen.config import Settings, View
from wav2clip_gen.errors import OutOfMemoryError, OutputError, SettingsError, W2CError
from wav2clip_gen.ffmpeg import FFmpegError
from wav2clip_gen.job import prepare
from wav2clip_gen.models.registry import Models
from wav2clip_gen.pipeline import render_job
from wav2clip_gen.synthesis.modulation import ParameterCurves
from wav2clip_gen.units import parse_workers
from wav2clip_gen.video.verify import probe

QUICK = ["--segments", "1", "--steps", "60", "--size", "32x32", "--cuts", "2", "--first-steps", "2", "--seed", "7"]

pytestmark = pytest.mark.usefixtures("short_chunks")


@dataclass(frozen=True, eq=False)
class Failing(ParameterCurves):
    """Curves that end the worker, or raise an error, where frame 20 is decoded; the marker counts how often."""

    marker: Path = Path()
    times: int = 1
    error: Exception | None = None
    allocated: int = 0  # bytes that are more than there are: an error of the allocator

    def view(self, frame: int) -> View:
        """See above."""
        count = len(self.marker.read_text()) if self.marker.exists() else 0
        if frame == 20 and count < self.times:
            self.marker.write_text("x" * (count + 1))
            if self.error:
                raise self.error
            if self.allocated:
                torch.empty(self.allocated, dtype=torch.uint8)
            os._exit(9)
        return super().view(frame)


@pytest.fixture(scope="module")
def settings(small: Settings) -> Settings:
    return small.merged(DIVIDED)


@pytest.fixture
def song(tmp_path: Path) -> Path:
    return write_song(tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, settings: Settings, mini: Models) -> Made:
    """The film, made in this process."""
    return make_films(write_song(tmp_path_factory.mktemp("whole")), settings, mini)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Let the segment with frame 20 fail; see `Failing`."""

    def install(**details: Any) -> None:
        paint_with(monkeypatch, Failing, marker=tmp_path / "marker", **details)

    return install


# How many


@pytest.mark.parametrize(("written", "number"), [("auto", None), ("1", 1), ("12", 12)])
def test_the_number_of_workers_is_read(written: str, number: int | None) -> None:
    assert parse_workers(written) == number


@pytest.mark.parametrize("written", ["0", "-1", "two", "1.5", ""])
def test_other_numbers_are_refused(written: str, song: Path, settings: Settings, mini: Models) -> None:
    with pytest.raises(SettingsError, match="workers cannot be"):
        prepare(song, settings=settings, selection=mini.selection, workers=written)


@pytest.mark.parametrize(
    ("asked", "cores", "free", "segments", "count"),
    [
        (None, 8, 100, 20, 8),
        (None, 8, 3.5, 20, 3),
        (None, 8, 0.5, 20, 1),
        (None, 8, 100, 5, 5),
        (12, 8, 3.5, 20, 12),
        (12, 8, 100, 5, 5),
        (1, 8, 100, 5, 1),
    ],
)
def test_there_are_as_many_workers_as_cores_memory_and_segments_allow(
    asked: int | None, cores: int, free: float, segments: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "_cores", lambda: cores)
    monkeypatch.setattr(workers, "available_ram", lambda: free)
    monkeypatch.setattr(workers, "usual_bytes", lambda *_: 1.0)
    job: Any = SimpleNamespace(workers=asked, settings=Settings(), selection=None)
    assert workers.choose_devices(job, torch.device("cpu"), segments) == ["cpu"] * count


@pytest.mark.parametrize(("allowed", "count"), [(None, 8), ("5GB", 4), ("2GB", 1), ("1GB", 1)])
def test_workers_and_this_process_keep_within_the_memory_that_is_allowed(
    allowed: str | None, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "_cores", lambda: 8)
    monkeypatch.setattr(workers, "available_ram", lambda: 100 * 10**9)
    monkeypatch.setattr(workers, "usual_bytes", lambda *_: 1e9)
    settings = Settings().merged({"run": {"max_memory": allowed}})
    job: Any = SimpleNamespace(workers=None, settings=settings, selection=None)
    assert len(workers.choose_devices(job, torch.device("cpu"), 20)) == count


@pytest.mark.parametrize(
    ("asked", "device", "found"),
    [(None, "auto", ["cuda:0", "cuda:1", "cuda:2"]), (2, "cuda", ["cuda:0", "cuda:1"]), (None, "cuda:1", ["cuda:1"])],
)
def test_each_gpu_has_a_worker(
    asked: int | None, device: str, found: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    job: Any = SimpleNamespace(workers=asked, settings=Settings().merged({"run": {"device": device}}))
    here = torch.device("cuda", 1 if device == "cuda:1" else 0)
    assert workers.choose_devices(job, here, 9) == found


@pytest.mark.parametrize(
    "error",
    [
        W2CError("it", hint="do"),
        OutOfMemoryError("it", hint="do"),
        FFmpegError("it", message="why", hint="do", disk_full=True),
    ],
)
def test_errors_arrive_whole(error: W2CError) -> None:
    arrived = pickle.loads(pickle.dumps(error))
    assert (type(arrived), arrived.args, vars(arrived)) == (type(error), error.args, vars(error))


@pytest.mark.parametrize(("count", "seconds"), [(1, 18), (2, 10), (3, 7), (9, 5)])
def test_the_time_of_a_film_is_that_of_the_last_worker(count: int, seconds: float) -> None:
    assert workers.shared_time([5, 4, 3, 3, 3], count) == seconds


# The film


@pytest.mark.slow
@pytest.mark.parametrize("count", ["2", pytest.param("4", marks=pytest.mark.more)])
def test_the_film_does_not_depend_on_the_number_of_workers(
    count: str, song: Path, settings: Settings, mini: Models, whole: Made
) -> None:
    frames = song.with_name("frames")
    made = make_films(song, settings, mini, workers=count, frames_dir=frames)
    assert made.content == whole.content
    assert made.painted == list(range(1, 29))
    values = [json.loads(one[0].record.read_text())["frames"] for one in (made, whole)]
    assert values[0] == values[1]
    assert names(frames) == [f"{number:06}.png" for number in range(28)]


@pytest.mark.more
@pytest.mark.slow
def test_what_a_killed_worker_did_is_done_by_another(
    song: Path, settings: Settings, mini: Models, whole: Made, failing: Callable[..., None]
) -> None:
    failing(times=2)
    made = make_films(song, settings, mini, workers="2")
    assert made.content == whole.content
    again = "note: the process that paints segment 3 was killed; another one goes on with it"
    assert [message for message in made.messages if "killed" in message] == [again] * 2


@pytest.mark.slow
@pytest.mark.more
def test_a_worker_that_is_killed_again_and_again_ends_the_film(
    song: Path, settings: Settings, mini: Models, whole: Made, failing: Callable[..., None]
) -> None:
    failing(times=3)
    with pytest.raises(OutputError, match=r"segment 3 was killed 3 times; 0:0\d of 0:04 are finished") as caught:
        make_films(song, settings, mini, workers="2")
    assert "--workers" in caught.value.hint
    assert make_films(song, settings, mini).content == whole.content


@pytest.mark.parametrize("count", ["1", pytest.param("2", marks=[pytest.mark.slow, pytest.mark.more])])
def test_where_memory_runs_out_nothing_finished_is_lost(
    count: str, song: Path, settings: Settings, mini: Models, whole: Made, failing: Callable[..., None]
) -> None:
    failing(allocated=10**15)
    with pytest.raises(OutOfMemoryError, match=r"0:0\d of 0:04 are finished in .*film\.w2c") as caught:
        make_films(song, settings, mini, workers=count)
    assert "--size" in caught.value.hint
    made = make_films(song, settings, mini, workers=count)
    assert (made.content, made.painted[0] > 1) == (whole.content, True)


@pytest.mark.slow
@pytest.mark.more
@pytest.mark.parametrize(
    "error", [W2CError("it is wrong", hint="do it"), OutOfMemoryError("too large", hint="less"), ValueError("a bug")]
)
def test_an_error_in_a_worker_is_that_of_the_run(
    error: Exception, song: Path, settings: Settings, mini: Models, failing: Callable[..., None]
) -> None:
    failing(error=error)
    with pytest.raises(type(error), match=str(error)) as caught:
        make_films(song, settings, mini, workers="2")
    assert "Failing" in str(caught.value.__cause__) or "in view" in str(caught.value.__cause__)
    if isinstance(error, OutOfMemoryError):
        assert caught.value.hint == "less; fewer --workers need less memory too"  # type: ignore[attr-defined]


@pytest.mark.slow
@pytest.mark.more
def test_a_stopped_film_is_what_is_finished_from_its_start(
    song: Path, settings: Settings, mini: Models, whole: Made
) -> None:
    done, shown = [0], list[Any]()
    (film,) = render_job(
        prepare(song, song.with_name("film.mp4"), settings, selection=mini.selection, workers="2"),
        load=lambda *_, **__: mini,
        stop=lambda: done[-1] >= 5,
        on_progress=lambda progress: done.append(progress.done),
        on_picture=shown.append,
    )
    assert film.partial
    assert 0 < film.frames == probe(film.path).frames < 28
    assert all(picture.shape == (32, 32, 3) for picture in shown)
    assert len(shown) > 0
    assert make_films(song, settings, mini, workers="2").content == whole.content


# Signals


def processes(group: int) -> list[int]:
    """The processes of a group that are alive."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, of_group = path.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(of_group) == group and state != "Z":
            found.append(int(path.parent.name))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.more)])
def test_signals_to_the_whole_group_stop_the_film_gently(number: int, song: Path) -> None:
    out = song.with_name("film.mp4")
    code, stdout, stderr = interrupted(song, "--out", out, *QUICK, "--workers", "2", when=has_frames, number=number)
    assert code == -number
    assert stdout.strip() == str(out.with_name("film.partial.mp4"))
    assert "Traceback" not in stderr
    assert probe(out.with_name("film.partial.mp4")).frames > 0


@pytest.mark.more
@pytest.mark.slow
def test_no_worker_survives_a_killed_run(song: Path) -> None:
    options = [*QUICK, "--workers", "2", "--progress", "json"]
    command = [sys.executable, "-m", "wav2clip_gen", str(song), "--out", str(song.with_name("film.mp4")), *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True) as process:
        assert process.stderr
        for line in process.stderr:
            if has_frames(json.loads(line)):
                break
        assert len(processes(process.pid)) >= 3
        process.kill()
        process.wait()
        end = time.monotonic() + 20
        while processes(process.pid) and time.monotonic() < end:
            time.sleep(0.05)
        assert processes(process.pid) == []
