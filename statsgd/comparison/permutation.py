"""The permutation null: under equal laws every relabelling of the pooled sample is as likely."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, PRNGKeyArray

from statsgd.arguments import count, finite_array, instance

#: From the pooled sample `(N, d)`, memberships `(P, N)` of the first sample, and a key: one number
#: for each membership, larger where the two parts differ more.
type Statistic = Callable[[Any, Any, Any], Any]

# Statistics that are equal in exact arithmetic may differ by rounding.
_ROUNDING = 1e-9


class HypothesisTest(NamedTuple):
    """A test's statistic, which grows with the difference, and its p-value."""

    statistic: Any
    p_value: Any


def relabellings(
    key: PRNGKeyArray, first: int, second: int, permutations: int
) -> Bool[Any, "relabellings points"]:
    """Which points count as the first sample: as observed in row 0, at random in the others."""
    total = first + second
    order = jnp.argsort(jax.random.uniform(key, (permutations, total)), axis=1)
    observed = jnp.arange(total) < first
    return jnp.concatenate([observed[None], order < first])


def contrasts(members: Bool[Any, "relabellings points"]) -> Float[Any, "relabellings points"]:
    """Weights 1/n on the first sample and −1/m on the second: their sum of f is a difference."""
    size = members.sum(axis=1, keepdims=True)
    return jnp.where(members, 1 / size, -1 / (members.shape[1] - size))


def exceedance(statistics: Float[Any, " relabellings"]) -> Float[Any, ""]:
    """(1 + #{null ≥ observed})/(1 + #null), observed first: at most α with probability ≤ α.

    It takes the values 1/(B+1), …, 1, so that a level α is kept exactly if α(B+1) is whole.
    """
    observed = statistics[0]
    reached = statistics[1:] >= observed - _ROUNDING * jnp.abs(observed)
    return (1 + jnp.sum(reached)) / statistics.shape[0]


def permutation_outcome(
    statistic: Statistic,
    x: Float[Any, "n d"],
    y: Float[Any, "m d"],
    key: PRNGKeyArray,
    permutations: int,
) -> HypothesisTest:
    """`statistic` with its permutation p-value; traceable, so that repeats can be vectorised."""
    of_labels, of_statistic = jax.random.split(key)
    members = relabellings(of_labels, x.shape[0], y.shape[0], permutations)
    values = statistic(jnp.concatenate([x, y]), members, of_statistic)
    return HypothesisTest(values[0], exceedance(values))


def run_in_double(
    statistic: Statistic, x: Any, y: Any, key: PRNGKeyArray, permutations: int
) -> HypothesisTest:
    """`permutation_outcome` of NumPy or JAX samples in float64, as numbers.

    Raises `ValueError` for samples that are not `(n, d)` arrays of at least two finite points with
    the same d, and for no permutations.
    """
    count("permutations", permutations)
    instance("key", key, jax.Array, "a key, as jax.random.key(0)")
    x, y = sample_of("x", x), sample_of("y", y)
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"x and y must have the same number of columns, got {x.shape}, {y.shape}")
    with jax.enable_x64(True):
        outcome = _compiled(statistic, x, y, key, permutations)
        return HypothesisTest(float(outcome.statistic), float(outcome.p_value))


_compiled = jax.jit(permutation_outcome, static_argnums=(0, 4))


def sample_of(name: str, points: Any) -> Float[Any, "n d"]:
    """`points` as a float64 `(n, d)` array of at least two points."""
    array = np.asarray(finite_array(name, points, ndim=2), dtype=np.float64)
    if len(array) < 2 or array.shape[1] == 0:
        raise ValueError(f"{name} must hold at least 2 points, got shape {array.shape}")
    return array
