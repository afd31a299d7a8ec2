"""The configuration of a VQGAN in the YAML file of a taming-transformers checkpoint. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wav2clip_gen.config import read_yaml
from wav2clip_gen.errors import SettingsError, WeightsError

DDCONFIG = ("ch", "ch_mult", "num_res_blocks", "attn_resolutions", "resolution", "z_channels")
FIXED = {"in_channels": 3, "out_ch": 3, "double_z": False}  # what RGB pictures and our decoder need


def config_of(checkpoint: Path) -> dict[str, Any]:
    """The configuration of a checkpoint: the YAML file of its name next to it, or the only one in its folder.

    Raises:
        SettingsError: There is none.
        WeightsError: It describes no VQGAN that can be used.
    """
    named = checkpoint.with_suffix(".yaml")
    others = list(checkpoint.parent.glob("*.yaml"))
    if named.is_file():
        return read_taming_config(named)
    if len(others) == 1:
        return read_taming_config(others[0])
    what = f"{checkpoint}: the size of its network is not known"
    raise SettingsError(what, hint=f"put its configuration next to it as {named.name}")


def read_taming_config(path: Path) -> dict[str, Any]:
    """Fields of `VQGANConfig` from a configuration of VQModel, GumbelVQ, or a Net2NetTransformer's first stage.

    Raises:
        WeightsError: It describes none of these.
    """
    try:
        model = read_yaml(path)["model"]
        model = model["params"].get("first_stage_config", model)
        params = model["params"]
        network = params["ddconfig"]
        config = {name: network[name] for name in DDCONFIG}
        config |= {"n_embed": params["n_embed"], "embed_dim": params["embed_dim"]}
    except (KeyError, TypeError, AttributeError) as error:
        hint = "give the YAML that came with the checkpoint"
        raise WeightsError(f"{path}: describes no VQGAN (no {error})", hint=hint) from None
    for name, value in FIXED.items():
        if network.get(name, value) != value:
            raise WeightsError(f"{path}: {name} is {network[name]}", hint=f"give a VQGAN whose {name} is {value}")
    return {**config, "gumbel": "Gumbel" in str(model.get("target", ""))}
