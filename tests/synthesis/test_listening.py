"""Stems have a say by their own loudness, and by nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from wav2clip_gen.synthesis.listening import LEVEL_SMOOTHING, SILENT, Heard, listen_to_stems, stem_pull, weighted_mean

from tests.conftest import Write
from wav2clip_gen.audio.timeline import Timeline
from wav2clip_gen.audio.track import Track, open_track
from wav2clip_gen.config import StemWeight
from wav2clip_gen.models.registry import Models

RATE, SECONDS, FPS = 16_000, 8, 10
Sound = NDArray[np.float64]


def between(start: float, stop: float, *, seed: int) -> Sound:
    """Noise with a colour of its own, heard from `start` to `stop` seconds."""
    white = np.random.default_rng(seed).standard_normal(SECONDS * RATE)
    times = np.arange(len(white)) / RATE
    coloured = np.convolve(white, np.ones(4 + 12 * seed), mode="same")
    return 0.2 * coloured / coloured.std() * ((times >= start) & (times < stop))


@pytest.fixture
def tracks(write_sound: Write) -> dict[str, Track]:
    """Drums all along, vocals from 3 s to 5 s, the same vocals muted, and a song."""
    sounds = {"drums": between(0, 8, seed=0), "vocals": between(3, 5, seed=1), "muted": np.zeros(SECONDS * RATE)}
    paths: dict[str, Path] = {name: write_sound(sound, f"{name}.wav", RATE) for name, sound in sounds.items()}
    paths["song"] = write_sound(sounds["drums"] + sounds["vocals"], "song.wav", RATE)
    return {name: open_track(path) for name, path in paths.items()}


@pytest.fixture
def heard(mini: Models, tracks: dict[str, Track]) -> dict[str, Heard]:
    """What is heard of drums and vocals, of drums with muted vocals, and of each alone."""
    line = Timeline.of(tracks["song"], fps=FPS)

    def hear(**weights: float) -> Heard:
        stems = [(StemWeight(name=name, weight=weight), tracks[name]) for name, weight in weights.items()]
        return listen_to_stems(mini.wav2clip, tracks["song"], line, stems)

    return {
        "both": hear(drums=1, vocals=1),
        "louder": hear(drums=1, vocals=10),
        "drums": hear(drums=1, vocals=0),
        "muted": hear(drums=1, muted=1),
        "silence": hear(muted=1),
        "nothing": hear(drums=0, vocals=0),
    }


def embeddings(heard: Heard) -> torch.Tensor:
    assert heard.embeddings is not None
    return heard.embeddings


def test_muting_a_stem_changes_only_where_it_sounded(heard: dict[str, Heard]) -> None:
    both, muted = embeddings(heard["both"]), embeddings(heard["muted"])
    reach = round(LEVEL_SMOOTHING * np.log2(1 / SILENT) * FPS) + 1  # frames until a full level has faded to silence
    before, after = slice(0, 3 * FPS - reach), slice(5 * FPS + reach, None)
    for outside in (before, after):
        assert len(both[outside]) > FPS
        assert torch.equal(both[outside], muted[outside])
    assert (both - muted)[3 * FPS : 5 * FPS].norm(dim=1).min() > 0.05
    assert np.array_equal(heard["both"].loudness[before], heard["muted"].loudness[before])


def test_a_muted_stem_is_as_one_without_weight(heard: dict[str, Heard]) -> None:
    torch.testing.assert_close(embeddings(heard["muted"]), embeddings(heard["drums"]), atol=1e-6, rtol=0)
    assert heard["muted"].silent == ("muted",)
    assert heard["drums"].silent == ()


def test_weight_moves_the_target_towards_a_stem(heard: dict[str, Heard]) -> None:
    drums, both, louder = (embeddings(heard[name])[4 * FPS] for name in ("drums", "both", "louder"))
    assert (louder - drums).norm() > 1.2 * (both - drums).norm() > 0


def test_silence_alone_is_heard_as_silence_and_told(heard: dict[str, Heard]) -> None:
    assert heard["silence"].silent == ("muted",)
    assert heard["silence"].loudness.max() == 0
    assert embeddings(heard["silence"]).norm(dim=1).min() > 0.99


def test_stems_without_weight_leave_it_to_words(heard: dict[str, Heard]) -> None:
    assert heard["nothing"].embeddings is None


def test_a_stem_pulls_as_loud_as_it_is_and_not_at_all_in_silence() -> None:
    level = np.zeros(100)
    level[20:40], level[60:80] = 0.5, 0.25
    pull = stem_pull(level, full=0.5, fps=10)
    assert pull[30] == pytest.approx(2 * pull[70], rel=0.01)
    assert (pull[:5] == 0).all()
    assert (pull[95:] == 0).all()
    assert (stem_pull(np.full(100, 1e-4), full=0.5, fps=10) == 0).all()
    assert (stem_pull(np.zeros(100), full=0.0, fps=10) == 0).all()


def test_the_mean_is_weighted_frame_by_frame() -> None:
    a, b = torch.eye(2)[0].expand(3, 2), torch.eye(2)[1].expand(3, 2)
    mean = weighted_mean([(a, np.array([1.0, 1.0, 0.0])), (b, np.array([0.0, 3.0, 0.0]))])
    torch.testing.assert_close(mean, torch.tensor([[1.0, 0.0], [0.25, 0.75], [0.0, 0.0]]))
