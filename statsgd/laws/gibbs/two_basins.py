"""Gibbs law on a sharp and a flat basin in the plane, and how soon noise leaves the sharp one."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PRNGKeyArray
from scipy.special import ndtr

from statsgd.arguments import count, is_traced, non_negative, positive
from statsgd.laws.bases.potential import PotentialLaw
from statsgd.laws.law import register
from statsgd.problems.two_basins import TwoBasinLoss

_CELLS, _REACH = 1600, 9.0  # quadrature: midpoints, and standard deviations of the flat basin


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
    """

    normalized: ClassVar[bool] = True
    setting: ClassVar[str] = "SGD in a sharp and a flat basin of the plane, isotropic noise"
    exactness: ClassVar[str] = "exact for its SDE; the chain overheats the sharp basin"
    citation: ClassVar[str] = "Zhu, Wu, Yu, Wu, Ma (2019), arXiv:1803.00195; law derived"

    temperature: Float[Any, ""]

    def __init__(self, temperature: Any):
        self.temperature = positive("temperature", temperature)

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """The temperature of the published experiment, and twice it."""
        return cls(0.5), cls(1.0)

    @property
    def dimension(self) -> int:
        """Two."""
        return 2

    def potential(self, params: Float[Any, " 2"]) -> Float[Any, ""]:
        """L/τ."""
        return jnp.minimum(*_branches(params)) / self.temperature

    def log_normalizer(self) -> Float[Any, ""]:
        """log ∫exp(−L/τ), by quadrature: the basins' Gaussians overlap a little."""
        # Z = Z_A + Z_B − ∫min(p_A, p_B), of which only the last is not elementary.
        xp = jnp if is_traced(self) else np
        x, y, area = _grid(float(self.temperature) if xp is np else 1.0)
        sharp, flat = _branches(np.stack([x, y]))
        overlap = area * xp.sum(xp.exp(-np.maximum(sharp, flat) / self.temperature))
        return xp.log(xp.pi * self.temperature * (1 / np.sqrt(1000) + 1) - overlap)

    def flat_probability(self) -> float:
        """Mass of the region where the flat parabola is the lower one."""
        return self.expectation(lambda w: np.subtract(*_branches(w)) > 0)

    def expectation(self, function: Any) -> float:
        """E of `function`, which takes points `(2, …)` and returns an array `(…)`."""
        x, y, area = _grid(float(self.temperature))
        points = np.stack([x, y])
        weights = np.exp(-np.minimum(*_branches(points)) / self.temperature)
        return float(np.sum(weights * function(points)) * area / np.exp(self.log_normalizer()))

    def mean(self) -> Float[Any, " 2"]:
        """Mean, by quadrature."""
        return np.array([self.expectation(lambda w, i=i: w[i]) for i in range(2)])

    def covariance(self) -> Float[Any, "2 2"]:
        """Covariance, by quadrature."""
        center = self.mean()[:, None, None]
        return np.array(
            [
                [
                    self.expectation(lambda w, i=i, j=j: (w - center)[i] * (w - center)[j])
                    for j in range(2)
                ]
                for i in range(2)
            ]
        )

    def draw_variables(
        self, key: PRNGKeyArray, shape: tuple[int, ...] = ()
    ) -> Mapping[str, Float[Any, "*shape 2"]]:
        """Exact independent draws, by rejection."""
        number = int(np.prod(shape, dtype=int))
        found = np.empty((0, 2))
        for round_key in (jax.random.fold_in(key, i) for i in range(64)):
            found = np.concatenate([found, self._propose(round_key, number + 16)])
            if len(found) >= number:
                break
        return {"params": jnp.asarray(found[:number].reshape(*shape, 2), dtype=float)}

    def require_proper(self) -> None:
        """Every instance is proper."""

    def starting_points(self, key: PRNGKeyArray, number: int) -> dict[str, Any]:
        """Exact draws: local kernels do not cross the barrier."""
        return dict(self.draw_variables(key, (number,)))

    def _propose(self, key: PRNGKeyArray, number: int) -> Float[Any, "n 2"]:
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).tolist())
        tau = float(self.temperature)
        sharp = rng.random(number) < 1 / (1 + np.sqrt(1000))
        u, v = rng.normal(size=(2, number))
        turned = np.stack(
            [
                u * np.sqrt(tau / 20) + v * np.sqrt(tau / 200),
                -u * np.sqrt(tau / 20) + v * np.sqrt(tau / 200),
            ],
            axis=1,
        ) / np.sqrt(2)
        proposed = np.where(
            sharp[:, None], 1 + turned, -1 + np.sqrt(tau / 2) * np.stack([u, v], axis=1)
        )
        a, b = (branch / tau for branch in _branches(proposed.T))
        return proposed[rng.random(number) < 1 / (1 + np.exp(-np.abs(a - b)))]


def leave_probability(variance_u: float, variance_v: float, steps: int) -> float:
    """P(some of `steps` iterates lies outside the sharp parabola), point data, η h_v = 1.

    At η = 0.005 the coordinate v of curvature 200 is white from step to step and u of curvature 20
    is autoregressive with coefficient 0.9; each step adds Gaussian noise of variances `variance_u`
    and `variance_v` to w. The survival of u is iterated on a grid.

    Raises `ValueError` for negative variances, for `variance_v` = 0 and `steps` < 1.
    Source: derived.
    """
    spread_u = np.sqrt(float(non_negative("variance_u", variance_u)))
    spread_v = np.sqrt(float(positive("variance_v", variance_v)))
    number = count("steps", steps)
    # The sharp parabola is the lower one inside 9u² + 99v² − 4√2 v − 8 ≤ 0.
    center = 2 * np.sqrt(2) / 99
    edge = 0.0 if spread_u == 0 else 0.95
    u = np.linspace(-edge, edge, 1500 if edge else 1)
    square = (8 + 99 * center**2 - 9 * u**2) / 99
    half = np.sqrt(np.maximum(square, 0))
    outside = ndtr((center - half) / spread_v) + ndtr(-(center + half) / spread_v)
    stays = np.where(square > 0, 1 - outside, 0)
    if not edge:
        return float(1 - stays[0] ** number)
    cell = u[1] - u[0]

    def normal(difference):
        return np.exp(-0.5 * (difference / spread_u) ** 2) / (np.sqrt(2 * np.pi) * spread_u)

    move = normal(u[:, None] - 0.9 * u) * cell
    alive = normal(u) * stays
    for _ in range(number - 1):
        alive = stays * (move @ alive)
    return float(1 - np.sum(alive) * cell)


def _branches(points: Any) -> tuple[Any, Any]:
    return TwoBasinLoss(np.pi / 4).branches(points, (0.0, 0.0))


def _grid(temperature: float) -> tuple[Any, Any, float]:
    reach = 1 + _REACH * np.sqrt(temperature / 2)
    edges = np.linspace(-reach, reach, _CELLS + 1)
    middle = (edges[1:] + edges[:-1]) / 2
    x, y = np.meshgrid(middle, middle, indexing="ij")
    return x, y, float(edges[1] - edges[0]) ** 2
