"""The Gibbs law of a pair of factors: what isotropic noise does along a rescaling orbit."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from jaxtyping import Float
from scipy.integrate import quad
from scipy.special import k0e, k1e

from statsgd.arguments import is_traced, non_negative, positive, real
from statsgd.laws.bases.potential import PotentialLaw
from statsgd.laws.law import ImproperLawError, register


@register
class RescalingGibbs(PotentialLaw):
    """Gibbs law exp(−[(uw − y)² + (λ/2)(u² + w²)]/τ) of a rescaling-symmetric loss.

    Isotropic noise of temperature τ keeps pushing the charge q = u² − w² apart, where the noise of
    SGD removes it: without decay E q² grows at the rate 8τ E(u² + w²) for ever and the Gibbs law
    is improper, ∫du/|u| along the orbit. With λ > 0 the slope f = uw has

        p(f) ∝ K₀(λ|f|/τ) exp(−(f − y)²/τ),   E[q² | f] = 4f² K₁(x)/(x K₀(x)),  x = λ|f|/τ

    **Arguments:** `target` y, `temperature` τ > 0, `weight_decay` λ. `params` is (u, w).

    Source: Ziyin, Li, Ueda (2023), arXiv:2308.06671, for the contrast; the formulas are derived.
    """

    setting: ClassVar[str] = "Langevin dynamics of (uw − y)² with weight decay"
    exactness: ClassVar[str] = "exact for Langevin dynamics in continuous time; not a law of SGD"
    citation: ClassVar[str] = "Ziyin, Li, Ueda (2023), arXiv:2308.06671"
    normalized: ClassVar[bool] = True

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
            log_partition = np.log(2 * self._integral(lambda f: 1.0))
        self.log_partition = log_partition

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """A valley with two branches, and one without."""
        return cls(1.0, 0.05, 0.2), cls(0.0, 0.5, 1.0)

    @classmethod
    def improper_examples(cls) -> Sequence[Self]:
        """No decay."""
        return (cls(1.0, 0.05, 0.0),)

    @property
    def dimension(self) -> int:
        """Two."""
        return 2

    def require_proper(self) -> None:
        """Raise `ImproperLawError` without weight decay."""
        if not is_traced(self.weight_decay) and float(self.weight_decay) == 0:
            raise ImproperLawError(
                "weight_decay = 0 must be positive: Gibbs law improper along the rescaling orbit; "
                "set weight_decay > 0 or use DiagonalNetworkLaw"
            )

    def potential(self, params: Float[Any, "... 2"]) -> Float[Any, "..."]:
        """[(uw − y)² + (λ/2)(u² + w²)]/τ."""
        u, w = params[..., 0], params[..., 1]
        square = (u * w - self.target) ** 2 + self.weight_decay / 2 * (u**2 + w**2)
        return square / self.temperature

    def log_normalizer(self) -> Float[Any, ""]:
        """log Z."""
        return self.log_partition

    def mean(self) -> Float[Any, " 2"]:
        """Zero: (u, w) and (−u, −w) weigh the same."""
        self.require_proper()
        return np.zeros(2)

    def covariance(self) -> Float[Any, "2 2"]:
        """E u² = E w² = E |f| K₁(x)/K₀(x) on the diagonal, E f beside it."""
        square = self.slope_expectation(lambda f: np.abs(f) * self._bessel_ratio(f))
        product = self.slope_expectation(lambda f: f)
        return np.array([[square, product], [product, square]])

    def slope_expectation(self, function: Callable[[float], float]) -> float:
        """E function(f), f = uw."""
        self.require_proper()
        return self._integral(function) / self._integral(lambda f: 1.0)

    def charge_variance(self) -> float:
        """E q², q = u² − w²."""
        ratio = float(self.temperature / self.weight_decay)
        return self.slope_expectation(lambda f: 4 * ratio * np.abs(f) * self._bessel_ratio(f))

    def _bessel_ratio(self, slope: float) -> float:
        x = float(self.weight_decay) * abs(slope) / float(self.temperature)
        return k1e(x) / k0e(x)

    def _integral(self, function: Callable[[float], float]) -> float:
        """∫ function(f) K₀(λ|f|/τ) exp(−(f − y)²/τ) df."""
        y, tau = float(self.target), float(self.temperature)
        rate = float(self.weight_decay) / tau

        def integrand(f: float) -> float:
            # k0e holds the exponential back: K₀ underflows where the product does not.
            exponent = -((f - y) ** 2) / tau - rate * abs(f)
            return function(f) * k0e(rate * abs(f)) * np.exp(exponent)

        width = np.sqrt(tau)
        points = sorted({0.0, *(y + width * k for k in (-14, -4, 0, 4, 14))})
        # The ends of pieces include 0, where K₀ has a logarithm.
        options = {"epsabs": 1e-300, "epsrel": 1e-11, "limit": 200}
        return sum(
            float(quad(integrand, a, b, **options)[0]) for a, b in itertools.pairwise(points)
        )


def langevin_charge_growth(initial_charge: Any, temperature: Any, square_integral: Any) -> Any:
    """E q² of Langevin dynamics without decay, q₀² + 8τ ∫E(u² + w²)dt: it never stops growing."""
    return initial_charge**2 + 8 * positive("temperature", temperature) * square_integral
