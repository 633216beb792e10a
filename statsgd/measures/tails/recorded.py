"""Gradient noise of a problem at given parameters, recorded."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Key, PRNGKeyArray, PyTree

from statsgd.arguments import count, kinds_checked, random_seed
from statsgd.dynamics.noise import GradientNoise, Minibatch
from statsgd.dynamics.noise.minibatch import centred_example_gradients
from statsgd.precision import in_double_precision
from statsgd.problems import Problem
from statsgd.problems.parameters import floating
from statsgd.running.random_stream import stream_key

_AT_ONCE = 64


@kinds_checked
def gradient_noise(
    problem: Problem,
    params: PyTree,
    noise: GradientNoise | None = None,
    *,
    draws: int = 1000,
    seed: int = 0,
) -> Float[Any, "n d"]:
    """ĝ − ∇L at `params`: `draws` independent stochastic gradients less the gradient, in float64.

    Without `noise` the deviation of every example's own gradient, `(N, d)`, without any sampling:
    what `noise.Empirical` draws again, and what batches are made of. With `noise` (that of a batch
    of 16 is `Minibatch(16)`) as many draws of it as asked for.

    Raises `ValueError` for noise that does not act on the problem, and without `noise` for a
    problem that has no examples.

    >>> import numpy as np
    >>> from statsgd import noise
    >>> from statsgd.problems import linear_regression
    >>> problem = linear_regression(np.ones((2, 1)), np.array([1.0, 3.0]))
    >>> found = gradient_noise(problem, np.zeros(1), noise.Minibatch(1), draws=100)
    >>> sorted(set(found.ravel().tolist()))
    [-1.0, 1.0]
    """
    at = floating(problem.parameters(params))
    if noise is None:
        if not hasattr(problem, "example_loss"):
            raise ValueError(f"noise must be given for {type(problem).__name__}, got None")
        return in_double_precision(centred_example_gradients, problem, at)
    noise.check(problem)
    number, root = count("draws", draws), stream_key(random_seed(seed))
    return in_double_precision(_deviations, noise, problem, at, jax.random.split(root, number))


def key_noise(
    problem: Problem, params: PyTree, noise: Minibatch, *, draws: int, seed: int = 0
) -> Float[Any, "n d"]:
    """What the keys of random losses add to `draws` stochastic gradients, in float64.

    Differences of two gradients of one batch with keys of their own, over √2.
    """
    at, root = floating(problem.parameters(params)), stream_key(random_seed(seed))
    return in_double_precision(_of_keys, noise, problem, at, jax.random.split(root, draws))


def _of_keys(
    noise: Minibatch, problem: Any, params: PyTree, keys: Key[Any, " n"]
) -> Float[Any, "n d"]:
    start = jnp.zeros((), jnp.int32)

    def one(key: PRNGKeyArray) -> Float[Any, " d"]:
        indices = noise.indices(key, start, problem.num_examples)
        pair = [
            problem.flatten(problem.stochastic_gradient(own, params, indices))
            for own in jax.random.split(key)
        ]
        return (pair[0] - pair[1]) / np.sqrt(2)

    return jax.lax.map(one, keys, batch_size=_AT_ONCE)


def _deviations(
    noise: GradientNoise, problem: Problem, params: PyTree, keys: Key[Any, " n"]
) -> Float[Any, "n d"]:
    mean = problem.flatten(problem.gradient(params))

    def one(key: PRNGKeyArray) -> Float[Any, " d"]:
        return problem.flatten(noise.draw(key, problem, params)) - mean

    return jax.lax.map(one, keys, batch_size=_AT_ONCE)
