"""AudioCLIP: CLIP's ResNet-50 with a sound encoder in its space (Guzhov et al., arXiv 2106.13043).

The sound encoder is ESResNeXt-FBSP (Guzhov et al., arXiv 2104.11587): complex frequency B-spline wavelets that are
learnt, and a ResNeXt-50 with attention. Names and numbers are those of AndreyGuzhov/AudioCLIP, so that `audio.*` of the
published checkpoints loads by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck, ResNet

from wav2clip_gen.models.clip import Perceptor

SAMPLE_RATE = 44_100  # Hz
FFT_SIZE, FRAME, HOP = 2048, 1654, 561  # samples; a frame is filled up with zeros on both sides
FLOOR = 1e-18  # power of what is silent
EPSILON = 1e-8
FULL_SCALE = 65_535  # of 16 bits


class Wavelets(nn.Module):
    """Frequency B-spline wavelets, `fbsp-m-fb-fc` (arXiv 2104.11587, equation 1): one for each bin of a spectrum."""

    def __init__(self, bins: int = FFT_SIZE // 2 + 1) -> None:
        super().__init__()
        self.m = nn.Parameter(torch.zeros(bins))  # order
        self.fb = nn.Parameter(torch.ones(bins))  # bandwidth
        self.fc = nn.Parameter(torch.arange(bins, dtype=torch.float32))  # centre frequency
        self.bias = nn.Parameter(torch.empty(0))  # the published network has none

    def kernels(self) -> Tensor:
        """The wavelets (2, bins, 2048), real and imaginary parts."""
        time = (math.pi * torch.linspace(-1, 1, FFT_SIZE, device=self.m.device) + EPSILON).unsqueeze(0)
        m, fb, fc = (value.unsqueeze(1) for value in (self.m, self.fb, self.fc))
        angle = fb * time / (m + EPSILON)
        sinc = torch.where(angle == 0, 1.0, angle.sin() / angle)
        size = fb.sqrt() * sinc.abs().pow(m) / FFT_SIZE**0.5
        phase = math.pi * m * (sinc < 0)  # of a negative number to a power that is not whole
        wavelets = torch.polar(size, phase) * torch.polar(torch.ones_like(size), -fc * time)
        return torch.view_as_real(wavelets).movedim(-1, 0)

    def forward(self, frames: Tensor) -> Tensor:
        """Power spectra (B, T, bins) of frames (B, T, 2048)."""
        real, imaginary = self.kernels()
        return F.linear(frames, real).square() + F.linear(frames, imaginary).square()


class Attention(nn.Module):
    """How much of each place of a stage's output passes, in (0, 1), from the stage's input."""

    def __init__(self, channels_in: int, channels: int, kernel: tuple[int, int]) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2)
        self.conv_depth = nn.Conv2d(channels_in, channels_in, kernel, padding=padding, groups=channels_in)
        self.conv_point = nn.Conv2d(channels_in, channels, kernel_size=1)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        """Gates of the shape of `like` (B, channels, H', W') from x (B, channels_in, H, W)."""
        pooled = F.adaptive_max_pool2d(x, (like.shape[2], like.shape[3]))
        return torch.sigmoid(self.bn(self.conv_point(self.conv_depth(pooled))))


class ESResNeXt(ResNet):  # type: ignore[misc]
    """ESResNeXt-FBSP. Windows are (B, N) mono float32 in [-1, 1] at 44.1 kHz."""

    sample_rate = SAMPLE_RATE  # Hz of its sound
    window: Tensor  # (1654,) periodic Blackman-Harris

    def __init__(self, embedding: int, blocks: tuple[int, ...] = (3, 4, 6, 3)) -> None:
        """Build an untrained one.

        Args:
            embedding: Dimensions of CLIP's space.
            blocks: In each of the four stages.
        """
        super().__init__(Bottleneck, list(blocks), num_classes=embedding, groups=32, width_per_group=4)
        from scipy.signal import get_window

        window = get_window("blackmanharris", FRAME, fftbins=True)
        self.register_buffer("window", torch.from_numpy(window).float())
        self.fbsp = Wavelets()
        self.att1 = Attention(64, 256, (3, 1))
        self.att2 = Attention(256, 512, (1, 5))
        self.att3 = Attention(512, 1024, (3, 1))
        self.att4 = Attention(1024, 2048, (1, 5))
        self.att5 = Attention(2048, 2048, (3, 5))

    def log_spectrogram(self, windows: Tensor) -> Tensor:
        """Turn windows (B, N) into power spectrograms in dB, (B, 3, 341, 1 + ceil((N - 1654) / 561)): three bands."""
        signal = (windows * (FULL_SCALE // 2 + 1) + (FULL_SCALE // 2 + 1)) * 2 / FULL_SCALE - 1  # as from 16 bits
        count = 1 + max(-(-(signal.shape[-1] - FRAME) // HOP), 0)
        missing = (count - 1) * HOP + FRAME - signal.shape[-1]
        signal = F.pad(signal, (missing // 2, missing - missing // 2))
        side = (FFT_SIZE - FRAME) // 2
        power = self.fbsp(F.pad(signal.unfold(-1, FRAME, HOP) * self.window, (side, side))).transpose(1, 2)
        height = power.shape[1] // 3
        power = power[:, : 3 * height].unflatten(1, (3, height))
        return 10 * torch.where(power > 0, power, FLOOR).log10()

    def features(self, x: Tensor) -> Tensor:
        """Map spectrograms (B, 3, 341, T) to features (B, 2048)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        stages = (
            (self.layer1, self.att1),
            (self.layer2, self.att2),
            (self.layer3, self.att3),
            (self.layer4, self.att4),
        )
        for stage, attention in stages:
            out = stage(x)
            x = out * attention(x, out)
        pooled = self.avgpool(x)
        return (pooled * self.att5(x, pooled)).flatten(1)

    def forward(self, windows: Tensor) -> Tensor:
        """Map windows (B, N) to embeddings (B, D), not normalised."""
        embeddings: Tensor = self.fc(self.features(self.log_spectrogram(windows)))
        return embeddings

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.window.device

    @torch.no_grad()
    def encode_windows(self, windows: Callable[[], Iterable[np.ndarray | Tensor]]) -> Tensor:
        """Map a track's windows, in batches of (B, N), to unit vectors (W, D) on the CPU, as `Wav2CLIP` does."""
        batches = (torch.as_tensor(batch, dtype=torch.float32, device=self.device) for batch in windows())
        return torch.cat([F.normalize(self(batch), dim=-1).cpu() for batch in batches])


class AudioCLIP(Perceptor):
    """CLIP's encoders of pictures and texts, and an encoder of sound.

    The published inverse temperatures between sound and pictures or texts are kept as `logit_scale_ai` and `_at`.
    """

    def __init__(
        self,
        architecture: str = "RN50-quickgelu",
        *,
        blocks: tuple[int, ...] = (3, 4, 6, 3),
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
    ) -> None:
        """Build an untrained network.

        Args:
            architecture: Of CLIP.
            blocks: Of the sound encoder.
            mean: As for `Perceptor`.
            std: As for `Perceptor`.
        """
        super().__init__(architecture, mean=mean, std=std)
        self.blocks = blocks
        self.model.audio = ESResNeXt(self.model.text_projection.shape[1], blocks)
        self.model.logit_scale_ai = nn.Parameter(torch.tensor(math.log(100)))
        self.model.logit_scale_at = nn.Parameter(torch.tensor(math.log(100)))

    @property
    def audio(self) -> ESResNeXt:
        """The sound encoder, which needs nothing of the rest."""
        encoder: ESResNeXt = self.model.audio
        return encoder

    def encode_sounds(self, windows: Tensor) -> Tensor:
        """Map windows (B, N), mono float32 in [-1, 1] at 44.1 kHz, to unit vectors (B, D)."""
        return F.normalize(self.audio(windows), dim=-1)
