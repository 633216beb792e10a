"""Workers of a `dask.distributed` cluster, on this machine or many."""

import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from statsgd.sweeps.records import Failure
from statsgd.sweeps.work import Task, TaskResult, Work
from statsgd.sweeps.workers import prepare

_TIMEOUT = "10s"  # for reaching a scheduler


class Distributed:
    """The workers of a `dask.distributed` scheduler, given by its address or a `Client`.

    A worker has one pool for JAX with as many threads as dask gave the worker, which
    `LocalCluster(threads_per_worker=1)` makes one, and one GPU where there are any. Results come
    back to the caller, who alone writes the store: workers need no shared file system.

    dask itself starts a task again whose worker died, until more than
    `distributed.scheduler.allowed-failures` of them have; only that counts as one of the
    `retries` of a sweep.
    """

    def __init__(self, client: Any):
        self.client = client

    def outcomes(self, work: Work, tasks: Sequence[Task], retries: int) -> Iterator[TaskResult]:
        """Results as they come.

        Raises `ConnectionError` if the scheduler cannot be reached, or is lost on the way.
        """
        try:
            from distributed import Client
        except ModuleNotFoundError:
            raise ModuleNotFoundError(
                "executor needs the extra 'distributed' (pip install 'statsgd[distributed]')"
            ) from None
        if not isinstance(self.client, str):
            yield from _outcomes(self.client, work, tasks, retries)
            return
        try:
            client = Client(self.client, timeout=_TIMEOUT, set_as_default=False)
        except (OSError, ValueError) as error:
            raise ConnectionError(
                f"executor must be the address of a running dask scheduler, got "
                f"{self.client!r}: {error}"
            ) from None
        with client:
            yield from _outcomes(client, work, tasks, retries)


def _outcomes(client: Any, work: Work, tasks: Sequence[Task], retries: int) -> Iterator[TaskResult]:
    from distributed import CancelledError, KilledWorker, as_completed
    from distributed.comm import CommClosedError

    address = client.scheduler.address
    name = f"sweep-{uuid.uuid4().hex}"

    # Sent once to each worker. As a task it is computed again where its holder died.
    carried = client.submit(_carry, work, key=f"{name}-run", pure=False)

    def start(number: int, attempt: int) -> Any:
        key = f"{name}-{number}-{attempt}"
        return client.submit(_perform, carried, tasks[number].cells, key=key, pure=False)

    attempts: dict[Any, tuple[int, int]] = {}
    try:
        # Tasks go to workers that hold what they need: one alone would leave the others idle.
        client.replicate([carried])
        attempts |= {start(number, 0): (number, 0) for number in range(len(tasks))}
        stream = as_completed(list(attempts), loop=client.loop)
        for future in stream:
            number, attempt = attempts.pop(future)
            try:
                yield TaskResult(tasks[number], future.result())
            except KilledWorker as error:
                if attempt < retries:
                    again = start(number, attempt + 1)
                    attempts[again] = number, attempt + 1
                    stream.add(again)
                else:
                    lost = Failure(f"worker died: {error}")
                    yield TaskResult(tasks[number], [lost] * len(tasks[number].cells))
    except (CancelledError, CommClosedError):
        raise ConnectionError(
            f"executor lost its dask scheduler, {address}; the same call goes on "
            "from what the store holds"
        ) from None
    finally:
        if client.status == "running":
            client.cancel([carried, *attempts])


def _carry(work: Work) -> Work:
    return work


def _perform(work: Work, cells: Sequence[Any]) -> list:
    from distributed import get_worker

    prepare(work, threads=get_worker().state.nthreads)
    return work(cells)
