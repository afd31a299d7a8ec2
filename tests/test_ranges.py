"""A range of a finished film is made anew: the rest of its picture and its sound are the same, and the record tells."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.films import DIVIDED, Made, make_films, names, write_song
from wav2clip_gen import ffmpeg, range_render, ranges
from wav2clip_gen.config import Settings
from wav2clip_gen.errors import OutputError, SettingsError, SoundError, W2CError
from wav2clip_gen.models.registry import Models
from wav2clip_gen.progress import Progress
from wav2clip_gen.range_render import render_range
from wav2clip_gen.ranges import Replaced, open_original, parse_range, prepare_range
from wav2clip_gen.video.cut import picture_checksums, read_picture, read_pictures

pytestmark = pytest.mark.usefixtures("short_chunks", "short_fades")

MORE = (pytest.mark.slow, pytest.mark.more)
MOVING: dict[str, Any] = {"picture": {"fps": 8, "painted_fps": 4}, "motion": {"pan_x": 2.0, "rotate": 20.0}}
Redo = Callable[..., Made]


@pytest.fixture(scope="module")
def short_fades() -> Any:
    """Crossfades of four frames."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranges, "CROSSFADE", 0.5)
        yield


@pytest.fixture(scope="module")
def settings(small: Settings) -> Settings:
    return small.merged(MOVING)


def originals(folder: Path, settings: Settings, mini: Models, **options: Any) -> Path:
    return make_films(write_song(folder), settings, mini, **options)[0].path


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, settings: Settings, mini: Models, short_chunks: None) -> Path:
    """A film of 28 frames in chunks of four, and its song."""
    return originals(tmp_path_factory.mktemp("plain"), settings, mini, keep_work=True)


@pytest.fixture(scope="module")
def divided(tmp_path_factory: pytest.TempPathFactory, small: Settings, mini: Models, short_chunks: None) -> Path:
    """A film of three segments, which meet at 8 and 16."""
    return originals(tmp_path_factory.mktemp("divided"), small.merged(DIVIDED), mini)


@pytest.fixture
def film(plain: Path, tmp_path: Path) -> Path:
    """A copy of the plain film, without its work folder."""
    return copied(plain, tmp_path)


def copied(film: Path, folder: Path) -> Path:
    for name in ("film.mp4", "film.json", "song.wav"):
        shutil.copy(film.with_name(name), folder)
    return folder / "film.mp4"


@pytest.fixture
def redo(mini: Models) -> Redo:
    def run(film: Path, written: str, changes: dict[str, Any] | None = None, stop_at: int = -1, **options: Any) -> Made:
        reported: list[Progress] = []
        gently = options.pop("gently", False)

        def follow(progress: Progress) -> None:
            reported.append(progress)
            if not gently and progress.stage == "optimize" and progress.done == stop_at and not progress.message:
                raise KeyboardInterrupt

        original = open_original(film)
        changed = original.settings.merged(changes or {})
        source = film.with_name("song.wav")
        job = prepare_range(original, written, source, settings=changed, selection=mini.selection, **options)
        stop = lambda: gently and reported[-1].done >= stop_at  # noqa: E731
        made = Made([*render_range(job, load=lambda *_, **__: mini, stop=stop, on_progress=follow)], reported)
        made.messages += job.notes
        return made

    return run


def pictures(film: Path) -> NDArray[np.float64]:
    fps = open_original(film).settings.picture.fps
    return read_pictures(film, range(28), Fraction(fps), (32, 32)).astype(float)


def sound(film: Path) -> list[str]:
    copy = ["-i", ffmpeg.file_url(film), "-map", "0:a", "-c", "copy", "-f", "framecrc", "pipe:1"]
    return ffmpeg.run(copy, purpose="read").decode().splitlines()


RED: dict[str, Any] = {"prompts": ["a red square"], "painting": {"steps": 3}}


# What is made


@pytest.mark.parametrize(
    ("written", "start", "stop", "fades"),
    [
        ("1.5-2", 7, 19, (4, 2)),
        ("0-0.5", 0, 7, (0, 2)),
        pytest.param("0:03-0:03.5", 19, 28, (4, 0), marks=MORE),
        pytest.param("0-3.5", 0, 28, (0, 0), marks=MORE),
    ],
)
def test_only_the_range_is_made_anew(
    written: str, start: int, stop: int, fades: tuple[int, int], film: Path, redo: Redo
) -> None:
    before, heard, old = picture_checksums(film), sound(film), pictures(film)
    was = json.loads(film.with_suffix(".json").read_text())
    made = redo(film, written, RED)
    after = picture_checksums(film)
    changed = [number for number in range(28) if before[number] != after[number]]
    assert (changed[0], changed[-1]) == (start, stop - 1)
    assert sound(film) == heard
    content = json.loads(film.with_suffix(".json").read_text())
    (entry,) = content["ranges"]
    assert (entry["range"], entry["start"], entry["stop"]) == (written, start, stop)
    assert (entry["fade_in"], entry["fade_out"]) == fades
    assert (entry["settings"]["painting"]["steps"], content["settings"]["painting"]["steps"]) == (3, 1)
    assert content["settings"] == was["settings"]
    losses = [one["frames"]["loss"] for one in (was, content)]
    assert next(number for number in range(28) if losses[0][number] != losses[1][number]) in (start, start + 1)
    assert losses[0][:start] + losses[0][stop:] == losses[1][:start] + losses[1][stop:]
    assert made[0].sync.offset_seconds == pytest.approx(0, abs=0.02)
    assert made.painted == list(range(1, stop - start + 1))
    assert names(film.parent) == ["film.json", "film.mp4", "song.wav"]
    step = np.abs(np.diff(pictures(film), axis=0)).mean(axis=(1, 2, 3))
    edges = [edge - 1 for edge, fade in ((start, fades[0]), (stop, fades[1])) if fade]  # from frame to film
    assert all(step[edges] < 1.5 * np.abs(np.diff(old, axis=0)).mean(axis=(1, 2, 3)).max())


def test_the_note_tells_what_is_made_anew(film: Path, redo: Redo) -> None:
    why = "as the film can only be cut at its key frames"
    assert f"0:00.87-0:02.37 is generated again (12 frames, crossfades included), {why}" in redo(film, "1.5-2").messages


def test_with_its_kept_states_the_same_settings_make_the_same_film(
    plain: Path, tmp_path: Path, film: Path, redo: Redo
) -> None:
    old = pictures(film)
    (tmp_path / "without").mkdir()
    without = copied(plain, tmp_path / "without")
    shutil.copytree(plain.with_suffix(".w2c"), film.with_suffix(".w2c"))
    for one in (film, without):
        redo(one, "1.5-2")
    kept, free = (np.abs(pictures(one) - old).mean() for one in (film, without))
    assert kept < 0.5 < free
    assert film.with_suffix(".w2c").is_dir()
    redo(film, "1.5-2", {"run": {"seed": 8}})
    assert np.abs(pictures(film) - old).mean() > 0.5


def test_states_that_the_film_no_longer_shows_are_not_used(plain: Path, film: Path, redo: Redo, mini: Models) -> None:
    shutil.copytree(plain.with_suffix(".w2c"), film.with_suffix(".w2c"))

    def place() -> int | None:
        original = open_original(film)
        song, out = film.with_name("song.wav"), film.with_name("other.mp4")
        job = prepare_range(original, "3-3.5", song, out, settings=original.settings, selection=mini.selection)
        found = range_render._kept_state(job, picture_checksums(film))
        return found and found[0]

    assert place() == 19
    redo(film, "1.5-2", RED)
    assert place() == 7
    shutil.rmtree(film.with_suffix(".w2c"))
    assert place() is None
    redo(film, "3-3.5")
    assert [one["range"] for one in json.loads(film.with_suffix(".json").read_text())["ranges"]] == ["1.5-2", "3-3.5"]


def test_a_range_of_a_film_of_several_segments(divided: Path, tmp_path: Path, redo: Redo) -> None:
    film = copied(divided, tmp_path)
    before = picture_checksums(film)
    (made,) = redo(film, "1.75-2.25", RED)
    after = picture_checksums(film)
    (entry,) = json.loads(film.with_suffix(".json").read_text())["ranges"]
    changed = [number for number in range(28) if before[number] != after[number]]
    assert (changed[0], changed[-1]) == (entry["start"], entry["stop"] - 1)
    assert entry["start"] <= 10
    assert entry["stop"] >= 22
    assert made.segments == [0, 8, 16]


@pytest.mark.slow
@pytest.mark.more
def test_a_range_of_a_grid(small: Settings, tmp_path: Path, mini: Models, redo: Redo) -> None:
    changes = {
        "picture": {"layout": "grid", "fps": 8},
        "stems": ["drums"],
        "stem_files": [f"drums={tmp_path}/song.wav"],
    }
    film = originals(tmp_path, small.merged(changes), mini)
    before = picture_checksums(film)
    redo(film, "1.5-2", {"painting": {"steps": 3}})
    after = picture_checksums(film)
    (entry,) = json.loads(film.with_suffix(".json").read_text())["ranges"]
    assert before[: entry["start"]] == after[: entry["start"]]
    assert before[entry["stop"] :] == after[entry["stop"] :]
    assert before[14] != after[14]


def test_another_name_leaves_the_film(film: Path, redo: Redo) -> None:
    content = film.read_bytes()
    (made,) = redo(film, "1.5-2", RED, out=film.with_name("other.mp4"))
    assert (film.read_bytes(), made.path.name) == (content, "other.mp4")
    assert json.loads(made.record.read_text())["film"] == "other.mp4"
    assert "ranges" not in json.loads(film.with_suffix(".json").read_text())
    with pytest.raises(OutputError, match=r"other\.mp4 exists"):
        redo(film, "1.5-2", RED, out=film.with_name("other.mp4"))


# Interruption


def test_an_interrupted_range_is_resumed_and_is_the_same(film: Path, plain: Path, tmp_path: Path, redo: Redo) -> None:
    place = tmp_path / "whole"
    place.mkdir()
    expected = redo(copied(plain, place), "1.5-2.3", RED).content
    content = film.read_bytes()
    with pytest.raises(KeyboardInterrupt, match=r"0:0\d of 0:02 are finished in .*film\.range\.w2c"):
        redo(film, "1.5-2.3", RED, stop_at=10)
    assert film.read_bytes() == content
    with pytest.raises(OutputError, match=r"painting\.steps was 3, now 2"):
        redo(film, "1.5-2.3", RED | {"painting": {"steps": 2}})
    with pytest.raises(KeyboardInterrupt, match="0:02 of 0:02 are finished"):
        redo(film, "1.5-2.3", RED, stop_at=13, gently=True)
    assert names(film.parent) == ["film.json", "film.mp4", "film.range.w2c", "song.wav", "whole"]
    made = redo(film, "1.5-2.3", RED)
    assert any(message.startswith("resuming at 0:0") for message in made.messages)
    assert made.content == expected


def test_a_film_that_another_run_has_replaced_is_left_alone(film: Path, redo: Redo, mini: Models) -> None:
    original = open_original(film)
    job = prepare_range(
        original, "1.5-2", film.with_name("song.wav"), settings=original.settings, selection=mini.selection
    )
    redo(film, "1.5-2", RED)
    content = film.read_bytes()
    with pytest.raises(OutputError, match=r"film\.mp4 was replaced meanwhile by another run"):
        next(render_range(job, load=lambda *_, **__: mini))
    assert film.read_bytes() == content
    assert names(film.parent) == ["film.json", "film.mp4", "song.wav"]


def test_a_run_that_was_killed_between_film_and_record_loses_no_history(film: Path, redo: Redo) -> None:
    redo(film, "1.5-2", RED, keep_work=True)
    work = film.with_suffix(".range.w2c")
    film.with_suffix(".json").rename(work / "film.json")
    (work / "film.mp4").unlink(missing_ok=True)
    assert open_original(film).content["ranges"][0]["range"] == "1.5-2"
    assert film.with_suffix(".json").exists()


# What is refused


@pytest.mark.parametrize(
    ("written", "what"),
    [
        ("2-1", "does not end after it begins"),
        ("1-1", "does not end after it begins"),
        ("soon", "is not TIME-TIME"),
        ("1:05", "is not TIME-TIME"),
        ("-5", "is not TIME-TIME"),
    ],
)
def test_what_is_no_range_is_refused(written: str, what: str) -> None:
    with pytest.raises(SettingsError, match=what):
        parse_range(written)


def test_ranges_are_read() -> None:
    assert parse_range("1:05 - 1:20.5") == (65, 80.5)
    assert parse_range("65–80") == (65, 80)


@pytest.mark.parametrize(
    ("written", "changes", "what"),
    [
        ("3-4", {}, r"--range 3-4 is outside of the film"),
        ("4-5", {}, r"--range 4-5 is outside of the film"),
        ("1-1.1", {}, r"--range 1-1.1 is too short"),
        ("1-2", {"picture": {"width": 64}}, r"the size of .*film\.mp4 is 32x32, and these settings make 64x32"),
        ("1-2", {"picture": {"upscale": 2}}, r"the size of .* is 32x32, and these settings make 64x64"),
        ("1-2", {"picture": {"fps": 12}}, r"the fps of .* is 8, and these settings make 12"),
        ("1-2", {"sound": {"duration": 3}}, r"the number of frames of .* is 28, and these settings make 24"),
    ],
)
def test_what_does_not_fit_into_the_film_is_refused(
    written: str, changes: dict[str, Any], what: str, film: Path, redo: Redo
) -> None:
    before = {path: path.read_bytes() for path in film.parent.iterdir()}
    with pytest.raises(SettingsError, match=what):
        redo(film, written, changes)
    assert {path: path.read_bytes() for path in film.parent.iterdir()} == before


def no_record(film: Path) -> None:
    film.with_suffix(".json").unlink()


def damaged(film: Path) -> None:
    film.with_suffix(".json").write_text("{}")


def partial(film: Path) -> None:
    path = film.with_suffix(".json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"partial": True}))


def no_film(film: Path) -> None:
    film.unlink()


def no_song(film: Path) -> None:
    film.with_name("song.wav").unlink()


def other_song(film: Path) -> None:
    song = film.with_name("song.wav")
    song.write_bytes(song.read_bytes()[:-4])


@pytest.mark.parametrize(
    ("damage", "kind", "what"),
    [
        (no_record, SettingsError, r"film\.mp4 has no run record film\.json next to it"),
        (damaged, SettingsError, r"film\.json: not a run record"),
        (partial, SettingsError, r"film\.mp4 ends early, as its record says"),
        (no_film, SettingsError, r"film\.mp4 does not exist"),
        (no_song, SoundError, r"song\.wav, the song of .*film\.mp4, is missing"),
        (other_song, SoundError, r"song\.wav, the song of .*film\.mp4, was changed since"),
    ],
)
def test_what_is_no_finished_film_with_its_song_is_refused(
    damage: Callable[[Path], None], kind: type[W2CError], what: str, film: Path
) -> None:
    damage(film)
    with pytest.raises(kind, match=what) as caught:
        open_original(film)
    assert caught.value.hint


def test_another_folder_is_refused(film: Path, tmp_path: Path, redo: Redo) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(OutputError, match="is not in the folder of"):
        redo(film, "1-2", out=tmp_path / "there" / "film.mp4")


# Arithmetic


def test_the_new_picture_appears_and_disappears_evenly() -> None:
    new = Replaced(10, 30, 4, 6)
    weights = [new.weight(frame) for frame in range(10, 30)]
    assert weights[4:14] == [1] * 10
    assert weights[:4] == pytest.approx([1 - one for one in weights[3::-1]])
    assert weights[14:] == pytest.approx([1 - one for one in weights[:13:-1]])
    assert weights[0] < weights[1] < 0.5 < weights[2] < weights[3] < 1
    assert [Replaced(0, 4, 0, 0).weight(frame) for frame in range(4)] == [1] * 4


def test_a_film_is_cut_at_its_chunks(film: Path) -> None:
    found = read_picture(film)
    assert (found.frames, found.key_frames, found.size) == (28, (0, 3, 7, 11, 15, 19, 23), (32, 32))
