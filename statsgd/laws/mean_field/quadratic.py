"""Mean-field Langevin dynamics of a quadratic functional: everything in closed form."""

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, Self

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from statsgd.arguments import (
    count,
    finite_array,
    fraction,
    is_traced,
    non_negative,
    positive,
    symmetric,
)
from statsgd.laws.bases.gaussian import NormalLaw
from statsgd.laws.law import ImproperLawError, register
from statsgd.precision import formula


@register
class QuadraticMeanField(NormalLaw):
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

    >>> law = QuadraticMeanField.scalar(
    ...     decay=1.0, strength=1.0, target=1.0, temperature=0.1, num_particles=4, learning_rate=0.1
    ... )
    >>> law.mean().round(3).tolist(), round(float(law.covariance()[0, 0]), 4)
    ([0.5, 0.5, 0.5, 0.5], 0.0928)
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
    center: Float[Any, "d d"]
    cloud: Float[Any, "d d"]

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
        self.location, self.center, self.cloud, self.joint = self._moments()

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
        return self.location[: len(self.decay)]

    def center_covariance(self) -> Float[Any, "d d"]:
        """Cov X̄."""
        self.require_proper()
        return self.center

    def cloud_covariance(self) -> Float[Any, "d d"]:
        """V: deviations from X̄ have covariance (1 − 1/N) V."""
        self.require_proper()
        return self.cloud

    def particle_covariance(self) -> Float[Any, "d d"]:
        """Cov of one particle."""
        return self.center_covariance() + (1 - 1 / self.num_particles) * self.cloud

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

    def _moments(self) -> "_Moments":
        try:
            self.require_proper()
        except ImproperLawError:
            d = len(self.decay)
            size = self.num_particles * d
            shapes = ((size,), (d, d), (d, d), (size, size))
            return _Moments(*(np.full(shape, np.nan) for shape in shapes))
        return _moments(
            self.decay,
            self.features,
            self.targets,
            self.target_covariance,
            self.temperature,
            self.learning_rate,
            self.momentum,
            self.num_particles,
        )


class _Moments(NamedTuple):
    location: Any
    center: Any
    cloud: Any
    joint: Any


@formula
def _moments(
    decay: Any,
    features: Any,
    targets: Any,
    target_covariance: Any,
    temperature: Any,
    eta: Any,
    beta: Any,
    number: int,
) -> _Moments:
    stiffness = decay + features.T @ features
    shared = features.T @ target_covariance @ features
    center = _stationary(stiffness, temperature / number, shared, eta, beta)
    cloud = _stationary(decay, temperature, 0 * decay, eta, beta)
    mean = jnp.linalg.solve(stiffness, features.T @ targets)
    ones = jnp.ones((number, number))
    joint = jnp.kron(ones, center) + jnp.kron(jnp.eye(number) - ones / number, cloud)
    return _Moments(jnp.tile(mean, number), center, cloud, joint)


def _stationary(stiffness: Any, temperature: Any, shared: Any, eta: Any, beta: Any) -> Any:
    h, q = jnp.linalg.eigh(stiffness)
    total, difference, product = h[:, None] + h, h[:, None] - h, h[:, None] * h
    # The heavy-ball moments of HeavyBallGaussian with noise 2τ(1−β)/η, multiplied out so that
    # η = 0 is the limit.
    noise = 2 * temperature * (1 - beta) * jnp.eye(len(h)) + eta * q.T @ shared @ q
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

    >>> found = entropy_sandwich(0.5, 0.1, decay=1.0, strength=1.0, target=1.0, temperature=0.1)
    >>> found.lower <= found.free_energy <= found.upper
    True
    """
    a, b = float(positive("decay", decay)), float(positive("strength", strength))
    tau, v = float(positive("temperature", temperature)), float(positive("variance", variance))
    m, y = float(mean), float(target)
    center, proximal = b * y / (a + b), -b * (m - y) / a
    # τKL to a Gaussian of variance τ/a: the shape part is common to all three.
    shape = a / 2 * (v - tau / a) - tau / 2 * np.log(v * a / tau)
    squares = (a * (m - center) ** 2, (a + b) * (m - center) ** 2, a * (m - proximal) ** 2)
    return EntropySandwich(*(float(square / 2 + shape) for square in squares))
