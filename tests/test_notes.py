"""Notes about the sound of a film: silence, channels that cancel each other, stems of another length."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from tests.conftest import SAMPLES, Write, condition_job
from wav2clip_gen.config import Settings
from wav2clip_gen.job import Job, prepare
from wav2clip_gen.models.registry import Models
from wav2clip_gen.pipeline import condition_films, load_stems, render
from wav2clip_gen.preview import estimate
from wav2clip_gen.progress import Progress, StageClock, ignore

RATE = 16_000


@pytest.fixture
def prepared(tmp_path: Path, small: Settings, mini: Models) -> Any:
    def prepare_song(path: Path, **changes: Any) -> Job:
        return prepare(path, tmp_path / "film.mp4", small.merged(changes), selection=mini.selection)

    return prepare_song


def analysis_notes(job: Job, models: Models) -> list[str]:
    """What is told before the first frame, after the audio was analysed."""
    told: list[Progress] = []
    condition_films(job, load_stems(job, StageClock(ignore)), models, StageClock(told.append))
    return [progress.message for progress in told if progress.message.startswith("note: ")]


def test_opposite_channels_condition_as_their_in_phase_twin(
    write_sound: Write, prepared: Any, small: Settings, mini: Models, tmp_path: Path
) -> None:
    sound, rate = soundfile.read(SAMPLES / "sounds" / "tabla.ogg", frames=2 * 44_100)
    left = sound[:, :1]
    opposed = write_sound(np.hstack([left, -left]), "opposed.wav", rate)
    twin = write_sound(np.hstack([left, left]), "twin.wav", rate)
    found, expected = (condition_job(prepared(path), mini) for path in (opposed, twin))
    torch.testing.assert_close(found.targets, expected.targets, atol=0, rtol=0)
    assert prepared(twin).notes == ()
    assert prepared(opposed).notes == (
        "the channels of opposed.wav cancel each other: channel 2 is inverted in the analysis; "
        "the film has the sound as it is",
    )
    film = render(opposed, tmp_path / "film.mp4", small.merged({"sound": {"duration": 1}}), family=mini)
    assert film.sync.offset_seconds == pytest.approx(0, abs=1e-3)
    assert json.loads(film.record.read_text())["track"]["mono_weights"] == [0.5, -0.5]


def test_lengths_of_stems_are_told_before_the_work_and_named_in_the_record(
    write_sound: Write, prepared: Any, small: Settings, mini: Models, tmp_path: Path
) -> None:
    noise = 0.3 * np.random.default_rng(0).standard_normal(3 * RATE)
    song, short, long = (write_sound(noise[:n], f"{n}.wav") for n in (2 * RATE, RATE // 2, 3 * RATE + RATE // 2))
    long = write_sound(np.tile(noise, 2), "long.wav")
    changes = {"stems": ["drums", "bass"], "stem_files": [f"drums={short}", f"bass={long}"]}
    assert prepared(song, **changes).notes == (
        f"{short} lasts 0.500 s, but the song {song} is used up to 2.000 s: silence follows",
        f"{long} lasts 6.000 s, but the song {song} is used up to 2.000 s: the rest is left out",
    )
    film = render(song, tmp_path / "film.mp4", small.merged(changes), family=mini)
    stems = json.loads(film.record.read_text())["stems"]
    assert {name: stem["path"] for name, stem in stems.items()} == {"drums": short.name, "bass": "long.wav"}


@pytest.mark.parametrize(
    ("loud", "note"),
    [
        (0.0, "note: the song is silent from start to end, so its sound cannot guide the film"),
        (0.25, "note: the song is silent in 75% of the film"),
        (0.75, None),
        (1.0, None),
    ],
)
@pytest.mark.parametrize("channels", [1, 2])
def test_a_silent_song_is_told(
    loud: float, note: str | None, channels: int, write_sound: Write, prepared: Any, mini: Models
) -> None:
    sound = np.zeros((2 * RATE, channels))
    sound[len(sound) - round(loud * len(sound)) :] = 0.01
    assert analysis_notes(prepared(write_sound(sound)), mini) == ([note] if note else [])


def test_hiss_below_80_dB_is_silence_and_an_estimate_tells_it_too(  # noqa: N802
    write_sound: Write, prepared: Any, mini: Models
) -> None:
    job = prepared(write_sound(1e-5 * np.random.default_rng(0).standard_normal(RATE)))
    (note,) = analysis_notes(job, mini)
    told: list[Progress] = []
    estimate(job, on_progress=told.append)
    assert note in [progress.message for progress in told]
