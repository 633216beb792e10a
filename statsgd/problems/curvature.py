"""Hessian of any problem: a matrix while that is small, products with vectors above."""

from typing import Any

import jax
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
        return in_double_precision(_hessian, problem, floating(problem.parameters(params)))

    product = hessian_product(problem, floating(problem.parameters(params)), double=True)

    def matvec(vector):
        return product(np.asarray(vector, dtype=np.float64).reshape(-1))

    shape = (problem.dimension, problem.dimension)
    return LinearOperator(shape, matvec=matvec, rmatvec=matvec, dtype=np.float64)


def _hessian(problem: Problem, params: PyTree) -> Float[Any, "d d"]:
    matrix = jax.jacfwd(_gradient, argnums=1)(problem, problem.flatten(params))
    return (matrix + matrix.T) / 2


def _gradient(problem: Problem, flat: Float[Any, " d"]) -> Float[Any, " d"]:
    return problem.flatten(problem.gradient(problem.unflatten(flat)))
