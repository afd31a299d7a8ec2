"""Sound encoders: one interface, whatever the network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.training.conftest import write_yamnet
from wav2clip_gen.benchmark.encoders import ENCODERS, SoundEncoder, Wav2CLIPEncoder, load_encoder
from wav2clip_gen.errors import SettingsError, WeightsError
from wav2clip_gen.models import checkpoints, manifest, openl3
from wav2clip_gen.models.audioclip import AudioCLIP
from wav2clip_gen.models.fetch import install
from wav2clip_gen.models.openl3 import OpenL3
from wav2clip_gen.models.wav2clip import windows_of
from wav2clip_gen.models.yamnet import YAMNet
from wav2clip_gen.training.mini.wav2clip import embed_samples

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of weights, random ones."""
    folder = tmp_path_factory.mktemp("weights")
    write_yamnet(folder / "data")
    install(folder / "data" / "teachers" / "yamnet.npz", manifest.part("yamnet"), folder)
    checkpoints.write_random(folder / "openl3-env" / "openl3.safetensors", role="openl3", config={})
    config = {"architecture": "w2c-mini", "blocks": [1, 1, 1, 1]}
    checkpoints.write_random(folder / "audioclip" / "audioclip.safetensors", role="audioclip", config=config)
    return folder


def noise(encoder: SoundEncoder, seconds: float, *, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(round(seconds * encoder.rate), generator=torch.Generator().manual_seed(seed))


def test_a_short_sound_is_repeated() -> None:
    assert windows_of(torch.arange(3), 5, 2).tolist() == [[0, 1, 2, 0, 1]]
    assert windows_of(torch.arange(6), 4, 2).tolist() == [[0, 1, 2, 3], [2, 3, 4, 5]]


def test_log_mel_frames_are_means_and_deviations() -> None:
    encoder = load_encoder("log-mel", device=CPU)
    sound = noise(encoder, 2)
    frames, vector = encoder.encode(sound, 0.5)
    assert frames.shape == (3, 128)
    torch.testing.assert_close(vector, frames.mean(dim=0))
    louder, _ = encoder.encode(10 * sound, 0.5)
    torch.testing.assert_close(louder[:, :64] - frames[:, :64], torch.full((3, 64), 4.605), atol=2e-2, rtol=0)


def test_mini_has_all_three_sides() -> None:
    encoder = load_encoder("mini", device=CPU)
    frames, vector = encoder.encode(noise(encoder, 1.5), 0.25)
    assert frames.shape == (3, 512)
    vectors = [vector[None], encoder.encode_texts(["rain", "a dog"]), encoder.encode_images(torch.rand(2, 3, 40, 50))]
    assert [len(one) for one in vectors] == [1, 2, 2]
    torch.testing.assert_close(torch.cat(vectors).norm(dim=1), torch.ones(5))
    assert encoder.identity == load_encoder("mini", device=CPU).identity


def test_wav2clip_embeds_what_is_audible_as_evaluations_do() -> None:
    encoder = load_encoder("mini", device=CPU)
    assert isinstance(encoder, Wav2CLIPEncoder)
    sound = noise(encoder, 2)
    vectors = [encoder.encode(F.pad(sound, (0, zeros)), 0.5).vector for zeros in (8_000, 48_000)]
    torch.testing.assert_close(vectors[0], vectors[1])
    samples = (32768 * sound).clamp(-32768, 32767).short()
    vector = embed_samples(encoder.models.wav2clip, samples.numpy())
    torch.testing.assert_close(vector, encoder.encode(samples / 32768, 0.5).vector)


def test_yamnet_gives_the_mean_of_its_patches(weights: Path) -> None:
    encoder = load_encoder("yamnet", device=CPU, weights_dir=weights)
    sound = noise(encoder, 2)
    frames, vector = encoder.encode(sound, 0.48)
    assert frames.shape == (3, 1024)
    network = encoder.network  # type: ignore[attr-defined]
    assert isinstance(network, YAMNet)
    torch.testing.assert_close(network.classifier(frames).sigmoid().mean(dim=0), network(sound[None])[0])
    torch.testing.assert_close(vector, frames.mean(dim=0))
    assert encoder.encode(sound[:800], 0.48).frames.shape == (1, 1024)
    with pytest.raises(SettingsError, match="yamnet has no text encoder"):
        encoder.encode_texts(["rain"])


def test_audioclip_hears_a_sound_whole(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = load_encoder("audioclip", device=CPU, weights_dir=weights)
    sound = noise(encoder, 1.6)
    frames, vector = encoder.encode(sound, 0.3)
    network = encoder.network  # type: ignore[attr-defined]
    assert isinstance(network, AudioCLIP)
    assert frames.shape == (3, 512)
    torch.testing.assert_close(frames[1], network.encode_sounds(sound[None, 13_230 : 13_230 + 44_100])[0])
    torch.testing.assert_close(vector, network.encode_sounds(sound[None])[0])
    monkeypatch.setattr(encoder, "longest", 0.8)
    halves = network.encode_sounds(torch.stack(sound.chunk(2)))
    torch.testing.assert_close(encoder.encode(sound, 0.3).vector, F.normalize(halves.mean(dim=0), dim=0))
    for vectors in (encoder.encode_texts(["rain", "a dog"]), encoder.encode_images(torch.rand(2, 3, 40, 50))):
        assert vectors.shape == (2, 512)
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2))


def test_openl3_centres_its_windows(weights: Path) -> None:
    encoder = load_encoder("openl3-env-512", device=CPU, weights_dir=weights)
    sound = noise(encoder, 1.1)
    frames, vector = encoder.encode(sound, 0.5)
    network = encoder.network  # type: ignore[attr-defined]
    assert isinstance(network, OpenL3)
    assert frames.shape == (3, 512)  # centred at 0, 0.5 and 1 s, the last filled up with zeros
    torch.testing.assert_close(frames[1], network(sound[None, : openl3.WINDOW])[0])
    torch.testing.assert_close(frames[2], network(F.pad(sound[24_000:], (0, 19_200))[None])[0])
    torch.testing.assert_close(vector, frames.mean(dim=0))
    large = load_encoder("openl3-env-6144", device=CPU, weights_dir=weights)
    assert large.encode(sound[:100], 0.5).frames.shape == (1, 6144)
    assert large.identity != encoder.identity


def test_missing_weights_say_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such weights file") as caught:
        load_encoder("yamnet", device=CPU, weights_dir=tmp_path)
    assert caught.value.hint == "run `w2c-gen weights fetch yamnet`"
    with pytest.raises(WeightsError) as caught:
        load_encoder("openl3-music-6144", device=CPU, weights_dir=tmp_path)
    assert caught.value.hint == "run `w2c-gen weights fetch openl3-music`"


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(SettingsError, match="no encoder 'yamnett'") as caught:
        load_encoder("yamnett", device=CPU)
    assert "yamnet" in caught.value.hint
    assert "log-mel" in ENCODERS
