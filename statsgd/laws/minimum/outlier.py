"""Power law along outlier Hessian directions under mean-squared error."""

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from statsgd.arguments import count, is_traced, location_vector, positive
from statsgd.dynamics.noise import Minibatch
from statsgd.dynamics.sgd import SGD
from statsgd.laws.bases.nested import log_nested_integral
from statsgd.laws.bases.student_t import StudentTLaw
from statsgd.laws.law import ImproperLawError, register
from statsgd.precision import formula
from statsgd.problems import LinearRegression, Problem


@register
class OutlierPowerLaw(StudentTLaw):
    """Published power law of SGD along n equal outlier directions of a mean-squared-error Hessian.

    L = L* + ½h|z|², z ∈ ℝⁿ, L* > 0, with the decoupled noise C = (2L/S) h I of the η-SDE:

        p ∝ L^(−φ),   φ = 1 + S/(ηh);     z ~ Student-t, ν = 2φ − n, scale² = 2L*/(hν)

    Stable iff n < n_c = 2φ. It is `FlooredLossScaledLaw` with σ = 2h/S and floor L*.

    **Not the law of real SGD, except in the bulk.** On linear regression the exact covariance has
    a rank-one part; in one dimension the decoupled form holds only for inputs of kurtosis 2, and
    with Gaussian labels rare events are Gaussian, not a power law. Compare second moments and
    central quantiles, |z| below about 1.5 standard deviations.

    **Arguments:** `batch_size` S, `learning_rate` η, `curvature` h, `minimum_loss` L* > 0,
    `outliers` n, `location` of the minimum, zero by default.

    Source: Mori, Ziyin, Liu, Ueda (2022), arXiv:2105.09557; the warning is derived.

    >>> import numpy as np
    >>> from statsgd import SGD, noise, problems
    >>> problem = problems.linear_regression(np.ones((2, 1)), np.array([1.0, 3.0]))
    >>> law = OutlierPowerLaw.from_sgd(problem, SGD(0.1, noise.Minibatch(1)))
    >>> float(law.degrees_of_freedom)
    21.0
    """

    setting: ClassVar[str] = "SGD, mean-squared error, decoupled noise in n outlier directions"
    exactness: ClassVar[str] = "exact for its SDE; for real SGD in the bulk only"
    citation: ClassVar[str] = "Mori, Ziyin, Liu, Ueda (2022), arXiv:2105.09557"

    batch_size: Float[Any, ""]
    learning_rate: Float[Any, ""]
    curvature: Float[Any, ""]
    minimum_loss: Float[Any, ""]
    outliers: int = eqx.field(static=True)

    def __init__(
        self,
        batch_size: Any,
        learning_rate: Any,
        curvature: Any,
        minimum_loss: Any,
        outliers: int = 1,
        location: Any = None,
    ):
        self.batch_size = positive("batch_size", batch_size)
        self.learning_rate = positive("learning_rate", learning_rate)
        self.curvature = positive("curvature", curvature)
        self.minimum_loss = positive("minimum_loss", minimum_loss)
        self.outliers = count("outliers", outliers)
        self.degrees_of_freedom = 2 * self.escape_exponent - self.outliers
        self.location = location_vector(location, self.outliers)
        self.scale = _scale(
            self.minimum_loss, self.curvature, self.degrees_of_freedom, self.outliers
        )

    @classmethod
    def from_sgd(cls, problem: Problem, sgd: SGD) -> Self:
        """The law for `sgd` on a linear regression whose Hessian eigenvalues are nearly equal.

        All d directions are outliers, h is their mean curvature and L* the least loss. Raises
        `ValueError` for another problem, unequal eigenvalues (beyond 10 %), noise other than i.i.d.
        minibatches drawn with replacement, momentum or weight decay.
        """
        if not isinstance(problem, LinearRegression):
            raise ValueError(
                f"the law speaks about linear_regression problems, got {type(problem).__name__}"
            )
        noise = sgd.noise
        if not (isinstance(noise, Minibatch) and noise.sampling == "with_replacement"):
            raise ValueError(f"the law needs Minibatch noise with replacement, got {noise!r}")
        sgd.require_heavy_ball()
        if float(sgd.momentum) != 0 or float(sgd.weight_decay) != 0:
            raise ValueError(
                "the law needs momentum = 0 and weight_decay = 0, got "
                f"{float(sgd.momentum):.4g} and {float(sgd.weight_decay):.4g}"
            )
        h = np.linalg.eigvalsh(problem.hessian_matrix())
        if h[0] < 0.9 * h[-1]:
            raise ValueError(
                "the law takes all outlier curvatures equal, got Hessian eigenvalues from "
                f"{h[0]:.4g} to {h[-1]:.4g}"
            )
        location = problem.minimiser()
        residual = np.asarray(problem.inputs, np.float64) @ location - np.asarray(problem.targets)
        least = 0.5 * float(np.mean(residual**2))
        return cls(noise.batch_size, sgd.learning_rate, h.mean(), least, len(h), location)

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """One outlier, and ten."""
        return cls(1, 0.1, 1.0, 0.5), cls(1, 0.1, 1.0, 0.5, 10)

    @classmethod
    def improper_examples(cls) -> Sequence[Self]:
        """More outliers than the noise allows."""
        return (cls(1, 0.5, 1.0, 0.5, 6),)

    @property
    def escape_exponent(self) -> Any:
        """φ = 1 + S/(ηh)."""
        return 1 + self.batch_size / (self.learning_rate * self.curvature)

    def require_proper(self) -> None:
        """Raise `ImproperLawError` unless n < 2(1 + S/(ηh))."""
        nu = self.degrees_of_freedom
        if not is_traced(nu) and not nu > 0:
            raise ImproperLawError(
                f"not normalisable: {self.outliers} outliers need n < 2(1 + S/(eta h)) = "
                f"{2 * float(self.escape_exponent):.4g}"
            )

    def escape_rate(self, saddle_loss: Any, minimum_hessian: Any, saddle_hessian: Any) -> float:
        """Published rate over a saddle (Laplace form), per unit t = ηk:

            |h_s|/(2π) √(det H*/|det H_s|) (L_s/L*)^(−(φ − n/2))

        The Hessians are those in the outlier directions, `(n, n)`, or `(n,)` eigenvalues.
        """
        self.require_proper()
        bottom, top = (
            np.linalg.eigvalsh(m) if m.ndim == 2 else m
            for m in (np.atleast_1d(minimum_hessian), np.atleast_1d(saddle_hessian))
        )
        if len(bottom) != self.outliers or len(top) != self.outliers or np.min(top) >= 0:
            raise ValueError(
                f"the Hessians must have {self.outliers} eigenvalues each, one of the saddle's "
                f"negative, got {bottom.tolist()} and {top.tolist()}"
            )
        ratio = float(positive("saddle_loss", saddle_loss)) / float(self.minimum_loss)
        power = float(self.escape_exponent) - self.outliers / 2
        prefactor = abs(np.min(top)) / (2 * np.pi)
        return float(prefactor * np.sqrt(np.prod(bottom) / abs(np.prod(top))) * ratio**-power)

    def passage_time(self, loss_ratio: Any) -> float:
        """Mean time of the SDE from z = 0 to the loss c L*, c = `loss_ratio` > 1, in t = ηk.

            T(c) = (2β̂/h) ∫₀^R y^(1−n)(1+y²)^β̂ ∫₀^y x^(n−1)(1+x²)^(−β̂−1) dx dy,
            R = √(c−1),  β̂ = S/(ηh)

        d log T/d log c → φ − n/2 for c ≫ 1. Needs no stationary law.
        """
        c = float(positive("loss_ratio", loss_ratio))
        if c <= 1:
            raise ValueError(f"loss_ratio must be above 1, got {c:.6g}")
        beta, n = float(self.escape_exponent) - 1, self.outliers

        # In the logarithm of the radius, where nothing is singular at the centre.
        def log_outer(log_y: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
            return (2 - n) * log_y + beta * np.log1p(np.exp(2 * log_y))

        def log_inner(log_x: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
            return n * log_x - (beta + 1) * np.log1p(np.exp(2 * log_x))

        end = float(np.log(c - 1)) / 2
        start = min(end, -np.log(max(beta, 1)) / 2) - 40
        time = log_nested_integral(log_outer, log_inner, start, end).number("mean passage time")
        return 2 * beta * time / float(self.curvature)


@formula
def _scale(minimum_loss: Any, curvature: Any, nu: Any, outliers: int) -> Any:
    nu = jnp.where(nu > 0, nu, jnp.nan)
    return 2 * minimum_loss / (curvature * nu) * jnp.eye(outliers)


def regression_second_moment(
    learning_rate: Any, batch_size: int, outliers: int = 1, kurtosis: Any = 3.0
) -> float:
    """Exact E|θ|² of real SGD on ½(x·θ − y)² with fresh data, y ~ N(0, 1) independent of x.

    ηn/(S(2−η) − η(n+1)) for x ~ N(0, Iₙ), and η/(S(2−η) − (κ−1)η) in one dimension for inputs of
    unit variance and `kurtosis` κ = E x⁴. This, and central quantiles, are what `OutlierPowerLaw`
    (L* = ½, h = 1) may be compared with SGD by; κ = 2, n = 1 is its decoupled covariance.

    Raises `ImproperLawError` where the moment diverges, `ValueError` for a kurtosis other than 3
    with n > 1. Source: derived.

    >>> round(regression_second_moment(0.1, batch_size=1), 4)  # η/(2 − 3η)
    0.0588
    """
    eta, s = float(positive("learning_rate", learning_rate)), count("batch_size", batch_size)
    n, kappa = count("outliers", outliers), float(positive("kurtosis", kurtosis))
    if n > 1 and kappa != 3:
        raise ValueError(
            f"kurtosis other than 3 is known for one outlier only, got {kappa} with {n}"
        )
    room = s * (2 - eta) - (eta * (n + 1) if n > 1 else (kappa - 1) * eta)
    if room <= 0:
        raise ImproperLawError(
            f"second moment of the chain diverges: S(2 - eta) - eta*(n + 1) = {room:.4g} must be "
            "positive"
        )
    return eta * n / room
