"""An interrupted film is resumed by the same call, byte for byte; a call that would paint another film is refused."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray
from PIL import Image

from tests.films import Made, make_films, names
from wav2clip_gen import record
from wav2clip_gen.config import Settings
from wav2clip_gen.errors import OutputError
from wav2clip_gen.job import prepare
from wav2clip_gen.models.registry import Models
from wav2clip_gen.pipeline import render_job
from wav2clip_gen.progress import Progress
from wav2clip_gen.video.chunks import read_plan
from wav2clip_gen.video.verify import probe

MOVING: dict[str, Any] = {  # 14 frames in four chunks; every other one is optimised
    "picture": {"fps": 8, "painted_fps": 4},
    "motion": {"pan_x": 2.0, "rotate": 20.0, "border": "wrap"},
}
MORE = (pytest.mark.slow, pytest.mark.more)
FINISHED = "0:01 of 0:02 are finished in"


Make = Callable[..., Made]

pytestmark = pytest.mark.usefixtures("short_chunks")


@pytest.fixture(scope="module")
def settings(small: Settings) -> Settings:
    return small.merged(MOVING)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, tone: NDArray[np.float64]) -> Path:
    path = tmp_path_factory.mktemp("original") / "song.wav"
    soundfile.write(path, np.concatenate([tone, tone[:4000]]), 16_000, subtype="FLOAT")
    return path


@pytest.fixture
def song(tmp_path: Path, original: Path) -> Path:
    return Path(shutil.copy(original, tmp_path))


@pytest.fixture
def make(song: Path, settings: Settings, mini: Models) -> Make:
    def run(changes: dict[str, Any] | None = None, **options: Any) -> Made:
        return make_films(song, settings.merged(changes or {}), mini, **options)

    return run


@pytest.fixture(scope="module")
def whole(original: Path, settings: Settings, mini: Models) -> bytes:
    """The film of a run that nothing interrupts."""
    return make_films(original, settings, mini, out=original.with_name("whole.mp4")).content


@pytest.fixture(scope="module")
def begun(original: Path, settings: Settings, mini: Models) -> Path:
    """A work folder of a run that was interrupted in the third of its four chunks."""
    with pytest.raises(KeyboardInterrupt, match=FINISHED):
        make_films(original, settings, mini, stop_at=10)
    return original.with_name("film.w2c")


@pytest.fixture
def work(begun: Path, song: Path) -> Path:
    """A copy of it, next to the song."""
    return Path(shutil.copytree(begun, song.with_name("film.w2c")))


# The same film


@pytest.mark.parametrize("frame", [1, 4, 8, 14, *(pytest.param(frame, marks=MORE) for frame in (2, 5, 13))])
def test_a_film_that_is_interrupted_at_any_frame_is_the_same_in_the_end(
    frame: int, make: Make, song: Path, whole: bytes
) -> None:
    with pytest.raises(KeyboardInterrupt):
        make(stop_at=frame)
    finished = [chunk for chunk in (3, 7, 11, 14) if chunk < frame]
    assert names(song.parent) == ["film.w2c"] * bool(finished) + ["song.wav"]
    made = make()
    assert made.content == whole
    assert made.painted[0] == [0, *finished][-1] + 1
    assert names(song.parent) == ["film.json", "film.mp4", "song.wav"]


def test_a_resumed_run_tells_where_and_records_all_frames(make: Make, work: Path, whole: bytes) -> None:
    made = make()
    assert "resuming at 0:01 of 0:02" in made.messages
    assert made.content == whole
    content = json.loads(made[0].record.read_text())
    values = content["frames"]["loss"]
    assert [value is None for value in values] == [number % 2 == 1 and number < 13 for number in range(14)]
    assert made[0].timings["optimize"] == content["seconds"]["optimize"] > 0


def test_a_film_may_be_interrupted_again_and_again(make: Make, song: Path, whole: bytes) -> None:
    for frame in (5, 8, 10, 12, 14):
        with pytest.raises(KeyboardInterrupt):
            make(stop_at=frame)
    assert make().content == whole


def test_a_stopped_film_can_be_played_and_is_resumed(
    make: Make, song: Path, settings: Settings, mini: Models, whole: bytes
) -> None:
    done: list[int] = []
    (film,) = render_job(
        prepare(song, song.with_name("film.mp4"), settings, selection=mini.selection),
        load=lambda *_, **__: mini,
        stop=lambda: done[-1] >= 10,
        on_progress=lambda progress: done.append(progress.done),
    )
    assert (film.partial, probe(film.path).frames, film.path.name) == (True, 10, "film.partial.mp4")
    assert names(song.parent) == ["film.partial.json", "film.partial.mp4", "film.w2c", "song.wav"]
    assert len(json.loads(film.record.read_text())["frames"]["loss"]) == 10
    made = make()
    assert made.content == whole
    assert made.painted[0] > 7
    assert names(song.parent) == ["film.json", "film.mp4", "film.partial.json", "film.partial.mp4", "song.wav"]


def test_a_stop_before_the_first_new_frame_gives_what_is_finished(
    song: Path, settings: Settings, mini: Models, work: Path
) -> None:
    job = prepare(song, song.with_name("film.mp4"), settings, selection=mini.selection)
    (film,) = render_job(job, load=lambda *_, **__: mini, stop=lambda: True)
    assert (film.partial, film.frames) == (True, 7)
    assert work.exists()


@pytest.mark.parametrize(
    ("name", "cut"),
    [
        *((name, True) for name in ("chunk-00000.mp4", "chunk-00001.mp4", "chunk-00001.json")),
        *(("chunk-00001.mp4", False), ("chunk-00001.safetensors", False)),
        pytest.param("chunk-00001.safetensors", True, marks=MORE),
        pytest.param("chunk-00001.json", False, marks=MORE),
    ],
)
def test_what_is_damaged_is_painted_again(name: str, cut: bool, make: Make, work: Path, whole: bytes) -> None:
    content = bytearray((work / name).read_bytes())
    content[len(content) // 2] ^= 255
    (work / name).write_bytes(content[: len(content) // 2] if cut else content)
    made = make()
    assert made.content == whole
    told = [message for message in made.messages if "is damaged, and painted again" in message]
    assert len(told) == (not name.endswith("safetensors"))


@pytest.mark.parametrize("layout", ["grid", pytest.param("separate", marks=MORE)])
def test_films_of_several_pictures_are_resumed(
    layout: str, song: Path, tmp_path: Path, settings: Settings, mini: Models
) -> None:
    for number, name in enumerate(("vocals", "drums")):
        noise = np.random.default_rng(number).uniform(-0.5, 0.5, 28_000)
        soundfile.write(tmp_path / f"{name}.wav", noise, 16_000, subtype="FLOAT")
    files = [f"{name}={tmp_path / name}.wav" for name in ("vocals", "drums")]
    changed = settings.merged({"picture": {"layout": layout}, "stems": ["vocals", "drums"], "stem_files": files})
    expected = make_films(song, changed, mini, out=tmp_path / "whole.mp4")
    with pytest.raises(KeyboardInterrupt):
        make_films(song, changed, mini, stop_at=9)
    assert len([*tmp_path.glob("*.w2c")]) == 1  # of the first film
    if layout == "separate":
        with pytest.raises(KeyboardInterrupt):
            make_films(song, changed, mini, stop_at=8)
    made = make_films(song, changed, mini)
    assert made.painted[:2] == [8, 9]
    assert [film.path.read_bytes() for film in made] == [film.path.read_bytes() for film in expected]
    both = [json.loads(film.record.read_text())["frames"] for film in (made[-1], expected[-1])]
    assert both[0] == both[1]
    assert not [*tmp_path.glob("*.w2c")]


def test_frames_of_finished_chunks_are_there_and_the_others_written_again(make: Make, song: Path, whole: bytes) -> None:
    folder = song.with_name("frames")
    with pytest.raises(KeyboardInterrupt):
        make(stop_at=9, frames_dir=folder)
    kept = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert len(kept) == 9
    made = make(frames_dir=folder)
    assert made.content == whole
    after = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert list(sorted(after)) == [f"{number:06}.png" for number in range(14)]
    assert [after[name] == kept[name] for name in sorted(kept)] == [True] * 7 + [False] * 2
    (folder / "000003.png").unlink()
    shutil.rmtree(folder)
    make(frames_dir=folder, overwrite=True)
    assert len(names(folder)) == 14


def test_another_folder_for_frames_would_lack_those_that_are_finished(make: Make, work: Path) -> None:
    with pytest.raises(OutputError, match=r"frames was none, now frames"):
        make(frames_dir=work.with_name("frames"))


# What differs


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "a number": ({"painting": {"steps": 2}}, "painting.steps was 1, now 2"),
    "several": (
        {"painting": {"steps": 2, "cuts": 3}, "motion": {"zoom": 0.1}},
        "painting.steps was 1, now 2; painting.cuts was 2, now 3; motion.zoom was 0.0, now 0.1",
    ),
    "many": (
        {
            "painting": {"steps": 2, "cuts": 3, "first_steps": 3, "tv_weight": 1, "learning_rate": 0.1},
            "motion": {"zoom": 0.1, "smoothing": 1, "scenes": "sections"},
        },
        "; and 2 more",
    ),
    "seed": ({"run": {"seed": 8}}, "run.seed was 7, now 8"),
    "prompts": ({"prompts": ["a boat"]}, "prompts changed"),
    "length": ({"sound": {"duration": 1.0}}, "samples changed"),
    "fps": ({"picture": {"painted_fps": 8}}, "picture.painted_fps was 4.0, now 8.0"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_other_settings_are_named_and_nothing_is_touched(case: str, make: Make, work: Path) -> None:
    changes, clause = CHANGES[case]
    before = {path: path.read_bytes() for path in work.iterdir()}
    with pytest.raises(OutputError) as caught:
        make(changes)
    assert caught.value.what.startswith(f"{work} is of an interrupted run that differs: ")
    assert clause in caught.value.what
    assert "--fresh" in caught.value.hint
    assert "finished in" not in caught.value.what
    assert {path: path.read_bytes() for path in work.iterdir()} == before


def test_fresh_begins_anew(make: Make, work: Path, whole: bytes) -> None:
    assert make({"painting": {"steps": 2}}, fresh=True).content != whole
    assert not work.exists()


def test_an_image_is_compared_by_its_content(make: Make, song: Path) -> None:
    for name, color in (("a.png", 40), ("b.png", 40), ("c.png", 200)):
        Image.new("RGB", (32, 32), (color, 90, 90)).save(song.with_name(name))
    first, same, other = ({"painting": {"init_image": str(song.with_name(f"{name}.png"))}} for name in "abc")
    with pytest.raises(KeyboardInterrupt):
        make(first, stop_at=9)
    with pytest.raises(OutputError, match=r"painting\.init_image changed"):
        make(other)
    assert make(same).painted[0] == 8


def test_another_song_is_refused(make: Make, song: Path, work: Path) -> None:
    soundfile.write(song, np.random.default_rng(0).uniform(-0.5, 0.5, 28_000), 16_000, subtype="FLOAT")
    with pytest.raises(OutputError, match=r"differs: song changed"):
        make()


def test_other_weights_and_versions_are_refused(make: Make, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {key.removeprefix("version of "): value for key, value in plan_of(work).items() if "version of" in key}
    monkeypatch.setattr(record, "versions", lambda: {**found, "torch": "9.9"})
    with pytest.raises(OutputError, match=r"version of torch was .*, now 9\.9"):
        make()
    monkeypatch.undo()
    (work / "plan.json").write_text(json.dumps(plan_of(work) | {"weights of vqgan": "0" * 64}))
    with pytest.raises(OutputError, match=r"differs: weights of vqgan changed"):
        make()


def plan_of(work: Path) -> dict[str, Any]:
    plan = read_plan(work.with_suffix(".mp4"))
    assert plan
    return plan


def test_a_folder_of_another_version_of_the_format_is_refused(make: Make, work: Path) -> None:
    (work / "plan.json").write_text(json.dumps(plan_of(work) | {"format": 2, "w2c-gen": "9.1", "more": 1}))
    with pytest.raises(OutputError, match=r"differs: it was written by another version of w2c-gen, 9\.1$"):
        make()


@pytest.mark.parametrize("content", ["", "{", "[]", None])
def test_a_folder_without_its_plan_is_refused_and_begun_anew_on_request(
    content: str | None, make: Make, work: Path, whole: bytes
) -> None:
    if content is None:
        (work / "plan.json").unlink()
    else:
        (work / "plan.json").write_text(content)
    with pytest.raises(OutputError, match="its plan is missing or damaged"):
        make()
    assert make(fresh=True).content == whole


# What does not


def test_what_does_not_change_the_picture_does_not_prevent_resuming(
    make: Make, song: Path, work: Path, mini: Models
) -> None:
    changes = {"sound": {"codec": "aac"}, "run": {"models": "mini", "device": "cpu"}}
    made = make(changes, keep_work=True, overwrite=True)
    assert made.painted[0] == 8
    assert work.exists()


def test_a_folder_with_nothing_finished_is_begun_anew(make: Make, work: Path) -> None:
    for path in work.glob("chunk-*"):
        path.unlink()
    assert make({"painting": {"steps": 2}}).painted[0] == 1


def test_a_moved_film_is_resumed_in_its_new_place(make: Make, song: Path, work: Path, whole: bytes) -> None:
    place = song.with_name("there")
    place.mkdir()
    work.rename(place / "other.w2c")
    made = make(out=place / "other.mp4")
    assert (made.painted[0], made.content) == (8, whole)


@pytest.mark.parametrize("fresh", [False, True])
def test_a_drawn_seed_is_that_of_the_interrupted_run(
    fresh: bool, song: Path, settings: Settings, mini: Models, work: Path
) -> None:
    drawn = settings.merged({"run": {"seed": None}})
    job = prepare(song, song.with_name("film.mp4"), drawn, selection=mini.selection, fresh=fresh)
    assert (job.seed == 7) != fresh
    if not fresh:
        assert make_films(song, drawn, mini)[0].seed == 7


def test_a_kept_folder_makes_the_film_again_without_painting(make: Make, song: Path, whole: bytes) -> None:
    assert make(keep_work=True).content == whole
    again = make(overwrite=True)
    assert (again.content, again.painted, again.messages[-1]) == (whole, [], "resuming at 0:02 of 0:02")
    assert names(song.parent) == ["film.json", "film.mp4", "song.wav"]


# The folder


@pytest.mark.parametrize("at", [2, 9, 14])
def test_a_folder_that_is_deleted_while_painting_is_named(
    at: int, song: Path, settings: Settings, mini: Models
) -> None:
    work = song.with_name("film.w2c")

    def follow(progress: Progress) -> None:
        if progress.stage == "optimize" and progress.done == at:
            while work.exists():  # ffmpeg may just be making a file in it
                shutil.rmtree(work, ignore_errors=True)

    job = prepare(song, song.with_name("film.mp4"), settings, selection=mini.selection)
    with pytest.raises(OutputError, match=r"film\.w2c was removed while its film was made"):
        next(render_job(job, load=lambda *_, **__: mini, on_progress=follow))
    assert names(song.parent) == ["song.wav"]


def test_a_foreign_folder_is_refused_before_anything_is_made(make: Make, song: Path) -> None:
    song.with_name("film.w2c").mkdir()
    song.with_name("film.w2c").joinpath("mine.txt").touch()
    with pytest.raises(OutputError, match=r"film\.w2c is not a work folder of w2c-gen"):
        make()
    assert names(song.parent) == ["film.w2c", "song.wav"]


def test_of_a_read_only_folder_the_error_tells(make: Make, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Any, *arguments: Any, **options: Any) -> int:
        if Path(path).name == "lock":
            raise PermissionError(13, "Permission denied")
        return open_file(path, *arguments, **options)

    open_file = os.open
    monkeypatch.setattr("os.open", refuse)
    with pytest.raises(OutputError, match=r"cannot write into the folder .*film\.w2c: Permission denied"):
        make()
    assert len(names(work)) == 7


def test_another_number_of_threads_is_refused(work: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bits of a film depend on it."""
    count = torch.get_num_threads()
    monkeypatch.setattr(torch, "get_num_threads", lambda: count + 1)
    with pytest.raises(OutputError, match=f"differs: threads was {count}, now {count + 1}"):
        make()
    assert work.is_dir()
