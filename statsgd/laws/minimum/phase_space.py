"""The continuous underdamped model of heavy-ball SGD near a minimum."""

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
from jaxtyping import Float, PyTree

from statsgd.arguments import one_of, positive, symmetric
from statsgd.dynamics.sgd import SGD
from statsgd.laws.law import register
from statsgd.laws.minimum.gaussian import ConstantNoiseGaussian, eigenmodes, joint_covariance
from statsgd.laws.minimum.local_quadratic import local_quadratic
from statsgd.laws.minimum.ornstein_uhlenbeck import require_settled_position
from statsgd.precision import formula
from statsgd.problems import Problem


@register
class PhaseSpaceGaussian(ConstantNoiseGaussian):
    """Stationary law of the continuous model of heavy-ball SGD, positions and velocities.

    With a = 2/(η(1+β)), ζ = a(1−β) and Dv = 2C/(η(1+β)²) the model is

        dθ = v dt,   dv = −a(∇L + λθ) dt − ζ v dt + √(2Dv) dW,      v = −m

    On a quadratic with constant C, in the eigenbasis of H + λI (eigenvalues h),

        Cov(θ_i,θ_j) = S_ij = ηC_ij / [(1−β)(h_i+h_j) + η(1+β)(h_i−h_j)²/(4(1−β))]
        Cov(v_i,v_j) = (a/2)(h_i+h_j) S_ij,     Cov(θ_i,v_j) = a(h_i−h_j) S_ij/(2ζ)

    If C = σ²H/S, position and velocity are independent and p ∝ exp(−κΨ) with κ = S(1−β²): Ψ, the
    *modified loss*, penalises speed, and its θ-part is not L. The law exists for every η; the
    discrete chain has variances larger by 1/(1 − ηh/(2(1+β))) where C commutes with H, and
    diverges at ηh = 2(1+β) (see `HeavyBallGaussian`).

    **Arguments:** as `HeavyBallGaussian`. `PhaseSpaceGaussian.hessian_noise` builds C = σ²H/S.

    Source: Kunin et al. (2021), arXiv:2107.09133; general C is derived.

    >>> import numpy as np
    >>> from statsgd import SGD, noise, problems
    >>> bowl = problems.quadratic(np.diag([2.0]))
    >>> sgd = SGD(0.1, noise.HessianScaled(1.0), momentum=0.9)
    >>> PhaseSpaceGaussian.from_sgd(bowl, sgd).covariance().round(4)
    array([[0.5]])
    """

    setting: ClassVar[str] = "heavy-ball SGD near a minimum, continuous time, constant noise"
    exactness: ClassVar[str] = "exact for its SDE; relative error about ηh/(2(1+β)) for the chain"
    citation: ClassVar[str] = "Kunin et al. (2021), arXiv:2107.09133"

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
    def hessian_noise(
        cls,
        hessian: Any,
        noise_scale: Any,
        batch_size: Any,
        learning_rate: Any,
        momentum: Any = 0.0,
        weight_decay: Any = 0.0,
        location: Any = None,
    ) -> Self:
        """The published setting: one example's gradient covariance is σ²H, so C = σ²H/S.

        `noise_scale` is σ² (unit of loss; 2L at the minimum for least squares with label noise).
        """
        scale = positive("noise_scale", noise_scale) / positive("batch_size", batch_size)
        curvature = symmetric("hessian", hessian)
        covariance = scale * curvature
        return cls(curvature, covariance, learning_rate, momentum, weight_decay, location)

    @classmethod
    def from_sgd(
        cls, problem: Problem, sgd: SGD, at: PyTree | None = None, noise: str = "hessian"
    ) -> Self:
        """The law for `sgd` near a minimum of `problem`.

        `noise="hessian"` is the published assumption, C = H tr C/tr H; `noise="measured"` takes C
        at the minimum as it is. Raises as `local_quadratic`.
        """
        one_of("noise", noise, ("hessian", "measured"))
        local = local_quadratic(problem, sgd, at)
        if noise == "hessian":
            scale = np.trace(local.noise_covariance) / np.trace(local.hessian)
            local = local._replace(noise_covariance=scale * local.hessian)
        return cls._near(local, sgd)

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """The published setting, and noise that does not commute with the curvature."""
        skew = [[1.0, 0.6], [0.6, 0.8]]
        return (
            cls.hessian_noise(np.diag([4.0, 0.5]), 0.5, 8, 0.1, 0.9, 0.1),
            cls(np.diag([2.0, 0.5]), skew, 0.1, 0.9, location=[0.5, -1.0]),
        )

    @classmethod
    def improper_examples(cls) -> Sequence[Self]:
        """A saddle."""
        return (cls(np.diag([1.0, -1.0]), np.eye(2), 0.1),)

    @property
    def force_factor(self) -> Any:
        """The factor a = 2/(η(1+β)) in front of the gradient, 1/time."""
        return 2 / (self.learning_rate * (1 + self.momentum))

    @property
    def friction(self) -> Any:
        """ζ = 2(1−β)/(η(1+β)), 1/time; the damping rate of a mode is γ = ζ/2."""
        return self.force_factor * (1 - self.momentum)

    def frequencies(self) -> Float[Any, " d"]:
        """ω = √(ah) of each mode, 1/time; a mode oscillates iff ω > ζ/2."""
        self.require_proper()
        return (self.force_factor * self.modes().curvatures) ** 0.5

    def modified_loss(
        self, params: Float[Any, "... d"], velocity: Float[Any, "... d"]
    ) -> Float[Any, "..."]:
        """κΨ = −log p(θ, v) + log p(location, 0): dimensionless, zero at rest at the minimum."""
        at_rest = self.log_density(self.location, 0 * self.location)
        return at_rest - self.log_density(params, -velocity)

    def current_velocity(
        self, params: Float[Any, " d"], velocity: Float[Any, " d"]
    ) -> tuple[Float[Any, " d"], Float[Any, " d"]]:
        """Probability current divided by density, (dθ/dt, dv/dt), at a point of phase space.

        For C ∝ H this is (v, −a(H+λI)(θ−location)): a rotation along level sets of the modified
        loss. A non-zero current is what tells SGD with momentum from an equilibrium.
        """
        self.require_proper()
        x = np.asarray(params, dtype=np.float64) - self.location
        v = np.asarray(velocity, dtype=np.float64)
        d = self.dimension
        # J/p = drift − D∇log p with D = diag(0, Dv); ∇log p is linear in (x, v).
        sign = np.concatenate([np.ones(d), -np.ones(d)])
        score = -np.linalg.solve(self.joint * sign[:, None] * sign, np.concatenate([x, v], -1))
        diffusion = 2 * self.noise_covariance / (self.learning_rate * (1 + self.momentum) ** 2)
        stiffness = self.hessian + self.weight_decay * np.eye(d)
        force = -self.force_factor * stiffness @ x - self.friction * v
        return v, force - diffusion @ score[d:]

    def require_proper(self) -> None:
        """Raise `ImproperLawError` unless H + λI is positive definite."""
        require_settled_position(self)


@formula
def _joint_covariance(hessian: Any, noise: Any, eta: Any, beta: Any, decay: Any) -> Any:
    h, q = eigenmodes(hessian, decay)
    c = q.T @ noise @ q
    total, difference = h[:, None] + h, h[:, None] - h
    s = eta * c / ((1 - beta) * total + eta * (1 + beta) * difference**2 / (4 * (1 - beta)))
    velocity = total * s / (eta * (1 + beta))
    cross = -difference * s / (2 * (1 - beta))  # with m = −v
    return joint_covariance(q, s, cross, velocity)
