"""Read and write one network as one safetensors file that holds its own configuration."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from wav2clip_gen.errors import OutputError, WeightsError
from wav2clip_gen.files import appear_whole
from wav2clip_gen.models.audioclip import AudioCLIP
from wav2clip_gen.models.clip import ConceptPrior, Perceptor
from wav2clip_gen.models.openl3 import OpenL3
from wav2clip_gen.models.store import Header
from wav2clip_gen.models.store import read_header as read_header  # noqa: PLC0414 (re-exported)
from wav2clip_gen.models.vqgan import VQGAN, VQGANConfig
from wav2clip_gen.models.wav2clip import Wav2CLIP, Wav2CLIPConfig
from wav2clip_gen.models.yamnet import YAMNet

Network: TypeAlias = VQGAN | Wav2CLIP | Perceptor | ConceptPrior | AudioCLIP | OpenL3 | YAMNet

ON_CPU: dict[str, Callable[..., Network]] = {  # by role
    "clip": Perceptor, "audioclip": AudioCLIP, "openl3": OpenL3, "yamnet": YAMNet,
}  # fmt: skip
PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_DAMAGED = "the file is damaged: run `w2c-gen weights verify`, fetch it again, or reinstall w2c-gen"


def describe(network: nn.Module) -> tuple[str, dict[str, Any]]:
    """The role of a network and the arguments that rebuild it."""
    if isinstance(network, VQGAN):
        return "vqgan", asdict(network.config)
    if isinstance(network, Wav2CLIP):
        return "wav2clip", asdict(network.config)
    if isinstance(network, Perceptor):
        colors = {"mean": network.mean.flatten().tolist(), "std": network.deviation.flatten().tolist()}
        config = {"architecture": network.architecture, **colors}
        return (
            ("audioclip", {**config, "blocks": network.blocks}) if isinstance(network, AudioCLIP) else ("clip", config)
        )
    if isinstance(network, ConceptPrior):
        sizes = {"embedding": network.words.shape[1], "side": network.layouts.shape[-1], "modes": network.modes}
        return "prior", {"concepts": network.concepts, **sizes}
    if isinstance(network, OpenL3 | YAMNet):
        return ("openl3" if isinstance(network, OpenL3) else "yamnet"), {}
    raise TypeError(f"{type(network).__name__} has no role")


def build(role: str, config: dict[str, Any], *, device: str = "meta") -> Network:
    """An untrained network.

    Args:
        role: "vqgan", "wav2clip", "clip", "prior", "audioclip", "openl3" or "yamnet".
        config: Fields of `VQGANConfig` or `Wav2CLIPConfig`, or arguments of the other networks.
        device: By default `meta`, which takes no memory; a CLIP is always built on the CPU, as open_clip needs it, and
            so are networks with constants that are in no file.
    """
    config = {name: tuple(value) if isinstance(value, list) else value for name, value in config.items()}
    if role in ON_CPU:
        return ON_CPU[role](**config)
    with torch.device(device):
        if role == "vqgan":
            return VQGAN(VQGANConfig(**config))
        return Wav2CLIP(Wav2CLIPConfig(**config)) if role == "wav2clip" else ConceptPrior(**config)


def save(
    network: nn.Module,
    path: Path,
    *,
    training: dict[str, Any] | None = None,
    original: dict[str, str] | None = None,
    precision: str = "fp16",
) -> None:
    """Write `network` to `path`, whole or not at all: parameters as `precision`, statistics (buffers) as they are.

    Args:
        network: One that `describe` knows.
        path: The file; its folder is made.
        training: Where the weights come from.
        original: `file` and `sha256` of the file they were converted from.
        precision: "fp32", "fp16" or "bf16".

    Raises:
        WeightsError: A parameter is too large for this precision.
        OutputError: The disk does not take the file.
    """
    role, config = describe(network)
    parameters = {name for name, _ in network.named_parameters()}
    tensors = {
        name: (tensor.to(PRECISIONS[precision]) if name in parameters else tensor).contiguous().cpu()
        for name, tensor in network.state_dict().items()
    }
    broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if broken:
        count = f"{len(broken)} tensors have" if len(broken) > 1 else "1 tensor has"
        raise WeightsError(
            f"{path}: {count} values that {precision} cannot hold: {first_three(broken)}",
            hint="use --precision bf16 or fp32; if it was that, fetch the original again: it is damaged",
        )
    header = Header(role=role, config=config, training=training or {}, original=original or {})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with appear_whole(path, option="folder") as scratch:
            scratch.touch()
            mode = scratch.stat().st_mode
            save_file(tensors, scratch, metadata=header.metadata())
            scratch.chmod(mode)  # safetensors makes its files unreadable for others
    except (OSError, SafetensorError) as error:
        hint = "free some disk space, or choose another folder"
        raise OutputError(f"cannot write {path}: {error}", hint=hint) from None


def load(path: Path, *, role: str) -> Network:
    """Build the network that the file at `path` describes and fill it; float32, in evaluation mode, frozen.

    Raises:
        WeightsError: The file is missing, truncated, for another role, or has other names or shapes than its network.
    """
    header = read_header(path)
    if header.role != role:
        raise WeightsError(f"{path}: holds a {header.role}, not a {role}", hint=f"give a file that holds a {role}")
    try:
        network = build(role, header.config)
    except (TypeError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{path}: its configuration builds no {role}: {error}", hint=_DAMAGED) from None
    tensors = read_tensors(path)
    if wrong := differences(network.state_dict(), tensors):
        raise WeightsError(f"{path}: {first_three(wrong)}", hint=_DAMAGED)
    fill(network, tensors)
    return network


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, mapped from the disk.

    Raises:
        WeightsError: The file is missing, truncated, or no safetensors file.
    """
    try:
        return load_file(path)
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such weights file", hint="run `w2c-gen doctor`") from None
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: not a readable safetensors file ({error})", hint=_DAMAGED) from None


def digest(path: Path) -> str:
    """A SHA-256, hexadecimal, of the tensors in a weights file, independent of its header.

    Raises:
        WeightsError: The file is missing, truncated, or no safetensors file.
    """
    found = hashlib.sha256()
    for name, tensor in sorted(read_tensors(path).items()):
        found.update(name.encode() + tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def fill(network: nn.Module, tensors: dict[str, Tensor], *, into: nn.Module | None = None) -> None:
    """Give a network its tensors as float32, freeze it and put it in evaluation mode.

    Args:
        network: From `build`.
        tensors: What is float32 on disk stays mapped there.
        into: The module of the network that the tensors are for, if not all of it.
    """
    tensors = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    (into or network).load_state_dict(tensors, assign=True)
    network.requires_grad_(False).eval()


def differences(wanted: dict[str, Tensor], found: dict[str, Tensor]) -> list[str]:
    """In which names, shapes and values `found` differs from what a network needs; empty when it fits."""
    wrong = [f"{name} is missing" for name in wanted.keys() - found.keys()]
    wrong += [f"{name} is unknown" for name in found.keys() - wanted.keys()]
    for name in wanted.keys() & found.keys():
        if wanted[name].shape != found[name].shape:
            wrong.append(f"{name} is {tuple(found[name].shape)}, not {tuple(wanted[name].shape)}")
        elif not torch.isfinite(found[name]).all():
            wrong.append(f"{name} is not finite")
    return sorted(wrong)


def first_three(wrong: list[str]) -> str:
    """The first of some faults, and how many more there are."""
    more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
    return "; ".join(wrong[:3]) + more


def write_random(out: Path, *, role: str, config: dict[str, Any], seed: int = 0, precision: str = "fp16") -> None:
    """Write a network with random weights, marked `training: {"random": seed}`; arguments as for `build` and `save`."""
    save(random_network(role, config, seed=seed), out, training={"random": seed}, precision=precision)


def random_network(role: str, config: dict[str, Any], *, seed: int = 0) -> Network:
    """A network in evaluation mode whose every weight and statistic is drawn from a generator of `seed`.

    Weights of two or more dimensions are scaled by their fan-in, so that signals neither vanish nor explode; of the
    others, gains stay near 1, biases near 0, a temperature where it was.
    """
    network = build(role, config, device="cpu")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            scaled = parameter.ndim > 1
            parameter.copy_(noise * parameter[0].numel() ** -0.5 if scaled else parameter + 0.02 * noise)
        for name, buffer in network.named_buffers():
            if name.endswith("running_var"):
                buffer.copy_(1 + 0.1 * torch.rand(buffer.shape, generator=generator))
            elif name.endswith("running_mean"):
                buffer.copy_(0.1 * torch.randn(buffer.shape, generator=generator))
    return network.requires_grad_(False).eval()
