"""What is in a file, stream by stream, in the words of ffmpeg's framecrc muxer.

ffmpeg writes one line a packet. The lines are summed while they pass, so that a long film costs no more
memory than a short one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from wav2clip_gen.media import ffmpeg


@dataclass
class Stream:
    """One stream: its header, and the sum of its packets (of its frames, where it was decoded)."""

    header: dict[str, str] = field(default_factory=dict)  # such as tb, media_type, codec_id, sample_rate
    packets: int = 0
    size: int = 0  # bytes of all packets
    ticks: int = 0  # durations of all packets, in time bases
    first: int = 0  # presentation time of the first packet, in time bases
    last: int = 0  # presentation time of the last packet, in time bases
    regular: bool = True  # every step from one packet to the next is the same
    _step: int | None = None

    @property
    def kind(self) -> str:
        """`audio`, `video`, ..."""
        return self.header.get("media_type", "unknown")

    @property
    def codec(self) -> str:
        """Name of the codec, such as `aac`."""
        return self.header.get("codec_id", "unknown")

    @property
    def time_base(self) -> Fraction:
        """Seconds per tick."""
        return Fraction(self.header.get("tb", "1/1"))

    @property
    def sample_rate(self) -> int:
        """Samples per second; 0 in a stream of pictures."""
        return int(self.header.get("sample_rate", 0))

    @property
    def start(self) -> Fraction:
        """Seconds at which the first packet is presented, counted from the start of the file."""
        return self.first * self.time_base

    @property
    def step(self) -> Fraction:
        """Seconds from one packet to the next, where that is regular."""
        return (self._step or self.ticks) * self.time_base

    @property
    def samples(self) -> int:
        """Samples per channel, in a stream of decoded sound."""
        return round(self.ticks * self.time_base * self.sample_rate)

    @property
    def channels(self) -> int:
        """Number of channels, in a stream that was decoded to 32-bit samples."""
        return round(self.size / 4 / self.samples) if self.samples else 0

    def add(self, pts: int, ticks: int, size: int) -> None:
        """Sum up one more packet."""
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
    """Read a file through ffmpeg and sum up its streams.

    Args:
        path: The file.
        arguments: ffmpeg's output options: which streams, copied or decoded, how much of them.
        purpose: What this is for, to follow "could not" in an error.

    Raises:
        VideoError: ffmpeg is missing, or cannot read the file.
    """
    command = ["-i", ffmpeg.file_url(path), *arguments, "-f", "framecrc", "pipe:1"]
    with ffmpeg.reading(command, purpose=purpose) as lines:
        return _sum_up(line.decode() for line in lines)


def read_sound(path: Path, *, stream: int = 0, copied: bool = False, whole: bool = False) -> Stream:
    """A sound stream of a file, the first by default: its header and first packet, or `whole`.

    `copied` reads it as it is stored; else it is decoded to 32-bit floats.

    Raises:
        VideoError: ffmpeg is missing, or finds no sound.
    """
    codec = "copy" if copied else "pcm_f32le"
    length = [] if whole else ["-frames:a", "1"]
    chosen = ["-map", f"0:a:{stream}", "-c:a", codec]
    found = read_streams(path, [*chosen, *length], purpose=f"read the sound of {path}")
    return found[0] if found else Stream()


def count_sounds(path: Path) -> int:
    """How many sound streams a file has, such as the five of a `.stem.mp4`.

    Raises:
        VideoError: ffmpeg is missing, or finds no sound.
    """
    first = ["-map", "0:a", "-c:a", "copy", "-frames:a", "1"]
    return len(read_streams(path, first, purpose=f"read the sound of {path}"))


def read_title(path: Path) -> str | None:
    """Title in the metadata of a file, if it has one."""
    command = ["-i", ffmpeg.file_url(path), "-f", "ffmetadata", "pipe:1"]
    written = ffmpeg.run(command, purpose=f"read the title of {path}").decode(errors="replace")
    return next(_titles(written.splitlines()), None)


def _titles(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        key, _, value = line.partition("=")
        if key.lower() == "title" and value.strip():
            yield re.sub(r"\\(.)", r"\1", value.strip())  # ffmpeg escapes =, ;, # and \


def _sum_up(lines: Iterable[str]) -> list[Stream]:
    """Parse `#tb 0: 1/12` (headers) and `0, dts, pts, duration, size, crc` (packets)."""
    streams: dict[int, Stream] = {}
    for line in lines:
        if line.startswith("#"):
            name, _, value = line[1:].partition(": ")
            word, _, index = name.partition(" ")
            if index.isdigit():
                streams.setdefault(int(index), Stream()).header[word] = value.strip()
        elif "," in line:
            number, _, pts, ticks, size = (int(part) for part in line.split(",")[:5])
            streams.setdefault(number, Stream()).add(pts, ticks, size)
    return [streams[index] for index in sorted(streams)]
