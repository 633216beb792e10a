"""Measures of a square loss from its residuals, at one point or over an ensemble."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from statsgd.arguments import count, is_traced, kinds_checked
from statsgd.dynamics.noise.minibatch import all_examples
from statsgd.laws.minimum.second_moments import feedback_noise
from statsgd.measures.curvature.operators import complete
from statsgd.measures.noise.alignment import LossScaledAlignment
from statsgd.measures.noise.mean_square import repeat_factor
from statsgd.precision import in_double_precision
from statsgd.problems import EmpiricalRisk
from statsgd.problems.parameters import floating

type Residual = Callable[[PyTree, PyTree], Float[Any, ""]]

_ROUNDS, _TOLERANCE = 10_000, 1e-13
_RESOLVED = 1e-10  # last relative change below which a growth rate counts as found
_RANK_TOLERANCE = 1e-10


@kinds_checked
def square_loss_alignment(
    problem: EmpiricalRisk, params: PyTree, residual: Residual
) -> LossScaledAlignment:
    """`loss_scaled_alignment` at `params` of the loss L = Σe²/(2N), for any model and any d.

    **Arguments:** `residual(params, example)`, e = f − y, so that ∇e = ∇f. The numbers come from
    the N × N matrix of products of the output gradients, not from d × d matrices; memory N × d.

    Raises `ValueError` where the loss is zero (traced: not finite).

    Source: Wu, Wang, Su (2022), arXiv:2207.02628.

    Numbers are float64.

    >>> import numpy as np
    >>> from statsgd.problems import linear_regression
    >>> problem = linear_regression(np.eye(2), np.array([1.0, 1.0]))
    >>> found = square_loss_alignment(problem, np.zeros(2), lambda p, one: one[0] @ p - one[1])
    >>> round(float(found.factor), 4)
    0.5
    """

    found, loss = in_double_precision(
        _alignment, problem, floating(problem.parameters(params)), residual
    )
    if not is_traced(loss) and loss == 0:
        raise ValueError("loss is zero: alignment factor undefined at an exact interpolating point")
    return found


def _alignment(
    problem: EmpiricalRisk, params: PyTree, residual: Residual
) -> tuple[LossScaledAlignment, Float[Array, ""]]:
    """The alignment, and the loss."""
    e, a = residuals_and_gradients(problem, params, residual)
    number, loss = len(e), jnp.mean(e**2) / 2
    products = a @ a.T / number
    # b_i = e_i a_i − ∇L: its products with the a_j, and among themselves.
    mixed = e[:, None] * products
    mixed = mixed - jnp.mean(mixed, axis=0)
    noisy = mixed * e
    noisy = noisy - jnp.mean(noisy, axis=1, keepdims=True)
    product = jnp.sum(mixed**2)
    size, strength = jnp.linalg.norm(products), jnp.linalg.norm(noisy)
    found = LossScaledAlignment(
        product / (2 * loss * size**2),
        product / (strength * size),
        strength / (2 * loss * size),
    )
    return found, loss


class SquareLossStability(NamedTuple):
    """Up to which learning rate SGD is stable in mean square, if the point interpolates."""

    threshold: Any
    """The exact threshold of `mean_square_threshold`."""
    isotropic: Any
    """Upper bounds of it, as in `StabilityBounds`."""
    trace: Any
    full_batch: Any
    largest_residual: Any
    """max |e|: the threshold holds where this is negligible."""


@kinds_checked
def square_loss_stability(
    problem: EmpiricalRisk,
    params: PyTree,
    residual: Residual,
    batch_size: int,
    sampling: str = "with_replacement",
) -> SquareLossStability:
    """`mean_square_threshold` and cheap bounds at `params`, from the model's residuals.

    **Arguments:** `residual` as in `square_loss_alignment`; `batch_size` S and `sampling` as in
    `mean_square_threshold`. Memory N × d and, with r = min(N, d), N r.

    Raises `ValueError` as `mean_square_threshold`; where all gradients vanish the numbers are not
    finite, and the exact threshold is NaN where its power iteration has not settled.

    Source: Wu, Wang, Su (2022), arXiv:2207.02628; the exact threshold is derived.

    Numbers are float64.

    >>> import numpy as np
    >>> from statsgd.problems import linear_regression
    >>> problem = linear_regression(np.ones((2, 1)), np.array([1.0, 3.0]))
    >>> found = square_loss_stability(problem, np.zeros(1), lambda p, one: one[0] @ p - one[1], 1)
    >>> round(float(found.threshold), 4)
    2.0
    """
    b = repeat_factor(problem.num_examples, count("batch_size", batch_size), sampling)

    return in_double_precision(_bounds, problem, floating(problem.parameters(params)), residual, b)


def _bounds(
    problem: EmpiricalRisk, params: PyTree, residual: Residual, b: Any
) -> SquareLossStability:
    e, gradients = residuals_and_gradients(problem, params, residual)
    left, singular, _ = jnp.linalg.svd(gradients, full_matrices=False)
    singular = jnp.where(singular > _RANK_TOLERANCE * singular[0], singular, 0.0)
    a, h = left * singular, singular**2 / len(e)
    # Directions without curvature take no part.
    total = jnp.where((h[:, None] > 0) & (h > 0), h[:, None] + h, jnp.inf)

    def advance(carry: tuple[Any, Any, Any, Any]) -> tuple[Any, Any, Any, Any]:
        p, size, _, rounds = carry
        x = 2 * (h[:, None] * p * h + feedback_noise(a, h, b, p)) / total
        grown = jnp.linalg.norm(x)
        return x / grown, grown, size, rounds + 1

    def going(carry: tuple[Any, Any, Any, Any]) -> Any:
        _, size, before, rounds = carry
        return (jnp.abs(size - before) > _TOLERANCE * size) & (rounds < _ROUNDS)

    start = (jnp.eye(len(h), dtype=h.dtype), jnp.ones(()), jnp.zeros(()), 0)
    _, size, before, _ = jax.lax.while_loop(going, advance, advance(start))
    size = jnp.where(jnp.abs(size - before) <= _RESOLVED * size, size, jnp.nan)
    fourth = jnp.mean(jnp.sum(a**2, axis=1) ** 2)
    return SquareLossStability(
        2 / size,
        2 * jnp.sum(h) / ((1 - b) * jnp.sum(h**2) + b * fourth),
        2 / (b * jnp.sum(h)),
        2 / jnp.max(h),
        jnp.max(jnp.abs(e)),
    )


def residuals_and_gradients(
    problem: EmpiricalRisk, params: PyTree, residual: Residual
) -> tuple[Float[Array, " N"], Float[Array, "N d"]]:
    """e of every example and its gradient."""
    flat = problem.flatten(params)

    def one(example: PyTree) -> tuple[Any, Any]:
        return jax.value_and_grad(
            lambda v: residual(complete(problem, problem.unflatten(v)), example)
        )(flat)

    return jax.vmap(one)(all_examples(problem))
