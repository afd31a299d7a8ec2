"""OpenL3, embeddings of sound that were trained on pictures of the same videos (Cramer et al., ICASSP 2019).

The network over 256 mel bands, with the front end that it was trained with: kapre 0.1.4's, whose bands are HTK's,
normalised by their areas (`norm=1` in librosa of that time, "slaney" since 0.8), of power spectra, as amplitudes in dB
below the loudest of a window. Names are those of the port to PyTorch, turian/torchopenl3.
"""

from __future__ import annotations

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wav2clip_gen.errors import WeightsError

SAMPLE_RATE = 48_000  # Hz
WINDOW = SAMPLE_RATE  # samples that are embedded at once
FFT_SIZE, HOP, BANDS = 2048, 242, 256
FLOOR, RANGE = 1e-10, 80.0  # least amplitude; dB below the loudest
WIDTHS = (64, 64, 128, 128, 256, 256, 512)  # channels of the convolutions but the last
POOLS = {512: (32, 24), 6144: (8, 8)}  # size of the embedding -> final pooling
EPSILON = 0.001  # of the batch norms


def mel_matrix() -> Tensor:
    """Weights (256, 1025) of the spectrum's bins in each band; the lowest bands lie between bins and some are empty."""
    import librosa

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Empty filters")
        mel = librosa.filters.mel(sr=SAMPLE_RATE, n_fft=FFT_SIZE, n_mels=BANDS, htk=True, norm="slaney")
    return torch.from_numpy(mel)


class OpenL3(nn.Module):
    """The sound network of OpenL3. Windows are (B, 48000) mono float32 in [-1, 1] at 48 kHz."""

    window: Tensor  # (2048,) periodic Hann
    mel: Tensor  # (256, 1025)

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(FFT_SIZE, periodic=True), persistent=False)
        self.register_buffer("mel", mel_matrix(), persistent=False)
        self.batch_normalization_1 = nn.BatchNorm2d(1, eps=EPSILON)
        inputs = 1
        for number, width in enumerate(WIDTHS, 1):
            self.add_module(f"conv2d_{number}", nn.Conv2d(inputs, width, kernel_size=3, padding=1))
            self.add_module(f"batch_normalization_{number + 1}", nn.BatchNorm2d(width, eps=EPSILON))
            inputs = width
        self.audio_embedding_layer = nn.Conv2d(inputs, inputs, kernel_size=3, padding=1)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.mel.device

    def log_mel(self, windows: Tensor) -> Tensor:
        """Turn windows (B, 48000) into mel spectrograms (B, 256, 199) in dB, from -80 to 0 at the loudest of each."""
        padding = FFT_SIZE - WINDOW % HOP  # as Keras's "same" pads a convolution
        padded = F.pad(windows, (padding // 2, padding - padding // 2))
        spectrum = torch.stft(padded, FFT_SIZE, HOP, window=self.window, center=False, return_complex=True)
        amplitude = (self.mel @ spectrum.abs().square()).sqrt()
        level = 10 * amplitude.clamp(min=FLOOR).log10()
        return (level - level.amax(dim=(1, 2), keepdim=True)).clamp(min=-RANGE)

    def forward(self, windows: Tensor, size: int = 512) -> Tensor:
        """Map windows (B, 48000) to embeddings (B, size); `size` is 512 or 6144."""
        x = self.batch_normalization_1(self.log_mel(windows).unsqueeze(1))
        for number in range(1, len(WIDTHS) + 1):
            x = F.relu(
                self.get_submodule(f"batch_normalization_{number + 1}")(self.get_submodule(f"conv2d_{number}")(x))
            )
            if number in (2, 4, 6):
                x = F.max_pool2d(x, 2)
        x = F.max_pool2d(self.audio_embedding_layer(x), POOLS[size])
        return x.permute(0, 2, 3, 1).flatten(1)  # as Keras flattens


def translate(published: dict[str, Tensor]) -> dict[str, Tensor]:
    """The network's tensors, by our names, in those of a published file.

    Args:
        published: The state dict of torchopenl3, which has our names, or the arrays of OpenL3's HDF5 file. Keras
            numbers layers by when they were made, so only their order counts.

    Raises:
        WeightsError: The file has another number of layers.
    """
    if not any("/" in name for name in published):
        return {name: value for name, value in published.items() if not name.startswith("speclayer.")}
    layers = {name.rpartition("/")[0] for name in published}
    convolutions, norms = (_numbered(layers, kind) for kind in ("conv2d", "batch_normalization"))
    if len(convolutions) != len(WIDTHS) or len(norms) != len(WIDTHS) + 1:
        what = f"{len(convolutions)} numbered convolutions and {len(norms)} batch norms, not 7 and 8"
        raise WeightsError(f"not OpenL3's sound network: {what}", hint="give openl3_audio_mel256_CONTENT-v0_4_0.h5.gz")
    names = {layer: f"conv2d_{number}" for number, layer in enumerate(convolutions, 1)}
    names |= {layer: f"batch_normalization_{number}" for number, layer in enumerate(norms, 1)}
    names["audio_embedding_layer"] = "audio_embedding_layer"
    kinds = {
        "kernel": "weight", "bias": "bias", "gamma": "weight", "beta": "bias",
        "moving_mean": "running_mean", "moving_variance": "running_var",
    }  # fmt: skip
    tensors = {f"{name}.num_batches_tracked": torch.tensor(0) for name in names.values() if name.startswith("batch")}
    for name, value in published.items():
        layer, _, kind = name.rpartition("/")
        if layer in names:  # others belong to the front end
            tensors[f"{names[layer]}.{kinds.get(kind, kind)}"] = (
                value.permute(3, 2, 0, 1) if kind == "kernel" else value
            )
    return tensors


def _numbered(layers: set[str], kind: str) -> list[str]:
    """The layers called KIND or KIND_NUMBER, in order."""
    numbers = {layer: layer.removeprefix(kind).removeprefix("_") or "0" for layer in layers if layer.startswith(kind)}
    return sorted(
        (layer for layer, number in numbers.items() if number.isdecimal()), key=lambda layer: int(numbers[layer])
    )
