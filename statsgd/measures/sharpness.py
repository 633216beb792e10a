"""Expected sharpness: by how much the loss rises around a point."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, PyTree

from statsgd.arguments import count, is_traced, positive
from statsgd.measures.evaluation import chunked_map, evaluate, flat_point, random_key, sample_mean
from statsgd.problems import Problem


class ExpectedSharpness(NamedTuple):
    """A mean over random displacements, with its standard error (loss)."""

    value: Any
    standard_error: Any


def expected_sharpness(
    problem: Problem,
    params: PyTree,
    radius: float,
    *,
    draws: int = 1000,
    seed: Any = 0,
    absolute: bool = False,
) -> ExpectedSharpness:
    """E[L(θ+ν) − L(θ)] for ν ~ N(0, ε²I), ε = `radius` (params).

    (ε²/2) Tr H + O(ε⁴), exactly so for a quadratic. It changes when layers are rescaled: look at
    Tr H too. The same `seed` uses the same displacements, so that small differences between
    checkpoints show.

    **Arguments:** `draws`, half of them the negatives of the others, which removes the gradient's
    part of the error; `absolute=True` averages |L(θ+ν) − L(θ)| instead, the variant of published
    code, which measures the gradient where ε|∇L| is above ε²Tr H/2.

    Raises `ValueError` for a radius that is not positive, for fewer than 4 draws, and where the
    loss of a displaced point is not finite.

    Source: Zhu, Wu, Yu, Wu, Ma (2019), arXiv:1803.00195.
    """
    epsilon = float(positive("radius", radius))
    pairs = count("draws", draws, at_least=4) // 2

    def rises(at: Float[Any, " d"]) -> tuple[Any, Any]:
        here = problem.loss(problem.unflatten(at))

        def mean_rise(key: Any) -> tuple[Any, Any]:
            shift = epsilon * jax.random.normal(key, at.shape, at.dtype)
            there = jnp.stack([problem.loss(problem.unflatten(at + s * shift)) for s in (1, -1)])
            found = there - here
            mean = jnp.mean(jnp.abs(found) if absolute else found)
            return mean, jnp.mean(~jnp.isfinite(found))

        keys = jax.random.split(random_key(seed), pairs)
        means, bad = chunked_map(mean_rise, keys, 64)
        return ExpectedSharpness(*sample_mean(means)), jnp.mean(bad)

    found, bad = evaluate(rises, flat_point(problem, params))
    if not is_traced(bad) and bad:
        raise ValueError(
            f"radius must leave the loss finite, got {radius} with {bad:.1%} of the losses not "
            "finite"
        )
    return found
