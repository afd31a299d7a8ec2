"""What a film costs in memory and on the disk, told before its first frame."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from tests.conftest import SAMPLES, Write
from wav2clip_gen import pace
from wav2clip_gen.config import Settings
from wav2clip_gen.cost import describe_cost, disk_bytes, run_bytes, sound_bytes, usual_segments
from wav2clip_gen.job import Job, prepare
from wav2clip_gen.models.registry import Models
from wav2clip_gen.pipeline import render
from wav2clip_gen.progress import Progress

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def job(mini: Models, tiny: Settings, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A job for two seconds of a tone."""
    folder = tmp_path_factory.mktemp("cost")
    soundfile.write(folder / "song.wav", np.zeros((32_000, 2)), 16_000, subtype="FLOAT")

    def prepared(frames: bool = False, storyboard: bool = False, **changes: Any) -> Job:
        out = folder / ("sheet.png" if storyboard else "film.mp4")
        return prepare(
            folder / "song.wav", out, tiny.merged(changes), selection=mini.selection, storyboard=storyboard,
            frames_dir=folder / "frames" if frames else None,
        )  # fmt: skip

    return prepared


def test_the_disk_holds_the_picture_three_times_the_sound_the_frames_and_some_states(job: Any) -> None:
    film = job()
    sound = 2 * 40_000  # AAC at 320 kbit/s
    assert sound_bytes(film.track, film.sound) == sound
    pixels = 64 * 48 * 8
    states = 32 * 64 * 48 * (2 + 1 / 16)
    assert disk_bytes(film) == round(3 * 0.1 * pixels + sound + states)
    assert disk_bytes(job(picture={"upscale": 4})) == round(12 * 0.1 * pixels + sound + states)
    assert disk_bytes(job(frames=True)) == round((3 * 0.1 + 2.5) * pixels + sound + states)
    assert disk_bytes(job(storyboard=True)) == 2**20


def test_every_film_and_every_picture_counts(mini: Models, tiny: Settings, tmp_path: Path) -> None:
    def size(layout: str) -> int:
        changes = {"picture": {"layout": layout}, "stems": ["vocals", "drums"], "sound": {"duration": 1}}
        return disk_bytes(
            prepare(SAMPLES / "song" / "mix.ogg", tmp_path / "a.mp4", tiny.merged(changes), selection=mini.selection)
        )

    picture = 3 * 0.1 * 64 * 48 * 4 + 32 * 64 * 48 * (2 + 1 / 32)
    assert size("separate") == pytest.approx(2 * size("single"), abs=1)
    assert size("grid") - size("single") == pytest.approx(2 * picture, abs=1)


def test_copied_and_lossless_sound(job: Any) -> None:
    film = job()
    size = film.track.path.stat().st_size
    assert sound_bytes(film.track, replace(film.sound, copied=True)) == min(size, 0.7 * 3 * 64_000)
    assert sound_bytes(film.track, replace(film.sound, codec="alac")) == pytest.approx(0.7 * 3 * 64_000)


def test_a_full_disk_is_told_before_the_film_is_made(job: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    told = describe_cost(job(), CPU)
    assert re.fullmatch(r"needs about 1\.\d GiB of memory and up to 1 MiB on the disk", told)
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=50_000))
    assert describe_cost(job(), CPU) == f"{told}, where only 1 MiB are free"


def test_gpus_have_a_memory_of_their_own(job: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert describe_cost(job(), torch.device("cuda", 0)).startswith("needs about 640 MiB of GPU memory and")


def test_each_worker_needs_memory_and_segments_room_for_their_seams(job: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    film, whole = job(run={"segments": "1"}), job()
    assert (usual_segments(film), usual_segments(whole)) == (2, 1)
    pixels = 64 * 48
    more = 32 * pixels * 2 + 2 * 16 * pixels * 4  # states of another segment, and a seam of 4 frames
    assert disk_bytes(film) - disk_bytes(whole) == more
    alone = run_bytes(whole, CPU, 1)
    assert alone
    assert run_bytes(film, CPU, 3) == 4 * alone
    assert run_bytes(film, torch.device("cuda", 0), 3) == run_bytes(film, torch.device("cuda", 0), 1)
    assert "of memory and" in describe_cost(film, CPU)
    told = describe_cost(replace(film, workers=3), CPU, 62)
    assert told.startswith("its frames take about 1:02, and it needs about ")
    assert "of memory for 2 workers and" in told


def test_the_time_of_a_film_is_that_of_its_steps_and_pictures(
    job: Any, mini: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter(range(100))
    monkeypatch.setattr(pace, "time_steps", lambda optimizer, target, count: 0.5 * count)
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    painting = {"first_steps": 40, "steps": 20}
    film = job(painting=painting)
    assert film.timeline.frames == 8
    assert pace.expected_seconds(film, mini) == 0.5 * (40 + 7 * 20) + 8
    two = job(painting=painting, run={"segments": "1"})
    segment = 0.5 * (40 + 3 * 20) + 4
    assert pace.expected_seconds(replace(two, workers=1), mini) == 2 * segment
    assert pace.expected_seconds(replace(two, workers=2), mini) == segment
    assert pace.expected_seconds(job(painting={"first_steps": 40, "steps": 4}), mini) is None


def test_steps_that_are_timed_do_not_change_the_film(
    write_sound: Write, mini: Models, small: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    song, told, films = write_sound(np.random.default_rng(0).standard_normal(16_000) / 4), list[Progress](), []
    for share in (0.0, 1e9):
        monkeypatch.setattr(pace, "SHARE", share)
        settings = small.merged({"run": {"seed": 7}})
        film = render(song, tmp_path / f"{share}.mp4", settings, family=mini, on_progress=told.append)
        films.append(film.path.read_bytes())
    assert films[0] == films[1]
    first = [one.message for one in told if one.message.startswith("models mini on cpu; ")]
    assert [one.startswith("models mini on cpu; its frames take about 0:0") for one in first] == [False, True]


def test_where_the_networks_are_unknown_only_the_disk_is_told(job: Any, tmp_path: Path) -> None:
    film = job()
    missing = replace(film.selection.components["vqgan"], path=tmp_path / "none.safetensors")
    unknown = replace(film.selection, components={**film.selection.components, "vqgan": missing})
    assert describe_cost(replace(film, selection=unknown), CPU) == "needs up to 1 MiB on the disk"


def test_a_film_is_no_larger_than_was_told_and_its_cost_comes_first(
    write_sound: Write, mini: Models, small: Settings, tmp_path: Path
) -> None:
    rng, told = np.random.default_rng(0), list[Progress]()
    song = write_sound(0.3 * rng.standard_normal(32_000))
    film = render(song, tmp_path / "film.mp4", small, family=mini, on_progress=told.append)
    expected = disk_bytes(prepare(song, tmp_path / "other.mp4", small, selection=mini.selection))
    assert film.path.stat().st_size < 2 * expected
    messages = [one.message for one in told if one.message]
    assert re.match(r"models mini on cpu; needs about 1\.\d GiB of memory and up to \d+ MiB on the disk", messages[0])
