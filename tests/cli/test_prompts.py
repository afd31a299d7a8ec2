"""Notes on prompts, on the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.cli.refusals import assert_refused
from tests.cli.test_render import QUICK, run
from tests.conftest import Write


def test_notes_on_prompts_and_their_files_are_shown_once(
    write_sound: Write, tone: NDArray[np.float64], tmp_path: Path
) -> None:
    song = write_sound(tone)
    lyrics = tmp_path / "song.lrc"
    lyrics.write_bytes("[Verse 1]\n[00:00.50]a café\n[00:59.00]night\n".encode("cp1252"))
    plan = [song, "-o", tmp_path / "film.mp4", "--dry-run", *QUICK, "--prompts", lyrics]
    done = run(*plan, "-p", "3-5 people walking")
    assert done.exit_code == 0, done.stderr
    notes = [line for line in done.stderr.splitlines() if line.startswith("note: ")]
    assert notes == [
        f"note: {lyrics}: decoded as cp1252, which is a guess; --encoding sets it; line 1: left out, no time stamp "
        "before it",
        'note: "3-5 people walking" is read as words; for times write "0:03-0:05 people walking"',
        'note: mini-clip has not learned the word "café", and guesses; it knows "caf"',
        'note: no effect, as the times are not in the film (0 s to 1.25 s of the track): "night"',
    ]
    known = run(*plan, "--encoding", "cp1252").stderr
    assert f"note: {lyrics}: line 1: left out, no time stamp before it" in known
    assert_refused(run(*plan, "--encoding", "utf-8"), "line 2: is not utf-8 text", code=2)
