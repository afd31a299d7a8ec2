"""Films that tests make, interrupt and compare."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from wav2clip_gen.config import Settings
from wav2clip_gen.job import prepare
from wav2clip_gen.models.registry import Models
from wav2clip_gen.painting import Division, Part
from wav2clip_gen.pipeline import render_job
from wav2clip_gen.progress import Film, Progress
from wav2clip_gen.synthesis.modulation import ParameterCurves

RATE = 16_000
DIVIDED: dict[str, Any] = {  # 28 frames in three segments, whose boundaries are between optimised frames
    "picture": {"fps": 8, "painted_fps": 3},
    "motion": {"pan_x": 2.0, "rotate": 20.0, "border": "wrap"},
    "run": {"segments": "1.2"},
}


class Made(list[Film]):
    """The films of a job, and what was reported."""

    def __init__(self, films: list[Film], reported: list[Progress]) -> None:
        super().__init__(films)
        self.messages = [one.message for one in reported if one.message]
        self.left = [one.left for one in reported if one.stage == "optimize" and one.done and not one.message]
        self.painted = [one.done for one in reported if one.stage == "optimize" and one.done and not one.message]

    @property
    def content(self) -> bytes:
        """The bytes of the only film."""
        (film,) = self
        return film.path.read_bytes()


def write_song(folder: Path) -> Path:
    t = np.arange(round(3.5 * RATE)) / RATE
    soundfile.write(folder / "song.wav", 0.4 * np.sin(2 * np.pi * 440 * t) * (t % 1), RATE, subtype="FLOAT")
    return folder / "song.wav"


def make_films(song: Path, settings: Settings, mini: Models, *, stop_at: int = 0, **options: Any) -> Made:
    """Make `film.mp4` next to a song; with `stop_at`, an interruption at that frame is raised after each film."""
    reported: list[Progress] = []

    def follow(progress: Progress) -> None:
        reported.append(progress)
        if stop_at and progress.stage == "optimize" and progress.done == stop_at and not progress.message:
            raise KeyboardInterrupt

    job = prepare(song, options.pop("out", song.with_name("film.mp4")), settings, selection=mini.selection, **options)
    return Made([*render_job(job, load=lambda *_, **__: mini, on_progress=follow)], reported)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def paint_with(
    monkeypatch: pytest.MonkeyPatch,
    curves: type[ParameterCurves],
    *,
    of: Callable[[Part], bool] = lambda part: True,
    **details: Any,
) -> None:
    """Let segments be painted with curves of another class, which gets these details too."""

    def part(self: Division, number: int) -> Part:
        made = whole_part(self, number)
        values = {item.name: getattr(made.parameters, item.name) for item in fields(made.parameters)}
        return replace(made, parameters=curves(**values, **details)) if of(made) else made

    whole_part = Division.part
    monkeypatch.setattr(Division, "part", part)
