"""Expected sharpness: by how much the loss rises around a point."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree

from statsgd.arguments import count, positive
from statsgd.dynamics import stream_key
from statsgd.problems import Problem
from statsgd.problems.parameters import in_double_precision


class ExpectedSharpness(NamedTuple):
    """A mean over random displacements, with its standard error (loss)."""

    value: float
    standard_error: float


def expected_sharpness(
    problem: Problem,
    params: PyTree,
    radius: float,
    *,
    draws: int = 1000,
    seed: int = 0,
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
    flat = np.asarray(problem.flatten(params), dtype=np.float64)
    noise = np.asarray(jax.random.normal(stream_key(seed), (pairs, len(flat))), dtype=np.float64)

    def rises(at: Float[Any, " d"], shifts: Float[Any, "pairs d"]) -> Float[Any, "pairs 2"]:
        here = problem.loss(problem.unflatten(at))

        def rise(shift):
            there = jnp.stack(
                [
                    problem.loss(problem.unflatten(at + shift)),
                    problem.loss(problem.unflatten(at - shift)),
                ]
            )
            return there - here

        return jax.lax.map(rise, shifts, batch_size=64)

    found = in_double_precision(rises, flat, epsilon * noise)
    bad = np.mean(~np.isfinite(found))
    if bad:
        raise ValueError(
            f"radius must leave the loss finite, got {radius} with {bad:.1%} of the losses not "
            "finite"
        )
    means = (np.abs(found) if absolute else found).mean(1)
    return ExpectedSharpness(float(means.mean()), float(means.std(ddof=1) / np.sqrt(pairs)))
