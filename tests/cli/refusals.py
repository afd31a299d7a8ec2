"""Refusals of a command."""

from __future__ import annotations

from typer.testing import Result


def assert_refused(done: Result, what: str, *, code: int = 1) -> None:
    """Check that a command ended with a line of what is wrong and a line of what to do, and left stdout empty."""
    assert done.exit_code == code
    first, second = done.stderr.splitlines()[-2:]
    assert first.startswith("error: ")
    assert what in first
    assert second.startswith("hint: ")
    assert done.stdout == ""
