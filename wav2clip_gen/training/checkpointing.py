"""The files of a training run: atomic checkpoints, the log and TensorBoard's event files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from wav2clip_gen.errors import OutputError, TrainingError
from wav2clip_gen.files import appear_whole


def ensure_space(folder: Path, needed: int, *, what: str) -> None:
    """Create a folder and make sure that `needed` bytes are free on its disk.

    Raises:
        OutputError: The folder cannot be created, or the disk is too small.
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


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint atomically.

    Raises:
        OutputError: The disk is full or cannot be written; the previous checkpoint stays.
    """
    try:
        with appear_whole(path, option="--runs") as temporary:
            torch.save(state, temporary)
    except (OSError, RuntimeError) as error:  # torch's writer turns a full disk into a RuntimeError
        raise _write_error(path, error) from error


def load_checkpoint(path: Path, *, settings: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Read a checkpoint.

    Raises:
        TrainingError: It cannot be read, or its run had other settings.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        stored = state["settings"]
    except Exception as error:  # torch.load raises whatever the damage leads to
        raise TrainingError(f"{path}: cannot be read ({error})", hint="start anew with --fresh") from error
    changed = [name for name in sorted(settings.keys() | stored.keys()) if settings.get(name) != stored.get(name)]
    if changed:
        names = ", ".join(f"{name} ({stored.get(name)}, now {settings.get(name)})" for name in changed)
        raise TrainingError(
            f"{path}: the run was started with other settings: {names}",
            hint="give the same settings, or start anew with --fresh",
        )
    return state


class MetricsLog:
    """Losses and scores of a run by step: one JSON object per line, and TensorBoard's event files if asked for."""

    def __init__(self, path: Path, tensorboard: Path | None = None) -> None:
        """Open the log.

        Raises:
            TrainingError: TensorBoard is not installed, or its folder cannot be written to.
        """
        self._path = path
        self._writer: Any = None
        if tensorboard is None:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise TrainingError("TensorBoard is not installed", hint="pip install tensorboard") from None
        try:
            self._writer = SummaryWriter(str(tensorboard))
        except OSError as error:
            raise TrainingError(
                f"cannot write into {tensorboard}: {error.strerror}", hint="choose another folder with --tensorboard"
            ) from error

    def write(self, step: int, *, scalars: Mapping[str, float] | None = None, **entry: Any) -> None:
        """Append an entry to the log; its groups of numbers and `scalars` also go to TensorBoard.

        Raises:
            OutputError: The disk is full or cannot be written.
        """
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **entry}) + "\n")
        except OSError as error:
            raise _write_error(self._path, error) from error
        if self._writer is not None:
            groups = {group: values for group, values in entry.items() if isinstance(values, dict)}
            named = {f"{group}/{name}": value for group, values in groups.items() for name, value in values.items()}
            for name, value in {**named, **(scalars or {})}.items():
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close TensorBoard's event files."""
        if self._writer is not None:
            self._writer.close()


def _write_error(path: Path, error: Exception) -> OutputError:
    return OutputError(
        f"cannot write {path}: {str(error).splitlines()[0]}",
        hint="free some disk space, then resume: the last good checkpoint is kept",
    )
