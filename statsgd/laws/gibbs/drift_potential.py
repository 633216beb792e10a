"""The potential of the drift on the line, ψ' = L'/D, for any diffusion."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree

from statsgd.arguments import positive
from statsgd.laws.bases.antiderivative import Antiderivative
from statsgd.precision import over_points
from statsgd.problems import Problem

type DiffusionOnLine = Callable[[PyTree], Float[Any, ""]]

_RESOLVED = 1e-11  # error of ψ in a cell


@dataclass(frozen=True)
class DriftPotential:
    """ψ from `origin`: L/D where D is a number, else an integral that is resolved adaptively."""

    problem: Problem
    diffusion: Any
    origin: float
    line: Antiderivative | None
    error: float
    """Largest error of a difference of ψ, from quadrature."""

    @classmethod
    def of(cls, problem: Problem, diffusion: Any, origin: float, end: float) -> "DriftPotential":
        """ψ between `origin` and `end`."""
        if not callable(diffusion):
            return cls(problem, float(positive("diffusion", diffusion)), origin, None, 0.0)

        def slope(s: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
            return over_points(_slope_from, s[:, None], problem, diffusion, origin)

        low, high = sorted((0.0, float(end - origin)))
        line = Antiderivative.of(slope, low, high, _RESOLVED)
        return cls(problem, diffusion, origin, line, float(line.error_between(low, high)))

    def __call__(self, x: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """ψ at every x."""
        if self.line is None:
            losses = over_points(_loss, np.append(x, self.origin)[:, None], self.problem)
            return (losses[:-1] - losses[-1]) / self.diffusion
        data = (self.line, self.problem, self.diffusion, self.origin)
        return over_points(_potential, (x - self.origin)[:, None], *data)


def derivatives_on_line(
    problem: Problem, x: Float[Any, " n"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """L, L' and L'' of a problem with one parameter at every x, in float64."""
    return over_points(_derivatives, np.asarray(x)[:, None], problem)


def diffusion_on_line(diffusion: Any) -> Callable[[np.ndarray], np.ndarray]:
    """D at every x, in float64, of a number or a function of params."""
    if not callable(diffusion):
        constant = float(positive("diffusion", diffusion))
        return lambda x: np.full(len(x), constant)
    return lambda x: over_points(_diffusion, np.asarray(x)[:, None], diffusion)


def _loss(params: Float[Any, " 1"], problem: Problem) -> Float[Any, ""]:
    return problem.loss(problem.unflatten(params))


def _derivatives(params: Float[Any, " 1"], problem: Problem) -> tuple[Any, Any, Any]:
    def loss(value):
        return _loss(value[None], problem)

    slope = jax.grad(loss)
    return loss(params[0]), slope(params[0]), jax.grad(slope)(params[0])


def _diffusion(params: Float[Any, " 1"], diffusion: DiffusionOnLine) -> Float[Any, ""]:
    return jnp.reshape(diffusion(params), ())


def _slope_from(
    offset: Float[Any, " 1"], problem: Problem, diffusion: DiffusionOnLine, origin: Any
) -> Float[Any, ""]:
    place = origin + offset
    return jax.grad(_loss)(place, problem)[0] / _diffusion(place, diffusion)


def _potential(
    offset: Float[Any, " 1"],
    line: Antiderivative,
    problem: Problem,
    diffusion: DiffusionOnLine,
    origin: Any,
) -> Float[Any, ""]:
    return line.at(offset[0], lambda s: _slope_from(s[None], problem, diffusion, origin))
