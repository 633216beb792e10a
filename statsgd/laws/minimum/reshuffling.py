"""What reshuffling the data changes besides the variance: one fixed order, the loss, the mean."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree

from statsgd.arguments import count, fraction, kinds_checked, non_negative, positive
from statsgd.laws.minimum.heavy_ball import require_stable_mean
from statsgd.precision import formula
from statsgd.problems import EmpiricalRisk, Landscape, hessian, landscape


def single_shuffle_variance(
    curvature: Any,
    noise_variance: Any,
    learning_rate: Any,
    num_batches: int,
    momentum: Any = 0.0,
) -> Float[Any, "..."]:
    """Variance of a mode when one permutation is used for ever, over permutations.

    The noise has period M, so a run settles on an orbit of that period: across runs that share
    the permutation the stationary variance is zero. `curvature` h and `noise_variance` c (of one
    batch without repeats) broadcast; c(M+1)η²/12 for flat modes without momentum. The same at
    every phase.

    Raises `ImproperLawError` unless 0 < ηh < 2(1+β). Source: *derived*.

    >>> float(single_shuffle_variance(1.0, 1.0, learning_rate=0.01, num_batches=5).round(7))
    5.05e-05
    """
    h, c = np.broadcast_arrays(
        positive("curvature", curvature), non_negative("noise_variance", noise_variance)
    )
    eta, beta = (
        float(positive("learning_rate", learning_rate)),
        float(fraction("momentum", momentum)),
    )
    m = count("num_batches", num_batches, at_least=2)
    require_stable_mean(h, eta, beta)
    transition = np.empty((*h.shape, 2, 2))
    transition[..., 0, 0], transition[..., 0, 1] = 1 - eta * h, -eta * beta
    transition[..., 1, 0], transition[..., 1, 1] = h, beta
    entry = np.array([-eta, 1.0])
    # The orbit is x = Σ_i K_i ξ_i with K_i = (1 − F^M)⁻¹ Fⁱ G, and ξ sums to zero.
    closing = np.eye(2) - np.linalg.matrix_power(transition, m)
    responses = np.empty((m, *h.shape))
    state = np.broadcast_to(entry, (*h.shape, 2))
    for i in range(m):
        responses[i] = np.linalg.solve(closing, state[..., None])[..., 0, 0]
        state = (transition @ state[..., None])[..., 0]
    return c * m**2 / (m - 1) * responses.var(axis=0)


def crossover_curvature(learning_rate: Any, num_batches: int, momentum: Any = 0.0) -> Any:
    """Curvature h = 3(1−β)/(η(M+1)) below which reshuffling quiets a mode.

    There the flat and steep asymptotes of the variance at a random step meet; the variance is
    .5445 of that under white noise if M is large.

    >>> round(float(crossover_curvature(0.1, num_batches=9)), 4)
    3.0
    """
    eta, beta = positive("learning_rate", learning_rate), fraction("momentum", momentum)
    return 3 * (1 - beta) / (eta * (count("num_batches", num_batches, at_least=2) + 1))


@kinds_checked
def reshuffle_effective_loss(
    problem: EmpiricalRisk, learning_rate: Any, batch_size: int, weight_decay: Any = 0.0
) -> Landscape:
    """The loss that reshuffled SGD without momentum descends on average, as a problem.

        L̃ = L + (η/4) [ |∇L|² + (N−S)/(S(N−1)) tr Σ₁ ],    L with the weight-decay term

    An epoch of M steps acts as one step ηM on L̃, up to O(η³); `minimise` of it gives the mean at
    epoch ends up to O(η²). Independent batches keep the drift ∇L to this order.

    Source: Smith, Dherin, Barrett, De (2021), arXiv:2101.12176, for the effective loss of
    reshuffled SGD; the form with Σ₁ is derived.

    >>> import numpy as np
    >>> from statsgd.problems import linear_regression
    >>> problem = linear_regression(np.ones((2, 1)), np.array([1.0, 3.0]))
    >>> effective = reshuffle_effective_loss(problem, learning_rate=0.1, batch_size=1)
    >>> at = np.array([2.0])
    >>> round(float(problem.loss(at)), 4), round(float(effective.loss(at)), 4)
    (0.5, 0.525)
    """
    eta = float(positive("learning_rate", learning_rate))
    decay = float(non_negative("weight_decay", weight_decay))
    factor = _batch_factor(problem.num_examples, batch_size)

    def loss(params: PyTree) -> Any:
        flat = problem.flatten(params)
        full = problem.flatten(problem.gradient(params)) + decay * flat
        correction = jnp.sum(full**2) + factor * _noise_trace(problem, params)
        return problem.loss(params) + 0.5 * decay * jnp.sum(flat**2) + 0.25 * eta * correction

    return landscape(loss, lambda key: problem.initial_params(key))


@kinds_checked
def reshuffle_mean_shift(
    problem: EmpiricalRisk,
    at: PyTree,
    learning_rate: Any,
    batch_size: int,
    momentum: Any = 0.0,
    weight_decay: Any = 0.0,
) -> Float[Any, " d"]:
    """Shift of the stationary mean at epoch ends off the minimum `at`, to first order in η.

        −(η/2) φ(M, β) (N−S)/(S(N−1)) (H + λI)⁻¹ mean[(H_i − H) g_i],
        φ = 2/(M(M−1)) Σ_{l<M} (M−l)(1−β^l)/(1−β)

    (H_i and g_i belong to one example.) φ = 1 without momentum, → 1/(1−β) for long epochs. White
    batches do not shift the mean of a quadratic, nor does a single one. Raises `ValueError` unless
    S divides N.

    Source: *derived*.

    >>> import numpy as np
    >>> from statsgd.problems import linear_regression
    >>> problem = linear_regression(np.array([[1.0], [2.0]]), np.array([1.0, 0.0]))
    >>> reshuffle_mean_shift(problem, np.array([0.2]), learning_rate=0.1, batch_size=1).round(4)
    array([-0.024])
    """
    eta, beta = positive("learning_rate", learning_rate), fraction("momentum", momentum)
    decay = non_negative("weight_decay", weight_decay)
    n, s = problem.num_examples, count("batch_size", batch_size)
    if n % s:
        raise ValueError(f"reshuffle law needs S | N: N = {n}, S = {s}")
    if n == s:
        return np.zeros(problem.dimension)
    force = _mean_curvature_noise(problem, problem.parameters(at))
    stiffness = np.asarray(hessian(problem, at)) + decay * np.eye(problem.dimension)
    weight = eta / 2 * momentum_shift_factor(n // s, beta) * _batch_factor(n, s)
    return -weight * np.linalg.solve(stiffness, force)


def momentum_shift_factor(num_batches: int, momentum: Any) -> float:
    """φ(M, β) of `reshuffle_mean_shift`."""
    m = count("num_batches", num_batches, at_least=2)
    beta = float(fraction("momentum", momentum))
    lag = np.arange(1, m)
    return float(2 / (m * (m - 1)) * np.sum((m - lag) * (1 - beta**lag)) / (1 - beta))


def _batch_factor(num_examples: int, batch_size: int) -> float:
    size = count("batch_size", batch_size)
    if size > num_examples:
        raise ValueError(f"batch_size must be at most num_examples = {num_examples}, got {size}")
    return (num_examples - size) / (size * max(num_examples - 1, 1))


@formula
def _mean_curvature_noise(problem: EmpiricalRisk, params: PyTree) -> Float[Any, " d"]:
    """mean[(H_i − H) g_i] = ½ ∇ tr Σ₁ at `params`."""
    return 0.5 * problem.flatten(jax.grad(_noise_trace, 1)(problem, params))


def _noise_trace(problem: EmpiricalRisk, params: PyTree) -> Any:
    """tr Σ₁ at `params`."""
    gradients = problem.example_gradients(params, jnp.arange(problem.num_examples))
    return sum(jnp.sum(jnp.var(leaf, axis=0)) for leaf in jax.tree.leaves(gradients))
