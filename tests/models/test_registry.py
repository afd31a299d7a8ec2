"""Which networks a film gets, and how they are loaded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file

from tests.models.test_convert import GUMBEL, SMALL
from tests.models.tiny import place, write_weights
from wav2clip_gen.config import RunSettings
from wav2clip_gen.errors import SettingsError, W2CError, WeightsError
from wav2clip_gen.models import checkpoints, manifest, registry, store
from wav2clip_gen.models.registry import load_family
from wav2clip_gen.models.store import read_header


def fill(family: str = "full", **training: int) -> None:
    for part in manifest.expand(family):
        write_weights(store.locate(part), training=training)


def test_auto_takes_the_better_family_once_it_is_whole(folder: Path) -> None:
    assert registry.resolve_family("auto") == "mini"
    fill()
    assert registry.resolve_family("auto") == "full"
    assert registry.resolve_family("auto", folder) == "full"
    place("full", "clip").unlink()
    assert registry.resolve_family("auto") == "mini"


def test_auto_never_takes_random_weights(folder: Path) -> None:
    fill(random=0)
    assert registry.resolve_family("auto") == "mini"
    assert registry.resolve_family("full") == "full"
    assert store.require_part(manifest.part("vit-b-32")).is_file()


def test_unknown_names_are_reported() -> None:
    with pytest.raises(WeightsError, match="no family of models is called 'huge'") as caught:
        registry.resolve_family("huge")
    assert caught.value.hint == "choose from: auto, full, mini"
    with pytest.raises(WeightsError, match="no part is called 'huge'"):
        store.require_part(manifest.part("huge"))


def usable(run: RunSettings, folder: Path) -> None:
    """What a render asks of its networks before any work."""
    chosen = registry.select_models(run, folder)
    chosen.require()
    registry.require_shared_space(chosen, sound=True)


def refused(run: RunSettings, folder: Path) -> W2CError:
    with pytest.raises(W2CError) as caught:
        usable(run, folder)
    assert caught.value.hint
    return caught.value


def test_the_small_family_ships(tmp_path: Path) -> None:
    chosen = registry.select_models(RunSettings(), tmp_path)
    chosen.require()
    registry.require_shared_space(chosen, sound=True)
    assert chosen.family == "mini"


def test_the_published_family_says_how_to_get_it(tmp_path: Path) -> None:
    error = refused(RunSettings(models="full"), tmp_path)
    assert "no such weights file" in error.what
    assert error.hint == "run `w2c-gen weights fetch full`"
    assert refused(RunSettings(vqgan="wikiart-16384"), tmp_path).hint == "run `w2c-gen weights fetch wikiart-16384`"
    assert "weights fetch ViT-B-16/laion2b" in refused(RunSettings(perceptor="ViT-B-16/laion2b"), tmp_path).hint


def test_unknown_and_misplaced_parts_are_reported(tmp_path: Path) -> None:
    assert "no part is called" in refused(RunSettings(vqgan="picasso"), tmp_path).what
    assert "vit-b-32 is a clip, not a vqgan" in refused(RunSettings(vqgan="vit-b-32"), tmp_path).what
    assert "no such weights file" in refused(RunSettings(vqgan=str(tmp_path / "none.ckpt")), tmp_path).what


def test_sound_cannot_steer_a_perceptor_of_another_space(tmp_path: Path) -> None:
    part = tmp_path / "vit-b-16" / "clip.safetensors"
    part.parent.mkdir()
    part.touch()
    chosen = registry.select_models(RunSettings(perceptor="vit-b-16"), tmp_path)
    registry.require_shared_space(chosen, sound=False)
    with pytest.raises(SettingsError, match="sound cannot steer the perceptor vit-b-16") as caught:
        registry.require_shared_space(chosen, sound=True)
    assert "--audio-weight 0" in caught.value.hint


def test_a_weights_file_says_itself_of_what_space_it_is(tmp_path: Path) -> None:
    own = manifest.shipped_folder() / "mini" / "clip.safetensors"
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(own.read_bytes())
    chosen = registry.select_models(RunSettings(perceptor=str(copy)), tmp_path)
    registry.require_shared_space(chosen, sound=True)
    copy.write_bytes(b"")
    assert not registry.supports_audio(chosen.components["clip"])


def test_audioclip_comes_with_the_perceptor_of_its_space(folder: Path) -> None:
    for name in ("audioclip", "audioclip-full", "rn50", "vit-l-14"):
        part = manifest.part(name)
        write_weights(store.locate(part))
    run = RunSettings(models="mini", encoder="audioclip")
    usable(run, folder)
    chosen = registry.select_models(run)
    assert chosen.named == {"encoder": "audioclip", "perceptor": "rn50"}
    assert chosen.files["wav2clip"] == folder / "audioclip" / "audioclip.safetensors"
    assert "prior" not in chosen.components  # its texts are of another space
    error = refused(replace(run, perceptor="vit-b-32"), folder)
    assert "no such weights file" in error.what
    error = refused(replace(run, perceptor="vit-l-14"), folder)
    assert "vit-l-14: the encoder audioclip embeds it in the space of its own CLIP" in error.what
    assert "--encoder audioclip without --perceptor" in error.hint
    error = refused(replace(run, encoder="audioclip-full"), folder)  # its CLIP was trained on
    assert "cannot steer the perceptor rn50" in error.what
    error = refused(replace(run, encoder="yamnet"), folder)
    assert "yamnet is a yamnet, not a wav2clip" in error.what


def test_audioclip_steers_the_clip_of_its_own_checkpoint(tmp_path: Path, folder: Path) -> None:
    encoder, clip = tmp_path / "sound.safetensors", tmp_path / "clip.safetensors"
    for path, role, sha256 in (
        (encoder, "audioclip", "full"),
        (clip, "clip", "full"),
        (tmp_path / "x", "clip", "rn50"),
    ):
        part = manifest.part({"full": "audioclip-full"}.get(sha256, sha256))
        header = store.Header(role=role, config={}, original={"file": part.file, "sha256": str(part.sha256)})
        save_file({"x": torch.zeros(1)}, path, metadata=header.metadata())
    run = RunSettings(models="mini", encoder=str(encoder), perceptor=str(clip))
    usable(run, folder)
    assert registry.select_models(run).components["wav2clip"].holds == "audioclip"
    clip.write_bytes((tmp_path / "x").read_bytes())
    assert "in the space of its own CLIP" in refused(run, folder).what
    clip.write_bytes(b"")
    assert "in the space of its own CLIP" in refused(run, folder).what


def taming_yaml(config: dict[str, Any], *, inside: bool = False) -> dict[str, Any]:
    """A configuration as taming-transformers writes it."""
    names = ("ch", "ch_mult", "num_res_blocks", "attn_resolutions", "resolution", "z_channels")
    ddconfig = {name: list(value) if isinstance(value := config[name], tuple) else value for name in names}
    ddconfig |= {"double_z": False, "in_channels": 3, "out_ch": 3, "dropout": 0.0}
    params = {"embed_dim": config["embed_dim"], "n_embed": config["n_embed"], "ddconfig": ddconfig}
    target = f"taming.models.vqgan.{'GumbelVQ' if config['gumbel'] else 'VQModel'}"
    model: dict[str, Any] = {"target": target, "params": params}
    if inside:
        model = {"target": "taming.models.cond_transformer.Net2NetTransformer", "params": {"first_stage_config": model}}
    return {"model": {"base_learning_rate": 4.5e-06, **model}}


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("config", [SMALL, GUMBEL], ids=["vq", "gumbel"])
def test_a_checkpoint_of_ones_own_paints(config: dict[str, Any], inside: bool, tmp_path: Path) -> None:
    tensors = checkpoints.random_network("vqgan", config, seed=1).state_dict()
    prefix = "first_stage_model." if inside else ""
    torch.save({"state_dict": {prefix + name: tensor for name, tensor in tensors.items()}}, tmp_path / "mine.ckpt")
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(taming_yaml(config, inside=inside)))
    family = load_family("mini", vqgan=str(tmp_path / "mine.ckpt"), weights_dir=tmp_path / "cache")
    assert family.vqgan.config.gumbel is config["gumbel"]
    codes = tensors[f"quantize.{'embed' if config['gumbel'] else 'embedding'}.weight"]
    assert torch.equal(family.vqgan.quantize.codes, codes)
    assert family.name == f"mini with {tmp_path / 'mine.ckpt'}"
    assert not (tmp_path / "cache").exists()  # loading writes nothing


def test_a_checkpoint_without_its_configuration_is_reported(tmp_path: Path) -> None:
    (tmp_path / "mine.ckpt").write_bytes(b"x")
    error = refused(RunSettings(vqgan=str(tmp_path / "mine.ckpt")), tmp_path)
    assert "the size of its network is not known" in error.what
    assert "mine.yaml" in error.hint


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content: content["model"]["params"]["ddconfig"].pop("ch_mult"), "no 'ch_mult'"),
        (lambda content: content.update(model=3), "describes no VQGAN"),
        (lambda content: content["model"]["params"]["ddconfig"].update(out_ch=1), "out_ch is 1"),
    ],
)
def test_a_configuration_of_something_else_is_reported(change: Any, words: str, tmp_path: Path) -> None:
    content = taming_yaml(SMALL)
    change(content)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(WeightsError, match=words):
        registry.config_of(tmp_path / "mine.ckpt")


def test_random_weights_are_marked_and_never_taken_by_themselves(tmp_path: Path) -> None:
    for role, config in (("wav2clip", {"width": 8}), ("clip", {"architecture": "w2c-mini"}), ("vqgan", SMALL)):
        part = next(part for part in manifest.expand("full") if part.role == role)
        checkpoints.write_random(tmp_path / part.name / f"{role}.safetensors", role=role, config=config, seed=4)
    assert registry.select_models(RunSettings(), tmp_path).family == "mini"
    family = load_family("full", weights_dir=tmp_path)
    assert (family.random, family.name) == (True, "full (RANDOM WEIGHTS)")
    header = read_header(family.files["vqgan"])
    assert header.training == {"random": 4}


def test_a_seed_decides_random_weights() -> None:
    def codes(seed: int) -> torch.Tensor:
        return checkpoints.random_network("vqgan", SMALL, seed=seed).state_dict()["quantize.embedding.weight"]

    assert torch.equal(codes(1), codes(1))
    assert not torch.equal(codes(1), codes(2))
