"""The stationary law of the discrete SGD chain itself, by its transfer operator on a grid."""

import itertools
import math
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, NamedTuple, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy import sparse

from statsgd.arguments import count, fraction, kinds_checked, non_negative, positive
from statsgd.dynamics.noise import Minibatch, NoNoise
from statsgd.dynamics.noise.injected import GaussianNoise, IsotropicNoise
from statsgd.dynamics.sgd import SGD
from statsgd.laws.expected import Columns, Expected
from statsgd.laws.grids.automatic_box import automatic_box, box_around_minima
from statsgd.laws.grids.cell_average import cell_average
from statsgd.laws.grids.fokker_planck import (
    SGDCovariance,
    SGDDrift,
    anisotropic_drift,
    double_well_drift,
    require_covariance,
)
from statsgd.laws.grids.grid import Grid, GridWarning, PointFunction, at_points
from statsgd.laws.grids.grid_law import GridLaw
from statsgd.laws.grids.markov import Generator
from statsgd.laws.grids.transfer_operator import (
    Transitions,
    finite_transitions,
    gaussian_transitions,
)
from statsgd.laws.law import register
from statsgd.problems import EmpiricalRisk, Problem

_EXIT = 1e-5
_TOLERANCE = 0.01
_SMOOTH = 1 - 1e-6  # share of the mass whose steps cells must resolve
_ALIASED = 1e-8  # what sums over midpoints are off by then
_MAX_BATCHES = 2000


class FiniteNoise(NamedTuple):
    """Gradient noise with finitely many values, such as that of minibatches of a small data set."""

    values: Any
    """Function `(d,) -> (B, d)`: what is added to the drift; its mean need not be zero."""
    probabilities: Any
    """`(B,)`, non-negative, summing to one; or a function `(d,) -> (B,)`."""
    contracted: bool = False
    """Whether values are drawn together by the variance that the grid will add."""


@register
class DiscreteChainLaw(GridLaw):
    """Stationary law of SGD as it runs, at its finite learning rate, solved numerically, d ≤ 2.

        θ' = θ + η (b(θ) − λθ + ξ),   b = −∇L,   ξ ~ N(0, C(θ)) or one of finitely many values

    and with momentum, d = 1,  θ_{k+1} = θ_k + β(θ_k − θ_{k−1}) + η (b(θ_k) − λθ_k + ξ), as a
    chain on pairs (θ_k, θ_{k−1}); the momentum buffer is m_k = (θ_{k−1} − θ_k)/η.

    Gaussian noise: a transition matrix between midpoints of cells. For smooth b and C the error is
    below 10⁻⁶ once cells are at most half the standard deviation of a step, √(η²C); a kink or jump
    leaves an error of second order in the spacing if it lies on an edge of cells. Finite noise is
    put on the grid by linear interpolation, which adds a variance of up to cell²/4 a step unless
    the noise is `contracted`.
    `numerical_diffusion` is the added variance over the variance of the noise, and
    `exit_probability` the stationary probability that a step leaves the box (it starts again from
    the middle, or is conditioned on staying where its mean stays);
    `GridWarning` is issued where they exceed 0.01 and 10⁻⁵. The error of an expectation is what
    half as many cells an axis change in it, halved, and at least what the added variance does,
    which alone counts where cells resolve every step and twice as long ones do not.

    **Arguments:** `drift` b, a JAX or NumPy function `(d,) -> (d,)`; `noise`, the covariance C as a
    function `(d,) -> (d, d)` or a matrix, or a `FiniteNoise`; `learning_rate` η, `momentum` β and
    `weight_decay` λ as in `SGD`; `grid` over parameters, square cells of (θ_k, θ_{k−1}) with
    momentum.

    Raises `ValueError` for more than two axes, momentum in 2-D, or values that are not finite.

    Source: derived.

    >>> import numpy as np
    >>> from statsgd import SGD, noise, problems
    >>> bowl = problems.quadratic(np.eye(1))
    >>> law = DiscreteChainLaw.from_sgd(bowl, SGD(0.1, noise.Isotropic(1.0)))
    >>> law.covariance().round(4)  # η/(2 − η)
    array([[0.0526]])
    """

    setting: ClassVar[str] = "the SGD chain at finite learning rate, d ≤ 2, or d = 1 with momentum"
    exactness: ClassVar[str] = "exact for the chain up to a small error of the grid"
    citation: ClassVar[str] = "derived for statsgd"

    sampled: ClassVar[bool] = True

    learning_rate: Float[Any, ""]
    momentum: Float[Any, ""]
    weight_decay: Float[Any, ""]
    exit_probability: float = eqx.field(static=True)
    numerical_diffusion: float = eqx.field(static=True)
    coarse_masses: Float[Any, "..."] | None
    """Of the cells of `grid.coarsen()`; None where they say nothing about this grid."""

    def __init__(
        self,
        drift: Any,
        noise: Any,
        learning_rate: Any,
        grid: Grid,
        *,
        momentum: Any = 0.0,
        weight_decay: Any = 0.0,
    ):
        d = grid.dimension
        self.learning_rate = positive("learning_rate", learning_rate)
        self.momentum = fraction("momentum", momentum)
        self.weight_decay = non_negative("weight_decay", weight_decay)
        if d > 2 or (d == 2 and float(self.momentum) > 0):
            raise ValueError(
                f"grid must have 1 axis, or 2 without momentum, got {d} axes and momentum "
                f"{float(self.momentum)}"
            )
        step = _Step(drift, noise, self.learning_rate, self.momentum, self.weight_decay, d)
        solution = step.solve(grid)
        self.num_params, self.states = d, solution.states
        self.process, self.masses = solution.process, solution.masses
        weights = np.nan_to_num(self.masses.ravel())
        self.exit_probability = float(weights @ solution.exit)
        kicks = weights @ solution.noise_variance
        added = weights @ solution.excess
        self.numerical_diffusion = float(added / kicks) if kicks > 0 else 0.0
        self.coarse_masses = step.coarse_masses(grid, solution.smooth)
        self._warn()

    @classmethod
    def from_sgd(cls, problem: Problem, sgd: SGD, grid: Grid | None = None) -> Self:
        """The law of the chain that `sgd` runs on `problem`, over flat parameters.

        Gaussian noise models, and `Minibatch` noise on a data set with at most 2000 different
        batches. Without `grid` a box is found as for `FokkerPlanckLaw`, with cells of half the
        standard deviation of a step, or of an eighth for minibatches, as far as memory allows.
        Raises `ValueError` for other noise and for sizes that the law does not cover.
        """
        sgd.require_heavy_ball()
        d, beta = problem.dimension, float(sgd.momentum)
        if d > 2 or (d == 2 and beta > 0):
            raise ValueError(
                "the law needs d = 1 parameter, or 2 without momentum, got "
                f"d = {d} and momentum {beta}"
            )
        sgd.noise.check(problem)
        noise = _noise_of(problem, sgd)
        gradient_part = SGDDrift(problem, np.zeros(()))
        settings = sgd.learning_rate, sgd.momentum, sgd.weight_decay
        if grid is None:
            step = _Step(gradient_part, noise, *settings, d)
            grid = step.automatic_grid(*box_around_minima(problem, sgd))
        elif grid.dimension != d:
            raise ValueError(f"grid must have {d} axes for this problem, got {grid.dimension}")
        return cls(
            gradient_part,
            noise,
            sgd.learning_rate,
            grid,
            momentum=sgd.momentum,
            weight_decay=sgd.weight_decay,
        )

    @classmethod
    def examples(cls) -> Iterable[Self]:
        """A double well, with momentum, and a 2-D quadratic with correlated noise."""
        yield cls(double_well_drift, [[2.0]], 0.1, Grid(-2.6, 2.6, 200))
        yield cls(_quadratic_drift, [[0.25]], 0.1, Grid(-1.2, 1.2, 96), momentum=0.5)
        yield cls(
            anisotropic_drift,
            [[1.0, 0.5], [0.5, 1.0]],
            0.1,
            Grid([-1.6, -1.2], [1.6, 1.2], [64, 48]),
        )

    @classmethod
    def improper_examples(cls) -> Sequence[Self]:
        """No noise in a double well: each minimum keeps what reaches it."""
        return (cls(double_well_drift, [[0.0]], 0.5, Grid(-2.1, 2.1, 21)),)

    def _averaged(self, values: Columns) -> Expected:
        found = super()._averaged(values)
        if self.coarse_masses is None:
            return found
        coarse, _ = cell_average(values, self.grid.coarsen(), self.coarse_masses, sampled=True)
        # Errors are of second order: halving the spacing leaves a third of what it changes.
        return found._replace(error=np.maximum(found.error, abs(found.value - coarse.value) / 2))

    def _law_error(self, deviation: Float[Any, "..."]) -> Float[Any, " k"]:
        """What the variance that the grid adds would do to a spread."""
        spread = np.tensordot(self.probabilities(), np.abs(deviation), axes=self.num_params)
        return (abs(self.numerical_diffusion) + _ALIASED) * spread

    @property
    def error_estimate(self) -> Float[Any, ""]:
        """Of the distribution functions of the marginals, as of expectations; NaN if unknown."""
        self.ensure_proper()
        if self.coarse_masses is None:
            return np.asarray(np.nan)
        coarse = self.grid.coarsen()
        change = self.grid.add_up(self._parameter_masses(), coarse) - self.coarse_masses
        axes = range(self.num_params)
        margins = [change.sum(axis=tuple(i for i in axes if i != axis)) for axis in axes]
        return np.max([np.max(np.abs(np.cumsum(margin))) for margin in margins]) / 2

    def relaxation_rate(self) -> float:
        """−log of the second largest modulus of an eigenvalue of the chain: decay per step."""
        self.ensure_proper()
        return -float(np.log(self.process.second_modulus()))

    def evolve(self, masses: Float[Any, "..."], steps: int) -> Float[Any, "..."]:
        """Masses of `states` after `steps` steps from those given; exact on the grid."""
        current = np.asarray(masses, dtype=np.float64)
        if current.shape != self.states.cells:
            raise ValueError(f"masses must have shape {self.states.cells}, got {current.shape}")
        flat, transposed = current.ravel(), sparse.csr_array(self.process.matrix.T)
        for _ in range(count("steps", steps, at_least=0)):
            flat = flat + transposed @ flat
        return flat.reshape(self.states.cells)

    def momentum_buffer_moments(self) -> tuple[float, float, float]:
        """Mean and variance of the buffer m, and Cov(θ, m); d = 1 with momentum.

        m = (θ_{k−1} − θ_k)/η also gives the step δ = −ηm. `ValueError` without momentum.
        """
        self.ensure_proper()
        if self.states.dimension != 2 * self.num_params:
            raise ValueError("momentum must be positive for a law of the momentum buffer, got 0")
        points, masses = self.states.points(), self.masses.ravel()
        buffer = _difference(self.grid, points[:, 1], points[:, 0]) / float(self.learning_rate)
        theta = points[:, 0] - masses @ points[:, 0]
        mean = float(masses @ buffer)
        return mean, float(masses @ (buffer - mean) ** 2), float(masses @ (theta * buffer))

    def _warn(self) -> None:
        self._warn_of_lost_weights()
        if self.exit_probability > _EXIT:
            warnings.warn(
                f"a step leaves the box [{self.states.lower}, {self.states.upper}] with "
                f"probability {self.exit_probability:.2g}: widen it",
                GridWarning,
                stacklevel=3,
            )
        if abs(self.numerical_diffusion) > _TOLERANCE:
            warnings.warn(
                f"the grid adds {self.numerical_diffusion:.2g} of the variance of the noise on "
                f"{self.states.cells} cells: use more cells",
                GridWarning,
                stacklevel=3,
            )


class _Solution(NamedTuple):
    states: Grid
    process: Generator
    masses: np.ndarray
    exit: np.ndarray
    excess: np.ndarray
    noise_variance: np.ndarray
    smooth: float
    """Share of the mass from which cells resolve steps."""


class _Step:
    """One step of the chain, ready to be put on any grid."""

    def __init__(self, drift: Any, noise: Any, eta: Any, beta: Any, decay: Any, dimension: int):
        self.drift = at_points(drift, (dimension,), "drift")
        self.dimension = dimension
        self.eta, self.beta, self.decay = float(eta), float(beta), float(decay)
        self.probabilities: PointFunction | None = None
        if isinstance(noise, FiniteNoise):
            self.probabilities = _probabilities(noise.probabilities, dimension)
            number = len(self.probabilities(np.zeros((1, dimension)))[0])
            self.noise = at_points(noise.values, (number, dimension), "noise.values")
            self.contracted = noise.contracted
        else:
            self.noise = at_points(noise, (dimension, dimension), "noise")

    def solve(self, grid: Grid) -> _Solution:
        """Transition matrix and stationary masses on `grid`."""
        theta = grid.points()
        ahead = theta + self.eta * (self.drift(theta) - self.decay * theta)
        noise = self.noise(theta)
        if self.probabilities is None:
            kicks = self.eta**2 * require_covariance(noise, theta)
            variance = np.trace(kicks, axis1=1, axis2=2)
        else:
            kicks, weights = self.eta * noise, self.probabilities(theta)
            variance = np.sum(_deviation(kicks, weights) ** 2, axis=1)
        if self.beta == 0:
            steps = self._transitions(grid, ahead, kicks, theta)
            matrix = steps.matrix
            states, direct = grid, grid.dimension == 1
        else:
            n = grid.size
            now, before = np.divmod(np.arange(n * n), n)
            push = self.beta * _difference(grid, theta[now], theta[before])
            steps = self._transitions(grid, ahead[now] + push, kicks[now], theta[now])
            entries = steps.matrix.tocoo()
            columns = entries.col * n + now[entries.row]
            # Outside the box start again at rest: a leap to the middle would be taken for speed.
            leaving = steps.exit >= 1 if self.probabilities is None else steps.exit > 0
            middle = n // 2
            columns = np.where(leaving[entries.row], middle * n + middle, columns)
            matrix = sparse.csr_array((entries.data, (entries.row, columns)), shape=(n * n, n * n))
            states = Grid(grid.lower * 2, grid.upper * 2, grid.cells * 2, grid.periodic * 2)
            direct, variance = False, variance[now]
        generator = (matrix - sparse.eye_array(states.size)).tocsr()
        process = Generator(generator, direct=direct)
        masses = process.stationary.reshape(states.cells)
        smooth = float(masses.ravel() @ steps.smooth)
        return _Solution(states, process, masses, steps.exit, steps.excess, variance, smooth)

    def coarse_masses(self, grid: Grid, smooth: float) -> Float[Any, "..."] | None:
        """Those of parameters on half as many cells an axis; None where there are none.

        Nor where `grid` resolves all steps, so that it is off by nearly nothing, and they do not.
        """
        coarse = grid.coarsen()
        if coarse.cells == grid.cells:
            return None
        try:
            found = self.solve(coarse)
        except ArithmeticError:
            return None
        if not np.isfinite(found.smooth) or (smooth > _SMOOTH and not found.smooth > _SMOOTH):
            return None
        return found.masses.sum(axis=tuple(range(grid.dimension, found.masses.ndim)))

    def automatic_grid(self, lower: np.ndarray, upper: np.ndarray) -> Grid:
        """A box that holds the law, with cells that resolve a step."""
        with_momentum = self.beta > 0
        coarse = {(1, False): 512, (1, True): 64, (2, False): 48}[self.dimension, with_momentum]
        finest = {(1, False): 4096, (1, True): 300, (2, False): 150}[self.dimension, with_momentum]
        if self.probabilities is not None and self.dimension == 2:
            finest = 300

        def masses(grid: Grid) -> np.ndarray:
            found = self.solve(grid).masses
            return found.sum(axis=tuple(range(grid.dimension, found.ndim)))

        lower, upper = automatic_box(masses, lower, upper, coarse)
        grid = Grid(lower, upper, coarse)
        occupied = grid.points()[masses(grid).ravel() > 1e-6]
        noise = self.noise(occupied)
        if self.probabilities is None:
            deviation, fineness = np.sqrt(np.diagonal(noise, axis1=1, axis2=2)), 2.0
        else:
            deviation, fineness = _deviation(noise, self.probabilities(occupied)), 8.0
        # The least noise that mass meets, not counting points where it vanishes.
        step = self.eta * np.quantile(deviation, 0.02, axis=0)
        with np.errstate(divide="ignore"):
            wanted = np.ceil(fineness * (upper - lower) / step)
        return Grid(lower, upper, np.clip(wanted, coarse, finest).astype(int).tolist())

    def _transitions(
        self, grid: Grid, means: np.ndarray, kicks: np.ndarray, theta: np.ndarray
    ) -> Transitions:
        if self.probabilities is None:
            return gaussian_transitions(grid, means, kicks)
        return finite_transitions(
            grid,
            means[:, None] + kicks,
            self.probabilities(theta),
            contracted=self.contracted,
        )


def _deviation(
    kicks: Float[np.ndarray, "n B d"], weights: Float[np.ndarray, "n B"]
) -> Float[np.ndarray, "n d"]:
    """Standard deviation of every coordinate of a kick."""
    centred = kicks - np.einsum("nb,nbd->nd", weights, kicks)[:, None]
    return np.sqrt(np.einsum("nb,nbd->nd", weights, centred**2))


def _difference(grid: Grid, end: np.ndarray, start: np.ndarray) -> np.ndarray:
    """end − start, the short way round a circle."""
    difference = end - start
    if not grid.periodic[0]:
        return difference
    period = grid.upper[0] - grid.lower[0]
    return (difference + period / 2) % period - period / 2


def _probabilities(values: Any, dimension: int) -> PointFunction:
    """The probabilities at many points."""
    if not callable(values):
        weights = np.asarray(non_negative("noise.probabilities", values))
        if weights.ndim != 1 or abs(weights.sum() - 1) > 1e-6:
            raise ValueError(f"noise.probabilities must be a vector that sums to 1, got {values!r}")
        constant = weights / weights.sum()
        return lambda points: np.broadcast_to(constant, (len(points), len(constant)))
    number = int(np.size(values(np.zeros(dimension))))
    weights_at = at_points(values, (number,), "noise.probabilities")

    def checked(points: np.ndarray) -> np.ndarray:
        weights = weights_at(points)
        totals = weights.sum(axis=1, keepdims=True)
        if np.any(weights < 0) or np.any(np.abs(totals - 1) > 1e-6):
            raise ValueError("noise.probabilities must be non-negative and sum to 1 at every point")
        return weights / totals

    return checked


def _noise_of(problem: Problem, sgd: SGD) -> Any:
    """Covariance function or `FiniteNoise` of the noise of `sgd`."""
    if isinstance(sgd.noise, GaussianNoise | IsotropicNoise | NoNoise):
        return SGDCovariance(problem, sgd.noise)
    if isinstance(sgd.noise, Minibatch) and isinstance(problem, EmpiricalRisk):
        return minibatch_noise(problem, sgd.noise)
    raise ValueError(
        "noise must be Gaussian, or Minibatch on a data set, for the law of the chain, got "
        f"{sgd.noise!r}"
    )


@kinds_checked
def minibatch_noise(problem: EmpiricalRisk, noise: Minibatch) -> FiniteNoise:
    """All different minibatches, with their probabilities; at most 2000, else `ValueError`.

    >>> import numpy as np
    >>> from statsgd.problems import linear_regression
    >>> problem = linear_regression(np.ones((3, 1)), np.array([1.0, 2.0, 3.0]))
    >>> minibatch_noise(problem, Minibatch(2)).probabilities.round(4)
    array([0.1111, 0.2222, 0.2222, 0.1111, 0.2222, 0.1111])
    """
    if not noise.knows_examples(problem):
        raise ValueError(
            "noise must be of batches alone for the law of the chain, got random losses"
        )
    n, s = problem.num_examples, noise.batch_size
    repeats = noise.sampling == "with_replacement"
    number = math.comb(n + s - 1, s) if repeats else math.comb(n, s)
    if number > _MAX_BATCHES:
        raise ValueError(
            f"batch_size and num_examples must allow at most {_MAX_BATCHES} different batches, got "
            f"{number} for {s} of {n} {noise.sampling}; use noise with the same covariance"
        )
    choose = itertools.combinations_with_replacement if repeats else itertools.combinations
    counts = np.zeros((number, n))
    for row, batch in enumerate(choose(range(n), s)):
        np.add.at(counts[row], list(batch), 1.0)
    ways = math.factorial(s) / np.prod(np.vectorize(math.factorial)(counts.astype(int)), axis=1)
    probabilities = ways / ways.sum()
    return FiniteNoise(_BatchDeviations(problem, counts / s - 1 / n), probabilities)


class _BatchDeviations(eqx.Module):
    """What every batch adds to −∇L at flat parameters; `weights` `(batches, N)`."""

    problem: EmpiricalRisk
    weights: Float[Any, "batches N"]

    def __call__(self, vector: Float[Any, " d"]) -> Float[Any, "batches d"]:
        problem = self.problem
        params = problem.unflatten(vector)
        gradients = problem.example_gradients(params, jnp.arange(problem.num_examples))
        return -jnp.asarray(self.weights) @ jax.vmap(problem.flatten)(gradients)


def _quadratic_drift(x: Float[Any, " 1"]) -> Float[Any, " 1"]:
    return -2 * x
