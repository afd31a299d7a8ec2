from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from wav2clip_gen import ffmpeg
from wav2clip_gen.audio.decode import FEATURE_RATE, decode
from wav2clip_gen.audio.features import Features, measure
from wav2clip_gen.audio.stems import STEMS
from wav2clip_gen.audio.timeline import Timeline
from wav2clip_gen.audio.track import Track, open_track

Save = Callable[..., Path]
Album = Callable[..., Path]
RATE = 8_000  # Hz, of stems


def noise(seconds: float, rate: int = 44_100, channels: int = 2, seed: int = 0) -> NDArray[np.float32]:
    """Dull noise, (n, channels): it survives every codec, and matches itself at one place only."""
    rng = np.random.default_rng(seed)
    white = rng.standard_normal((round(seconds * rate), channels))
    kernel = np.ones(8) / 8
    dull = np.stack([np.convolve(white[:, c], kernel, mode="same") for c in range(channels)], axis=1)
    return (0.4 * dull).astype(np.float32)


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Write samples (n, C) into a file; formats that libsndfile cannot write go through ffmpeg."""

    def save_as(name: str, samples: NDArray[np.float32], rate: int = 44_100, *options: str) -> Path:
        path, wav = tmp_path / name, tmp_path / f"{name}.source.wav"
        if path.suffix == ".wav":
            soundfile.write(path, samples, rate, subtype="FLOAT")
            return path
        soundfile.write(wav, samples, rate, subtype="FLOAT")
        command = ["-i", ffmpeg.file_url(wav), *options, "-y", ffmpeg.file_url(path)]
        ffmpeg.run(command, purpose=f"make {name}")
        wav.unlink()
        return path

    return save_as


def features_of(path: Path, fps: float = 12) -> Features:
    """The features of a file."""
    track = open_track(path)
    timeline = Timeline.of(track, fps=fps)
    return measure(decode(track, timeline, (FEATURE_RATE,)), timeline)


def stem(name: str, seconds: float = 3.0, rate: int = RATE) -> np.ndarray:
    """A mono stem, (n, 1), that sounds unlike the others."""
    return 0.2 * noise(seconds, rate, channels=1, seed=(*STEMS, "guitar").index(name))


@pytest.fixture
def song(save: Save) -> Track:
    """The sum of four stems, 3 s in mono."""
    return open_track(save("song.wav", np.sum([stem(name) for name in STEMS], axis=0), RATE))


@pytest.fixture
def album(save: Save, tmp_path: Path) -> Album:
    """Write a folder as separators write it: a file for each stem, and a mix if it is given a name."""

    def write(*names: str, mix: str = "", suffix: str = ".wav") -> Path:
        folder = tmp_path / "album"
        folder.mkdir()
        for name in names:
            save(f"album/{name}{suffix}", stem(name.casefold()), RATE)
        if mix:
            save(f"album/{mix}", np.sum([stem(name) for name in STEMS], axis=0), RATE)
        return folder

    return write


def sound(track: Track) -> np.ndarray:
    return track.read()[0]


def same(track: Track, name: str) -> bool:
    return bool(np.corrcoef(sound(track), stem(name)[: track.samples, 0])[0, 1] > 0.99)
