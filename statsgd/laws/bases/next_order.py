"""What finite steps do to the law of a chain on the line, to the order after the diffusion limit.

A chain whose steps have moments m₁…m₄ at s leaves a density p as it is where its flux vanishes,

    0 = −m₁p + (m₂p)'/2 − (m₃p)''/6 + (m₄p)'''/24 − …

The diffusion limit is the first two terms, with moments to leading order in the step. With its
density p₀ for p in the other two,

    (log p)' = (2m₁ − m₂')/m₂ + ((m₃p₀)''/3 − (m₄p₀)'''/12)/(m₂p₀)

The law of the chain is then off by the square of the step where noise has no skewness, and by the
step itself, instead of its root, where it has. Derived.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy.interpolate import make_interp_spline

from statsgd.laws.law import require_accurate
from statsgd.precision import over_points

_KNOTS, _MOST = 1001, 8001
_RESOLVED = 1e-6
_FAR = 1.0  # lengths √m₂ on which p₀ changes by a factor e, from which on steps are no longer short


class NextOrder(eqx.Module):
    """log p/p₀ along s: a cubic between knots, constant beyond them."""

    knots: Float[Any, " n"]
    values: Float[Any, " n"]
    slopes: Float[Any, " n"]
    error: Float[Any, ""]
    """Relative, of p: the mean under p₀ of what half as many knots change."""

    def __call__(self, s: Any) -> Any:
        """log p/p₀, up to a constant, in JAX."""
        knots, values, slopes = (jnp.asarray(x) for x in (self.knots, self.values, self.slopes))
        step = (knots[-1] - knots[0]) / (len(self.knots) - 1)
        place = jnp.clip((s - knots[0]) / step, 0, len(self.knots) - 1)
        cell = jnp.clip(jnp.floor(place).astype(int), 0, len(self.knots) - 2)
        u = place - cell
        rise = values[cell + 1] - values[cell]
        left, right = (step * slopes[cell + i] for i in (0, 1))
        inner = left + u * (3 * rise - 2 * left - right + u * (left + right - 2 * rise))
        return values[cell] + u * inner


def next_order(
    log_density: Callable[[Any], Any],
    moments: Callable[[Any], tuple[Any, Any, Any, Any]],
    low: float,
    center: float,
    high: float,
) -> NextOrder:
    """The correction on (`low`, `high`), of functions of s in JAX that do not change with calls.

    **Arguments:** `log_density` log p₀, up to a constant; `moments` m₁…m₄ of one step; `center`,
    where steps are short.

    Where a step is longer than the lengths on which p₀ changes by e, far out in its tails, nothing
    is corrected: there is no expansion. Knots are doubled from 1001 to 8001 until p is resolved to
    10⁻⁶. Warns with `UnresolvedWarning` above 10⁻³, and raises `IntractableError` above a tenth.
    """
    rough = _on_knots(log_density, moments, np.linspace(low, high, _KNOTS // 2 + 1), center)[1]
    number = _KNOTS
    while True:
        knots = np.linspace(low, high, number)
        height, fine, slopes = _on_knots(log_density, moments, knots, center)
        density = np.exp(height - np.max(height))
        weights, change = density[::2], fine[::2] - rough
        off = np.average(np.abs(change - np.average(change, weights=weights)), weights=weights)
        # Knots that miss the density itself would see no change.
        off += abs(2 * np.sum(weights) / np.sum(density) - 1) / 2
        if off <= _RESOLVED or number == _MOST:
            require_accurate("discrete correction", off)
            return NextOrder(knots, fine, slopes, off)
        rough, number = fine, 2 * number - 1


def _on_knots(
    log_density: Any, moments: Any, knots: Float[np.ndarray, " n"], center: float
) -> tuple[Float[np.ndarray, " n"], ...]:
    """log p₀, log p/p₀ and its slope at `knots`."""
    height, m1, m2, m3, m4 = over_points(_at, knots[:, None], log_density, moments)
    _, slope, bend, turn = _derivatives(knots, height)
    # Second and third derivative of p₀, over p₀.
    twice, thrice = bend + slope**2, turn + 3 * slope * bend + slope**3
    third, fourth = _derivatives(knots, m3), _derivatives(knots, m4)
    skewed = third[2] + 2 * third[1] * slope + third[0] * twice
    peaked = fourth[3] + 3 * fourth[2] * slope + 3 * fourth[1] * twice + fourth[0] * thrice
    drift = (2 * m1 - _derivatives(knots, m2)[1]) / m2
    slopes = drift + (skewed / 3 - peaked / 12) / m2 - slope
    far = ~(np.isfinite(slopes) & (np.abs(slope) * np.sqrt(m2) <= _FAR))
    place = np.arange(len(knots))
    first = place[far & (knots < center)].max(initial=-1)
    last = place[far & (knots >= center)].min(initial=len(knots))
    slopes = np.where((place > first) & (place < last), slopes, 0.0)
    rises = (slopes[1:] + slopes[:-1]) / 2 * np.diff(knots)
    return height, np.concatenate([[0.0], np.cumsum(rises)]), slopes


def _at(point: Float[Any, " 1"], log_density: Any, moments: Any) -> tuple[Any, ...]:
    return log_density(point[0]), *moments(point[0])


def _derivatives(knots: Float[Any, " n"], values: Float[Any, " n"]) -> list[Float[Any, " n"]]:
    """A smooth function and its first three derivatives, by a spline of seventh degree."""
    spline = make_interp_spline(knots, values, k=7)
    return [spline(knots, nu=order) for order in range(4)]
