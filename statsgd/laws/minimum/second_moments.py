"""Second moments of minibatch SGD whose noise grows with the distance from the minimum.

Everything is in the eigenbasis of H + λI, eigenvalues h, with the example gradients φ of the model
output there, H = mean φφᵀ, and b = C/Σ₁ (1/S with replacement). A covariance P of θ makes the
noise C(μ) + N(P),

    N(P) = b ( mean φφᵀ (φᵀPφ) − HPH )

(or E (H_B − H) P (H_B − H) of whatever Hessians H_B batches have) and is stationary where A∘P −
ηR∘P = η (C(μ) + N(P)) with A_ij = (1−β)(h_i+h_j) and R_ij = (1−β)h_ih_j/(1+β) − β(h_i−h_j)²/(1−β²).
Both sides are self-adjoint in P, and N maps covariances to covariances: its spectral radius is its
largest eigenvalue. So moments are finite, from every start, iff A∘ − ηR∘ − ηN is positive, whatever
the noise C(μ) is, also none.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.sparse.linalg import LinearOperator, cg, eigs, eigsh

from statsgd.laws.minimum.heavy_ball import heavy_ball_moments

_DENSE = 20  # parameters up to which d² × d² matrices are formed
_TOLERANCE = 1e-13

type Map = Callable[[Float[Any, "d d"]], Float[Any, "d d"]]


def feedback_noise(
    features: Float[Any, "N d"], hessian: Float[Any, " d"], factor: Any, params: Float[Any, "d d"]
) -> Float[Any, "d d"]:
    """N(P) at P = `params`, for `factor` b; in NumPy or JAX."""
    spread = ((features @ params) * features).sum(1)
    mean = (features * spread[:, None]).T @ features / len(features)
    return factor * (mean - hessian[:, None] * params * hessian)


def feedback_gain(noise: Map, curvatures: Float[Any, " d"], eta: float, beta: float) -> float:
    """Spectral radius of P → covariance that the noise N(P) = `noise` adds; for a stable mean."""
    root = np.sqrt(_response(curvatures, eta, beta))
    return largest_eigenvalue(lambda p: root * noise(root * p), len(curvatures))


def stability_threshold(noise: Map, curvatures: Float[Any, " d"], beta: float = 0.0) -> float:
    """The learning rate up to which second moments are bounded; `curvatures` positive."""
    h = curvatures
    total, difference = h[:, None] + h, h[:, None] - h
    root = ((1 - beta) * total) ** -0.5
    steady = (1 - beta) / (1 + beta) * h[:, None] * h - beta / (1 - beta**2) * difference**2
    return 1 / largest_eigenvalue(lambda p: root * (steady * root * p + noise(root * p)), len(h))


def spread_noise(deviations: Float[Any, "r d d"], params: Float[Any, "d d"]) -> Float[Any, "d d"]:
    """Σ D_r P D_r at P = `params`, of symmetric D_r: N(P) of batches with Hessians of any rank."""
    return np.einsum("rij,rjk->ik", deviations @ params, deviations, optimize=True)


def moment_growth(noise: Map, curvatures: Float[Any, " d"], eta: float, beta: float) -> float:
    """Growth per step of the second moments of (θ, m), the spectral radius of their map."""
    h, d = curvatures, len(curvatures)
    if beta == 0:
        kept = (1 - eta * h)[:, None] * (1 - eta * h)
        return largest_eigenvalue(lambda p: kept * p + eta**2 * noise(p), d)
    one, push = np.eye(d), np.array([-eta, 1.0])  # what a gradient does to (θ, m)
    mean = np.block([[np.diag(1 - eta * h), -eta * beta * one], [np.diag(h), beta * one]])

    def step(moments: Float[Any, "D D"]) -> Float[Any, "D D"]:
        return mean @ moments @ mean.T + np.kron(np.outer(push, push), noise(moments[:d, :d]))

    # No self-adjoint map; but it maps covariances to covariances, so that the largest eigenvalue in
    # modulus is a positive one, though with others of the same modulus where little noise acts.
    operator = _operator(step, 2 * d)
    if 2 * d <= _DENSE:
        return float(np.abs(np.linalg.eigvals(operator @ np.eye(4 * d**2))).max())
    ask: Any = {"which": "LM", "v0": np.eye(2 * d).ravel(), "tol": 1e-11, "ncv": 40}
    return float(np.abs(eigs(operator, 4, return_eigenvectors=False, **ask)).max())


def feedback_covariance(
    noise: Map,
    at_minimum: Float[Any, "d d"],
    curvatures: Float[Any, " d"],
    eta: float,
    beta: float,
) -> Float[Any, "d d"]:
    """The stationary Cov θ; for a gain below one."""
    shape, root = at_minimum.shape, np.sqrt(_response(curvatures, eta, beta))
    operator = _operator(lambda p: p - root * noise(root * p), len(curvatures))
    solution, _ = cg(operator, (root * at_minimum).ravel(), rtol=_TOLERANCE, atol=0.0)
    return root * solution.reshape(shape)


def largest_eigenvalue(self_adjoint: Map, dimension: int) -> float:
    """The largest eigenvalue, its spectral radius, of a self-adjoint map of covariances."""
    operator = _operator(self_adjoint, dimension)
    if dimension <= _DENSE:
        return float(np.linalg.eigvalsh(operator @ np.eye(dimension**2))[-1])
    # The identity has a share of every covariance, and a map without any effect on it has none.
    start = np.eye(dimension).ravel()
    if not np.any(operator @ start):
        return 0.0
    (value,) = eigsh(operator, 1, which="LA", v0=start, tol=_TOLERANCE, return_eigenvectors=False)
    return float(value)


def _response(curvatures: Any, eta: float, beta: float) -> Any:
    """Cov θ per unit of noise, element by element."""
    return heavy_ball_moments(curvatures, np.ones((len(curvatures),) * 2), eta, beta)[0]


def _operator(function: Map, dimension: int) -> LinearOperator:
    def product(vector: Any) -> Any:
        return function(vector.reshape(dimension, dimension)).ravel()

    size = dimension**2
    return LinearOperator((size, size), matvec=product, dtype=np.float64)
