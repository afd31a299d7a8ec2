"""Paint one frame starting from the one before: VQGAN-CLIP (Crowson et al., arXiv 2204.08583) along a trajectory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.profiler import record_function

from wav2clip_gen.errors import SettingsError
from wav2clip_gen.models.registry import Models, computes_in_bf16
from wav2clip_gen.pictures import read_covering
from wav2clip_gen.settings import Settings, View
from wav2clip_gen.synthesis.cutouts import random_views
from wav2clip_gen.synthesis.goal import Goal, mismatch, set_goal
from wav2clip_gen.synthesis.losses import drift, layout_distance, total_variation
from wav2clip_gen.synthesis.motion import Camera, Matrix, warp

CHANGE = 0.4  # how much of the random colours there is in a start from the prior's


@dataclass(frozen=True, eq=False)
class Step:
    """One step of the optimiser. The tensors stay on the device: reading one waits for it."""

    index: int
    loss: Tensor  # () what was minimised
    similarity: Tensor  # () mean cosine between the views and the goal's target


class Painter:
    """A latent that is optimised frame by frame.

    Latent and Adam's moments are carried from frame to frame (where the paper starts each picture anew), and the
    latent is held near the one before it.
    """

    def __init__(self, family: Models, settings: Settings, *, generator: torch.Generator) -> None:
        """Start from the picture that was given, or from soft colours drawn at random; with a prior, from its own.

        Args:
            family: Networks, frozen, on one device.
            settings: What to paint and how.
            generator: Draws the start and all views; on the family's device.

        Raises:
            SettingsError: The picture's size is no multiple of the latent's cell, or too small for it; or the picture
                to start from cannot be read.
        """
        self.family = family
        self.settings = settings
        self.generator = generator
        picture, vqgan = settings.picture, family.vqgan
        check_size(picture.width, picture.height, vqgan.stride)
        self._first = first_picture(settings, generator=generator)
        self._chosen = settings.painting.init_image is not None  # the prior has no say in the start
        with torch.no_grad():
            self.latent = vqgan.encode(self._first).requires_grad_()
        self._start = self.latent.detach().clone()
        self.optimiser = torch.optim.Adam([self.latent], lr=settings.painting.learning_rate, foreach=False)
        codes = vqgan.quantize.codes
        self._lowest = codes.amin(dim=0).view(1, -1, 1, 1)
        self._highest = codes.amax(dim=0).view(1, -1, 1, 1)
        self._spread = codes.std(dim=0).view(1, -1, 1, 1)
        self._shown = _RunningAverage(settings.motion.blend * settings.picture.fps)
        self._beside: Tensor | None = None  # (1, 3, H, W), what the codes could not hold of a picture that was moved
        self._camera = Camera(picture.width, picture.height, vqgan.stride)
        self._autocast = autocast(settings.run.precision, family.device)

    def paint(
        self, target: Tensor, *, steps: int, inertia: float, learning_rate: float | None = None
    ) -> Iterator[Step]:
        """Take `steps` towards `target` (D,), held with weight `inertia` to where the latent is now.

        The learning rate is that of the settings unless another is given.
        """
        self.optimiser.param_groups[0]["lr"] = learning_rate or self.settings.painting.learning_rate
        goal = set_goal(target, self.family, self.settings.painting)
        if not self._chosen and goal.layout is not None:
            self._start_from(goal.layout)
        self._chosen = True
        before = self.latent.detach().clone()
        for index in range(steps):
            yield self._step(index, goal, before, inertia)

    @torch.no_grad()
    def _start_from(self, layout: Tensor) -> None:
        """Begin the film with a layout, changed by the random colours: no two seeds begin alike."""
        expected = F.interpolate(layout, size=self._first.shape[-2:], mode="bicubic")
        self._start = self.family.vqgan.encode((expected + CHANGE * (self._first - 0.5)).clamp(0, 1))
        self.latent.copy_(self._start)

    def _step(self, index: int, goal: Goal, before: Tensor, inertia: float) -> Step:
        # The named ranges are what a profiler shows (see tests/benchmarks); unprofiled they cost microseconds.
        with record_function("decode"):
            quantised = self.family.vqgan.quantise(self.latent)  # in float32: bf16 confuses neighbouring codes
            picture = self._decode(quantised)
        with record_function("cutouts"):
            picture = clamp_with_gradient(picture)
            cuts = self.settings.painting.cuts
            views = random_views(picture, self.family.clip.size, cuts, generator=self.generator)
        others = torch.zeros((), device=picture.device)  # losses that need no perceptor
        if self.settings.painting.total_variation:
            others = others + self.settings.painting.total_variation * total_variation(picture)
        if goal.layout is not None:
            others = others + self.settings.painting.layout * layout_distance(picture, goal.layout)
        if inertia:
            others = others + inertia * drift(self.latent, before, self._spread)
        if self.settings.painting.init_weight:  # VQGAN-CLIP's init_weight
            others = others + self.settings.painting.init_weight * drift(self.latent, self._start, self._spread)
        self.optimiser.zero_grad()
        distance, similarity = self._descend(views, goal, others)
        self.optimiser.step()
        with torch.no_grad():  # far from every code the gradient says nothing about codes
            self.latent.clamp_(self._lowest, self._highest)
        return Step(index, others.detach() + distance, similarity)

    def _descend(self, views: Tensor, goal: Goal, others: Tensor) -> tuple[Tensor, Tensor]:
        """Put the gradient of all losses on the latent; give the views' mean loss and cosine to the target.

        The perceptor sees `cut_batch` views at a time and its gradient is gathered on the views, so that only so many
        views' activations are ever held; how many makes no difference to the sum.
        """
        seen_by = views.detach().requires_grad_()
        distance, similarity = torch.zeros_like(others), torch.zeros_like(others)
        for part in seen_by.split(self.settings.painting.cut_batch or len(views)):
            with record_function("perceptor"), self._autocast():
                seen = self.family.clip.encode_images(part)  # (b, D)
            share = mismatch(seen, goal, self.family, self.settings.painting).sum() / len(views)
            with record_function("backward"):
                share.backward()
            distance += share.detach()
            similarity += (seen.detach() @ goal.target).sum() / len(views)
        with record_function("backward"):
            roots = [views, others] if others.requires_grad else [views]
            torch.autograd.backward(roots, [seen_by.grad, torch.ones_like(others)][: len(roots)])
        return distance, similarity

    @torch.no_grad()
    def move(self, move: Matrix) -> None:
        """Let the picture go on, before a frame is painted; see `motion`.

        Where the camera is too far from the codes, what it sees is encoded: the picture that is painted, and the
        running average that is shown. Adam's moments go along as they are, cell by cell.
        """
        if not self._camera.go(move):
            return
        offset, border, vqgan = self._camera.arrive(), self.settings.motion.border, self.family.vqgan
        painted = vqgan.quantise(self.latent)
        shown = painted if self._shown.total is None else self._shown.average
        moved = warp(self._decode(torch.cat([painted, shown])), offset, border=border).clamp(0, 1)
        with self._autocast():
            painted, shown = vqgan.encode(moved).float().split(1)
        self.latent.copy_(painted.clamp(self._lowest, self._highest))
        shown = vqgan.quantise(shown)
        self._shown.replace(shown)
        self._beside = moved[1:] - self._decode(shown, beside=False)
        for state in self.optimiser.state.values():
            for moment in (state["exp_avg"], state["exp_avg_sq"]):
                moment.copy_(warp(moment, offset, border=border, smooth=True))

    @torch.no_grad()
    def show(self, view: View | None = None) -> Tensor:
        """The picture (3, H, W) in [0, 1] of the frame now finished: the running average of the codes, decoded.

        A `view` of it changes nothing of what is painted.
        """
        picture = self._decode(self._shown.update(self.family.vqgan.quantise(self.latent)))
        return self._camera.look(picture, view or View(), border=self.settings.motion.border).clamp(0, 1).squeeze(0)

    def _decode(self, quantised: Tensor, *, beside: bool = True) -> Tensor:
        """The pictures (N, 3, H, W) of codes, with what lies beside them; not clamped."""
        with self._autocast():
            pictures = self.family.vqgan.decode(quantised)
        return pictures.float() if self._beside is None or not beside else pictures.float() + self._beside

    def show_bytes(self, view: View | None = None) -> NDArray[np.uint8]:
        """The same picture as (H, W, 3) uint8, copied to the host."""
        return (self.show(view) * 255).round().byte().permute(1, 2, 0).contiguous().cpu().numpy()


class _RunningAverage:
    """An exponential average that is unbiased from the first value on (Kingma & Ba, arXiv 1412.6980, section 3)."""

    def __init__(self, half_life: float) -> None:
        self.keep = 2 ** (-1 / half_life) if half_life else 0.0  # share of the old kept per value
        self.total: Tensor | None = None
        self.weight = 0.0

    def update(self, value: Tensor) -> Tensor:
        """Take in a value and return the average so far."""
        self.weight = self.keep * self.weight + 1 - self.keep
        share = (1 - self.keep) * value
        self.total = share if self.total is None else self.keep * self.total + share
        return self.average

    @property
    def average(self) -> Tensor:
        """The average so far, of one value at least."""
        assert self.total is not None
        return self.total / self.weight

    def replace(self, value: Tensor) -> None:
        """Go on from another average (1, ...), or, while there is none, from nothing (0, ...)."""
        if self.total is not None:
            self.total = self.weight * value


class _ClampWithGradient(torch.autograd.Function):
    """Clamp to [0, 1]; outside, let only the gradient through that leads back in (VQGAN-CLIP's ClampWithGrad)."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, values: Tensor) -> Tensor:
        ctx.save_for_backward(values)
        return values.clamp(0, 1)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor) -> Tensor:
        (values,) = ctx.saved_tensors  # type: ignore[attr-defined]
        (gradient,) = gradients
        return gradient * (gradient * (values - values.clamp(0, 1)) >= 0)


def clamp_with_gradient(values: Tensor) -> Tensor:
    """Clamp to [0, 1] while values outside still learn the way back in."""
    return _ClampWithGradient.apply(values)  # type: ignore[no-untyped-call]


def first_picture(settings: Settings, *, generator: torch.Generator) -> Tensor:
    """The picture (1, 3, H, W) that a film starts from, on the generator's device.

    Raises:
        SettingsError: The picture that was given cannot be read.
    """
    picture, given = settings.picture, settings.painting.init_image
    if given is None:
        return soft_colours(picture.height, picture.width, generator=generator)
    pixels = torch.from_numpy(read_covering(given, picture.width, picture.height))  # (H, W, 3)
    return pixels.to(generator.device).permute(2, 0, 1).unsqueeze(0) / 255


def soft_colours(height: int, width: int, *, generator: torch.Generator) -> Tensor:
    """A picture (1, 3, height, width) of random colours that flow into each other.

    VQGAN-CLIP starts from codes drawn one by one, a noise that a few steps on a small network do not get rid of.
    """
    patches = 0.25 + 0.5 * torch.rand(1, 3, 4, 4, generator=generator, device=generator.device)
    return F.interpolate(patches, size=(height, width), mode="bilinear")


def generator_for(seed: int, device: torch.device) -> torch.Generator:
    """What draws everything of a film, on the device that needs it."""
    return torch.Generator(device).manual_seed(seed)


def check_size(width: int, height: int, stride: int) -> None:
    """Raise a SettingsError, naming the nearest good size, unless both sides are multiples of the latent's cell."""
    if width % stride or height % stride:
        near = "x".join(str(max(stride, round(side / stride) * stride)) for side in (width, height))
        raise SettingsError(
            f"{width}x{height} cannot be painted: sides must be multiples of {stride} px",
            hint=f"nearest: --size {near}",
        )


def autocast(precision: str, device: torch.device) -> Callable[[], AbstractContextManager[None]]:
    """How the networks are run: "bf16", "fp32", or "auto" for bf16 where the processor computes in it."""
    if precision == "auto":
        precision = "bf16" if computes_in_bf16(device) else "fp32"
    return partial(torch.autocast, device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
