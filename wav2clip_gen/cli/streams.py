"""Standard streams that may go away: the terminal is closed, the reader of a pipe ends, the disk of a log is full."""

from __future__ import annotations

import os
import sys
from typing import IO, Any


class SteadyStream:
    """A text stream whose failures to write end nothing: after the first one, the rest is dropped."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write, or drop the text."""
        try:
            return self._stream.write(text)
        except OSError:
            mute(self._stream)
            return len(text)

    def flush(self) -> None:
        """Flush, or drop what was written."""
        try:
            self._stream.flush()
        except OSError:
            mute(self._stream)


def mute(stream: IO[str]) -> None:
    """Drop everything that is written to a stream from now on, and what is in its buffer."""
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, stream.fileno())
    os.close(sink)


def keep_streams_open() -> None:
    """Give stdout and stderr a place where they have none, and make failures of stderr end nothing.

    A number that is not taken would be given to the next file that is opened, and messages would go into it.
    """
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            sink = os.open(os.devnull, os.O_WRONLY)
            if sink != number:
                os.dup2(sink, number)
                os.close(sink)
            setattr(sys, name, os.fdopen(number, "w"))
    sys.stderr = SteadyStream(sys.stderr)
