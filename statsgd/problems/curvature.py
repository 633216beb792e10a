"""Hessian of any problem: a matrix while that is small, products with vectors above."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree
from scipy.sparse.linalg import LinearOperator

from statsgd.arguments import kinds_checked
from statsgd.precision import in_double_precision
from statsgd.problems.parameters import floating, listed_numbers
from statsgd.problems.problem import Problem
from statsgd.problems.regression import LinearRegression
from statsgd.problems.sums import hessian_product

#: Largest number of parameters for which d × d matrices are formed.
DENSE_LIMIT = 2048
#: Columns of a matrix that are computed at once.
_COLUMNS = 16


@kinds_checked
def hessian(problem: Problem, params: PyTree) -> Float[Any, "d d"] | LinearOperator:
    """Hessian ∇²L at `params`, in flattened coordinates and double precision.

    A `(d, d)` array up to d = `DENSE_LIMIT`; above, a `scipy.sparse.linalg.LinearOperator` with
    the same shape whose products cost two gradients each and which `scipy.sparse.linalg.eigsh`
    accepts. Unit: loss / params².

    >>> from statsgd.problems import landscape
    >>> hessian(landscape(lambda x: x[0] ** 2 + x[0] * x[1], [0.0, 0.0]), [1.0, 2.0])
    array([[2., 1.],
           [1., 0.]])
    """
    params = listed_numbers(params)
    if isinstance(problem, LinearRegression) and problem.dimension <= DENSE_LIMIT:
        return problem.hessian_matrix()
    if problem.dimension <= DENSE_LIMIT:
        return in_double_precision(dense_hessian, problem, floating(problem.parameters(params)))

    product = hessian_product(problem, floating(problem.parameters(params)), double=True)

    def matvec(vector):
        return product(np.asarray(vector, dtype=np.float64).reshape(-1))

    shape = (problem.dimension, problem.dimension)
    return LinearOperator(shape, matvec=matvec, rmatvec=matvec, dtype=np.float64)


def dense_hessian(problem: Problem, params: PyTree) -> Float[Any, "d d"]:
    """∇²L at `params` in their own precision, in the memory of a few gradients."""
    flat = problem.flatten(params)

    def column(direction: Float[Any, " d"]) -> Float[Any, " d"]:
        return jax.jvp(lambda at: _gradient(problem, at), (flat,), (direction,))[1]

    basis = jnp.eye(flat.shape[0], dtype=flat.dtype)
    matrix = jax.lax.map(column, basis, batch_size=_COLUMNS)
    return (matrix + matrix.T) / 2


def _gradient(problem: Problem, flat: Float[Any, " d"]) -> Float[Any, " d"]:
    return problem.flatten(problem.gradient(problem.unflatten(flat)))
