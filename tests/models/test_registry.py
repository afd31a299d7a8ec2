"""Where weights are and in what state, what is recorded of them, and which networks a film gets."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.models.test_convert import GUMBEL, SMALL
from tests.models.tiny import place, write_weights
from wav2clip_gen.config import RunSettings
from wav2clip_gen.errors import OutputError, SettingsError, W2CError, WeightsError
from wav2clip_gen.files import hash_file
from wav2clip_gen.models import checkpoints, manifest, registry, store
from wav2clip_gen.models.registry import load_family
from wav2clip_gen.models.store import read_header


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "weights"
    monkeypatch.setenv("W2C_WEIGHTS", str(path))
    return path


def fill(family: str = "full", **training: int) -> None:
    for part in manifest.expand(family):
        write_weights(store.locate(part), training=training)


def test_the_folder_is_in_the_users_cache_unless_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform.startswith("linux"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert store.weights_folder() == tmp_path / "w2c-gen" / "weights"
    monkeypatch.setenv("W2C_WEIGHTS", str(tmp_path / "mine"))
    assert store.weights_folder() == tmp_path / "mine"


def test_what_ships_is_found_wherever_weights_are_fetched_to(folder: Path) -> None:
    shipped = manifest.shipped_folder() / "mini" / "clip.safetensors"
    assert [store.require_part(manifest.part("mini-clip"), where) for where in (None, folder)] == [shipped] * 2


def test_a_folder_of_ones_own_hides_what_ships(folder: Path) -> None:
    (folder / "mini").mkdir(parents=True)
    for name in ("mini-wav2clip", "mini-clip", "mini-vqgan"):
        with pytest.raises(WeightsError, match="no such weights file") as caught:
            store.require_part(manifest.part(name))
        assert "W2C_WEIGHTS" in caught.value.hint
    shutil.copytree(manifest.shipped_folder() / "mini", folder / "mini", dirs_exist_ok=True)
    assert store.require_part(manifest.part("mini-vqgan")) == folder / "mini" / "vqgan.safetensors"


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


def test_what_is_missing_is_one_command_away(folder: Path) -> None:
    with pytest.raises(WeightsError, match="no such weights file") as caught:
        store.require_part(manifest.part("coco"))
    assert caught.value.hint == "run `w2c-gen weights fetch coco`"


def test_unknown_names_are_reported() -> None:
    with pytest.raises(WeightsError, match="no family of models is called 'huge'") as caught:
        registry.resolve_family("huge")
    assert caught.value.hint == "choose from: auto, full, mini"
    with pytest.raises(WeightsError, match="no part is called 'huge'"):
        store.require_part(manifest.part("huge"))


def test_states(folder: Path) -> None:
    part = manifest.part("vit-b-32")
    path, original = store.locate(part), store.locate_original(part)
    assert (store.status(part).state, store.status(part).size) == ("missing", 353976522)
    original.parent.mkdir(parents=True)
    original.with_name(f"{original.name}.part").write_bytes(b"123")
    assert (store.status(part).state, store.status(part).partial) == ("missing", 3)
    original.write_bytes(b"12345")
    assert (store.status(part).state, store.status(part).size) == ("fetched", 5)
    write_weights(path)
    assert (store.status(part).state, store.status(part).path) == ("ready", path)
    write_weights(path, training={"random": 0})
    assert store.status(part).state == "RANDOM"
    assert store.status(manifest.part("mini-clip")).state == "shipped"


@pytest.mark.parametrize("cut", [0, 4, 20, -1])
def test_a_file_that_is_not_whole_is_damaged(folder: Path, cut: int) -> None:
    part = manifest.part("vit-b-32")
    path = write_weights(store.locate(part))
    path.write_bytes(path.read_bytes()[:cut])
    assert store.status(part).state == "damaged"
    with pytest.raises(WeightsError, match="not a readable safetensors file") as caught:
        read_header(path)
    assert "\n" not in caught.value.what


@pytest.mark.parametrize("content", [b"<html>sign in, please</html>", b"\x02\0\0\0\0\0\0\0[]", b"\x02\0\0\0\0\0\0\0{}"])
def test_other_files_are_damaged_weights(folder: Path, content: bytes) -> None:
    path = place("full", "clip")
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    assert store.status(manifest.part("vit-b-32")).state == "damaged"


def test_a_recorded_hash_is_not_computed_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_weights(place("full", "clip"))
    true = hash_file(path)
    assert store.weights_sha256(path) == true
    store.record(folder, "vit-b-32", converted={**store.stamp(path), "sha256": true})
    monkeypatch.setattr(store, "hash_file", lambda _: "hashed")
    assert store.weights_sha256(path) == true
    write_weights(path, values=b"changed!")
    assert store.weights_sha256(path) == "hashed"


def test_what_is_recorded_of_a_part_is_changed_and_forgotten(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    store.record(folder, "coco", converted=None)
    assert not folder.exists()
    store.record(folder, "coco", original={"sha256": "first"}, converted={"sha256": "second"})
    store.record(folder, "coco", converted=None)
    assert store.read_records(folder) == {"coco": {"original": {"sha256": "first"}}}
    store.record(folder, "coco", original=None)
    assert store.read_records(folder) == {}


@pytest.mark.parametrize("content", ["", "[]", '{"format": 1}', '{"format": 9, "parts": {}}', '{"parts": {}}'])
def test_a_damaged_lock_file_is_one_clear_line(tmp_path: Path, content: str) -> None:
    (tmp_path / store.RECORDS).write_text(content)
    with pytest.raises(WeightsError) as caught:
        store.read_records(tmp_path)
    assert "\n" not in caught.value.what
    assert caught.value.hint


def test_a_folder_that_cannot_be_written_to_is_reported(tmp_path: Path) -> None:
    (tmp_path / "weights").write_text("a file")
    with pytest.raises(OutputError, match="cannot be written"):
        store.record(tmp_path / "weights", "coco", original={"file": "f", "size": 1})


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
