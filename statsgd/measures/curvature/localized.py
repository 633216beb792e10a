"""Densities around one point, in a box or over a part of the parameters, for chains to sample."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from statsgd.arguments import is_traced, told
from statsgd.kernels.stochastic_potential import StochasticPotential
from statsgd.problems.parameters import leaf_names, listed_by_name
from statsgd.problems.start import Start


class Localized(StochasticPotential):
    """U = nβ L(w) + (γ/2)|w − w*|²; from a minibatch, L is the mean over it.

    Chains move `begin`, of which `params` makes w: what is fixed stays at w*, and a box is
    continued by mirrors. A Langevin chain in the mirrored potential is, seen in the box, one that
    its faces reflect, since the noise is symmetric.
    """

    problem: Any
    noise: Any
    """`Minibatch`, or None for exact gradients."""
    centre: PyTree
    inverse_temperature: Float[Any, ""]
    localization: Float[Any, ""]
    moving: PyTree
    """For each leaf True, False, or a boolean array in its shape."""
    box_radius: Float[Any, ""] | None

    def __call__(self, position: PyTree) -> Float[Any, ""]:
        """U from all of the loss."""
        w = self.params(position)
        return self._total(self.problem.loss(w), w)

    def batch(self, order: PRNGKeyArray, step: Any) -> PyTree:
        """The examples of step `step`."""
        return self.noise.batch(order, step, self.problem)

    def on_batch(self, position: PyTree, batch: PyTree) -> Float[Any, ""]:
        """The estimate of U from `batch`."""
        w = self.params(position)
        return self._total(self.problem.batch_loss(w, batch), w)

    @property
    def batches(self) -> int:
        """Minibatches M = N/S in an epoch."""
        return self.problem.num_examples // self.noise.batch_size

    @property
    def begin(self) -> PyTree:
        """Where chains start: w*, with None for leaves that do not move."""
        return jax.tree.map(
            lambda moves, leaf: None if moves is False else leaf, self.moving, self.centre
        )

    def params(self, position: PyTree) -> PyTree:
        """w of a chain that is at `position`, a pytree like `begin`."""

        def leaf(moves: Any, centre: Any, at: Any) -> Any:
            if moves is False:
                return centre
            if self.box_radius is not None:
                at = centre + mirrored(at - centre, self.box_radius)
            return at if moves is True else jnp.where(moves, at, centre)

        return jax.tree.map(leaf, self.moving, self.centre, position)

    def _total(self, loss: Float[Any, ""], w: PyTree) -> Float[Any, ""]:
        away = self.problem.flatten(w) - self.problem.flatten(self.centre)
        return self.inverse_temperature * loss + self.localization * (away @ away) / 2


def mirrored(x: Float[Any, "..."], radius: Any) -> Float[Array, "..."]:
    """x folded into [−r, r] by mirrors at both ends; x itself inside, to the last bit.

    >>> mirrored(np.array([0.5, 1.25, 3.5, -1.25]), 1.0).tolist()
    [0.5, 0.75, -0.5, -0.75]
    """
    r = jnp.asarray(radius, jnp.result_type(x))
    return jnp.where(jnp.abs(x) <= r, x, r - jnp.abs(jnp.mod(x + r, 4 * r) - 2 * r))


def moving_parts(problem: Any, params: PyTree, restricted_to: Any) -> PyTree:
    """Which of `params` move: for each leaf True, False, or a boolean array in its shape.

    **Arguments:** `restricted_to`, None for all; a name or several, as in `Problem.names`; or truth
    values, or arrays of them, in the structure of `params` or its outer part.

    Raises `ValueError` for unknown names, other structures and shapes, and where nothing moves.

    >>> from statsgd.problems import landscape
    >>> problem = landscape(lambda p: p["a"] ** 2 + p["b"] ** 2, {"a": 1.0, "b": 2.0})
    >>> moving_parts(problem, {"a": 1.0, "b": 2.0}, "b")
    {'a': False, 'b': True}
    """
    names, (leaves, structure) = leaf_names(params), jax.tree.flatten(params)
    listed = [restricted_to] if isinstance(restricted_to, str) else restricted_to
    if restricted_to is None:
        return jax.tree.unflatten(structure, [True] * len(leaves))
    marks: list[Any] | None = listed_by_name("restricted_to", listed, names)
    if marks is None:
        spread = _spread(problem, params, restricted_to)
        marks = [_mark(*one) for one in zip(names, leaves, spread, strict=True)]
    if not any(mark is not False for mark in marks):
        raise ValueError(f"restricted_to must choose something of {names}, got nothing of them")
    return jax.tree.unflatten(structure, marks)


def _spread(problem: Any, params: PyTree, marks: PyTree) -> list[Any]:
    """The mark of each leaf of `params`, of marks in their structure or its outer part."""
    start = getattr(problem, "start", None)
    try:
        if isinstance(start, Start):
            marks = start.select(marks)  # of a whole model
    except ValueError:
        pass
    spread: list[Any] = []
    try:
        jax.tree.map(
            lambda mark, part: spread.extend([mark] * len(jax.tree.leaves(part))), marks, params
        )
    except (ValueError, TypeError) as error:
        raise ValueError(
            "restricted_to must be names, or truth values in the structure of params, got "
            f"{told(marks)}: {error}"
        ) from None
    return spread


def _mark(name: str, leaf: Any, mark: Any) -> Any:
    allowed = f"a truth value or an array of them of shape {np.shape(leaf)}"
    known = isinstance(mark, bool | np.bool_ | np.ndarray | jax.Array)
    if not known or jnp.result_type(mark) != np.bool_:
        raise ValueError(f"restricted_to must be {allowed} for {name!r}, got {told(mark)}")
    if np.shape(mark) not in ((), np.shape(leaf)):
        raise ValueError(f"restricted_to must be {allowed} for {name!r}, got {np.shape(mark)}")
    if is_traced(mark):
        return jnp.broadcast_to(mark, np.shape(leaf))
    # Only what moves in part needs an array; leaves that stay have no place in a chain.
    return bool(np.all(mark)) if np.all(mark) or not np.any(mark) else np.asarray(mark)
