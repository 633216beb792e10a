"""Stationary law of the slope of an infinitely deep diagonal linear network."""

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from statsgd.arguments import is_traced, positive
from statsgd.laws.bases.slope import SlopeLaw, Table
from statsgd.laws.law import ImproperLawError, register
from statsgd.laws.networks.data_moments import DataMoments, log_noise


@register
class InfiniteDepthNetworkLaw(SlopeLaw):
    """Limit of `DiagonalNetworkLaw` for depth D and width M to infinity at fixed M/D.

    With ω = M/(D T) the only combination of width, depth and noise that is left,

        p(f) ∝ f^(−3−k) g^(−1+k/2) exp(−ω [b2/(a3 f) + (K/(a3²√Δ)) arctan((a1 f − a2)/√Δ)])
        k = ω (a3b1 − 2a2b2)/a3²,   K = a2a3b1 − 2a2²b2 + a1a3b2,   f > 0

    with tail f^(−5). Proper at every noise scale. D counts hidden layers.

    **Arguments:** `moments` with a1 > 0; `width_per_depth` M/D; `noise_scale` T. `params` `(1,)`
    holds f.

    Source: Ziyin, Li, Ueda (2023), arXiv:2308.06671.
    """

    setting: ClassVar[str] = "SGD on y ~ f x, diagonal network of infinite depth and width"
    exactness: ClassVar[str] = "limit of the law at finite depth; relative error O(1/depth)"
    citation: ClassVar[str] = "Ziyin, Li, Ueda (2023), arXiv:2308.06671"

    moments: DataMoments
    width_per_depth: Float[Any, ""]
    noise_scale: Float[Any, ""]
    table: Table

    def __init__(self, moments: DataMoments, width_per_depth: Any, noise_scale: Any):
        if not isinstance(moments, DataMoments) or moments.pure_label_noise:
            raise ValueError(f"moments must be DataMoments with a1 > 0, got {moments!r}")
        self.moments = moments
        self.width_per_depth = positive("width_per_depth", width_per_depth)
        self.noise_scale = positive("noise_scale", noise_scale)
        xp = jnp if self._traced(0.0) else np
        self.table = self.tabulated(xp.log(xp.abs(moments.b2) / moments.b1 + 1e-300))

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """Standard normal inputs at two noise scales."""
        moments = DataMoments.teacher(1, 2, 1, 1)
        return cls(moments, 0.5, 0.1), cls(moments, 1.0, 2.0)

    @classmethod
    def improper_examples(cls) -> Sequence[Self]:
        """A negative correlation, and targets that are interpolated."""
        return (
            cls(DataMoments.teacher(1, 2, -1, 1), 0.5, 0.1),
            cls(DataMoments.teacher(1, 2, 1, 0), 0.5, 0.1),
        )

    def require_proper(self) -> None:
        """Raise `ImproperLawError` unless b2 > 0 and Δ > 0."""
        if self._traced(0.0):
            return
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
        return (jnp if self._traced(coordinate) else np).exp(coordinate)

    def coordinate_of(self, slope: Any) -> Any:
        """s = ln f."""
        return (jnp if self._traced(slope) else np).log(slope)

    def log_jacobian(self, coordinate: Any) -> Any:
        """ln df/ds = s."""
        return coordinate

    def log_mass(self, coordinate: Any) -> Any:
        """ln p + s, up to a constant."""
        xp = jnp if self._traced(coordinate) else np
        m = self.moments
        omega = self.width_per_depth / self.noise_scale
        k = omega * (m.a3 * m.b1 - 2 * m.a2 * m.b2) / m.a3**2
        weight = m.a2 * m.a3 * m.b1 - 2 * m.a2**2 * m.b2 + m.a1 * m.a3 * m.b2
        root = xp.sqrt(m.delta)
        angle = xp.arctan((m.a1 * xp.exp(coordinate) - m.a2) / root)
        drift = m.b2 / m.a3 * xp.exp(-coordinate) + weight / (m.a3**2 * root) * angle
        return (-2 - k) * coordinate + (k / 2 - 1) * log_noise(m, coordinate) - omega * drift

    def _traced(self, value: Any) -> bool:
        return is_traced(value, self.moments, self.width_per_depth, self.noise_scale)
