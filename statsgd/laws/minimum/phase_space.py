"""The continuous underdamped model of heavy-ball SGD near a minimum."""

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree

from statsgd.arguments import fraction, is_traced, non_negative, one_of, positive, symmetric
from statsgd.dynamics.sgd import SGD
from statsgd.laws.bases.gaussian import GaussianLaw, join_blocks
from statsgd.laws.law import ImproperLawError, register
from statsgd.laws.minimum.heavy_ball import location_vector
from statsgd.laws.minimum.local_quadratic import local_quadratic
from statsgd.problems import Problem


@register
class PhaseSpaceGaussian(GaussianLaw):
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
    """

    setting: ClassVar[str] = "heavy-ball SGD near a minimum, continuous time, constant noise"
    exactness: ClassVar[str] = "exact for its SDE; relative error about ηh/(2(1+β)) for the chain"
    citation: ClassVar[str] = "Kunin et al. (2021), arXiv:2107.09133"

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
        self.noise_covariance = symmetric("noise_covariance", noise_covariance, dimension=d)
        self.learning_rate = positive("learning_rate", learning_rate)
        self.momentum = fraction("momentum", momentum)
        self.weight_decay = non_negative("weight_decay", weight_decay)
        self.location = location_vector(location, d)
        self.joint = self._joint()

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
        covariance = local.noise_covariance
        if noise == "hessian":
            covariance = local.hessian * np.trace(covariance) / np.trace(local.hessian)
        return cls(
            local.hessian,
            covariance,
            sgd.learning_rate,
            sgd.momentum,
            sgd.weight_decay,
            local.location,
        )

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
        """A maximum, and a covariance that is not one."""
        return cls(np.diag([1.0, -1.0]), np.eye(2), 0.1), cls(np.eye(2), -np.eye(2), 0.1)

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
        xp = jnp if is_traced(self.joint) else np
        return xp.sqrt(self.force_factor * self.modes().curvatures)

    def log_density(
        self,
        params: Float[Any, " d"],
        momentum_buffer: Float[Any, " d"] | None = None,
        *,
        velocity: Float[Any, " d"] | None = None,
    ) -> Float[Any, ""]:
        """Log density of `params`, or of the pair with `momentum_buffer` m or `velocity` v = −m."""
        buffer = momentum_buffer if velocity is None else -jnp_or_np(velocity)
        return GaussianLaw.log_density(self, params, buffer)

    def modified_loss(self, params: Float[Any, " d"], velocity: Float[Any, " d"]) -> Float[Any, ""]:
        """κΨ = −log p(θ, v) + log p(location, 0): dimensionless, zero at rest at the minimum."""
        at_rest = self.log_density(self.location, velocity=0 * self.location)
        return at_rest - self.log_density(params, velocity=velocity)

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
        """Raise `ImproperLawError` unless H + λI > 0 and C is positive semi-definite."""
        if is_traced(self.hessian, self.noise_covariance, self.weight_decay):
            return
        smallest = float(self.modes().curvatures[0])
        if smallest <= 0:
            raise ImproperLawError(
                f"hessian + weight_decay*I has eigenvalue {smallest:.6g} ≤ 0 (mode 0): the "
                "position does not settle"
            )
        noise = np.linalg.eigvalsh(self.noise_covariance)
        if noise[0] < -1e-10 * abs(noise[-1]):
            raise ImproperLawError(
                "noise_covariance must be positive semi-definite, got smallest eigenvalue "
                f"{noise[0]:.6g} < 0"
            )

    def _joint(self) -> Any:
        d = self.hessian.shape[0]
        try:
            self.require_proper()
        except ImproperLawError:
            return np.full((2 * d, 2 * d), np.nan)
        h, q = self.modes()
        c = q.T @ self.noise_covariance @ q
        eta, beta, a, zeta = self.learning_rate, self.momentum, self.force_factor, self.friction
        total, difference = h[:, None] + h, h[:, None] - h
        s = eta * c / ((1 - beta) * total + eta * (1 + beta) * difference**2 / (4 * (1 - beta)))
        velocity = a / 2 * total * s
        cross = -a * difference * s / (2 * zeta)  # with m = −v
        return join_blocks(*(q @ block @ q.T for block in (s, cross, velocity)))


def jnp_or_np(value: Any) -> Any:
    """`value` as an array of the library it comes from."""
    return jnp.asarray(value) if is_traced(value) else np.asarray(value)
