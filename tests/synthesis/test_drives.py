"""What a sound drives: the right frames, the right amounts, at any frame rate, and in the film itself."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from wav2clip_gen.synthesis.drives import Drives, feature_curve, follow, follow_maps

from tests.conftest import SAMPLES
from wav2clip_gen import ffmpeg
from wav2clip_gen.audio.features import Features, measure
from wav2clip_gen.audio.smoothing import Curve
from wav2clip_gen.audio.timeline import Timeline
from wav2clip_gen.audio.track import open_track
from wav2clip_gen.config import FEATURES, PITCHES, Settings
from wav2clip_gen.job import prepare
from wav2clip_gen.models.registry import Models
from wav2clip_gen.pipeline import drive, render

Floats = NDArray[np.float64]


def timeline(frames: int = 6, fps: int = 4) -> Timeline:
    return Timeline(samples=4000 * frames, sample_rate=4000 * fps, fps=fps)  # type: ignore[arg-type]


def heard(onset: list[float]) -> Features:
    """The features of a sound of which only onset strength, one beat at 0.6 s and the pitch D are known."""
    values, none = np.array(onset), np.zeros(0)
    chroma = np.zeros((len(onset), 12))
    chroma[:, PITCHES.index("D")] = values
    curves = {"onset": Curve(values, 0.0, 1.0, "")}
    return Features(curves, chroma, values, none, np.array([0.6]), None, none, np.zeros((1, 1)))


def drives(*maps: str, onset: list[float] | None = None, **changes: object) -> Drives:
    settings = Settings().merged({"maps": list(maps), **changes})
    return follow_maps(settings, {None: heard(onset or [0, 0, 1, 0, 0.5, 0])}, timeline())


def test_a_feature_adds_its_share_to_what_was_set() -> None:
    found = drives("onset:learning-rate=0.4,offset=0.1", "onset:brightness=-0.5", "D:brightness=0.25")
    np.testing.assert_allclose(found.curves["learning-rate"], 0.3 + 0.4 * np.array([0, 0, 1, 0, 0.5, 0]))
    np.testing.assert_allclose(found.curves["brightness"], 1 - 0.25 * np.array([0, 0, 1, 0, 0.5, 0]))
    np.testing.assert_array_equal(found.curves["smoothing"], np.full(6, 0.15))


def test_a_setting_stays_within_its_range() -> None:
    low, high = drives("onset:steps=-100", "onset:learning-rate=-9"), drives("onset:saturation=99", "onset:zoom=99")
    assert low.steps(2) == 0
    assert 0 < low.curves["learning-rate"][2] < 1e-5
    assert high.view(2).saturation == 10
    assert high.view(2).zoom == 10


def test_steps_are_whole_and_their_mean_is_known() -> None:
    found = drives("onset:steps=3")
    assert [found.steps(frame) for frame in range(6)] == [4, 4, 7, 4, 6, 4]  # 5.5 to even
    assert found.mean_steps == pytest.approx(29 / 6)


def test_one_prompt_or_all_of_them_can_be_driven() -> None:
    found = drives("onset:prompt=1", "beats:prompt.2=-0.5", prompts=["a sea", "a city:0.5"])
    np.testing.assert_allclose(found.prompts[0], [1, 1, 2, 1, 1.5, 1])
    np.testing.assert_allclose(found.prompts[1], [0.5, 0.5, 1, 0.5, 1, 0.5])  # the beat falls into the third frame


def test_a_level_comes_and_goes_and_a_speed_adds_up() -> None:
    level, speed = drives("onset:zoom=0.2"), drives("onset:zoom-speed=0.2", motion={"pan_x": 0.4})
    assert [level.view(frame).zoom for frame in range(6)] == pytest.approx([1, 1, 1.2, 1, 1.1, 1])
    assert all(np.array_equal(level.way(frame), np.eye(3)) for frame in range(6))
    assert [speed.way(frame)[0, 0] for frame in range(6)] == pytest.approx([1, 1, 1.2**0.25, 1, 1.1**0.25, 1])
    assert [speed.way(frame)[0, 2] for frame in range(6)] == pytest.approx([0, *[2 * 0.1] * 5])


def test_attack_and_decay_last_as_long_at_any_frame_rate() -> None:
    def after(fps: int) -> Floats:
        curve = np.concatenate([np.zeros(1), np.ones(fps), np.zeros(fps)])
        return follow(curve, fps, attack=0.5, decay=0.25)[::fps]

    np.testing.assert_allclose(after(12), [0, 0.75, 0.75 / 16])
    np.testing.assert_allclose(after(48), after(12))


def test_every_feature_can_be_had_by_its_name() -> None:
    track = open_track(SAMPLES / "song" / "drums.ogg", start=4, duration=3)
    span = Timeline.of(track, fps=12)
    features = measure(track, span)
    assert set(FEATURES) == {*features.curves, *PITCHES, "onsets", "beats"}
    for name in FEATURES:
        curve = feature_curve(features, name, span)
        assert curve.shape == (36,)
        assert (curve.min() >= 0, curve.max() <= 1) == (True, True)
    assert feature_curve(features, "onsets", span).sum() == len(features.onsets) > 5


def test_a_stem_that_only_drives_is_heard_and_does_not_steer(mini: Models, tmp_path: Path) -> None:
    changes = {"maps": ["drums.onset:zoom=0.1"], "sound": {"start": 4, "duration": 3}}
    job = prepare(SAMPLES / "song" / "mix.ogg", tmp_path / "film.mp4", Settings().merged(changes), loaded=mini.choice)
    drums = open_track(SAMPLES / "song" / "drums.ogg", start=4, duration=3)
    onset = measure(drums, job.timeline).curves["onset"].values
    np.testing.assert_allclose(drive(job).curves["zoom"], 1 + 0.1 * onset, atol=1e-6)
    assert job.settings.stems == ()


def test_a_stem_that_is_silent_beside_its_song_drives_nothing(mini: Models, tmp_path: Path) -> None:
    """What a separator leaves where nothing plays is hiss: by its own measure it would drive at full range."""
    rate = 16_000
    hiss = np.random.default_rng(0).standard_normal(3 * rate)
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

    def driven(level: float) -> Drives:
        soundfile.write(tmp_path / "vocals.wav", level * hiss, rate, subtype="FLOAT")
        return drive(prepare(tmp_path / "song.wav", tmp_path / "film.mp4", settings, loaded=mini.choice))

    silent, faint = driven(7e-6), driven(7e-4)
    for name in ("zoom", "brightness", "steps"):
        assert np.ptp(silent.curves[name]) == 0
    assert silent.curves["zoom"][0] == 1
    assert silent.curves["pan-x"].max() > 0.9  # the song itself still does
    assert faint.curves["zoom"].min() > 1.05


def grown(first: Floats, second: Floats) -> float:
    """By how much a picture (H, W) is enlarged in the second: the zoom that explains most of what changed."""
    down, across = (np.arange(side) - (side - 1) / 2 for side in first.shape)
    slope_down, slope_across = np.gradient((first + second) / 2)
    inward = -(across * slope_across + down[:, None] * slope_down)
    return float((inward * (second - first)).sum() / np.square(inward).sum())


def frames_of(film: Path, side: int) -> Floats:
    """The grey values of a film, (F, side, side)."""
    arguments = ["-i", ffmpeg.file_url(film), "-f", "rawvideo", "-pix_fmt", "gray", "pipe:1"]
    raw = ffmpeg.run(arguments, purpose="read the frames")
    return np.frombuffer(raw, np.uint8).reshape(-1, side, side).astype(np.float64)


def test_the_zoom_seen_in_the_film_rises_at_the_onsets(mini: Models, tmp_path: Path) -> None:
    song, film = SAMPLES / "song" / "drums.ogg", tmp_path / "film.mp4"
    settings = Settings().merged(
        {
            "sound": {"start": 4, "duration": 6},
            "picture": {"width": 64, "height": 64, "fps": 12},
            "painting": {"first_steps": 0, "steps": 0},
            "maps": ["onset:zoom=0.2"],
            "run": {"seed": 7},
        }
    )
    render(song, film, settings, family=mini)
    pictures = frames_of(film, 64)
    growth = np.array([grown(*pair) for pair in itertools.pairwise(pictures)])
    track = open_track(song, start=4, duration=6)
    span = Timeline.of(track, fps=12)
    features = measure(track, span)
    onset = feature_curve(features, "onset", span)

    def agreement(curve: Floats) -> float:
        return float(np.corrcoef(growth, np.diff(np.log1p(0.2 * curve)))[0, 1])

    rng = np.random.default_rng(0)
    shuffled = [agreement(rng.permutation(onset)) for _ in range(100)]
    assert agreement(onset) > 0.9
    assert agreement(onset) > max(shuffled) + 0.3
    struck = feature_curve(features, "onsets", span)[1:] > 0
    assert growth[struck].mean() > 0.02
    assert growth[~struck].mean() < -0.01
