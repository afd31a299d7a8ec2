"""Audio maps: they change the right frames by the right amounts at any frame rate, visibly in the film."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from tests.conftest import SAMPLES
from wav2clip_gen import ffmpeg
from wav2clip_gen.audio.decode import FEATURE_RATE, decode
from wav2clip_gen.audio.features import Features, measure
from wav2clip_gen.audio.smoothing import Curve
from wav2clip_gen.audio.timeline import Timeline
from wav2clip_gen.audio.track import open_track
from wav2clip_gen.config import FEATURES, MIX, PITCHES, Settings, settings_from
from wav2clip_gen.job import Job, prepare
from wav2clip_gen.models.registry import Models
from wav2clip_gen.pipeline import analyze_audio, load_stems, render
from wav2clip_gen.progress import StageClock, ignore
from wav2clip_gen.synthesis.modulation import ParameterCurves, envelope_follower, feature_curve, modulate

Floats = NDArray[np.float64]


def timeline(frames: int = 6, fps: int = 4) -> Timeline:
    return Timeline(samples=4000 * frames, sample_rate=4000 * fps, fps=fps)  # type: ignore[arg-type]


def features_of(onset: list[float]) -> Features:
    """Features with an onset strength, a beat at 0.6 s and the pitch D, and nothing else."""
    values, none = np.array(onset), np.zeros(0)
    chroma = np.zeros((len(onset), 12))
    chroma[:, PITCHES.index("D")] = values
    curves = {"onset": Curve(values, 0.0, 1.0, "")}
    return Features(curves, chroma, values, none, np.array([0.6]), None, none, np.zeros((1, 1)))


def modulated(*maps: str, **changes: object) -> ParameterCurves:
    settings = settings_from(preset="still").merged({"maps": list(maps), **changes})
    return modulate(settings, {MIX: features_of([0, 0, 1, 0, 0.5, 0])}, timeline())


def modulated_job(job: Job, models: Models) -> ParameterCurves:
    audio = analyze_audio(job, load_stems(job, StageClock(ignore)), models)
    return modulate(job.settings, audio.features, job.timeline)


def measured(path: Path, start: float, duration: float, fps: float) -> tuple[Features, Timeline]:
    track = open_track(path, start=start, duration=duration)
    line = Timeline.of(track, fps=fps)
    return measure(decode(track, line, [FEATURE_RATE]), line), line


def test_a_map_adds_scaled_feature_and_offset_to_the_base_value() -> None:
    found = modulated("onset:learning-rate=0.4,offset=0.1", "onset:brightness=-0.5", "D:brightness=0.25")
    np.testing.assert_allclose(found.curves["learning-rate"], 0.3 + 0.4 * np.array([0, 0, 1, 0, 0.5, 0]))
    np.testing.assert_allclose(found.curves["brightness"], 1 - 0.25 * np.array([0, 0, 1, 0, 0.5, 0]))
    np.testing.assert_array_equal(found.curves["smoothing"], np.full(6, 0.15))


def test_a_setting_stays_within_its_range() -> None:
    low = modulated("onset:steps=-100", "onset:learning-rate=-9")
    high = modulated("onset:saturation=99", "onset:zoom=99")
    assert low.steps(2) == 0
    assert 0 < low.curves["learning-rate"][2] < 1e-5
    assert high.view(2).saturation == 10
    assert high.view(2).zoom == 10


def test_steps_are_integers() -> None:
    found = modulated("onset:steps=3")
    assert [found.steps(frame) for frame in range(6)] == [4, 4, 7, 4, 6, 4]  # 5.5 to even


def test_a_map_changes_one_prompt_or_all() -> None:
    found = modulated("onset:prompt=1", "beats:prompt.2=-0.5", prompts=["a sea", "a city:0.5"])
    first, second = found.prompts
    np.testing.assert_allclose(first.at(slice(0, 6)), [1, 1, 2, 1, 1.5, 1])
    np.testing.assert_allclose(second.at(slice(0, 6)), [0.5, 0.5, 1, 0.5, 1, 0.5])  # the beat is in the third frame
    np.testing.assert_allclose(second.at(slice(2, 4)), [1, 0.5])
    assert first.changes[0] is second.changes[0]  # shared: a film may have thousands of prompts


def test_a_level_is_not_accumulated_and_a_speed_is_integrated() -> None:
    level, speed = modulated("onset:zoom=0.2"), modulated("onset:zoom-speed=0.2", motion={"pan_x": 0.4})
    assert [level.view(frame).zoom for frame in range(6)] == pytest.approx([1, 1, 1.2, 1, 1.1, 1])
    assert all(np.array_equal(level.camera_move(frame), np.eye(3)) for frame in range(6))
    zooms = [speed.camera_move(frame)[0, 0] for frame in range(6)]
    assert zooms == pytest.approx([1, 1, 1.2**0.25, 1, 1.1**0.25, 1])
    assert [speed.camera_move(frame)[0, 2] for frame in range(6)] == pytest.approx([0, *[2 * 0.1] * 5])


def test_attack_and_decay_do_not_depend_on_the_frame_rate() -> None:
    def after(fps: int) -> Floats:
        curve = np.concatenate([np.zeros(1), np.ones(fps), np.zeros(fps)])
        return envelope_follower(curve, fps, attack=0.5, decay=0.25)[::fps]

    np.testing.assert_allclose(after(12), [0, 0.75, 0.75 / 16])
    np.testing.assert_allclose(after(48), after(12))


def test_every_feature_has_a_curve() -> None:
    features, line = measured(SAMPLES / "song" / "drums.ogg", 4, 3, 12)
    assert set(FEATURES) == {*features.curves, *PITCHES, "onsets", "beats"}
    for name in FEATURES:
        curve = feature_curve(features, name, line)
        assert curve.shape == (36,)
        assert (curve.min() >= 0, curve.max() <= 1) == (True, True)
    assert feature_curve(features, "onsets", line).sum() == len(features.onsets) > 5


def test_a_stem_of_a_map_is_measured_and_does_not_condition(mini: Models, tmp_path: Path) -> None:
    changes = {"maps": ["drums.onset:zoom=0.1"], "sound": {"start": 4, "duration": 3}}
    settings = Settings().merged(changes)
    job = prepare(SAMPLES / "song" / "mix.ogg", tmp_path / "film.mp4", settings, selection=mini.selection)
    drums, _ = measured(SAMPLES / "song" / "drums.ogg", 4, 3, 24)
    audio = analyze_audio(job, load_stems(job, StageClock(ignore)), mini)
    assert (set(audio.embeddings), set(audio.features)) == ({MIX}, {MIX, "drums"})
    curves = modulate(job.settings, audio.features, job.timeline).curves
    np.testing.assert_allclose(curves["zoom"], 1 + 0.1 * drums.curves["onset"].values, atol=1e-6)
    assert job.settings.stems == ()


def test_a_stem_that_is_silent_relative_to_its_mix_modulates_nothing(mini: Models, tmp_path: Path) -> None:
    """A separator leaves hiss in a silent stem: normalised to its own peak it would modulate at full range."""
    rate = 16_000
    hiss = np.random.default_rng(0).standard_normal(2 * rate)
    soundfile.write(tmp_path / "song.wav", 0.15 * hiss, rate)
    settings = Settings().merged(
        {
            "maps": [
                "vocals.loudness:zoom=0.1",
                "vocals.C:brightness=-0.5",
                "vocals.onsets:steps=3",
                "loudness:pan-x=1",
            ],
            "stem_files": [f"vocals={tmp_path / 'vocals.wav'}"],
        }
    )

    def curves(level: float) -> dict[str, Floats]:
        soundfile.write(tmp_path / "vocals.wav", level * hiss, rate, subtype="FLOAT")
        job = prepare(tmp_path / "song.wav", tmp_path / "film.mp4", settings, selection=mini.selection)
        return modulated_job(job, mini).curves

    silent, faint = curves(7e-6), curves(7e-4)
    for name in ("zoom", "brightness", "steps"):
        assert np.ptp(silent[name]) == 0
    assert silent["zoom"][0] == 1
    assert silent["pan-x"].max() > 0.9  # the mix still modulates
    assert faint["zoom"].min() > 1.05


def growth_of(first: Floats, second: Floats) -> float:
    """The relative enlargement from one picture (H, W) to the next: the zoom that explains most of the difference."""
    down, across = (np.arange(side) - (side - 1) / 2 for side in first.shape)
    slope_down, slope_across = np.gradient((first + second) / 2)
    inward = -(across * slope_across + down[:, None] * slope_down)
    return float((inward * (second - first)).sum() / np.square(inward).sum())


def grey_frames(film: Path, side: int) -> Floats:
    """The grey values of a film, (F, side, side)."""
    arguments = ["-i", ffmpeg.file_url(film), "-f", "rawvideo", "-pix_fmt", "gray", "pipe:1"]
    raw = ffmpeg.run(arguments, purpose="read the frames")
    return np.frombuffer(raw, np.uint8).reshape(-1, side, side).astype(np.float64)


def test_a_zoom_that_follows_onsets_is_visible_in_the_film(mini: Models, tmp_path: Path) -> None:
    song, film = SAMPLES / "song" / "drums.ogg", tmp_path / "film.mp4"
    settings = Settings().merged(
        {
            "sound": {"start": 4, "duration": 4},
            "picture": {"width": 64, "height": 64, "fps": 12},
            "painting": {"first_steps": 0, "steps": 0},
            "maps": ["onset:zoom=0.2"],
            "run": {"seed": 7},
        }
    )
    render(song, film, settings, family=mini)
    growth = np.array([growth_of(*pair) for pair in itertools.pairwise(grey_frames(film, 64))])
    features, line = measured(song, 4, 4, 12)
    onset = feature_curve(features, "onset", line)

    def agreement(curve: Floats) -> float:
        return float(np.corrcoef(growth, np.diff(np.log1p(0.2 * curve)))[0, 1])

    rng = np.random.default_rng(0)
    shuffled = [agreement(rng.permutation(onset)) for _ in range(100)]
    assert agreement(onset) > 0.9
    assert agreement(onset) > max(shuffled) + 0.3
    with_onset = feature_curve(features, "onsets", line)[1:] > 0
    assert growth[with_onset].mean() > 0.02
    assert growth[~with_onset].mean() < -0.01
