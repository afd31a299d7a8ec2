"""Signals: what they do depends on whether a film has frames; the process dies of them in the end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.conftest import ROOT, Write
from tests.interruption import has_frames, interrupted
from wav2clip_gen import ffmpeg
from wav2clip_gen.cli.interrupt import FINISHING, SIGNALS, STOPPING, GentleStop, death
from wav2clip_gen.progress import Progress
from wav2clip_gen.video.verify import probe

QUICK = ("--size", "32x32", "--first-steps", "1", "--steps", "1", "--cuts", "2", "--seed", "3")
SLOW = ("--size", "64x64", "--fps", "60", "--first-steps", "1", "--steps", "20")
MORE = (pytest.mark.slow, pytest.mark.more)
KEPT = ["film.partial.json", "film.partial.mp4", "song.wav"]


@pytest.fixture
def song(write_sound: Write, tone: NDArray[np.float64]) -> Path:
    return write_sound(tone)


@pytest.fixture(autouse=True)
def _no_death(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(death, "received", None)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Within the process


def raise_signal(number: int = signal.SIGINT) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize(("stage", "text"), [("optimize", STOPPING), ("mux", FINISHING), ("verify", FINISHING)])
def test_the_first_signal_is_acknowledged_the_second_ends_the_run_and_the_third_does_nothing(
    number: int, stage: str, text: str
) -> None:
    shown, arrived = list[Progress](), Event()

    def show(progress: Progress) -> None:
        shown.append(progress)
        arrived.set()

    with GentleStop(show) as stop:
        stop.follow(Progress(stage="optimize", done=1, total=9))
        stop.follow(Progress(stage=stage, done=1, total=9))
        assert not stop()
        raise_signal(number)
        assert stop()
        assert arrived.wait(timeout=1)
        assert shown == [Progress(stage=stage, done=1, total=9, message=text)]
        with pytest.raises(KeyboardInterrupt):
            raise_signal(number)
        raise_signal(number)
    assert death.received == number


@pytest.mark.parametrize("stages", [["load"], ["optimize"], ["optimize+", "verify", "optimize"]])
def test_a_signal_before_the_first_frame_of_a_film_ends_the_run_at_once(stages: list[str]) -> None:
    with GentleStop(lambda progress: None) as stop:
        for stage in stages:  # the last case is the second film of a job
            stop.follow(Progress(stage=stage.removesuffix("+"), done=len(stage) - len(stage.removesuffix("+"))))
        with pytest.raises(KeyboardInterrupt):
            raise_signal()


def test_ignored_signals_stay_ignored_and_handlers_are_restored() -> None:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with GentleStop(lambda progress: None) as stop:
            raise_signal(signal.SIGHUP)
            assert not stop()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) == before[signal.SIGTERM]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# The whole process


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGHUP, marks=MORE)])  # SIGTERM below
def test_a_signal_keeps_a_playable_film_and_the_process_dies_of_it(number: int, song: Path, tmp_path: Path) -> None:
    code, stdout, stderr = interrupted(song, "-o", tmp_path / "film.mp4", *SLOW, when=has_frames, number=number)
    assert code == -number, stderr
    assert stdout == f"{tmp_path / 'film.partial.mp4'}\n"
    assert STOPPING in stderr
    assert 1 <= probe(tmp_path / "film.partial.mp4").frames < 90
    assert names(tmp_path) == KEPT


def test_a_signal_before_the_first_frame_leaves_nothing_and_ends_a_loop_of_a_shell(song: Path, tmp_path: Path) -> None:
    shutil.copy(song, tmp_path / "other.wav")
    render = f'"{sys.executable}" -m wav2clip_gen "$f" --first-steps 9999 --progress json'
    with subprocess.Popen(
        ["bash", "-c", f"for f in *.wav; do {render}; done; echo on"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as shell:
        assert shell.stderr is not None
        jobs = 0
        for line in shell.stderr:
            progress = json.loads(line)
            jobs += progress["event"] == "job"
            if progress.get("stage") == "optimize":
                break
        os.killpg(shell.pid, signal.SIGINT)  # as a terminal does
        stdout, stderr = shell.communicate(timeout=60)
    assert (jobs, '"event": "job"' in stderr) == (1, False)
    assert (shell.returncode, stdout) == (-signal.SIGINT, "")
    assert "interrupted: nothing half-finished was left behind" in stderr
    assert names(tmp_path) == ["other.wav", "song.wav"]


def slow_ffmpeg(folder: Path, pattern: str) -> dict[str, str]:
    """An ffmpeg that waits before it does what matches a pattern."""
    script = folder / "ffmpeg"
    script.write_text(
        f'#!/bin/sh\ncase "$*" in *{pattern}*) sleep 30;; esac\nexec "{ffmpeg.find_ffmpeg()}" "$@"\n', encoding="utf-8"
    )
    script.chmod(0o755)
    return {"W2C_FFMPEG": str(script)}


def test_a_second_signal_while_joining_keeps_what_is_finished(
    song: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    environment = slow_ffmpeg(tmp_path_factory.mktemp("bin"), f"title=song*{tmp_path}")
    code, stdout, stderr = interrupted(
        song,
        "-o",
        tmp_path / "film.mp4",
        *QUICK,
        when=lambda line: line.get("stage") == "mux",
        after=0.3,
        times=2,
        environment=environment,
    )
    assert (code, stdout) == (-signal.SIGINT, ""), stderr
    assert FINISHING in stderr
    assert f"interrupted: 0:02 of 0:02 are finished in {tmp_path / 'film.w2c'}, and the same command resumes" in stderr
    assert names(tmp_path) == ["film.w2c", "song.wav"]


def test_under_nohup_a_film_is_finished_when_the_terminal_goes_away(song: Path, tmp_path: Path) -> None:
    """It ignores SIGHUP, its log takes no more, and nobody reads its messages any longer."""
    command = [sys.executable, "-m", "wav2clip_gen", song, "-o", tmp_path / "film.mp4", "--progress", "json", *QUICK]
    full = Path("/dev/full")
    with (
        (full if full.exists() else tmp_path / "log").open("w") as log,
        subprocess.Popen(
            [*map(str, command), "--fps", "30"],
            stdout=log,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),  # noqa: PLW1509
        ) as process,
    ):
        assert process.stderr is not None
        for line in process.stderr:
            if '"done": 10' in line:
                break
        process.send_signal(signal.SIGHUP)
        process.stderr.close()
    assert process.returncode == 0
    assert probe(tmp_path / "film.mp4").frames == 45
    assert len(json.loads((tmp_path / "film.json").read_text())["frames"]["loss"]) == 45


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is always full")
@pytest.mark.slow
@pytest.mark.more
@pytest.mark.parametrize("redirection", [">/dev/full", ">&- 2>&-"])
def test_a_film_is_finished_without_standard_streams(redirection: str, song: Path, tmp_path: Path) -> None:
    line = f'"$0" -m wav2clip_gen "$1" -o "$2" {" ".join(QUICK)} {redirection}'
    words = ["bash", "-c", line, sys.executable, str(song), str(tmp_path / "film.mp4")]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert probe(tmp_path / "film.mp4").frames == 36
    assert names(tmp_path) == ["film.json", "film.mp4", "song.wav"]
    assert ("stdout does not take its name" in done.stderr) == (redirection == ">/dev/full")
