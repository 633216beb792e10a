"""Expected sharpness: by how much the loss rises around a point."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float, PRNGKeyArray, PyTree

from statsgd.arguments import count, is_traced, kinds_checked, positive
from statsgd.estimate import Estimate, sample_mean
from statsgd.measures.curvature.probes import chunked_map, random_key
from statsgd.precision import in_double_precision
from statsgd.problems import Problem
from statsgd.problems.parameters import floating


@kinds_checked
def expected_sharpness(
    problem: Problem,
    params: PyTree,
    radius: float,
    *,
    draws: int = 1000,
    seed: Any = 0,
    absolute: bool = False,
) -> Estimate:
    """E[L(θ+ν) − L(θ)] (loss) for ν ~ N(0, ε²I), ε = `radius` (params).

    (ε²/2) Tr H + O(ε⁴), exactly so for a quadratic. It changes when layers are rescaled: look at
    Tr H too. The same `seed` uses the same displacements, so that small differences between
    checkpoints show.

    **Arguments:** `draws`, half of them the negatives of the others, which removes the gradient's
    part of the error; `absolute=True` averages |L(θ+ν) − L(θ)| instead, the variant of published
    code, which measures the gradient where ε|∇L| is above ε²Tr H/2.

    Raises `ValueError` for a radius that is not positive, for fewer than 4 draws, and where the
    loss of a displaced point is not finite.

    Source: Zhu, Wu, Yu, Wu, Ma (2019), arXiv:1803.00195.

    Numbers are float64.

    >>> import numpy as np
    >>> from statsgd.problems import quadratic
    >>> found = expected_sharpness(quadratic(np.eye(2)), np.zeros(2), 0.1)  # ½ε² Tr H = 0.01
    >>> bool(abs(found.value - 0.01) < 4 * found.standard_error)
    True
    """
    epsilon = positive("radius", radius)
    pairs = count("draws", draws, at_least=4) // 2
    ask = (epsilon, pairs, absolute, random_key(seed))
    found, bad = in_double_precision(
        _mean_rise, problem, floating(problem.parameters(params)), *ask
    )
    if not is_traced(bad) and bad:
        raise ValueError(
            f"radius must leave the loss finite, got {radius} with {bad:.1%} of the losses not "
            "finite"
        )
    return found


def _mean_rise(
    problem: Problem, params: PyTree, epsilon: Any, pairs: int, absolute: bool, key: PRNGKeyArray
) -> tuple[Estimate, Float[Any, ""]]:
    """The mean, and the share of losses that are not finite."""
    at, here = problem.flatten(params), problem.loss(params)

    def of_one(key: PRNGKeyArray) -> tuple[Any, Any]:
        shift = epsilon * jax.random.normal(key, at.shape, at.dtype)
        there = jnp.stack([problem.loss(problem.unflatten(at + s * shift)) for s in (1, -1)])
        rise = there - here
        mean = jnp.mean(jnp.abs(rise) if absolute else rise)
        return mean, jnp.mean(~jnp.isfinite(rise))

    means, bad = chunked_map(of_one, jax.random.split(key, pairs), 64)
    return sample_mean(means), jnp.mean(bad)
