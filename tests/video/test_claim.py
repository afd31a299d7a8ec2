"""An output is made by one run at a time, and what a run leaves is kept and named."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.video.conftest import TWELVE, Film, picture
from wav2clip_gen.errors import OutputError
from wav2clip_gen.video.claim import Claim, claim, claim_folder, count_frames
from wav2clip_gen.video.writer import FilmWriter

LONGEST = "n" * 251 + ".mp4"  # 255 bytes


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "film.mp4"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def publish(claimed: Claim, *, partial: bool = False, overwrite: bool = False) -> Path:
    claimed.film.write_bytes(b"new")
    return claimed.publish(lambda path: {"film": path.name}, partial=partial, overwrite=overwrite)


def test_an_output_is_claimed_by_one_run(out: Path) -> None:
    other = claim(out.with_name("other.mp4"))
    with claim(out), other, pytest.raises(OutputError, match=r"another run is making .*film\.mp4"), claim(out):
        pass
    with claim(out) as claimed:
        assert not claimed.leftover
    assert names(out.parent) == []


def test_a_folder_for_frames_is_claimed_by_one_run(tmp_path: Path) -> None:
    with (
        claim_folder(tmp_path),
        pytest.raises(OutputError, match="another run is writing frames"),
        claim_folder(tmp_path),
    ):
        pass
    with claim_folder(tmp_path):
        pass


@pytest.mark.parametrize("name", ["film.mp4", LONGEST, "ü" * 125 + ".mp4", "with.dots.mp4"])
def test_what_a_killed_run_left_is_kept_under_a_visible_name(name: str, tmp_path: Path, film: Film) -> None:
    out = tmp_path / name
    claimed = Claim(out)
    film(6).rename(claimed.picture)
    claimed.film.write_bytes(b"half of a film with sound")
    with claim(out) as again:
        (kept,) = (path for path in tmp_path.iterdir() if not path.name.startswith("."))
        assert again.leftover.startswith(f"an earlier run of {out} was killed: the picture is kept in {kept}: 6 frames")
    assert names(tmp_path) == [kept.name]
    assert kept.name.endswith(".partial.mp4")
    assert kept.name.startswith(name[:4])
    assert len(os.fsencode(kept.with_suffix(".json").name)) <= 255
    assert count_frames(kept) == 6


@pytest.mark.parametrize("left", [b"", b"no film"])
def test_what_holds_no_frame_is_removed(left: bytes, out: Path) -> None:
    Claim(out).picture.write_bytes(left)
    with claim(out) as claimed:
        assert not claimed.leftover
    assert names(out.parent) == []


def test_an_earlier_partial_film_is_kept(out: Path, film: Film) -> None:
    for name in ("film.partial.mp4", "film.partial1.json"):
        out.with_name(name).write_text("old")
    film(6).rename(Claim(out).picture)
    with claim(out) as claimed:
        assert "film.partial2.mp4" in claimed.leftover
    assert out.with_name("film.partial.mp4").read_text() == "old"


def test_a_picture_that_cannot_be_renamed_stays_where_it_is(
    out: Path, film: Film, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(*arguments: object, **options: object) -> None:
        raise OSError(30, "Read-only file system")

    with claim(out) as claimed:
        shutil.copy(film(6), claimed.picture)
        monkeypatch.setattr("wav2clip_gen.video.claim.publish", read_only)
        assert str(claimed.picture) in claimed.keep()
    assert count_frames(claimed.picture) == 6


def test_a_fragmented_picture_counts_its_frames(out: Path) -> None:
    with FilmWriter(out, size=(32, 16), fps=TWELVE) as writer:
        assert count_frames(out) == 0
        for number in range(5):
            writer.write(picture(number))
    assert count_frames(out) == 5
    assert count_frames(out.with_name("none.mp4")) == 0


def test_film_and_record_appear_together(out: Path) -> None:
    with claim(out) as claimed:
        assert publish(claimed) == out
    assert names(out.parent) == ["film.json", "film.mp4"]
    assert out.with_suffix(".json").read_text() == '{\n "film": "film.mp4"\n}\n'


@pytest.mark.parametrize("appeared", ["film.mp4", "film.json"])
@pytest.mark.parametrize("links", [True, False])
def test_what_appeared_meanwhile_is_not_replaced(
    appeared: str, links: bool, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*arguments: object) -> None:
        raise OSError(1, "Operation not permitted")

    if not links:
        monkeypatch.setattr(os, "link", unsupported)
    with claim(out) as claimed:
        out.with_name(appeared).write_text("foreign")
        film = publish(claimed)
    assert film.name == "film.partial.mp4"
    assert out.with_name(appeared).read_text() == "foreign"
    assert names(out.parent) == sorted([appeared, "film.partial.mp4", "film.partial.json"])
    assert film.with_suffix(".json").read_text() == '{\n "film": "film.partial.mp4"\n}\n'


def test_with_overwrite_both_are_replaced(out: Path) -> None:
    for path in (out, out.with_suffix(".json")):
        path.write_text("old")
    with claim(out) as claimed:
        publish(claimed, overwrite=True)
    assert (out.read_bytes(), "old" in out.with_suffix(".json").read_text()) == (b"new", False)


def test_a_partial_film_never_replaces_the_old_one(out: Path) -> None:
    out.write_text("old")
    with claim(out) as claimed:
        film = publish(claimed, partial=True, overwrite=True)
    assert (out.read_text(), film.name) == ("old", "film.partial.mp4")


def test_messages_name_the_film_and_not_its_hidden_files(out: Path) -> None:
    claimed, told = Claim(out), list[str]()
    error = OutputError(f"{claimed.film} has 3 frames, {claimed.picture} too")
    with pytest.raises(OutputError) as caught, claimed.picture_kept(told.append):
        raise error
    assert (caught.value.what, str(caught.value)) == (f"{out} has 3 frames, {out} too",) * 2
    assert not told
