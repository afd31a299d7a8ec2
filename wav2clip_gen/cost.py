"""What a film costs in memory and on the disk, known from its settings before the first frame. Imports no torch.

The time is not known before some steps are timed: `pace` times a few, and `preview.estimate` more.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from typing import TYPE_CHECKING

from wav2clip_gen.audio.track import Track
from wav2clip_gen.drawing import clock
from wav2clip_gen.job import Job, films, pictures
from wav2clip_gen.memory import usual_bytes
from wav2clip_gen.synthesis.segments import CROSSFADE, segment_length
from wav2clip_gen.units import describe_bytes
from wav2clip_gen.video.chunks import EVERY, STATES
from wav2clip_gen.video.division import SECONDS
from wav2clip_gen.video.mux import AAC_BIT_RATE, SoundPlan
from wav2clip_gen.workers import choose_devices

if TYPE_CHECKING:
    import torch

PIXEL = 0.1  # bytes of a film per pixel; measured 0.04 to 0.1, the most where the view follows the beat
SHOWN = 16  # bytes of what a frame of a seam is decoded from, per pixel: 4 of codes, 12 of the residual
OPEN = 16  # seams that wait for the segment before or after them, at most
STATE = 32  # bytes of an optimiser's state per pixel of its picture; measured 17 (`mini`) to 32 (`full`)
PNG = 2.5  # bytes per pixel of a saved frame; at most 3
LOSSLESS = 0.7  # of the size of samples of three bytes: ALAC and FLAC
SHEET = 2**20  # bytes of a storyboard


def describe_cost(job: Job, device: torch.device, seconds: float | None = None) -> str:
    """The time of the frames, the memory and the disk that a job needs, in words; what is unknown is left out."""
    workers = 1 if job.cluster else len(choose_devices(job, device, usual_segments(job)))
    memory, disk = run_bytes(job, device, workers), disk_bytes(job)
    free = None
    with suppress(OSError):
        free = shutil.disk_usage(job.out.absolute().parent).free
    kind = "GPU memory" if device.type == "cuda" else "memory"
    shared = "" if workers == 1 else " on each GPU" if device.type == "cuda" else f" for {workers} workers"
    parts = [f"about {describe_bytes(memory)} of {kind}{shared}"] if memory else []
    parts.append(f"up to {describe_bytes(disk)} on the disk")
    short = f", where only {describe_bytes(free)} are free" if free is not None and free < disk else ""
    time = f"its frames take about {clock(seconds)}, and it " if seconds is not None else ""
    return f"{time}needs {' and '.join(parts)}{short}"


def run_bytes(job: Job, device: torch.device, workers: int) -> float | None:
    """Bytes of memory that a film usually takes, of a GPU, or of this process and its workers; None if not known."""
    usual = usual_bytes(job.settings, job.selection, device)
    return usual and usual * (1 if workers == 1 or device.type == "cuda" else 1 + workers)


def usual_segments(job: Job) -> int:
    """The number of segments of a film, or one more or less: that depends on the song."""
    length = segment_length(job.settings.run.segments, job.track.duration)
    return 1 if job.storyboard or not length else max(1, round(job.track.duration / length))


def disk_bytes(job: Job) -> int:
    """Bytes on the disk while the outputs of a job are made, by a high estimate."""
    if job.storyboard:
        return SHEET
    return round(sum(map(_film_bytes, films(job))))


def _film_bytes(job: Job) -> float:
    picture = job.settings.picture
    frame = picture.width * picture.height * len(pictures(job.settings))
    pixels = frame * job.timeline.frames
    video = PIXEL * pixels * picture.upscale  # enlarged pictures have less detail per pixel
    frames = PNG * pixels if job.frames_dir else 0.0
    segments = usual_segments(job)
    states = STATE * frame * (STATES * segments + job.track.duration / SECONDS / (1 if job.keep_work else EVERY))
    open_seams = segments - 1 if job.keep_work else min(segments - 1, OPEN)
    states += 2 * SHOWN * frame * CROSSFADE * picture.fps * open_seams
    # the chunks are kept until the film is verified, and their joined picture until it has its sound
    return 3 * video + sound_bytes(job.track, job.sound) + frames + states


def sound_bytes(track: Track, plan: SoundPlan) -> float:
    """Bytes of the sound of a film."""
    samples = LOSSLESS * 3 * track.samples * track.channels
    if plan.copied:
        return min(float(track.path.stat().st_size), samples)
    return track.duration * float(AAC_BIT_RATE.removesuffix("k")) * 1000 / 8 if plan.codec == "aac" else samples
