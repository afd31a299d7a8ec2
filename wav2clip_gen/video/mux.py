"""Mux picture and sound, with the song's own packets where mp4 can hold them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wav2clip_gen import ffmpeg
from wav2clip_gen.audio.track import Track
from wav2clip_gen.errors import VideoError

COPIED = frozenset({"aac", "mp3", "alac"})  # what plays from an mp4 wherever mp4 plays
AAC_RATES = frozenset({96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350})  # Hz
AAC_CHANNELS = frozenset({1, 2, 3, 4, 5, 6, 8})  # ffmpeg's AAC brings the seven of 6.1 out of order
AAC_BIT_RATE = "320k"
SPEAKERS = ("mono", "stereo", "3.0", "quad", "5.0", "5.1", "6.1", "7.1")  # by number of channels
MOST_CHANNELS = len(SPEAKERS)


@dataclass(frozen=True, kw_only=True)
class SoundPlan:
    """How the sound of a track is put into a film."""

    codec: str  # aac, mp3, alac or flac
    copied: bool  # the song's own packets, untouched
    why: str  # one clause for the run record


def plan_sound(track: Track) -> SoundPlan:
    """Choose how the sound of a track is put into a film; call it before rendering, it may not be possible.

    Raises:
        VideoError: The track has more channels than an mp4 can hold.
    """
    stored = _stored_codec(track)
    if stored:
        return SoundPlan(codec=stored, copied=True, why="mp4 holds this codec, and the whole track is used")
    if track.channels > MOST_CHANNELS:
        raise VideoError(
            f"{track.path} has {track.channels} channels, a film holds at most {MOST_CHANNELS}",
            hint="make a version with fewer channels first; nothing is down-mixed implicitly",
        )
    if track.sample_rate in AAC_RATES and track.channels in AAC_CHANNELS:
        return SoundPlan(codec="aac", copied=False, why=f"encoded at up to {AAC_BIT_RATE}bit/s, same rate and channels")
    return SoundPlan(
        codec="flac",
        copied=False,
        why=f"AAC cannot hold {track.channels} channels at {track.sample_rate} Hz, so it is lossless",
    )


def mux(picture: Path, track: Track, out: Path, *, plan: SoundPlan, metadata: dict[str, str]) -> None:
    """Mux a film without sound and the sound of its track.

    Args:
        picture: A film from `FilmWriter`; its stream is copied.
        track: The sound; its span is used, neither down-mixed nor resampled.
        out: The film.
        plan: From `plan_sound`.
        metadata: mp4 tags, such as `title` and `comment`.

    Raises:
        VideoError: ffmpeg fails.
    """
    tags = [word for key, text in metadata.items() for word in ("-metadata", f"{key}={_argument(text)}")]
    container = ["-map_metadata", "-1", *tags, "-movflags", "+faststart", "-f", "mp4"]
    target = [*container, "-y", ffmpeg.file_url(out)]
    if plan.copied:
        _copy(picture, track, target, out)
    else:
        _encode(picture, track, plan.codec, target, out)


def _argument(text: str) -> str:
    """A text for the command line that ffmpeg reads as UTF-8, whatever the encoding of this system."""
    return os.fsdecode(text.encode(errors="replace"))


def _stored_codec(track: Track) -> str | None:
    """The codec of the file, where its packets, copied into an mp4, play exactly what the track gives."""
    if not track.whole:
        return None
    try:
        codec = ffmpeg.read_sound(track.path, copied=True).header.get("codec_id")
        if codec not in COPIED:
            return None
        played = ffmpeg.read_sound(track.path, whole=True)
    except VideoError:  # a format that only libsndfile knows
        return None
    same = played.start == 0 and played.samples == track.samples and played.sample_rate == track.sample_rate
    return codec if same else None


def _copy(picture: Path, track: Track, target: list[str], out: Path) -> None:
    inputs = ["-i", ffmpeg.file_url(picture), "-i", ffmpeg.file_url(track.path)]
    ffmpeg.run([*inputs, "-map", "0:v:0", "-map", "1:a:0", "-c", "copy", *target], purpose=f"mux {out}")


def _encode(picture: Path, track: Track, codec: str, target: list[str], out: Path) -> None:
    """Encode the samples of the track, the same that were analysed."""
    # named, and known to both encoders: where a layout has to be changed, ffmpeg mixes the channels
    speakers = SPEAKERS[track.channels - 1]
    sound = ["-f", "f32le", "-ar", str(track.sample_rate), "-ch_layout", speakers, "-i", "pipe:0"]
    streams_in = ["-i", ffmpeg.file_url(picture), *sound, "-map", "0:v:0", "-map", "1:a:0", "-c:v", "copy"]
    quality = ["-b:a", AAC_BIT_RATE] if codec == "aac" else []
    command = [*streams_in, "-c:a", codec, *quality, *target]
    with ffmpeg.feeding(command, purpose=f"mux {out}") as feed:
        for block in track.blocks():
            feed(np.ascontiguousarray(block.T, dtype="<f4").data)
