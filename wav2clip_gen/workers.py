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
from collections.abc import Callable, Iterator, Sequence
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
from wav2clip_gen.painting import Division, Events, Painted, Stop, threads_for
from wav2clip_gen.tasks import POLL, RETRIES, Places, Task, open_tasks
from wav2clip_gen.units import parse_bytes
from wav2clip_gen.video.chunks import WorkFolder

if TYPE_CHECKING:
    import torch

    from wav2clip_gen.models.registry import Models, ModelSelection

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
            _compute_with(task.threads)
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

    _compute_with(1)
    return load_models(selection, device=torch.device(device))


def _compute_with(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)


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
        context, self.device = get_context("spawn"), device
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


class Workers(Places):
    """Processes, one for each of some devices; each is started when there is something to do for it."""

    def __init__(self, selection: ModelSelection, devices: list[str]) -> None:
        """`selection`: the networks, which each process loads."""
        super().__init__(len(devices))
        self._selection = selection
        self._devices = [*reversed(devices)]  # without a process
        self._idle = list[_Worker]()

    def begin(self, task: Task) -> _Worker:
        """Give a task to a process, after its place was taken."""
        with self._lock:
            worker = self._idle.pop() if self._idle else None
            device = "" if worker else self._devices.pop()
        worker = worker or _Worker(self._selection, device)
        worker.task = task
        with suppress(OSError):  # it is gone, which is noticed later
            worker.pipe.send(task)
        return worker

    def release(self, worker: _Worker, *, dead: bool = False) -> None:
        """A process has ended its task; `dead`: end the process too, whatever it does."""
        assert worker.task
        if dead:
            worker.end()
        with self._lock:
            if dead:
                self._devices.append(worker.device)
            else:
                self._idle.append(worker)
        self.give_back(worker.task.threads)
        worker.task = None

    def end(self) -> None:
        """End all processes."""
        end_workers(self._idle)


def end_workers(workers: Sequence[_Worker]) -> None:
    """End processes at the same time."""
    for worker in workers:
        worker.pipe.close()
    for worker in workers:
        worker.end()


def paint_in_workers(
    division: Division, work: WorkFolder, workers: Workers, *, stop: Stop, report: Callable[[str], None]
) -> Events:
    """Paint what is not finished of a film in other processes.

    Args:
        division: The film.
        work: Its folder.
        workers: The processes; other films may share them.
        stop: When it returns true, each ends at its current frame.
        report: Is told where a process was killed.

    Raises:
        W2CError: As a worker raised it; or one was killed again and again.
    """
    film = _Film(division, work, workers, report)
    with workers.shared_by(division):
        try:
            while film.goes_on(stopped=stop()):
                yield from film.events()
        finally:
            film.end()


class _Film:
    """A film, and the workers that paint it."""

    def __init__(self, division: Division, work: WorkFolder, workers: Workers, report: Callable[[str], None]) -> None:
        self._division, self._work, self._workers, self._report = division, work, workers, report
        self._busy = list[_Worker]()
        self._threads = threads_for(len(division.segments))
        self._deaths = Counter[tuple[int, int]]()
        self._stopped = False

    def goes_on(self, *, stopped: bool) -> bool:
        """Give tasks to workers that have none, unless the film is stopped; whether anything is done or left to do."""
        if stopped and not self._stopped:
            self._stopped = True
            for busy in self._busy:
                with suppress(OSError):
                    busy.pipe.send(STOP)
        if stopped:
            return bool(self._busy)
        others = {(task.part.segment.number, task.seam) for worker in self._busy if (task := worker.task)}
        for number, seam in open_tasks(self._division, self._work, others):
            if not self._workers.take(self._division, self._threads):
                return True
            part = replace(self._division.part(number), job=replace(self._division.job, stems=None))
            self._busy.append(self._workers.begin(Task(part, seam, self._work.keep_all, self._threads)))
        self._workers.rest(self._division)
        return bool(self._busy)

    def events(self) -> Iterator[Painted]:
        """What workers have painted meanwhile."""
        busy = {worker.pipe: worker for worker in self._busy}
        if not busy:
            time.sleep(POLL)
            return
        first = min(worker.task.part.segment.number for worker in self._busy if worker.task)
        for pipe in wait([*busy], POLL):
            worker = busy[pipe]  # type: ignore[index]
            try:
                message = worker.pipe.recv()
            except (EOFError, OSError):
                self._bury(worker)
                continue
            if isinstance(message, Ended):
                self._busy.remove(worker)
                self._workers.release(worker, dead=self._stopped)
                if message.error:
                    raise message.error from TracebackError(f"\n{message.trace}")
                continue
            if message.frame is None:
                self._work.note(message.chunk)
            leads = worker.task and worker.task.part.segment.number == first
            yield message if leads else replace(message, picture=None)

    def _bury(self, worker: _Worker) -> None:
        """A worker was killed: another one does its task, from the last chunk on."""
        task = worker.task
        assert task
        self._busy.remove(worker)
        self._workers.release(worker, dead=True)
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
        """End the workers that still paint the film."""
        end_workers(self._busy)
        for worker in self._busy:
            self._workers.release(worker, dead=True)
