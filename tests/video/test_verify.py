from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from tests.audio.conftest import Save, noise
from tests.video.conftest import TWELVE, Film
from wav2clip_gen import ffmpeg
from wav2clip_gen.audio.track import Track, open_track
from wav2clip_gen.errors import VideoError
from wav2clip_gen.video.mux import mux, plan_sound
from wav2clip_gen.video.verify import measure_offsets, probe, verify_film


def mux_unchecked(picture: Path, sound: Path, *options: str) -> Path:
    """A film from a plain ffmpeg call, as another program would make it."""
    out = picture.with_name("muxed.mp4")
    inputs = ["-i", ffmpeg.file_url(picture), *options, "-i", ffmpeg.file_url(sound)]
    ffmpeg.run([*inputs, "-c:v", "copy", "-c:a", "aac", "-y", ffmpeg.file_url(out)], purpose="mux")
    return out


def verify(path: Path, track: Track, frames: int = 24, duration: float = 2.0) -> float | None:
    return verify_film(path, frames=frames, fps=TWELVE, duration=duration, sound=track).offset_seconds


def test_facts_are_counted(save: Save, film: Film) -> None:
    track = open_track(save("song.wav", noise(2.0)))
    picture = film(24)
    out = picture.with_name("out.mp4")
    mux(picture, track, out, plan=plan_sound(track), metadata={})
    facts = probe(out)
    assert (facts.frames, facts.fps, facts.width, facts.height) == (24, TWELVE, 32, 16)
    assert (facts.picture_seconds, facts.sound_seconds, facts.sound_start) == (2, 2, 0)
    assert (facts.picture_codec, facts.sound_codec, facts.pixel_format) == ("h264", "aac", "yuv420p")


@pytest.mark.parametrize("late", [0.2, -0.15, 0.02])
def test_an_offset_is_measured(late: float, save: Save, film: Film) -> None:
    song = noise(2.0)
    gap = np.zeros((round(abs(late) * 44_100), 2), np.float32)
    shifted = np.concatenate([gap, song]) if late > 0 else np.concatenate([song[len(gap) :], gap])
    track = open_track(save("song.wav", song))
    path = mux_unchecked(film(24), save("shifted.wav", shifted[: len(song)]))
    if abs(late) < 1 / 12:
        assert verify(path, track) == pytest.approx(late, abs=0.001)
    else:
        with pytest.raises(VideoError, match=f"has its sound {late:.4f} s late"):
            verify(path, track)


def test_an_offset_in_the_container_counts_too(save: Save, film: Film) -> None:
    song = noise(2.0)
    path = mux_unchecked(film(24), save("part.wav", song[: round(1.95 * 44_100)]), "-itsoffset", "0.05")
    assert verify(path, open_track(save("song.wav", song))) == pytest.approx(0.05, abs=0.002)


def test_leading_silence_and_steady_tones_are_measured(save: Save, film: Film) -> None:
    time = np.arange(88_200) / 44_100
    tone = (0.5 * np.sin(2 * np.pi * 220 * time))[:, None].astype(np.float32)
    late = noise(2.0)
    late[:66_150] = 0
    for song in (tone, late, 0.2 * np.roll(tone, 1000), tone[:22_050]):
        path = save("song.wav", song.astype(np.float32))
        frames, seconds = math.ceil(12 * len(song) / 44_100), len(song) / 44_100
        assert verify(mux_unchecked(film(frames), path), open_track(path), frames, seconds) == pytest.approx(
            0, abs=0.001
        )


@pytest.mark.parametrize("seconds", [0.11, 0.12, 0.2, 0.3])
def test_a_song_shorter_than_the_search_is_measured(seconds: float, save: Save, film: Film) -> None:
    path, frames = save("song.wav", noise(seconds)), math.ceil(seconds * 12)
    offset = verify(mux_unchecked(film(frames), path), open_track(path), frames, seconds)
    assert offset == pytest.approx(0, abs=0.001)


@pytest.mark.parametrize(("spot", "place"), [("middle", 3.6), ("end", 7.2), ("start", 0.0)])
def test_an_offset_anywhere_is_found(spot: str, place: float, save: Save, film: Film) -> None:
    song = noise(9.0)
    gap = np.zeros((round(0.15 * 44_100), 2), np.float32)
    at = round(place * 44_100)
    moved = np.concatenate([song[:at], gap, song[at:]])[: len(song)]
    path = mux_unchecked(film(108), save("moved.wav", moved))
    with pytest.raises(VideoError, match=rf"has its sound 0\.1500 s late at its {spot}"):
        verify(path, open_track(save("song.wav", song)), 108, 9.0)


def test_a_hole_in_the_stamps_of_a_film_is_found(save: Save, film: Film) -> None:
    track = open_track(save("song.wav", noise(9.0)))
    whole = mux_unchecked(film(108), track.path)
    moved = "if(gte({0}*TB,5),{0}+0.2/TB,{0})"
    stamps = f"setts=pts='{moved.format('PTS')}':dts='{moved.format('DTS')}'"
    path = whole.with_name("hole.mp4")
    ffmpeg.run(
        ["-i", ffmpeg.file_url(whole), "-c", "copy", "-bsf:a", stamps, ffmpeg.file_url(path)], purpose="make a hole"
    )
    with pytest.raises(VideoError, match=r"9\.2000 s of sound instead of 9\.0000 s"):
        verify(path, track, 108, 9.0)
    start, _, end = measure_offsets(open_track(path), track)
    assert start == pytest.approx(0, abs=0.001)
    assert end == pytest.approx(0.2, abs=0.001)


def test_spots_of_silence_are_not_measured(save: Save, film: Film) -> None:
    song = noise(9.0)
    song[: 44_100 * 7 // 2], song[44_100 * 6 :] = 0, 0
    path = save("song.wav", song)
    report = verify_film(mux_unchecked(film(108), path), frames=108, fps=TWELVE, duration=9.0, sound=open_track(path))
    start, middle, end = report.offsets
    assert (start, end) == (None, None)
    assert middle == report.offset_seconds == pytest.approx(0, abs=0.001)


def test_a_container_of_another_length_fails(save: Save, film: Film) -> None:
    path = save("song.wav", noise(2.0))
    out = mux_unchecked(film(24), path)
    longer = out.with_name("longer.mp4")
    inputs = ["-i", ffmpeg.file_url(out), "-i", ffmpeg.file_url(save("five.wav", noise(5.0)))]
    both = ["-map", "0", "-map", "1", "-c:v", "copy", "-c:a", "aac", ffmpeg.file_url(longer)]
    ffmpeg.run([*inputs, *both], purpose="add a longer sound")
    with pytest.raises(VideoError, match=r"has 5\.0\d* s of container instead of 2\.0000 s"):
        verify(longer, open_track(path))


def test_opposed_channels_and_clipped_sound_are_measured(save: Save, film: Film) -> None:
    left = noise(2.0)
    opposed = np.concatenate([left, -left + 0.001 * noise(2.0, seed=1)], axis=1)
    for song in (opposed, 20 * left):
        path = save("song.wav", song.astype(np.float32))
        assert verify(mux_unchecked(film(24), path), open_track(path)) == pytest.approx(0, abs=0.001)


def test_missing_frames_fail(save: Save, film: Film) -> None:
    path = save("song.wav", noise(2.0))
    with pytest.raises(VideoError, match="23 frames instead of 24"):
        verify(mux_unchecked(film(23), path), open_track(path))


def test_another_length_of_sound_fails(save: Save, film: Film) -> None:
    track = open_track(save("song.wav", noise(2.0)))
    with pytest.raises(VideoError, match=r"1\.8000 s of sound instead of 2\.0000 s"):
        verify(mux_unchecked(film(24), save("short.wav", noise(1.8))), track)


def test_another_song_fails(save: Save, film: Film) -> None:
    track = open_track(save("song.wav", noise(2.0)))
    with pytest.raises(VideoError, match="is not that of"):
        verify(mux_unchecked(film(24), save("other.wav", noise(2.0, seed=1))), track)


def test_a_film_without_sound_fails(save: Save, film: Film) -> None:
    with pytest.raises(VideoError, match=r"0\.0000 s of sound"):
        verify(film(24), open_track(save("song.wav", noise(2.0))))


def test_a_file_that_is_no_film_is_refused(save: Save, tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="has no picture"):
        probe(save("song.wav", noise(0.2)))
    (tmp_path / "words.mp4").write_text("words")
    with pytest.raises(VideoError, match="could not read"):
        probe(tmp_path / "words.mp4")
