"""A run's losses and scores as TensorBoard reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wav2clip_gen.errors import TrainingError
from wav2clip_gen.training.plan import Event, Progress, Scored


class Board:
    """A listener to the events of a run; a context manager."""

    def __init__(self, folder: Path) -> None:
        """Open a folder of event files.

        Raises:
            TrainingError: TensorBoard is not installed, or the folder cannot be written to.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise TrainingError("TensorBoard is not installed", hint="pip install tensorboard") from None
        try:
            self._writer: Any = SummaryWriter(str(folder))
        except OSError as error:
            raise TrainingError(
                f"cannot write into {folder}: {error.strerror}", hint="choose another folder with --tensorboard"
            ) from error

    def __enter__(self) -> Board:
        return self

    def show(self, event: Event) -> None:
        """Add what has numbers: losses under `loss/`, scores under `score/`, by step."""
        if isinstance(event, Progress):
            for name, value in event.losses.items():
                self._writer.add_scalar(f"loss/{name}", value, event.step)
            self._writer.add_scalar("speed/steps a second", 1 / event.seconds_per_step, event.step)
        elif isinstance(event, Scored):
            for name, value in event.scores.items():
                self._writer.add_scalar(f"score/{name}", value, event.step)

    def __exit__(self, *problem: object) -> None:
        self._writer.close()
