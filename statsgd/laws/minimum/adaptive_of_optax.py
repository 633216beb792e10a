"""Adaptive optimisers of optax, recognised by their updates."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Float

from statsgd.dynamics.accumulation import accumulates_gradients
from statsgd.dynamics.optimiser import OptaxDynamics
from statsgd.laws.minimum.adaptive_optimiser import (
    AdaptiveOptimiser,
    ClippedOptimiser,
    SignDescent,
    of_one_parameter,
)
from statsgd.laws.minimum.clipping import Clipping, clipping_of
from statsgd.laws.minimum.linear_optimiser import LinearOptimiser, accumulates, shifted_counts
from statsgd.precision import in_double_precision
from statsgd.problems import Problem

_COUNTS = (10**6, 3 * 10**6, 2**30)  # of steps after which corrections of the start are over
_SCALES = (1e-2, 1.0, 1e2)  # of gradients, in roots of their second moment
_EXACT = 1e-9
_CLIPPED = 1e-6  # optax clips by its own bound in single precision


class OptaxAdaptive(AdaptiveOptimiser):
    """An optimiser of optax, read from its updates: `adaptive_optimiser` makes it."""

    dynamics: OptaxDynamics
    problem: Problem
    clipping: Clipping | None

    def check(self, second_moment: Float[Any, "d d"]) -> None:
        """Raise `ValueError` where gradients are clipped more often than rarely."""
        if self.clipping is not None:
            self.clipping.require_rare(
                second_moment, "follow its gradients", "no law speaks about it"
            )

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
                if self.clipping is not None:
                    point[size:] *= self.clipping.harmless(self.problem.dimension) / (scale * unit)
                after, slope = in_double_precision(
                    _frozen_slope, point, second_moment, self, np.asarray(number)
                )
                slopes.append(slope)
                for one, other in ((slope @ point, after), (slope, slopes[0])):
                    if not np.max(np.abs(one - other)) <= _EXACT * np.max(np.abs(other)):
                        raise _not_adaptive("is not linear where its second moments stand still")
        return of_one_parameter(slopes[0][:, :size], slopes[0][:, size:])


def adaptive_optimiser(dynamics: Any, problem: Problem) -> AdaptiveOptimiser:
    """The adaptive optimiser in an `OptaxDynamics`, recognised by its updates alone.

    Whatever holds one running second moment `nu` of every gradient, as `optax.adam`, `adamw`,
    `nadam` and `rmsprop` do, with momentum before or after, weight decay and schedules that have
    come to their end within 10⁶ steps; `optax.sign_sgd`, which holds nothing; and whatever is
    linear behind `optax.clip`.

    Raises `ValueError` for any other, with the way out.

    >>> import numpy as np, optax, statsgd
    >>> dynamics = statsgd.OptaxDynamics(optax.adam(1e-3), statsgd.noise.Isotropic(1.0))
    >>> adam = adaptive_optimiser(dynamics, statsgd.problems.quadratic(np.eye(2)))
    >>> round(float(adam.second_moment_decay), 4)
    0.999
    """
    if not isinstance(dynamics, OptaxDynamics):
        raise ValueError(
            "dynamics must be an OptaxDynamics with an adaptive optimiser for this law, got "
            f"{type(dynamics).__name__}; laws.LinearOptimiserGaussian speaks about SGD"
        )
    dynamics.check(problem)
    if accumulates_gradients(dynamics, problem):
        raise _not_adaptive("accumulates gradients, where steps are single")
    nu, buffers, others = _parts(dynamics, problem)
    moments = sum(leaf.size for leaf in jax.tree.leaves(nu))
    if moments == 0:
        clipped = clipping_of(dynamics, problem)
        if clipped is not None and (problem.dimension == 1 or not clipped[0].by_norm):
            return ClippedOptimiser(clipped[1], clipped[0].bound, problem.dimension)
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
    """β₂, s, λ and clipping before them from how v moves, and a test that it moves so."""
    d, rng = problem.dimension, np.random.default_rng(0)
    zero, one = np.zeros(d), np.ones(d)

    def moments(nu: Any, theta: Any, gradient: Any) -> Any:
        arguments = nu, theta, gradient, dynamics, problem, np.asarray(_COUNTS[0])
        return in_double_precision(_moments_after, *arguments)

    decay = moments(one, zero, zero)
    beta = float(decay[0])
    if np.ptp(decay) > _EXACT or not 0 < beta < 1:
        raise _not_adaptive(f"multiplies its second moments by {decay}, not one β₂ in (0, 1)")
    spans = [np.sqrt(np.max(np.abs(moments(zero, zero, by * one)))) for by in (1e-12, 1e12)]
    pull = np.sqrt(np.abs(moments(zero, one, zero)) / (1 - beta))

    def reads(clipping: Clipping | None) -> AdaptiveOptimiser | None:
        """The optimiser if v moves so behind this clipping."""
        small = 1.0 if clipping is None else clipping.harmless(d)
        gain = np.sqrt(np.abs(moments(zero, zero, small * one)) / (1 - beta)) / small
        for scale in _SCALES:
            theta, gradient = scale * rng.normal(size=(2, d))
            seen = gradient if clipping is None else clipping.apply(gradient)
            nu = rng.uniform(1, 2, d) * np.mean(seen**2)
            wanted = beta * nu + (1 - beta) * (gain * seen + pull * theta) ** 2
            rounding = _EXACT if clipping is None else _CLIPPED
            if not np.allclose(moments(nu, theta, gradient), wanted, rtol=rounding, atol=0):
                return None
        return OptaxAdaptive(np.float64(beta), gain, pull, dynamics, problem, clipping)

    clippings: list[Clipping | None] = [None]
    if spans[0] > 0 and 1 < spans[1] / spans[0] < 1e18:
        bound = float(spans[1] / spans[0]) * 1e-12
        clippings = [Clipping(bound, False), Clipping(bound * d**0.5, True)]
    optimiser = next((found for one in clippings if (found := reads(one)) is not None), None)
    if optimiser is None:
        raise _not_adaptive("does not move `nu` by β₂ nu + (1−β₂)(s g + λθ)²")
    optimiser.frozen(one)
    return optimiser


def _not_adaptive(what: str) -> ValueError:
    return ValueError(
        "dynamics must hold an adaptive optimiser such as optax.adam, adamw, nadam, rmsprop or "
        f"sign_sgd for this law, but it {what}; laws.LinearOptimiserGaussian speaks about linear "
        "ones, and simulate runs all"
    )


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
