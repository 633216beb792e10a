"""Endpoints against a law's score ∇log p, without draws and without the normaliser."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from statsgd.arguments import count, finite_array, instance
from statsgd.comparison.permutation import HypothesisTest, exceedance, sample_of
from statsgd.comparison.two_sample import median_square, squared_distances


def kernel_stein_discrepancy(
    x: Float[Any, "n d"], score: Float[Any, "n d"], key: PRNGKeyArray, bootstraps: int = 999
) -> HypothesisTest:
    """Squared kernel Stein discrepancy of independent points from a law with the given score.

        KSD² = (1/n²) Σ_ij u(x_i, x_j),  E u(x, X) = 0 for X from the law

    with the inverse multiquadric kernel (1 + r²/w²)^(−1/2), w the median distance. The null is the
    wild bootstrap (1/n²) Σ ε_i ε_j u(x_i, x_j) with independent signs ε; its level is right as
    n → ∞, and within a per cent of 5 % from about 100 points on. `score` holds ∇log p at `x`.

    Raises `ValueError` for arrays that do not match.

    Source: Liu, Lee, Jordan (2016), arXiv:1602.03253; Gorham, Mackey (2017), arXiv:1703.01717,
    for the kernel; Chwialkowski, Strathmann, Gretton (2016), arXiv:1602.02964, for the null.

    >>> import jax, numpy as np
    >>> x = np.random.default_rng(0).normal(size=(200, 1))
    >>> score = -x / 4  # of a normal law twice as wide
    >>> round(float(kernel_stein_discrepancy(x, score, jax.random.key(0)).p_value), 4)
    0.001
    """
    count("bootstraps", bootstraps)
    instance("key", key, jax.Array, "a key, as jax.random.key(0)")
    x = sample_of("x", x)
    score = np.asarray(finite_array("score", score, ndim=2), dtype=np.float64)
    if score.shape != x.shape:
        raise ValueError(f"score must have the shape {x.shape} of x, got {score.shape}")
    with jax.enable_x64(True):
        outcome = _compiled(x, score, key, bootstraps)
        return HypothesisTest(float(outcome.statistic), float(outcome.p_value))


def stein_outcome(
    x: Float[Any, "n d"], score: Float[Any, "n d"], key: PRNGKeyArray, bootstraps: int
) -> HypothesisTest:
    """`kernel_stein_discrepancy`, traceable."""
    number = x.shape[0]
    kernel = stein_kernel(x, score)
    signs = 2.0 * jax.random.bernoulli(key, shape=(bootstraps, number)) - 1
    signs = jnp.concatenate([jnp.ones((1, number)), signs])
    values = jnp.sum(signs @ kernel * signs, axis=1) / number**2
    return HypothesisTest(values[0], exceedance(values))


_compiled = jax.jit(stein_outcome, static_argnums=3)


def stein_kernel(
    x: Float[Any, "n d"], score: Float[Any, "n d"], width: Float[Any, ""] | None = None
) -> Float[Any, "n n"]:
    """u(x_i, x_j) = k s_i·s_j + s_i·∇_j k + s_j·∇_i k + tr ∇_i∇_j k, k as described above."""
    squares = squared_distances(x)
    unit = median_square(squares) if width is None else width**2
    base = 1 + squares / unit
    # s_i·(x_i − x_j) for all pairs.
    along = jnp.sum(score * x, axis=1)[:, None] - score @ x.T
    slope = base**-1.5 / unit
    curvature = x.shape[1] * slope - 3 * base**-2.5 * squares / unit**2
    return base**-0.5 * (score @ score.T) + slope * (along + along.T) + curvature
