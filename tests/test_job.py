from __future__ import annotations

from pathlib import Path

import pytest

from tests.audio.conftest import Save, noise, save
from tests.conftest import FakeFFmpeg
from wav2clip_gen import ffmpeg
from wav2clip_gen.config import Settings
from wav2clip_gen.errors import VideoError, W2CError
from wav2clip_gen.job import prepare, truncate

__all__ = ["save"]


def with_codec(settings: Settings, codec: str) -> Settings:
    return settings.merged({"sound": {"codec": codec}})


@pytest.mark.parametrize("storyboard", [False, True])
def test_notes_tell_what_is_wrong_with_the_sound(storyboard: bool, small: Settings, save: Save, tmp_path: Path) -> None:
    song = save("song.mp3", noise(1.0))
    late = song.with_name("late.mp4")
    picture = ["-f", "lavfi", "-i", "color=s=16x16:r=5:d=2", "-itsoffset", "1.5", "-i", ffmpeg.file_url(song)]
    ffmpeg.run([*picture, "-map", "0:v", "-map", "1:a", ffmpeg.file_url(late)], purpose="make a video")
    (words,) = prepare(late, tmp_path / "a.png" if storyboard else None, small, storyboard=storyboard).notes
    assert "its sound begins 1.4" in words
    notes = prepare(song, tmp_path / "a.png" if storyboard else None, small, storyboard=storyboard).notes
    assert [*notes] == [] if storyboard else ["--audio-codec aac" in note for note in notes] == [True]


@pytest.mark.parametrize(("codec", "made"), [("auto", "mp3"), ("copy", "mp3"), ("aac", "aac"), ("alac", "alac")])
def test_a_shortened_job_has_a_plan_without_ffmpeg(
    codec: str, made: str, small: Settings, save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = prepare(save("song.mp3", noise(2.0)), None, with_codec(small, codec))
    monkeypatch.setenv("W2C_FFMPEG", "/nowhere/ffmpeg")
    assert (job.sound.codec, job.sound.copied) == (made, made == "mp3")
    shortened = truncate(job, 3).sound
    assert (shortened.codec, shortened.copied) == ("aac" if made == "mp3" else made, False)


def test_an_impossible_codec_is_refused_before_a_network_is_loaded(small: Settings, save: Save) -> None:
    with pytest.raises(VideoError, match="cannot be put into an mp4 as copy: pcm_f32le is not among"):
        prepare(save("song.wav", noise(1.0)), None, with_codec(small, "copy"))


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ('case "$*" in *encoders*) echo " ------"; exit 0;; esac; exec {real} "$@"', "no h264 encoder"),
        ('case "$*" in *libx264*) echo "x264 is broken" >&2; exit 1;; esac; exec {real} "$@"', "x264 is broken"),
        ('case "$*" in *"-c:a aac"*|*alac*|*flac*) echo "no muxer" >&2; exit 1;; esac; exec {real} "$@"', "no muxer"),
    ],
)
def test_an_ffmpeg_that_cannot_make_films_is_refused(
    script: str, words: str, small: Settings, save: Save, fake_ffmpeg: FakeFFmpeg, tmp_path: Path
) -> None:
    song, real = save("song.wav", noise(1.0)), ffmpeg.find_ffmpeg()
    fake_ffmpeg("")
    path = tmp_path / "bin" / "ffmpeg"
    listing = (
        "" if "encoders" in script else 'case "$*" in *-encoders*) echo " ------"; echo " V. libx264"; exit 0;; esac'
    )
    path.write_text(f"#!/bin/sh\n{listing}\n{script.format(real=real)}\n")
    with pytest.raises(W2CError, match=words):
        prepare(song, None, small)
