"""Covariances of stochastic gradients that are random beyond the choice of examples.

Whole as a matrix, along a few directions of a network of any size, or as products with vectors: of
the same draws in all three forms.
"""

import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, PyTree

from statsgd.estimate import Estimate, exact
from statsgd.problems.batch_loss import ENUMERATED, BatchRisk
from statsgd.problems.randomness import example_key
from statsgd.problems.sums import accumulated, gradient_sum, mean_over_chunks
from statsgd.running.random_stream import stream_key

#: Batches from whose gradients the covariance of a `batch_risk` is taken.
COVARIANCE_BATCHES = 1024

_BATCHES_AT_ONCE = 16  # whose gradients are computed together


def covariance_of_draws(
    problem: Any,
    params: PyTree,
    between: float,
    within: float,
    directions: Float[Any, "d k"] | None = None,
    *,
    double: bool = False,
) -> Estimate:
    """`between` Cov over examples of E g plus `within` E over examples of Cov g, g of random keys.

    From pairs of an example's fixed keys: (a − b)(a − b)ᵀ/2 has the mean Cov g, and the covariance
    of (a + b)/2 over examples has that of E g and half of it. Every pair makes an estimate without
    bias; the error is that of their mean. Along `directions` V it is VᵀCV.
    """
    pairs = problem.loss_draws // 2
    shift = problem.flatten(mean_over_chunks(problem, gradient_sum, params, double=double))
    # Of a whole covariance the gradients of all keys are held, along directions one at a time.
    held = 1 if directions is not None else 4 * problem.loss_draws
    first, second, halves = mean_over_chunks(
        problem, _pair_moments, params, shift, pairs, directions,
        width=held * problem.dimension * shift.dtype.itemsize, double=double,
    )  # fmt: skip
    about = second - first[:, :, None] * first[:, None, :]
    about = about - halves / 2 * (1 - 1 / problem.num_examples)
    found = between * about + within * halves
    value, error = found.mean(axis=0), found.std(axis=0, ddof=1) / math.sqrt(pairs)
    return Estimate(value, error, pairs)


def _pair_moments(
    problem: Any,
    params: PyTree,
    chunk: PyTree,
    weights: Any,
    shift: Float[Any, " d"],
    pairs: int,
    directions: Float[Any, "d k"] | None,
) -> tuple[Any, Any, Any]:
    """Of each pair: mean and second moment of (a + b)/2 − shift, and that of (a − b)/√2."""

    def one(example: PyTree) -> Float[Any, "draws k"]:
        def gradient(key: Any) -> Float[Any, " k"]:
            flat = problem.flatten(jax.grad(problem.example_loss)(params, example, key))
            flat = flat.astype(accumulated(flat.dtype)) - shift
            return flat if directions is None else flat @ directions

        keys = jax.random.split(example_key(example), problem.loss_draws)
        return jax.vmap(gradient)(keys) if directions is None else jax.lax.map(gradient, keys)

    a, b = (jax.vmap(one)(chunk)[:, i : 2 * pairs : 2] for i in (0, 1))
    mean, half = (a + b) / 2, (a - b) / np.sqrt(2)
    moments = [jnp.einsum("n,ngi,ngj->gij", weights, x, x) for x in (mean, half)]
    return jnp.einsum("n,ngi->gi", weights, mean), moments[0], moments[1]


def draws_product(
    problem: Any,
    params: PyTree,
    between: float,
    within: float,
    vector: Float[Any, " d"],
    *,
    double: bool = False,
) -> Float[Any, " d"]:
    """C v of `covariance_of_draws`: two gradients of every example and key."""
    pairs, how = problem.loss_draws // 2, {"double": double, "progress": False}
    rest = within - between / 2 * (1 - 1 / problem.num_examples)
    means = mean_over_chunks(problem, _pair_slopes, params, vector, pairs, **how)
    ask = (vector, pairs, means, between, rest)
    return mean_over_chunks(problem, _pair_products, params, *ask, **how)


def _pair_losses(problem: Any, chunk: PyTree, pairs: int) -> Any:
    """Losses `(n, 2 pairs)` of a chunk as a function of flat parameters."""

    def losses(flat: Float[Any, " d"]) -> Float[Any, "n draws"]:
        at = problem.unflatten(flat)

        def one(example: PyTree) -> Float[Any, " draws"]:
            keys = jax.random.split(example_key(example), problem.loss_draws)[: 2 * pairs]
            return jax.vmap(lambda key: problem.example_loss(at, example, key))(keys)

        return jax.vmap(one)(chunk)

    return losses


def _pair_slopes(
    problem: Any, params: PyTree, chunk: PyTree, weights: Any, vector: Any, pairs: int
) -> Float[Any, " pairs"]:
    """Mean over the examples of (a + b)·v/2 of every pair."""
    flat = jnp.asarray(problem.flatten(params))
    along = jax.jvp(_pair_losses(problem, chunk, pairs), (flat,), (vector.astype(flat.dtype),))[1]
    return weights @ (along[:, 0::2] + along[:, 1::2]) / 2


def _pair_products(
    problem: Any, params: PyTree, chunk: PyTree, weights: Any, vector: Any, pairs: int,
    means: Any, between: Any, rest: Any,
) -> Float[Any, " d"]:  # fmt: skip
    flat, losses = jnp.asarray(problem.flatten(params)), _pair_losses(problem, chunk, pairs)
    along = jax.jvp(losses, (flat,), (vector.astype(flat.dtype),))[1]
    a, b = along[:, 0::2], along[:, 1::2]
    middle, half = between * ((a + b) / 2 - means) / 2, rest * (a - b) / 2
    both = jnp.stack([middle + half, middle - half], axis=2).reshape(along.shape) / pairs
    return jax.vjp(losses, flat)[1]((weights[:, None] * both).astype(along.dtype))[0]


def covariance_of_batches(
    noise: Any, problem: BatchRisk, params: PyTree, directions: Float[Any, "d k"] | None = None
) -> Estimate:
    """Covariance of the gradients of batches drawn as by `noise`: of all, or of some fixed ones.

    Along `directions` V it is VᵀCV.
    """
    batches, whole = drawn_batches(noise, problem)

    def gradient(batch: tuple[Any, Any]) -> Float[Any, " k"]:
        flat = problem.flatten(problem.batch_gradient(params, problem.take(batch[0]), batch[1]))
        flat = flat.astype(accumulated(flat.dtype))
        return flat if directions is None else flat @ directions

    rows = jax.lax.map(gradient, batches, batch_size=_BATCHES_AT_ONCE)
    rows, number = rows - jnp.mean(rows, axis=0), len(rows)
    if whole:
        return exact(rows.T @ rows / number)
    squares = (rows**2).T @ rows**2 / number - (rows.T @ rows / number) ** 2
    error = jnp.sqrt(jnp.clip(squares, 0) / number)
    return Estimate(rows.T @ rows / (number - 1), error, number)


def batches_product(
    noise: Any, problem: BatchRisk, params: PyTree, vector: Float[Any, " d"]
) -> Float[Any, " d"]:
    """C v of `covariance_of_batches`: two gradients of every batch, none of which is kept."""
    batches, whole = drawn_batches(noise, problem)
    flat = jnp.asarray(problem.flatten(params))

    def losses(at: Float[Any, " d"]) -> Float[Any, " batches"]:
        @jax.checkpoint
        def one(batch: tuple[Any, Any]) -> Float[Any, ""]:
            return problem.batch_loss(problem.unflatten(at), problem.take(batch[0]), batch[1])

        return jax.lax.map(one, batches, batch_size=_BATCHES_AT_ONCE)

    along = jax.jvp(losses, (flat,), (vector.astype(flat.dtype),))[1]
    along = (along - jnp.mean(along)) / (len(along) - (0 if whole else 1))
    return jax.vjp(losses, flat)[1](along)[0]


def drawn_batches(
    noise: Any, problem: BatchRisk, most: int = COVARIANCE_BATCHES
) -> tuple[tuple[Any, Any], bool]:
    """Examples of fixed batches `(batches, S)` and their keys, and whether these are all batches.

    All equally likely; of those that are drawn the first `most`.
    """
    indices, whole = _batches(noise, problem)
    keys = jax.random.split(stream_key(1), len(indices))
    number = len(indices) if whole else most
    return (jnp.asarray(indices[:number]), keys[:number]), whole


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
