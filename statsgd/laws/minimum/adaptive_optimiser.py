"""Optimisers that divide by running second moments of gradients: what they are once these rest."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Float

from statsgd.arguments import fraction, non_negative, positive, real
from statsgd.dynamics.optimiser import OptaxDynamics
from statsgd.laws.minimum.linear_optimiser import (
    LinearOptimiser,
    accumulates,
    linear_momentum,
    shifted_counts,
)
from statsgd.precision import in_double_precision
from statsgd.problems import Problem

_COUNTS = (10**6, 3 * 10**6, 2**30)  # of steps after which corrections of the start are over
_SCALES = (1e-2, 1.0, 1e2)  # of gradients, in roots of their second moment
_EXACT = 1e-9


class AdaptiveOptimiser(eqx.Module):
    """An optimiser that is linear, and moves every parameter by itself, once v stands still.

        v ← β₂ v + (1−β₂) (s g + λ θ)²,      z ← K(v) z + B(v) g,      z = (θ, buffers)

    with v taken after its update. A final class says what K and B are.
    """

    second_moment_decay: Float[Any, ""]
    """β₂."""
    gain: Float[Any, " d"]
    """s, what gradients are multiplied by before they are squared."""
    pull: Float[Any, " d"]
    """λ, the weight decay that is squared with them."""

    @abc.abstractmethod
    def frozen(self, second_moment: Float[Any, " d"]) -> LinearOptimiser:
        """K(v) and B(v) at v = `second_moment`."""

    def kicks(
        self, noise: Float[Any, "d d"], signal: Float[Any, "d d"]
    ) -> tuple[Float[Any, " d"], Float[Any, "d d"]]:
        """v at rest, but for mean gradients, and the covariance of what stands for ξ in B(v) ξ.

        **Arguments:** `noise` C; `signal`, the covariance of s∇L + λθ over the law.
        """
        return np.diagonal(self.gain[:, None] * noise * self.gain + signal), noise


class Adam(AdaptiveOptimiser):
    """Adam, AdamW and NAdam long after their start; RMSProp at β₁ = 0.

        g' = g + λθ,   m ← β₁m + (1−β₁)g',   v ← β₂v + (1−β₂)g'²
        θ ← (1−ηω) θ − η m/(√(v+ϵ₀)+ϵ),  with `nesterov` (β₁m + (1−β₁)g') in place of m

    **Arguments:** `learning_rate` η > 0, `momentum` β₁ and `second_moment_decay` β₂ in [0, 1),
    β₂ > 0; `epsilon` ϵ ≥ 0, outside the root, and `epsilon_in_root` ϵ₀ ≥ 0; `weight_decay` λ ≥ 0,
    `decoupled_weight_decay` ω ≥ 0; `dimension`. Raises `ValueError` for others.

    Source: Kingma, Ba (2015), arXiv:1412.6980; Loshchilov, Hutter (2019), arXiv:1711.05101.
    """

    learning_rate: float
    momentum: float
    epsilon: float
    epsilon_in_root: float
    decoupled_weight_decay: float
    nesterov: bool

    def __init__(
        self,
        learning_rate: Any,
        momentum: Any = 0.9,
        second_moment_decay: Any = 0.999,
        epsilon: Any = 1e-8,
        *,
        epsilon_in_root: Any = 0.0,
        weight_decay: Any = 0.0,
        decoupled_weight_decay: Any = 0.0,
        nesterov: bool = False,
        dimension: int = 1,
    ):
        self.learning_rate = float(positive("learning_rate", learning_rate))
        self.momentum = float(fraction("momentum", momentum))
        self.second_moment_decay = np.float64(
            real(
                "second_moment_decay",
                second_moment_decay,
                allowed="in (0, 1)",
                valid=lambda b: (b > 0) & (b < 1),
            )
        )
        self.epsilon = float(non_negative("epsilon", epsilon))
        self.epsilon_in_root = float(non_negative("epsilon_in_root", epsilon_in_root))
        self.decoupled_weight_decay = float(
            non_negative("decoupled_weight_decay", decoupled_weight_decay)
        )
        self.nesterov = bool(nesterov)
        self.gain = np.ones(dimension)
        self.pull = np.full(dimension, float(non_negative("weight_decay", weight_decay)))

    def frozen(self, second_moment: Float[Any, " d"]) -> LinearOptimiser:
        """Normalised momentum with the learning rates η/(√(v+ϵ₀)+ϵ)."""
        scale = np.sqrt(second_moment + self.epsilon_in_root) + self.epsilon
        beta = self.momentum
        direct, kept = (1 - beta, beta) if self.nesterov else (0.0, 1.0)
        transition, entry = linear_momentum(
            np.diag(self.learning_rate / scale),
            beta,
            1 - beta,
            direct,
            kept,
            self.pull,
            self.decoupled_weight_decay * scale,
        )
        return _of_one_parameter(transition, entry)


class SignDescent(AdaptiveOptimiser):
    """θ ← θ − η sign(g): RMSProp without memory, v = g².

    For a Gaussian gradient of covariance Γ = C + HPH around zero, in the mean sign(g) is
    √(2/π) g/√Γ_ii and the covariance of signs is (2/π) arcsin of that of g. What is not the
    mean is a kick as of independent noise.

    Source: *derived* (Stein's and Grothendieck's identities).
    """

    learning_rate: float

    def __init__(self, learning_rate: Any, dimension: int = 1):
        self.learning_rate = float(positive("learning_rate", learning_rate))
        self.second_moment_decay = np.float64(0.0)
        self.gain, self.pull = np.ones(dimension), np.zeros(dimension)

    def frozen(self, second_moment: Float[Any, " d"]) -> LinearOptimiser:
        """Gradient descent with the learning rates η√(2/π)/√v, v = diag Γ."""
        rates = self.learning_rate * np.sqrt(2 / np.pi / second_moment)
        return _of_one_parameter(np.eye(len(rates)), -np.diag(rates))

    def kicks(
        self, noise: Float[Any, "d d"], signal: Float[Any, "d d"]
    ) -> tuple[Float[Any, " d"], Float[Any, "d d"]]:
        """diag Γ, and the covariance of signs without the part that follows θ, over √(2/π)/√v."""
        total = noise + signal
        spread = np.sqrt(np.diagonal(total))
        outer = np.outer(spread, spread)
        return spread**2, outer * np.arcsin(np.clip(total / outer, -1, 1)) - signal


class OptaxAdaptive(AdaptiveOptimiser):
    """An optimiser of optax, read from its updates: `adaptive_optimiser` makes it."""

    dynamics: OptaxDynamics
    problem: Problem

    def frozen(self, second_moment: Float[Any, " d"]) -> LinearOptimiser:
        """The slopes of its update where v is `second_moment` after it, whatever the gradient.

        Raises `ValueError` unless the update is linear there, at any size and number of steps.
        """
        size = self.problem.dimension + sum(
            leaf.size for leaf in jax.tree.leaves(_parts(self.dynamics, self.problem)[1])
        )
        rng, slopes = np.random.default_rng(0), []
        unit = np.sqrt(np.mean(second_moment)) or 1.0
        for number in _COUNTS:
            for scale in _SCALES:
                point = scale * unit * rng.standard_normal(size + self.problem.dimension)
                after, slope = in_double_precision(
                    _frozen_slope, point, second_moment, self, np.asarray(number)
                )
                slopes.append(slope)
                for one, other in ((slope @ point, after), (slope, slopes[0])):
                    if not np.max(np.abs(one - other)) <= _EXACT * np.max(np.abs(other)):
                        raise _not_adaptive("is not linear where its second moments stand still")
        return _of_one_parameter(slopes[0][:, :size], slopes[0][:, size:])


def adaptive_optimiser(dynamics: Any, problem: Problem) -> AdaptiveOptimiser:
    """The adaptive optimiser in an `OptaxDynamics`, recognised by its updates alone.

    Whatever holds one running second moment `nu` of every gradient, as `optax.adam`, `adamw`,
    `nadam` and `rmsprop` do, with momentum before or after, weight decay and schedules that have
    come to their end within 10⁶ steps; and `optax.sign_sgd`, which holds nothing.

    Raises `ValueError` for any other, with the way out.
    """
    if not isinstance(dynamics, OptaxDynamics):
        raise ValueError(
            "dynamics must be an OptaxDynamics with an adaptive optimiser for this law, got "
            f"{type(dynamics).__name__}; laws.LinearOptimiserGaussian speaks about SGD"
        )
    dynamics.check(problem)
    nu, buffers, others = _parts(dynamics, problem)
    moments = sum(leaf.size for leaf in jax.tree.leaves(nu))
    if moments == 0:
        return _sign_descent(dynamics, problem, bool(jax.tree.leaves((buffers, others))))
    if moments != problem.dimension:
        raise _not_adaptive(
            f"holds {moments} running second moments for {problem.dimension} parameters"
        )
    return _read(dynamics, problem)


def _sign_descent(dynamics: OptaxDynamics, problem: Problem, memory: bool) -> AdaptiveOptimiser:
    if memory:
        raise _not_adaptive("holds no running second moment `nu`")
    d, rng = problem.dimension, np.random.default_rng(0)
    rates = []
    for scale in _SCALES:
        theta, gradient = scale * rng.standard_normal((2, d))
        moved = in_double_precision(_updated, theta, gradient, dynamics, problem)
        rates.append(-moved * np.sign(gradient))
    if not (np.min(rates) > 0 and np.ptp(rates) <= _EXACT * np.max(rates)):
        raise _not_adaptive("holds no running second moment `nu`, nor follows signs alone")
    return SignDescent(np.mean(rates), d)


def _read(dynamics: OptaxDynamics, problem: Problem) -> AdaptiveOptimiser:
    """β₂, s and λ from how v moves, and a test that it moves so."""
    d, rng = problem.dimension, np.random.default_rng(0)
    zero, one = np.zeros(d), np.ones(d)

    def moments(nu: Any, theta: Any, gradient: Any) -> Any:
        arguments = nu, theta, gradient, dynamics, problem, np.asarray(_COUNTS[0])
        return in_double_precision(_moments_after, *arguments)

    decay = moments(one, zero, zero)
    beta = float(decay[0])
    if np.ptp(decay) > _EXACT or not 0 < beta < 1:
        raise _not_adaptive(f"multiplies its second moments by {decay}, not one β₂ in (0, 1)")
    gain = np.sqrt(np.abs(moments(zero, zero, one)) / (1 - beta))
    pull = np.sqrt(np.abs(moments(zero, one, zero)) / (1 - beta))
    for scale in _SCALES:
        nu, (theta, gradient) = rng.uniform(1, 2, d) * scale**2, scale * rng.normal(size=(2, d))
        wanted = beta * nu + (1 - beta) * (gain * gradient + pull * theta) ** 2
        if not np.allclose(moments(nu, theta, gradient), wanted, rtol=_EXACT, atol=0):
            raise _not_adaptive("does not move `nu` by β₂ nu + (1−β₂)(s g + λθ)²")
    optimiser = OptaxAdaptive(np.float64(beta), gain, pull, dynamics, problem)
    optimiser.frozen(one)
    return optimiser


def _not_adaptive(what: str) -> ValueError:
    return ValueError(
        "dynamics must hold an adaptive optimiser such as optax.adam, adamw, nadam, rmsprop or "
        f"sign_sgd for this law, but it {what}; laws.LinearOptimiserGaussian speaks about linear "
        "ones, and simulate runs all"
    )


def _of_one_parameter(transition: Any, entry: Any) -> LinearOptimiser:
    """With one parameter in the form for parameters that move alike, which knows thresholds."""
    alone = entry.shape[1] == 1
    return LinearOptimiser(transition, entry[:, 0] if alone else entry)


def _parts(dynamics: OptaxDynamics, problem: Problem, params: Any = None) -> tuple[Any, Any, Any]:
    """The optimiser's state in three trees: second moments, other buffers, and the rest."""
    if params is None:
        state: Any = jax.eval_shape(dynamics.optimiser().init, problem.template)
    else:
        state = dynamics.optimiser().init(params)

    def is_moment(path: Any, _: Any) -> bool:
        return any(getattr(key, "name", None) == "nu" for key in path)

    nu, rest = eqx.partition(state, jax.tree_util.tree_map_with_path(is_moment, state))
    return nu, *eqx.partition(rest, jax.tree_util.tree_map_with_path(accumulates, rest))


def _updated(theta: Any, gradient: Any, dynamics: OptaxDynamics, problem: Problem) -> Any:
    params, grad = problem.unflatten(theta), problem.unflatten(gradient)
    optimiser = dynamics.optimiser()
    return problem.flatten(optimiser.update(grad, optimiser.init(params), params)[0])


def _update(
    nu: Any, vector: Any, gradient: Any, dynamics: OptaxDynamics, problem: Problem, number: Any
) -> tuple[Any, Any]:
    """v and z after one update; `vector` is z = (θ, buffers)."""
    d = problem.dimension
    params, grad = problem.unflatten(vector[:d]), problem.unflatten(gradient)
    moments, buffers, others = _parts(dynamics, problem, params)
    build_moments, build = ravel_pytree(moments)[1], ravel_pytree(buffers)[1]
    state = eqx.combine(build_moments(nu), build(vector[d:]), shifted_counts(others, number))
    updates, after = dynamics.optimiser().update(grad, state, params)
    kept = [ravel_pytree(_where(tree, after))[0] for tree in (moments, buffers)]
    return kept[0], jnp.concatenate([vector[:d] + problem.flatten(updates), kept[1]])


def _where(part: Any, state: Any) -> Any:
    """The leaves of `state` that `part` of another such state has."""
    return jax.tree.map(
        lambda mine, leaf: None if mine is None else leaf, part, state, is_leaf=lambda x: x is None
    )


def _moments_after(
    nu: Any, theta: Any, gradient: Any, dynamics: OptaxDynamics, problem: Problem, number: Any
) -> Any:
    buffers = _parts(dynamics, problem, problem.unflatten(theta))[1]
    vector = jnp.concatenate([theta, ravel_pytree(buffers)[0]])
    return _update(nu, vector, gradient, dynamics, problem, number)[0]


def _frozen_slope(
    point: Any, second_moment: Any, optimiser: OptaxAdaptive, number: Any
) -> tuple[Any, Any]:
    """z after an update that leaves v at `second_moment`, and its Jacobian; of (z, gradient)."""
    problem, d = optimiser.problem, optimiser.problem.dimension
    beta = optimiser.second_moment_decay

    def update(vector: Any) -> Any:
        theta, gradient = vector[:d], vector[-d:]
        squared = (optimiser.gain * gradient + optimiser.pull * theta) ** 2
        before = (second_moment - (1 - beta) * squared) / beta
        return _update(before, vector[:-d], gradient, optimiser.dynamics, problem, number)[1]

    return update(point), jax.jacfwd(update)(point)
