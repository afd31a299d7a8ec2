"""The weights of Demucs: in a folder of one's own, or where Hugging Face keeps what it fetched.

They are read without running anything that is in them.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wav2clip_gen.audio.separation import STEMS
from wav2clip_gen.errors import WeightsError
from wav2clip_gen.files import hash_file

MODEL = "htdemucs"
REPOSITORY = "adefossez/HTDemucs"  # of the published weights, at Hugging Face
CHANNELS = 2

_UNREADABLE = (OSError, EOFError, RuntimeError, ValueError, TypeError, KeyError, AttributeError)  # a file, to Demucs


@dataclass(frozen=True)
class Weights:
    """The files of a network."""

    bag: Path | None  # a .yaml that names the files, which may be several networks whose stems are averaged
    files: tuple[Path, ...]

    @property
    def fingerprint(self) -> str:
        """The hashes of all files."""
        return " ".join(hash_file(path) for path in (*([self.bag] if self.bag else []), *self.files))


def weights_in(repo: Path) -> Weights:
    """The weights in a folder: htdemucs.yaml or another bag with its files, or a single file.

    Raises:
        WeightsError: There are none, or not all.
    """
    if not repo.is_dir():
        raise WeightsError(f"{repo}: no such folder", hint="give a folder with weights of Demucs")
    bags = sorted(repo.glob("*.yaml"))
    files = sorted([*repo.glob("*.safetensors"), *repo.glob("*.th")])
    bag = repo / f"{MODEL}.yaml" if repo / f"{MODEL}.yaml" in bags else bags[0] if len(bags) == 1 else None
    if bag is None and len(files) == 1:
        return Weights(None, (files[0],))
    if bag is None:
        raise WeightsError(
            f"{repo} holds no {MODEL}.yaml with its weights",
            hint=f"copy {MODEL}.yaml and the files that it names there, .safetensors or .th",
        )
    named = [_of_signature(signature, files, bag) for signature in _signatures(bag)]
    return Weights(bag, tuple(named))


def _of_signature(signature: str, files: Sequence[Path], bag: Path) -> Path:
    """The file of a network: 955717e8.safetensors, 955717e8.th or 955717e8-8726e21a.th."""
    found = next((path for path in files if path.stem.partition("-")[0] == signature), None)
    if found is None:
        raise WeightsError(f"{bag} names {signature}, which is not beside it", hint=f"copy {signature}.* there too")
    return found


def _signatures(bag: Path) -> list[str]:
    return [str(signature) for signature in _read_bag(bag)["models"]]


def _read_bag(bag: Path) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(bag.read_text(encoding="utf-8"))
        return {"models": list(content["models"]), "weights": content.get("weights"), "segment": content.get("segment")}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError):
        raise WeightsError(f"{bag}: not a list of Demucs' networks", hint="it says models: ['955717e8']") from None


def cached_weights() -> Weights | None:
    """The published weights, where Hugging Face keeps what was fetched."""
    from huggingface_hub import try_to_load_from_cache

    def find(name: str) -> Path | None:
        found = try_to_load_from_cache(REPOSITORY, name)
        return Path(found) if isinstance(found, str) else None

    bag = find(f"{MODEL}.yaml")
    files = [find(f"{signature}.safetensors") for signature in _signatures(bag)] if bag else []
    whole = tuple(path for path in files if path)
    return Weights(bag, whole) if whole and len(whole) == len(files) else None


def fetch_weights() -> Weights:
    """The published weights, fetched from Hugging Face into its cache.

    Raises:
        WeightsError: They cannot be fetched.
    """
    bag = fetch_bag()
    return Weights(bag, tuple(_fetched(f"{signature}.safetensors") for signature in _signatures(bag)))


def fetch_bag() -> Path:
    """The published list of networks; it is small, so that it soon tells whether the weights can be fetched.

    Raises:
        WeightsError: It cannot be fetched.
    """
    return _fetched(f"{MODEL}.yaml")


def _fetched(name: str) -> Path:
    """A published file, in the cache of Hugging Face."""
    from huggingface_hub import errors, hf_hub_download
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()  # the terminal is not ours
    try:
        with _quiet("huggingface_hub"):
            return Path(hf_hub_download(REPOSITORY, name))
    except (OSError, ValueError, errors.HTTPError) as error:
        why, first = _reason(error)
        raise WeightsError(
            f"the weights of {MODEL} cannot be fetched: {why}",
            hint=f"{first} else give a folder with --demucs-repo, or use --separator dsp",
        ) from error


def _reason(error: Exception) -> tuple[str, str]:
    """Why nothing could be fetched, and what to look at; what Hugging Face's client tells is a paragraph."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status:
        return f"Hugging Face answers {status}", "try again later;"
    if isinstance(error, OSError) and not isinstance(error, ConnectionError) and error.strerror:
        return error.strerror, "is there room in the folder HF_HOME?"
    return "Hugging Face cannot be reached", "is there a network?"


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Keep a library from writing warnings to the terminal."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def load(weights: Weights) -> Any:
    """The network, or the bag of networks.

    Raises:
        WeightsError: A file is damaged, or holds something else.
    """
    from demucs.apply import BagOfModels

    content = _read_bag(weights.bag) if weights.bag else {}
    try:
        bag = BagOfModels([_load_one(path) for path in weights.files], content.get("weights"), content.get("segment"))
    except AssertionError:  # how Demucs checks what it is given
        raise WeightsError(f"{weights.bag}: its networks do not fit each other", hint="copy the folder again") from None
    if not set(STEMS) <= set(bag.sources) or bag.audio_channels != CHANNELS:
        raise WeightsError(
            f"{weights.files[0]} makes {', '.join(bag.sources)} with {bag.audio_channels} channels",
            hint=f"take one that makes {', '.join(STEMS)} in stereo",
        )
    return bag.eval()


def _load_one(path: Path) -> Any:
    """One network from a .safetensors or .th file; only Demucs' own classes are made from it."""
    from fractions import Fraction

    import torch
    from demucs import hf, states
    from demucs.demucs import Demucs
    from demucs.hdemucs import HDemucs
    from demucs.htdemucs import HTDemucs
    from demucs.repo import check_checksum
    from safetensors import SafetensorError, safe_open

    kinds = (HTDemucs, HDemucs, Demucs)
    try:
        if path.suffix == ".safetensors":
            with safe_open(str(path), framework="pt") as file:
                kind = (file.metadata() or {})["klass"]
            if kind not in [f"{known.__module__}.{known.__qualname__}" for known in kinds]:
                raise ValueError(f"it wants to be a {kind}")
            return hf.load_safetensors_model(path)
        _, _, checksum = path.stem.partition("-")
        check_checksum(path, checksum)
        with torch.serialization.safe_globals([*kinds, Fraction]):
            return states.load_model(torch.load(path, "cpu", weights_only=True))
    except (*_UNREADABLE, pickle.UnpicklingError, SafetensorError) as error:
        what = " ".join(str(error).split())[:200] or type(error).__name__
        raise WeightsError(
            f"{path}: not weights of Demucs that can be read ({what})",
            hint=f"copy it again, or take the .safetensors of {REPOSITORY} at Hugging Face",
        ) from error
