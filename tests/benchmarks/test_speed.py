"""How long films take and how much memory, on the machine at hand: `make bench` writes `results.md`.

These measure; they assert nothing about speed.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from torch.profiler import ProfilerActivity, profile

from tests.conftest import ROOT, SAMPLES
from wav2clip_gen.config import Settings
from wav2clip_gen.models.registry import Models
from wav2clip_gen.synthesis.camera import Matrix, similarity_transform
from wav2clip_gen.synthesis.optimizer import FrameOptimizer, generator_for

pytestmark = pytest.mark.benchmark

SONG = SAMPLES / "africa.ogg"
PEAK_MEMORY = (
    "from wav2clip_gen.cli.app import main\n"
    "try:\n    main()\nfinally:\n    print(*(line for line in open('/proc/self/status') if line.startswith('VmHWM')))"
)  # prints `VmHWM: n kB` after the film's path; the peak of getrusage is inherited from the parent


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "wav2clip_gen", *map(str, arguments)]


def peak_memory(*arguments: object) -> int:
    """The peak memory of `w2c-gen` with these arguments, in MiB."""
    words = [sys.executable, "-c", PEAK_MEMORY, *map(str, arguments)]
    done = subprocess.run(words, check=True, capture_output=True, text=True, cwd=ROOT)
    return int(done.stdout.split()[-2]) // 1024


def median(measure: Callable[[], float], times: int) -> float:
    return statistics.median(measure() for _ in range(times))


def test_help(table: list[tuple[str, str]]) -> None:
    def once() -> float:
        began = time.perf_counter()
        subprocess.run(command("--help"), capture_output=True, check=True, cwd=ROOT)
        return time.perf_counter() - began

    table.append(("`w2c-gen --help`", f"{median(once, 7):.2f} s"))


def test_first_frame(table: list[tuple[str, str]], tmp_path: Path) -> None:
    def once() -> float:
        began = time.perf_counter()
        arguments = (SONG, "-o", tmp_path / "film.mp4", "--overwrite", "--progress", "json")
        with subprocess.Popen(command(*arguments), stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
            assert process.stderr is not None
            for line in process.stderr:
                progress = json.loads(line)
                if progress.get("stage") == "optimize" and progress["done"]:
                    break
            seconds = time.perf_counter() - began
            process.kill()
        return seconds

    table.append(("from the command to the first frame (12.6 s track)", f"{median(once, 3):.1f} s"))


def test_film(table: list[tuple[str, str]], tmp_path: Path) -> None:
    ratios, shares = [], []
    for _ in range(3):
        subprocess.run(
            command(SONG, "-o", tmp_path / "film.mp4", "--overwrite", "--duration", 12, "--progress", "none"),
            check=True, capture_output=True, cwd=ROOT,
        )  # fmt: skip
        seconds = json.loads((tmp_path / "film.json").read_text())["seconds"]
        ratios.append(seconds["optimize"] / seconds["film"])
        shares.append(sum(value for name, value in seconds.items() if name not in ("optimize", "film")))
    table.append(
        (
            "optimizing, per second of song, 12 s (default: 128x128, 24 fps, 6 of them optimized, 3 steps, 8 cuts)",
            f"{statistics.median(ratios):.2f} s",
        )
    )
    table.append(("loading, analyzing, muxing and verifying a film of 12 s", f"{statistics.median(shares):.1f} s"))


@pytest.mark.parametrize("size", [128, 256])
def test_step(table: list[tuple[str, str]], mini: Models, size: int) -> None:
    settings = Settings().merged({"picture": {"width": size, "height": size}})
    optimizer = FrameOptimizer(mini, settings, generator=generator_for(0, mini.device))
    target = mini.clip.encode_text(["a dog"])[0]

    def steps(count: int) -> float:
        began = time.perf_counter()
        optimizer.optimize(target, steps=count, temporal_weight=0.1)
        return (time.perf_counter() - began) / count

    steps(10)
    seconds = median(lambda: steps(10), 5)
    table.append((f"one step at {size}x{size}", f"{seconds * 1000:.0f} ms ({1 / seconds:.1f} it/s)"))
    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as profiler:
        whole = 20 * 1e6 * steps(20)
    totals = {event.key: event.cpu_time_total for event in profiler.key_averages()}
    ranges = ("decode", "cutouts", "perceptor", "backward")
    parts = [f"{name} {totals[name] / whole:.0%}" for name in ranges]
    other = max(0.0, 1 - sum(totals[name] for name in ranges) / whole)
    table.append((f"its split at {size}x{size}", f"{', '.join(parts)}, other {other:.0%}"))


def test_camera(table: list[tuple[str, str]], mini: Models) -> None:
    optimizer = FrameOptimizer(mini, Settings(), generator=generator_for(0, mini.device))
    nearer = similarity_transform(zoom=1.1 ** (1 / 12))

    def seconds_per_frame(move: Matrix) -> float:
        began = time.perf_counter()
        for _ in range(24):
            optimizer.move(move)
            optimizer.decode()
        return (time.perf_counter() - began) / 24

    seconds_per_frame(nearer)
    seconds = median(lambda: seconds_per_frame(nearer), 5) - median(lambda: seconds_per_frame(np.eye(3)), 5)
    table.append(("moving a picture of 128x128, --zoom 0.1", f"{seconds * 1000:.0f} ms a frame"))


def peaks(song: Path, out: Path, *, workers: int) -> list[int]:
    """Peak memory in MiB of a film's process and of its workers, when its first three seconds are there."""
    arguments = (song, "-o", out, "--fresh", "--workers", workers, "--progress", "json")
    with subprocess.Popen(command(*arguments), stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stderr is not None
        for line in process.stderr:
            progress = json.loads(line)
            if progress.get("stage") == "optimize" and progress["done"] >= 72:
                break
        of_workers = subprocess.run(
            ["pgrep", "-f", "-P", str(process.pid), "spawn_main"], capture_output=True, text=True, check=False
        )
        found = [peak_of(number) for number in (process.pid, *map(int, of_workers.stdout.split()))]
        process.kill()
    return found


def peak_of(process: int) -> int:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM"))


def test_memory(table: list[tuple[str, str]], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for label, seconds, workers in (("15 s", 15, 1), ("10 min", 600, 1), ("10 min", 600, 2), ("1 h", 3600, 2)):
        song = tmp_path / f"{seconds}.flac"
        with soundfile.SoundFile(song, "w", 44_100, 2) as file:
            for _ in range(seconds // 5):
                file.write(0.1 * rng.standard_normal((44_100 * 5, 2)))
        whole, *others = peaks(song, tmp_path / "film.mp4", workers=workers)
        name = f"peak memory, film of {label} of stereo"
        table.append((name + (", 2 workers: the process, a worker" if others else ""), mebibytes(whole, *others[:1])))


def mebibytes(*counts: int) -> str:
    return ", ".join(f"{count} MiB" for count in counts)


def test_recompute(table: list[tuple[str, str]], tmp_path: Path) -> None:
    """Gradient checkpointing of the decoder: memory, and time of the optimization, in turn."""
    found = {}
    for option in ("--no-recompute", "--recompute"):
        arguments = (
            SONG, "-o", tmp_path / f"film{option}.mp4", "--size", "512x512", "--duration", 1, "--fps", 4,
            "--painted-fps", 4, "--first-steps", 4, "--steps", 4, "--precision", "fp32", option, "--progress", "none",
        )  # fmt: skip
        peak = peak_memory(*arguments)
        found[option] = peak, json.loads((tmp_path / f"film{option}.json").read_text())["seconds"]["optimize"]
    (kept, before), (recomputed, after) = found.values()
    what = "512x512, 8 cuts, fp32: peak memory, time of optimizing, without and with `--recompute`"
    table.append((what, f"{kept} and {recomputed} MiB, {after / before - 1:+.0%} time"))
