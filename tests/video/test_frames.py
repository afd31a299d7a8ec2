"""Folders for frames: only frames of ours are removed, and a foreign picture is never replaced."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.video.conftest import picture
from wav2clip_gen.errors import OutputError
from wav2clip_gen.video.frames import check_frames, clear_frames, is_frame, save_frame

FOREIGN = ("1.png", "01cover.png", "2020-holiday.png", "000100.png", "000000.jpg", "0000001.PNG")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three frames of ours among foreign pictures."""
    for number in range(3):
        save_frame(picture(number), tmp_path, number)
    for name in FOREIGN:
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    return tmp_path


def test_frames_are_known_as_ours(folder: Path) -> None:
    np.testing.assert_array_equal(np.asarray(Image.open(folder / "000002.png")), picture(2))
    assert [path.name for path in sorted(folder.iterdir()) if is_frame(path)] == [f"00000{n}.png" for n in range(3)]


def test_only_frames_of_ours_are_removed_and_only_with_consent(folder: Path) -> None:
    with pytest.raises(OutputError, match=r"holds 000000\.png") as caught:
        clear_frames(folder, 50)
    assert "--overwrite" in caught.value.hint
    check_frames(folder, 50, overwrite=True)
    assert len(list(folder.iterdir())) == 9
    clear_frames(folder, 50, overwrite=True)
    assert {path.name for path in folder.iterdir()} == set(FOREIGN)
    clear_frames(folder, 50)  # which block nothing


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["000004.png", "000049.png"])
def test_a_foreign_picture_is_never_replaced(name: str, overwrite: bool, folder: Path) -> None:
    clear_frames(folder, 50, overwrite=True)
    Image.new("RGB", (4, 4)).save(folder / name)
    with pytest.raises(OutputError, match=rf"{name} is not known to be a frame") as caught:
        clear_frames(folder, 50, overwrite=overwrite)
    assert "--overwrite" not in caught.value.hint
    clear_frames(folder, int(name[:6]))  # a shorter film does not need the name
    assert (folder / name).exists()


def test_a_folder_with_the_name_of_a_frame_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "000001.png").mkdir()
    with pytest.raises(OutputError, match="not known to be a frame"):
        check_frames(tmp_path, 2, overwrite=True)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write into the folder"):
        check_frames(tmp_path / "file" / "frames", 1)


def test_a_full_disk_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OutputError, match=r"000007\.png: No space left on device"):
        save_frame(picture(0), tmp_path, 7)
