"""Ctrl-C: what it does depends on whether a film has frames."""

from __future__ import annotations

import os
import signal

import pytest

from wav2clip_gen.cli.interrupt import GentleStop
from wav2clip_gen.progress import Progress


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_the_first_interrupt_ends_a_film_that_has_frames_and_the_second_exits() -> None:
    with GentleStop() as stop:
        stop.follow(Progress(stage="optimize", done=1, total=9))
        stop.follow(Progress(stage="mux"))
        assert not stop()
        interrupt()
        assert stop()
        with pytest.raises(KeyboardInterrupt):
            interrupt()


@pytest.mark.parametrize("stages", [["load"], ["optimize"], ["optimize+", "verify", "optimize"]])
def test_an_interrupt_before_the_first_frame_of_a_film_exits_at_once(stages: list[str]) -> None:
    with GentleStop() as stop:
        for stage in stages:  # the last case is the second film of a job
            stop.follow(Progress(stage=stage.removesuffix("+"), done=len(stage) - len(stage.removesuffix("+"))))
        with pytest.raises(KeyboardInterrupt):
            interrupt()
