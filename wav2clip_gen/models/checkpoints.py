"""Read and write one network as one safetensors file that carries its own configuration."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from wav2clip_gen.errors import OutputError, WeightsError
from wav2clip_gen.files import appear_whole
from wav2clip_gen.models.clip import Perceptor
from wav2clip_gen.models.prior import ConceptPrior as Prior
from wav2clip_gen.models.vqgan import VQGAN, VQGANConfig
from wav2clip_gen.models.wav2clip import Wav2CLIP, Wav2CLIPConfig

Network: TypeAlias = VQGAN | Wav2CLIP | Perceptor | Prior

FORMAT = 1  # of the header; a later incompatible one gets the next number
PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a weights file says of itself."""

    part: str  # vqgan, clip, wav2clip or prior
    config: dict[str, Any]  # arguments that rebuild the network
    training: dict[str, Any] = field(default_factory=dict)  # where the weights come from: steps, seed, data, scores
    original: dict[str, str] = field(default_factory=dict)  # name and sha256 of the file that was converted


def describe(network: nn.Module) -> tuple[str, dict[str, Any]]:
    """The part a network plays and the arguments that rebuild it."""
    if isinstance(network, VQGAN):
        return "vqgan", asdict(network.config)
    if isinstance(network, Wav2CLIP):
        return "wav2clip", asdict(network.config)
    if isinstance(network, Perceptor):
        colours = {"mean": network.mean.flatten().tolist(), "std": network.deviation.flatten().tolist()}
        return "clip", {"architecture": network.architecture, **colours}
    if isinstance(network, Prior):
        embedding, side = network.words.shape[1], network.layouts.shape[-1]
        return "prior", {"concepts": network.concepts, "embedding": embedding, "side": side}
    raise TypeError(f"{type(network).__name__} is no part of a family")


def build(header: Header) -> Network:
    """An untrained network as `header` describes it."""
    config: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in header.config.items()
    }
    if header.part == "vqgan":
        return VQGAN(VQGANConfig(**config))
    if header.part == "wav2clip":
        return Wav2CLIP(Wav2CLIPConfig(**config))
    if header.part == "prior":
        return Prior(**config)
    return Perceptor(**config)


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
        network: A VQGAN, a Wav2CLIP, a Perceptor or a Prior.
        path: The file; its folder is made.
        training: Where the weights come from.
        original: `file` and `sha256` of the file they were converted from.
        precision: "fp32", "fp16" or "bf16".

    Raises:
        WeightsError: A parameter is too large for this precision.
        OutputError: The disk does not take the file.
    """
    part, config = describe(network)
    kind = PRECISIONS[precision]
    parameters = {name for name, _ in network.named_parameters()}
    tensors = {
        name: (tensor.to(kind) if name in parameters else tensor).contiguous().cpu()
        for name, tensor in network.state_dict().items()
    }
    broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if broken:
        count = f"{len(broken)} tensors have" if len(broken) > 1 else "1 tensor has"
        raise WeightsError(
            f"{path}: {count} values that {precision} cannot hold: {first_three(broken)}",
            hint="use --precision bf16 or fp32; if it was that, fetch the original again: it is damaged",
        )
    header = Header(part=part, config=config, training=training or {}, original=original or {})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with appear_whole(path, option="folder") as part_file:
            part_file.touch()
            mode = part_file.stat().st_mode
            save_file(tensors, part_file, metadata={"w2c-gen": json.dumps({"format": FORMAT, **asdict(header)})})
            part_file.chmod(mode)  # safetensors lets nobody else read what it writes
    except (OSError, SafetensorError) as error:
        raise OutputError(
            f"cannot write {path}: {error}", hint="free some disk space, or choose another folder"
        ) from None


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
        raise WeightsError(f"{path}: not a weights file of w2c-gen", hint=_CONVERT) from None


def load(path: Path, *, part: str) -> Network:
    """Build the network that the file at `path` describes and fill it; float32, in evaluation mode, frozen.

    Raises:
        WeightsError: The file is missing, truncated, for another part, or has other names or shapes than its
            network.
    """
    header = read_header(path)
    if header.part != part:
        raise WeightsError(f"{path}: holds a {header.part}, not a {part}", hint=f"give a file that holds a {part}")
    try:
        network = unfilled(header)
    except (TypeError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{path}: its configuration builds no {part}: {error}", hint=_DAMAGED) from None
    tensors = read_tensors(path)
    wrong = differences(network.state_dict(), tensors)
    if wrong:
        raise WeightsError(f"{path}: {first_three(wrong)}", hint=_DAMAGED)
    fill(network, tensors)
    network.requires_grad_(False)
    network.eval()
    return network


_CONVERT = "make one of it: `w2c-gen weights convert FILE --as NAME --out OTHER.safetensors`"
_DAMAGED = "the file is damaged: `w2c-gen weights verify` tells more; fetch it again, or reinstall w2c-gen"


def _open(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such weights file", hint="run `w2c-gen doctor`") from None
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: not a readable safetensors file ({error})", hint=_DAMAGED) from None


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, mapped from the disk.

    Raises:
        WeightsError: The file is missing, truncated, or no safetensors file.
    """
    with _open(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)


def digest(path: Path) -> str:
    """What tells the tensors of a weights file from others', hexadecimal, whatever its header says.

    Raises:
        WeightsError: The file is missing, truncated, or no safetensors file.
    """
    found = hashlib.sha256()
    for name, tensor in sorted(read_tensors(path).items()):
        found.update(name.encode() + tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def unfilled(header: Header) -> Network:
    """The network that `header` describes, where possible without memory for its parameters (on `meta`)."""
    if header.part == "clip":  # open_clip computes constants while it builds
        return build(header)
    with torch.device("meta"):
        return build(header)


def fill(network: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Give a network its tensors, as float32; what is float32 on disk stays mapped there."""
    network.load_state_dict(
        {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()},
        assign=True,
    )


def differences(wanted: dict[str, Tensor], found: dict[str, Tensor]) -> list[str]:
    """In what names, shapes and values `found` differs from what a network wants; empty when it fits."""
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
