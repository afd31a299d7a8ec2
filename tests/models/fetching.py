"""Published files that are fetched from a server of this machine."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from wav2clip_gen.errors import W2CError, WeightsError
from wav2clip_gen.models import fetch, store
from wav2clip_gen.models.manifest import Part

BODY = b"PK" + bytes(range(256)) * 1000  # 256,002 bytes, begins as a torch file does
OTHER = b"PK" + bytes(reversed(range(256))) * 1000
HASH = hashlib.sha256(BODY).hexdigest()
HALF = 128_000


def part_from(*sources: str, size: int | None = len(BODY), sha256: str | None = HASH) -> Part:
    """A part whose published file is `BODY`."""
    return Part(
        name="eyes", role="clip", file="eyes.pt", licence="MIT", citation="us", config={"architecture": "x"},
        sources=sources, size=size, sha256=sha256,
    )  # fmt: skip


def unknown(*sources: str) -> Part:
    """A part of which neither size nor hash were published."""
    return part_from(*sources, size=None, sha256=None)


def first_hash(folder: Path) -> str | None:
    """The recorded hash of the published file as it was first fetched."""
    found: str | None = store.read_records(folder).get("eyes", {}).get("original", {}).get("sha256")
    return found


def run(part: Part, folder: Path, **options: Any) -> list[Any]:
    """The progress of fetching."""
    return list(fetch.fetch(part, folder, **options))


def fails(part: Part, folder: Path, *words: str, kind: type[W2CError] = WeightsError, **options: Any) -> W2CError:
    """Fetching ends in one line with `words` and one of what to do, and leaves nothing that looks whole."""
    with pytest.raises(kind) as caught:
        run(part, folder, **options)
    for word in words:
        assert word in caught.value.what
    assert "\n" not in caught.value.what
    assert caught.value.hint
    assert store.status(part, folder).state == "missing"
    return caught.value
