"""Stationary law of the slope of an infinitely deep diagonal linear network."""

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Self

import jax.numpy as jnp
from jaxtyping import Float

from statsgd.arguments import positive
from statsgd.dynamics.sgd import SGD
from statsgd.laws.bases.line import LineTable
from statsgd.laws.bases.slope import SlopeLaw
from statsgd.laws.domain import SmallNumber
from statsgd.laws.law import ImproperLawError, register
from statsgd.laws.networks.data_moments import DataMoments, log_noise, noise_scale
from statsgd.laws.networks.growth import FactorShrinkage, LogSlopeSteps
from statsgd.problems import DiagonalLinearNetwork, Problem


@register
class InfiniteDepthNetworkLaw(SlopeLaw):
    """Limit of `DiagonalNetworkLaw` for depth D and width M to infinity at fixed M/D.

    With ω = M/(D T) the only combination of width, depth and noise that is left,

        p(f) ∝ f^(−3−k) g^(−1+k/2) exp(−ω [b2/(a3 f) + (K/(a3²√Δ)) arctan((a1 f − a2)/√Δ)])
        k = ω (a3b1 − 2a2b2)/a3²,   K = a2a3b1 − 2a2²b2 + a1a3b2,   f > 0

    with tail f^(−5). Proper at every noise scale. D counts hidden layers. 1/D ≤ 0.01 and, at
    f* = b2/b1 with A = D f²/M, ηAb1 ≤ 0.02 and a relative variance TAg/(b1f²) ≤ 0.02 keep total
    variation from the chain below 5 % (measured at M = D, for inputs of two sizes and Gaussian
    ones).

    **Arguments:** `moments` with a1 > 0; `width_per_depth` M/D; `noise_scale` T. `params` `(1,)`
    holds f.

    Source: Ziyin, Li, Ueda (2023), arXiv:2308.06671.

    >>> from statsgd.laws.networks import DataMoments
    >>> moments = DataMoments.teacher(b1=1.0, a1=2.0, teacher_slope=1.0, label_std=0.5)
    >>> law = InfiniteDepthNetworkLaw(moments, width_per_depth=1.0, noise_scale=0.1)
    >>> round(float(law.mean()[0]), 2)
    0.97
    """

    setting: ClassVar[str] = "SGD on y ~ f x, diagonal network of infinite depth and width"
    exactness: ClassVar[str] = (
        "limit of the law at finite depth; for the chain within 5 % where 1/D ≤ 0.01, "
        "ηA(f*)b1 ≤ 0.02 and relative variances of f ≤ 0.02"
    )
    citation: ClassVar[str] = "Ziyin, Li, Ueda (2023), arXiv:2308.06671"

    moments: DataMoments
    width_per_depth: Float[Any, ""]
    noise_scale: Float[Any, ""]
    table: LineTable

    def __init__(self, moments: DataMoments, width_per_depth: Any, noise_scale: Any):
        if not isinstance(moments, DataMoments) or moments.pure_label_noise:
            raise ValueError(f"moments must be DataMoments with a1 > 0, got {moments!r}")
        self.moments = moments
        self.width_per_depth = positive("width_per_depth", width_per_depth)
        self.noise_scale = positive("noise_scale", noise_scale)
        self.correction = None
        self.table = self.tabulated()

    @classmethod
    def from_sgd(cls, problem: Problem, sgd: SGD, *, discrete_correction: bool = False) -> Self:
        """The law for i.i.d. minibatch `sgd` on a deep `diagonal_linear_network` problem.

        The **discrete correction** is that of `DiagonalNetworkLaw`, and of the depth too. Raises
        `ValueError` for other problems and noise, one layer, and inputs ±x.
        """
        if not isinstance(problem, DiagonalLinearNetwork) or problem.num_layers < 2:
            raise ValueError(
                f"the law speaks about diagonal_linear_network with num_layers of at least 2, got "
                f"{problem!r}"
            )
        moments = DataMoments.of_data(problem.inputs, problem.targets, problem.loss_factor)
        width_per_depth = problem.width / (problem.num_layers - 1)
        law = cls(moments, width_per_depth, noise_scale(problem, sgd))
        if not discrete_correction:
            return law
        return law.corrected(LogSlopeSteps(FactorShrinkage.of(problem, sgd)))

    def small_numbers(self, problem: Any, sgd: SGD) -> Sequence[SmallNumber]:
        """One over the depth, ηA(f*)b1 and the relative variance of f, as A(f) = D f²/M."""
        m = self.moments
        rate = float(sgd.learning_rate) / (1 - float(sgd.momentum))
        kernel = float(m.best_slope**2 / self.width_per_depth)
        spread = float(self.noise_scale * m.noise(m.best_slope) / (m.b1 * self.width_per_depth))
        largest = 0.02 if self.correction is None else 0.03
        return (
            SmallNumber("1 ÷ D", 1 / (problem.num_layers - 1), 0.01),
            SmallNumber("ηA(f*)b₁", rate * kernel * float(m.b1), largest),
            SmallNumber("TA(f*)g(f*) ÷ b₁f*²", spread, largest),
        )

    @classmethod
    def examples(cls) -> Iterable[Self]:
        """Standard normal inputs at two noise scales."""
        moments = DataMoments.teacher(1, 2, 1, 1)
        yield cls(moments, 0.5, 0.1)
        yield cls(moments, 1.0, 2.0)

    @classmethod
    def improper_examples(cls) -> Sequence[Self]:
        """A negative correlation, and targets that are interpolated."""
        return (
            cls(DataMoments.teacher(1, 2, -1, 1), 0.5, 0.1),
            cls(DataMoments.teacher(1, 2, 1, 0), 0.5, 0.1),
        )

    def require_proper(self) -> None:
        """Raise `ImproperLawError` unless b2 > 0 and Δ > 0."""
        if float(self.moments.b2) <= 0:
            raise ImproperLawError(
                f"b2 = E xy = {float(self.moments.b2):.6g} must be positive: flip the sign of y "
                "first (DataMoments.mirrored)"
            )
        if self.moments.delta <= 1e-12 * self.moments.a1 * self.moments.a3:
            raise ImproperLawError(
                f"Delta = a1*a3 - a2**2 = {float(self.moments.delta):.6g} must be positive: the "
                "targets are interpolated"
            )

    def supports(self, slope: Any) -> Any:
        """f > 0."""
        return slope > 0

    def slope_at(self, coordinate: Any) -> Any:
        """f = exp s."""
        return jnp.exp(coordinate)

    def coordinate_of(self, slope: Any) -> Any:
        """s = ln f."""
        return jnp.log(slope)

    def log_jacobian(self, coordinate: Any) -> Any:
        """ln df/ds = s."""
        return coordinate

    def log_mass(self, coordinate: Any) -> Any:
        """ln p + s, up to a constant."""
        m = self.moments
        omega = self.width_per_depth / self.noise_scale
        k = omega * (m.a3 * m.b1 - 2 * m.a2 * m.b2) / m.a3**2
        weight = m.a2 * m.a3 * m.b1 - 2 * m.a2**2 * m.b2 + m.a1 * m.a3 * m.b2
        root = jnp.sqrt(m.delta)
        angle = jnp.arctan((m.a1 * jnp.exp(coordinate) - m.a2) / root)
        drift = m.b2 / m.a3 * jnp.exp(-coordinate) + weight / (m.a3**2 * root) * angle
        return (-2 - k) * coordinate + (k / 2 - 1) * log_noise(m, coordinate) - omega * drift

    def reach(self) -> tuple[Any, Any, Any]:
        """About the best slope b2/b1."""
        return jnp.log(self.moments.b2 / self.moments.b1), 100.0, 100.0
