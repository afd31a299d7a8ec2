"""YAMNet, a classifier of sounds into 521 AudioSet classes, ported to PyTorch as a baseline.

A MobileNet-v1 over log-mel patches (Google, TensorFlow Model Garden, Apache 2.0), as `teachers/yamnet.md` of the
training data describes it; the weights are in the same folder.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wav2clip_gen.errors import TrainingError
from wav2clip_gen.training.data import HINT, read_arrays

RATE = 16_000  # Hz
FRAME, HOP = 400, 160  # samples, 25 and 10 ms
FFT_SIZE = 512
BANDS = 64
LOWEST, HIGHEST = 125.0, 7500.0  # Hz, of the mel bands
PATCH = 96  # frames, 0.96 s
PATCH_HOP = 48
SHORTEST = FRAME + (PATCH - 1) * HOP  # samples of one patch, 0.97 s
CLASSES = 521
CHANNELS = (64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)  # of the 13 separable convolutions
HALVING = (1, 3, 5, 11)  # which of them have stride 2


def mel_matrix() -> Tensor:
    """Weights (257, 64) of the spectrum's bins in each band: triangles that are linear in mel (HTK)."""
    bins = _mel(torch.arange(FFT_SIZE // 2 + 1, dtype=torch.float64) * RATE / FFT_SIZE)[:, None]
    lowest, highest = (_mel(torch.tensor(edge, dtype=torch.float64)).item() for edge in (LOWEST, HIGHEST))
    edges = torch.linspace(lowest, highest, BANDS + 2, dtype=torch.float64)
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    weights = torch.minimum(rising, falling).clamp(min=0)
    weights[0] = 0
    return weights.float()


def _mel(hertz: Tensor) -> Tensor:
    return 1127 * torch.log1p(hertz / 700)


class YAMNet(nn.Module):
    """Maps sounds to class scores; the batch norm is folded into the convolutions."""

    window: Tensor  # (400,) periodic Hann
    mel: Tensor  # (257, 64)

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(FRAME, periodic=True), persistent=False)
        self.register_buffer("mel", mel_matrix(), persistent=False)
        layers, inputs = [nn.Conv2d(1, 32, kernel_size=3, stride=2)], 32
        for number, outputs in enumerate(CHANNELS):
            stride = 2 if number in HALVING else 1
            layers += [nn.Conv2d(inputs, inputs, 3, stride, groups=inputs), nn.Conv2d(inputs, outputs, 1)]
            inputs = outputs
        self.layers = nn.ModuleList(layers)
        self.classifier = nn.Linear(inputs, CLASSES)

    def log_mel(self, sounds: Tensor) -> Tensor:
        """Turn sounds (B, N) in [-1, 1] at 16 kHz into log-mel frames (B, T, 64); short ones are padded with zeros."""
        sounds = F.pad(sounds, (0, max(SHORTEST - sounds.shape[-1], 0)))
        frames = sounds.unfold(-1, FRAME, HOP) * self.window
        return torch.log(torch.fft.rfft(frames, FFT_SIZE).abs() @ self.mel + 0.001)

    def embed(self, patches: Tensor) -> Tensor:
        """Map log-mel patches (P, 96, 64) to embeddings (P, 1024)."""
        x = patches.unsqueeze(1)
        for layer in self.layers:
            x = F.relu(layer(_same_padding(x, layer)))
        return x.mean(dim=(2, 3))

    @torch.no_grad()
    def forward(self, sounds: Tensor) -> Tensor:
        """Map sounds (B, N) in [-1, 1] at 16 kHz to class scores (B, 521) in [0, 1], each a mean over patches."""
        patches = self.log_mel(sounds).unfold(1, PATCH, PATCH_HOP).transpose(2, 3)  # (B, P, 96, 64)
        scores = self.classifier(self.embed(patches.flatten(0, 1))).sigmoid()
        return scores.view(*patches.shape[:2], CLASSES).mean(dim=1)


def _same_padding(x: Tensor, layer: nn.Module) -> Tensor:
    """Pad like TensorFlow's SAME: if the total is odd, the larger half is at the end."""
    assert isinstance(layer, nn.Conv2d)
    kernel, stride = layer.kernel_size[0], layer.stride[0]
    totals = [max((math.ceil(length / stride) - 1) * stride + kernel - length, 0) for length in x.shape[:1:-1]]
    return F.pad(x, [side for total in totals for side in (total // 2, total - total // 2)])


def load_yamnet(data: Path) -> YAMNet:
    """The network with its weights from the training data's folder, frozen.

    Raises:
        TrainingError: The file is missing, damaged, or holds other arrays.
    """
    network = YAMNet()
    names = {f"layers.{number}": f"{number:02d}.{('conv', 'dw')[number % 2]}" for number in range(len(network.layers))}
    names["classifier"] = "fc"
    pairs = [(f"{ours}.{kind}", f"{theirs}.{kind[0]}") for ours, theirs in names.items() for kind in ("weight", "bias")]
    path = data / "teachers" / "yamnet.npz"
    arrays = read_arrays(path, *(theirs for _, theirs in pairs))
    tensors = [torch.from_numpy(array.astype(np.float32)) for array in arrays]
    try:
        network.load_state_dict({ours: tensor for (ours, _), tensor in zip(pairs, tensors, strict=True)})
    except RuntimeError as error:
        raise TrainingError(f"{path}: holds another network ({error})", hint=HINT) from None
    return network.requires_grad_(False).eval()
