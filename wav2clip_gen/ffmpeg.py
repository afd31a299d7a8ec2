"""Run ffmpeg: find the binary, stream to and from it, report its errors, and summarise the streams of a file.

The bundled binary comes without ffprobe, so facts about files are read from ffmpeg's `framecrc` muxer.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import IO

from wav2clip_gen.errors import VideoError

QUIET = ("-hide_banner", "-nostdin", "-loglevel", "error")
_DISK_FULL = (b"No space left", b"File too large", b"Disk quota exceeded")
_ADDRESS = re.compile(r"\[[^\]]*@ 0x[0-9a-f]+\] *")  # "[mov @ 0x55d0c8]" before a message
_SEVERE = re.compile(r"^\[(fatal|error|warning)\] ")  # the levels, where a log shows them
_MINOR = ("[info]", "[verbose]")
_UNINFORMATIVE = (  # lines that only state that something failed
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


class FFmpegError(VideoError):
    """ffmpeg failed; `message` holds its last messages, `disk_full` whether a disk took no more."""

    def __init__(self, what: str, *, message: str, hint: str, disk_full: bool = False) -> None:
        super().__init__(what, hint=hint)
        self.message = message
        self.disk_full = disk_full


class FFmpegGoneError(Exception):
    """ffmpeg exited while it was being fed; leaving its context turns this into a VideoError with its messages."""


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


def failure(purpose: str, code: int, stderr: bytes) -> FFmpegError:
    """The error for an ffmpeg that ended with `code` while it should `purpose`; its last two messages are quoted."""
    end = f"was ended by signal {-code}" if code < 0 else f"gave exit code {code}"
    lines = (_ADDRESS.sub("", line).strip() for line in stderr.decode(errors="replace").splitlines())
    lines = (_SEVERE.sub("", line) for line in lines if not line.startswith(_MINOR))
    informative = [line for line in lines if line and not line.startswith(_UNINFORMATIVE)]
    message = "; ".join(dict.fromkeys(informative[-2:])) or "no message"
    disk_full = code == -getattr(signal, "SIGXFSZ", 0) or any(sign in stderr for sign in _DISK_FULL)
    if disk_full:
        hint = "free some disk space, or write to another disk with --out"
    else:
        hint = "see `w2c-gen doctor` for the ffmpeg in use; W2C_FFMPEG chooses another one"
    what = f"could not {purpose}: ffmpeg {end}: {message}"
    return FFmpegError(what, message=message, hint=hint, disk_full=disk_full)


def run(arguments: Sequence[str], *, purpose: str) -> bytes:
    """Run ffmpeg to its end and return its standard output.

    Args:
        arguments: The command line without the binary.
        purpose: What this is for, to follow "could not" in an error.

    Raises:
        VideoError: ffmpeg is missing or failed; its own messages are quoted.
    """
    with reading(arguments, purpose=purpose) as output:
        return output.read()


@contextmanager
def reading(arguments: Sequence[str], *, purpose: str, log: IO[bytes] | None = None) -> Iterator[IO[bytes]]:
    """Start ffmpeg and give its standard output, to be read to the end; leaving by an exception kills ffmpeg.

    Its messages go to `log`, if that is given.

    Raises:
        VideoError: ffmpeg is missing or failed; its own messages are quoted.
    """
    with _started(arguments, purpose, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, log=log) as process:
        assert process.stdout is not None
        yield process.stdout


@contextmanager
def feeding(arguments: Sequence[str], *, purpose: str) -> Iterator[Callable[[bytes | memoryview], None]]:
    """Start ffmpeg and give a function that writes to its standard input; leaving by an exception kills ffmpeg.

    Where ffmpeg has exited, the function raises an FFmpegGoneError: let it pass, the end of the block reports why.

    Raises:
        VideoError: ffmpeg is missing or failed; its own messages are quoted.
    """
    with _started(arguments, purpose, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        pipe = process.stdin
        assert pipe is not None

        def write(content: bytes | memoryview) -> None:
            try:
                pipe.write(content)
            except BrokenPipeError as error:
                raise FFmpegGoneError from error

        yield write


@contextmanager
def _started(
    arguments: Sequence[str], purpose: str, *, stdin: int, stdout: int, log: IO[bytes] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Own one ffmpeg process from start to exit code; it never outlives the block."""
    command = [find_ffmpeg(), *QUIET, *arguments]
    # a file, because a pipe that nobody reads would fill and block
    with nullcontext(log) if log else tempfile.TemporaryFile() as stderr:
        try:
            # a session of its own: Ctrl-C is handled here, and decides what becomes of the file
            process = subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=True)
        except OSError as error:
            raise VideoError(
                f"{command[0]} cannot be run: {error.strerror}",
                hint="set W2C_FFMPEG to a working ffmpeg binary, or unset it to use the bundled one",
            ) from error
        gone = False
        try:
            yield process
        except FFmpegGoneError:
            gone = True  # its exit code and messages tell why
        except BaseException:
            process.kill()
            raise
        finally:
            for pipe in filter(None, (process.stdin, process.stdout)):  # an ffmpeg that is being fed waits for that
                with suppress(BrokenPipeError):  # it exited without the last bytes: its exit code tells why
                    pipe.close()
            code = process.wait()
        if code != 0 or gone:
            stderr.seek(0)
            raise failure(purpose, code, stderr.read())


def describe(path: Path) -> str:
    """What ffmpeg prints about a file when it opens it, for people; empty where it prints nothing."""
    command = [find_ffmpeg(), "-hide_banner", "-nostdin", "-i", file_url(path)]
    # exit code 1 is normal: there is an input, and nothing to do with it
    return subprocess.run(command, capture_output=True, check=False).stderr.decode(errors="replace")


def encoders() -> frozenset[str]:
    """Names of the encoders that this ffmpeg has, such as `libx264` and `aac`."""
    return _encoders(find_ffmpeg())


@lru_cache(maxsize=8)
def _encoders(binary: str) -> frozenset[str]:
    """Parse lines such as ` V....D libx264   H.264 / AVC`, which follow a line of dashes."""
    listing = run(["-encoders"], purpose=f"ask {binary} for its encoders").decode(errors="replace")
    _, _, table = listing.partition("------")
    return frozenset(line.split()[1] for line in table.splitlines() if len(line.split()) > 1)


def version() -> str:
    """The first line of `ffmpeg -version`, without the copyright."""
    listing = run(["-version"], purpose="ask ffmpeg for its version").decode(errors="replace")
    return listing.partition("\n")[0].partition(" Copyright")[0].strip()


@dataclass
class Stream:
    """One stream of a file: its header, and the sum of its packets (of its frames, where it was decoded)."""

    header: dict[str, str] = field(default_factory=dict)  # tb, media_type, codec_id, sample_rate, ...
    packets: int = 0
    size: int = 0  # bytes of all packets
    ticks: int = 0  # durations of all packets, in time bases
    first: int = 0  # presentation time of the first packet, in time bases
    last: int = 0  # presentation time of the last packet, in time bases
    regular: bool = True  # every step from one packet to the next is the same
    _step: int | None = None

    @property
    def time_base(self) -> Fraction:
        """Seconds per tick."""
        return Fraction(self.header.get("tb", "1/1"))

    @property
    def sample_rate(self) -> int:
        """Samples per second; 0 in a video stream."""
        return int(self.header.get("sample_rate", 0))

    @property
    def start(self) -> Fraction:
        """Seconds at which the first packet is presented, counted from the start of the file."""
        return self.first * self.time_base

    @property
    def step(self) -> Fraction:
        """Seconds from one packet to the next; the mean where that is not regular."""
        if not self.regular:
            return (self.last - self.first) * self.time_base / (self.packets - 1)
        return (self._step or self.ticks) * self.time_base

    @property
    def samples(self) -> int:
        """Samples per channel, in a decoded audio stream."""
        return round(self.ticks * self.time_base * self.sample_rate)

    @property
    def channels(self) -> int:
        """Number of channels, in an audio stream that was decoded to 32-bit samples."""
        return round(self.size / 4 / self.samples) if self.samples else 0

    def add(self, pts: int, ticks: int, size: int) -> None:
        """Add one more packet to the sums."""
        if self.packets == 0:
            self.first = pts
        else:
            step = pts - self.last
            self.regular = self.regular and self._step in (None, step)
            self._step = self._step or step
        self.packets += 1
        self.last = pts
        self.ticks += ticks
        self.size += size


def read_streams(path: Path, arguments: Sequence[str], *, purpose: str) -> list[Stream]:
    """Read a file through ffmpeg and sum up its streams, with memory that does not grow with the file.

    Args:
        path: The file.
        arguments: ffmpeg's output options: which streams, copied or decoded, how much of them.
        purpose: What this is for, to follow "could not" in an error.

    Raises:
        VideoError: ffmpeg is missing, or cannot read the file.
    """
    command = ["-i", file_url(path), *arguments, "-f", "framecrc", "pipe:1"]
    streams: dict[int, Stream] = {}
    with reading(command, purpose=purpose) as lines:
        for line in map(bytes.decode, lines):
            if line.startswith("#"):  # a header, such as `#tb 0: 1/12`
                name, _, value = line[1:].partition(": ")
                word, _, index = name.partition(" ")
                if index.isdigit():
                    streams.setdefault(int(index), Stream()).header[word] = value.strip()
            elif "," in line:  # a packet: stream, dts, pts, duration, size, crc
                number, _, pts, ticks, size = (int(value) for value in line.split(",")[:5])
                streams.setdefault(number, Stream()).add(pts, ticks, size)
    return [streams[index] for index in sorted(streams)]


def read_sound(path: Path, *, stream: int = 0, copied: bool = False, whole: bool = False) -> Stream:
    """An audio stream of a file, the first by default: its header and first packet, or `whole`.

    `copied` reads it as it is stored; else it is decoded to 32-bit floats.

    Raises:
        VideoError: ffmpeg is missing, or finds no audio.
    """
    options = ["-map", f"0:a:{stream}", "-c:a", "copy" if copied else "pcm_f32le"]
    options += [] if whole else ["-frames:a", "1"]
    return next(iter(read_streams(path, options, purpose=f"read the sound of {path}")), Stream())


def count_sounds(path: Path) -> int:
    """How many audio streams a file has, such as the five of a `.stem.mp4`.

    Raises:
        VideoError: ffmpeg is missing, or finds no audio.
    """
    first = ["-map", "0:a", "-c:a", "copy", "-frames:a", "1"]
    return len(read_streams(path, first, purpose=f"read the sound of {path}"))


def default_sound(path: Path) -> tuple[int, int]:
    """Which of a file's audio streams plays by default, and how many it has; 0 and 0 where it cannot be read."""
    streams = re.findall(r"^ +Stream #0:.*?: Audio: .*", describe(path), re.MULTILINE)
    default = (number for number, stream in enumerate(streams) if "(default)" in stream)
    return next(default, 0), len(streams)


def read_title(path: Path) -> str | None:
    """Title in the metadata of a file, if it has one."""
    command = ["-i", file_url(path), "-f", "ffmetadata", "pipe:1"]
    metadata = run(command, purpose=f"read the title of {path}").decode(errors="replace")
    for line in metadata.splitlines():
        key, _, value = line.partition("=")
        if key.lower() == "title" and value.strip():
            return re.sub(r"\\(.)", r"\1", value.strip())  # ffmpeg escapes =, ;, # and \
    return None
