"""Exact stationary law of any linear optimiser on a quadratic with constant noise."""

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import equinox as eqx
import numpy as np
from jaxtyping import Float, PyTree
from scipy.linalg import solve_discrete_lyapunov

from statsgd.arguments import count, is_traced, location_vector, non_negative, symmetric
from statsgd.dynamics.accumulation import per_update
from statsgd.dynamics.noise import Minibatch
from statsgd.dynamics.optimiser import OptaxDynamics
from statsgd.dynamics.perturbed import PerturbedSGD, WeightNoise
from statsgd.dynamics.sgd import SGD
from statsgd.laws.law import ImproperLawError, register
from statsgd.laws.minimum.clipping import clipping_of
from statsgd.laws.minimum.epoch_noise import phase_covariances
from statsgd.laws.minimum.linear_chain import LinearChain, LinearChainLaw, with_curvature
from statsgd.laws.minimum.linear_optimiser import LinearOptimiser
from statsgd.laws.minimum.local_quadratic import quadratic_near
from statsgd.laws.minimum.noise_feedback import (
    data_noise,
    gaussian_noise,
    self_consistent_noise,
)
from statsgd.problems import LinearRegression, Problem

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
    regression does, C is its mean over the law itself, found by `from_dynamics` and
    `gaussian_inputs`: stationary moments and averages are exact then too, `after` is not, and
    the true law has heavier tails. It exists iff the `feedback_gain` is below 1.

    With `num_batches` M > 1 the data are reshuffled every epoch of M batches, whose kicks sum to
    zero, as in `EpochNoiseGaussian`: the law is that of the ends of epochs, and `average` and
    `after` count epochs instead of steps. With `steps_per_update` k > 1 an update takes the mean of
    the gradients of k steps (`optax.MultiSteps`), C is that of the mean, and parameters stand still
    between updates: the law is that of every step, and `average` and `after` count updates.

    Clipping of gradients is left out where the bound is rarely reached, and refused elsewhere.

    **Arguments:** `hessian` H `(d, d)`, loss/params²; `noise_covariance` C `(d, d)`; `optimiser`,
    a `minimum.LinearOptimiser`; `location` `(d,)`, the stationary mean, zero by default:
    `optimiser.mean(hessian, minimum)` has it where weights decay.

    Raises `ValueError` for other shapes. Source: *derived*; Polyak, Juditsky (1992) for averages,
    Liu, Ziyin, Ueda (2021), arXiv:2012.03636, for the matrix equation of heavy-ball SGD.

    >>> import numpy as np
    >>> from statsgd import SGD, noise, problems
    >>> bowl = problems.quadratic(np.diag([2.0]))
    >>> law = LinearOptimiserGaussian.from_dynamics(bowl, SGD(0.1, noise.Isotropic(1.0)))
    >>> law.covariance().round(4)
    array([[0.0278]])
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
    num_batches: int = eqx.field(static=True)
    """M of reshuffled epochs, at the ends of which the law is; 1 for white noise."""
    steps_per_update: int = eqx.field(static=True)
    """k: how many gradients are averaged for an update."""
    feedback_gain: Float[Any, ""]
    """Of noise that follows the state, for which C is self-consistent; 0 for constant noise."""

    def __init__(
        self,
        hessian: Any,
        noise_covariance: Any,
        optimiser: LinearOptimiser,
        location: Any = None,
        *,
        feedback_gain: float = 0.0,
        num_batches: int = 1,
        steps_per_update: int = 1,
    ):
        self.num_batches = count("num_batches", num_batches)
        self.steps_per_update = count("steps_per_update", steps_per_update)
        self.feedback_gain = np.float64(feedback_gain)
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
        if self.num_batches > 1 and radius < 1:
            transition, kicks, _ = self._step(first=False)
            covariances = phase_covariances(transition, kicks, self.num_batches, 0)
            self.state_covariance = np.asarray(covariances[0])
        if not feedback_gain < 1:
            self.state_covariance = np.full_like(self.state_covariance, np.nan)
        size = 2 * d if len(self.state_covariance) == 2 * d else d
        self.joint = self.state_covariance[:size, :size]

    @classmethod
    def from_dynamics(
        cls,
        problem: Problem,
        dynamics: SGD | OptaxDynamics | PerturbedSGD,
        at: PyTree | None = None,
    ) -> Self:
        """The law for `SGD` or a linear optimiser of optax near a minimum of `problem`.

        Also for `SharpnessAware` that is not normalised and for `WeightNoise`, on quadratics
        exactly: H and C are what stands for them there, as for constant noise.

        H and C are those where the mean comes to rest: the minimum of L with the weight decay that
        acts in the end, (1−β)ω for decoupled decay ω. `at` gives it; by default it is found. For
        `Minibatch` noise on `linear_regression` C is self-consistent.

        Gradients that are accumulated are taken update by update.

        Raises `ValueError` for dynamics that are not linear, or clipped in more than a thousandth
        of steps (if g is normal); for noise that is correlated in time by anything but epochs that
        are reshuffled; where parameters decay differently unless `at` is given; and as `minimise`.
        """
        seen, number, clipping = dynamics.noise, 1, None
        if isinstance(dynamics, OptaxDynamics):
            dynamics, number = per_update(dynamics, problem)
            found = clipping_of(dynamics, problem)
            clipping, optimiser = found or (None, LinearOptimiser.of(dynamics, problem))
        else:
            optimiser = LinearOptimiser.of(dynamics, problem)
        pull = np.atleast_2d(optimiser.at_rest()[0])
        decay = float(pull[0, 0])
        alike = np.allclose(pull, decay * np.eye(len(pull)), rtol=1e-9, atol=_ROUNDING)
        if at is None and not alike:
            raise ValueError("at must be given where weight decay differs between parameters")
        decay = decay if abs(decay) > _ROUNDING else 0.0
        if decay < 0:
            raise ValueError(
                f"the optimiser must let weights decay, not grow, got the decay {decay:.6g}: "
                "optax.add_decayed_weights belongs before the learning rate, which turns its sign"
            )
        batches = 1
        if isinstance(seen, Minibatch) and seen.sampling == "reshuffle":
            seen.check(problem)
            batches = getattr(problem, "num_examples", 1) // seen.batch_size
            if batches % number:
                raise ValueError(
                    f"the optimiser must accumulate a divisor of the {batches} batches of an epoch "
                    f"where data are reshuffled, got {number}"
                )
            # Batches of a shuffled epoch are, one or several together, one without repeats.
            seen = Minibatch(seen.batch_size * number, "without_replacement")
            batches, averaged = batches // number, 1
        else:
            averaged = number
        local = quadratic_near(problem, seen, decay, at)
        noise = local.noise_covariance / averaged
        if batches > 1 and isinstance(dynamics, WeightNoise):
            raise ValueError(
                "sampling must not be 'reshuffle' with WeightNoise, whose own part is independent "
                "from step to step"
            )
        if isinstance(dynamics, PerturbedSGD):
            hessian, kicks = dynamics.on_quadratic(local.hessian, noise)
            return cls(hessian, kicks, optimiser, local.location, num_batches=batches)
        if batches == 1 and isinstance(problem, LinearRegression) and isinstance(seen, Minibatch):
            one = data_noise(problem, seen)
            law = cls._following(
                local.hessian,
                noise,
                lambda params: one(params) / averaged,
                optimiser,
                local.location,
                steps_per_update=number,
            )
        else:
            law = cls(
                local.hessian,
                noise,
                optimiser,
                local.location,
                num_batches=batches,
                steps_per_update=number,
            )
        if clipping is not None:
            within = not clipping.by_norm or problem.dimension == 1
            speaks = "laws.AdaptiveGaussian speaks" if within else "no law speaks"
            must = "be linear in gradients, params and state"
            clipping.require_rare(law.gradient_second_moment(), must, f"{speaks} about it")
        return law

    @classmethod
    def gaussian_inputs(
        cls,
        input_covariance: Any,
        label_noise: Any,
        batch_size: int,
        optimiser: LinearOptimiser,
        location: Any = None,
    ) -> Self:
        """The law for fresh data x ~ N(0, A), y = x·θ* + noise of variance `label_noise` σ² ≥ 0.

        H = A, and C(θ) = (σ²A + A xxᵀ A + A xᵀAx)/S at the distance x from the minimum.
        """
        a = symmetric("input_covariance", input_covariance, definite="positive")
        noise = float(non_negative("label_noise", label_noise)) / count("batch_size", batch_size)
        return cls._following(a, noise * a, gaussian_noise(a, batch_size), optimiser, location)

    @classmethod
    def _following(
        cls,
        hessian: Any,
        at_minimum: Any,
        follows: Any,
        optimiser: LinearOptimiser,
        location: Any,
        steps_per_update: int = 1,
    ) -> Self:
        """The law where noise follows the state."""
        d = len(hessian)
        solve = _by_modes if optimiser.uniform else _dense
        found = self_consistent_noise(
            at_minimum, follows, lambda noise: solve(hessian, noise, optimiser)[1][:d, :d]
        )
        noise = found.noise_covariance
        return cls(
            hessian,
            noise,
            optimiser,
            location,
            feedback_gain=found.gain,
            steps_per_update=steps_per_update,
        )

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
            cls.gaussian_inputs(hessian, 0.5, 16, LinearOptimiser.sgd(0.1, 0.9, nesterov=True)),
        )

    @classmethod
    def improper_examples(cls) -> Sequence[Self]:
        """A learning rate above the threshold, and a flat direction."""
        return (
            cls([[1.0]], [[1.0]], LinearOptimiser.sgd(1.36, 0.9, nesterov=True)),
            cls(np.diag([1.0, 0.0]), np.eye(2), LinearOptimiser.sgd([0.1, 0.2], 0.9)),
            cls.gaussian_inputs([[1.0]], 1.0, 4, LinearOptimiser.sgd(0.8, 0.9, nesterov=True)),
        )

    def chain(self) -> LinearChain:
        """The chain of (θ, buffers), of ends of epochs where data are reshuffled."""
        transition, noise, _ = self._step(first=False)
        covariance = self.state_covariance
        if self.num_batches > 1:
            epoch = np.linalg.matrix_power(transition, self.num_batches)
            return LinearChain(
                epoch, covariance - epoch @ covariance @ epoch.T, self.state_mean, covariance
            )
        first = None if self.optimiser.first_entry is None else self._step(first=True)
        return LinearChain(transition, noise, self.state_mean, covariance, first)

    def _step(self, *, first: bool) -> tuple[Any, Any, Any]:
        """A, B C Bᵀ and where the mean state goes."""
        k, b = self.optimiser.matrices(self.dimension, first=first)
        image = k @ self.state_mean + b @ self.mean_gradient
        return with_curvature(k, b, self.hessian), b @ self.noise_covariance @ b.T, image

    def gradient_second_moment(self) -> Float[Any, "d d"]:
        """E ggᵀ of the stochastic gradients that make an update."""
        d = self.dimension
        moved = self.hessian @ self.state_covariance[:d, :d] @ self.hessian
        return self.noise_covariance + moved + np.outer(self.mean_gradient, self.mean_gradient)

    def _buffer_mean(self) -> Float[Any, " d"]:
        return self.state_mean[self.dimension :]

    def require_proper(self) -> None:
        """Raise `ImproperLawError` unless the mean is stable, with the threshold where known."""
        if is_traced(self.state_covariance) or not np.isnan(self.state_covariance[0, 0]):
            return
        if not self.feedback_gain < 1:
            raise ImproperLawError(
                "the variance is infinite: noise that grows away from the minimum feeds itself "
                f"with gain {float(self.feedback_gain):.6g} ≥ 1; take larger batches or a smaller "
                "learning rate"
            )
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
