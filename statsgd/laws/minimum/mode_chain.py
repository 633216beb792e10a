"""Heavy-ball SGD in the modes of a quadratic, from any start and after any number of steps.

In a mode of curvature h the state z = (x, m) of position and momentum buffer moves by

    z ← F z + G (g + ξ),      F = [[1−ηh, −ηβ], [h, β]],      G = (−η, 1)

for a mean gradient g at x = 0 and noise ξ. Two modes share a noise of covariance c, and have the
covariance c R: R is their *response*, a 2 × 2 matrix which is a sum over past kicks. Nothing here
needs a minimum: h may have either sign. Sums over n steps take log n products.

Arrays of transitions `(…, 2, 2)` broadcast: F[:, None] and F[None] give the responses of all pairs.

Source: Liu, Ziyin, Ueda (2021), arXiv:2012.03636, for the chain; sums over epochs are derived.
"""

from typing import Any, NamedTuple, Self

import numpy as np
from jaxtyping import Float

from statsgd.laws.minimum.heavy_ball import heavy_ball_moments
from statsgd.laws.minimum.linear_chain import by_doubling

type Transitions = Float[Any, "... 2 2"]


class Epoch(NamedTuple):
    """How shuffled batches go through the data.

    With N examples in batches of S, ρ = N/S, batch j of t_j S of them, the noises of two batches
    of an epoch have ρ/(ρ−1) (δ_jk/t_j − 1/ρ) times the covariance of a whole batch (derived; for
    equal batches that go through all examples M/(M−1) (δ_jk − 1/M)).
    """

    num_batches: int
    """Steps of an epoch M."""
    size: float
    """ρ: M where equal batches go through all examples, more where some are left out."""
    last: float = 1.0
    """t_M: size of the last batch over that of the others."""
    repeated: bool = False
    """Whether the order of the first epoch is that of all."""

    @classmethod
    def of(cls, num_batches: int) -> Self:
        """Reshuffled epochs of equal batches, which go through all examples."""
        return cls(num_batches, float(num_batches))


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
    epoch: Epoch | None = None,
) -> Float[Any, "... 2 2"]:
    """R after `steps` from a point, which begins an epoch.

    White noise, Σ Fⁱ GGᵀ F'ⁱᵀ, or that of an `epoch`: with a step's response aᵢ = FⁱG and the mean
    ā over the j steps that an epoch has come to,

        Q_j = ρ/(ρ−1) [Σ_{i<j} (aᵢ − ā)(a'ᵢ − ā')ᵀ + j(1 − j/ρ) ā ā'ᵀ + [j = M] (1/t_M − 1) GGᵀ]

    enters at the end of each epoch and at the end of all steps. Where one order is repeated for
    ever, aᵢ is the response to all uses of a batch, and j = M.
    """
    entry = _entry(learning_rate)
    if epoch is None:
        return gathered(left, right, np.outer(entry, entry), steps)
    epochs, rest = divmod(steps, epoch.num_batches)
    if epoch.repeated:
        return _repeated(left, right, entry, epochs, rest, epoch)
    boundary = _boundary(left, right, entry, epoch, epochs)
    return _into_epoch(left, right, entry, boundary, rest, epoch)


def independent_response(
    left: Transitions, right: Transitions, learning_rate: Any, steps: int, epoch: Epoch
) -> Float[Any, "... 2 2"]:
    """R after `steps` from a point, of noise that every batch of an `epoch` has for itself.

    That of dropout, say: white, but that a last batch of another size has 1/t_M times as much.
    """
    entry = _entry(learning_rate)
    white = gathered(left, right, np.outer(entry, entry), steps)
    return white + _of_last_batches(left, right, entry, *divmod(steps, epoch.num_batches), epoch)


def stationary_independent_response(
    curvatures: Float[Any, " k"], learning_rate: Any, momentum: Any, epoch: Epoch, phase: int = 0
) -> Float[Any, "k k 2 2"]:
    """`independent_response` for ever after, `phase` steps into an epoch; for stable modes."""
    white = stationary_response(curvatures, learning_rate, momentum)
    of_one, entry = transitions(curvatures, learning_rate, momentum), _entry(learning_rate)
    ask = (entry, 2**_FOREVER, phase, epoch)
    return white + _of_last_batches(of_one[:, None], of_one[None], *ask)


def stationary_response(
    curvatures: Float[Any, " k"],
    learning_rate: Any,
    momentum: Any,
    epoch: Epoch | None = None,
    phase: int = 0,
) -> Float[Any, "k k 2 2"]:
    """R of all pairs of modes for ever after, `phase` steps into an epoch; for stable modes."""
    eta, h = float(learning_rate), np.asarray(curvatures, dtype=np.float64)
    if epoch is None:
        ones = np.ones((len(h), len(h)))
        params, cross, buffer = heavy_ball_moments(h, ones, eta, float(momentum))
        return np.moveaxis(np.array([[params, cross], [cross.T, buffer]]), (0, 1), (2, 3))
    of_one = transitions(h, eta, momentum)
    left, right, entry = of_one[:, None], of_one[None], _entry(eta)
    if epoch.repeated:
        return _repeated(left, right, entry, 2**_FOREVER, phase, epoch)
    boundary = _boundary(left, right, entry, epoch, 2**_FOREVER)
    return _into_epoch(left, right, entry, boundary, phase, epoch)


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


def _within_epoch(left: Any, right: Any, entry: Any, steps: int, epoch: Epoch) -> Any:
    """Q_j, j = `steps`."""
    shapes = (*left.shape[:-2], 2), (*right.shape[:-2], 2)
    sequence = _sequence(left, right, [np.broadcast_to(entry, shape) for shape in shapes], steps)
    last = np.outer(entry, entry) if steps == epoch.num_batches else 0.0
    return _of_sequence(*sequence, last, epoch)


def _of_sequence(number: int, means: Any, spread: Any, last: Any, epoch: Epoch) -> Any:
    """Q of responses with these means and this spread; `last` is that of the last batch."""
    if epoch.size == 1:
        return np.zeros_like(spread)
    rest = number * (1 - number / epoch.size) * _outer(*means)
    extra = (1 / epoch.last - 1) * last
    return epoch.size / (epoch.size - 1) * (spread + rest + extra)


def _sequence(left: Any, right: Any, entries: Any, steps: int) -> tuple[int, Any, Any]:
    """Number, means and summed spread of Fⁱa, i < `steps`, on the left and on the right.

    Means and spreads are merged, as plain sums cancel where F is near one.
    """

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
        later = [_apply(one, mean) for one, mean in zip((left, right), means, strict=True)]
        moved = [after - entry for after, entry in zip(later, entries, strict=True)]
        spread = left @ spread @ _transposed(right) + share * _outer(*moved)
        powers = [left @ powers[0], right @ powers[1]]
        means = [entry + share * by for entry, by in zip(entries, moved, strict=True)]
        return number + 1, powers, means, spread

    shapes = left.shape, right.shape
    nothing = (
        0,
        [np.broadcast_to(np.eye(2), shape) for shape in shapes],
        [np.zeros(shape[:-1]) for shape in shapes],
        np.zeros(np.broadcast_shapes(*shapes)),
    )
    number, _, means, spread = by_doubling(steps, double, add_one, nothing)
    return number, means, spread


def _repeated(
    left: Any, right: Any, entry: Any, epochs: int, steps: int, epoch: Epoch
) -> Float[Any, "... 2 2"]:
    """R `steps` into an epoch after `epochs` whole ones of one order.

    Batch i has acted at every i + eM. Of those that have had their turn in this epoch the response
    is Fⁱ Σ_{e ≤ epochs} F^{eM} G, i steps ago, and of the others one term shorter.
    """
    sides = [_turns(of, entry, epochs, epoch.num_batches) for of in (left, right)]
    power = np.linalg.matrix_power
    older = [_apply(power(of, steps), sums) for of, (sums, _) in zip((left, right), sides,
             strict=True)]  # fmt: skip
    recent = _sequence(left, right, [sums for _, sums in sides], steps)
    others = _sequence(left, right, older, epoch.num_batches - steps)
    number = epoch.num_batches
    parts = recent[0] / number, others[0] / number
    means = [parts[0] * a + parts[1] * b for a, b in zip(recent[1], others[1], strict=True)]
    apart = [a - b for a, b in zip(recent[1], others[1], strict=True)]
    spread = recent[2] + others[2] + number * parts[0] * parts[1] * _outer(*apart)
    return _of_sequence(number, means, spread, _outer(*older), epoch)


def _turns(of: Any, entry: Any, epochs: int, num_batches: int) -> tuple[Any, Any]:
    """Σ_{e < epochs} F^{eM} G, and the sum with one more term."""
    whole = np.linalg.matrix_power(of, num_batches)
    start = np.broadcast_to(entry, of.shape[:-1])

    def double(state: Any) -> Any:
        power, total = state
        return power @ power, total + _apply(power, total)

    def add_one(state: Any) -> Any:
        power, total = state
        return whole @ power, start + _apply(whole, total)

    nothing = np.broadcast_to(np.eye(2), of.shape), np.zeros(of.shape[:-1])
    _, total = by_doubling(epochs, double, add_one, nothing)
    return total, start + _apply(whole, total)


def _of_last_batches(
    left: Any, right: Any, entry: Any, epochs: int, steps: int, epoch: Epoch
) -> Any:
    """What the last batches of so many `epochs` have above the others, `steps` later."""
    excess = 1 / epoch.last - 1
    if not excess:
        return 0.0
    power, number = np.linalg.matrix_power, epoch.num_batches
    kick = excess * np.outer(entry, entry)
    last = gathered(power(left, number), power(right, number), kick, epochs)
    return power(left, steps) @ last @ _transposed(power(right, steps))


def _boundary(left: Any, right: Any, entry: Any, epoch: Epoch, epochs: int) -> Any:
    """R after whole epochs."""
    number = epoch.num_batches
    noise = _within_epoch(left, right, entry, number, epoch)
    power = np.linalg.matrix_power
    return gathered(power(left, number), power(right, number), noise, epochs)


def _into_epoch(left: Any, right: Any, entry: Any, boundary: Any, steps: int, epoch: Epoch) -> Any:
    """R `steps` into an epoch, from that at its boundary."""
    powers = [np.linalg.matrix_power(one, steps) for one in (left, right)]
    inside = _within_epoch(left, right, entry, steps, epoch)
    return powers[0] @ boundary @ _transposed(powers[1]) + inside


def _entry(learning_rate: Any) -> Float[Any, "2"]:
    return np.array([-float(learning_rate), 1.0])


def _apply(matrices: Any, vectors: Any) -> Any:
    return (matrices @ vectors[..., None])[..., 0]


def _outer(left: Any, right: Any) -> Any:
    return left[..., :, None] * right[..., None, :]


def _transposed(matrices: Any) -> Any:
    return np.swapaxes(matrices, -1, -2)
