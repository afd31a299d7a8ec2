from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.conftest import FakeFFmpeg
from tests.video.conftest import TWELVE, picture, write_film
from wav2clip_gen import ffmpeg
from wav2clip_gen.audio.timeline import exact_fps
from wav2clip_gen.errors import SettingsError, VideoError
from wav2clip_gen.video.verify import probe
from wav2clip_gen.video.writer import FilmWriter


def decode(path: Path, width: int, height: int) -> NDArray[np.uint8]:
    command = ["-i", ffmpeg.file_url(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1"]
    return np.frombuffer(ffmpeg.run(command, purpose="decode"), np.uint8).reshape(-1, height, width, 3)


@pytest.mark.parametrize("fps", [1, 12, 12.345, 23.976, 29.97, 60, 120])
def test_the_frame_rate_is_exact_and_constant(fps: float, tmp_path: Path) -> None:
    rate = exact_fps(fps)
    path = write_film(tmp_path / "film.mp4", 17, rate)
    facts = probe(path)
    assert (facts.frames, facts.fps, facts.steady) == (17, rate, True)
    assert (facts.picture_codec, facts.pixel_format, facts.sound_codec) == ("h264", "yuv420p", None)
    assert list(tmp_path.iterdir()) == [path]


def test_colors_are_kept(tmp_path: Path) -> None:
    colors = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [128, 128, 128], [255, 255, 255], [0, 0, 0]], np.uint8)
    with FilmWriter(tmp_path / "film.mp4", size=(32, 16), fps=TWELVE) as film:
        for color in colors:
            film.write(np.broadcast_to(color, (16, 32, 3)))  # not contiguous, as slices are
    shown = decode(tmp_path / "film.mp4", 32, 16)[:, 8, 16]
    assert np.abs(shown.astype(int) - colors).max() <= 8
    assert "bt709" in ffmpeg.describe(tmp_path / "film.mp4")


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_upscaling_enlarges_the_film(factor: int, tmp_path: Path) -> None:
    with FilmWriter(tmp_path / "film.mp4", size=(32, 16), fps=TWELVE, upscale=factor) as film:
        film.write(picture(0))
    facts = probe(tmp_path / "film.mp4")
    assert (facts.width, facts.height, facts.frames) == (32 * factor, 16 * factor, 1)


def test_the_same_pictures_make_the_same_file(tmp_path: Path) -> None:
    first, second = (write_film(tmp_path / name) for name in ("one.mp4", "two.mp4"))
    assert first.read_bytes() == second.read_bytes()


def test_frames_are_kept_as_png_on_request(tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    with FilmWriter(tmp_path / "film.mp4", size=(32, 16), fps=TWELVE, frames_dir=folder, first=5) as film:
        for number in range(3):
            film.write(picture(number))
    assert [path.name for path in sorted(folder.iterdir())] == ["000005.png", "000006.png", "000007.png"]
    np.testing.assert_array_equal(np.asarray(Image.open(folder / "000007.png")), picture(2))


@pytest.mark.parametrize("size", [(31, 16), (32, 15), (0, 16), (-2, 16)])
def test_odd_sizes_are_refused(size: tuple[int, int], tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=f"{size[0]}x{size[1]}"):
        FilmWriter(tmp_path / "film.mp4", size=size, fps=TWELVE)


def test_a_picture_of_another_type_or_size_is_a_bug(tmp_path: Path) -> None:
    wrong: list[NDArray[Any]] = [picture(0, 16, 16), picture(0).astype(np.float32)]
    with FilmWriter(tmp_path / "film.mp4", size=(32, 16), fps=TWELVE) as film:
        for one in wrong:
            with pytest.raises(ValueError, match="cannot take"):
                film.write(one)
        film.write(picture(0))


def write_and_fail(path: Path, error: BaseException) -> None:
    with FilmWriter(path, size=(32, 16), fps=TWELVE) as film:
        for number in range(3):
            film.write(picture(number))
        raise error


def test_after_an_exception_no_process_is_left_that_writes(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        write_and_fail(tmp_path / "film.mp4", ZeroDivisionError())
    (tmp_path / "film.mp4").unlink(missing_ok=True)
    assert list(tmp_path.iterdir()) == []


def test_the_bytes_do_not_depend_on_the_cores(tmp_path: Path) -> None:
    """As on a machine with one."""
    noise = np.random.default_rng(0).integers(0, 256, (30, 8, 12, 3)).astype(np.uint8).repeat(8, 1).repeat(8, 2)

    def written(name: str) -> bytes:
        with FilmWriter(tmp_path / name, size=(96, 64), fps=TWELVE, upscale=4) as film:
            for one in noise:
                film.write(one)
        return (tmp_path / name).read_bytes()

    usual, cores = written("usual.mp4"), os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        assert written("one.mp4") == usual
    finally:
        os.sched_setaffinity(0, cores)


def write_much(path: Path) -> None:
    with FilmWriter(path, size=(256, 256), fps=TWELVE) as film:
        for number in range(20):
            film.write(picture(number, 256, 256))


@pytest.mark.parametrize("when", ["at once", "at the end"])
def test_a_full_disk_is_reported_with_a_hint(when: str, tmp_path: Path, fake_ffmpeg: FakeFFmpeg) -> None:
    drain = "cat >/dev/null" if when == "at the end" else "head -c 10 >/dev/null"
    message = "[out#0/mp4 @ 0x55d0c8] Error writing trailer: No space left on device"
    fake_ffmpeg(f"{drain}; echo '{message}' >&2; exit 228")
    with pytest.raises(VideoError, match=r"could not write .*film.mp4: .* No space left on device") as caught:
        write_much(tmp_path / "film.mp4")
    assert "free some disk space" in caught.value.hint


def test_a_real_limit_on_file_size_is_a_full_disk(tmp_path: Path) -> None:
    code = (
        "import resource, pathlib, numpy as np\n"
        "from fractions import Fraction\n"
        "from wav2clip_gen.errors import VideoError\n"
        "from wav2clip_gen.video.writer import FilmWriter\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "noise = np.random.default_rng(0).integers(0, 256, (128, 128, 3)).astype(np.uint8)\n"
        "try:\n"
        f"    path = pathlib.Path({str(tmp_path / 'film.mp4')!r})\n"
        "    with FilmWriter(path, size=(128, 128), fps=Fraction(12)) as film:\n"
        "        for _ in range(200): film.write(noise)\n"
        "except VideoError as error:\n"
        "    print(error.hint)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("free some disk space"), done.stderr


def test_an_ffmpeg_without_h264_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "ffmpeg"
    script.write_text("#!/bin/sh\necho ' ------'; echo ' A....D aac AAC'\n")
    script.chmod(0o755)
    monkeypatch.setenv("W2C_FFMPEG", str(script))
    with pytest.raises(VideoError, match="libx264"):
        FilmWriter(tmp_path / "film.mp4", size=(32, 16), fps=TWELVE).__enter__()
