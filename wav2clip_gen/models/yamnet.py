"""YAMNet, a classifier of sounds into 521 AudioSet classes, ported to PyTorch as a baseline.

A MobileNet-v1 over log-mel patches (Google, TensorFlow Model Garden, Apache 2.0), as `teachers/yamnet.md` of the
training data describes it, and `research/audioset/yamnet` of tensorflow/models.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
EPSILON = 1e-4  # of the published batch norm, which has no gain


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


def translate(published: dict[str, Tensor]) -> dict[str, Tensor]:
    """The network's tensors, by our names, in those of a published file.

    Args:
        published: The arrays of a TFLite conversion (`00.conv.w`, `01.dw.b`, ..., `fc.w`: layouts of PyTorch, the batch
            norm folded in), or of Google's yamnet.h5 (`layer2/depthwise_conv/depthwise_kernel`, ...: those of Keras).
    """
    count = 1 + 2 * len(CHANNELS)
    if any("/" in name for name in published):
        return _from_keras(published, count)
    places = {f"{number:02d}.{('conv', 'dw')[number % 2]}": f"layers.{number}" for number in range(count)}
    places["fc"] = "classifier"
    kinds = {"w": "weight", "b": "bias"}
    split = {name: name.rpartition(".") for name in published if name != "mel"}
    return {
        f"{places.get(place, place)}.{kinds.get(kind, kind)}": published[name]
        for name, (place, _, kind) in split.items()
    }


def _from_keras(published: dict[str, Tensor], count: int) -> dict[str, Tensor]:
    """Fold each batch norm into the convolution before it, and put the axes of kernels in PyTorch's order."""
    layers = {0: "layer1/conv"}
    for pair in range(len(CHANNELS)):
        layers |= {2 * pair + 1: f"layer{pair + 2}/depthwise_conv", 2 * pair + 2: f"layer{pair + 2}/pointwise_conv"}
    tensors = {}
    for number in range(count):
        kernel = "depthwise_kernel" if number % 2 else "kernel"
        norm = f"{layers[number]}/bn"
        needed = (f"{layers[number]}/{kernel}", f"{norm}/beta", f"{norm}/moving_mean", f"{norm}/moving_variance")
        if any(name not in published for name in needed):
            continue  # reported as missing
        weight, beta, mean, variance = (published[name].double() for name in needed)
        weight = weight.permute(2, 3, 0, 1) if number % 2 else weight.permute(3, 2, 0, 1)
        gain = (variance + EPSILON).rsqrt()
        tensors[f"layers.{number}.weight"] = (weight * gain.view(-1, 1, 1, 1)).float()
        tensors[f"layers.{number}.bias"] = (beta - mean * gain).float()
    for name, value in published.items():  # of the classifier, which has no name of its own
        if name.endswith("/kernel") and value.ndim == 2:
            tensors["classifier.weight"] = value.T
        elif name.endswith("/bias"):
            tensors["classifier.bias"] = value
    return tensors
