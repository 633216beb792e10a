"""The Gibbs law of a pair of factors: what isotropic noise does along a rescaling orbit."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from jaxtyping import Float
from scipy.integrate import quad
from scipy.special import k0e, k1e

from statsgd.arguments import is_traced, non_negative, positive, real
from statsgd.laws.bases.potential import PotentialLaw
from statsgd.laws.law import ImproperLawError, register, require_accurate


@register
class RescalingGibbs(PotentialLaw):
    """Gibbs law exp(−[(uw − y)² + (λ/2)(u² + w²)]/τ) of a rescaling-symmetric loss.

    Isotropic noise of temperature τ keeps pushing the charge q = u² − w² apart, where the noise of
    SGD removes it: without decay E q² grows at the rate 8τ E(u² + w²) for ever and the Gibbs law
    is improper, ∫du/|u| along the orbit. With λ > 0 the slope f = uw has

        p(f) ∝ K₀(λ|f|/τ) exp(−(f − y)²/τ),   E[q² | f] = 4f² K₁(x)/(x K₀(x)),  x = λ|f|/τ

    **Arguments:** `target` y, `temperature` τ > 0, `weight_decay` λ. `params` is (u, w).

    Source: Ziyin, Li, Ueda (2023), arXiv:2308.06671, for the contrast; the formulas are derived.

    >>> law = RescalingGibbs(target=1.0, temperature=0.1, weight_decay=0.1)
    >>> bool(law.potential(np.ones(2)) < law.potential(np.zeros(2)))
    True
    """

    setting: ClassVar[str] = "Langevin dynamics of (uw − y)² with weight decay"
    exactness: ClassVar[str] = "exact for Langevin dynamics in continuous time; not a law of SGD"
    citation: ClassVar[str] = "Ziyin, Li, Ueda (2023), arXiv:2308.06671"

    target: Float[Any, ""]
    temperature: Float[Any, ""]
    weight_decay: Float[Any, ""]
    log_partition: Float[Any, ""]

    def __init__(self, target: Any, temperature: Any, weight_decay: Any):
        self.target = real("target", target, allowed="a finite number", valid=lambda x: x == x)
        self.temperature = positive("temperature", temperature)
        self.weight_decay = non_negative("weight_decay", weight_decay)
        log_partition: Any = np.float64(np.nan)
        if not is_traced(target, temperature, weight_decay) and weight_decay > 0:
            log_partition = np.log(2 * self._integral(lambda f: 1.0)[0])
        self.log_partition = log_partition

    @classmethod
    def examples(cls) -> Iterable[Self]:
        """A valley with two branches, and one without."""
        yield cls(1.0, 0.05, 0.2)
        yield cls(0.0, 0.5, 1.0)

    @classmethod
    def improper_examples(cls) -> Sequence[Self]:
        """No decay."""
        return (cls(1.0, 0.05, 0.0),)

    @property
    def dimension(self) -> int:
        """Two."""
        return 2

    @property
    def normalized(self) -> bool:
        """Yes."""
        return True

    def require_proper(self) -> None:
        """Raise `ImproperLawError` without weight decay."""
        if float(self.weight_decay) == 0:
            raise ImproperLawError(
                "weight_decay = 0 must be positive: Gibbs law improper along the rescaling orbit; "
                "set weight_decay > 0 or use DiagonalNetworkLaw"
            )

    def potential(self, params: Float[Any, " 2"]) -> Float[Any, ""]:
        """[(uw − y)² + (λ/2)(u² + w²)]/τ."""
        u, w = params
        square = (u * w - self.target) ** 2 + self.weight_decay / 2 * (u**2 + w**2)
        return square / self.temperature

    def _log_normalizer(self) -> Float[Any, ""]:
        return self.log_partition

    def _mean(self, variable: str) -> Float[Any, " 2"]:
        # (u, w) and (−u, −w) weigh the same.
        return np.zeros(2)

    def _covariance(self, variable: str, other: str) -> Float[Any, "2 2"]:
        """E u² = E w² = E |f| K₁(x)/K₀(x) on the diagonal, E f beside it."""
        square = self.slope_expectation(lambda f: np.abs(f) * self._bessel_ratio(f))
        product = self.slope_expectation(lambda f: f)
        return np.array([[square, product], [product, square]])

    def slope_expectation(self, function: Callable[[float], float]) -> float:
        """E function(f), f = uw.

        Warns with `UnresolvedWarning` where quadrature is off by more than 10⁻³, and raises
        `IntractableError` above a tenth, of the mean of |function|.
        """
        self.ensure_proper()
        total, error = self._integral(function)
        size = self._integral(lambda f: abs(function(f)))[0]
        normalizer, off = self._integral(lambda f: 1.0)
        if size > 0:
            require_accurate("expectation over slopes", error / size + off / normalizer)
        return total / normalizer

    def charge_variance(self) -> float:
        """E q², q = u² − w²."""
        ratio = float(self.temperature / self.weight_decay)
        return self.slope_expectation(lambda f: 4 * ratio * np.abs(f) * self._bessel_ratio(f))

    def _bessel_ratio(self, slope: float) -> float:
        x = float(self.weight_decay) * abs(slope) / float(self.temperature)
        return k1e(x) / k0e(x)

    def _integral(self, function: Callable[[float], float]) -> tuple[float, float]:
        """∫ function(f) K₀(λ|f|/τ) exp(−(f − y)²/τ) df, and the error of quadrature."""
        y, tau = float(self.target), float(self.temperature)
        rate = float(self.weight_decay) / tau

        def integrand(f: float) -> float:
            # k0e holds the exponential back: K₀ underflows where the product does not.
            exponent = -((f - y) ** 2) / tau - rate * abs(f)
            return function(f) * k0e(rate * abs(f)) * np.exp(exponent)

        width = np.sqrt(tau)
        points = sorted({0.0, *(y + width * k for k in (-14, -4, 0, 4, 14))})
        # The ends of pieces include 0, where K₀ has a logarithm.
        # Its warning is replaced by the error.
        options = {"epsabs": 1e-300, "epsrel": 1e-11, "limit": 200, "full_output": 1}
        pieces = [quad(integrand, a, b, **options)[:2] for a, b in itertools.pairwise(points)]
        return sum(value for value, _ in pieces), sum(error for _, error in pieces)


def langevin_charge_growth(initial_charge: Any, temperature: Any, square_integral: Any) -> Any:
    """E q² of Langevin dynamics without decay, q₀² + 8τ ∫E(u² + w²)dt: it never stops growing.

    >>> round(float(langevin_charge_growth(3.0, temperature=0.1, square_integral=10.0)), 4)
    17.0
    """
    return initial_charge**2 + 8 * positive("temperature", temperature) * square_integral
