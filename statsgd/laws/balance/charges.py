"""Balance of symmetric parameters: identities of single SGD steps, and the law of balance.

A loss with ℓ(exp(sA)θ) = ℓ(θ) for every example, A symmetric, has the charge q = θᵀAθ. Rescaling
u → ρu, w → w/ρ is A = diag(1 on u, −1 on w) and q = |u|² − |w|². Gradient flow keeps q; SGD moves
it through its noise alone.

Sources: Ziyin, Li, Ueda (2023), arXiv:2308.06671; Ziyin et al. (2024), arXiv:2402.07193. The
one-step identities are derived.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from statsgd.arguments import finite_array, fraction, non_negative, positive, symmetric


def rescaling_generator(
    dimension: int, incoming: Sequence[int], outgoing: Sequence[int]
) -> Float[Any, "d d"]:
    """A of the symmetry u → ρu, w → w/ρ: +1 on the flat indices `incoming`, −1 on `outgoing`.

    The bias of a ReLU neuron goes with its incoming weights.

    >>> rescaling_generator(3, incoming=[0, 1], outgoing=[2])
    array([[ 1.,  0.,  0.],
           [ 0.,  1.,  0.],
           [ 0.,  0., -1.]])
    """
    diagonal = np.zeros(dimension)
    diagonal[list(incoming)] = 1
    diagonal[list(outgoing)] = -1
    if np.count_nonzero(diagonal) != len(incoming) + len(outgoing):
        raise ValueError("incoming and outgoing must be disjoint and without repeats")
    return np.diag(diagonal)


def charge(params: Any, generator: Any) -> Float[Any, "..."]:
    """q = θᵀAθ; leading axes of `params` are batch axes.

    >>> import numpy as np
    >>> float(charge(np.array([2.0, 1.0]), rescaling_generator(2, [0], [1])))  # u² − w²
    3.0
    """
    theta = _vectors("params", params)
    a = symmetric("generator", generator, dimension=theta.shape[-1])
    return np.einsum("...i,ij,...j->...", theta, a, theta)


def charge_step(
    params: Any, gradient: Any, generator: Any, learning_rate: Any, weight_decay: Any = 0.0
) -> Float[Any, "..."]:
    """The charge after one SGD step without momentum, exactly:

        q' = (1 − ηλ)² q + η² ĝᵀAĝ

    for any loss with the symmetry, any batch, any sampling scheme and any learning rate. `gradient`
    is the minibatch gradient ĝ at `params`, without the weight-decay term.

    >>> import numpy as np
    >>> params, gradient = np.array([2.0, 1.0]), np.array([2.0, 4.0])
    >>> round(float(charge_step(params, gradient, rescaling_generator(2, [0], [1]), 0.1)), 4)
    2.88
    """
    eta = positive("learning_rate", learning_rate)
    keep = (1 - eta * non_negative("weight_decay", weight_decay)) ** 2
    return keep * charge(params, generator) + eta**2 * charge(gradient, generator)


def mean_charge_step(
    params: Any,
    gradient: Any,
    noise_covariance: Any,
    generator: Any,
    learning_rate: Any,
    weight_decay: Any = 0.0,
) -> Float[Any, ""]:
    """The charge after one step, averaged over batches: ĝ has mean `gradient` and covariance C.

    E q' = (1 − ηλ)² q + η² (tr AC + ∇LᵀA∇L): the law of balance, and a pure finite-η term.

    >>> import numpy as np
    >>> params, gradient = np.array([2.0, 1.0]), np.array([2.0, 4.0])
    >>> rule = rescaling_generator(2, [0], [1])
    >>> round(float(mean_charge_step(params, gradient, np.diag([1.0, 4.0]), rule, 0.1)), 4)
    2.85
    """
    a = symmetric("generator", generator)
    noise = symmetric("noise_covariance", noise_covariance, dimension=len(a))
    without = charge_step(params, gradient, a, learning_rate, weight_decay)
    return without + positive("learning_rate", learning_rate) ** 2 * np.sum(a * noise)


def charge_trajectory(
    initial_charge: Any,
    momentum_buffers: Any,
    generator: Any,
    learning_rate: Any,
    momentum: Any = 0.0,
    weight_decay: Any = 0.0,
) -> Float[Any, " n"]:
    """Charges q₁ … q_n of heavy-ball SGD from its buffers m₁ … m_n `(n, d)` alone, exactly.

        q_{k+1} = q_k − 2ηJ_k + η² m_{k+1}ᵀAm_{k+1},   J_k = β(J_{k−1} − η m_kᵀAm_k) + λq_k

    with m₀ = 0, J₋₁ = 0. m_{k+1} is the buffer after the gradient of the step was added.

    >>> import numpy as np
    >>> rule = rescaling_generator(2, [0], [1])
    >>> charge_trajectory(3.0, np.array([[2.0, 4.0]]), rule, learning_rate=0.1).round(4)
    array([2.88])
    """
    eta = float(positive("learning_rate", learning_rate))
    beta = float(fraction("momentum", momentum))
    decay = float(non_negative("weight_decay", weight_decay))
    squares = charge(momentum_buffers, generator)
    q, flux, before, charges = float(initial_charge), 0.0, 0.0, []
    for square in squares:
        flux = beta * (flux - eta * before) + decay * q
        q = q - 2 * eta * flux + eta**2 * square
        before = square
        charges.append(q)
    return np.array(charges)


def matrix_charge_step(
    outgoing: Any,
    incoming: Any,
    outgoing_gradient: Any,
    incoming_gradient: Any,
    learning_rate: Any,
    weight_decay: Any = 0.0,
) -> Float[Any, "h h"]:
    """UᵀU − WWᵀ after one SGD step without momentum, exactly, for a loss that is a function of UW.

    `outgoing` U `(k, h)`, `incoming` W `(h, d)`, and their minibatch gradients.

    >>> import numpy as np
    >>> U, W = np.array([[2.0]]), np.array([[1.0]])
    >>> matrix_charge_step(U, W, np.array([[2.0]]), np.array([[4.0]]), learning_rate=0.1).round(4)
    array([[2.88]])
    """
    u, w, gu, gw = (
        np.asarray(finite_array(name, value, ndim=2), dtype=np.float64)
        for name, value in (
            ("outgoing", outgoing),
            ("incoming", incoming),
            ("outgoing_gradient", outgoing_gradient),
            ("incoming_gradient", incoming_gradient),
        )
    )
    eta = positive("learning_rate", learning_rate)
    keep = (1 - eta * non_negative("weight_decay", weight_decay)) ** 2
    return keep * (u.T @ u - w @ w.T) + eta**2 * (gu.T @ gu - gw @ gw.T)


class PairStep(NamedTuple):
    """Sum and difference of a pair of factors after a step."""

    total: Any
    difference: Any


def pair_balance_step(
    u: Any, w: Any, product_gradient: Any, learning_rate: Any, weight_decay: Any = 0.0
) -> PairStep:
    """u + w and u − w after one SGD step without momentum, exactly, elementwise:

        (u ± w)' = (u ± w)(1 − ηλ ∓ ηG)

    with G = dℓ̂/d(uw) of the minibatch. In a deep product, two factors of one subnetwork obey it
    with G times the product of the other factors. For two layers G is common to all subnetworks,
    so ratios of the sums, and of the differences, never change.

    >>> step = pair_balance_step(2.0, 1.0, product_gradient=2.0, learning_rate=0.1)
    >>> round(float(step.total), 4), round(float(step.difference), 4)
    (2.4, 1.2)
    """
    eta, g = positive("learning_rate", learning_rate), np.asarray(product_gradient, np.float64)
    keep = 1 - eta * non_negative("weight_decay", weight_decay)
    u, w = np.asarray(u, np.float64), np.asarray(w, np.float64)
    return PairStep((u + w) * (keep - eta * g), (u - w) * (keep + eta * g))


def balance_rate(
    params: Any,
    example_covariance: Any,
    generator: Any,
    noise_scale: Any,
    weight_decay: Any = 0.0,
) -> Float[Any, ""]:
    """dq/dt of the diffusion limit, T tr(AΣ₁) − 2λq: the Brownian part cancels on every path.

    Σ₁ is the centred covariance of one example's gradient at `params`, T as in `noise_scale`. For
    a scalar pair this is −(T Var[dℓ/d(uw)] + 2λ) q: SGD removes imbalance at any T > 0.

    >>> import numpy as np
    >>> rule, covariance = rescaling_generator(2, [0], [1]), np.diag([1.0, 4.0])
    >>> round(float(balance_rate(np.array([2.0, 1.0]), covariance, rule, noise_scale=0.1)), 4)
    -0.3
    """
    a = symmetric("generator", generator)
    sigma = symmetric("example_covariance", example_covariance, dimension=len(a))
    drift = non_negative("noise_scale", noise_scale) * np.sum(a * sigma)
    return drift - 2 * non_negative("weight_decay", weight_decay) * charge(params, a)


class NoiseTraces(NamedTuple):
    """Gradient noise on the two sides of a symmetry; equal at the noise equilibrium."""

    positive: float
    """tr A₊Σ₁, for a rescaling the noise in u."""
    negative: float
    """tr A₋Σ₁, the noise in w."""

    @property
    def relative_gap(self) -> float:
        """Their difference over their mean."""
        return 2 * (self.positive - self.negative) / (self.positive + self.negative)


def noise_balance_gap(example_covariance: Any, generator: Any) -> NoiseTraces:
    """Noise in the positive and the negative eigenspace of the generator.

    >>> import numpy as np
    >>> noise_balance_gap(np.diag([1.0, 4.0]), rescaling_generator(2, [0], [1]))
    NoiseTraces(positive=1.0, negative=4.0)
    """
    a = symmetric("generator", generator)
    sigma = symmetric("example_covariance", example_covariance, dimension=len(a))
    values, q = np.linalg.eigh(a)
    noise = np.einsum("ji,jk,ki->i", q, sigma, q)
    up = np.sum(np.clip(values, 0, None) * noise)
    return NoiseTraces(float(up), float(np.sum(np.clip(-values, 0, None) * noise)))


class ProductNoise(NamedTuple):
    """Noise matrices of a two-layer block whose loss depends on the products u_i w_k."""

    incoming: Float[Any, "i i"]
    """C1 = E[AᵀA] − E[A]ᵀE[A]; the noise in w is uᵀC1u."""
    outgoing: Float[Any, "k k"]
    """C2 = E[AAᵀ] − E[A]E[A]ᵀ; the noise in u is wᵀC2w."""

    def ratio_bracket(self) -> tuple[float, float]:
        """Bounds on |u|²/|w|² at the noise equilibrium."""
        first, second = np.linalg.eigvalsh(self.incoming), np.linalg.eigvalsh(self.outgoing)
        return float(second[0] / first[-1]), float(second[-1] / first[0])


def product_noise(product_gradients: Any) -> ProductNoise:
    """From the gradients A `(n, k, i)` of each example with respect to the products u_i w_k.

    >>> import numpy as np
    >>> gradients = np.array([[[1.0, 0.0]], [[-1.0, 0.0]]])  # (n, k, i)
    >>> found = product_noise(gradients)
    >>> np.diag(found.incoming), np.diag(found.outgoing)
    (array([1., 0.]), array([1.]))
    """
    a = np.asarray(finite_array("product_gradients", product_gradients, ndim=3), np.float64)
    centred = a - a.mean(0)
    return ProductNoise(
        np.einsum("nki,nkj->ij", centred, centred) / len(a),
        np.einsum("nki,nli->kl", centred, centred) / len(a),
    )


def scale_invariant_norm(
    gradient_variance: Any, learning_rate: Any, steps: Any, initial_norm: Any
) -> Any:
    """|θ| after `steps` steps on a scale-invariant loss without decay (mean-field).

    |θ_n|⁴ = |θ₀|⁴ + 2η²nV, with V = E|ĝ|² on the unit sphere.

    >>> round(float(scale_invariant_norm(1.0, learning_rate=0.1, steps=1000, initial_norm=1.0)), 4)
    2.1407
    """
    growth = 2 * positive("learning_rate", learning_rate) ** 2 * non_negative("steps", steps)
    start = positive("initial_norm", initial_norm) ** 4
    return (start + growth * non_negative("gradient_variance", gradient_variance)) ** 0.25


def scale_invariant_equilibrium_norm(
    gradient_variance: Any, learning_rate: Any, weight_decay: Any
) -> Any:
    """|θ| at which decay stops the growth on a scale-invariant loss: |θ|⁴ = ηV/(λ(2 − ηλ)).

    >>> round(float(scale_invariant_equilibrium_norm(1.0, learning_rate=0.1, weight_decay=0.01)), 4)
    1.4955
    """
    eta, decay = positive("learning_rate", learning_rate), positive("weight_decay", weight_decay)
    return (
        eta * positive("gradient_variance", gradient_variance) / (decay * (2 - eta * decay))
    ) ** 0.25


def _vectors(name: str, value: Any) -> np.ndarray:
    vector = np.asarray(finite_array(name, value), dtype=np.float64)
    if vector.ndim == 0:
        raise ValueError(f"{name} must have a last axis over parameters, got a scalar")
    return vector
