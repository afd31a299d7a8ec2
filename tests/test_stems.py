"""Stems steer films: from files, folders, streams and separators, alone, side by side, and one film each."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from wav2clip_gen.estimate import estimate
from wav2clip_gen.events import Estimate, Event, Film, Silent, Stage

from tests.conftest import SAMPLES, write_stem_file
from wav2clip_gen import record
from wav2clip_gen.audio.stems import STEMS
from wav2clip_gen.config import Settings
from wav2clip_gen.errors import OutputError, SettingsError, VideoError, W2CError
from wav2clip_gen.job import fill, films, prepare, sources
from wav2clip_gen.models.registry import Models
from wav2clip_gen.pipeline import hear, render, rendering
from wav2clip_gen.video.probe import probe

SONG = SAMPLES / "song"
SPAN = {"sound": {"start": 7, "duration": 1.5}}  # drums all along, and the choir sings
Make = Callable[..., Film]


@pytest.fixture
def steered(tiny: Settings) -> Settings:
    """Six frames, steered by vocals and drums."""
    return tiny.merged({**SPAN, "stems": ["vocals", "drums"]})


@pytest.fixture
def make(mini: Models, steered: Settings, tmp_path: Path) -> Make:
    """Render a song to `film.mp4`, or another name."""

    def make(source: Path, name: str = "film", **changes: Any) -> Film:
        return render(source, tmp_path / f"{name}.mp4", steered.merged(changes), family=mini)

    return make


@pytest.fixture
def tune(tmp_path: Path) -> Path:
    """The song by itself, under a name that says nothing of stems."""
    path = tmp_path / "tune.ogg"
    path.write_bytes((SONG / "mix.ogg").read_bytes())
    return path


def origins(film: Film) -> dict[str, str]:
    return {name: stem["from"] for name, stem in json.loads(film.record.read_text())["stems"].items()}


def painted(film: Path) -> dict[str, Any]:
    """What the record beside a film tells of its frames."""
    return json.loads(film.with_suffix(".json").read_text())["frames"]


def losses(film: Film) -> list[float]:
    return painted(film.path)["loss"]


def test_given_files_a_folder_and_streams_make_the_same_film(make: Make, tune: Path, tmp_path: Path) -> None:
    order = ("mix", "drums", "bass", "other", "vocals")
    streams = write_stem_file([SONG / f"{name}.ogg" for name in order], tmp_path / "tune.stem.mp4")
    files = [f"{name}={SONG / name}.ogg" for name in ("vocals", "drums")]
    made = [
        make(tune, "files", stem_files=files),
        make(tune, "folder", stem_files=[str(SONG)]),
        make(SONG, "input"),
        make(streams, "streams"),
        make(tune, "named", stem_files=[str(streams)]),
    ]
    for film in made:
        assert probe(film.path).frames == 6
        assert origins(film) == {"vocals": "given", "drums": "given"}
        assert losses(film) == pytest.approx(losses(made[0]), abs=0.02)  # alac holds 16 bits
    assert losses(make(tune, "whole", stems=[])) != pytest.approx(losses(made[0]), abs=0.02)


def test_stems_that_are_nowhere_are_separated_told_and_kept(
    mini: Models, steered: Settings, tune: Path, tmp_path: Path
) -> None:
    told: list[Event] = []
    settings = steered.merged({"stem_files": [f"drums={SONG / 'drums.ogg'}"], "sound": {"separator": "dsp"}})
    film = render(
        tune, tmp_path / "film.mp4", settings, family=mini, keep_stems=tmp_path / "kept", on_event=told.append
    )
    assert [event.name for event in told if isinstance(event, Stage)][:3] == ["load", "separate", "hear"]
    assert set(film.timings) == {"load", "separate", "hear", "paint", "join", "check"}
    assert origins(film) == {"vocals": "dsp", "drums": "given"}
    assert json.loads(film.record.read_text())["stems"]["vocals"]["version"]
    assert sorted(path.stem for path in (tmp_path / "kept").iterdir()) == sorted(STEMS)


def test_the_record_remakes_a_film_of_stems(make: Make, mini: Models, tune: Path, tmp_path: Path) -> None:
    made = make(tune, stem_files=[f"drums={SONG / 'drums.ogg'}"], stems=["drums", {"name": "vocals", "weight": 2}])
    again = record.read(made.record)
    assert again.settings.sound.separator == "dsp"  # it was "auto", which may become another
    assert again.differences == ()
    remade = render(again.track, tmp_path / "again.mp4", again.settings, family=mini)
    assert losses(remade) == losses(made)


def test_the_record_knows_a_stem_that_has_changed(make: Make, tune: Path, tmp_path: Path) -> None:
    drums = tmp_path / "drums.ogg"
    drums.write_bytes((SONG / "drums.ogg").read_bytes())
    made = make(tune, stems=["drums"], stem_files=[f"drums={drums}"])
    drums.write_bytes((SONG / "bass.ogg").read_bytes())
    assert record.read(made.record).differences == (f"{drums} is not what it was for film.json",)


def test_the_record_tells_what_is_gone_and_what_to_give_instead(make: Make, tune: Path, tmp_path: Path) -> None:
    for name in ("drums.ogg", "moss.png"):
        (tmp_path / name).write_bytes((SONG / "drums.ogg").read_bytes())
    Image.new("RGB", (9, 9)).save(tmp_path / "moss.png")
    drums, moss = tmp_path / "drums.ogg", tmp_path / "moss.png"
    made = make(tune, stems=["drums"], stem_files=[f"drums={drums}"], style_images=[str(moss)])
    for path in (tune, drums, moss):
        path.unlink()
    told = record.read(made.record).differences
    assert [line.partition(" is gone; ")[0] for line in told] == [str(tune), str(drums), str(moss)]
    for line, option in zip(told, ("--from", "--stem-file drums=FILE", "--style-image"), strict=True):
        assert option in line


def test_the_record_tells_once_of_a_file_that_is_song_and_stems(make: Make, tmp_path: Path) -> None:
    order = ("mix", "drums", "bass", "other", "vocals")
    song = write_stem_file([SONG / f"{name}.ogg" for name in order], tmp_path / "tune.stem.mp4")
    made = make(song)
    song.unlink()
    (told,) = record.read(made.record).differences
    assert told.startswith(f"{song} is gone; name the song")


def test_the_record_knows_how_stems_were_separated(
    mini: Models, steered: Settings, tune: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, repo = steered.merged({"sound": {"separator": "dsp"}}), tmp_path / "repo"
    made = render(tune, tmp_path / "film.mp4", settings, family=mini, demucs_repo=repo)
    assert json.loads(made.record.read_text())["demucs_repo"] == "repo"
    again = record.read(made.record)
    assert (again.demucs_repo, again.differences) == (repo, ())
    assert record.read(made.record, demucs_repo=tmp_path).demucs_repo == tmp_path
    monkeypatch.setattr("wav2clip_gen.audio.separation.DspSeparator.version", "0")
    assert record.read(made.record).differences == ("dsp separates stems otherwise than it did for film.json",)


def test_muting_a_stem_changes_targets_only_where_it_sounded(mini: Models, tiny: Settings, tmp_path: Path) -> None:
    """The choir of the sample sings from 6 s to 12 s; drums play from 4 s on, the guitar all along."""
    settings = tiny.merged({"stems": ["vocals", "drums", "other"], "picture": {"fps": 10}})
    mute = tmp_path / "mute.wav"
    samples, rate = soundfile.read(SONG / "vocals.ogg")
    soundfile.write(mute, np.zeros_like(samples), rate)

    def targets(**changes: Any) -> torch.Tensor:
        return hear(prepare(SONG, tmp_path / "film.mp4", settings.merged(changes), loaded=mini.selection), mini).targets

    sung, muted = targets(), targets(stem_files=[f"vocals={mute}"])
    sounded = np.abs(samples).max(axis=1).reshape(-1, rate // 10).max(axis=1) > 1e-4
    first, last = np.flatnonzero(sounded)[[0, -1]]
    apart = (sung - muted).norm(dim=1)
    margin = 20  # frames: a second each for the levels' smoothing and the targets'
    assert first > margin
    assert len(apart) - last > margin
    assert apart[: first - margin].max() < 1e-3
    assert apart[last + margin :].max() < 1e-3
    assert apart[first:last].mean() > 0.1


def test_a_silent_stem_is_told_and_steers_nothing(mini: Models, steered: Settings, tmp_path: Path) -> None:
    mute = tmp_path / "mute.wav"
    soundfile.write(mute, np.zeros(16_000 * 16), 16_000)
    settings = steered.merged({"stem_files": [f"vocals={mute}"]})
    told: list[Event] = []
    film = render(SONG, tmp_path / "a.mp4", settings, family=mini, on_event=told.append)
    assert [event.stems for event in told if isinstance(event, Silent)] == [("vocals",)]
    drums = render(SONG, tmp_path / "b.mp4", steered.merged({"stems": ["drums"]}), family=mini)
    assert losses(film) == pytest.approx(losses(drums), abs=1e-4)
    alone = render(SONG, tmp_path / "c.mp4", settings.merged({"stems": ["vocals"]}), family=mini)
    assert np.isfinite(losses(alone)).all()


def test_sources_are_the_mix_and_each_stem_once(steered: Settings, tmp_path: Path, mini: Models) -> None:
    job = prepare(SONG, tmp_path / "film.mp4", steered, loaded=mini.selection)
    found = sources(job)
    assert list(found) == ["mix", "vocals", "drums"]
    assert {track.samples for track in found.values()} == {job.timeline.samples}
    assert sources(job)["drums"] is found["drums"]
    plain = prepare(SONG, tmp_path / "film.mp4", steered.merged({"stems": []}), loaded=mini.selection)
    assert list(sources(plain)) == ["mix"]


def test_a_grid_is_one_film_of_the_mix_and_every_stem(make: Make, tmp_path: Path) -> None:
    film = make(SONG, stems=list(STEMS), picture={"layout": "grid", "upscale": 2})
    facts = probe(film.path)
    assert facts.frames == 6
    assert (facts.width, facts.height) == (2 * (3 * 64 + 8), 2 * (2 * (16 + 48) + 4))
    told = painted(film.path)
    assert list(told["pictures"]) == ["mix", *STEMS]
    for picture in told["pictures"].values():
        assert len(picture["loss"]) == len(picture["similarity"]) == 6
    assert told["loss"][-1] == pytest.approx(
        np.mean([picture["loss"][-1] for picture in told["pictures"].values()]), abs=1e-5
    )


def test_a_picture_of_a_grid_is_that_of_its_own_film(make: Make) -> None:
    grid = painted(make(SONG, picture={"layout": "grid"}).path)["pictures"]
    assert grid["vocals"]["loss"] == losses(make(SONG, "vocals", stems=["vocals"]))
    assert grid["mix"]["loss"] == losses(make(SONG, "mix", stems=[]))


def test_separate_films_share_one_separation_and_tell_how_to_make_each_again(
    mini: Models, steered: Settings, tune: Path, tmp_path: Path
) -> None:
    settings = steered.merged({"picture": {"layout": "separate"}, "sound": {"separator": "dsp"}})
    job = prepare(tune, tmp_path / "song.mp4", settings, frames_dir=tmp_path / "frames")
    stages: list[str] = []
    for film in films(job):
        for event in rendering(film, load=lambda *_, **__: mini):
            if isinstance(event, Stage):
                stages.append(event.name)
    assert stages.count("separate") == 1
    for name in ("vocals", "drums"):
        path = tmp_path / f"song.{name}.mp4"
        assert probe(path).sound_seconds == pytest.approx(1.5, abs=0.05)
        assert len(list((tmp_path / "frames" / name).glob("*.png"))) == 6
        again = record.read(path.with_suffix(".json"))
        assert [stem.name for stem in again.settings.stems] == [name]
        remade = render(again.track, tmp_path / f"again-{name}.mp4", again.settings, family=mini)
        assert painted(remade.path) == painted(path)


def test_all_names_of_separate_films_are_checked_before_any_work(
    mini: Models, steered: Settings, tmp_path: Path
) -> None:
    settings = steered.merged({"picture": {"layout": "separate"}})
    for taken in ("song.drums.mp4", "song.drums.json"):
        (tmp_path / taken).write_text("older")
        with pytest.raises(OutputError, match=rf"{taken} exists"):
            prepare(SONG, tmp_path / "song.mp4", settings, loaded=mini.selection)
        (tmp_path / taken).unlink()
    with pytest.raises(SettingsError, match="several films"):
        render(SONG, tmp_path / "song.mp4", settings, family=mini)


def test_a_film_never_replaces_one_of_its_stems(mini: Models, steered: Settings, tmp_path: Path) -> None:
    stem = write_stem_file([SONG / "drums.ogg"], tmp_path / "drums.mp4")
    settings = steered.merged({"stem_files": [f"drums={stem}"]})
    with pytest.raises(VideoError, match="is a stem of the track"):
        prepare(SONG, stem, settings, overwrite=True, loaded=mini.selection)


def test_no_film_replaces_the_song_of_a_folder_or_that_of_another_stem(
    mini: Models, steered: Settings, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    mix = write_stem_file([SONG / "mix.ogg"], folder / "mix.mp4")
    with pytest.raises(VideoError, match="is the track itself"):
        prepare(folder, mix, steered.merged({"stems": []}), overwrite=True, loaded=mini.selection)
    song = mix.rename(tmp_path / "song.drums.mp4")
    settings = steered.merged({"picture": {"layout": "separate"}})
    with pytest.raises(VideoError, match=r"song\.drums\.mp4 is the track itself"):
        prepare(song, tmp_path / "song.mp4", settings, overwrite=True, loaded=mini.selection)


def test_an_estimate_counts_pictures_and_films_and_separates_nothing(
    mini: Models, steered: Settings, tune: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("W2C_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("wav2clip_gen.estimate._time_painting", lambda *_: (10.0, 100.0))  # seconds a step, a frame

    def cost(layout: str) -> Estimate:
        job = prepare(
            tune, tmp_path / "film.mp4", steered.merged({"picture": {"layout": layout}}), loaded=mini.selection
        )
        return estimate(job, family=mini)

    for layout, count in (("single", 1), ("grid", 3), ("separate", 2)):
        told = cost(layout)
        assert told.per_song_second == pytest.approx(count * 100 * 4)  # at 4 frames per second
        assert told.seconds == pytest.approx(count * (3 * 10 + 6 * 100), rel=0.05)  # 3 first steps, 6 frames
    assert not (tmp_path / "cache").exists()


def test_an_estimate_measures_once_for_a_grid_and_knows_stems_from_before(
    mini: Models, steered: Settings, tune: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wav2clip_gen.estimate._time_painting", lambda *_: (0.0, 0.0))
    monkeypatch.setattr("wav2clip_gen.estimate.SEPARATION", {"dsp": 1000.0})
    slow = iter(np.arange(0, 1e6, 500))  # each look at the clock is 500 s after the one before
    settings = steered.merged({"picture": {"layout": "grid"}, "sound": {"separator": "dsp"}})
    job = prepare(tune, tmp_path / "film.mp4", settings, loaded=mini.selection)
    monkeypatch.setattr("wav2clip_gen.estimate.time.perf_counter", lambda: float(next(slow)))
    # Preparing, driving and hearing take 500 s each; a grid of three hears three times.
    assert estimate(job, family=mini).seconds == pytest.approx(1500 + 500 + 500 + 3 * 500)
    sources(job)
    job.separated.clear()
    assert estimate(job, family=mini).seconds == pytest.approx(500 + 500 + 3 * 500)


@pytest.mark.parametrize(
    ("changes", "says", "helps"),
    [
        ({"stems": ["vocal"]}, "no stem is called 'vocal'", "did you mean vocals"),
        ({"stems": ["vocals", ""]}, "a stem has no name", "vocals"),
        ({"stems": ["mix"]}, "the song, not a stem", "vocals"),
        ({"stems": ["drums", "drums"]}, "drums is named twice", "once"),
        ({"stems": [{"name": "drums", "weight": -1}]}, "weight cannot be -1", "from 0"),
        ({"stems": [{"name": "drums", "loud": 1}]}, "stems.loud", "weight"),
        ({"stems": [{"weight": 1}]}, "a stem has no name", "vocals"),
        ({"stems": [3]}, "a stem is a text", 'stems: ["vocals'),
        ({"stems": [{"name": "drums", "weight": 0}]}, "nothing guides", "a stem"),
        ({"stem_files": [3]}, "NAME=FILE", "drums=d.wav"),
        ({"stem_files": ["bass=b.wav"]}, "which is not used", "--stems vocals,drums,bass"),
        ({"stem_files": ["vocals=none.wav"]}, "no such file", "spelling"),
        ({"stems": [], "stem_files": ["drums=d.wav"]}, "no stem is named", "--stems"),
        ({"stems": [], "picture": {"layout": "grid"}}, "needs stems", "--stems"),
        ({"stems": [], "picture": {"layout": "separate"}}, "needs stems", "--stems"),
        ({"stems": [{"name": "drums", "weight": 2}], "picture": {"layout": "grid"}}, "weight of drums", "--layout"),
        ({"stems": [{"name": "drums", "weight": 0}], "picture": {"layout": "separate"}}, "weight of drums", "--layout"),
        ({"picture": {"layout": "mosaic"}}, "layout cannot be mosaic", "grid"),
        ({"sound": {"separator": "magic"}}, "separator cannot be magic", "dsp"),
        ({"sound": {"weight": 0}, "prompts": ["a sea"]}, "the stems have no effect", "sound.weight"),
    ],
)
def test_what_cannot_be_is_one_clear_line(
    changes: dict[str, Any], says: str, helps: str, steered: Settings, tmp_path: Path, mini: Models
) -> None:
    with pytest.raises(W2CError) as caught:
        prepare(SONG, tmp_path / "film.mp4", steered.merged(changes), loaded=mini.selection)
    assert says in caught.value.what
    assert helps in caught.value.hint
    assert "\n" not in caught.value.what + caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_cannot_be_written_to_is_told_before_a_network_is_loaded(
    steered: Settings, tune: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("W2C_CACHE", str(tmp_path / "file"))
    with pytest.raises(OutputError, match="cannot be written") as caught:
        prepare(tune, tmp_path / "film.mp4", steered)
    assert "W2C_CACHE" in caught.value.hint


@pytest.mark.parametrize(
    ("song", "title"),
    [("a.stem.mp4", "a"), ("A.STEM.M4A", "A"), ("a.b.Stem.mp4", "a.b"), ("a.stem.wav", "a.stem"), ("a.mp4", "a")],
)
def test_a_film_is_named_after_its_song_however_that_is_written(song: str, title: str) -> None:
    assert fill("{stem}", Path(song), Settings()) == Path(title)


def test_keeping_needs_something_separated(steered: Settings, tmp_path: Path, mini: Models) -> None:
    for stems in (["drums"], []):
        with pytest.raises(SettingsError, match="none to keep"):
            prepare(
                SONG,
                tmp_path / "a.mp4",
                steered.merged({"stems": stems}),
                loaded=mini.selection,
                keep_stems=tmp_path / "k",
            )
