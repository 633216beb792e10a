"""Gradient noise along a few directions of a problem of any size."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree

from statsgd.arguments import finite_array, is_traced, kinds_checked
from statsgd.dynamics.noise.gradient_noise import GradientNoise, NoNoise
from statsgd.dynamics.noise.injected import IsotropicNoise
from statsgd.dynamics.noise.minibatch import Minibatch, all_examples
from statsgd.estimate import Estimate
from statsgd.precision import in_double_precision, in_own_precision
from statsgd.problems import DENSE_LIMIT, BatchRisk, EmpiricalRisk, Problem
from statsgd.problems.parameters import floating
from statsgd.problems.problem import SampledProblem
from statsgd.problems.sums import mean_over_examples

_EXAMPLES_AT_ONCE = 50  # whose slopes are computed together
_ROWS = 1000  # examples that are read together


@kinds_checked
def example_slopes(problem: Problem, params: PyTree, directions: Any) -> Float[Any, "N k"]:
    """Slope of every example's loss along `directions` `(d, k)` at `params`, in double precision.

    Forward differentiation: the N × k numbers are all that is kept, no example's gradient is, and
    examples on disk are read a few at a time.
    A `population_risk` gives those of its fixed sample.

    Raises `ValueError` for a problem without examples and for directions of another length.

    >>> import numpy as np
    >>> from statsgd import problems
    >>> problem = problems.linear_regression(np.eye(2), np.array([1.0, 3.0]))
    >>> example_slopes(problem, np.zeros(2), np.eye(2)).tolist()
    [[-1.0, -0.0], [-0.0, -3.0]]
    """
    if not isinstance(problem, SampledProblem):
        raise ValueError(f"problem must have examples, got {type(problem).__name__}")
    columns, at = columns_of(problem, directions), floating(problem.parameters(params))
    if not isinstance(problem, EmpiricalRisk) or is_traced(problem, at):
        return in_double_precision(_slopes, problem, at, all_examples(problem), columns)
    number = problem.num_examples
    rows = min(number, _ROWS)
    found = np.empty((number, columns.shape[1]))
    for first in range(0, number, rows):
        # The last part reaches back into the one before it: one program serves all.
        first = min(first, number - rows)
        part = jax.tree.map(lambda leaf: np.asarray(leaf[first : first + rows]), problem.examples)  # noqa: B023
        ask = (problem.without_examples, at, part, columns)
        found[first : first + rows] = in_double_precision(_slopes, *ask)
    return found


@kinds_checked
def noise_covariance_along(
    problem: Problem, params: PyTree, noise: GradientNoise, directions: Any
) -> Float[Any, "k k"]:
    """VᵀC(θ)V, the covariance of one stochastic gradient along `directions` V `(d, k)`.

    In double precision. Exact for `Minibatch` noise of any sampling, from the slopes of every
    example, chunk by chunk; for shuffled epochs it is that of one batch. Of random losses and of a
    `batch_risk` it is by Monte Carlo, with the errors of `noise_covariance_along_estimate`. Any
    other noise forms its matrix, up to d = `problems.DENSE_LIMIT`. Unit: (loss / params)².

    Raises `ValueError` if `noise` cannot act on `problem`, and as `example_slopes`.

    >>> import numpy as np
    >>> from statsgd import noise, problems
    >>> problem = problems.linear_regression(np.eye(2), np.array([1.0, 3.0]))
    >>> first = np.array([[1.0], [0.0]])
    >>> noise_covariance_along(problem, np.zeros(2), noise.Minibatch(1), first).tolist()
    [[0.25]]
    """
    return noise_covariance_along_estimate(problem, params, noise, directions).value


@kinds_checked
def noise_covariance_along_estimate(
    problem: Problem, params: PyTree, noise: GradientNoise, directions: Any
) -> Estimate:
    """`noise_covariance_along` with its standard errors `(k, k)`, zero where it is exact.

    Monte Carlo is from pairs of the fixed keys of every example, or from the gradients of fixed
    batches, as in `Minibatch.covariance_estimate`: of the same keys and batches at any `params`, so
    that ratios between points are known better than either value. Raises as
    `noise_covariance_along`.

    Numbers are float64.

    >>> import numpy as np
    >>> from statsgd import noise, problems
    >>> problem = problems.linear_regression(np.eye(2), np.array([1.0, 3.0]))
    >>> first = np.array([[1.0], [0.0]])
    >>> found = noise_covariance_along_estimate(problem, np.zeros(2), noise.Minibatch(1), first)
    >>> found.value.tolist(), found.standard_error.tolist()
    ([[0.25]], [[0.0]])
    """
    noise.check(problem)
    columns = columns_of(problem, directions)
    if isinstance(noise, Minibatch):
        if not noise.knows_examples(problem):
            return noise.covariance_along(problem, params, columns)
        mean, square = _slope_moments(problem, floating(problem.parameters(params)), columns)
        covariance = noise.variance_factor(problem) * (square - np.outer(mean, mean))
        return Estimate(covariance, np.zeros_like(covariance))
    require_covariance_along(problem, noise)
    root = in_double_precision(noise.root, problem, floating(problem.parameters(params)))
    reach = root * columns.T if np.ndim(root) == 0 else columns.T @ root
    covariance = reach @ reach.T
    return Estimate(covariance, np.zeros_like(covariance))


def require_covariance_along(problem: Problem, noise: GradientNoise) -> None:
    """Raise `ValueError` where VᵀCV would take a whole matrix that is too large to be formed."""
    if isinstance(noise, Minibatch | IsotropicNoise | NoNoise):
        return
    if problem.dimension > DENSE_LIMIT:
        raise ValueError(
            f"the covariance of {type(noise).__name__} is formed as a matrix, which is allowed up "
            f"to d = {DENSE_LIMIT}, got d = {problem.dimension}"
        )


@kinds_checked
def noise_and_curvature_along(
    problem: EmpiricalRisk | BatchRisk,
    params: PyTree,
    noise: Minibatch,
    directions: Any,
    *,
    double: bool = True,
) -> tuple[Float[Any, "k k"], Float[Any, " k"]]:
    """VᵀC(θ)V and vᵀ∇²L(θ)v of every direction v, columns of V `(d, k)`, in one pass of the data.

    By forward differentiation, which a Hessian product for every direction would cost twice over;
    the noise of random losses and of a `batch_risk` is by Monte Carlo. `double`, False for
    derivatives in the precision of `params`, single at least, which take half of the time. Raises
    as `noise_covariance_along`.

    >>> import numpy as np
    >>> from statsgd import noise, problems
    >>> problem = problems.linear_regression(np.eye(2), np.array([1.0, 3.0]))
    >>> noise, curvature = noise_and_curvature_along(
    ...     problem, np.zeros(2), noise.Minibatch(1), np.array([[1.0], [0.0]])
    ... )
    >>> noise.tolist(), curvature.tolist()
    ([[0.25]], [0.5])
    """
    noise.check(problem)
    columns, at = columns_of(problem, directions), floating(problem.parameters(params))
    if isinstance(problem, BatchRisk):
        within = in_double_precision if double else in_own_precision
        curvature = within(_curvatures, problem, at, columns)
    else:
        mean, square, curvature = mean_over_examples(
            problem, _curved_moments_of, at, columns, double=double, copies=2 * columns.shape[1]
        )
        mean, square, curvature = (np.asarray(of, np.float64) for of in (mean, square, curvature))
    if not noise.knows_examples(problem):
        return noise.covariance_along(problem, at, columns).value, curvature
    covariance = noise.variance_factor(problem) * (square - np.outer(mean, mean))
    return covariance if double else _without_rounding(covariance), curvature


def _without_rounding(covariance: Float[np.ndarray, "k k"]) -> Float[np.ndarray, "k k"]:
    """The nearest matrix without negative eigenvalues, which only rounding has made."""
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.maximum(values, 0)) @ vectors.T


def columns_of(problem: Problem, directions: Any) -> Float[np.ndarray, "d k"]:
    """`directions` as columns in double precision, or a `ValueError`."""
    columns = np.asarray(finite_array("directions", directions, ndim=2), dtype=np.float64)
    if len(columns) != problem.dimension:
        raise ValueError(
            f"directions must have shape ({problem.dimension}, k), got {columns.shape}"
        )
    return columns


def _slopes(
    problem: Any, params: PyTree, examples: PyTree, directions: Float[Any, "d k"]
) -> Float[Any, "n k"]:
    def of_one(example: PyTree) -> Float[Any, " k"]:
        return _slopes_of(problem, params, example, directions)

    return jax.lax.map(of_one, examples, batch_size=_EXAMPLES_AT_ONCE)


def _slope_moments(problem: Any, params: PyTree, directions: Any) -> tuple[Any, Any]:
    """Mean and mean square of the slopes `(k,)`, `(k, k)`; examples are read chunk by chunk."""
    if isinstance(problem, EmpiricalRisk):
        copies = directions.shape[1]
        return mean_over_examples(
            problem, _moments_of, params, directions, double=True, copies=copies
        )
    slopes = example_slopes(problem, params, directions)
    return slopes.mean(0), slopes.T @ slopes / len(slopes)


def _moments_of(
    problem: Any, params: PyTree, example: PyTree, directions: Float[Any, "d k"]
) -> tuple[Any, Any]:
    slopes = _slopes_of(problem, params, example, directions)
    return slopes, jnp.outer(slopes, slopes)


def _curved_moments_of(
    problem: Any, params: PyTree, example: PyTree, directions: Float[Any, "d k"]
) -> tuple[Any, Any, Any]:
    loss, flat = _loss_of(problem, params, example)

    def along(v: Float[Any, " d"]) -> tuple[Any, Any]:
        return jax.jvp(lambda at: jax.jvp(loss, (at,), (v,))[1], (flat,), (v,))

    slopes, curvatures = jax.vmap(along, in_axes=1)(jnp.asarray(directions))
    return slopes, jnp.outer(slopes, slopes), curvatures


def _curvatures(
    problem: Problem, params: PyTree, directions: Float[Any, "d k"]
) -> Float[Any, " k"]:
    """vᵀ∇²L v, one direction after the other."""
    flat = jnp.asarray(problem.flatten(params))

    def loss(vector: Float[Any, " d"]) -> Float[Any, ""]:
        return problem.loss(problem.unflatten(vector))

    def along(v: Float[Any, " d"]) -> Float[Any, ""]:
        return jax.jvp(lambda at: jax.jvp(loss, (at,), (v,))[1], (flat,), (v,))[1]

    return jax.lax.map(along, directions.T)


def _slopes_of(
    problem: Any, params: PyTree, example: PyTree, directions: Float[Any, "d k"]
) -> Float[Any, " k"]:
    loss, flat = _loss_of(problem, params, example)
    return jax.vmap(lambda v: jax.jvp(loss, (flat,), (v,))[1], in_axes=1)(jnp.asarray(directions))


def _loss_of(problem: Any, params: PyTree, example: PyTree) -> tuple[Any, Any]:
    """An example's loss as a function of flat parameters, and where they are."""

    def loss(vector: Float[Any, " d"]) -> Float[Any, ""]:
        return problem.example_loss(problem.unflatten(vector), example)

    return loss, jnp.asarray(problem.flatten(params))
