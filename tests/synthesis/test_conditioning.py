"""One target per frame: unit vectors, smoothed without lag, of stems by their level, prompts and images by weight."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from wav2clip_gen.audio.decode import decode
from wav2clip_gen.audio.timeline import Timeline
from wav2clip_gen.audio.track import open_track
from wav2clip_gen.config import MIX, Prompt, StemWeight
from wav2clip_gen.errors import SettingsError
from wav2clip_gen.models.registry import Models
from wav2clip_gen.synthesis.conditioning import (
    LEVEL_SMOOTHING,
    SILENT,
    AudioEmbedding,
    Conditioning,
    GuidanceEmbedding,
    WeightSchedule,
    combine,
    combine_stems,
    encode_audio,
    encode_style,
    hold_sections,
    interpolate_windows,
    is_silent,
    loudness_weights,
    mean_target,
    slerp,
    slerp_rows,
    smooth_rows_,
    weight_schedule,
)
from wav2clip_gen.synthesis.modulation import PromptWeight

Floats = NDArray[np.float64]


def unit(*shape: int, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def timeline(seconds: float, fps: float) -> Timeline:
    return Timeline(samples=round(seconds * 16_000), sample_rate=16_000, fps=Fraction(str(fps)))


def audio_of(windows: Tensor, line: Timeline, loudness: Floats | None = None) -> AudioEmbedding:
    return AudioEmbedding(interpolate_windows(windows, line), np.ones(line.frames) if loudness is None else loudness)


# Interpolation and smoothing


def test_slerp_has_constant_speed_along_the_great_circle() -> None:
    a, b = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    for share in (0.0, 0.25, 0.5, 1.0):
        angle = torch.tensor(share * torch.pi / 2)
        expected = torch.stack([angle.cos(), angle.sin()])
        torch.testing.assert_close(slerp(a, b, torch.tensor([share])), expected, atol=1e-6, rtol=0)


@given(st.integers(0, 2**31), st.floats(0, 1), st.sampled_from([0.0, 1e-7, 1e-3, 1.0]))
def test_slerp_never_leaves_the_sphere(seed: int, share: float, apart: float) -> None:
    a = unit(8, seed=seed)
    b = F.normalize(a + apart * unit(8, seed=seed + 1), dim=-1)
    between = slerp(a, b, torch.tensor([share]))
    assert between.norm().item() == pytest.approx(1, abs=1e-4)
    assert torch.isfinite(slerp(a, -a, torch.tensor([share]))).all()


def test_frames_between_windows_are_interpolated() -> None:
    windows = unit(4, 16)
    rows = slerp_rows(windows, np.array([0.0, 1.0, 1.5, 3.0, 9.0]))
    torch.testing.assert_close(rows[[0, 1, 3, 4]], windows[[0, 1, 3, 3]], atol=1e-6, rtol=0)
    assert (rows[2] @ windows[1]).item() == pytest.approx((rows[2] @ windows[2]).item(), abs=1e-5)
    assert slerp_rows(windows[:1], np.array([0.0, 5.0])).shape == (2, 16)


def test_smoothing_has_no_lag() -> None:
    pulse = torch.zeros(101, 1)
    pulse[50] = 1
    smooth_rows_(pulse, 5.0, weights=torch.ones(101))
    out = pulse.squeeze(1)
    torch.testing.assert_close(out, out.flip(0), atol=1e-6, rtol=0)
    assert out.argmax() == 50
    assert (out[55] / out[50]).item() == pytest.approx(0.5, rel=1e-3)  # at the half-life


def test_smoothing_is_the_plain_weighted_mean() -> None:
    values, weights = unit(30, 4), torch.rand(30, generator=torch.Generator().manual_seed(1)) + 0.1
    distance = (torch.arange(30).view(-1, 1) - torch.arange(30)).abs()
    kernel = 2.0 ** (-distance / 3.0) * weights
    plain = kernel @ values / kernel.sum(dim=1, keepdim=True)
    smooth_rows_(values, 3.0, weights=weights)
    torch.testing.assert_close(values, plain, atol=1e-5, rtol=1e-4)


def test_a_constant_is_smoothed_to_itself_up_to_the_ends() -> None:
    ones = torch.ones(20, 3)
    smooth_rows_(ones, 4.0, weights=torch.ones(20))
    torch.testing.assert_close(ones, torch.ones(20, 3))


def test_targets_do_not_depend_on_the_frame_rate() -> None:
    windows, places = unit(41, 32), (0.5, 2.0, 3.75)
    slow, fast = (
        combine(audio_of(windows, line), None, line, half_life=0.3).targets
        for line in (timeline(4, 12), timeline(4, 48))
    )
    for seconds in places:
        assert (slow[round(seconds * 12)] @ fast[round(seconds * 48)]).item() > 0.995


def test_a_silent_moment_is_smoothed_from_its_neighbours() -> None:
    line = timeline(2, 10)
    windows = torch.zeros(line.windows, 2)
    windows[:, 0], windows[10] = 1, torch.tensor([0.0, 1.0])
    loud = np.ones(line.frames)
    silent = loud.copy()
    silent[10] = 0
    audible, inaudible = (
        combine(audio_of(windows, line, level), None, line, half_life=0.1).targets[10, 1].item()
        for level in (loud, silent)
    )
    assert inaudible < 0.2 * audible


# Guidance


def guided(prompts: Tensor, weights: Tensor, windows: Tensor | None = None, audio_weight: float = 1.0) -> Tensor:
    """Targets of ten frames in a second."""
    line = timeline(1, 10)
    audio = AudioEmbedding(None, np.ones(10)) if windows is None else audio_of(windows, line)
    one, times = Prompt(text="always"), line.frame_times()
    schedules = (WeightSchedule(one, PromptWeight(0.0, (row.double().numpy(),)), times, 0.0) for row in weights)
    guidance = GuidanceEmbedding(prompts, tuple(schedules))
    made = combine(audio, guidance, line, half_life=0.0, audio_weight=audio_weight)
    return made.targets


def test_guidance_is_added_by_its_weight() -> None:
    windows, prompts, weights = unit(11, 16), unit(2, 16, seed=9), torch.tensor([[1.0], [0.0]]).expand(2, 10)
    mixed, only = guided(prompts, weights, windows), guided(prompts, weights, windows, audio_weight=0.0)
    torch.testing.assert_close(only, prompts[:1].expand(10, -1), atol=1e-6, rtol=0)
    torch.testing.assert_close(mixed, F.normalize(windows[:10] + prompts[0], dim=-1), atol=1e-5, rtol=0)
    torch.testing.assert_close(mixed.norm(dim=1), torch.ones(10))


def test_a_negative_weight_moves_the_target_away() -> None:
    windows, prompt = unit(11, 16), unit(1, 16, seed=9)
    cosines = [
        (guided(prompt, torch.full((1, 10), weight), windows) @ prompt[0]).mean().item() for weight in (-0.5, 0.0, 0.5)
    ]
    assert cosines == sorted(cosines)
    assert len(set(cosines)) == 3


def test_a_schedule_starts_ends_and_crossfades() -> None:
    times = np.arange(0, 10, 0.5)
    first = weight_schedule(0.8, times, start=2.0, end=5.0, crossfade=2.0)
    second = weight_schedule(0.8, times, start=5.0, end=None, crossfade=2.0)
    assert first[times <= 1].max() == 0
    torch.testing.assert_close(first[(times >= 3) & (times <= 4)], torch.full((3,), 0.8))
    assert first[times == 5].item() == pytest.approx(0.4)
    torch.testing.assert_close((first + second)[times >= 3], torch.full((14,), 0.8))
    hard = weight_schedule(-1.0, times, start=2.0, end=5.0, crossfade=0.0)
    assert (hard == -1).tolist() == [2 <= time < 5 for time in times]


def test_a_gap_in_the_audio_repeats_the_last_target() -> None:
    line, windows = timeline(1, 10), unit(2, 16)
    frames = torch.zeros(10, 16)
    frames[2:4], frames[7:] = windows[0], 3 * windows[1]
    made = combine(AudioEmbedding(frames, np.ones(10)), None, line, half_life=0.0).targets
    torch.testing.assert_close(made, windows[[0, 0, 0, 0, 0, 0, 0, 1, 1, 1]], atol=1e-6, rtol=0)


def test_a_gap_between_prompts_repeats_the_last_target() -> None:
    prompts, weights = unit(2, 16, seed=9), torch.zeros(2, 10)
    weights[0, 2:4] = weights[1, 7:9] = 1.0
    expected = prompts[[0, 0, 0, 0, 0, 0, 0, 1, 1, 1]]
    torch.testing.assert_close(guided(prompts, weights), expected, atol=1e-6, rtol=0)
    with pytest.raises(SettingsError, match="at any time"):
        guided(prompts, torch.zeros(2, 10))


def test_a_style_image_is_a_unit_vector_that_depends_on_the_image_alone(mini: Models) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    first = encode_style(picture, mini.clip)
    torch.rand(10)
    assert torch.equal(first, encode_style(picture, mini.clip))
    assert first.norm().item() == pytest.approx(1, abs=1e-5)
    assert not torch.equal(first, encode_style(255 - picture, mini.clip))


# Sections


def test_a_section_holds_its_mean_and_crossfades_at_its_boundaries() -> None:
    free = Conditioning(F.normalize(unit(40, 8) + 2 * unit(8, seed=1), dim=-1), torch.linspace(0, 1, 40), fps=4.0)
    sections = [slice(0, 16), slice(16, 24), slice(24, 40)]
    means = [mean_target(free, section) for section in sections]
    sharp = hold_sections(free, sections, crossfade=0)
    for section, mean in zip(sections, means, strict=True):
        torch.testing.assert_close(sharp.targets[section], mean.expand(len(sharp.targets[section]), -1))
    soft = hold_sections(free, sections, crossfade=1)
    torch.testing.assert_close(soft.targets[16], F.normalize(means[0] + means[1], dim=0))
    torch.testing.assert_close(soft.targets[17], F.normalize(means[0] + 3 * means[1], dim=0))
    away = [frame for frame in range(40) if min(abs(frame - boundary) for boundary in (16, 24)) >= 2]
    torch.testing.assert_close(soft.targets[away], sharp.targets[away])
    assert soft.loudness is free.loudness


def test_a_single_section_is_one_target() -> None:
    free = Conditioning(unit(9, 8), torch.ones(9), fps=3.0)
    held = hold_sections(free, [slice(0, 9)], crossfade=60)
    torch.testing.assert_close(held.targets, mean_target(free, slice(0, 9)).expand(9, -1))


def test_the_mean_target_is_a_direction_weighted_by_loudness() -> None:
    east, north = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    conditioning = Conditioning(torch.stack([east, north, -east]), torch.tensor([1.0, 0.0, 1.0]), 1.0)
    mean = mean_target(conditioning, slice(0, 2))
    assert mean.norm() == pytest.approx(1)
    assert mean[0] > 10 * mean[1] > 0
    silent = replace(conditioning, loudness=torch.zeros(3))
    assert mean_target(silent, slice(0, 2)).tolist() == pytest.approx([0.5**0.5] * 2)
    opposed = Conditioning(torch.stack([east, -east]), torch.ones(2), 1.0)
    assert torch.equal(mean_target(opposed, slice(0, 2)), east)


# Stems

RATE, SECONDS, FPS = 16_000, 8, 10

Combine = Callable[..., AudioEmbedding]


def noise_between(start: float, stop: float, *, seed: int) -> Floats:
    """Noise with a spectrum of its own from `start` to `stop` seconds, silence around it."""
    white = np.random.default_rng(seed).standard_normal(SECONDS * RATE)
    times = np.arange(len(white)) / RATE
    filtered = np.convolve(white, np.ones(4 + 12 * seed), mode="same")
    return 0.2 * filtered / filtered.std() * ((times >= start) & (times < stop))


@pytest.fixture(scope="module")
def stems(mini: Models, tmp_path_factory: pytest.TempPathFactory) -> Combine:
    """Combine drums all along, vocals from 3 s to 5 s, or the same vocals muted, each embedded once."""
    sounds = {"drums": noise_between(0, 8, seed=0), "vocals": noise_between(3, 5, seed=1)}
    sounds |= {"muted": np.zeros(SECONDS * RATE), MIX: sounds["drums"] + sounds["vocals"]}
    folder, embeddings, levels = tmp_path_factory.mktemp("stems"), {}, {}
    for name, sound in sounds.items():
        path: Path = folder / f"{name}.wav"
        soundfile.write(path, sound, RATE, subtype="FLOAT")
        line = Timeline.of(track := open_track(path), fps=FPS)
        signal = decode(track, line)
        levels[name] = signal.levels
        if name != MIX:
            embeddings[name] = encode_audio(mini.wav2clip, signal, line)

    def combined(**weights: float) -> AudioEmbedding:
        chosen = [StemWeight(name=name, weight=weight) for name, weight in weights.items()]
        return combine_stems(chosen, embeddings, levels, line)

    return combined


def frames_of(audio: AudioEmbedding) -> Tensor:
    assert audio.embeddings is not None
    return audio.embeddings


def test_muting_a_stem_changes_only_the_frames_where_it_was_audible(stems: Combine) -> None:
    both, muted = stems(drums=1, vocals=1), stems(drums=1, muted=1)
    reach = round(LEVEL_SMOOTHING * np.log2(1 / SILENT) * FPS) + 1  # frames until a full level has decayed to silence
    before, after = slice(0, 3 * FPS - reach), slice(5 * FPS + reach, None)
    for outside in (before, after):
        assert len(frames_of(both)[outside]) > FPS
        assert torch.equal(frames_of(both)[outside], frames_of(muted)[outside])
    assert (frames_of(both) - frames_of(muted))[3 * FPS : 5 * FPS].norm(dim=1).min() > 0.05
    assert np.array_equal(both.loudness[before], muted.loudness[before])


def test_a_silent_stem_counts_as_one_without_weight(stems: Combine) -> None:
    muted, drums = stems(drums=1, muted=1), stems(drums=1, vocals=0)
    torch.testing.assert_close(frames_of(muted), frames_of(drums), atol=1e-6, rtol=0)
    assert muted.silent == ("muted",)
    assert drums.silent == ()


def test_weight_moves_the_target_towards_a_stem(stems: Combine) -> None:
    drums, both, louder = (frames_of(stems(drums=1, vocals=weight))[4 * FPS] for weight in (0, 1, 10))
    assert (louder - drums).norm() > 1.2 * (both - drums).norm() > 0


def test_silence_alone_has_the_embedding_of_silence(stems: Combine) -> None:
    silence = stems(muted=1)
    assert silence.silent == ("muted",)
    assert silence.loudness.max() == 0
    assert frames_of(silence).norm(dim=1).min() > 0.99


def test_stems_without_weight_have_no_embedding(stems: Combine) -> None:
    assert stems(drums=0, vocals=0).embeddings is None


def test_the_weight_of_a_stem_is_its_level_and_0_in_silence() -> None:
    level = np.zeros(100)
    level[20:40], level[60:80] = 0.5, 0.25
    weights = loudness_weights(level, peak=0.5, fps=10)
    assert weights[30] == pytest.approx(2 * weights[70], rel=0.01)
    assert (weights[:5] == 0).all()
    assert (weights[95:] == 0).all()
    assert (loudness_weights(np.full(100, 1e-4), peak=0.5, fps=10) == 0).all()
    assert (loudness_weights(np.zeros(100), peak=0.0, fps=10) == 0).all()
    assert is_silent(np.full(100, 1e-4), level, fps=10)
    assert not is_silent(level, level, fps=10)


def test_stems_are_averaged_frame_by_frame() -> None:
    line = timeline(6, 10)
    a, b = (torch.eye(2)[row].expand(line.windows, 2) for row in (0, 1))
    frames = np.arange(line.frames)
    levels = {"a": 0.4 * (frames < 40), "b": 0.4 * ((frames >= 20) & (frames < 40)), MIX: np.full(60, 0.4)}
    stems = [StemWeight(name="a"), StemWeight(name="b", weight=3)]
    mean = frames_of(combine_stems(stems, {"a": a, "b": b}, levels, line))[[5, 30, 55]]
    torch.testing.assert_close(mean, torch.tensor([[1.0, 0.0], [0.25, 0.75], [0.0, 0.0]]), atol=1e-3, rtol=0)
