"""Errors that are shown to the user: one line that says what is wrong, and one that says what to do."""

from __future__ import annotations

import copyreg
from typing import Any


class W2CError(Exception):
    """Base of all errors shown to the user; any other exception that escapes is a bug.

    Args:
        what: What is wrong, in one line, with the file or the value.
        hint: What the user can do about it, in one line.
    """

    exit_code = 1

    def __init__(self, what: str, *, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint

    def __reduce__(self) -> tuple[Any, ...]:
        """Errors of other processes arrive as they are, whatever their classes are made with."""
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]


class SettingsError(W2CError):
    """A setting or an option is not valid (a usage error)."""

    exit_code = 2


class SoundError(W2CError):
    """A track cannot be read, or contains no usable audio."""


class WeightsError(W2CError):
    """Weights are missing, damaged or made for another network."""


class OutputError(W2CError):
    """A file cannot be written, or must not be replaced."""


class VideoError(W2CError):
    """The video cannot be written, muxed or verified."""


class OutOfMemoryError(W2CError):
    """A picture does not fit into the memory of its device."""


class TrainingError(W2CError):
    """A training run cannot start or continue."""
