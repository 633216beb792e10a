"""Gradient noise that grows with the distance from the minimum, under any linear optimiser.

In linear regression the noise of white batches where θ has covariance P is C(μ) + N(P), N linear
and positive. Its mean is zero given the past, so that moments obey the mean step, and the noise of
the stationary state is the fixed point of C = C(μ) + N(P(C)).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.sparse.linalg import LinearOperator, eigs, gmres

from statsgd.dynamics.noise import Minibatch
from statsgd.laws.minimum.second_moments import feedback_noise
from statsgd.problems import LinearRegression

type Map = Callable[[Float[Any, "d d"]], Float[Any, "d d"]]

_SETTLED = 1e-11
_RESTART, _RESTARTS = 100, 20  # vectors that are kept, and how often


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
    d = len(at_minimum)
    if np.isnan(response(np.eye(d))[0, 0]):
        return Feedback(at_minimum, 0.0)
    gain = _spectral_radius(lambda params: response(noise(params)), d)
    if not gain < 1:
        return Feedback(at_minimum, gain)
    left = _flat_operator(lambda params: params - noise(response(params)), d)
    right = np.ravel(at_minimum)
    found, _ = gmres(left, right, rtol=1e-14, restart=min(d * d, _RESTART), maxiter=_RESTARTS)
    # Near a gain of 1 rounding of a large C is all that is left of the residual.
    if np.max(np.abs(left @ found - right)) > _SETTLED * np.max(np.abs(found)):
        raise ValueError(f"no self-consistent noise was found at a feedback gain of {gain:.6g}")
    covariance = found.reshape(d, d)
    return Feedback((covariance + covariance.T) / 2, gain)


def _spectral_radius(positive: Map, d: int) -> float:
    """The largest eigenvalue of a map that keeps matrices `(d, d)` positive semi-definite."""
    start = np.eye(d)
    if d == 1 or not np.any(positive(start)):
        return float(positive(start)[0, 0])

    # Such a map has it among its real eigenvalues, with a matrix that is positive semi-definite.
    operator = _flat_operator(positive, d)
    values = eigs(operator, 1, which="LM", v0=start.ravel(), return_eigenvectors=False)
    return float(np.abs(values[0]))


def _flat_operator(linear: Map, d: int) -> LinearOperator:
    """A map of symmetric matrices as one of their entries."""

    def product(vector: Float[Any, " dd"]) -> Float[Any, " dd"]:
        matrix = vector.reshape(d, d)
        return np.ravel(linear((matrix + matrix.T) / 2))

    return LinearOperator((d * d, d * d), product, dtype=np.float64)


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
