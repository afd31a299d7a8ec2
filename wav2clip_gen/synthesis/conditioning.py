"""Audio, prompts and style images -> one point of CLIP's space per frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wav2clip_gen.audio.decode import DecodedTrack, Floats
from wav2clip_gen.audio.smoothing import normalize_to_peak, zero_phase_smooth
from wav2clip_gen.audio.timeline import Timeline, iterate_windows
from wav2clip_gen.audio.track import ENCODER_RATE
from wav2clip_gen.config import MIX, Guidance, Settings, StemWeight
from wav2clip_gen.errors import SettingsError
from wav2clip_gen.images import Picture, read_style
from wav2clip_gen.models.audioclip import ESResNeXt
from wav2clip_gen.models.clip import Perceptor
from wav2clip_gen.models.registry import Models
from wav2clip_gen.models.wav2clip import Wav2CLIP
from wav2clip_gen.synthesis.cutouts import random_cutouts
from wav2clip_gen.synthesis.modulation import ParameterCurves, PromptWeight

LEVEL_SMOOTHING = 0.1  # seconds, half-life of a stem's level: it bridges the gap between two strokes of a drum
SILENT = 1e-3  # of the mix's peak level (-60 dB): a stem below that has no weight
STYLE_CUTOUTS = 32
TEXTS = 64  # embedded at a time
WINDOW, FEWEST = 4 * 2**20, 16  # bytes that Wav2CLIP takes for a window at most; windows at a time, at least
BLOCK = 1024  # frames whose guidance is summed at a time


@dataclass(frozen=True, eq=False)
class AudioEmbedding:
    """The audio that conditions a picture, at each frame."""

    embeddings: Tensor | None  # (F, D); 0 where all stems are silent; None where audio has no weight
    loudness: Floats  # (F,) in [0, 1]
    silent: tuple[str, ...] = ()  # stems that are silent from start to end


@dataclass(frozen=True, eq=False)
class GuidanceEmbedding:
    """Prompts and style images, in the order of `settings.guidance`."""

    embeddings: Tensor  # (P, D) unit vectors
    schedules: tuple[WeightSchedule, ...]  # P of them

    def add_to_(self, targets: Tensor) -> None:
        """Add the weighted embeddings to the targets (F, D), in place."""
        starts, ends = np.array([(one.frames.start, one.frames.stop) for one in self.schedules]).T
        for start in range(0, len(targets), BLOCK):
            block = slice(start, min(start + BLOCK, len(targets)))
            active = np.flatnonzero((starts < block.stop) & (ends > block.start))
            if len(active):
                weights = torch.stack([self.schedules[one].at(block) for one in active])
                targets[block] += weights.to(targets).T @ self.embeddings[torch.as_tensor(active)]


@dataclass(frozen=True, eq=False)
class WeightSchedule:
    """The weight of a prompt or an image over time; below 0: away from it."""

    source: Guidance
    weight: PromptWeight
    times: Floats  # (F,) of frames, in seconds of the track
    crossfade: float  # seconds

    @cached_property
    def frames(self) -> slice:
        """The frames outside of which its weight is 0."""
        frames = self.source.frames(self.times, self.crossfade)
        return slice(max(frames.start - 1, 0), frames.stop + 1)

    def at(self, frames: slice) -> Tensor:
        """The weights at some frames, (n,)."""
        start, end = self.source.start, self.source.end
        return weight_schedule(
            self.weight.at(frames), self.times[frames], start=start, end=end, crossfade=self.crossfade
        )


@dataclass(frozen=True, eq=False)
class Conditioning:
    """What each frame is optimised towards."""

    targets: Tensor  # (F, D) unit vectors
    loudness: Tensor  # (F,) in [0, 1]
    fps: float  # frames per second
    silent: tuple[str, ...] = ()  # stems that are silent from start to end


def encode_audio(encoder: Wav2CLIP | ESResNeXt, signal: DecodedTrack, timeline: Timeline) -> Tensor:
    """Embed a track's windows: unit vectors (W, D) on the CPU."""
    rate, batch = encoder.sample_rate, batch_for(encoder)
    return encoder.encode_windows(lambda: iterate_windows(signal.mono_blocks(rate), timeline, rate=rate, batch=batch))


def batch_for(encoder: Wav2CLIP | ESResNeXt) -> int:
    """Windows that an encoder takes at a time; a GPU is busy with many, as far as half of its free memory goes."""
    batch = 64 if encoder.device.type == "cpu" else 512
    if encoder.device.type == "cuda":
        batch = max(FEWEST, min(batch, torch.cuda.mem_get_info(encoder.device)[0] // (2 * WINDOW)))
    return batch * ENCODER_RATE // encoder.sample_rate


def encode_guidance(
    settings: Settings, models: Models, parameters: ParameterCurves, times: Floats
) -> GuidanceEmbedding | None:
    """Embed prompts and style images, and schedule their weights; None where there are none.

    Args:
        settings: Prompts, style images, cross-fade.
        models: Networks.
        parameters: The prompts' modulated weights.
        times: Of frames, (F,) seconds in the song, not in the film: prompts have times of the song.
    """
    if not settings.guidance:
        return None
    texts = [prompt.text for prompt in settings.prompts]
    rows = [models.clip.encode_text(texts[at : at + TEXTS]).cpu() for at in range(0, len(texts), TEXTS)]
    rows += [encode_style(read_style(image.file), models.clip).cpu()[None] for image in settings.style_images]
    weights = [*parameters.prompts, *(PromptWeight(image.weight) for image in settings.style_images)]
    schedules = (
        WeightSchedule(one, weight, times, settings.motion.crossfade)
        for weight, one in zip(weights, settings.guidance, strict=True)
    )
    return GuidanceEmbedding(torch.cat(rows), tuple(schedules))


def encode_conditioning(
    stems: Sequence[StemWeight],
    embeddings: Mapping[str, Tensor],
    levels: Mapping[str, Floats],
    guidance: GuidanceEmbedding | None,
    *,
    timeline: Timeline,
    settings: Settings,
    half_life: float | Floats,
    sections: Sequence[slice] = (),
) -> Conditioning:
    """Combine audio and guidance into one target per frame.

    Args:
        stems: That condition the picture; none: the mix.
        embeddings: Windows (W, D) of each source that has a weight, from `encode_audio`.
        levels: (F,) of the mix and of those sources.
        guidance: From `encode_guidance`.
        timeline: Times of frames and windows.
        settings: Audio weight and cross-fade.
        half_life: Of the targets' smoothing, in seconds; one value or (F,).
        sections: Frames of each section, where a film holds one target per section.

    Raises:
        SettingsError: No source has a weight in any frame.
    """
    audio = combine_stems(stems, embeddings, levels, timeline) if stems else mix_embedding(embeddings, levels, timeline)
    conditioning = combine(audio, guidance, timeline, half_life=half_life, audio_weight=settings.sound.weight)
    return hold_sections(conditioning, sections, settings.motion.crossfade) if sections else conditioning


def mix_embedding(embeddings: Mapping[str, Tensor], levels: Mapping[str, Floats], timeline: Timeline) -> AudioEmbedding:
    """The whole song at each frame."""
    frames = interpolate_windows(embeddings[MIX], timeline) if MIX in embeddings else None
    return AudioEmbedding(frames, normalize_to_peak(levels[MIX]).values)


def combine_stems(
    stems: Sequence[StemWeight], embeddings: Mapping[str, Tensor], levels: Mapping[str, Floats], timeline: Timeline
) -> AudioEmbedding:
    """Mean of the stems at each frame, each weighted by its level.

    A stem's contribution depends on the mix and on itself, never on other stems: where it is silent, a frame is what it
    would be without it. Arguments are those of `encode_conditioning`.
    """
    peak = normalize_to_peak(levels[MIX])
    active = [stem for stem in stems if stem.weight]
    if not active:
        return AudioEmbedding(None, peak.values)
    fps = float(timeline.fps)
    loudness = [loudness_weights(levels[stem.name], peak=peak.high, fps=fps) for stem in active]
    silent = tuple(stem.name for stem, weights in zip(active, loudness, strict=True) if not weights.any())
    if len(silent) == len(active):  # as for a silent song
        loudness = [np.ones(timeline.frames)] * len(active)
    total, weight = torch.zeros(()), torch.zeros(())
    for stem, weights in zip(active, loudness, strict=True):
        share = torch.as_tensor(stem.weight * weights, dtype=torch.float32).unsqueeze(1)
        total, weight = total + share * interpolate_windows(embeddings[stem.name], timeline), weight + share
    power = np.square([levels[stem.name] for stem in active]).sum(axis=0)
    level = np.sqrt(power) / max(peak.high, 1e-12)
    return AudioEmbedding(total / weight.clamp(min=1e-12), np.clip(level, 0, 1), silent)


def loudness_weights(level: Floats, *, peak: float, fps: float) -> Floats:
    """The weight of a stem at each frame, (F,): its smoothed level; 0 where it is silent.

    Args:
        level: Root mean square of its frames, (F,).
        peak: The mix's peak level.
        fps: Frames per second.
    """
    smooth = zero_phase_smooth(level, LEVEL_SMOOTHING * fps)
    return np.where(smooth > SILENT * peak, smooth, 0.0)


def is_silent(level: Floats, mix: Floats, *, fps: float) -> bool:
    """Whether a stem is silent from start to end, relative to its mix; the levels of both, (F,)."""
    return not loudness_weights(level, peak=normalize_to_peak(mix).high, fps=fps).any()


def combine(
    audio: AudioEmbedding,
    guidance: GuidanceEmbedding | None,
    timeline: Timeline,
    *,
    half_life: float | Floats,
    audio_weight: float = 1.0,
) -> Conditioning:
    """Smooth the audio embedding, weighted by loudness, and add the guidance; `audio.embeddings` is overwritten.

    Raises:
        SettingsError: No source has a weight in any frame.
    """
    loudness = torch.as_tensor(audio.loudness, dtype=torch.float32).clamp(0, 1)
    targets = audio.embeddings
    if targets is not None:
        _fill_gaps_(targets)
        _normalize_(targets)
        smooth_rows_(targets, half_life * float(timeline.fps), weights=frame_weights(loudness))
        _normalize_(targets)
    if guidance is not None:
        if targets is None:
            targets = torch.zeros(timeline.frames, guidance.embeddings.shape[1])
        guidance.add_to_(targets.mul_(audio_weight))
        _fill_gaps_(targets)
        _normalize_(targets)
    assert targets is not None  # settings without any source are refused by `require_guidance`
    return Conditioning(targets, loudness, float(timeline.fps), audio.silent)


def frame_weights(loudness: Tensor) -> Tensor:
    """The weight of frames (F,) in means over time: silent frames count little, but not zero."""
    return 0.05 + 0.95 * loudness


def mean_target(conditioning: Conditioning, frames: slice) -> Tensor:
    """The mean direction (D,) of the targets of some frames, weighted by loudness."""
    targets = conditioning.targets[frames]
    mean = frame_weights(conditioning.loudness[frames]) @ targets
    length = torch.linalg.vector_norm(mean)
    return mean / length if length > 1e-4 else targets[0]


def hold_sections(conditioning: Conditioning, sections: Sequence[slice], crossfade: float) -> Conditioning:
    """Replace the targets of each section by their mean, cross-faded at its boundaries.

    Args:
        conditioning: Of all frames.
        sections: Contiguous spans of frames that cover all.
        crossfade: Seconds.
    """
    times = np.arange(len(conditioning.targets)) / conditioning.fps
    starts = [section.start / conditioning.fps for section in sections]
    targets = torch.zeros_like(conditioning.targets)
    for section, start, end in zip(sections, starts, [*starts[1:], None], strict=True):
        share = weight_schedule(1.0, times, start=start, end=end, crossfade=crossfade)
        targets += share.unsqueeze(1) * mean_target(conditioning, section)
    _normalize_(targets)
    return Conditioning(targets, conditioning.loudness, conditioning.fps, conditioning.silent)


def weight_schedule(
    weight: float | Floats, times: Floats, *, start: float | None, end: float | None, crossfade: float
) -> Tensor:
    """The weight of a source at times (F,) in seconds: its weight, or weights (F,), from its start to its end, else 0.

    Both ends are linear ramps of `crossfade` seconds centred on them, so that where one source ends as another starts
    the sum of their weights is constant.
    """

    def ramp(distance: Floats) -> Floats:
        return np.clip(distance / crossfade + 0.5, 0, 1) if crossfade else (distance >= 0).astype(float)

    curve = np.full(len(times), weight, dtype=float)
    if start:
        curve *= ramp(times - start)
    if end is not None:
        curve *= 1 - ramp(times - end)
    return torch.as_tensor(curve, dtype=torch.float32)


@torch.no_grad()
def encode_style(picture: Picture, clip: Perceptor) -> Tensor:
    """Embed a picture (H, W, 3) uint8 as a unit vector (D,): the mean over augmented cutouts.

    The cutouts depend on the picture alone, not on a film's seed.
    """
    whole = torch.from_numpy(picture).to(clip.device).permute(2, 0, 1).unsqueeze(0) / 255  # (1, 3, H, W)
    generator = torch.Generator(clip.device).manual_seed(0)
    cutouts = random_cutouts(whole, clip.size, STYLE_CUTOUTS, generator=generator)
    return F.normalize(clip.encode_images(cutouts).mean(dim=0), dim=0)


def _fill_gaps_(targets: Tensor) -> None:
    """Where no source has a weight, repeat the last target before, or the first after, in place."""
    defined = torch.linalg.vector_norm(targets, dim=-1) > 1e-4
    places = defined.nonzero().flatten()
    if len(places) == 0:
        raise SettingsError(
            "no prompt, image or sound has a weight at any time of this film",
            hint="give a prompt whose times lie in the film, or the sound a weight",
        )
    last = torch.bucketize((~defined).nonzero().flatten(), places) - 1
    targets[~defined] = targets[places[last.clamp(min=0)]]


def _normalize_(vectors: Tensor) -> None:
    """Scale the rows of (N, D) to length 1, in place: a long film has many."""
    vectors.div_(torch.linalg.vector_norm(vectors, dim=-1, keepdim=True).clamp(min=1e-12))


def interpolate_windows(windows: Tensor, timeline: Timeline) -> Tensor:
    """Embeddings at the times of frames, (F, D): windows (W, D) interpolated spherically."""
    return slerp_rows(windows, timeline.frame_times() / timeline.hop)


def slerp_rows(embeddings: Tensor, positions: Floats) -> Tensor:
    """Read unit vectors (W, D) at fractional positions (F,) in [0, W - 1] by spherical interpolation."""
    last = embeddings.shape[0] - 1
    places = np.clip(positions, 0, last)
    low = np.minimum(places.astype(np.int64), max(last - 1, 0))
    share = torch.as_tensor(places - low, dtype=embeddings.dtype).unsqueeze(1)  # (F, 1)
    first = torch.as_tensor(low)
    read = embeddings.new_empty(len(places), embeddings.shape[1])
    for rows in torch.arange(len(places)).split(1024):  # slerp needs several times the memory of its result
        read[rows] = slerp(embeddings[first[rows]], embeddings[(first[rows] + 1).clamp(max=last)], share[rows])
    return read


def slerp(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    """Go `share` (..., 1) in [0, 1] of the way along the great circle from unit vectors a to b (..., D).

    Shoemake, "Animating rotation with quaternion curves", 1985. Where a and b (nearly) coincide or oppose each
    other the circle is not defined, and the normalised straight line is taken.
    """
    angle = (a * b).sum(dim=-1, keepdim=True).clamp(-1, 1).arccos()
    sine = angle.sin()
    straight = F.normalize(torch.lerp(a, b, share), dim=-1)
    safe = torch.where(sine < 1e-4, torch.ones_like(sine), sine)
    arc = (((1 - share) * angle).sin() * a + (share * angle).sin() * b) / safe
    return torch.where(sine < 1e-4, straight, arc)


def smooth_rows_(values: Tensor, half_life: float | Floats, *, weights: Tensor) -> None:
    """Average each row of values (F, D) with its neighbours on both sides, without lag, in place.

    A row `n` rows away counts `2^(-n / half_life)` times its weight (F,); see `audio.smoothing.zero_phase_smooth`.
    """
    if not np.any(half_life) or values.shape[0] == 1:
        return
    trust = weights.double().numpy()
    for columns in values.split(32, dim=1):  # float64, of which smoothing needs several copies, for a few at a time
        columns.copy_(torch.from_numpy(zero_phase_smooth(columns.double().numpy(), half_life, trust)))
