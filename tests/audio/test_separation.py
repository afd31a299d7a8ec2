from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.audio.conftest import Save, noise
from tests.conftest import SAMPLES
from wav2clip_gen.audio.separation import STEMS, DspSeparator, separated
from wav2clip_gen.audio.track import open_track

RATE = 1_000


@dataclass
class Quarters:
    """Gives each stem a quarter of the block, and remembers how long the blocks were."""

    seconds: float
    lengths: list[int] = field(default_factory=list)
    name: str = "quarters"
    version: str = "1"
    is_ready: bool = True

    def block_seconds(self, rate: int, channels: int) -> float:
        return self.seconds

    def separate(self, block: np.ndarray, rate: int) -> np.ndarray:
        self.lengths.append(block.shape[1])
        return np.stack([block / 4] * 4)


@pytest.mark.parametrize("seconds", [0.001, 1.0, 5.0, 6.999, 7.0, 7.001, 9.0, 31.5])
@pytest.mark.parametrize("block", [2.5, 5.0])
def test_blocks_join_without_a_seam(seconds: float, block: float, save: Save) -> None:
    song = open_track(save("song.wav", noise(seconds, RATE), RATE))
    separator = Quarters(block)
    stems = np.concatenate(list(separated(song, separator)), axis=2)
    assert stems.shape == (4, 2, song.samples)
    np.testing.assert_allclose(stems.sum(axis=0), song.read(), atol=1e-6)
    assert max(separator.lengths) < (block + 2) * RATE
    assert len(separator.lengths) == 1 or min(separator.lengths) >= 2 * 2 * RATE or block < 4


class Steps(Quarters):
    """Gives vocals everything in the first block, and nothing in the others."""

    def separate(self, block: np.ndarray, rate: int) -> np.ndarray:
        self.lengths.append(block.shape[1])
        return np.stack([block * (len(self.lengths) == 1)] + [0 * block] * 3)


def test_blocks_cross_over_evenly(save: Save) -> None:
    song = open_track(save("song.wav", np.ones((12 * RATE, 1), np.float32), RATE))
    vocals = np.concatenate(list(separated(song, Steps(5.0))), axis=2)[0, 0]
    assert (vocals[: 3 * RATE] == 1).all()
    np.testing.assert_allclose(vocals[3 * RATE : 5 * RATE], np.linspace(1, 0, 2 * RATE), atol=1e-6)
    assert not vocals[5 * RATE :].any()


SONG = SAMPLES / "song"
Sound = NDArray[np.float32]


def separate(block: Sound, rate: int) -> dict[str, Sound]:
    return dict(zip(STEMS, DspSeparator().separate(block, rate), strict=True))


def decibels(stem: Sound, estimate: Sound) -> float:
    """Signal to distortion: how loud a stem is against what an estimate has too much or too little."""
    return float(10 * np.log10(np.square(stem).sum() / np.square(stem - estimate).sum()))


def energy(sound: NDArray[np.floating]) -> float:
    return float(np.square(sound, dtype=np.float64).sum())


@settings(max_examples=40, deadline=None)
@given(
    rate=st.sampled_from([8_000, 11_025, 22_050, 44_100, 48_000]),
    channels=st.integers(1, 3),
    samples=st.one_of(st.integers(1, 100), st.integers(100, 60_000)),
    level=st.sampled_from([0.0, 1e-30, 0.01, 1.0, 100.0, 1e30]),
    seed=st.integers(0, 99),
)
def test_the_stems_add_up_to_the_mix(rate: int, channels: int, samples: int, level: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    t = np.arange(samples) / rate
    tones = np.sin(2 * np.pi * rng.uniform(50, 2_000, (channels, 1)) * t)
    block = (level * np.clip(3 * (tones + 0.3 * rng.standard_normal(tones.shape)), -1, 1)).astype(np.float32)
    stems = DspSeparator().separate(block, rate)
    assert stems.shape == (4, channels, samples)
    assert stems.dtype == np.float32
    assert np.abs(stems.sum(axis=0) - block).max() <= 1e-4 * max(level, 1e-30)


@pytest.fixture(scope="module")
def sample() -> tuple[Sound, dict[str, Sound], int]:
    """The sample song, its true stems, and its rate."""
    mix, rate = soundfile.read(SONG / "mix.ogg", dtype="float32")
    return mix.T, {name: soundfile.read(SONG / f"{name}.ogg", dtype="float32")[0].T for name in STEMS}, rate


@pytest.mark.parametrize(("name", "gain"), [("drums", 8.0), ("bass", 4.0), ("vocals", 4.0), ("other", 3.0)])
def test_separation_brings_the_sample_nearer_to_its_stems(
    name: str, gain: float, sample: tuple[Sound, dict[str, Sound], int]
) -> None:
    mix, stems, rate = sample
    estimate = separate(mix, rate)[name]
    assert decibels(stems[name], estimate) - decibels(stems[name], mix) > gain


@pytest.mark.parametrize("name", ["drums", "bass"])
def test_the_estimate_is_more_like_its_own_stem_than_like_any_other(
    name: str, sample: tuple[Sound, dict[str, Sound], int]
) -> None:
    mix, stems, rate = sample
    estimate = separate(mix, rate)[name].ravel()
    likeness = {other: abs(float(np.corrcoef(estimate, stem.ravel())[0, 1])) for other, stem in stems.items()}
    assert max(likeness, key=lambda other: likeness[other]) == name
    assert likeness[name] > 0.7


def test_clicks_are_drums_and_a_steady_tone_is_not() -> None:
    rate = 22_050
    t = np.arange(4 * rate) / rate
    tone = 0.3 * np.sin(2 * np.pi * 880 * t)
    clicks = np.where(np.arange(4 * rate) % (rate // 2) == rate // 4, 0.9, 0)
    assert energy(separate(clicks[None].astype(np.float32), rate)["drums"]) > 0.9 * energy(clicks)
    assert energy(separate(tone[None].astype(np.float32), rate)["drums"]) < 0.02 * energy(tone)


def test_a_low_tone_is_bass() -> None:
    rate = 22_050
    t = np.arange(4 * rate) / rate
    for hertz, share in ((60, 0.95), (100, 0.95), (400, 0.0)):
        tone = (0.3 * np.sin(2 * np.pi * hertz * t)).astype(np.float32)
        share_in_bass = energy(separate(tone[None], rate)["bass"]) / energy(tone)
        assert share_in_bass > share if share else share_in_bass < 0.02


def test_vocals_are_centred_and_do_not_repeat() -> None:
    """A melody over a chord that is struck again and again; then the same melody at one side."""
    rate = 22_050
    t = np.arange(8 * rate) / rate
    swell = np.exp(-4 * (t % 0.5))
    chord = 0.2 * swell * sum(np.sin(2 * np.pi * hertz * t) for hertz in (262, 330, 392))
    glide = 0.2 * np.sin(2 * np.pi * (600 * t + 30 * t**2)) * ((t > 3) & (t < 5))
    for sides, least, most in (((1, 1), 0.5, 2), ((1, 0), 0, 0.2)):
        mix = np.stack([chord + glide * side for side in sides]).astype(np.float32)
        vocals = separate(mix, rate)["vocals"][0]
        assert least * energy(glide) <= energy(vocals[3 * rate : 5 * rate]) <= most * energy(glide)
        assert energy(vocals[: 3 * rate]) < 0.1 * energy(chord[: 3 * rate])
