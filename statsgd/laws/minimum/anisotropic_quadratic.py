"""SGD let go at a minimum: its law at every step, and how fast it climbs."""

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
from jaxtyping import Float, PyTree

from statsgd.arguments import is_traced, non_negative, one_of, positive, symmetric
from statsgd.dynamics.sgd import SGD
from statsgd.laws.bases.gaussian import GaussianLaw, eigenmodes
from statsgd.laws.law import ImproperLawError, register
from statsgd.laws.minimum.heavy_ball import location_vector
from statsgd.laws.minimum.local_quadratic import local_quadratic
from statsgd.problems import Problem

_FLAT = 1e-12  # of the largest curvature or noise: what counts as none


@register
class AnisotropicQuadraticLaw(GaussianLaw):
    """Law of SGD k steps after it starts at the minimum of a quadratic, constant noise C.

    In the eigenbasis of H ⪰ 0, eigenvalues h, Cov θ_k is

        chain  ηC_ij [1 − ((1−ηh_i)(1−ηh_j))^k] / (h_i + h_j − ηh_ih_j)      (flat: kη²C_ij)
        SDE    ηC_ij [1 − e^{−(h_i+h_j)ηk}] / (h_i + h_j)                    (flat: kη²C_ij)

    and k → ∞ is the stationary law. Flat directions with noise have a law at every k, none in the
    end. H and C need not commute. The mean loss of this law is `climb`, whose first step is
    ½ η² Tr(HC): at equal Tr C, noise along sharp directions climbs fastest, but as η → 0 all
    shapes end at the same height.

    **Arguments:** `hessian` `(d, d)`, `noise_covariance` `(d, d)`, η, `steps` k ≥ 0 (`inf` for the
    stationary law), `location` `(d,)`, `time`, `"discrete"` for the chain, `"continuous"` for the
    SDE, where `steps` need not be whole.

    Source: Zhu et al. (2019), arXiv:1803.00195, for the question; the laws are derived.
    """

    variables: ClassVar[tuple[str, ...]] = ("params",)
    setting: ClassVar[str] = "SGD from a minimum, quadratic loss, constant noise, any step"
    exactness: ClassVar[str] = "exact at any learning rate (chain), exact for the SDE (continuous)"
    citation: ClassVar[str] = "Zhu, Wu, Yu, Wu, Ma (2019), arXiv:1803.00195"

    noise_covariance: Float[Any, "d d"]
    steps: Float[Any, ""]
    continuous: bool

    def __init__(
        self,
        hessian: Any,
        noise_covariance: Any,
        learning_rate: Any,
        steps: Any = np.inf,
        location: Any = None,
        time: str = "discrete",
    ):
        self.hessian = symmetric("hessian", hessian)
        d = self.hessian.shape[0]
        self.noise_covariance = symmetric(
            "noise_covariance", noise_covariance, dimension=d, definite="semi"
        )
        self.learning_rate = positive("learning_rate", learning_rate)
        self.momentum, self.weight_decay = np.asarray(0.0), np.asarray(0.0)
        forever = np.ndim(steps) == 0 and steps == np.inf
        self.steps = np.asarray(np.inf) if forever else non_negative("steps", steps)
        self.continuous = one_of("time", time, ("discrete", "continuous")) == "continuous"
        if not self.continuous and not forever and float(self.steps) % 1:
            raise ValueError(f"steps must be a whole number in discrete time, got {steps}")
        self.location = location_vector(location, d)
        self.joint = self._joint()

    @classmethod
    def from_sgd(
        cls, problem: Problem, sgd: SGD, at: PyTree | None = None, steps: Any = np.inf
    ) -> Self:
        """The law `steps` steps after `sgd` started at the minimum of `problem`, or at `at`.

        Raises `ValueError` for momentum or weight decay, and as `local_quadratic`.
        """
        if float(sgd.momentum) or float(sgd.weight_decay):
            raise ValueError(
                "momentum and weight_decay must be 0 for this law, got "
                f"{float(sgd.momentum)} and {float(sgd.weight_decay)}"
            )
        local = local_quadratic(problem, sgd, at)
        return cls(local.hessian, local.noise_covariance, sgd.learning_rate, steps, local.location)

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """After four steps and in the end, noise that does not commute with the curvature."""
        hessian, noise = [[3.0, 1.0], [1.0, 2.0]], [[0.5, -0.2], [-0.2, 1.0]]
        return cls(hessian, noise, 0.3, 4), cls(hessian, noise, 0.3, location=[1.0, -0.5])

    @classmethod
    def improper_examples(cls) -> Sequence[Self]:
        """A flat direction with noise in the end, a saddle, and a step too large."""
        return (
            cls(np.diag([1.0, 0.0]), np.eye(2), 0.1),
            cls(np.diag([1.0, -1.0]), np.eye(2), 0.1, 3),
            cls(np.eye(2), np.eye(2), 2.0),
        )

    def climb(self) -> float:
        """Mean loss above the minimum, ½ Tr(H Cov θ_k)."""
        return float(0.5 * np.trace(self.hessian @ self.covariance()))

    def require_proper(self) -> None:
        """Raise `ImproperLawError` for a saddle, and where the stationary law does not exist."""
        if is_traced(self.hessian, self.noise_covariance, self.learning_rate, self.steps):
            return
        h, q = eigenmodes(self.hessian, 0.0)
        flat = h <= _FLAT * max(float(h[-1]), 0.0)
        if h[0] < -_FLAT * abs(float(h[-1])):
            raise ImproperLawError(f"hessian has the negative eigenvalue {float(h[0]):.6g}")
        if np.isfinite(self.steps):
            return
        if not self.continuous and self.learning_rate * h[-1] >= 2:
            raise ImproperLawError(
                "no stationary law: learning_rate*max_eigenvalue = "
                f"{float(self.learning_rate * h[-1]):.4g} >= 2"
            )
        noise = np.diagonal(q.T @ self.noise_covariance @ q)[flat]
        if np.any(noise > _FLAT * np.trace(self.noise_covariance)):
            raise ImproperLawError(
                f"flat direction(s) {int(np.sum(flat))} with noise {float(noise.max()):.3g}: law "
                "not normalisable"
            )

    def _joint(self) -> Any:
        d = self.hessian.shape[0]
        try:
            self.require_proper()
        except ImproperLawError:
            return np.full((d, d), np.nan)
        h, q = eigenmodes(self.hessian, 0.0)
        eta, k = float(self.learning_rate), float(self.steps)
        c = q.T @ self.noise_covariance @ q
        total = h[:, None] + h
        rate = total if self.continuous else total - eta * h[:, None] * h
        # 1 − (product)^k = −expm1(k log product), without cancellation in flat directions.
        if np.isfinite(k):
            if self.continuous:
                grown = -np.expm1(-eta * k * total)
            else:
                kept = (1 - eta * h[:, None]) * (1 - eta * h)
                grown = np.where(kept > 0, -np.expm1(k * np.log(np.where(kept > 0, kept, 1))), 0)
                grown = np.where(kept > 0, grown, 1 - kept**k)
        else:
            grown = np.ones_like(total)
        flat = np.abs(rate) <= _FLAT * max(float(h[-1]), np.finfo(float).tiny)
        still = 0.0 if np.isinf(k) else k * eta  # of the stationary law C vanishes there
        factor = np.where(flat, still, grown / np.where(flat, 1, rate))
        return q @ (eta * c * factor) @ q.T


def escape_efficiency(
    hessian: Any, noise_covariance: Any, learning_rate: Any, steps: Any, time: str = "discrete"
) -> Float[Any, " k"]:
    """Mean loss above a quadratic minimum after each of `steps` steps of SGD from it.

    ½η² Tr(HC) after one step, exactly; (ηt/2) Tr(HC) while t = ηk ≪ 1/(2h_max). The measured
    counterpart for any loss is the mean loss of an ensemble started at the minimum.

    Raises as `AnisotropicQuadraticLaw`. Source: Zhu et al. (2019), arXiv:1803.00195; derived.
    """
    return np.array(
        [
            AnisotropicQuadraticLaw(hessian, noise_covariance, learning_rate, k, time=time).climb()
            for k in np.atleast_1d(steps)
        ]
    )
