"""Stationary law of Adam and its relatives on a quadratic, their second moments at rest."""

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, Self

import equinox as eqx
import numpy as np
from jaxtyping import Float, PyTree
from scipy.optimize import brentq

from statsgd.arguments import count, is_traced, location_vector, non_negative, symmetric
from statsgd.dynamics.accumulation import per_update
from statsgd.dynamics.optimiser import OptaxDynamics
from statsgd.laws.domain import SmallNumber
from statsgd.laws.grids import DiscreteChainLaw, Grid
from statsgd.laws.law import ImproperLawError, register
from statsgd.laws.minimum.adaptive_chain import chain_in_one_parameter
from statsgd.laws.minimum.adaptive_of_optax import adaptive_optimiser
from statsgd.laws.minimum.adaptive_optimiser import (
    Adam,
    AdaptiveOptimiser,
    SignDescent,
)
from statsgd.laws.minimum.linear_chain import LinearChain, LinearChainLaw, with_curvature
from statsgd.laws.minimum.linear_optimiser import LinearOptimiser
from statsgd.laws.minimum.linear_optimiser_gaussian import LinearOptimiserGaussian
from statsgd.laws.minimum.local_quadratic import quadratic_near
from statsgd.precision import in_double_precision
from statsgd.problems import Problem

_ROUNDS = 500  # of second moments
_EXPANSIONS = 30  # of the loss about the mean
_SETTLED = 1e-11  # relative
_ARRIVED = 1e-6  # of a mean about which the loss is expanded, to its size and spread
_UNSTABLE = 1e-9  # by which the modulus of an eigenvalue exceeds one
_GROWTH = 4.0  # of second moments too small for a stable step
_FLATTEST = 1e-24  # learning rates, relative to the first, below which a step is unstable for good


@register
class AdaptiveGaussian(LinearChainLaw):
    """Stationary law of Adam, AdamW, RMSProp and sign descent near a minimum.

    With slow second moments, β₂ → 1, v stands still at its own mean, and the chain is linear with
    a learning rate for each parameter,

        v_i = E g_i² = C_ii + (HPH)_ii + (E g_i)²,     P = Cov θ at the learning rates η/(√v_i+ϵ)

    where L = ½(θ−θ*)ᵀH(θ−θ*) and Cov g = C: P is that of `LinearOptimiserGaussian`, and v the
    fixed point. To leading order Var θ = η√c/(2h) in one mode, whatever β₁, and only diag C enters
    the preconditioner. Decoupled decay ω moves the mean by the strength ω(√v+ϵ). Corrections of
    the start are over and left out.

    Sign descent is no limit of this: its steps are replaced by their mean, linear in θ, and by
    kicks of the same covariance, which gives Var θ = η√(2πc)/(4h) + πη²/16 for Gaussian noise. It
    is for all starts together: a run of its own keeps to a lattice of spacing η.

    **Error.** Relative, of variances, for small ε = ηh/√c: 1 − (1−β₂)(3/8) for Gaussian noise,
    1 + (1−β₂)(1 − 11(K−1)/16) for noise of kurtosis K, if 1−β₂ ≪ 1−β₁ or β₁ = 0; at ε near 1 and
    above it is of the same order in (1−β₂) λ_max(R H), and Var θ is larger then: ×1.03 at β₂ = .99,
    ×1.27 at .9 for β₁ = .9 and ε = 100 (simulation). With decoupled decay v moves the mean too, and
    adds its own (a few (1−β₂)). For sign descent O(ε²) for noise whose density is smooth at 0. The
    frozen chain is always stable, since v grows with its fluctuations; where there is next to no
    noise it sits close under the edge, where the true v moves and the law is not to be trusted.

    It exists iff H is positive in all directions that no decoupled decay holds, and noise reaches
    all parameters: without any v falls until `sharpness` = λ_max(R H) stands at the `edge` of
    stability, R the matrix of long-run learning rates: at (2+2β₁)/(1−β₁) for Adam, 2 for RMSProp.
    A `second_moment` that is given stands there, and the law exists iff `sharpness` < `edge`.

    **Arguments:** `hessian` H `(d, d)`, loss/params²; `noise_covariance` C `(d, d)`; `optimiser`,
    a `minimum.Adam` or another `minimum.AdaptiveOptimiser`; `minimum` θ* `(d,)`, of the loss
    without any decay, zero by default; `second_moment` `(d,)`, (loss/params)².

    Raises `ValueError` for other shapes. Source: *derived*; the edge of stability from Cohen et al.
    (2022), arXiv:2207.14484, the square-root rule in the batch size from Malladi et al. (2022),
    arXiv:2205.10287.

    >>> import numpy as np, optax
    >>> from statsgd import OptaxDynamics, noise, problems
    >>> adam = OptaxDynamics(optax.adam, noise.Isotropic(1.0), {"learning_rate": 0.1})
    >>> law = AdaptiveGaussian.from_dynamics(problems.quadratic(np.eye(1)), adam)
    >>> law.covariance().round(3)
    array([[0.049]])
    """

    setting: ClassVar[str] = "Adam, AdamW, RMSProp, sign descent; quadratic loss, constant noise"
    exactness: ClassVar[str] = "moments up to O(1−β₂), 3/8 of it for Gaussian noise"
    citation: ClassVar[str] = "derived; Cohen et al. (2022), arXiv:2207.14484, for the edge"

    hessian: Float[Any, "d d"]
    noise_covariance: Float[Any, "d d"]
    frozen: LinearOptimiserGaussian
    """The law of the linear optimiser that it is with its second moments at rest."""
    second_moment: Float[Any, " d"]
    """v at rest, (loss/params)²."""
    learning_rates: Float[Any, "d d"]
    """R: how far a steady gradient moves the parameters a step, in the long run."""
    sharpness: Float[Any, ""]
    """λ_max(R H), dimensionless."""
    edge: Float[Any, ""]
    """The sharpness at which the step becomes unstable; NaN where there is no stable one."""
    second_moment_decay: Float[Any, ""]
    optimiser: AdaptiveOptimiser
    steps_per_update: int = eqx.field(static=True)
    """k: how many gradients are averaged for an update (`optax.MultiSteps`)."""
    refusal: str = eqx.field(static=True)

    def __init__(
        self,
        hessian: Any,
        noise_covariance: Any,
        optimiser: AdaptiveOptimiser,
        minimum: Any = None,
        *,
        second_moment: Any = None,
        steps_per_update: int = 1,
    ):
        self.hessian = symmetric("hessian", hessian)
        d = len(self.hessian)
        self.noise_covariance = symmetric(
            "noise_covariance", noise_covariance, dimension=d, definite="semi"
        )
        if len(optimiser.gain) != d:
            raise ValueError(f"optimiser must move {d} parameters, got {len(optimiser.gain)}")
        chain = _Chain(self.hessian, self.noise_covariance, optimiser, location_vector(minimum, d))
        if second_moment is None:
            found = chain.settle()
        else:
            given = non_negative("second_moment", second_moment)
            if np.shape(given) != (d,):
                raise ValueError(f"second_moment must have shape ({d},), got {np.shape(given)}")
            found = chain.at(given)
        self.frozen, self.second_moment, self.refusal = found
        self.optimiser = optimiser
        self.steps_per_update = count("steps_per_update", steps_per_update)
        self.second_moment_decay = optimiser.second_moment_decay
        self.location = self.frozen.location
        self.joint = self.frozen.state_covariance[:d, :d]
        linear = self.frozen.optimiser
        self.learning_rates = _long_run(linear, d)
        reach = np.linalg.eigvals(self.learning_rates @ self.hessian).real
        self.sharpness = np.float64(np.max(reach))
        self.edge = np.float64(self.sharpness * _stretch_to_instability(linear, self.hessian))
        if not self.refusal and np.isnan(self.joint[0, 0]):
            self.refusal = (
                f"the preconditioned sharpness λ_max(R H) = {self.sharpness:.6g} must be below "
                f"{self.edge:.6g}, the edge of stability of this optimiser"
            )

    @classmethod
    def from_dynamics(
        cls,
        problem: Problem,
        dynamics: Any,
        at: PyTree | None = None,
        *,
        second_moment: Any = None,
    ) -> Self:
        """The law for an adaptive optimiser of optax near a minimum of `problem`.

        The optimiser is recognised by its updates (see `minimum.adaptive_optimiser`), built in or
        built from `hyperparameters`. H and C are those where the mean comes to rest, which is
        found, unless `at` gives params to expand the loss about. `second_moment` as above.

        Raises `ValueError` for optimisers that are not recognised, or clip more than a thousandth
        of the gradients before they take second moments, noise that is correlated in
        time, parameters with different coupled decay unless `at` is given, and where no minimum is
        found.
        """
        updates, number = dynamics, 1
        if isinstance(dynamics, OptaxDynamics):
            updates, number = per_update(dynamics, problem)
        optimiser, noise = adaptive_optimiser(updates, problem), dynamics.noise
        decay = optimiser.pull / np.where(optimiser.gain > 0, optimiser.gain, 1.0)
        if at is None and np.ptp(decay) > _ARRIVED * np.max(decay):
            raise ValueError("at must be given where weight decay differs between parameters")
        where = at
        for _ in range(_EXPANSIONS):
            place = quadratic_near(problem, noise, decay[0], where)
            slope = in_double_precision(_gradient, problem, place.location)
            # Where a quadratic with this gradient has its minimum, if it has one.
            minimum = place.location - np.linalg.lstsq(place.hessian, slope, rcond=None)[0]
            law = cls(
                place.hessian,
                place.noise_covariance / number,
                optimiser,
                minimum,
                second_moment=second_moment,
                steps_per_update=number,
            )
            moved = np.max(np.abs(law.location - place.location))
            size = np.max(np.abs(place.location)) + np.sqrt(np.max(np.abs(np.diag(law.joint))))
            if at is not None or law.refusal or not moved > _ARRIVED * size:
                optimiser.check(law.frozen.gradient_second_moment())
                return law
            where = problem.unflatten(law.location)
        raise ValueError(
            f"the mean did not come to rest in {_EXPANSIONS} expansions of the loss about it; pass "
            "at=params if the loss may be expanded there"
        )

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """Adam, RMSProp on two parameters, AdamW away from zero, sign descent."""
        tilted, skew = [[2.0, 0.5], [0.5, 1.0]], [[1.0, 0.6], [0.6, 0.8]]
        decayed = Adam(0.02, decoupled_weight_decay=0.2, dimension=2)
        return (
            cls([[1.0]], [[1.0]], Adam(0.1)),
            cls(tilted, skew, Adam(0.1, 0.0, 0.99, dimension=2)),
            cls(tilted, skew, decayed, [1.0, -0.5]),
            cls(tilted, skew, SignDescent(0.05, 2)),
        )

    @classmethod
    def improper_examples(cls) -> Sequence[Self]:
        """A flat direction, no noise, and second moments too small for the curvature."""
        return (
            cls(np.diag([1.0, 0.0]), np.eye(2), Adam(0.1, dimension=2)),
            cls([[1.0]], [[0.0]], Adam(0.1)),
            cls([[1.0]], [[1.0]], Adam(0.1), second_moment=[1e-6]),
        )

    def chain(self) -> LinearChain:
        """The chain of (θ, buffers) with second moments at rest."""
        return self.frozen.chain()

    def refined(self, grid: Grid | None = None) -> DiscreteChainLaw:
        """The law of the chain as it runs, with v in motion, for one parameter without momentum.

        Of (θ, ln v) for Adam with β₁ = 0, RMSProp and AdamW with it, β₂ ≥ ½; of θ for sign descent,
        averaged over offsets of its lattice. Noise is normal, with the variance C. Exact up to an
        error of the grid of about 10⁻³ in Var θ.

        **Arguments:** `grid` over (θ, ln v), or θ; by default one about this law.

        Raises `ValueError` for more parameters, momentum, which makes a state of three dimensions,
        clipping, and faster second moments.
        """
        self.ensure_proper()
        if self.dimension > 1:
            raise ValueError(
                f"dimension must be 1 for a chain on a grid, got {self.dimension} parameters"
            )
        centre, slope = float(self.location[0]), float(self.frozen.mean_gradient[0])
        return chain_in_one_parameter(
            self.hessian,
            self.noise_covariance,
            self.optimiser,
            centre - slope / float(self.hessian[0, 0]),
            centre,
            float(self.joint[0, 0]) ** 0.5,
            float(self.second_moment[0]),
            grid,
        )

    def require_proper(self) -> None:
        """Raise `ImproperLawError` unless second moments come to rest under the edge."""
        if self.refusal and not is_traced(self.joint):
            raise ImproperLawError(f"{self.refusal}: no stationary law")

    def small_numbers(self, problem: Problem, sgd: Any) -> Sequence[SmallNumber]:
        """1−β₂ and the sharpness over its edge; without memory steps over the spread."""
        return self.optimiser.small_numbers(self, self._spread())


class _Settled(NamedTuple):
    law: LinearOptimiserGaussian
    second_moment: Float[Any, " d"]
    refusal: str


class _Chain:
    """An adaptive optimiser on a quadratic."""

    def __init__(self, hessian: Any, noise: Any, optimiser: AdaptiveOptimiser, minimum: Any):
        self.hessian, self.noise = hessian, noise
        self.optimiser, self.minimum = optimiser, minimum
        self.push = optimiser.gain[:, None] * hessian + np.diag(optimiser.pull)

    def linear(self, moment: Any, kicks: Any) -> LinearOptimiserGaussian:
        """The law at rest at v = `moment`."""
        frozen, d = self.optimiser.frozen(moment), len(self.hessian)
        pull = frozen.at_rest()[0] * np.eye(d) if frozen.uniform else frozen.at_rest()[0]
        # The smallest mean where several are stationary: then there is no law anyway.
        mean = np.linalg.lstsq(self.hessian + pull, self.hessian @ self.minimum, rcond=None)[0]
        return LinearOptimiserGaussian(self.hessian, kicks, frozen, mean)

    def squared(self, law: LinearOptimiserGaussian) -> tuple[Any, Any]:
        """E g'² and the kicks of the next round, where θ has this law."""
        d = len(self.hessian)
        signal = self.push @ law.state_covariance[:d, :d] @ self.push.T
        moment, kicks = self.optimiser.kicks(self.noise, signal)
        mean = self.optimiser.gain * law.mean_gradient + self.optimiser.pull * law.location
        return moment + mean**2, kicks

    def at(self, moment: Any) -> _Settled:
        kicks = self.optimiser.kicks(self.noise, 0 * self.noise)[1]
        return _Settled(self.linear(moment, kicks), moment, "")

    def settle(self) -> _Settled:
        """The fixed point of v, by damped steps of its logarithm that learn how far v overshoots.

        The damping is one over one minus the slope of the map along the last step; where a step
        leads to second moments so small that the chain is unstable it is halved.
        """
        start, kicks = self.optimiser.kicks(self.noise, 0 * self.noise)
        if not np.any(start > 0):
            law = self.linear(np.ones(len(start)), self.noise)
            reach = _stretch_to_instability(law.optimiser, self.hessian)
            sharp = np.max(np.linalg.eigvals(_long_run(law.optimiser, len(start)) @ self.hessian))
            words = (
                "no noise keeps second moments up: they fall until λ_max(R H) stands at the edge "
                f"of stability {reach * sharp.real:.6g}"
            )
            return _Settled(_without_law(law), np.zeros_like(start), words)
        moment = np.where(start > 0, start, np.max(start))
        largest = moment / _FLATTEST
        known: tuple[Any, Any] | None = None
        damping = 1.0
        for _ in range(_ROUNDS):
            law = self.linear(moment, kicks)
            if np.isnan(law.state_covariance[0, 0]):
                if np.any(moment > largest):
                    words = (
                        "some direction has no positive curvature, nor decoupled decay to hold it: "
                        "the smallest eigenvalue of hessian is "
                        f"{np.linalg.eigvalsh(self.hessian)[0]:.6g}"
                    )
                    return _Settled(law, moment, words)
                if known is None:
                    moment = _GROWTH * moment
                else:
                    damping /= 2
                    moment = known[0] * np.exp(damping * known[1])
                continue
            target, after = self.squared(law)
            step = np.log(target / moment)
            still = np.max(np.abs(after - kicks)) <= _SETTLED * np.max(np.abs(after))
            if np.max(np.abs(step)) <= _SETTLED and still:
                return _Settled(law, moment, "")
            if known is not None:
                taken = np.log(moment / known[0])
                length = taken @ taken
                # −slope: the map moved by step + taken − known step.
                bend = -((step + taken - known[1]) @ taken) / length if length else 0.0
                damping = 1 / (1 + bend) if bend > 0 else 1.0
            known, kicks = (moment, step), after
            moment = moment * np.exp(damping * step)
        words = f"second moments did not come to rest in {_ROUNDS} rounds"
        return _Settled(_without_law(law), moment, words)


def _without_law(law: LinearOptimiserGaussian) -> LinearOptimiserGaussian:
    nothing = np.full_like(law.state_covariance, np.nan)
    return eqx.tree_at(lambda one: one.state_covariance, law, nothing)


def _long_run(optimiser: LinearOptimiser, d: int) -> Float[Any, "d d"]:
    """How far a steady gradient moves the parameters a step, decay apart, buffers at rest."""
    k, b = optimiser.matrices(d)
    buffers = np.linalg.solve(np.eye(len(k) - d) - k[d:, d:], b[d:])
    return -(b[:d] + k[:d, d:] @ buffers)


def _stretch_to_instability(optimiser: LinearOptimiser, hessian: Any) -> float:
    """The factor on all curvatures at which a stable step becomes unstable; NaN without one."""
    k, b = optimiser.matrices(len(hessian))

    def excess(logarithm: float) -> float:
        step = with_curvature(k, b, np.exp(logarithm) * hessian)
        return float(np.max(np.abs(np.linalg.eigvals(step)))) - 1 - _UNSTABLE

    reach = np.linalg.eigvalsh(hessian)[-1] * np.linalg.norm(_long_run(optimiser, len(hessian)), 2)
    if not reach > 0:
        return np.nan
    # At a sharpness of a thousandth all optimisers are stable that are at all.
    low = -np.log(1e3 * reach)
    if not excess(low) < 0:
        return np.nan
    high = next((low + i for i in range(1, 60) if excess(low + i) > 0), None)
    return np.nan if high is None else float(np.exp(brentq(excess, high - 1, high, xtol=1e-13)))


def _gradient(problem: Problem, vector: Float[Any, " d"]) -> Float[Any, " d"]:
    return problem.flatten(problem.gradient(problem.unflatten(vector)))
