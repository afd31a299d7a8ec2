"""A film of several segments: seams, resuming, stopping; a film of one segment is painted frame after frame."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray
from PIL import Image

from tests.conftest import condition_job
from tests.films import DIVIDED, RATE, Made, make_films, names, write_song
from wav2clip_gen.config import Settings
from wav2clip_gen.errors import OutputError
from wav2clip_gen.job import prepare
from wav2clip_gen.models.registry import Models
from wav2clip_gen.pipeline import render_job
from wav2clip_gen.synthesis.modulation import modulate
from wav2clip_gen.synthesis.optimizer import FrameOptimizer, generator_for
from wav2clip_gen.video.verify import probe

pytestmark = pytest.mark.usefixtures("short_chunks")


def slow(*values: Any) -> list[Any]:
    return [pytest.param(value, marks=[pytest.mark.slow, pytest.mark.more]) for value in values]


@pytest.fixture(scope="module")
def settings(small: Settings) -> Settings:
    return small.merged(DIVIDED)


@pytest.fixture
def song(tmp_path: Path) -> Path:
    return write_song(tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, settings: Settings, mini: Models) -> Made:
    """The film of a run that nothing interrupts, with its frames and its work folder."""
    folder = tmp_path_factory.mktemp("whole")
    return make_films(write_song(folder), settings, mini, frames_dir=folder / "frames", keep_work=True)


@pytest.fixture(scope="module")
def pictures(whole: Made) -> NDArray[np.float64]:
    """Its frames, (F, H, W, 3)."""
    folder = whole[0].path.with_name("frames")
    return np.stack([np.asarray(Image.open(folder / f"{number:06}.png"), dtype=float) for number in range(28)])


def kept(whole: Made) -> list[str]:
    return sorted(path.stem for path in whole[0].path.with_suffix(".w2c").glob("chunk-*.json"))


def test_a_film_is_divided_and_recorded(whole: Made) -> None:
    (film,) = whole
    assert film.segments == [0, 8, 16]
    content = json.loads(film.record.read_text())
    assert content["segments"] == [0, 8, 16]
    assert (probe(film.path).frames, len(content["frames"]["loss"])) == (28, 28)
    painted = set(film_painted())
    assert [value is not None for value in content["frames"]["loss"]] == [number in painted for number in range(28)]
    assert whole.painted == list(range(1, 29))
    unseen = [6 + 4, 14 + 4]  # run-ins, and frames that two segments share
    assert whole.left == [28 - done + sum(unseen[(done > 6) + (done > 14) :]) for done in range(1, 29)]
    halves = [f"chunk-{number:05}.{half}" for number in (1, 3) for half in ("after", "before")]
    assert kept(whole) == sorted([f"chunk-{number:05}" for number in range(7)] + halves)


def film_painted() -> list[int]:
    return [0, 3, 5, 8, 11, 13, 16, 19, 21, 24, 27]


def test_of_a_seam_no_frame_stands_out(pictures: NDArray[np.float64]) -> None:
    steps = np.abs(np.diff(pictures, axis=0)).mean(axis=(1, 2, 3))
    at_seams = [*range(5, 10), *range(13, 18)]
    assert steps[at_seams].max() < 1.1 * np.delete(steps, at_seams).max()


def test_a_film_of_one_segment_is_optimised_frame_after_frame(
    song: Path, settings: Settings, mini: Models, whole: Made
) -> None:
    one = settings.merged({"run": {"segments": "none"}})
    made = make_films(song, one, mini, frames_dir=song.with_name("frames"))
    job = prepare(song, song.with_name("other.mp4"), one, selection=mini.selection)
    targets, parameters = condition_job(job, mini).targets, modulate(one, {}, job.timeline)
    optimizer = FrameOptimizer(mini, one, generator=generator_for(7, torch.device("cpu")), seed=7)
    expected, after = [], -1
    for index in film_painted():
        expected += [*optimizer.frames(index, targets[index], parameters, after=after)]
        after = index
    for number, frame in enumerate(expected):
        found = np.asarray(Image.open(song.with_name("frames") / f"{number:06}.png"))
        np.testing.assert_array_equal(found, frame.picture)
    assert made[0].segments == [0]
    assert made.content != whole.content


# Resuming


@pytest.mark.parametrize("frame", [12, 19, *slow(2, 8, 28)])
def test_an_interrupted_film_is_the_same_in_the_end(
    frame: int, song: Path, settings: Settings, mini: Models, whole: Made
) -> None:
    with pytest.raises(KeyboardInterrupt):
        make_films(song, settings, mini, stop_at=frame)
    made = make_films(song, settings, mini)
    assert made.content == whole.content
    assert 0 < made.painted[0] <= frame
    assert frame < 9 or made.painted[0] > 4
    assert json.loads(made[0].record.read_text())["frames"] == json.loads(whole[0].record.read_text())["frames"]
    assert names(song.parent) == ["film.json", "film.mp4", "song.wav"]


@pytest.mark.parametrize("frame", [9, *slow(3, 12)])
def test_a_stopped_film_ends_where_it_is_finished_and_goes_on(
    frame: int, song: Path, settings: Settings, mini: Models, whole: Made
) -> None:
    done: list[int] = []
    (film,) = render_job(
        prepare(song, song.with_name("film.mp4"), settings, selection=mini.selection),
        load=lambda *_, **__: mini,
        stop=lambda: done[-1] >= frame,
        on_progress=lambda progress: done.append(progress.done),
    )
    assert (film.partial, film.frames, probe(film.path).frames) == (True, frame, frame)
    assert film.segments == [start for start in (0, 8, 16) if start < frame]
    made = make_films(song, settings, mini)
    assert made.content == whole.content
    assert made.painted[0] > frame - 7


@pytest.mark.parametrize("damaged", ["00001.mp4", *slow("00003.after.safetensors", "00002.json")])
def test_what_is_damaged_is_painted_again(
    damaged: str, song: Path, settings: Settings, mini: Models, whole: Made
) -> None:
    with pytest.raises(KeyboardInterrupt):
        make_films(song, settings, mini, stop_at=19)
    path = song.with_name("film.w2c") / f"chunk-{damaged}"
    path.write_bytes(path.read_bytes()[:-3])
    made = make_films(song, settings, mini)
    assert made.content == whole.content


def test_the_halves_of_a_finished_seam_are_removed(song: Path, settings: Settings, mini: Models) -> None:
    with pytest.raises(KeyboardInterrupt):
        make_films(song, settings, mini, stop_at=19)
    left = names(song.with_name("film.w2c"))
    halves = [f"chunk-00003.after.{suffix}" for suffix in ("json", "safetensors")]  # where the segment goes on
    assert [name for name in left if name.count(".") == 2] == halves
    assert [name for name in left if name.endswith("safetensors")] == halves[1:]


def test_another_division_is_refused(song: Path, settings: Settings, mini: Models) -> None:
    with pytest.raises(KeyboardInterrupt):
        make_films(song, settings, mini, stop_at=12)
    with pytest.raises(OutputError, match=r"run\.segments was 1\.2, now none"):
        make_films(song, settings.merged({"run": {"segments": "none"}}), mini)
    plan = song.with_name("film.w2c") / "plan.json"
    plan.write_text(json.dumps(json.loads(plan.read_text()) | {"segments": [0, 10, 16]}))
    with pytest.raises(OutputError, match="differs: segments changed"):
        make_films(song, settings, mini)


@pytest.mark.parametrize("layout", ["grid", *slow("separate")])
def test_films_of_several_pictures_are_divided_and_resumed(
    layout: str, song: Path, tmp_path: Path, settings: Settings, mini: Models
) -> None:
    for number, name in enumerate(("vocals", "drums")):
        noise = np.random.default_rng(number).uniform(-0.5, 0.5, round(3.5 * RATE))
        soundfile.write(tmp_path / f"{name}.wav", noise, RATE, subtype="FLOAT")
    files = [f"{name}={tmp_path / name}.wav" for name in ("vocals", "drums")]
    changed = settings.merged({"picture": {"layout": layout}, "stems": ["vocals", "drums"], "stem_files": files})
    expected = make_films(song, changed, mini, out=tmp_path / "whole.mp4")
    with pytest.raises(KeyboardInterrupt):
        make_films(song, changed, mini, stop_at=9)
    made = make_films(song, changed, mini)
    assert [film.path.read_bytes() for film in made] == [film.path.read_bytes() for film in expected]
    assert all(film.segments == [0, 8, 16] for film in made)
