"""The minimum of a problem, with the gradient norm it was found to."""

import contextlib
import contextvars
import time
import warnings
from collections.abc import Callable, Hashable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree
from scipy.optimize import minimize

from statsgd.arguments import kinds_checked, non_negative
from statsgd.precision import in_double_precision
from statsgd.problems.curvature import DENSE_LIMIT, dense_hessian
from statsgd.problems.problem import Problem
from statsgd.problems.regression import LinearRegression

#: Parameters up to which Hessians cost no more than the steps that they save far from a minimum.
_NEWTON_ALONE = 200


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


class SearchStoppedError(ValueError):
    """A search took longer than it was given."""


class _Shared:
    """What was computed at minima so far, and until when more may be searched for."""

    def __init__(self, seconds: float | None):
        self.known: dict[Hashable, Any] = {}
        self.alive: list[Any] = []
        """What the keys name by identity, kept so that no other object takes it."""
        self.seconds = seconds
        self.end = None if seconds is None else time.monotonic() + seconds


_SHARED: contextvars.ContextVar[_Shared | None] = contextvars.ContextVar("shared", default=None)


@contextlib.contextmanager
def shared_minima(seconds: float | None = None) -> Iterator[None]:
    """Within it no minimum, and nothing at one, is computed twice, in `seconds` altogether.

    A search that goes on for longer raises `SearchStoppedError`, as do all after it.
    """
    token = _SHARED.set(_Shared(seconds))
    try:
        yield
    finally:
        _SHARED.reset(token)


def shared[T](compute: Callable[[], T], of: tuple[Any, ...], *settings: Hashable) -> T:
    """`compute()`, or what it gave before for the same objects and settings (`shared_minima`)."""
    memory = _SHARED.get()
    if memory is None:
        return compute()
    key = (*map(id, of), *settings)
    if key not in memory.known:
        memory.alive.extend(of)
        try:
            memory.known[key] = compute()
        except SearchStoppedError as stopped:
            memory.known[key] = stopped
    found = memory.known[key]
    if isinstance(found, SearchStoppedError):
        raise found
    return found


@kinds_checked
def minimise(
    problem: Problem,
    start: PyTree | None = None,
    *,
    weight_decay: float = 0.0,
    tolerance: float = 1e-8,
    max_iterations: int = 1000,
) -> Minimum:
    """The minimum of L + (λ/2)|θ|² reached from `start` by full-batch descent in float64.

    Least squares is solved exactly. Otherwise L-BFGS (d above 200), and then a trust-region Newton
    method (d up to `DENSE_LIMIT`; a quadratic takes one step). `tolerance` bounds the gradient
    norm; the result says what was reached, and `converged` whether that is enough: nothing is
    raised.

    >>> from statsgd.problems import landscape
    >>> minimum = minimise(landscape(lambda x: (x[0] - 1.0) ** 2, [0.0]))
    >>> minimum.params, minimum.converged
    (array([1.]), True)

    **Arguments:** `start`, a params pytree, by default `problem.initial_params(key(0))`.
    """
    decay = float(non_negative("weight_decay", weight_decay))

    def found() -> Minimum:
        return _minimised(problem, start, decay, tolerance, max_iterations)

    if start is not None:
        return found()
    return shared(found, (problem,), decay, tolerance, max_iterations)


def _minimised(
    problem: Problem, start: PyTree | None, decay: float, tolerance: float, max_iterations: int
) -> Minimum:
    memory = _SHARED.get()

    def evaluate(vector):
        if memory is not None and memory.end is not None and time.monotonic() > memory.end:
            raise SearchStoppedError(
                f"no minimum was found within {memory.seconds:g} s: raise seconds, or give at="
            )
        value, gradient = in_double_precision(_value_and_gradient, vector, problem, decay)
        return float(value), gradient

    if isinstance(problem, LinearRegression):
        solution = problem.minimiser(decay)
    else:
        origin = problem.initial_params(jax.random.key(0)) if start is None else start
        solution = np.asarray(problem.flatten(origin), dtype=np.float64)
        options: dict = {"maxiter": max_iterations, "gtol": tolerance}
        newton = problem.dimension <= DENSE_LIMIT
        if problem.dimension > _NEWTON_ALONE:
            near = {"gtol": tolerance**0.5 if newton else tolerance, "ftol": 0.0}
            solution = minimize(
                evaluate,
                solution,
                jac=True,
                method="L-BFGS-B",
                options=options | near | {"maxfun": 20 * max_iterations, "maxcor": 30},
            ).x
        if newton:
            solution = minimize(
                evaluate,
                solution,
                jac=True,
                hess=lambda vector: in_double_precision(_curvature, vector, problem, decay),
                method="trust-exact",
                options=options | {"initial_trust_radius": 10.0, "max_trust_radius": 1e6},
            ).x
    value, gradient = evaluate(solution)
    norm = float(np.linalg.norm(gradient))
    params = in_double_precision(problem.unflatten, solution)
    loss = value - 0.5 * decay * float(solution @ solution)
    return Minimum(params, loss, norm, norm <= tolerance)


def _objective(vector: Float[Any, " d"], problem: Problem, decay: Any) -> Float[Any, ""]:
    return problem.loss(problem.unflatten(vector)) + 0.5 * decay * (vector @ vector)


_value_and_gradient = jax.value_and_grad(_objective)


def _curvature(vector: Float[Any, " d"], problem: Problem, decay: Any) -> Float[Any, "d d"]:
    return dense_hessian(problem, problem.unflatten(vector)) + decay * jnp.eye(vector.shape[0])
