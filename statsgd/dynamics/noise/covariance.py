"""The noise covariance of any problem: a matrix while that is small, products above."""

from typing import Any

import numpy as np
from jaxtyping import Float, PyTree
from scipy.sparse.linalg import LinearOperator

from statsgd.dynamics.noise.gradient_noise import GradientNoise
from statsgd.dynamics.noise.minibatch import Minibatch, centred_example_gradients
from statsgd.precision import in_double_precision
from statsgd.problems import DENSE_LIMIT, Problem


def noise_covariance(
    problem: Problem, params: PyTree, noise: GradientNoise
) -> Float[Any, "d d"] | LinearOperator:
    """C(θ) of `noise` at `params` in double precision.

    A `(d, d)` array up to d = `problems.DENSE_LIMIT`. Above, for `Minibatch` noise, a
    `scipy.sparse.linalg.LinearOperator` of that shape built on the N × d example gradients.
    Unit: (loss / params)². Raises `ValueError` if `noise` cannot act on `problem`, has no finite
    variance, or if it is neither small nor a minibatch.
    """
    noise.check(problem)
    noise.require_variance()
    if problem.dimension <= DENSE_LIMIT:
        return in_double_precision(noise.covariance, problem, params)
    if not isinstance(noise, Minibatch):
        raise ValueError(
            f"the covariance of {type(noise).__name__} is formed as a matrix, which is allowed up "
            f"to d = {DENSE_LIMIT}, got d = {problem.dimension}"
        )
    data: Any = problem  # `check` made sure that it has examples
    gradients = in_double_precision(centred_example_gradients, data, params)
    scale = noise.variance_factor(problem) / gradients.shape[0]

    def matvec(vector):
        return scale * (gradients.T @ (gradients @ np.asarray(vector).reshape(-1)))

    shape = (problem.dimension, problem.dimension)
    return LinearOperator(shape, matvec=matvec, rmatvec=matvec, dtype=np.float64)
