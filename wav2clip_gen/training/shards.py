"""What is in a shard: a tar whose members belong together where their names are the same up to the first dot.

That is WebDataset's layout: `KEY.jpg` with `KEY.json`, `KEY.cls` or `KEY.txt`. Small pictures may also be packed:
`KEY.webps` holds WebP files one after the other (each says its own length), `KEY.json` the list of their descriptions.
Nothing is decoded or kept here: an example says where its bytes lie.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from wav2clip_gen.errors import TrainingError

WHERE = "give the training data's folder with --data; 'Training them again' in weights/README.md says what is in it"
PACKED = "webps"  # suffix of WebP files one after the other
DESCRIPTIONS = ("json", "cls", "txt")  # suffixes of what is known of an example
LONGEST_DESCRIPTION = 1 << 26  # bytes; no description is that long


@dataclass(frozen=True)
class Place:
    """Where an encoded picture or sound lies."""

    shard: Path
    offset: int  # bytes
    length: int

    def read(self) -> bytes:
        """The encoded bytes; fewer than `length` where the shard ends before.

        Raises:
            OSError: The shard cannot be read.
        """
        with self.shard.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.length)


@dataclass(frozen=True, kw_only=True)
class Example:
    """One picture or sound of a shard and what is known of it."""

    key: str
    set: str  # the data set it comes from, as far as the shard's name tells
    place: Place
    entry: dict[str, Any]  # its description, with `cls` and `txt` where there are such members

    @property
    def name(self) -> str:
        """What to call it where it cannot be used."""
        return f"{self.place.shard.name}:{self.key}"


def find_shards(data: Path, kind: str, start: str) -> list[Path]:
    """The shards of a kind ("images", "audio") in the data folder whose names start like that.

    Raises:
        TrainingError: There is no such folder, or no shard in it.
    """
    folder = data / kind
    found = sorted(folder.glob(f"{start}-*.tar"))
    if not found:
        what = "no such folder" if not folder.is_dir() else f"holds no shard {start}-*.tar"
        raise TrainingError(f"{folder}: {what}", hint=WHERE)
    return found


def read_shards(data: Path, kind: str, start: str, suffixes: Sequence[str], skipped: list[str]) -> list[Example]:
    """All examples of the shards of a kind, in their order; what cannot be used is added to `skipped`.

    Args:
        data: Folder of the training data.
        kind: "images" or "audio".
        start: What the shards' names start with; what follows, but for a number, is the name of the set.
        suffixes: Of the members that are examples, without the dot.
        skipped: Names of what cannot be read.

    Raises:
        TrainingError: There is no shard, or one that can be read holds no example.
    """
    examples: list[Example] = []
    for path in find_shards(data, kind, start):
        before = len(examples), len(skipped)
        own = re.sub(r"-?\d*$", "", path.stem.removeprefix(f"{start}-")) or start.rsplit("-", maxsplit=1)[-1]
        for key, members in _grouped(path, skipped).items():
            try:
                found = _described(key, members, suffixes)
            except (ValueError, KeyError, TypeError, OSError):
                skipped.append(f"{path.name}:{key}")
            else:
                examples += [
                    Example(key=str(entry.get("key", key)), set=own, place=place, entry=entry) for place, entry in found
                ]
        if (len(examples), len(skipped)) == before:
            raise TrainingError(
                f"{path}: holds nothing to learn from", hint=f"a shard has members {', '.join(suffixes)}; or remove it"
            )
    return examples


def _grouped(path: Path, skipped: list[str]) -> dict[str, dict[str, Place]]:
    """Key -> suffix -> place of the members of a shard, as far as it can be read."""
    groups: dict[str, dict[str, Place]] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                at = PurePosixPath(member.name)
                stem, _, suffix = at.name.partition(".")
                if not member.isfile() or not stem:
                    continue
                key = str(at.with_name(stem))
                group = groups.setdefault(key, {})
                if suffix.lower() in group:
                    skipped.append(f"{path.name}:{member.name} (again)")
                group.setdefault(suffix.lower(), Place(path, member.offset_data, member.size))
    except (tarfile.TarError, OSError):
        skipped.append(path.name)
    return groups


def _described(key: str, members: dict[str, Place], suffixes: Sequence[str]) -> list[tuple[Place, dict[str, Any]]]:
    """The example among the members of a key, or those packed in one, each with what is known of it; may be none.

    Raises:
        ValueError, KeyError, TypeError: A description is damaged, or describes nothing that is there.
    """
    place = next((members[suffix] for suffix in suffixes if suffix in members), None)
    if place is None:
        if any(suffix in members for suffix in DESCRIPTIONS):
            raise KeyError(key)
        return []
    told: Any = json.loads(_text(members["json"])) if "json" in members else {}
    if place == members.get(PACKED):
        return _unpacked(place, told)
    words = {name: _text(members[name]).decode().strip() for name in ("cls", "txt") if name in members}
    return [(place, {**told, **words})]


def _text(place: Place) -> bytes:
    if place.length > LONGEST_DESCRIPTION:
        raise ValueError("too long")
    return place.read()


def _unpacked(place: Place, told: list[dict[str, Any]]) -> list[tuple[Place, dict[str, Any]]]:
    """The WebP files in one member, each with its description.

    Raises:
        ValueError: There are more of the ones than of the others, so that no one knows which belong together.
        TypeError: A description is none.
    """
    if not all(isinstance(entry, dict) for entry in told):
        raise TypeError("a description is an object")
    blob, start, files = place.read(), 0, []
    while start < len(blob):
        length = 8 + int.from_bytes(blob[start + 4 : start + 8], "little")
        files.append(Place(place.shard, place.offset + start, length))
        start += length
    return list(zip(files, told, strict=True))
