"""Loss-scaled noise that saturates at large loss: proper without a floor, with exact draws."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple, Self

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import gammaln as traced_gammaln
from jaxtyping import Float, PyTree
from scipy.optimize import brentq
from scipy.special import gammainc, gammaln

from statsgd.arguments import count, is_traced, positive, symmetric
from statsgd.dynamics.noise import LossScaled
from statsgd.dynamics.sgd import SGD
from statsgd.laws.law import Law, register
from statsgd.laws.loss_noise.loss_scaled import require_above_critical_noise
from statsgd.laws.loss_noise.regime import loss_exponent
from statsgd.laws.loss_noise.scalar_noise import LossPotentialLaw, half_square
from statsgd.laws.loss_noise.setting import FlatLoss, loss_scaled_noise, quadratic_loss
from statsgd.laws.minimum.heavy_ball import location_vector
from statsgd.problems import Problem


class SaturatedLoss(NamedTuple):
    """The law of the loss in q normal directions: a mixture of two Gamma laws.

    g(L) = (1 + L/L_sat) L^(−α) e^(−bL),    b = (α−1)/L_sat,    a = q/2 − α,    w = a/(q/2−1)
    L ~ (1−w) Gamma(a, rate b) + w Gamma(a+1, rate b)
    """

    codimension: int
    noise_ratio: Any
    saturation: Any

    @property
    def loss_exponent(self) -> Any:
        """α = 1 + 2/ε."""
        return loss_exponent(self.noise_ratio)

    @property
    def shape(self) -> Any:
        """a = q/2 − α > 0; the mass concentrates on zero loss as it vanishes."""
        return self.codimension / 2 - self.loss_exponent

    @property
    def rate(self) -> Any:
        """b, 1/loss."""
        return (self.loss_exponent - 1) / self.saturation

    @property
    def weight(self) -> Any:
        """w, the weight of the Gamma law with the larger shape."""
        return self.shape / (self.codimension / 2 - 1)

    def distribution(self) -> dist.Distribution:
        """The mixture as a NumPyro distribution."""
        weights = jnp.stack([1 - self.weight, jnp.asarray(self.weight)])
        shapes = jnp.stack([jnp.asarray(self.shape), jnp.asarray(self.shape + 1)])
        return dist.MixtureSameFamily(dist.Categorical(weights), dist.Gamma(shapes, self.rate))

    def sample(self, rng: np.random.Generator, number: int) -> Float[Any, " n"]:
        """Independent losses, in double precision; of concrete parameters."""
        shapes = self.shape + (rng.random(number) < self.weight)
        return rng.gamma(shapes) / self.rate

    def mean(self) -> Any:
        """E L = (a + w)/b."""
        return (self.shape + self.weight) / self.rate

    def cdf(self, loss: Any) -> Float[Any, "..."]:
        """P(L ≤ loss)."""
        x = self.rate * np.asarray(loss, dtype=np.float64)
        w = self.weight
        return (1 - w) * gammainc(self.shape, x) + w * gammainc(self.shape + 1, x)

    def quantile(self, probability: float) -> float:
        """The loss below which the mass is `probability`."""

        def excess(log_loss: float) -> float:
            return float(self.cdf(np.exp(log_loss))) - probability

        high = float(np.log(50 * (self.shape + 1) / self.rate))
        return float(np.exp(brentq(excess, high - 700, high, xtol=1e-13)))

    def log_profile(self, loss: Any, xp: Any, log_loss: Any = None) -> Any:
        """log g(L); `log_loss` may be given where the loss underflows."""
        logs = xp.log(loss) if log_loss is None else log_loss
        return xp.log1p(loss / self.saturation) - self.loss_exponent * logs - self.rate * loss

    def log_mass(self) -> Any:
        """log of ∫ g(½|z|²) dz over ℝ^q."""
        q, a, b = self.codimension, self.shape, self.rate
        xp = jnp if is_traced(a, b) else np
        # The two terms of g integrate to Γ(a)b^(−a) and w/(1−w) of it.
        gamma = traced_gammaln(a) if xp is jnp else gammaln(a)
        total = gamma - a * xp.log(b) - xp.log1p(-self.weight)
        return q / 2 * np.log(2 * np.pi) - gammaln(q / 2) + total


@register
class SaturatingLossScaledLaw(Law):
    """Stationary law of SGD near a zero-loss minimum with noise that saturates at large loss.

    L = ½(θ−θ*)ᵀH(θ−θ*) in q ≥ 3 dimensions, C = σL/(1 + L/L_sat) I, ε = ησ > 4/(q−2). With
    α = 1 + 2/ε, a = q/2 − α, b = (α−1)/L_sat and w = a/(q/2 − 1),

        p(θ) ∝ (1 + L/L_sat) L^(−α) e^(−bL)
        L ~ (1−w) Gamma(a, rate b) + w Gamma(a+1, rate b),   independent of the direction:
        u = H^(1/2)(θ−θ*)/|·| uniform on the sphere,   Cov θ = (2 E L/q) H⁻¹,   E L = (a+w)/b

    At or below ε = 4/(q−2) SGD collapses onto the minimum and there is no such law. The chain
    differs by O(η), most at small loss: compare E L and the median.

    **Arguments:** `hessian` H `(q, q)`, positive definite; `noise_ratio` ε > 0; `saturation`
    L_sat > 0 (loss); `location` θ*, zero by default. `of_loss` gives the law of any other loss.

    Source: the noise is Wojtowytsch (2021), arXiv:2106.02588; saturation and law are derived.
    """

    setting: ClassVar[str] = "SGD, quadratic loss, isotropic noise σL/(1 + L/L_sat)"
    exactness: ClassVar[str] = "exact for its SDE; O(learning rate) for the chain, most at low loss"
    citation: ClassVar[str] = "Wojtowytsch (2021), arXiv:2106.02588; the saturation is derived"

    hessian: Float[Any, "q q"]
    noise_ratio: Float[Any, ""]
    saturation: Float[Any, ""]
    location: Float[Any, " q"]

    def __init__(self, hessian: Any, noise_ratio: Any, saturation: Any, location: Any = None):
        self.hessian = symmetric("hessian", hessian, definite="positive")
        self.noise_ratio = positive("noise_ratio", noise_ratio)
        self.saturation = positive("saturation", saturation)
        self.location = location_vector(location, self.hessian.shape[0])

    @classmethod
    def from_sgd(
        cls,
        problem: Problem,
        sgd: SGD,
        at: PyTree | None = None,
        *,
        codimension: int | None = None,
        growth: Any = 2.0,
    ) -> Law:
        """The law for `sgd` with `LossScaled` noise that saturates and has no floor.

        Where the loss is quadratic (checked numerically) the law has exact draws; otherwise it is
        the `SaturatedPowerOfLossLaw` of that loss, with the `codimension` and `growth` given.

        Raises `ValueError` for other noise, momentum or weight decay.
        """
        noise = _saturating(sgd)
        ratio = sgd.learning_rate * noise.strength
        quadratic = quadratic_loss(problem, at) if codimension is None else None
        if quadratic is not None and quadratic.offset < 1e-10 * noise.saturation:
            return cls(quadratic.hessian, ratio, noise.saturation, quadratic.location)
        return cls.of_loss(
            FlatLoss(problem),
            problem.dimension,
            ratio,
            noise.saturation,
            codimension=codimension,
            growth=growth,
        )

    @staticmethod
    def of_loss(
        loss: Callable,
        dimension: int,
        noise_ratio: Any,
        saturation: Any,
        *,
        codimension: int | None,
        growth: Any = 2.0,
    ) -> "SaturatedPowerOfLossLaw":
        """The law of any loss; see `SaturatedPowerOfLossLaw`."""
        return SaturatedPowerOfLossLaw(
            loss, dimension, noise_ratio, saturation, codimension=codimension, growth=growth
        )

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """Three dimensions, and ten with unequal curvatures."""
        curvatures = np.diag(np.linspace(0.5, 3.0, 10))
        return (
            cls(np.diag([1.0, 4.0, 9.0]), 8.0, 1.0, [0.5, -1.0, 2.0]),
            cls(curvatures, 0.8, 0.5),
        )

    @classmethod
    def improper_examples(cls) -> Sequence[Self]:
        """Noise below the critical ratio, and two dimensions, where none suffices."""
        return cls(np.eye(3), 3.5, 1.0), cls(np.eye(2), 50.0, 1.0)

    @property
    def dimension(self) -> int:
        """Number of parameters q."""
        return self.location.shape[-1]

    @property
    def loss_law(self) -> SaturatedLoss:
        """The law of L: its mean, distribution function and quantiles."""
        return SaturatedLoss(self.dimension, self.noise_ratio, self.saturation)

    def require_proper(self) -> None:
        """Raise `ImproperLawError` unless ε > 4/(q−2)."""
        if not is_traced(self.noise_ratio):
            alpha = float(self.loss_law.loss_exponent)
            require_above_critical_noise(float(self.noise_ratio), alpha, self.dimension)

    def model(self, obs: Float[Any, "n d"] | None = None) -> None:
        """Sites `loss` (the Gamma mixture) and `direction` (normal, then normalised); `params`.

        With `obs` the density itself is used.
        """
        self.require_proper()
        q = self.dimension
        if obs is not None:
            flat = dist.ImproperUniform(dist.constraints.real_vector, (), (q,))
            with numpyro.plate("replica", obs.shape[0]):
                params = numpyro.sample("params", flat, obs=obs)
                numpyro.factor("stationary_law", self.log_density(params))
            return
        loss = numpyro.sample("loss", self.loss_law.distribution())
        normal = numpyro.sample("direction", dist.Normal(0, 1).expand([q]).to_event(1))
        unit = normal / jnp.linalg.norm(normal)
        root = jnp.linalg.cholesky(jnp.asarray(self.hessian))
        offset = jnp.linalg.solve(root.T, jnp.sqrt(2 * loss) * unit)
        numpyro.deterministic("params", self.location + offset)

    def log_density(self, params: Float[Any, "... q"]) -> Float[Any, "..."]:
        """Log density of `params`; leading axes are batch axes. Concrete values give float64."""
        self.require_proper()
        traced = is_traced(params, self.hessian, self.noise_ratio, self.saturation)
        xp = jnp if traced else np
        deviation = (params if traced else np.asarray(params, np.float64)) - self.location
        loss = 0.5 * xp.sum(deviation * (deviation @ self.hessian), -1)
        log_volume = xp.linalg.slogdet(self.hessian)[1] / 2
        return self.loss_law.log_profile(loss, xp) + log_volume - self.loss_law.log_mass()

    def mean(self) -> Float[Any, " q"]:
        """θ*."""
        self.require_proper()
        return self.location

    def covariance(self) -> Float[Any, "q q"]:
        """(2 E L/q) H⁻¹."""
        self.require_proper()
        xp = jnp if is_traced(self.hessian) else np
        return 2 * self.loss_law.mean() / self.dimension * xp.linalg.inv(self.hessian)


@register
class SaturatedPowerOfLossLaw(LossPotentialLaw):
    """Stationary law of SGD with noise C = σL/(1 + L/L_sat) I on any loss L ≥ 0.

        p(θ) ∝ (1 + L/L_sat) L^(−α) e^(−bL),     α = 1 + 2/ε,     b = (α−1)/L_sat,     ε = ησ

    Integrable at the zero-loss set of codimension q iff α < q/2; the tail always is, for a loss
    that grows as a power. The potential is singular on the zero-loss set: never start there.

    **Arguments:** `loss`, a JAX function of flat parameters `(d,)`; `dimension` d; `noise_ratio`
    ε > 0; `saturation` L_sat > 0 (loss); `codimension` q, None if the loss has no zero; `growth`.

    Source: the noise is Wojtowytsch (2021), arXiv:2106.02588; saturation and law are derived.
    """

    setting: ClassVar[str] = "SGD, any loss, isotropic noise σL/(1 + L/L_sat)"
    exactness: ClassVar[str] = "exact for its SDE; O(learning rate) for the chain, most at low loss"
    citation: ClassVar[str] = "Wojtowytsch (2021), arXiv:2106.02588; the saturation is derived"

    saturation: Float[Any, ""]

    def __init__(
        self,
        loss: Callable,
        dimension: int,
        noise_ratio: Any,
        saturation: Any,
        *,
        codimension: int | None,
        growth: Any = 2.0,
    ):
        self.loss = loss
        self.num_params = count("dimension", dimension)
        self.noise_ratio = positive("noise_ratio", noise_ratio)
        self.saturation = positive("saturation", saturation)
        self.codimension = None if codimension is None else count("codimension", codimension)
        self.growth = positive("growth", growth)

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """A loss without a zero in one dimension, and a point of zero loss in three."""
        return (
            cls(raised_half_square, 1, 1.0, 1.0, codimension=None),
            cls(half_square, 3, 8.0, 1.0, codimension=3),
        )

    @classmethod
    def improper_examples(cls) -> Sequence[Self]:
        """Noise below the critical ratio, and codimension two."""
        return (
            cls(half_square, 3, 3.5, 1.0, codimension=3),
            cls(half_square, 2, 50.0, 1.0, codimension=2),
        )

    @property
    def loss_exponent(self) -> Any:
        """α = 1 + 2/ε."""
        return loss_exponent(self.noise_ratio)

    def exponents(self) -> tuple[float, float]:
        """α at zero loss; faster than any power at infinity."""
        return float(self.loss_exponent), np.inf

    def potential(self, params: Float[Any, " d"]) -> Float[Any, ""]:
        """U = α log L + bL − log(1 + L/L_sat)."""
        loss, alpha = self.loss(params), self.loss_exponent
        return (
            alpha * jnp.log(loss)
            + (alpha - 1) / self.saturation * loss
            - jnp.log1p(loss / self.saturation)
        )

    def require_proper(self) -> None:
        """Raise `ImproperLawError` unless α < q/2."""
        if not is_traced(self.noise_ratio) and self.codimension is not None:
            alpha = float(self.loss_exponent)
            require_above_critical_noise(float(self.noise_ratio), alpha, self.codimension)


def raised_half_square(params: Float[Any, " d"]) -> Float[Any, ""]:
    """0.2 + ½|θ|²."""
    return 0.2 + half_square(params)


def _saturating(sgd: SGD) -> LossScaled:
    noise = loss_scaled_noise(sgd)
    if float(noise.floor) != 0 or not np.isfinite(noise.saturation):
        raise ValueError(
            "SaturatingLossScaledLaw needs noise with saturation and without floor, got floor = "
            f"{float(noise.floor):.4g}, saturation = {float(noise.saturation):.4g}"
        )
    return noise
