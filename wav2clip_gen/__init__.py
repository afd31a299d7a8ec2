"""Music videos from audio: Wav2CLIP embeds a track, and VQGAN-CLIP generates frames that match the embeddings.

Importing this package does not import torch; its names are imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from wav2clip_gen.environment import prepare_environment

__version__ = "0.2.0"
__all__ = ["Settings", "Wav2CLIP", "load_family", "render"]

if TYPE_CHECKING:
    from wav2clip_gen.config import Settings
    from wav2clip_gen.models.registry import load_family
    from wav2clip_gen.models.wav2clip import Wav2CLIP
    from wav2clip_gen.pipeline import render

_HOMES = {
    "Settings": "wav2clip_gen.config",
    "Wav2CLIP": "wav2clip_gen.models.wav2clip",
    "load_family": "wav2clip_gen.models.registry",
    "render": "wav2clip_gen.pipeline",
}

prepare_environment()  # here, because no module of this package can import torch earlier


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
