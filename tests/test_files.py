from __future__ import annotations

from pathlib import Path

import pytest

from wav2clip_gen.errors import OutputError
from wav2clip_gen.files import appear_whole, check_output, scratch_path, written


def refused(path: Path) -> str:
    with pytest.raises(OutputError) as caught:
        check_output(path)
    assert caught.value.hint
    return caught.value.what


def test_a_writable_place_is_accepted_and_unchanged(tmp_path: Path) -> None:
    check_output(tmp_path / "film.mp4")
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "does not exist" in refused(tmp_path / "nowhere" / "film.mp4")
    assert "is a file, not a folder" in refused(tmp_path / "file" / "film.mp4")
    assert "is a folder" in refused(tmp_path)
    assert "cannot write into the folder /proc" in refused(Path("/proc/film.mp4"))
    assert "is too long" in refused(tmp_path / f"{'long' * 63}.mp4")
    assert "is too long" in refused(tmp_path / f"{'ü' * 126}.mp4")


def test_an_old_film_is_only_replaced_on_request(tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    film.write_text("old")
    assert "exists" in refused(film)
    check_output(film, overwrite=True)
    assert film.read_text() == "old"


def write_half(path: Path) -> None:
    with appear_whole(path) as part:
        part.write_text("half")
        raise KeyboardInterrupt


def test_a_film_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    film.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        write_half(film)
    assert (film.read_text(), list(tmp_path.iterdir())) == ("old", [film])
    with appear_whole(film) as part:
        part.write_text("new")
        assert film.read_text() == "old"
    assert (film.read_text(), list(tmp_path.iterdir())) == ("new", [film])


def test_a_film_that_cannot_be_renamed_is_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "film.mp4"
    (folder / "inside").mkdir(parents=True)
    with (
        pytest.raises(OutputError, match=r"cannot write .*film\.mp4") as caught,
        appear_whole(folder, option="--keep-stems") as part,
    ):
        part.touch()
    assert caught.value.hint == "choose another --keep-stems"
    assert list(tmp_path.iterdir()) == [folder]


def write_while_it_appears(path: Path) -> None:
    with written(path, overwrite=False) as part:
        part.write_text("new")
        path.write_text("foreign")


def test_a_file_that_appeared_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    with pytest.raises(OutputError, match=r"sheet\.png appeared meanwhile"):
        write_while_it_appears(sheet)
    assert (sheet.read_text(), list(tmp_path.iterdir())) == ("foreign", [sheet])


def test_a_scratch_path_is_hidden_unique_and_removed(tmp_path: Path) -> None:
    with scratch_path(tmp_path / "film.mp4") as first, scratch_path(tmp_path / "film.mp4") as second:
        assert first != second
        assert (first.parent, first.suffix, first.name[0]) == (tmp_path, ".mp4", ".")
        first.touch()
    assert list(tmp_path.iterdir()) == []


def test_a_disk_error_while_writing_names_the_file_and_keeps_the_old_one(tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    sheet.write_text("old")
    with pytest.raises(OutputError, match=r"cannot write .*sheet.png: No space left on device"), written(sheet):
        raise OSError(28, "No space left on device")
    assert (sheet.read_text(), list(tmp_path.iterdir())) == ("old", [sheet])
