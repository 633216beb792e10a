"""Clipped gradients before a linear optimiser: what clips them, how often, and what is left."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq
from scipy.special import ndtr

from statsgd.dynamics.optimiser import OptaxDynamics
from statsgd.laws.minimum.linear_optimiser import (
    LinearOptimiser,
    shortest_form,
    state_size,
    step_and_slope,
)
from statsgd.precision import in_double_precision
from statsgd.problems import Problem

_EXACT = 1e-7  # optax clips by its own bound in single precision
_SCALES = (1e-6, 1e-3, 0.5, 3.0, 1e3)  # of gradients, in bounds
_COUNTS = (0, 100_000)  # of steps taken then
_TINY = 1e-12
_NODE, _WEIGHT = np.polynomial.legendre.leggauss(12)
_FAR = 9.0  # standard deviations
_PANELS = np.linspace(-_FAR, _FAR, 7)
RARE = 1e-3  # share of steps that may be clipped where clipping is left out


class Clipping(NamedTuple):
    """What `optax.clip` (by element) or `optax.clip_by_global_norm` do before anything else."""

    bound: float
    """Loss/params."""
    by_norm: bool

    def apply(self, gradient: Float[Any, " d"]) -> Float[Any, " d"]:
        """The clipped gradient."""
        if self.by_norm:
            return gradient * min(1.0, self.bound / max(float(np.linalg.norm(gradient)), _TINY))
        return np.clip(gradient, -self.bound, self.bound)

    def harmless(self, dimension: int) -> float:
        """A size of elements, normal numbers times it, that is not clipped."""
        return self.bound / (100 * dimension**0.5)

    def share(self, second_moment: Float[Any, "d d"]) -> float:
        """The share of steps that are clipped, for normal g with this E ggᵀ, or somewhat more.

        By the tails of all elements, or of |g|² by the formula of Lugannani and Rice (1980).
        """
        if not self.by_norm:
            with np.errstate(divide="ignore"):
                return float(np.sum(2 * ndtr(-self.bound / np.sqrt(np.diagonal(second_moment)))))
        values, square = np.linalg.eigvalsh(second_moment), self.bound**2
        values = values[values > 0]
        if square <= values.sum():
            return float(len(values) > 0)

        def slope(t: float) -> float:
            return float(np.sum(values / (1 - 2 * t * values))) - square

        t = float(brentq(slope, 0.0, (1 - values[-1] / (2 * square)) / (2 * values[-1])))
        w = np.sqrt(2 * t * square + np.sum(np.log1p(-2 * t * values)))
        u = t * np.sqrt(2 * np.sum((values / (1 - 2 * t * values)) ** 2))
        return float(ndtr(-w) + _density(w) * (1 / u - 1 / w))

    def require_rare(self, second_moment: Float[Any, "d d"], must: str, otherwise: str) -> None:
        """Raise `ValueError` where more than a thousandth of steps are clipped."""
        share = self.share(second_moment) if np.all(np.isfinite(second_moment)) else 0.0
        if share > RARE:
            raise ValueError(
                f"the optimiser must {must}, but {self} is reached in up to a share {share:.2g} of "
                f"steps, above {RARE:g}; {otherwise}"
            )

    def __str__(self) -> str:
        kind = "global norm" if self.by_norm else "element"
        return f"clipping of gradients by {kind} at {self.bound:.6g}"


def clipped_covariance(covariance: Float[Any, "d d"], bound: float) -> Float[Any, "d d"]:
    """Covariance of the elements of a centred normal vector, each clipped at ±`bound`.

    E clip(x) E[clip(y)|x], by Gauss–Legendre in x between the kinks.
    """
    sigma = np.sqrt(np.diagonal(covariance))
    unit = np.where(sigma > 0, sigma, 1.0)
    edge = np.minimum(bound / unit, _FAR)
    kinks = np.stack([-edge, edge], axis=-1)
    ends = np.sort(np.concatenate([np.tile(_PANELS, (len(edge), 1)), kinks], axis=-1), axis=-1)
    half = np.diff(ends)[..., None] / 2
    x = (ends[:, :-1, None] + half + half * _NODE).reshape(len(edge), -1)
    weight = (half * _WEIGHT).reshape(len(edge), -1) * _density(x)
    own = weight * np.clip(x, -edge[:, None], edge[:, None])
    rows = []
    for i in range(len(edge)):
        rho = np.clip(covariance[i] / (unit[i] * unit), -1, 1)[:, None]
        spread = np.sqrt(np.maximum(1 - rho**2, _TINY))
        mean, a = rho * x[i], edge[:, None]
        low, high = (-a - mean) / spread, (a - mean) / spread
        inside = mean * (ndtr(high) - ndtr(low)) + spread * (_density(low) - _density(high))
        rows.append((inside + a * (ndtr(-high) - ndtr(low))) @ own[i] * unit[i] * unit)
    found = np.array(rows)
    return (found + found.T) / 2


def clipping_of(
    dynamics: OptaxDynamics, problem: Problem
) -> tuple[Clipping, LinearOptimiser] | None:
    """The clipping that stands before a linear optimiser, and that one; None where none does.

    Found from updates alone: linear in small gradients, constant along rays once they are clipped.
    """
    d, size = problem.dimension, state_size(dynamics, problem)
    rng = np.random.default_rng(0)

    def after(state: Any, gradient: Any, number: int = 0) -> tuple[Any, Any]:
        point = np.concatenate([state, gradient])
        return in_double_precision(step_and_slope, point, problem, dynamics, np.asarray(number))

    rest, along = np.zeros(size), np.ones(d)
    small, slope = after(rest, _TINY * along)
    large, _ = after(rest, along / _TINY)
    ratio = np.linalg.norm(large) / max(float(np.linalg.norm(small)), 1e-300)
    if not (np.all(np.isfinite(large)) and 1 < ratio < _TINY**-1.5):
        return None
    reach = float(ratio) * _TINY
    for clipping in (Clipping(reach, False), Clipping(reach * d**0.5, True)):

        def agrees(scale: float, number: int, clipping: Clipping = clipping) -> bool:
            state, gradient = rng.normal(size=size), scale * clipping.bound * rng.normal(size=d)
            found, _ = after(state, gradient, number)
            wanted = slope @ np.concatenate([state, clipping.apply(gradient)])
            off = np.max(np.abs(found - wanted))
            return bool(off <= _EXACT * np.max(np.abs(wanted)))

        if all(agrees(scale, number) for scale in _SCALES for number in _COUNTS):
            return clipping, LinearOptimiser(*shortest_form(slope[:, :size], slope[:, size:]))
    return None


def _density(x: Any) -> Any:
    return np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)
