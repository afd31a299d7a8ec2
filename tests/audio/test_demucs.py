"""Demucs with networks of its own classes that are tiny and random: not a test of quality."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml

from tests.audio.conftest import Save, noise
from wav2clip_gen.audio import demucs
from wav2clip_gen.audio.stems import STEMS, plan_stems
from wav2clip_gen.audio.track import Track, open_track
from wav2clip_gen.errors import SettingsError, W2CError, WeightsError

RATE = 22_050
SOURCES = ("drums", "bass", "other", "vocals")
MakeRepo = Callable[..., Path]


@pytest.fixture
def song(save: Save) -> Track:
    return open_track(save("song.wav", noise(0.7, RATE), RATE))


@pytest.fixture
def repo(tmp_path: Path) -> MakeRepo:
    """Make a local repository as Demucs knows it, with a tiny random HTDemucs."""
    pytest.importorskip("demucs")

    def make(*, suffix: str = ".th", sources: tuple[str, ...] = SOURCES, seed: int = 0, bag: bool = True) -> Path:
        folder = tmp_path / "repo"
        folder.mkdir(exist_ok=True)
        if suffix == ".th":
            name = write_pickle(folder, tiny_network(sources, seed))
        else:
            name = write_safetensors(folder, tiny_network(sources, seed))
        if bag:
            (folder / "htdemucs.yaml").write_text(yaml.safe_dump({"models": [name.partition("-")[0]]}))
        return folder

    return make


def tiny_network(sources: tuple[str, ...], seed: int) -> Any:
    import torch
    from demucs.htdemucs import HTDemucs

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return HTDemucs(list(sources), channels=8, depth=4, t_layers=1, t_heads=2, segment=1, dconv_mode=0)


def write_pickle(folder: Path, network: Any) -> str:
    import torch

    args, kwargs = network._init_args_kwargs
    path = folder / "tiny.th"
    torch.save({"klass": type(network), "args": args, "kwargs": kwargs, "state": network.state_dict()}, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    return path.rename(folder / f"deadbeef-{digest}.th").stem


def write_safetensors(folder: Path, network: Any) -> str:
    import json

    from safetensors.torch import save_file

    args, kwargs = network._init_args_kwargs
    kind = f"{type(network).__module__}.{type(network).__qualname__}"
    about = {"klass": kind, "args": json.dumps(args), "kwargs": json.dumps(kwargs)}
    save_file(network.state_dict(), folder / "cafe.safetensors", about)
    return "cafe"


@pytest.mark.parametrize("suffix", [".th", ".safetensors"])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_local_repository_separates(suffix: str, channels: int, repo: MakeRepo, save: Save) -> None:
    song = open_track(save("song.wav", noise(0.7, RATE, channels), RATE))
    plan = plan_stems(song, STEMS, separator="demucs", demucs_repo=repo(suffix=suffix))
    assert plan.origins == dict.fromkeys(STEMS, "demucs")
    tracks = plan.load()
    assert list(tracks) == list(STEMS)
    for track in tracks.values():
        assert (track.samples, track.sample_rate, track.channels) == (song.samples, RATE, channels)
        assert track.read().any()


def test_stems_are_those_that_demucs_itself_makes(repo: MakeRepo) -> None:
    import torch
    from demucs.apply import apply_model
    from demucs.pretrained import get_model

    folder = repo()
    block = noise(1.2).T
    separator = demucs.DemucsSeparator(demucs.weights_in(folder))
    stems = dict(zip(STEMS, separator.separate(block, 44_100), strict=True))
    network = get_model("htdemucs", folder)
    wav = torch.from_numpy(block)
    mean, scale = wav.mean(0).mean(), wav.mean(0).std()
    made = apply_model(network, ((wav - mean) / scale)[None], shifts=0)[0] * scale + mean
    for name, stem in zip(network.sources, made.numpy(), strict=True):
        np.testing.assert_allclose(stems[name], stem, atol=1e-4)


def test_the_same_song_gives_the_same_stems_and_other_weights_others(
    repo: MakeRepo, song: Track, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drums_of(cache: str) -> np.ndarray:
        plan = plan_stems(song, ["drums"], separator="demucs", demucs_repo=tmp_path / "repo")
        monkeypatch.setenv("W2C_CACHE", str(tmp_path / cache))
        return plan.load()["drums"].read()

    folder = repo()
    first = drums_of("one")
    np.testing.assert_array_equal(first, drums_of("two"))
    for path in folder.iterdir():
        path.unlink()
    repo(seed=1)
    assert not np.array_equal(first, drums_of("one"))


def test_additional_stems_of_a_network_go_to_other(repo: MakeRepo) -> None:
    block = noise(0.7).T
    weights = demucs.weights_in(repo(sources=(*SOURCES, "guitar", "piano")))
    assert demucs.DemucsSeparator(weights).separate(block, 44_100).shape == (4, *block.shape)


def test_a_single_file_needs_no_list(repo: MakeRepo, song: Track) -> None:
    plan = plan_stems(song, ["bass"], separator="demucs", demucs_repo=repo(bag=False))
    assert plan.load()["bass"].samples == song.samples


def test_auto_is_demucs_where_its_weights_are_at_hand(
    repo: MakeRepo, song: Track, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demucs, "cached_weights", lambda: None)
    assert plan_stems(song, ["drums"]).separator == "dsp"
    folder = repo()
    monkeypatch.setattr(demucs, "cached_weights", lambda: demucs.weights_in(folder))
    assert plan_stems(song, ["drums"]).separator == "demucs"
    monkeypatch.setattr(demucs, "cached_weights", lambda: None)
    monkeypatch.setenv("W2C_DEMUCS_REPO", str(folder))
    assert plan_stems(song, ["drums"]).separator == "demucs"
    assert plan_stems(song, ["drums"], separator="dsp").separator == "dsp"


def test_published_weights_are_found_where_hugging_face_keeps_them(
    repo: MakeRepo, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = repo(suffix=".safetensors")
    there = {path.name: str(path) for path in folder.iterdir()}
    asked = []

    def look(repository: str, name: str) -> str | None:
        asked.append(repository)
        return there.get(name)

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", look)
    found = demucs.cached_weights()
    assert found == (folder / "htdemucs.yaml", folder / "cafe.safetensors")
    assert set(asked) == {"adefossez/HTDemucs"}
    del there["cafe.safetensors"]
    assert demucs.cached_weights() is None


def test_weights_are_fetched_only_where_demucs_is_asked_for(
    repo: MakeRepo, song: Track, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = repo(suffix=".safetensors")
    monkeypatch.setattr(demucs, "cached_weights", lambda: None)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda _, name: str(folder / name))
    plan = plan_stems(song, ["drums"], separator="demucs")
    assert not plan.is_separated()  # without fetching anything
    assert plan.load()["drums"].samples == song.samples
    assert plan_stems(song, ["drums"]).separator == "dsp"


class RefusedError(OSError):
    """An HTTP error of Hugging Face's client."""

    response = SimpleNamespace(status_code=404)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            OSError("An error happened while\ntrying to locate the file " + 30 * "on the Hub, "),
            "Hugging Face cannot be reached",
        ),
        (ConnectionRefusedError(111, "Connection refused"), "Hugging Face cannot be reached"),
        (RefusedError("404 Client Error"), "Hugging Face answers 404"),
        (OSError(28, "No space left on device"), "No space left on device"),
    ],
)
def test_weights_that_cannot_be_fetched_are_reported_before_any_work(
    error: OSError, words: str, song: Track, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("demucs")

    fetched: list[str] = []

    def refuse(repository: str, name: str) -> str:
        logging.getLogger("huggingface_hub.file_download").warning("a warning of its own")
        fetched.append(name)
        raise error

    monkeypatch.setattr(demucs, "cached_weights", lambda: None)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", refuse)
    with pytest.raises(WeightsError, match=f"the weights of htdemucs cannot be fetched: {words}$") as caught:
        plan_stems(song, ["drums"], separator="demucs")
    assert (fetched, caplog.records) == (["htdemucs.yaml"], [])
    assert "--demucs-repo" in caught.value.hint
    monkeypatch.setenv("W2C_OFFLINE", "1")
    with pytest.raises(WeightsError, match="W2C_OFFLINE"):
        plan_stems(song, ["drums"], separator="demucs")


def test_a_missing_installation_is_reported_with_its_remedy(song: Track, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demucs, "find_spec", lambda name: None)
    assert plan_stems(song, ["drums"]).separator == "dsp"
    with pytest.raises(W2CError, match="not installed") as caught:
        plan_stems(song, ["drums"], separator="demucs")
    assert "pip install 'wav2clip-gen[demucs]'" in caught.value.hint


def test_surround_is_left_to_dsp(save: Save) -> None:
    song = open_track(save("song.wav", noise(0.5, RATE, channels=3), RATE))
    assert plan_stems(song, ["drums"]).separator == "dsp"
    with pytest.raises(SettingsError, match="cannot separate 3 channels"):
        plan_stems(song, ["drums"], separator="demucs")


class Evil:
    """What runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        import os

        return os.system, ("touch ran",)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("no folder", "no such folder"),
        ("empty", "holds no htdemucs.yaml"),
        ("list", "not a list of Demucs' networks"),
        ("no file", "names deadbeef, which is not in its folder"),
        ("checksum", "not weights of Demucs .*checksum"),
        ("evil", "not weights of Demucs"),
        ("evil class", "not weights of Demucs .*os.system"),
        ("stems", "makes drums, vocals with 2 channels"),
    ],
)
def test_bad_weights_are_clear_errors(
    fault: str, words: str, repo: MakeRepo, song: Track, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import torch

    monkeypatch.chdir(tmp_path)
    folder = repo(
        suffix=".safetensors" if fault == "evil class" else ".th",
        sources=("drums", "vocals") if fault == "stems" else SOURCES,
    )
    file = next(path for path in folder.iterdir() if path.suffix != ".yaml")
    match fault:
        case "no folder":
            folder = folder / "nowhere"
        case "empty":
            file.unlink()
            (folder / "htdemucs.yaml").unlink()
        case "list":
            (folder / "htdemucs.yaml").write_text("networks: many")
        case "no file":
            file.unlink()
        case "checksum":
            file.write_bytes(file.read_bytes()[:-1])
        case "evil":
            torch.save({"klass": Evil()}, folder / "deadbeef.th")
            file.unlink()
        case "evil class":
            from safetensors.torch import save_file

            save_file({}, file, {"klass": "os.system", "args": '["touch ran"]', "kwargs": "{}"})
    with pytest.raises(W2CError) as caught:
        plan_stems(song, ["drums"], separator="demucs", demucs_repo=folder).load()
    line = caught.value.what + caught.value.hint
    assert caught.match(words)
    assert caught.value.hint
    assert "\n" not in line
    assert not Path("ran").exists()
