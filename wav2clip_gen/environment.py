"""What depends on the machine and the user: environment variables, and folders to write to."""

from __future__ import annotations

import getpass
import os
import tempfile
from collections.abc import MutableMapping
from pathlib import Path

from wav2clip_gen.errors import OutputError

SPINNING = {  # how long idle threads wait at full load, for the OpenMP library that torch brings
    # turns of a loop; GNU, on Linux. On two cores 1000 is a quarter slower than the usual 300,000 while nothing else
    # runs, 2000 is not, and with 4000 a busy core slows a film by 2.9 instead of 2.1.
    "GOMP_SPINCOUNT": "2000",
    "KMP_BLOCKTIME": "1",  # ms, by default 200; LLVM on macOS and Intel on Windows
}
TEMPORARY_HINT = "set TMPDIR to a folder that you can write to"


def prepare_environment(variables: MutableMapping[str, str] = os.environ) -> None:
    """Set what torch reads when it is imported, unless the user has set it.

    Idle threads of OpenMP sleep soon. By default they spin for milliseconds at full load, and where another process
    needs the core, the thread that they wait for does not get it: two films at once took ten times as long as in turn.

    A user without a name, as often in a container, is called by number: torch asks for a name.
    """
    if "OMP_WAIT_POLICY" not in variables:
        for name, value in SPINNING.items():
            variables.setdefault(name, value)
    try:
        getpass.getuser()
    except (KeyError, OSError):
        variables["USER"] = user_number()


def asked_to_stay_offline() -> bool:
    """Whether W2C_OFFLINE is set."""
    return os.environ.get("W2C_OFFLINE", "").strip().lower() not in ("", "0", "false", "no")


def readable(name: str) -> str:
    """The name of a file as text: where its bytes are not UTF-8, Python has lone surrogates, which nothing can show."""
    return os.fsencode(name).decode(errors="replace")


def user_cache() -> Path:
    """The folder of this package in the user's cache; a user without a home has it among the temporary files.

    Raises:
        OutputError: There is no such folder either.
    """
    from platformdirs import user_cache_path

    if not os.environ.get("XDG_CACHE_HOME"):
        try:
            Path.home()
        except RuntimeError:  # neither HOME nor an entry in the list of users
            os.environ["XDG_CACHE_HOME"] = str(private_folder())  # other libraries look for a cache too
    return user_cache_path("w2c-gen", appauthor=False)


def private_folder() -> Path:
    """A folder among the temporary files that only this user can write to.

    Raises:
        OutputError: It cannot be made, or another user made it.
    """
    folder = temporary_folder() / f"w2c-gen-{user_number()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        foreign = hasattr(os, "getuid") and folder.lstat().st_uid != os.getuid()
    except OSError as error:
        raise OutputError(f"cannot make {folder}: {error.strerror}", hint=TEMPORARY_HINT) from error
    if foreign:  # what lies there may be executed
        raise OutputError(f"{folder} belongs to another user", hint=TEMPORARY_HINT)
    return folder


def is_writable(folder: Path) -> bool:
    """Whether files can be written into a folder, or it can be made."""
    return os.access(next(place for place in (folder, *folder.parents) if place.exists()), os.W_OK)


def temporary_folder() -> Path:
    """The folder for temporary files.

    Raises:
        OutputError: None can be written to.
    """
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:
        raise OutputError("no folder for temporary files can be written to", hint=TEMPORARY_HINT) from None


def user_number() -> str:
    """A number that differs between the users of a machine; their name where there are no numbers."""
    return str(os.getuid()) if hasattr(os, "getuid") else os.environ.get("USERNAME", "")
