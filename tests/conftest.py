"""What all tests share: the small family, small settings, sounds, and no network."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from wav2clip_gen.config import Settings, settings_from
from wav2clip_gen.errors import WeightsError
from wav2clip_gen.video import division

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.models.server import Server
    from wav2clip_gen.job import Job
    from wav2clip_gen.models.registry import Models
    from wav2clip_gen.synthesis.conditioning import Conditioning

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = ROOT / "samples"

Write = Callable[..., Path]
FakeFFmpeg = Callable[[str], None]


@pytest.fixture(scope="session")
def mini() -> Models:
    """The mini family, as it ships."""
    from wav2clip_gen.models.registry import load_family

    return load_family("mini")


@pytest.fixture(scope="session")
def full_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the family `full` at its published size, its weights random."""
    from wav2clip_gen.models import checkpoints, manifest

    folder = tmp_path_factory.mktemp("weights")
    for part in manifest.expand("full"):
        checkpoints.write_random(folder / part.name / f"{part.role}.safetensors", role=part.role, config=part.config)
    return folder


@pytest.fixture(scope="session")
def tiny() -> Settings:
    """Small numbers: a film in about a second, every frame optimised, no camera motion."""
    return settings_from(preset="still").merged(
        {
            "picture": {"width": 64, "height": 48, "fps": 4},
            "painting": {"first_steps": 3, "steps": 2, "cuts": 2},
            "run": {"seed": 7},
        }
    )


@pytest.fixture(scope="session")
def small(tiny: Settings) -> Settings:
    """As `tiny`, with smaller frames and fewer steps."""
    return tiny.merged({"picture": {"width": 32, "height": 32}, "painting": {"first_steps": 2, "steps": 1}})


@pytest.fixture
def write_sound(tmp_path: Path) -> Write:
    """Write samples (n,) or (n, C) as a wav file."""

    def write(samples: NDArray[Any], name: str = "song.wav", rate: int = 16_000) -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, samples, rate, subtype="FLOAT")
        return path

    return write


@pytest.fixture(scope="session")
def tone() -> NDArray[np.float64]:
    """One and a half seconds of a swelling 440 Hz tone at 16 kHz."""
    t = np.arange(24_000) / 16_000
    return 0.4 * np.sin(2 * np.pi * 440 * t) * t / t[-1]


def condition_job(job: Job, models: Models) -> Conditioning:
    """The conditioning of a film with one picture."""
    from wav2clip_gen import pipeline
    from wav2clip_gen.progress import StageClock, ignore
    from wav2clip_gen.synthesis.modulation import modulate

    audio = pipeline.analyze_audio(job, pipeline.load_stems(job, StageClock(ignore)), models)
    parameters = modulate(job.settings, audio.features, job.timeline)
    guidance = pipeline.encode_job_guidance(job, models, parameters)
    return pipeline.condition(job, audio, guidance, parameters, job.settings.stems)


def write_stem_file(sounds: list[Path], path: Path) -> Path:
    """Put sounds into one file, a stream each, lossless, as a .stem.mp4 has them."""
    from wav2clip_gen import ffmpeg

    inputs = [word for sound in sounds for word in ("-i", ffmpeg.file_url(sound))]
    chosen = [word for number in range(len(sounds)) for word in ("-map", f"{number}:a")]
    ffmpeg.run([*inputs, *chosen, "-c:a", "alac", ffmpeg.file_url(path)], purpose=f"make {path}")
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser without a window."""
    from tests.browsing import BROWSERS

    playwright = pytest.importorskip("playwright.sync_api")
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser ({', '.join(BROWSERS)}): apt-get install chromium")
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=found)
        yield running
        running.close()


@pytest.fixture(autouse=True)
def _alone(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has a cache folder of its own, no settings from outside, and no network but loopback."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    for name in ("W2C_CACHE", "W2C_DEMUCS_REPO", "W2C_FFMPEG", "W2C_WEIGHTS", "W2C_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    connect = socket.socket.connect

    def only_loopback(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"a test reached for the network: {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", only_loopback)


@pytest.fixture
def fake_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeFFmpeg:
    """Replace ffmpeg by a shell script, which claims an h264 encoder."""

    def install(script: str) -> None:
        path = tmp_path / "bin" / "ffmpeg"
        path.parent.mkdir(exist_ok=True)
        listing = 'case "$*" in *-encoders*) echo " ------"; echo " V....D libx264 H.264"; exit 0;; esac'
        path.write_text(f"#!/bin/sh\n{listing}\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setenv("W2C_FFMPEG", str(path))

    return install


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A web server on this machine, reached without a proxy; downloads come in small blocks and without pauses."""
    from tests.models.server import running
    from wav2clip_gen.models import download

    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(download, "CHUNK", 4096)
    monkeypatch.setattr(download, "sleep", lambda seconds: None)
    with running() as bad:
        yield bad


@pytest.fixture
def converter(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """In place of the real converter: writes a tiny file in our format, and remembers what it was given."""
    from tests.models.tiny import write_weights

    def convert(
        original: Path, out: Path, *, role: str, config: dict[str, Any], precision: str = "fp32", sha256: str = ""
    ) -> None:
        if fake.refuses:
            raise WeightsError(f"{original}: holds no {role}", hint="is it the right file?")
        fake.given.append((original.read_bytes(), role, config, precision))
        fake.hashes.append(sha256)
        write_weights(out)

    fake = SimpleNamespace(given=[], hashes=[], refuses=False)
    monkeypatch.setattr("wav2clip_gen.models.convert.convert", convert)
    return fake


@pytest.fixture(scope="module")
def short_chunks() -> Iterator[None]:
    """Chunks of half a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(division, "SECONDS", 0.5)
        patch.setattr(division, "FEWEST", 3)
        yield
