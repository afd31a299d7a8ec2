"""Run the command line and interrupt it with Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from tests.conftest import ROOT


def has_frames(line: dict[str, Any]) -> bool:
    """Whether a line of JSON progress reports a finished frame."""
    return line.get("stage") == "optimize" and line["done"] > 0


def interrupted(
    *arguments: object,
    when: Callable[[dict[str, Any]], bool],
    after: float = 0.0,
    number: int = signal.SIGINT,
    times: int = 1,
    ignored: tuple[int, ...] = (),
    environment: dict[str, str] | None = None,
) -> tuple[int, str, str]:
    """Run w2c-gen and send it a signal `after` seconds after the first line of JSON progress for which `when` holds.

    `times`: how often the signal is sent, half a second apart; `ignored`: signals that the process ignores from its
    start, as with nohup.

    Returns the exit code (-N where the process died of signal N), stdout, and the rest of stderr.
    """

    def set_signals() -> None:
        for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # the tests may run in the background of a script
            signal.signal(one, signal.SIG_IGN if one in ignored else signal.SIG_DFL)

    command = [sys.executable, "-m", "wav2clip_gen", *map(str, arguments), "--progress", "json"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
        preexec_fn=set_signals,  # noqa: PLW1509 - this process has no threads that hold locks
        env={**os.environ, **(environment or {})},
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if when(json.loads(line)):
                break
        time.sleep(after)
        for place in range(times):
            time.sleep(0.5 * bool(place))
            os.killpg(process.pid, number)
        stdout, stderr = process.communicate(timeout=60)
    return process.returncode, stdout, stderr
