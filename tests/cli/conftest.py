from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from numpy.typing import NDArray

from tests.conftest import ROOT, Write

if TYPE_CHECKING:
    import torch


@pytest.fixture(scope="session", autouse=True)
def _networks_shared() -> Iterator[None]:
    """Commands that need the small family load it once for all tests."""
    from wav2clip_gen.models import registry

    load, known = registry.load_models, dict[Any, registry.Models]()

    def load_once(selection: registry.ModelSelection, *, device: torch.device) -> registry.Models:
        files = frozenset(component.path for component in selection.components.values())
        if not all(ROOT in file.parents for file in files):
            return load(selection, device=device)
        if (device, files) not in known:
            known[device, files] = load(selection, device=device)
        return known[device, files]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "load_models", load_once)
        yield


@pytest.fixture
def songs(write_sound: Write, tone: NDArray[Any], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with two songs."""
    song = write_sound(tone, "a.wav")
    shutil.copy(song, song.with_name("b.wav"))
    monkeypatch.chdir(song.parent)
    return song.parent
