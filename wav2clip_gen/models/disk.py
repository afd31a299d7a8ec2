"""What goes wrong with the folder of weights, told as what happened and what to do."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wav2clip_gen.errors import OutputError

OTHER_FOLDER = "choose another folder: --weights-dir or W2C_WEIGHTS"


@contextmanager
def disk_errors_told(folder: Path) -> Iterator[None]:
    """Turn what goes wrong with files in `folder` into one line of what and one of what to do.

    Raises:
        OutputError: Something did.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            hint = "make room, then run the same command again: it goes on where it stopped"
            raise OutputError(f"{folder}: the disk is full", hint=hint) from error
        reason = error.strerror or str(error)
        raise OutputError(f"{folder}: cannot be written to ({reason})", hint=OTHER_FOLDER) from error
