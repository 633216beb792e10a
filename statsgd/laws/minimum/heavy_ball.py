"""Exact stationary law of the heavy-ball chain on a quadratic with constant noise."""

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
from jaxtyping import Float, PyTree

from statsgd.arguments import finite_array, fraction, is_traced, non_negative, positive, symmetric
from statsgd.dynamics.sgd import SGD
from statsgd.laws.bases.gaussian import GaussianLaw, join_blocks
from statsgd.laws.law import ImproperLawError, register
from statsgd.laws.minimum.local_quadratic import local_quadratic
from statsgd.problems import Problem


@register
class HeavyBallGaussian(GaussianLaw):
    """Stationary law of heavy-ball SGD on a quadratic when the gradient noise is constant.

    L = ½(θ−θ*)ᵀH(θ−θ*), Cov ĝ = C at every θ; H and C need not commute. In the eigenbasis of
    H + λI, eigenvalues h_i,

        Cov(θ_i,θ_j) = S_ij = ηC_ij / [(1−β)(h_i+h_j) − η(1−β)h_ih_j/(1+β) + ηβ(h_i−h_j)²/(1−β²)]
        Cov(m_i,m_j) = (h_i+h_j) S_ij / (η(1+β))
        Cov(θ_i,m_j) = −½[(h_i+h_j)/(1+β) + (h_i−h_j)/(1−β)] S_ij

    These moments are exact at any learning rate; the law is Gaussian if the noise is. It exists iff
    0 < ηh < 2(1+β) for every h. The non-zero Cov(θ, m) is part of the law.

    **Arguments:** `hessian` H `(d, d)`, loss/params²; `noise_covariance` C `(d, d)`; η, β, λ as in
    `SGD`; `location` `(d,)`, the minimiser of L + (λ/2)|θ|², zero by default.

    Source: Liu, Ziyin, Ueda (2021), arXiv:2012.03636, for the matrix equation; the closed form in
    a non-commuting eigenbasis is derived.
    """

    setting: ClassVar[str] = "heavy-ball SGD, quadratic loss, constant noise covariance"
    exactness: ClassVar[str] = "exact first two moments at any learning rate"
    citation: ClassVar[str] = "Liu, Ziyin, Ueda (2021), arXiv:2012.03636"

    noise_covariance: Float[Any, "d d"]

    def __init__(
        self,
        hessian: Any,
        noise_covariance: Any,
        learning_rate: Any,
        momentum: Any = 0.0,
        weight_decay: Any = 0.0,
        location: Any = None,
    ):
        self.hessian = symmetric("hessian", hessian)
        d = self.hessian.shape[0]
        self.noise_covariance = symmetric(
            "noise_covariance", noise_covariance, dimension=d, definite="semi"
        )
        self.learning_rate = positive("learning_rate", learning_rate)
        self.momentum = fraction("momentum", momentum)
        self.weight_decay = non_negative("weight_decay", weight_decay)
        self.location = location_vector(location, d)
        self.joint = self._joint()

    @classmethod
    def from_sgd(cls, problem: Problem, sgd: SGD, at: PyTree | None = None) -> Self:
        """The law for `sgd` near a minimum of `problem`: H and C are those at the minimum.

        `at` gives the minimum; by default it is found. Raises as `local_quadratic`.
        """
        local = local_quadratic(problem, sgd, at)
        return cls(
            local.hessian,
            local.noise_covariance,
            sgd.learning_rate,
            sgd.momentum,
            sgd.weight_decay,
            local.location,
        )

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """One mode, and two whose noise does not commute with the curvature."""
        skew = [[1.0, 0.6], [0.6, 0.8]]
        return (
            cls([[2.0]], [[0.3]], 0.5, 0.5),
            cls(np.diag([2.0, 0.5]), skew, 0.3, 0.5, weight_decay=0.1, location=[0.5, -1.0]),
        )

    @classmethod
    def improper_examples(cls) -> Sequence[Self]:
        """A learning rate above the threshold, and a flat direction."""
        return cls([[2.0]], [[0.3]], 2.0, 0.5), cls(np.diag([1.0, 0.0]), np.eye(2), 0.1)

    def require_proper(self) -> None:
        """Raise `ImproperLawError` unless 0 < ηh < 2(1+β) in every mode."""
        if not is_traced(self.hessian, self.learning_rate, self.momentum, self.weight_decay):
            require_stable_mean(
                self.modes().curvatures, float(self.learning_rate), float(self.momentum)
            )

    def _joint(self) -> Any:
        d = self.hessian.shape[0]
        try:
            self.require_proper()
        except ImproperLawError:
            return np.full((2 * d, 2 * d), np.nan)
        modes = self.modes()
        q = modes.vectors
        moments = heavy_ball_moments(
            modes.curvatures,
            q.T @ self.noise_covariance @ q,
            self.learning_rate,
            self.momentum,
        )
        return join_blocks(*(q @ block @ q.T for block in moments))


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


def location_vector(location: Any, d: int) -> Any:
    """`location` as a `(d,)` vector, zero by default."""
    if location is None:
        return np.zeros(d)
    vector = finite_array("location", location, ndim=1)
    if vector.shape != (d,):
        raise ValueError(f"location must have shape ({d},), got {vector.shape}")
    return vector
