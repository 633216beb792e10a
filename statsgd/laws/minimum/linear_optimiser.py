"""Optimisers that are linear in gradients and state: one matrix and one entry for the gradient."""

from typing import Any, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Float

from statsgd.arguments import fraction, non_negative, positive, real, symmetric
from statsgd.dynamics.accumulation import accumulates_gradients
from statsgd.dynamics.dynamics import Dynamics
from statsgd.dynamics.noise import GradientNoise
from statsgd.dynamics.optimiser import OptaxDynamics
from statsgd.dynamics.perturbed import PerturbedSGD
from statsgd.dynamics.sgd import SGD
from statsgd.precision import in_double_precision
from statsgd.problems import Problem

_SCALES = (1e-3, 1.0, 1e6)  # of the points at which linearity is looked at
_COUNTS = (0, 1, 100_000)  # of steps taken there
_LINEAR = 1e-9
_ROUNDING = 1e-12


class LinearOptimiser(eqx.Module):
    """One step z ← K z + B g of parameters and buffers, z = (θ, buffers), g a stochastic gradient.

    Made by `sgd`, `quasi_hyperbolic`, or `of` any dynamics that is of this kind.

    **Arguments:** `transition` K and `entry` B: `(n, n)` and `(n,)` where every parameter moves
    alike, n − 1 the number of buffers; else `(size, size)` and `(size, d)`, size the length of z.
    `first_transition` and `first_entry`: those of the first step from rest, if it is another one.

    >>> heavy_ball = LinearOptimiser.sgd(0.1, momentum=0.9)
    >>> heavy_ball.transition.round(4).tolist(), heavy_ball.entry.round(4).tolist()
    ([[1.0, -0.09], [0.0, 0.9]], [-0.1, 1.0])
    """

    transition: Float[Any, "size size"]
    entry: Float[Any, "size *d"]
    first_transition: Float[Any, "size size"] | None = None
    first_entry: Float[Any, "size *d"] | None = None

    @classmethod
    def sgd(
        cls,
        learning_rate: Any,
        momentum: Any = 0.0,
        weight_decay: Any = 0.0,
        *,
        nesterov: bool = False,
        dampening: Any = 0.0,
        decoupled_weight_decay: Any = 0.0,
    ) -> Self:
        """`SGD`, z = (θ, m): heavy ball, Nesterov, dampening, both kinds of weight decay.

        The `learning_rate` may also be one for every parameter `(d,)`, or a matrix `(d, d)`,
        symmetric and positive definite.
        """
        beta = float(fraction("momentum", momentum))
        damped = 1 - float(fraction("dampening", dampening)) if beta else 1.0
        decays = (
            float(non_negative("weight_decay", weight_decay)),
            float(non_negative("decoupled_weight_decay", decoupled_weight_decay)),
        )
        rate = rate_matrix(learning_rate)
        direct, kept = (1.0, beta) if nesterov else (0.0, 1.0)
        whole = linear_momentum(rate, beta, damped, direct, kept, *decays)
        first = (
            linear_momentum(rate, beta, 1.0, direct, kept, *decays) if damped < 1 else (None, None)
        )
        return cls(*whole, *first)

    @classmethod
    def quasi_hyperbolic(
        cls, learning_rate: Any, momentum: Any, weight: Any, weight_decay: Any = 0.0
    ) -> Self:
        """m ← βm + (1−β)g, θ ← θ − η((1−w)g + wm), `weight` w in [0, 1]; w = 1: normalised.

        Source: Ma, Yarats (2019), arXiv:1810.06801.
        """
        beta = float(fraction("momentum", momentum))
        w = float(real("weight", weight, allowed="in [0, 1]", valid=lambda w: (w >= 0) & (w <= 1)))
        decay = float(non_negative("weight_decay", weight_decay))
        return cls(
            *linear_momentum(rate_matrix(learning_rate), beta, 1 - beta, 1 - w, w, decay, 0.0)
        )

    @classmethod
    def of(cls, dynamics: Dynamics, problem: Problem) -> Self:
        """The optimiser in `dynamics`: `SGD`, or an `OptaxDynamics` that turns out to be linear.

        Of dynamics that take gradients beside the parameters it is what is done with these.

        Raises `ValueError` for any other, such as one with a schedule, clipping or running
        second moments.
        """
        if isinstance(dynamics, SGD):
            return cls.sgd(
                dynamics.learning_rate,
                dynamics.momentum,
                dynamics.weight_decay,
                nesterov=dynamics.nesterov,
                dampening=dynamics.dampening,
                decoupled_weight_decay=dynamics.decoupled_weight_decay,
            )
        if isinstance(dynamics, PerturbedSGD):
            return cls.sgd(dynamics.learning_rate, dynamics.momentum)
        if isinstance(dynamics, OptaxDynamics):
            if accumulates_gradients(dynamics, problem):
                raise ValueError(
                    "the optimiser must not accumulate gradients here, where steps are single; "
                    "laws.LinearOptimiserGaussian takes it update by update"
                )
            return cls(*_linearised(dynamics, problem))
        raise ValueError(
            "dynamics must be SGD, SharpnessAware, WeightNoise or OptaxDynamics for this law, got "
            f"{type(dynamics).__name__}"
        )

    def as_sgd(self, noise: GradientNoise) -> SGD | None:
        """The `SGD` that makes the same steps with the same buffer; None if none does."""
        if not self.uniform or len(self.entry) > 2 or self.first_entry is not None:
            return None
        rate, decay = -self.entry[0], 1 - self.transition[0, 0]
        buffered = len(self.entry) == 2
        beta = self.transition[1, 1] if buffered else 0.0
        for nesterov, eta in ((False, rate), (True, rate / (1 + beta))):
            # Without a buffer both kinds of decay are one.
            coupled = self.transition[1, 0] if buffered else decay / eta
            decoupled = (decay - rate * coupled) / eta
            coupled, decoupled = (0.0 if abs(x) < _LINEAR else x for x in (coupled, decoupled))
            within = 0 <= beta < 1 and eta > 0 and coupled >= 0 and decoupled >= 0
            if not within or (nesterov and not beta):
                continue
            sgd = SGD(
                eta, noise, beta, coupled, nesterov=nesterov, decoupled_weight_decay=decoupled
            )
            if self._makes_the_steps_of(sgd):
                return sgd
        return None

    def _makes_the_steps_of(self, sgd: SGD) -> bool:
        n = len(self.entry)
        # Without momentum the buffer of SGD is the gradient, which moves nothing later.
        other = self.sgd(
            sgd.learning_rate,
            sgd.momentum,
            sgd.weight_decay,
            nesterov=sgd.nesterov,
            decoupled_weight_decay=sgd.decoupled_weight_decay,
        )
        pairs = ((self.transition, other.transition[:n, :n]), (self.entry, other.entry[:n]))
        return all(np.allclose(*pair, rtol=_LINEAR, atol=_ROUNDING) for pair in pairs)

    @property
    def uniform(self) -> bool:
        """Whether every parameter moves alike."""
        return self.entry.ndim == 1

    def matrices(self, dimension: int, *, first: bool = False) -> tuple[Any, Any]:
        """K `(size, size)` and B `(size, d)` over all of z, of any step or of the first."""
        parts: tuple[Any, Any] = self.transition, self.entry
        if first and self.first_entry is not None:
            parts = self.first_transition, self.first_entry
        if not self.uniform:
            return parts
        eye = np.eye(dimension)
        return np.kron(parts[0], eye), np.kron(parts[1][:, None], eye)

    def at_rest(self) -> tuple[Any, Any]:
        """W and M of the states that a step leaves in place: mean gradient −Wθ, buffers Mθ.

        W is the weight decay that acts in the end; a number, or `(d, d)`. Raises `ValueError`
        where gradients never reach the parameters.
        """
        k, b = self.transition, self.entry.reshape(len(self.entry), -1)
        d = b.shape[1]
        still = np.eye(len(k)) - k
        unknowns = np.concatenate([still[:, d:], -b], axis=1)
        if np.linalg.cond(unknowns) > 1e14:
            raise ValueError("gradients must reach the parameters, or no step leaves them in place")
        found = np.linalg.solve(unknowns, -still[:, :d])
        pull, buffers = -found[len(k) - d :], found[: len(k) - d]
        return (pull[0, 0], buffers[:, 0]) if self.uniform else (pull, buffers)

    def mean(self, hessian: Any, minimum: Any) -> Float[Any, " d"]:
        """The stationary mean on ½(θ−θ*)ᵀH(θ−θ*), θ* = `minimum`: weight decay moves it."""
        h, d = np.asarray(hessian, dtype=np.float64), len(minimum)
        pull = self.at_rest()[0] * np.eye(d) if self.uniform else self.at_rest()[0]
        return np.linalg.solve(h + pull, h @ np.asarray(minimum, dtype=np.float64))

    def steps_of(self, curvatures: Float[Any, " d"]) -> Float[Any, "d n n"]:
        """K + h B e₁ᵀ, the mean step in modes of curvature h; where parameters move alike."""
        first = np.eye(len(self.transition))[0]
        return self.transition + curvatures[:, None, None] * np.outer(self.entry, first)

    def stable_curvatures(self) -> tuple[float, float]:
        """The interval of curvatures in which the mean is stable, with at most one buffer.

        From the three conditions of Jury, which are linear in h: det < 1 and ±tr < 1 + det.
        """
        flat, unit = self.steps_of(np.array([0.0, 1.0]))
        trace = np.trace(flat), np.trace(unit) - np.trace(flat)
        if len(flat) == 1:
            conditions = [(1 - trace[0], -trace[1]), (1 + trace[0], trace[1])]
        else:
            det = np.linalg.det(flat), np.linalg.det(unit) - np.linalg.det(flat)
            conditions = [
                (1 - det[0], -det[1]),
                (1 - trace[0] + det[0], det[1] - trace[1]),
                (1 + trace[0] + det[0], det[1] + trace[1]),
            ]
        bounds = [(-constant / slope, slope) for constant, slope in conditions if slope]
        low = max([bound for bound, slope in bounds if slope > 0], default=-np.inf)
        high = min([bound for bound, slope in bounds if slope < 0], default=np.inf)
        return (0.0 if abs(low) < _ROUNDING * high else float(low)), float(high)


def rate_matrix(learning_rate: Any, dimension: int | None = None) -> Any:
    """A learning rate: a number, or one for every parameter `(d,)` as the matrix it stands for.

    Raises `ValueError` unless positive (definite), and for another `dimension`.
    """
    shape = np.shape(learning_rate)
    if shape == ():
        return positive("learning_rate", learning_rate)
    if len(shape) == 1:
        learning_rate = np.diag(positive("learning_rate", learning_rate))
    return symmetric("learning_rate", learning_rate, dimension=dimension, definite="positive")


def linear_momentum(
    rate: Any,
    beta: float,
    entering: float,
    direct: float,
    kept: float,
    decay: Any,
    decoupled: Any,
) -> tuple[Any, Any]:
    """K and B of m ← βm + κ(g+λθ), θ ← θ − Λ(α(g+λθ) + νm + ωθ), κ, α, ν and λ, ω as given."""
    uniform = rate.ndim == 0
    step = np.reshape(rate, (1, 1)) if uniform else rate
    eye = np.eye(len(step))
    reach = direct + kept * entering
    entry = np.concatenate([-reach * step, entering * eye])
    rows = [[eye - decoupled * step, -kept * beta * step], [0 * eye, beta * eye]]
    transition = np.block(rows)
    transition[:, : len(eye)] += decay * entry
    return transition, entry[:, 0] if uniform else entry


def _linearised(dynamics: OptaxDynamics, problem: Problem) -> tuple[Any, Any]:
    """K and B of an optimiser of optax, from the slopes of its update."""
    d, size = problem.dimension, state_size(dynamics, problem)
    rng = np.random.default_rng(0)
    slopes = []
    for scale in _SCALES:
        for number in _COUNTS:
            point = scale * rng.standard_normal(size + d)
            count = np.asarray(number)
            after, slope = in_double_precision(step_and_slope, point, problem, dynamics, count)
            slopes.append(slope)
            for one, other in ((slope @ point, after), (slope, slopes[0])):
                off = np.max(np.abs(one - other))
                if not off <= _LINEAR * np.max(np.abs(other)):
                    raise ValueError(
                        "the optimiser must be linear in gradients, params and state, and the same "
                        f"at every step, but its update is not at params of size {scale:g} after "
                        f"{number} steps; laws.AdaptiveGaussian speaks about Adam, its relatives "
                        "and gradients clipped by element"
                    )
    return shortest_form(slopes[0][:, :size], slopes[0][:, size:])


def shortest_form(k: Any, b: Any) -> tuple[Any, Any]:
    """K and B over all of z, or those of one parameter where all move alike."""
    size, d = b.shape
    if size % d:
        return k, b
    n = size // d
    blocks = k.reshape(n, d, n, d).transpose(0, 2, 1, 3), b.reshape(n, d, d)
    same = [block[..., 0, 0, None, None] * np.eye(d) for block in blocks]
    pairs = zip(blocks, same, strict=True)
    if all(np.allclose(block, one, rtol=1e-12, atol=0) for block, one in pairs):
        return blocks[0][..., 0, 0], blocks[1][..., 0, 0]
    return k, b


def accumulates(path: Any, leaf: Any) -> bool:
    """Whether a leaf of an optimiser's state is a buffer, not a count nor an injected number."""
    injected = any(getattr(key, "name", None) == "hyperparams" for key in path)
    return bool(jnp.issubdtype(leaf.dtype, jnp.inexact)) and not injected


def shifted_counts(state: Any, number: Any) -> Any:
    """`state` with all its counts `number` steps further."""

    def shift(leaf: Any) -> Any:
        counts = jnp.issubdtype(leaf.dtype, jnp.integer)
        return leaf + jnp.asarray(number, leaf.dtype) if counts else leaf

    return jax.tree.map(shift, state)


def state_size(dynamics: OptaxDynamics, problem: Problem) -> int:
    """The length of (θ, buffers)."""
    state = jax.eval_shape(dynamics.optimiser().init, problem.template)
    buffers = [
        leaf for path, leaf in jax.tree_util.tree_leaves_with_path(state) if accumulates(path, leaf)
    ]
    return problem.dimension + sum(leaf.size for leaf in buffers)


def step_and_slope(
    point: Any, problem: Problem, dynamics: OptaxDynamics, number: Any
) -> tuple[Any, Any]:
    """(θ, buffers) after one update from (θ, buffers, gradient), and its Jacobian matrix."""
    d, optimiser = problem.dimension, dynamics.optimiser()
    start = optimiser.init(problem.unflatten(point[:d]))
    which = jax.tree_util.tree_map_with_path(accumulates, start)
    buffers, others = eqx.partition(start, which)
    flat, build = ravel_pytree(buffers)
    moved = shifted_counts(others, number)

    def update(vector: Any) -> Any:
        params, gradient = (problem.unflatten(part) for part in (vector[:d], vector[-d:]))
        state = eqx.combine(build(vector[d : d + len(flat)]), moved)
        updates, after = optimiser.update(gradient, state, params)
        kept, _ = ravel_pytree(eqx.filter(after, which))
        return jnp.concatenate([vector[:d] + problem.flatten(updates), kept])

    return update(point), jax.jacfwd(update)(point)
