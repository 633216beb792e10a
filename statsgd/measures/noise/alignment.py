"""Alignment of gradient noise with curvature: what makes it leave sharp minima, or not."""

import warnings
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, PyTree

from statsgd.arguments import finite_array, positive, symmetric
from statsgd.dynamics.noise.minibatch import all_examples
from statsgd.precision import in_double_precision
from statsgd.problems import EmpiricalRisk
from statsgd.problems.parameters import floating

_DEGENERATE = 1e-9  # relative distance at which eigenvalues count as one


class AlignmentWarning(UserWarning):
    """A bound is read outside its assumptions."""


def isotropic_ratio(hessian: Any, noise_covariance: Any) -> float:
    """Tr(HC) over its value for isotropic noise of the same trace, Tr H Tr C/d.

    Above 1 the noise climbs out of a minimum faster than isotropic noise does, at short times.
    At most d h_max/Tr H. Raises `ValueError` unless both traces are positive.

    Source: Zhu et al. (2019), arXiv:1803.00195.
    """
    h, c = _pair(hessian, noise_covariance)
    return float(np.trace(h @ c) * len(h) / (np.trace(h) * np.trace(c)))


def alignment_coefficient(hessian: Any, noise_covariance: Any) -> float:
    """â = u₁ᵀCu₁ Tr H/(h₁ Tr C): the noise along the sharpest direction, 1 for C ∝ H.

    A repeated largest eigenvalue counts with the mean over its eigenspace. â > 0 alone does not
    make noise better than isotropic: see `isotropic_ratio`. Raises `ValueError` unless Tr H, h₁
    and Tr C are positive.

    Source: Zhu et al. (2019), arXiv:1803.00195.
    """
    h, c = _pair(hessian, noise_covariance)
    values, vectors = np.linalg.eigh(h)
    sharpest = values >= values[-1] * (1 - _DEGENERATE)
    along = np.mean(np.einsum("ij,ik,kj->j", vectors, c, vectors)[sharpest])
    return float(along * np.trace(h) / (values[-1] * np.trace(c)))


def isotropic_ratio_bound(hessian: Any, noise_covariance: Any) -> float:
    """The lower bound â d h₁²/(Tr H)² of `isotropic_ratio`, which holds for H ⪰ 0.

    Warns (`AlignmentWarning`) where H has a negative eigenvalue. Raises as `alignment_coefficient`.

    Source: Zhu et al. (2019), arXiv:1803.00195; this form is derived.
    """
    h, c = _pair(hessian, noise_covariance)
    values = np.linalg.eigvalsh(h)
    if values[0] < -1e-10 * values[-1]:
        warnings.warn(
            f"ratio bound assumes H ⪰ 0; min eigenvalue {values[0]:.3g}",
            AlignmentWarning,
            stacklevel=2,
        )
    return alignment_coefficient(h, c) * len(h) * float((values[-1] / np.trace(h)) ** 2)


class LossScaledAlignment(NamedTuple):
    """`factor` = `cosine` · `magnitude`, with Frobenius norms."""

    factor: float
    """μ = Tr(Σ₁G)/(2L‖G‖²)."""
    cosine: float
    """Tr(Σ₁G)/(‖Σ₁‖‖G‖)."""
    magnitude: float
    """‖Σ₁‖/(2L‖G‖)."""


def loss_scaled_alignment(
    gradients: Float[Any, "N d"], residuals: Float[Any, " N"]
) -> LossScaledAlignment:
    """Alignment of the noise of a square loss L = Σe²/(2N) with curvature, scaled by the loss.

    G = Σ a aᵀ/N of the output gradients a, Σ₁ = Σ e² a aᵀ/N − ∇L∇Lᵀ of one example. For a linear
    model the mean loss after one step is L(θ − η∇L) + η² b μ ‖G‖² L with b = 1/S, or
    (N−S)/(S(N−1)) without repeats.

    **Arguments:** `gradients` ∇f of each example's output, `(N, d)`; `residuals` f − y, `(N,)`.
    Raises `ValueError` where the loss is zero: μ is undefined at an exact interpolating point
    (`alignment_range` gives what it can be near it).

    Source: Wu, Wang, Su (2022), arXiv:2207.02628.
    """
    a, e = _features(gradients), finite_array("residuals", residuals, ndim=1)
    if e.shape != a.shape[:1]:
        raise ValueError(f"residuals must have shape {a.shape[:1]}, got {e.shape}")
    loss = float(np.mean(e**2)) / 2
    if loss == 0:
        raise ValueError("loss is zero: alignment factor undefined at an exact interpolating point")
    number = len(a)
    curvature = a.T @ a / number
    mean = e @ a / number
    noise = (a * (e**2)[:, None]).T @ a / number - np.outer(mean, mean)
    size, strength = np.linalg.norm(curvature), np.linalg.norm(noise)
    product = float(np.trace(noise @ curvature))
    return LossScaledAlignment(
        product / (2 * loss * size**2), product / (strength * size), strength / (2 * loss * size)
    )


def alignment_range(gradients: Float[Any, "N d"]) -> tuple[float, float]:
    """The least and largest μ over all residuals that a change of θ can make, `(N, d)` features.

    The extreme eigenvalues of (N/‖G‖²)[diag(aᵀGa)/N − AGAᵀ/N²] on the range of A. Raises
    `ValueError` where all features vanish. Source: Wu, Wang, Su (2022), arXiv:2207.02628; derived.
    """
    a = _features(gradients)
    number = len(a)
    curvature = a.T @ a / number
    form = np.diag(np.einsum("ni,ij,nj->n", a, curvature, a)) / number
    form = (form - a @ curvature @ a.T / number**2) * number / np.sum(curvature**2)
    left, singular, _ = np.linalg.svd(a, full_matrices=False)
    basis = left[:, singular > 1e-10 * singular[0]]
    values = np.linalg.eigvalsh(basis.T @ form @ basis)
    return float(values[0]), float(values[-1])


def gaussian_loss_scaled_alignment(
    covariance: Any, error: Any, label_variance: float = 0.0
) -> float:
    """μ of linear regression on fresh Gaussian inputs of covariance K, at θ = θ* + Δ.

    1 + ΔᵀK³Δ/((ΔᵀKΔ + s²)‖K‖²), between 1 and 2 without label noise. **Arguments:** K `(d, d)`,
    `error` Δ `(d,)`, `label_variance` s². Raises `ValueError` where the loss is zero.

    Source: Wu, Wang, Su (2022), arXiv:2207.02628; derived.
    """
    k = symmetric("covariance", covariance, definite="semi")
    delta = finite_array("error", error, ndim=1)
    scale = positive("the loss", delta @ k @ delta + label_variance)
    return float(1 + delta @ k @ k @ k @ delta / (scale * np.sum(k**2)))


def output_gradients(problem: EmpiricalRisk, function: Any, params: PyTree) -> Float[Any, "N d"]:
    """∇f of every example for `function(params, example) -> number`, flattened, in float64."""

    return in_double_precision(_output_gradients, problem, function, floating(params))


def _output_gradients(problem: EmpiricalRisk, function: Any, params: PyTree) -> Float[Any, "N d"]:
    flat = problem.flatten(params)

    def one(example: PyTree) -> Float[Any, " d"]:
        return jax.grad(lambda v: function(problem.unflatten(v), example))(flat)

    return jax.vmap(one)(all_examples(problem))


def _features(gradients: Any) -> Float[Any, "N d"]:
    a = np.asarray(finite_array("gradients", gradients, ndim=2), dtype=np.float64)
    if not np.any(a):
        raise ValueError("gradients must not all vanish, got zeros")
    return a


def _pair(hessian: Any, noise_covariance: Any) -> tuple[Any, Any]:
    h = symmetric("hessian", hessian)
    c = symmetric("noise_covariance", noise_covariance, dimension=len(h), definite="semi")
    for name, matrix in (("hessian", h), ("noise_covariance", c)):
        positive(f"the trace of {name}", np.trace(matrix))
    positive("the largest eigenvalue of hessian", np.linalg.eigvalsh(h)[-1])
    return h, c
