"""The VQGAN-CLIP step (Crowson et al., arXiv 2204.08583) and the state it carries from frame to frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from wav2clip_gen.config import Settings, View
from wav2clip_gen.errors import SettingsError
from wav2clip_gen.images import read_covering
from wav2clip_gen.models.registry import Models
from wav2clip_gen.synthesis.average import UnbiasedEma
from wav2clip_gen.synthesis.camera import Camera, Matrix, warp
from wav2clip_gen.synthesis.graph import GraphedFunction, GraphedStep
from wav2clip_gen.synthesis.losses import resolve_target
from wav2clip_gen.synthesis.modulation import ParameterCurves
from wav2clip_gen.synthesis.segments import Shown
from wav2clip_gen.synthesis.step import LatentStep

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

    def __init__(
        self,
        models: Models,
        settings: Settings,
        *,
        generator: torch.Generator,
        seed: int = 0,
        on_note: Callable[[str], None] = lambda note: None,
    ) -> None:
        """Start from the init image, else from smooth random colours; with a concept prior, from its colour layout.

        Args:
            models: Networks, frozen, on one device.
            settings: Size, weights, rates.
            generator: Draws the start and all cutouts; on the models' device.
            seed: Of the film; it chooses the concept prior's layouts.
            on_note: Is told where a CUDA graph cannot be used.

        Raises:
            SettingsError: The size is no multiple of the latent's cell or too small, or the init image is unreadable.
        """
        self.models = models = models.in_precision(settings.run.precision)
        self.settings = settings
        picture, vqgan = settings.picture, models.vqgan
        check_size(picture.width, picture.height, vqgan.stride)
        self._first = initial_picture(settings, generator=generator)
        self._layouts = models.prior.draw_layouts(seed) if models.prior else None
        self._started = settings.painting.init_image is not None  # else the prior's colour layout decides the start
        with torch.no_grad():
            start = vqgan.encode(self._first)
        self.step = LatentStep(models, settings, generator=generator, start=start)
        self._take: Callable[[], None] = self.step.take
        self._decode: Callable[[Tensor], Tensor] = vqgan.decode
        if models.device.type == "cuda" and settings.run.graph:
            self._take = GraphedStep(self.step, on_note=on_note).take
            self._decode = GraphedFunction(vqgan.decode, on_note=on_note)
        self._average = UnbiasedEma(settings.motion.ema_half_life * settings.picture.optimized_fps)
        self._residual: Tensor | None = None  # (1, 3, H, W), what the codes could not represent of a warped picture
        self._camera = Camera(picture.width, picture.height, vqgan.stride)

    @property
    def latent(self) -> Tensor:
        """The latent (1, D, h, w) that is optimised."""
        return self.step.latent

    @property
    def generator(self) -> torch.Generator:
        """What draws the cutouts."""
        return self.step.generator

    @property
    def cut_batch(self) -> int:
        """Cutouts that CLIP takes at a time."""
        return self.step.cut_batch

    def frames(
        self, index: int, target: Tensor, parameters: ParameterCurves, *, after: int | None = None
    ) -> Iterator[Frame]:
        """Optimise frame `index` for a conditioning vector (D,); yield those since the frame `after`."""
        after = index - 1 if after is None else after
        for number, (shown, measured) in enumerate(self.advance(index, target, parameters, after=after), after + 1):
            values = measured.numpy().tolist() if measured else (None, None)
            yield Frame(self.picture(shown, parameters.view(number)).numpy(), *values)

    def advance(
        self, index: int, target: Tensor, parameters: ParameterCurves, *, after: int
    ) -> list[tuple[Shown, HostCopy | None]]:
        """As `frames`, before their views: what each is decoded from, its loss and similarity (2,) at the last step.

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
        measured = HostCopy(torch.stack([step.loss, step.similarity])) if step else None
        with torch.no_grad():
            average = self._average.update(self.models.vqgan.quantise(self.latent))
        made: list[tuple[Shown, HostCopy | None]] = []
        for number, offset in zip(numbers, offsets, strict=True):
            codes = average
            if number < index:
                assert before is not None, "a film begins with an optimised frame"
                codes = torch.lerp(before, average, (number - after) / (index - after))
            if self._residual is not None:
                self._residual = self._residual * 2 ** (-1 / (RESIDUAL_HALF_LIFE * parameters.fps))
            made.append((Shown(codes, offset, self._residual), measured if number == index else None))
        return made

    def optimize(
        self, target: Tensor, *, steps: int, temporal_weight: float, learning_rate: float | None = None
    ) -> Step | None:
        """Take `steps` towards a conditioning vector (D,); return the last.

        The temporal loss refers to the latent as it is now. The learning rate is that of the settings unless another is
        given.
        """
        self._aim(target, temporal_weight, learning_rate)
        for _ in range(steps):
            self._take()
        return self._taken(steps - 1) if steps else None

    def iterate(
        self, target: Tensor, *, steps: int, temporal_weight: float, learning_rate: float | None = None
    ) -> Iterator[Step]:
        """The same, step by step."""
        self._aim(target, temporal_weight, learning_rate)
        for index in range(steps):
            self._take()
            yield self._taken(index)

    def _aim(self, target: Tensor, temporal_weight: float, learning_rate: float | None) -> None:
        painting = self.settings.painting
        resolved = resolve_target(target, self.models, painting, self._layouts)
        if not self._started and resolved.color_layout is not None:
            self._start_from(resolved.color_layout)
        self._started = True
        rate = learning_rate or painting.learning_rate
        self.step.aim(resolved, temporal_weight=temporal_weight, learning_rate=rate, residual=self._residual)

    def _taken(self, index: int) -> Step:
        return Step(index, self.step.loss.clone(), self.step.similarity.clone())

    @torch.no_grad()
    def _start_from(self, layout: Tensor) -> None:
        """Start the film from a colour layout, mixed with the random colours so that seeds differ."""
        expected = F.interpolate(layout, size=self._first.shape[-2:], mode="bicubic")
        self.step.restart(self.models.vqgan.encode((expected + INIT_NOISE * (self._first - 0.5)).clamp(0, 1)))

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
        decoded = vqgan.decode(torch.cat([current, average]))
        decoded = decoded if self._residual is None else decoded + self._residual
        warped = warp(decoded, offset, border=border).clamp(0, 1)
        current, average = vqgan.encode(warped).split(1)
        self.step.replace(current)
        average = vqgan.quantise(average)
        self._average.replace(average)
        self._residual = warped[1:] - vqgan.decode(average)
        for state in filter(None, self.step.optimizer.state.values()):  # there is none before the first step
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
        return to_bytes(self.decode()).numpy()

    def picture(self, shown: Shown, view: View) -> HostCopy:
        """A frame from what it is decoded from, (H, W, 3) uint8 on its way to the host."""
        return to_bytes(self._show(shown, view))

    @torch.no_grad()
    def _show(self, shown: Shown, view: View) -> Tensor:
        """The same as (3, H, W) in [0, 1]."""
        decoded = self._decode(shown.codes)  # may be overwritten by the next one
        decoded = decoded if shown.residual is None else decoded + shown.residual
        return (
            self._camera.apply(decoded, shown.offset, view, border=self.settings.motion.border).clamp(0, 1).squeeze(0)
        )

    @torch.no_grad()
    def start_from(self, picture: Tensor) -> None:
        """Continue from a picture (1, 3, H, W) as from that of the frame before."""
        latent, self._started = self.models.vqgan.encode(picture), True
        self.step.replace(latent)
        average = self._average.update(self.models.vqgan.quantise(self.latent))
        self._residual = picture - self.models.vqgan.decode(average)

    def state(self) -> dict[str, Tensor]:
        """All that the frames after an optimised one depend on, copied to the CPU."""
        assert self._average.total is not None, "there is a frame"
        state = {
            **self.step.state(),
            "average": self._average.total,
            "average.weight": torch.tensor(self._average.weight, dtype=torch.float64),
            "offset": torch.from_numpy(self._camera.offset),
            "cut_batch": torch.tensor(self.cut_batch),
        }
        state |= {} if self._residual is None else {"residual": self._residual}
        return {name: value.to("cpu", copy=True).contiguous() for name, value in state.items()}

    @torch.no_grad()
    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what `state` gave, which may be that of another optimiser with the same settings."""
        device = self.latent.device
        self.step.restore(state)
        self.step.cut_batch = int(state["cut_batch"])
        self._started = True
        self._average.total, self._average.weight = state["average"].to(device), float(state["average.weight"])
        self._camera.offset = state["offset"].numpy()
        self._residual = state["residual"].to(device) if "residual" in state else None


class HostCopy:
    """A tensor on its way to the host: copied once the device gets to it, while this process goes on."""

    def __init__(self, tensor: Tensor) -> None:
        self._copy = tensor.detach().to("cpu", non_blocking=True)
        self._event = torch.cuda.current_stream(tensor.device).record_event() if tensor.is_cuda else None

    def numpy(self) -> NDArray[Any]:
        """Wait for it."""
        if self._event is not None:
            self._event.synchronize()
        return self._copy.numpy()


def to_bytes(picture: Tensor) -> HostCopy:
    """A picture (3, H, W) in [0, 1] as (H, W, 3) uint8 on its way to the host."""
    return HostCopy((picture * 255).round().byte().permute(1, 2, 0).contiguous())


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
