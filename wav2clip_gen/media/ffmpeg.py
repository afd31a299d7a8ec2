"""The fence round ffmpeg: it is found here, started here, and its exit code and last words are read here.

There is no ffprobe beside the bundled binary, so facts about files come from ffmpeg's own decoding.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import IO

from wav2clip_gen.errors import VideoError

QUIET = ("-hide_banner", "-nostdin", "-loglevel", "error")
_FULL = (b"No space left", b"File too large", b"Disk quota exceeded")
_NOISE = re.compile(r"\[[^\]]*@ 0x[0-9a-f]+\] *")  # "[mov @ 0x55d0c8]" before a message
_EMPTY_WORDS = (  # lines that only say that something went wrong
    "Conversion failed!",
    "Error opening input file",
    "Error opening output file",
    "Error parsing options",
    "Exiting with exit code",
    "Failed to set value",
    "Last message repeated",
    "Nothing was written",
    "Task finished",
    "Terminating thread",
    "To ignore this",
)


class FFmpegGoneError(Exception):
    """ffmpeg left while it was fed; the end of its block turns this into a VideoError with its last words."""


def find_ffmpeg() -> str:
    """Path of the ffmpeg to use: `W2C_FFMPEG`, else the one of imageio-ffmpeg.

    Raises:
        VideoError: There is none, or it does not run.
    """
    chosen = os.environ.get("W2C_FFMPEG")
    if chosen:
        found = shutil.which(chosen)
        if found is None:
            raise VideoError(
                f"W2C_FFMPEG points to {chosen}, which cannot be run",
                hint="give the path of an ffmpeg binary, or unset W2C_FFMPEG to use the bundled one",
            )
        return found
    try:
        import imageio_ffmpeg

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError) as error:
        raise VideoError(
            "no ffmpeg was found", hint="pip install imageio-ffmpeg, or set W2C_FFMPEG to an ffmpeg binary"
        ) from error


def file_url(path: Path) -> str:
    """Name a local file so that ffmpeg never reads it as an option, a protocol or a pattern."""
    return f"file:{path.absolute()}"


def last_words(stderr: bytes) -> str:
    """The last two lines that ffmpeg said, without its module addresses, as one line."""
    lines = (_NOISE.sub("", line).strip() for line in stderr.decode(errors="replace").splitlines())
    said = [line for line in lines if line and not line.startswith(_EMPTY_WORDS)]
    return "; ".join(dict.fromkeys(said[-2:])) or "nothing"


def failure(purpose: str, code: int, stderr: bytes) -> VideoError:
    """The error for an ffmpeg that ended with `code` while it should `purpose`."""
    end = f"was ended by signal {-code}" if code < 0 else f"gave exit code {code}"
    words = last_words(stderr)
    if code == -getattr(signal, "SIGXFSZ", 0) or any(sign in stderr for sign in _FULL):
        hint = "free some disk space, or write to another disk with --out"
    else:
        hint = "see `w2c-gen doctor` for the ffmpeg in use; W2C_FFMPEG chooses another one"
    return VideoError(f"could not {purpose}: ffmpeg {end} and said: {words}", hint=hint)


def run(arguments: Sequence[str], *, purpose: str) -> bytes:
    """Run ffmpeg to its end and return its standard output.

    Args:
        arguments: The command line without the binary.
        purpose: What this is for, to follow "could not" in an error.

    Raises:
        VideoError: ffmpeg is missing or failed; its own last words are quoted.
    """
    with _started(arguments, purpose, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        return process.stdout.read()


@contextmanager
def reading(arguments: Sequence[str], *, purpose: str) -> Iterator[IO[bytes]]:
    """Start ffmpeg and give its standard output, to be read to the end; leaving by an exception ends ffmpeg.

    Raises:
        VideoError: ffmpeg is missing or failed; its own last words are quoted.
    """
    with _started(arguments, purpose, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield process.stdout


class FFmpegSink:
    """An ffmpeg that is fed through its standard input: a context manager with `write`.

    Leaving the block closes the pipe, waits and reads the exit code; leaving by an exception ends ffmpeg.
    """

    def __init__(self, arguments: Sequence[str], *, purpose: str) -> None:
        self._context = _started(arguments, purpose, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)

    def __enter__(self) -> FFmpegSink:
        self._process = self._context.__enter__()
        return self

    def write(self, content: bytes | memoryview) -> None:
        """Feed some bytes.

        Raises:
            FFmpegGoneError: ffmpeg has left; let it pass, the end of the block says why.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(content)
        except BrokenPipeError as error:
            raise FFmpegGoneError from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._context.__exit__(kind, error, trace)


@contextmanager
def _started(arguments: Sequence[str], purpose: str, *, stdin: int, stdout: int) -> Iterator[subprocess.Popen[bytes]]:
    """Own one ffmpeg process from start to exit code; it never outlives the block."""
    binary = find_ffmpeg()
    with tempfile.TemporaryFile() as stderr:  # a file, for a pipe that nobody reads would fill and block
        process = _start([binary, *QUIET, *arguments], stdin, stdout, stderr)
        gone = False
        try:
            yield process
        except FFmpegGoneError:
            gone = True  # its exit code and last words say why
        except BaseException:
            process.kill()
            raise
        finally:
            code = _end(process)
        if code != 0 or gone:
            stderr.seek(0)
            raise failure(purpose, code, stderr.read())


def _start(command: list[str], stdin: int, stdout: int, stderr: IO[bytes]) -> subprocess.Popen[bytes]:
    try:
        # a session of its own: Ctrl-C is for us, and we decide what becomes of the file
        return subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=True)
    except OSError as error:
        raise VideoError(
            f"{command[0]} cannot be run: {error.strerror}",
            hint="set W2C_FFMPEG to a working ffmpeg binary, or unset it to use the bundled one",
        ) from error


def _end(process: subprocess.Popen[bytes]) -> int:
    """Close the pipes, which is what an ffmpeg that is being fed waits for, and wait for the exit code."""
    for pipe in (process.stdin, process.stdout):
        if pipe:
            with suppress(BrokenPipeError):  # it left without our last bytes: its exit code says why
                pipe.close()
    return process.wait()


def describe(path: Path) -> str:
    """What ffmpeg says about a file when it opens it, made for people; empty where it says nothing."""
    command = [find_ffmpeg(), "-hide_banner", "-nostdin", "-i", file_url(path)]
    # exit code 1 is normal: there is an input, and nothing to do with it
    return subprocess.run(command, capture_output=True, check=False).stderr.decode(errors="replace")


def encoders() -> frozenset[str]:
    """Names of the encoders that this ffmpeg has, such as `libx264` and `aac`."""
    return _encoders(find_ffmpeg())


def version() -> str:
    """The first line of `ffmpeg -version`, without the copyright."""
    first = run(["-version"], purpose="ask ffmpeg for its version").decode(errors="replace").partition("\n")[0]
    return first.partition(" Copyright")[0].strip()


@lru_cache(maxsize=8)
def _encoders(binary: str) -> frozenset[str]:
    """Parse lines such as ` V....D libx264   H.264 / AVC`, which follow a line of dashes."""
    listing = run(["-encoders"], purpose=f"ask {binary} for its encoders").decode(errors="replace")
    _, _, table = listing.partition("------")
    return frozenset(line.split()[1] for line in table.splitlines() if len(line.split()) > 1)
