"""Laws along valleys and across two of them, held against SGD there."""

import math
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import vonmises

from statsgd import SGD, noise
from statsgd.comparison import Marginal
from statsgd.dynamics.noise.injected import GaussianNoise
from statsgd.laws import (
    TwoValleyLaw,
    ValleyEntropyLaw,
    ValleyLaw,
    ValleySharpnessLaw,
    ZeroLossCircleLaw,
)
from statsgd.laws.valleys import (
    AdiabaticWarning,
    ChainLaw,
    CosineCurvature,
    two_valley_chain_law,
)
from statsgd.problems import TwoValleyLandscape, landscape
from studies.atlas_families.family import AtlasCell, Effort, between, register, simulated

_SMALL = 0.1  # share of a limit that counts as far below it
_DRAWN = "a simulated ensemble of SGD, from draws of the law on"
_COSINE = CosineCurvature(2.0, 1.5)  # from 1/2 to 7/2
_SHARPEST = 3.5
_ENDS = (0.0, 2 * np.pi)
_WHOLE = np.linspace(*_ENDS, 4001)


def _angle(params: Any) -> Any:
    """The first parameter in (0, 2π); the flat side of every valley here is at π."""
    return params[:, 0] % (2 * np.pi)


def _circular(log_density: Any) -> Marginal:
    """A law of an angle in (0, 2π) from its density, unnormalised."""
    middle = (_WHOLE[1:] + _WHOLE[:-1]) / 2
    logs = np.asarray(log_density(middle), dtype=np.float64)
    masses = np.exp(logs - logs.max())
    cumulative = np.concatenate([[0.0], np.cumsum(masses) / masses.sum()])
    return Marginal(lambda x: np.interp(x, _WHOLE, cumulative), *_ENDS)


def _starts(effort: Effort, law: Marginal, across: Any) -> np.ndarray:
    """Draws of an angle from `law`, with normal y of the variance `across(x)`."""
    rng = np.random.default_rng(effort.seed)
    x = np.interp(rng.random(effort.replicas), law.cdf(_WHOLE), _WHOLE)
    return np.stack([x, np.sqrt(across(x)) * rng.normal(size=x.shape)], axis=1)


def _ring(params):
    return jnp.exp(jnp.cos(params[0])) * params[1] ** 2 / 2


_RING_RATIO = 2.0  # κ
#: max of h'²/h³ for h = exp(cos x): sin²x e^(−cos x), at cos x = 1 − √2.
_STEEPEST = (1 - (1 - np.sqrt(2)) ** 2) * np.exp(np.sqrt(2) - 1)


@register(
    law="ValleyLaw",
    problem="ring-shaped valley, curvature h = exp(cos x) across it, noise twice as strong across",
    coordinate="angle along the valley",
    truth=_DRAWN,
    axes={
        "κDh'² ÷ 4h³, max": (0.01, 0.03, 0.1, 0.3, 1.0),
        "ηh, max": (0.2, 0.6, 1.2, 1.6),
    },
    domain="adiabatic, κD h'²/(4h³) ≤ 0.05, and ηh < 2 everywhere",
    valid=lambda adiabatic, step: adiabatic <= 0.05 and step < 2,
)
def valley(effort: Effort, adiabatic: float, step: float) -> AtlasCell:
    """The angle relaxes in κ/(ηD) steps; the run lasts three times that."""
    eta = step / math.e
    across = 4 * adiabatic / (_RING_RATIO * _STEEPEST)
    covariance = np.diag([across / _RING_RATIO, across]) * 2 / eta
    problem, sgd = landscape(_ring, np.zeros(2)), SGD(eta, noise.Anisotropic(covariance))
    law = ValleyLaw.from_sgd(problem, sgd, support="ring")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AdiabaticWarning)  # the axis is what it warns of
        law.require_proper()
        along = _circular(lambda x: law.log_marginal((x + np.pi) % (2 * np.pi) - np.pi))
        start = _starts(effort, along, lambda x: law.conditional_variance(x)[:, 0])
    steps = int(np.ceil(3 * _RING_RATIO / (eta * across)))
    return AtlasCell(simulated(problem, sgd, effort, steps, coordinate=_angle, start=start), along)


def _cosine(params):
    return (2 + 1.5 * jnp.cos(params[0])) * params[1] ** 2 / 2


def _curvature(x: Any) -> Any:
    return 2 + 1.5 * np.cos(x)


_CLOSED = {
    "problem": "closed valley, curvature h = 2 + 1.5 cos x across it, zero loss along it",
    "coordinate": "angle along the valley",
    "truth": _DRAWN,
}


@register(
    law="ValleyEntropyLaw",
    axes={"ηh, max": (0.03, 0.1, 0.3, 0.6, 1.2, 1.8), "τ ÷ h": (0.03, 0.1, 0.3)},
    domain="leading order in the learning rate: ηh ≪ 2, at any temperature τ",
    valid=lambda step, temperature: step <= 2 * _SMALL,
    **_CLOSED,
)
def valley_entropy(effort: Effort, step: float, temperature: float) -> AtlasCell:
    """Isotropic noise; h = 2 on average. Angles relax in 1/(ητ) steps; three times that."""
    eta, tau = step / _SHARPEST, 2 * temperature
    sgd = SGD(eta, noise.Anisotropic(2 * tau / eta * np.eye(2)))
    law = _circular(lambda x: ValleyEntropyLaw(_COSINE, _ENDS).log_density(x[:, None]))
    start = _starts(effort, law, lambda x: tau / _curvature(x))
    truth = simulated(
        landscape(_cosine, np.zeros(2)), sgd, effort, int(np.ceil(3 / (eta * tau))),
        coordinate=_angle, start=start,
    )  # fmt: skip
    return AtlasCell(truth, law)


class _CurvatureNoise(GaussianNoise):
    """C = w diag(1, h(x)): along the valley w, across it in proportion to the curvature."""

    strength: Any

    def root(self, problem: Any, params: Any) -> Any:
        """A root of C."""
        h = 2 + 1.5 * jnp.cos(params[0])
        return jnp.sqrt(self.strength) * jnp.diag(jnp.stack([jnp.ones_like(h), jnp.sqrt(h)]))

    def covariance(self, problem: Any, params: Any) -> Any:
        """C."""
        return self.root(problem, params) ** 2


@register(
    law="ValleySharpnessLaw",
    axes={"ηh, max": (0.1, 0.3, 0.6, 1.2, 1.8), "ηc": (0.03, 0.1, 0.3, 1.0)},
    domain="leading order in the learning rate: ηh ≪ 2 and ηc ≪ 1, with noise cH + cP_T",
    valid=lambda step, noise_step: step <= 2 * _SMALL and noise_step <= _SMALL,
    **_CLOSED,
)
def valley_sharpness(effort: Effort, step: float, noise_step: float) -> AtlasCell:
    """Von Mises of concentration ¾. Angles relax in 2/(η²c) steps; three times that."""
    eta = step / _SHARPEST
    strength = noise_step / eta
    sharpness = ValleySharpnessLaw(_COSINE, strength, strength, _ENDS)
    law = _circular(lambda x: sharpness.log_density(x[:, None]))
    start = _starts(effort, law, lambda x: noise_step / 2 / (1 - eta * _curvature(x) / 2))
    truth = simulated(
        landscape(_cosine, np.zeros(2)), SGD(eta, _CurvatureNoise(np.float64(strength))), effort,
        int(np.ceil(6 / (eta * noise_step))), coordinate=_angle, start=start,
    )  # fmt: skip
    return AtlasCell(truth, law)


def _circle(params):
    return jnp.exp(jnp.cos(params[0])) * jnp.sum(params[1:] ** 2) / 2


@register(
    law="ZeroLossCircleLaw",
    problem="circle of zero loss, three directions across it of curvature h = exp(cos ϕ), noise "
    "σL/(1 + L)",
    coordinate="angle ϕ along the circle",
    truth=_DRAWN,
    axes={"ηεh, max": (0.1, 0.3, 1.0, 3.0, 10.0), "ε": (8.0, 16.0, 32.0)},
    domain="small steps: ηεh ≪ 2 everywhere, with ε above the critical ratio 4",
    valid=lambda step, ratio: step <= 2 * _SMALL and ratio > 4,
)
def zero_loss_circle(effort: Effort, step: float, ratio: float) -> AtlasCell:
    """log L relaxes in a time ε/(ε/4 − 1)² or less; the run lasts three times that."""
    eta = step / (math.e * ratio)
    law = ZeroLossCircleLaw(3, 1.0, ratio, 1.0)
    law.require_proper()
    start = np.asarray(law.draw(jax.random.key(effort.seed), (effort.replicas,)))
    truth = simulated(
        landscape(_circle, np.zeros(4)), SGD(eta, noise.LossScaled(ratio / eta, 0.0, 1.0)), effort,
        int(np.ceil(3 * ratio / (ratio / 4 - 1) ** 2 / eta)), coordinate=_angle, start=start,
    )  # fmt: skip
    kappa = law.concentration()
    return AtlasCell(truth, _circular(lambda x: vonmises.logpdf(x, kappa, loc=np.pi)))


_PLACE = 5.0  # along the two valleys


def _two_wells(barrier: float) -> TwoValleyLaw:
    """The law with g₁²/(8Δ_S) = `barrier` in the flat valley."""
    landscape = TwoValleyLandscape()
    width = float(landscape.widths(_PLACE)[0])
    return TwoValleyLaw(landscape, _PLACE, width**2 / (8 * barrier))


def _ridge_step(step: float, barrier: float) -> float:
    """√(ΔLη/Δ_S) at ηh = `step` in the sharp valley."""
    law = _two_wells(barrier)
    eta = step * float(law.wells.flatness[1]) / 2
    return float(np.sqrt(law.wells.barrier[0] * eta / law.noise_level))


@register(
    law="TwoValleyLaw",
    problem="two valleys at a fixed place along them, noise 2σH",
    coordinate="parameter across both valleys, the flat one above 0",
    truth="the chain's law on a grid",
    axes={
        "ηh, sharp": (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0),
        "ΔL ÷ hΔ_S": (1.0, 2.0, 4.0, 8.0),
    },
    domain="small steps at the ridge, √(ΔLη/Δ_S) ≤ 0.1",
    valid=lambda step, barrier: _ridge_step(step, barrier) <= 0.1,
)
def two_valley(effort: Effort, step: float, barrier: float) -> AtlasCell:
    """Exact for the SDE; the jump of noise at the ridge puts odds of the chain off by O(√η)."""
    law: Any = _two_wells(barrier)
    law.require_proper()
    eta = step * float(law.wells.flatness[1]) / 2
    truth, rough = (_spread(two_valley_chain_law(law, eta, n)) for n in (4, 2))
    predicted = Marginal(lambda x: law.cdf(x[:, None])[:, 0], truth.lower, truth.upper)
    edges = np.linspace(truth.lower, truth.upper, 401)
    return AtlasCell(truth, predicted, 0.0, truth_error=between(truth, rough, edges))


def _spread(chain: ChainLaw) -> Marginal:
    """Probabilities of nodes, evenly spread between them."""
    half = (chain.nodes[1] - chain.nodes[0]) / 2
    edges = np.concatenate([chain.nodes - half, chain.nodes[-1:] + half])
    cumulative = np.concatenate([[0.0], np.cumsum(chain.probability)])
    return Marginal(lambda x: np.interp(x, edges, cumulative), edges[0], edges[-1])
