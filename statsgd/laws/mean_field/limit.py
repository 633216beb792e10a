"""The fixed point of mean-field Langevin dynamics: one particle among infinitely many."""

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Float
from scipy.special import logsumexp

from statsgd.arguments import count, finite_array, instance, is_traced, positive
from statsgd.laws.bases.expectation import on_table
from statsgd.laws.bases.line import LADDER, LineTable, one_well, tabulate
from statsgd.laws.bases.potential import density_model
from statsgd.laws.expected import Columns, Expected
from statsgd.laws.grids.cell_average import cell_average
from statsgd.laws.grids.grid import Grid
from statsgd.laws.law import (
    REFUSED,
    WARNED,
    ImproperLawError,
    IntractableError,
    Law,
    UnresolvedWarning,
    register,
)
from statsgd.precision import in_double_precision, over_points

_CELLS = 401  # of each axis of a plane
_TOLERANCE = 1e-11
_RESOLVED = 1e-6


@register
class MeanFieldLimit(Law):
    """The minimiser μ* of F(μ) + τ Ent(μ), with F(μ) = (λ/2)E|x|² + (b/2n) Σ_j (E h_j − y_j)².

        μ* ∝ exp(−(1/τ)[(λ/2)|x|² + c·h(x)]),   c = (b/n)(M* − y),   M* = E_{μ*} h

    c minimises the convex dual τ ln ∫exp(−(r + c·h)/τ) dx + (n/2b)|c|² + c·y; Newton's method on a
    grid finds it. μ* is the law of a neuron of an infinitely wide two-layer network under gradient
    descent with isotropic noise; `MeanFieldLaw` is the law of N of them.

    **Arguments:** `features` h, a JAX function `(d,) -> (n,)`; `targets` y `(n,)`; `weight_decay`
    λ > 0; `temperature` τ > 0, the injected noise per particle (2τη a step); `strength` b;
    `particle_dimension` d, 1 or 2; `radius`, half-width of the grid, by default twelve prior
    standard deviations and ten more.

    Draws and moments are exact to the grid, whose `error_estimate` warns (`UnresolvedWarning`)
    above 10⁻³ and raises `IntractableError` above a tenth: a table on the line, or 401² cells, on
    which there are no distribution function and quantiles.

    Source: Suzuki, Wu, Nitanda (2023), arXiv:2306.07221, for the dynamics; Nitanda, Wu, Suzuki
    (2022), arXiv:2201.10469, for the fixed point; the dual solution is derived.

    >>> from statsgd.laws.mean_field import tanh_features
    >>> features = tanh_features([0.0, 1.0])
    >>> law = MeanFieldLimit(features, [0.0, 1.0], weight_decay=0.1, temperature=0.05)
    >>> round(float(law.mean()[0]), 2)
    0.91
    """

    setting: ClassVar[str] = "noisy gradient descent of an infinitely wide two-layer network"
    exactness: ClassVar[str] = "exact as width → ∞ and learning rate → 0; on a grid"
    citation: ClassVar[str] = "Suzuki, Wu, Nitanda (2023), arXiv:2306.07221"

    features: Callable[[Any], Any] = eqx.field(static=True)
    targets: Float[Any, " n"]
    weight_decay: Float[Any, ""]
    temperature: Float[Any, ""]
    strength: Float[Any, ""]
    particle_dimension: int = eqx.field(static=True)
    grid: Float[Any, "g d"]
    grid_features: Float[Any, "g n"]
    #: Log of the length or area that each grid point stands for.
    log_volume: Float[Any, " g"]
    #: Probability of each grid point or cell.
    probabilities: Float[Any, " g"]
    #: The law on the line; None on a plane.
    table: LineTable | None
    dual: Float[Any, " n"]
    log_partition: Float[Any, ""]
    #: |gradient of the dual| that Newton's method reached.
    residual: Float[Any, ""]
    #: Of probabilities, from the grid: see `LineTable`, or what every second cell would change.
    error_estimate: Float[Any, ""]

    def __init__(
        self,
        features: Callable[[Any], Any],
        targets: Any,
        weight_decay: Any,
        temperature: Any,
        strength: Any = 1.0,
        particle_dimension: int = 1,
        radius: Any = None,
    ):
        self.features = instance("features", features, Callable, "a function of a particle")
        labels: Any = np.asarray(finite_array("targets", np.atleast_1d(targets), ndim=1), float)
        self.targets = labels
        self.weight_decay = positive("weight_decay", weight_decay)
        self.temperature = positive("temperature", temperature)
        self.strength = positive("strength", strength)
        self.particle_dimension = count("particle_dimension", particle_dimension)
        if self.particle_dimension > 2:
            raise ValueError(f"particle_dimension must be 1 or 2, got {particle_dimension}")
        spread = np.sqrt(self.temperature / self.weight_decay)
        half = 12 * spread + 10 if radius is None else positive("radius", radius)
        for number in LADDER if self.particle_dimension == 1 else (_CELLS,):
            self._fill(spread, half, number)
            if not self.error_estimate > _RESOLVED:
                break
        if self.error_estimate > WARNED:
            warnings.warn(
                f"the law of a particle is not resolved: probabilities are off by about "
                f"{float(self.error_estimate):.2g}",
                UnresolvedWarning,
                stacklevel=2,
            )

    def _fill(self, spread: Any, half: Any, number: int) -> None:
        """The fixed point on a grid of this many knots or cells a side."""
        if self.particle_dimension == 1:
            # The table of a constant is Simpson's rule on the points of the table of μ*.
            even = in_double_precision(_even_table, spread, half, number)
            grid, volume = even.points[:, None], np.log(even.weights) + even.log_normalizer
        else:
            plane = _plane(float(half))
            grid, volume = plane.points(), np.full(plane.size, np.log(plane.cell_volume))
        self.grid, self.log_volume = grid, volume
        self.grid_features = over_points(_features_at, grid, self.features)
        if self.grid_features.shape != (len(self.grid), len(self.targets)):
            raise ValueError(
                f"features must map a particle ({self.particle_dimension},) to "
                f"({len(self.targets)},) numbers, one a target, got "
                f"{self.grid_features.shape[1:]}"
            )
        self.dual, self.residual = self._solve()
        log_weights = self._log_weights(self.dual)
        self.log_partition = logsumexp(log_weights)
        self.probabilities = np.exp(log_weights - self.log_partition)
        self.table = None
        if self.particle_dimension == 1:
            energy = _Energy(self.features, self.dual, self.weight_decay, self.temperature)
            self.table = in_double_precision(_table, energy, spread, half, number)
            self.error_estimate = self.table.error_estimate
        else:
            square = self.probabilities.reshape(_CELLS, _CELLS)
            shares = [4 * np.sum(square[i::2, j::2]) for i in (0, 1) for j in (0, 1)]
            self.error_estimate = np.max(np.abs(np.array(shares) - 1))

    @classmethod
    def examples(cls) -> Iterable[Self]:
        """One tanh neuron on one example."""
        yield cls(tanh_features([1.0]), 0.8, 1.0, 0.1)
        yield cls(tanh_features([1.0]), 0.5, 0.5, 0.2)

    @classmethod
    def improper_examples(cls) -> Sequence[Self]:
        """A grid that cuts the law off."""
        return (cls(tanh_features([1.0]), 0.8, 1.0, 0.1, radius=0.3),)

    @property
    def dimension(self) -> int:
        """Coordinates of one particle."""
        return self.particle_dimension

    def require_proper(self) -> None:
        """Raise `ImproperLawError` if no fixed point was found or the grid cuts the law off."""
        if is_traced(self.residual, self.probabilities):
            return
        if not self.residual < 1e-8:
            raise ImproperLawError(
                f"no fixed point was found: residual {float(self.residual):.3g} must be below "
                "1e-8; the features must be finite and weight_decay large enough to confine"
            )
        if self.error_estimate > REFUSED:
            raise IntractableError(
                f"the grid does not resolve the law of a particle: probabilities are off by "
                f"{float(self.error_estimate):.2g}"
            )
        edge = np.max(np.abs(self.grid), axis=1) >= np.max(self.grid)
        lost = float(self.probabilities[edge].sum())
        if lost > 1e-12:
            raise ImproperLawError(
                f"the probability at the edge of the grid is {lost:.3g}, which must be below "
                "1e-12: enlarge radius or weight_decay"
            )

    def _log_density(self, params: Float[Any, " d"]) -> Float[Any, ""]:
        energy = _Energy(self.features, self.dual, self.weight_decay, self.temperature)
        return -energy(params) - self.log_partition

    def model(self, obs: Float[Any, "n d"] | None = None) -> None:
        """Site `params`: the inverse distribution function of a uniform `u`, or a grid cell."""
        self.require_proper()
        if obs is not None:
            density_model(self, dist.constraints.real_vector, obs)
            return
        uniform = dist.Uniform(0, 1).expand([self.dimension]).to_event(1)
        numpyro.deterministic("params", self.push_forward(numpyro.sample("u", uniform)))

    def push_forward(self, u: Float[Any, " d"]) -> Float[Any, " d"]:
        """A particle with law μ* from uniform numbers: a monotone map, coordinate by coordinate."""
        if self.table is not None:
            return self.table.quantile(u)
        masses = jnp.reshape(self.probabilities, (_CELLS,) * self.dimension)
        # A grid is made of numbers: the unit one is stretched, so that this can be traced.
        half = self.grid[-1, 0] * _CELLS / (_CELLS - 1)
        return half * _plane(1.0).push_forward(masses, u)

    def _quadrature(self) -> tuple[Float[Any, "g d"], Float[Any, " g"]]:
        return self.grid, self.probabilities

    def _averaged(self, values: Columns) -> Expected:
        self.require_proper()
        if self.table is not None:
            return on_table(self.table, values, self.error_estimate)
        masses = self.probabilities.reshape((_CELLS,) * self.dimension)
        half = float(self.grid[-1, 0]) * _CELLS / (_CELLS - 1)
        found, _ = cell_average(values, _plane(half), masses, sampled=True)
        return found._replace(error=found.error + 2 * float(self.error_estimate) * found.size)

    def _cdf(self, params: Float[Any, "... d"]) -> Float[Any, "... d"]:
        if self.table is None:
            self._cannot_say("distribution function")
        return self.table.cdf(params)

    def _quantile(self, probability: Float[Any, "..."]) -> Float[Any, "... d"]:
        if self.table is None:
            self._cannot_say("quantiles")
        return self.table.quantile(probability)[..., None]

    def feature_mean(self) -> Float[Any, " n"]:
        """M* = E h."""
        self.require_proper()
        return self.probabilities @ self.grid_features

    def feature_covariance(self) -> Float[Any, "n n"]:
        """Cov h."""
        self.require_proper()
        centred = self.grid_features - self.feature_mean()
        return (centred.T * self.probabilities) @ centred

    def free_energy(self) -> float:
        """𝓛(μ*) = F(μ*) + τ Ent(μ*)."""
        self.require_proper()
        quadratic = len(self.targets) / (2 * self.strength) * np.sum(self.dual**2)
        dual = self.temperature * self.log_partition + quadratic + self.dual @ self.targets
        return -float(dual)

    def log_sobolev_bound(self) -> float:
        """Holley–Stroock lower bound on the log-Sobolev constant of μ*: (λ/τ) exp(−osc(c·h)/τ)."""
        self.require_proper()
        energy = self.grid_features @ self.dual
        return log_sobolev_bound(self.weight_decay, self.temperature, np.ptp(energy))

    def _log_weights(self, dual: Any) -> Any:
        energy = 0.5 * self.weight_decay * np.sum(self.grid**2, axis=1) + self.grid_features @ dual
        return self.log_volume - energy / self.temperature

    def _solve(self) -> tuple[Any, Any]:
        """Damped Newton on the dual."""
        stiffness = len(self.targets) / self.strength

        def value(c: Any) -> tuple[float, Any]:
            log_weights = self._log_weights(c)
            total = logsumexp(log_weights)
            dual = self.temperature * total + stiffness / 2 * c @ c + c @ self.targets
            return dual, np.exp(log_weights - total)

        c = np.zeros(len(self.targets))
        level, p = value(c)
        norm = np.inf
        for _ in range(100):
            average = p @ self.grid_features
            gradient = stiffness * c + self.targets - average
            norm = float(np.linalg.norm(gradient))
            if not norm > _TOLERANCE:
                break
            centred = self.grid_features - average
            curvature = stiffness * np.eye(len(c)) + (centred.T * p) @ centred / self.temperature
            move, length = np.linalg.solve(curvature, gradient), 1.0
            while length > 1e-6:
                trial, weights = value(c - length * move)
                if trial <= level - 1e-4 * length * gradient @ move + 1e-14 * abs(level):
                    break
                length /= 2
            c, level, p = c - length * move, trial, weights
        return c, np.float64(norm)


class _Energy(eqx.Module):
    """((λ/2)|x|² + c·h(x))/τ."""

    features: Callable[[Any], Any] = eqx.field(static=True)
    dual: Float[Any, " n"]
    weight_decay: Float[Any, ""]
    temperature: Float[Any, ""]

    def __call__(self, x: Float[Any, " d"]) -> Float[Any, ""]:
        fit = jnp.asarray(self.dual) @ _features_at(x, self.features)
        return (0.5 * self.weight_decay * jnp.sum(x**2) + fit) / self.temperature


def _features_at(x: Float[Any, " d"], features: Callable[[Any], Any]) -> Float[Any, " n"]:
    return jnp.atleast_1d(features(x))


def _plane(half: float) -> Grid:
    return Grid(-half, half, (_CELLS, _CELLS))


def _even_table(spread: Any, half: Any, number: int) -> LineTable:
    return tabulate(jnp.zeros_like, one_well(jnp.zeros_like(spread), spread), -half, half, number)


def _table(energy: _Energy, spread: Any, half: Any, number: int) -> LineTable:
    def log_mass(x: Float[Any, " g"]) -> Float[Any, " g"]:
        return -jax.vmap(energy)(x[:, None])

    return tabulate(log_mass, one_well(jnp.zeros_like(spread), spread), -half, half, number)


class TanhFeatures(eqx.Module):
    """h_j(x) = tanh(z_j·x) for fixed inputs z."""

    inputs: tuple[tuple[float, ...], ...] = eqx.field(static=True)

    def __call__(self, particle: Float[Any, " d"]) -> Float[Any, " n"]:
        """Features of one particle."""
        return jnp.tanh(jnp.asarray(self.inputs) @ particle)


def tanh_features(inputs: Any) -> TanhFeatures:
    """One tanh neuron read at `inputs` `(n,)` or `(n, d)`.

    >>> import numpy as np
    >>> tanh_features([0.0, 1.0])(np.array([1.0])).round(3)
    Array([0.   , 0.762], dtype=float32)
    """
    z = np.asarray(finite_array("inputs", inputs), dtype=np.float64)
    rows = z[:, None] if z.ndim == 1 else z
    return TanhFeatures(tuple(tuple(row) for row in rows.tolist()))


def log_sobolev_bound(weight_decay: Any, temperature: Any, oscillation: Any) -> float:
    """Holley–Stroock: α ≥ (λ/τ) exp(−osc/τ), osc = sup − inf of the energy beside (λ/2)|x|².

    If it holds for every proximal Gibbs law on the way, the free energy above its minimum decays
    at least like exp(−2ατt). A bound, never an estimate: it is tiny at low temperature.

    >>> round(log_sobolev_bound(0.1, temperature=0.1, oscillation=0.1), 4)
    0.3679
    """
    tau = positive("temperature", temperature)
    return float(positive("weight_decay", weight_decay) / tau * np.exp(-oscillation / tau))
