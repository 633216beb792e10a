"""Mean-field Langevin dynamics of a quadratic functional: everything in closed form."""

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, Self

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Float

from statsgd.arguments import (
    count,
    finite_array,
    fraction,
    is_traced,
    non_negative,
    one_of,
    positive,
    symmetric,
)
from statsgd.laws.bases.gaussian import normal_log_density, square_root
from statsgd.laws.law import ImproperLawError, Law, register


@register
class QuadraticMeanField(Law):
    """N particles under F(μ) = ½E xᵀAx + ½|B E x − y|²: law of the discrete chain or its limit.

    With K = A + BᵀB and m* = K⁻¹Bᵀy, X̄ and the cloud about it are independent Gaussians,

        Cov X̄ = (τ/N)(K − ηK²/2)⁻¹,   Cov of the cloud V = τ(A − ηA²/2)⁻¹,
        Cov(Xᵢ, Xⱼ) = Cov X̄ + V(δᵢⱼ − 1/N)

    exactly for the chain X_i ← X_i − ηv_i + √(2τη)ξ_i, v_i = A X_i + Bᵀ(BX̄ − y), at any η with
    0 < ηk < 2(1+β) for the eigenvalues k of K and A; η → 0 by default. Momentum β takes injected
    noise of variance 2τ(1−β)/η in the buffer. A target y that is drawn afresh each step with
    covariance `target_covariance`, shared by all particles, adds to Cov X̄ alone: more particles
    do not remove it.

    **Arguments:** `decay` A `(d, d)` > 0, `features` B `(k, d)`, `targets` y `(k,)`,
    `temperature` τ, `num_particles` N, `learning_rate` η (0: the limit), `momentum` β,
    `target_covariance` `(k, k)`. `params` is the flattened `(N, d)` array of particles.

    Source: *derived*; the dynamics of Suzuki, Wu, Nitanda (2023), arXiv:2306.07221.
    """

    setting: ClassVar[str] = "interacting particles, quadratic functional, isotropic noise"
    exactness: ClassVar[str] = "exact for the discrete chain at any learning rate"
    citation: ClassVar[str] = "derived; setting of Suzuki, Wu, Nitanda (2023), arXiv:2306.07221"

    decay: Float[Any, "d d"]
    features: Float[Any, "k d"]
    targets: Float[Any, " k"]
    temperature: Float[Any, ""]
    num_particles: int = eqx.field(static=True)
    learning_rate: Float[Any, ""]
    momentum: Float[Any, ""]
    target_covariance: Float[Any, "k k"]

    def __init__(
        self,
        decay: Any,
        features: Any,
        targets: Any,
        temperature: Any,
        num_particles: int,
        learning_rate: Any = 0.0,
        momentum: Any = 0.0,
        target_covariance: Any = None,
    ):
        self.decay = symmetric("decay", decay, definite="positive")
        d = len(self.decay)
        matrix: Any = np.asarray(finite_array("features", features, ndim=2), dtype=np.float64)
        labels: Any = np.asarray(finite_array("targets", targets, ndim=1), dtype=np.float64)
        self.features, self.targets = matrix, labels
        k = len(self.targets)
        if self.features.shape != (k, d):
            raise ValueError(f"features must have shape ({k}, {d}), got {self.features.shape}")
        self.temperature = positive("temperature", temperature)
        self.num_particles = count("num_particles", num_particles)
        self.learning_rate = non_negative("learning_rate", learning_rate)
        self.momentum = fraction("momentum", momentum)
        covariance = np.zeros((k, k)) if target_covariance is None else target_covariance
        self.target_covariance = symmetric(
            "target_covariance", covariance, dimension=k, definite="semi"
        )

    @classmethod
    def scalar(
        cls,
        decay: Any,
        strength: Any,
        target: Any,
        temperature: Any,
        num_particles: int,
        learning_rate: Any = 0.0,
        momentum: Any = 0.0,
        target_variance: Any = 0.0,
    ) -> Self:
        """F(μ) = (a/2)E x² + (b/2)(E x − y)² with a = `decay`, b = `strength`, y = `target`."""
        root = float(np.sqrt(positive("strength", strength)))
        return cls(
            [[float(positive("decay", decay))]],
            [[root]],
            [root * float(target)],
            temperature,
            num_particles,
            learning_rate,
            momentum,
            [[root**2 * float(non_negative("target_variance", target_variance))]],
        )

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """One coordinate in the limit, and two with a finite step, momentum and noisy targets."""
        return (
            cls.scalar(1, 4, 2, 0.5, 3),
            cls([[1.0, 0.3], [0.3, 2.0]], [[1.0, -1]], [0.5], 0.4, 2, 0.2, 0.5, [[0.3]]),
        )

    @classmethod
    def improper_examples(cls) -> Sequence[Self]:
        """A learning rate above the threshold of the mean, and one above that of the cloud."""
        return cls.scalar(1, 4, 2, 0.5, 3, 0.4), cls.scalar(5, 0.1, 2, 0.5, 3, 0.41)

    @property
    def dimension(self) -> int:
        """N d."""
        return self.num_particles * len(self.decay)

    @property
    def stiffness(self) -> Any:
        """K = A + BᵀB."""
        return self.decay + self.features.T @ self.features

    def require_proper(self) -> None:
        """Raise `ImproperLawError` unless ηk < 2(1+β) for the modes of the mean and the cloud."""
        if is_traced(self.decay, self.features, self.learning_rate, self.momentum):
            return
        limit = 2 * (1 + float(self.momentum))
        for name, matrix in (("mean", self.stiffness), ("cloud", self.decay)):
            reach = float(self.learning_rate * np.linalg.eigvalsh(matrix)[-1])
            if reach >= limit:
                raise ImproperLawError(
                    f"{name} mode unstable: learning_rate*curvature = {reach:.6g} ≥ "
                    f"2(1+momentum) = {limit:.6g}"
                )

    def particle_mean(self) -> Float[Any, " d"]:
        """m*, the mean of every particle."""
        self.require_proper()
        xp = jnp if is_traced(self) else np
        return xp.linalg.solve(self.stiffness, self.features.T @ self.targets)

    def center_covariance(self) -> Float[Any, "d d"]:
        """Cov X̄."""
        self.require_proper()
        shared = self.features.T @ self.target_covariance @ self.features
        return self._stationary(self.stiffness, self.temperature / self.num_particles, shared)

    def cloud_covariance(self) -> Float[Any, "d d"]:
        """V: deviations from X̄ have covariance (1 − 1/N) V."""
        self.require_proper()
        return self._stationary(self.decay, self.temperature, 0 * self.decay)

    def particle_covariance(self) -> Float[Any, "d d"]:
        """Cov of one particle."""
        return self.center_covariance() + (1 - 1 / self.num_particles) * self.cloud_covariance()

    def mean(self) -> Float[Any, " nd"]:
        """Mean of `params`."""
        xp = jnp if is_traced(self) else np
        return xp.tile(self.particle_mean(), self.num_particles)

    def covariance(self) -> Float[Any, "nd nd"]:
        """Covariance of `params`."""
        xp, n = (jnp if is_traced(self) else np), self.num_particles
        together = xp.kron(xp.ones((n, n)), self.center_covariance())
        return together + xp.kron(xp.eye(n) - xp.ones((n, n)) / n, self.cloud_covariance())

    def model(self, obs: Float[Any, "r nd"] | None = None) -> None:
        """Site `params`, pushed forward from `center` X̄ and a cloud of standard normals."""
        self.require_proper()
        if obs is not None:
            flat = dist.ImproperUniform(dist.constraints.real_vector, (), (self.dimension,))
            with numpyro.plate("replica", obs.shape[0]):
                params = numpyro.sample("params", flat, obs=obs)
                numpyro.factor("stationary_law", self.log_density(params))
            return
        d, n = len(self.decay), self.num_particles
        white = dist.Normal(0, 1).expand([d]).to_event(1)
        shift = square_root(self.center_covariance()) @ numpyro.sample("center", white)
        z = numpyro.sample("cloud", dist.Normal(0, 1).expand([n, d]).to_event(2))
        cloud = (z - jnp.mean(z, axis=0)) @ square_root(self.cloud_covariance()).T
        numpyro.deterministic("params", (self.particle_mean() + shift + cloud).reshape(-1))

    def log_density(self, params: Float[Any, "... nd"]) -> Float[Any, "..."]:
        """Log density of `params`; leading axes are batch axes."""
        self.require_proper()
        xp = jnp if is_traced(self, params) else np
        n, d = self.num_particles, len(self.decay)
        x = xp.asarray(params).reshape(*params.shape[:-1], n, d)
        center = x.mean(-2)
        root = np.sqrt(n)
        deviation = root * (center - self.particle_mean())
        middle = normal_log_density(deviation, n * self.center_covariance())
        # The cloud has N − 1 free vectors: a sum over N counts a density at the origin too many.
        cloud = self.cloud_covariance()
        spread = normal_log_density(x - center[..., None, :], cloud).sum(-1)
        return middle + spread - normal_log_density(xp.zeros(d), cloud)

    def free_energy_gap(self) -> float:
        """(1/N)𝓛_N(μ_N) − 𝓛(μ*) = (τ/2N) ln det(I + A⁻¹BᵀB) of the limit η → 0."""
        ratio = np.linalg.slogdet(self.stiffness)[1] - np.linalg.slogdet(self.decay)[1]
        return float(self.temperature / (2 * self.num_particles) * ratio)

    def transient(self, steps: int, start: Any) -> "Transient":
        """Exact moments `steps` steps after all particles were at `start` `(d,)`, without momentum.

        Raises `ValueError` for momentum or learning rate zero.
        """
        self.require_proper()
        if self.momentum != 0 or self.learning_rate == 0:
            raise ValueError("transients need momentum 0 and a positive learning_rate")
        number, origin = count("steps", steps, at_least=0), np.asarray(start, dtype=np.float64)
        eye = np.eye(len(self.decay))
        slow = np.linalg.matrix_power(eye - self.learning_rate * self.stiffness, number)
        cloud = np.linalg.matrix_power(eye - self.learning_rate * self.decay, number)
        center, v = self.center_covariance(), self.cloud_covariance()
        mean = self.particle_mean()
        return Transient(
            mean + slow @ (origin - mean),
            center - slow @ center @ slow,
            (1 - 1 / self.num_particles) * (v - cloud @ v @ cloud),
        )

    def _stationary(self, stiffness: Any, temperature: Any, shared: Any) -> Any:
        xp = jnp if is_traced(self) else np
        eta, beta = self.learning_rate, self.momentum
        h, q = xp.linalg.eigh(stiffness)
        total, difference, product = h[:, None] + h, h[:, None] - h, h[:, None] * h
        # The heavy-ball moments of HeavyBallGaussian with noise 2τ(1−β)/η, multiplied out so that
        # η = 0 is the limit.
        noise = 2 * temperature * (1 - beta) * xp.eye(len(h)) + eta * q.T @ shared @ q
        damping = (1 - beta) * total - eta * (1 - beta) * product / (1 + beta)
        return q @ (noise / (damping + eta * beta * difference**2 / (1 - beta**2))) @ q.T


class Transient(NamedTuple):
    """Moments on the way to the stationary law."""

    mean: Any
    """E X̄."""
    center_covariance: Any
    """Cov X̄."""
    within: Any
    """Expected covariance within the cloud, normalised by N."""


class EntropySandwich(NamedTuple):
    """τKL(μ‖μ*) ≤ 𝓛(μ) − 𝓛(μ*) ≤ τKL(μ‖μ̂), μ̂ the proximal Gibbs law of μ."""

    lower: float
    free_energy: float
    upper: float


def entropy_sandwich(
    mean: Any, variance: Any, decay: Any, strength: Any, target: Any, temperature: Any
) -> EntropySandwich:
    """The sandwich for μ = Normal(mean, variance) under F(μ) = (a/2)E x² + (b/2)(E x − y)².

    Source: Nitanda, Wu, Suzuki (2022), arXiv:2201.10469, for the inequality.
    """
    a, b = float(positive("decay", decay)), float(positive("strength", strength))
    tau, v = float(positive("temperature", temperature)), float(positive("variance", variance))
    m, y = float(mean), float(target)
    center, proximal = b * y / (a + b), -b * (m - y) / a
    # τKL to a Gaussian of variance τ/a: the shape part is common to all three.
    shape = a / 2 * (v - tau / a) - tau / 2 * np.log(v * a / tau)
    squares = (a * (m - center) ** 2, (a + b) * (m - center) ** 2, a * (m - proximal) ** 2)
    return EntropySandwich(*(float(square / 2 + shape) for square in squares))


def shared_minibatch_variance(
    inputs: Any,
    targets: Any,
    decay: Any,
    temperature: Any,
    num_particles: int,
    learning_rate: Any,
    batch_size: int,
    sampling: str = "with_replacement",
) -> float:
    """Var X̄ when one minibatch a step is shared by all particles, on the mean of ½(z E x − y)².

        [2τη/N + (η²/S) Var_j(z_j²m* − z_jy_j)] / [1 − (1 − η(a+b))² − (η²/S) Var_j(z_j²)]

    b = mean z², m* = mean(zy)/(a+b); without replacement both variances times (n−S)/(n−1). The
    part of the gradient noise does not shrink with N; the cloud's variance is unchanged. Exact;
    Gaussian only if z² is constant.

    Raises `ImproperLawError` if the denominator is not positive. Source: *derived*.
    """
    z = np.asarray(finite_array("inputs", inputs, ndim=1), dtype=np.float64)
    y = np.asarray(finite_array("targets", targets, ndim=1), dtype=np.float64)
    if z.shape != y.shape or len(z) == 0:
        raise ValueError(f"inputs and targets must have one shape (n,), got {z.shape}, {y.shape}")
    one_of("sampling", sampling, ("with_replacement", "without_replacement"))
    eta, size = float(positive("learning_rate", learning_rate)), count("batch_size", batch_size)
    factor = 1 / size
    if sampling == "without_replacement":
        factor *= (len(z) - size) / max(len(z) - 1, 1)
    curvature = float(positive("decay", decay)) + np.mean(z**2)
    center = np.mean(z * y) / curvature
    injected = (
        2
        * float(positive("temperature", temperature))
        * eta
        / count("num_particles", num_particles)
    )
    noise = injected + eta**2 * factor * np.var(z**2 * center - z * y)
    denominator = 1 - (1 - eta * curvature) ** 2 - eta**2 * factor * np.var(z**2)
    if denominator <= 0:
        raise ImproperLawError(
            "minibatch curvature noise destabilises the mean: reduce learning_rate or enlarge "
            f"batch_size (1 - (1 - ηk)² - η²φ Var z² = {denominator:.6g} must be positive)"
        )
    return float(noise / denominator)


class ReducedVariance(NamedTuple):
    """Var X̄ under variance-reduced minibatches."""

    at_refresh: float
    """When a snapshot is taken."""
    average: float
    """At a random step."""


def variance_reduced_variance(
    inputs: Any,
    decay: Any,
    temperature: Any,
    num_particles: int,
    learning_rate: Any,
    batch_size: int,
    refresh_every: int,
    sampling: str = "with_replacement",
) -> ReducedVariance:
    """Var X̄ with SVRG gradients g_B(X) − g_B(X₀) + g(X₀), snapshot X₀ every m steps.

    As `shared_minibatch_variance`, whose additive part vanishes: targets do not matter. With
    e = X̄₀ − m*, κ = a+b, ρ = 1 − ηκ, the motion u = X̄ − X̄₀ has, k steps after the snapshot,

        E u = (ρᵏ−1) e,   E u² = α_k e² + β_k,   ρ₂ = ρ² + (η²/S) Var_j z_j²
        α_{k+1} = ρ₂ α_k − 2ηκρ(ρᵏ−1) + η²κ²,    β_{k+1} = ρ₂ β_k + 2τη/N
        Var X̄₀ = β_m/(2 − 2ρᵐ − α_m),           Var X̄_k = (2ρᵏ − 1 + α_k) Var X̄₀ + β_k

    exactly. Raises `ImproperLawError` if the denominator is not positive. Source: *derived*.
    """
    z = np.asarray(finite_array("inputs", inputs, ndim=1), dtype=np.float64)
    one_of("sampling", sampling, ("with_replacement", "without_replacement"))
    eta, size = float(positive("learning_rate", learning_rate)), count("batch_size", batch_size)
    factor = 1 / size
    if sampling == "without_replacement":
        factor *= (len(z) - size) / max(len(z) - 1, 1)
    reach = eta * float(positive("decay", decay) + np.mean(z**2))
    injected = float(2 * positive("temperature", temperature) * eta)
    injected /= count("num_particles", num_particles)
    second = (1 - reach) ** 2 + eta**2 * factor * np.var(z**2)
    alpha, beta = 0.0, 0.0
    phases = []
    for k in range(count("refresh_every", refresh_every) + 1):
        power = (1 - reach) ** k
        phases.append((2 * power - 1 + alpha, beta))
        alpha = second * alpha - 2 * reach * (1 - reach) * (power - 1) + reach**2
        beta = second * beta + injected
    gain, noise = phases.pop()
    if not gain < 1:
        raise ImproperLawError(
            "minibatch curvature noise destabilises the mean: reduce learning_rate or "
            f"refresh_every (1 - (2ρᵐ - 1 + α_m) = {1 - gain:.6g} must be positive)"
        )
    start = noise / (1 - gain)
    return ReducedVariance(
        float(start), float(np.mean([share * start + rest for share, rest in phases]))
    )
