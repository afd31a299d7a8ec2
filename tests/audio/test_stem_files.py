"""Stems that are found: as separators name them, in folders, next to a mix."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.audio.conftest import RATE, Album, Save, same, stem
from tests.conftest import SAMPLES
from wav2clip_gen.audio.stem_files import resolve_input
from wav2clip_gen.audio.stems import STEMS, plan_stems
from wav2clip_gen.audio.track import Track, open_track
from wav2clip_gen.errors import W2CError

SONG = SAMPLES / "song"

DEMUCS, SPLEETER = "separated/htdemucs/My Song (live)/{}.wav", "My Song (live)/{}.wav"
LAYOUTS = [
    DEMUCS, "separated/htdemucs/My Song (live)/{}.mp3", SPLEETER, "output/My Song (live)/{}.wav",
    "My Song (live)_({:T}).wav", "1_My Song (live)_({:T}).wav", "My Song (live)_({:T})_UVR-MDX-NET.flac",
    "My Song (live)-{}.mp3", "My Song (live)_{}.wav", "My Song (live).{}.wav", "My Song (live) - {:T}.wav",
]  # fmt: skip


@pytest.fixture
def live(save: Save, tmp_path: Path) -> Callable[..., Path]:
    """Write a song and its stems, as files of these names."""

    def write(layout: str, *names: str, seconds: float = 3.0) -> Path:
        for name in names:
            path = layout.replace("{:T}", name.capitalize()).replace("{}", name)
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            save(path, stem(name if name in STEMS else "guitar", seconds), RATE)
        return save("My Song (live).wav", np.sum([stem(name) for name in STEMS], axis=0), RATE)

    return write


@pytest.mark.parametrize("layout", LAYOUTS)
def test_stems_as_separators_write_them_are_found_next_to_the_song(layout: str, live: Callable[..., Path]) -> None:
    path = live(layout, "drums", "vocals")
    plan = plan_stems(open_track(path), ["vocals", "drums"])
    assert (plan.separator, plan.notes) == (None, ())
    for name, origin in plan.origins.items():
        expected = layout.replace("{:T}", name.capitalize()).replace("{}", name)
        assert Path(origin) == path.parent / expected
        assert ".mp3" in layout or same(plan.load()[name], name)
    assert plan_stems(open_track(path), ["vocals"], separator="dsp").given == {}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_stems_as_separators_write_them_are_found_in_a_given_folder(
    layout: str, live: Callable[..., Path], tmp_path: Path
) -> None:
    path = live(layout, "drums", "vocals")
    song = open_track(path.rename(path.parent / "separated.wav"))  # the song lies elsewhere, under its name
    (tmp_path / "elsewhere").mkdir()
    song = open_track(song.path.rename(tmp_path / "elsewhere" / path.name))
    for folder in [*(tmp_path / layout).parents][: layout.count("/") + 1][:3]:
        if layout.count("/") == 2 and folder == tmp_path:
            continue  # three levels up
        plan = plan_stems(song, ["vocals", "drums"], given=[folder])
        assert plan.separator is None
        assert ".mp3" in layout or same(plan.load()["vocals"], "vocals")


def test_the_instrumental_of_a_separator_is_a_stem_of_its_name(live: Callable[..., Path], tmp_path: Path) -> None:
    path = live("1_My Song (live)_({:T}).wav", "vocals", "instrumental")
    plan = plan_stems(open_track(path), ["vocals", "instrumental"])
    assert plan.origins["instrumental"] == str(tmp_path / "1_My Song (live)_(Instrumental).wav")
    live(SPLEETER, "accompaniment")
    assert "accompaniment" in plan_stems(open_track(path), ["accompaniment"]).given
    with pytest.raises(W2CError, match=r"several files may be the stem vocals: .*\(Vocals\).wav, .*/vocals.wav"):
        plan_stems(open_track(live(SPLEETER, "vocals")), ["vocals"])


def test_two_models_are_ambiguous(live: Callable[..., Path], tmp_path: Path) -> None:
    live("separated/mdx_extra/My Song (live)/{}.wav", "drums")
    song = open_track(live(DEMUCS, "drums"))
    for given in [], [tmp_path / "separated"]:
        with pytest.raises(W2CError, match=r"drums: .*htdemucs.*drums.wav, .*mdx_extra.*drums.wav") as caught:
            plan_stems(song, ["drums"], given=given)
        assert f"--stem-file 'drums={tmp_path}/separated/htdemucs/My Song (live)/drums.wav'" in caught.value.hint
    assert "drums" in plan_stems(song, ["drums"], given=[tmp_path / "separated" / "htdemucs"]).given


def test_other_songs_and_our_own_films_are_no_stems(live: Callable[..., Path], save: Save) -> None:
    song = open_track(live("My Song_{}.wav", "drums"))
    for name in ("My Song (live) 2_drums.wav", "xMy Song (live)_drums.wav", "My Song (live)_drumset.wav", "drums.wav"):
        save(name, stem("drums"), RATE)
    save("My Song (live).drums.mp4", stem("drums"), RATE)
    plan = plan_stems(song, ["drums"])
    assert (plan.given, plan.notes) == ({}, ())


def test_a_found_stem_of_another_length_is_told_and_not_used(live: Callable[..., Path], tmp_path: Path) -> None:
    song = live("My Song (live)/{}.wav", "drums", seconds=1.0)  # kept of a span, perhaps
    for track in open_track(song), open_track(song, duration=0.5):
        plan = plan_stems(track, ["drums"])
        assert plan.given == {}
        (note,) = plan.notes
        assert "drums.wav lasts 1.000 s" in note
        assert "lasts 3.000 s: it is not used; to use it, --stem-file drums=" in note


def test_a_folder_without_the_stems_is_listed(song: Track, save: Save, tmp_path: Path) -> None:
    (tmp_path / "stems" / "take 1").mkdir(parents=True)
    for name in ("take 1/My Drums.wav", "bass gtr.flac", "voc.wav"):
        save(f"stems/{name}", stem("drums"), RATE)
    with pytest.raises(W2CError) as caught:
        plan_stems(song, ["drums", "bass", "vocals"], given=[tmp_path / "stems"])
    there = "there are take 1/My Drums.wav, bass gtr.flac, voc.wav"
    assert caught.value.what == f"{tmp_path}/stems holds no drums or bass or vocals of song.wav; {there}"
    files = {"drums": "take 1/My Drums.wav", "bass": "bass gtr.flac"}
    options = (f"--stem-file '{name}={tmp_path}/stems/{file}'" for name, file in files.items())
    assert caught.value.hint == f"name them: {' '.join(options)}"


def test_a_long_list_is_cut(song: Track, save: Save, tmp_path: Path) -> None:
    (tmp_path / "stems").mkdir()
    for number in range(12):
        save(f"stems/{number:02}.wav", stem("drums", 0.1), RATE)
    with pytest.raises(W2CError, match=r"07.wav and 4 more") as caught:
        plan_stems(song, ["drums"], given=[tmp_path / "stems"])
    assert caught.value.hint == "name them: --stem-file drums=FILE"


def test_a_folder_stands_for_its_mix(album: Album) -> None:
    folder = album("drums", mix="mixture.wav")
    assert resolve_input(folder) == folder / "mixture.wav"
    assert resolve_input(folder / "drums.wav") == folder / "drums.wav"
    assert resolve_input(SONG) == SONG / "mix.ogg"


def test_a_folder_without_a_mix_is_an_error(album: Album) -> None:
    with pytest.raises(W2CError, match="without a mix") as caught:
        resolve_input(album("drums"))
    assert "--stem-file" in caught.value.hint
