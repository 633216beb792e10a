"""Gibbs-like laws on a flat and a sharp well: how much of the mass each of them holds."""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from statsgd import SGD, noise
from statsgd.comparison import Marginal
from statsgd.laws import (
    DiscreteChainLaw,
    EffectivePotentialGibbs,
    KinkedWellsGibbs,
    Law,
    TwoBasinGibbs,
)
from statsgd.laws.grids.grid import Grid, GridWarning
from statsgd.problems import Problem, landscapes, two_basins
from statsgd.problems.two_basins import TwoBasinLoss
from studies.atlas_families.family import (
    DRAWS_A_RUN,
    AtlasCell,
    Effort,
    against_chain,
    even,
    register,
    simulated,
)

_SMALL = 0.1  # a number this small counts as far below 1
_SHARP = 9.0  # curvature of the sharp well in one dimension


def _chain(problem: Problem, sgd: SGD, grid: Grid) -> DiscreteChainLaw:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GridWarning)
        return DiscreteChainLaw.from_sgd(problem, sgd, grid)


@register(
    law="KinkedWellsGibbs",
    problem="two parabolas cut where they meet, curvatures 1 and 9, constant isotropic noise",
    coordinate="the parameter; basins on both sides of the kink",
    truth="the chain's law on a grid",
    axes={"η(ΔL')² ÷ 2τ": (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0), "ΔL ÷ τ": (1.0, 2.0, 5.0)},
    domain="a step's drift jumps at the kink by far less than its noise: η(ΔL')²/2τ ≪ 1",
    valid=lambda kink, barrier: kink <= _SMALL,
)
def kinked_wells(effort: Effort, kink: float, barrier: float) -> AtlasCell:
    """The kink is felt long before ηh is large: the numbers fix η, and ηh follows."""
    problem = landscapes.kinked_wells(1.0, _SHARP)
    split = 0.5  # (√h_s − √h_f)/(√h_s + √h_f)
    temperature = (split + 1) ** 2 / 2 / barrier
    jump = (1 + split) + _SHARP * (1 - split)
    eta = 2 * temperature * kink / jump**2
    law = KinkedWellsGibbs(temperature, 1.0, _SHARP)
    # An edge of cells lies on the kink, which keeps the chain's error of second order.
    width = np.sqrt(2 * eta * temperature) / 4
    reach = 1 + 6 * np.sqrt(temperature)
    cells = even(np.clip((reach + split) / width, 200, 2500))
    width = (reach + split) / cells
    beyond = even((reach - split) / width)
    grid = Grid(-reach, split + beyond * width, cells + beyond)
    sgd = SGD(eta, noise.Isotropic(2 * temperature / eta))
    chain = _chain(problem, sgd, grid)
    return against_chain(problem, sgd, law, chain=chain, threshold=split)


def _weaker_at_zero(params: Float[Any, " 1"]) -> Float[Any, ""]:
    """Variance of one example's gradient, from 1 left of the sharp well to 2 about it."""
    return 1.5 + 0.5 * jnp.tanh(3 * (params[0] - 0.5))


@register(
    law="EffectivePotentialGibbs",
    problem="smooth wells of curvatures 1 and 9, equally high, isotropic noise that doubles "
    "from the flat to the sharp one",
    coordinate="the parameter; basins on both sides of the saddle",
    truth="the chain's law on a grid",
    axes={"ηh": (0.01, 0.03, 0.1, 0.3, 1.0, 1.6), "2SΔΦ ÷ η": (1.0, 3.0, 6.0)},
    domain="ηh ≪ 1 at the sharp well: exact for the SDE",
    valid=lambda step, barrier: step <= _SMALL,
)
def effective_potential(effort: Effort, step: float, barrier: float) -> AtlasCell:
    """The well that is reached through weaker noise wins, the more the higher the barrier."""
    problem = landscapes.smooth_wells()
    saddle, height = 0.6585913, 0.0673892  # of Φ, the line integral of L' over the variance
    eta, per_batch = step / _SHARP, 2 * height / barrier  # η/S
    sgd = SGD(
        eta, noise.Anisotropic(lambda x: jnp.reshape(per_batch / eta * _weaker_at_zero(x), (1, 1)))
    )
    law: Law = EffectivePotentialGibbs.from_sgd(problem, sgd)
    width = np.sqrt(eta * per_batch) / 4
    grid = Grid(-2.0, 2.2, even(np.clip(4.2 / width, 400, 3000)))
    chain = _chain(problem, sgd, grid)
    return against_chain(problem, sgd, law, chain=chain, threshold=saddle)


def _log_ratio(params: Float[Any, "n 2"]) -> Float[Any, " n"]:
    """log of the sharp parabola over the flat one: negative where the sharp basin is."""
    sharp, flat = TwoBasinLoss(np.pi / 4).branches(params.T, (0.0, 0.0))
    return np.log(sharp / flat)


@register(
    law="TwoBasinGibbs",
    problem="a sharp and a flat basin of equal depth in the plane, constant isotropic noise",
    coordinate="log of the sharp parabola over the flat one; basins by its sign (3 % in the sharp)",
    truth="an ensemble of SGD that starts at draws of the law, long after the sharp basin is left",
    axes={"ηh": (0.1, 0.2, 0.5, 1.0, 1.6), "ΔL ÷ τ": (1.0, 2.0, 4.0)},
    domain="ηh ≪ 1 for h = 200, the largest curvature: the chain overheats the sharp basin",
    valid=lambda step, barrier: step <= _SMALL,
)
def two_basin(effort: Effort, step: float, barrier: float) -> AtlasCell:
    """The law from other draws than those at which the ensemble starts."""
    temperature, eta = 800 / 121 / barrier, step / 200
    problem = two_basins(spread=0.0, num_points=1)
    sgd = SGD(eta, noise.Isotropic(2 * temperature / eta))
    law = TwoBasinGibbs(temperature)
    key, other = jax.random.split(jax.random.key(effort.seed))
    start = np.asarray(law.draw(key, (effort.replicas,)))
    # The sharp basin is left at a rate of about 100 √(ΔL/πτ) exp(−ΔL/τ), above 2, and the flat one
    # relaxes at the rate 2.
    truth = simulated(
        problem, sgd, effort, int(np.ceil(2 / eta)), coordinate=_log_ratio, start=start
    )
    drawn = np.asarray(law.draw(other, (DRAWS_A_RUN * effort.replicas,)), np.float64)
    return AtlasCell(truth, Marginal.of_points(_log_ratio(drawn)), 0.0)
