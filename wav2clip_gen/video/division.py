"""The chunks of a film: what is painted, written and kept at a time."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from math import ceil

SECONDS = 2.0  # of film in a chunk
FEWEST = 4  # frames in a chunk: in films of three and more, x264's time stamps begin alike
BEFORE, AFTER = "before", "after"


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Frames of one segment of a film, about two seconds, whose picture is written whole or not at all."""

    number: int  # in the film, from 0
    start: int  # the first of its frames
    stop: int  # the first frame of the next
    segment: int = 0  # that it belongs to; of a seam, the one after it
    seam: bool = False  # its frames show two segments
    half: str = ""  # of a seam: the share of the segment BEFORE or AFTER it, which has no picture

    @property
    def name(self) -> str:
        """The name of its files, without a suffix."""
        return f"chunk-{self.number:05}" + (f".{self.half}" if self.half else "")

    @property
    def halves(self) -> tuple[Chunk, Chunk]:
        """What a seam is made from."""
        return replace(self, half=BEFORE, segment=self.segment - 1), replace(self, half=AFTER)

    @property
    def whole(self) -> Chunk:
        """The seam that this is half of."""
        return replace(self, half="", segment=self.segment + (self.half == BEFORE))

    @property
    def kept(self) -> str:
        """The suffix of what must be whole, of a finished chunk."""
        return ".safetensors" if self.half else ".mp4"


def divide(
    frames: range, painted: Sequence[int], fps: Fraction, *, segment: int = 0, number: int = 0
) -> tuple[Chunk, ...]:
    """Divide consecutive frames of a segment into chunks of about two seconds, each with an optimised frame at its end.

    Args:
        frames: The frames.
        painted: The frames that are optimised; the last of `frames` is one.
        fps: Frames per second.
        segment: The number of their segment.
        number: The number of the first chunk.
    """
    length = max(FEWEST, round(SECONDS * fps))
    count = ceil(len(frames) / length)
    edges = [frames.start]
    for wished in (frames.start + round(index * len(frames) / count) for index in range(1, count)):
        first = bisect_left(painted, edges[-1] + FEWEST - 1)
        place = max(first, bisect_left(painted, wished - 1))
        near = [frame + 1 for frame in painted[max(first, place - 1) : place + 1] if frame + 1 + FEWEST <= frames.stop]
        edges += sorted(near, key=lambda end: abs(end - wished))[:1]
    spans = pairwise([*edges, frames.stop])
    return tuple(
        Chunk(number=place, start=start, stop=stop, segment=segment)
        for place, (start, stop) in enumerate(spans, number)
    )
