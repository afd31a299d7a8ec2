from __future__ import annotations

import copy

import pytest
import torch
from taming.modules.diffusionmodules.model import ResnetBlock
from torch import Tensor

from wav2clip_gen.models.vqgan import VQGAN, VQGANConfig

SMALL = VQGANConfig(
    ch=32, ch_mult=(1, 2), num_res_blocks=1, attn_resolutions=(), resolution=32,
    z_channels=8, embed_dim=6, n_embed=40,
)  # fmt: skip


@pytest.fixture(scope="module")
def network() -> VQGAN:
    network = VQGAN(SMALL).eval()
    with torch.no_grad():
        network.quantize.codes.normal_(generator=torch.Generator().manual_seed(1))
    return network


@pytest.fixture
def pictures() -> Tensor:
    return torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_a_picture_is_encoded_quantised_and_decoded_as_taming_does(network: VQGAN, pictures: Tensor) -> None:
    latent = network.quant_conv(network.encoder(2 * pictures - 1))
    torch.testing.assert_close(network.encode(pictures), latent)
    cells = latent.permute(0, 2, 3, 1).reshape(-1, SMALL.embed_dim)
    codes = network.quantize.codes
    nearest = codes[torch.cdist(cells, codes).argmin(dim=1)]
    quantised = nearest.view(2, 16, 24, SMALL.embed_dim).permute(0, 3, 1, 2)
    torch.testing.assert_close(network.quantise(latent), quantised)
    decoder = copy.deepcopy(network.decoder)
    decoder.give_pre_end = False
    for block in decoder.modules():
        if isinstance(block, ResnetBlock):
            block.__class__ = ResnetBlock
    decoded = (decoder(network.post_quant_conv(quantised)) + 1) / 2
    torch.testing.assert_close(network.decode(quantised), decoded)


def test_the_gradient_goes_straight_through_the_codes(network: VQGAN) -> None:
    latent = torch.randn(1, SMALL.embed_dim, 3, 5, requires_grad=True)
    weights = torch.randn(1, SMALL.embed_dim, 3, 5)
    (network.quantise(latent) * weights).sum().backward()
    torch.testing.assert_close(latent.grad, weights)


@pytest.mark.parametrize(("rows", "columns"), [(2, 1), (3, 7), (9, 4)])
@torch.no_grad()
def test_any_grid_can_be_drawn(network: VQGAN, rows: int, columns: int) -> None:
    latent = torch.randn(1, network.config.embed_dim, rows, columns, generator=torch.Generator().manual_seed(0))
    picture = network.decode(latent)
    assert picture.shape == (1, 3, rows * network.stride, columns * network.stride)
    assert network.encode(picture).shape == latent.shape


def test_names_are_those_of_the_published_checkpoints(network: VQGAN) -> None:
    names = set(network.state_dict())
    assert {name.split(".")[0] for name in names} == {
        "encoder", "decoder", "quantize", "quant_conv", "post_quant_conv",
    }  # fmt: skip
    assert {"quantize.embedding.weight", "encoder.conv_in.weight", "decoder.norm_out.weight"} <= names


def test_taming_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    VQGAN(SMALL)
    assert capsys.readouterr().out == ""
