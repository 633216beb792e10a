"""Adaptive optimisers in one parameter as they run: exact chains of (θ, ln v) and of signs."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm
from jaxtyping import Float
from scipy.interpolate import CubicSpline
from scipy.stats import gamma

from statsgd.laws.grids import DiscreteChainLaw, Grid
from statsgd.laws.grids.discrete_chain import FiniteNoise
from statsgd.laws.minimum.adaptive_optimiser import (
    AdaptiveOptimiser,
    ClippedOptimiser,
    SignDescent,
)

_NODES = 16  # of normal noise, where θ is spread over several steps
_LEAST = 3.0  # of these; else the noise of one step shapes the law, and is put on many nodes
_DENSE = np.linspace(-6.0, 6.0, 97)
_REACH = 7.0  # standard deviations of θ
_RARE = 1e-8  # probability of second moments outside the box
_FAST = 0.5  # second moments that forget faster have no law that a grid holds
_KNOTS, _TABLE = 61, 4001
_PER_STEP = 8  # cells of θ
_CELLS = ((120, 80), (480, 160))
_LATTICE = 16.5  # cells to a step of signs: the half lets all offsets of the lattice mix


def chain_in_one_parameter(
    hessian: Any,
    noise_variance: Any,
    optimiser: AdaptiveOptimiser,
    minimum: float,
    centre: float,
    spread: float,
    second_moment: float,
    grid: Grid | None,
) -> DiscreteChainLaw:
    """The law of (θ, ln v), or of θ for sign descent; see `AdaptiveGaussian.refined`.

    **Arguments:** numbers of one parameter: h, c, θ*, and `centre`, `spread` and `second_moment` of
    the frozen law, about which a grid is put unless one is given.
    """
    h, c = float(np.squeeze(hessian)), float(np.squeeze(noise_variance))
    if isinstance(optimiser, ClippedOptimiser):
        raise ValueError("optimiser must not clip gradients for a chain on a grid")
    if isinstance(optimiser, SignDescent):
        signs = FiniteNoise(_Signs(), _SignProbabilities(h / c**0.5, minimum), True)
        rate = optimiser.learning_rate
        if grid is None:
            reach = _REACH * spread + 2 * rate
            cells = int(np.ceil(2 * reach * _LATTICE / rate))
            reach = cells * rate / _LATTICE / 2
            grid = Grid(centre - reach, centre + reach, cells)
        return DiscreteChainLaw(_still, signs, rate, grid)
    beta = float(optimiser.second_moment_decay)
    if beta < _FAST:
        raise ValueError(
            f"second_moment_decay must be at least {_FAST} for a chain on a grid, got {beta:g}: "
            "second moments fall too far"
        )
    # v is near a mean of squares with this many degrees of freedom, halved.
    shape = (1 + beta) / (1 - beta) / 2
    ends = np.log(np.array([gamma.ppf(_RARE, shape), gamma.isf(_RARE, shape)]) / shape)
    low, high = np.log(second_moment) + ends
    length = _on_parameter(optimiser, second_moment)[1] * c**0.5
    nodes, weights = _normal_nodes(dense=spread < _LEAST * length)
    step = _RunningStep(h, c, optimiser, minimum, low - 1, high + 1, nodes)
    if grid is None:
        reach = _REACH * spread
        widths = (length / _PER_STEP, (1 - beta) / 2)
        wanted = [2 * reach / widths[0], (high - low) / widths[1]]
        cells = np.clip(np.ceil(wanted), *_CELLS).astype(int).tolist()
        grid = Grid([centre - reach, low], [centre + reach, high], cells)
    return DiscreteChainLaw(_still, FiniteNoise(step, weights, True), 1.0, grid)


class _RunningStep(eqx.Module):
    """What a step adds to (θ, ln v), for every value of the noise."""

    curvature: float
    variance: float
    decay: float
    gain: float
    pull: float
    minimum: float
    logarithms: Float[Any, " knots"]
    kept: Float[Any, " knots"]
    log_rates: Float[Any, " knots"]
    nodes: Float[Any, " B"]

    def __init__(
        self,
        curvature: float,
        variance: float,
        optimiser: AdaptiveOptimiser,
        minimum: float,
        low: float,
        high: float,
        nodes: Float[Any, " B"],
    ):
        self.curvature, self.variance, self.minimum = curvature, variance, minimum
        self.decay = float(optimiser.second_moment_decay)
        self.gain, self.pull = float(optimiser.gain[0]), float(optimiser.pull[0])
        self.nodes = nodes
        knots = np.linspace(low, high, _KNOTS)
        kept, rates = np.array([_on_parameter(optimiser, np.exp(u)) for u in knots]).T
        self.logarithms = np.linspace(low, high, _TABLE)
        self.kept = CubicSpline(knots, kept)(self.logarithms)
        self.log_rates = CubicSpline(knots, np.log(rates))(self.logarithms)

    def __call__(self, state: Float[Any, " 2"]) -> Float[Any, "B 2"]:
        theta, u = state
        gradient = self.curvature * (theta - self.minimum)
        gradient = gradient + self.variance**0.5 * jnp.asarray(self.nodes)
        squared = (self.gain * gradient + self.pull * theta) ** 2
        after = jnp.log(self.decay * jnp.exp(u) + (1 - self.decay) * squared)
        knots = jnp.asarray(self.logarithms)
        kept = jnp.interp(after, knots, jnp.asarray(self.kept))
        rate = jnp.exp(jnp.interp(after, knots, jnp.asarray(self.log_rates)))
        return jnp.stack([(kept - 1) * theta - rate * gradient, after - u], axis=-1)


class _Signs(eqx.Module):
    def __call__(self, state: Float[Any, " 1"]) -> Float[Any, "2 1"]:
        return jnp.array([[-1.0], [1.0]])


class _SignProbabilities(eqx.Module):
    """Of a positive and of a negative gradient."""

    slope: float
    minimum: float

    def __call__(self, state: Float[Any, " 1"]) -> Float[Any, " 2"]:
        reach = self.slope * (state[0] - self.minimum)
        return jnp.stack([norm.cdf(reach), norm.cdf(-reach)])


def _normal_nodes(*, dense: bool) -> tuple[Float[Any, " B"], Float[Any, " B"]]:
    """Standard normal noise as finitely many values with their probabilities."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    if dense:
        nodes, weights = _DENSE, np.exp(-(_DENSE**2) / 2)
    return nodes, weights / weights.sum()


def _still(state: Any) -> Any:
    return 0 * state


def _on_parameter(optimiser: AdaptiveOptimiser, second_moment: float) -> tuple[float, float]:
    """K and −B of θ' = K θ + B g with v at rest. Raises `ValueError` where buffers move θ too."""
    transition, entry = optimiser.frozen(np.array([second_moment])).matrices(1)
    if np.any(np.abs(transition[0, 1:]) > 0):
        raise ValueError(
            "optimiser must have no momentum for a chain on a grid, whose state is (θ, v) then: "
            "with β₁ > 0 it has three dimensions or more"
        )
    return float(transition[0, 0]), -float(entry[0, 0])
