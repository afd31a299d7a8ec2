"""Segments painted by several processes: on a CPU with one thread each, which scales with cores, or one for each GPU.

Each is joined to this process by a pipe. It reads its tasks from it, reports each frame, and ends with the pipe: no
worker outlives this process, however that ends. Signals are left to this process, which tells workers to stop.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from heapq import heapreplace
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

from wav2clip_gen.errors import OutOfMemoryError, OutputError
from wav2clip_gen.job import Job
from wav2clip_gen.memory import available_ram, usual_bytes
from wav2clip_gen.painting import Division, Events, Painted, Part, Stop, paint_seam, paint_segment
from wav2clip_gen.units import parse_bytes
from wav2clip_gen.video.chunks import WorkFolder
from wav2clip_gen.video.division import Chunk

if TYPE_CHECKING:
    import torch

    from wav2clip_gen.models.registry import Models, ModelSelection

RETRIES = 2  # of what a worker did that was killed, without a chunk finished
POLL = 0.1  # seconds between two looks at whether to stop
PICTURES = 1.0  # seconds between two pictures that a worker sends
JOIN = 10.0  # seconds that a worker may take to end
STOP = "stop"
FEWER = "memory may have run out: try fewer --workers, or a smaller --size"


def choose_devices(job: Job, device: torch.device, segments: int) -> list[str]:
    """The device of each worker: on a CPU as many as there are cores and memory, else one for each GPU.

    Args:
        job: The settings may name a GPU, and the number of workers.
        device: That of this process.
        segments: Of the film; there are no more workers than segments.
    """
    found = [str(device)]
    if device.type == "cuda" and ":" not in job.settings.run.device:
        import torch

        found = [f"cuda:{number}" for number in range(torch.cuda.device_count())] or found
    if device.type == "cpu":
        found *= min(_cores(), _fitting(job, device)) if job.workers is None else job.workers
    return found[: min(segments, job.workers or segments)]


def _fitting(job: Job, device: torch.device) -> int:
    """Workers that fit into the memory that is free, and that the settings allow; at least one."""
    usual, free = usual_bytes(job.settings, job.selection, device), available_ram()
    if usual is None or free is None:
        return _cores()
    if job.settings.run.max_memory is not None:
        free = min(free, round(parse_bytes(job.settings.run.max_memory) - usual))  # less this process
    return max(1, int(free / usual))


def shared_time(each: Sequence[float], workers: int) -> float:
    """Seconds that workers need for tasks of some seconds each, which they take in order."""
    ends = [0.0] * workers
    for seconds in each:
        heapreplace(ends, ends[0] + seconds)
    return max(ends)


def _cores() -> int:
    """Of this machine that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, eq=False)
class Task:
    """A segment to paint, or a seam to decode."""

    part: Part
    seam: Chunk | None  # before the segment
    keep_all: bool

    def painted(self, models: Models, stop: Stop) -> Events:
        """Do it."""
        work = WorkFolder(self.part.job.out, self.part.job.timeline)
        work.keep_all = self.keep_all
        ends = [chunk.whole for chunk in self.part.chunks if chunk.half]
        for chunk in (*self.part.chunks, *ends, *(self.seam.halves if self.seam else ())):
            work.note(chunk)
        if self.seam:
            return paint_seam(self.part, self.seam, work, models, stop=stop)
        return paint_segment(self.part, work, models, stop=stop)


def open_tasks(
    division: Division, work: WorkFolder, others: Collection[tuple[int, Chunk | None]]
) -> Iterator[tuple[int, Chunk | None]]:
    """What can be done of a film, from its start on: segments, and seams before them; but not what others do."""
    seams = {seam.segment: seam for seam in division.seams}
    for segment in division.segments:
        number, seam = segment.number, seams.get(segment.number)
        if seam and work.is_ready(seam) and (number, seam) not in others:
            yield number, seam
        if (number, None) not in others and work.missing(division.chunks_of_segment(number)):
            yield number, None


@dataclass(frozen=True, eq=False)
class Ended:
    """A worker has ended a task."""

    error: Exception | None = None
    trace: str = ""  # where it was raised


class TracebackError(Exception):
    """The traceback of an error in a worker, shown as its cause."""


# --- in the worker


def serve(pipe: Connection, selection: ModelSelection, device: str) -> None:
    """Do the tasks that come through a pipe, until it is closed."""
    _leave_signals()
    tasks, stopped = queue.SimpleQueue[Any](), Event()
    Thread(target=_listen, args=(pipe, tasks, stopped), daemon=True).start()
    models: Models | None = None
    while True:
        task = tasks.get()
        try:
            if isinstance(task, Exception):
                raise task
            models = models or _load(selection, device)
            _report(task.painted(models, stopped.is_set), pipe)
            ended = Ended()
        except Exception as error:
            ended = Ended(_portable(error), traceback.format_exc())
        pipe.send(ended)


def _leave_signals() -> None:
    """Ignore signals that reach the whole group of processes."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _listen(pipe: Connection, tasks: queue.SimpleQueue[Any], stopped: Event) -> None:
    """Take what comes through a pipe; where it is closed, or the process at its other end is gone, so is this one."""
    while True:
        try:
            message = pipe.recv()
        except (EOFError, OSError):
            os._exit(1)
        except Exception as error:
            message = error
        if message == STOP:
            stopped.set()
        else:
            tasks.put(message)


def _load(selection: ModelSelection, device: str) -> Models:
    import torch

    from wav2clip_gen.models.registry import load_models

    torch.set_num_threads(1)
    return load_models(selection, device=torch.device(device))


def _report(events: Events, pipe: Connection) -> None:
    """Send all that is painted; pictures only now and then."""
    shown = 0.0
    for painted in events:
        due = painted.picture is not None and time.monotonic() - shown > PICTURES
        shown = time.monotonic() if due else shown
        pipe.send(painted if due else replace(painted, picture=None))


def _portable(error: Exception) -> Exception:
    """An error that can be sent."""
    if isinstance(error, OutOfMemoryError):
        error.hint += "; fewer --workers need less memory too"
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


# --- in the process that makes the film


class _Worker:
    """A process, and what it does."""

    def __init__(self, selection: ModelSelection, device: str) -> None:
        context = get_context("spawn")
        self.pipe, other = context.Pipe()
        self.task: Task | None = None
        self.process: BaseProcess = context.Process(target=serve, args=(other, selection, device), daemon=True)
        with _signals_held():
            self.process.start()
        other.close()

    def end(self) -> None:
        """End it, whatever it does."""
        self.pipe.close()
        self.process.join(JOIN)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


@contextmanager
def _signals_held() -> Iterator[None]:
    """Signals wait until the end of the block; a process that is started inside begins with them held back."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def paint_in_workers(
    division: Division,
    work: WorkFolder,
    selection: ModelSelection,
    devices: list[str],
    *,
    stop: Stop,
    report: Callable[[str], None],
) -> Events:
    """Paint what is not finished of a film in other processes.

    Args:
        division: The film.
        work: Its folder.
        selection: The networks, which each process loads.
        devices: Of each process.
        stop: When it returns true, each ends at its current frame.
        report: Is told where a process was killed.

    Raises:
        W2CError: As a worker raised it; or one was killed again and again.
    """
    pool = _Pool(division, work, selection, devices, report)
    try:
        while pool.goes_on(stopped=stop()):
            yield from pool.events()
    finally:
        pool.end()


class _Pool:
    """Workers, and what each of them does."""

    def __init__(
        self,
        division: Division,
        work: WorkFolder,
        selection: ModelSelection,
        devices: list[str],
        report: Callable[[str], None],
    ) -> None:
        self._division, self._work, self._selection, self._report = division, work, selection, report
        self._idle = [*reversed(devices)]  # devices without a worker
        self._workers: list[tuple[_Worker, str]] = []
        self._deaths = Counter[tuple[int, int]]()
        self._stopped = False

    def goes_on(self, *, stopped: bool) -> bool:
        """Give tasks to workers that have none, unless the film is stopped; whether any has one."""
        if stopped and not self._stopped:
            self._stopped = True
            for busy in self._busy():
                with suppress(OSError):
                    busy.pipe.send(STOP)
        spare = self._idle or len(self._busy()) < len(self._workers)
        others = {(task.part.segment.number, task.seam) for worker in self._busy() if (task := worker.task)}
        for number, seam in open_tasks(self._division, self._work, others) if spare and not stopped else ():
            worker: _Worker | None = next((one for one, _ in self._workers if one.task is None), None)
            if worker is None and self._idle:
                device = self._idle.pop()
                worker = _Worker(self._selection, device)
                self._workers.append((worker, device))
            if worker is None:
                break
            job = replace(self._division.job, stems=None)
            part = replace(self._division.part(number), job=job)
            worker.task = Task(part, seam, self._work.keep_all)
            with suppress(OSError):  # it is gone, which is noticed later
                worker.pipe.send(worker.task)
        return bool(self._busy())

    def _busy(self) -> list[_Worker]:
        return [worker for worker, _ in self._workers if worker.task]

    def events(self) -> Iterator[Painted]:
        """What workers have painted meanwhile."""
        busy = {worker.pipe: worker for worker in self._busy()}
        first = min(worker.task.part.segment.number for worker in busy.values() if worker.task)
        for pipe in wait([*busy], POLL):
            worker = busy[pipe]  # type: ignore[index]
            try:
                message = worker.pipe.recv()
            except (EOFError, OSError):
                self._bury(worker)
                continue
            if isinstance(message, Ended):
                worker.task = None
                if message.error:
                    raise message.error from TracebackError(f"\n{message.trace}")
                continue
            if message.frame is None:
                self._work.note(message.chunk)
            leads = worker.task and worker.task.part.segment.number == first
            yield message if leads else replace(message, picture=None)

    def _bury(self, worker: _Worker) -> None:
        """A worker was killed: another one does its task, from the last chunk on."""
        task, device = worker.task, next(device for one, device in self._workers if one is worker)
        worker.end()
        self._workers = [one for one in self._workers if one[0] is not worker]
        self._idle.append(device)
        assert task
        if self._stopped:
            return
        number = task.part.segment.number
        state = (number, len(self._work.missing(task.part.chunks)))
        self._deaths[state] += 1
        if self._deaths[state] > RETRIES:
            times = self._deaths[state]
            raise OutputError(f"the process that paints segment {number + 1} was killed {times} times", hint=FEWER)
        self._report(f"note: the process that paints segment {number + 1} was killed; another one goes on with it")

    def end(self) -> None:
        """End all workers."""
        for worker, _ in self._workers:
            worker.pipe.close()
        for worker, _ in self._workers:
            worker.end()
