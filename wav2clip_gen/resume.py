"""Whether a run may go on with what an earlier one has finished: only if it would paint the same, bit by bit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wav2clip_gen import __version__, record
from wav2clip_gen.errors import OutputError
from wav2clip_gen.job import Job, frames_name, may_replace_frames
from wav2clip_gen.painting import Division, threads_for
from wav2clip_gen.progress import StageClock
from wav2clip_gen.video.chunks import WorkFolder, read_plan
from wav2clip_gen.video.frames import clear_frames

if TYPE_CHECKING:
    from wav2clip_gen.models.registry import Models

FORMAT = 1  # of the work folder: plan, chunks and states
WITHOUT_EFFECT = {  # on the picture; the networks are told by the hashes of their files
    "sound": {"codec"},
    "run": {"device", "models", "encoder", "perceptor", "vqgan", "max_memory", "recompute"},
}
SEGMENTS, THREADS = "segments", "threads"  # in the plan, once the song is analysed: first frames; they decide rounding
SHOWN = 6  # differences that are named
HASH_LENGTH = 64  # letters of a SHA-256


def refuse_other(job: Job, work: WorkFolder, plan: Mapping[str, Any]) -> None:
    """Refuse to resume what an earlier run has finished of another film.

    `plan`: from `plan_film`; what it lacks is not compared.

    Raises:
        OutputError: The earlier run would paint another film, which is named.
    """
    if job.fresh or not work.has_chunks:
        return
    old = read_plan(job.out)
    if old is not None:
        old = {name: value for name, value in old.items() if name in plan or name not in (SEGMENTS, THREADS)}
    differences = _differences(old, plan)
    if differences:
        more = f"; and {len(differences) - SHOWN} more" if len(differences) > SHOWN else ""
        raise OutputError(
            f"{work.path} is of an interrupted run that differs: {'; '.join(differences[:SHOWN])}{more}",
            hint="give the same again to resume it; --fresh deletes what it has finished, and begins anew",
        )


def begin_or_resume(division: Division, work: WorkFolder, plan: Mapping[str, Any], stages: StageClock) -> None:
    """Resume what an earlier run has finished of a film, or begin a new work folder.

    Raises:
        OutputError: As `refuse_other`; or the disk does not take the folder.
    """
    job = division.job
    segments = [segment.start for segment in division.segments]
    threads = threads_for(len(segments)) if plan["device"] == "cpu" else None
    plan = {**plan, SEGMENTS: segments, THREADS: threads}
    refuse_other(job, work, plan)
    if not job.fresh and work.has_chunks:
        for note in work.resume(division.all_chunks):
            stages.report(message=f"note: {note}")
        return
    if job.frames_dir:
        clear_frames(job.frames_dir, job.timeline.frames, overwrite=may_replace_frames(job))
    work.restart(plan)


def plan_film(job: Job, models: Models, hashes: Mapping[Path, str | None]) -> dict[str, Any]:
    """All that the picture depends on, but its segments, as plain values by a name for messages."""
    track, settings = job.track, job.settings.with_image_files(lambda file: str(hashes[Path(file)])).to_dict()
    groups = {name: group for name, group in settings.items() if isinstance(group, dict)}
    plan: dict[str, Any] = {
        "format": FORMAT,
        "w2c-gen": __version__,
        "song": hashes[track.path],
        "samples": [track.start, track.samples, track.sample_rate, track.channels, track.mono_weights],
        "device": str(models.device),
        "frames": frames_name(job),
    }
    for name, group in groups.items():
        kept = (item for item in group.items() if item[0] not in WITHOUT_EFFECT.get(name, set()))
        plan |= {f"settings.{name}.{key}": value for key, value in kept}
    plan |= {f"settings.{name}": settings[name] for name in ("prompts", "style_images", "stems", "maps")}
    for name in job.settings.required_stems:
        origin = record.describe_stem(job, name, job.out.parent, hashes)
        plan[f"stem {name}"] = origin["sha256"] or f"{origin['from']} {origin.get('version')}"
    plan |= {f"weights of {role}": hashes[path] for role, path in models.files.items()}
    plan |= {f"version of {name}": version for name, version in record.versions().items()}
    return dict(json.loads(json.dumps(plan)))


def _differences(old: Mapping[str, Any] | None, new: Mapping[str, Any]) -> list[str]:
    """What differs between two plans, a clause each."""
    if old is None:
        return ["its plan is missing or damaged"]
    if old.get("format") != FORMAT:
        return [f"it was written by another version of w2c-gen, {old.get('w2c-gen')}"]
    return [
        _difference(name, old.get(name), new.get(name)) for name in {**new, **old} if old.get(name) != new.get(name)
    ]


def _difference(name: str, old: Any, new: Any) -> str:
    name = name.removeprefix("settings.")
    hashed = any(isinstance(value, str) and len(value) == HASH_LENGTH for value in (old, new))
    if hashed or any(isinstance(value, (list, dict)) for value in (old, new)):
        return f"{name} changed"
    shown = ["none" if value is None else value for value in (old, new)]
    return f"{name} was {shown[0]}, now {shown[1]}"
