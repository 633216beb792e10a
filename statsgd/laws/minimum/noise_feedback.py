"""Gradient noise that grows with the distance from the minimum, under any linear optimiser.

In linear regression the noise of white batches where θ has covariance P is C(μ) + N(P), N linear
and positive. Its mean is zero given the past, so that moments obey the mean step, and the noise of
the stationary state is the fixed point of C = C(μ) + N(P(C)).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from statsgd.dynamics.noise import Minibatch
from statsgd.laws.minimum.second_moments import feedback_noise
from statsgd.problems import LinearRegression

type Map = Callable[[Float[Any, "d d"]], Float[Any, "d d"]]

_ROUNDS = 20_000
_SETTLED = 1e-12
_POWER = 1e-10  # relative change of a growth rate that has settled


class Feedback(NamedTuple):
    """The self-consistent noise, and how strongly noise feeds itself."""

    noise_covariance: Float[Any, "d d"]
    gain: float
    """Spectral radius of P → P(N(P)): the variance is infinite from 1 on."""


def self_consistent_noise(at_minimum: Float[Any, "d d"], noise: Map, response: Map) -> Feedback:
    """C = C(μ) + N(P(C)); C(μ) is left as it is where there is no finite one.

    **Arguments:** `at_minimum` C(μ); `noise` N; `response`, P of a constant noise C, NaN where the
    mean is unstable.
    """
    current = response(np.eye(len(at_minimum)))
    if np.isnan(current[0, 0]):
        return Feedback(at_minimum, 0.0)
    gain, before = 0.0, np.inf
    for _ in range(_ROUNDS):
        current = response(noise(current / np.trace(current)))
        gain = float(np.trace(current))
        if not gain > 0 or abs(gain - before) <= _POWER * gain:
            break
        before = gain
    if not gain < 1:
        return Feedback(at_minimum, gain)
    total, part = np.array(at_minimum), np.array(at_minimum)
    for _ in range(_ROUNDS):
        part = noise(response(part))
        total += part
        # What is left is a geometric series.
        if np.max(np.abs(part)) <= _SETTLED * (1 - gain) * np.max(np.abs(total)):
            break
    return Feedback(total, gain)


def data_noise(problem: LinearRegression, noise: Minibatch) -> Map:
    """N of white batches of a data set."""
    inputs = np.asarray(problem.inputs, np.float64)
    hessian, factor = problem.hessian_matrix(), noise.variance_factor(problem)
    values, q = np.linalg.eigh(hessian)
    return lambda params: q @ feedback_noise(inputs @ q, values, factor, q.T @ params @ q) @ q.T


def gaussian_noise(input_covariance: Float[Any, "d d"], batch_size: int) -> Map:
    """N of fresh batches of Gaussian inputs x: (A P A + A Tr[A P])/S, A = Cov x."""

    def noise(params: Any) -> Any:
        pushed = input_covariance @ params
        return (pushed @ input_covariance + input_covariance * np.trace(pushed)) / batch_size

    return noise
