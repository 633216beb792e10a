"""Contestants take turns; costs are marginal, and ratios are formed within one round."""

import time
from collections.abc import Callable, Mapping

import jax
import numpy as np
import xarray as xr

type Runner = Callable[[int], object]
"""Runs so many steps and returns what must be waited for."""

_SECONDS = 1.0


def race(contestants: Mapping[str, Runner], *, replicas: int, repeats: int) -> xr.Dataset:
    """Cost of one step of one of `replicas` replicas, in ns, for every contestant and repeat.

    The time of a run less that of one a quarter as long, so that compilation and start-up do not
    count. Every contestant runs for as many steps as take it about a second. Where that difference
    is below a tenth of the time, as another program's burst makes it, the cost is NaN: not
    resolved.
    """
    steps = {name: _lasting(runner) for name, runner in contestants.items()}
    for name, runner in contestants.items():  # some compile for each length
        seconds(runner, 4 * steps[name])
    costs = np.empty((len(contestants), repeats))
    for repeat in range(repeats):
        for i, (name, runner) in enumerate(contestants.items()):
            long, short = seconds(runner, 4 * steps[name]), seconds(runner, steps[name])
            marginal = long - short if long - short > long / 10 else np.nan
            costs[i, repeat] = marginal / (3 * steps[name] * replicas) * 1e9
    return table(list(contestants), costs)


def _lasting(runner: Runner) -> int:
    """A number of steps that, four times, takes about a second more than none at all."""
    seconds(runner, 1)  # compiles
    startup, number = seconds(runner, 1), 1
    while (taken := seconds(runner, number) - startup) < _SECONDS / 4:
        number *= 2 if taken > _SECONDS / 40 else 8
    return number


def race_whole(
    contestants: Mapping[str, tuple[Callable[[], object], float]], *, repeats: int
) -> xr.Dataset:
    """Cost of a whole call, start-up included, in ns for each piece of its work."""
    costs = np.empty((len(contestants), repeats))
    for repeat in range(-1, repeats):  # the first round compiles and is written over
        for i, (call, pieces) in enumerate(contestants.values()):
            begin = time.perf_counter()
            call()
            costs[i, repeat] = (time.perf_counter() - begin) / pieces * 1e9
    return table(list(contestants), costs)


def seconds(runner: Runner, number: int) -> float:
    """Wall time of `runner(number)`."""
    begin = time.perf_counter()
    jax.block_until_ready(runner(number))
    return time.perf_counter() - begin


def table(contestants: list[str], costs: np.ndarray) -> xr.Dataset:
    """Costs, and their ratios to the cost of the first contestant in the same round."""
    dims = ("contestant", "repeat")
    return xr.Dataset(
        {"cost": (dims, costs, {"units": "ns"}), "ratio": (dims, costs / costs[0])},
        coords={"contestant": contestants},
    )
