"""The noise covariance of any problem: a matrix while that is small, products above."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree
from scipy.sparse.linalg import LinearOperator

from statsgd.arguments import kinds_checked
from statsgd.dynamics.noise.gradient_noise import GradientNoise
from statsgd.dynamics.noise.minibatch import Minibatch, centred_example_gradients
from statsgd.precision import in_double_precision
from statsgd.problems import DENSE_LIMIT, EmpiricalRisk, Problem, mean_over_chunks
from statsgd.problems.parameters import floating
from statsgd.problems.sums import gradient_sum


@kinds_checked
def noise_covariance(
    problem: Problem, params: PyTree, noise: GradientNoise
) -> Float[Any, "d d"] | LinearOperator:
    """C(θ) of `noise` at `params` in double precision.

    A `(d, d)` array up to d = `problems.DENSE_LIMIT`. Above, for `Minibatch` noise, a
    `scipy.sparse.linalg.LinearOperator` of that shape whose products go through the examples chunk
    by chunk, two gradients each (on a `population_risk` with its sample's gradients in memory), and
    for random losses and a `batch_risk` through the draws of `Minibatch.covariance_estimate`.
    Unit: (loss / params)². Raises `ValueError` if `noise` cannot act on `problem`, has no finite
    variance, or if it is neither small nor a minibatch.

    >>> import numpy as np
    >>> from statsgd import noise, problems
    >>> problem = problems.linear_regression(np.eye(2), np.ones(2))
    >>> noise_covariance(problem, np.zeros(2), noise.Minibatch(1))
    array([[ 0.25, -0.25],
           [-0.25,  0.25]])
    """
    noise.check(problem)
    noise.require_variance()
    params = problem.parameters(params)
    if problem.dimension <= DENSE_LIMIT:
        return in_double_precision(noise.covariance, problem, params)
    if not isinstance(noise, Minibatch):
        raise ValueError(
            f"the covariance of {type(noise).__name__} is formed as a matrix, which is "
            f"allowed up to d = {DENSE_LIMIT}, got d = {problem.dimension}"
        )
    data: Any = problem  # `check` made sure that it has examples
    factor = noise.variance_factor(problem)
    if not noise.knows_examples(problem):

        def matvec(vector):
            v = np.asarray(vector, dtype=np.float64).reshape(-1)
            return noise.covariance_product(problem, floating(params), v)

    elif isinstance(problem, EmpiricalRisk):
        mean = problem.flatten(mean_over_chunks(problem, gradient_sum, params, double=True))

        def matvec(vector):
            v = np.asarray(vector, dtype=np.float64).reshape(-1)
            ask = (data, moment_product, params, np.asarray(mean), v)
            return factor * mean_over_chunks(*ask, double=True, progress=False)
    else:
        gradients = in_double_precision(centred_example_gradients, data, params)

        def matvec(vector):
            v = np.asarray(vector).reshape(-1)
            return factor / gradients.shape[0] * (gradients.T @ (gradients @ v))

    shape = (problem.dimension, problem.dimension)
    return LinearOperator(shape, matvec=matvec, rmatvec=matvec, dtype=np.float64)


def moment_product(
    problem: Any,
    params: PyTree,
    chunk: PyTree,
    weights: Any,
    mean: Float[Any, " d"] | None,
    vector: Any,
) -> Float[Any, " d"]:
    """Σ w (g − mean) (g − mean)·v over the gradients g of a chunk, none of which is kept.

    Without `mean` Σ w g g·v.
    """

    def losses(flat: Float[Any, " d"]) -> Float[Any, " n"]:
        at = problem.unflatten(flat)
        return jax.vmap(lambda example: problem.example_loss(at, example))(chunk)

    flat = problem.flatten(params)
    slopes = jax.jvp(losses, (flat,), (vector.astype(flat.dtype),))[1]
    along = weights * (slopes if mean is None else slopes - mean @ vector)
    product = jax.vjp(losses, flat)[1](along.astype(flat.dtype))[0]
    return product if mean is None else product - jnp.sum(along) * mean
