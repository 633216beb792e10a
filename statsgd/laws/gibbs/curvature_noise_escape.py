"""Escape from a well when the gradient noise is proportional to the curvature."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree

from statsgd.arguments import kinds_checked, one_of, positive, real
from statsgd.laws.gibbs.escape import barrier
from statsgd.problems import Problem


def curvature_noise_scale(learning_rate: Any, noise_strength: Any, batch_size: Any) -> float:
    """q̂ = ηκ/(2S), so that D = q̂[H]⁺ when C = κ[H]⁺/S.

    κ ≈ 1 for a well-specified negative log-likelihood in nats, and twice the loss at the minimum
    for mean-squared error.

    >>> curvature_noise_scale(learning_rate=0.1, noise_strength=1.0, batch_size=4)
    0.0125
    """
    product = positive("learning_rate", learning_rate) * positive("noise_strength", noise_strength)
    return float(product / (2 * positive("batch_size", batch_size)))


@kinds_checked
def curvature_noise_escape_time(
    problem: Problem,
    minimum: PyTree,
    saddle: PyTree,
    noise_scale: Any,
    *,
    switch: Any = 0.5,
    prefactor: str = "ito",
) -> float:
    """Mean time of SGD from one well to the next when C = κ[H]⁺/S: D = q̂[H]⁺, q̂ = ηκ/(2S).

        T = (2π/h) exp[ (ΔL/q̂)( s/H_ae + (1−s)/|H_be| ) ]          in t = ηk: steps = T/η

    a is the minimum, b the saddle, e the escape direction (the negative eigenvector at b), and L
    reaches L(a) + sΔL where the curvature noise switches from that of a to that of b. log T is
    linear in S, in 1/η and in the inverse of the curvature: flat minima win exponentially, where
    white noise prefers them by a power only. To a point well beyond the saddle; the mean first
    passage to the saddle is T/2.

    **Arguments:** `noise_scale` q̂ (`curvature_noise_scale`); `switch` s in (0, 1); `prefactor`
    `"ito"`, h = H_ae, the limit of SGD with D piecewise constant, or `"fick"`, h = |H_be|, as
    published. Slopes are the same. Raises `ValueError` as `barrier`.

    Source: Xie, Sato, Sugiyama (2021), arXiv:2002.03495; the Itô prefactor is derived.

    >>> from statsgd.problems import quartic_wells
    >>> round(curvature_noise_escape_time(quartic_wells(), [-1.0], [0.0], noise_scale=0.02))
    37039
    """
    one_of("prefactor", prefactor, ("ito", "fick"))
    path = barrier(problem, minimum, saddle)
    scale = float(positive("noise_scale", noise_scale))
    s = real("switch", switch, allowed="in (0, 1)", valid=lambda x: (x > 0) & (x < 1))
    along = float(path.direction @ path.minimum @ path.direction)
    exponent = path.height / scale * (s / along + (1 - s) / path.unstable)
    rate = along if prefactor == "ito" else path.unstable
    return float(2 * np.pi / rate * np.exp(exponent))


class PiecewiseDiffusion(eqx.Module):
    """D of curvature noise near one minimum and one saddle, d = 1: constant on either side of c.

    A diffusion for `mean_first_passage_1d`, with `breaks=(switch,)`. Taken literally, D = q̂|H(θ)|
    vanishes at the inflection and cannot be passed.

    **Arguments:** `left`, `right`, values of D; `switch` c.

    >>> import numpy as np
    >>> diffusion = PiecewiseDiffusion(left=0.25, right=0.5, switch=0.0)
    >>> float(diffusion(np.array([-1.0]))), float(diffusion(np.array([1.0])))
    (0.25, 0.5)
    """

    left: Float[Any, ""]
    right: Float[Any, ""]
    switch: Float[Any, ""]

    def __init__(self, left: Any, right: Any, switch: Any):
        self.left = positive("left", left)
        self.right = positive("right", right)
        self.switch = real("switch", switch, allowed="finite", valid=np.isfinite)

    def __call__(self, params: Float[Any, " 1"]) -> Float[Any, ""]:
        """D at `params`."""
        return jnp.where(params[0] < self.switch, self.left, self.right)
