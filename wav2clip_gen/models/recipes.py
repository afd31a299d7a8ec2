"""What the YAML file beside a taming-transformers checkpoint says of the network in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wav2clip_gen.config import read_yaml
from wav2clip_gen.errors import WeightsError

DDCONFIG = ("ch", "ch_mult", "num_res_blocks", "attn_resolutions", "resolution", "z_channels")
FIXED = {"in_channels": 3, "out_ch": 3, "double_z": False}  # what pictures of three colours and our decoder need


def read_recipe(path: Path) -> dict[str, Any]:
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
        raise WeightsError(
            f"{path}: describes no VQGAN (no {error})", hint="give the YAML that came with the checkpoint"
        ) from None
    other = [name for name, value in FIXED.items() if network.get(name, value) != value]
    if other:
        name = other[0]
        raise WeightsError(f"{path}: {name} is {network[name]}", hint=f"take a VQGAN whose {name} is {FIXED[name]}")
    return {**config, "gumbel": "Gumbel" in str(model.get("target", ""))}
