from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from tests.audio.conftest import Save, noise
from wav2clip_gen.audio.track import open_track
from wav2clip_gen.errors import SoundError, VideoError

LOSSLESS = ["song.wav", "song.flac", "song.aiff", "alac.m4a", "film.mov"]
LOSSY = ["song.ogg", "song.mp3", "song.m4a", "song.opus", "song.aac"]
OPTIONS = {
    "alac.m4a": ["-c:a", "alac"],
    "film.mov": ["-c:a", "pcm_s24le"],
    "song.opus": ["-c:a", "libopus"],
    "song.aac": ["-f", "adts"],
}


@pytest.mark.parametrize("name", LOSSLESS + LOSSY)
def test_every_format_gives_the_same_music(name: str, save: Save) -> None:
    rate = 48_000
    song = noise(1.3, rate)
    track = open_track(save(name, song, rate, *OPTIONS.get(name, [])))
    decoded = track.read()
    assert (track.sample_rate, track.channels) == (rate, 2)
    assert decoded.shape == (2, track.samples)
    assert decoded.dtype == np.float32
    if name != "song.aac":  # a bare stream does not know where its music begins
        assert track.samples == len(song)
        assert np.corrcoef(decoded[0], song[:, 0])[0, 1] > 0.9
    if name in LOSSLESS:
        np.testing.assert_allclose(decoded.T, song, atol=1e-3)


def test_the_audio_of_a_video_file_is_a_track(save: Save) -> None:
    picture = ("-f", "lavfi", "-i", "color=s=16x16:r=5:d=1", "-map", "1:v", "-map", "0:a", "-c:a", "aac")
    track = open_track(save("clip.mp4", noise(1.0), 44_100, *picture))
    assert track.samples == 44_100


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "PCM_32", "PCM_U8", "FLOAT", "DOUBLE"])
def test_int_and_float_sound_alike(subtype: str, tmp_path: Path) -> None:
    song = noise(0.2)
    soundfile.write(tmp_path / "song.wav", song, 44_100, subtype=subtype)
    np.testing.assert_allclose(open_track(tmp_path / "song.wav").read().T, song, atol=0.01)


@pytest.mark.parametrize("name", ["song.wav", "song.flac", "song.ogg", "song.opus", "film.mov"])
def test_surround_keeps_its_eight_channels_in_order(name: str, save: Save) -> None:
    time = np.arange(48_000) / 48_000
    pitches = [300, 400, 500, 60, 700, 800, 900, 1000]
    song = np.stack([0.2 * np.sin(2 * np.pi * hertz * time) for hertz in pitches], axis=1).astype(np.float32)
    options = {"song.opus": ["-c:a", "libopus", "-mapping_family", "1"], "film.mov": ["-c:a", "pcm_s24le"]}
    decoded = open_track(save(name, song, 48_000, *options.get(name, []))).read()
    assert abs(decoded.shape[1] - 48_000) <= 128  # ffmpeg cuts some Vorbis at a packet
    found = [int(np.abs(np.fft.rfft(channel)).argmax()) for channel in decoded]
    np.testing.assert_allclose(found, pitches, atol=4)


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 96_000, 192_000])
def test_a_click_stays_at_its_time(rate: int, save: Save) -> None:
    song = np.zeros((rate * 2, 1), np.float32)
    song[round(1.5 * rate)] = 1
    track = open_track(save("click.wav", song, rate))
    mono = np.concatenate(list(track.mono_blocks()))
    assert len(mono) == track.length_at(16_000) == 32_000
    assert abs(int(np.abs(mono).argmax()) - 24_000) <= 1


def test_block_size_does_not_change_the_sound(save: Save) -> None:
    for name in ("song.wav", "song.m4a"):
        track = open_track(save(name, noise(1.1)))
        blocks = list(track.blocks(seconds=0.013))
        assert max(block.shape[1] for block in blocks) == round(0.013 * 44_100)
        np.testing.assert_array_equal(np.concatenate(blocks, axis=1), track.read())


@pytest.mark.parametrize("name", ["song.wav", "song.ogg", "song.mp3", "song.m4a"])
def test_a_span_is_cut_from_the_whole(name: str, save: Save) -> None:
    path = save(name, noise(2.0))
    whole, part = open_track(path), open_track(path, start=0.7, duration=0.5)
    assert (part.samples, part.whole, whole.whole) == (22_050, False, True)
    assert part.duration == 0.5
    np.testing.assert_allclose(part.read(), whole.read()[:, 30_870 : 30_870 + 22_050], atol=1e-4)


def test_a_duration_beyond_the_end_keeps_what_there_is(save: Save) -> None:
    track = open_track(save("song.wav", noise(1.0)), start=0.25, duration=99)
    assert track.duration == 0.75
    assert open_track(track.path, duration=99).whole


def test_a_single_sample_is_a_track(save: Save) -> None:
    for rate in (8_000, 44_100):
        track = open_track(save("dot.wav", np.full((1, 1), 0.5, np.float32), rate))
        assert (track.samples, track.length_at(16_000)) == (1, max(1, round(16_000 / rate)))
        assert sum(map(len, track.mono_blocks())) == track.length_at(16_000)


def test_silence_is_a_track(save: Save) -> None:
    track = open_track(save("silence.wav", np.zeros((8_000, 2), np.float32), 8_000))
    assert not np.concatenate(list(track.mono_blocks())).any()


def test_a_title_is_known(save: Save) -> None:
    for name in ("song.flac", "song.mp3", "song.m4a"):
        assert open_track(save(name, noise(0.2), 44_100, "-metadata", "title=Über = uns")).title == "Über = uns"
    assert open_track(save("nameless.wav", noise(0.2))).title is None


@pytest.mark.parametrize("name", ["song.mp3", "song.flac", "song.ogg", "song.wav"])
def test_a_truncated_file_gives_what_is_left(name: str, save: Save, capfd: pytest.CaptureFixture[str]) -> None:
    path = save(name, noise(3.0))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2 + 77])
    track = open_track(path)
    assert 0.5 < track.duration < 2.5
    assert track.read().shape == (2, track.samples)
    assert capfd.readouterr() == ("", "")


def bad_input(folder: Path, kind: str) -> Path:
    path = folder / f"{kind}.wav"
    match kind:
        case "folder":
            path.mkdir()
        case "empty":
            path.touch()
        case "text":
            path.write_text("no music, only text\n")
        case "picture":
            path = path.with_suffix(".png")
            Image.new("RGB", (8, 8)).save(path)
        case "zero-length":
            soundfile.write(path, np.zeros((0, 2)), 44_100)
        case "nan" | "infinite":
            song = noise(12.0, 8_000)
            song[90_000, 1] = np.nan if kind == "nan" else -np.inf
            soundfile.write(path, song, 8_000, subtype="FLOAT")
    return path


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", "no such file"),
        ("folder", "is a folder"),
        ("empty", "is empty"),
        ("text", "is not a sound file"),
        ("picture", "holds no sound"),
        ("zero-length", "holds no samples"),
        ("nan", "not numbers .* 11.250 s"),
        ("infinite", "not numbers .* 11.250 s"),
    ],
)
def test_bad_input_is_a_clear_error(kind: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(SoundError, match=words) as caught:
        open_track(bad_input(tmp_path, kind))
    assert kind in caught.value.what
    assert caught.value.hint
    assert "\n" not in caught.value.what + caught.value.hint


def test_a_truncated_m4a_quotes_ffmpeg(save: Save) -> None:
    path = save("song.m4a", noise(1.0))
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(SoundError, match="moov atom not found"):
        open_track(path)


@pytest.mark.parametrize(
    ("start", "duration", "words"),
    [
        (-1, None, "start at -1"),
        (0, 0, "last 0 s"),
        (0, -2, "last -2"),
        (float("nan"), None, "start"),
        (5, 1, "lasts 1.000 s"),
    ],
)
def test_a_span_that_cannot_be_is_a_clear_error(start: float, duration: float | None, words: str, save: Save) -> None:
    for name in ("song.wav", "song.m4a"):
        path = save(name, noise(1.0))
        with pytest.raises(SoundError, match=words):
            open_track(path, start=start, duration=duration)


def test_a_missing_ffmpeg_is_not_reported_as_a_bad_file(save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save("song.m4a", noise(0.2))
    monkeypatch.setenv("W2C_FFMPEG", "/nowhere/ffmpeg")
    with pytest.raises(VideoError, match="W2C_FFMPEG"):
        open_track(path)


def test_a_file_that_shrinks_meanwhile_is_noticed(save: Save) -> None:
    track = open_track(save("song.wav", noise(1.0)))
    save("song.wav", noise(0.5))
    with pytest.raises(SoundError, match="22050 samples earlier"):
        track.read()


def test_a_strange_name_is_only_a_name(save: Save) -> None:
    for name in ("-i %d [x] 'y'.m4a", "concat:a|b.m4a"):
        assert open_track(save(name, noise(0.2))).samples == 8820


@pytest.mark.parametrize("name", ["song.wav", "song.flac"])
def test_lossless_files_are_read_sample_for_sample(name: str, save: Save) -> None:
    path = save(name, noise(12.3, 44_100))
    expected = soundfile.read(path, dtype="float32")[0].T
    np.testing.assert_array_equal(open_track(path).read(), expected)
    np.testing.assert_array_equal(open_track(path, start=10.1, duration=1).read(), expected[:, 445_410:489_510])
