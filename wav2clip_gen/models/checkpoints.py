"""Read and write one network as one safetensors file that carries its own configuration."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from wav2clip_gen.errors import WeightsError
from wav2clip_gen.files import appear_whole
from wav2clip_gen.models.clip import Perceptor
from wav2clip_gen.models.vqgan import VQGAN, VQGANConfig
from wav2clip_gen.models.wav2clip import Wav2CLIP, Wav2CLIPConfig

FORMAT = 1  # of the header; a later incompatible one gets the next number


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a weights file says of itself."""

    part: str  # vqgan, clip or wav2clip
    config: dict[str, Any]  # arguments that rebuild the network
    training: dict[str, Any] = field(default_factory=dict)  # where the weights come from: steps, seed, data, scores


def describe(network: nn.Module) -> tuple[str, dict[str, Any]]:
    """The part a network plays and the arguments that rebuild it."""
    if isinstance(network, VQGAN):
        return "vqgan", asdict(network.config)
    if isinstance(network, Wav2CLIP):
        return "wav2clip", asdict(network.config)
    if isinstance(network, Perceptor):
        return "clip", {"architecture": network.architecture}
    raise TypeError(f"{type(network).__name__} is no part of a family")


def build(header: Header) -> VQGAN | Wav2CLIP | Perceptor:
    """An untrained network as `header` describes it."""
    config: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in header.config.items()
    }
    if header.part == "vqgan":
        return VQGAN(VQGANConfig(**config))
    if header.part == "wav2clip":
        return Wav2CLIP(Wav2CLIPConfig(**config))
    return Perceptor(**config)


def save(network: nn.Module, path: Path, *, training: dict[str, Any] | None = None) -> None:
    """Write `network` to `path`, whole or not at all: parameters as fp16, statistics (buffers) as they are."""
    part, config = describe(network)
    parameters = {name for name, _ in network.named_parameters()}
    tensors = {
        name: (tensor.half() if name in parameters else tensor).contiguous().cpu()
        for name, tensor in network.state_dict().items()
    }
    header = Header(part=part, config=config, training=training or {})
    path.parent.mkdir(parents=True, exist_ok=True)
    with appear_whole(path) as part_file:
        save_file(tensors, part_file, metadata={"w2c-gen": json.dumps({"format": FORMAT, **asdict(header)})})


def read_header(path: Path) -> Header:
    """What the file at `path` says of itself, without reading its tensors.

    Raises:
        WeightsError: The file is missing, truncated, or none of ours.
    """
    with _open(path) as file:
        metadata = file.metadata() or {}
    try:
        fields = json.loads(metadata["w2c-gen"])
        if fields.pop("format") != FORMAT:
            raise WeightsError(f"{path}: written by another version of w2c-gen", hint="update w2c-gen")
        return Header(**fields)
    except (KeyError, TypeError, json.JSONDecodeError):
        raise WeightsError(f"{path}: not a weights file of w2c-gen", hint="run `w2c-gen doctor`") from None


def load(path: Path, *, part: str) -> VQGAN | Wav2CLIP | Perceptor:
    """Build the network that the file at `path` describes and fill it; float32, in evaluation mode, frozen.

    Raises:
        WeightsError: The file is missing, truncated, for another part, or has other names or shapes than its
            network.
    """
    header = read_header(path)
    if header.part != part:
        raise WeightsError(f"{path}: holds a {header.part}, not a {part}", hint="was the file renamed?")
    try:
        network = build(header)
    except (TypeError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{path}: its configuration builds no {part}: {error}", hint=_DAMAGED) from None
    with _open(path) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    _compare(path, network.state_dict(), tensors)
    network.load_state_dict(tensors)
    network.requires_grad_(False)
    network.eval()
    return network


_DAMAGED = "the file is damaged: put back the one that came with w2c-gen"


def _open(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such weights file", hint="run `w2c-gen doctor`") from None
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: not a readable safetensors file ({error})", hint=_DAMAGED) from None


def _compare(path: Path, wanted: dict[str, Tensor], found: dict[str, Tensor]) -> None:
    """Raise, naming the first three differences, unless names and shapes agree and all values are finite."""
    wrong = [f"{name} is missing" for name in wanted.keys() - found.keys()]
    wrong += [f"{name} is unknown" for name in found.keys() - wanted.keys()]
    for name in sorted(wanted.keys() & found.keys()):
        if wanted[name].shape != found[name].shape:
            wrong.append(f"{name} is {tuple(found[name].shape)}, not {tuple(wanted[name].shape)}")
        elif not torch.isfinite(found[name]).all():
            wrong.append(f"{name} is not finite")
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise WeightsError(f"{path}: {'; '.join(sorted(wrong)[:3])}{more}", hint=_DAMAGED)
