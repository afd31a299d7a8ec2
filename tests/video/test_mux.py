from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.audio.conftest import Save, noise
from tests.conftest import FakeFFmpeg
from tests.video.conftest import Film
from wav2clip_gen import ffmpeg
from wav2clip_gen.audio.timeline import Timeline
from wav2clip_gen.audio.track import Track, open_track
from wav2clip_gen.errors import VideoError
from wav2clip_gen.video.mux import SoundPlan, mux, plan_sound
from wav2clip_gen.video.verify import SyncReport, probe, verify_film


def make(track: Track, film: Film, fps: float = 12) -> tuple[Path, SoundPlan, SyncReport]:
    timeline = Timeline.of(track, fps=fps)
    picture = film(timeline.frames, timeline.fps)
    out, plan = picture.with_name("out.mp4"), plan_sound(track)
    mux(picture, track, out, plan=plan, metadata={"title": "Song", "comment": "seed=7"})
    report = verify_film(out, frames=timeline.frames, fps=timeline.fps, duration=track.duration, sound=track)
    return out, plan, report


@pytest.mark.parametrize(
    ("name", "codec", "copied"),
    [
        ("song.wav", "aac", False),
        ("song.ogg", "aac", False),
        ("song.opus", "aac", False),
        ("song.mp3", "mp3", True),
        ("song.m4a", "aac", True),
        ("alac.m4a", "alac", True),
    ],
)
def test_picture_and_sound_start_together(name: str, codec: str, copied: bool, save: Save, film: Film) -> None:
    options = {"alac.m4a": ["-c:a", "alac"], "song.opus": ["-c:a", "libopus"]}.get(name, [])
    track = open_track(save(name, noise(2.3), 44_100, *options))
    out, plan, report = make(track, film, 23.976)
    assert (plan.codec, plan.copied) == (codec, copied)
    assert report.offset_seconds is not None
    assert abs(report.offset_seconds) < 0.005
    assert abs(report.sound_seconds - track.duration) < 0.005
    facts = probe(out)
    assert (facts.sound_codec, facts.sample_rate, facts.channels) == (codec, track.sample_rate, 2)


def test_copied_sound_has_the_same_samples(save: Save, film: Film) -> None:
    for name in ("song.mp3", "song.m4a"):
        track = open_track(save(name, noise(1.5)))
        out, _, _ = make(track, film)
        np.testing.assert_array_equal(open_track(out).read(), track.read())


def test_a_bare_aac_stream_becomes_a_film(save: Save, film: Film) -> None:
    _, _, report = make(open_track(save("song.aac", noise(1.5), 44_100, "-f", "adts")), film, 30)
    assert report.offset_seconds == pytest.approx(0, abs=0.005)


def test_a_span_of_a_copyable_song_is_encoded(save: Save, film: Film) -> None:
    track = open_track(save("song.m4a", noise(3.0)), start=0.5, duration=1.7)
    _, plan, report = make(track, film, 30)
    assert not plan.copied
    assert report.offset_seconds == pytest.approx(0, abs=0.005)
    assert report.sound_seconds == pytest.approx(1.7, abs=0.001)


def test_delayed_sound_of_a_video_is_not_copied(save: Save, film: Film) -> None:
    picture, delay = ["-f", "lavfi", "-i", "color=s=16x16:r=5:d=2"], ["-af", "asetpts=PTS+0.5/TB"]
    late = [*picture, "-map", "1:v", "-map", "0:a", *delay]
    track = open_track(save("late.mp4", noise(1.0), 44_100, *late))
    _, plan, report = make(track, film)
    assert not plan.copied
    assert report.offset_seconds == pytest.approx(0, abs=0.005)


@pytest.mark.parametrize(("rate", "codec"), [(8_000, "aac"), (96_000, "aac"), (37_800, "flac"), (192_000, "flac")])
def test_the_rate_of_the_song_is_kept(rate: int, codec: str, save: Save, film: Film) -> None:
    out, plan, report = make(open_track(save("song.wav", noise(1.0, rate), rate)), film, 60)
    facts = probe(out)
    assert (plan.codec, facts.sound_codec, facts.sample_rate) == (codec, codec, rate)
    assert abs(report.difference_seconds) <= 1 / 60


@pytest.mark.parametrize(
    ("channels", "rate"),
    [(3, 44_100), (4, 44_100), (6, 44_100), (7, 44_100), (8, 44_100), (5, 37_800), (8, 37_800)],
)
def test_no_channel_is_mixed_into_another(channels: int, rate: int, save: Save, film: Film) -> None:
    time = np.arange(rate) / rate
    pitches = [30 * (number + 2) for number in range(channels)]  # low enough for the LFE channel
    song = np.stack([0.3 * np.sin(2 * np.pi * hertz * time) for hertz in pitches], axis=1).astype(np.float32)
    out, _, _ = make(open_track(save("song.wav", song, rate)), film)
    spectra = np.abs(np.fft.rfft(open_track(out).read()[:, :rate]))
    assert spectra.argmax(axis=1).tolist() == pitches
    for channel, spectrum in enumerate(spectra):
        others = spectrum[[pitch for pitch in pitches if pitch != pitches[channel]]]
        assert others.max() < 0.05 * spectrum[pitches[channel]]


def test_too_many_channels_are_refused_before_rendering(save: Save) -> None:
    with pytest.raises(VideoError, match="has 9 channels"):
        plan_sound(open_track(save("many.wav", noise(0.1, 8_000, 9), 8_000)))


@pytest.mark.parametrize("fps", [12, 60])
def test_a_truncated_mp3_becomes_a_film(fps: int, save: Save, film: Film) -> None:
    path = save("song.mp3", noise(3.0))
    path.write_bytes(path.read_bytes()[:20_077])
    _, _, report = make(open_track(path), film, fps)
    assert report.offset_seconds == pytest.approx(0, abs=0.005)


@pytest.mark.parametrize("samples", [1, 100, 3_000])
def test_the_shortest_tracks_become_films(samples: int, save: Save, film: Film) -> None:
    for rate in (8_000, 44_100):
        track = open_track(save("dot.wav", np.full((samples, 1), 0.5, np.float32), rate))
        _, _, report = make(track, film, 24)
        assert report.frames == max(1, -(-samples * 24 // rate))


def test_silence_becomes_a_film_whose_offset_cannot_be_measured(save: Save, film: Film) -> None:
    _, _, report = make(open_track(save("silence.wav", np.zeros((8_000, 2), np.float32), 8_000)), film)
    assert report.offset_seconds is None


def test_title_and_settings_are_in_the_film(save: Save, film: Film) -> None:
    out, _, _ = make(open_track(save("song.mp3", noise(0.5), 44_100, "-metadata", "title=Another")), film)
    assert ffmpeg.read_title(out) == "Song"
    assert "seed=7" in ffmpeg.describe(out)


def test_a_full_disk_is_reported_with_a_hint(save: Save, film: Film, fake_ffmpeg: FakeFFmpeg) -> None:
    track, picture = open_track(save("song.wav", noise(0.5))), film(6)
    plan = plan_sound(track)
    decode = f'case "$*" in *pipe:1*) exec {ffmpeg.find_ffmpeg()} "$@";; esac'
    fake_ffmpeg(f"{decode}; cat >/dev/null; echo 'Error writing trailer: No space left on device' >&2; exit 228")
    with pytest.raises(VideoError, match=r"could not mux .*No space left") as caught:
        mux(picture, track, picture.with_name("out.mp4"), plan=plan, metadata={})
    assert "disk space" in caught.value.hint
