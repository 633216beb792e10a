"""What an ensemble records, and after which steps."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from statsgd.arguments import count
from statsgd.problems import Problem

type Observable = Callable[[PyTree], Any]

_DEFAULT_OBSERVATIONS = 128


def check_observables(problem: Problem, observe: Any) -> dict[str, Observable]:
    """`observe` as a dict of functions that accept this problem's params."""
    observables = dict(observe or {})
    for name, function in observables.items():
        if not (isinstance(name, str) and callable(function)):
            raise ValueError(f"observe must map names to functions of params, got {name!r}")
        jax.eval_shape(function, problem.template)
    return observables


def schedule(name: str, at: int | Sequence[int] | None, last: int) -> list[int]:
    """The steps, up to `last`, that `at` asks for: every so many, the ones listed, or 128."""
    if at is None:
        spaced = np.linspace(0, last, _DEFAULT_OBSERVATIONS + 1)[1:]
        at = np.unique(np.ceil(spaced).astype(int)).tolist()
    if isinstance(at, int | np.integer):
        every = count(name, at)
        return list(range(every, last + 1, every)) or [last]
    if not isinstance(at, Iterable) or isinstance(at, str):
        raise ValueError(f"{name} must be steps, or a number of steps between them, got {at!r}")
    chosen = sorted({count(name, item, at_least=0) for item in at})
    if not chosen or chosen[-1] > last:
        raise ValueError(f"{name} must be steps between 0 and {last}, got {list(at)}")
    return chosen


def endpoint_groups(state: Any) -> dict[str, PyTree]:
    """The parts of a state that results hold, by the group that holds their last values."""
    groups = {"endpoints": state.params}
    if hasattr(state, "momentum_buffer"):
        groups["momentum_buffer"] = state.momentum_buffer
    return groups


def snapshot_groups(state: Any) -> dict[str, PyTree]:
    """The same parts, by the group that holds them as they were on the way."""
    names = {"endpoints": "snapshots"}
    parts = endpoint_groups(state)
    return {names.get(group, f"snapshots_{group}"): part for group, part in parts.items()}
