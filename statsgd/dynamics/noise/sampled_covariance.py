"""Covariances of stochastic gradients that are random beyond the choice of examples."""

import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, PyTree

from statsgd.estimate import Estimate, exact, sample_mean
from statsgd.problems.batch_loss import ENUMERATED, BatchRisk
from statsgd.problems.randomness import example_key
from statsgd.problems.sums import accumulated, mean_over_chunks
from statsgd.running.random_stream import stream_key

#: Batches from whose gradients the covariance of a `batch_risk` is taken.
COVARIANCE_BATCHES = 256


def covariance_of_draws(problem: Any, params: PyTree, between: float, within: float) -> Estimate:
    """`between` Cov over examples of E g plus `within` E over examples of Cov g, g of random keys.

    From pairs of an example's fixed keys: (a − b)(a − b)ᵀ/2 has the mean Cov g, and the covariance
    of (a + b)/2 over examples has that of E g and half of it. Every pair makes an estimate without
    bias; the error is that of their mean.
    """
    pairs = problem.loss_draws // 2
    shift = problem.flatten(problem.gradient(params))
    width = 4 * problem.loss_draws * problem.dimension * shift.dtype.itemsize
    first, second, halves = mean_over_chunks(
        problem, _pair_moments, params, shift, pairs, width=width
    )
    about = second - first[:, :, None] * first[:, None, :]
    about = about - halves / 2 * (1 - 1 / problem.num_examples)
    found = sample_mean(between * about + within * halves)
    return found._replace(clusters=pairs)


def _pair_moments(
    problem: Any, params: PyTree, chunk: PyTree, weights: Any, shift: Float[Any, " d"], pairs: int
) -> tuple[Any, Any, Any]:
    """Of each pair: mean and second moment of (a + b)/2 − shift, and that of (a − b)/√2."""

    def one(example: PyTree) -> Float[Any, "draws d"]:
        def gradient(key: Any) -> Float[Any, " d"]:
            flat = problem.flatten(jax.grad(problem.example_loss)(params, example, key))
            return flat.astype(accumulated(flat.dtype))

        return jax.vmap(gradient)(jax.random.split(example_key(example), problem.loss_draws))

    a, b = (jax.vmap(one)(chunk)[:, i : 2 * pairs : 2] for i in (0, 1))
    mean, half = (a + b) / 2 - shift, (a - b) / np.sqrt(2)
    moments = [jnp.einsum("n,ngi,ngj->gij", weights, x, x) for x in (mean, half)]
    return jnp.einsum("n,ngi->gi", weights, mean), moments[0], moments[1]


def covariance_of_batches(noise: Any, problem: BatchRisk, params: PyTree) -> Estimate:
    """Covariance of the gradients of batches drawn as by `noise`: of all, or of some fixed ones."""
    indices, whole = _batches(noise, problem)
    keys = jax.random.split(stream_key(1), len(indices))

    def gradient(rows: Any, key: Any) -> Float[Any, " d"]:
        return problem.flatten(problem.batch_gradient(params, problem.take(rows), key))

    rows = jax.vmap(gradient)(jnp.asarray(indices), keys)
    rows = rows.astype(accumulated(rows.dtype))
    rows, number = rows - jnp.mean(rows, axis=0), len(indices)
    if whole:
        return exact(rows.T @ rows / number)
    squares = (rows**2).T @ rows**2 / number - (rows.T @ rows / number) ** 2
    error = jnp.sqrt(jnp.clip(squares, 0) / number)
    return Estimate(rows.T @ rows / (number - 1), error, number)


def _batches(noise: Any, problem: BatchRisk) -> tuple[Int[np.ndarray, "batches S"], bool]:
    """Examples of batches, all equally likely, and whether these are all that there are."""
    number, size = problem.num_examples, noise.batch_size
    repeats = noise.sampling == "with_replacement"
    count = number**size if repeats else math.comb(number, size)
    if count <= ENUMERATED and not problem.randomised:
        all_of_them: Any = (
            itertools.product(range(number), repeat=size)
            if repeats
            else itertools.combinations(range(number), size)
        )
        return np.array(list(all_of_them)), True
    rng = np.random.default_rng(1)
    if repeats:
        return rng.integers(0, number, (COVARIANCE_BATCHES, size)), False
    drawn = [rng.choice(number, size, replace=False) for _ in range(COVARIANCE_BATCHES)]
    return np.array(drawn), False
