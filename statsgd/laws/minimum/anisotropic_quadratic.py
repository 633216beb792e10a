"""SGD let go at a minimum: its law at every step, and how fast it climbs."""

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree

from statsgd.arguments import is_traced, non_negative, one_of
from statsgd.dynamics.sgd import SGD
from statsgd.laws.law import ImproperLawError, register
from statsgd.laws.minimum.gaussian import ConstantNoiseGaussian, eigenmodes
from statsgd.laws.minimum.local_quadratic import local_quadratic
from statsgd.precision import formula
from statsgd.problems import Problem

_FLAT = 1e-12  # of the largest curvature or noise: what counts as none


@register
class AnisotropicQuadraticLaw(ConstantNoiseGaussian):
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

    >>> import numpy as np
    >>> from statsgd import SGD, noise, problems
    >>> bowl = problems.quadratic(np.diag([2.0, 0.5]))
    >>> law = AnisotropicQuadraticLaw.from_sgd(bowl, SGD(0.1, noise.Isotropic(1.0)), steps=10)
    >>> np.diag(law.covariance()).round(4)
    array([0.0275, 0.0658])
    """

    setting: ClassVar[str] = "SGD from a minimum, quadratic loss, constant noise, any step"
    exactness: ClassVar[str] = "exact at any learning rate (chain), exact for the SDE (continuous)"
    citation: ClassVar[str] = "Zhu, Wu, Yu, Wu, Ma (2019), arXiv:1803.00195"

    steps: Float[Any, ""]
    continuous: bool = eqx.field(static=True)

    def __init__(
        self,
        hessian: Any,
        noise_covariance: Any,
        learning_rate: Any,
        steps: Any = np.inf,
        location: Any = None,
        time: str = "discrete",
    ):
        super().__init__(hessian, noise_covariance, learning_rate, location=location)
        forever = not is_traced(steps) and np.ndim(steps) == 0 and steps == np.inf
        self.steps = np.asarray(np.inf) if forever else non_negative("steps", steps)
        self.continuous = one_of("time", time, ("discrete", "continuous")) == "continuous"
        if not (self.continuous or forever or is_traced(steps)) and float(self.steps) % 1:
            raise ValueError(f"steps must be a whole number in discrete time, got {steps}")
        self.joint = self._where_proper(_covariance, self.steps, self.continuous)

    @classmethod
    def from_sgd(
        cls, problem: Problem, sgd: SGD, at: PyTree | None = None, steps: Any = np.inf
    ) -> Self:
        """The law `steps` steps after `sgd` started at the minimum of `problem`, or at `at`.

        Raises `ValueError` for momentum or weight decay, and as `local_quadratic`.
        """
        sgd.require_heavy_ball()
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
        """Mean loss above the minimum, ½ Tr(H Cov θ_k).

        Flat directions add nothing, so it may have a limit where the law has none. Raises
        `ImproperLawError` for a saddle, and in the end of a chain for ηh ≥ 2.
        """
        self._require_bounded_loss()
        covariance = _covariance(
            self.hessian,
            self.noise_covariance,
            self.learning_rate,
            self.momentum,
            self.weight_decay,
            self.steps,
            self.continuous,
        )
        return float(0.5 * np.trace(self.hessian @ covariance))

    def kept(
        self, steps: int, learning_rate: float | None = None, momentum: float | None = None
    ) -> Float[Any, " d"] | None:
        """Nothing in flat directions, which have no noise; None for the law of a finite time."""
        if np.isfinite(self.steps):
            return None
        h = self.modes().curvatures
        kept = np.asarray(super().kept(steps, learning_rate, momentum))
        return np.where(h <= _FLAT * max(float(h[-1]), 0.0), 0.0, kept)

    def require_proper(self) -> None:
        """Raise `ImproperLawError` for a saddle, and where the stationary law does not exist."""
        if is_traced(self.hessian, self.noise_covariance, self.learning_rate, self.steps):
            return
        self._require_bounded_loss()
        h, q = eigenmodes(self.hessian, 0.0)
        flat = h <= _FLAT * max(float(h[-1]), 0.0)
        if np.isfinite(self.steps):
            return
        noise = np.diagonal(q.T @ self.noise_covariance @ q)[flat]
        if np.any(noise > _FLAT * np.trace(self.noise_covariance)):
            raise ImproperLawError(
                f"flat direction(s) {int(np.sum(flat))} with noise {float(noise.max()):.3g}: law "
                "not normalisable"
            )

    def _require_bounded_loss(self) -> None:
        h = eigenmodes(self.hessian, 0.0).curvatures
        if h[0] < -_FLAT * abs(float(h[-1])):
            raise ImproperLawError(f"hessian has the negative eigenvalue {float(h[0]):.6g}")
        chain_in_the_end = not (self.continuous or np.isfinite(self.steps))
        if chain_in_the_end and self.learning_rate * h[-1] >= 2:
            raise ImproperLawError(
                "no stationary law: learning_rate*max_eigenvalue = "
                f"{float(self.learning_rate * h[-1]):.4g} >= 2"
            )


@formula
def _covariance(
    hessian: Any, noise: Any, eta: Any, _beta: Any, decay: Any, steps: Any, continuous: bool
) -> Any:
    h, q = eigenmodes(hessian, decay)
    rate = h[:, None] + h - (0.0 if continuous else eta * h[:, None] * h)
    kept = 1 - eta * rate  # of an element in one step of the chain
    # 1 − kept^k = −expm1(k log kept), without cancellation in flat directions.
    log_kept = -eta * rate if continuous else jnp.log1p(-eta * jnp.where(kept > 0, rate, 0.0))
    grown = -jnp.expm1(steps * log_kept)
    if not continuous:
        grown = jnp.where(kept > 0, grown, 1 - kept**steps)
    forever = jnp.isinf(steps)
    flat = jnp.abs(rate) <= _FLAT * jnp.maximum(h[-1], np.finfo(float).tiny)
    still = jnp.where(forever, 0.0, steps * eta)  # of the stationary law C vanishes there
    factor = jnp.where(flat, still, jnp.where(forever, 1.0, grown) / jnp.where(flat, 1.0, rate))
    return q @ (eta * (q.T @ noise @ q) * factor) @ q.T


def escape_efficiency(
    hessian: Any, noise_covariance: Any, learning_rate: Any, steps: Any, time: str = "discrete"
) -> Float[Any, " k"]:
    """Mean loss above a quadratic minimum after each of `steps` steps of SGD from it.

    ½η² Tr(HC) after one step, exactly; (ηt/2) Tr(HC) while t = ηk ≪ 1/(2h_max). The measured
    counterpart for any loss is the mean loss of an ensemble started at the minimum.

    Raises as `AnisotropicQuadraticLaw.climb`. Source: Zhu et al. (2019), arXiv:1803.00195; derived.

    >>> import numpy as np
    >>> escape_efficiency(np.diag([1.0, 2.0]), np.eye(2), 0.1, steps=[1, 10]).round(4)
    array([0.015 , 0.0506])
    """
    return np.array(
        [
            AnisotropicQuadraticLaw(hessian, noise_covariance, learning_rate, k, time=time).climb()
            for k in np.atleast_1d(steps)
        ]
    )
