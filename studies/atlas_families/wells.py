"""Laws on one parameter held against the exact law of the chain: wells and multiplicative noise."""

import warnings
from typing import Any

import numpy as np

from statsgd import SGD, noise
from statsgd.laws import DiscreteChainLaw, FlooredLossScaledLaw, FokkerPlanckLaw
from statsgd.laws.grids.grid import Grid, GridWarning
from statsgd.problems import Problem, landscapes
from studies.atlas_families.family import AtlasCell, Effort, against_chain, even, register

_STEPS = (0.003, 0.01, 0.03, 0.1, 0.3)
_STRENGTHS = (0.1, 0.3, 0.6, 1.0)


def _floored(strength: float, step: float) -> tuple:
    """Curvature 1, noise covariance σ(L + 1) with ησ the given strength."""
    problem = landscapes.quadratic([[1.0]])
    return problem, SGD(step, noise.LossScaled(strength / step, 1.0))


def _chain(problem: Problem, sgd: SGD, strength: float) -> DiscreteChainLaw:
    """The chain in a box that leaves out 2·10⁻⁶ of the law, whose tails are heavy.

    The box search of the chain would not end: each larger box holds still more mass.
    """
    law: Any = FlooredLossScaledLaw.from_sgd(problem, sgd)
    reach = float(law.quantile(1 - 1e-6)[0])
    # Half the standard deviation of a step at the minimum, where it is smallest.
    cells = even(4 * reach / np.sqrt(float(sgd.learning_rate) * strength))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GridWarning)
        return DiscreteChainLaw.from_sgd(problem, sgd, Grid(-reach, reach, max(cells, 400)))


_LOSS_SCALED = {
    "problem": "quadratic loss, one parameter, noise σ(L + c₀)",
    "coordinate": "the parameter",
    "truth": "the chain's law on a grid",
    "axes": {"ηh": _STEPS, "ησ": _STRENGTHS},
    "domain": "ηh ≪ 1",
    "valid": lambda step, strength: step <= 0.1,
}


@register(law="FlooredLossScaledLaw", **_LOSS_SCALED)
def floored(effort: Effort, step: float, strength: float) -> AtlasCell:
    """Exact for the SDE: all of the error is that of the finite step."""
    problem, sgd = _floored(strength, step)
    law = FlooredLossScaledLaw.from_sgd(problem, sgd)
    return against_chain(problem, sgd, law, chain=_chain(problem, sgd, strength))


@register(law="FokkerPlanckLaw", **_LOSS_SCALED)
def fokker_planck(effort: Effort, step: float, strength: float) -> AtlasCell:
    """The SDE solved numerically: the same error, up to that of the grid."""
    problem, sgd = _floored(strength, step)
    chain = _chain(problem, sgd, strength)
    return against_chain(
        problem, sgd, FokkerPlanckLaw.from_sgd(problem, sgd, chain.grid), chain=chain
    )
