"""Published checkpoint -> one of our weights files: read safely, compared tensor by tensor, written once."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wav2clip_gen.config import suggestion
from wav2clip_gen.errors import WeightsError
from wav2clip_gen.files import hash_file
from wav2clip_gen.models import checkpoints
from wav2clip_gen.models.checkpoints import Header
from wav2clip_gen.models.clip import Perceptor, silent_log
from wav2clip_gen.models.structures import recognise


@dataclass(frozen=True)
class Layout:
    """How one role's tensors lie in the checkpoints that people have."""

    prefixes: tuple[str, ...]  # that wrappers put before every name
    ours: tuple[str, ...]  # first words of the names that are wanted; other names belong to training


LAYOUTS = {
    "wav2clip": Layout(("", "module."), ("audio_encoder", "audio_transform")),
    "vqgan": Layout(
        ("", "first_stage_model.", "module.", "model."),  # the second inside a Net2NetTransformer
        ("encoder", "decoder", "quantize", "quant_conv", "post_quant_conv"),
    ),
    "clip": Layout(("", "module."), ()),  # all of it
}


def convert(
    original: Path, out: Path, *, role: str, config: dict[str, Any], precision: str = "fp32", sha256: str = ""
) -> None:
    """Write the network inside a published checkpoint as a weights file of ours.

    Args:
        original: Wav2CLIP.pt; a VQGAN's .ckpt (VQModel, GumbelVQ, or the first stage inside a Net2NetTransformer); a
            CLIP's TorchScript archive or state dict.
        out: The weights file; it appears whole, and an old one is replaced.
        role: "wav2clip", "vqgan" or "clip".
        config: What builds the network: fields of `Wav2CLIPConfig` or `VQGANConfig`, or `architecture`, a name that
            open_clip knows.
        precision: Of the parameters written, "fp32", "fp16" or "bf16".
        sha256: Of the original, where it is known already.

    Raises:
        WeightsError: The file cannot be read, holds another network, or does not fit the precision.
        OutputError: `out` cannot be written.
    """
    try:
        network = checkpoints.unfilled(Header(part=role, config=config))
    except (TypeError, ValueError, RuntimeError) as error:
        what = f"{original}: its configuration builds no {role} ({error})"
        raise WeightsError(what, hint="put the YAML beside it that came with it") from None
    found = read_tensors(original, role=role)
    wanted = _inside(network).state_dict()
    tensors = without_wrapping(found, wanted, LAYOUTS[role])
    wrong = checkpoints.differences(wanted, tensors)
    if wrong:
        guess = recognise(found)
        raise WeightsError(
            f"{original}: {checkpoints.first_three(wrong)}",
            hint=f"this seems to be {guess}" if guess else f"give a {role} of the kind that --as or its YAML names",
        )
    checkpoints.fill(_inside(network), tensors)
    made_of = {"file": original.name, "sha256": sha256 or hash_file(original)}
    checkpoints.save(network, out, original=made_of, precision=precision)


def _inside(network: nn.Module) -> nn.Module:
    """The network that was published: of a perceptor, open_clip's model."""
    return network.model if isinstance(network, Perceptor) else network


def read_tensors(path: Path, *, role: str) -> dict[str, Tensor]:
    """Names and tensors of a checkpoint: safetensors, a pickle (of which nothing is run), or OpenAI's TorchScript.

    Raises:
        WeightsError: It cannot be read.
    """
    if path.suffix == ".safetensors":
        return checkpoints.read_tensors(path)
    if role == "clip" and is_torchscript(path):
        return _openai_tensors(path)
    from wav2clip_gen.models.pickles import read_state_dict

    return read_state_dict(path)


def is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive, as OpenAI publishes CLIP; nothing may stand before its first entry."""
    try:
        with path.open("rb") as file:
            if file.read(4) != b"PK\x03\x04":
                return False
        with zipfile.ZipFile(path) as archive:
            return any(name.split("/")[1:] == ["constants.pkl"] for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def _openai_tensors(path: Path) -> dict[str, Tensor]:
    """What open_clip makes of OpenAI's archive: names as in its own models, float32.

    open_clip's own loader falls back to unpickling what is no TorchScript, so the archive is opened here.
    """
    from open_clip.model import build_model_from_openai_state_dict

    try:
        archived = torch.jit.load(str(path), map_location="cpu").state_dict()
        network: nn.Module = build_model_from_openai_state_dict(archived, cast_dtype=torch.float32).float()
    except Exception as error:  # torch.jit and open_clip raise whatever the damage leads to
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise WeightsError(
            f"{path}: open_clip cannot read this TorchScript archive ({said[0]})",
            hint="fetch it again; only OpenAI's own CLIP archives are read",
        ) from None
    return network.state_dict()


def without_wrapping(tensors: dict[str, Tensor], wanted: dict[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    """The tensors of our role under our names: the wrapper's prefix off, and without what only training needs."""
    prefix = max(layout.prefixes, key=lambda prefix: sum(prefix + name in tensors for name in wanted))
    named = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    if not layout.ours:
        return named
    return {name: tensor for name, tensor in named.items() if name.split(".")[0] in layout.ours}


def fetch_tag(asked: str, out: Path, *, precision: str = "fp32") -> None:
    """Let open_clip fetch the weights it knows as `ARCHITECTURE/TAG`, and keep them as a weights file of ours.

    Raises:
        WeightsError: open_clip knows no such weights, or cannot get them.
        OutputError: `out` cannot be written.
    """
    import open_clip

    architecture, _, tag = asked.partition("/")
    known = open_clip.list_pretrained_tags_by_model(architecture)
    if tag not in known:
        hint = suggestion(tag, known) if known else "open_clip.list_models() tells the architectures"
        raise WeightsError(f"open_clip knows no weights {asked}", hint=hint)
    _require_usable(architecture, tag)
    try:
        with silent_log():
            filled: Any = open_clip.create_model(architecture, pretrained=tag)
    except Exception as error:  # the hub's client has errors of its own, without a common base
        said = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise WeightsError(
            f"open_clip could not get {asked} ({said})", hint="check the network, and try again"
        ) from None
    prepared = filled.visual.preprocess_cfg
    network = Perceptor(architecture, mean=tuple(prepared["mean"]), std=tuple(prepared["std"]))
    network.model.load_state_dict(filled.state_dict())
    checkpoints.save(network, out, original={"file": asked, "sha256": ""}, precision=precision)


def _require_usable(architecture: str, tag: str) -> None:
    """Raise a WeightsError for what open_clip would build otherwise than it was trained, or not without the hub."""
    import open_clip

    config = open_clip.get_model_config(architecture) or {}
    if config.get("text_cfg", {}).get("hf_tokenizer_name"):
        raise WeightsError(
            f"{architecture} reads words only with a tokenizer from the network",
            hint="take a CLIP with open_clip's own, such as ViT-B-16",
        )
    trained = open_clip.get_pretrained_cfg(architecture, tag)
    if bool(trained.get("quick_gelu", False)) != bool(config.get("quick_gelu", False)):
        plain = architecture.removesuffix("-quickgelu")
        other = plain if plain != architecture else f"{architecture}-quickgelu"
        raise WeightsError(f"{architecture}/{tag} was trained with another activation", hint=f"take {other}/{tag}")
