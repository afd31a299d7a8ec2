from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.audio.conftest import Save, noise
from tests.conftest import SAMPLES
from wav2clip_gen import ffmpeg
from wav2clip_gen.audio.stamps import Edit, Samples, StampReader, place
from wav2clip_gen.audio.track import Track, open_track
from wav2clip_gen.errors import OutputError, SoundError

RATE = 1000


def log_of(
    frames: list[tuple[int | str, int]],
    container: str = "mov,mp4",
    zero: float | None = 0,
    new: int = 0,
    video: str = "h264",
) -> bytes:
    """What ffmpeg logs about frames (stamp, samples); from the frame `new` on, they have another format."""
    lines = [f"[info] Input #0, {container}, from 'song':", "[info]   Metadata:", "[info]     Duration: 1, start: 77"]
    lines += [f"[info]   Duration: 00:00:01.00, start: {zero:.6f}, bitrate: 64 kb/s"] if zero is not None else []
    lines += ["[info]   Stream #0:1: Audio: aac", f"[info]   Stream #0:0[0x1](und): Video: {video}"] if video else []
    for number, (stamp, samples) in enumerate(frames):
        count = number - new if new and number >= new else number
        facts = f"fmt:fltp channels:1 chlayout:mono rate:{RATE} nb_samples:{samples} checksum:0"
        lines.append(f"[Parsed_ashowinfo_1 @ 0x7f] [info] n:{count} pts:{stamp} pts_time:0 {facts}")
    return "".join(line + "\n" for line in lines).encode()


def read(frames: list[tuple[int | str, int]], **facts: object) -> tuple[StampReader, list[int]]:
    """A reader that has read the log, and the samples as they are played: their numbers from 1 on, 0 for silence."""
    reader = StampReader(io.BytesIO(log_of(frames, **facts)), RATE, "song")  # type: ignore[arg-type]
    total = sum(samples for _, samples in frames)
    numbers = np.arange(1, total + 1, dtype=np.float32)[None]
    blocks = reader.follow(np.array_split(numbers, 3, axis=1))
    played = np.concatenate([*place(blocks, reader.edits, 0, None, 64)], axis=1)[0]
    return reader, played.astype(int).tolist()


def numbers(first: int, last: int) -> list[int]:
    return list(range(first, last + 1))


STEADY: list[tuple[int | str, int]] = [(0, 100), (100, 100), (200, 100), (300, 50)]


def test_steady_stamps_change_nothing() -> None:
    jittering: list[tuple[int | str, int]] = [(0, 100), (108, 100), (195, 100), (300, 50)]
    unstamped: list[tuple[int | str, int]] = [(0, 100), ("NOPTS", 100), (200, 100)]
    for frames in (STEADY, jittering, unstamped):
        reader, played = read(frames)
        assert played == numbers(1, sum(samples for _, samples in frames))
        assert (reader.edits, reader.contiguous, reader.notes()) == ([], True, ())


@pytest.mark.parametrize("zero", [0.0, 1.4, -0.5])
def test_holes_are_silence_and_overlaps_are_left_out(zero: float) -> None:
    at = round(zero * RATE)
    hole, played = read([(at, 100), (at + 150, 100), (at + 250, 100)], zero=zero)
    assert played == numbers(1, 100) + [0] * 50 + numbers(101, 300)
    assert hole.notes() == ("song: its sound has holes of 0.050 s in all, there is silence in them",)
    late, played = read([(at + 70, 100), (at + 170, 100)], zero=zero)
    assert played == [0] * 70 + numbers(1, 200)
    assert late.notes() == ("song: its sound begins 0.070 s late, there is silence before",)
    overlap, played = read([(at, 400), (at + 300, 100), (at + 400, 100)], zero=zero)
    assert played == numbers(1, 400) + numbers(501, 600)
    assert overlap.notes() == ("song: its sound overlaps by 0.100 s in all, which is left out",)
    part, played = read([(at, 400), (at + 370, 100), (at + 470, 100)], zero=zero)
    assert played == numbers(1, 400) + numbers(431, 600)
    assert not any(reader.contiguous for reader in (hole, late, overlap, part))


def test_ordinary_vorbis_is_played_as_it_is() -> None:
    for name in ("africa.ogg", "sounds/bell.ogg", "sounds/tabla.ogg"):
        track = open_track(SAMPLES / name)
        assert (track.edits, track.contiguous, track.notes) == ((), True, ())
    reader, played = read([(0, 100), (120, 100), (200, 100)], container="ogg")
    assert (played, reader.contiguous) == (numbers(1, 300), True)
    assert not read([(0, 100), (121, 100), (200, 100)], container="ogg")[0].contiguous


@pytest.mark.parametrize("video", ["", "mjpeg, 64x64 (attached pic)"])
def test_without_a_picture_the_file_begins_with_its_sound(video: str) -> None:
    reader, played = read([(70, 100), (170, 100)], video=video)
    assert (played, reader.contiguous) == (numbers(1, 200), True)
    assert read([(70, 100), (170, 100)])[1] == [0] * 70 + numbers(1, 200)


def test_many_small_deviations_do_not_add_up() -> None:
    drifting = [(number * 103, 100) for number in range(100)]
    _, played = read([*drifting])
    assert all(abs(played.index(number * 100 + 1) - number * 103) <= 15 for number in range(100))


def test_stamps_that_count_anew_are_joined_files() -> None:
    for container, second in (("mov,mp4", 0), ("ogg", 0), ("ogg", 130), ("mpegts", 250)):
        reader, played = read([(0, 500), (second, 100), (second + 100, 100)], container=container)
        assert played == numbers(1, 700)
        assert reader.notes() == ("song: it was joined from 2 files, which are played one after the other",)
        assert not reader.contiguous
    _, played = read([(0, 100), (20_000, 100)], container="mpegts")
    assert played == numbers(1, 200)
    _, played = read([(0, 100), (20_000, 100)])
    assert len(played) == 20_100


def test_a_format_without_stamps_is_played_as_it_comes() -> None:
    reader, played = read([(0, 100), (150, 100), (200, 100)], container="aac", zero=None)
    assert (played, reader.contiguous) == (numbers(1, 300), False)
    reader, played = read([(77, 100), (177, 100)], container="aac", zero=None)
    assert (played, reader.contiguous) == (numbers(1, 200), True)


def test_a_format_that_changes_is_not_contiguous() -> None:
    reader, played = read(STEADY, new=2)
    assert (played, reader.contiguous) == (numbers(1, 350), False)
    assert "sample rate" in reader.notes()[0]


def test_hours_of_missing_sound_are_refused() -> None:
    with pytest.raises(SoundError, match=r"7200 s of its sound are missing at 0\.100 s") as caught:
        read([(0, 100), (7_200_100, 100)])
    assert "asetpts" in caught.value.hint


def test_a_log_that_ends_early_is_a_full_disk() -> None:
    reader = StampReader(io.BytesIO(log_of([(0, 100)])), RATE, "song")
    with pytest.raises(OutputError, match="cannot write temporary files") as caught:
        list(reader.follow([np.zeros((1, 200), np.float32)]))
    assert "TMPDIR" in caught.value.hint


def test_spans_are_cut_from_what_is_played() -> None:
    edits = [Edit(10, silence=20), Edit(50, dropped=10), Edit(60, dropped=5)]
    decoded = np.arange(1, 101, dtype=np.float32)[None]

    def span(first: int, stop: int | None, parts: int = 4) -> Samples:
        blocks = [*place(np.array_split(decoded, parts, axis=1), edits, first, stop, 7), np.zeros((1, 0), np.float32)]
        return np.concatenate(blocks, axis=1)

    whole = span(0, None)
    assert whole[0].tolist() == numbers(1, 10) + [0] * 20 + numbers(11, 50) + numbers(66, 100)
    for first, stop in ((0, 5), (5, 25), (12, 14), (65, None), (69, 71), (104, 200), (105, None)):
        for parts in (1, 9, 100):
            np.testing.assert_array_equal(span(first, stop, parts), whole[:, first:stop])


def copy(source: Path, name: str, *options: str) -> Path:
    out = source.with_name(name)
    ffmpeg.run(["-i", ffmpeg.file_url(source), "-c", "copy", *options, ffmpeg.file_url(out)], purpose="copy")
    return out


def moved(place: float, jump: float) -> str:
    word = f"if(gte({{0}}*TB,{place}),{{0}}+({jump})/TB,{{0}})"
    return f"setts=pts='{word.format('PTS')}':dts='{word.format('DTS')}'"


def lag(track: Track, song: NDArray[np.float32], start: float, later: float) -> float:
    """By how many seconds a second of the song is played later than `later` says."""
    rate = track.sample_rate
    wanted = song[round(start * rate) :][:rate, 0]
    near = track.read()[0, max(0, round((start + later - 0.2) * rate)) :][: round(1.4 * rate)]
    return int(np.correlate(near, wanted, "valid").argmax()) / rate - min(0.2, start + later)


@pytest.mark.parametrize(("name", "target"), [("song.m4a", "gap.m4a"), ("song.mp3", "gap.mka"), ("song.m4a", "gap.ts")])
def test_what_follows_a_hole_is_played_at_its_time(name: str, target: str, save: Save) -> None:
    song = noise(5.0)
    track = open_track(copy(save(name, song), target, "-bsf:a", moved(2.5, 1.25)))
    assert abs(track.duration - 6.25) < 0.1
    assert [abs(lag(track, song, start, later)) < 0.03 for start, later in ((1, 0), (3, 1.25), (3.9, 1.25))] == [
        True
    ] * 3
    assert not track.read()[0, round(2.7 * 44_100) : round(3.5 * 44_100)].any()
    part = open_track(track.path, start=2.0, duration=3.3)
    np.testing.assert_array_equal(part.read(), track.read()[:, 88_200 : 88_200 + part.samples])
    assert "holes of 1.2" in track.notes[0]


@pytest.mark.parametrize(
    ("name", "length"), [("song.ogg", 2.0), ("song.opus", 2.0), ("song.oga", 2.0), ("song.mp3", 2.1)]
)
def test_joined_files_are_read_to_their_end(name: str, length: float, save: Save) -> None:
    options = {"song.opus": ["-c:a", "libopus"], "song.oga": ["-c:a", "flac"]}.get(name, [])
    one, two = (save(f"{seed}.{name}", noise(1.0, 48_000, seed=seed), 48_000, *options) for seed in (1, 2))
    both = one.with_name(name)
    both.write_bytes(one.read_bytes() + two.read_bytes())
    track = open_track(both)
    assert track.duration == pytest.approx(length, abs=0.06)
    second = noise(1.0, 48_000, seed=2)[:, 0]
    found = np.correlate(track.read()[0, 40_000:], second[4_800:28_800], "valid")
    assert (40_000 + int(found.argmax())) / 48_000 == pytest.approx(length - 0.9, abs=0.06)
    assert not track.contiguous


def test_what_cannot_be_read_of_joined_files_is_told(save: Save) -> None:
    for suffix, other in (("ogg", ["-ac", "1"]), ("ogg", ["-ar", "48000"]), ("opus", ["-ac", "1"])):
        codec = ["-c:a", "libopus" if suffix == "opus" else "libvorbis"]
        one, two = (
            save(f"one.{suffix}", noise(1.0), 44_100, *codec),
            save(f"two.{suffix}", noise(1.0), 44_100, *codec, *other),
        )
        both = one.with_name(f"both.{suffix}")
        both.write_bytes(one.read_bytes() + two.read_bytes())
        track = open_track(both)
        assert track.duration == pytest.approx(1.0, abs=0.01)
        assert "only its first 1.000 s can be read" in track.notes[0]


@pytest.mark.parametrize("name", ["late.mp4", "late.mkv", "late.mov", "late.ts", "late.flv"])
def test_a_video_counts_from_its_own_zero(name: str, save: Save) -> None:
    song, wav = noise(2.0), save("song.wav", noise(2.0))
    path, picture = wav.with_name(name), ["-f", "lavfi", "-i", "color=s=16x16:r=25:d=2"]
    coded = ["-map", "0:v", "-map", "1:a", "-c:v", "flv1" if name == "late.flv" else "mpeg4", "-c:a", "aac"]
    delayed = ["-itsoffset", "2.9", "-i", ffmpeg.file_url(wav)]
    ffmpeg.run([*picture, *delayed, *coded, ffmpeg.file_url(path)], purpose="make a video")
    track = open_track(path)
    assert abs(track.duration - 4.9) < 0.05
    assert abs(lag(track, song, 0.5, 2.9)) < 0.03
    assert not track.read()[:, : round(2.8 * 44_100)].any()
    assert "begins 2." in track.notes[0]


def test_the_default_sound_is_taken(save: Save) -> None:
    one, two = save("one.wav", noise(1.0)), save("two.wav", noise(2.0))
    inputs = [word for path in (one, two) for word in ("-i", ffmpeg.file_url(path))]
    for name, first, second, length in (
        ("a.mka", "0", "default", 2),
        ("b.mka", "default", "0", 1),
        ("c.mp4", "0", "default", 2),
    ):
        path = one.with_name(name)
        chosen = ["-map", "0:a", "-map", "1:a", "-disposition:a:0", first, "-disposition:a:1", second]
        ffmpeg.run([*inputs, *chosen, "-c:a", "flac", "-strict", "-2", ffmpeg.file_url(path)], purpose="make")
        track = open_track(path)
        assert (track.stream, track.duration) == (length - 1, length)
        assert f"{path} holds 2 sounds" in track.notes[0]
    assert open_track(one).notes == ()


def test_what_is_converted_from_vorbis_has_no_holes(tmp_path: Path) -> None:
    """Its stamps are those of libvorbis, up to 448 samples off for a while."""
    drums, copy = SAMPLES / "song" / "drums.ogg", tmp_path / "drums.m4a"
    ffmpeg.run(["-i", ffmpeg.file_url(drums), "-c:a", "alac", ffmpeg.file_url(copy)], purpose="convert")
    assert open_track(copy).edits == ()
    np.testing.assert_allclose(open_track(copy).read(), open_track(drums).read(), atol=2e-4)
