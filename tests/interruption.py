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


def interrupted(*arguments: object, when: Callable[[dict[str, Any]], bool], after: float = 0.0) -> tuple[int, str, str]:
    """Run w2c-gen and interrupt it `after` seconds after the first line of JSON progress for which `when` holds.

    Returns the exit code, stdout, and the rest of stderr.
    """
    command = [sys.executable, "-m", "wav2clip_gen", *map(str, arguments), "--progress", "json"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if when(json.loads(line)):
                break
        time.sleep(after)
        os.killpg(process.pid, signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    return process.returncode, stdout, stderr
