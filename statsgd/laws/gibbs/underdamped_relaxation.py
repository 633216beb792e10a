"""How fast the law of SGD with momentum is reached: the gap of the underdamped equation."""

import warnings
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import sparse
from scipy.sparse.linalg import LinearOperator, eigs, splu

from statsgd.arguments import kinds_checked, positive
from statsgd.laws.bases.tabulated import find_support
from statsgd.laws.gibbs.escape import derivatives_on_line
from statsgd.laws.law import UnresolvedWarning
from statsgd.problems import Problem

_POINTS = 4000
_SIZES = ((12, 24), (24, 40), (32, 56))  # numbers of functions of velocity and position
_TOLERANCE = 1e-4


@kinds_checked
def underdamped_gap_1d(problem: Problem, temperature: Any, friction: Any) -> float:
    """The rate at which dθ = z dt, dz = −L'dt − μz dt + √(2μτ)dW forgets its start, one parameter.

    The least −Re of the eigenvalues of its generator but zero; those of wells turn where friction
    is small. With orthonormal polynomials of p ∝ exp(−L/τ) and Hermite functions of z, a lowering
    these, it is

        √τ (a†∂ − a∂†) − μ a†a

    For L = hθ²/2 the gap is μ/2 − Re √(μ²/4 − h): half the friction where the well turns. SGD with
    momentum is near this equation in the time √η k, with μ = (1−β)/√η and τ = ηc/(2(1−β)).

    **Arguments:** `problem` with a smooth loss, d = 1; `temperature` τ and `friction` μ, 1/time.
    Returns 1/time.

    Warns with `UnresolvedWarning` where a smaller basis differs by more than 10⁻⁴ of the gap: for
    barriers of more than about ten temperatures, and for little friction. Raises `ValueError` for
    d ≠ 1 and `ImproperLawError` if there is no stationary law.

    Source: derived.

    >>> import numpy as np
    >>> from statsgd.problems import quadratic
    >>> round(underdamped_gap_1d(quadratic(np.eye(1)), temperature=0.1, friction=1.0), 4)  # μ/2
    0.5
    """
    if problem.dimension != 1:
        raise ValueError(f"problem must have one parameter, got d = {problem.dimension}")
    tau = float(positive("temperature", temperature))
    mu = float(positive("friction", friction))
    low, high, _, _ = find_support(lambda x: derivatives_on_line(problem, x)[0] / tau)
    points = np.linspace(float(low), float(high), _POINTS)
    loss = derivatives_on_line(problem, points)[0] / tau
    weights = np.exp(np.min(loss) - loss)
    slope = np.sqrt(tau) * _derivative(points, weights / np.sum(weights), _SIZES[-1][1])
    # All eigenvalues of the smallest basis: the slowest may turn, far from zero behind others.
    slowest, gaps = None, []
    for velocities, places in _SIZES:
        slowest = _slowest(_generator(slope[:places, :places], mu, velocities), slowest)
        gaps.append(-slowest.real)
    coarse, gap = gaps[1:]
    if abs(gap - coarse) > _TOLERANCE * gap:
        warnings.warn(
            f"the gap {gap:.4g} is off by about {abs(gap - coarse):.2g} in a basis of {_SIZES[-1]} "
            "functions",
            UnresolvedWarning,
            stacklevel=2,
        )
    return gap


def _generator(slope: Float[Any, "n n"], friction: float, velocities: int) -> Any:
    """The generator without the constant, which nothing leads to or away from."""
    lower = sparse.diags_array(np.sqrt(np.arange(1.0, velocities)), offsets=1)
    damping = sparse.kron(sparse.diags_array(np.arange(velocities) * 1.0), np.eye(len(slope)))
    whole = sparse.kron(lower.T, slope) - sparse.kron(lower, slope.T) - friction * damping
    return sparse.csc_array(whole)[1:, 1:]


def _slowest(generator: Any, near: complex | None) -> complex:
    """The eigenvalue of largest real part; in a larger basis, the one near that of a smaller."""
    if near is None:
        values = np.linalg.eigvals(generator.toarray())
        return complex(values[np.argmax(values.real)])
    size = generator.shape[0]
    shift = near * (1 + 1e-6)  # beside the eigenvalue, where it is one already
    shifted = sparse.csc_array(generator - shift * sparse.eye_array(size))
    factors = splu(shifted, permc_spec="NATURAL")  # it is banded
    inverse = LinearOperator((size, size), factors.solve, dtype=np.complex128)
    start = np.random.default_rng(0).standard_normal(size).astype(np.complex128)
    found = eigs(inverse, k=1, which="LM", v0=start, return_eigenvectors=False)
    return complex(shift + 1 / found[0])


def _derivative(points: Any, weights: Any, number: int) -> Float[Any, "n n"]:
    """∂ between the first `number` orthonormal polynomials of a law known by its quadrature."""
    values, slopes = np.ones((1, len(points))), np.zeros((1, len(points)))
    centred = points - weights @ points
    for _ in range(1, number):
        value, slope = centred * values[-1], values[-1] + centred * slopes[-1]
        for _ in range(2):  # once more against rounding
            shares = values @ (weights * value)
            value, slope = value - shares @ values, slope - shares @ slopes
        size = np.sqrt(weights @ value**2)
        values = np.concatenate([values, value[None] / size])
        slopes = np.concatenate([slopes, slope[None] / size])
    return np.triu((values * weights) @ slopes.T, 1)
