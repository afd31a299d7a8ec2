"""Sound encoders behind one interface: a sound in, frozen features over time and one vector out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wav2clip_gen.errors import SettingsError
from wav2clip_gen.models import checkpoints, manifest, openl3, store, yamnet
from wav2clip_gen.models.audioclip import AudioCLIP, ESResNeXt
from wav2clip_gen.models.clip import Perceptor
from wav2clip_gen.models.openl3 import OpenL3
from wav2clip_gen.models.wav2clip import windows_of
from wav2clip_gen.models.yamnet import YAMNet

BATCH = 128  # windows at a time
FAMILIES = {"mini": "mini", "wav2clip": "full"}  # encoder -> family of models


class Encoded(NamedTuple):
    """What an encoder makes of a sound."""

    frames: Tensor  # (T, D) features, one per hop, on the CPU
    vector: Tensor  # (E,) of the whole sound, on the CPU; a unit vector of the shared space where there is one


class SoundEncoder(ABC):
    """A frozen encoder of sound, perhaps with encoders of text and pictures in the same space."""

    name: str  # as it was asked for
    identity: str  # changes with the weights and the computation: names the features in a cache
    rate: int  # Hz of its input
    trained_on: frozenset[str] = frozenset()  # recordings (Freesound numbers) that its training used, where known

    @abstractmethod
    def encode(self, sound: Tensor, hop: float) -> Encoded:
        """Encode a sound (N,), float32 mono in [-1, 1] at `rate` Hz, with a frame every `hop` seconds."""

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors (N, E), on the CPU, of texts.

        Raises:
            SettingsError: The encoder has no text side.
        """
        raise SettingsError(f"{self.name} has no text encoder", hint="use mini, wav2clip or audioclip for this task")

    def encode_images(self, images: Tensor) -> Tensor:
        """Unit vectors (N, E), on the CPU, of pictures (N, 3, H, W) in [0, 1].

        Raises:
            SettingsError: The encoder has no picture side.
        """
        raise SettingsError(f"{self.name} has no picture encoder", hint="use mini, wav2clip or audioclip for this task")


class LogMelEncoder(SoundEncoder):
    """The baseline that has learnt nothing: mean and deviation of 64 log-mel bands over windows of a second."""

    name, identity, rate = "log-mel", "log-mel-1", 16_000

    def __init__(self) -> None:
        from torchaudio.transforms import MelSpectrogram

        self.mel = MelSpectrogram(self.rate, n_fft=512, hop_length=160, n_mels=64)

    @torch.no_grad()
    def encode(self, sound: Tensor, hop: float) -> Encoded:
        """Frames (T, 128) of windows of one second; the vector is their mean."""
        windows = windows_of(sound, self.rate, round(hop * self.rate))
        mel = torch.log(self.mel(windows) + 1e-6)
        frames = torch.cat([mel.mean(dim=-1), mel.std(dim=-1)], dim=-1)
        return Encoded(frames, frames.mean(dim=0))


class SharedSpaceEncoder(SoundEncoder):
    """An encoder of sound in the space of a CLIP."""

    perceptor: Perceptor

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors (N, E), by CLIP."""
        chunks = (list(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH))
        return torch.cat([self.perceptor.encode_text(chunk).cpu() for chunk in chunks])

    @torch.no_grad()
    def encode_images(self, images: Tensor) -> Tensor:
        """Unit vectors (N, E), by CLIP."""
        size = self.perceptor.size
        batches = F.interpolate(images, size=(size, size), mode="area").split(BATCH)
        return torch.cat([self.perceptor.encode_images(batch.to(self.perceptor.device)).cpu() for batch in batches])


class Wav2CLIPEncoder(SharedSpaceEncoder):
    """Wav2CLIP and the CLIP in whose space it embeds."""

    rate = 16_000

    def __init__(self, name: str, device: torch.device, weights_dir: Path | None = None) -> None:
        from wav2clip_gen.models import registry

        self.name = name
        self.models = registry.load_family(FAMILIES[name], device=device, weights_dir=weights_dir)
        self.perceptor = self.models.clip
        path = self.models.files["wav2clip"]
        # 2: only audible windows count for the statistics
        self.identity = f"wav2clip-2-{checkpoints.digest(path)[:16]}"
        self.trained_on = frozenset(checkpoints.read_header(path).training.get("freesound", ()))

    @torch.no_grad()
    def encode(self, sound: Tensor, hop: float) -> Encoded:
        """Frames (T, 512) are the network's outputs for windows of one second; the vector is `encode_sound`'s."""
        return Encoded(*self.models.wav2clip.encode_sound(windows_of(sound, self.rate, round(hop * self.rate))))


class AudioCLIPEncoder(SharedSpaceEncoder):
    """AudioCLIP: all three sides are of one checkpoint."""

    rate = ESResNeXt.sample_rate
    longest = 10.0  # seconds that are encoded at a time, as in its training

    def __init__(self, name: str, device: torch.device, weights_dir: Path | None) -> None:
        network, self.identity = _load_part(name, device, weights_dir)
        self.name = name
        self.network = self.perceptor = cast(AudioCLIP, network)

    @torch.no_grad()
    def encode(self, sound: Tensor, hop: float) -> Encoded:
        """Frames (T, 1024) are unit vectors of windows of one second.

        The vector is that of the whole sound, as the authors evaluate it; of a sound of more than 10 s, the unit mean
        of equal pieces.
        """
        windows = windows_of(sound, self.rate, round(hop * self.rate))
        frames = self.network.audio.encode_windows(lambda: windows.split(BATCH // 4))
        pieces = sound.tensor_split(-(-len(sound) // round(self.longest * self.rate)))
        vectors = self.network.audio.encode_windows(lambda: (piece[None] for piece in pieces))
        return Encoded(frames, F.normalize(vectors.mean(dim=0), dim=0))


class YAMNetEncoder(SoundEncoder):
    """YAMNet's embedding, before its classifier."""

    name, rate = "yamnet", 16_000

    def __init__(self, device: torch.device, weights_dir: Path | None) -> None:
        network, self.identity = _load_part("yamnet", device, weights_dir)
        self.network = cast(YAMNet, network)
        self.device = device

    @torch.no_grad()
    def encode(self, sound: Tensor, hop: float) -> Encoded:
        """Frames (T, 1024) of patches of 0.96 s, `hop` seconds apart to 10 ms; the vector is their mean."""
        columns = self.network.log_mel(sound.to(self.device)[None])[0]
        patches = columns.unfold(0, yamnet.PATCH, max(round(hop * yamnet.RATE / yamnet.HOP), 1)).transpose(1, 2)
        frames = torch.cat([self.network.embed(batch).cpu() for batch in patches.split(BATCH)])
        return Encoded(frames, frames.mean(dim=0))


class OpenL3Encoder(SoundEncoder):
    """OpenL3 over 256 mel bands, as its authors' package slides it over a sound."""

    rate = openl3.SAMPLE_RATE

    def __init__(self, name: str, device: torch.device, weights_dir: Path | None) -> None:
        part, _, size = name.rpartition("-")
        network, identity = _load_part(part, device, weights_dir)
        self.name, self.identity = name, f"{identity}-{size}"
        self.network, self.size = cast(OpenL3, network), int(size)

    @torch.no_grad()
    def encode(self, sound: Tensor, hop: float) -> Encoded:
        """Frames (T, 512 or 6144) of windows of one second, the first centred at the start; the vector is their mean.

        Zeros before the start and after the end fill up the first and the last window.
        """
        half, step = openl3.WINDOW // 2, max(round(hop * self.rate), 1)
        count = 1 + max(-(-(len(sound) - half) // step), 0)
        padded = F.pad(sound, (half, max((count - 1) * step + half - len(sound), 0)))
        windows = padded.unfold(0, openl3.WINDOW, step)[:count]
        frames = [self.network(batch.to(self.network.device), self.size).cpu() for batch in windows.split(BATCH // 8)]
        return Encoded(torch.cat(frames), torch.cat(frames).mean(dim=0))


def _load_part(name: str, device: torch.device, weights_dir: Path | None) -> tuple[nn.Module, str]:
    """The network of a part of the manifest, on a device, and what identifies it.

    Raises:
        WeightsError: Its weights are missing or damaged.
    """
    part = manifest.part(name)
    path = store.require_part(part, weights_dir)
    network = checkpoints.load(path, role=part.role).to(device)
    return network, f"{name}-{checkpoints.digest(path)[:16]}"


ENCODERS = {  # name -> what it is
    "mini": "Wav2CLIP of the small family",
    "wav2clip": "the published Wav2CLIP with CLIP ViT-B/32",
    "audioclip": "AudioCLIP, whose CLIP was kept as it was",
    "audioclip-full": "AudioCLIP, trained with its CLIP",
    "openl3-music-512": "OpenL3, trained on music, 512 dimensions",
    "openl3-music-6144": "OpenL3, trained on music, 6144 dimensions",
    "openl3-env-512": "OpenL3, trained on sounds of the environment, 512 dimensions",
    "openl3-env-6144": "OpenL3, trained on sounds of the environment, 6144 dimensions",
    "yamnet": "YAMNet, a classifier of AudioSet's sounds",
    "log-mel": "log-mel statistics, a baseline that has learnt nothing",
}


def load_encoder(name: str, *, device: torch.device, weights_dir: Path | None = None) -> SoundEncoder:
    """Load an encoder by its name.

    Raises:
        SettingsError: There is no such encoder.
        WeightsError: Its weights are missing or damaged.
    """
    from wav2clip_gen.config import suggestion

    if name == "log-mel":
        return LogMelEncoder()
    if name in FAMILIES:
        return Wav2CLIPEncoder(name, device, weights_dir)
    if name.startswith("audioclip") and name in ENCODERS:
        return AudioCLIPEncoder(name, device, weights_dir)
    if name.startswith("openl3-") and name in ENCODERS:
        return OpenL3Encoder(name, device, weights_dir)
    if name == "yamnet":
        return YAMNetEncoder(device, weights_dir)
    raise SettingsError(f"there is no encoder {name!r}", hint=suggestion(name, list(ENCODERS)))
