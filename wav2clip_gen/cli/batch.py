"""Several tracks in one command: the failure of one stops no other, and a last line tells what became of all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import typer

from wav2clip_gen.cli.app import INTERRUPTED


@dataclass
class Batch:
    """The tracks of a command that are done so far, and its exit code."""

    tracks: list[Path]
    done: str = "films made"  # what is counted, and what was done with it
    debug: bool = False
    skipped: list[Path] = field(default_factory=list)
    failed: list[Path] = field(default_factory=list)
    made: list[Path] = field(default_factory=list)
    interrupted: Path | None = None  # the track that was being worked on
    code: int = 0
    reported: set[str] = field(default_factory=set)  # what went wrong so far

    @contextmanager
    def attempt(self, track: Path) -> Iterator[None]:
        """Show what goes wrong inside with a track, the same thing only once, and go on."""
        from wav2clip_gen.cli import console

        try:
            with console.errors_shown(debug=self.debug, reported=self.reported):
                yield
        except typer.Exit as error:
            self.code = max(self.code, error.exit_code)
            if error.exit_code == INTERRUPTED:
                self.interrupted = track
            elif error.exit_code:
                self.failed.append(track)

    def summary(self) -> str:
        """One line; empty where there was one track, and it is not skipped."""
        if len(self.tracks) == 1 and not self.skipped:
            return ""
        count = len(self.tracks) - len(self.skipped)
        facts = [f"{len(self.made)} of {count} {self.done}"] if count else []
        facts += [f"{len(self.skipped)} skipped"] if self.skipped else []
        facts += [f"failed: {', '.join(map(str, self.failed))}"] if self.failed else []
        facts += [f"interrupted at {self.interrupted}"] if self.interrupted else []
        return "; ".join(facts)
