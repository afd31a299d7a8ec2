"""Films and reports for the tests of pages."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile

from wav2clip_gen import ffmpeg
from wav2clip_gen.analysis import Analysis, Label, Section, SoundAnalysis
from wav2clip_gen.audio.features import Features
from wav2clip_gen.audio.smoothing import Curve as FeatureCurve
from wav2clip_gen.audio.timeline import Timeline
from wav2clip_gen.audio.track import Track
from wav2clip_gen.config import Prompt, Settings
from wav2clip_gen.pipeline import render
from wav2clip_gen.report import Curve, FilmReport, Shown

if TYPE_CHECKING:
    from wav2clip_gen.models.registry import Models

RATE, SECONDS, START = 16_000, 4.0, 1.0
HOSTILE = """</title></script><script>window.hacked=1</script>"'><img src=x onerror=window.hacked=1> שלום 🎬 &amp;"""
PROMPTS = (
    {"text": "a quiet lake"},
    {"text": "a burning forest", "start": 2.0, "end": 4.0, "weight": 0.5},
    {"text": "never shown", "end": 0.2},
)
MAPS = ("drums.loudness:zoom=0.1,decay=0.1", "onset:brightness=0.2")


def make_film(folder: Path, models: Models, name: str = "film.mp4") -> Path:
    """A film of 4 s at 4 fps, from the second 1 of a song of 5 s with a stem, with prompts and maps."""
    rng, t = np.random.default_rng(0), np.arange(round((START + SECONDS) * RATE)) / RATE
    drums = 0.5 * rng.standard_normal(len(t)) * np.exp(-12 * (t % 0.5))
    soundfile.write(folder / "drums.wav", drums, RATE)
    soundfile.write(folder / "song.wav", 0.8 * drums + 0.2 * np.sin(2 * np.pi * 330 * t), RATE)
    settings = Settings().merged(
        {
            "sound": {"start": START},
            "picture": {"width": 32, "height": 32, "fps": 4},
            "painting": {"first_steps": 2, "steps": 1, "cuts": 2},
            "motion": {"crossfade": 0.0},
            "run": {"seed": 7},
            "prompts": PROMPTS,
            "maps": MAPS,
            "stem_files": [f"drums={folder / 'drums.wav'}"],
        }
    )
    return render(folder / "song.wav", folder / name, settings, family=models).path


def moved(film: Path, folder: Path, name: str = "film.mp4", *, song: bool = True, title: str = "") -> Path:
    """A copy of a film with its record, in `folder`; `song`: its song and stem too."""
    target = folder / name
    if title:
        tagged = ["-i", ffmpeg.file_url(film), "-c", "copy", "-metadata", f"title={title}", ffmpeg.file_url(target)]
        ffmpeg.run(tagged, purpose="give it a title")
    else:
        shutil.copy(film, target)
    shutil.copy(film.with_suffix(".json"), target.with_suffix(".json"))
    for sound in ("song.wav", "drums.wav") if song else ():
        shutil.copy(film.with_name(sound), folder)
    return target


def change_record(film: Path, **changes: Any) -> None:
    """Change parts of a film's record."""
    path = film.with_suffix(".json")
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def hour_long() -> FilmReport:
    """The report of an hour-long film with everything: four stems, eight maps, an onset each 0.25 s, 1,500 prompts."""
    duration, fps, rng = 3600.0, 24, np.random.default_rng(0)
    frames = round(duration * fps)
    curve = FeatureCurve(rng.random(frames), 0.0, 1.0, "")
    features = Features(
        curves={"onset": curve, "loudness": curve}, chroma=np.zeros((frames, 12)), levels=rng.random(frames),
        onsets=np.arange(0.1, duration, 0.25), beats=np.arange(0, duration, 0.5), tempo=120.0,
        sections=np.linspace(0, duration, 61), spectrogram=np.zeros((1, 1)),
    )  # fmt: skip
    labels = tuple(Label(f"an instrument of a long name {n}", 0.2, 3.0) for n in range(3))
    sections = tuple(Section(60.0 * n, 60.0 * (n + 1), -20.0, labels) for n in range(60))
    track = Track(
        path=Path("song.wav"), file_rate=8000, channels=1, layout="mono", sample_rate=8000,
        samples=round(duration * 8000), decoded=0, start=0.0, whole=True,
    )  # fmt: skip
    timeline = Timeline(samples=track.samples, sample_rate=8000, fps=Fraction(fps))
    sound = SoundAnalysis(features, sections)
    stems = dict.fromkeys(("vocals", "drums", "bass", "other"), sound)
    shown = [Shown(f"a line of the lyrics of a long song, {n}, 🎬", 1.0, 2.4 * n, 2.4 * (n + 1.5)) for n in range(1500)]
    settings = Settings(prompts=tuple(Prompt(text=one.content) for one in shown))
    return FilmReport(
        Path("film.mp4"), "An hour", float(fps), frames, (128, 128),
        replace(settings, run=replace(settings.run, seed=1)), {"w2c-gen": {"format": 1, "version": "0"}},
        similarity={"": rng.random(frames)}, analysis=Analysis(track, timeline, sound, stems, "mini", 191),
        waveform=(-rng.random(2400), rng.random(2400)),
        parameters=tuple(Curve(f"parameter {n}", rng.random(frames), "1/s") for n in range(8)), guidance=tuple(shown),
    )  # fmt: skip
