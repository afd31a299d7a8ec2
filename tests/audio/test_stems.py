from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from tests.audio.conftest import RATE, Album, Save, same, sound, stem
from tests.conftest import write_stem_file
from wav2clip_gen.audio.stem_files import resolve_input
from wav2clip_gen.audio.stems import STEMS, plan_stems
from wav2clip_gen.audio.timeline import Timeline
from wav2clip_gen.audio.track import Track, open_track
from wav2clip_gen.errors import W2CError


def test_a_named_file_is_that_stem(song: Track, save: Save) -> None:
    path = save("d.wav", stem("drums"), RATE)
    plan = plan_stems(song, ["drums"], given=[f"drums={path}"])
    assert (plan.separator, plan.origins) == (None, {"drums": str(path)})
    assert same(plan.load()["drums"], "drums")


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".m4a"])
def test_a_folder_of_stems_is_understood(suffix: str, song: Track, album: Album) -> None:
    plan = plan_stems(song, ["drums", "vocals"], given=[album(*STEMS, suffix=suffix)])
    tracks = plan.load()
    assert list(tracks) == ["drums", "vocals"]
    assert plan.separator is None
    for name, track in tracks.items():
        assert track.samples == song.samples
        assert suffix == ".m4a" or same(track, name)


def test_capitals_in_a_folder_do_not_matter(song: Track, album: Album) -> None:
    assert same(plan_stems(song, ["vocals"], given=[album("Vocals")]).load()["vocals"], "vocals")


def test_the_streams_of_a_stem_file_are_distinguished(song: Track, stem_file: Path) -> None:
    for given in [str(stem_file)], [f"{name}={stem_file}" for name in STEMS]:
        plan = plan_stems(song, STEMS, given=given)
        tracks = plan.load()
        assert list(tracks) == list(STEMS)
        assert plan.origins["vocals"] == f"{stem_file}, stream 4"
        for name, track in tracks.items():
            assert track.samples == song.samples
            assert same(track, name)


@pytest.fixture
def stem_file(album: Album, tmp_path: Path) -> Path:
    folder = album(*STEMS, mix="mix.wav")
    names = ("mix", "drums", "bass", "other", "vocals")
    return write_stem_file([folder / f"{name}.wav" for name in names], tmp_path / "song.stem.mp4")


def test_a_song_that_is_a_stem_file_contains_its_stems(stem_file: Path) -> None:
    track = open_track(stem_file, start=0.5, duration=1.25)
    tracks = plan_stems(track, STEMS).load()
    assert all(one.samples == track.samples for one in tracks.values())
    np.testing.assert_allclose(sum(map(sound, tracks.values())), sound(track), atol=1e-3)


@pytest.mark.parametrize("mix", ["mixture.wav", "Mix.flac"])
def test_a_mix_next_to_its_stems_uses_them(mix: str, album: Album) -> None:
    folder = album(*STEMS, mix=mix)
    track = open_track(resolve_input(folder))
    plan = plan_stems(track, STEMS)
    assert plan.separator is None
    assert plan.origins["drums"] == str(folder / "drums.wav")
    np.testing.assert_allclose(sum(map(sound, plan.load().values())), sound(track), atol=1e-3)


def test_a_separator_chosen_by_name_ignores_files_next_to_the_mix(album: Album) -> None:
    track = open_track(album(*STEMS, mix="mix.wav") / "mix.wav")
    plan = plan_stems(track, STEMS, separator="dsp")
    assert (plan.separator, plan.given) == ("dsp", {})


def test_a_song_of_another_name_is_not_taken_for_a_mix(album: Album, save: Save) -> None:
    folder = album(*STEMS)
    track = open_track(save("album/holiday.wav", stem("other"), RATE))
    assert plan_stems(track, STEMS, separator="auto").given == {}
    assert len(plan_stems(track, STEMS, given=[folder]).given) == 4


def test_a_file_precedes_a_folder_and_that_precedes_files_next_to_the_mix(album: Album, save: Save) -> None:
    folder = album("vocals", "drums", "bass", mix="mix.wav")
    (folder.parent / "more").mkdir()
    save("more/vocals.wav", stem("other"), RATE)
    mine = save("mine.wav", stem("guitar"), RATE)
    track = open_track(folder / "mix.wav")
    given: list[str | Path] = [folder.parent / "more", f"drums={mine}"]
    tracks = plan_stems(track, ["vocals", "drums", "bass"], given=given).load()
    assert same(tracks["vocals"], "other")
    assert same(tracks["drums"], "guitar")
    assert same(tracks["bass"], "bass")


def test_a_given_stem_may_have_any_name(song: Track, save: Save) -> None:
    path = save("g.wav", stem("guitar"), RATE)
    assert same(plan_stems(song, ["guitar"], given=[f"guitar={path}"]).load()["guitar"], "guitar")


def test_an_equals_sign_in_a_path_is_only_a_character(song: Track, album: Album) -> None:
    folder = album("drums")
    odd = folder.rename(folder.with_name("a=b"))
    assert same(plan_stems(song, ["drums"], given=[str(odd)]).load()["drums"], "drums")
    given = [f"drums={odd / 'drums.wav'}"]
    assert same(plan_stems(song, ["drums"], given=given).load()["drums"], "drums")


@pytest.mark.parametrize("rate", [7_350, 8_000, 11_025, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_another_rate_does_not_matter(rate: int, channels: int, save: Save) -> None:
    t = np.arange(3 * 44_100) / 44_100
    song = open_track(save("song.wav", 0.3 * np.sin(2 * np.pi * 400 * t)[:, None], 44_100), start=1.37, duration=1.0)
    t = np.arange(3 * rate) / rate
    tone = np.repeat(0.3 * np.sin(2 * np.pi * 400 * t)[:, None], channels, axis=1)
    track = plan_stems(song, ["bass"], given=[f"bass={save('bass.wav', tone, rate)}"]).load()["bass"]
    assert (track.sample_rate, track.channels, track.samples) == (44_100, channels, song.samples)
    assert Timeline.of(track, fps=12) == Timeline.of(song, fps=12)
    assert sum(map(len, track.mono_blocks())) == song.length_at(16_000)
    np.testing.assert_allclose(sound(track), sound(song), atol=2e-3)


@pytest.mark.parametrize(("seconds", "given"), [(2.1, 3.0), (3.9, 3.0), (3.0, 3.0), (250.0, 248.0)])
@pytest.mark.parametrize("rate", [RATE, 16_000])
def test_a_little_too_short_or_too_long_is_made_to_fit(seconds: float, given: float, rate: int, save: Save) -> None:
    song = open_track(save("song.wav", np.zeros((round(seconds * RATE), 1), np.float32), RATE))
    stem = np.full((round(given * rate), 1), 0.25, np.float32)
    samples = sound(plan_stems(song, ["bass"], given=[f"bass={save('bass.wav', stem, rate)}"]).load()["bass"])
    assert len(samples) == song.samples
    edge = 50  # samples near an end, where a resampled step rings
    end = min(song.samples, round(given * RATE))
    np.testing.assert_allclose(samples[edge : end - edge], 0.25, atol=1e-3)
    assert not samples[end + 1 :].any()


def test_a_span_finds_the_stems_own_span(save: Save) -> None:
    song, drums = save("song.wav", stem("other"), RATE), save("drums.wav", stem("drums"), RATE)
    span = open_track(song, start=0.7, duration=1.1)
    track = plan_stems(span, ["drums"], given=[f"drums={drums}"]).load()["drums"]
    np.testing.assert_array_equal(sound(track), stem("drums")[5_600 : 5_600 + 8_800, 0])


def test_blocks_of_a_fitted_stem_are_those_asked_for(song: Track, save: Save) -> None:
    path = save("drums.wav", stem("drums", 2.5, rate=16_000), 16_000)
    track = plan_stems(song, ["drums"], given=[f"drums={path}"]).load()["drums"]
    blocks = list(track.blocks(seconds=0.3))
    assert {block.shape[1] for block in blocks} <= set(range(1, 2_401))
    np.testing.assert_array_equal(np.concatenate(blocks, axis=1), track.read())


def test_a_stem_that_shrinks_meanwhile_is_noticed(song: Track, save: Save) -> None:
    for rate in (RATE, 16_000):
        path = save("drums.wav", stem("drums", rate=rate), rate)
        track = plan_stems(song, ["drums"], given=[f"drums={path}"]).load()["drums"]
        save("drums.wav", stem("drums", 2.0, rate=rate), rate)
        with pytest.raises(W2CError, match="samples earlier"):
            track.read()


@pytest.mark.parametrize(
    ("names", "given", "words"),
    [
        (["vocal"], [], "no stem is called 'vocal'.*did you mean vocals"),
        (["guitar"], [], "'guitar'.*choose from: vocals, drums, bass, other.*guitar=FILE"),
        (["mix"], [], "mix is the song"),
        (["a.b"], [], "'a.b' is no name"),
        ([""], [], "'' is no name"),
        ([], ["drums=drums.wav"], "none is used"),
        (["drums"], ["drums="], "not NAME=FILE"),
        (["drums"], ["=drums.wav"], "not NAME=FILE"),
        (["drums"], ["drums.wav"], "which stem is it.*drums=.*drums.wav"),
        (["drums"], ["nowhere"], "nowhere: no such file or folder"),
        (["drums"], ["drums=nowhere.wav"], "nowhere.wav: no such file"),
        (["drums"], ["drums=text.wav"], "text.wav is not a sound file"),
        (["drums"], ["drums=empty.wav"], "empty.wav is empty"),
        (["drums"], ["drums=empty"], "empty is a folder"),
        (["drums"], ["empty"], "empty holds no drums"),
        (
            ["drums", "bass"],
            ["twice"],
            "may be the stem drums: .*drums.flac, .*drums.wav.*--stem-file drums=.*drums.flac",
        ),
        (["drums"], ["drums=drums.wav", "drums=twice/drums.wav"], "drums is given twice"),
        (["vocals"], ["drums=drums.wav"], "given for the stem drums, which is not used.*--stems vocals,drums"),
        (["drums"], ["two.stem.mp4"], "2 sound streams instead of 5"),
        (["drums"], ["text.stem.mp4"], "text.stem.mp4"),
    ],
)
def test_bad_stems_are_clear_errors(
    names: list[str], given: list[str], words: str, song: Track, save: Save, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    for folder in ("empty", "twice"):
        (tmp_path / folder).mkdir()
    for name, seconds in {"drums": 3, "twice/drums": 3}.items():
        save(f"{name}.wav", stem("drums", seconds), RATE)
    save("twice/drums.flac", stem("drums"), RATE)
    Path("text.wav").write_text("no music, only text\n")
    Path("text.stem.mp4").write_text("no music, only text\n")
    Path("empty.wav").touch()
    save("two.stem.mp4", stem("drums"), RATE, "-map", "0:a", "-map", "0:a")
    with pytest.raises(W2CError) as caught:
        plan_stems(song, names, given=given)
    line = f"{caught.value.what} {caught.value.hint}"
    assert "\n" not in line
    assert caught.value.hint
    assert re.search(words, line), line


def test_an_unknown_separator_is_refused(song: Track) -> None:
    with pytest.raises(W2CError, match="no separator is called 'spleeter'"):
        plan_stems(song, ["drums"], separator="spleeter")


def test_a_stem_that_ends_before_the_span_is_reported_with_its_length(save: Save) -> None:
    span = open_track(save("song.wav", stem("other", 9.0), RATE), start=6.0)
    path = save("drums.wav", stem("drums", 2.0), RATE)
    with pytest.raises(W2CError, match=r"lasts 2.000 s, but the song .* up to 9.000 s"):
        plan_stems(span, ["drums"], given=[f"drums={path}"])


@pytest.mark.parametrize(("start", "duration"), [(2.0, 0.5), (9.0, 0.5), (8.2, 3.0)])
def test_a_stem_that_ends_before_the_span_is_no_silence(start: float, duration: float, save: Save) -> None:
    song = save("song.wav", stem("other", 300.0), RATE)
    path = save("drums.wav", stem("drums", start if start < 9 else 8.7), RATE)
    with pytest.raises(W2CError, match=r"drums.wav lasts .* but the song .* is used up to"):
        plan_stems(open_track(song, start=start, duration=duration), ["drums"], given=[f"drums={path}"])


def test_what_a_stem_misses_is_measured_against_the_span(save: Save) -> None:
    span = open_track(save("song.wav", stem("other", 250.0), RATE), start=240.0)
    path = save("drums.wav", stem("drums", 248.0), RATE)  # a hundredth of the song, and a fifth of the span
    (note,) = plan_stems(span, ["drums"], given=[f"drums={path}"]).notes
    assert note == f"{path} lasts 248.000 s, but the song {span.path} is used up to 250.000 s: silence follows"


@pytest.mark.parametrize(
    ("seconds", "note"),
    [
        (1.5, "lasts 1.500 s, but the song .*song.wav is used up to 3.000 s: silence follows"),
        (0.1, "lasts 0.100 s, .* silence follows"),
        (4.5, "lasts 4.500 s, but the song .*song.wav is used up to 3.000 s: the rest is left out"),
        (2.5, None),
        (3.0, None),
        (3.5, None),
    ],
)
@pytest.mark.parametrize("rate", [RATE, 16_000])
def test_a_stem_of_another_length_is_padded_or_cut_and_told(
    seconds: float, note: str | None, rate: int, song: Track, save: Save
) -> None:
    path = save("drums.wav", stem("drums", seconds, rate=rate), rate)
    plan = plan_stems(song, ["drums"], given=[f"drums={path}"])
    assert len(plan.notes) == (note is not None)
    assert all(re.search(note or "", found) for found in plan.notes)
    samples, end = sound(plan.load()["drums"]), min(song.samples, round(seconds * RATE))
    assert len(samples) == song.samples
    assert samples[:end].std() == pytest.approx(stem("drums", seconds, rate=rate).std(), rel=0.2)
    assert not samples[end + 1 :].any()


def test_stems_of_another_length_next_to_a_mix_are_used_and_told(album: Album, save: Save) -> None:
    folder = album("bass", mix="mix.wav")
    drums = save("album/drums.wav", stem("drums")[RATE:], RATE)  # without the first second
    mix = save("album/mix.wav", stem("other", 5.0), RATE)
    plan = plan_stems(open_track(folder / "mix.wav", duration=1.0), ["drums"])
    lengths = f"{drums} lasts 2.000 s, but the song {mix} lasts 5.000 s"
    assert plan.notes == (f"{lengths}: both are used as if they began together",)
    assert same(plan.load()["drums"], "drums") is False
    plan = plan_stems(open_track(folder / "mix.wav"), ["bass", "drums"])
    assert [note.partition(" ")[0] for note in plan.notes] == [str(folder / "bass.wav"), str(drums)]
    assert plan_stems(open_track(folder / "mix.wav"), ["drums"], separator="dsp").separator == "dsp"


def test_a_damaged_stem_next_to_the_song_can_be_ignored(album: Album) -> None:
    folder = album(mix="mix.wav")
    (folder / "drums.wav").write_text("no music, only text\n")
    track = open_track(folder / "mix.wav")
    with pytest.raises(W2CError, match=r"drums.wav is not a sound file") as caught:
        plan_stems(track, ["drums"])
    assert "--separator dsp" in caught.value.hint
    assert plan_stems(track, ["drums"], separator="dsp").separator == "dsp"
