"""Signals that end a run: Ctrl-C (INT), TERM, and HUP of a terminal that is closed.

While frames are made, the first ends the film at the current frame and the second ends the run; the finished chunks are
kept in both cases. The process then dies of the signal, so that a loop in a shell ends too.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from _thread import interrupt_main
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from threading import Thread
from types import FrameType, TracebackType

from wav2clip_gen.progress import Progress

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
STOPPING = "stopping after this frame; once more stops at once, and keeps what is needed to resume"
FINISHING = "stopping when the film is finished; once more stops at once, and keeps what is needed to resume"


class SignalDeath:
    """From `arm` on, signals raise KeyboardInterrupt, and the process dies of the first of them when it ends."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._process: int | None = None

    def arm(self) -> None:
        """Call it first of all: what is registered with `atexit` later is done before the process dies."""
        self._process = os.getpid()
        atexit.register(self._die)
        for number in SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:  # by nohup, or in the background of a script
                signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a child process has the same handlers
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.received = self.received or number
        raise KeyboardInterrupt

    def _die(self) -> None:
        if self.received is None or os.getpid() != self._process or os.name != "posix":
            return
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.flush()
        signal.signal(self.received, signal.SIG_DFL)
        os.kill(os.getpid(), self.received)


death = SignalDeath()


class GentleStop:
    """A context manager; calling it tells whether a stop was requested.

    Args:
        show: Shows the state of a run, with a line that acknowledges the signal.
    """

    def __init__(self, show: Callable[[Progress], None]) -> None:
        self._show = show
        self._progress = Progress(stage="load")
        self._has_frames = False
        self._requests = 0
        self._asked = False  # by `request`

    def __call__(self) -> bool:
        """Whether a stop was requested."""
        return self._requests > 0

    def __enter__(self) -> GentleStop:
        self._before = {
            number: signal.signal(number, self._on_signal)
            for number in SIGNALS
            if signal.getsignal(number) != signal.SIG_IGN
        }
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def follow(self, progress: Progress) -> None:
        """Note the state of the run: from a film's first frame on there is something to finish."""
        self._progress = progress
        if progress.stage == "optimize":
            self._has_frames = progress.done > 0

    def request(self) -> None:
        """Do what the first signal does, from any thread; nothing where one was received."""
        if not self._requests and not self._asked and self._before:
            self._asked = True
            interrupt_main(next(iter(self._before)))

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        death.received = death.received or number
        if not self._has_frames:
            raise KeyboardInterrupt
        self._requests += 1
        if self._requests == 1:
            text = STOPPING if self._progress.stage == "optimize" else FINISHING
            # in a thread: the signal may have interrupted a print, which cannot be entered twice
            Thread(target=self._show, args=(replace(self._progress, message=text),)).start()
        elif self._requests == 2:  # later ones would only interrupt the keeping
            raise KeyboardInterrupt
