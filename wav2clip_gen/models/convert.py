"""Published checkpoint -> a network, or one of our weights files: read safely, compared tensor by tensor.

The tensors of each published network (names, types, shapes) are data in `structures/`, one per line, written from
reference code by `python -m tests.structures`. An error names the one that a file resembles.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wav2clip_gen.config import suggestion
from wav2clip_gen.errors import WeightsError
from wav2clip_gen.files import hash_file
from wav2clip_gen.models import arrays, checkpoints, openl3, yamnet
from wav2clip_gen.models.checkpoints import Network
from wav2clip_gen.models.clip import Perceptor, silent_log
from wav2clip_gen.models.torch_files import TorchScriptError, read_state_dict

STRUCTURES = Path(__file__).with_name("structures")
KNOWN = {
    "wav2clip": "a Wav2CLIP",
    "vqgan-f16-1024": "a VQGAN (f16, 1,024 codes)",
    "vqgan-f16-8192": "a VQGAN (f16, 8,192 codes)",
    "vqgan-f16-16384": "a VQGAN (f16, 16,384 codes)",
    "vqgan-f8-8192-gumbel": "a Gumbel VQGAN (f8, 8,192 codes)",
    "clip-vit-b-32": "a CLIP ViT-B/32",
    "clip-vit-b-16": "a CLIP ViT-B/16",
    "clip-vit-l-14": "a CLIP ViT-L/14",
    "audioclip": "an AudioCLIP",  # before the CLIP that it contains
    "clip-rn50": "a CLIP RN50",
}
SIGNS = {  # starts of names that show what else a file may be
    "model.diffusion_model.": "a latent diffusion model",
    "transformer.tok_emb.": "a transformer over codes, without a first stage",
    "synthesis.": "a StyleGAN",
    "first_stage_model.": "a VQGAN inside another model, of another size",
    "quantize.proj.": "a Gumbel VQGAN, of another size",
    "quantize.embedding.": "a VQGAN, of another size",
    "audio_encoder.": "a Wav2CLIP, of another size",
    "visual.": "a CLIP, of another size",
    "text_model.": "a CLIP in the names of transformers, which are not read",
}


TRANSLATIONS = {
    "openl3": openl3.translate,
    "yamnet": yamnet.translate,
}  # role -> from published names and layouts to ours
PREFIXES = ("", "module.", "model.", "first_stage_model.")  # of wrappers; the last of a Net2NetTransformer


def convert(
    original: Path, out: Path, *, role: str, config: dict[str, Any], precision: str = "fp32", sha256: str = ""
) -> None:
    """Write the network inside a published checkpoint as a weights file of ours.

    Args:
        original: Wav2CLIP.pt; a VQGAN's .ckpt (VQModel, GumbelVQ, or the first stage inside a Net2NetTransformer); a
            CLIP's TorchScript archive or state dict; an AudioCLIP's; named arrays in an npz or a Keras HDF5 file.
        out: The weights file; it appears whole, and an old one is replaced.
        role: One that `checkpoints.build` knows.
        config: As for `checkpoints.build`.
        precision: Of the parameters written, "fp32", "fp16" or "bf16".
        sha256: Of the original, where it is known already.

    Raises:
        WeightsError: The file cannot be read, holds another network, or does not fit the precision.
        SettingsError: Reading it needs a package that is not installed.
        OutputError: `out` cannot be written.
    """
    network = read_network(original, role=role, config=config)
    made_of = {"file": original.name, "sha256": sha256 or hash_file(original)}
    checkpoints.save(network, out, original=made_of, precision=precision)


def read_network(original: Path, *, role: str, config: dict[str, Any]) -> Network:
    """The network inside a published checkpoint, float32, frozen; arguments and errors are those of `convert`."""
    try:
        network = checkpoints.build(role, config)
    except (TypeError, ValueError, RuntimeError) as error:
        what = f"{original}: its configuration builds no {role} ({error})"
        raise WeightsError(what, hint="put the YAML next to it that came with it") from None
    inner = network.model if isinstance(network, Perceptor) else network  # what was published
    wanted = inner.state_dict()
    modules = {name.partition(".")[0] for name in wanted}  # others belong to training
    found = _read_tensors(original, modules, archives=role == "clip")
    if role in TRANSLATIONS:
        try:
            found = TRANSLATIONS[role](found)
        except WeightsError as error:
            raise WeightsError(f"{original}: {error.what}", hint=error.hint) from None
    prefix = max(PREFIXES, key=lambda prefix: sum(prefix + name in found for name in wanted))
    named = {name.removeprefix(prefix): tensor for name, tensor in found.items() if name.startswith(prefix)}
    tensors = {name: tensor for name, tensor in named.items() if name.partition(".")[0] in modules}
    if wrong := checkpoints.differences(wanted, tensors):
        guess = recognize(found)
        hint = f"this seems to be {guess}" if guess else f"give a {role} of the kind that --as or its YAML names"
        raise WeightsError(f"{original}: {checkpoints.first_three(wrong)}", hint=hint)
    checkpoints.fill(network, tensors, into=inner)
    return network


def _read_tensors(path: Path, modules: set[str], *, archives: bool) -> dict[str, Tensor]:
    """The tensors in safetensors, npz, HDF5, a pickle (not run) or, with `archives`, OpenAI's TorchScript.

    Those outside of some modules may be on `meta`.
    """
    if path.suffix == ".safetensors":
        return checkpoints.read_tensors(path)
    if path.suffix == ".npz":
        return arrays.read_npz(path)
    if arrays.is_hdf5(path):
        return arrays.read_hdf5(path)
    try:
        return read_state_dict(path, lambda name: not modules.isdisjoint(name.split(".")))
    except TorchScriptError:
        if not archives:
            raise
        return _read_openai_archive(path)


@cache
def read_structure(name: str) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Tensor name -> (dtype, shape) of a published network, one of `KNOWN`."""
    lines = (line.split() for line in (STRUCTURES / f"{name}.txt").read_text(encoding="utf-8").splitlines())
    return {
        tensor: (dtype, tuple(int(side) for side in shape.split("x") if side != "()")) for tensor, dtype, shape in lines
    }


def recognize(tensors: dict[str, Tensor]) -> str | None:
    """What some tensors probably are, in words; None for something unknown."""

    def similarity(known: str) -> float:
        structure = read_structure(known)
        same = (name in tensors and tensors[name].shape == shape for name, (_, shape) in structure.items())
        return sum(same) / len(structure)

    best = max(KNOWN, key=similarity)
    if similarity(best) > 0.9:
        return KNOWN[best]
    return next((what for sign, what in SIGNS.items() if any(name.startswith(sign) for name in tensors)), None)


def _read_openai_archive(path: Path) -> dict[str, Tensor]:
    """What open_clip makes of OpenAI's archive: names as in its own models, float32.

    open_clip's own loader falls back to unpickling what is no TorchScript, so the archive is opened here.
    """
    from open_clip.model import build_model_from_openai_state_dict

    try:
        archived = torch.jit.load(str(path), map_location="cpu").state_dict()
        network: nn.Module = build_model_from_openai_state_dict(archived, cast_dtype=torch.float32).float()
    except Exception as error:  # torch.jit and open_clip raise whatever the damage leads to
        raise WeightsError(
            f"{path}: open_clip cannot read this TorchScript archive ({_first_line(error)})",
            hint="fetch it again; only OpenAI's own CLIP archives are read",
        ) from None
    return network.state_dict()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


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
        hint = suggestion(tag, known) if known else "open_clip.list_models() lists the architectures"
        raise WeightsError(f"open_clip knows no weights {asked}", hint=hint)
    _require_usable(architecture, tag)
    try:
        with silent_log():
            filled: Any = open_clip.create_model(architecture, pretrained=tag)
    except Exception as error:  # the hub's client has errors of its own, without a common base
        what = f"open_clip could not get {asked} ({_first_line(error)})"
        raise WeightsError(what, hint="check the network, and try again") from None
    prepared = filled.visual.preprocess_cfg
    network = Perceptor(architecture, mean=tuple(prepared["mean"]), std=tuple(prepared["std"]))
    network.model.load_state_dict(filled.state_dict())
    checkpoints.save(network, out, original={"file": asked, "sha256": ""}, precision=precision)


def _require_usable(architecture: str, tag: str) -> None:
    """Raise a WeightsError for what open_clip would build differently from its training, or not without the hub."""
    import open_clip

    config = open_clip.get_model_config(architecture) or {}
    if config.get("text_cfg", {}).get("hf_tokenizer_name"):
        raise WeightsError(
            f"{architecture} needs a tokenizer from the network",
            hint="use a CLIP with open_clip's own, such as ViT-B-16",
        )
    trained = open_clip.get_pretrained_cfg(architecture, tag)
    if bool(trained.get("quick_gelu", False)) != bool(config.get("quick_gelu", False)):
        plain = architecture.removesuffix("-quickgelu")
        other = plain if plain != architecture else f"{architecture}-quickgelu"
        raise WeightsError(f"{architecture}/{tag} was trained with another activation", hint=f"use {other}/{tag}")
