"""Whether a run may go on with what an earlier one has finished: only if it would paint the same, bit by bit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wav2clip_gen import __version__, record
from wav2clip_gen.errors import OutputError
from wav2clip_gen.job import Job, frames_name, may_replace_frames
from wav2clip_gen.painting import chunks_of
from wav2clip_gen.progress import StageClock
from wav2clip_gen.video.chunks import WorkFolder, read_plan
from wav2clip_gen.video.frames import clear_frames

if TYPE_CHECKING:
    from wav2clip_gen.models.registry import Models

FORMAT = 1  # of the work folder: plan, chunks and states
WITHOUT_EFFECT = {  # on the picture; the networks are told by the hashes of their files
    "sound": {"codec"},
    "run": {"device", "models", "perceptor", "vqgan", "max_memory"},
}
SHOWN = 6  # differences that are named
HASH_LENGTH = 64  # letters of a SHA-256


def begin_or_resume(
    job: Job, work: WorkFolder, models: Models, hashes: Mapping[Path, str | None], stages: StageClock
) -> None:
    """Resume what an earlier run has finished of a film, or begin a new work folder.

    Raises:
        OutputError: The earlier run would paint another film, which is named; or the disk does not take the folder.
    """
    plan = _plan(job, models, hashes)
    if job.fresh or not work.has_chunks:
        if job.frames_dir:
            clear_frames(job.frames_dir, job.timeline.frames, overwrite=may_replace_frames(job))
        work.restart(plan)
        return
    differences = _differences(read_plan(job.out), plan)
    if differences:
        more = f"; and {len(differences) - SHOWN} more" if len(differences) > SHOWN else ""
        raise OutputError(
            f"{work.path} is of an interrupted run that differs: {'; '.join(differences[:SHOWN])}{more}",
            hint="give the same again to resume it; --fresh deletes what it has finished, and begins anew",
        )
    for note in work.resume(chunks_of(job)):
        stages.report(message=f"note: {note}")


def _plan(job: Job, models: Models, hashes: Mapping[Path, str | None]) -> dict[str, Any]:
    """All that the picture depends on, as plain values by a name for messages."""
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


def _differences(old: dict[str, Any] | None, new: dict[str, Any]) -> list[str]:
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
