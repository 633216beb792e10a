"""The stationary Fokker–Planck equation solved on a grid: any drift, any noise covariance."""

import warnings
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Self

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from statsgd.arguments import positive
from statsgd.dynamics.noise import GradientNoise
from statsgd.dynamics.sgd import SGD
from statsgd.laws.grids.automatic_box import automatic_box, box_around_minima
from statsgd.laws.grids.fokker_planck_operator import fokker_planck_generator
from statsgd.laws.grids.grid import Grid, GridWarning, at_points, total_variation
from statsgd.laws.grids.grid_law import GridLaw
from statsgd.laws.grids.markov import Generator
from statsgd.laws.law import register
from statsgd.problems import Problem

_CELLS = {1: 2000, 2: 256, 3: 28}
_COARSE = {1: 512, 2: 64, 3: 16}
_BOUNDARY_MASS = 1e-4
_TOLERANCE = 0.01
_FALLING = 1.7  # ratio of changes from which they count as those of an order


@register
class FokkerPlanckLaw(GridLaw):
    """Stationary law of the Itô SDE dθ = b(θ) dt + √(ηC(θ)) dW, solved numerically, d ≤ 3.

        ∂ₜp = −∇·(b p) + ∂ᵢ∂ⱼ(Dᵢⱼ p),   D = ηC/2

    on a box with no flux through its walls, or periodic axes. C may be singular, anisotropic, not
    diagonal and may depend on θ; b need not be a gradient. The finite-volume scheme
    (`fokker_planck_generator`) keeps p positive and mass conserved, and is of second order in the
    spacing where D is positive definite, of first order where D is singular. Barriers between wells
    may have any height in 1-D, about 30 temperatures in 2-D and 3-D and on a circle.

    Size: 512² cells take a few seconds, 28³ too. `error_estimate` is a third of the total variation
    between this law and the one at half the resolution: the discretisation error of a second-order
    scheme (NaN if every axis has an odd number of cells). `GridWarning` is issued if it exceeds
    0.01, or if more than 10⁻⁴ of the mass lies in the outer 2 % of the box.

    **Arguments:** `drift` b, a JAX or NumPy function `(d,) -> (d,)`, −∇L − λθ for SGD; `covariance`
    C, a function `(d,) -> (d, d)` or a constant matrix, (loss/params)²; `learning_rate` η; `grid`;
    `reflecting=True` says that the walls are meant, so that mass there is no reason to warn.

    Raises `ValueError` for more than three axes, for values that are not finite, and if C is not
    positive semi-definite; `require_proper` raises `ImproperLawError` if the noise vanishes so that
    several laws are stationary.

    Source: textbook; the scheme is derived, see `fokker_planck_generator`.

    >>> import numpy as np
    >>> from statsgd import SGD, noise, problems
    >>> bowl = problems.quadratic(np.eye(1))
    >>> law = FokkerPlanckLaw.from_sgd(bowl, SGD(0.1, noise.Isotropic(1.0)))
    >>> law.covariance().round(4)  # η/2
    array([[0.05]])
    """

    setting: ClassVar[str] = "diffusion limit of SGD without momentum, any loss and noise, d ≤ 3"
    exactness: ClassVar[str] = "exact for the SDE up to O(spacing²); error estimate reported"
    citation: ClassVar[str] = "Scharfetter, Gummel (1969); Fehrenbach, Mirebeau (2014)"

    learning_rate: Float[Any, ""]
    error_estimate: Float[Any, ""]
    coarse: Generator | None = eqx.field(static=True)
    """The process on half as many cells an axis; None if every axis has an odd number."""
    coarsest: Generator | None = eqx.field(static=True)
    """And on half as many again."""

    def __init__(
        self,
        drift: Any,
        covariance: Any,
        learning_rate: Any,
        grid: Grid,
        *,
        reflecting: bool = False,
    ):
        d = grid.dimension
        if d > 3:
            raise ValueError(f"grid must have at most 3 axes, got {d}")
        self.learning_rate = positive("learning_rate", learning_rate)
        solver = _Solver(drift, covariance, float(self.learning_rate), d)
        self.states, self.num_params = grid, d
        self.process = solver.process(grid)
        self.masses = self.process.stationary.reshape(grid.cells)
        coarse = grid.coarsen()
        coarsest = coarse.coarsen()
        self.coarse, self.coarsest, error = None, None, np.nan
        if coarse.cells != grid.cells:
            self.coarse = solver.process(coarse)
            if coarsest.cells != coarse.cells:
                self.coarsest = solver.process(coarsest)
            masses = self.coarse.stationary.reshape(coarse.cells)
            error = total_variation(grid.add_up(self.masses, coarse), masses) / 3
        self.error_estimate = np.asarray(error)
        self._warn(reflecting)

    @classmethod
    def from_sgd(cls, problem: Problem, sgd: SGD, grid: Grid | None = None) -> Self:
        """The law of the diffusion limit of `sgd` on `problem`, over flat parameters.

        Without `grid` a box is found by `automatic_box`, starting from the minima that a few
        starts reach; give a grid for periodic parameters and for wells far apart. Raises
        `ValueError` for momentum, for noise that is correlated in time, and for d > 3.
        """
        if problem.dimension > 3:
            raise ValueError(f"the law needs d ≤ 3 parameters, got d = {problem.dimension}")
        sgd.require_heavy_ball()
        if float(sgd.momentum) != 0:
            raise ValueError(
                "momentum must be 0 for the first-order diffusion limit, got "
                f"{float(sgd.momentum)}; DiscreteChainLaw takes momentum for d = 1"
            )
        if not sgd.noise.white:
            raise ValueError(f"noise must be independent from step to step, got {sgd.noise!r}")
        sgd.noise.check(problem)
        sgd.noise.require_variance()
        drift = SGDDrift(problem, sgd.weight_decay)
        covariance = SGDCovariance(problem, sgd.noise)
        if grid is None:
            solver = _Solver(drift, covariance, float(sgd.learning_rate), problem.dimension)
            first = box_around_minima(problem, sgd)
            lower, upper = automatic_box(solver.masses, *first, _COARSE[problem.dimension])
            grid = Grid(lower, upper, _CELLS[problem.dimension])
        elif grid.dimension != problem.dimension:
            raise ValueError(
                f"grid must have {problem.dimension} axes for this problem, got {grid.dimension}"
            )
        return cls(drift, covariance, sgd.learning_rate, grid)

    @classmethod
    def examples(cls) -> Iterable[Self]:
        """A double well, and a 2-D quadratic whose noise breaks detailed balance."""
        yield cls(double_well_drift, [[0.4]], 0.5, Grid(-2.4, 2.4, 1600))
        yield cls(
            anisotropic_drift,
            [[1.0, 0.5], [0.5, 1.0]],
            0.1,
            Grid([-1.5, -1.2], [1.5, 1.2], 160),
        )

    @classmethod
    def improper_examples(cls) -> Sequence[Self]:
        """Noise that vanishes at two minima: each of them keeps what reaches it."""
        return (
            cls(
                double_well_drift,
                _no_noise_at_the_minima,
                0.5,
                Grid(-2.1, 2.1, 21),
                reflecting=True,
            ),
        )

    def _evaluated(self) -> Self:
        bare = super()._evaluated()
        object.__setattr__(bare, "coarse", None)
        object.__setattr__(bare, "coarsest", None)
        return bare

    def _law_error(self, deviation: Float[Any, "..."]) -> Float[Any, " k"]:
        """As `error_estimate`, cell by cell."""
        if self.coarse is None:
            return super()._law_error(deviation)
        coarse = self.grid.coarsen()
        masses = self.grid.add_up(self.masses, coarse)
        change = np.abs(masses - self.coarse.stationary.reshape(coarse.cells)) / 3
        sums = [self.grid.add_up(self.masses * f, coarse) for f in np.moveaxis(deviation, -1, 0)]
        means = np.divide(sums, masses, out=np.zeros((len(sums), *coarse.cells)), where=masses > 0)
        return np.sum(change * np.abs(means), axis=tuple(range(1, means.ndim)))

    def spectral_gap(self) -> float:
        """Rate, per unit of time t = ηk, at which the slowest deviation from the law decays.

        The least −Re of the eigenvalues near zero, extrapolated to no spacing from three grids,
        each of half as many cells an axis: upwind transport, where D is singular, spreads by
        |b|·spacing/2 of its own, which speeds relaxation up by a share of first order.

        Warns with `GridWarning` where `spectral_gap_error` is above a hundredth of it.
        """
        gap, error = self._extrapolated_gap()
        if error > _TOLERANCE * gap:
            warnings.warn(
                f"the spectral gap {gap:.4g} is off by about {error:.2g} on {self.states.cells} "
                "cells: use more cells",
                GridWarning,
                stacklevel=2,
            )
        return gap

    def spectral_gap_error(self) -> float:
        """Size of the error of `spectral_gap`: how far that of the two coarser grids is from it.

        At least half of what extrapolation changed. Where there are only two grids, or halving the
        spacing does not halve the change at least, nothing is extrapolated, and the error is the
        largest change. NaN if every axis has an odd number of cells.
        """
        return self._extrapolated_gap()[1]

    def _extrapolated_gap(self) -> tuple[float, float]:
        self.ensure_proper()
        known = [p for p in (self.process, self.coarse, self.coarsest) if p is not None]
        gaps = [-process.slowest_eigenvalue().real for process in known]
        changes = -np.diff(gaps)
        if len(changes) == 2 and changes[1] / (changes[0] or np.inf) >= _FALLING:
            # Of first or second order, whichever the changes are nearer to.
            order = 2 if changes[1] / changes[0] > 2**1.5 else 1
            moves = changes / (2**order - 1)
            # Two extrapolations may agree by chance: half of what was added is doubted too.
            apart = abs(gaps[0] + moves[0] - gaps[1] - moves[1])
            return float(gaps[0] + moves[0]), float(max(apart, abs(moves[0]) / 2))
        return gaps[0], float(np.max(np.abs(changes))) if len(changes) else np.nan

    def evolve(self, masses: Float[Any, "..."], time: Any) -> Float[Any, "..."]:
        """Cell masses after `time` t = ηk > 0 from the cell masses given.

        Exact in time to about 10⁻¹⁰ if modes do not turn much faster than they decay.
        """
        start = np.asarray(masses, dtype=np.float64)
        if start.shape != self.states.cells:
            raise ValueError(f"masses must have shape {self.states.cells}, got {start.shape}")
        end = self.process.evolve(start.ravel(), float(positive("time", time)))
        return end.reshape(self.states.cells)

    def _warn(self, reflecting: bool) -> None:
        at_walls = self.states.boundary_mass(self.masses)
        if not reflecting and at_walls > _BOUNDARY_MASS:
            warnings.warn(
                f"{at_walls:.2g} of the mass lies near the walls of the box "
                f"[{self.states.lower}, {self.states.upper}]: widen it, or say reflecting=True",
                GridWarning,
                stacklevel=3,
            )
        self._warn_of_lost_weights()
        if self.error_estimate > _TOLERANCE:
            warnings.warn(
                f"the law is off by about {float(self.error_estimate):.2g} in total variation on "
                f"{self.states.cells} cells: use more cells",
                GridWarning,
                stacklevel=3,
            )


class _Solver:
    """Drift and noise, ready to be put on any grid."""

    def __init__(self, drift: Any, covariance: Any, learning_rate: float, dimension: int):
        self.drift = at_points(drift, (dimension,), "drift")
        self.covariance = at_points(covariance, (dimension, dimension), "covariance")
        self.learning_rate = learning_rate

    def process(self, grid: Grid) -> Generator:
        """The jump process on the cells of `grid`."""
        points = grid.points()
        noise = require_covariance(self.covariance(points), points)
        diffusion = self.learning_rate * noise / 2
        matrix = fokker_planck_generator(grid, self.drift(points), diffusion)
        return Generator(matrix, direct=True)

    def masses(self, grid: Grid) -> Float[Any, "..."]:
        """Its stationary cell masses."""
        return self.process(grid).stationary.reshape(grid.cells)


class SGDDrift(eqx.Module):
    """−∇L − λθ at flat parameters."""

    problem: Problem
    weight_decay: Float[Any, ""]

    def __call__(self, vector: Float[Any, " d"]) -> Float[Any, " d"]:
        """The drift at one point."""
        problem = self.problem
        gradient = problem.flatten(problem.gradient(problem.unflatten(vector)))
        return -gradient - self.weight_decay * vector


class SGDCovariance(eqx.Module):
    """C at flat parameters."""

    problem: Problem
    noise: GradientNoise

    def __call__(self, vector: Float[Any, " d"]) -> Float[Any, "d d"]:
        """The noise covariance at one point."""
        return self.noise.covariance(self.problem, self.problem.unflatten(vector))


def require_covariance(
    matrices: Float[Any, "n d d"], points: Float[Any, "n d"]
) -> Float[Any, "n d d"]:
    """The symmetric part; `ValueError` where a matrix is not symmetric positive semi-definite."""
    scale = np.max(np.abs(matrices), axis=(1, 2))
    transposed = matrices.transpose(0, 2, 1)
    asymmetric = np.max(np.abs(matrices - transposed), axis=(1, 2)) > 1e-5 * scale
    symmetric = (matrices + transposed) / 2
    negative = np.linalg.eigvalsh(symmetric)[:, 0] < -1e-6 * scale
    for bad, word in ((asymmetric, "symmetric"), (negative, "positive semi-definite")):
        if np.any(bad):
            raise ValueError(
                f"covariance must be {word}, got {matrices[bad][0].tolist()} at {points[bad][0]}"
            )
    return symmetric


def double_well_drift(x: Float[Any, " 1"]) -> Float[Any, " 1"]:
    """That of L = x⁴/4 − x²/2."""
    return x - x**3


def anisotropic_drift(x: Float[Any, " 2"]) -> Float[Any, " 2"]:
    """That of L = x₀²/2 + x₁²."""
    return jnp.stack([-x[0], -2 * x[1]])


def _no_noise_at_the_minima(x: Float[Any, " 1"]) -> Float[Any, "1 1"]:
    return ((x**2 - 1) ** 2)[:, None]
