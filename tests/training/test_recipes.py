"""Each part learns for a few steps on toy data; that it learns something is a slow test's matter."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import Write
from tests.training.conftest import SOUNDS, write_table
from wav2clip_gen.errors import TrainingError
from wav2clip_gen.models import checkpoints
from wav2clip_gen.models.vocabulary import read_words, words_in, write_words
from wav2clip_gen.models.vqgan import VQGAN, VQGANConfig
from wav2clip_gen.models.wav2clip import Wav2CLIP, Wav2CLIPConfig
from wav2clip_gen.training.clip import ImageRecipe, ImageTraining
from wav2clip_gen.training.loop import Recipe, Run
from wav2clip_gen.training.plan import Plan, Progress, Scored
from wav2clip_gen.training.reconstruction import lattice_loss, reconstruction_losses, shifted
from wav2clip_gen.training.sounds import Sound, excerpt
from wav2clip_gen.training.text import TextRecipe, TextTraining, join_towers
from wav2clip_gen.training.vqgan import VQGANRecipe, VQGANTraining, kmeans
from wav2clip_gen.training.wav2clip import Wav2CLIPRecipe, Wav2CLIPTraining, contrast

SMALL = VQGANConfig(
    ch=32, ch_mult=(1, 1), num_res_blocks=1, attn_resolutions=(), resolution=128,
    z_channels=4, embed_dim=4, n_embed=16, norm_groups=4,
)  # fmt: skip


@pytest.fixture(autouse=True)
def _few_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """The codes of so small a painter are found in a few pictures."""
    monkeypatch.setattr("wav2clip_gen.training.vqgan.KMEANS_PICTURES", 4)


def train(recipe: Recipe[Any], folder: Path, steps: int) -> tuple[list[dict[str, float]], dict[str, float]]:
    """Losses of each step, and the scores at the end."""
    plan = Plan(folder=folder, steps=steps, report_every=0)
    events = list(Run(recipe, plan).events())
    losses = [event.losses for event in events if isinstance(event, Progress)]
    return losses, next(event.scores for event in events if isinstance(event, Scored))


def begin(recipe: Recipe[Any], folder: Path, steps: int) -> None:
    """Break a run off in its third step, one past the last checkpoint."""
    for event in Run(recipe, Plan(folder=folder, steps=steps, report_every=0, save_every=0)).events():
        if isinstance(event, Progress) and event.step == 3:
            break


def vqgan(data: Path, *, clip: Path | None = None, start: Path | None = None, **settings: float) -> VQGANRecipe:
    shares = {"autoencoder": 0.5, "perceptual_from": 0.5, "adversarial_from": 0.5} | settings
    return VQGANRecipe(data, VQGANTraining(batch=2, crop=16, **shares), clip=clip, start=start, config=SMALL)


@pytest.fixture(scope="session")
def begun_vqgan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a painter that has its codes already."""
    path = tmp_path_factory.mktemp("vqgan") / "vqgan.safetensors"
    torch.manual_seed(3)
    checkpoints.save(VQGAN(SMALL), path, training={"steps": 7})
    return path


def test_the_painter_gets_its_codes_half_way(toy_data: Path, untrained_clip: Path, tmp_path: Path) -> None:
    losses, scores = train(vqgan(toy_data, clip=untrained_clip), tmp_path, 4)
    assert not {"commitment", "perceptual", "adversarial"} & losses[1].keys()
    assert {"commitment", "perceptual", "adversarial"} <= losses[2].keys()
    assert scores["psnr"] > 0
    assert 0 < scores["codes_used"] <= 1
    network = checkpoints.load(tmp_path / "vqgan.safetensors", role="vqgan")
    assert isinstance(network, VQGAN)
    assert network.config == SMALL


@pytest.mark.parametrize("part", ["image tower", "text tower", "sound encoder"])
def test_an_interrupted_run_has_the_same_loss_curve(
    toy_data: Path, untrained_clip: Path, tmp_path: Path, part: str
) -> None:
    def recipe() -> Recipe[Any]:
        if part == "image tower":
            return image(toy_data)
        if part == "text tower":
            return TextRecipe(toy_data, TextTraining(batch=4))
        return wav2clip(toy_data, untrained_clip)

    whole, scores = train(recipe(), tmp_path / "whole", 4)
    begin(recipe(), tmp_path / "parts", 4)
    rest, again = train(recipe(), tmp_path / "parts", 4)
    assert rest == whole[2:]
    assert again == scores


def test_a_painter_does_not_go_on_with_another_clip(toy_data: Path, untrained_clip: Path, tmp_path: Path) -> None:
    train(vqgan(toy_data, clip=untrained_clip, autoencoder=1.0), tmp_path, 1)
    with pytest.raises(TrainingError, match=r"other settings: clip \([0-9a-f]{12}, now None\)"):
        train(vqgan(toy_data, autoencoder=1.0), tmp_path, 2)


def test_the_painter_goes_on_with_its_codes(toy_data: Path, tmp_path: Path) -> None:
    whole, _ = train(vqgan(toy_data), tmp_path / "whole", 3)
    begin(vqgan(toy_data), tmp_path / "parts", 3)
    rest, _ = train(vqgan(toy_data), tmp_path / "parts", 3)
    assert rest == whole[2:]


def test_an_interrupted_painter_goes_on_with_its_discriminator(
    toy_data: Path, begun_vqgan: Path, untrained_clip: Path, tmp_path: Path
) -> None:
    def recipe() -> VQGANRecipe:
        return vqgan(toy_data, clip=untrained_clip, start=begun_vqgan, perceptual_from=0.0, adversarial_from=0.0)

    whole, scores = train(recipe(), tmp_path / "whole", 5)
    assert all("adversarial" in losses for losses in whole)
    begin(recipe(), tmp_path / "parts", 5)
    rest, again = train(recipe(), tmp_path / "parts", 5)
    assert rest == whole[2:]
    assert again == scores


def test_a_painter_is_trained_further_from_its_file(toy_data: Path, begun_vqgan: Path, tmp_path: Path) -> None:
    recipe = vqgan(toy_data, start=begun_vqgan)
    begun = checkpoints.load(begun_vqgan, role="vqgan")
    for name, tensor in begun.state_dict().items():
        assert torch.equal(recipe.network.state_dict()[name], tensor), name
    losses, _ = train(recipe, tmp_path, 1)
    assert "commitment" in losses[0]  # its codes are used at once
    assert checkpoints.read_header(tmp_path / "vqgan.safetensors").training["before"] == {"steps": 7}


def test_a_painter_of_another_size_is_refused(toy_data: Path, begun_vqgan: Path) -> None:
    with pytest.raises(TrainingError, match=r"another size: .*n_embed \(16, not 4096\)"):
        VQGANRecipe(toy_data, start=begun_vqgan)


def test_the_discriminator_waits_and_can_be_left_out(toy_data: Path, tmp_path: Path) -> None:
    late, _ = train(vqgan(toy_data, adversarial_from=1.0), tmp_path / "late", 1)
    without, scores = train(vqgan(toy_data, adversarial=0.0, adversarial_from=0.0), tmp_path / "without", 1)
    assert "adversarial" not in late[0].keys() | without[0].keys()
    assert "discriminator" not in scores


def test_giving_the_latent_unit_deviation_changes_no_picture(toy_data: Path) -> None:
    recipe = vqgan(toy_data)
    pictures = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        before = recipe.network.decode(recipe.network.encode(pictures))
        recipe._begin_quantising()
        after = recipe.network.decode(recipe.network.encode(pictures))
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-3)


def test_true_pictures_cost_nothing() -> None:
    picture = torch.rand(1, 3, 8, 8)
    assert all(value == 0 for value in reconstruction_losses(picture, picture).values())


def test_edges_at_the_same_place_of_every_cell_are_a_lattice() -> None:
    generator = torch.Generator().manual_seed(0)
    true, noise = torch.rand(2, 8, 3, 64, 64, generator=generator)
    lattice = torch.full_like(noise, 0.5)
    lattice[..., ::8] = 0.0
    assert lattice_loss(true, true, cell=8) == 0
    assert lattice_loss(noise, true, cell=8) < 0.01
    assert lattice_loss(lattice, true, cell=8) > 1
    assert lattice_loss(lattice.roll(3, dims=-1), true, cell=8) > 1
    flat = torch.full_like(noise, 0.5, requires_grad=True)
    lattice_loss(flat, true, cell=8).backward()
    assert flat.grad is not None
    assert flat.grad.isfinite().all()


def test_a_shift_cuts_the_same_from_both() -> None:
    picture = torch.rand(1, 3, 32, 24)
    places = set()
    for seed in range(200):
        one, other = shifted(picture, 2 * picture, most=4, generator=torch.Generator().manual_seed(seed))
        assert one.shape == (1, 3, 28, 20)
        assert torch.equal(2 * one, other)
        places.add(one[0, 0, 0, 0].item())
    assert len(places) == 16


def test_kmeans_finds_the_heaps() -> None:
    heaps = torch.tensor([[0.0, 0.0], [5.0, 5.0], [0.0, 9.0]])
    points = heaps.repeat_interleave(50, dim=0) + 0.01 * torch.randn(150, 2)
    centres = kmeans(points, 12, generator=torch.Generator().manual_seed(0))
    assert torch.cdist(heaps, centres).amin(dim=1).max() < 0.1


def image(data: Path) -> ImageRecipe:
    return ImageRecipe(data, ImageTraining(batch=4))


def test_the_image_tower_learns_and_is_attacked(toy_data: Path, tmp_path: Path) -> None:
    recipe = image(toy_data)
    assert set(recipe.anchor_names) == {"dog", "cat", "drum", "sea"}
    losses, scores = train(recipe, tmp_path, 2)
    assert len(losses) == 2
    assert {"top1 natural", "top1 robust natural", "top1 tiny"} <= scores.keys()
    with torch.no_grad():  # what all anchors share, pictures say nothing of
        embeddings = recipe.network.eval().encode_images(torch.rand(3, 3, 64, 64))
    assert (embeddings @ recipe.anchors.mean(dim=0)).abs().max() < 1e-5


def test_the_adversary_stays_within_its_radius_and_does_harm(toy_data: Path) -> None:
    recipe = image(toy_data)
    network = recipe.network.eval()
    generator = torch.Generator().manual_seed(0)
    pictures = 0.2 + 0.6 * torch.rand(4, 3, 64, 64, generator=generator)
    targets = torch.eye(4)
    moved = recipe.attack(network, pictures, targets, generator)
    distance = torch.linalg.vector_norm((moved - pictures).flatten(1), dim=1)
    assert distance.max() <= recipe.settings.radius / 2 + 1e-4
    assert moved.min() >= 0
    assert moved.max() <= 1
    before, after = (recipe._cross_entropy(network, these, targets) for these in (pictures, moved))
    assert after > before


def test_both_towers_end_in_one_file(toy_data: Path, tmp_path: Path) -> None:
    train(image(toy_data), tmp_path / "image", 1)
    recipe = TextRecipe(toy_data, TextTraining(batch=8))
    losses, scores = train(recipe, tmp_path / "text", 2)
    assert {"direction", "cosine", "contrast"} == losses[0].keys()
    assert all(math.isfinite(value) for value in scores.values())
    out = tmp_path / "clip.safetensors"
    write_words(recipe.words, tmp_path / "text" / "clip.safetensors")
    join_towers(tmp_path / "image" / "clip.safetensors", tmp_path / "text" / "clip.safetensors", out)
    joined, image_tower, text_tower = (
        checkpoints.load(path, role="clip").state_dict()
        for path in (out, tmp_path / "image" / "clip.safetensors", tmp_path / "text" / "clip.safetensors")
    )
    for name, tensor in joined.items():
        source = image_tower if ".visual." in name or "logit_scale" in name else text_tower
        assert torch.equal(tensor, source[name]), name
    assert set(checkpoints.read_header(out).training) == {"image", "text"}
    assert set(words_in(recipe.concepts.names)) <= (read_words(out) or frozenset())


def wav2clip(data: Path, clip: Path) -> Wav2CLIPRecipe:
    return Wav2CLIPRecipe(data, clip, Wav2CLIPTraining(batch=4), config=Wav2CLIPConfig(width=4))


def test_the_sound_encoder_learns_from_the_pictures(
    toy_data: Path, untrained_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = wav2clip(toy_data, untrained_clip)
    assert recipe.labels.names == ("cat", "dog", "drums", "sea_waves")
    assert not recipe.train.groups & recipe.validation.groups
    losses, scores = train(recipe, tmp_path, 2)
    assert {"sound-image", "sound-projected image", "sound-text", "pull"} == losses[0].keys()
    assert scores["chance"] == 0.25
    assert isinstance(checkpoints.load(tmp_path / "wav2clip.safetensors", role="wav2clip"), Wav2CLIP)


def test_a_teacher_is_one_more_term_and_leaves_the_others(
    toy_data: Path, untrained_clip: Path, tmp_path: Path, write_sound: Write
) -> None:
    write_sound(np.sin(np.arange(48_000) / 20), "more/a.wav")
    settings, small = Wav2CLIPTraining(batch=4, teacher=1.0), Wav2CLIPConfig(width=4)
    recipe = Wav2CLIPRecipe(toy_data, untrained_clip, settings, config=small, unlabelled=tmp_path / "more")
    assert [piece.key for piece in recipe._taught] == ["a.wav"]
    with_teacher, _ = train(recipe, tmp_path / "with", 1)
    without, _ = train(wav2clip(toy_data, untrained_clip), tmp_path / "without", 1)
    assert with_teacher[0].pop("teacher") > 0
    assert with_teacher == without


def test_sounds_without_labels_need_the_teacher(toy_data: Path, untrained_clip: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="for the teacher, which is off"):
        Wav2CLIPRecipe(toy_data, untrained_clip, unlabelled=tmp_path)


@pytest.mark.usefixtures("no_sentences")
def test_sounds_whose_labels_mean_nothing_are_an_error(toy_data: Path, untrained_clip: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(toy_data, data)
    table = data / "text" / "audio_labels.csv"
    rows = [{"set": "toy", "label": name, "anchors": "", "how": "", "esc50_class": ""} for name, _, _ in SOUNDS]
    write_table(table, [row | {"esc50_class": row["label"]} for row in rows])
    with pytest.raises(TrainingError, match="no sound has a label that can be seen"):
        Wav2CLIPRecipe(data, untrained_clip)
    table.write_text(table.read_text().splitlines()[0] + "\n")
    with pytest.raises(TrainingError, match="none of the labels of the set 'toy' is known, such as 'dog'") as caught:
        Wav2CLIPRecipe(data, untrained_clip)
    assert "audio_labels.csv" in caught.value.hint


def test_a_changed_speed_changes_the_pitch() -> None:
    tone = (20_000 * np.sin(2 * np.pi * 1000 * np.arange(32_000) / 16_000)).astype(np.int16)
    piece = Sound.of(tone, key="tone", set="toy", label="tone")
    pitches = {
        int(torch.fft.rfft(excerpt(piece, 16_000, generator=torch.Generator().manual_seed(seed))).abs().argmax())
        for seed in range(20)
    }
    assert min(pitches) >= 850
    assert max(pitches) <= 1150
    assert max(pitches) - min(pitches) > 150


def test_sounds_of_one_label_are_not_each_others_negatives() -> None:
    shares = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    right = contrast(50 * shares, shares, smoothing=0.0)
    wrong = contrast(50 * shares.flip(1), shares, smoothing=0.0)
    assert right < 0.5 < wrong


@pytest.mark.usefixtures("no_sentences")
def test_without_the_sentence_model_labels_without_an_anchor_stay_out(toy_data: Path, untrained_clip: Path) -> None:
    tower, ears = image(toy_data), wav2clip(toy_data, untrained_clip)
    assert "sea" not in tower.anchor_names
    assert ears.labels.names == ("cat", "dog", "drums")
    assert all("wav2clip-gen[train]" in recipe.notes[0] for recipe in (tower, ears, TextRecipe(toy_data)))


@pytest.mark.slow
def test_the_painter_learns_the_colours(toy_data: Path, tmp_path: Path) -> None:
    settings = VQGANTraining(batch=4, crop=32, learning_rate=3e-3)
    losses, scores = train(VQGANRecipe(toy_data, settings, config=SMALL), tmp_path, 200)
    assert losses[-1]["pixels"] < 0.5 * losses[0]["pixels"]
    assert scores["psnr"] > 15
