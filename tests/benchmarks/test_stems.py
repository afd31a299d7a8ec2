"""The time that separating a song takes, and the memory that an hour takes.

They measure, and assert nothing about speed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import soundfile

from tests.audio.test_separation import decibels
from tests.conftest import ROOT, SAMPLES, condition_job
from wav2clip_gen.audio.decode import decode
from wav2clip_gen.audio.separation import DspSeparator
from wav2clip_gen.audio.stems import STEMS, plan_stems
from wav2clip_gen.audio.timeline import Timeline
from wav2clip_gen.audio.track import open_track
from wav2clip_gen.config import Settings
from wav2clip_gen.job import prepare
from wav2clip_gen.models.registry import Models
from wav2clip_gen.synthesis.conditioning import encode_audio
from wav2clip_gen.synthesis.optimizer import FrameOptimizer, generator_for

pytestmark = pytest.mark.benchmark

SEPARATE = """
import sys, time
from pathlib import Path
from wav2clip_gen.audio.stems import STEMS, plan_stems
from wav2clip_gen.audio.track import open_track
song = open_track(Path(sys.argv[1]))
began = time.perf_counter()
plan_stems(song, STEMS, separator="dsp").load()
print(time.perf_counter() - began, *(line for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""  # prints seconds and `VmHWM: n kB`, the peak of the process


def loop(path: Path, minutes: int) -> Path:
    """A song of so many minutes: the sample, repeated."""
    sound, rate = soundfile.read(SAMPLES / "song" / "mix.ogg", dtype="float32")
    with soundfile.SoundFile(path, "w", rate, 2) as file:
        for left in range(minutes * 60 * rate, 0, -len(sound)):
            file.write(sound[:left])
    return path


@pytest.mark.parametrize(("label", "minutes"), [("4 min", 4), ("1 h", 60)])
def test_separation(table: list[tuple[str, str]], tmp_path: Path, label: str, minutes: int) -> None:
    song = loop(tmp_path / "song.flac", minutes)
    command = [sys.executable, "-c", SEPARATE, str(song)]
    env = os.environ | {"W2C_CACHE": str(tmp_path / "cache")}
    output = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT, env=env).stdout.split()
    figure = f"{float(output[0]):.1f} s, {int(output[-2]) // 1024} MiB"
    table.append((f"stems of {label} of stereo (dsp): time, peak memory", figure))


@pytest.mark.parametrize("name", STEMS)
def test_quality(table: list[tuple[str, str]], name: str) -> None:
    mix, stem = (soundfile.read(SAMPLES / "song" / f"{one}.ogg", dtype="float32") for one in ("mix", name))
    found = DspSeparator().separate(mix[0].T, mix[1])[STEMS.index(name)]
    before, after = decibels(stem[0].T, mix[0].T), decibels(stem[0].T, found)
    table.append(
        (f"{name} of the sample song (dsp): signal to distortion, mix and stem", f"{before:.1f}, {after:.1f} dB")
    )


def test_embedding(table: list[tuple[str, str]], tmp_path: Path, mini: Models) -> None:
    song = open_track(loop(tmp_path / "song.flac", 4))
    stems = plan_stems(song, STEMS, separator="dsp").load()
    timeline = Timeline.of(song, fps=12)

    began = time.perf_counter()
    for track in stems.values():
        encode_audio(mini.wav2clip, decode(track, timeline), timeline)
    table.append(("embedding the four stems of 4 min", f"{time.perf_counter() - began:.1f} s"))


def test_conditioning(table: list[tuple[str, str]], tmp_path: Path, mini: Models) -> None:
    """Stems are embedded before the first frame is optimized: what that adds per frame."""

    def cost(stems: tuple[str, ...]) -> tuple[float, float]:
        settings = Settings().merged({"stems": list(stems), "run": {"seed": 0}})
        job = prepare(SAMPLES / "song", tmp_path / "film.mp4", settings, selection=mini.selection)
        began = time.process_time()
        targets = condition_job(job, mini).targets
        analyzing = (time.process_time() - began) / len(targets)
        optimizer = FrameOptimizer(mini, settings, generator=generator_for(0, mini.device))
        began = time.process_time()
        for target in targets[:20]:
            steps, weight = settings.painting.steps, settings.motion.temporal_weight
            optimizer.optimize(target, steps=steps, temporal_weight=weight)
            optimizer.decode_bytes()
        return analyzing, (time.process_time() - began) / 20

    cost(())  # the first run chooses its algorithms
    (song, frame), (stems, _) = cost(()), cost(STEMS)
    table.append(
        ("conditioning on four stems, relative to the optimization of a frame", f"+{(stems - song) / frame:.1%}")
    )
