"""Input images: all formats and modes are read alike, and errors are one line."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from wav2clip_gen.config import Settings
from wav2clip_gen.errors import SettingsError
from wav2clip_gen.images import FORMATS, LARGEST, check_images, read_covering, read_style

ORANGE = (255, 128, 0)
Image.init()
KINDS = [kind for kind in FORMATS if kind in Image.SAVE]
GREY = 100  # of 255; exactly 25,700 of 65,535

Save = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    def written(picture: Image.Image, name: str = "a.png", **options: object) -> Path:
        picture.save(tmp_path / name, **options)  # type: ignore[arg-type]
        return tmp_path / name

    return written


def plain(mode: str, color: object = ORANGE) -> Image.Image:
    return Image.new("RGB", (12, 8), ORANGE).convert(mode) if color is ORANGE else Image.new(mode, (12, 8), color)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("picture", "name", "color"),
    [
        (plain("RGB"), "a.png", ORANGE),
        (plain("RGB"), "a.bmp", ORANGE),
        (plain("RGB"), "a.webp", ORANGE),
        (plain("RGB"), "a.jpg", ORANGE),
        (plain("CMYK"), "a.tif", ORANGE),
        (plain("RGB").quantize(), "a.gif", ORANGE),
        (plain("RGBA", (*ORANGE, 255)), "a.png", ORANGE),
        (plain("RGBA", (*ORANGE, 0)), "a.png", (255, 255, 255)),
        (plain("RGBA", (0, 0, 0, 128)), "a.png", (127, 127, 127)),
        (plain("LA", (GREY, 255)), "a.png", (GREY, GREY, GREY)),
        (plain("L", GREY), "a.png", (GREY, GREY, GREY)),
        (plain("1", 1), "a.png", (255, 255, 255)),
        (plain("I;16", GREY * 257), "a.png", (GREY, GREY, GREY)),
        (plain("I;16", GREY * 257), "a.tif", (GREY, GREY, GREY)),
        (plain("I", GREY * 257), "a.tif", (GREY, GREY, GREY)),
        (plain("F", 0.4), "a.tif", (102, 102, 102)),
    ],
)
def test_every_format_and_mode_is_read(
    picture: Image.Image, name: str, color: tuple[int, int, int], save: Save
) -> None:
    pixels = read_covering(save(picture, name), 32, 48)
    assert pixels.shape == (48, 32, 3)
    assert np.abs(pixels.astype(int) - color).max() <= 3


def test_an_image_covers_the_frame_and_is_cropped_around_its_centre(save: Save) -> None:
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, :20], wide[:, 20:40], wide[:, 40:] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    pixels = read_covering(save(Image.fromarray(wide)), 40, 40)
    assert np.abs(pixels[:, 8:-8].astype(int) - (0, 255, 0)).max() <= 3
    assert read_covering(save(Image.fromarray(wide)), 120, 40)[20, [5, -5]].tolist() == [[255, 0, 0], [0, 0, 255]]
    assert read_covering(save(Image.new("RGB", (1, 3000))), 64, 48).shape == (48, 64, 3)


def test_the_exif_orientation_is_applied(save: Save) -> None:
    tilted = np.zeros((40, 40, 3), np.uint8)
    tilted[:20] = 255  # white above
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by half
    pixels = read_covering(save(Image.fromarray(tilted), exif=exif), 40, 40)
    assert (pixels[:18].max(), pixels[-18:].min()) == (0, 255)


def test_a_style_image_keeps_its_shape_and_is_limited_in_size(save: Save) -> None:
    assert read_style(save(Image.new("RGB", (2400, 1200)))).shape == (LARGEST // 2, LARGEST, 3)
    assert read_style(save(Image.new("RGB", (30, 15)))).shape == (15, 30, 3)


def test_a_file_that_is_no_image_is_refused(tmp_path: Path, save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "notes.png").write_text("la la la")
    (tmp_path / "empty.png").touch()
    (tmp_path / "drawing.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    for name in ("cut.png", "cut.jpg"):
        path = save(noise, name)
        path.write_bytes(path.read_bytes()[:1000])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    for side, name in ((50, "large.png"), (90, "bomb.png")):
        save(Image.new("1", (side, side)), name)
    for name, problem in {
        "none.png": "cannot be read (No such file or directory)", "folder": "cannot be read",
        "notes.png": "not a readable image", "empty.png": "not a readable image", "drawing.eps": "not a readable image",
        "large.png": "more than", "bomb.png": "more than",
    }.items():  # fmt: skip
        assert_refused(tmp_path / name, problem)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    for name in ("cut.png", "cut.jpg"):
        assert_refused(tmp_path / name, "damaged")


def assert_refused(path: Path, problem: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read_style(path)
    assert caught.value.what.startswith(f"{path}: ")
    assert problem in caught.value.what
    assert caught.value.hint
    assert "\n" not in caught.value.what


@cache
def encoded(kind: str) -> bytes:
    content = io.BytesIO()
    Image.linear_gradient("L").resize((16, 16)).convert("RGB").save(content, kind)
    return content.getvalue()


@settings(deadline=None)
@given(kind=st.sampled_from(KINDS), at=st.floats(0, 1), garbage=st.binary())
def test_damage_never_crashes(kind: str, at: float, garbage: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    whole, path = encoded(kind), tmp_path_factory.getbasetemp() / "damaged"
    place = int(at * len(whole))
    path.write_bytes(whole[:place] + garbage + whole[place + len(garbage) :])
    with contextlib.suppress(SettingsError):
        assert read_covering(path, 8, 8).shape == (8, 8, 3)


def test_images_in_settings_are_checked(save: Save) -> None:
    path = str(save(Image.new("RGB", (9, 9))))
    named = Settings().merged({"painting": {"init_image": path, "init_weight": 1}, "style_images": [f"{path}:-0.5"]})
    check_images(named)
    assert named.image_files == (path,)
    moved = named.with_image_files(lambda file: f"{file}.gone")
    assert {moved.painting.init_image, moved.style_images[0].file} == {f"{path}.gone"}
    with pytest.raises(SettingsError, match="gone: cannot be read"):
        check_images(moved)
    with pytest.raises(SettingsError, match="none is given"):
        check_images(Settings().merged({"painting": {"init_weight": 0.5}}))
