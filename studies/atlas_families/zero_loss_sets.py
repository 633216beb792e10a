"""Laws of noise that vanishes with the loss, in enough dimensions to leave a set of zero loss."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from statsgd import SGD, noise
from statsgd.comparison import Marginal
from statsgd.laws import SaturatingLossScaledLaw, StrataLaw, TorusPowerOfLossLaw
from statsgd.laws.loss_noise.torus import cosine_loss
from statsgd.problems import Problem, landscape, landscapes
from studies.atlas_families.family import (
    DRAWS_A_RUN,
    AtlasCell,
    Effort,
    between,
    register,
    simulated,
    within,
)

_STEPS = (0.01, 0.03, 0.1, 0.3, 1.0, 1.6)
_STRENGTHS = (10.0, 16.0, 32.0)
_CODIMENSION = 3  # of the points and the segment of zero loss


def _stationary(density: Callable[[Any, Any], Any], points: Float[Any, " n"]) -> Float[Any, " n"]:
    """Masses, at evenly spaced points, of the stationary law of a chain with this density."""
    matrix = density(points[:, None], points)
    matrix /= matrix.sum(axis=1, keepdims=True)
    equations = matrix.T - np.eye(len(points))
    equations[-1] = 1.0
    return np.linalg.solve(equations, np.eye(len(points))[-1])


def _radial_chain(step: float, strength: float, coarseness: float = 1.0) -> Marginal:
    """The exact law of |θ| for SGD with noise σL/(1 + L) on L = |θ|²/2 in three dimensions.

    A step to θ' ~ N((1−η)θ, s²I) moves r = |θ| to a noncentral χ variable with m = (1−η)r:

        f(r') = r' (e^(−(r'−m)²/2s²) − e^(−(r'+m)²/2s²)) / (√(2π) m s)

    r = √2 log(1 + e^w), so that a step is about as long in w for small r as for large. Points lie
    half the standard deviation of a step apart, times `coarseness`.
    """
    spacing = coarseness * min(0.05, 0.5 * np.sqrt(step * strength / 2))
    power = 1 - 4 / strength  # P(|θ| < r) falls as r to this power
    w = np.arange(np.log(1e-6) / power, 15 + strength / 4, spacing)
    radius = np.sqrt(2) * np.logaddexp(0, w)
    steepness = 1 / (1 + np.exp(-w))

    def density(start: Any, end: Any) -> Any:
        now, then = (np.sqrt(2) * np.logaddexp(0, x) for x in (start, end))
        loss = now**2 / 2
        spread = np.sqrt(step * strength * loss / (1 + loss))
        mean = np.maximum(abs(1 - step) * now, 1e-9 * spread)
        gap = -np.expm1(-2 * then * mean / spread**2)
        return np.exp(-0.5 * ((then - mean) / spread) ** 2) * gap / mean * then * steepness

    masses = _stationary(density, w)
    edges = np.sqrt(2) * np.logaddexp(0, np.append(w - spacing / 2, w[-1] + spacing / 2))
    cumulative = np.concatenate([[0.0], np.cumsum(masses)])
    return Marginal(
        lambda x: np.interp(x, edges, cumulative), 0.0, float(radius[cumulative[1:] < 1 - 1e-9][-1])
    )


def _saturating(step: float, strength: float) -> tuple[Problem, SGD, Any]:
    problem = landscapes.quadratic(np.eye(_CODIMENSION))
    sgd = SGD(step, noise.LossScaled(strength / step, saturation=1.0))
    return problem, sgd, SaturatingLossScaledLaw.from_sgd(problem, sgd)


@register(
    law="SaturatingLossScaledLaw",
    problem="quadratic loss in three dimensions, noise σL/(1 + L/L_sat)",
    coordinate="the distance from the minimum",
    truth="the exact law of the chain of distances on a grid",
    axes={"ηh": _STEPS, "ησ": (5.0, 6.0, 8.0, 16.0)},
    domain="ηh/(1 − 2α/q) ≤ 0.1 and ηh√q ≤ 0.25, with α = 1 + 2/(ησ) and q = 3",
    valid=within(_saturating),
)
def saturating(effort: Effort, step: float, strength: float) -> AtlasCell:
    """Above the critical noise ησ = 4; the mass gathers at the minimum as it is approached."""
    _, _, law = _saturating(step, strength)
    law.require_proper()
    of_loss = law.loss_law
    upper = float(np.sqrt(2 * of_loss.quantile(1 - 1e-9)))
    truth, rough = (_radial_chain(step, strength, coarseness) for coarseness in (1.0, 2.0))
    predicted = Marginal(lambda r: of_loss.cdf(np.maximum(r, 0) ** 2 / 2), 0.0, upper)
    error = between(truth, rough, truth.places[::8])
    return AtlasCell(truth, predicted, truth_error=error)


def _steps(step: float, strength: float) -> int:
    """Three relaxation times at the set of zero loss, ε(q − 2α)²/16 each, and at least t = 8."""
    rate = strength * (_CODIMENSION - 2 - 4 / strength) ** 2 / 16
    return int(np.ceil(max(3 / rate, 8.0) / step))


def _run(
    effort: Effort, step: float, strength: float, law: Any, loss: Any, saturation: float, read: Any
) -> AtlasCell:
    """SGD that starts at draws of the law, against other draws; read along a coordinate."""
    law.require_proper()
    key, other = jax.random.split(jax.random.key(effort.seed))
    start = law.draw(key, (effort.replicas,))
    problem = landscape(loss, np.ones(law.dimension))
    sgd = SGD(step, noise.LossScaled(strength / step, saturation=saturation))
    truth = simulated(
        problem, sgd, effort, _steps(step, strength), coordinate=read, start=np.asarray(start)
    )
    drawn = np.asarray(law.draw(other, (DRAWS_A_RUN * effort.replicas,)), np.float64)
    return AtlasCell(truth, Marginal.of_points(read(drawn)))


_SIMULATED: dict[str, Any] = {
    "truth": "an ensemble of SGD, three relaxation times after it starts at draws of the law",
}


def _on_torus(step: float, strength: float) -> tuple[Problem, SGD, Any]:
    law = TorusPowerOfLossLaw(_CODIMENSION, strength)
    problem = landscape(cosine_loss, np.ones(_CODIMENSION))
    return problem, SGD(step, noise.LossScaled(strength / step)), law


@register(
    law="TorusPowerOfLossLaw",
    problem="loss Σ(1 − cos θ) on the 3-torus, noise σL",
    coordinate="the loss",
    axes={"ηh": (0.003, *_STEPS), "ησ": _STRENGTHS},
    domain="ηh/(1 − 2α/q) ≤ 0.1, with α = 1 + 2/(ησ) and q = 3, and ηh·ησ ≤ 0.1",
    valid=within(_on_torus),
    **_SIMULATED,
)
def torus(effort: Effort, step: float, strength: float) -> AtlasCell:
    """The pure power law where it is proper, above ησ = 4."""
    _, _, law = _on_torus(step, strength)

    def read(params: Float[Any, "n 3"]) -> Float[Any, " n"]:
        return 2 * np.sum(np.sin(params / 2) ** 2, axis=1)

    return _run(effort, step, strength, law, cosine_loss, np.inf, read)


@register(
    law="StrataLaw",
    problem="loss that vanishes on a segment and at a point, noise σL/(1 + L/L_sat)",
    coordinate="the parameter along the segment; basins of the segment and of the point",
    axes={"ηh": _STEPS, "ησ": _STRENGTHS},
    domain="ηh ≪ 1: exact for the SDE",
    valid=lambda step, strength: step <= 0.1,
    **_SIMULATED,
)
def strata(effort: Effort, step: float, strength: float) -> AtlasCell:
    """How much the point holds against the segment."""
    law = StrataLaw(strength)
    cell = _run(
        effort, step, strength, law, StrataLaw.loss, 1.0, lambda params: params[:, _CODIMENSION]
    )
    return cell._replace(threshold=1.5)
