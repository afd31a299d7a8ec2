"""Ctrl-C or a kill: while a film is painted, the first ends it at the frame in hand; any other leaves at once."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType

from wav2clip_gen.events import Event, FramePainted

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class GentleStop:
    """A context manager that is asked, by calling it, whether to stop."""

    def __init__(self) -> None:
        self._kept = False
        self._requested = False

    def __call__(self) -> bool:
        """Whether that was asked for."""
        return self._requested

    def __enter__(self) -> GentleStop:
        self._before = {number: signal.signal(number, self._on_signal) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def follow(self, event: Event) -> None:
        """Take note of what the render is at: from the first frame on there is something to keep."""
        self._kept = self._kept or isinstance(event, FramePainted)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if not self._kept or self._requested:
            raise KeyboardInterrupt
        self._requested = True
