"""Synthetic films whose picture follows clicks, misses them, or stands still."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from wav2clip_gen.audio.decode import FEATURE_RATE, decode
from wav2clip_gen.audio.features import Features, measure, silenced
from wav2clip_gen.audio.timeline import Timeline
from wav2clip_gen.audio.track import open_track
from wav2clip_gen.errors import VideoError
from wav2clip_gen.video.reactivity import (
    Measure,
    Onsets,
    Reactivity,
    alignment,
    correlation,
    find_peaks,
    measure_reactivity,
    visual_change,
)
from wav2clip_gen.video.writer import FilmWriter

FPS, FRAMES, SIDE = Fraction(12), 180, 64
STEADY = np.arange(4, FRAMES, 6)  # 120 beats per minute
FREE = 4 + np.cumsum(np.random.default_rng(1).integers(4, 12, FRAMES))
BEATS = {"steady": STEADY, "free": FREE[FREE < FRAMES]}
HALF = 3  # frames, half a beat

Picture = NDArray[np.uint8]
Make = Callable[[str, str, int], Reactivity]


def pulses(beats: NDArray[np.int64]) -> NDArray[np.float64]:
    """1 in the frame of each beat, then half as much in each frame."""
    found = np.zeros(FRAMES)
    for beat in beats:
        found[beat:] = np.maximum(found[beat:], 0.5 ** np.arange(FRAMES - beat))
    return found


def pictures(look: str, beats: NDArray[np.int64], noise: float) -> Iterator[Picture]:
    """The frames of a film: still, with flashes or pulses of zoom; patches of colour wander in all, as in a VQGAN's."""
    random, pulse = np.random.default_rng(5), pulses(beats)
    wave = np.linspace(-1, 1, SIDE)
    drift = np.zeros((8, 8, 3))
    for amount in pulse:
        zoom = 1 + 0.2 * amount * (look == "zoom")
        x, y = np.meshgrid(wave / zoom, wave / zoom)
        base = np.stack([np.sin(9 * x + 2), np.cos(7 * y), np.sin(5 * (x + y))], axis=2)
        drift = 0.9 * drift + noise * random.standard_normal(drift.shape)
        level = 100 + 60 * base + np.kron(drift, np.ones((8, 8, 1))) + 60 * amount * (look == "flashes")
        yield level.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Features]:
    """The features of clicks at some beats."""
    folder, rate = tmp_path_factory.mktemp("clicks"), 22_050

    @cache
    def of(beats: str) -> Features:
        sound, random = np.zeros(FRAMES * rate // 12), np.random.default_rng(2)
        for beat in BEATS[beats]:
            first = round((beat + 0.4) * rate / 12)
            burst = random.standard_normal(600) * np.exp(-np.arange(600) / 100)
            sound[first : first + 600] += 0.3 * burst[: len(sound) - first]
        path = folder / f"{beats}.wav"
        soundfile.write(path, sound.clip(-1, 1), rate)
        track = open_track(path)
        timeline = Timeline.of(track, fps=FPS)
        return measure(decode(track, timeline, [FEATURE_RATE]), timeline)

    return of


@pytest.fixture(scope="module")
def changes(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., NDArray[np.float64]]:
    """The visual change of a film."""
    folder = tmp_path_factory.mktemp("films")

    @cache
    def of(look: str, beats: str, late: int = 0, noise: float = 3.0) -> NDArray[np.float64]:
        path = folder / f"{look}-{beats}-{late}-{noise}.mp4"
        shown = BEATS[beats] + late
        with FilmWriter(path, size=(SIDE, SIDE), fps=FPS) as writer:
            for picture in pictures(look, shown[shown < FRAMES], noise):
                writer.write(picture)
        return visual_change(path)

    return of


@pytest.fixture(scope="module")
def make(features: Callable[[str], Features], changes: Callable[..., NDArray[np.float64]]) -> Make:
    """The reactivity of a film whose picture is some frames late."""

    def run(look: str, beats: str, late: int) -> Reactivity:
        return measure_reactivity(changes(look, beats, late), Onsets.of(features(beats), FPS), FPS)

    return run


def figures(measure: Measure) -> tuple[float, float, float]:
    assert measure.value is not None
    assert measure.chance is not None
    assert measure.chance_99 is not None
    return measure.value, measure.chance, measure.chance_99


@pytest.mark.parametrize("beats", BEATS)
@pytest.mark.parametrize("look", ["flashes", "zoom"])
def test_a_picture_on_the_beat_follows_it_and_half_a_beat_later_it_does_not(look: str, beats: str, make: Make) -> None:
    on, off = make(look, beats, 0), make(look, beats, HALF)
    value, chance, chance_99 = figures(on.correlation)
    assert value > 0.75
    assert 0 < chance <= chance_99 < 0.4
    value, chance, chance_99 = figures(on.alignment)
    assert value > 0.9
    assert 0.1 < chance <= chance_99 < 0.7
    for measured in (off.correlation, off.alignment):
        value, chance, chance_99 = figures(measured)
        assert value < chance <= chance_99
    assert on.reason is off.reason is None


def test_a_frame_late_still_follows_and_two_do_not(make: Make) -> None:
    on, one, two = (make("flashes", "free", late) for late in (0, 1, 2))
    value, _, _ = figures(on.alignment)
    assert figures(one.alignment)[0] == pytest.approx(value, abs=0.05)
    assert figures(two.alignment)[0] < figures(two.alignment)[1]


def test_noise_follows_nothing(make: Make) -> None:
    found = make("noise", "free", 0)
    for measured in (found.correlation, found.alignment):
        value, _, chance_99 = figures(measured)
        assert value < chance_99


def test_a_light_that_switches_on_each_beat_has_a_correlation_near_1() -> None:
    onsets, switched = Onsets(np.zeros(FRAMES), BEATS["free"]), np.zeros(FRAMES)
    onsets.strength[onsets.frames] = switched[onsets.frames] = 1
    found = measure_reactivity(switched, onsets, FPS)
    assert found.correlation.value == pytest.approx(1)
    assert found.alignment.value == 1
    assert str(found) == f"1.00, by chance {found.correlation.chance:.2f}"


def test_what_cannot_be_measured_says_why(
    features: Callable[[str], Features], changes: Callable[..., NDArray[np.float64]]
) -> None:
    onsets, moving = Onsets.of(features("free"), FPS), changes("zoom", "free")
    none = Onsets.of(silenced(features("free")), FPS)
    still = changes("still", "free", noise=0.0)
    for change, sound, reason in (
        (still, onsets, "the picture stands still"),
        (moving, none, "the sound has no onsets"),
        (moving[:3], onsets, "the film is shorter than 8 frames"),
        (moving[:1], onsets, "the film is shorter than 8 frames"),
    ):
        found = measure_reactivity(change, sound, FPS)
        assert found == Reactivity(correlation=Measure(), alignment=Measure(), reason=reason)
        assert str(found) == f"cannot be measured: {reason}"


@pytest.mark.parametrize("fps", [Fraction(1), Fraction(1, 3), Fraction(12), Fraction(24_000, 1001), Fraction(240)])
@pytest.mark.parametrize("frames", [8, 9, 50])
def test_few_frames_at_any_rate_give_finite_figures(fps: Fraction, frames: int) -> None:
    random = np.random.default_rng(frames)
    onsets = Onsets(random.uniform(size=frames), np.array([3, 5]))
    found = measure_reactivity(random.uniform(size=frames), onsets, fps)
    assert np.isfinite([*figures(found.correlation), *figures(found.alignment)]).all()


def test_the_part_of_a_film_is_measured_against_its_part_of_the_sound(
    features: Callable[[str], Features], changes: Callable[..., NDArray[np.float64]]
) -> None:
    onsets, change = Onsets.of(features("free"), FPS), changes("flashes", "free")[: FRAMES // 2]
    found = measure_reactivity(change, onsets, FPS)
    part = Onsets(onsets.strength[: FRAMES // 2], onsets.frames[onsets.frames < FRAMES // 2])
    assert found == measure_reactivity(change, part, FPS)
    assert figures(found.alignment)[0] > 0.9


def test_onsets_are_in_the_frames_of_the_clicks(features: Callable[[str], Features]) -> None:
    for name, beats in BEATS.items():
        assert np.abs(Onsets.of(features(name), FPS).frames - beats).max() <= 1


def test_alignment_counts_onsets_near_peaks() -> None:
    peaks, onsets = np.array([2, 10, 20, 40]), np.array([3, 9, 15])
    assert alignment(peaks, onsets) == 2 / (4 + 3 - 2)
    assert alignment(peaks, peaks) == 1
    assert alignment(np.array([10]), np.array([9, 10, 11])) == 1 / 3  # each peak counts once
    assert alignment(np.array([1, 2, 4]), np.array([3, 4, 5])) == 2 / 4
    assert alignment(peaks, np.zeros(0, np.int64)) == alignment(np.zeros(0, np.int64), onsets) == 0
    assert find_peaks(np.array([0, 0, 5, 0, 0.1, 0, 0, 4, 4, 0.0])).tolist() == [2, 7]


def test_correlation_allows_a_frame_and_leaves_the_first_out() -> None:
    strength = np.random.default_rng(0).uniform(size=100)
    change = strength.copy()
    change[0] = 99
    assert correlation(change, strength) == pytest.approx(1)
    assert correlation(np.roll(change[1:], 1), strength[1:]) == pytest.approx(1)
    assert correlation(np.roll(change[1:], 2), strength[1:]) < 0.3
    assert correlation(-strength, np.ones(100)) == 0


def test_visual_change_is_the_mean_difference(tmp_path: Path) -> None:
    path = tmp_path / "steps.mp4"
    with FilmWriter(path, size=(32, 16), fps=FPS) as writer:
        for level in (0, 0, 255, 255, 51):
            writer.write(np.full((16, 32, 3), level, np.uint8))
    assert visual_change(path) == pytest.approx([0, 0, 1, 0, 0.8], abs=0.01)
    doubled = visual_change(path, fps=2 * FPS)
    assert doubled[[4, 8]] == pytest.approx([1, 0.8], abs=0.01)
    assert np.delete(doubled, [4, 8]).max() < 0.001
    (tmp_path / "words.mp4").write_text("words")
    with pytest.raises(VideoError, match="could not decode"):
        visual_change(tmp_path / "words.mp4")
