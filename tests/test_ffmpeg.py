from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from tests.conftest import FakeFFmpeg
from wav2clip_gen import ffmpeg
from wav2clip_gen.errors import VideoError


def test_the_bundled_ffmpeg_can_make_films() -> None:
    assert ffmpeg.version().startswith("ffmpeg version ")
    assert {"libx264", "aac", "flac"} <= ffmpeg.encoders()
    assert "=" not in ffmpeg.encoders()


def test_a_chosen_ffmpeg_is_used(fake_ffmpeg: FakeFFmpeg) -> None:
    fake_ffmpeg("echo ffmpeg version 1.2.3 Copyright someone")
    assert ffmpeg.version() == "ffmpeg version 1.2.3"
    assert ffmpeg.encoders() == {"libx264"}


@pytest.mark.parametrize("content", [None, "", "\x7fELF nonsense"])
def test_an_ffmpeg_that_does_not_run_is_named(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ffmpeg"
    if content is not None:
        path.write_text(content)
        path.chmod(0o755)
    monkeypatch.setenv("W2C_FFMPEG", str(path))
    with pytest.raises(VideoError, match=r"ffmpeg.* cannot be run") as caught:
        ffmpeg.run(["-version"], purpose="ask")
    assert "W2C_FFMPEG" in caught.value.hint


def test_a_missing_ffmpeg_is_reported_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("W2C_FFMPEG", raising=False)
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(VideoError, match="no ffmpeg was found") as caught:
        ffmpeg.find_ffmpeg()
    assert "pip install imageio-ffmpeg" in caught.value.hint


def test_messages_of_ffmpeg_are_quoted(tmp_path: Path) -> None:
    nothing = tmp_path / "nothing.mp4"
    with pytest.raises(VideoError, match=r"could not look: .* No such file or directory$") as caught:
        ffmpeg.run(["-i", ffmpeg.file_url(nothing), "-f", "null", "-"], purpose="look")
    assert "0x" not in caught.value.what


def test_leaving_early_ends_ffmpeg(fake_ffmpeg: FakeFFmpeg) -> None:
    fake_ffmpeg("exec sleep 100")
    began = time.monotonic()
    with pytest.raises(KeyError), ffmpeg.reading([], purpose="wait"):
        raise KeyError
    assert time.monotonic() - began < 50


def test_a_broken_pipe_that_is_not_ffmpegs_passes(fake_ffmpeg: FakeFFmpeg) -> None:
    fake_ffmpeg("exec cat >/dev/null")
    with pytest.raises(BrokenPipeError), ffmpeg.feeding([], purpose="wait"):
        raise BrokenPipeError


def test_a_signal_is_reported() -> None:
    assert "ended by signal 9" in ffmpeg.failure("join", -9, b"").what
    assert "disk space" in ffmpeg.failure("join", -25, b"").hint
