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


def schedule(name: str, at: int | Sequence[int] | None, last: int, *, first: int = 0) -> list[int]:
    """The steps from `first` to `last` that `at` asks for: every so many, the ones listed, or 128.

    The first one is none of every so many.
    """
    if at is None:
        spaced = np.linspace(first, last, _DEFAULT_OBSERVATIONS + 1)[1:]
        at = np.unique(np.ceil(spaced).astype(int)).tolist()
    if isinstance(at, int | np.integer):
        every = count(name, at)
        return list(range((first // every + 1) * every, last + 1, every)) or [last]
    if not isinstance(at, Iterable) or isinstance(at, str):
        raise ValueError(f"{name} must be steps, or a number of steps between them, got {at!r}")
    chosen = sorted({count(name, item, at_least=0) for item in at})
    if not chosen or chosen[0] < first or chosen[-1] > last:
        raise ValueError(f"{name} must be steps between {first} and {last}, got {list(at)}")
    return chosen


def endpoint_groups(state: Any) -> dict[str, PyTree]:
    """All parts of a state but its step, by the group of a result that holds their last values."""
    others = [name for name in state._fields if name not in ("params", "step")]
    return {"endpoints": state.params} | {name: getattr(state, name) for name in others}


def snapshot_groups(state: Any) -> dict[str, PyTree]:
    """What is like the params of it, by the group that holds it as it was on the way."""
    groups = {"snapshots": state.params}
    if hasattr(state, "momentum_buffer"):
        groups["snapshots_momentum_buffer"] = state.momentum_buffer
    return groups
