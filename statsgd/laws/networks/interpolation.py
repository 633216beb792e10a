"""The two-layer network on noiseless targets: two absorbing points, or a law between them."""

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Self

import jax.numpy as jnp
import numpy as np
from jax.nn import softplus
from jax.scipy.special import expit
from jaxtyping import Float
from scipy.special import betainc, gammaln, hyperu

from statsgd.arguments import non_negative, positive
from statsgd.dynamics.sgd import SGD
from statsgd.laws.bases.line import LineTable
from statsgd.laws.bases.slope import SlopeLaw
from statsgd.laws.domain import SmallNumber
from statsgd.laws.law import ImproperLawError, register
from statsgd.laws.networks.data_moments import noise_scale
from statsgd.laws.networks.growth import FactorShrinkage, LogitSteps
from statsgd.problems import DiagonalLinearNetwork, Problem


@register
class InterpolationLaw(SlopeLaw):
    """Stationary law of a two-layer diagonal network with weight decay on targets y = κx.

    The noise vanishes at f = 0 and at the solution f = κ, and decay pulls the network off κ: the
    law lives on (0, κ). With γ = λ/2, h = (b1 − γ/κ)/(2Ta1κ), c = γ/(2Ta1κ²) and r = f/(κ − f),

        p(r) = r^(h−3/2) (1+r)^(3/2) e^(−cr)/Z,   Z = Γ(h−½) U(h−½, h+2, c)

    (U is Tricomi's function). It exists iff λ > 0 and T < (b1 − γ/κ)/(a1κ); above that the network
    collapses to zero. Without decay both ends absorb: see `absorption_probability`. ηA(κ)b1 ≤ 0.02,
    with A(κ) = 2κ, keeps total variation from the chain below 5 % (measured for Gaussian inputs):
    noise is as skewed as the inputs' squares, so the error falls as √η only.

    **Arguments:** `input_moment` b1 = E x², `input_variance` a1 = Var x² > 0, `teacher_slope`
    κ > 0, `noise_scale` T, `weight_decay` λ. `params` `(1,)` holds f.

    Source: Ziyin, Li, Ueda (2023), arXiv:2308.06671, for the density (printed with a spurious b1
    in the exponential); normalisation is derived.

    >>> import numpy as np
    >>> from statsgd import SGD, noise, problems
    >>> x = np.random.default_rng(0).normal(size=100)
    >>> network = problems.diagonal_linear_network(x, x, num_layers=2)
    >>> sgd = SGD(0.05, noise.Minibatch(1), weight_decay=0.1)
    >>> InterpolationLaw.from_sgd(network, sgd).quantile(0.5).round(3)
    array([0.95])
    """

    setting: ClassVar[str] = "SGD on noiseless y = κx, two-layer diagonal network, weight decay"
    exactness: ClassVar[str] = (
        "exact for the SDE on the balanced set; for the chain within 5 % where ηA(κ)b1 ≤ 0.02"
    )
    citation: ClassVar[str] = "Ziyin, Li, Ueda (2023), arXiv:2308.06671"

    input_moment: Float[Any, ""]
    input_variance: Float[Any, ""]
    teacher_slope: Float[Any, ""]
    noise_scale: Float[Any, ""]
    weight_decay: Float[Any, ""]
    table: LineTable

    def __init__(
        self,
        input_moment: Any,
        input_variance: Any,
        teacher_slope: Any,
        noise_scale: Any,
        weight_decay: Any,
    ):
        self.input_moment = positive("input_moment", input_moment)
        self.input_variance = positive("input_variance", input_variance)
        self.teacher_slope = positive("teacher_slope", teacher_slope)
        self.noise_scale = positive("noise_scale", noise_scale)
        self.weight_decay = non_negative("weight_decay", weight_decay)
        self.correction = None
        self.table = self.tabulated()

    @classmethod
    def from_sgd(cls, problem: Problem, sgd: SGD, *, discrete_correction: bool = False) -> Self:
        """The law for i.i.d. minibatch `sgd` on a two-layer network whose targets are exactly κx.

        With the **discrete correction** the law is that of the chain to the next order in √η, for
        batches with replacement and no momentum: off by O(η), within 5 % for steps of 0.04.
        Raises `ValueError` for other problems, residual label noise, or noise that is not i.i.d.
        """
        if not (isinstance(problem, DiagonalLinearNetwork) and problem.num_layers == 2):
            raise ValueError("the law speaks about diagonal_linear_network with num_layers = 2")
        x = np.asarray(problem.inputs, dtype=np.float64)
        y = np.asarray(problem.targets, dtype=np.float64)
        slope = (x @ y) / (x @ x)
        residual = float(np.max(np.abs(y - slope * x)))
        if residual > 1e-6 * float(np.max(np.abs(y))):
            raise ValueError(
                f"targets must equal κ·inputs, got a residual of {residual:.3g}: use "
                "DiagonalNetworkLaw"
            )
        factor = problem.loss_factor
        law = cls(
            factor * np.mean(x**2),
            factor**2 * np.var(x**2),
            slope,
            noise_scale(problem, sgd),
            sgd.weight_decay,
        )
        if not discrete_correction:
            return law
        return law.corrected(LogitSteps(FactorShrinkage.of(problem, sgd), law.teacher_slope))

    def small_numbers(self, problem: Problem, sgd: SGD) -> Sequence[SmallNumber]:
        """ηA(κ)b1."""
        rate = float(sgd.learning_rate) / (1 - float(sgd.momentum))
        step = rate * 2 * float(self.teacher_slope * self.input_moment)
        return (SmallNumber("ηA(κ)b₁", step, 0.02 if self.correction is None else 0.04),)

    @classmethod
    def examples(cls) -> Iterable[Self]:
        """Standard normal inputs at weak noise, and closer to collapse."""
        yield cls(1, 2, 1, 0.2, 0.1)
        yield cls(1, 2, 1.5, 0.08, 0.3)

    @classmethod
    def improper_examples(cls) -> Sequence[Self]:
        """No decay, and noise above the threshold."""
        return cls(1, 2, 1, 0.2, 0.0), cls(1, 2, 1, 0.5, 0.1)

    @property
    def exponent(self) -> Any:
        """h = (b1 − γ/κ)/(2Ta1κ)."""
        pull = self.weight_decay / (2 * self.teacher_slope)
        width = 2 * self.noise_scale * self.input_variance * self.teacher_slope
        return (self.input_moment - pull) / width

    @property
    def rate(self) -> Any:
        """c = γ/(2Ta1κ²)."""
        return self.weight_decay / (
            4 * self.noise_scale * self.input_variance * self.teacher_slope**2
        )

    def require_proper(self) -> None:
        """Raise `ImproperLawError` unless λ > 0 and T < (b1 − γ/κ)/(a1κ)."""
        if float(self.weight_decay) == 0:
            raise ImproperLawError(
                "weight_decay = 0 must be positive: both f = 0 and f = κ absorb, see "
                "absorption_probability"
            )
        if float(self.exponent) <= 0.5:
            critical = 2 * self.exponent * self.noise_scale
            raise ImproperLawError(
                f"not normalisable: noise_scale T={float(self.noise_scale):.6g} ≥ "
                f"(b1-λ/(2κ))/(a1κ)={float(critical):.6g}; the stationary law is a point mass at 0"
            )

    def exact_log_normalizer(self) -> float:
        """log Z of the density of r."""
        self.ensure_proper()
        h, c = float(self.exponent), float(self.rate)
        return float(gammaln(h - 0.5) + np.log(hyperu(h - 0.5, h + 2, c)))

    def supports(self, slope: Any) -> Any:
        """0 < f < κ."""
        return (slope > 0) & (slope < self.teacher_slope)

    def slope_at(self, coordinate: Any) -> Any:
        """f = κ/(1 + e^(−s)), s = ln r."""
        return self.teacher_slope * expit(coordinate)

    def coordinate_of(self, slope: Any) -> Any:
        """s = ln f/(κ − f)."""
        return jnp.log(slope / (self.teacher_slope - slope))

    def log_jacobian(self, coordinate: Any) -> Any:
        """ln df/ds = ln κ r/(1+r)²."""
        return jnp.log(self.teacher_slope) - softplus(coordinate) - softplus(-coordinate)

    def log_mass(self, coordinate: Any) -> Any:
        """ln p(r) + s, up to a constant."""
        # Overflow would give derivatives that are no numbers; mass ends long before.
        largest = 0.7 * jnp.log(jnp.finfo(jnp.result_type(coordinate)).max)
        decay = self.rate * jnp.exp(jnp.minimum(coordinate, largest))
        return (self.exponent - 0.5) * coordinate + 1.5 * softplus(coordinate) - decay

    def reach(self) -> tuple[Any, Any, Any]:
        """About ln(h/c), where the mode is for small c; the left tail has rate h − ½."""
        guess = jnp.log(self.exponent / self.rate)
        left = 100 + jnp.abs(guess) + 60 / jnp.clip(self.exponent - 0.5, 1e-6, None)
        return guess, left, 100.0


def absorption_probability(
    input_moment: Any,
    input_variance: Any,
    teacher_slope: Any,
    noise_scale: Any,
    initial_slope: Any,
) -> Float[Any, "..."]:
    """Probability that a two-layer network on y = κx ends at the solution f = κ, without decay.

    The stationary law is κ with this probability and 0 otherwise. It is 1 for
    T < T_c = b1/(a1κ) and for starts f₀ ≥ κ; else I_{f₀/κ}(½ − h, 1 + h) with
    h = b1/(2Ta1κ) and I the regularised incomplete beta function. Arguments broadcast; positive.

    Source: *derived* from the formal density of Ziyin, Li, Ueda (2023), arXiv:2308.06671, which is
    not normalisable.

    >>> float(absorption_probability(1.0, 2.0, 1.0, noise_scale=1.0, initial_slope=0.5).round(4))
    0.8814
    """
    b1 = positive("input_moment", input_moment)
    a1 = positive("input_variance", input_variance)
    slope = positive("teacher_slope", teacher_slope)
    h = b1 / (2 * positive("noise_scale", noise_scale) * a1 * slope)
    start = positive("initial_slope", initial_slope) / slope
    inside = (h < 0.5) & (start < 1)
    return np.where(
        inside,
        betainc(np.where(inside, 0.5 - h, 0.5), 1 + h, np.where(inside, start, 0.5)),
        1.0,
    )
