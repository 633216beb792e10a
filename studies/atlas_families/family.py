"""What the atlas needs to know of a law: problems it speaks about, and the truth in each cell.

To put a law on the atlas, write a function from dimensionless numbers to an `AtlasCell` and
`register` it: the map, the page, the overview and the table for machines follow.
"""

import dataclasses
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

import statsgd
from statsgd.comparison import Marginal
from statsgd.ensembles import endpoint_trajectories
from statsgd.laws import DiscreteChainLaw, FokkerPlanckLaw, ImproperLawError, Law
from statsgd.laws.domain import outside
from statsgd.laws.grids.grid import Grid, GridWarning, total_variation
from statsgd.problems import Problem

#: Draws of a law that is known by draws alone, for every run of SGD: they cost less.
DRAWS_A_RUN = 4


class AtlasCell(NamedTuple):
    """The truth and the law at one setting, along one coordinate."""

    truth: Marginal
    law: Marginal
    threshold: float | None = None
    """Border between two basins, if there are any."""
    chain_to_sde: float = np.nan
    """Total variation that the finite learning rate costs."""
    sde_to_law: float = np.nan
    """Total variation that the theory's approximation costs."""
    truth_error: float = 0.0
    """Total variation between the truth and what is computed of it on a grid: at most by how much
    it changes on doubling the spacing, as long as the error falls at least in proportion to it."""


class DivergedError(Exception):
    """Most runs of an ensemble diverged: there is no truth to hold a law against."""


class Effort(NamedTuple):
    """How much may be spent on a cell."""

    replicas: int
    """Independent runs of a simulated ensemble."""
    seed: int


@dataclasses.dataclass(frozen=True)
class Family:
    """A law, the problems it is tried on, and the dimensionless numbers that are varied."""

    law: str
    """Name of the law."""
    problem: str
    """The problems, in words."""
    coordinate: str
    """What the marginal is of."""
    truth: str
    """Where the truth comes from."""
    axes: Mapping[str, tuple[float, ...]]
    """One or two dimensionless numbers with their values, the leading one first."""
    cell: Callable[..., AtlasCell]
    """`(effort, *numbers) -> AtlasCell`; raises `ImproperLawError` where the law does not exist,
    and `DivergedError` where SGD does not stay anywhere."""
    domain: str
    """Where the law claims to hold, in words."""
    valid: Callable[..., bool]
    """`(*numbers) -> bool`: whether a setting is inside the domain."""


#: Every family by its law; `register` fills it.
FAMILIES: dict[str, Family] = {}


def register(**description: Any) -> Callable:
    """Make the decorated function the `cell` of a family described by the other fields."""

    def add(cell: Callable[..., AtlasCell]) -> Callable[..., AtlasCell]:
        family = Family(cell=cell, **description)
        FAMILIES[family.law] = family
        return cell

    return add


def within(setting: Callable[..., tuple[Problem, statsgd.SGD, Law]]) -> Callable[..., bool]:
    """`valid` of a law that states what must be small, from `(*numbers) -> (problem, sgd, law)`."""

    def inside(*numbers: float) -> bool:
        problem, sgd, law = setting(*numbers)
        try:
            law.require_proper()
        except ImproperLawError:
            return False
        return not outside(law.small_numbers(problem, sgd))

    return inside


def against_chain(
    problem: Problem,
    sgd: statsgd.SGD,
    law: Law,
    *,
    chain: DiscreteChainLaw | None = None,
    threshold: float | None = None,
) -> AtlasCell:
    """The exact law of the discrete chain on one parameter against a law, with the gap's parts.

    The chain's cells are those on which everything is compared; a law that is not normalised is
    normalised over them.
    """
    law.require_proper()
    with warnings.catch_warnings():
        # Tails that leave the box are small against what is compared, and stated by the chain.
        warnings.simplefilter("ignore", GridWarning)
        truth = chain or DiscreteChainLaw.from_sgd(problem, sgd)
        grid = truth.grid
        known, predicted = (Marginal.of_law(each, grid=grid) for each in (truth, law))
        rough = DiscreteChainLaw.from_sgd(problem, sgd, halved(grid))
        parts = {"truth_error": change(truth, rough)}
        if float(sgd.momentum) == 0:
            coarse = _coarse(grid)
            sde = Marginal.of_law(FokkerPlanckLaw.from_sgd(problem, sgd, coarse), grid=coarse)
            edges = np.linspace(grid.lower[0], grid.upper[0], 401)
            parts |= {
                "chain_to_sde": between(known, sde, edges),
                "sde_to_law": between(sde, predicted, edges),
            }
    return AtlasCell(known, predicted, threshold, **parts)


def simulated(
    problem: Problem,
    sgd: statsgd.SGD,
    effort: Effort,
    steps: int,
    *,
    coordinate: Callable[[Any], Any] = lambda params: params[:, 0],
    start: Any = None,
) -> Marginal:
    """Endpoints of an ensemble along `coordinate`, a function `(replicas, d) -> (replicas,)`.

    Runs that diverge are left out; raises `DivergedError` where most of them do.
    """
    ensemble = statsgd.simulate(
        problem, sgd, steps=steps, replicas=effort.replicas, seed=effort.seed, start=start,
        progress=False, allow_unstable=True,
    )  # fmt: skip
    alive = ~ensemble["run"].to_dataset()["diverged"].values
    if alive.mean() < 0.5:
        raise DivergedError(f"{np.sum(~alive)} of {effort.replicas} runs diverged")
    ends = endpoint_trajectories(ensemble, condition_on_survival=True)
    return Marginal.of_points(coordinate(ends.params[:, 0]))


def _coarse(grid: Grid) -> Grid:
    """At most 2000 cells, enough for a diffusion."""
    cells = [min(n, 2000) for n in grid.cells]
    return Grid(grid.lower, grid.upper, cells, grid.periodic)


def even(number: float) -> int:
    """The even number next above, of cells that are to be `halved`."""
    return 2 * int(np.ceil(number / 2))


def halved(grid: Grid) -> Grid:
    """The same box in half as many cells."""
    return Grid(grid.lower, grid.upper, [n // 2 for n in grid.cells], grid.periodic)


def change(chain: DiscreteChainLaw, rough: DiscreteChainLaw) -> float:
    """Total variation between laws on a grid and on one of larger cells, on these."""
    fine, coarse = (Marginal.of_law(law, grid=law.grid) for law in (chain, rough))
    return between(fine, coarse, rough.grid.edges())


def between(one: Marginal, other: Marginal, edges: Float[Any, " n"]) -> float:
    """Total variation over the cells between `edges`."""
    return total_variation(np.diff(one.cdf(edges)), np.diff(other.cdf(edges)))
