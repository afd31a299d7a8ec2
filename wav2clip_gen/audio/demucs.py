"""HTDemucs, a separation network (arXiv 2211.08553), through the package `demucs`.

Its weights come from a folder of the user, or from Hugging Face's cache, and are read without running code in them.
torch is imported only when something is separated.
"""

from __future__ import annotations

import os
import pickle
from functools import cached_property
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wav2clip_gen.audio.separation import STEMS
from wav2clip_gen.audio.track import Samples
from wav2clip_gen.devices import choose_device
from wav2clip_gen.environment import asked_to_stay_offline
from wav2clip_gen.errors import SettingsError, W2CError, WeightsError
from wav2clip_gen.files import hash_file

if TYPE_CHECKING:
    from torch import Tensor

MODEL = "htdemucs"
BAG = f"{MODEL}.yaml"  # the list of its networks
REPOSITORY = "adefossez/HTDemucs"  # of the published weights, at Hugging Face
CHANNELS = 2
BLOCK_SECONDS = 30.0  # long compared with the network's input of 7.8 s, short compared with a GPU's memory
OVERLAP = 0.25  # of the network's inputs

Weights = tuple[Path, ...]  # a bag, which names networks whose stems are averaged, and their files; or only one file


class DemucsSeparator:
    """Separates by HTDemucs; takes about as long as the song lasts on two cores."""

    name = "demucs"

    def __init__(self, weights: Weights | None) -> None:
        """Use these weights, or, if None, the published ones, which are fetched when they are needed."""
        self.is_ready = weights is not None
        if weights:
            self._weights = weights

    @property
    def version(self) -> str:
        """The package's version and the hashes of the weights."""
        return " ".join([version("demucs"), *map(hash_file, self._weights)])

    def block_seconds(self, rate: int, channels: int) -> float:
        """The same for all rates and channels."""
        return BLOCK_SECONDS

    def separate(self, block: Samples, rate: int) -> Samples:
        """The stems (4, C, n) of a block (C, n) of one or two channels; they add up to it only roughly."""
        import torch
        from demucs.apply import apply_model

        device = choose_device()
        model = self._model
        mix = torch.from_numpy(np.repeat(_resampled(block, rate, model.samplerate), CHANNELS // len(block), axis=0))
        mean, scale = mix.mean(), mix.mean(dim=0).std(correction=0) + 1e-8  # as in its training
        normalized = ((mix - mean) / scale)[None]
        made: Tensor = apply_model(model, normalized, shifts=0, overlap=OVERLAP, device=device)[0]  # shifts are random
        sounds = dict(zip(model.sources, (made.cpu() * scale + mean).numpy(), strict=True))
        stems = [sounds.pop(name) for name in STEMS[:-1]]
        stems.append(np.sum(list(sounds.values()), axis=0))  # a network of six stems has more than one other
        if len(block) == 1:
            stems = [stem.mean(axis=0, keepdims=True) for stem in stems]
        resampled = [_resampled(stem, model.samplerate, rate)[:, : block.shape[1]] for stem in stems]
        return np.stack([np.pad(stem, ((0, 0), (0, block.shape[1] - stem.shape[1]))) for stem in resampled])

    @cached_property
    def _weights(self) -> Weights:
        return fetch_weights()

    @cached_property
    def _model(self) -> Any:
        return load(self._weights)


def find_demucs(*, required: bool, repo: Path | None, channels: int) -> DemucsSeparator | None:
    """Demucs with its weights, as far as is known without importing torch; None where it is not available.

    Args:
        required: Chosen by name: it is an error then if it is not available; missing published weights will be fetched
            when they are needed, and whether that is possible is checked at once.
        repo: Folder of weights, instead of `W2C_DEMUCS_REPO` or the published ones.
        channels: Of the song.

    Raises:
        W2CError: It is required and not installed, or cannot separate so many channels.
        WeightsError: The folder holds no weights, or they are missing and may not or cannot be fetched.
    """
    if repo is None and (chosen := os.environ.get("W2C_DEMUCS_REPO")):
        repo = Path(chosen).expanduser()
    required = required or repo is not None
    problem: W2CError | None = None
    if channels > CHANNELS:
        problem = SettingsError(f"Demucs cannot separate {channels} channels", hint="use --separator dsp")
    elif find_spec("demucs") is None:
        problem = W2CError("Demucs is not installed", hint="pip install 'wav2clip-gen[demucs]', or use --separator dsp")
    if problem:
        if required:
            raise problem
        return None
    weights = weights_in(repo) if repo else cached_weights()
    if weights is None and required:
        if asked_to_stay_offline():
            raise WeightsError(
                f"the weights of {MODEL} are missing, and W2C_OFFLINE is set",
                hint="unset it once to fetch them, give their folder with --demucs-repo, or use --separator dsp",
            )
        _fetched(BAG)  # small, so that it is soon known whether the weights can be fetched
    return DemucsSeparator(weights) if weights or required else None


def weights_in(repo: Path) -> Weights:
    """The weights in a folder: htdemucs.yaml or another bag with its files, or a single file.

    Raises:
        WeightsError: There are none, or not all.
    """
    if not repo.is_dir():
        raise WeightsError(f"{repo}: no such folder", hint="give a folder with weights of Demucs")
    bags = sorted(repo.glob("*.yaml"))
    files = sorted([*repo.glob("*.safetensors"), *repo.glob("*.th")])
    bag = repo / BAG if repo / BAG in bags else bags[0] if len(bags) == 1 else None
    if bag is None and len(files) == 1:
        return (files[0],)
    if bag is None:
        raise WeightsError(
            f"{repo} holds no {BAG} with its weights",
            hint=f"copy {BAG} and the files that it names there, .safetensors or .th",
        )
    by_signature = {path.stem.partition("-")[0]: path for path in reversed(files)}  # such as 955717e8-8726e21a.th
    signatures: list[str] = _read_bag(bag)["models"]
    for signature in signatures:
        if signature not in by_signature:
            raise WeightsError(
                f"{bag} names {signature}, which is not in its folder", hint=f"copy {signature}.* there too"
            )
    return (bag, *map(by_signature.__getitem__, signatures))


def cached_weights() -> Weights | None:
    """The published weights in Hugging Face's cache, if all are there."""
    from huggingface_hub import try_to_load_from_cache

    bag = try_to_load_from_cache(REPOSITORY, BAG)
    if not isinstance(bag, str):
        return None
    files = [
        try_to_load_from_cache(REPOSITORY, f"{signature}.safetensors") for signature in _read_bag(Path(bag))["models"]
    ]
    present = tuple(Path(path) for path in files if isinstance(path, str))
    return (Path(bag), *present) if len(present) == len(files) else None


def fetch_weights() -> Weights:
    """The published weights, fetched from Hugging Face into its cache.

    Raises:
        WeightsError: They cannot be fetched.
    """
    bag = _fetched(BAG)
    return (bag, *(_fetched(f"{signature}.safetensors") for signature in _read_bag(bag)["models"]))


def _fetched(name: str) -> Path:
    """A published file, in the cache of Hugging Face."""
    from huggingface_hub import errors, hf_hub_download
    from huggingface_hub.utils import disable_progress_bars, logging

    disable_progress_bars()  # the terminal belongs to the command line
    logging.set_verbosity_error()
    try:
        return Path(hf_hub_download(REPOSITORY, name))
    except (OSError, ValueError, errors.HTTPError) as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        reason, remedy = "Hugging Face cannot be reached", "is there a network?"
        if status:
            reason, remedy = f"Hugging Face answers {status}", "try again later;"
        elif isinstance(error, OSError) and not isinstance(error, ConnectionError) and error.strerror:
            reason, remedy = error.strerror, "is there room in the folder HF_HOME?"
        raise WeightsError(
            f"the weights of {MODEL} cannot be fetched: {reason}",
            hint=f"{remedy} else give a folder with --demucs-repo, or use --separator dsp",
        ) from error


def _read_bag(bag: Path) -> dict[str, Any]:
    import yaml

    try:
        content: dict[str, Any] = yaml.safe_load(bag.read_text(encoding="utf-8"))
        return {**content, "models": [str(signature) for signature in content["models"]]}
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError):
        raise WeightsError(f"{bag}: not a list of Demucs' networks", hint="such as models: ['955717e8']") from None


def load(weights: Weights) -> Any:
    """The network, or the bag of networks.

    Raises:
        WeightsError: A file is damaged, or holds something else.
    """
    from demucs.apply import BagOfModels

    bags, files = ([path for path in weights if (path.suffix == ".yaml") == kind] for kind in (True, False))
    content = _read_bag(bags[0]) if bags else {}
    try:
        bag = BagOfModels([_load_one(path) for path in files], content.get("weights"), content.get("segment"))
    except AssertionError:  # how Demucs checks its arguments
        raise WeightsError(f"{bags[0]}: its networks do not fit each other", hint="copy the folder again") from None
    if not set(STEMS) <= set(bag.sources) or bag.audio_channels != CHANNELS:
        raise WeightsError(
            f"{files[0]} makes {', '.join(bag.sources)} with {bag.audio_channels} channels",
            hint=f"take one that makes {', '.join(STEMS)} in stereo",
        )
    return bag.eval()


def _load_one(path: Path) -> Any:
    """One network from a .safetensors or .th file; only Demucs' own classes are instantiated."""
    from fractions import Fraction

    import torch
    from demucs import hf, states
    from demucs.demucs import Demucs
    from demucs.hdemucs import HDemucs
    from demucs.htdemucs import HTDemucs
    from demucs.repo import check_checksum
    from safetensors import SafetensorError, safe_open

    kinds = (HTDemucs, HDemucs, Demucs)
    unreadable = (OSError, EOFError, RuntimeError, ValueError, TypeError, KeyError, AttributeError)
    try:
        if path.suffix == ".safetensors":
            with safe_open(str(path), framework="pt") as file:
                kind = (file.metadata() or {})["klass"]
            if kind not in [f"{known.__module__}.{known.__qualname__}" for known in kinds]:
                raise ValueError(f"its class is {kind}")
            return hf.load_safetensors_model(path)
        _, _, checksum = path.stem.partition("-")
        check_checksum(path, checksum)
        with torch.serialization.safe_globals([*kinds, Fraction]):
            return states.load_model(torch.load(path, "cpu", weights_only=True))
    except (*unreadable, pickle.UnpicklingError, SafetensorError) as error:
        what = " ".join(str(error).split())[:200] or type(error).__name__
        raise WeightsError(
            f"{path}: not weights of Demucs that can be read ({what})",
            hint=f"copy it again, or take the .safetensors of {REPOSITORY} at Hugging Face",
        ) from error


def _resampled(block: Samples, source: int, rate: int) -> Samples:
    """A whole block (C, n) at another rate."""
    import soxr

    if source == rate:
        return block
    return np.ascontiguousarray(soxr.resample(np.ascontiguousarray(block.T), source, rate).T, dtype=np.float32)
