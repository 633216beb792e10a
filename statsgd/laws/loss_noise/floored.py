"""Loss-scaled noise with a floor: Student-t on a quadratic, a shifted power for any loss."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Self

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree
from scipy.stats import betaprime

from statsgd.arguments import count, is_traced, location_vector, positive, symmetric
from statsgd.dynamics.sgd import SGD
from statsgd.laws.bases.student_t import StudentTLaw
from statsgd.laws.law import ImproperLawError, Law, register
from statsgd.laws.loss_noise.loss_potential import (
    LossPotentialLaw,
    half_square,
    require_tail,
    unequal_wells,
)
from statsgd.laws.loss_noise.setting import (
    loss_exponent,
    loss_scaled_noise,
    quadratic_loss,
)
from statsgd.precision import formula
from statsgd.problems import Problem
from statsgd.problems.flat_loss import FlatLoss


@register
class FlooredLossScaledLaw(StudentTLaw):
    """Stationary law of SGD near one minimum when gradient noise grows with the loss.

    L = ½(θ−θ*)ᵀH(θ−θ*) and C = σ(L + c₀)I, a floor c₀ > 0 keeping the gradient noisy at the
    minimum (label noise, a loss that cannot reach zero). With ε = ησ and α = 1 + 2/ε,

        θ ~ Student-t,   ν = 2α − d = 2 + 4/ε − d,   scale matrix (2c₀/ν) H⁻¹
        Cov θ = 2c₀ε/(4 − dε) H⁻¹,   E L = c₀d/(ν−2),   L/c₀ ~ BetaPrime(d/2, ν/2)

    Proper iff ν > 0: always for d ≤ 2, else ε < 4/(d−2). Too MUCH noise kills it, where the law
    without a floor dies of too little. The variance is infinite for ν ≤ 2. Exact for the SDE;
    `floor_second_moments` has the moments of the chain.

    **Arguments:** `hessian` H `(d, d)`, positive definite (loss/params²); `noise_ratio` ε > 0;
    `floor` c₀ > 0 (loss); `location` θ*, zero by default. `of_loss` gives the law of any other
    loss, `label_noise_regression` that of real minibatch SGD in one dimension.

    Source: the noise is Wojtowytsch (2021), arXiv:2106.02588; floor and law are derived.

    >>> import numpy as np
    >>> from statsgd import SGD, noise, problems
    >>> sgd = SGD(0.1, noise.LossScaled(4.0, floor=1.0))
    >>> law = FlooredLossScaledLaw.from_sgd(problems.quadratic(np.eye(1)), sgd)
    >>> float(law.degrees_of_freedom)  # 2 + 4/(ησ) − d
    11.0
    """

    setting: ClassVar[str] = "SGD, quadratic loss, isotropic noise σ(L + c₀)"
    exactness: ClassVar[str] = "exact for its SDE; O(learning rate) for the chain"
    citation: ClassVar[str] = "Wojtowytsch (2021), arXiv:2106.02588; the floor is derived"

    hessian: Float[Any, "d d"]
    noise_ratio: Float[Any, ""]
    floor: Float[Any, ""]

    def __init__(self, hessian: Any, noise_ratio: Any, floor: Any, location: Any = None):
        self.hessian = symmetric("hessian", hessian, definite="positive")
        d = self.hessian.shape[0]
        self.noise_ratio = positive("noise_ratio", noise_ratio)
        self.floor = positive("floor", floor)
        self.location = location_vector(location, d)
        self.degrees_of_freedom = 2 * self.loss_exponent - d
        self.scale = _scale_matrix(self.hessian, self.floor, self.degrees_of_freedom)

    @classmethod
    def from_sgd(
        cls, problem: Problem, sgd: SGD, at: PyTree | None = None, growth: Any = 2.0
    ) -> Law:
        """The law for `sgd` with `LossScaled` noise that has a floor and no saturation.

        Where the loss is quadratic (checked numerically) this is the Student-t law, the least loss
        counted into the floor; otherwise it is the `FlooredPowerOfLossLaw` of that loss with the
        `growth` given. `at` is the minimum, found by default.

        Raises `ValueError` for other noise, momentum, weight decay, or no floor at all.
        """
        noise = loss_scaled_noise(sgd)
        if np.isfinite(noise.saturation):
            raise ValueError(
                "FlooredLossScaledLaw needs noise without saturation, got saturation = "
                f"{float(noise.saturation):.4g}"
            )
        ratio = sgd.learning_rate * noise.strength
        quadratic = quadratic_loss(problem, at)
        if quadratic is None:
            return cls.of_loss(
                FlatLoss(problem), problem.dimension, ratio, noise.floor, growth=growth
            )
        floor = float(noise.floor) + quadratic.offset
        return cls(quadratic.hessian, ratio, floor, quadratic.location)

    @staticmethod
    def of_loss(
        loss: Callable, dimension: int, noise_ratio: Any, floor: Any, *, growth: Any = 2.0
    ) -> "FlooredPowerOfLossLaw":
        """The law (L + c₀)^(−α) of any loss; see `FlooredPowerOfLossLaw`."""
        return FlooredPowerOfLossLaw(loss, dimension, noise_ratio, floor, growth=growth)

    @classmethod
    def label_noise_regression(
        cls, target_variance: Any, learning_rate: Any, batch_size: int
    ) -> Self:
        """The law of real minibatch SGD on ½(aθ − y)² with fresh a ~ N(0, 1), y ~ N(0, s²).

        In one dimension this noise is exactly loss-scaled: L = θ²/2 and C = (2θ² + s²)/S, so that
        σ = 4/S, c₀ = s²/4, ν = 1 + S/η and the scale squared is s²/(2ν). The chain's variance is
        `LinearRegressionGaussian.gaussian_inputs`; its tails are lighter than of this law at small
        η, heavier at large (`regression_tail_index`), so compare the bulk. **Arguments:**
        `target_variance` s², η, S.
        """
        s2, eta = (
            positive("target_variance", target_variance),
            positive("learning_rate", learning_rate),
        )
        return cls([[1.0]], eta * 4 / count("batch_size", batch_size), s2 / 4)

    @classmethod
    def examples(cls) -> Iterable[Self]:
        """One dimension, two curvatures, and three dimensions with a shifted minimum."""
        skew = [[2.0, 0.5, 0.0], [0.5, 1.0, 0.2], [0.0, 0.2, 3.0]]
        yield cls([[1.0]], 0.8, 0.5)
        yield cls(np.diag([1.0, 4.0]), 0.4, 0.5)
        yield cls(skew, 0.3, 0.2, location=[0.5, -1.0, 2.0])

    @classmethod
    def improper_examples(cls) -> Sequence[Self]:
        """Too much noise for three and for ten dimensions."""
        return cls(np.eye(3), 4.5, 0.5), cls(np.eye(10), 0.5, 1.0)

    @property
    def loss_exponent(self) -> Any:
        """α = 1 + 2/ε."""
        return loss_exponent(self.noise_ratio)

    def require_proper(self) -> None:
        """Raise `ImproperLawError` unless ν > 0."""
        nu = self.degrees_of_freedom
        if not is_traced(nu) and not nu > 0:
            raise ImproperLawError(
                f"floor law not normalisable: df = 2*alpha - dim = {float(nu):.4g} must be "
                f"positive, that is noise_ratio = {float(self.noise_ratio):.4g} must be below "
                f"4/(dim-2) = {4 / (self.dimension - 2):.4g}"
            )

    def mean_loss(self) -> float:
        """E L − L(θ*) = c₀d/(ν−2), infinite for ν ≤ 2."""
        self.require_proper()
        nu = float(self.degrees_of_freedom)
        return float(self.floor) * self.dimension / (nu - 2) if nu > 2 else np.inf

    def loss_cdf(self, loss: Any) -> Float[Any, "..."]:
        """P(L − L(θ*) ≤ `loss`)."""
        self.require_proper()
        law = betaprime(self.dimension / 2, float(self.degrees_of_freedom) / 2)
        return law.cdf(np.asarray(loss, dtype=np.float64) / float(self.floor))


@formula
def _scale_matrix(hessian: Any, floor: Any, nu: Any) -> Any:
    return 2 * floor / jnp.where(nu > 0, nu, jnp.nan) * jnp.linalg.inv(jnp.asarray(hessian))


@register
class FlooredPowerOfLossLaw(LossPotentialLaw):
    """Stationary law of SGD with noise C = σ(L + c₀)I on any loss L ≥ 0, c₀ > 0.

        p(θ) ∝ (L(θ) + c₀)^(−α),     α = 1 + 2/ε,     ε = ησ

    Wells of equal height weigh det(H)^(−1/2) as under Gibbs, but heights count by a power, not
    exponentially (`floor_well_weights`). Where L ~ |θ|^p at infinity it needs αp > d, and for
    p > 2 also α ≥ 1 + (d−2)/p, without which the diffusion explodes.

    **Arguments:** `loss`, a JAX function of flat parameters `(d,)`; `dimension` d; `noise_ratio`
    ε > 0; `floor` c₀ > 0 (loss); `growth` p. On a quadratic use `FlooredLossScaledLaw`, which has
    exact draws.

    Source: the noise is Wojtowytsch (2021), arXiv:2106.02588; floor and law are derived.

    >>> import numpy as np
    >>> law = FlooredPowerOfLossLaw(lambda x: 0.5 * x @ x, dimension=1, noise_ratio=0.4, floor=1.0)
    >>> round(float(law.potential(np.ones(1)) - law.potential(np.zeros(1))), 3)  # α ln 1.5, α = 6
    2.433
    """

    setting: ClassVar[str] = "SGD, any loss, isotropic noise σ(L + c₀)"
    exactness: ClassVar[str] = "exact for its SDE; O(learning rate) for the chain"
    citation: ClassVar[str] = "Wojtowytsch (2021), arXiv:2106.02588; the floor is derived"

    floor: Float[Any, ""]

    def __init__(
        self, loss: Callable, dimension: int, noise_ratio: Any, floor: Any, *, growth: Any = 2.0
    ):
        super().__init__(loss, dimension, noise_ratio, None, growth)
        self.floor = positive("floor", floor)
        self._complete()

    @classmethod
    def examples(cls) -> Iterable[Self]:
        """Two wells of different curvature, and a quadratic in two dimensions."""
        yield cls(unequal_wells, 1, 0.5, 0.05, growth=8.0)
        yield cls(half_square, 2, 0.5, 0.5)

    @classmethod
    def improper_examples(cls) -> Sequence[Self]:
        """Too much noise for three dimensions."""
        return (cls(half_square, 3, 4.5, 0.5),)

    @property
    def loss_exponent(self) -> Any:
        """α = 1 + 2/ε."""
        return loss_exponent(self.noise_ratio)

    def exponents(self) -> tuple[Any, Any]:
        """0 at zero loss, α at infinity."""
        return 0.0, self.loss_exponent

    def potential(self, params: Float[Any, " d"]) -> Float[Any, ""]:
        """U = α log(L + c₀)."""
        return self.loss_exponent * jnp.log(self.loss(params) + self.floor)

    def require_proper(self) -> None:
        """Raise `ImproperLawError` unless the tail is normalisable and not explosive."""
        require_tail(self.loss_exponent, self.growth, self.dimension)
