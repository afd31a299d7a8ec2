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


def make(track: Track, film: Film, fps: float = 12, codec: str = "auto") -> tuple[Path, SoundPlan, SyncReport]:
    timeline = Timeline.of(track, fps=fps)
    picture = film(timeline.frames, timeline.fps)
    out, plan = picture.with_name("out.mp4"), plan_sound(track, codec)
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


@pytest.mark.parametrize(("rate", "codec"), [(8_000, "aac"), (96_000, "aac"), (37_800, "alac"), (192_000, "alac")])
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


@pytest.mark.parametrize("rate", [8_000, 11_025, 12_000])
def test_an_mp3_that_mp4_does_not_take_is_encoded(rate: int, save: Save, film: Film) -> None:
    _, plan, report = make(open_track(save("song.mp3", noise(2.0, rate), rate)), film)
    assert (plan.codec, plan.copied, plan.sample_rate) == ("aac", False, rate)
    assert report.offset_seconds == pytest.approx(0, abs=0.005)


@pytest.mark.parametrize(("rate", "lowered"), [(705_600, 88_200), (768_000, 96_000)])
def test_the_highest_rates_become_films(rate: int, lowered: int, save: Save, film: Film) -> None:
    track = open_track(save("song.wav", noise(1.0, rate), rate))
    for codec, made, film_rate in (("auto", "alac", rate), ("aac", "aac", lowered)):
        out, plan, report = make(track, film, codec=codec)
        assert (plan.codec, plan.sample_rate, probe(out).sample_rate) == (made, film_rate, film_rate)
        assert report.offset_seconds == pytest.approx(0, abs=0.001)


@pytest.mark.parametrize(("name", "rate"), [("song.aac", 48_000), ("song.aac", 22_050), ("song.mp3", 22_050)])
def test_a_song_whose_rate_changes_is_encoded(name: str, rate: int, save: Save, film: Film) -> None:
    one, two = save(f"1.{name}", noise(3.0), 44_100), save(f"2.{name}", noise(3.0, seed=1), 44_100, "-ar", str(rate))
    path = one.with_name(name)
    path.write_bytes(one.read_bytes() + two.read_bytes())
    track = open_track(path)
    _, plan, report = make(track, film)
    assert track.duration == pytest.approx(6.0, abs=0.15)
    assert (plan.codec, plan.copied) == ("aac", False)
    assert None not in report.offsets
    assert report.offset_seconds == pytest.approx(0, abs=0.005)


@pytest.mark.parametrize("name", ["song.m4a", "song.mp3", "song.mkv"])
def test_a_song_with_a_hole_is_in_step_everywhere(name: str, save: Save, film: Film) -> None:
    path = save(name, noise(8.0), 44_100, *(["-c:a", "aac"] if name == "song.mkv" else []))
    moved = "if(gte({0}*TB,4),{0}+2/TB,{0})"
    stamps = f"setts=pts='{moved.format('PTS')}':dts='{moved.format('DTS')}'"
    gap = path.with_name("gap" + (".mka" if path.suffix == ".mp3" else path.suffix))
    copied = ["-c", "copy", "-bsf:a", stamps, ffmpeg.file_url(gap)]
    ffmpeg.run(["-i", ffmpeg.file_url(path), *copied], purpose="make a hole")
    _, plan, report = make(open_track(gap), film, 23.976)
    assert not plan.copied
    assert report.picture_seconds == pytest.approx(10.0, abs=0.1)
    assert [*report.offsets] == pytest.approx([0, 0, 0], abs=0.002)


def test_the_default_sound_is_copied(save: Save, film: Film) -> None:
    one, two = save("one.wav", noise(1.0)), save("two.wav", noise(2.0, seed=1))
    path = one.with_name("both.m4a")
    inputs = [word for file in (one, two) for word in ("-i", ffmpeg.file_url(file))]
    default = ["-disposition:a:0", "0", "-disposition:a:1", "default"]
    chosen = ["-map", "0:a", "-map", "1:a", *default]
    ffmpeg.run([*inputs, *chosen, ffmpeg.file_url(path)], purpose="make a file with two sounds")
    out, plan, report = make(open_track(path), film)
    assert (plan.copied, report.frames) == (True, 24)
    np.testing.assert_array_equal(open_track(out).read(), open_track(path).read())


@pytest.mark.parametrize(
    ("codec", "made"),
    [("auto", ("mp3", True)), ("copy", ("mp3", True)), ("aac", ("aac", False)), ("alac", ("alac", False))],
)
def test_a_codec_can_be_chosen(codec: str, made: tuple[str, bool], save: Save, film: Film) -> None:
    out, plan, report = make(open_track(save("song.mp3", noise(1.0))), film, codec=codec)
    assert (plan.codec, plan.copied) == made
    assert probe(out).sound_codec == plan.codec
    assert report.offset_seconds == pytest.approx(0, abs=0.001)


@pytest.mark.parametrize(
    ("codec", "channels", "words"),
    [("copy", 2, "pcm_f32le is not among aac, alac, mp3"), ("alac", 6, "it has 6 channels"), ("aac", 7, "7 channels")],
)
def test_a_codec_that_cannot_be_is_refused(codec: str, channels: int, words: str, save: Save) -> None:
    with pytest.raises(VideoError, match=f"cannot be put into an mp4 as {codec}: .*{words}") as caught:
        plan_sound(open_track(save("song.wav", noise(0.2, channels=channels))), codec)
    assert "--audio-codec" in caught.value.hint


def test_why_a_song_is_not_copied_is_told(save: Save) -> None:
    path = save("song.m4a", noise(1.0))
    with pytest.raises(VideoError, match="only a part of it is used"):
        plan_sound(open_track(path, duration=0.5), "copy")
    path.with_name("double.aac").write_bytes(save("one.aac", noise(0.5)).read_bytes() * 2)
    assert plan_sound(open_track(path.with_name("double.aac")), "copy").copied
    two = save("two.aac", noise(0.5, 48_000), 48_000).read_bytes()
    path.with_name("mixed.aac").write_bytes(path.with_name("one.aac").read_bytes() + two)
    with pytest.raises(VideoError, match="in one format"):
        plan_sound(open_track(path.with_name("mixed.aac")), "copy")


def test_what_some_players_do_not_play_is_told(save: Save) -> None:
    assert "MP3, which Apple's players" in (plan_sound(open_track(save("song.mp3", noise(0.5)))).note or "")
    seven = open_track(save("seven.wav", noise(0.5, channels=7)))
    assert "FLAC, which Apple's players" in (plan_sound(seven).note or "")
    odd = open_track(save("odd.wav", noise(0.5, 37_800), 37_800))
    assert "ALAC, which Chrome and Firefox" in (plan_sound(odd).note or "")
    assert plan_sound(odd, "aac").note is plan_sound(open_track(save("song.wav", noise(0.5)))).note is None


def test_a_plan_that_fails_is_replaced_by_the_next(save: Save, fake_ffmpeg: FakeFFmpeg) -> None:
    track = open_track(save("song.wav", noise(0.5)))
    real = ffmpeg.find_ffmpeg()
    fake_ffmpeg(f'case "$*" in *"-c:a aac"*) echo no aac >&2; exit 1;; esac; exec {real} "$@"')
    assert plan_sound(track).codec == "alac"
    with pytest.raises(VideoError, match="cannot be put into an mp4: no aac"):
        plan_sound(track, "aac")
    fake_ffmpeg(f'case "$*" in *"-c:a "*mp4*) echo no codec >&2; exit 1;; esac; exec {real} "$@"')
    with pytest.raises(VideoError, match="cannot be put into an mp4: no codec"):
        plan_sound(track)


def test_a_plan_without_a_trial_needs_no_ffmpeg(save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    track = open_track(save("song.mp3", noise(1.0)), duration=0.5)
    monkeypatch.setenv("W2C_FFMPEG", "/nowhere/ffmpeg")
    assert plan_sound(track, trial=False).codec == "aac"
    with pytest.raises(VideoError, match="W2C_FFMPEG"):
        plan_sound(track)


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


def test_a_full_temporary_disk_is_not_taken_for_a_codec_that_fails(save: Save, fake_ffmpeg: FakeFFmpeg) -> None:
    track, real = open_track(save("song.wav", noise(0.5))), ffmpeg.find_ffmpeg()
    fake_ffmpeg(f'case "$*" in *"-c:a aac"*) echo "No space left on device" >&2; exit 1;; esac; exec {real} "$@"')
    with pytest.raises(VideoError, match=r"cannot write temporary files to .*No space left") as caught:
        plan_sound(track)
    assert "TMPDIR" in caught.value.hint
