"""Segments painted as tasks of a Ray cluster: each on any machine of it, and its finished chunks come back as bytes.

No folder is shared: a task paints into a temporary work folder, and this process publishes what it finishes.
"""

from __future__ import annotations

import logging
import os
import queue
import socket
import time
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import TYPE_CHECKING, Any

from wav2clip_gen import __version__, record
from wav2clip_gen.errors import OutputError, SettingsError, W2CError
from wav2clip_gen.files import hash_file
from wav2clip_gen.job import Job
from wav2clip_gen.models.registry import ModelSelection, load_models, select_models
from wav2clip_gen.painting import Division, Events, Painted, Stop, measured
from wav2clip_gen.tasks import POLL, RETRIES, Places, Task, open_tasks
from wav2clip_gen.video.chunks import Finished, WorkFolder
from wav2clip_gen.video.division import Chunk

if TYPE_CHECKING:
    from wav2clip_gen.models.registry import Models

Files = dict[str, bytes]  # of chunks, by name; see `WorkFolder.files`
REACH = 5.0  # seconds within which a cluster answers
PROBE = 60.0  # seconds within which a machine tells its versions
INIT = 30.0  # seconds within which this process joins a cluster
AHEAD = 2  # tasks for each CPU or GPU: what is computed, and what is computed next
START = "start one with: ray start --head --num-cpus=N"

_loaded: dict[str, Models] = {}  # the networks that this worker holds between tasks


# --- on a machine of the cluster


def paint_there(
    task: Task, files: Files, init_image: bytes | None = None
) -> Generator[tuple[Chunk, Files], None, None]:
    """Do a task, and give each chunk that is finished; `files`: what of it was finished before."""
    job = task.part.job
    models = _models(job)
    with TemporaryDirectory(prefix="w2c-") as folder:
        if init_image is not None:
            image = Path(folder) / f"init{Path(job.settings.painting.init_image or '').suffix}"
            image.write_bytes(init_image)
            job = replace(job, settings=job.settings.merged({"painting": {"init_image": str(image)}}))
        out = Path(folder) / "film.mp4"
        work = WorkFolder(out, job.timeline)
        work.path.mkdir()
        for name, content in files.items():
            (work.path / name).write_bytes(content)
        here = replace(task, part=replace(task.part, job=replace(job, out=out)), keep_all=True)
        for painted in here.painted(models, lambda: False):
            if painted.frame is None:
                yield painted.chunk, work.files(painted.chunk)


def _models(job: Job) -> Models:
    import torch

    torch.set_num_threads(1)
    selection = _selection(job)
    key = str(sorted(selection.files.items()))
    if key not in _loaded:
        cuda = torch.cuda.is_available() and job.settings.run.device != "cpu"
        _loaded[key] = load_models(selection, device=torch.device("cuda" if cuda else "cpu"))
    return _loaded[key]


def _selection(job: Job) -> ModelSelection:
    """The networks of a job, as they are found on this machine."""
    found = all(path.is_file() for path in job.selection.files.values())
    return job.selection if found else select_models(job.settings.run)


def describe(job: Job) -> dict[str, str]:
    """Versions and weights on this machine: all that must be the same on each."""
    weights = {
        f"weights of {role}": hash_file(path) if path.is_file() else "missing"
        for role, path in _selection(job).files.items()
    }
    return {"w2c-gen": __version__, **record.versions(), **weights}


# --- in the process that makes the film


def connect(job: Job) -> None:
    """Connect to the cluster of a job, and check that it can make the film.

    Raises:
        W2CError: Ray is not installed, the cluster cannot be reached, has no room, or has other versions or weights.
    """
    ray, address = _ray(), job.cluster
    assert address
    if job.frames_dir:
        raise SettingsError("--frames-dir does not go with --cluster", hint="leave one of them out")
    if not ray.is_initialized():
        _require_answer(address)
        _join(ray, address)
    nodes = [node for node in ray.nodes() if node["Alive"]]
    if not any(node["Resources"].get(name, 0) >= 1 for node in nodes for name in ("CPU", "GPU")):
        raise OutputError(f"the cluster {address} has no CPU or GPU for a task", hint=START)
    _compare(ray, job, [node for node in nodes if node["Resources"].get("CPU", 0) >= 1 or _gpus(node)])


def _ray() -> Any:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        return import_module("ray")
    except ImportError as error:
        raise SettingsError("--cluster needs Ray", hint="pip install 'wav2clip-gen[ray]'") from error


def _require_answer(address: str) -> None:
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address == "auto":
        return
    if not host or not port.isdigit():
        raise SettingsError(f"cluster cannot be {address!r}", hint="give auto, or HOST:PORT such as 10.0.0.1:6379")
    try:
        socket.create_connection((host, int(port)), timeout=REACH).close()
    except (OSError, OverflowError) as error:
        raise OutputError(f"the cluster {address} does not answer: {error}", hint=START) from error


def _join(ray: Any, address: str) -> None:
    """Join a cluster in a thread: a stale one may not answer for minutes, and Ray would take over the signals."""
    found = queue.SimpleQueue[Exception | None]()

    def join() -> None:
        try:
            ray.init(address=address, log_to_driver=False, include_dashboard=False, logging_level=logging.ERROR)
            found.put(None)
        except Exception as error:
            found.put(error)

    Thread(target=join, daemon=True).start()
    try:
        error = found.get(timeout=INIT)
    except queue.Empty:
        error = TimeoutError(f"no answer within {INIT:.0f} s")
    if error:
        line = (str(error).splitlines() or ["no answer"])[0]
        raise OutputError(f"cannot connect to the cluster {address}: {line}", hint=START) from error


def _compare(ray: Any, job: Job, nodes: list[dict[str, Any]]) -> None:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here, asked = describe(job), ray.remote(describe)
    light = replace(job, stems=None)
    for node in nodes:
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        name = node["NodeManagerHostname"]
        try:
            found = ray.get(asked.options(num_cpus=0, scheduling_strategy=there).remote(light), timeout=PROBE)
        except Exception as error:
            what = f"{name} of the cluster cannot run w2c-gen: {(str(error).splitlines() or [''])[-1]}"
            raise OutputError(what, hint="install the same version of w2c-gen there") from error
        for key, value in here.items():
            if found.get(key) != value:
                kind = "differ" if key.startswith("weights") else f"is {found.get(key)}, here {value}"
                raise OutputError(f"{key} {kind} on {name} of the cluster", hint="install the same on each machine")


def _gpus(node: dict[str, Any]) -> bool:
    return bool(node["Resources"].get("GPU", 0) >= 1)


def cluster_places(job: Job) -> Places:
    """Places for tasks on the cluster that `connect` has joined: a few for each CPU or GPU."""
    return Places(AHEAD * cluster_size(job))


def cluster_size(job: Job) -> int:
    """The number of segments that the cluster paints at once."""
    nodes, kind = [node for node in _ray().nodes() if node["Alive"]], "GPU" if _uses_gpus(job) else "CPU"
    return max(1, sum(int(node["Resources"].get(kind, 0)) for node in nodes))


def _uses_gpus(job: Job) -> bool:
    return job.settings.run.device != "cpu" and any(_gpus(node) for node in _ray().nodes() if node["Alive"])


def paint_on_cluster(division: Division, work: WorkFolder, places: Places, *, stop: Stop) -> Events:
    """Paint what is not finished of a film on the cluster that `connect` has joined.

    Args:
        division: The film.
        work: Its folder.
        places: For tasks; other films may share them.
        stop: When it returns true, all tasks are cancelled; what they have finished is kept.

    Raises:
        W2CError: As a task raised it; or the machines that did it were lost again and again.
    """
    ray = _ray()
    room = {"num_cpus": 0, "num_gpus": 1} if _uses_gpus(division.job) else {"num_cpus": 1}
    paint = ray.remote(paint_there).options(num_returns="streaming", max_retries=RETRIES, **room)
    init_image = division.job.settings.painting.init_image
    image = Path(init_image).read_bytes() if init_image else None
    running: dict[Any, tuple[int, Chunk | None]] = {}
    with places.shared_by(division):
        try:
            while not stop():
                left = False
                for number, seam in open_tasks(division, work, [*running.values()]):
                    if left := not places.take(division):
                        break
                    task, files = _prepared(division, work, number, seam)
                    running[paint.remote(task, files, image)] = number, seam
                if not running and not left:
                    return
                if not left:
                    places.rest(division)
                yield from _finished(ray, running, places, work)
        finally:
            for stream in running:
                with suppress(Exception):
                    ray.cancel(stream)
                places.give_back()


def _finished(ray: Any, running: dict[Any, tuple[int, Chunk | None]], places: Places, work: WorkFolder) -> Events:
    """Take what tasks have finished meanwhile."""
    if not running:
        time.sleep(POLL)
        return
    for stream in ray.wait([*running], timeout=POLL)[0]:
        try:
            chunk, files = ray.get(next(stream))
        except StopIteration:
            del running[stream]
            places.give_back()
            continue
        except ray.exceptions.RayError as error:
            raise _explained(error, running[stream][0]) from error
        if not work.finished(chunk):  # what a repeated task gives again is the same
            yield from _events(chunk, work.take(chunk, files))


def _prepared(division: Division, work: WorkFolder, number: int, seam: Chunk | None) -> tuple[Task, Files]:
    """A task, and what it needs of what is finished."""
    part = replace(division.part(number), job=replace(division.job, stems=None))
    ends = [chunk.whole for chunk in part.chunks if chunk.half]
    needed = {chunk.name: chunk for chunk in (*part.chunks, *ends, *(seam.halves if seam else ()))}
    return Task(part, seam, keep_all=True), work.files(*filter(work.finished, needed.values()))


def _events(chunk: Chunk, done: Finished) -> Iterator[Painted]:
    """What is told of a chunk that was finished elsewhere."""
    if not chunk.half:
        for frame, values in enumerate(measured(done), chunk.start):
            yield Painted(chunk, frame, values)
    yield Painted(chunk)


def _explained(error: Exception, number: int) -> Exception:
    """The error of a task as this process raises it."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, W2CError):
        return cause
    if cause is not None:
        return RuntimeError(f"{type(cause).__name__}: {cause}")
    what = f"segment {number + 1} was lost with its machine or process {RETRIES + 1} times"
    return OutputError(what, hint="memory may have run out there: start Ray with a smaller --num-cpus")
