"""What is heard in each frame: the song as a whole, or its stems, each by itself and as far as it sounds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wav2clip_gen.audio.decode import levels, loudness
from wav2clip_gen.audio.smoothing import Floats, normalize_to_peak, zero_phase_smooth
from wav2clip_gen.audio.timeline import Timeline, iterate_windows
from wav2clip_gen.audio.track import Track
from wav2clip_gen.models.wav2clip import Wav2CLIP
from wav2clip_gen.settings import Stem
from wav2clip_gen.synthesis.trajectory import at_times

LEVEL_SMOOTHING = 0.1  # seconds, half-life of a stem's level: between two strokes of a drum there is still the drum
SILENT = 1e-3  # of the level of the song's loud places (-60 dB): a stem below that has nothing to say


@dataclass(frozen=True, eq=False)
class Heard:
    """What is heard in each frame."""

    embeddings: Tensor | None  # (F, D); 0 where all stems are silent; None where no stem has a weight
    loudness: Floats  # (F,) in [0, 1]
    silent: tuple[str, ...] = ()  # stems that are silent from start to end


def listen(windows: Tensor | None, song: Track, timeline: Timeline) -> Heard:
    """Hear a song as a whole.

    Args:
        windows: (W, D) unit vectors of its windows; None where sound does not steer.
        song: The song.
        timeline: Where frames and windows lie.
    """
    return Heard(None if windows is None else _at_frames(windows, timeline), loudness(song, timeline))


def listen_to_stems(ear: Wav2CLIP, song: Track, timeline: Timeline, stems: Sequence[tuple[Stem, Track]]) -> Heard:
    """Hear stems in the place of their song.

    What a stem has to say depends on the song and on itself, never on another stem: where it is silent, a frame is
    what it would be without it.

    Args:
        ear: The sound encoder.
        song: The whole song, against which silence is measured.
        timeline: Where frames and windows lie.
        stems: What shall be heard, each as long as the song.
    """
    loud = normalize_to_peak(levels(song, timeline))
    steering = [(stem, track) for stem, track in stems if stem.weight]
    if not steering:
        return Heard(None, loud.values)
    level = [levels(track, timeline) for _, track in steering]
    pulls = [stem_pull(one, full=loud.high, fps=float(timeline.fps)) for one in level]
    silent = tuple(stem.name for (stem, _), pull in zip(steering, pulls, strict=True) if not pull.any())
    if len(silent) == len(steering):  # a film of silence, as that of a silent song
        pulls = [np.ones(timeline.frames)] * len(steering)
    mean = weighted_mean(
        (_embedded(ear, track, timeline), stem.weight * pull)
        for (stem, track), pull in zip(steering, pulls, strict=True)
    )
    together = np.sqrt(np.square(level).sum(axis=0)) / max(loud.high, 1e-12)
    return Heard(mean, np.clip(together, 0, 1), silent)


def stem_pull(level: Floats, *, full: float, fps: float) -> Floats:
    """How much a stem has to say in each frame, (F,): its level, smoothed; 0 where it is silent.

    Args:
        level: Root mean square of its frames, (F,).
        full: The level of the song's loud places.
        fps: Frames per second.
    """
    smooth = zero_phase_smooth(level, LEVEL_SMOOTHING * fps)
    return np.where(smooth > SILENT * full, smooth, 0.0)


def is_silent(level: Floats, song: Floats, *, fps: float) -> bool:
    """Whether a stem is silent from start to end beside its song; the levels of both, (F,)."""
    return not stem_pull(level, full=normalize_to_peak(song).high, fps=fps).any()


def weighted_mean(voices: Iterable[tuple[Tensor, Floats]]) -> Tensor:
    """The mean of embeddings (F, D), each weighted by its pull (F,), (F, D); 0 where nothing pulls."""
    total, weight = torch.zeros(()), torch.zeros(())
    for embeddings, pull in voices:
        share = torch.as_tensor(pull, dtype=torch.float32).unsqueeze(1)
        total, weight = total + share * embeddings, weight + share
    return total / weight.clamp(min=1e-12)


def _embedded(ear: Wav2CLIP, track: Track, timeline: Timeline) -> Tensor:
    """What is heard of a track in each frame, (F, D) unit vectors."""
    return _at_frames(ear.embed(lambda: iterate_windows(track.mono_blocks(), timeline)), timeline)


def _at_frames(windows: Tensor, timeline: Timeline) -> Tensor:
    return at_times(windows, timeline.frame_times() / timeline.hop)
