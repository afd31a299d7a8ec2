"""When decoded samples are played: presentation time stamps, read from ffmpeg's log while a stream is decoded.

ffmpeg hands on decoded samples without their times: holes close and overlaps play twice. `StampReader` compares the
stamps with the count of samples; where they disagree by more than `TOLERANCE`, an `Edit` puts the sound at its time.
Files without such places, and that is nearly all, have no edits and are decoded as they are.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from wav2clip_gen.errors import OutputError, SoundError

Samples = NDArray[np.float32]

# s; coarse time bases (ms in flv and mkv) and bit rates deviate by less, a lost packet by more. libvorbis counts up to
# 448 samples too many in a page of short blocks, and not in the next; what is converted from such a file does too.
TOLERANCE = 0.015
OGG_TOLERANCE = 0.02  # s, in such a file itself
RESTART = 0.2  # s; where stamps jump back by more, to no later than this after the first one, they count anew
DISCONTINUITY = 10.0  # s; where they jump back by more, or ahead in a format that may count anew, they count anew
LONGEST_HOLE = 3600.0  # s
UNTIMED = frozenset(("aac", "ac3", "dts", "eac3", "loas"))  # formats without stamps: ffmpeg guesses from the bit rate
RESETTABLE = frozenset(("mpeg", "mpegts", "ogg"))  # formats that may count anew, as joined files do
SHOWN = "ashowinfo"  # the filter that logs the stamps
_FORMAT = re.compile(rb"^\[info\] Input #0, (\S+), from")
_ZERO = re.compile(rb"^\[info\] {3}Duration: .*\bstart: (-?[\d.]+)")
_FRAME = re.compile(rb"\] n: *(\d+) pts: *(-?\w+) .*\bnb_samples: *(\d+)")

_PICTURE = re.compile(rb"^\[info\] +Stream #0:.*: Video: (?!.*\(attached pic\))")
_BROKEN = re.compile(rb"\[error\] Error during demuxing: (.*)")


@dataclass(frozen=True)
class Edit:
    """A place where samples are not played one after the other."""

    position: int  # in the decoded samples
    silence: int = 0  # samples of silence before it
    dropped: int = 0  # samples from there on that are not played, as others are at their time

    def at_rate(self, rate: int, own: int) -> Edit:
        """The edit of the samples resampled from the rate `own` to `rate`."""
        return Edit(*(round(Fraction(count * rate, own)) for count in (self.position, self.silence, self.dropped)))


@contextmanager
def temporary_log() -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """A temporary file for ffmpeg's log, open to be written and, at a place of its own, to be read meanwhile."""
    with tempfile.TemporaryDirectory(prefix="w2c-") as folder:
        path = Path(folder) / "log"
        with path.open("w+b") as written, path.open("rb") as read:
            yield written, read


@dataclass
class StampReader:
    """Reads the stamps of a stream, as far as it has been decoded.

    Args:
        log: What ffmpeg logs at the level `level+info`, with the filter `SHOWN`.
        rate: Samples per second where that filter stands.
        name: The file, for messages.
        tolerance: Smaller deviations are left as they are.
    """

    log: IO[bytes]
    rate: int
    name: str
    tolerance: float = TOLERANCE  # s
    edits: list[Edit] = field(default_factory=list)
    joins: int = 0  # places from which the stamps count anew
    broken: str = ""  # why the file cannot be read to its end
    formats: int = 0  # parts with a sample rate, or channels, of their own
    contiguous: bool = True  # every stamp is where the samples before it end, and the first at the file's zero
    _formats: frozenset[str] = frozenset()
    _zero: int | None = None  # stamp, in samples, of the file's zero; since the last join, of that of its part
    _start: int | None = None  # stamp, in samples, of the first packet of all streams
    _picture: bool = False  # the file has one; without, its zero is where its decoded sound begins
    _first: int = 0  # the first stamp
    _decoded: int = 0  # samples
    _position: int = 0  # samples that are played before the next

    def follow(self, blocks: Iterable[Samples]) -> Iterator[Samples]:
        """Hand on decoded samples, once their stamps have been read."""
        wanted = 0
        for block in blocks:
            wanted += block.shape[1]
            self._read_on(wanted)
            yield block

    def _read_on(self, wanted: int) -> None:
        """Read the stamps of the first `wanted` samples."""
        while self._decoded < wanted:
            line = self.log.readline()
            if not line:
                raise OutputError(
                    f"cannot write temporary files to {tempfile.gettempdir()}",
                    hint="free some disk space there, or set TMPDIR to another folder",
                )
            if found := _FRAME.search(line):
                self.formats += int(found[1]) == 0
                stamp = None if b"NOPTS" in found[2] else int(found[2])
                self._add(stamp, int(found[3]))
            else:
                self._read_remark(line)

    def finish(self) -> None:
        """Read what ffmpeg logs after the last sample."""
        for line in self.log:
            self._read_remark(line)

    def _read_remark(self, line: bytes) -> None:
        """Read a line that tells no stamp."""
        if self.formats == 0 and (named := _FORMAT.match(line)):
            self._formats = frozenset(named[1].decode(errors="replace").split(","))
        elif self.formats == 0 and (begins := _ZERO.match(line)):
            self._start = round(Fraction(begins[1].decode()) * self.rate)
        elif self.formats == 0 and _PICTURE.match(line):
            self._picture = True
        elif failed := _BROKEN.search(line):
            self.broken = failed[1].decode(errors="replace")

    def notes(self) -> tuple[str, ...]:
        """What the user should know about the time line, a line each."""
        holes = [edit for edit in self.edits if edit.silence]
        late = sum(edit.silence for edit in holes if edit.position == 0)
        missing = sum(edit.silence for edit in holes if edit.position)
        dropped = sum(edit.dropped for edit in self.edits)
        found = {
            f"its sound begins {self._seconds(late)} late, there is silence before": late,
            f"its sound has holes of {self._seconds(missing)} in all, there is silence in them": missing,
            f"its sound overlaps by {self._seconds(dropped)} in all, which is left out": dropped,
            f"it was joined from {self.joins + 1} files, which are played one after the other": self.joins,
            f"only its first {self._seconds(self._position)} can be read ({self.broken})": self.broken,
            "its sample rate or its channels change, all is converted to those of its beginning": self.formats > 1,
        }
        return tuple(f"{self.name}: {what}" for what, true in found.items() if true)

    def _seconds(self, samples: int) -> str:
        return f"{samples / self.rate:.3f} s"

    def _add(self, stamp: int | None, samples: int) -> None:
        """One more frame of decoded samples."""
        gap = self._gap(stamp)
        small = abs(gap) <= max(self.tolerance, OGG_TOLERANCE if "ogg" in self._formats else 0) * self.rate
        self.contiguous = self.contiguous and small and self.formats == 1
        if small or self._formats & UNTIMED:
            gap = 0
        if gap > LONGEST_HOLE * self.rate:
            raise SoundError(
                f"{self.name}: by its time stamps, {gap / self.rate:.0f} s of its sound are missing "
                f"at {self._position / self.rate:.3f} s",
                hint=f"write its sound anew: ffmpeg -i {self.name} -af asetpts=N/SR/TB song.wav",
            )
        dropped = min(-gap, samples) if gap < 0 else 0
        if gap:
            self.edits.append(Edit(self._decoded, silence=max(gap, 0), dropped=dropped))
        self._decoded += samples
        self._position += max(gap, 0) + samples - dropped

    def _gap(self, stamp: int | None) -> int:
        """By how many samples a frame is played later than the samples before it end."""
        if stamp is None:
            return 0
        if self._zero is None:
            self._zero = stamp if self._start is None or not self._picture else self._start
        if self._decoded == 0:
            self._first = stamp
        gap = stamp - self._zero - self._position
        if self._decoded and self._is_reset(gap / self.rate, (stamp - self._first) / self.rate):
            self._zero, self.joins, self.contiguous = stamp - self._position, self.joins + 1, False
            return 0
        return gap

    def _is_reset(self, gap: float, begun: float) -> bool:
        """Whether the clock is set anew where it jumps by `gap` seconds to `begun` seconds after its first stamp."""
        if self._formats & RESETTABLE:
            return gap < -RESTART or gap > DISCONTINUITY
        return gap < (-RESTART if begun <= RESTART else -DISCONTINUITY)


def place(
    blocks: Iterable[Samples], edits: Sequence[Edit], first: int, stop: int | None, size: int
) -> Iterator[Samples]:
    """Put decoded samples at the times they are played.

    Args:
        blocks: Decoded samples, (C, n) arrays; `edits` may grow as they are read.
        edits: In order, from a `StampReader`.
        first: First sample that is wanted.
        stop: Behind the last one, or None.
        size: Most samples of one block.
    """
    position = 0  # samples that are played before the next
    for block in _edited(blocks, edits, size):
        if stop is not None and position >= stop:
            return
        wanted = block[:, max(first - position, 0) : None if stop is None else max(stop - position, 0)]
        position += block.shape[1]
        if wanted.shape[1]:
            yield wanted


def _edited(blocks: Iterable[Samples], edits: Sequence[Edit], size: int) -> Iterator[Samples]:
    decoded = index = skipped = 0  # samples read, edits made, samples still to be dropped
    for block in blocks:
        while block.shape[1]:
            if index < len(edits) and edits[index].position <= decoded:
                for start in range(0, edits[index].silence, size):
                    yield np.zeros((block.shape[0], min(size, edits[index].silence - start)), np.float32)
                skipped, index = skipped + edits[index].dropped, index + 1
                continue
            length = min(block.shape[1], edits[index].position - decoded if index < len(edits) else block.shape[1])
            dropped = min(skipped, length)
            yield block[:, dropped:length]
            block, decoded, skipped = block[:, length:], decoded + length, skipped - dropped  # noqa: PLW2901
