"""The minimum of a problem, with the gradient norm it was found to."""

import warnings
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, PyTree
from scipy.optimize import minimize

from statsgd.arguments import non_negative
from statsgd.precision import in_double_precision
from statsgd.problems.curvature import DENSE_LIMIT
from statsgd.problems.problem import Problem
from statsgd.problems.regression import LinearRegression


class ConvergenceWarning(UserWarning):
    """A search stopped before it found what it was after."""


class Minimum(NamedTuple):
    """A minimum of L + (λ/2)|θ|² and how well it is one."""

    params: PyTree
    """Where it is, in double precision."""
    loss: float
    """L there, without the weight-decay term."""
    gradient_norm: float
    """Euclidean norm of ∇L + λθ there."""
    converged: bool
    """Whether `gradient_norm` is at most the tolerance asked for."""

    def warn_unless_converged(self, of: str) -> None:
        """Warn (`ConvergenceWarning`) that the quantity `of` is not at a minimum."""
        if not self.converged:
            warnings.warn(
                f"{of}: no minimum was found, the gradient norm reached is "
                f"{self.gradient_norm:.3g}",
                ConvergenceWarning,
                stacklevel=3,
            )


def minimise(
    problem: Problem,
    start: PyTree | None = None,
    *,
    weight_decay: float = 0.0,
    tolerance: float = 1e-8,
    max_iterations: int = 1000,
) -> Minimum:
    """The minimum of L + (λ/2)|θ|² reached from `start` by full-batch descent in float64.

    Least squares is solved exactly. Otherwise a trust-region Newton method (d up to `DENSE_LIMIT`;
    a quadratic takes one step) or L-BFGS above. `tolerance` bounds the gradient norm; the result
    says what was reached, and `converged` whether that is enough: nothing is raised.

    **Arguments:** `start`, a params pytree, by default `problem.initial_params(key(0))`.
    """
    decay = float(non_negative("weight_decay", weight_decay))

    def evaluate(vector):
        value, gradient = in_double_precision(_value_and_gradient, vector, problem, decay)
        return float(value), gradient

    if isinstance(problem, LinearRegression):
        solution = problem.minimiser(decay)
    else:
        origin = problem.initial_params(jax.random.key(0)) if start is None else start
        solution = np.asarray(problem.flatten(origin), dtype=np.float64)
        options: dict = {"maxiter": max_iterations, "gtol": tolerance}
        if problem.dimension <= DENSE_LIMIT:
            solution = minimize(
                evaluate,
                solution,
                jac=True,
                hess=lambda vector: in_double_precision(_curvature, vector, problem, decay),
                method="trust-exact",
                options=options | {"initial_trust_radius": 10.0, "max_trust_radius": 1e6},
            ).x
        else:
            solution = minimize(
                evaluate,
                solution,
                jac=True,
                method="L-BFGS-B",
                options=options | {"ftol": 0.0, "maxfun": 20 * max_iterations, "maxcor": 30},
            ).x
    value, gradient = evaluate(solution)
    norm = float(np.linalg.norm(gradient))
    params = in_double_precision(problem.unflatten, solution)
    loss = value - 0.5 * decay * float(solution @ solution)
    return Minimum(params, loss, norm, norm <= tolerance)


def _objective(vector: Float[Any, " d"], problem: Problem, decay: Any) -> Float[Any, ""]:
    return problem.loss(problem.unflatten(vector)) + 0.5 * decay * (vector @ vector)


_value_and_gradient = jax.value_and_grad(_objective)
_curvature = jax.hessian(_objective)
