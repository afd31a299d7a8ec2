"""weights.lock.json: what was fetched and converted into a folder of weights, with sizes and hashes.

The hash of the first fetch of a published file stays in it, so that a file that changes at its source is noticed
even where no hash was published. Written by one process at a time, whole or not at all.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wav2clip_gen.errors import OutputError, WeightsError
from wav2clip_gen.files import appear_whole

NAME = "weights.lock.json"
FORMAT = 1  # a later incompatible one gets the next number
OTHER_FOLDER = "choose another folder: --weights-dir or W2C_WEIGHTS"

Entries = dict[str, dict[str, Any]]


@contextmanager
def translate_disk_errors(folder: Path) -> Iterator[None]:
    """Turn errors of files in `folder` into an `OutputError` with a hint."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            hint = "make room, then run the same command again: it goes on where it stopped"
            raise OutputError(f"{folder}: the disk is full", hint=hint) from error
        reason = error.strerror or str(error)
        raise OutputError(f"{folder}: cannot be written to ({reason})", hint=OTHER_FOLDER) from error


@dataclass(frozen=True)
class LockFile:
    """The lock file of a folder of weights, there or not."""

    folder: Path

    @property
    def path(self) -> Path:
        """Where the lock file belongs."""
        return self.folder / NAME

    def entries(self) -> Entries:
        """All that is recorded: part -> "original" and "converted".

        Raises:
            WeightsError: The lock file cannot be read.
        """
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            if content["format"] != FORMAT:
                raise WeightsError(f"{self.path}: written by another version of w2c-gen", hint="update w2c-gen")
            return {str(name): dict(entry) for name, entry in content["parts"].items()}
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except (OSError, AttributeError, KeyError, TypeError, ValueError):
            hint = "delete it; the weights next to it stay as they are"
            raise WeightsError(f"{self.path}: cannot be read", hint=hint) from None

    def original_hash(self, name: str) -> str | None:
        """The hash of the published file as it was first fetched; None before that."""
        found = self.entries().get(name, {}).get("original", {}).get("sha256")
        return None if found is None else str(found)

    def recorded_hash(self, path: Path) -> str | None:
        """The hash of `<folder>/<part>/<file>` as recorded; None where it is not, or size or time have changed."""
        try:
            entry = self.entries().get(path.parent.name, {}).get("converted", {})
            same = all(entry.get(name) == value for name, value in _stamp(path).items())
        except (WeightsError, OSError):
            return None
        return str(entry["sha256"]) if same and "sha256" in entry else None

    def record_original(self, name: str, *, file: str, size: int, sha256: str, source: str) -> None:
        """Record a published file that was fetched; the first record stays."""
        original = {"file": file, "size": size, "sha256": sha256, "source": source}
        self._update(lambda entries: entries.setdefault(name, {}).setdefault("original", original))

    def record_converted(self, name: str, path: Path, *, sha256: str) -> None:
        """Record the weights of a part as they are now."""
        entry = {**_stamp(path), "sha256": sha256}
        self._update(lambda entries: entries.setdefault(name, {}).__setitem__("converted", entry))

    def forget(self, name: str, *, original: bool = False) -> None:
        """Forget the weights of a part; with `original`, also what its published file was."""

        def change(entries: Entries) -> None:
            entry = entries.pop(name, {})
            entry.pop("converted", None)
            if entry and not original:
                entries[name] = entry

        if self.path.exists():
            self._update(change)

    def _update(self, change: Callable[[Entries], object]) -> None:
        from filelock import FileLock

        with translate_disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / f".{NAME}.lock"):
                entries = self.entries()
                change(entries)
                text = json.dumps({"format": FORMAT, "parts": dict(sorted(entries.items()))}, indent=2)
                with appear_whole(self.path, option="--weights-dir") as scratch:
                    scratch.write_text(f"{text}\n", encoding="utf-8")


def _stamp(path: Path) -> dict[str, Any]:
    """What shows, without reading a file, that it has not changed."""
    found = path.stat()
    return {"file": path.name, "size": found.st_size, "mtime_ns": found.st_mtime_ns}
