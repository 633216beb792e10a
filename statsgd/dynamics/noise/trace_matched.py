"""Gaussian surrogates of a gradient noise: another shape, the same trace."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Float, PyTree

from statsgd.arguments import count, is_traced, one_of, positive
from statsgd.dynamics.noise.gradient_noise import GradientNoise, register
from statsgd.dynamics.noise.injected import GaussianNoise, hessian_spectrum
from statsgd.problems import Problem

SHAPES = ("isotropic", "diagonal", "leading", "hessian", "top")


@register
class TraceMatched(GaussianNoise):
    """Gaussian noise with the trace of a reference noise at every θ, and a shape of its own.

    With C the covariance of `reference` at θ, (sᵢ, vᵢ) its eigenpairs and (λᵢ, uᵢ) those of ∇²L
    there, in decreasing order, the covariance is

        isotropic    (Tr C/d) I
        diagonal     diag(C)
        leading      Tr C · Σ_{i≤r} sᵢ vᵢvᵢᵀ / Σ_{i≤r} sᵢ
        hessian      Tr C · Σ_{i≤r} λᵢ⁺ uᵢuᵢᵀ / Σ_{i≤r} λᵢ⁺        (negative λ count as zero)
        top          Tr C · u₁u₁ᵀ

    No stationary law is known for these but for constant isotropic noise: the law is not
    exp(−L/τ) in general. Where the largest λ is repeated, `top` takes the eigenvector that LAPACK
    lists last. Forms d × d matrices at every draw.

    **Arguments:** `reference`, a gradient noise; `shape`, one of the above; `rank` r, by default
    20 or d if that is less; `trace`, a fixed trace > 0 in place of Tr C, (loss/params)².

    `hessian` and `top` are undefined where no eigenvalue of ∇²L is positive, and every shape where
    Tr C = 0: `covariance` and `draw` raise `ValueError` there, and return NaN under tracing, so
    that a replica of `simulate` counts as diverged.

    Source: Zhu, Wu, Yu, Wu, Ma (2019), arXiv:1803.00195; clipping is derived.

    >>> import numpy as np
    >>> from statsgd import noise, problems
    >>> matched = TraceMatched(noise.Anisotropic(np.diag([3.0, 1.0])))
    >>> np.diag(matched.covariance(problems.quadratic(np.eye(2)), np.zeros(2))).round(3)
    array([2., 2.], dtype=float32)
    """

    reference: GradientNoise
    shape: str = eqx.field(static=True)
    rank: int | None = eqx.field(static=True)
    trace: Float[Any, ""] | None

    def __init__(
        self,
        reference: GradientNoise,
        shape: str = "isotropic",
        rank: int | None = None,
        trace: Any = None,
    ):
        if not isinstance(reference, GradientNoise):
            raise ValueError(f"reference must be one of statsgd.noise, got {reference!r}")
        self.reference = reference
        self.shape = one_of("shape", shape, SHAPES)
        self.rank = None if rank is None else count("rank", rank)
        self.trace = None if trace is None else positive("trace", trace)

    def check(self, problem: Problem) -> None:
        """Raise `ValueError` unless the reference fits and the rank is at most d."""
        self.reference.check(problem)
        self.reference.require_variance()
        if self.rank is not None and self.rank > problem.dimension:
            raise ValueError(
                f"rank must be at most the number of parameters, {problem.dimension}, got "
                f"{self.rank}"
            )

    def covariance(self, problem: Problem, params: PyTree) -> Float[Any, "d d"]:
        """The matched covariance at `params`."""
        root = self.root(problem, params)
        return root @ root.T

    def root(self, problem: Problem, params: PyTree) -> Float[Any, "d r"]:
        """A root of it, one column for each eigenvector kept."""
        reference = self.reference.covariance(problem, params)
        trace = jnp.trace(reference) if self.trace is None else jnp.asarray(self.trace)
        if not is_traced(trace) and not trace > 0:
            raise ValueError(f"reference noise must have a positive trace, got {float(trace):.3g}")
        if self.shape in ("isotropic", "diagonal"):
            weights = jnp.diag(reference)
            if self.shape == "isotropic":
                weights = jnp.ones_like(weights)
            vectors = jnp.eye(problem.dimension, dtype=weights.dtype)
        else:
            weights, vectors = self._leading(problem, params, reference)
        weights = jnp.clip(weights, 0, None)
        return vectors * jnp.sqrt(trace * weights / jnp.sum(weights))

    def _leading(self, problem: Problem, params: PyTree, reference: Float[Any, "d d"]):
        if self.shape == "leading":
            values, vectors = jnp.linalg.eigh(reference)
        else:
            values, vectors = hessian_spectrum(problem, params)
            if not is_traced(values) and not values[-1] > 0:
                raise ValueError(
                    "hessian noise undefined: largest Hessian eigenvalue "
                    f"{float(values[-1]):.3g} <= 0"
                )
        kept = 1 if self.shape == "top" else self.rank or min(20, problem.dimension)
        return values[-kept:], vectors[:, -kept:]
