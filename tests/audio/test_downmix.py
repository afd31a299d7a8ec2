"""The mono signal of a track whose channels cancel each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.audio.conftest import Save, features_of, noise
from tests.conftest import SAMPLES
from wav2clip_gen.audio.decode import decode
from wav2clip_gen.audio.downmix import ChannelMeter, Samples, invert_opposed, mix_down
from wav2clip_gen.audio.separation import DspSeparator, separated
from wav2clip_gen.audio.timeline import Timeline
from wav2clip_gen.audio.track import Track, open_track

RATE = 16_000


def mono(track: Track) -> Samples:
    return np.concatenate(list(track.mono_blocks()))


def stereo(seed: int = 0) -> NDArray[np.float32]:
    """Three seconds of a source in the centre and two weaker ones at the sides, (n, 2)."""
    return noise(3.0, RATE, channels=1) + 0.4 * noise(3.0, RATE, seed=seed + 1)


def clicks(seconds: float = 4.0) -> NDArray[np.float32]:
    """A click every half second, (n, 1)."""
    sound = np.zeros((round(seconds * RATE), 1), np.float32)
    for first in range(RATE // 4, len(sound), RATE // 2):
        sound[first : first + 400, 0] = np.hanning(400) * noise(400 / RATE, RATE, channels=1)[:, 0]
    return sound


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".mp3", ".m4a"])
def test_opposite_channels_are_analysed_as_their_in_phase_twin(suffix: str, save: Save) -> None:
    one = 0.3 * noise(3.0, RATE, channels=1)
    opposed, twin = (
        open_track(save(f"{name}{suffix}", np.hstack([one, sign * one]), RATE))
        for name, sign in (("opposed", -1), ("twin", 1))
    )
    assert (opposed.mono_weights, twin.mono_weights) == ((0.5, -0.5), None)
    if suffix in (".wav", ".flac"):
        np.testing.assert_allclose(mono(opposed), mono(twin), atol=1e-4 * (suffix == ".flac"))
    assert np.corrcoef(mono(opposed), mono(twin))[0, 1] > 0.98  # mp3 is lossy
    assert mono(opposed).std() == pytest.approx(mono(twin).std(), rel=0.02)


def test_a_stereo_track_with_an_inverted_cable_is_mixed_as_it_was_meant(save: Save) -> None:
    for seed in range(3):
        wide = stereo(seed)
        meant = open_track(save("meant.wav", wide, RATE))
        inverted = open_track(save("inverted.wav", wide * np.array([1, -1], np.float32), RATE))
        assert (meant.mono_weights, inverted.mono_weights) == (None, (0.5, -0.5))
        np.testing.assert_allclose(mono(inverted), mono(meant), atol=1e-6)


def test_onsets_and_the_decoded_signal_are_those_of_the_twin(save: Save) -> None:
    sound = clicks()
    opposed, twin = (save(f"{sign}.wav", np.hstack([sound, sign * sound]), RATE) for sign in (-1, 1))
    assert len(features_of(twin).onsets) == 8
    np.testing.assert_array_equal(features_of(opposed).onsets, features_of(twin).onsets)
    track = open_track(opposed)
    signal = decode(track, Timeline.of(track, fps=12))
    np.testing.assert_array_equal(np.concatenate(list(signal.mono_blocks())), mono(track))


def unrelated(seconds: float = 3.0, channels: int = 2) -> NDArray[np.float32]:
    return noise(seconds, RATE, channels=channels)


def delayed() -> NDArray[np.float32]:
    """One channel is 0.3 ms later."""
    one = noise(3.0, RATE, channels=1)
    return np.hstack([one, np.roll(one, 5, axis=0)])


@pytest.mark.parametrize(
    "sound",
    [
        stereo(),
        unrelated(),
        unrelated(channels=6),
        delayed(),
        unrelated() * np.array([1, 0], np.float32),
        np.hstack([unrelated(channels=1)] * 2) * np.array([1, -0.1], np.float32),  # only a little is lost
        np.zeros((RATE, 2), np.float32),
        np.zeros((1, 2), np.float32),
        np.full((RATE, 2), 0.3, np.float32),
        unrelated(channels=1),
        np.vstack(
            [stereo(), 1e-3 * np.hstack([noise(3.0, RATE, channels=1)] * 2) * np.array([1, -1], np.float32)]
        ),  # inaudible
    ],
    ids=["stereo", "noise", "5.1", "delayed", "one-sided", "leak", "silence", "sample", "constant", "mono", "hiss"],
)
def test_channels_that_do_not_cancel_are_averaged_as_ever(sound: NDArray[np.float32], save: Save) -> None:
    track = open_track(save("song.wav", sound, RATE))
    assert track.mono_weights is None
    np.testing.assert_array_equal(mono(track), track.read().mean(axis=0, dtype=np.float32))


@pytest.mark.parametrize("path", sorted(SAMPLES.rglob("*.ogg")), ids=lambda path: path.stem)
def test_recordings_that_are_in_phase_are_averaged(path: Path) -> None:
    assert open_track(path).mono_weights is None


def test_opposed_bass_below_common_treble_is_taken_from_one_channel(save: Save) -> None:
    t = np.arange(3 * RATE) / RATE
    bass, treble = 0.5 * np.sin(2 * np.pi * 60 * t), 0.05 * np.random.default_rng(0).standard_normal(len(t))
    half_period = round(RATE / 120)  # by which the bass is later in the other channel
    sound = np.stack([bass + treble, np.roll(bass, half_period) + treble], axis=1).astype(np.float32)
    track = open_track(save("song.wav", sound, RATE))
    assert sorted(track.mono_weights or ()) == [0, 1]
    spectrum = np.abs(np.fft.rfft(mono(track)))
    assert spectrum[180] == pytest.approx(0.25 * len(t), rel=0.05)  # 60 Hz, as loud as in a channel
    assert np.median(spectrum[3_000:]) == pytest.approx(np.median(np.abs(np.fft.rfft(treble))[3_000:]), rel=0.05)


def test_a_track_of_which_half_is_opposed_is_taken_from_one_channel(save: Save) -> None:
    wide = np.vstack([stereo(), stereo(3) * np.array([1, -1], np.float32)])
    track = open_track(save("song.wav", wide, RATE))
    assert sorted(track.mono_weights or ()) == [0, 1]
    first, second = np.split(mono(track), 2)
    assert first.std() == pytest.approx(second.std(), rel=0.1)


@pytest.mark.parametrize("centre", [0.0, 0.2, 0.8])
def test_an_inverted_speaker_of_surround_sound_is_found(centre: float, save: Save) -> None:
    front, other = noise(3.0, RATE, channels=1), noise(3.0, RATE, channels=1, seed=1)
    silent = np.zeros_like(front)
    sound = np.hstack([front, -front, centre * other, silent, silent, silent])
    weights = open_track(save("surround.wav", sound, RATE)).mono_weights
    assert weights is not None
    assert np.round(np.multiply(weights, 6)).tolist()[:3] == [1, -1, 1]


def test_a_span_is_judged_by_itself(save: Save) -> None:
    path = save("song.wav", np.vstack([stereo()] * 5 + [stereo(3) * np.array([1, -1], np.float32)]), RATE)
    assert open_track(path).mono_weights is None
    assert open_track(path, start=15.0).mono_weights == (0.5, -0.5)


def test_the_blocks_do_not_matter() -> None:
    sound = (stereo() * np.array([1, -1], np.float32)).T
    for size in (RATE, 3 * RATE, 50_000):
        meter = ChannelMeter(RATE)
        for first in range(0, sound.shape[1], size):
            meter.add(sound[:, first : first + size])
        assert meter.weights() == (0.5, -0.5)


def test_many_channels_cost_no_memory() -> None:
    meter = ChannelMeter(10)
    meter.add(np.ones((64, 1000), np.float32))
    assert meter.weights() is None


def test_opposed_channels_are_separated_as_their_twin(save: Save) -> None:
    opposed, twin = (
        open_track(save(f"{sign}.wav", stereo() * np.array([1, sign], np.float32), RATE)) for sign in (-1, 1)
    )
    found, expected = (
        np.concatenate(list(separated(track, DspSeparator())), axis=2) for track in (opposed, twin)
    )  # (4, 2, n)
    np.testing.assert_allclose(found.sum(axis=0), opposed.read(), atol=1e-5)
    np.testing.assert_allclose(invert_opposed(found, opposed.mono_weights), expected, atol=1e-5)
    assert mix_down(found[0], opposed.mono_weights).std() == pytest.approx(expected[0].mean(axis=0).std(), rel=1e-4)
