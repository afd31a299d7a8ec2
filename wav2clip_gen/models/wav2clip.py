"""The Wav2CLIP network: a window of sound in, an embedding in CLIP's space out (Wu et al., arXiv 2110.11499).

Module names follow the published checkpoint, so `audio_encoder.*` and `audio_transform.*` load by name.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchaudio.transforms import Spectrogram
from torchvision.models.resnet import BasicBlock

from wav2clip_gen.audio.track import ENCODER_RATE

FFT_SIZE = 512  # samples in one column of the spectrogram, 32 ms
SPECTROGRAM_HOP = 353  # samples between two columns, 22 ms
BATCH = 128  # windows at a time
AUDIBLE = 0.1  # RMS of a window relative to the loudest, below which it is silent


@dataclass(frozen=True, kw_only=True)
class Wav2CLIPConfig:
    """Size of the network; the defaults are the published ones."""

    width: int = 64  # channels of the first stage; the last has eight times as many
    embedding: int = 512  # dimensions of CLIP's space


class Statistics(NamedTuple):
    """Mean and standard deviation of a track's log spectrogram."""

    mean: float
    deviation: float


class SpectrogramResNet(nn.Module):
    """ResNet-18 over a one-channel spectrogram, with a base width.

    torchvision's ResNet fixes its first stage at 64 channels; the blocks are torchvision's, the stages ours.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.spectrogram = Spectrogram(n_fft=FFT_SIZE, hop_length=SPECTROGRAM_HOP)
        self.conv1 = nn.Conv2d(1, width, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.layer1 = _stage(width, width, stride=1)
        self.layer2 = _stage(width, 2 * width, stride=2)
        self.layer3 = _stage(2 * width, 4 * width, stride=2)
        self.layer4 = _stage(4 * width, 8 * width, stride=2)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def log_spectrogram(self, windows: Tensor) -> Tensor:
        """Turn windows (B, N) into log power spectrograms (B, 1, 257, 1 + N // 353)."""
        return torch.log(self.spectrogram(windows.unsqueeze(1)) + 1e-7)

    def forward(self, standardised: Tensor) -> Tensor:
        """Map standardised spectrograms (B, 1, 257, T) to features (B, 8 * width)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(standardised))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return x.mean(dim=(2, 3))


def _stage(channels_in: int, channels: int, *, stride: int) -> nn.Sequential:
    """Two basic blocks, the first of which may halve the resolution."""
    downsample = None
    if stride != 1 or channels_in != channels:
        shortcut = nn.Conv2d(channels_in, channels, kernel_size=1, stride=stride, bias=False)
        downsample = nn.Sequential(shortcut, nn.BatchNorm2d(channels))
    return nn.Sequential(BasicBlock(channels_in, channels, stride, downsample), BasicBlock(channels, channels))


def windows_of(sound: Tensor, size: int, hop: int) -> Tensor:
    """Windows (W, size) of a sound (N,), one each `hop` samples; a short sound is repeated until it fills one."""
    if len(sound) < size:
        sound = sound.repeat(-(-size // len(sound)))[:size]
    return sound.unfold(0, size, hop)


class Projection(nn.Module):
    """The MLP between audio features and CLIP's space (`audio_transform`, `image_transform`)."""

    def __init__(self, features: int, hidden: int, out: int, *, dropout: float = 0.1) -> None:
        super().__init__()
        self.sequential = nn.Sequential(
            nn.Linear(features, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, out)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, features) to (B, out)."""
        return self.sequential(features)


class Wav2CLIP(nn.Module):
    """The sound encoder. Windows are (B, N) mono float32 in [-1, 1] at 16 kHz.

    The published code standardises the spectrogram over whatever shares the batch. Here the statistics are an
    argument (see `statistics`): equal to the published code when they are those of the batch.
    """

    sample_rate = ENCODER_RATE  # Hz of its sound

    def __init__(self, config: Wav2CLIPConfig | None = None) -> None:
        super().__init__()
        self.config = config or Wav2CLIPConfig()
        features = 8 * self.config.width
        self.audio_encoder = SpectrogramResNet(self.config.width)
        self.audio_transform = Projection(features, self.config.embedding, self.config.embedding)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.audio_encoder.conv1.weight.device

    def features(self, windows: Tensor, statistics: Statistics | None = None) -> Tensor:
        """Map windows (B, N) to features (B, 8 * width), standardised by `statistics` or those of the batch."""
        spectrogram = self.audio_encoder.log_spectrogram(windows)
        if statistics is None:
            mean, deviation = spectrogram.mean(), spectrogram.std()
        else:
            mean, deviation = (spectrogram.new_tensor(value) for value in statistics)
        return self.audio_encoder((spectrogram - mean) / (deviation + 1e-9))

    def forward(self, windows: Tensor, statistics: Statistics | None = None) -> Tensor:
        """Map windows (B, N) to embeddings (B, D), not normalised, as the published network gives them."""
        return self.audio_transform(self.features(windows, statistics))

    @torch.no_grad()
    def statistics(self, batches: Iterable[np.ndarray | Tensor]) -> Statistics:
        """Mean and (unbiased) deviation of the log spectrogram over all windows of a track.

        Batches are merged by Chan's rule in float64, so neither their number nor their size matters.
        """
        count, mean, squares = 0, 0.0, 0.0
        for batch in batches:
            values = self.audio_encoder.log_spectrogram(self._to_device(batch)).cpu().double()  # MPS has no float64
            n, batch_mean = values.numel(), values.mean().item()
            shift = batch_mean - mean
            squares += (values - batch_mean).square().sum().item() + shift**2 * count * n / (count + n)
            count, mean = count + n, mean + shift * n / (count + n)
        return Statistics(mean, (squares / max(count - 1, 1)) ** 0.5)

    @torch.no_grad()
    def encode_windows(self, windows: Callable[[], Iterable[np.ndarray | Tensor]]) -> Tensor:
        """Map a track's windows to unit vectors (W, D) on the CPU.

        Args:
            windows: Gives the track's windows in batches of (B, N), anew at each call: one pass for the statistics, a
                second for the embeddings, so that memory does not grow with the track.
        """
        statistics = self.statistics(windows())
        batches = [F.normalize(self(self._to_device(batch), statistics), dim=-1).cpu() for batch in windows()]
        return torch.cat(batches)

    @torch.no_grad()
    def encode_sound(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        """Embed a sound as a whole, from its windows (W, N).

        Only audible windows count for the statistics: in a short sound that is filled up with zeros these would be
        those of the zeros.

        Returns:
            Embeddings (W, D) of all windows, not normalised, and the unit mean (D,) of the audible ones, on the CPU.
        """
        loudness = torch.linalg.vector_norm(windows, dim=1)
        audible = loudness >= AUDIBLE * loudness.max()
        statistics = self.statistics(windows[chosen] for chosen in audible.nonzero()[:, 0].split(BATCH))
        frames = torch.cat([self(self._to_device(batch), statistics).cpu() for batch in windows.split(BATCH)])
        return frames, F.normalize(F.normalize(frames[audible], dim=-1).mean(dim=0), dim=0)

    def embed(self, windows: Callable[[], Iterable[np.ndarray | Tensor]]) -> Tensor:
        """Deprecated name of `encode_windows`."""
        warnings.warn("Wav2CLIP.embed is now encode_windows", DeprecationWarning, stacklevel=2)
        return self.encode_windows(windows)

    def _to_device(self, batch: np.ndarray | Tensor) -> Tensor:
        return torch.as_tensor(batch, dtype=torch.float32, device=self.device)
