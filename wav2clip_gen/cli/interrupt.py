"""Ctrl-C or SIGTERM: while frames are made, the first ends the film at the current one; any other exits at once."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType

from wav2clip_gen.progress import Progress

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class GentleStop:
    """A context manager; calling it tells whether a stop was requested."""

    def __init__(self) -> None:
        self._has_frames = False
        self._requested = False

    def __call__(self) -> bool:
        """Whether a stop was requested."""
        return self._requested

    def __enter__(self) -> GentleStop:
        self._before = {number: signal.signal(number, self._on_signal) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def follow(self, progress: Progress) -> None:
        """Note the state of the run: from a film's first frame on there is something to finish."""
        if progress.stage == "optimize":
            self._has_frames = progress.done > 0

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if not self._has_frames or self._requested:
            raise KeyboardInterrupt
        self._requested = True
