"""Train the VQGAN: first a plain autoencoder with noise on its latent, then with a codebook found by k-means.

A codebook from the start leaves most codes unused and gives gray images on a small budget. The loss weighs color apart
from luminance for the same reason. What makes a thing recognizable is measured by the features of a classifier for
ImageNet (`objects`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from wav2clip_gen.errors import TrainingError
from wav2clip_gen.models import checkpoints
from wav2clip_gen.models.vqgan import VQGAN, VQGANConfig
from wav2clip_gen.training.data import load_images
from wav2clip_gen.training.mini.concepts import data_notes
from wav2clip_gen.training.mini.discriminator import Discriminator, adaptive_weight
from wav2clip_gen.training.mini.objects import ObjectFeatures
from wav2clip_gen.training.schedule import batch_indices, seeded, step_generator
from wav2clip_gen.training.settings import VQGANSettings
from wav2clip_gen.training.trainer import TrainTask

MINI = VQGANConfig(
    ch=32, ch_mult=(1, 1, 3, 6), num_res_blocks=1, attn_resolutions=(), resolution=128,
    z_channels=16, embed_dim=16, n_embed=8192, norm_groups=4,
)  # fmt: skip
MOST_VALIDATED = 400  # images that an evaluation uses
KMEANS_IMAGES = 768
KMEANS_ITERATIONS = 12
CODE_DECAY = 0.99  # of the running sums that the codes are (van den Oord et al., arXiv 1711.00937, appendix A.1)
ZOOMS = (1.25, 1.5, 1.75)  # at which the classifier sees a batch: it was trained on 260 px
SCALED = 0.3  # share of the pictures that are scaled to a crop's size instead
LEAST_PERCEPTUAL = 0.1  # share of its weight that the perceptual loss keeps
PSNR_DECAY = 0.98  # of the running mean of the batches' PSNR
ADVERSARIAL_RAMP = 0.03  # share of the run over which the adversarial weight rises
DEAD_BELOW = 0.01  # cells per step, on average; a code used less is moved


class VQGANTask(TrainTask[VQGAN]):
    """Train a VQGAN to reconstruct images."""

    name = "vqgan"
    settings: VQGANSettings

    def __init__(
        self,
        data: Path,
        settings: VQGANSettings | None = None,
        *,
        start: Path | None = None,
        config: VQGANConfig = MINI,
        **common: Any,
    ) -> None:
        """Read the images and the networks to start from.

        `start` is a VQGAN to fine-tune; it has its codes, so the share of the run without them is omitted.

        Raises:
            TrainingError: Images are missing, or the network behind the perceptual loss is.
        """
        super().__init__(settings or VQGANSettings(), **common)
        self.images, self.validation = (load_images(data, split, loader=self.loader) for split in ("train", "val"))
        self.skipped = self.images.skipped + self.validation.skipped
        self.notes = data_notes(self.skipped, loader=self.loader)
        self.data_facts = {
            "sets": sorted({image.set for image in self.images.info}),
            "pictures": len(self.images),
        }
        with seeded(self.seed):
            network = load_start(start, config) if start else VQGAN(config)
        # The memory format and the fused optimizer save a tenth of a step's time on a CPU.
        network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
        self.network = network.train()
        self.network.quantize.requires_grad_(False)  # the codes are running means, not trained by gradient
        trained = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(
            trained, lr=self.settings.learning_rate, betas=(0.9, 0.99), weight_decay=1e-4, fused=True
        )
        self._features = ObjectFeatures().to(self.device) if self.settings.perceptual else None
        self._discriminator = Discriminator(seed=self.seed, device=self.device) if self.settings.adversarial else None
        self._psnr = torch.zeros((), device=self.device)  # running mean
        self.quantizing = start is not None
        self._before: dict[str, Any] = checkpoints.read_header(start).training if start else {}
        self._counts = torch.ones(config.n_embed, device=self.device)
        self._sums = self.network.quantize.codes.detach().clone()
        self._updates: list[Callable[[], None]] = []  # after the current step
        self._backward: Callable[[], None] = lambda: None  # of the current step
        # a GPU keeps all pictures: it would wait for each batch
        self._pixels = self.images[:].to(self.device) if self.device.type == "cuda" else None

    def losses(self, step: int, progress: float, generator: torch.Generator) -> dict[str, Tensor]:
        """Reconstruct a batch of crops, or every fourth step and at the end of the run a few whole images.

        The gradients of what compares images are computed here, once, and are balanced where they meet: `backward`
        takes them on to the weights.
        """
        if not self.quantizing and progress >= self.settings.autoencoder:
            self._start_quantizing()
        images = self._load_batch(step, progress, generator)
        parts: dict[str, Tensor] = {}  # that do not depend on the output
        with self.autocast():
            latent = self.network.encode(images)
            if not self.quantizing:
                quantized = latent + self.settings.noise * latent.detach().std() * torch.randn_like(latent)
            else:
                nearest = self._nearest(self.network, latent.detach())
                codes = self.network.quantize.look_up(nearest)
                quantized = latent + (codes - latent).detach()
                parts["commitment"] = self.settings.commitment * F.mse_loss(latent.float(), codes)
                cells = rearrange(latent.detach().float(), "b d h w -> (b h w) d")
                self._updates.append(partial(self._update_codes, cells, nearest.flatten(), generator))
            decoded = self.network.decode(quantized)
        outputs = decoded.detach().float().requires_grad_()
        terms = self._comparisons(outputs, images, progress, generator)
        (gradient,) = torch.autograd.grad(sum(terms.values(), torch.zeros((), device=self.device)), outputs)
        if self._discriminator is not None and progress >= self.settings.adversarial_from:
            self._updates.append(partial(self._discriminator.update, images, outputs.detach()))
            with self.autocast():
                loss = -self._discriminator.score(outputs).mean()
            (other,) = torch.autograd.grad(loss, outputs)
            balance = adaptive_weight(decoded, gradient, other, self.network.decoder.conv_out.weight)
            ramp = min((progress - self.settings.adversarial_from) / ADVERSARIAL_RAMP, 1.0)
            weight = self.settings.adversarial * ramp * balance
            terms["adversarial"] = weight * loss
            gradient = gradient + weight * other
        roots, gradients = [decoded, *parts.values()], [gradient.to(decoded.dtype), *(None for _ in parts)]
        self._backward = partial(torch.autograd.backward, roots, gradients)
        return {name: term.detach() for name, term in (parts | terms).items()}

    def _nearest(self, network: VQGAN, latent: Tensor) -> Tensor:
        """The codes nearest to a latent, in full precision: many lie closer together than half precision can tell."""
        with torch.autocast(self.device.type, enabled=False):
            return network.quantize.nearest(latent.float())

    def _comparisons(
        self, outputs: Tensor, images: Tensor, progress: float, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """The losses that compare reconstructions (B, 3, H, W) with the images."""
        terms = reconstruction_losses(outputs, images)
        terms["lattice"] = self.settings.lattice * lattice_loss(outputs, images, cell=self.network.stride)
        if self._features is not None and progress >= self.settings.perceptual_from:
            shifted = random_shift(outputs, images, most=self.network.stride, generator=generator)
            zoom = ZOOMS[int(torch.randint(len(ZOOMS), (1,), generator=generator))]
            distance = self._features.distance(*shifted, size=round(zoom * shifted[0].shape[-1]))
            self._psnr.lerp_(psnr(outputs.detach().clamp(0, 1), images).mean(), 1 - PSNR_DECAY)
            yielding = (0.5 + self._psnr - self.settings.psnr).clamp(LEAST_PERCEPTUAL, 1)
            terms["perceptual"] = self.settings.perceptual * yielding * distance
        return terms

    def backward(self, loss: Tensor) -> None:
        """Take the gradients that `losses` found to the weights."""
        self._backward()
        self._backward = lambda: None

    def _load_batch(self, step: int, progress: float, generator: torch.Generator) -> Tensor:
        chosen = batch_indices(len(self.images), self.settings.batch, step=step, seed=self.seed)
        size = self.settings.crop
        if step % 4 == 3 or progress >= self.settings.whole_from:  # as in inference, at the cost of a batch of crops
            size = self.images.size
            chosen = chosen[: max(self.settings.batch * self.settings.crop**2 // size**2, 1)]
        if self._pixels is not None:
            pixels = self._pixels[chosen.to(self.device, non_blocking=True)]
        else:
            pixels = self.images[chosen].to(self.device)
        return random_crops(pixels, size, generator=generator, whole=0.0 if size == self.images.size else SCALED)

    @torch.no_grad()
    def _start_quantizing(self) -> None:
        """Scale the latent to unit deviation without changing an image, and find the codes by k-means."""
        network, generator = self.network, step_generator(self.seed, -1)
        chosen = torch.randperm(len(self.images), generator=generator)[:KMEANS_IMAGES]
        batches = (part.to(self.device).float() / 255 for part in self.images[chosen].split(16))
        cells = torch.cat([rearrange(network.encode(batch), "b d h w -> (b h w) d") for batch in batches])
        mean, deviation = cells.mean(dim=0), cells.std(dim=0)
        before, after = network.quant_conv, network.post_quant_conv
        assert before.bias is not None
        assert after.bias is not None
        before.weight /= deviation.view(-1, 1, 1, 1)
        before.bias.sub_(mean).div_(deviation)
        after.bias += after.weight.flatten(1) @ mean
        after.weight *= deviation.view(1, -1, 1, 1)
        codes = kmeans((cells - mean) / deviation, network.config.n_embed, generator=generator)
        network.quantize.codes.copy_(codes)
        self._counts.fill_(1.0)
        self._sums.copy_(codes)
        self.quantizing = self.restart_average = True

    def after_step(self) -> None:
        """Update the codes and the discriminator from this step's latents and reconstructions."""
        for update in self._updates:
            update()
        self._updates.clear()

    @torch.no_grad()
    def _update_codes(self, cells: Tensor, nearest: Tensor, generator: torch.Generator) -> None:
        """Move each code to the running mean of the cells (N, D) it is nearest to, and unused ones to any cell."""
        counts = torch.zeros_like(self._counts).index_add_(0, nearest, torch.ones_like(cells[:, 0]))
        sums = torch.zeros_like(self._sums).index_add_(0, nearest, cells)
        self._counts.lerp_(counts, 1 - CODE_DECAY)
        self._sums.lerp_(sums, 1 - CODE_DECAY)
        dead = self._counts < DEAD_BELOW
        chosen = torch.randint(len(cells), (len(dead),), generator=generator).to(cells.device, non_blocking=True)
        self._sums.copy_(torch.where(dead[:, None], cells[chosen], self._sums))
        self._counts.masked_fill_(dead, 1.0)
        self.network.quantize.codes.copy_(self._sums / self._counts[:, None])

    @torch.no_grad()
    def scores(self, network: VQGAN) -> dict[str, float]:
        """PSNR (dB) of whole validation images, use and perplexity of the codes, and the discriminator's loss."""
        decibels: list[Tensor] = []
        counts = torch.zeros(network.config.n_embed, device=self.device)
        validated = self.validation.subset(range(min(MOST_VALIDATED, len(self.validation))))
        for images in validated.batches(8, device=self.device):
            with self.autocast():
                latent = network.encode(images).float()
                if self.quantizing:
                    indices = self._nearest(network, latent)
                    latent = network.quantize.look_up(indices)
                    counts += torch.bincount(indices.flatten(), minlength=len(counts))
                outputs = network.decode(latent).float().clamp(0, 1)
            decibels.append(psnr(outputs, images))
        scores = {"psnr": torch.cat(decibels).mean().item()}
        if self.quantizing:
            scores["codes_used"] = (counts > 0).float().mean().item()
            scores["perplexity"] = perplexity(counts)
        if self._discriminator is not None:
            scores["discriminator"] = self._discriminator.loss.item()
        return scores

    def state_dict(self) -> dict[str, Any]:
        """The running sums of the codes, the discriminator, and the provenance of the start."""
        return {
            "quantizing": self.quantizing, "psnr": self._psnr, "counts": self._counts, "sums": self._sums,
            "before": self._before,
            "discriminator": self._discriminator.state_dict() if self._discriminator else None,
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.quantizing = state["quantizing"]
        self._psnr.copy_(state["psnr"])
        self._counts.copy_(state["counts"])
        self._sums.copy_(state["sums"])
        self._before = state["before"]
        if self._discriminator is not None:
            self._discriminator.load_state_dict(state["discriminator"])

    def provenance(self) -> dict[str, Any]:
        """The training of the weights that the run started from."""
        return {"before": self._before} if self._before else {}


def load_start(path: Path, config: VQGANConfig) -> VQGAN:
    """The VQGAN at `path`, trainable.

    Raises:
        WeightsError: The file is missing, damaged or holds another network.
        TrainingError: It has another size than `config`.
    """
    network = checkpoints.load(path, role="vqgan")
    assert isinstance(network, VQGAN)
    if network.config != config:
        stored, wanted = asdict(network.config), asdict(config)
        other = ", ".join(
            f"{name} ({stored[name]}, not {wanted[name]})" for name in wanted if stored[name] != wanted[name]
        )
        raise TrainingError(f"{path}: holds a VQGAN of another size: {other}", hint="leave out --from to start anew")
    return network.requires_grad_()


def kmeans(points: Tensor, count: int, *, generator: torch.Generator) -> Tensor:
    """Centers (count, D) of points (N, D) by Lloyd's algorithm; an empty center moves to a random point."""
    centers = points[torch.randperm(len(points), generator=generator)[:count].to(points.device)]
    if len(centers) < count:
        chosen = torch.randint(len(points), (count - len(centers),), generator=generator)
        centers = torch.cat([centers, points[chosen.to(points.device)]])
    for _ in range(KMEANS_ITERATIONS):
        nearest = torch.cat([torch.cdist(part, centers).argmin(dim=1) for part in points.split(8192)])
        sums = torch.zeros_like(centers).index_add_(0, nearest, points)
        counts = torch.bincount(nearest, minlength=count)
        spare = points[torch.randint(len(points), (count,), generator=generator).to(points.device)]
        centers = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], spare)
    return centers


def random_shift(*images: Tensor, most: int, generator: torch.Generator) -> list[Tensor]:
    """Crop `most` rows and columns of each (B, 3, H, W), the same random 0 to `most` - 1 of them at the top left.

    The features' strides would otherwise always fall on the same pixels of a latent cell, and what they are blind to
    there would grow into a lattice.
    """
    top, left = torch.randint(most, (2,), generator=generator).tolist()
    height, width = images[0].shape[-2] - most, images[0].shape[-1] - most
    return [image[..., top : top + height, left : left + width] for image in images]


def psnr(outputs: Tensor, images: Tensor) -> Tensor:
    """The PSNR (B,), in dB, of each reconstruction (B, 3, H, W) in [0, 1]."""
    return -10 * (outputs - images).square().mean(dim=(1, 2, 3)).clamp(min=1e-10).log10()


def perplexity(counts: Tensor) -> float:
    """The number of codes that would be as informative if used evenly, from the uses (N,) of each."""
    shares = counts / counts.sum()
    return (-(shares * shares.clamp(min=1e-12).log()).sum()).exp().item()


def reconstruction_losses(outputs: Tensor, images: Tensor) -> dict[str, Tensor]:
    """Distances of reconstructions (B, 3, H, W) from the images: pixels, edges, chroma, color.

    Color, the 4x-pooled difference, is squared: an absolute one gives up rare saturated colors, and a small codebook
    then reconstructs in blue and orange alone.
    """
    difference = outputs - images
    chroma = difference - difference.mean(dim=1, keepdim=True)
    edges = difference.diff(dim=-1).abs().mean() + difference.diff(dim=-2).abs().mean()
    pooled, pooled_chroma = F.avg_pool2d(difference, 4), F.avg_pool2d(chroma, 4)
    return {
        "pixels": difference.abs().mean(),
        "squares": 5 * difference.square().mean(),
        "edges": edges,
        "chroma": 2 * chroma.abs().mean(),
        "color": 10 * pooled.square().mean() + 40 * pooled_chroma.square().mean(),
    }


def edges_by_position(images: Tensor, *, cell: int) -> Tensor:
    """Mean absolute difference to the next pixel, right and below, at each position in a cell, over their mean.

    Args:
        images: (B, 3, H, W), sides multiples of `cell` and larger.
        cell: Pixels along each side.

    Returns:
        (2, cell, cell); about 1 everywhere for randomly cropped photographs.
    """
    inner = images[..., :-cell, :-cell]  # the last pixels have no next one
    steps = [images[..., :-cell, 1 : 1 - cell] - inner, images[..., 1 : 1 - cell, :-cell] - inner]
    edges = torch.stack([rearrange(step, "b c (h p) (w q) -> p q (b c h w)", p=cell, q=cell).abs() for step in steps])
    edges = edges.mean(dim=-1)
    return edges / edges.mean(dim=(1, 2), keepdim=True).clamp(min=1e-4)


def lattice_loss(outputs: Tensor, images: Tensor, *, cell: int) -> Tensor:
    """How much the positions of edges within cells differ between reconstructions and images (B, 3, H, W).

    A decoder that cannot know a texture draws it with the right strength at the same positions of every cell, which
    neither pixel differences nor features of a strided network penalize.
    """
    return F.mse_loss(edges_by_position(outputs, cell=cell), edges_by_position(images, cell=cell))


def random_crops(images: Tensor, size: int, *, generator: torch.Generator, whole: float = 0.3) -> Tensor:
    """A random square (B, 3, size, size) in [0, 1] of each image (B, 3, S, S) uint8, mirrored or not.

    A share `whole` of the images is scaled down instead of cropped.

    Raises:
        TrainingError: The images are smaller than that.
    """
    if size > images.shape[-1]:
        raise TrainingError(
            f"crops of {size} px cannot be cut from pictures of {images.shape[-1]} px", hint="use larger pictures"
        )
    draws = torch.rand(4, len(images), generator=generator)
    starts = (draws[1:3] * (images.shape[-1] - size + 1)).long()
    places = starts[..., None] + torch.arange(size)  # (2, B, size): rows and columns
    mirrored = torch.where(draws[3, :, None] < 0.5, places[1].flip(-1), places[1])
    rows, columns = (axis.to(images.device, non_blocking=True) for axis in (places[0], mirrored))
    each = torch.arange(len(images), device=images.device)[:, None, None]
    crops = images.permute(0, 2, 3, 1)[each, rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2).float()
    for number in (draws[0] < whole).nonzero().flatten().tolist():
        scaled = F.interpolate(images[number, None].float(), size=(size, size), mode="area")[0]
        crops[number] = scaled.flip(-1) if draws[3, number] < 0.5 else scaled
    return crops / 255
