"""Worker processes on this machine, started anew and never forked."""

import contextlib
import dataclasses
import multiprocessing
import os
import pickle
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

from statsgd.arguments import count
from statsgd.sweeps.records import Failure
from statsgd.sweeps.work import Task, TaskResult, Work
from statsgd.sweeps.workers import gpus, prepare


@dataclasses.dataclass(frozen=True)
class Processes:
    """Worker processes on this machine, each with its own JAX.

    A worker has one pool of `threads` threads for JAX on the CPU, by default an equal share of the
    cores, and one GPU where there are any. `run` must be importable: a function of a module, or
    a `functools.partial` of one. A script that sweeps does so under
    `if __name__ == "__main__":`, since workers import it.

    Raises `ValueError` for fewer than one worker or thread and for more workers than GPUs.

    >>> Processes(workers=2, threads=1)
    Processes(workers=2, threads=1)
    """

    workers: int | None = None
    """How many; None for one a GPU, or else one a core."""
    threads: int | None = None
    """Threads of JAX in each worker."""

    def __post_init__(self) -> None:
        for name in ("workers", "threads"):
            if getattr(self, name) is not None:
                count(name, getattr(self, name))

    def outcomes(self, work: Work, tasks: Sequence[Task], retries: int) -> Iterator[TaskResult]:
        """Results as they come. A worker that dies is replaced, and its task started again."""
        number = self._number()
        threads = self.threads or max(1, _cores() // number)
        try:
            payload = pickle.dumps(work)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise ValueError(
                f"run must be importable for executor 'processes', got {work.run!r}: {error}"
            ) from None
        waiting = deque(_Attempt(task, retries) for task in tasks)
        busy: dict[Connection, tuple[_Worker, _Attempt]] = {}
        idle: list[_Worker] = []
        try:
            while waiting or busy:
                while waiting and len(busy) < number:
                    worker = idle.pop() if idle else _Worker.start(payload, threads)
                    busy[worker.pipe] = worker, waiting.popleft()
                    worker.ask(busy[worker.pipe][1].task)
                ready = wait(list(busy))
                for pipe in [pipe for pipe in busy if pipe in ready]:
                    worker, attempt = busy.pop(pipe)
                    answer = worker.answer()
                    if answer is not None:
                        idle.append(worker)
                        yield TaskResult(attempt.task, answer)
                    elif attempt.retries:
                        waiting.append(_Attempt(attempt.task, attempt.retries - 1))
                    else:
                        lost = Failure(
                            f"worker died {retries + 1} times, the last with exit code "
                            f"{worker.process.exitcode} (negative for a signal)"
                        )
                        yield TaskResult(attempt.task, [lost] * len(attempt.task.cells))
        finally:
            for worker, _ in busy.values():
                worker.process.terminate()
            for worker in [*idle, *(one for one, _ in busy.values())]:
                worker.stop()

    def _number(self) -> int:
        available = gpus()
        if available and self.workers is not None and self.workers > len(available):
            raise ValueError(
                f"workers must be at most the number of GPUs, {len(available)}, got {self.workers}"
            )
        return self.workers or len(available) or _cores()


_PATIENCE = 10.0  # seconds for a worker to leave


class _Attempt(NamedTuple):
    task: Task
    retries: int


class _Worker(NamedTuple):
    process: Any
    pipe: Connection

    @classmethod
    def start(cls, payload: bytes, threads: int) -> "_Worker":
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, payload, threads))
        process.start()
        theirs.close()  # so that its end closes when the worker dies
        return cls(process, ours)

    def ask(self, task: Task) -> None:
        with contextlib.suppress(BrokenPipeError):  # it died at once, as its silence will say
            self.pipe.send(task.cells)

    def answer(self) -> list | None:
        """What it sent, or None if it died."""
        try:
            return self.pipe.recv()
        except (EOFError, ConnectionError):
            self.process.join()
            self.pipe.close()
            return None

    def stop(self) -> None:
        # A closed pipe lets an idle worker leave by itself, with all that it holds.
        self.pipe.close()
        self.process.join(_PATIENCE)
        self.process.terminate()
        self.process.join()


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _serve(pipe: Connection, payload: bytes, threads: int) -> None:
    """The life of a worker: until the pipe closes, cells in and records out."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the sweep, which stops us
    work: Work = pickle.loads(payload)
    prepare(work, threads)
    try:
        while True:
            pipe.send(work(pipe.recv()))
    except (EOFError, ConnectionError):
        return  # the sweep is gone
