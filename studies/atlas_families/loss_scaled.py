"""Laws of isotropic noise that is a function of the loss, in wells where the chain is exact."""

import functools
import warnings
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize_scalar

from statsgd import SGD, noise
from statsgd.comparison import Marginal
from statsgd.laws import (
    DiscreteChainLaw,
    FlooredPowerOfLossLaw,
    Law,
    LossScaledLaw,
    OutlierPowerLaw,
    SaturatingLossScaledLaw,
    ScalarNoiseLaw,
)
from statsgd.laws.grids.grid import Grid, GridWarning
from statsgd.problems import landscape
from statsgd.problems.flat_loss import FlatLoss
from studies.atlas_families.family import AtlasCell, Effort, against_chain, even, register

_STEPS = (0.01, 0.03, 0.1, 0.3, 1.0, 1.6)
_SMALL = 0.1  # a step this small counts as far below 1
_LEAST = 0.05  # of the loss, or of the floor of the noise
_SATURATION = 0.2
_MISSED = 1e-6  # probability of each tail that the box of a chain may leave out
_SWING = 0.8  # of the curvature between the wells of a circle: 1 and 1/9


def growing_wells(params: Float[Any, " 1"]) -> Float[Any, ""]:
    """Wells of height 0 at −1 and 1, of curvatures 1/9 and 1, that grow as x²/4."""
    x = params[0]
    curvature = (5 + 4 * jnp.tanh(2 * x) / np.tanh(2.0)) / 9
    return curvature * (x**2 - 1) ** 2 / (4 * (1 + x**2))


def _raised_wells(params: Float[Any, " 1"]) -> Float[Any, ""]:
    return _LEAST + growing_wells(params)


#: Where L' = 0 between the wells of a circle, on both sides of the sharp one.
_TOP = np.arccos((np.sqrt(1 + 3 * _SWING**2) - 1) / (3 * _SWING))


def _circle(params: Float[Any, " 1"]) -> Float[Any, ""]:
    """Wells of equal height above 0 on a circle, of curvatures 1 and, half a turn away, 1/9.

    The sharp one is at top − π: the circle is then cut at a maximum.
    """
    angle = params[0] + np.pi - _TOP
    return _LEAST + jnp.sin(angle) ** 2 * (1 + _SWING * jnp.cos(angle)) / (2 + 2 * _SWING)


@functools.cache
def saddle() -> float:
    """The maximum between the wells."""
    top = minimize_scalar(lambda x: -float(growing_wells(np.array([x]))), bounds=(-0.9, 0.9))
    return float(top.x)


def _box(step: float, strength: float, reach: float, least: float) -> Grid:
    """Cells of half the standard deviation of a step at the minima, where it is smallest."""
    cells = 4 * reach / np.sqrt(step * strength * least)
    return Grid(-reach, reach, even(np.clip(cells, 400, 8000)))


def _against_wells(loss: Any, sgd: SGD, law: Law, box: Grid) -> AtlasCell:
    problem = landscape(loss, np.array([1.0]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GridWarning)
        chain = DiscreteChainLaw.from_sgd(problem, sgd, box)
    return against_chain(problem, sgd, law, chain=chain, threshold=saddle())


_EXACT_FOR_THE_SDE = {
    "truth": "the chain's law on a grid",
    "domain": "ηh ≪ 1: exact for the SDE",
    "valid": lambda step, strength: step <= _SMALL,
}


@register(
    law="LossScaledLaw",
    problem="two wells of curvatures h and h/9 on a circle, equally high above 0, noise σL",
    coordinate="the angle; basins on both sides of a maximum",
    axes={"ηh": _STEPS, "ησ": (0.3, 1.0, 3.0, 10.0)},
    **_EXACT_FOR_THE_SDE,
)
def loss_scaled(effort: Effort, step: float, strength: float) -> AtlasCell:
    """On a circle and without zero loss the pure law is proper for every strength."""
    problem = landscape(_circle, np.zeros(1))
    sgd = SGD(step, noise.LossScaled(strength / step))
    law = LossScaledLaw.from_sgd(problem, sgd, codimension=None, periodic=True)
    cells = even(np.clip(4 * np.pi / np.sqrt(step * strength * _LEAST), 400, 8000))
    chain = DiscreteChainLaw.from_sgd(problem, sgd, Grid(-np.pi, np.pi, cells, periodic=True))
    threshold = float(2 * _TOP - np.pi)
    return against_chain(problem, sgd, law, chain=chain, threshold=threshold)


_WELLS: dict[str, Any] = {"coordinate": "the parameter; basins on both sides of the saddle"}


@register(
    law="FlooredPowerOfLossLaw",
    problem="two wells of curvatures h and h/9, equally high, noise σ(L + c₀)",
    axes={"ηh": _STEPS, "ησ": (0.2, 0.5, 1.0)},
    **_WELLS,
    **_EXACT_FOR_THE_SDE,
)
def floored(effort: Effort, step: float, strength: float) -> AtlasCell:
    """Tails are a power of the parameter: the box leaves out a millionth."""
    sgd = SGD(step, noise.LossScaled(strength / step, _LEAST))
    law = FlooredPowerOfLossLaw(FlatLoss(landscape(growing_wells, np.ones(1))), 1, strength, _LEAST)
    # Far out L = x²/4, where the mass beyond x falls as (x²/4c₀)^(½ − α).
    reach = 2 * np.sqrt(_LEAST) * _MISSED ** (1 / (1 - 2 * float(law.loss_exponent)))
    return _against_wells(growing_wells, sgd, law, _box(step, strength, max(reach, 3.0), _LEAST))


def _saturated(step: float, strength: float, loss: Any, floor: float, law: Any) -> AtlasCell:
    sgd = SGD(step, noise.LossScaled(strength / step, floor, _SATURATION))
    # Noise is ησL_sat far out, where the law falls as exp(−x²/(2ησL_sat)).
    reach = 2 + np.sqrt(2 * strength * _SATURATION * -np.log(_MISSED))
    least = _LEAST / (1 + (_LEAST - floor) / _SATURATION)
    predicted = law(landscape(loss, np.ones(1)), sgd)
    return _against_wells(loss, sgd, predicted, _box(step, strength, reach, least))


_SATURATED: dict[str, Any] = {"axes": {"ηh": _STEPS, "ησ": (0.5, 1.0, 3.0)}}


@register(
    law="SaturatedPowerOfLossLaw",
    problem="two wells of curvatures h and h/9, equally high above 0, noise σL/(1 + L/L_sat)",
    **_SATURATED,
    **_WELLS,
    **_EXACT_FOR_THE_SDE,
)
def saturated(effort: Effort, step: float, strength: float) -> AtlasCell:
    """Noise that is a power of the loss in the wells and constant far out."""

    law = SaturatingLossScaledLaw.from_sgd
    return _saturated(step, strength, _raised_wells, 0.0, law)


@register(
    law="ScalarNoiseLaw",
    problem="two wells of curvatures h and h/9, equally high, noise σ(L + c₀)/(1 + L/L_sat)",
    **_SATURATED,
    **_WELLS,
    **_EXACT_FOR_THE_SDE,
)
def scalar_noise(effort: Effort, step: float, strength: float) -> AtlasCell:
    """Noise with both a floor and saturation, for which there is no named law."""
    law = functools.partial(ScalarNoiseLaw.from_sgd, codimension=None)
    return _saturated(step, strength, growing_wells, _LEAST, law)


@register(
    law="OutlierPowerLaw",
    problem="regression on fresh inputs 0 and ±√κ of variance 1, normal labels, batch size 1",
    coordinate="the parameter",
    truth="the exact law of SGD, which is normal with variance η/(2 − ηκ)",
    axes={"ηh": (0.003, 0.01, 0.03, 0.1, 0.3, 0.6), "κ": (1.0, 1.5, 2.0, 3.0)},
    domain="the bulk at ηh ≪ 1, for inputs of kurtosis κ = 2, whose noise is decoupled",
    valid=lambda step, kurtosis: step <= _SMALL and kurtosis == 2,
)
def outlier(effort: Effort, step: float, kurtosis: float) -> AtlasCell:
    """At x² = κ a step is an autoregression with normal noise, at x = 0 nothing moves."""
    law = OutlierPowerLaw(1, step, 1.0, 0.5)
    return AtlasCell(Marginal.of_normal(0.0, step / (2 - step * kurtosis)), Marginal.of_law(law))
