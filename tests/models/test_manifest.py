"""The manifest that ships is complete, and one that does not fit is refused."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import torch

from wav2clip_gen.errors import WeightsError
from wav2clip_gen.models import manifest, registry
from wav2clip_gen.models.vqgan import VQGAN, VQGANConfig
from wav2clip_gen.models.wav2clip import Wav2CLIP, Wav2CLIPConfig

PUBLISHED = [part for part in manifest.published().parts.values() if not part.shipped]
OPENAI = "https://openaipublic.azureedge.net/clip/models/"


def test_all_that_the_families_need_is_there() -> None:
    found = manifest.published()
    assert tuple(found.families) == registry.FAMILIES
    assert [part.name for part in manifest.expand("full")] == ["wav2clip", "vit-b-32", "imagenet-16384"]
    assert all(part.shipped for part in manifest.expand("mini"))


def test_every_model_of_the_usual_download_scripts_is_there() -> None:
    names = {part.name for part in PUBLISHED}
    vqgans = {"imagenet-1024", "imagenet-16384", "coco", "faceshq", "wikiart-1024", "wikiart-16384", "sflckr"}
    assert names >= vqgans | {"openimages-8192", "wav2clip", "vit-b-32", "vit-b-16", "vit-l-14", "rn50"}


def test_parts_have_roles_and_families_one_of_each() -> None:
    found = manifest.published()
    for part in found.parts.values():
        assert part.role in (*manifest.ROLES, *manifest.OPTIONAL, *manifest.OTHERS)
        assert part.shipped is not bool(part.sources)
        assert part.sha256 is None or re.fullmatch("[0-9a-f]{64}", part.sha256)
    for members in found.families.values():
        assert [found.parts[member].role for member in members.values()] == list(members)
        assert {*members} - {*manifest.OPTIONAL} == {*manifest.ROLES}


@pytest.mark.parametrize("part", PUBLISHED, ids=lambda part: part.name)
def test_every_part_has_a_licence_a_citation_and_sources(part: manifest.Part) -> None:
    assert part.licence
    assert "arXiv" in part.citation
    assert part.checkpoint in ("Wav2CLIP", "CLIP", "VQModel", "GumbelVQ", "Net2NetTransformer", "AudioCLIP", "Keras")
    assert "/" not in part.file
    assert len(set(part.sources)) == len(part.sources)
    schemes = [urlsplit(source).scheme for source in part.sources]
    assert schemes[0] == "https"
    assert set(schemes) <= ({"https", "http"} if part.sha256 else {"https"})


@pytest.mark.parametrize("part", [part for part in PUBLISHED if part.role == "clip"], ids=lambda part: part.name)
def test_openai_perceptors_are_what_open_clip_takes_from_the_same_place(part: manifest.Part) -> None:
    from open_clip import pretrained

    name = part.config["architecture"]
    assert name.endswith("-quickgelu")  # OpenAI trained with it
    assert part.sources[0] == pretrained.get_pretrained_url(name, "openai")
    assert part.sources[0] == f"{OPENAI}{part.sha256}/{part.file}"


@pytest.mark.parametrize("part", [part for part in PUBLISHED if part.role == "vqgan"], ids=lambda part: part.name)
def test_the_config_of_a_vqgan_builds_its_network(part: manifest.Part) -> None:
    known = {field.name for field in dataclasses.fields(VQGANConfig)}
    config: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in part.config.items()
    }
    assert config.keys() <= known | {"gumbel"}
    assert config.get("gumbel", False) == (part.checkpoint == "GumbelVQ")
    with torch.device("meta"):
        network = VQGAN(VQGANConfig(**{name: value for name, value in config.items() if name in known}))
    assert network.stride == (8 if "openimages" in part.name else 16)
    if part.size and part.checkpoint == "VQModel":  # fp32 weights, and perhaps the optimiser's and the critic's
        assert sum(4 * weight.numel() for weight in network.parameters()) < part.size


def test_the_first_stage_of_coco_is_as_large_as_its_network() -> None:
    part = manifest.part("coco-first-stage")
    with torch.device("meta"):
        network = VQGAN(VQGANConfig(**{**part.config, "ch_mult": tuple(part.config["ch_mult"])}))
    bytes_of_weights = sum(4 * weight.numel() for weight in network.parameters())
    assert part.size is not None
    assert 0 < part.size - bytes_of_weights < 200_000  # names and the file's own tables


def test_the_published_sound_encoder_is_the_default_one() -> None:
    config = Wav2CLIPConfig(**manifest.part("wav2clip").config)
    assert config == Wav2CLIPConfig()
    with torch.device("meta"):
        Wav2CLIP(config)


def test_an_unknown_name_is_reported() -> None:
    with pytest.raises(WeightsError, match="no part is called 'nothing'") as caught:
        manifest.expand("nothing")
    assert "weights list" in caught.value.hint


@pytest.mark.parametrize("content", ["parts: [", "[]", "parts: {}", "{families: {}, parts: {x: {colour: red}}}", None])
def test_a_damaged_manifest_is_one_clear_line(content: str | None, tmp_path: Path) -> None:
    path = tmp_path / "manifest.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(WeightsError, match="not a manifest of w2c-gen") as caught:
        manifest.read(path)
    assert "\n" not in caught.value.what
    assert caught.value.hint
