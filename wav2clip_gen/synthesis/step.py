"""The VQGAN-CLIP step (Crowson et al., arXiv 2204.08583) on tensors in fixed places, for graphs to replay."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.profiler import record_function

from wav2clip_gen.config import Settings
from wav2clip_gen.devices import halve_on_shortage
from wav2clip_gen.models.registry import Models
from wav2clip_gen.synthesis.cutouts import random_cutouts
from wav2clip_gen.synthesis.losses import Target, guidance_loss, layout_loss, temporal_loss, total_variation

ADAM = "adam."  # before the names of Adam's state: exp_avg, exp_avg_sq, step


class LatentStep:
    """Optimises a latent towards a target, one step of Adam at a time.

    `aim` sets what the steps of a frame have in common, `take` takes one. Both write into the same tensors every time,
    and neither waits for the device.
    """

    def __init__(self, models: Models, settings: Settings, *, generator: torch.Generator, start: Tensor) -> None:
        """Begin at a latent (1, D, h, w).

        Args:
            models: Networks, frozen, on one device.
            settings: Weights, rates, cutouts.
            generator: Draws the cutouts; on the models' device.
            start: The latent; copied.
        """
        self.models, self.settings, self.generator = models, settings, generator
        self.latent = start.detach().clone(memory_format=torch.contiguous_format).requires_grad_()
        self.start = self.latent.detach().clone()  # of the film
        self.previous = self.latent.detach().clone()  # the latent of the frame before
        self.temporal_weight = torch.zeros((), device=start.device)
        self.loss, self.similarity = (torch.zeros((), device=start.device) for _ in range(2))  # of the last step
        self.target: Target | None = None
        picture = settings.picture  # a residual of zeros, where there is none, as a graph computes the same every time
        self.residual = torch.zeros(1, 3, picture.height, picture.width, device=start.device)  # of the decoded picture
        self.retries = True  # with smaller micro-batches where memory runs out; not while a graph is captured
        cuts = settings.painting.cuts
        self.cut_batch = min(settings.painting.cut_batch or cuts, cuts)  # halved where memory runs out
        self.optimizer = _adam(self.latent, settings.painting.learning_rate)
        self.latent.grad = torch.zeros_like(self.latent)  # the fused kernel of Adam wants the strides of the latent
        codes = models.vqgan.quantize.codes
        self._lowest = codes.amin(dim=0).view(1, -1, 1, 1)
        self._highest = codes.amax(dim=0).view(1, -1, 1, 1)
        self._spread = codes.std(dim=0).view(1, -1, 1, 1)
        self._buffers: dict[str, Tensor] = {}

    @torch.no_grad()
    def aim(self, target: Target, *, temporal_weight: float, learning_rate: float, residual: Tensor | None) -> None:
        """Set the target of the next steps; the temporal loss refers to the latent as it is now."""
        self.previous.copy_(self.latent)
        self.temporal_weight.fill_(temporal_weight)
        group = self.optimizer.param_groups[0]
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(learning_rate)
        else:
            group["lr"] = learning_rate
        embedding = self._hold("embedding", target.embedding)
        assert embedding is not None
        probs, layout = (self._hold(name, getattr(target, name)) for name in ("concept_probs", "color_layout"))
        self.target = Target(embedding, probs, layout)
        if residual is None:
            self.residual.zero_()
        else:
            self.residual.copy_(residual)

    def _hold(self, name: str, value: Tensor | None) -> Tensor | None:
        """Copy a value to where its name is kept."""
        if value is None:
            return None
        held = self._buffers.setdefault(name, torch.empty_like(value, memory_format=torch.contiguous_format))
        return held.copy_(value)

    @torch.no_grad()
    def restart(self, latent: Tensor) -> None:
        """Begin the film at another latent."""
        self.start.copy_(latent)
        self.latent.copy_(latent)

    @torch.no_grad()
    def replace(self, latent: Tensor) -> None:
        """Continue from another latent, within the range of the codes: outside, the gradient does not select codes."""
        self.latent.copy_(latent.clamp(self._lowest, self._highest))

    def take(self) -> None:
        """Take a step; its loss, the sum that is minimised, and the cutouts' mean cosine to the target are kept."""
        # The named ranges are what a profiler shows (see tests/benchmarks); unprofiled they cost microseconds.
        painting, target = self.settings.painting, self.target
        assert target is not None, "aim was called"
        with record_function("decode"):
            quantised = self.models.vqgan.quantise(self.latent)
            picture = self.models.vqgan.decode(quantised, recompute=self.settings.run.recompute)
            picture = picture + self.residual
        with record_function("cutouts"):
            picture = clamp_with_gradient(picture)
            cutouts = random_cutouts(picture, self.models.clip.size, painting.cuts, generator=self.generator)
        others = self.temporal_weight * temporal_loss(self.latent, self.previous, self._spread)  # do not need CLIP
        if painting.tv_weight:
            others = others + painting.tv_weight * total_variation(picture)
        if target.color_layout is not None:
            others = others + painting.layout_weight * layout_loss(picture, target.color_layout)
        if painting.init_weight:  # VQGAN-CLIP's init_weight
            others = others + painting.init_weight * temporal_loss(self.latent, self.start, self._spread)
        loss, similarity, gradient = self._guide(cutouts, target)
        with record_function("backward"):
            (found,) = torch.autograd.grad([cutouts, others], [self.latent], [gradient, torch.ones_like(others)])
            assert self.latent.grad is not None
            self.latent.grad.copy_(found)
        self.optimizer.step()
        with torch.no_grad():
            self.latent.clamp_(self._lowest, self._highest)
            self.loss.copy_(others + loss)
            self.similarity.copy_(similarity)

    def _guide(self, cutouts: Tensor, target: Target) -> tuple[Tensor, Tensor, Tensor]:
        """The mean loss and cosine of cutouts, and the gradient of the former on them.

        CLIP takes `cut_batch` cutouts at a time, so that only one micro-batch of activations is held; the sum depends
        on its size only by rounding. Where a micro-batch does not fit into memory, all are taken again, half as large,
        as are those of later steps.
        """
        clip, prior, painting = self.models.clip, self.models.prior, self.settings.painting

        def in_batches(size: int) -> tuple[Tensor, Tensor, Tensor]:
            losses, cosines, gradients = list[Tensor](), list[Tensor](), list[Tensor]()
            for batch in cutouts.detach().split(size):
                leaf = batch.requires_grad_()
                with record_function("perceptor"):
                    seen = clip.encode_images(leaf)  # (B, D)
                each = guidance_loss(
                    seen, target, prior=prior, scale=clip.scale, concept_weight=painting.concept_weight
                )
                mean = each.sum() / len(cutouts)
                with record_function("backward"):
                    gradients += torch.autograd.grad(mean, leaf)
                losses.append(mean.detach())
                cosines.append((seen.detach() @ target.embedding).sum() / len(cutouts))
            return torch.stack(losses).sum(), torch.stack(cosines).sum(), torch.cat(gradients)

        if not self.retries:
            return in_batches(self.cut_batch)
        guided, self.cut_batch = halve_on_shortage(in_batches, self.cut_batch)
        return guided

    def state(self) -> dict[str, Tensor]:
        """Copies of the latents, of Adam's state and of that of the random generator."""
        adam = self.optimizer.state.get(self.latent, {})
        state = {"latent": self.latent.detach(), "start": self.start}
        state |= {f"{ADAM}{name}": value for name, value in adam.items()}
        return {name: value.clone() for name, value in state.items()} | {"generator": self.generator.get_state()}

    @torch.no_grad()
    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Continue from such a state, in the tensors that there are."""
        self.latent.copy_(state["latent"])
        self.start.copy_(state["start"])
        self.generator.set_state(state["generator"])
        adam = self.optimizer.state[self.latent]
        for value in adam.values():
            value.zero_()  # the state may be of before the first step
        for name, value in state.items():
            if name.startswith(ADAM):
                held = adam.setdefault(name.removeprefix(ADAM), torch.empty_like(value, device=self.latent.device))
                held.copy_(value)


def _adam(latent: Tensor, learning_rate: float) -> torch.optim.Adam:
    """Adam on a latent; on a GPU one kernel, with a rate that can change while a graph is replayed."""
    if latent.device.type == "cuda":
        optimizer = torch.optim.Adam([latent], lr=learning_rate, fused=True, capturable=True)
        optimizer.param_groups[0]["lr"] = torch.tensor(learning_rate, device=latent.device)
        return optimizer
    return torch.optim.Adam([latent], lr=learning_rate, foreach=False)


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
