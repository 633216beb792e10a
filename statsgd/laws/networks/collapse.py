"""Whether discrete SGD collapses a two-layer network to zero."""

import itertools
from typing import Any

import numpy as np
from scipy.special import comb, gammaln, xlogy

from statsgd.arguments import count, finite_array, non_negative, positive

_LARGEST_ENUMERATION = 2_000_000


def collapse_exponent(
    products: Any,
    learning_rate: Any,
    batch_size: int = 1,
    weight_decay: Any = 0.0,
    *,
    weights: Any = None,
    loss_factor: Any = 1.0,
) -> float:
    """Λ = E ln|1 − ηλ + 2cη mean_B(xy)|, growth per step of the zero network's perturbations.

    Near zero a step of SGD on c(uwx − y)² multiplies u + w by the number whose logarithm is
    averaged, so SGD collapses a two-layer diagonal network iff Λ < 0. Exact at any learning rate;
    to first order Λ = 2η(b2 − λ/2 − T a3). With `batch_size=1` it holds for reshuffled data too:
    the product over an epoch commutes.

    **Arguments:** `products`, the numbers xy `(n,)`, with probabilities `weights` `(n,)` (equal by
    default; quadrature nodes and weights stand for a continuous distribution); `batch_size` S,
    drawn with replacement and enumerated; η, λ as in `SGD`; `loss_factor` c.

    Raises `ValueError` if more than two million different batches would have to be enumerated.
    Source: *derived*.

    >>> round(collapse_exponent([1.0, 1.0], learning_rate=0.1), 4)  # ln(1 + 2η)
    0.1823
    """
    value = np.asarray(finite_array("products", products, ndim=1), dtype=np.float64)
    eta = float(positive("learning_rate", learning_rate))
    size = count("batch_size", batch_size)
    decay = float(non_negative("weight_decay", weight_decay))
    mass = np.ones(len(value)) if weights is None else non_negative("weights", weights)
    if mass.shape != value.shape or len(value) == 0 or mass.sum() == 0:
        raise ValueError(
            f"weights must be one for each of the {len(value)} products and not all zero, got "
            f"shape {mass.shape}"
        )
    value, place = np.unique(value, return_inverse=True)
    mass = np.bincount(place, weights=mass / mass.sum())
    if size > 1:
        value, mass = _batch_means(value, mass, size)
    rate = 2 * float(positive("loss_factor", loss_factor)) * eta
    with np.errstate(divide="ignore"):  # a batch that zeroes u + w at once: Λ = −∞
        logarithm = np.log(np.abs(1 - eta * decay + rate * value))
    return float(np.sum(mass * logarithm, where=mass > 0))


def _batch_means(value: np.ndarray, mass: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Means of `size` independent values, and their probabilities."""
    number = comb(len(value) + size - 1, size)
    if number > _LARGEST_ENUMERATION:
        raise ValueError(
            f"batch_size = {size} of {len(value)} different products gives {number:.3g} different "
            f"batches; at most {_LARGEST_ENUMERATION} are enumerated"
        )
    chosen = np.array(
        list(itertools.combinations_with_replacement(range(len(value)), size)), dtype=np.int32
    )
    tally = np.stack([(chosen == i).sum(1) for i in range(len(value))], axis=1)
    log_mass = gammaln(size + 1) + (xlogy(tally, mass) - gammaln(tally + 1)).sum(1)
    return value[chosen].mean(1), np.exp(log_mass)
