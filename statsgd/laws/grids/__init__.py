"""Laws computed on grids: Fokker–Planck equations and discrete chains, solved numerically."""

from statsgd.laws.grids.discrete_chain import DiscreteChainLaw, FiniteNoise, minibatch_noise
from statsgd.laws.grids.fokker_planck import FokkerPlanckLaw
from statsgd.laws.grids.grid import Grid, GridWarning, total_variation
from statsgd.laws.grids.grid_law import GridLaw

__all__ = [
    "DiscreteChainLaw",
    "FiniteNoise",
    "FokkerPlanckLaw",
    "Grid",
    "GridLaw",
    "GridWarning",
    "minibatch_noise",
    "total_variation",
]


def __dir__() -> list[str]:
    return sorted(__all__)
