"""The optimizer with the mini family: it approaches its target, repeats exactly, and the temporal weight holds it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from tests.synthesis.conftest import make_optimizer, target_of
from wav2clip_gen.audio.timeline import Timeline
from wav2clip_gen.config import Settings
from wav2clip_gen.errors import SettingsError
from wav2clip_gen.images import read_covering
from wav2clip_gen.models.clip import Perceptor, mix_layouts
from wav2clip_gen.models.registry import Models
from wav2clip_gen.synthesis.camera import similarity_transform, warp
from wav2clip_gen.synthesis.losses import concept_cross_entropy, layout_loss, total_variation
from wav2clip_gen.synthesis.modulation import ParameterCurves, modulate
from wav2clip_gen.synthesis.optimizer import Frame, FrameOptimizer, Step
from wav2clip_gen.synthesis.step import clamp_with_gradient

Optimized = Callable[..., FrameOptimizer]


@pytest.fixture
def optimized(mini: Models, small: Settings) -> Optimized:
    """An optimizer with other painting settings after some steps, and the last step's values."""

    def run(
        steps: int, text: str = "a dog", *, seed: int = 7, models: Models | None = None, **painting: object
    ) -> FrameOptimizer:
        optimizer = make_optimizer(models or mini, small.merged({"painting": painting}), seed)
        optimizer.optimize(target_of(mini, text), steps=steps, temporal_weight=0)
        return optimizer

    return run


def without_prior(mini: Models) -> Models:
    return replace(mini, prior=None)


def test_steps_bring_the_picture_nearer_to_its_target(mini: Models, small: Settings) -> None:
    gains = []
    for seed in (7, 8, 9):  # a single start may be a hard one
        optimizer = make_optimizer(without_prior(mini), small.merged({"painting": {"cuts": 4}}), seed)
        steps = list(optimizer.iterate(target_of(mini), steps=20, temporal_weight=0))
        before, after = (torch.stack([s.similarity for s in part]).mean() for part in (steps[:4], steps[-4:]))
        gains.append(after - before)
        assert [step.index for step in steps] == list(range(20))
    assert torch.stack(gains).mean() > 0.03


def test_the_seed_decides_everything(optimized: Optimized) -> None:
    first = optimized(3).decode()
    torch.rand(50)  # other random numbers do not matter
    assert torch.equal(first, optimized(3).decode())
    assert not torch.equal(first, optimized(3, seed=8).decode())


def test_a_film_starts_from_an_init_image_and_an_init_weight_holds_it(optimized: Optimized, tmp_path: Path) -> None:
    stripes = np.zeros((90, 120, 3), np.uint8)
    stripes[:, :60] = (250, 120, 20)
    stripes[:, 60:] = (20, 60, 200)
    Image.fromarray(stripes).save(tmp_path / "start.png")
    start = torch.from_numpy(read_covering(tmp_path / "start.png", 32, 32)).permute(2, 0, 1) / 255

    def distance(init_weight: float, steps: int) -> float:
        made = optimized(steps, init_image=str(tmp_path / "start.png"), init_weight=init_weight)
        return (made.decode() - start).abs().mean().item()

    begin, free, held = distance(0.0, 0), distance(0.0, 8), distance(10.0, 8)
    assert begin < 0.1
    assert free > 1.5 * begin
    assert held < 0.7 * free


def test_the_temporal_weight_holds_the_latent(mini: Models, optimized: Optimized) -> None:
    def distance(temporal_weight: float) -> float:
        optimizer = optimized(0)  # the prior chooses the start
        before = optimizer.latent.detach().clone()
        optimizer.optimize(target_of(mini), steps=6, temporal_weight=temporal_weight)
        return (optimizer.latent - before).norm().item()

    assert distance(50.0) < 0.8 * distance(0.0)


def test_the_latent_stays_within_the_codebooks_range(mini: Models, optimized: Optimized) -> None:
    latent = optimized(3, learning_rate=10.0).latent
    codes = mini.vqgan.quantize.codes
    assert (latent >= codes.amin(dim=0).view(1, -1, 1, 1)).all()
    assert (latent <= codes.amax(dim=0).view(1, -1, 1, 1)).all()


def test_the_running_average_reduces_changes_between_frames(mini: Models, small: Settings) -> None:
    def pictures(half_life: float) -> list[Tensor]:
        optimizer = make_optimizer(mini, small.merged({"motion": {"ema_half_life": half_life}}))
        made = [optimizer.decode()]
        for text in ("a dog", "a boat", "a tree"):
            optimizer.optimize(target_of(mini, text), steps=3, temporal_weight=0)
            made.append(optimizer.decode())
        return made

    plain, averaged = pictures(0.0), pictures(1.0)
    torch.testing.assert_close(plain[0], averaged[0], atol=0.02, rtol=0)  # the first is not averaged with anything
    plain_change, averaged_change = (
        sum((a - b).abs().mean().item() for a, b in itertools.pairwise(made[1:])) for made in (plain, averaged)
    )
    assert averaged_change < 0.7 * plain_change


def test_pictures_have_the_size_and_range_of_the_settings(mini: Models, small: Settings) -> None:
    picture = make_optimizer(mini, small).decode()
    assert picture.shape == (3, small.picture.height, small.picture.width)
    assert picture.min() >= 0
    assert picture.max() <= 1
    assert make_optimizer(mini, small).decode_bytes().shape == (small.picture.height, small.picture.width, 3)


def test_a_frame_takes_its_steps_and_its_learning_rate_from_the_parameters(mini: Models, small: Settings) -> None:
    line = Timeline(samples=16_000, sample_rate=16_000, fps=small.picture.fps)  # type: ignore[arg-type]
    parameters = modulate(small, {}, line)
    parameters.curves["steps"][:] = [9, 0, 2, 0]  # the first frame has `first_steps`
    parameters.curves["learning-rate"][2] = 1e-9
    optimizer, target = make_optimizer(mini, small), target_of(mini)
    (first,) = optimizer.frames(0, target, parameters)
    (state,) = optimizer.step.optimizer.state.values()
    assert state["step"] == small.painting.first_steps
    assert first.picture.dtype == np.uint8
    assert (first.loss is None, first.similarity is None) == (False, False)
    (still,) = optimizer.frames(1, target, parameters)
    assert (still.loss, still.similarity) == (None, None)
    latent = optimizer.latent.detach().clone()
    (_,) = optimizer.frames(2, target, parameters)
    assert state["step"] == small.painting.first_steps + 2
    torch.testing.assert_close(optimizer.latent.detach(), latent, atol=1e-6, rtol=0)


def frames_with(
    mini: Models, settings: Settings, parameters: ParameterCurves, after: int | None
) -> tuple[FrameOptimizer, list[Frame]]:
    """Frame 0, then frame 4 and those between."""
    optimizer, target = make_optimizer(mini, settings), target_of(mini)
    (first,) = optimizer.frames(0, target, parameters)
    return optimizer, [first, *optimizer.frames(4, target, parameters, after=after)]


def test_frames_between_two_optimised_ones_are_interpolated(mini: Models, small: Settings) -> None:
    settings = small.merged({"motion": {"ema_half_life": 0}, "run": {"precision": "fp32"}})
    parameters = modulate(settings, {}, Timeline(samples=20_000, sample_rate=16_000, fps=Fraction(4)))
    optimizer, frames = frames_with(mini, settings, parameters, after=0)
    _, alone = frames_with(mini, settings, parameters, after=None)  # as if it had been the next
    assert [frame.loss is None for frame in frames] == [False, True, True, True, False]
    np.testing.assert_array_equal(frames[-1].picture, alone[-1].picture)
    ends = frames[0].picture.astype(float), frames[-1].picture.astype(float)
    far = [[np.abs(frame.picture - end).mean() for frame in frames] for end in ends]
    assert far[0] == sorted(far[0])
    assert far[1] == sorted(far[1], reverse=True)
    vqgan = mini.vqgan
    fresh = make_optimizer(mini, settings)
    (_,) = fresh.frames(0, target_of(mini), parameters)
    halfway = (vqgan.quantise(fresh.latent) + vqgan.quantise(optimizer.latent)) / 2
    with torch.no_grad():
        expected = vqgan.decode(halfway).clamp(0, 1)[0].permute(1, 2, 0) * 255
    np.testing.assert_allclose(frames[2].picture, expected.numpy(), atol=1)


@pytest.mark.parametrize("speed", [0.05, 4.0], ids=["on the grid", "encoded again"])
def test_the_camera_moves_at_every_frame(speed: float, mini: Models, small: Settings) -> None:
    """With a film that does not change, frames between are as if the camera alone had moved."""
    settings = small.merged({"motion": {"pan_x": speed, "border": "wrap"}, "painting": {"steps": 0}})
    parameters = modulate(settings, {}, Timeline(samples=20_000, sample_rate=16_000, fps=Fraction(16)))
    optimizer, target = make_optimizer(mini, settings), target_of(mini)
    (_,) = optimizer.frames(0, target, parameters)
    *between, last = optimizer.frames(4, target, parameters, after=0)
    picture = torch.from_numpy(last.picture).permute(2, 0, 1)[None] / 255
    for back, frame in enumerate(reversed(between), 1):
        moved = similarity_transform(pan_x=-speed / 16 * back)
        expected = warp(picture, moved, border="wrap").clamp(0, 1)[0].permute(1, 2, 0) * 255
        assert np.abs(frame.picture - expected.numpy()).mean() < 2.5


def test_codes_do_not_depend_on_the_precision(mini: Models, small: Settings) -> None:
    """What is optimised is what is decoded: the codebook stays float32, the networks around it do not."""
    optimizer = make_optimizer(mini, small.merged({"run": {"precision": "bf16"}}))
    vqgan = optimizer.models.vqgan
    assert vqgan.quantize is mini.vqgan.quantize
    assert {one.dtype for one in vqgan.quantize.parameters()} == {torch.float32}
    assert {one.dtype for one in vqgan.decoder.parameters()} == {torch.bfloat16}
    assert {one.dtype for one in mini.vqgan.decoder.parameters()} == {torch.float32}  # as it was
    assert torch.equal(vqgan.quantise(optimizer.latent), mini.vqgan.quantise(optimizer.latent))
    assert vqgan.decode(optimizer.latent).dtype == torch.float32


def test_a_concept_weight_makes_the_picture_be_classified_as_its_target(mini: Models, optimized: Optimized) -> None:
    prior, scale = mini.prior, mini.clip.scale
    assert prior is not None
    probs = prior.concept_log_probs(target_of(mini, "a sunflower"), scale).exp()

    def cross_entropy(concept_weight: float) -> float:
        made = optimized(16, "a sunflower", cuts=8, concept_weight=concept_weight, layout_weight=0.0)
        with torch.no_grad():
            small = F.interpolate(made.decode()[None], size=(mini.clip.size, mini.clip.size), mode="area")
            return concept_cross_entropy(prior.concept_log_probs(mini.clip.encode_images(small), scale), probs).item()

    assert cross_entropy(10.0) < cross_entropy(0.0) - 1


def test_the_first_frame_starts_from_the_priors_color_layout(optimized: Optimized) -> None:
    def colors(text: str, layout_weight: float, seed: int = 7) -> Tensor:
        return optimized(0, text, seed=seed, layout_weight=layout_weight).decode().mean(dim=(1, 2))

    forest, sunset = (colors(text, 1.0) for text in ("a forest", "a sunset"))
    assert forest[1] > forest[2]
    assert sunset[0] - sunset[2] > forest[0] - forest[2]
    assert not torch.equal(forest, colors("a forest", 1.0, seed=8))  # seeds differ from the start
    assert torch.equal(colors("a forest", 0.0), colors("a sunset", 0.0))


def test_an_init_image_takes_precedence_over_the_color_layout(mini: Models, small: Settings, tmp_path: Path) -> None:
    Image.new("RGB", (32, 32), (200, 40, 40)).save(tmp_path / "red.png")
    optimizer = make_optimizer(mini, small.merged({"painting": {"init_image": str(tmp_path / "red.png")}}))
    start = optimizer.latent.detach().clone()
    optimizer.optimize(target_of(mini, "a forest"), steps=0, temporal_weight=0)
    assert torch.equal(optimizer.latent, start)


def test_a_film_without_steps_is_resumed_and_moved(mini: Models, small: Settings) -> None:
    optimizer, resumed = make_optimizer(mini, small), make_optimizer(mini, small, seed=8)
    optimizer.optimize(target_of(mini), steps=0, temporal_weight=0)
    optimizer.decode()
    resumed.restore(optimizer.state())
    assert optimizer.move(similarity_transform(zoom=2))
    assert resumed.move(similarity_transform(zoom=2))
    assert torch.equal(resumed.latent, optimizer.latent)


def test_the_layout_weight_holds_the_colors(mini: Models, optimized: Optimized) -> None:
    assert mini.prior is not None
    embedding = target_of(mini, "a forest")
    probs = mini.prior.concept_log_probs(embedding, mini.clip.scale).exp()
    expected = mix_layouts(mini.prior.draw_layouts(0), probs)

    def distance(layout_weight: float) -> float:
        made = optimized(8, "a forest", layout_weight=layout_weight)
        return layout_loss(made.decode()[None], expected).item()

    assert distance(20.0) < 0.8 * distance(0.001)


def test_without_a_prior_its_settings_change_nothing(mini: Models, optimized: Optimized) -> None:
    off, bare = {"concept_weight": 0.0, "layout_weight": 0.0}, without_prior(mini)
    plain = optimized(2, models=bare, **off).decode()
    assert torch.equal(plain, optimized(2, models=bare).decode())
    assert torch.equal(plain, optimized(2, **off).decode())
    assert not torch.equal(plain, optimized(2).decode())


def test_the_total_variation_weight_smooths_the_picture(optimized: Optimized) -> None:
    plain, smooth = (total_variation(optimized(8, tv_weight=weight).decode()[None]).item() for weight in (0.0, 50.0))
    assert smooth < 0.8 * plain


def test_a_size_between_two_cells_is_refused_with_the_nearest_one(mini: Models, small: Settings) -> None:
    with pytest.raises(SettingsError, match="100x50") as caught:
        make_optimizer(mini, small.merged({"picture": {"width": 100, "height": 50}}))
    assert caught.value.hint == "nearest: --size 96x48"


def test_clamped_values_have_a_gradient_back_into_the_range_only() -> None:
    values = torch.tensor([-1.0, -1.0, 0.5, 2.0, 2.0], requires_grad=True)
    out = clamp_with_gradient(values)
    assert out.tolist() == [0, 0, 0.5, 1, 1]
    out.backward(torch.tensor([-1.0, 1.0, 1.0, 1.0, -1.0]))
    assert values.grad is not None
    assert values.grad.tolist() == [-1, 0, 1, 1, 0]  # gradient descent moves against the sign


def test_the_gradient_does_not_depend_on_the_micro_batch(mini: Models, small: Settings) -> None:
    def run(cut_batch: int) -> tuple[Tensor, Step]:
        changes = {"painting": {"cuts": 5, "cut_batch": cut_batch}, "run": {"precision": "fp32"}}
        optimizer = make_optimizer(mini, small.merged(changes))
        step = optimizer.optimize(target_of(mini), steps=2, temporal_weight=0.1)
        assert step is not None
        return optimizer.latent.detach(), step

    (parts, part_step), (whole, whole_step) = run(2), run(0)
    torch.testing.assert_close(parts, whole, atol=2e-4, rtol=0)
    torch.testing.assert_close(part_step.loss, whole_step.loss, atol=1e-3, rtol=0)
    assert not torch.equal(whole, make_optimizer(mini, small).latent)


def test_recomputed_activations_are_the_same(mini: Models, small: Settings) -> None:
    def run(recompute: bool) -> Tensor:
        settings = small.merged({"run": {"recompute": recompute, "precision": "fp32"}})
        optimizer = make_optimizer(mini, settings)
        optimizer.optimize(target_of(mini), steps=2, temporal_weight=0.1)
        return optimizer.latent.detach()

    assert torch.equal(run(True), run(False))


class TooMuch:
    """In place of a perceptor: memory runs out where it is given more than some pictures at a time."""

    def __init__(self, clip: Perceptor, most: int, error: Exception) -> None:
        self.clip, self.most, self.error, self.sizes = clip, most, error, list[int]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.clip, name)

    def in_bf16(self) -> TooMuch:
        return self

    def encode_images(self, images: Tensor) -> Tensor:
        self.sizes.append(len(images))
        if sum(self.sizes) > 8 and len(images) > self.most:  # the first step succeeds
            raise self.error
        return self.clip.encode_images(images)


OUT_OF_MEMORY = [
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    MemoryError(),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
def test_where_memory_runs_out_smaller_batches_are_taken_from_there_on(
    error: Exception, optimized: Optimized, mini: Models
) -> None:
    clip = TooMuch(mini.clip, 3, error)
    short = optimized(3, cuts=8, models=replace(mini, clip=clip))  # type: ignore[arg-type]
    assert clip.sizes == [8, 8, 4, 2, 2, 2, 2, 2, 2, 2, 2]  # the second step is begun three times, no cutout twice
    assert short.cut_batch == 2
    whole, other = optimized(3, cuts=8), optimized(3, cuts=8, seed=8)
    assert whole.cut_batch == 8
    rounding, chance = ((one.latent - whole.latent).abs().mean() for one in (short, other))
    assert rounding < 0.01 * chance  # the same cutouts were taken again


def test_where_single_cutouts_do_not_fit_it_fails(optimized: Optimized, mini: Models) -> None:
    clip = TooMuch(mini.clip, 0, MemoryError("no more"))
    with pytest.raises(MemoryError, match="no more"):
        optimized(2, cuts=8, models=replace(mini, clip=clip))  # type: ignore[arg-type]
    assert clip.sizes == [8, 8, 4, 2, 1]
    broken = TooMuch(mini.clip, 0, RuntimeError("shapes do not fit"))
    with pytest.raises(RuntimeError, match="shapes"):
        optimized(2, cuts=8, models=replace(mini, clip=broken))  # type: ignore[arg-type]
    assert broken.sizes == [8, 8]


def test_a_batch_is_at_most_all_cutouts(optimized: Optimized) -> None:
    assert [optimized(0, cuts=8, cut_batch=size).cut_batch for size in (0, 3, 8, 1024)] == [8, 3, 8, 8]
