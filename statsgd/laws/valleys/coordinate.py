"""The coordinate along a valley: where it runs, and a uniform grid that integrates over it."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from statsgd.arguments import is_traced, positive, real

_KNOTS = 8192


class ValleyCoordinate(eqx.Module):
    """A ring (−π, π], an interval, or a line, with x = x(v) so that trapezoids in v converge fast.

    On the line x = `scale`·sinh v, on an interval x runs through tanh v, on the ring x = v.
    """

    shape: str = eqx.field(static=True)
    low: Float[Any, ""]
    high: Float[Any, ""]

    @classmethod
    def of(cls, support: Any, scale: Any = 1.0) -> "ValleyCoordinate":
        """From `"ring"`, `"line"` (of the length scale given) or a pair (low, high)."""
        if isinstance(support, str):
            if support not in ("ring", "line"):
                raise ValueError(
                    f"support must be 'ring', 'line' or a pair (low, high), got {support!r}"
                )
            length = np.float64(np.pi) if support == "ring" else positive("scale", scale)
            return cls(support, -length, length)
        if len(support) != 2:
            raise ValueError(
                f"support must be 'ring', 'line' or a pair (low, high), got {support!r}"
            )
        low, high = (real("support", end, allowed="finite", valid=np.isfinite) for end in support)
        if not is_traced(low, high) and not low < high:
            raise ValueError(f"support must have low < high, got ({low}, {high})")
        return cls("interval", low, high)

    @property
    def bounded(self) -> bool:
        """Whether x stays finite."""
        return self.shape != "line"

    @property
    def knots(self) -> Float[Any, " n"]:
        """The grid in v."""
        if self.shape == "ring":
            return np.linspace(-np.pi, np.pi, _KNOTS + 1)
        reach = 18.0 if self.shape == "interval" else 30.0
        return np.linspace(-reach, reach, _KNOTS + 1)

    def place(self, v: Any, xp: Any = jnp) -> Any:
        """x(v)."""
        if self.shape == "ring":
            return v
        if self.shape == "line":
            return self.high * xp.sinh(v)
        return (self.low + self.high) / 2 + (self.high - self.low) / 2 * xp.tanh(v)

    def log_stretch(self, v: Any) -> Any:
        """log dx/dv."""
        if self.shape == "ring":
            return 0 * v
        log_cosh = jnp.abs(v) + jnp.log1p(jnp.exp(-2 * jnp.abs(v))) - np.log(2)
        if self.shape == "line":
            return jnp.log(self.high) + log_cosh
        return jnp.log((self.high - self.low) / 2) - 2 * log_cosh

    def parameter(self, x: Any) -> Any:
        """v(x)."""
        if self.shape == "ring":
            return x
        if self.shape == "line":
            return jnp.arcsinh(x / self.high)
        inside = (2 * x - self.low - self.high) / (self.high - self.low)
        return jnp.arctanh(jnp.clip(inside, -1, 1))


class RingCurvature(eqx.Module):
    """h(x) = h₀ e^(a cos x)."""

    base: Float[Any, ""]
    modulation: Float[Any, ""]

    def __call__(self, x: Float[Any, ""]) -> Float[Any, ""]:
        """h(x)."""
        return self.base * jnp.exp(self.modulation * jnp.cos(x))


class LineCurvature(eqx.Module):
    """h(x) = h₀(1 + x²/l²)."""

    base: Float[Any, ""]
    length: Float[Any, ""]

    def __call__(self, x: Float[Any, ""]) -> Float[Any, ""]:
        """h(x)."""
        return self.base * (1 + (x / self.length) ** 2)


class CosineFloor(eqx.Module):
    """L₀(x) = b(1 − cos x)."""

    height: Float[Any, ""]

    def __call__(self, x: Float[Any, ""]) -> Float[Any, ""]:
        """L₀(x)."""
        return self.height * (1 - jnp.cos(x))


class FlatFloor(eqx.Module):
    """L₀ = 0: a degenerate valley."""

    def __call__(self, x: Float[Any, ""]) -> Float[Any, ""]:
        """L₀(x)."""
        return 0.0 * x


class Constant(eqx.Module):
    """The same diffusion everywhere."""

    value: Float[Any, "..."]

    def __call__(self, x: Float[Any, ""]) -> Float[Any, "..."]:
        """The constant."""
        return self.value + 0.0 * x
