from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.training.conftest import SMALL_VQGAN, interrupt, train
from wav2clip_gen.errors import TrainingError
from wav2clip_gen.models import checkpoints
from wav2clip_gen.models.vqgan import VQGAN
from wav2clip_gen.training import data
from wav2clip_gen.training.mini.vqgan import VQGANTask, kmeans
from wav2clip_gen.training.settings import VQGANSettings


@pytest.fixture(autouse=True)
def _few_small_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small images; the codes of so small a network are found in a few of them."""
    monkeypatch.setattr("wav2clip_gen.training.mini.vqgan.KMEANS_IMAGES", 4)
    monkeypatch.setitem(data.SIZES, "natural", 32)


def vqgan(data: Path, *, start: Path | None = None, **settings: float) -> VQGANTask:
    shares = {"autoencoder": 0.5, "perceptual_from": 0.5, "adversarial_from": 0.5} | settings
    return VQGANTask(data, VQGANSettings(batch=2, crop=16, **shares), start=start, config=SMALL_VQGAN)


@pytest.fixture(scope="session")
def trained_vqgan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a VQGAN that has its codes already."""
    path = tmp_path_factory.mktemp("vqgan") / "vqgan.safetensors"
    torch.manual_seed(3)
    checkpoints.save(VQGAN(SMALL_VQGAN), path, training={"steps": 7})
    return path


def test_quantization_starts_after_its_share_of_the_run(toy_data: Path, tmp_path: Path) -> None:
    losses, scores = train(vqgan(toy_data), tmp_path, 4)
    assert not {"commitment", "perceptual", "adversarial"} & losses[1].keys()
    assert {"commitment", "perceptual", "adversarial"} <= losses[2].keys()
    assert scores["psnr"] > 0
    assert 0 < scores["codes_used"] <= 1
    network = checkpoints.load(tmp_path / "vqgan.safetensors", role="vqgan")
    assert isinstance(network, VQGAN)
    assert network.config == SMALL_VQGAN


def test_whole_pictures_replace_the_crops_at_the_end(toy_data: Path) -> None:
    task = vqgan(toy_data, whole_from=0.5)
    sizes = [
        tuple(task._load_batch(step, progress, torch.Generator()).shape)
        for step, progress in ((0, 0.0), (3, 0.0), (0, 0.6))
    ]
    assert sizes == [(2, 3, 16, 16), (1, 3, 32, 32), (1, 3, 32, 32)]


def test_a_run_resumed_before_quantization_equals_an_uninterrupted_one(toy_data: Path, tmp_path: Path) -> None:
    whole, _ = train(vqgan(toy_data), tmp_path / "whole", 3)
    interrupt(vqgan(toy_data), tmp_path / "resumed", 3)
    rest, _ = train(vqgan(toy_data), tmp_path / "resumed", 3)
    assert rest == whole[1:]


def test_a_resumed_run_equals_an_uninterrupted_one(toy_data: Path, trained_vqgan: Path, tmp_path: Path) -> None:
    def task() -> VQGANTask:
        return vqgan(toy_data, start=trained_vqgan, perceptual_from=0.0, adversarial_from=0.0)

    whole, scores = train(task(), tmp_path / "whole", 3)
    assert all("adversarial" in losses for losses in whole)
    interrupt(task(), tmp_path / "resumed", 3)
    rest, final = train(task(), tmp_path / "resumed", 3)
    assert rest == whole[1:]
    assert final == scores


def test_weights_are_fine_tuned(toy_data: Path, trained_vqgan: Path, tmp_path: Path) -> None:
    task = vqgan(toy_data, start=trained_vqgan)
    started = checkpoints.load(trained_vqgan, role="vqgan")
    for name, tensor in started.state_dict().items():
        assert torch.equal(task.network.state_dict()[name], tensor), name
    losses, _ = train(task, tmp_path, 1)
    assert "commitment" in losses[0]  # its codes are used from the start
    assert checkpoints.read_header(tmp_path / "vqgan.safetensors").training["before"] == {"steps": 7}


def test_weights_of_another_size_are_refused(toy_data: Path, trained_vqgan: Path) -> None:
    with pytest.raises(TrainingError, match=r"another size: .*n_embed \(16, not 8192\)"):
        VQGANTask(toy_data, start=trained_vqgan)


def test_the_discriminator_starts_later_or_never(toy_data: Path, tmp_path: Path) -> None:
    late, _ = train(vqgan(toy_data, adversarial_from=1.0), tmp_path / "late", 1)
    without, scores = train(vqgan(toy_data, adversarial=0.0, adversarial_from=0.0), tmp_path / "without", 1)
    assert "adversarial" not in late[0].keys() | without[0].keys()
    assert "discriminator" not in scores


def test_scaling_the_latent_changes_no_image(toy_data: Path) -> None:
    task = vqgan(toy_data)
    pictures = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        before = task.network.decode(task.network.encode(pictures))
        task._start_quantizing()
        after = task.network.decode(task.network.encode(pictures))
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-3)


def test_kmeans_finds_the_clusters() -> None:
    clusters = torch.tensor([[0.0, 0.0], [5.0, 5.0], [0.0, 9.0]])
    points = clusters.repeat_interleave(50, dim=0) + 0.01 * torch.randn(150, 2)
    centres = kmeans(points, 12, generator=torch.Generator().manual_seed(0))
    assert torch.cdist(clusters, centres).amin(dim=1).max() < 0.1


@pytest.mark.slow
def test_it_learns_the_colors(toy_data: Path, tmp_path: Path) -> None:
    settings = VQGANSettings(batch=4, crop=32, learning_rate=3e-3)
    losses, scores = train(VQGANTask(toy_data, settings, config=SMALL_VQGAN), tmp_path, 200)
    assert losses[-1]["pixels"] < 0.5 * losses[0]["pixels"]
    assert scores["psnr"] > 15
