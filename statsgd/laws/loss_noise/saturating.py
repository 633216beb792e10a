"""Loss-scaled noise that saturates at large loss: proper without a floor, with exact draws."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Self

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Float, PyTree

from statsgd.arguments import location_vector, positive, symmetric
from statsgd.dynamics.noise import LossScaled
from statsgd.dynamics.sgd import SGD
from statsgd.laws.bases.potential import density_model
from statsgd.laws.domain import SmallNumber
from statsgd.laws.law import Law, register
from statsgd.laws.loss_noise.loss_potential import (
    LossPotentialLaw,
    half_square,
    require_above_critical_noise,
)
from statsgd.laws.loss_noise.saturated_loss import SaturatedLoss
from statsgd.laws.loss_noise.setting import (
    loss_exponent,
    loss_scaled_noise,
    quadratic_loss,
    steepness,
)
from statsgd.precision import formula
from statsgd.problems import Problem
from statsgd.problems.flat_loss import FlatLoss


@register
class SaturatingLossScaledLaw(Law):
    """Stationary law of SGD near a zero-loss minimum with noise that saturates at large loss.

    L = ½(θ−θ*)ᵀH(θ−θ*) in q ≥ 3 dimensions, C = σL/(1 + L/L_sat) I, ε = ησ > 4/(q−2). With
    α = 1 + 2/ε, a = q/2 − α, b = (α−1)/L_sat and w = a/(q/2 − 1),

        p(θ) ∝ (1 + L/L_sat) L^(−α) e^(−bL)
        L ~ (1−w) Gamma(a, rate b) + w Gamma(a+1, rate b),   independent of the direction:
        u = H^(1/2)(θ−θ*)/|·| uniform on the sphere,   Cov θ = (2 E L/q) H⁻¹,   E L = (a+w)/b

    At or below ε = 4/(q−2) SGD collapses onto the minimum and there is no such law. The chain
    differs by O(η), most at small loss, where its mass falls as another power: the closer α is to
    q/2, the smaller η has to be. With h the largest curvature, ηh/(1 − 2α/q) ≤ 0.1 and
    ηh√q ≤ 0.25 keep total variation below 5 % (measured for H = hI, 3 ≤ q ≤ 100, and for
    H = diag(1, 4, 9)).

    **Arguments:** `hessian` H `(q, q)`, positive definite; `noise_ratio` ε > 0; `saturation`
    L_sat > 0 (loss); `location` θ*, zero by default. `of_loss` gives the law of any other loss.

    Source: the noise is Wojtowytsch (2021), arXiv:2106.02588; saturation and law are derived.

    >>> import numpy as np
    >>> from statsgd import SGD, noise, problems
    >>> sgd = SGD(0.5, noise.LossScaled(16.0, saturation=1.0))
    >>> law = SaturatingLossScaledLaw.from_sgd(problems.quadratic(np.eye(3)), sgd)
    >>> float(law.noise_ratio)  # ησ
    8.0
    """

    setting: ClassVar[str] = "SGD, quadratic loss, isotropic noise σL/(1 + L/L_sat)"
    exactness: ClassVar[str] = (
        "exact for its SDE; for the chain within 5 % where ηh/(1 − 2α/q) ≤ 0.1 and ηh√q ≤ 0.25"
    )
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
        require_above_critical_noise(self.noise_ratio, self.dimension)

    def small_numbers(self, problem: Problem, sgd: SGD) -> Sequence[SmallNumber]:
        """ηh/(1 − 2α/q) and ηh√q at the largest curvature h."""
        q, step = self.dimension, float(sgd.learning_rate * np.linalg.eigvalsh(self.hessian)[-1])
        return (
            SmallNumber("ηh ÷ (1 − 2α/q)", step / steepness(self.noise_ratio, q), 0.1),
            SmallNumber("ηh√q", step * np.sqrt(q), 0.25),
        )

    def model(self, obs: Float[Any, "n d"] | None = None) -> None:
        """Sites `loss` (the Gamma mixture) and `direction` (normal, then normalised); `params`.

        With `obs` the density itself is used.
        """
        self.require_proper()
        q = self.dimension
        if obs is not None:
            density_model(self, dist.constraints.real_vector, obs)
            return
        loss = numpyro.sample("loss", self.loss_law.distribution())
        normal = numpyro.sample("direction", dist.Normal(0, 1).expand([q]).to_event(1))
        unit = normal / jnp.linalg.norm(normal)
        root = jnp.linalg.cholesky(jnp.asarray(self.hessian))
        offset = jnp.linalg.solve(root.T, jnp.sqrt(2 * loss) * unit)
        numpyro.deterministic("params", self.location + offset)

    def _log_density(self, params: Float[Any, " q"]) -> Float[Any, ""]:
        deviation = params - self.location
        loss = 0.5 * deviation @ jnp.asarray(self.hessian) @ deviation
        log_volume = jnp.linalg.slogdet(jnp.asarray(self.hessian))[1] / 2
        return self.loss_law.log_profile(loss) + log_volume - self.loss_law.log_mass()

    def _mean(self, variable: str) -> Float[Any, " q"]:
        return self.location

    def _covariance(self, variable: str, other: str) -> Float[Any, "q q"]:
        return _covariance(self.hessian, self.loss_law.mean())


@formula
def _covariance(hessian: Any, mean_loss: Any) -> Any:
    return 2 * mean_loss / len(hessian) * jnp.linalg.inv(jnp.asarray(hessian))


@register
class SaturatedPowerOfLossLaw(LossPotentialLaw):
    """Stationary law of SGD with noise C = σL/(1 + L/L_sat) I on any loss L ≥ 0.

        p(θ) ∝ (1 + L/L_sat) L^(−α) e^(−bL),     α = 1 + 2/ε,     b = (α−1)/L_sat,     ε = ησ

    Integrable at the zero-loss set of codimension q iff α < q/2; the tail always is, for a loss
    that grows as a power. The potential is singular on the zero-loss set: never start there.

    **Arguments:** `loss`, a JAX function of flat parameters `(d,)`; `dimension` d; `noise_ratio`
    ε > 0; `saturation` L_sat > 0 (loss); `codimension` q, None if the loss has no zero; `growth`.

    Source: the noise is Wojtowytsch (2021), arXiv:2106.02588; saturation and law are derived.

    >>> import numpy as np
    >>> law = SaturatedPowerOfLossLaw(
    ...     lambda x: 0.5 * x @ x, 5, noise_ratio=2.0, saturation=1.0, codimension=5
    ... )
    >>> near, far = 0.1 * np.ones(5), np.ones(5)
    >>> bool(law.potential(near) < law.potential(far))
    True
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
        super().__init__(loss, dimension, noise_ratio, codimension, growth)
        self.saturation = positive("saturation", saturation)
        self._complete()

    @classmethod
    def examples(cls) -> Iterable[Self]:
        """A loss without a zero in one dimension, and a point of zero loss in three."""
        yield cls(raised_half_square, 1, 1.0, 1.0, codimension=None)
        yield cls(half_square, 3, 8.0, 1.0, codimension=3)

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

    def exponents(self) -> tuple[Any, Any]:
        """α at zero loss; faster than any power at infinity."""
        return self.loss_exponent, np.inf

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
        require_above_critical_noise(self.noise_ratio, self.codimension)


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
