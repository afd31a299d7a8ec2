from __future__ import annotations

import numpy as np
import pytest

from tests.audio.conftest import noise
from wav2clip_gen.audio import spectra


def whole(samples: np.ndarray, size: int) -> np.ndarray:
    """Power spectra, a column at a time, of the whole sound with silence around it."""
    padded = np.pad(samples.astype(np.float64), size // 2)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
    pieces = [padded[start : start + size] for start in range(0, len(samples) + 1, spectra.HOP)]
    return np.square(np.abs(np.fft.rfft(np.array(pieces) * window, axis=1)) * 2 / window.sum())


@pytest.mark.parametrize("samples", [1, 100, 256, 257, 1023, 30_000])
@pytest.mark.parametrize("size", [1024, 4096])
def test_spectra_of_blocks_are_those_of_the_whole(samples: int, size: int) -> None:
    sound = noise(2.0, channels=1)[:samples, 0]
    expected = whole(sound, size)
    assert len(expected) == spectra.columns(samples)
    for cuts in ([], [1], [samples // 3, samples // 3, samples // 2], list(range(0, samples, 777))):
        stream = spectra.Spectrum(size)
        pieces = [stream.push(piece) for piece in np.split(sound, cuts)] + [stream.finish()]
        np.testing.assert_allclose(np.concatenate(pieces), expected, rtol=1e-3, atol=1e-7)


def test_a_sine_has_power_one_and_its_mean_square() -> None:
    stream = spectra.Spectrum(4096)
    hertz = 200 * spectra.RATE / 4096
    power = stream.push(np.sin(2 * np.pi * hertz / spectra.RATE * np.arange(20_000)).astype(np.float32))[30]
    assert power.argmax() == 200
    assert power.max() == pytest.approx(1, abs=1e-3)
    assert spectra.ENERGY * power.sum() == pytest.approx(0.5, abs=1e-3)


def test_a_weighting_is_that_of_the_standard() -> None:
    decibels = 10 * np.log10(spectra.a_weights(np.array([31.62, 100, 1000, 2512, 10_000])))
    np.testing.assert_allclose(decibels, [-39.4, -19.1, 0.0, 1.3, -2.5], atol=0.1)  # IEC 61672-1, table 3


def test_bands_share_what_an_edge_cuts() -> None:
    power = np.ones((1, 513))
    edges = np.array([0.0, 1000.0, 1500.0, spectra.RATE / 2])
    sums = spectra.band_sums(power, edges, 1024)
    np.testing.assert_allclose(sums[0, 1], 500 * 1024 / spectra.RATE)
    np.testing.assert_allclose(sums.sum(), 512)  # half of the first bin and half of the last lie outside


def test_pitch_classes_are_named_from_c() -> None:
    filters = spectra.chroma_filters(4096)
    for pitch, hertz in ((0, 523.25), (4, 659.26), (9, 880.0), (11, 987.77)):
        assert filters[round(hertz * 4096 / spectra.RATE)].argmax() == pitch
