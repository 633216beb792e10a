"""Exact stationary law of the heavy-ball chain on a quadratic with constant noise."""

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from statsgd.arguments import is_traced
from statsgd.laws.law import ImproperLawError, register
from statsgd.laws.minimum.gaussian import (
    ConstantNoiseGaussian,
    MinimumGaussian,
    eigenmodes,
    joint_covariance,
)
from statsgd.laws.minimum.linear_chain import LinearChain, LinearChainLaw, with_curvature
from statsgd.laws.minimum.linear_optimiser import LinearOptimiser, rate_matrix
from statsgd.precision import formula


@register
class HeavyBallGaussian(ConstantNoiseGaussian, LinearChainLaw):
    """Stationary law of heavy-ball SGD on a quadratic when the gradient noise is constant.

    L = ½(θ−θ*)ᵀH(θ−θ*), Cov ĝ = C at every θ; H and C need not commute. In the eigenbasis of
    H + λI, eigenvalues h_i,

        Cov(θ_i,θ_j) = S_ij = ηC_ij / [(1−β)(h_i+h_j) − η(1−β)h_ih_j/(1+β) + ηβ(h_i−h_j)²/(1−β²)]
        Cov(m_i,m_j) = (h_i+h_j) S_ij / (η(1+β))
        Cov(θ_i,m_j) = −½[(h_i+h_j)/(1+β) + (h_i−h_j)/(1−β)] S_ij

    These moments are exact at any learning rate; the law is Gaussian if the noise is. It exists iff
    0 < ηh < 2(1+β) for every h. The non-zero Cov(θ, m) is part of the law.

    A learning rate for each parameter, or a matrix Λ, is the same law in other coordinates: with
    R = Λ^½ and RHR in place of ηH, in those of R⁻¹θ and Rm. `average` and `after` are as in
    `LinearOptimiserGaussian`, of which this is a special case in closed form.

    **Arguments:** `hessian` H `(d, d)`, loss/params²; `noise_covariance` C `(d, d)`; η, a number,
    `(d,)` or `(d, d)`, symmetric and positive definite; β, λ as in `SGD`; `location` `(d,)`, the
    minimiser of L + (λ/2)|θ|², zero by default.

    Source: Liu, Ziyin, Ueda (2021), arXiv:2012.03636, for the matrix equation; the closed form in
    a non-commuting eigenbasis is derived.

    >>> import numpy as np
    >>> from statsgd import SGD, noise, problems
    >>> bowl = problems.quadratic(np.diag([2.0]))
    >>> law = HeavyBallGaussian.from_sgd(bowl, SGD(0.1, noise.Isotropic(1.0)))
    >>> law.covariance().round(4)  # ηC/(h(2 − ηh))
    array([[0.0278]])
    """

    setting: ClassVar[str] = "heavy-ball SGD, quadratic loss, constant noise covariance"
    exactness: ClassVar[str] = "exact first two moments at any learning rate"
    citation: ClassVar[str] = "Liu, Ziyin, Ueda (2021), arXiv:2012.03636"

    learning_rate: Float[Any, "*d"]

    def __init__(
        self,
        hessian: Any,
        noise_covariance: Any,
        learning_rate: Any,
        momentum: Any = 0.0,
        weight_decay: Any = 0.0,
        location: Any = None,
    ):
        super().__init__(hessian, noise_covariance, learning_rate, momentum, weight_decay, location)
        self.joint = self._where_proper(_joint_covariance)

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """One mode, two whose noise does not commute with the curvature, a matrix of rates."""
        skew = [[1.0, 0.6], [0.6, 0.8]]
        return (
            cls([[2.0]], [[0.3]], 0.5, 0.5),
            cls(np.diag([2.0, 0.5]), skew, 0.3, 0.5, weight_decay=0.1, location=[0.5, -1.0]),
            cls(np.diag([2.0, 0.5]), skew, [[0.5, 0.1], [0.1, 0.8]], 0.5),
        )

    @classmethod
    def improper_examples(cls) -> Sequence[Self]:
        """A learning rate above the threshold, and a flat direction."""
        return cls([[2.0]], [[0.3]], 2.0, 0.5), cls(np.diag([1.0, 0.0]), np.eye(2), 0.1)

    @classmethod
    def _rate(cls, learning_rate: Any, dimension: int) -> Any:
        return rate_matrix(learning_rate, dimension)

    def chain(self) -> LinearChain:
        """The chain of (θ, m)."""
        optimiser = LinearOptimiser.sgd(self.learning_rate, self.momentum, self.weight_decay)
        k, b = optimiser.matrices(self.dimension)
        mean = np.concatenate([self.location, 0 * self.location])
        noise = b @ self.noise_covariance @ b.T
        return LinearChain(with_curvature(k, b, self.hessian), noise, mean, self.joint)

    def require_proper(self) -> None:
        """Raise `ImproperLawError` unless 0 < ηh < 2(1+β) in every mode."""
        if np.shape(self.learning_rate) == ():
            require_settled_chain(self)
        elif not is_traced(self.hessian, self.learning_rate, self.momentum, self.weight_decay):
            _, _, reach = _scaled_modes(self.hessian, self.learning_rate, self.weight_decay)
            require_stable_mean(reach, 1.0, float(self.momentum))


@formula
def _joint_covariance(hessian: Any, noise: Any, eta: Any, beta: Any, decay: Any) -> Any:
    if jnp.ndim(eta) == 0:
        h, q = eigenmodes(hessian, decay)
        return joint_covariance(q, *heavy_ball_moments(h, q.T @ noise @ q, eta, beta))
    into, out, reach = _scaled_modes(hessian, eta, decay)
    params, cross, buffer = heavy_ball_moments(reach, into.T @ noise @ into, 1.0, beta)
    cross = into @ cross @ out.T
    return jnp.block([[into @ params @ into.T, cross], [cross.T, out @ buffer @ out.T]])


@formula
def _scaled_modes(hessian: Any, rate: Any, decay: Any) -> tuple[Any, Any, Any]:
    """RQ, R⁻¹Q and w, R(H+λI)R = QwQᵀ, R = Λ^½: θ = RQs moves in modes of curvature w at η = 1."""
    values, vectors = jnp.linalg.eigh(jnp.asarray(rate))
    root = vectors * jnp.sqrt(values) @ vectors.T
    inverse = vectors / jnp.sqrt(values) @ vectors.T
    stiffness = jnp.asarray(hessian) + decay * jnp.eye(len(values))
    reach, q = jnp.linalg.eigh(root @ stiffness @ root)
    return root @ q, inverse @ q, reach


def heavy_ball_moments(h: Any, c: Any, eta: Any, beta: Any) -> tuple[Any, Any, Any]:
    """Cov θ, Cov(θ, m) and Cov m in the eigenbasis; `h` `(d,)`, `c` `(d, d)` there."""
    total, difference = h[:, None] + h, h[:, None] - h
    product = h[:, None] * h
    params = (
        eta
        * c
        / (
            (1 - beta) * total
            - eta * (1 - beta) * product / (1 + beta)
            + eta * beta * difference**2 / (1 - beta**2)
        )
    )
    buffer = total * params / (eta * (1 + beta))
    cross = -0.5 * (total / (1 + beta) + difference / (1 - beta)) * params
    return params, cross, buffer


def require_settled_chain(law: MinimumGaussian) -> None:
    """Raise `ImproperLawError` unless 0 < ηh < 2(1+β) in every mode of heavy-ball SGD."""
    if not is_traced(law.hessian, law.learning_rate, law.momentum, law.weight_decay):
        require_stable_mean(law.modes().curvatures, float(law.learning_rate), float(law.momentum))


def require_stable_mean(h: Any, eta: float, beta: float) -> None:
    """Raise `ImproperLawError` unless 0 < ηh < 2(1+β) for every eigenvalue `h` of H + λI."""
    limit = 2 * (1 + beta)
    for worst in (float(np.min(h)), float(np.max(h))):
        if not 0 < eta * worst < limit:
            raise ImproperLawError(
                f"learning_rate*h = {eta * worst:.6g} outside (0, 2(1+momentum)) = (0, "
                f"{limit:.6g}) for the eigenvalue h = {worst:.6g} of hessian + weight_decay*I: "
                "no stationary law"
            )
