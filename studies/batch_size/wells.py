"""SGD in a flat and a sharp well of one parameter: settings, runs, and the exact chain."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import brentq

import statsgd
from statsgd.arguments import non_negative
from statsgd.dynamics.noise.injected import IsotropicNoise
from statsgd.laws import DiscreteChainLaw
from statsgd.laws.gibbs.drift_potential import derivatives_on_line
from statsgd.laws.grids import Grid
from statsgd.measures import exit_times
from statsgd.measures.escape.exits import ExitTimes
from statsgd.problems import Landscape, Problem, landscape, landscapes

FLAT, SHARP, ARRIVED = 0.0, 1.0, 0.2
"""The minima, and a place within the flat well from which a run does not go back at once."""
ASYMMETRY, HEIGHT = 2.0, 0.03
DAI = "Dai, Zhu (2018), arXiv:1812.00542; (2021), arXiv:2112.00987"
_LOWER, _UPPER, _CELLS = -1.0, 1.6, 200


class RaisedWells(eqx.Module):
    """The smooth wells with the flat one higher by about `height`."""

    height: float

    def __call__(self, params: Float[Any, " 1"]) -> Float[Any, ""]:
        """The loss at `params`."""
        wells = landscapes.SmoothWells(np.float64(ASYMMETRY))(params)
        return wells + self.height * jax.nn.sigmoid(12 * (0.6 - params[0]))


def raised_wells() -> Landscape:
    """The wells with the flat one higher."""
    return landscape(RaisedWells(HEIGHT), np.array([SHARP]))


class QuieterWhereSharp(IsotropicNoise):
    """Noise of variance v (1.5 − 0.5 tanh 3(x − 0.5)), about half as large in the sharp well."""

    variance: Float[Any, ""]

    def __init__(self, variance: Any):
        self.variance = non_negative("variance", variance)

    def variance_at(self, problem: Problem, params: Float[Any, " 1"]) -> Float[Any, ""]:
        """c at `params`."""
        return jnp.asarray(self.variance) * (1.5 - 0.5 * jnp.tanh(3 * (params[0] - 0.5)))


def saddle(problem: Problem) -> float:
    """The maximum between the wells."""
    return float(brentq(lambda x: derivatives_on_line(problem, np.array([x]))[1][0], 0.4, 0.85))


def minima(problem: Problem) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Curvatures and heights of the flat and the sharp minimum."""
    places = [
        float(brentq(lambda x: derivatives_on_line(problem, np.array([x]))[1][0], *bracket))
        for bracket in ((-0.3, 0.3), (0.9, 1.1))
    ]
    loss, _, curvature = derivatives_on_line(problem, np.array(places))
    return tuple(map(float, curvature)), tuple(map(float, loss))


class Course(NamedTuple):
    """Runs from the sharp minimum at one batch size."""

    batch_size: int
    steps: Int[Any, " record"]
    flat: Float[Any, " record"]
    """Share of runs in the flat well."""
    error: Float[Any, " record"]
    exits: ExitTimes
    """When each first arrived in the flat well."""


def courses(
    problem: Problem,
    sgd: statsgd.SGD,
    variances: Mapping[int, float],
    *,
    steps: int,
    spacing: int,
    replicas: int,
    seed: int,
    progress: bool,
) -> list[Course]:
    """Runs of `sgd` from the sharp minimum at every batch size, with noise of `variances`.

    They are looked at every `spacing` steps.
    """
    axis, edge = "noise.variance", saddle(problem)
    tree = statsgd.simulate(
        problem,
        statsgd.grid(sgd, {axis: list(variances.values())}),
        steps=steps,
        replicas=replicas,
        seed=seed,
        start=np.array([SHARP]),
        observe={"flat": lambda p: p[0] < edge, "inside": lambda p: p[0] > ARRIVED},
        observe_at=spacing,
        progress=progress,
        devices=jax.devices(),
    )
    found = []
    for index, size in enumerate(variances):
        cell = tree.isel({axis: index})
        observed = cell["observables"].to_dataset()
        flat = observed["flat"].values.mean(axis=0)
        error = np.sqrt(np.maximum(flat * (1 - flat), 1 / replicas) / replicas)
        exits = exit_times(cell, "inside")
        found.append(Course(size, observed["step"].values, flat, error, exits))
    return found


class Exact(NamedTuple):
    """The chain at one batch size, solved on a grid."""

    law: DiscreteChainLaw
    edge: float

    @classmethod
    def of(cls, problem: Problem, learning_rate: float, noise: Any) -> "Exact":
        """The chain that SGD with isotropic `noise` of some least `variance` runs on `problem`.

        Cells are at most half the standard deviation of a step.
        """
        sgd = statsgd.SGD(learning_rate, noise)
        deviation = learning_rate * float(noise.variance) ** 0.5
        cells = max(_CELLS, int(np.ceil(2 * (_UPPER - _LOWER) / deviation)))
        law = DiscreteChainLaw.from_sgd(problem, sgd, Grid(_LOWER, _UPPER, cells))
        return cls(law, saddle(problem))

    def flat(self) -> float:
        """Stationary probability of the flat well."""
        return self.law.basin_mass(self._left_of(self.edge))

    def arrival(self) -> float:
        """Mean steps from the sharp minimum to the flat well."""
        return self.law.mean_first_passage(self._left_of(ARRIVED), [SHARP])

    def course(self, steps: Sequence[int]) -> Float[Any, " record"]:
        """Probability of the flat well at each of `steps`, from the sharp minimum."""
        law, flat = self.law, self._left_of(self.edge)
        masses = (law.grid.locate(np.array([SHARP])) == np.arange(law.grid.size)).astype(float)
        shares, done = [], 0
        for step in steps:
            masses = law.evolve(masses, int(step) - done)
            done = int(step)
            shares.append(masses[flat].sum())
        return np.array(shares)

    def _left_of(self, place: float) -> np.ndarray:
        return self.law.grid.centres(0) < place


class Case(NamedTuple):
    """One landscape with its runs and the exact chains."""

    problem: Problem
    runs: list[Course]
    exact: dict[int, Exact]

    @property
    def edge(self) -> float:
        """The saddle."""
        return saddle(self.problem)

    @property
    def barrier(self) -> float:
        """Height of the saddle over the sharp minimum."""
        loss = derivatives_on_line(self.problem, np.array([self.edge, SHARP]))[0]
        return float(loss[0] - loss[1])

    def flat(self) -> Float[Any, " size"]:
        """Stationary probability of the flat well at every batch size, by the exact chain."""
        return np.array([chain.flat() for chain in self.exact.values()])


class Wells(NamedTuple):
    """How the wells are studied."""

    learning_rate: float
    example_variance: float
    """Variance v₁ of one example's gradient."""
    batch_sizes: tuple[int, ...]
    """Those that are run."""
    computed: tuple[int, ...]
    """Those solved on a grid too."""
    steps: int
    spacing: int
    replicas: int
    margin: float
    seed: int
    progress: bool

    @property
    def sizes(self) -> tuple[int, ...]:
        """All batch sizes."""
        return (*self.batch_sizes, *self.computed)

    def temperature(self, size: int) -> float:
        """τ = ηv₁/(2S)."""
        return self.learning_rate * self.example_variance / (2 * size)

    def case(
        self, problem: Problem, noise: Callable[[float], Any] = statsgd.noise.Isotropic
    ) -> Case:
        """Runs from the sharp minimum, and exact chains, with `noise` of variance v₁/S."""

        variances = {size: self.example_variance / size for size in self.sizes}
        exact = {
            size: Exact.of(problem, self.learning_rate, noise(variance))
            for size, variance in variances.items()
        }
        runs = courses(
            problem, statsgd.SGD(self.learning_rate, noise(variances[self.sizes[0]])),
            {size: variances[size] for size in self.batch_sizes},
            steps=self.steps, spacing=self.spacing, replicas=self.replicas, seed=self.seed,
            progress=self.progress,
        )  # fmt: skip
        return Case(problem, runs, exact)
