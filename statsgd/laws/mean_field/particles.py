"""The Gibbs law of finitely many interacting particles, and how far it is from its limit."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float, PRNGKeyArray

from statsgd.arguments import count, fraction, positive
from statsgd.dynamics.noise import Isotropic
from statsgd.dynamics.sgd import SGD
from statsgd.laws.law import IntractableError, Law, register, require_accurate
from statsgd.laws.mean_field.limit import MeanFieldLimit, tanh_features
from statsgd.precision import over_points
from statsgd.problems import Landscape, landscape

_FREQUENCIES = 401


@register
class MeanFieldLaw(Law):
    """Gibbs law of N particles (neurons): μ_N(X) ∝ exp(−(N/τ) F(μ_X)).

    F(μ) = (λ/2)E|x|² + (b/2n) Σ_j (E h_j − y_j)². It is the law, as η → 0, of gradient descent on
    L(θ) = F(μ_X) with learning rate Nη and injected noise of variance 2τη per particle coordinate
    and step: the Gibbs temperature of L is τ/N, not τ. Exactly, at any N,

        μ_N(X) = (1/Z_N) Πᵢ μ*(xᵢ) · exp(−(Nb/2nτ) |h̄ − M*|²)

    with μ* the `MeanFieldLimit`. So `draw` is an exact rejection sampler with acceptance Z_N, and
    the free energy a particle has above the limit is −(τ/N) ln Z_N ≤ (b/2nN) tr Cov h.

    **Arguments:** `limit`, the `MeanFieldLimit` (which states h, y, λ, τ, b); `num_particles` N.
    `params` is the flattened array of particles, `(N d,)`.

    Source: Suzuki, Wu, Nitanda (2023), arXiv:2306.07221, for the setting; Nitanda (2024),
    arXiv:2405.15767, for particle errors free of the log-Sobolev constant; the reweighting, the
    sampler and the limits are derived.

    >>> import jax
    >>> from statsgd.laws.mean_field import two_layer_mean_field
    >>> law = two_layer_mean_field([0.0, 1.0], [0.0, 1.0], 0.1, 0.05, num_particles=4)
    >>> type(law).__name__, law.draw(jax.random.key(0), (3,)).shape
    ('MeanFieldLaw', (3, 4))
    """

    setting: ClassVar[str] = "noisy gradient descent of a two-layer network of N neurons"
    exactness: ClassVar[str] = "exact as learning rate → 0; bias O(η)"
    citation: ClassVar[str] = "Suzuki, Wu, Nitanda (2023), arXiv:2306.07221"
    normalized: ClassVar[bool] = False

    limit: MeanFieldLimit
    num_particles: int = eqx.field(static=True)

    def __init__(self, limit: MeanFieldLimit, num_particles: int):
        if not isinstance(limit, MeanFieldLimit):
            raise ValueError(f"limit must be a MeanFieldLimit, got {limit!r}")
        self.limit = limit
        self.num_particles = count("num_particles", num_particles)

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """Two and five tanh neurons on one example."""
        return tuple(
            cls(limit, number)
            for limit, number in zip(MeanFieldLimit.examples(), (2, 5), strict=True)
        )

    @classmethod
    def improper_examples(cls) -> Sequence[Self]:
        """Those of the limit."""
        return tuple(cls(limit, 3) for limit in MeanFieldLimit.improper_examples())

    @property
    def dimension(self) -> int:
        """N times the dimension of a particle."""
        return self.num_particles * self.limit.dimension

    def require_proper(self) -> None:
        """Raise `ImproperLawError` as the limit does."""
        self.limit.require_proper()

    def particles(self, params: Float[Any, " nd"]) -> Float[Any, "n d"]:
        """`params` with one row a particle."""
        return params.reshape(self.num_particles, self.limit.dimension)

    def functional(self, params: Float[Any, " nd"]) -> Float[Any, ""]:
        """F(μ_X), the regularised loss of the network."""
        x = self.particles(jnp.asarray(params))
        return 0.5 * self.limit.weight_decay * jnp.sum(x**2) / self.num_particles + self._fit(x)

    def problem(self) -> Landscape:
        """The loss L(θ) = F(μ_X) of the particles, weight decay included, from the origin."""
        return landscape(self.functional, np.zeros(self.dimension))

    def _log_density(self, params: Float[Any, " nd"]) -> Float[Any, ""]:
        return -self.num_particles / self.limit.temperature * self.functional(params)

    def model(self, obs: Float[Any, "n nd"] | None = None) -> None:
        """Weight decay as a Gaussian prior on `params`, the fit as a factor.

        With `obs`, `ValueError`: Z_N depends on the parameters.
        """
        self.require_proper()
        if obs is not None:
            raise ValueError("MeanFieldLaw is not normalised: it cannot be inferred from obs")
        spread = jnp.sqrt(self.limit.temperature / self.limit.weight_decay)
        prior = dist.Normal(0, spread).expand([self.dimension]).to_event(1)
        x = self.particles(numpyro.sample("params", prior))
        numpyro.factor("fit", -self.num_particles / self.limit.temperature * self._fit(x))

    def _draw(self, key: PRNGKeyArray, number: int) -> Mapping[str, Float[Any, "number nd"]]:
        """By rejection from independent particles of law μ*."""
        center = jnp.asarray(self.limit.feature_mean())
        return {"params": _accepted(self, center, jax.random.split(key, number))}

    def starting_points(
        self, key: PRNGKeyArray, number: int
    ) -> Mapping[str, Float[Any, "number nd"]] | None:
        """Exact draws."""
        return self.draw_variables(key, (number,))

    def acceptance(self) -> float:
        """Z_N, the acceptance rate of the sampler, for one example (n = 1): by quadrature.

        Z_N = E χ(φ/N)^N over φ ~ Normal(0, Nb/τ), χ the characteristic function of h − M*.
        """
        return float(self._frequency_average(lambda phase, chi: chi**self.num_particles).real)

    def limit_acceptance(self) -> float:
        """Z_∞ = det(I + (b/nτ) Cov h)^(−1/2)."""
        covariance = self.limit.feature_covariance()
        scaled = 2 * self._weight() / self.num_particles * covariance
        return float(np.linalg.det(np.eye(len(scaled)) + scaled) ** -0.5)

    def free_energy_gap(self) -> float:
        """(1/N) 𝓛_N(μ_N) − 𝓛(μ*) = −(τ/N) ln Z_N, for one example."""
        return float(-self.limit.temperature / self.num_particles * np.log(self.acceptance()))

    def particle_expectation(self, function: Callable[[Float[Any, " d"]], Any]) -> float:
        """E f of one of the N particles, for one example; f a JAX function of one point `(d,)`."""
        self.limit.require_proper()
        return self._particle_average(over_points(function, self.limit.grid))

    def feature_moments(self) -> "FeatureMoments":
        """Mean and variance of h̄ = (1/N)Σ h(xᵢ), for one example."""
        n, h = self.num_particles, self.limit.grid_features[:, 0]
        mean = self._particle_average(h)
        own = self._particle_average((h - mean) ** 2)
        values = ((h - mean) * self.limit.probabilities)[self._support()]
        pair = 0.0
        if n > 1:
            product = self._frequency_average(
                lambda phase, chi: (phase @ values) ** 2 * chi ** (n - 2)
            )
            pair = float(product.real / self.acceptance())
        return FeatureMoments(mean, own / n + (1 - 1 / n) * pair)

    def _particle_average(self, values: Float[Any, " g"]) -> float:
        """The mean of a function of one particle, given its values on the grid of the limit."""
        kept = self._support()
        weighted = values[kept] * self.limit.probabilities[kept]
        total = self._frequency_average(
            lambda phase, chi: (phase @ weighted) * chi ** (self.num_particles - 1)
        )
        return float(total.real / self.acceptance())

    def _features(self, particles: Float[Any, "n d"]) -> Float[Any, "n m"]:
        return jax.vmap(lambda x: jnp.atleast_1d(self.limit.features(x)))(particles)

    def _fit(self, particles: Float[Any, "n d"]) -> Float[Any, ""]:
        residual = jnp.mean(self._features(particles), axis=0) - jnp.asarray(self.limit.targets)
        return 0.5 * self.limit.strength * jnp.mean(residual**2)

    def _weight(self) -> Any:
        """Nb/(2nτ)."""
        examples = len(self.limit.targets)
        return self.num_particles * self.limit.strength / (2 * examples * self.limit.temperature)

    def _frequency_average(self, function: Callable[[Any, Any], Any]) -> Any:
        """E function(e^{iφ(h − M*)/N}, χ(φ/N)) over φ ~ Normal(0, Nb/τ).

        By the trapezoidal rule; every second frequency tells the error.
        """
        self.require_proper()
        if len(self.limit.targets) != 1:
            raise IntractableError(
                f"quadrature needs one example, got {len(self.limit.targets)}: draw instead"
            )
        spread = np.sqrt(2 * self._weight())
        phi = np.linspace(-9, 9, _FREQUENCIES)
        kept = self._support()
        centred = self.limit.grid_features[kept, 0] - self.limit.feature_mean()[0]
        phase = np.exp(1j * spread / self.num_particles * phi[:, None] * centred)
        density = np.exp(-0.5 * phi**2) / np.sqrt(2 * np.pi) * (phi[1] - phi[0])
        terms = density * function(phase, phase @ self.limit.probabilities[kept])
        change = abs(np.sum(terms) - 2 * np.sum(terms[::2]))
        require_accurate("average over frequencies", change / np.sum(np.abs(terms)))
        return np.sum(terms)

    def _support(self) -> Any:
        """Which grid points carry any probability."""
        return self.limit.probabilities > 1e-20


@eqx.filter_jit
def _accepted(law: MeanFieldLaw, center: Float[Any, " m"], keys: Any) -> Float[Any, "number nd"]:
    def propose(key: PRNGKeyArray) -> tuple[Array, Array]:
        inner, outer = jax.random.split(key)
        u = jax.random.uniform(inner, (law.num_particles, law.limit.dimension))
        x = jax.vmap(law.limit.push_forward)(u)
        gap = jnp.mean(law._features(x), axis=0) - center
        accepted = jnp.log(jax.random.uniform(outer)) < -law._weight() * jnp.sum(gap**2)
        return x.reshape(-1), accepted

    def once(key: PRNGKeyArray) -> Array:
        def again(state):
            following, now = jax.random.split(state[0])
            return (following, *propose(now))

        start = (key, jnp.zeros(law.dimension), jnp.array(False))
        return jax.lax.while_loop(lambda state: ~state[2], again, start)[1]

    return jax.vmap(once)(keys)


class FeatureMoments(NamedTuple):
    """Moments of the network's output h̄."""

    mean: float
    variance: float


def particle_sgd(
    temperature: Any, num_particles: int, learning_rate: Any, momentum: Any = 0.0
) -> SGD:
    """Mean-field Langevin dynamics with step η as an `SGD` on the loss L(θ) = F(μ_X).

    Particles feel N ∂L/∂X_i, so SGD has learning rate Nη, and isotropic noise of variance
    2τ(1−β)/(ηN²). Without the factors of N the temperature would be wrong by N.

    >>> particle_sgd(temperature=0.1, num_particles=4, learning_rate=0.05)
    SGD(learning_rate=0.2 time/step, noise=Isotropic(variance=0.25))
    """
    n = count("num_particles", num_particles)
    eta, beta = positive("learning_rate", learning_rate), fraction("momentum", momentum)
    variance = 2 * positive("temperature", temperature) * (1 - beta) / (eta * n**2)
    return SGD(n * eta, Isotropic(variance), momentum=beta)


def two_layer_mean_field(
    inputs: Any, targets: Any, weight_decay: Any, temperature: Any, num_particles: int
) -> MeanFieldLaw:
    """The law of N tanh neurons, model(z) = (1/N) Σ tanh(xᵢ·z), with the mean of ½(model − y)².

    **Arguments:** `inputs` z `(n,)` or `(n, d)` with d ≤ 2; `targets` y `(n,)`.

    >>> law = two_layer_mean_field([0.0, 1.0], [0.0, 1.0], 0.1, 0.05, num_particles=4)
    >>> law.dimension
    4
    """
    features = tanh_features(inputs)
    limit = MeanFieldLimit(
        features, targets, weight_decay, temperature, particle_dimension=len(features.inputs[0])
    )
    return MeanFieldLaw(limit, num_particles)
