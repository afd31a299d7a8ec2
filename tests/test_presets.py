"""Presets: each renders, has the effect it is named after, and is listed in the help."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from tests.cli.refusals import assert_refused
from tests.conftest import SAMPLES, condition_job
from wav2clip_gen.audio.decode import FEATURE_RATE, decode
from wav2clip_gen.audio.features import Features, measure
from wav2clip_gen.cli.render import app
from wav2clip_gen.config import PRESETS, Settings, preset_names, read_yaml, settings_from
from wav2clip_gen.job import Job, prepare
from wav2clip_gen.models.registry import Models
from wav2clip_gen.pipeline import encode_job_guidance, render
from wav2clip_gen.prompts import read_prompts
from wav2clip_gen.synthesis.conditioning import mean_target
from wav2clip_gen.synthesis.modulation import modulate

MIX = SAMPLES / "song" / "mix.ogg"
LYRICS = SAMPLES / "song.lrc"
SMALL: dict[str, Any] = {
    "picture": {"width": 64, "height": 48, "fps": 4},
    "painting": {"first_steps": 2, "steps": 1, "cuts": 2},
    "run": {"seed": 7, "models": "mini"},
}


def small(name: str, **changes: Any) -> Settings:
    return settings_from(preset=name).merged(SMALL).merged(changes)


def job_of(name: str, tmp_path: Path, **changes: Any) -> Job:
    return prepare(MIX, tmp_path / "film.mp4", small(name, **changes))


def features_of(job: Job) -> Features:
    return measure(decode(job.track, job.timeline, [FEATURE_RATE]), job.timeline)


@pytest.mark.parametrize("name", ["dream", "full", "lyric", "pulse", "storyboard"])  # others only set what SMALL does
def test_presets_render_with_their_settings(name: str, mini: Models, tmp_path: Path) -> None:
    settings = small(name, sound={"start": 7.5, "duration": 1}, prompts=read_prompts(LYRICS))
    film = render(MIX, tmp_path / "film.mp4", settings, family=mini)
    assert film.frames == 4
    made = Settings().merged(json.loads(film.record.read_text())["settings"])
    assert made.merged(read_yaml(PRESETS / f"{name}.yaml")).merged(SMALL) == made


def test_help_lists_all_presets() -> None:
    text = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "300"}).output
    listed = re.search(r"Preset of settings: ([a-z, ]+)\.", text)
    assert listed
    assert listed[1].split(", ") == preset_names()


def test_balanced_is_the_default() -> None:
    assert settings_from(preset="balanced") == Settings()


def test_the_default_look_never_moves_far_or_flashes(tmp_path: Path) -> None:
    job = job_of("balanced", tmp_path, sound={"duration": 8}, picture={"fps": 24})
    features = features_of(job)
    for curve in features.curves.values():
        curve.values[:] = np.random.default_rng(0).integers(0, 2, len(curve.values))  # jumps from nothing to all
    curves = modulate(job.settings, {"mix": features}, job.timeline).curves
    assert 1 <= curves["zoom"].min() < curves["zoom"].max() <= 1.1
    assert 0.85 <= curves["brightness"].min() < curves["brightness"].max() <= 1.08
    assert np.abs(np.diff(curves["brightness"])).max() < 0.12


@pytest.mark.parametrize("name", ["balanced", pytest.param("still", marks=pytest.mark.slow)])
def test_the_default_film_follows_the_beat_and_still_does_not(name: str, mini: Models, tmp_path: Path) -> None:
    sound = {"start": 4, "duration": 6}  # with drums
    picture = read_yaml(PRESETS / f"{name}.yaml")["picture"]
    settings = small(name, sound=sound, picture=picture | {"width": 64, "height": 64})
    found = render(MIX, tmp_path / "film.mp4", settings, family=mini).reactivity.correlation
    assert found.value is not None
    assert found.chance_99 is not None
    follows = found.value > max(0.5, found.chance_99)
    assert follows == (name == "balanced")


def test_pulse_zooms_at_onsets(tmp_path: Path) -> None:
    job = job_of("pulse", tmp_path, sound={"start": 4, "duration": 6}, picture={"fps": 24})
    features = features_of(job)
    curves, onset = modulate(job.settings, {"mix": features}, job.timeline).curves, features.curves["onset"].values
    for name in ("zoom", "brightness"):
        assert curves[name][onset > 0.5].mean() - curves[name][onset < 0.1].mean() > 0.05


def test_dream_moves_and_changes_slower_than_the_default(mini: Models, tmp_path: Path) -> None:
    def turns(name: str) -> float:
        targets = condition_job(job_of(name, tmp_path, sound={"start": 3, "duration": 3}), mini).targets
        cosines = (targets[1:] * targets[:-1]).sum(dim=1)
        return float(cosines.clamp(max=1).arccos().sum())

    assert turns("dream") < 0.5 * turns("balanced")
    assert settings_from(preset="dream").motion.zoom > 0


def test_lyric_follows_prompts_more_than_audio(mini: Models, tmp_path: Path) -> None:
    job = job_of("lyric", tmp_path, sound={"start": 4, "duration": 4}, prompts=read_prompts(LYRICS), maps=[])
    words = mini.clip.encode_text([prompt.text for prompt in job.settings.prompts]).cpu()
    followed = (condition_job(job, mini).targets @ words.T).argmax(dim=1)
    guidance = encode_job_guidance(job, mini, modulate(job.settings, {}, job.timeline))
    assert guidance
    weights = torch.stack([one.at(slice(0, job.timeline.frames)) for one in guidance.schedules])
    alone = weights.max(dim=0).values == 1  # else two lines cross-fade
    assert torch.equal(followed[alone], weights.argmax(dim=0)[alone])
    assert set(followed[alone].tolist()) == {1, 2}


def test_lyric_without_prompts_is_noted_before_the_render(tmp_path: Path) -> None:
    (note,) = job_of("lyric", tmp_path).notes
    assert "the audio weight is below 1 but there are no prompts" in note
    assert not job_of("lyric", tmp_path, prompts=read_prompts(LYRICS)).notes
    assert not job_of("lyric", tmp_path, prompts=["a forest"]).notes


def test_storyboard_targets_the_mean_of_each_section(mini: Models, tmp_path: Path) -> None:
    moments = condition_job(job_of("storyboard", tmp_path, motion={"scenes": "moments"}), mini)
    job = job_of("storyboard", tmp_path)
    held = condition_job(job, mini).targets
    edges = [round(second * 4) for second in features_of(job).sections.tolist()]
    assert len(edges) > 2
    for start, stop in pairwise(edges):
        middle = (start + stop) // 2
        torch.testing.assert_close(held[middle], mean_target(moments, slice(start, stop)))
        assert torch.equal(held[middle], held[middle + 1])
    crossing = held[edges[1]]
    assert not any(torch.allclose(crossing, held[frame], atol=1e-3) for frame in (edges[1] - 8, edges[1] + 8))


def test_unknown_scenes_are_refused() -> None:
    done = CliRunner().invoke(app, [str(MIX), "--scenes", "off"])
    assert_refused(done, "scenes cannot be off", code=2)
