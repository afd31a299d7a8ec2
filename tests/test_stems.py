"""Stems condition films: from files, folders, streams and separators, in one picture, a grid, or a film each."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from tests.conftest import SAMPLES, condition_job, write_stem_file
from wav2clip_gen import record
from wav2clip_gen.audio.stems import STEMS
from wav2clip_gen.config import MIX, Settings
from wav2clip_gen.errors import OutputError, SettingsError, VideoError, W2CError
from wav2clip_gen.job import Job, fill, prepare
from wav2clip_gen.models.registry import Models
from wav2clip_gen.pipeline import load_stems, render, render_job
from wav2clip_gen.progress import Film, Progress, StageClock, ignore
from wav2clip_gen.video.verify import probe

SONG = SAMPLES / "song"
SPAN = {"sound": {"start": 7, "duration": 1}}  # drums and vocals play
ORDER = (MIX, "drums", "bass", "other", "vocals")  # of the streams of a .stem.mp4


@dataclass(frozen=True)
class Made:
    """A film made once for several tests, which must not change it; `progress` is that of its run."""

    film: Film
    progress: list[Progress]

    @property
    def record(self) -> dict[str, Any]:
        """Its run record."""
        return json.loads(self.film.record.read_text())


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache of their own for films that are made once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def settings(small: Settings) -> Settings:
    """Four frames, conditioned by vocals and drums."""
    return small.merged({**SPAN, "stems": ["vocals", "drums"]})


@pytest.fixture(scope="module")
def tune(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The song without its stems."""
    return Path(shutil.copy(SONG / "mix.ogg", tmp_path_factory.mktemp("tune") / "tune.ogg"))


@pytest.fixture(scope="module")
def given(mini: Models, settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A film of song, given drums and a style image, all in one folder."""
    folder = tmp_path_factory.mktemp("given")
    song, drums = (Path(shutil.copy(SONG / f"{name}.ogg", folder)) for name in (MIX, "drums"))
    Image.new("RGB", (9, 9)).save(folder / "moss.png")
    changes = {"stems": ["drums"], "stem_files": [f"drums={drums}"], "style_images": [str(folder / "moss.png")]}
    song = song.rename(folder / "tune.ogg")
    return Made(render(song, folder / "film.mp4", settings.merged(changes), family=mini), [])


@pytest.fixture(scope="module")
def separated(mini: Models, settings: Settings, tune: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A film of given drums and separated vocals, all separated stems kept."""
    folder, progress = tmp_path_factory.mktemp("separated"), list[Progress]()
    changes = {
        "stems": ["drums", {"name": "vocals", "weight": 2}],
        "stem_files": [f"drums={SONG / 'drums.ogg'}"],
        "sound": {"separator": "dsp"},
    }
    film = render(
        tune, folder / "film.mp4", settings.merged(changes), family=mini, keep_stems=folder / "kept",
        demucs_repo=folder / "repo", on_progress=progress.append,
    )  # fmt: skip
    return Made(film, progress)


@pytest.fixture(scope="module")
def grid(mini: Models, settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A grid of the mix and all stems."""
    changes = {"stems": list(STEMS), "picture": {"layout": "grid", "upscale": 2}}
    return Made(render(SONG, tmp_path_factory.mktemp("grid") / "film.mp4", settings.merged(changes), family=mini), [])


def frame_values(path: Path) -> dict[str, Any]:
    """The values of the frames in the record of a film."""
    return json.loads(path.with_suffix(".json").read_text())["frames"]


def load_mini(mini: Models) -> Any:
    return lambda *_, **__: mini


# Where stems come from


def test_files_folders_and_streams_condition_alike(
    mini: Models, settings: Settings, tune: Path, tmp_path: Path
) -> None:
    streams = write_stem_file([SONG / f"{name}.ogg" for name in ORDER], tmp_path / "tune.stem.mp4")
    files = [f"{name}={SONG / name}.ogg" for name in ("vocals", "drums")]
    shutil.copy(streams, tmp_path / "stems.stem.mp4")

    def targets(source: Path, **changes: Any) -> torch.Tensor:
        job = prepare(source, tmp_path / "film.mp4", settings.merged(changes), selection=mini.selection)
        return condition_job(job, mini).targets

    expected = targets(tune, stem_files=files)
    for found in (
        targets(tune, stem_files=[str(SONG)]),
        targets(SONG),
        targets(streams),
        targets(tune, stem_files=[str(tmp_path / "stems.stem.mp4")]),
    ):
        torch.testing.assert_close(found, expected, atol=0.01, rtol=0)  # alac holds 16 bits
    assert (targets(tune, stems=[]) - expected).abs().max() > 0.05

    film = render(streams, tmp_path / "film.mp4", settings, family=mini)
    assert probe(film.path).frames == 4
    assert {stem["from"] for stem in json.loads(film.record.read_text())["stems"].values()} == {"given"}
    streams.unlink()
    (difference,) = record.read(film.record).differences  # one line for a file that is song and stems
    assert difference.startswith(f"{streams} is missing; name the song")


def test_missing_stems_are_separated_reported_and_kept(separated: Made) -> None:
    stages = list(dict.fromkeys(progress.stage for progress in separated.progress))
    assert stages == ["load", "separate", "analyze", "optimize", "mux", "verify"]
    assert list(separated.film.timings) == stages
    shares = [progress.done for progress in separated.progress if progress.stage == "separate" and progress.total]
    assert (shares, shares[-1]) == (sorted(shares), 100)
    stems = separated.record["stems"]
    assert {name: stem["from"] for name, stem in stems.items()} == {"vocals": "dsp", "drums": "given"}
    assert stems["vocals"]["version"]
    kept = separated.film.path.with_name("kept").iterdir()
    assert sorted(path.stem for path in kept) == sorted(STEMS)


def test_the_sources_are_the_mix_and_each_stem_once(settings: Settings, tmp_path: Path, mini: Models) -> None:
    def sources(*stems: str) -> tuple[Job, dict[str, Any]]:
        changes = {"stems": list(stems)}
        job = prepare(SONG, tmp_path / "film.mp4", settings.merged(changes), selection=mini.selection)
        return job, load_stems(job, StageClock(ignore))

    job, found = sources("vocals", "drums")
    assert list(found) == [MIX, "vocals", "drums"]
    assert {track.samples for track in found.values()} == {job.timeline.samples}
    assert list(sources()[1]) == [MIX]


# Replay


def test_a_replay_separates_and_weights_stems_alike(separated: Made, mini: Models, tmp_path: Path) -> None:
    replay, repo = record.read(separated.film.record), separated.film.path.with_name("repo")
    assert (replay.demucs_repo, replay.differences) == (repo, ())
    assert separated.record["demucs_repo"] == "repo"
    assert record.read(separated.film.record, demucs_repo=tmp_path).demucs_repo == tmp_path
    again = render(replay.source, tmp_path / "again.mp4", replay.settings, family=mini)
    assert frame_values(again.path) == separated.record["frames"]


def test_the_record_names_the_separator_that_auto_chose(settings: Settings, tune: Path, tmp_path: Path) -> None:
    assert settings.sound.separator == "auto"
    assert prepare(tune, tmp_path / "film.mp4", settings).settings.sound.separator == "dsp"


def test_a_replay_notices_another_version_of_the_separator(separated: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wav2clip_gen.audio.separation.DspSeparator.version", "0")
    (difference,) = record.read(separated.film.record).differences
    assert difference == "the version of dsp differs from the one that separated the stems of film.json"


def test_a_replay_notices_a_changed_stem(given: Made, tmp_path: Path) -> None:
    folder = shutil.copytree(given.film.path.parent, tmp_path / "copy")
    drums = folder / "drums.ogg"
    assert record.read(folder / "film.json").differences == ()
    shutil.copy(SONG / "bass.ogg", drums)
    assert record.read(folder / "film.json").differences == (f"{drums} has changed since film.json",)


def test_a_replay_names_missing_inputs_and_what_to_give_instead(given: Made, tmp_path: Path) -> None:
    folder = shutil.copytree(given.film.path.parent, tmp_path / "copy")
    inputs = [folder / name for name in ("tune.ogg", "drums.ogg", "moss.png")]
    for path in inputs:
        path.unlink()
    differences = record.read(folder / "film.json").differences
    assert [line.partition(" is missing; ")[0] for line in differences] == [str(path) for path in inputs]
    for line, option in zip(differences, ("--from", "--stem-file drums=FILE", "--style-image"), strict=True):
        assert option in line


# Silence


def test_muting_a_stem_changes_targets_only_where_it_was_audible(mini: Models, tiny: Settings, tmp_path: Path) -> None:
    """The choir of the sample sings from 6 s to 12 s; drums play from 4 s on, the guitar all along."""
    settings = tiny.merged({"stems": ["vocals", "drums", "other"], "picture": {"fps": 10}, "sound": {"hop": 0.25}})
    mute = tmp_path / "mute.wav"
    samples, rate = soundfile.read(SONG / "vocals.ogg")
    soundfile.write(mute, np.zeros_like(samples), rate)

    def targets(**changes: Any) -> torch.Tensor:
        job = prepare(SONG, tmp_path / "film.mp4", settings.merged(changes), selection=mini.selection)
        return condition_job(job, mini).targets

    sung, muted = targets(), targets(stem_files=[f"vocals={mute}"])
    audible = np.abs(samples).max(axis=1).reshape(-1, rate // 10).max(axis=1) > 1e-4
    first, last = np.flatnonzero(audible)[[0, -1]]
    change = (sung - muted).norm(dim=1)
    margin = 20  # frames: a second each for the levels' smoothing and the targets'
    assert first > margin
    assert len(change) - last > margin
    assert change[: first - margin].max() < 1e-3
    assert change[last + margin :].max() < 1e-3
    assert change[first:last].mean() > 0.1


def test_a_silent_stem_is_noted_and_conditions_nothing(mini: Models, settings: Settings, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "mute.wav", np.zeros(16_000 * 16), 16_000)
    muted, progress = settings.merged({"stem_files": [f"vocals={tmp_path / 'mute.wav'}"]}), list[Progress]()

    def targets(chosen: Settings) -> torch.Tensor:
        job = prepare(SONG, tmp_path / "other.mp4", chosen, selection=mini.selection)
        return condition_job(job, mini).targets

    film = render(SONG, tmp_path / "film.mp4", muted, family=mini, on_progress=progress.append)
    notes = [one.message for one in progress if one.message.startswith("note: ")]
    assert notes == ["note: silent from start to end: vocals"]
    assert np.isfinite(frame_values(film.path)["loss"]).all()
    torch.testing.assert_close(targets(muted), targets(settings.merged({"stems": ["drums"]})), atol=1e-5, rtol=0)
    alone = targets(muted.merged({"stems": ["vocals"]}))
    torch.testing.assert_close(alone.norm(dim=1), torch.ones(4))


# Grids and separate films


def test_a_grid_is_a_film_of_the_mix_and_every_stem(grid: Made) -> None:
    facts = probe(grid.film.path)
    assert facts.frames == 4
    assert (facts.width, facts.height) == (2 * (3 * 32 + 8), 2 * (2 * (16 + 32) + 4))
    values = grid.record["frames"]
    assert list(values["pictures"]) == [MIX, *STEMS]
    for picture in values["pictures"].values():
        assert len(picture["loss"]) == len(picture["similarity"]) == 4
    assert values["loss"][-1] == pytest.approx(
        np.mean([picture["loss"][-1] for picture in values["pictures"].values()]), abs=1e-5
    )


@pytest.mark.parametrize(("picture", "stems"), [("vocals", ["vocals"]), (MIX, [])])
def test_a_picture_of_a_grid_equals_its_own_film(
    picture: str, stems: list[str], grid: Made, mini: Models, settings: Settings, tmp_path: Path
) -> None:
    film = render(SONG, tmp_path / "film.mp4", settings.merged({"stems": stems}), family=mini)
    assert frame_values(film.path)["loss"] == grid.record["frames"]["pictures"][picture]["loss"]


def test_separate_films_share_a_separation_and_are_replayed_one_by_one(
    mini: Models, settings: Settings, tune: Path, tmp_path: Path
) -> None:
    changes = {"picture": {"layout": "separate"}, "sound": {"separator": "dsp"}}
    job = prepare(tune, tmp_path / "song.mp4", settings.merged(changes), frames_dir=tmp_path / "frames")
    progress: list[Progress] = []
    made = list(render_job(job, load=load_mini(mini), on_progress=progress.append))
    assert [film.path for film in made] == [tmp_path / f"song.{name}.mp4" for name in ("vocals", "drums")]
    begun = [one.stage for one in progress if not (one.done or one.message or one.total)]
    assert begun.count("separate") == 1
    assert begun.count("optimize") == begun.count("mux") == 2
    for film, name in zip(made, ("vocals", "drums"), strict=True):
        assert probe(film.path).sound_seconds == pytest.approx(1, abs=0.05)
        assert len(list((tmp_path / "frames" / name).glob("*.png"))) == 4
        assert [stem.name for stem in record.read(film.record).settings.stems] == [name]
    replay = record.read(made[1].record)
    again = render(replay.source, tmp_path / "again.mp4", replay.settings, family=mini)
    assert frame_values(again.path) == frame_values(made[1].path)


# Refused before any work


def test_all_names_of_separate_films_are_checked_before_any_work(
    mini: Models, settings: Settings, tmp_path: Path
) -> None:
    separate = settings.merged({"picture": {"layout": "separate"}})
    for taken in ("song.drums.mp4", "song.drums.json"):
        (tmp_path / taken).write_text("older")
        with pytest.raises(OutputError, match=rf"{taken} exists"):
            prepare(SONG, tmp_path / "song.mp4", separate, selection=mini.selection)
        (tmp_path / taken).unlink()
    with pytest.raises(SettingsError, match="several films"):
        render(SONG, tmp_path / "song.mp4", separate, family=mini)


def test_a_film_never_replaces_one_of_its_stems(mini: Models, settings: Settings, tmp_path: Path) -> None:
    stem = write_stem_file([SONG / "drums.ogg"], tmp_path / "drums.mp4")
    changed = settings.merged({"stem_files": [f"drums={stem}"]})
    with pytest.raises(VideoError, match="is a stem of the track"):
        prepare(SONG, stem, changed, overwrite=True, selection=mini.selection)


def test_a_film_never_replaces_the_song_of_a_folder_or_that_of_another_film(
    mini: Models, settings: Settings, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    mix = write_stem_file([SONG / "mix.ogg"], folder / "mix.mp4")
    with pytest.raises(VideoError, match="is the track itself"):
        prepare(folder, mix, settings.merged({"stems": []}), overwrite=True, selection=mini.selection)
    song = mix.rename(tmp_path / "song.drums.mp4")
    separate = settings.merged({"picture": {"layout": "separate"}})
    with pytest.raises(VideoError, match=r"song\.drums\.mp4 is the track itself"):
        prepare(song, tmp_path / "song.mp4", separate, overwrite=True, selection=mini.selection)


@pytest.mark.parametrize(
    ("changes", "problem", "hint"),
    [
        ({"stems": ["vocal"]}, "no stem is called 'vocal'", "did you mean vocals"),
        ({"stems": ["vocals", ""]}, "a stem has no name", "vocals"),
        ({"stems": ["mix"]}, "the song, not a stem", "vocals"),
        ({"stems": ["drums", "drums"]}, "drums is named twice", "once"),
        ({"stems": [{"name": "drums", "weight": -1}]}, "weight cannot be -1", "from 0"),
        ({"stems": [{"name": "drums", "loud": 1}]}, "stems.loud", "weight"),
        ({"stems": [{"weight": 1}]}, "a stem has no name", "vocals"),
        ({"stems": [3]}, "a stem is a text, not 3", "vocals"),
        ({"stems": [{"name": "drums", "weight": 0}]}, "nothing", "a stem"),
        ({"stem_files": [3]}, "NAME=FILE", "drums=d.wav"),
        ({"stem_files": ["bass=b.wav"]}, "which is not used", "--stems vocals,drums,bass"),
        ({"stem_files": ["vocals=none.wav"]}, "no such file", "spelling"),
        ({"stems": [], "stem_files": ["drums=d.wav"]}, "no stem is named", "--stems"),
        ({"stems": [], "picture": {"layout": "grid"}}, "stems", "--stems"),
        ({"stems": [], "picture": {"layout": "separate"}}, "stems", "--stems"),
        ({"stems": [{"name": "drums", "weight": 2}], "picture": {"layout": "grid"}}, "weight of drums", "--layout"),
        ({"stems": [{"name": "drums", "weight": 0}], "picture": {"layout": "separate"}}, "weight of drums", "--layout"),
        ({"picture": {"layout": "mosaic"}}, "layout cannot be mosaic", "grid"),
        ({"sound": {"separator": "magic"}}, "separator cannot be magic", "dsp"),
        ({"sound": {"weight": 0}, "prompts": ["a sea"]}, "the stems have no effect", "sound.weight"),
    ],
)
def test_impossible_settings_are_refused_in_one_line(
    changes: dict[str, Any], problem: str, hint: str, settings: Settings, tmp_path: Path, mini: Models
) -> None:
    with pytest.raises(W2CError) as caught:
        prepare(SONG, tmp_path / "film.mp4", settings.merged(changes), selection=mini.selection)
    assert problem in caught.value.what
    assert hint in caught.value.hint
    assert "\n" not in caught.value.what + caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_cannot_be_written_to_is_refused_before_any_work(
    settings: Settings, tune: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("W2C_CACHE", str(tmp_path / "file"))
    with pytest.raises(OutputError, match="cannot be written") as caught:
        prepare(tune, tmp_path / "film.mp4", settings)
    assert "W2C_CACHE" in caught.value.hint


def test_stems_can_only_be_kept_where_some_are_separated(settings: Settings, tmp_path: Path, mini: Models) -> None:
    for stems in (["drums"], []):
        chosen = settings.merged({"stems": stems})
        with pytest.raises(SettingsError, match="none to keep"):
            prepare(SONG, tmp_path / "a.mp4", chosen, selection=mini.selection, keep_stems=tmp_path / "k")


@pytest.mark.parametrize(
    ("song", "title"),
    [("a.stem.mp4", "a"), ("A.STEM.M4A", "A"), ("a.b.Stem.mp4", "a.b"), ("a.stem.wav", "a.stem"), ("a.mp4", "a")],
)
def test_a_film_is_named_after_its_song(song: str, title: str) -> None:
    assert fill("{stem}", Path(song), Settings()) == Path(title)
