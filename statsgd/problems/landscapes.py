"""Losses without data on which laws and escape times are known: wells, valleys, quadratics."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from statsgd.arguments import finite_array, is_traced, non_negative, positive, symmetric
from statsgd.problems.problem import Landscape, Problem, landscape
from statsgd.problems.regression import LinearRegression
from statsgd.problems.risk import PopulationRisk, population_risk

# Where the losses use their numbers, these get the dtype of the parameters: JAX 0.12 mixes up the
# precision of NumPy arrays that traces have captured under both settings of enable_x64.


def like(params: Any, number: Any) -> Array:
    """`number` as an array of the dtype of `params`."""
    return jnp.asarray(number, dtype=jnp.asarray(params).dtype)


class Quadratic(eqx.Module):
    """½(θ−θ*)ᵀH(θ−θ*)."""

    hessian: Float[Any, "d d"]
    minimiser: Float[Any, " d"]

    def __call__(self, params: Float[Any, " d"]) -> Float[Any, ""]:
        """The loss at `params`."""
        deviation = params - like(params, self.minimiser)
        return 0.5 * deviation @ like(params, self.hessian) @ deviation


class SmoothWells(eqx.Module):
    """½[x(1−x)(1+ax²)]²."""

    asymmetry: Float[Any, ""]

    def __call__(self, params: Float[Any, " 1"]) -> Float[Any, ""]:
        """The loss at `params`."""
        x = params[0]
        return 0.5 * (x * (1 - x) * (1 + like(x, self.asymmetry) * x**2)) ** 2


class ValleyWells(eqx.Module):
    """(x²−1)²/4 + ½k(x)y² with k = k₋ at x = −1 and k₊ at x = +1."""

    flat: Float[Any, ""]
    sharp: Float[Any, ""]

    def curvature(self, x: Float[Any, ""]) -> Float[Any, ""]:
        """k(x), the curvature across the valley."""
        flat, sharp = like(x, self.flat), like(x, self.sharp)
        middle, swing = (flat + sharp) / 2, (sharp - flat) / 2
        return middle + swing * jnp.tanh(2 * x) / np.tanh(2.0)

    def __call__(self, params: Float[Any, " 2"]) -> Float[Any, ""]:
        """The loss at `params`."""
        x, y = params
        return (x**2 - 1) ** 2 / 4 + 0.5 * self.curvature(x) * y**2


class KinkedWells(eqx.Module):
    """h_f(x+1)²/2 + Δ left of where it meets h_s(x−1)²/2, and that right of it."""

    flat: Float[Any, ""]
    sharp: Float[Any, ""]
    height: Float[Any, ""]

    def split(self) -> Float[Any, ""]:
        """Where the parabolas meet between the wells; (√h_s−√h_f)/(√h_s+√h_f) at equal heights."""
        # (h_s−h_f)x² − 2(h_s+h_f)x + (h_s−h_f−2Δ) = 0, the root that stays finite at h_s = h_f.
        total, difference = self.sharp + self.flat, self.sharp - self.flat
        constant = difference - 2 * self.height
        return constant / (total + (total**2 - difference * constant) ** 0.5)

    def __call__(self, params: Float[Any, " 1"]) -> Float[Any, ""]:
        """The loss at `params`."""
        x = params[0]
        left = like(x, self.flat) * (x + 1) ** 2 / 2 + like(x, self.height)
        right = like(x, self.sharp) * (x - 1) ** 2 / 2
        return jnp.where(x < like(x, self.split()), left, right)


def quadratic(hessian: Any, minimiser: Any = None) -> Landscape:
    """The quadratic ½(θ−θ*)ᵀH(θ−θ*), started at θ* (zero by default); params are `(d,)`.

    >>> import numpy as np
    >>> float(quadratic(np.diag([2.0, 1.0])).loss(np.ones(2)))
    1.5
    """
    matrix = symmetric("hessian", hessian)
    d = matrix.shape[0]
    place = np.zeros(d) if minimiser is None else finite_array("minimiser", minimiser, ndim=1)
    if place.shape != (d,):
        raise ValueError(f"minimiser must have shape ({d},), got {place.shape}")
    return landscape(Quadratic(matrix, np.asarray(place, dtype=np.float64)), place)


def quadratic_form(problem: Problem) -> Quadratic | None:
    """Hessian and minimiser of a problem that is known to be quadratic."""
    if isinstance(problem, LinearRegression) and not is_traced(problem):
        return Quadratic(problem.hessian_matrix(), problem.minimiser())
    if isinstance(problem, Landscape) and isinstance(problem.function, Quadratic):
        return problem.function
    return None


def smooth_wells(asymmetry: Any = 2.0, start: float = 0.0) -> Landscape:
    """Two smooth wells of equal height, L = ½[x(1−x)(1+ax²)]², a = `asymmetry` ≥ 0.

    Minima at 0 (curvature 1, flat) and 1 (curvature (1+a)², sharp). As τ → 0 the Gibbs law puts
    the mass (1+a)/(2+a) in the flat well. Params have shape `(1,)`. For a = 2 the saddle lies at
    0.6585913, with barrier 0.0881587 and curvature −1.892382.

    >>> smooth_wells().dimension
    1
    """
    return landscape(SmoothWells(non_negative("asymmetry", asymmetry)), np.array([start]))


def valley_wells(flat: Any = 1.0, sharp: Any = 9.0, start: Any = (-1.0, 0.0)) -> Landscape:
    """A flat and a sharp well in the plane, L = (x²−1)²/4 + ½k(x)y².

    k = (k₋+k₊)/2 + (k₊−k₋)/2 · tanh(2x)/tanh 2 is `flat` k₋ at the minimum (−1, 0) and `sharp` k₊
    at (1, 0); the saddle is (0, 0), 1/4 above. The Gibbs marginal of x is exactly proportional to
    exp(−(x²−1)²/(4τ)) k(x)^(−1/2). Both curvatures must keep k positive for all x.

    >>> valley_wells().dimension
    2
    """
    loss = ValleyWells(positive("flat", flat), positive("sharp", sharp))
    middle, swing = (loss.flat + loss.sharp) / 2, abs(loss.sharp - loss.flat) / 2
    if swing >= middle * np.tanh(2.0):
        raise ValueError(
            "flat and sharp must differ by a factor below 55, so that the valley stays a valley, "
            f"got {float(loss.flat)} and {float(loss.sharp)}"
        )
    return landscape(loss, np.asarray(start, dtype=np.float64))


def kinked_wells(
    flat: Any = 1.0, sharp: Any = 9.0, height: Any = 0.0, start: float = -1.0
) -> Landscape:
    """Two parabolas cut where they meet: h_f(x+1)²/2 + Δ on the left, h_s(x−1)²/2 on the right.

    The cut is between the minima −1 and 1. (The smaller of the two parabolas is the same function
    between the wells, but not far out, where the flatter one is below again.) Params are `(1,)`.
    Raises `ValueError` unless Δ < 2h_s: the left minimum would lie above the right parabola.

    Its Gibbs law is a mixture of two truncated normals (`laws.KinkedWellsGibbs`). The discrete
    chain feels the kink strongly, so it is a test for laws and samplers and not for SGD.

    >>> float(kinked_wells().loss([-1.0])), float(kinked_wells().loss([1.0]))
    (0.0, 0.0)
    """
    return landscape(kinked_loss(flat, sharp, height), np.array([start]))


def kinked_loss(flat: Any, sharp: Any, height: Any) -> KinkedWells:
    """The loss of `kinked_wells`, with its arguments checked."""
    loss = KinkedWells(
        positive("flat", flat), positive("sharp", sharp), non_negative("height", height)
    )
    if not is_traced(loss) and loss.height >= 2 * loss.sharp:
        raise ValueError(
            f"height must be below 2*sharp = {2 * float(loss.sharp):.6g}, so that there are two "
            f"wells, got {float(loss.height):.6g}"
        )
    return loss


def quartic_wells(start: float = -1.0) -> Landscape:
    """The symmetric double well x⁴/4 − x²/2: minima ±1, barrier 1/4 at 0; params `(1,)`.

    >>> problem = quartic_wells()
    >>> float(problem.loss([1.0])), float(problem.loss([0.0]))
    (-0.25, 0.0)
    """
    return landscape(_quartic_wells, np.array([start]))


def tilted_quartic(start: float = -2.9035340278) -> Landscape:
    """Two unequal wells, ½(x⁴ − 16x² + 5x); params `(1,)`.

    Minima −2.9035340278 (the deeper one) and 2.7468027710, saddle 0.1567312568, barrier 39.3617781
    from the deeper one.

    >>> tilted_quartic().dimension
    1
    """
    return landscape(_tilted_quartic, np.array([start]))


def shifted_tilted_quartic(shift_std: Any, start: float = -2.35191) -> PopulationRisk:
    """Fresh examples of the tilted quartic shifted by data, f(θ − x) with x ~ N(0, s²).

    The mean loss is ½(θ⁴ − (16−6s²)θ² + 5θ) up to a constant, and one example's gradient has the
    variance s²(6θ²+6s²−16)² + 72θ²s⁴ + 24s⁶; params `(1,)`, `shift_std` s > 0.

    >>> import numpy as np
    >>> problem = shifted_tilted_quartic(0.1)
    >>> problem.dimension, round(float(problem.loss(np.array([1.0]))), 2)
    (1, -5.05)
    """
    s = float(positive("shift_std", shift_std))

    def draw_example(key: PRNGKeyArray) -> Float[Any, ""]:
        return s * jax.random.normal(key)

    def mean_loss(params: Float[Any, " 1"]) -> Float[Any, ""]:
        x = params[0]
        return 0.5 * (x**4 - (16 - 6 * s**2) * x**2 + 5 * x + 3 * s**4 - 16 * s**2)

    return population_risk(
        lambda params, shift: _tilted_quartic(params - shift),
        draw_example,
        np.array([start]),
        exact_loss=mean_loss,
    )


def _quartic_wells(params: Float[Any, " 1"]) -> Float[Any, ""]:
    x = params[0]
    return x**4 / 4 - x**2 / 2


def _tilted_quartic(params: Float[Any, " 1"]) -> Float[Any, ""]:
    x = params[0]
    return 0.5 * (x**4 - 16 * x**2 + 5 * x)
