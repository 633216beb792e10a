"""Optimisers that accumulate the gradients of several steps: one update at a time."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from statsgd.dynamics.optimiser import OptaxDynamics
from statsgd.problems import Problem

_MOST = 4096  # steps to one update
_UPDATES = (0, 1, 100_000)  # after which the number of steps is looked at
_SCALES = (1e-3, 1.0, 1e3)
_SINGLE = 1e-5  # rounding of an accumulator in single precision


class PerUpdate(eqx.Module):
    """The transformation that `number` steps of another one are, given the mean gradient of them.

    What was accumulated lives within an update, and is no part of the state.
    """

    transformation: Any
    number: int = eqx.field(static=True)

    def init(self, params: PyTree) -> PyTree:
        """The state between two updates."""
        return _kept(self.transformation.init(params))

    def update(self, gradient: PyTree, state: PyTree, params: PyTree = None) -> tuple[Any, Any]:
        """The last of the steps, which sees all gradients at once."""
        start = self.transformation.init(params)

        def refilled(path: Any, fresh: Any) -> Any:
            if _field(path) == "mini_step":
                return jnp.asarray(self.number - 1, fresh.dtype)
            return fresh if _field(path) == "acc_grads" else None

        before = eqx.combine(jax.tree_util.tree_map_with_path(refilled, start), state)
        total = jax.tree.map(lambda g: self.number * g, gradient)
        updates, after = self.transformation.update(total, before, params)
        return updates, _kept(after)


def per_update(dynamics: OptaxDynamics, problem: Problem) -> tuple[OptaxDynamics, int]:
    """The dynamics whose step is one update, and the number k of steps to it.

    The parameters of `optax.MultiSteps(…, k)` stand still until the k-th step, which sees the mean
    of the k gradients, all taken at the same place. `dynamics` itself and 1 where nothing is
    accumulated. Its noise is still that of one gradient: that of the mean has a k-th of the
    covariance, if noise is independent from step to step.

    Raises `ValueError` where k changes, is above 4096, or steps between updates do more than add
    gradients up.
    """
    optimiser = dynamics.optimiser()
    start = optimiser.init(jax.tree.map(jnp.ones_like, problem.template))
    fields = [_field(path) for path, _ in jax.tree_util.tree_leaves_with_path(start)]
    if "mini_step" not in fields:
        return dynamics, 1
    numbers = {_steps_to_update(dynamics, problem, start, count) for count in _UPDATES}
    if len(numbers) > 1 or fields.count("mini_step") > 1:
        raise ValueError(
            "the optimiser must accumulate the same number of gradients for every update for this "
            f"law, got {sorted(numbers)}"
        )
    number = numbers.pop()
    if number > 1:
        _require_sums(dynamics, problem, start)
    return OptaxDynamics(PerUpdate(optimiser, number), dynamics.noise), number


def accumulates_gradients(dynamics: OptaxDynamics, problem: Problem) -> bool:
    """Whether the optimiser moves at some steps alone."""
    state = jax.eval_shape(dynamics.optimiser().init, problem.template)
    paths = jax.tree_util.tree_leaves_with_path(state)
    return any(_field(path) == "mini_step" for path, _ in paths)


def _steps_to_update(dynamics: OptaxDynamics, problem: Problem, start: PyTree, count: int) -> int:
    """The first number of steps after which none is counted any more."""
    params = jax.tree.map(jnp.ones_like, problem.template)

    def left(done: Any) -> Any:
        here = _with(_with(start, "mini_step", done), "gradient_step", count)
        _, after = dynamics.optimiser().update(params, here, params)
        return _found(after, "mini_step")

    over = np.flatnonzero(np.asarray(jax.jit(jax.vmap(left))(jnp.arange(_MOST))) == 0)
    if not len(over):
        raise ValueError(f"the optimiser must update within {_MOST} steps, got none")
    return int(over[0]) + 1


def _require_sums(dynamics: OptaxDynamics, problem: Problem, start: PyTree) -> None:
    """Raise `ValueError` unless a step between updates adds its gradient up and does no more."""
    params = jax.tree.map(jnp.ones_like, problem.template)
    added = []
    for scale in _SCALES:
        gradient = jax.tree.map(lambda leaf, by=scale: by * leaf, params)
        updates, after = dynamics.optimiser().update(gradient, start, params)
        moved = [bool(np.any(np.asarray(leaf) != 0)) for leaf in jax.tree.leaves(updates)]
        pairs = zip(jax.tree.leaves(_kept(start)), jax.tree.leaves(_kept(after)), strict=True)
        moved += [not np.array_equal(one, other) for one, other in pairs]
        sums = [np.ravel(leaf) / scale for leaf in jax.tree.leaves(_found(after, "acc_grads"))]
        added.append(np.concatenate(sums))
        if any(moved) or not np.allclose(added[-1], added[0], rtol=_SINGLE):
            raise ValueError(
                "the optimiser must do no more than add gradients up between its updates for this "
                "law: momentum, clipping and the rest belong inside optax.MultiSteps"
            )


def _kept(state: PyTree) -> PyTree:
    """A state without what is accumulated in it."""

    def keep(path: Any, leaf: Any) -> Any:
        return None if _field(path) in ("mini_step", "acc_grads") else leaf

    return jax.tree_util.tree_map_with_path(keep, state)


def _with(state: PyTree, field: str, value: Any) -> PyTree:
    def put(path: Any, leaf: Any) -> Any:
        return jnp.asarray(value, leaf.dtype) if _field(path) == field else leaf

    return jax.tree_util.tree_map_with_path(put, state)


def _found(state: PyTree, field: str) -> Any:
    """The leaf of this name, or the leaves where it is a tree."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    found = [leaf for path, leaf in leaves if _field(path) == field]
    return found[0] if field == "mini_step" else found


def _field(path: Any) -> str:
    """The outermost of the fields by which accumulation is known on the way to a leaf."""
    names = [getattr(key, "name", None) for key in path]
    known = ("mini_step", "gradient_step", "acc_grads")
    return next((name for name in names if name in known), "")
