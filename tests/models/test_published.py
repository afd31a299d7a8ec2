"""The published networks, at their published size: the same tensors, and the same numbers, as the reference code."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests import structures as reference
from wav2clip_gen.models import checkpoints, convert
from wav2clip_gen.models.clip import Perceptor
from wav2clip_gen.models.vqgan import VQGAN, VQGANConfig
from wav2clip_gen.models.wav2clip import Wav2CLIPConfig

F16 = {n: asdict(VQGANConfig(n_embed=n)) for n in (1024, 8192, 16_384)}
F8 = asdict(VQGANConfig(ch_mult=(1, 1, 2, 4), attn_resolutions=(32,), n_embed=8192, gumbel=True))
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "wav2clip": ("wav2clip", asdict(Wav2CLIPConfig())),
    "vqgan-f16-1024": ("vqgan", F16[1024]),
    "vqgan-f16-8192": ("vqgan", F16[8192]),
    "vqgan-f16-16384": ("vqgan", F16[16_384]),
    "vqgan-f8-8192-gumbel": ("vqgan", F8),
    "clip-vit-b-32": ("clip", {"architecture": "ViT-B-32-quickgelu"}),
    "clip-vit-b-16": ("clip", {"architecture": "ViT-B-16-quickgelu"}),
    "clip-vit-l-14": ("clip", {"architecture": "ViT-L-14-quickgelu"}),
    "audioclip": ("audioclip", {}),
    "clip-rn50": ("clip", {"architecture": "RN50-quickgelu"}),
}
LIGHT = [name for name in CONFIGS if not name.startswith(("clip", "audioclip"))]


def shapes(tensors: dict[str, Tensor]) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {name: (str(value.dtype).removeprefix("torch."), tuple(value.shape)) for name, value in tensors.items()}


def test_all_published_networks_are_covered() -> None:
    assert set(CONFIGS) == set(convert.KNOWN) == set(reference.REFERENCES)


@pytest.mark.parametrize(
    "name", [*LIGHT, *(pytest.param(n, marks=pytest.mark.slow) for n in CONFIGS if n not in LIGHT)]
)
def test_our_network_has_the_tensors_of_the_published_file(name: str) -> None:
    role, config = CONFIGS[name]
    network = checkpoints.build(role, config)
    tensors = network.state_dict()
    if role in ("clip", "audioclip"):
        tensors = {key.removeprefix("model."): value for key, value in tensors.items()}
    assert shapes(tensors) == convert.read_structure(name)


@pytest.mark.parametrize("name", LIGHT)
def test_the_data_is_what_the_reference_code_gives(name: str) -> None:
    assert (convert.STRUCTURES / f"{name}.txt").read_text() == reference.lines(name)


@pytest.mark.parametrize("name", convert.KNOWN)
def test_a_published_file_is_recognised(name: str) -> None:
    tensors = {key: torch.empty(shape, device="meta") for key, (_, shape) in convert.read_structure(name).items()}
    assert convert.recognize(tensors) == convert.KNOWN[name]


def test_strangers_are_recognised_by_their_names() -> None:
    assert convert.recognize({"model.diffusion_model.x": torch.zeros(1)}) == "a latent diffusion model"
    assert convert.recognize({"what": torch.zeros(1)}) is None


class StraightVQModel:
    """Inference as taming's VQModel and GumbelVQ do it, read straight from their definition, in [-1, 1]."""

    def __init__(self, parts: nn.Module, *, gumbel: bool) -> None:
        self.parts, self.gumbel = parts, gumbel

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Quantised latent and code numbers of pictures."""
        parts: Any = self.parts
        h = parts.quant_conv(parts.encoder(x))
        if self.gumbel:
            numbers = parts.quantize.proj(h).argmax(dim=1)
            return parts.quantize.embed(numbers).permute(0, 3, 1, 2), numbers
        codes = parts.quantize.embedding.weight
        cells = h.permute(0, 2, 3, 1).reshape(-1, codes.shape[1])
        distances = torch.cat([((cell - codes) ** 2).sum(dim=1, keepdim=True) for cell in cells], dim=1)
        numbers = distances.argmin(dim=0).view(h.shape[0], *h.shape[2:])
        return codes[numbers].permute(0, 3, 1, 2), numbers

    def decode(self, quantised: Tensor) -> Tensor:
        parts: Any = self.parts
        picture: Tensor = parts.decoder(parts.post_quant_conv(quantised))
        return picture


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vqgan-f16-1024", "vqgan-f8-8192-gumbel"])
@torch.no_grad()
def test_a_vqgan_of_published_size_computes_what_taming_computes(name: str) -> None:
    role, config = CONFIGS[name]
    ours = checkpoints.random_network(role, config, seed=5)
    assert isinstance(ours, VQGAN)
    ours.quantize.codes.mul_(3)  # so that the codes lie about as far apart as the encoder's outputs
    parts = reference.REFERENCES[name]()
    parts.load_state_dict(ours.state_dict())
    theirs = StraightVQModel(parts.eval(), gumbel=config["gumbel"])
    pictures = torch.rand(1, 3, 96, 64, generator=torch.Generator().manual_seed(1))

    quantised, numbers = theirs.encode(pictures * 2 - 1)
    assert numbers.unique().numel() > 5
    torch.testing.assert_close(ours.quantise(ours.encode(pictures)), quantised, atol=1e-5, rtol=1e-5)
    drawn = (theirs.decode(quantised) + 1) / 2
    torch.testing.assert_close(ours.decode(quantised), drawn, atol=1e-5, rtol=1e-5)


@pytest.fixture(scope="module")
def vit() -> Perceptor:
    network = checkpoints.random_network("clip", {"architecture": "ViT-B-32-quickgelu"}, seed=2)
    assert isinstance(network, Perceptor)
    return network


@pytest.mark.slow
@torch.no_grad()
def test_a_float_picture_is_prepared_as_by_open_clip(vit: Perceptor) -> None:
    from open_clip.transform import PreprocessCfg, image_transform_v2
    from PIL import Image

    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 9, 9, generator=generator)
    picture = F.interpolate(coarse, size=(vit.size, vit.size), mode="bicubic").clamp(0, 1)
    image = Image.fromarray((picture[0] * 255).round().byte().permute(1, 2, 0).numpy())
    prepare = image_transform_v2(PreprocessCfg(**vit.model.visual.preprocess_cfg), is_train=False)
    theirs = F.normalize(vit.model.encode_image(prepare(image).unsqueeze(0)), dim=-1)
    assert F.cosine_similarity(vit.encode_images(picture), theirs).item() > 0.999


@pytest.mark.slow
@torch.no_grad()
def test_words_go_through_the_published_tokenizer(vit: Perceptor) -> None:
    import open_clip

    tokens = open_clip.get_tokenizer("ViT-B-32-quickgelu")(["a dog", "a stormy sea"])
    assert tokens[0, :5].tolist() == [
        49406,
        320,
        1929,
        49407,
        0,
    ]  # start, "a", "dog", end, as CLIP's vocabulary has them
    expected = F.normalize(vit.model.encode_text(tokens), dim=-1)
    torch.testing.assert_close(vit.encode_text(["a dog", "a stormy sea"]), expected)


def test_the_prompt_loss_is_the_known_formula() -> None:
    from wav2clip_gen.synthesis.losses import spherical_distance

    generator = torch.Generator().manual_seed(0)
    a, b = (F.normalize(torch.randn(40, 512, generator=generator), dim=-1) for _ in range(2))

    def plain(x: list[float], y: list[float]) -> float:
        """VQGAN-CLIP's prompt loss in Python's own float64."""
        chord = math.sqrt(math.fsum((p - q) ** 2 for p, q in zip(x, y, strict=True)))
        return 2 * math.asin(chord / 2) ** 2

    expected = [plain(x, y) for x, y in zip(a.double().tolist(), b.double().tolist(), strict=True)]
    torch.testing.assert_close(
        spherical_distance(a, b).double(), torch.tensor(expected, dtype=torch.float64), rtol=1e-5, atol=1e-6
    )
