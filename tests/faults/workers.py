"""Workers of a sweep that are killed: no cell is lost, none is there twice, and no bit differs."""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import statsgd
from tests.faults.tally import Tally, wrong
from tests.faults.victims import AXES, cell_result

_SWEEP = AXES | {"repeat": list(range(4))}
_PAUSE = 0.1  # seconds of a cell


def slow_result(cell: Any) -> Any:
    time.sleep(_PAUSE)
    return cell_result(cell)


def workers(folder: Path, trials: int, seed: int) -> Tally:
    """Kill `trials` workers, half of them of dask and half of `Processes`, at random moments."""
    clock, total, number = np.random.default_rng(seed), Tally(), 0
    expected = statsgd.sweep(cell_result, _SWEEP, store=folder / "alone", seed=3, progress=False)
    expected = expected["results"].load()
    for share, executor in ((trials - trials // 2, _dask), (trials // 2, _processes)):
        done = 0
        while done < share:
            with executor() as (choice, pids), _killing(pids, share - done, clock) as deaths:
                tree = statsgd.sweep(
                    slow_result,
                    _SWEEP,
                    store=folder / f"sweep {number}",
                    seed=3,
                    executor=choice,
                    retries=100,
                    progress=False,
                )
            number += 1
            if not deaths:
                return total + wrong("nothing was there to be killed")
            done += len(deaths)
            right = tree["results"].load().identical(expected) and bool(tree["cells"].done.all())
            total += (
                Tally(len(deaths), right=len(deaths))
                if right
                else Tally(len(deaths), wrong=(f"{choice!r}: other results",))
            )
    return total


@contextlib.contextmanager
def _dask() -> Iterator[tuple[Any, Callable[[], list[int]]]]:
    import dask
    import distributed

    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 100}),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        yield client, lambda: [w.process.pid for w in cluster.workers.values() if w.process]


@contextlib.contextmanager
def _processes() -> Iterator[tuple[Any, Callable[[], list[int]]]]:
    yield (
        statsgd.sweeps.Processes(workers=2),
        lambda: [child.pid or 0 for child in multiprocessing.active_children()],
    )


@contextlib.contextmanager
def _killing(pids: Callable[[], list[int]], most: int, clock: Any) -> Iterator[list[int]]:
    """Kill one of `pids()` now and then, `most` of them; yields those that were."""
    deaths: list[int] = []
    over = threading.Event()

    def kill() -> None:
        while len(deaths) < most and not over.wait(clock.uniform(0.5, 3.0)):
            alive = [pid for pid in pids() if pid and pid not in deaths]
            if alive:
                deaths.append(int(clock.choice(alive)))
                with contextlib.suppress(ProcessLookupError):
                    os.kill(deaths[-1], signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield deaths
    finally:
        over.set()
        thread.join()
