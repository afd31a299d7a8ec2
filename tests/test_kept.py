"""No failure loses a finished chunk, the same command goes on, and nothing is destroyed without consent."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from tests.conftest import Write
from wav2clip_gen import ffmpeg, pipeline
from wav2clip_gen.config import Settings
from wav2clip_gen.errors import OutputError, SoundError, VideoError, W2CError
from wav2clip_gen.files import settle
from wav2clip_gen.job import prepare
from wav2clip_gen.models.registry import Models
from wav2clip_gen.pipeline import render, render_job
from wav2clip_gen.preview import make_storyboard
from wav2clip_gen.progress import Film, Progress
from wav2clip_gen.video import division, frames
from wav2clip_gen.video.claim import claim
from wav2clip_gen.video.verify import probe

FINISHED = r"{} of 0:02 are finished in .*film\.w2c, and the same command resumes"
HALF, ALL = FINISHED.format("0:01"), FINISHED.format("0:02")
LEFT = ["film.w2c", "song.wav"]


@pytest.fixture
def song(write_sound: Write, tone: NDArray[np.float64]) -> Path:
    return write_sound(tone)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "film.mp4"


@pytest.fixture(autouse=True)
def _short_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of three frames each."""
    monkeypatch.setattr(division, "SECONDS", 0.75)
    monkeypatch.setattr(division, "FEWEST", 3)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, small: Settings, mini: Models, tone: NDArray[np.float64]) -> bytes:
    """The film of a run that nothing interrupts."""
    folder = tmp_path_factory.mktemp("whole")
    soundfile.write(folder / "song.wav", tone, 16_000, subtype="FLOAT")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(division, "SECONDS", 0.75)
        patch.setattr(division, "FEWEST", 3)
        return render(folder / "song.wav", folder / "film.mp4", small, family=mini).path.read_bytes()


@pytest.fixture
def make(song: Path, out: Path, small: Settings, mini: Models) -> Callable[..., Film]:
    """Render six frames; `at` is called with the number of each finished frame, or 0 and the name of a later stage."""

    def run(at: Callable[[int, str], None] = lambda frame, stage: None, **options: Any) -> Film:
        def follow(progress: Progress) -> None:
            if progress.stage == "optimize" and progress.done:
                at(progress.done, "")
            elif progress.stage in ("mux", "verify"):
                at(0, progress.stage)

        return render(song, out, small, family=mini, on_progress=follow, **options)

    return run


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def break_ffmpeg(out: Path, pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on, an ffmpeg whose arguments match a shell pattern finds a full disk after some bytes."""
    broken = out.parent.parent / f"{out.parent.name}-ffmpeg"
    broken.write_text(
        f'#!/bin/sh\ncase "$*" in *{pattern}*) head -c 1000 >/dev/null; '
        'for last; do :; done; echo "${last#file:}: No space left on device" >&2; exit 1;; esac\n'
        f'exec "{ffmpeg.find_ffmpeg()}" "$@"\n'
    )
    broken.chmod(0o755)
    monkeypatch.setenv("W2C_FFMPEG", str(broken))


# Failures


@pytest.mark.parametrize("pattern", ["title=", "concat"])
def test_a_disk_that_is_full_when_joining_keeps_the_chunks(
    pattern: str, make: Callable[..., Film], out: Path, whole: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(frame: int, stage: str) -> None:
        if frame == 6:
            break_ffmpeg(out, pattern, monkeypatch)

    with pytest.raises(VideoError, match=ALL) as caught:
        make(fill)
    assert "No space left on device" in caught.value.what
    assert str(caught.value) == caught.value.what
    assert "free some disk space" in caught.value.hint
    assert names(out.parent) == LEFT
    monkeypatch.delenv("W2C_FFMPEG")
    assert make().path.read_bytes() == whole
    assert names(out.parent) == ["film.json", "film.mp4", "song.wav"]


def test_a_disk_that_is_full_in_a_later_chunk_keeps_those_before(
    make: Callable[..., Film], out: Path, whole: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(frame: int, stage: str) -> None:
        if frame == 3:
            break_ffmpeg(out, "rawvideo*rgb24*32x32", monkeypatch)

    with pytest.raises(VideoError, match=r"No space left.*; 0:01 of 0:02 are finished in .*film\.w2c") as caught:
        make(fill)
    assert "free some disk space" in caught.value.hint
    monkeypatch.delenv("W2C_FFMPEG")
    assert make().path.read_bytes() == whole


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_disk_that_is_full_in_the_first_chunk_leaves_nothing(
    overwrite: bool, make: Callable[..., Film], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old film is untouched."""
    if overwrite:
        make()
    before = {path: path.read_bytes() for path in out.parent.iterdir()}
    break_ffmpeg(out, "rawvideo*rgb24*32x32", monkeypatch)
    with pytest.raises(VideoError, match=r"could not write .*film\.mp4: .* No space left"):
        make(overwrite=overwrite)
    assert {path: path.read_bytes() for path in out.parent.iterdir()} == before


def test_a_disk_that_is_full_for_frames_keeps_the_finished_chunk(
    make: Callable[..., Film], out: Path, whole: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:

    def full(part: Path, path: Path) -> None:
        if path.name == "000004.png":
            raise OSError(28, "No space left on device")
        settle(part, path)

    folder = out.parent / "frames"
    with monkeypatch.context() as patch:
        patch.setattr(frames, "settle", full)
        with pytest.raises(OutputError, match=rf"000004\.png.*{HALF}"):
            make(frames_dir=folder)
    assert names(folder) == [f"{number:06}.png" for number in range(4)]
    assert make(frames_dir=folder).path.read_bytes() == whole
    assert names(folder) == [f"{number:06}.png" for number in range(6)]


@pytest.mark.parametrize(
    ("change", "stage"), [("moved", "mux"), ("cut short", "mux"), ("replaced", "mux"), ("replaced", "verify")]
)
def test_a_song_that_changes_meanwhile_is_named_and_the_chunks_are_kept(
    change: str, stage: str, make: Callable[..., Film], song: Path, out: Path
) -> None:
    def spoil(frame: int, at: str) -> None:
        if at != stage:
            return
        if change == "moved":
            song.rename(song.with_name("elsewhere.wav"))
        elif change == "cut short":
            song.write_bytes(song.read_bytes()[:30_000])
        else:
            noise = np.random.default_rng(0).uniform(-0.5, 0.5, 24_000)
            soundfile.write(song, noise, 16_000, subtype="FLOAT")

    what = "moved" if change == "moved" else "changed"
    with pytest.raises(SoundError, match=rf"song\.wav was {what} while its film was made; {ALL}"):
        make(spoil)
    assert names(out.parent) == sorted([*LEFT[:1], *(path.name for path in out.parent.glob("*.wav"))])


def test_inputs_that_are_moved_meanwhile_lose_neither_film_nor_record(
    song: Path, out: Path, small: Settings, mini: Models
) -> None:
    """They are hashed before the first frame."""
    drums = Path(shutil.copy(song, song.with_name("drums.wav")))
    settings = small.merged({"stems": ["drums"], "stem_files": [f"drums={drums}"]})

    def move(progress: Progress) -> None:
        if progress.stage == "optimize" and progress.done == 1:
            drums.unlink()

    film = render(song, out, settings, family=mini, on_progress=move)
    assert json.loads(film.record.read_text())["stems"]["drums"]["sha256"]


@pytest.mark.parametrize(
    ("error", "frame", "stage"),
    [
        (KeyboardInterrupt(), 1, ""),
        (MemoryError(), 4, ""),
        (KeyboardInterrupt(), 0, "mux"),
        (RuntimeError("a listener failed"), 0, "verify"),
    ],
)
def test_any_other_failure_keeps_the_finished_chunks(
    error: BaseException, frame: int, stage: str, make: Callable[..., Film], out: Path, whole: bytes
) -> None:
    def fail(done: int, at: str) -> None:
        if (done, at) == (frame, stage):
            raise error

    with pytest.raises(type(error)) as caught:
        make(fail)
    assert names(out.parent) == (["song.wav"] if frame == 1 else LEFT)
    if isinstance(error, KeyboardInterrupt):
        assert (str(caught.value) == "") if frame else caught.match(ALL)
    assert make().path.read_bytes() == whole


def test_what_is_finished_is_reported_for_foreign_errors_too(
    song: Path, out: Path, small: Settings, mini: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise ZeroDivisionError

    messages: list[str] = []
    monkeypatch.setattr(pipeline, "mux", broken)
    with pytest.raises(ZeroDivisionError):
        render(song, out, small, family=mini, on_progress=lambda progress: messages.append(progress.message))
    done = f"0:02 of 0:02 are finished in {out.with_suffix('.w2c')}"
    assert messages[-1] == f"{done}, and the same command resumes"


def test_a_record_that_cannot_be_written_keeps_the_chunks(
    make: Callable[..., Film], out: Path, whole: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Path.write_text

    def full(self: Path, *arguments: Any, **options: Any) -> int:
        if self.name == "film.json":
            raise OSError(28, "No space left on device")
        return write(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(OutputError, match=rf"cannot write .*film\.mp4: No space left on device; {ALL}"):
            make()
    assert names(out.parent) == LEFT
    assert make().path.read_bytes() == whole


# Names


@pytest.mark.parametrize("length", [244, 250])
def test_a_stopped_film_with_a_long_name_can_be_played(
    length: int, song: Path, out: Path, small: Settings, mini: Models
) -> None:
    frames: list[int] = []
    job = prepare(song, out.with_name(f"{'n' * length}.mp4"), small)
    (film,) = render_job(
        job,
        load=lambda *_, **__: mini,
        stop=lambda: max(frames, default=0) >= 2,
        on_progress=lambda progress: frames.append(progress.done * (progress.stage == "optimize")),
    )
    assert (film.partial, probe(film.path).frames, film.record.exists()) == (True, 2, True)
    assert film.path.name.endswith(".partial.mp4")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("n" * 251 + ".mp4", {}),  # the record has one byte more
        ("n" * 245 + ".mp4", {"picture": {"layout": "separate"}, "stems": ["vocals", "drums"]}),
        ("ü" * 126 + ".mp4", {}),
    ],
)
def test_a_name_that_a_run_would_need_and_is_too_long_is_refused_at_once(
    name: str, options: dict[str, Any], song: Path, small: Settings
) -> None:
    with pytest.raises(OutputError, match="is too long"):
        prepare(song, song.with_name(name), small.merged(options))
    assert names(song.parent) == ["song.wav"]


def test_a_storyboard_whose_default_name_is_too_long_is_refused_at_once(
    song: Path, small: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(song.parent)
    long = song.rename(song.with_name("n" * 245 + ".wav"))
    with pytest.raises(OutputError, match=r"n\.storyboard\.png is too long"):
        prepare(long, settings=small, storyboard=True)


# What others have made


def test_of_two_runs_with_one_output_exactly_one_makes_it(song: Path, out: Path, small: Settings, mini: Models) -> None:
    """The other one is refused before its first frame."""
    together, painted = Barrier(2), list[str]()

    def make(name: str) -> Film | W2CError:
        job = prepare(song, out, small.merged({"run": {"seed": len(name)}}))
        together.wait()

        def follow(progress: Progress) -> None:
            if progress.stage == "optimize" and progress.done == 1:
                painted.append(name)

        try:
            return next(render_job(job, load=lambda *_, **__: mini, on_progress=follow))
        except W2CError as error:
            return error

    with ThreadPoolExecutor() as pool:
        results = list(pool.map(make, ["a", "bb"]))
    (film,) = (one for one in results if isinstance(one, Film))
    (error,) = (one for one in results if isinstance(one, OutputError))
    assert error.what in (f"another run is making {out}", f"{out} exists")
    assert json.loads(film.record.read_text())["settings"]["run"]["seed"] == film.seed == len(painted[0])
    assert len(painted) == 1
    assert names(out.parent) == ["film.json", "film.mp4", "song.wav"]


def test_a_film_that_another_run_finished_before_this_one_began_is_not_replaced(
    song: Path, out: Path, small: Settings, mini: Models
) -> None:
    job = prepare(song, out, small)
    out.write_text("foreign")
    with pytest.raises(OutputError, match="exists"):
        next(render_job(job, load=lambda *_, **__: mini))
    assert out.read_text() == "foreign"


def test_a_file_that_appears_while_frames_are_made_is_not_replaced(make: Callable[..., Film], out: Path) -> None:
    film = make(lambda frame, stage: stage == "mux" and out.write_text("foreign"))
    assert (out.read_text(), film.path.name, film.partial) == ("foreign", "film.partial.mp4", False)
    assert probe(film.path).frames == 6
    assert json.loads(film.record.read_text())["film"] == "film.partial.mp4"
    assert names(out.parent) == ["film.mp4", "film.partial.json", "film.partial.mp4", "song.wav"]


def test_a_foreign_file_in_place_of_the_record_is_not_replaced_even_with_overwrite(
    song: Path, out: Path, small: Settings
) -> None:
    out.with_suffix(".json").write_text('{"mine": 1}')
    with pytest.raises(OutputError, match="not a run record"):
        prepare(song, out, small, overwrite=True)


def test_frames_of_one_folder_are_written_by_one_run(song: Path, out: Path, small: Settings, mini: Models) -> None:
    folder = out.parent / "frames"
    jobs = [prepare(song, out.with_name(name), small, frames_dir=folder) for name in ("a.mp4", "b.mp4")]
    films = render_job(jobs[0], load=lambda *_, **__: mini)
    next(films)  # its claims last until the iterator is closed
    with pytest.raises(OutputError, match="another run is writing frames"):
        next(render_job(jobs[1], load=lambda *_, **__: mini))
    films.close()
    with pytest.raises(OutputError, match=r"holds 000000\.png"):
        next(render_job(jobs[1], load=lambda *_, **__: mini))


def test_a_sheet_is_claimed_and_not_replaced_either(
    song: Path, out: Path, small: Settings, mini: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = prepare(song, out.with_suffix(".png"), small, storyboard=True)
    with claim(job.out), pytest.raises(OutputError, match="another run is making"):
        make_storyboard(job, load=lambda *_, **__: mini)

    def appear(progress: Progress) -> None:
        if progress.stage == "draw":
            job.out.write_text("foreign")

    with pytest.raises(OutputError, match="appeared meanwhile"):
        make_storyboard(job, load=lambda *_, **__: mini, on_progress=appear)
    assert job.out.read_text() == "foreign"
