"""Where SGD goes after it has reached zero loss: slow motion along a valley of minimisers."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from statsgd.arguments import count, finite_array, kinds_checked, positive, symmetric
from statsgd.precision import in_double_precision
from statsgd.problems import Problem


class ValleyMotion(NamedTuple):
    """Drift and covariance of the motion along the valley, per unit of slow time s = η²k."""

    drift: Float[Any, " d"]
    covariance: Float[Any, "d d"]
    """P_T C P_T; dY has this covariance times ds."""


@kinds_checked
def valley_motion(problem: Problem, params: Any, noise_covariance: Any, rank: int) -> ValleyMotion:
    """Drift and diffusion of SGD along a manifold of minimisers Γ, at a point of it.

    As η → 0 with s = η²k fixed, the chain first follows gradient flow to Γ and then moves by

        dY = P_T C^½ dW + b ds
        b = −½ H⁺ ∇³L[C_TT] − ½ P_T ( 2∇³L[H⁺C_NT] + ∇³L[X] ),    HX + XH = C_NN

    P_T and P_N project on the kernel and the range of H; C_TT = P_T C P_T and so on, (∇³L[B])_i =
    Σ ∂_ijk L B_jk. The terms keep Y on the curved Γ, correlate normal with tangential noise, and
    follow the asymmetry of the walls. With momentum s = (η/(1−β))²k at leading order. The bias of
    the chain at fixed s is O(η).

    **Arguments:** `params` `(d,)`, flat, on Γ; `noise_covariance` C there `(d, d)`; `rank` of the
    Hessian on Γ, the number of normal directions (an eigenvalue that is merely small must not be
    taken for zero). Raises `ValueError` if C = 0 (nothing moves), if `params` is not a minimum, or
    the Hessian has fewer than `rank` positive eigenvalues.

    Source: Li, Wang, Arora (2022), arXiv:2110.06914; this form of the drift is derived.

    >>> import numpy as np
    >>> from statsgd.problems import landscape
    >>> valley = landscape(lambda p: 0.5 * (1 + p[0] ** 2) * p[1] ** 2, [1.0, 0.0])
    >>> motion = valley_motion(valley, [1.0, 0.0], np.eye(2), rank=1)
    >>> motion.drift.round(4), motion.covariance.round(4)
    (array([-0.25,  0.  ]), array([[1., 0.],
           [0., 0.]]))
    """
    point = np.asarray(finite_array("params", params, ndim=1), dtype=np.float64)
    d = len(point)
    c = symmetric("noise_covariance", noise_covariance, dimension=d, definite="semi")
    if not np.any(c):
        raise ValueError(
            "no gradient noise on the valley: endpoint is the gradient-flow limit; got "
            "noise_covariance = 0"
        )
    values, vectors = _normal_frame(problem, point, rank)
    normal, tangent = vectors[:, d - rank :], vectors[:, : d - rank]
    h = values[d - rank :]
    project_t, project_n = tangent @ tangent.T, normal @ normal.T
    inverse = (normal / h) @ normal.T
    tangential = project_t @ c @ project_t
    within = normal.T @ c @ normal / (h[:, None] + h)
    mixed = inverse @ project_n @ c @ project_t
    curl = _third_derivative(problem, point, tangential)
    normal_part = 2 * _third_derivative(problem, point, mixed)
    normal_part = normal_part + _third_derivative(problem, point, normal @ within @ normal.T)
    drift = -0.5 * inverse @ curl - 0.5 * project_t @ normal_part
    return ValleyMotion(drift, tangential)


def label_noise_strength(label_noise_std: Any, batch_size: Any, *, half: bool = False) -> float:
    """The c of C = cH on the valley when labels carry fresh noise of variance δ² at every use.

    c = 2δ²/S for the loss (f − y)², and δ²/S for ½(f − y)² (`half=True`). Noise drawn once and
    kept is not label noise. Source: derived.

    >>> label_noise_strength(0.5, batch_size=2), label_noise_strength(0.5, batch_size=2, half=True)
    (0.25, 0.125)
    """
    factor = 1.0 if half else 2.0
    variance = positive("label_noise_std", label_noise_std) ** 2
    return float(factor * variance / positive("batch_size", batch_size))


@kinds_checked
def sharpness_flow(
    problem: Problem, params: Any, noise_strength: Any, rank: int
) -> Float[Any, " d"]:
    """dY/ds = −(c/4) P_T ∇Tr H(Y): label noise drives SGD along the valley to flatter minima.

    For C = cH on Γ there is no tangential noise and the motion is deterministic; in time t = ηk it
    is gradient flow on Γ of the regulariser (ηc/4) Tr H. Arguments as `valley_motion`, with
    `noise_strength` c (`label_noise_strength`).

    Source: Li, Wang, Arora (2022), arXiv:2110.06914; the coefficient is derived.

    >>> from statsgd.problems import landscape
    >>> valley = landscape(lambda p: 0.5 * (1 + p[0] ** 2) * p[1] ** 2, [1.0, 0.0])
    >>> sharpness_flow(valley, [1.0, 0.0], noise_strength=2.0, rank=1)  # −(c/4)∇Tr H
    array([-1.,  0.])
    """
    point = np.asarray(finite_array("params", params, ndim=1), dtype=np.float64)
    strength = float(positive("noise_strength", noise_strength))
    _, vectors = _normal_frame(problem, point, rank)
    tangent = vectors[:, : len(point) - rank]
    slope = _third_derivative(problem, point, np.eye(len(point)))
    return -strength / 4 * tangent @ (tangent.T @ slope)


@kinds_checked
def integrate_valley_flow(
    problem: Problem,
    start: Any,
    flow: Callable[[Float[Any, " d"]], Float[Any, " d"]],
    slow_time: Any,
    rank: int,
    *,
    steps: int = 200,
) -> Float[Any, " d"]:
    """The point on Γ that a deterministic `flow` reaches from `start` after `slow_time` s.

    Runge–Kutta steps of fourth order, each followed by Newton steps along the normal space back to
    Γ. `flow` maps a point of Γ to dY/ds, for instance `sharpness_flow` with its other arguments
    fixed.

    >>> from statsgd.problems import landscape
    >>> valley = landscape(lambda p: 0.5 * (1 + p[0] ** 2) * p[1] ** 2, [1.0, 0.0])
    >>> def flow(at):
    ...     return sharpness_flow(valley, at, 2.0, rank=1)
    >>> integrate_valley_flow(valley, [1.0, 0.0], flow, slow_time=1.0, rank=1).round(3)  # e^(−s)
    array([0.368, 0.   ])
    """
    y = np.asarray(finite_array("start", start, ndim=1), dtype=np.float64)
    ds = float(positive("slow_time", slow_time)) / count("steps", steps)
    for _ in range(steps):
        k1 = flow(y)
        k2 = flow(return_to_valley(problem, y + ds / 2 * k1, rank))
        k3 = flow(return_to_valley(problem, y + ds / 2 * k2, rank))
        k4 = flow(return_to_valley(problem, y + ds * k3, rank))
        y = return_to_valley(problem, y + ds / 6 * (k1 + 2 * k2 + 2 * k3 + k4), rank)
    return y


@kinds_checked
def return_to_valley(problem: Problem, params: Any, rank: int) -> Float[Any, " d"]:
    """The point of Γ next to `params`, by Newton steps in the `rank` steepest directions.

    For points near Γ; it is not the limit of gradient flow, from which it differs to second order
    in the distance.

    >>> from statsgd.problems import landscape
    >>> valley = landscape(lambda p: 0.5 * (p @ p - 1.0) ** 2, [1.0, 0.0])
    >>> return_to_valley(valley, [1.1, 0.0], rank=1).round(4)
    array([1., 0.])
    """
    point = np.asarray(finite_array("params", params, ndim=1), dtype=np.float64)
    for _ in range(20):
        slope, matrix = _slope_and_hessian(problem, point)
        values, vectors = np.linalg.eigh(matrix)
        normal = vectors[:, len(point) - rank :]
        step = normal @ (normal.T @ slope / values[len(point) - rank :])
        point = point - step
        if np.linalg.norm(step) < 1e-13 * (1 + np.linalg.norm(point)):
            return point
    raise ValueError(
        f"params must lie near the valley: Newton's method did not converge, last step "
        f"{np.linalg.norm(step):.3g}"
    )


def _slope_and_hessian(problem: Problem, point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    slope, matrix = in_double_precision(_derivatives, problem, point)
    return slope, (matrix + matrix.T) / 2


def _derivatives(problem: Problem, point: Any) -> tuple[Any, Any]:
    slope = jax.grad(lambda vector: problem.loss(problem.unflatten(vector)))
    return slope(point), jax.jacfwd(slope)(point)


def _normal_frame(problem: Problem, point: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues and eigenvectors of H at a point of Γ, the `rank` normal ones last."""
    slope, matrix = _slope_and_hessian(problem, point)
    values, vectors = np.linalg.eigh(matrix)
    if not 1 <= count("rank", rank) < len(point):
        raise ValueError(f"rank must be between 1 and d - 1 = {len(point) - 1}, got {rank}")
    if np.linalg.norm(slope) > 1e-6 * (1 + abs(values[-1])):
        raise ValueError(
            f"params must lie on the valley, got a gradient norm of {np.linalg.norm(slope):.3g}"
        )
    if values[len(point) - rank] <= 0:
        raise ValueError(
            f"the Hessian must have {rank} positive eigenvalues, got {values.tolist()}"
        )
    return values, vectors


def _third_derivative(problem: Problem, point: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """(∇³L[B])_i = Σ_jk ∂_ijk L B_jk for a matrix B that need not be symmetric."""
    return in_double_precision(_contraction, problem, point, matrix)


def _contraction(problem: Problem, point: Any, matrix: Any) -> Any:
    def contracted(vector):
        loss = jax.hessian(lambda v: problem.loss(problem.unflatten(v)))
        return jnp.sum(loss(vector) * matrix)

    return jax.grad(contracted)(point)
