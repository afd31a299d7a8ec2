"""How a command refuses."""

from __future__ import annotations

from typer.testing import Result


def assert_refused(done: Result, says: str, *, code: int = 1) -> None:
    """A command ended in one line of what happened and one of what to do, and left stdout empty."""
    assert done.exit_code == code
    first, second = done.stderr.splitlines()[-2:]
    assert first.startswith("error: ")
    assert says in first
    assert second.startswith("hint: ")
    assert done.stdout == ""
