"""The work folder: chunks that are finished or not there, joined without a seam; nothing foreign is touched."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.video.conftest import RATES, line, picture
from wav2clip_gen import ffmpeg
from wav2clip_gen.audio.timeline import exact_fps
from wav2clip_gen.errors import OutputError, VideoError, W2CError
from wav2clip_gen.files import flush, settle
from wav2clip_gen.video import chunks
from wav2clip_gen.video.chunks import WorkFolder, half_published, open_work, read_plan
from wav2clip_gen.video.division import Chunk
from wav2clip_gen.video.verify import probe
from wav2clip_gen.video.writer import FilmWriter

PLAN = {"format": 1, "settings.run.seed": 7}


def spans(*lengths: int) -> list[Chunk]:
    edges = np.cumsum([0, *lengths]).tolist()
    return [Chunk(number=number, start=edges[number], stop=edges[number + 1]) for number in range(len(lengths))]


def write(work: WorkFolder, chunk: Chunk, *, shift: int = 0) -> None:
    with FilmWriter(work.part(chunk), size=(32, 16), fps=work.timeline.fps) as writer:
        for number in range(chunk.start, chunk.stop):
            writer.write(picture(number + shift))


def paint(work: WorkFolder, chunk: Chunk, *, shift: int = 0) -> None:
    write(work, chunk, shift=shift)
    state = {"at": torch.tensor(chunk.stop)}
    work.finish(chunk, state, [{"loss": number / 3} for number in range(chunk.start, chunk.stop)], seconds=1.5)


def decode(path: Path) -> NDArray[np.uint8]:
    command = ["-i", ffmpeg.file_url(path), "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "gray", "pipe:1"]
    return np.frombuffer(ffmpeg.run(command, purpose="decode"), np.uint8).reshape(-1, 16, 32)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "film.mp4"


@pytest.fixture
def begun(out: Path) -> list[Chunk]:
    """A folder in which two of three chunks are finished, as a killed run leaves it."""
    work, three = WorkFolder(out, line(36)), spans(12, 12, 12)
    work.path.mkdir()
    work.restart(PLAN)
    for chunk in three[:2]:
        paint(work, chunk)
    (work.path / "lock").touch()
    write(work, three[2])
    return three


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Joining


@pytest.mark.parametrize("fps", RATES)
@pytest.mark.parametrize("lengths", [(4, 5, 1), (5, 4, 2), (12, 4, 12), (3,), (1,)])
def test_joined_chunks_decode_to_exactly_their_frames(lengths: tuple[int, ...], fps: float, out: Path) -> None:
    """The last may be of any length, as in a film that was stopped."""
    total, rate = sum(lengths), exact_fps(fps)
    with open_work(out, line(total, rate)) as work:
        *whole, last = spans(*lengths)
        for chunk in whole:
            paint(work, chunk)
        write(work, last)
        work.join(whole, unfinished=lengths[-1])
        facts = probe(work.picture)
        assert (facts.frames, facts.fps, facts.steady) == (total, rate, True)
        assert facts.container_seconds == pytest.approx(total / rate, abs=0.011)
        parts = [decode(work.path / f"{chunk.name}.mp4") for chunk in whole] + [decode(work.part(last))]
        np.testing.assert_array_equal(decode(work.picture), np.concatenate(parts))


def test_time_stamps_stay_exact_over_many_chunks(out: Path) -> None:
    rate = exact_fps(23.976)
    with open_work(out, line(4 * 400, rate)) as work:
        one, *_ = many = spans(*[4] * 400)
        paint(work, one)
        for chunk in many[1:]:
            (work.path / f"{chunk.name}.mp4").write_bytes((work.path / f"{one.name}.mp4").read_bytes())
        work.join(many)
        facts = probe(work.picture)
        assert (facts.frames, facts.fps, facts.steady) == (1600, rate, True)


def test_the_finished_part_can_be_played_at_any_time(out: Path) -> None:
    with open_work(out, line(36)) as work:
        work.restart(PLAN)
        other = WorkFolder(out, line(36))  # as another thread, or another process
        part = other.finished_part()
        assert not part.exists()
        first, second, third = spans(12, 12, 12)
        for chunk in (first, third):
            paint(work, chunk)
        assert probe(other.finished_part()).frames == 12
        before = part.read_bytes()
        paint(work, second)
        assert probe(other.finished_part()).frames == 36
        assert part.read_bytes().startswith(before)  # a page may read on where it was


# Finished or not


def test_what_is_finished_is_found_again(out: Path, begun: list[Chunk]) -> None:
    assert read_plan(out) == PLAN
    with open_work(out, line(36)) as work:
        assert names(work.path) == sorted(
            [f"chunk-0000{n}{suffix}" for n in (0, 1) for suffix in (".json", ".mp4", ".safetensors")]
            + ["lock", "plan.json"]
        )
        assert work.resume(begun) == []
        assert work.missing(begun) == begun[2:]
        done = work.finished(begun[1])
        assert done is not None
        assert (done.seconds, done.frames[0], len(done.frames)) == (1.5, {"loss": 4.0}, 12)
        state = work.state(begun[1])
        assert state is not None
        assert state["at"] == 24
        assert work.describe() == f"0:02 of 0:03 are finished in {work.path}, and the same command resumes"
    assert names(out.parent) == ["film.w2c"]


@pytest.mark.parametrize("suffix", [".json", ".mp4", ".safetensors"])
@pytest.mark.parametrize("how", ["cut short", "changed", "deleted"])
def test_what_is_damaged_is_painted_again_and_nothing_else(
    suffix: str, how: str, out: Path, begun: list[Chunk]
) -> None:
    """A state is needed only by the next chunk."""
    work = WorkFolder(out, line(36))
    work.keep_all = True
    paint(work, begun[2])
    damaged = begun[1]
    path = work.path / f"{damaged.name}{suffix}"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    if how == "deleted":
        path.unlink()
    else:
        path.write_bytes(content if how == "changed" and suffix != ".json" else content[: len(content) // 2])
    with open_work(out, line(36)) as again:
        notes = again.resume(begun)
        assert again.missing(begun) == ([] if suffix == ".safetensors" else [damaged])
        told = suffix != ".safetensors" and (suffix, how) != (".json", "deleted")
        assert notes == ([f"{again.path / damaged.name} is damaged, and painted again"] if told else [])
        assert (again.state(damaged) is None) == (suffix == ".safetensors" or bool(again.missing(begun)))


def test_without_the_state_before_it_the_chunk_before_is_painted_again(out: Path, begun: list[Chunk]) -> None:
    work = WorkFolder(out, line(36))
    (work.path / "chunk-00000.safetensors").unlink()
    (work.path / "chunk-00001.mp4").unlink()
    with open_work(out, line(36)) as again:
        again.resume(begun)
        assert again.missing(begun) == begun


def test_chunks_of_another_division_do_not_count(out: Path, begun: list[Chunk]) -> None:
    with open_work(out, line(36)) as work:
        others = spans(12, 13, 11)
        assert len(work.resume(others)) == 1
        assert work.missing(others) == others[1:]


def test_old_states_are_removed_but_for_every_16th(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "EVERY", 3)
    many = spans(*[4] * 6)
    for keep, kept in ((False, [2, 4, 5]), (True, [*range(6)])):
        with open_work(out, line(24), keep=keep) as work:
            work.restart(PLAN)
            for chunk in many:
                paint(work, chunk)
            assert [int(path.stem[-1]) for path in sorted(work.path.glob("*.safetensors"))] == kept


@pytest.mark.parametrize("at", ["chunk-00000.mp4", "chunk-00000.safetensors", "chunk-00000.json"])
def test_a_chunk_that_the_disk_does_not_take_is_not_finished(
    at: str, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []

    def full(part: Path, path: Path) -> None:
        order.append(path.name)
        if path.name == at:
            raise OSError(28, "No space left on device")
        settle(part, path)

    monkeypatch.setattr(chunks, "settle", full)
    (chunk,) = spans(12)
    with pytest.raises(OutputError, match=r"cannot write .*film\.(w2c|mp4).*No space left") as caught:
        fail_to_paint(out, chunk)
    assert "free some disk space" in caught.value.hint
    assert order == ["plan.json", *[f"chunk-00000.{one}" for one in ("mp4", "safetensors", "json")]][: len(order)]
    assert names(out.parent) == []


def fail_to_paint(out: Path, chunk: Chunk) -> None:
    with open_work(out, line(12)) as work:
        work.restart(PLAN)
        paint(work, chunk)


def test_everything_is_on_the_disk_before_its_name(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power failure at any moment finds whole files only: each is flushed, then renamed, and the last is the JSON."""
    order: list[str] = []
    replace = Path.replace

    def flushed(path: Path) -> None:
        order.append(f"flush {path.name}")
        flush(path)

    def renamed(part: Path, path: Path) -> Path:
        order.append(f"rename {path.name}")
        return replace(part, path)

    monkeypatch.setattr("wav2clip_gen.files.flush", flushed)
    monkeypatch.setattr(chunks, "flush", flushed)
    monkeypatch.setattr(Path, "replace", renamed)
    with open_work(out, line(12)) as work:
        work.restart(PLAN)
        paint(work, *spans(12))
    files = ["plan.json", "", "chunk-00000.mp4", "chunk-00000.safetensors", "chunk-00000.json"]
    expected = [[f"flush {name}.part", f"rename {name}"] for name in files]
    expected[1] = ["flush film.w2c", f"flush {out.parent.name}"]
    assert order == [*(step for steps in expected for step in steps), "flush film.w2c"]


# The folder


def test_a_folder_that_was_being_removed_is_begun_anew(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(path: Path, *, missing_ok: bool = False) -> None:
        raise MemoryError

    with open_work(out, line(12)) as work:
        work.restart(PLAN)
        paint(work, *spans(12))
        with monkeypatch.context() as patch:
            patch.setattr(Path, "unlink", killed)
            with pytest.raises(MemoryError):
                work.clear()
        assert sorted(path.name for path in work.path.glob("chunk-*.json"))
        assert not (work.path / "plan.json").exists()
    with open_work(out, line(12)) as work:
        assert not work.has_chunks
        assert not list(work.path.glob("plan*"))
    assert not work.path.exists()


def test_the_folder_of_a_finished_film_is_removed_unless_it_is_kept(out: Path) -> None:
    for keep in (False, True):
        with open_work(out, line(12), keep=keep) as work:
            work.restart(PLAN)
            paint(work, *spans(12))
            work.join(spans(12))
            work.film.touch()
            work.published = True
        assert names(out.parent) == ["film.w2c"] * keep
    kept = [*(f"chunk-00000.{suffix}" for suffix in ("json", "mp4", "safetensors")), "plan.json"]
    assert names(work.path) == kept


def test_foreign_files_are_never_removed(out: Path, begun: list[Chunk]) -> None:
    (out.with_suffix(".w2c") / "notes.txt").write_text("mine")
    with open_work(out, line(36)) as work:
        work.resume(begun)
        work.published = True
    assert names(work.path) == ["notes.txt"]


@pytest.mark.parametrize("what", ["file", "folder", "link"])
def test_what_is_no_work_folder_is_refused_and_untouched(what: str, out: Path, tmp_path: Path) -> None:
    path = out.with_suffix(".w2c")
    if what == "file":
        path.write_text("mine")
    elif what == "folder":
        path.mkdir()
        (path / "mine.txt").touch()
    else:
        path.symlink_to(tmp_path)
    before = names(path) if path.is_dir() else []
    with pytest.raises(OutputError, match=r"film\.w2c is not a") as caught, open_work(out, line(12)):
        pass
    assert "move it away" in caught.value.hint
    assert (names(path) if path.is_dir() else []) == before


def test_a_folder_is_used_by_one_run_at_a_time(out: Path, begun: list[Chunk]) -> None:
    with open_work(out, line(36)) as work:
        other = open_work(out.with_suffix(".MP4"), line(36))  # another film, with the same record and folder
        with pytest.raises(OutputError, match="another run is making"), other:
            pass
        work.resume(begun)
    assert work.has_chunks


def test_a_folder_that_cannot_be_made_is_an_error(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(*arguments: object, **options: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", read_only)
    with pytest.raises(OutputError, match=r"cannot write into the folder .*Read-only"), open_work(out, line(12)):
        pass


@pytest.mark.parametrize("do", ["finish", "write", "join"])
def test_a_folder_that_is_removed_meanwhile_is_named_and_not_made_again(do: str, out: Path, begun: list[Chunk]) -> None:
    def lose(work: WorkFolder) -> None:
        work.resume(begun)
        if do == "finish":
            write(work, begun[2])
        for path in work.path.iterdir():
            path.unlink()
        work.path.rmdir()
        if do == "finish":
            work.finish(begun[2], {"at": torch.tensor(1)}, [], seconds=1)
        elif do == "write":
            write(work, begun[2])
        else:
            work.join(begun)

    with pytest.raises(OutputError, match=r"film\.w2c was removed while its film was made"):
        within(out, lose)
    assert names(out.parent) == []


def within(out: Path, do: Callable[[WorkFolder], None]) -> None:
    with open_work(out, line(36)) as work:
        do(work)


# Errors


@pytest.mark.parametrize("error", [OutputError("no space", hint="h"), KeyboardInterrupt(), ZeroDivisionError()])
def test_an_error_tells_what_is_finished(error: BaseException, out: Path, begun: list[Chunk]) -> None:
    told = list[str]()

    def fail() -> None:
        with open_work(out, line(36), report=told.append) as work:
            work.resume(begun)
            raise error

    with pytest.raises(type(error)) as caught:
        fail()
    clause = f"0:02 of 0:03 are finished in {out.with_suffix('.w2c')}, and the same command resumes"
    message = told[0] if isinstance(error, ZeroDivisionError) else str(caught.value)
    assert message == (f"no space; {clause}" if isinstance(error, W2CError) else clause)


def test_of_half_a_seam_alone_an_error_tells_that_it_is_kept(out: Path) -> None:
    half, _ = Chunk(number=1, start=10, stop=14, segment=1, seam=True).halves

    def stop() -> None:
        with open_work(out, line(36)) as work:
            work.restart(PLAN)
            work.finish(half, {"latent": torch.zeros(1)}, [{}] * 2, seconds=1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match=r"what was begun is in .*film\.w2c, and the same command resumes"):
        stop()


def test_messages_name_the_film_and_not_its_parts(out: Path) -> None:
    def fail() -> None:
        with open_work(out, line(12)) as work:
            part = work.part(*spans(12))
            raise VideoError(f"could not write {part}: {part.name}; {work.film} has 3 frames")

    with pytest.raises(VideoError) as caught:
        fail()
    assert caught.value.what == str(caught.value) == f"could not write {out}: chunk-00000.mp4.part; {out} has 3 frames"


def test_a_film_that_got_its_name_as_its_run_was_killed_gets_it_again(out: Path, begun: list[Chunk]) -> None:
    work = WorkFolder(out, line(36))
    for path, name in ((work.film, out), (work.record, out.with_suffix(".json"))):
        path.write_text("made")
        name.hardlink_to(path)
    assert half_published(out)
    with open_work(out, line(36)) as again:
        again.resume(begun)
        assert names(out.parent) == ["film.w2c"]
    out.write_text("another")
    assert not half_published(out)
    with open_work(out, line(36)) as again:
        again.resume(begun)
    assert out.read_text() == "another"


def test_a_damaged_plan_is_none(out: Path, begun: list[Chunk]) -> None:
    path = out.with_suffix(".w2c") / "plan.json"
    for content in (json.dumps(PLAN)[:-4], "[]", ""):
        path.write_text(content)
        assert read_plan(out) is None
