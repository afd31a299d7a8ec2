"""What a training run keeps on the disk: room for its files, and checkpoints that are whole or not there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from wav2clip_gen.errors import OutputError, TrainingError
from wav2clip_gen.files import appear_whole

COPIES = 8  # of a network on the disk: weights, average and two moments, in the old checkpoint and in the new one


def make_room(folder: Path, needed: int, *, what: str) -> None:
    """Make a folder, and be sure that `what` will fit, which takes `needed` bytes.

    Raises:
        OutputError: The folder cannot be made, or the disk is too small.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise OutputError(
            f"cannot make the folder {folder}: {error.strerror}", hint="choose another one with --runs"
        ) from error
    if free < needed:
        raise OutputError(
            f"{folder}: {free / 1e6:,.0f} MB are free, and {what} may take {needed / 1e6:,.0f} MB",
            hint="free some disk space, or choose another folder with --runs",
        )


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint, whole or not at all.

    Raises:
        OutputError: The disk does not take it; the one before stays.
    """
    try:
        with appear_whole(path) as part:
            torch.save(state, part)
    except (OSError, RuntimeError) as error:  # torch's writer makes a RuntimeError of a full disk
        raise _full(path, error) from error


def write_log(path: Path, entry: dict[str, Any]) -> None:
    """Add a line to a run's log.

    Raises:
        OutputError: The disk does not take it.
    """
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
    except OSError as error:
        raise _full(path, error) from error


def _full(path: Path, error: Exception) -> OutputError:
    return OutputError(
        f"cannot write {path}: {str(error).splitlines()[0]}",
        hint="free some disk space, then resume: the last good checkpoint is kept",
    )


def read_checkpoint(path: Path, *, settings: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """What a checkpoint holds.

    Raises:
        TrainingError: It cannot be read, or its run was begun with other settings.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch.load raises whatever the damage leads to
        raise TrainingError(f"{path}: cannot be read ({error})", hint="begin anew with --fresh") from error
    stored = state["settings"]
    other = [name for name in sorted(settings.keys() | stored.keys()) if settings.get(name) != stored.get(name)]
    if other:
        names = ", ".join(f"{name} ({stored.get(name)}, now {settings.get(name)})" for name in other)
        raise TrainingError(
            f"{path}: the run was begun with other settings: {names}",
            hint="give the same settings, or begin anew with --fresh",
        )
    return state
