"""Errors a user may see: one line of what happened, one line of what to do."""

from __future__ import annotations


class W2CError(Exception):
    """Base of every error shown to the user; anything else that escapes is a bug.

    Args:
        what: What happened, in one line, naming the file or the value.
        hint: What the user can do about it, in one line.
    """

    exit_code = 1

    def __init__(self, what: str, *, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint


class SettingsError(W2CError):
    """A setting has a value it cannot have (a usage error)."""

    exit_code = 2


class SoundError(W2CError):
    """A track cannot be read, or holds nothing that can be heard."""


class WeightsError(W2CError):
    """Weights are missing, damaged or made for another network."""


class OutputError(W2CError):
    """A file cannot be written, or may not be replaced."""


class VideoError(W2CError):
    """The film cannot be written, joined or verified."""


class TrainingError(W2CError):
    """A training run cannot start or go on."""
