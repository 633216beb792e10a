"""Alignment of gradient noise with curvature: what makes it leave sharp minima, or not."""

import warnings
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, PyTree

from statsgd.arguments import count, finite_array, kinds_checked, positive, symmetric
from statsgd.dynamics.noise.minibatch import all_examples
from statsgd.estimate import Estimate
from statsgd.measures.noise.symmetric_matrix import SymmetricMatrix, trace_of_product
from statsgd.precision import in_double_precision
from statsgd.problems import EmpiricalRisk
from statsgd.problems.parameters import floating


class AlignmentWarning(UserWarning):
    """A bound is read outside its assumptions."""


def isotropic_ratio(
    hessian: Any, noise_covariance: Any, *, samples: int = 64, seed: int = 0
) -> Any:
    """Tr(HC) over its value for isotropic noise of the same trace, Tr H Tr C/d.

    Above 1 the noise climbs out of a minimum faster than isotropic noise does, at short times.
    At most d h_max/Tr H.

    **Arguments:** each a matrix `(d, d)`; its diagonal `(d,)` if it has nothing else, such as the
    spectra of two that share their eigenvectors; or a SciPy `LinearOperator`, as
    `curvature_matrix` gives for large problems, which must be symmetric and, for C, positive
    semi-definite: that is not looked at. With products traces are means over `samples` random
    signs v, of (Hv)·(Cv), vᵀHv and vᵀCv, and the result is an `Estimate`; its standard error is to
    first order.

    Raises `ValueError` unless both traces are positive. `noise_alignment` is the same of a problem.

    Source: Zhu et al. (2019), arXiv:1803.00195.

    Numbers are float64.

    >>> import numpy as np
    >>> float(isotropic_ratio(np.diag([3.0, 1.0]), np.diag([3.0, 1.0])))
    1.25
    """
    traces = _traces(hessian, noise_covariance, samples, seed)
    return traces.combined(product=1.0, curvature=-1.0, noise=-1.0, factor=traces.dimension)


def alignment_coefficient(
    hessian: Any, noise_covariance: Any, *, samples: int = 64, seed: int = 0
) -> Any:
    """â = u₁ᵀCu₁ Tr H/(h₁ Tr C): the noise along the sharpest direction, 1 for C ∝ H.

    A repeated largest eigenvalue counts with the mean over its eigenspace. â > 0 alone does not
    make noise better than isotropic: see `isotropic_ratio`, also for the arguments. Of products,
    and of matrices above d = `problems.DENSE_LIMIT`, the sharpest direction is found by Lanczos
    iterations from a few random starts, whose mean over an eigenspace is part of the error. Raises
    `ValueError` unless Tr H and Tr C are positive.

    Source: Zhu et al. (2019), arXiv:1803.00195.

    Numbers are float64.

    >>> import numpy as np
    >>> float(alignment_coefficient(np.diag([3.0, 1.0]), np.diag([6.0, 2.0])))
    1.0
    """
    traces = _traces(hessian, noise_covariance, samples, seed)
    sharpest, along = traces.sharpest()
    return traces.combined(curvature=1.0, noise=-1.0, factor=1 / sharpest, times=along)


def isotropic_ratio_bound(
    hessian: Any, noise_covariance: Any, *, samples: int = 64, seed: int = 0
) -> Any:
    """The lower bound â d h₁²/(Tr H)² of `isotropic_ratio`, which holds for H ⪰ 0.

    Warns (`AlignmentWarning`) where H has a negative eigenvalue. Arguments and errors as
    `alignment_coefficient`.

    Source: Zhu et al. (2019), arXiv:1803.00195; this form is derived.

    >>> import numpy as np
    >>> float(isotropic_ratio_bound(np.diag([3.0, 1.0]), np.diag([3.0, 1.0])))
    1.125
    """
    traces = _traces(hessian, noise_covariance, samples, seed)
    sharpest, along = traces.sharpest()
    lowest = traces.hessian.smallest()
    if lowest < -1e-10 * sharpest:
        warnings.warn(
            f"ratio bound assumes H ⪰ 0; min eigenvalue {lowest:.3g}",
            AlignmentWarning,
            stacklevel=2,
        )
    factor = traces.dimension * sharpest
    return traces.combined(curvature=-1.0, noise=-1.0, factor=factor, times=along)


class _Traces(NamedTuple):
    """Tr(HC), Tr H and Tr C: their values, and what each random vector said of them."""

    hessian: SymmetricMatrix
    noise_covariance: SymmetricMatrix
    values: Float[Any, "3"]
    relative: Float[Any, "samples 3"]
    """Forms over their values; of one vector and equal to one where they are exact."""
    seed: int

    @property
    def dimension(self) -> int:
        return self.hessian.dimension

    def sharpest(self) -> tuple[float, Estimate]:
        """h₁, and u₁ᵀCu₁ as a mean over the eigenspace."""
        pair = self.hessian.top(np.random.default_rng([self.seed, 1]))
        return pair.value, self.noise_covariance.mean_form(pair)

    def combined(
        self,
        *,
        product: float = 0.0,
        curvature: float = 0.0,
        noise: float = 0.0,
        factor: float,
        times: Estimate | None = None,
    ) -> Any:
        """`factor` Tr(HC)^product Tr(H)^curvature Tr(C)^noise `times` another number."""
        powers = np.array([product, curvature, noise])
        value = factor * np.prod(self.values**powers)
        relative, units = 0.0, None
        if len(self.relative) > 1:
            units = len(self.relative)
            influence = (self.relative - 1) @ powers
            relative = influence.std(ddof=1) / np.sqrt(len(influence))
        if times is not None:
            value = value * times.value
            if times.standard_error:
                relative = np.hypot(relative, times.standard_error / times.value)
                known = [one for one in (units, times.clusters) if one is not None]
                units = min(known, default=None)
        if relative == 0:
            return float(value)
        return Estimate(float(value), float(abs(value) * relative), units)


def _traces(hessian: Any, noise_covariance: Any, samples: int, seed: int) -> _Traces:
    h = SymmetricMatrix.of("hessian", hessian)
    c = SymmetricMatrix.of("noise_covariance", noise_covariance, dimension=h.dimension, semi=True)
    exact = [trace_of_product(h, c), h.trace(), c.trace()]
    if any(value is None for value in exact):
        number = count("samples", samples, at_least=2)
        signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(h.dimension, number))
        curved, noisy = h.times(signs), c.times(signs)
        pairs = ((curved, noisy), (signs, curved), (signs, noisy))
        forms = np.stack([np.sum(one * other, axis=0) for one, other in pairs], axis=1)
        for i, value in enumerate(exact):
            if value is not None:
                forms[:, i] = value
    else:
        forms = np.array([exact], dtype=np.float64)
    values = forms.mean(axis=0)
    for name, value in (("hessian", values[1]), ("noise_covariance", values[2])):
        positive(f"the trace of {name}", value)
    scale = np.where(values != 0, values, 1.0)
    return _Traces(h, c, values, forms / scale, seed)


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

    Numbers are float64.

    >>> import numpy as np
    >>> found = loss_scaled_alignment(np.eye(2), np.array([1.0, 1.0]))
    >>> round(float(found.factor), 4)
    0.5
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

    Numbers are float64.

    >>> import numpy as np
    >>> low, high = alignment_range(np.array([[1.0, 0.0], [0.0, 2.0]]))
    >>> round(low, 4), round(high, 4)
    (0.0588, 0.9412)
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

    Numbers are float64.

    >>> import numpy as np
    >>> round(gaussian_loss_scaled_alignment(np.eye(2), np.array([1.0, 0.0])), 6)
    1.5
    """
    k = symmetric("covariance", covariance, definite="semi")
    delta = finite_array("error", error, ndim=1)
    scale = positive("the loss", delta @ k @ delta + label_variance)
    return float(1 + delta @ k @ k @ k @ delta / (scale * np.sum(k**2)))


@kinds_checked
def output_gradients(problem: EmpiricalRisk, function: Any, params: PyTree) -> Float[Any, "N d"]:
    """∇f of every example for `function(params, example) -> number`, flattened, in float64.

    >>> import numpy as np
    >>> from statsgd.problems import linear_regression
    >>> problem = linear_regression(np.eye(2), np.array([1.0, 3.0]))
    >>> output_gradients(problem, lambda params, example: example[0] @ params, np.zeros(2)).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """

    return in_double_precision(
        _output_gradients, problem, function, floating(problem.parameters(params))
    )


def _output_gradients(problem: EmpiricalRisk, function: Any, params: PyTree) -> Float[Any, "N d"]:
    flat = problem.flatten(params)

    def one(example: PyTree) -> Float[Any, " d"]:
        return jax.grad(lambda v: function(problem.unflatten(v), example))(flat)

    return jax.vmap(one)(all_examples(problem))


def _features(gradients: Any) -> Float[Any, "N k"]:
    """The features, in coordinates of their own span where this is smaller: k ≤ min(N, d)."""
    a = np.asarray(finite_array("gradients", gradients, ndim=2), dtype=np.float64)
    if not np.any(a):
        raise ValueError("gradients must not all vanish, got zeros")
    return np.linalg.qr(a.T, mode="r").T if a.shape[1] > a.shape[0] else a
