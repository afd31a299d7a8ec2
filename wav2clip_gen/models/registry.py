"""From a name to networks on a device: which ones a film needs, and loading them.

Imports torch only to load networks; loading writes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wav2clip_gen.config import RunSettings, read_yaml
from wav2clip_gen.errors import SettingsError, WeightsError
from wav2clip_gen.models import manifest, store

if TYPE_CHECKING:
    import torch

    from wav2clip_gen.models.audioclip import ESResNeXt
    from wav2clip_gen.models.clip import ConceptPrior, Perceptor
    from wav2clip_gen.models.vqgan import VQGAN
    from wav2clip_gen.models.wav2clip import Wav2CLIP

FAMILIES = ("full", "mini")  # the better one first
WITH_AUDIO = ("vit-b-32", "mini-clip")  # the perceptors in whose space Wav2CLIP embeds sound
SETTINGS = {"wav2clip": "encoder", "clip": "perceptor", "vqgan": "vqgan"}  # role -> the setting that names another
ENCODERS = ("wav2clip", "audioclip")  # roles of the files that may embed a film's sound
AUDIOCLIP, AUDIOCLIP_PERCEPTOR = "audioclip", "rn50"  # it was trained in the space of this one
CHECKPOINTS = (".ckpt", ".pt", ".pth")
DDCONFIG = ("ch", "ch_mult", "num_res_blocks", "attn_resolutions", "resolution", "z_channels")
FIXED = {"in_channels": 3, "out_ch": 3, "double_z": False}  # what RGB pictures and our decoder need


# --- which networks a film needs


@dataclass(frozen=True)
class Component:
    """A network of a film."""

    name: str  # as it was asked for
    path: Path  # its weights file, or a checkpoint of the user's own
    hint: str = ""  # what to do where that is missing
    holds: str = ""  # the role that its file states, where that is another one

    @property
    def is_checkpoint(self) -> bool:
        """Whether it is read from a checkpoint of the user's own, with a YAML file next to it."""
        return self.path.suffix != ".safetensors"


@dataclass(frozen=True)
class ModelSelection:
    """The networks of a film, by role."""

    components: dict[str, Component]
    family: str
    named: dict[str, Any] = field(default_factory=dict)  # setting -> as it was asked for, where it is not the family's

    @property
    def files(self) -> dict[str, Path]:
        """Role -> file."""
        return {role: component.path for role, component in self.components.items()}

    def require(self) -> None:
        """Raise a WeightsError where a file is missing."""
        for component in self.components.values():
            store.require_file(component.path, component.hint)


def resolve_family(name: str, weights_dir: Path | None = None) -> str:
    """The family meant by `name`; "auto" is the best one whose files are all in place, and none of them random.

    Raises:
        WeightsError: There is no family of that name.
    """
    if name == "auto":
        return next((family for family in FAMILIES if _is_complete(family, weights_dir)), FAMILIES[-1])
    if name not in FAMILIES:
        raise WeightsError(f"no family of models is called {name!r}", hint=f"choose from: auto, {', '.join(FAMILIES)}")
    return name


def _is_complete(family: str, weights_dir: Path | None) -> bool:
    needed = [part for part in manifest.expand(family) if part.role in manifest.ROLES]
    return all(store.status(part, weights_dir).state not in ("missing", "fetched", "RANDOM") for part in needed)


def select_models(run: RunSettings, weights_dir: Path | None = None) -> ModelSelection:
    """The networks that settings name; whether their files are there is left to `ModelSelection.require`.

    Raises:
        WeightsError: There is no family or part of that name, or a part for another role.
        SettingsError: A file that was named cannot be used.
    """
    family = resolve_family(run.models, weights_dir)
    components = {
        part.role: Component(part.name, store.locate(part, weights_dir), store.fetch_hint(part, family))
        for part in manifest.expand(family)
    }
    named: dict[str, Any] = {}
    for role, setting in SETTINGS.items():
        asked = getattr(run, setting)
        if role == "clip" and asked is None and components["wav2clip"].holds == AUDIOCLIP:
            asked = AUDIOCLIP_PERCEPTOR
        if asked is not None:
            components[role] = find_component(asked, role, weights_dir)
            named[setting] = components[role].name
    for role in manifest.OPTIONAL:  # a prior belongs to one space, as Wav2CLIP does
        if role in components and not (components[role].path.is_file() and supports_audio(components["clip"])):
            del components[role]
    return ModelSelection(components, family, named)


def find_component(asked: str, role: str, weights_dir: Path | None = None) -> Component:
    """The network meant by the name of a part, an open_clip `ARCHITECTURE/TAG`, or a file.

    Raises:
        WeightsError: There is no part of that name, or it has another role.
        SettingsError: The file cannot be used.
    """
    path = Path(asked)
    if path.suffix.lower() in (".safetensors", *CHECKPOINTS) or path.is_file():
        path = path.resolve()
        if not path.is_file():
            raise SettingsError(f"{path}: no such weights file", hint="check the spelling and the folder you are in")
        if path.suffix.lower() != ".safetensors":
            if role != "vqgan":  # only of a VQGAN is there a YAML file that describes it
                kind = "vit-b-32" if role == "clip" else "audioclip"
                hint = f"w2c-gen weights convert {path.name} --as {kind} --out {path.stem}.safetensors"
                raise SettingsError(f"{path}: a {role} must be converted first", hint=hint)
            config_of(path)  # an error in it is found before any work
        holds = store.read_header(path).role if role == "wav2clip" else ""
        return Component(str(path), path, holds=AUDIOCLIP if holds == AUDIOCLIP else "")
    if role == "clip" and asked.count("/") == 1:
        return Component(asked, store.locate_tag(asked, weights_dir), f"run `w2c-gen weights fetch {asked}`")
    part = manifest.part(asked)
    if part.role not in (ENCODERS if role == "wav2clip" else (role,)):
        raise WeightsError(f"{asked} is a {part.role}, not a {role}", hint="`w2c-gen weights list` shows the roles")
    holds = part.role if part.role != role else ""
    return Component(part.name, store.locate(part, weights_dir), store.fetch_hint(part), holds=holds)


def config_of(checkpoint: Path) -> dict[str, Any]:
    """Fields of `VQGANConfig` for a checkpoint: from the YAML file of its name next to it, or the only one there.

    It configures a VQModel, a GumbelVQ, or a Net2NetTransformer with one of these as its first stage.

    Raises:
        SettingsError: There is none.
        WeightsError: It describes no VQGAN that can be used.
    """
    named = checkpoint.with_suffix(".yaml")
    paths = [named] if named.is_file() else list(checkpoint.parent.glob("*.yaml"))
    if len(paths) != 1:
        what = f"{checkpoint}: the size of its network is not known"
        raise SettingsError(what, hint=f"put its configuration next to it as {named.name}")
    try:
        model = read_yaml(paths[0])["model"]
        model = model["params"].get("first_stage_config", model)
        params = model["params"]
        network = params["ddconfig"]
        config = {name: network[name] for name in DDCONFIG}
        config |= {"n_embed": params["n_embed"], "embed_dim": params["embed_dim"]}
    except (KeyError, TypeError, AttributeError) as error:
        hint = "give the YAML that came with the checkpoint"
        raise WeightsError(f"{paths[0]}: describes no VQGAN (no {error})", hint=hint) from None
    for name, value in FIXED.items():
        if network.get(name, value) != value:
            raise WeightsError(f"{paths[0]}: {name} is {network[name]}", hint=f"give a VQGAN whose {name} is {value}")
    return {**config, "gumbel": "Gumbel" in str(model.get("target", ""))}


def supports_audio(perceptor: Component) -> bool:
    """Whether a perceptor sees pictures in the space that Wav2CLIP embeds sound in."""
    if perceptor.name in manifest.published().parts:
        return perceptor.name in WITH_AUDIO
    try:
        header = store.read_header(perceptor.path)
    except WeightsError:
        return False
    published = header.original.get("sha256") == manifest.part("vit-b-32").sha256
    return published or header.config.get("architecture") == "w2c-mini"


def shares_space(selection: ModelSelection) -> bool:
    """Whether the encoder embeds sound in the space that the perceptor sees pictures in.

    AudioCLIP's is that of the CLIP in its own checkpoint, and of rn50 if that is the CLIP that was kept as it was.
    """
    encoder, perceptor = selection.components["wav2clip"], selection.components["clip"]
    if encoder.holds != AUDIOCLIP:
        return supports_audio(perceptor)
    try:
        known = {_published_hash(encoder), _published_hash(perceptor)}
    except WeightsError:
        return False
    kept = {manifest.part(AUDIOCLIP).sha256, manifest.part(AUDIOCLIP_PERCEPTOR).sha256}
    return known == kept or (
        len(known) == 1 and known <= {manifest.part(one).sha256 for one in (AUDIOCLIP, "audioclip-full")}
    )


def _published_hash(component: Component) -> str | None:
    """SHA-256 of the published file that a network comes from."""
    if component.name in manifest.published().parts:
        return manifest.part(component.name).sha256
    return store.read_header(component.path).original.get("sha256")


def require_shared_space(selection: ModelSelection, *, sound: bool) -> None:
    """Make sure that the sound encoder and the perceptor share one embedding space, if `sound` is used.

    Raises:
        SettingsError: They do not.
    """
    if not sound or shares_space(selection):
        return
    encoder, perceptor = selection.components["wav2clip"], selection.components["clip"]
    audioclip = encoder.holds == AUDIOCLIP
    who, space = (f"the encoder {encoder.name}", "its own CLIP") if audioclip else ("Wav2CLIP", "ViT-B/32")
    use = "--encoder audioclip without --perceptor" if audioclip else "--perceptor vit-b-32, by OpenAI"
    raise SettingsError(
        f"sound cannot steer the perceptor {perceptor.name}: {who} embeds it in the space of {space}",
        hint=f"use {use}, or prompts alone: --prompt ... --audio-weight 0",
    )


# --- networks on a device


@dataclass(frozen=True, eq=False)
class Models:
    """The networks of a film, frozen, on one device."""

    selection: ModelSelection
    wav2clip: Wav2CLIP | ESResNeXt  # the sound encoder
    clip: Perceptor
    vqgan: VQGAN
    prior: ConceptPrior | None = None
    random: bool = False  # some of the weights are random, for tests and measurements

    @property
    def name(self) -> str:
        """The family, and what was selected instead of its own networks."""
        named = self.selection.named.values()
        others = f" with {' and '.join(named)}" if named else ""
        return f"{self.selection.family}{others}{' (RANDOM WEIGHTS)' if self.random else ''}"

    @property
    def files(self) -> dict[str, Path]:
        """Role -> file."""
        return self.selection.files

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self.clip.device

    def in_precision(self, precision: str) -> Models:
        """The networks of a step as they are ("fp32") or in bfloat16 ("bf16"), "auto" for what is faster here."""
        if precision == "auto":
            precision = "bf16" if computes_in_bf16(self.device) else "fp32"
        return self._in_bf16 if precision == "bf16" else self

    @cached_property
    def _in_bf16(self) -> Models:
        return replace(self, clip=self.clip.in_bf16(), vqgan=self.vqgan.in_bf16())


def load_family(
    name: str = "auto",
    *,
    device: str | torch.device = "cpu",
    encoder: str | None = None,
    perceptor: str | None = None,
    vqgan: str | None = None,
    weights_dir: Path | None = None,
) -> Models:
    """Load the networks of a family.

    Args:
        name: "full", "mini", or "auto" for the best family whose files are in place.
        device: Where the networks are put.
        encoder: Another sound encoder: a part's name, or a weights file.
        perceptor: Another CLIP: a part's name, an open_clip `ARCHITECTURE/TAG`, or a weights file.
        vqgan: Another VQGAN: a part's name, a weights file, or a checkpoint with its YAML next to it.
        weights_dir: Folder of fetched weights, instead of `W2C_WEIGHTS` or the user's cache.

    Raises:
        WeightsError: There is no such family or part, or one of its files is missing or damaged.
        SettingsError: A file that was named cannot be used.
    """
    run = RunSettings(models=name, encoder=encoder, perceptor=perceptor, vqgan=vqgan)
    selection = select_models(run, weights_dir)
    selection.require()
    return load_models(selection, device=device)


def load_models(selection: ModelSelection, *, device: str | torch.device = "cpu") -> Models:
    """Load the selected networks; a checkpoint of the user's own is converted in memory.

    Raises:
        WeightsError: One of the files is missing or damaged.
    """
    import torch

    from wav2clip_gen.models import checkpoints, convert
    from wav2clip_gen.models.audioclip import AudioCLIP
    from wav2clip_gen.models.norm import fused_norm_works

    networks: dict[str, Any] = {}
    random, device = False, torch.device(device)
    for role, component in selection.components.items():
        if component.is_checkpoint:
            network = convert.read_network(component.path, role=role, config=config_of(component.path))
        else:
            network = checkpoints.load(component.path, role=component.holds or role)
            network = network.audio if isinstance(network, AudioCLIP) else network
            random |= "random" in store.read_header(component.path).training
        networks[role] = network.to(device)
        if role == "wav2clip" or (role == "vqgan" and fused_norm_works(device)):  # elsewhere, nothing is gained
            networks[role].to(memory_format=torch.channels_last)
    return Models(selection=selection, random=random, **networks)


def computes_in_bf16(device: torch.device) -> bool:
    """Whether the device computes in bfloat16 natively, and so faster than in float32."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)  # Ampere
    if device.type == "cpu":
        # halves the time of a step where AVX512-BF16 is there; emulated, it is slower than float32
        supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
        return bool(supported and supported())
    return False
