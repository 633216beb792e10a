"""Two valleys of equal depth and different curvature whose barrier grows along them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from statsgd.arguments import finite_array, positive
from statsgd.problems.problem import Problem


class TwoValleyLandscape(Problem):
    """L(x, y) with a flat valley at x > 0 and a sharp one at x < 0; params (x, y).

        L = L₀(y) + x(x − g₁)/f₁  (x ≥ 0),     L₀(y) + x(x + g₂)/f₂  (x < 0)
        g_i = 2x_i y/(y + y_b),   f_i = f₀ (x_i²/x₀²)(y + y_f)²/(y + y_b)²
        L₀ = L_d e^(−y/y_d) + x₀²/f₀

    The minima lie at x = g₁/2 and −g₂/2 with curvatures 2/f_i; γ = f₁/f₂ = (x₁/x₂)² > 1 for every
    y, and the barrier ΔL = (x₀²/f₀) y²/(y + y_f)² is the same from both sides and grows along y,
    down which training drifts for ever. The gradient and the Hessian jump on the ridge x = 0.

    **Arguments:** `flat_width` x₁ > `sharp_width` x₂ > 0; the scales x₀, f₀, y_f, y_b, y_d, L_d,
    all positive; `start` (x, y), or an array of starts taken in turn by key. Use it for y > 0.

    Source: Yang, Zhang, Ouyang, Tang, Tu, arXiv:2601.10962, with its published defaults.

    >>> import numpy as np
    >>> valleys = TwoValleyLandscape()
    >>> valleys.dimension, valleys.frozen(1.0).dimension
    (2, 1)
    """

    flat_width: Float[Any, ""]
    sharp_width: Float[Any, ""]
    width_scale: Float[Any, ""]
    softness: Float[Any, ""]
    softening_length: Float[Any, ""]
    branching_length: Float[Any, ""]
    descent_length: Float[Any, ""]
    descent_height: Float[Any, ""]
    start: Float[Any, "2"]

    def __init__(
        self,
        flat_width: Any = 0.8,
        sharp_width: Any = 0.65,
        width_scale: Any = 1.0,
        softness: Any = 1.0,
        softening_length: Any = 20.0,
        branching_length: Any = 30.0,
        descent_length: Any = 100.0,
        descent_height: Any = 1.0,
        start: Any = (0.01, 5.0),
    ):
        self.flat_width = positive("flat_width", flat_width)
        self.sharp_width = positive("sharp_width", sharp_width)
        if not np.all(self.flat_width > self.sharp_width):
            raise ValueError(
                f"flat_width must exceed sharp_width, got {flat_width!r} and {sharp_width!r}"
            )
        self.width_scale = positive("width_scale", width_scale)
        self.softness = positive("softness", softness)
        self.softening_length = positive("softening_length", softening_length)
        self.branching_length = positive("branching_length", branching_length)
        self.descent_length = positive("descent_length", descent_length)
        self.descent_height = positive("descent_height", descent_height)
        self.start = finite_array("start", start, ndim=1)
        if self.start.shape != (2,) or not self.start[1] > 0:
            raise ValueError(f"start must be (x, y) with y > 0, got {start!r}")

    def initial_params(self, key: PRNGKeyArray) -> Float[Any, "2"]:
        """`start` or its mirror image (−x, y), by the toss of a coin."""
        place = jnp.asarray(self.start, dtype=float)
        return place.at[0].multiply(jax.random.rademacher(key, (), place.dtype))

    def loss(self, params: Float[Any, "2"]) -> Float[Any, ""]:
        """L(x, y)."""
        x, y = params[0], params[1]
        return self.descent(y) + self.frozen_loss(x, y)

    def frozen_loss(self, x: Any, y: Any) -> Any:
        """L(x, y) − L₀(y)."""
        (g1, g2), (f1, f2) = self.widths(y), self.flatness(y)
        return jnp.where(x >= 0, x * (x - g1) / f1, x * (x + g2) / f2)

    def descent(self, y: Any) -> Any:
        """L₀(y)."""
        decay = self.descent_height * jnp.exp(-y / self.descent_length)
        return decay + self.width_scale**2 / self.softness

    def widths(self, y: Any) -> tuple[Any, Any]:
        """(g₁, g₂): twice the distance of each minimum from the ridge."""
        share = 2 * y / (y + self.branching_length)
        return self.flat_width * share, self.sharp_width * share

    def flatness(self, y: Any) -> tuple[Any, Any]:
        """(f₁, f₂) = 2/curvature of each valley."""
        share = ((y + self.softening_length) / (y + self.branching_length)) ** 2
        share = self.softness * share / self.width_scale**2
        return self.flat_width**2 * share, self.sharp_width**2 * share

    def barrier(self, y: Any) -> Any:
        """ΔL(y)."""
        return self.width_scale**2 / self.softness * (y / (y + self.softening_length)) ** 2

    @property
    def flatness_ratio(self) -> Any:
        """γ = f₁/f₂ = (x₁/x₂)²."""
        return (self.flat_width / self.sharp_width) ** 2

    def clipped_hessian(self, params: Float[Any, "2"]) -> Float[Any, "2 2"]:
        """H(x, y) with negative eigenvalues set to zero."""
        values, vectors = jnp.linalg.eigh(jax.hessian(self.loss)(params))
        return (vectors * jnp.clip(values, 0, None)) @ vectors.T

    def frozen(self, y: Any) -> "FrozenTwoValley":
        """The one-dimensional landscape across the valleys at fixed y."""
        return FrozenTwoValley(self, positive("y", y))


class FrozenTwoValley(Problem):
    """The two valleys at fixed y; params (x,). Made by `TwoValleyLandscape.frozen`."""

    landscape: TwoValleyLandscape
    along: Float[Any, ""]

    def initial_params(self, key: PRNGKeyArray) -> Float[Any, "1"]:
        """The bottom of either valley, by the toss of a coin."""
        g1, g2 = self.landscape.widths(self.along)
        side = jnp.where(jax.random.bernoulli(key), g1 / 2, -g2 / 2)
        return jnp.asarray([side], dtype=float)

    def loss(self, params: Float[Any, "1"]) -> Float[Any, ""]:
        """L(x, y) − L₀(y)."""
        return self.landscape.frozen_loss(params[0], self.along)
