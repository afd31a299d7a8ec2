"""`--models full` from the command line, with and without its weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tests.conftest import Write
from tests.models.test_convert import SMALL
from wav2clip_gen.audio.track import Track, open_track
from wav2clip_gen.cli.render import app
from wav2clip_gen.cli.weights import app as weights_app
from wav2clip_gen.config import RunSettings
from wav2clip_gen.models import checkpoints, manifest, registry, store
from wav2clip_gen.models.download import Progress


@pytest.fixture
def small_full(tmp_path: Path) -> Path:
    """A folder where the family `full` lies, made of small random networks."""
    folder = tmp_path / "weights"
    configs: dict[str, Any] = {"wav2clip": {"width": 8}, "clip": {"architecture": "w2c-mini"}, "vqgan": SMALL}
    for part in manifest.expand("full"):
        path = folder / part.name / f"{part.role}.safetensors"
        checkpoints.write_random(path, role=part.role, config=configs[part.role])
    return folder


def film(song: Path, out: Path, *options: object) -> Result:
    quick = ("--size", "32x32", "--fps", 4, "--steps", 1, "--first-steps", 1, "--cuts", 2, "--progress", "plain")
    return CliRunner().invoke(app, [str(word) for word in (song, "-o", out, *quick, *options)])


def test_without_the_weights_one_command_is_named(write_sound: Write, tone: object, tmp_path: Path) -> None:
    done = film(write_sound(tone), tmp_path / "film.mp4", "--models", "full", "--weights-dir", tmp_path / "none")
    assert done.exit_code == 1
    assert "hint: run `w2c-gen weights fetch full`" in done.stderr
    assert not (tmp_path / "film.mp4").exists()


def test_random_weights_are_reported_and_recorded(
    write_sound: Write, tone: object, small_full: Path, tmp_path: Path
) -> None:
    song = write_sound(tone)
    done = film(song, tmp_path / "film.mp4", "--models", "full", "--weights-dir", small_full)
    assert done.exit_code == 0, done.output
    assert "models full (RANDOM WEIGHTS) on cpu" in done.stderr
    record = json.loads((tmp_path / "film.json").read_text())
    assert (record["family"]["name"], record["family"]["random"]) == ("full", True)
    assert record["settings"]["painting"]["learning_rate"] == 0.1  # what suits the published models, unasked


def test_words_alone_may_steer_another_perceptor(
    write_sound: Write, tone: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "weights"
    checkpoints.write_random(folder / "vit-b-16" / "clip.safetensors", role="clip", config={"architecture": "w2c-mini"})
    options = ("--perceptor", "vit-b-16", "--weights-dir", folder, "-p", "a dog")
    song = write_sound(tone)
    refused = film(song, tmp_path / "film.mp4", *options)
    assert refused.exit_code == 2
    assert "sound cannot steer the perceptor vit-b-16" in refused.stderr
    done = film(song, tmp_path / "film.mp4", *options, "--set", "sound.weight=0")
    assert done.exit_code == 0, done.output
    assert "models mini with vit-b-16 (RANDOM WEIGHTS)" in done.stderr


def test_audioclip_steers_a_film(write_sound: Write, tone: object, tmp_path: Path) -> None:
    folder, song = tmp_path / "weights", write_sound(tone)
    options = ("--encoder", "audioclip", "--weights-dir", folder)
    missing = film(song, tmp_path / "film.mp4", *options)
    assert missing.exit_code == 1
    assert "hint: run `w2c-gen weights fetch audioclip`" in missing.stderr
    small = {"architecture": "w2c-mini", "blocks": [1, 1, 1, 1]}
    checkpoints.write_random(folder / "audioclip" / "audioclip.safetensors", role="audioclip", config=small)
    checkpoints.write_random(folder / "rn50" / "clip.safetensors", role="clip", config={"architecture": "w2c-mini"})
    done = film(song, tmp_path / "film.mp4", *options)
    assert done.exit_code == 0, done.output
    assert "models mini with audioclip and rn50 (RANDOM WEIGHTS)" in done.stderr
    record = json.loads((tmp_path / "film.json").read_text())
    assert (record["settings"]["run"]["encoder"], record["settings"]["run"]["perceptor"]) == ("audioclip", "rn50")
    assert set(record["family"]["sha256"]) == {"wav2clip", "clip", "vqgan"}


def test_networks_are_loaded_once_for_all_tracks(
    write_sound: Write, tone: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads, load = [], registry.load_models

    def counted(*given: Any, **named: Any) -> registry.Models:
        loads.append(given)
        return load(*given, **named)

    monkeypatch.setattr(registry, "load_models", counted)
    songs = [write_sound(tone, name=f"{name}.wav") for name in "ab"]
    options = ("--size", "32x32", "--fps", "4", "--steps", "1", "--first-steps", "1", "--cuts", "2")
    done = CliRunner().invoke(app, [*map(str, songs), "-o", str(tmp_path / "{stem}.mp4"), *options])
    assert done.exit_code == 0, done.output
    assert len(loads) == 1
    assert len(list(tmp_path.glob("[ab].mp4"))) == 2


def test_a_stand_in_says_that_it_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def invoke(*words: object) -> Result:
        return CliRunner().invoke(weights_app, [*map(str, words), "--weights-dir", str(tmp_path)])

    done = invoke("fake", "wav2clip", "--seed", 3)
    assert done.exit_code == 0, done.output
    assert done.stdout.strip() == str(tmp_path / "wav2clip" / "wav2clip.safetensors")
    line = next(line for line in invoke("list").stdout.splitlines() if line.startswith("wav2clip "))
    assert "RANDOM" in line
    assert "exists" in invoke("fake", "wav2clip").stderr
    assert "comes with w2c-gen" in invoke("fake", "mini-clip").stderr


def test_an_open_clip_tag_is_not_fetched_offline_nor_made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def invoke(*words: str) -> Result:
        return CliRunner().invoke(weights_app, ["fetch", *words, "--weights-dir", str(tmp_path)])

    assert "cannot be fetched offline" in invoke("ViT-B-16/openai", "--offline").stderr
    unknown = invoke("ViT-B-16/opanai")
    assert "open_clip knows no weights ViT-B-16/opanai" in unknown.stderr
    assert "did you mean openai?" in unknown.stderr
    assert unknown.exit_code == 1


def test_nothing_is_fetched_for_what_cannot_become_a_film(
    write_sound: Write, tone: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wav2clip_gen.cli import weights

    fetched = []
    monkeypatch.setattr(weights, "fetch_missing", lambda run, folder: fetched.append(run.models))
    options = ("--models", "full", "--fetch", "--weights-dir", tmp_path / "none")
    song = write_sound(tone)
    assert "no such file" in film(tmp_path / "nosuch.wav", tmp_path / "a.mp4", *options).stderr
    assert "cannot steer" in film(song, tmp_path / "a.mp4", *options, "--perceptor", "vit-l-14").stderr
    assert fetched == []
    assert "weights fetch full" in film(song, tmp_path / "a.mp4", *options).stderr  # the stand-in brought nothing
    assert fetched == ["full"]


def test_what_is_missing_is_fetched_and_the_film_made(
    write_sound: Write, tone: object, small_full: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wav2clip_gen.models import fetch

    asked, opened = [], []

    def opening(path: Path, **span: Any) -> Track:
        opened.append(path)
        return open_track(path, **span)

    def bring(part: manifest.Part, folder: Path, **options: object) -> list[Progress]:
        asked.append(part.name)
        path = folder / part.name / f"{part.role}.safetensors"
        return [Progress(str(path))]

    monkeypatch.setattr(fetch, "fetch", bring)
    monkeypatch.setattr("wav2clip_gen.job.open_track", opening)
    song = write_sound(tone)
    done = film(song, tmp_path / "a.mp4", "--models", "full", "--fetch", "--weights-dir", small_full)
    assert done.exit_code == 0, done.output
    assert asked == ["wav2clip", "vit-b-32", "imagenet-16384"]
    assert opened == [song]  # once: all of a track may have to be decoded to know its length


def test_fetched_weights_decide_which_networks_are_used(
    write_sound: Write, tone: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a perceptor that is there can be seen to be of the prior's space."""
    from wav2clip_gen.cli import weights

    def bring(run: RunSettings, folder: Path) -> None:
        place = store.locate_tag("ViT-B-32/openai", folder)
        place.parent.mkdir(parents=True)
        shutil.copyfile(store.locate(manifest.part("mini-clip")), place)

    monkeypatch.setattr(weights, "fetch_missing", bring)
    options = ("--models", "mini", "--perceptor", "ViT-B-32/openai", "--audio-weight", 0, "-p", "a sea")
    song, folder = write_sound(tone), tmp_path / "weights"
    done = film(song, tmp_path / "a.mp4", "--fetch", "--weights-dir", folder, *options)
    assert done.exit_code == 0, done.output
    again = film(song, tmp_path / "b.mp4", "--weights-dir", folder, *options)
    assert again.exit_code == 0, again.output
    first, second = (json.loads((tmp_path / name).read_text())["family"] for name in ("a.json", "b.json"))
    assert "prior" in first["sha256"]
    assert first == second
