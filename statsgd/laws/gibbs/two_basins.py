"""Gibbs law on a sharp and a flat basin in the plane, and how soon noise leaves the sharp one."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PRNGKeyArray
from scipy.special import ndtr

from statsgd.arguments import count, is_traced, non_negative, positive
from statsgd.laws.bases.plane import integrate_over_square
from statsgd.laws.bases.potential import PotentialLaw
from statsgd.laws.expected import Columns, Expected, of_sums
from statsgd.laws.law import register, require_accurate
from statsgd.precision import formula, over_points
from statsgd.problems.two_basins import TwoBasinLoss

#: Rotation into the axes u, v of the sharp basin, and the curvatures along them; the flat has 2.
_TURN = np.array([[1.0, -1.0], [1.0, 1.0]]) / np.sqrt(2)
_CURVATURES = np.array([20.0, 200.0])
# Quadrature by midpoints in standard deviations of a basin. Integrands with jumps need many in the
# flat one, which holds nearly all the mass.
_REACH, _SHARP_CELLS, _FLAT_CELLS = 7.0, 280, 1050
_CELL_TOLERANCE = 1e-10


@register
class TwoBasinGibbs(PotentialLaw):
    """Gibbs law exp(−L/τ) on `problems.two_basins` without spread, L = min of two parabolas.

    Drawn from exactly: draws of the mixture of both parabolas' Gaussians, accepted with probability
    max(p_A, p_B)/(p_A + p_B), which is above 0.9999 for τ ≤ 1. The barrier is 800/121 = 6.61, so a
    local kernel does not cross it at τ below about 0.5.

    It is the law of SGD's diffusion limit under constant isotropic noise c, τ = ηc/2. The chain at
    η h_max = 1 overheats the sharp basin, and no law is known for other shapes of noise.

    **Arguments:** `temperature` τ > 0.

    Source: landscape of Zhu et al. (2019), arXiv:1803.00195; law and sampler are derived.

    >>> import jax
    >>> law = TwoBasinGibbs(temperature=0.1)
    >>> law.draw(jax.random.key(0), (3,)).shape
    (3, 2)
    """

    setting: ClassVar[str] = "SGD in a sharp and a flat basin of the plane, isotropic noise"
    exactness: ClassVar[str] = "exact for its SDE; the chain overheats the sharp basin"
    citation: ClassVar[str] = "Zhu, Wu, Yu, Wu, Ma (2019), arXiv:1803.00195; law derived"

    temperature: Float[Any, ""]
    log_z: Float[Any, ""]
    error_estimate: Float[Any, ""]
    """Relative error of the normaliser; NaN where traced."""

    def __init__(self, temperature: Any):
        self.temperature = positive("temperature", temperature)
        if is_traced(self.temperature):
            self.log_z, self.error_estimate = _log_normalizer(self.temperature), np.float64(np.nan)
            return
        total, error = _integrals(self.temperature, lambda points: np.ones((len(points), 1)))
        self.log_z, self.error_estimate = np.log(total[0]), error[0] / total[0]

    @classmethod
    def examples(cls) -> Iterable[Self]:
        """The temperature of the published experiment, and twice it."""
        yield cls(0.5)
        yield cls(1.0)

    @property
    def dimension(self) -> int:
        """Two."""
        return 2

    @property
    def exact_draws(self) -> bool:
        """Yes, by rejection."""
        return True

    @property
    def normalized(self) -> bool:
        """Yes, by quadrature."""
        return True

    def require_proper(self) -> None:
        """Every instance is proper."""

    def potential(self, params: Float[Any, " 2"]) -> Float[Any, ""]:
        """L/τ."""
        return jnp.minimum(*_branches(params)) / self.temperature

    def _averaged(self, values: Columns) -> Expected:
        """By cells of the plane that are split where f·p is not resolved: f may jump."""

        def columns(points: Any) -> Any:
            found = values(points)
            return np.concatenate([found, np.abs(found), np.ones((len(points), 1))], axis=1)

        return of_sums(*_integrals(self.temperature, columns))

    def flat_probability(self) -> float:
        """Mass of the region where the flat parabola is the lower one."""
        points, weights = self.quadrature()
        return float(weights @ (np.subtract(*_branches(points.T)) > 0))

    def _log_normalizer(self) -> Any:
        return self.log_z

    def _quadrature(self) -> tuple[Float[Any, "n 2"], Float[Any, " n"]]:
        points, weights = _midpoints(self.temperature)
        return points, weights / np.sum(weights)

    def _draw(self, key: PRNGKeyArray, number: int) -> Mapping[str, Float[Any, "number 2"]]:
        found = np.empty((0, 2))
        for round_key in (jax.random.fold_in(key, i) for i in range(64)):
            found = np.concatenate([found, self._propose(round_key, number + 16)])
            if len(found) >= number:
                break
        return {"params": found[:number]}

    def starting_points(
        self, key: PRNGKeyArray, number: int
    ) -> Mapping[str, Float[Any, "number 2"]]:
        """Exact draws: local kernels do not cross the barrier."""
        return self.draw_variables(key, (number,))

    def _propose(self, key: PRNGKeyArray, number: int) -> Float[Any, "n 2"]:
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).tolist())
        tau = float(self.temperature)
        sharp = rng.random(number) < 1 / (1 + np.sqrt(1000))
        standard = rng.normal(size=(number, 2))
        proposed = np.where(
            sharp[:, None],
            1 + standard * np.sqrt(tau / _CURVATURES) @ _TURN,
            -1 + standard * np.sqrt(tau / 2),
        )
        a, b = (branch / tau for branch in _branches(proposed.T))
        return proposed[rng.random(number) < 1 / (1 + np.exp(-np.abs(a - b)))]


def leave_probability(variance_u: float, variance_v: float, steps: int) -> float:
    """P(some of `steps` iterates lies outside the sharp parabola), point data, η h_v = 1.

    At η = 0.005 the coordinate v of curvature 200 is white from step to step and u of curvature 20
    is autoregressive with coefficient 0.9; each step adds Gaussian noise of variances `variance_u`
    and `variance_v` to w. The survival of u is iterated by quadrature.

    Raises `ValueError` for negative variances, for `variance_v` = 0 and `steps` < 1. Warns with
    `UnresolvedWarning` where quadrature is off by more than 10⁻³ of it.
    Source: derived.

    >>> round(float(leave_probability(0.01, 0.01, steps=100)), 2)
    0.56
    """
    spread_u = np.sqrt(float(non_negative("variance_u", variance_u)))
    spread_v = np.sqrt(float(positive("variance_v", variance_v)))
    number = count("steps", steps)
    if spread_u == 0:
        with np.errstate(divide="ignore"):
            return float(-np.expm1(number * np.log1p(-_outside(np.zeros(1), spread_v)[0])))
    found, rough = (_left(spread_u, spread_v, number, order) for order in (10, 7))
    if found > 0:
        require_accurate("probability of leaving", abs(found - rough) / found)
    return found


#: The sharp parabola is the lower one inside 9u² + 99v² − 4√2 v − 8 ≤ 0: where it is centred in v.
_CENTRE = 2 * np.sqrt(2) / 99
_EDGE, _TURN_OVER = np.sqrt((8 + 99 * _CENTRE**2) / 9), np.sqrt(8 / 9)


def _outside(u: Float[np.ndarray, " n"], spread_v: float) -> Float[np.ndarray, " n"]:
    """P(v lies outside the sharp parabola) at u, for normal v."""
    half = np.sqrt(np.maximum((8 + 99 * _CENTRE**2 - 9 * u**2) / 99, 0))
    return ndtr((_CENTRE - half) / spread_v) + ndtr(-(_CENTRE + half) / spread_v)


def _left(spread_u: float, spread_v: float, number: int, order: int) -> float:
    """The probability of leaving, by Gauss–Legendre of an `order` in panels finer than a step.

    Panels shrink towards the edge, and to where v = 0 leaves, at which narrow noise turns over.
    What leaves is added up, not taken off from one: it may be small.
    """
    # Thirty deviations of the stationary law of u.
    reach = min(_EDGE, 30 * spread_u / np.sqrt(0.19))
    grades = _EDGE * 2.0 ** -np.arange(1, 31)
    ends = np.concatenate([[reach], *(place - grades for place in (_EDGE, _TURN_OVER))])
    ends = np.concatenate([ends, _TURN_OVER + grades, [_TURN_OVER]])
    ends = np.unique(np.concatenate([ends[(ends > 0) & (ends <= reach)], [0.0]]))
    pieces = np.maximum(np.ceil(np.diff(ends) / (1.5 * spread_u)).astype(int), 1)
    panels = zip(ends[:-1], ends[1:], pieces, strict=True)
    half = np.unique(np.concatenate([np.linspace(a, b, n + 1) for a, b, n in panels]))
    edges = np.concatenate([-half[:0:-1], half])
    node, weight = np.polynomial.legendre.leggauss(order)
    width = np.diff(edges)[:, None] / 2
    u = (edges[:-1, None] + width * (1 + node)).ravel()
    weights = (width * weight).ravel()
    outside = np.minimum(_outside(u, spread_v), 1)

    def density(mean: Any) -> Any:
        return np.exp(-(((u[:, None] - mean) / spread_u) ** 2) / 2) / (
            np.sqrt(2 * np.pi) * spread_u
        )

    def beyond(mean: Any) -> Any:
        return ndtr((mean - reach) / spread_u) + ndtr(-(mean + reach) / spread_u)

    move, leap = density(0.9 * u), beyond(0.9 * u)
    moved, left = density(0.0)[:, 0], float(beyond(0.0))
    for step in range(number):
        if step:
            alive = moved * (1 - outside) * weights
            moved, left = move @ alive, left + leap @ alive
        left += moved @ (outside * weights)
    return left


def _branches(points: Any) -> tuple[Any, Any]:
    return TwoBasinLoss(np.pi / 4).branches(points, (0.0, 0.0))


def _standard_grid(cells: int) -> Float[np.ndarray, "n 2"]:
    edges = np.linspace(-_REACH, _REACH, cells + 1)
    middle = (edges[1:] + edges[:-1]) / 2
    return np.stack(np.meshgrid(middle, middle, indexing="ij"), axis=-1).reshape(-1, 2)


def _integrals(temperature: Any, columns: Callable[[Any], Any]) -> tuple[Any, Any]:
    """∫ exp(−L/τ) times each of `columns` of a function of points, and the errors."""

    def within(basin: str) -> Any:
        def integrand(standard: Any) -> Any:
            points, weights = over_points(_weighted, standard, temperature, basin)
            return columns(points) * weights[:, None]

        return integrate_over_square(integrand, _REACH, _CELL_TOLERANCE)

    total, error = np.sum([within(basin) for basin in ("sharp", "flat")], axis=0)
    return total, error


@formula
def _midpoints(temperature: Any) -> tuple[Any, Any]:
    """Points and weights that integrate against exp(−L/τ), each on a grid made for its basin."""
    parts = []
    for basin, cells in (("sharp", _SHARP_CELLS), ("flat", _FLAT_CELLS)):
        points, weights = _weighted(_standard_grid(cells), temperature, basin)
        parts.append((points, weights * (2 * _REACH / cells) ** 2))
    (sharp, of_sharp), (flat, of_flat) = parts
    return jnp.concatenate([sharp, flat]), jnp.concatenate([of_sharp, of_flat])


def _weighted(standard: Float[Any, "... 2"], temperature: Any, basin: str) -> tuple[Any, Any]:
    """Points in standard deviations of a basin as points of the plane, and the integrand there.

    exp(−min) = exp(−flat) + (exp(−sharp) − exp(−flat))₊.
    """
    if basin == "sharp":
        scale = jnp.sqrt(temperature / _CURVATURES)
        points = 1 + (standard * scale) @ _TURN
        above, below = (jnp.exp(-branch / temperature) for branch in _branches(points.T))
        return points, jnp.prod(scale) * jnp.clip(above - below, 0, None)
    scale = jnp.sqrt(temperature / 2)
    points = -1 + standard * scale
    return points, scale**2 * jnp.exp(-_branches(points.T)[1] / temperature)


@formula
def _log_normalizer(temperature: Any) -> Any:
    return jnp.log(jnp.sum(_midpoints(temperature)[1]))
