"""Heavy-ball SGD in the modes of a quadratic, from any start and after any number of steps.

In a mode of curvature h the state z = (x, m) of position and momentum buffer moves by

    z ← F z + G (g + ξ),      F = [[1−ηh, −ηβ], [h, β]],      G = (−η, 1)

for a mean gradient g at x = 0 and noise ξ. Two modes share a noise of covariance c, and have the
covariance c R: R is their *response*, a 2 × 2 matrix which is a sum over past kicks. Nothing here
needs a minimum: h may have either sign. Sums over n steps take log n products.

Arrays of transitions `(…, 2, 2)` broadcast: F[:, None] and F[None] give the responses of all pairs.

Source: Liu, Ziyin, Ueda (2021), arXiv:2012.03636, for the chain; sums over epochs are derived.
"""

from typing import Any

import numpy as np
from jaxtyping import Float

from statsgd.laws.minimum.heavy_ball import heavy_ball_moments
from statsgd.laws.minimum.linear_chain import by_doubling

type Transitions = Float[Any, "... 2 2"]

_FOREVER = 60  # doublings, which reach any spectral radius below one


def transitions(curvatures: Any, learning_rate: Any, momentum: Any) -> Transitions:
    """F of every mode."""
    h = np.asarray(curvatures, dtype=np.float64)
    eta, beta = float(learning_rate), float(momentum)
    rows = [[1 - eta * h, np.full_like(h, -eta * beta)], [h, np.full_like(h, beta)]]
    return np.moveaxis(np.array(rows), (0, 1), (-2, -1))


def mean_state(
    steps_of: Float[Any, "k 2 2"], learning_rate: Any, gradient: Any, start: Any, steps: int
) -> Float[Any, "k 2"]:
    """Mean of z after `steps`, from `start` `(k, 2)` under the mean gradients g `(k,)`."""
    entry = _entry(learning_rate)

    def double(state: Any) -> Any:
        power, total = state
        return power @ power, total + _apply(power, total)

    def add_one(state: Any) -> Any:
        power, total = state
        return steps_of @ power, entry + _apply(steps_of, total)

    nothing = np.broadcast_to(np.eye(2), steps_of.shape), np.zeros(steps_of.shape[:-1])
    power, total = by_doubling(steps, double, add_one, nothing)
    return _apply(power, np.asarray(start)) + total * np.asarray(gradient)[:, None]


def response(
    left: Transitions,
    right: Transitions,
    learning_rate: Any,
    steps: int,
    num_batches: int | None = None,
) -> Float[Any, "... 2 2"]:
    """R after `steps` from a point, which begins an epoch.

    White noise, Σ Fⁱ GGᵀ F'ⁱᵀ, or with `num_batches` M reshuffled epochs, in which the noises of
    any two of the M steps have −1/(M−1) of the covariance of one: with a step's response aᵢ = FⁱG
    and the mean ā over the j steps that an epoch has come to,

        Q_j = M/(M−1) [Σ_{i<j} (aᵢ − ā)(a'ᵢ − ā')ᵀ + j(1 − j/M) ā ā'ᵀ]

    enters at the end of each epoch and at the end of all steps.
    """
    entry = _entry(learning_rate)
    if num_batches is None:
        return gathered(left, right, np.outer(entry, entry), steps)
    epochs, rest = divmod(steps, num_batches)
    boundary = _boundary(left, right, entry, num_batches, epochs)
    return _into_epoch(left, right, entry, boundary, rest, num_batches)


def stationary_response(
    curvatures: Float[Any, " k"],
    learning_rate: Any,
    momentum: Any,
    num_batches: int | None = None,
    phase: int = 0,
) -> Float[Any, "k k 2 2"]:
    """R of all pairs of modes for ever after, `phase` steps into an epoch; for stable modes."""
    eta, h = float(learning_rate), np.asarray(curvatures, dtype=np.float64)
    if num_batches is None:
        ones = np.ones((len(h), len(h)))
        params, cross, buffer = heavy_ball_moments(h, ones, eta, float(momentum))
        return np.moveaxis(np.array([[params, cross], [cross.T, buffer]]), (0, 1), (2, 3))
    of_one = transitions(h, eta, momentum)
    left, right, entry = of_one[:, None], of_one[None], _entry(eta)
    boundary = _boundary(left, right, entry, num_batches, 2**_FOREVER)
    return _into_epoch(left, right, entry, boundary, phase, num_batches)


def gathered(left: Transitions, right: Transitions, noise: Any, steps: int) -> Any:
    """Σ_{i<steps} Lⁱ N Rⁱᵀ for a kick N `(…, 2, 2)`."""

    def double(state: Any) -> Any:
        first, second, total = state
        return first @ first, second @ second, total + first @ total @ _transposed(second)

    def add_one(state: Any) -> Any:
        first, second, total = state
        return left @ first, right @ second, noise + left @ total @ _transposed(right)

    eye, shape = np.eye(2), np.broadcast_shapes(left.shape, right.shape)
    nothing = np.broadcast_to(eye, left.shape), np.broadcast_to(eye, right.shape), np.zeros(shape)
    return by_doubling(steps, double, add_one, nothing)[2]


def ramped_covariance(
    curvatures: Float[Any, " k"],
    learning_rate: Any,
    momentum: Any,
    noises: tuple[Float[Any, "k k"], Float[Any, "k k"]],
    steps: int,
    full_after: int,
) -> Float[Any, "2*k 2*k"]:
    """Covariance of (x, m) `(2k, 2k)` after `steps` where white noise grows with the loss.

    From C to C̄, the `noises`: that of step n is C + (C̄ − C) q_n, q_n the excess loss Σ hᵢ Var xᵢ
    of the modes with h > 0 after n steps of noise C, over that after `full_after`, at most one.
    Starts from a point.
    """
    of_one, entry = transitions(curvatures, learning_rate, momentum), _entry(learning_rate)
    left, right, kick = of_one[:, None], of_one[None], np.outer(entry, entry)
    stiffness = np.clip(curvatures, 0, None) * noises[0].diagonal()
    full = float(stiffness @ response(of_one, of_one, learning_rate, full_after)[:, 0, 0])
    constant = growing = np.zeros((len(of_one), len(of_one), 2, 2))
    for _ in range(steps):
        loss = float(stiffness @ constant.diagonal()[0, 0])
        share = min(loss / full, 1.0) if full > 0 else 0.0
        growing = left @ growing @ _transposed(right) + share * kick
        constant = left @ constant @ _transposed(right) + kick
    return block_covariance(constant, noises[0]) + block_covariance(growing, noises[1] - noises[0])


def block_covariance(
    response_of_pairs: Float[Any, "k k 2 2"], noise: Float[Any, "k k"]
) -> Float[Any, "2*k 2*k"]:
    """Covariance of (x, m) `(2k, 2k)` from the responses of pairs and the covariance of noise."""
    blocks = response_of_pairs * np.asarray(noise)[..., None, None]
    size = 2 * len(blocks)
    return blocks.transpose(2, 0, 3, 1).reshape(size, size)


def _within_epoch(left: Any, right: Any, entry: Any, steps: int, num_batches: int) -> Any:
    """Q_j, j = `steps`: mean and spread of the aᵢ are merged, as plain sums cancel where flat."""
    if num_batches == 1:
        return np.zeros(np.broadcast_shapes(left.shape, right.shape))

    def double(state: Any) -> Any:
        number, powers, means, spread = state
        later = [_apply(power, mean) for power, mean in zip(powers, means, strict=True)]
        moved = [after - mean for after, mean in zip(later, means, strict=True)]
        spread = spread + powers[0] @ spread @ _transposed(powers[1])
        spread = spread + number / 2 * _outer(*moved)
        means = [(after + mean) / 2 for after, mean in zip(later, means, strict=True)]
        return 2 * number, [power @ power for power in powers], means, spread

    def add_one(state: Any) -> Any:
        number, powers, means, spread = state
        share = number / (number + 1)
        moved = [_apply(one, mean) - entry for one, mean in zip((left, right), means, strict=True)]
        spread = left @ spread @ _transposed(right) + share * _outer(*moved)
        powers = [left @ powers[0], right @ powers[1]]
        return number + 1, powers, [entry + share * by for by in moved], spread

    shapes = left.shape, right.shape
    nothing = (
        0,
        [np.broadcast_to(np.eye(2), shape) for shape in shapes],
        [np.zeros(shape[:-1]) for shape in shapes],
        np.zeros(np.broadcast_shapes(*shapes)),
    )
    _, _, means, spread = by_doubling(steps, double, add_one, nothing)
    rest = steps * (1 - steps / num_batches) * _outer(*means)
    return num_batches / (num_batches - 1) * (spread + rest)


def _boundary(left: Any, right: Any, entry: Any, num_batches: int, epochs: int) -> Any:
    """R after whole epochs."""
    noise = _within_epoch(left, right, entry, num_batches, num_batches)
    power = np.linalg.matrix_power
    return gathered(power(left, num_batches), power(right, num_batches), noise, epochs)


def _into_epoch(
    left: Any, right: Any, entry: Any, boundary: Any, steps: int, num_batches: int
) -> Any:
    """R `steps` into an epoch, from that at its boundary."""
    powers = [np.linalg.matrix_power(one, steps) for one in (left, right)]
    inside = _within_epoch(left, right, entry, steps, num_batches)
    return powers[0] @ boundary @ _transposed(powers[1]) + inside


def _entry(learning_rate: Any) -> Float[Any, "2"]:
    return np.array([-float(learning_rate), 1.0])


def _apply(matrices: Any, vectors: Any) -> Any:
    return (matrices @ vectors[..., None])[..., 0]


def _outer(left: Any, right: Any) -> Any:
    return left[..., :, None] * right[..., None, :]


def _transposed(matrices: Any) -> Any:
    return np.swapaxes(matrices, -1, -2)
