"""How the default film follows its sound, and what it costs in flicker and similarity, against the preset still."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from tests.conftest import SAMPLES
from wav2clip_gen.config import Settings, settings_from
from wav2clip_gen.models.registry import Models
from wav2clip_gen.pipeline import render
from wav2clip_gen.progress import Film
from wav2clip_gen.video.reactivity import Measure, visual_change

pytestmark = pytest.mark.benchmark

SOUNDS = {
    "djembes": "africa.ogg",
    "the sample song": "song/mix.ogg",
    "its drums": "song/drums.ogg",
    "its choir": "song/vocals.ogg",
}


@pytest.mark.parametrize("name", SOUNDS)
def test_default_look(table: list[tuple[str, str]], mini: Models, tmp_path: Path, name: str) -> None:
    looks = {"still": settings_from(preset="still"), "default": Settings(), "no maps": Settings().merged({"maps": []})}

    def made(look: str) -> Film:
        common: dict[str, Any] = {"sound": {"duration": 12}, "run": {"seed": 7, "models": "mini"}}
        settings = looks[look].merged(common)
        return render(SAMPLES / SOUNDS[name], tmp_path / f"{look}.mp4", settings, family=mini, workers="1")

    films = {look: made(look) for look in looks}
    flicker = {look: fmean(visual_change(film.path)[1:]) * float(film.sync.fps) for look, film in films.items()}
    still, default = (films[look].reactivity for look in ("still", "default"))
    similar = {look: similarity_of(film) for look, film in films.items()}
    table.append(
        (
            f"default film of {name}: correlation (99 % of chance), that of `still`, AV-Align; flicker and similarity "
            "against `still`",
            f"{shown(default.correlation)}, {shown(still.correlation)}, {shown(default.alignment)}; "
            f"{flicker['no maps'] / flicker['still'] - 1:+.0%}, {similar['default'] / similar['still'] - 1:+.0%}",
        )
    )


def similarity_of(film: Film) -> float:
    values = json.loads(film.record.read_text())["frames"]["similarity"]
    return fmean(value for value in values if value is not None)


def shown(measure: Measure) -> str:
    return f"{measure.value:.2f} ({measure.chance_99:.2f})"
