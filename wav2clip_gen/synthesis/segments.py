"""The division of a film into segments, which are painted independently of each other, and how neighbours are joined.

A segment starts anew, as a film does, with frames that are not shown: its run-in. Around the boundary between two
segments both are painted, and what is shown crosses from one to the other. Where the boundaries are depends on the song
and the settings alone. Imports no torch.

The run-in was measured with 12 painted frames a second, 4 steps each: how much larger the guidance loss of the first
shown frame is than in the film that is not divided (1.33 to 1.43 there). 128x128, 40 first steps, africa.ogg and
song/mix.ogg: +0.014 and +0.006 without a run-in, +0.010 and +0.002 after 4 painted frames, +0.009 and +0.001 after 8,
the same after 12, +0.006 and -0.001 after 24. 64x64, 10 first steps: +0.31 and +0.13 without, +0.065 after 4, +0.009
after 8, +0.011 after 12. Two neighbouring frames differ by 0.018 without a run-in and by 0.012 after 8 frames, as much
as in the undivided film (0.011 to 0.015).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wav2clip_gen.units import parse_segments

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from wav2clip_gen.audio.features import Features
    from wav2clip_gen.audio.timeline import Timeline
    from wav2clip_gen.models.vqgan import VQGAN
    from wav2clip_gen.synthesis.camera import Matrix

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

USUAL_LENGTH = 30.0  # seconds of a segment, ...
UNDIVIDED = 60.0  # ... and of the longest film that is not divided, unless a length is given
SHORTEST, LONGEST = 0.5, 1.5  # of the wished length
BEAT_REACH = 2.0  # seconds that a boundary may be moved onto a beat
RUN_IN = 8  # painted frames
CROSSFADE = 1.0  # seconds, at most half of either segment


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A span of frames that is painted by itself."""

    number: int  # from 0
    start: int  # the first of its frames
    stop: int  # the first frame of the next segment
    fade_in: int = 0  # frames by which the crossfade around `start` reaches to either side
    fade_out: int = 0  # the same around `stop`
    run_in: int = 0  # frames before the crossfade that are painted and not shown

    @property
    def span(self) -> range:
        """All frames that are made for it, in order: run-in, crossfade, those it shows alone, crossfade."""
        return range(self.start - self.fade_in - self.run_in, self.stop + self.fade_out)

    def painted(self, frames: Indices) -> Indices:
        """Of the painted frames of the film, those of the span, and the nearest before and after it."""
        first = int(np.searchsorted(frames, self.span.start, side="right")) - 1
        last = int(np.searchsorted(frames, self.span.stop - 1))
        return frames[first : last + 1]

    @property
    def alone(self) -> range:
        """The frames that show this segment only."""
        return range(self.start + self.fade_in, self.stop - self.fade_out)

    @property
    def seam(self) -> range:
        """The frames around `stop` that show this segment and the next."""
        return range(self.stop - self.fade_out, self.stop + self.fade_out)


def divide(timeline: Timeline, features: Features, length: float | None, painted: Indices) -> tuple[Segment, ...]:
    """Divide a film at the section boundaries of its song, else at beats, else after equal times.

    The segments cover the film, each frame once; each is between half and one and a half times as long as wished, and a
    film of less than that is one segment.

    Args:
        timeline: Of the film.
        features: Of the mix; the boundaries of its sections, and beats.
        length: The wished seconds of a segment; None: one segment.
        painted: The painted frames of the film.
    """
    duration, fps = float(timeline.duration), float(timeline.fps)
    cuts = _cuts(duration, features.sections[1:-1], features.beats, length) if length else []
    edges = [0, *(round(cut * fps) for cut in cuts), timeline.frames]
    longest = round(CROSSFADE * fps / 2)
    lengths = [stop - start for start, stop in pairwise(edges)]
    fades = [0, *(min(longest, *pair) for pair in pairwise(frames // 4 for frames in lengths)), 0]
    return tuple(
        Segment(
            number=number,
            start=start,
            stop=stop,
            fade_in=fades[number],
            fade_out=fades[number + 1],
            run_in=run_in(start - fades[number], painted),
        )
        for number, (start, stop) in enumerate(pairwise(edges))
    )


def run_in(shown: int, painted: Indices) -> int:
    """Frames of the run-in: from the painted one at which a segment begins to the first that is shown."""
    last = int(np.searchsorted(painted, shown, side="right")) - 1
    return shown - int(painted[max(0, last - RUN_IN)])


def segment_length(written: str, duration: float) -> float | None:
    """The wished seconds of a segment, by the setting `segments`; None: a film of `duration` seconds is not divided."""
    length = parse_segments(written)
    if length is None:
        return USUAL_LENGTH if duration > UNDIVIDED else None
    return length if math.isfinite(length) else None


def _cuts(duration: float, sections: Floats, beats: Floats, length: float) -> list[float]:
    """Seconds of the boundaries between segments."""
    cuts, start = list[float](), 0.0
    while (left := duration - start) >= LONGEST * length:
        aim = start + left / round(left / length)  # the rest in equal parts
        low, high = start + SHORTEST * length, min(start + LONGEST * length, duration - SHORTEST * length)
        at_sections = sections[(sections >= low) & (sections <= high)]
        at_beats = beats[(beats >= max(low, aim - BEAT_REACH)) & (beats <= min(high, aim + BEAT_REACH))]
        found = at_sections if len(at_sections) else at_beats
        start = float(found[np.argmin(np.abs(found - aim))]) if len(found) else aim
        cuts.append(start)
    return cuts


def crossfade_weight(frame: int, boundary: int, reach: int) -> float:
    """The share of the later segment in a frame, from 0 to 1: half a cosine from `boundary - reach` to `+ reach`.

    The frames of a seam are symmetrical about the boundary, which is shown where a frame begins: weights of frames that
    mirror each other add up to 1.
    """
    if not reach:
        return float(frame >= boundary)
    place = (frame + 0.5 - boundary) / reach  # from -1 to 1
    return 0.5 + 0.5 * math.sin(math.pi / 2 * min(max(place, -1.0), 1.0))


@dataclass(frozen=True, eq=False)
class Shown:
    """What a shown frame is decoded from, before its view."""

    codes: Tensor  # (1, C, h, w), the running average
    offset: Matrix  # of the camera
    residual: Tensor | None = None  # (1, 3, H, W), what codes could not represent; None: nothing


def interpolate(before: Shown, after: Shown, weight: float) -> Shown:
    """Interpolate linearly between two shown states; `weight` is the share of the later one.

    Offsets are of less than a latent cell, so that mixing the matrices mixes the motions.
    """
    if weight in (0, 1):
        return (before, after)[int(weight)]
    first, second = before.residual, after.residual
    parts = [share * one for share, one in ((1 - weight, first), (weight, second)) if one is not None]
    return Shown(
        (1 - weight) * before.codes + weight * after.codes,
        (1 - weight) * before.offset + weight * after.offset,
        sum(parts[1:], start=parts[0]) if parts else None,
    )


def interpolate_pictures(vqgan: VQGAN, before: Tensor, after: Tensor, weight: float) -> Tensor:
    """Interpolate between two pictures (3, H, W) by their codes, and linearly by what codes cannot represent."""
    import torch

    with torch.no_grad():
        both = torch.stack([before, after])
        codes = vqgan.quantise(vqgan.encode(both))
        residuals = both - vqgan.decode(codes)
        mixed = vqgan.decode(torch.lerp(codes[:1], codes[1:], weight)) + torch.lerp(residuals[0], residuals[1], weight)
    return mixed.squeeze(0).clamp(0, 1)


def pack(shown: Sequence[Shown]) -> dict[str, Tensor]:
    """Shown states as tensors on the CPU, to be kept; a residual that several of them share is kept once."""
    import torch

    residuals = {id(one.residual): one.residual for one in shown if one.residual is not None}
    order = [*residuals]
    places = [-1 if one.residual is None else order.index(id(one.residual)) for one in shown]
    kept = {
        "codes": torch.cat([one.codes for one in shown]),
        "offsets": torch.from_numpy(np.stack([one.offset for one in shown])),
        "places": torch.tensor(places),
    }
    kept |= {"residuals": torch.cat([*residuals.values()])} if residuals else {}
    return {name: value.cpu() for name, value in kept.items()}


def unpack(kept: Mapping[str, Tensor], device: torch.device) -> list[Shown]:
    """The shown states that `pack` was given, on a device."""
    codes, residuals = kept["codes"].to(device), kept["residuals"].to(device) if "residuals" in kept else None
    return [
        Shown(codes[number : number + 1], offset, None if residuals is None or place < 0 else residuals[place][None])
        for number, (offset, place) in enumerate(zip(kept["offsets"].numpy(), kept["places"].tolist(), strict=True))
    ]
