"""The VQGAN-CLIP step (Crowson et al., arXiv 2204.08583) and the state it carries from frame to frame."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from itertools import accumulate

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.profiler import record_function

from wav2clip_gen.config import Settings, View
from wav2clip_gen.devices import halve_on_shortage
from wav2clip_gen.errors import SettingsError
from wav2clip_gen.images import read_covering
from wav2clip_gen.models.registry import Models, computes_in_bf16
from wav2clip_gen.synthesis.average import UnbiasedEma
from wav2clip_gen.synthesis.camera import Camera, Matrix, warp
from wav2clip_gen.synthesis.cutouts import random_cutouts
from wav2clip_gen.synthesis.losses import (
    Target,
    guidance_loss,
    layout_loss,
    resolve_target,
    temporal_loss,
    total_variation,
)
from wav2clip_gen.synthesis.modulation import ParameterCurves
from wav2clip_gen.synthesis.segments import Shown

ADAM = "adam."  # before the names of Adam's state: exp_avg, exp_avg_sq, step
RESIDUAL_HALF_LIFE = 0.5  # seconds; kept for ever, its detail would be warped and sharpened until it is grain
INIT_NOISE = 0.4  # weight of the random colours in a start from the concept prior's colour layout


@dataclass(frozen=True, eq=False)
class Step:
    """One optimiser step. The tensors stay on the device: reading one synchronises."""

    index: int
    loss: Tensor  # () the minimised sum
    similarity: Tensor  # () mean cosine between cutouts and target


@dataclass(frozen=True, eq=False)
class Frame:
    """One finished frame."""

    picture: NDArray[np.uint8]  # (H, W, 3)
    loss: float | None  # at the last step; None without steps
    similarity: float | None  # mean cosine between cutouts and target at the last step


class FrameOptimizer:
    """A latent that is optimised frame by frame.

    Unlike the paper, which starts each picture anew, latent and Adam's moments are carried from frame to frame, and a
    temporal loss holds the latent near that of the frame before.
    """

    def __init__(self, models: Models, settings: Settings, *, generator: torch.Generator) -> None:
        """Start from the init image, else from smooth random colours; with a concept prior, from its colour layout.

        Args:
            models: Networks, frozen, on one device.
            settings: Size, weights, rates.
            generator: Draws the start and all cutouts; on the models' device.

        Raises:
            SettingsError: The size is no multiple of the latent's cell or too small, or the init image is unreadable.
        """
        self.models = models
        self.settings = settings
        self.generator = generator
        picture, vqgan = settings.picture, models.vqgan
        check_size(picture.width, picture.height, vqgan.stride)
        self._first = initial_picture(settings, generator=generator)
        self._started = settings.painting.init_image is not None  # else the prior's colour layout decides the start
        with torch.no_grad():
            self.latent = vqgan.encode(self._first).requires_grad_()
        self._start = self.latent.detach().clone()
        self.optimizer = torch.optim.Adam([self.latent], lr=settings.painting.learning_rate, foreach=False)
        codes = vqgan.quantize.codes
        self._lowest = codes.amin(dim=0).view(1, -1, 1, 1)
        self._highest = codes.amax(dim=0).view(1, -1, 1, 1)
        self._spread = codes.std(dim=0).view(1, -1, 1, 1)
        self._average = UnbiasedEma(settings.motion.ema_half_life * settings.picture.optimized_fps)
        self._residual: Tensor | None = None  # (1, 3, H, W), what the codes could not represent of a warped picture
        self._camera = Camera(picture.width, picture.height, vqgan.stride)
        self._autocast = autocast(settings.run.precision, models.device)
        cuts = settings.painting.cuts
        self.cut_batch = min(settings.painting.cut_batch or cuts, cuts)  # halved where memory runs out

    def frames(
        self, index: int, target: Tensor, parameters: ParameterCurves, *, after: int | None = None
    ) -> Iterator[Frame]:
        """Optimise frame `index` for a conditioning vector (D,); yield those since the frame `after`."""
        after = index - 1 if after is None else after
        for number, (shown, *known) in enumerate(self.advance(index, target, parameters, after=after), after + 1):
            yield Frame(self.picture(shown, parameters.view(number)), *known)

    def advance(
        self, index: int, target: Tensor, parameters: ParameterCurves, *, after: int
    ) -> list[tuple[Shown, float | None, float | None]]:
        """As `frames`, before their views: what each is decoded from, its loss and its similarity.

        A frame between two optimised ones is decoded from the linear interpolation of their running averages, but has
        its own camera and view. `after` is the frame that was optimised before.
        """
        painting, motion = self.settings.painting, self.settings.motion
        first, numbers = self._average.total is None, range(after + 1, index + 1)
        moves = [*accumulate(map(parameters.camera_move, numbers), lambda moved, move: move @ moved)]
        offsets = [move @ self._camera.offset for move in moves]
        if self.move(moves[-1]):  # from now on, offsets refer to the picture as it is at the last frame
            back = np.linalg.inv(offsets[-1])
            offsets = [*(offset @ back for offset in offsets[:-1]), self._camera.offset]
        before = None if first else self._average.value
        step = self.optimize(
            target,
            steps=painting.first_steps if first else parameters.steps(index),
            temporal_weight=0 if first else motion.temporal_weight,
            learning_rate=parameters.value("learning-rate", index),
        )
        with torch.no_grad():
            average = self._average.update(self.models.vqgan.quantise(self.latent))
        made: list[tuple[Shown, float | None, float | None]] = []
        for number, offset in zip(numbers, offsets, strict=True):
            codes = average
            if number < index:
                assert before is not None, "a film begins with an optimised frame"
                codes = torch.lerp(before, average, (number - after) / (index - after))
            if self._residual is not None:
                self._residual = self._residual * 2 ** (-1 / (RESIDUAL_HALF_LIFE * parameters.fps))
            known = (float(step.loss), float(step.similarity)) if step and number == index else (None, None)
            made.append((Shown(codes, offset, self._residual), *known))
        return made

    def optimize(
        self, target: Tensor, *, steps: int, temporal_weight: float, learning_rate: float | None = None
    ) -> Step | None:
        """Take all steps of `iterate`; return the last."""
        last = deque(
            self.iterate(target, steps=steps, temporal_weight=temporal_weight, learning_rate=learning_rate), maxlen=1
        )
        return last[0] if last else None

    def iterate(
        self, target: Tensor, *, steps: int, temporal_weight: float, learning_rate: float | None = None
    ) -> Iterator[Step]:
        """Take `steps` towards a conditioning vector (D,); the temporal loss refers to the latent as it is now.

        The learning rate is that of the settings unless another is given.
        """
        self.optimizer.param_groups[0]["lr"] = learning_rate or self.settings.painting.learning_rate
        resolved = resolve_target(target, self.models, self.settings.painting)
        if not self._started and resolved.color_layout is not None:
            self._start_from(resolved.color_layout)
        self._started = True
        previous = self.latent.detach().clone()
        for index in range(steps):
            yield self._step(index, resolved, previous, temporal_weight)

    @torch.no_grad()
    def _start_from(self, layout: Tensor) -> None:
        """Start the film from a colour layout, mixed with the random colours so that seeds differ."""
        expected = F.interpolate(layout, size=self._first.shape[-2:], mode="bicubic")
        self._start = self.models.vqgan.encode((expected + INIT_NOISE * (self._first - 0.5)).clamp(0, 1))
        self.latent.copy_(self._start)

    def _step(self, index: int, target: Target, previous: Tensor, temporal_weight: float) -> Step:
        # The named ranges are what a profiler shows (see tests/benchmarks); unprofiled they cost microseconds.
        painting = self.settings.painting
        with record_function("decode"):
            quantised = self.models.vqgan.quantise(self.latent)  # in float32: bf16 confuses neighbouring codes
            picture = self._decode(quantised, residual=self._residual)
        with record_function("cutouts"):
            picture = clamp_with_gradient(picture)
            cutouts = random_cutouts(picture, self.models.clip.size, painting.cuts, generator=self.generator)
        others = torch.zeros((), device=picture.device)  # losses that do not need CLIP
        if painting.tv_weight:
            others = others + painting.tv_weight * total_variation(picture)
        if target.color_layout is not None:
            others = others + painting.layout_weight * layout_loss(picture, target.color_layout)
        if temporal_weight:
            others = others + temporal_weight * temporal_loss(self.latent, previous, self._spread)
        if painting.init_weight:  # VQGAN-CLIP's init_weight
            others = others + painting.init_weight * temporal_loss(self.latent, self._start, self._spread)
        self.optimizer.zero_grad()
        loss, similarity = self._backward(cutouts, target, others)
        self.optimizer.step()
        with torch.no_grad():  # outside the codebook's range the gradient does not select codes
            self.latent.clamp_(self._lowest, self._highest)
        return Step(index, others.detach() + loss, similarity)

    def _backward(self, cutouts: Tensor, target: Target, others: Tensor) -> tuple[Tensor, Tensor]:
        """Accumulate the gradient of all losses on the latent; return the cutouts' mean loss and cosine.

        CLIP takes `cut_batch` cutouts at a time and its gradient is accumulated on the cutouts, so that only one
        micro-batch of activations is held; the sum depends on its size only by rounding. Where a micro-batch does not
        fit into memory, all are taken again, half as large, as are those of later steps.
        """
        clip, painting = self.models.clip, self.settings.painting
        leaves = cutouts.detach().requires_grad_()

        def in_batches(size: int) -> tuple[Tensor, Tensor]:
            leaves.grad = None
            loss, similarity = torch.zeros_like(others), torch.zeros_like(others)
            for batch in leaves.split(size):
                with record_function("perceptor"), self._autocast():
                    seen = clip.encode_images(batch)  # (B, D)
                losses = guidance_loss(
                    seen, target, prior=self.models.prior, scale=clip.scale, concept_weight=painting.concept_weight
                )
                mean = losses.sum() / len(cutouts)
                with record_function("backward"):
                    mean.backward()
                loss += mean.detach()
                similarity += (seen.detach() @ target.embedding).sum() / len(cutouts)
            return loss, similarity

        (loss, similarity), self.cut_batch = halve_on_shortage(in_batches, self.cut_batch)
        with record_function("backward"):
            roots = [cutouts, others] if others.requires_grad else [cutouts]
            torch.autograd.backward(roots, [leaves.grad, torch.ones_like(others)][: len(roots)])
        return loss, similarity

    @torch.no_grad()
    def move(self, move: Matrix) -> bool:
        """Move the camera before a frame is optimised; see `camera`.

        Where the offset is too large, the visible picture is encoded again, which is returned: the optimised one and
        the running average that is shown. Adam's moments are warped with it.
        """
        if not self._camera.advance(move):
            return False
        offset, border, vqgan = self._camera.take_offset(), self.settings.motion.border, self.models.vqgan
        current = vqgan.quantise(self.latent)
        average = current if self._average.total is None else self._average.value
        warped = warp(
            self._decode(torch.cat([current, average]), residual=self._residual), offset, border=border
        ).clamp(0, 1)
        with self._autocast():
            current, average = vqgan.encode(warped).float().split(1)
        self.latent.copy_(current.clamp(self._lowest, self._highest))
        average = vqgan.quantise(average)
        self._average.replace(average)
        self._residual = warped[1:] - self._decode(average)
        for state in self.optimizer.state.values():
            for moment in (state["exp_avg"], state["exp_avg_sq"]):
                moment.copy_(warp(moment, offset, border=border, smooth=True))
        return True

    @torch.no_grad()
    def decode(self, view: View | None = None) -> Tensor:
        """The optimised frame (3, H, W) in [0, 1]: the running average of the codes, decoded and shown through `view`.

        Call it once a frame: it updates the average.
        """
        average = self._average.update(self.models.vqgan.quantise(self.latent))
        return self._show(Shown(average, self._camera.offset, self._residual), view or View())

    def decode_bytes(self) -> NDArray[np.uint8]:
        """The same as (H, W, 3) uint8 on the host."""
        return _to_bytes(self.decode())

    def picture(self, shown: Shown, view: View) -> NDArray[np.uint8]:
        """A frame from what it is decoded from, (H, W, 3) on the host."""
        return _to_bytes(self._show(shown, view))

    @torch.no_grad()
    def _show(self, shown: Shown, view: View) -> Tensor:
        """The same as (3, H, W) in [0, 1]."""
        decoded = self._decode(shown.codes, residual=shown.residual)
        return (
            self._camera.apply(decoded, shown.offset, view, border=self.settings.motion.border).clamp(0, 1).squeeze(0)
        )

    @torch.no_grad()
    def start_from(self, picture: Tensor) -> None:
        """Continue from a picture (1, 3, H, W) as from that of the frame before."""
        latent, self._started = self.models.vqgan.encode(picture), True
        self.latent.copy_(latent.clamp(self._lowest, self._highest))
        self._residual = picture - self._decode(self._average.update(self.models.vqgan.quantise(self.latent)))

    def state(self) -> dict[str, Tensor]:
        """All that the frames after an optimised one depend on, copied to the CPU."""
        assert self._average.total is not None, "there is a frame"
        state = {
            "latent": self.latent.detach(),
            "start": self._start,
            "average": self._average.total,
            "average.weight": torch.tensor(self._average.weight, dtype=torch.float64),
            "offset": torch.from_numpy(self._camera.offset),
            "generator": self.generator.get_state(),
            "cut_batch": torch.tensor(self.cut_batch),
        }
        state |= {f"{ADAM}{name}": value for name, value in self.optimizer.state.get(self.latent, {}).items()}
        state |= {} if self._residual is None else {"residual": self._residual}
        return {name: value.to("cpu", copy=True).contiguous() for name, value in state.items()}

    @torch.no_grad()
    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what `state` gave, which may be that of another optimiser with the same settings."""
        device = self.latent.device
        self.latent.copy_(state["latent"])
        self._start, self._started = state["start"].to(device), True
        self._average.total, self._average.weight = state["average"].to(device), float(state["average.weight"])
        self._camera.offset = state["offset"].numpy()
        self._residual = state["residual"].to(device) if "residual" in state else None
        self.generator.set_state(state["generator"])
        self.cut_batch = int(state["cut_batch"])
        adam = {name.removeprefix(ADAM): value for name, value in state.items() if name.startswith(ADAM)}
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": {0: adam} if adam else {}, "param_groups": groups})

    def _decode(self, quantised: Tensor, *, residual: Tensor | None = None) -> Tensor:
        """Decode codes into pictures (N, 3, H, W), plus a residual; not clamped."""
        with self._autocast():
            pictures = self.models.vqgan.decode(quantised)
        return pictures.float() if residual is None else pictures.float() + residual


def _to_bytes(picture: Tensor) -> NDArray[np.uint8]:
    """A picture (3, H, W) in [0, 1] as (H, W, 3) uint8 on the host."""
    return (picture * 255).round().byte().permute(1, 2, 0).contiguous().cpu().numpy()


class _ClampWithGradient(torch.autograd.Function):
    """Clamp to [0, 1]; outside, pass only gradients that lead back into the range (VQGAN-CLIP's ClampWithGrad)."""

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
    """Clamp to [0, 1], with a gradient outside of it that leads back in."""
    return _ClampWithGradient.apply(values)  # type: ignore[no-untyped-call]


def initial_picture(settings: Settings, *, generator: torch.Generator) -> Tensor:
    """The picture (1, 3, H, W) that a film starts from, on the generator's device.

    Raises:
        SettingsError: The init image cannot be read.
    """
    picture, init_image = settings.picture, settings.painting.init_image
    if init_image is None:
        return smooth_colors(picture.height, picture.width, generator=generator)
    pixels = torch.from_numpy(read_covering(init_image, picture.width, picture.height))  # (H, W, 3)
    return pixels.to(generator.device).permute(2, 0, 1).unsqueeze(0) / 255


def smooth_colors(height: int, width: int, *, generator: torch.Generator) -> Tensor:
    """A picture (1, 3, height, width) of random colours, interpolated from 4 x 4 patches.

    VQGAN-CLIP starts from independent random codes, a noise that a few steps on a small network do not remove.
    """
    patches = 0.25 + 0.5 * torch.rand(1, 3, 4, 4, generator=generator, device=generator.device)
    return F.interpolate(patches, size=(height, width), mode="bilinear")


def generator_for(seed: int, device: torch.device) -> torch.Generator:
    """The random generator of a film, on the device that uses it."""
    return torch.Generator(device).manual_seed(seed)


def check_size(width: int, height: int, stride: int) -> None:
    """Raise a SettingsError, naming the nearest good size, unless both sides are multiples of the latent's cell."""
    if width % stride or height % stride:
        near = "x".join(str(max(stride, round(side / stride) * stride)) for side in (width, height))
        raise SettingsError(
            f"the size {width}x{height} is not possible: sides must be multiples of {stride} px",
            hint=f"nearest: --size {near}",
        )


def autocast(precision: str, device: torch.device) -> Callable[[], AbstractContextManager[None]]:
    """A factory of autocast contexts: "bf16", "fp32", or "auto" for bf16 where the processor has bf16 arithmetic."""
    if precision == "auto":
        precision = "bf16" if computes_in_bf16(device) else "fp32"
    return partial(torch.autocast, device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
