"""Published checkpoints become weights files of ours, whole and unchanged, or are refused with the reason."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from wav2clip_gen.errors import WeightsError
from wav2clip_gen.files import hash_file
from wav2clip_gen.models import checkpoints
from wav2clip_gen.models.clip import Perceptor
from wav2clip_gen.models.convert import convert, fetch_tag
from wav2clip_gen.models.vqgan import VQGANConfig
from wav2clip_gen.models.wav2clip import Wav2CLIPConfig

SMALL = asdict(
    VQGANConfig(
        ch=32,
        ch_mult=(1, 2),
        num_res_blocks=1,
        attn_resolutions=(),
        resolution=32,
        z_channels=8,
        embed_dim=8,
        n_embed=40,
    )
)
GUMBEL = {**SMALL, "gumbel": True}
AUDIO = asdict(Wav2CLIPConfig(width=8))

Save = Callable[[Any], Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    def write(content: Any) -> Path:
        path = tmp_path / "published.ckpt"
        torch.save(content, path)
        return path

    return write


def network(role: str, config: dict[str, Any]) -> dict[str, Tensor]:
    return checkpoints.random_network(role, config, seed=3).state_dict()


def prefixed(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


NOT_OURS = {"loss.discriminator.main.0.weight": torch.zeros(3), "loss.logvar": torch.zeros(())}
WRITTEN: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "VQModel": lambda tensors: {"state_dict": {**tensors, **NOT_OURS}, "epoch": 3, "global_step": 7},
    "Net2NetTransformer": lambda tensors: {
        "state_dict": {
            **prefixed({**tensors, **NOT_OURS}, "first_stage_model."),
            "transformer.tok_emb.weight": torch.zeros(2, 2),
            "cond_stage_model.quantize.embedding.weight": torch.zeros(5, 5),
        }
    },
    "bare": lambda tensors: tensors,
    "DataParallel": lambda tensors: prefixed(tensors, "module."),
}


@pytest.mark.parametrize("kind", WRITTEN)
@pytest.mark.parametrize("config", [SMALL, GUMBEL], ids=["vq", "gumbel"])
def test_a_vqgan_comes_out_of_every_wrapping(kind: str, config: dict[str, Any], save: Save, tmp_path: Path) -> None:
    tensors = network("vqgan", config)
    original, out = save(WRITTEN[kind](tensors)), tmp_path / "vqgan.safetensors"
    convert(original, out, role="vqgan", config=config)
    loaded = checkpoints.load(out, role="vqgan").state_dict()
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)
    header = checkpoints.read_header(out)
    assert header.original == {"file": "published.ckpt", "sha256": hash_file(original)}
    assert header.config["n_embed"] == 40


def test_a_hash_that_is_known_is_not_computed_again(save: Save, tmp_path: Path) -> None:
    out = tmp_path / "vqgan.safetensors"
    convert(save(network("vqgan", SMALL)), out, role="vqgan", config=SMALL, sha256="known")
    assert checkpoints.read_header(out).original["sha256"] == "known"


def test_the_sound_encoder_leaves_its_training_behind(save: Save, tmp_path: Path) -> None:
    tensors = network("wav2clip", AUDIO)
    original = save({**tensors, "image_transform.sequential.0.weight": torch.zeros(4, 4)})
    convert(original, tmp_path / "out.safetensors", role="wav2clip", config=AUDIO)
    assert checkpoints.load(tmp_path / "out.safetensors", role="wav2clip").state_dict().keys() == tensors.keys()


@pytest.mark.parametrize(("precision", "kind"), [("fp16", torch.float16), ("bf16", torch.bfloat16)])
def test_halves_are_written_on_request(precision: str, kind: torch.dtype, save: Save, tmp_path: Path) -> None:
    tensors = network("vqgan", SMALL)
    out = tmp_path / "vqgan.safetensors"
    convert(save(tensors), out, role="vqgan", config=SMALL, precision=precision)
    stored = checkpoints.read_tensors(out)
    assert {tensor.dtype for tensor in stored.values()} == {kind}
    torch.testing.assert_close(stored["quant_conv.weight"].float(), tensors["quant_conv.weight"], atol=4e-3, rtol=1e-2)


def refused(save: Save, tmp_path: Path, content: Any, *, role: str = "vqgan", **options: Any) -> WeightsError:
    """The error for a checkpoint; nothing is left behind."""
    original = save(content)
    with pytest.raises(WeightsError) as caught:
        convert(original, tmp_path / "out.safetensors", role=role, **{"config": SMALL, **options})
    assert list(tmp_path.iterdir()) == [original]
    assert "\n" not in caught.value.what + caught.value.hint
    return caught.value


def test_what_does_not_fit_a_half_is_refused(save: Save, tmp_path: Path) -> None:
    tensors = network("vqgan", SMALL)
    tensors["quant_conv.bias"][0] = 1e6
    error = refused(save, tmp_path, tensors, precision="fp16")
    assert "quant_conv.bias" in error.what
    assert "bf16" in error.hint


def test_values_that_are_no_numbers_are_refused(save: Save, tmp_path: Path) -> None:
    tensors = network("vqgan", SMALL)
    tensors["quant_conv.bias"][0] = torch.nan
    assert "quant_conv.bias is not finite" in refused(save, tmp_path, tensors).what


def test_the_first_three_faults_are_named(save: Save, tmp_path: Path) -> None:
    tensors = network("vqgan", SMALL)
    tensors["quantize.embedding.weight"] = torch.zeros(41, 8)
    del tensors["decoder.conv_in.bias"], tensors["decoder.conv_in.weight"], tensors["quant_conv.bias"]
    tensors["encoder.stranger"] = torch.zeros(1)
    error = refused(save, tmp_path, tensors)
    for fault in (
        "decoder.conv_in.bias is missing",
        "decoder.conv_in.weight is missing",
        "encoder.stranger is unknown",
    ):
        assert fault in error.what
    assert "and 2 more" in error.what
    assert error.hint == "this seems to be a VQGAN, of another size"


@pytest.mark.parametrize(
    ("role", "config", "guess"),
    [("wav2clip", AUDIO, "a Wav2CLIP, of another size"), ("vqgan", GUMBEL, "a Gumbel VQGAN, of another size")],
)
def test_another_part_is_recognised(role: str, config: dict[str, Any], guess: str, save: Save, tmp_path: Path) -> None:
    assert guess in refused(save, tmp_path, network(role, config)).hint


def tiny_openai_clip() -> Any:
    """A model of OpenAI's own shape, small: widths that its heads of 64 divide."""
    import open_clip

    return open_clip.model.CLIP(
        embed_dim=32,
        vision_cfg={"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
        text_cfg={"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1},
        quick_gelu=True,
    ).eval()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A CLIP as OpenAI publishes it: a TorchScript archive, with three numbers besides the weights."""
    model = tiny_openai_clip()
    model.__dict__["attn_mask"] = model._buffers.pop("attn_mask")  # a constant in OpenAI's archives
    for name, value in {"input_resolution": 32, "context_length": 77, "vocab_size": 49408}.items():
        vars(model).pop(name, None)  # a plain number in open_clip's own model
        model.register_buffer(name, torch.tensor(value))
    path = tmp_path / "tiny.pt"
    example = {"encode_image": torch.zeros(1, 3, 32, 32), "encode_text": torch.zeros(1, 77, dtype=torch.long)}
    torch.jit.save(torch.jit.trace_module(model, example, check_trace=False), path)
    return path


@pytest.fixture
def tiny_architecture(tmp_path: Path) -> str:
    """The same shape, as a name that open_clip knows."""
    import json

    import open_clip

    config = {
        "embed_dim": 32, "quick_gelu": True,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1},
    }  # fmt: skip
    folder = tmp_path / "architectures"
    folder.mkdir()
    (folder / "tiny-openai.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)
    return "tiny-openai"


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_openais_archive_is_read_through_open_clip(archive: Path, tiny_architecture: str, tmp_path: Path) -> None:
    out = tmp_path / "clip.safetensors"
    convert(archive, out, role="clip", config={"architecture": tiny_architecture})
    ours = checkpoints.load(out, role="clip")
    theirs = torch.jit.load(archive).state_dict()
    expected = theirs["visual.conv1.weight"].half().float()  # the published weights are halves
    assert torch.equal(ours.state_dict()["model.visual.conv1.weight"], expected)
    assert hash_file(archive) == checkpoints.read_header(out).original["sha256"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_a_damaged_archive_is_reported(archive: Path, tiny_architecture: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(archive) as whole:
        entries = {name: whole.read(name) for name in whole.namelist()}
    with zipfile.ZipFile(archive, "w") as damaged:
        for name, content in entries.items():
            damaged.writestr(name, content[:20] if name.endswith("data.pkl") else content)
    with pytest.raises(WeightsError, match="open_clip cannot read this TorchScript archive") as caught:
        convert(archive, tmp_path / "clip.safetensors", role="clip", config={"architecture": tiny_architecture})
    assert "\n" not in caught.value.what


def test_a_pickle_in_front_of_an_archive_is_no_archive(tmp_path: Path) -> None:
    """zipfile forgives what stands before an archive; a loader that then unpickles it would run it."""
    path = tmp_path / "evil.pt"
    with zipfile.ZipFile(tmp_path / "small.zip", "w") as small:
        small.writestr("x/constants.pkl", b"")
    path.write_bytes(b"\x80\x02cos\nsystem\n(X\x04\x00\x00\x00trueoR." + (tmp_path / "small.zip").read_bytes())
    with pytest.raises(WeightsError):
        convert(path, tmp_path / "clip.safetensors", role="clip", config={"architecture": "w2c-mini"})


def test_everybody_may_read_what_was_converted(save: Save, tmp_path: Path) -> None:
    out = tmp_path / "vqgan.safetensors"
    convert(save(network("vqgan", SMALL)), out, role="vqgan", config=SMALL)
    (tmp_path / "plain").touch()
    assert out.stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """In the hub's place: open_clip knows one set of weights for our small architecture, and gives them."""
    import open_clip

    filled = checkpoints.random_network("clip", {"architecture": "w2c-mini"}, seed=5)
    assert isinstance(filled, Perceptor)
    filled.model.visual.preprocess_cfg["mean"] = (0.1, 0.2, 0.3)
    trained: dict[str, Any] = {"quick_gelu": False}
    monkeypatch.setattr(open_clip, "list_pretrained_tags_by_model", lambda architecture: ["sea"])
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda architecture, tag: trained)
    monkeypatch.setattr(open_clip, "create_model", create := open_clip.create_model)

    def give(architecture: str, pretrained: str | None = None, **options: Any) -> Any:
        return filled.model if pretrained else create(architecture, pretrained=None, **options)

    monkeypatch.setattr(open_clip, "create_model", give)
    return trained


def test_open_clips_own_weights_keep_their_colours(hub: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "clip.safetensors"
    fetch_tag("w2c-mini/sea", out)
    loaded = checkpoints.load(out, role="clip")
    assert isinstance(loaded, Perceptor)
    torch.testing.assert_close(loaded.mean.flatten(), torch.tensor([0.1, 0.2, 0.3]))
    assert checkpoints.read_header(out).original["file"] == "w2c-mini/sea"


def test_weights_of_another_activation_are_refused(hub: dict[str, Any], tmp_path: Path) -> None:
    hub["quick_gelu"] = True
    with pytest.raises(WeightsError, match="another activation") as caught:
        fetch_tag("w2c-mini/sea", tmp_path / "clip.safetensors")
    assert caught.value.hint == "use w2c-mini-quickgelu/sea"


def test_architectures_that_ask_the_hub_at_every_use_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="tokenizer"):
        fetch_tag("ViT-B-16-SigLIP/webli", tmp_path / "clip.safetensors")
