"""Train the VQGAN: first a plain autoencoder with noise on its latent, then with a codebook made by k-means.

A codebook from the start wastes its codes and gives grey pictures on a small budget. The loss weighs colour
apart from grey for the same reason.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from wav2clip_gen.errors import TrainingError
from wav2clip_gen.models import checkpoints
from wav2clip_gen.models.vqgan import VQGAN, VQGANConfig
from wav2clip_gen.training.anchors import notes
from wav2clip_gen.training.data import Pictures, batch_indices, load_pictures, random_crops
from wav2clip_gen.training.decoding import Reading
from wav2clip_gen.training.discriminator import Discriminator, adaptive_weight, adversarial_loss
from wav2clip_gen.training.loop import Average, Recipe, seeded, step_generator
from wav2clip_gen.training.reconstruction import PerceptualFeatures, lattice_loss, reconstruction_losses, shifted

MINI = VQGANConfig(
    ch=32, ch_mult=(1, 2, 2, 4), num_res_blocks=1, attn_resolutions=(), resolution=128,
    z_channels=16, embed_dim=16, n_embed=4096, norm_groups=4,
)  # fmt: skip
KMEANS_PICTURES = 768
KMEANS_ROUNDS = 12
CODE_DECAY = 0.99  # of the running sums that make the codes (van den Oord et al., arXiv 1711.00937, appendix A.1)
ADVERSARIAL_RISE = 0.03  # share of the run over which the discriminator's pull rises: at first it knows nothing
DEAD_BELOW = 0.01  # cells a step, on average; a code used less is moved


@dataclass(frozen=True, kw_only=True)
class VQGANTraining:
    """Settings of a run."""

    batch: int = 8  # crops a step
    crop: int = 64  # pixels
    learning_rate: float = 1e-3
    autoencoder: float = 0.3  # share of the run before there is a codebook
    noise: float = 0.1  # on the latent before there is a codebook, in its own deviations
    commitment: float = 0.25
    lattice: float = 2.0  # weight of how unevenly the drawn edges lie within the latent's cells
    perceptual: float = 0.1  # weight of the distance between the perceptor's features, where there is one
    perceptual_from: float = 0.45  # share of the run after which it counts
    adversarial: float = 0.15  # pull of the discriminator, as a share of all other losses'; 0 for none
    adversarial_from: float = 0.5  # share of the run after which there is a discriminator


class VQGANRecipe(Recipe[VQGAN]):
    """A VQGAN learns to draw again what it has seen."""

    name = "vqgan"

    def __init__(
        self,
        data: Path,
        settings: VQGANTraining | None = None,
        *,
        clip: Path | None = None,
        start: Path | None = None,
        config: VQGANConfig = MINI,
        reading: Reading | None = None,
        seed: int = 0,
        device: str | torch.device = "cpu",
    ) -> None:
        """Read the pictures and the networks to begin with.

        Args:
            data: Folder of the training data.
            settings: The recipe's own if None.
            clip: Weights of the trained image tower, for the perceptual loss.
            start: Weights of a VQGAN to train further. It has its codes, so the share of the run without is left out.
            config: Size of the network.
            reading: By how many threads the pictures are decoded, and what may be kept in memory.
            seed: Decides all that is random.
            device: Where it trains.

        Raises:
            TrainingError: Data is missing, or `start` has another size.
            WeightsError: `clip` or `start` cannot be read.
        """
        self.settings: VQGANTraining = settings or VQGANTraining()
        self.seed, self.device = seed, torch.device(device)
        reading = reading or Reading()
        self.pictures: Pictures = load_pictures(data, "train", reading=reading)
        self.validation: Pictures = load_pictures(data, "val", reading=reading)
        self.skipped = self.pictures.skipped + self.validation.skipped
        self.notes = notes(self.skipped, reading=reading)
        with seeded(seed):
            network = load_start(start, config) if start else VQGAN(config)
        # The memory format and the fused optimiser save a tenth of a step's time on a CPU.
        network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
        self.network = network.train()
        self.network.quantize.requires_grad_(False)  # the codes are running means, not learned by gradient
        learned = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        self.optimiser = torch.optim.AdamW(
            learned, lr=self.settings.learning_rate, betas=(0.9, 0.99), weight_decay=1e-4, fused=True
        )
        self._clip_digest = checkpoints.digest(clip)[:12] if clip else None
        self._features = PerceptualFeatures(clip).to(self.device) if clip else None
        self._discriminator = Discriminator(seed=seed, device=self.device) if self.settings.adversarial else None
        self._shown: tuple[Tensor, Tensor] | None = None  # true and drawn pictures that it has yet to learn from
        self.quantising = start is not None
        self._started_quantising = False
        self._before: dict[str, Any] = checkpoints.read_header(start).training if start else {}
        self._counts = torch.ones(config.n_embed, device=self.device)
        self._sums = self.network.quantize.codes.detach().clone()
        self._cells: Tensor | None = None
        self._generator = torch.Generator()

    def losses(self, step: int, progress: float, generator: torch.Generator) -> dict[str, Tensor]:
        """Draw again a batch of crops, or every fourth step a few whole pictures."""
        if not self.quantising and progress >= self.settings.autoencoder:
            self._begin_quantising()
        pictures = self._batch(step, generator)
        with self.batch():
            latent = self.network.encode(pictures)
            if not self.quantising:
                noise = torch.randn(latent.shape, generator=generator).to(latent)
                quantised = latent + self.settings.noise * latent.detach().std() * noise
                terms = {}
            else:
                codes = self.network.quantize.look_up(self.network.quantize.nearest(latent.detach()))
                quantised = latent + (codes - latent).detach()
                terms = {"commitment": self.settings.commitment * F.mse_loss(latent.float(), codes)}
                self._cells = rearrange(latent.detach().float(), "b d h w -> (b h w) d")
            drawn = self.network.decode(quantised).float()
            if self._features is not None and progress >= self.settings.perceptual_from:
                seen, true = shifted(drawn, pictures, most=self.network.stride, generator=generator)
                terms["perceptual"] = self.settings.perceptual * self._features.distance(seen, true)
        self._generator = generator
        terms |= reconstruction_losses(drawn, pictures)
        terms["lattice"] = self.settings.lattice * lattice_loss(drawn, pictures, cell=self.network.stride)
        if self._discriminator is not None and progress >= self.settings.adversarial_from:
            self._shown = pictures, drawn.detach()
            terms["adversarial"] = self._adversarial(self._discriminator, drawn, terms, progress)
        return terms

    def _adversarial(
        self, discriminator: Discriminator, drawn: Tensor, terms: dict[str, Tensor], progress: float
    ) -> Tensor:
        """The discriminator's loss, weighed against all terms that reach the decoder."""
        with self.batch():
            loss = adversarial_loss(discriminator.judge(drawn))
        reconstruction = torch.stack([term for name, term in terms.items() if name != "commitment"]).sum()
        balance = adaptive_weight(reconstruction, loss, self.network.decoder.conv_out.weight)
        rise = min((progress - self.settings.adversarial_from) / ADVERSARIAL_RISE, 1.0)
        return self.settings.adversarial * rise * balance * loss

    def _batch(self, step: int, generator: torch.Generator) -> Tensor:
        chosen = batch_indices(len(self.pictures), self.settings.batch, step=step, seed=self.seed)
        pixels = self.pictures.pixels[chosen]
        if step % 4 == 3:  # as in use: a few whole pictures, at the cost of a batch of crops
            share = max(self.settings.batch * self.settings.crop**2 // self.pictures.size**2, 1)
            return random_crops(pixels[:share], self.pictures.size, generator=generator, whole=0.0).to(self.device)
        return random_crops(pixels, self.settings.crop, generator=generator).to(self.device)

    @torch.no_grad()
    def _begin_quantising(self) -> None:
        """Scale the latent to unit deviation, without changing a picture, and find the codes by k-means."""
        network, generator = self.network, step_generator(self.seed, -1)
        chosen = torch.randperm(len(self.pictures), generator=generator)[:KMEANS_PICTURES]
        cells = torch.cat(
            [
                rearrange(network.encode(part.to(self.device).float() / 255), "b d h w -> (b h w) d")
                for part in self.pictures.pixels[chosen].split(16)
            ]
        )
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
        self.quantising = self._started_quantising = True

    def after_step(self, average: Average[VQGAN]) -> None:
        """Let the codes and the discriminator learn from what was drawn."""
        if self._started_quantising:
            average.restart()
            self._started_quantising = False
        if self._cells is not None:
            self._move_codes(self._cells)
            self._cells = None
        if self._discriminator is not None and self._shown is not None:
            self._discriminator.learn(*self._shown)
            self._shown = None

    @torch.no_grad()
    def _move_codes(self, cells: Tensor) -> None:
        """Move each code to the running mean of its cells (N, D), and unused ones to one of these cells."""
        codebook = self.network.quantize
        nearest = codebook.nearest(cells.T[None, :, :, None]).flatten()
        counts = torch.bincount(nearest, minlength=len(self._counts)).float()
        sums = torch.zeros_like(self._sums).index_add_(0, nearest, cells)
        self._counts.lerp_(counts, 1 - CODE_DECAY)
        self._sums.lerp_(sums, 1 - CODE_DECAY)
        dead = (self._counts < DEAD_BELOW).nonzero().flatten()
        if len(dead):
            drawn = torch.randint(len(cells), (len(dead),), generator=self._generator).to(cells.device)
            self._sums[dead] = cells[drawn]
            self._counts[dead] = 1.0
        codebook.codes.copy_(self._sums / self._counts[:, None])

    @torch.no_grad()
    def scores(self, network: VQGAN) -> dict[str, float]:
        """PSNR of whole validation pictures, drawn from codes, how many codes that takes, the discriminator's loss."""
        scores = reconstruction_scores(network, self.validation, quantising=self.quantising)
        if self._discriminator is not None:
            scores["discriminator"] = self._discriminator.loss.item()
        return scores

    def state(self) -> dict[str, Any]:
        """The running means of the codes, the discriminator, and what the start's file told."""
        state = {
            "quantising": self.quantising, "counts": self._counts, "sums": self._sums, "before": self._before,
        }  # fmt: skip
        return state | ({"discriminator": self._discriminator.state()} if self._discriminator else {})

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what `state` gave."""
        self.quantising = state["quantising"]
        self._counts.copy_(state["counts"])
        self._sums.copy_(state["sums"])
        self._before = state["before"]
        if self._discriminator is not None:
            self._discriminator.load_state(state["discriminator"])

    def conditions(self) -> dict[str, Any]:
        """The pictures and the CLIP that compares them decide the run as much as the settings."""
        return {"pictures": len(self.pictures), "clip": self._clip_digest}

    def provenance(self) -> dict[str, Any]:
        """Settings and data sets, and the training of the weights begun with."""
        sets = sorted({described.set for described in self.pictures.descriptions})
        told = {"settings": asdict(self.settings), "sets": sets, "pictures": len(self.pictures)}
        return told | ({"before": self._before} if self._before else {})


def load_start(path: Path, config: VQGANConfig) -> VQGAN:
    """The VQGAN at `path`, to be trained further.

    Raises:
        WeightsError: The file is missing, damaged or holds another part.
        TrainingError: Its network is not `config`'s.
    """
    network = checkpoints.load(path, role="vqgan")
    assert isinstance(network, VQGAN)
    if network.config != config:
        stored, wanted = asdict(network.config), asdict(config)
        other = ", ".join(
            f"{name} ({stored[name]}, not {wanted[name]})" for name in wanted if stored[name] != wanted[name]
        )
        raise TrainingError(f"{path}: holds a VQGAN of another size: {other}", hint="leave out --from to begin anew")
    return network.requires_grad_()


def kmeans(points: Tensor, count: int, *, generator: torch.Generator, rounds: int = KMEANS_ROUNDS) -> Tensor:
    """Centres (count, D) of points (N, D) by Lloyd's rounds; an empty centre moves to a random point."""
    centres = points[torch.randperm(len(points), generator=generator)[:count].to(points.device)]
    if len(centres) < count:
        drawn = torch.randint(len(points), (count - len(centres),), generator=generator)
        centres = torch.cat([centres, points[drawn.to(points.device)]])
    for _ in range(rounds):
        nearest = torch.cat([torch.cdist(part, centres).argmin(dim=1) for part in points.split(8192)])
        sums = torch.zeros_like(centres).index_add_(0, nearest, points)
        counts = torch.bincount(nearest, minlength=count)
        spare = points[torch.randint(len(points), (count,), generator=generator).to(points.device)]
        centres = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], spare)
    return centres


@torch.no_grad()
def reconstruction_scores(
    network: VQGAN, pictures: Pictures, *, quantising: bool = True, limit: int = 400
) -> dict[str, float]:
    """Mean PSNR (dB), share of codes in use and their perplexity over the first `limit` pictures."""
    device = network.quantize.codes.device
    decibels: list[Tensor] = []
    counts = torch.zeros(network.config.n_embed, device=device)
    for part in pictures.pixels[:limit].split(8):
        true = part.to(device).float() / 255
        with torch.autocast(device.type, dtype=torch.bfloat16):
            latent = network.encode(true).float()
            if quantising:
                indices = network.quantize.nearest(latent)
                latent = network.quantize.look_up(indices)
                counts += torch.bincount(indices.flatten(), minlength=len(counts))
            drawn = network.decode(latent).float().clamp(0, 1)
        decibels.append(-10 * (drawn - true).square().mean(dim=(1, 2, 3)).clamp(min=1e-10).log10())
    scores = {"psnr": torch.cat(decibels).mean().item()}
    if quantising:
        shares = counts / counts.sum()
        scores["codes_used"] = (counts > 0).float().mean().item()
        scores["perplexity"] = (-(shares * shares.clamp(min=1e-12).log()).sum()).exp().item()
    return scores
