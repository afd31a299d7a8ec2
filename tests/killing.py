"""Kill renders at random moments, resume them, and compare their films with one that was never interrupted.

    python -m tests.killing FOLDER KILLS SEED SEGMENTS WORKERS

Networks are loaded once, and each run is a fork of the process that has them: most of its time can be killed.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile

from tests.conftest import ROOT

if TYPE_CHECKING:
    from wav2clip_gen.config import Settings
    from wav2clip_gen.models.registry import Models

SETTINGS = {  # eight seconds of film in four chunks, of pictures that are moved and encoded again
    "picture": {"width": 32, "height": 32, "fps": 6, "painted_fps": 3},
    "painting": {"first_steps": 2, "steps": 1, "cuts": 2},
    "motion": {"pan_x": 1.0, "rotate": 20.0, "border": "wrap"},
    "run": {"seed": 7},
}


@dataclass(frozen=True)
class Found:
    """What became of the runs."""

    killed: int
    finished: int  # films
    identical: int  # of them, to the one that was not interrupted
    resumed: int  # runs that went on with something
    left: list[str]  # files in the end
    seconds: float


def kill_and_resume(folder: Path, *, kills: int, seed: int, segments: str = "none", workers: int = 1) -> Found:
    """Do it in a process of its own, with one thread: only such a process can be forked safely."""
    command = [sys.executable, "-m", "tests.killing", *map(str, (folder, kills, seed, segments, workers))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT, env=environment)
    return Found(**json.loads(done.stdout))


def main(folder: Path, kills: int, seed: int, segments: str, workers: str) -> Found:
    """See `kill_and_resume`."""
    import torch

    from wav2clip_gen.config import RunSettings, Settings
    from wav2clip_gen.models.registry import load_models, select_models
    from wav2clip_gen.video.chunks import half_published

    torch.set_num_threads(1)
    began, rng = time.perf_counter(), random.Random(seed)
    models = load_models(select_models(RunSettings(models="mini")), device=torch.device("cpu"))
    t = np.arange(8 * 16_000) / 16_000
    soundfile.write(folder / "song.wav", 0.4 * np.sin(2 * np.pi * 330 * t) * (t % 1), 16_000)
    settings = Settings().merged(SETTINGS).merged({"run": {"segments": segments}})
    _warm_up(folder, models)
    once = time.perf_counter()
    os.waitpid(_render(folder, "whole.mp4", models, settings, workers), 0)
    longest, whole = time.perf_counter() - once, _sha256(folder / "whole.mp4")
    killed = finished = identical = resumed = 0
    film = folder / "film.mp4"
    record, work = film.with_suffix(".json"), film.with_suffix(".w2c")
    while killed < kills or finished == 0 or work.exists():
        resumed += any(work.glob("chunk-*.json"))
        process = _render(folder, film.name, models, settings, workers)
        killed += _killed(process, after=rng.uniform(0, longest) if killed < kills else 10 * longest)
        if film.exists() and record.exists() and not half_published(film):
            finished, identical = finished + 1, identical + (_sha256(film) == whole)
            film.unlink()
            record.unlink()
    left = sorted(path.name for path in folder.iterdir())
    return Found(killed, finished, identical, resumed, left, round(time.perf_counter() - began, 1))


def _warm_up(folder: Path, models: Models) -> None:
    """Analyse the song once, which imports what all runs need; nothing may be optimised before a fork."""
    from wav2clip_gen.config import Settings
    from wav2clip_gen.job import prepare
    from wav2clip_gen.pipeline import condition_films, load_stems
    from wav2clip_gen.progress import StageClock, ignore
    from wav2clip_gen.synthesis import optimizer  # noqa: F401

    job, stages = prepare(folder / "song.wav", folder / "whole.mp4", Settings().merged(SETTINGS)), StageClock(ignore)
    condition_films(job, load_stems(job, stages), models, stages)


def _render(folder: Path, name: str, models: Models, settings: Settings, workers: str) -> int:
    """Start a render in another process."""
    from wav2clip_gen.pipeline import render

    process = os.fork()
    if process:
        return process
    try:
        render(folder / "song.wav", folder / name, settings, family=models, workers=workers)
        os._exit(0)
    except BaseException as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        os._exit(1)


def _killed(process: int, *, after: float) -> bool:
    """Whether a process had to be killed after some seconds; in half of the cases its ffmpeg is killed with it."""
    end = time.monotonic() + after
    while time.monotonic() < end:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            assert status == 0, "see above"
            return False
        time.sleep(0.005)
    children = subprocess.run(["pgrep", "-P", str(process)], capture_output=True, text=True, check=False).stdout.split()
    os.kill(process, signal.SIGKILL)
    for child in map(int, children if process % 2 else []):
        try:
            os.kill(child, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return os.waitpid(process, 0)[1] == signal.SIGKILL


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:]))))
