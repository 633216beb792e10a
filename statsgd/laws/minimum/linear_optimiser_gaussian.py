"""Exact stationary law of any linear optimiser on a quadratic with constant noise."""

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
from jaxtyping import Float, PyTree
from scipy.linalg import solve_discrete_lyapunov

from statsgd.arguments import is_traced, location_vector, symmetric
from statsgd.dynamics.optimiser import OptaxDynamics
from statsgd.dynamics.sgd import SGD
from statsgd.laws.law import ImproperLawError, register
from statsgd.laws.minimum.linear_chain import LinearChain, LinearChainLaw, with_curvature
from statsgd.laws.minimum.linear_optimiser import LinearOptimiser
from statsgd.laws.minimum.local_quadratic import quadratic_near
from statsgd.problems import Problem

_ROUNDING = 1e-12  # of weight decays, 1/time


@register
class LinearOptimiserGaussian(LinearChainLaw):
    """Stationary law of an optimiser that is linear in gradients and state, on a quadratic.

    Whatever moves (θ, buffers) = z by z ← K z + B g(θ) is one chain where L = ½(θ−θ*)ᵀH(θ−θ*) and
    Cov g = C at every θ,

        A = K + B H e₁ᵀ,      P = A P Aᵀ + B C Bᵀ

    heavy ball, Nesterov, quasi-hyperbolic momentum, dampening, coupled and decoupled weight decay,
    several buffers, one learning rate for each parameter or a matrix of them. Where all parameters
    move alike, P is found in pairs of modes of H by companion matrices of n = size/d rows, else
    from the discrete Lyapunov equation. H and C need not commute. Moments are exact at any
    learning rate; the law is Gaussian if the noise is. It exists iff the spectral radius of A is
    below 1: with at most one buffer iff all curvatures are in `optimiser.stable_curvatures()`.

    `average` has the laws of averages of iterates, `after` what happens before: both for constant
    noise. Where noise grows with the distance from the minimum, as that of minibatches on linear
    regression does, variances are larger: see `LinearRegressionGaussian`.

    **Arguments:** `hessian` H `(d, d)`, loss/params²; `noise_covariance` C `(d, d)`; `optimiser`,
    a `minimum.LinearOptimiser`; `location` `(d,)`, the stationary mean, zero by default:
    `optimiser.mean(hessian, minimum)` has it where weights decay.

    Raises `ValueError` for other shapes. Source: *derived*; Polyak, Juditsky (1992) for averages,
    Liu, Ziyin, Ueda (2021), arXiv:2012.03636, for the matrix equation of heavy-ball SGD.
    """

    setting: ClassVar[str] = "any linear optimiser, quadratic loss, constant noise covariance"
    exactness: ClassVar[str] = "exact first two moments at any learning rate"
    citation: ClassVar[str] = "derived; Polyak, Juditsky (1992), for averages"

    hessian: Float[Any, "d d"]
    noise_covariance: Float[Any, "d d"]
    optimiser: LinearOptimiser
    spectral_radius: Float[Any, ""]
    """Of A: the slowest of its modes decays by this factor a step."""
    state_covariance: Float[Any, "size size"]
    """P, of all of (θ, buffers)."""
    state_mean: Float[Any, " size"]
    """Of all of (θ, buffers), which rest off zero where weights decay beside them."""
    mean_gradient: Float[Any, " d"]
    """Of L, which balances weight decay."""

    def __init__(
        self,
        hessian: Any,
        noise_covariance: Any,
        optimiser: LinearOptimiser,
        location: Any = None,
    ):
        self.hessian = symmetric("hessian", hessian)
        d = len(self.hessian)
        self.noise_covariance = symmetric(
            "noise_covariance", noise_covariance, dimension=d, definite="semi"
        )
        if not optimiser.uniform and optimiser.entry.shape[1] != d:
            raise ValueError(
                f"optimiser must move {d} parameters, got one of {optimiser.entry.shape[1]}"
            )
        self.optimiser = optimiser
        self.location = location_vector(location, d)
        pull, buffers = optimiser.at_rest()
        if optimiser.uniform:
            pull, buffers = pull * np.eye(d), np.kron(buffers[:, None], np.eye(d))
        self.mean_gradient = -pull @ self.location
        self.state_mean = np.concatenate([self.location, buffers @ self.location])
        solve = _by_modes if optimiser.uniform else _dense
        radius, self.state_covariance = solve(self.hessian, self.noise_covariance, optimiser)
        self.spectral_radius = np.float64(radius)
        size = 2 * d if len(self.state_covariance) == 2 * d else d
        self.joint = self.state_covariance[:size, :size]

    @classmethod
    def from_dynamics(
        cls, problem: Problem, dynamics: SGD | OptaxDynamics, at: PyTree | None = None
    ) -> Self:
        """The law for `SGD` or a linear optimiser of optax near a minimum of `problem`.

        H and C are those where the mean comes to rest: the minimum of L with the weight decay that
        acts in the end, (1−β)ω for decoupled decay ω. `at` gives it; by default it is found.

        Raises `ValueError` for dynamics that are not linear, for noise that is correlated in time,
        where parameters decay differently unless `at` is given, and as `minimise`.
        """
        optimiser = LinearOptimiser.of(dynamics, problem)
        pull = np.atleast_2d(optimiser.at_rest()[0])
        decay = float(pull[0, 0])
        alike = np.allclose(pull, decay * np.eye(len(pull)), rtol=1e-9, atol=_ROUNDING)
        if at is None and not alike:
            raise ValueError("at must be given where weight decay differs between parameters")
        decay = decay if abs(decay) > _ROUNDING else 0.0
        local = quadratic_near(problem, dynamics.noise, decay, at)
        return cls(local.hessian, local.noise_covariance, optimiser, local.location)

    @classmethod
    def from_sgd(cls, problem: Problem, sgd: SGD, at: PyTree | None = None) -> Self:
        """As `from_dynamics`."""
        return cls.from_dynamics(problem, sgd, at)

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """Nesterov with decay, one learning rate for each parameter, quasi-hyperbolic momentum."""
        skew, hessian = [[1.0, 0.6], [0.6, 0.8]], np.diag([2.0, 0.5])
        decayed = LinearOptimiser.sgd(0.1, 0.9, nesterov=True, decoupled_weight_decay=0.2)
        return (
            cls(hessian, skew, decayed, location=decayed.mean(hessian, [0.5, -1.0])),
            cls(hessian, skew, LinearOptimiser.sgd([0.1, 0.4], 0.5, dampening=0.3)),
            cls([[1.0]], [[1.0]], LinearOptimiser.quasi_hyperbolic(0.5, 0.9, 0.7)),
        )

    @classmethod
    def improper_examples(cls) -> Sequence[Self]:
        """A learning rate above the threshold, and a flat direction."""
        return (
            cls([[1.0]], [[1.0]], LinearOptimiser.sgd(1.36, 0.9, nesterov=True)),
            cls(np.diag([1.0, 0.0]), np.eye(2), LinearOptimiser.sgd([0.1, 0.2], 0.9)),
        )

    def chain(self) -> LinearChain:
        """The chain of (θ, buffers)."""

        def step(first: bool) -> tuple[Any, Any, Any]:
            k, b = self.optimiser.matrices(self.dimension, first=first)
            image = k @ self.state_mean + b @ self.mean_gradient
            return with_curvature(k, b, self.hessian), b @ self.noise_covariance @ b.T, image

        first = None if self.optimiser.first_entry is None else step(True)
        transition, noise, _ = step(False)
        return LinearChain(transition, noise, self.state_mean, self.state_covariance, first)

    def _buffer_mean(self) -> Float[Any, " d"]:
        return self.state_mean[self.dimension :]

    def require_proper(self) -> None:
        """Raise `ImproperLawError` unless the mean is stable, with the threshold where known."""
        if is_traced(self.state_covariance) or not np.isnan(self.state_covariance[0, 0]):
            return
        threshold = ""
        if self.optimiser.uniform and len(self.optimiser.entry) <= 2:
            low, high = self.optimiser.stable_curvatures()
            curvatures = np.linalg.eigvalsh(self.hessian)
            worst = curvatures[0] if curvatures[0] <= low else curvatures[-1]
            threshold = f"the eigenvalue h = {worst:.6g} of hessian is outside ({low:.6g}, "
            threshold += f"{high:.6g}), where this optimiser is stable; "
        raise ImproperLawError(
            f"{threshold}the mean step has the spectral radius {self.spectral_radius:.6g}, not "
            "below 1: no stationary law"
        )


def _by_modes(hessian: Any, noise: Any, optimiser: LinearOptimiser) -> tuple[float, Any]:
    """Spectral radius and P where all parameters move alike: in pairs of modes of H."""
    h, q = np.linalg.eigh(hessian)
    steps, d = optimiser.steps_of(h), len(h)
    n = steps.shape[1]
    radius = float(np.max(np.abs(np.linalg.eigvals(steps))))
    blocks = np.full((n, n, d, d), np.nan)
    low, high = optimiser.stable_curvatures() if n <= 2 else (-np.inf, np.inf)
    if radius < 1 and low < h[0] and h[-1] < high:
        c, entry = q.T @ noise @ q, np.outer(optimiser.entry, optimiser.entry).ravel()
        for i in range(d):
            # A_i ⊗ A_j for every j: P_ij = A_i P_ij A_jᵀ + b bᵀ c_ij.
            pairs = np.einsum("ab,jcd->jacbd", steps[i], steps).reshape(d, n * n, n * n)
            found = np.linalg.solve(np.eye(n * n) - pairs, np.outer(c[i], entry)[..., None])
            blocks[:, :, i] = found.reshape(d, n, n).transpose(1, 2, 0)
        blocks = q @ blocks @ q.T
    return radius, blocks.transpose(0, 2, 1, 3).reshape(n * d, n * d)


def _dense(hessian: Any, noise: Any, optimiser: LinearOptimiser) -> tuple[float, Any]:
    """Spectral radius and P from the discrete Lyapunov equation."""
    k, b = optimiser.matrices(len(hessian))
    transition = with_curvature(k, b, hessian)
    radius = float(np.max(np.abs(np.linalg.eigvals(transition))))
    if radius >= 1:
        return radius, np.full(k.shape, np.nan)
    found = solve_discrete_lyapunov(transition, b @ noise @ b.T)
    return radius, (found + found.T) / 2
