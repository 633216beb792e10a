"""Power-law tails of finite data: θ' = A_B θ + b_B with one of finitely many matrices a step."""

import itertools
import math
from collections import Counter
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq
from scipy.sparse import csr_array
from scipy.sparse.linalg import eigs

from statsgd.arguments import count, finite_array, fraction, non_negative, one_of, positive
from statsgd.laws.bases.nested import require_accurate
from statsgd.laws.law import ImproperLawError

_ANGLES = (360, 720)
_MOST_BATCHES = 100_000
_LARGEST = 1000.0
_SMALL = 1e-3


class BatchMatrices(NamedTuple):
    """What one step multiplies the error, or (error, m), by: every batch with its probability."""

    matrices: Float[Any, "n k k"]
    probabilities: Float[Any, " n"]


def batch_matrices(
    inputs: Any,
    learning_rate: Any,
    batch_size: int = 1,
    momentum: Any = 0.0,
    sampling: str = "with_replacement",
) -> BatchMatrices:
    """I − (η/S)Σ x xᵀ of every batch of linear regression on `inputs` `(N, d)`.

    With momentum β the matrices [[I − ηH_B, −ηβI], [H_B, βI]] of (θ, m). `sampling` is
    `"with_replacement"` or `"without_replacement"`. Raises `ValueError` for more than 100 000
    batches.

    >>> import numpy as np
    >>> found = batch_matrices(np.array([[1.0], [2.0]]), learning_rate=0.1)
    >>> found.matrices.round(4).ravel().tolist(), found.probabilities.tolist()
    ([0.9, 0.6], [0.5, 0.5])
    """
    x = np.asarray(finite_array("inputs", inputs, ndim=2), dtype=np.float64)
    eta, beta = positive("learning_rate", learning_rate), float(fraction("momentum", momentum))
    repeats = one_of("sampling", sampling, ("with_replacement", "without_replacement"))
    n, s = len(x), count("batch_size", batch_size)
    again = repeats == "with_replacement"
    if not again and s > n:
        raise ValueError(f"batch_size must be at most the number of examples {n}, got {s}")
    number = math.comb(n + s - 1, s) if again else math.comb(n, s)
    if number > _MOST_BATCHES:
        raise ValueError(
            f"batch_size must leave at most {_MOST_BATCHES} different batches, got {number}"
        )
    choose = itertools.combinations_with_replacement if again else itertools.combinations
    batches = np.array(list(choose(range(n), s)))
    ways = [
        math.factorial(s) / math.prod(map(math.factorial, Counter(b).values())) for b in batches
    ]
    each = x[:, :, None] * x[:, None, :]
    curvatures = each[batches].mean(axis=1)
    weights = np.array(ways) / np.sum(ways)
    if beta:
        return BatchMatrices(heavy_ball_matrix(curvatures, float(eta), beta), weights)
    return BatchMatrices(np.eye(x.shape[1]) - eta * curvatures, weights)


def heavy_ball_matrix(
    curvatures: Float[Any, "n *d"], eta: float, beta: float
) -> Float[Any, "n k k"]:
    """The matrices of (θ, m) for curvatures `(n,)` or `(n, d, d)`."""
    h = np.asarray(curvatures).reshape(len(curvatures), *np.shape(curvatures)[1:] or (1, 1))
    one = np.broadcast_to(np.eye(h.shape[-1]), h.shape)
    return np.concatenate(
        [
            np.concatenate([one - eta * h, -eta * beta * one], axis=2),
            np.concatenate([h, beta * one], axis=2),
        ],
        axis=1,
    )


def matrix_tail_index(matrices: Any, probabilities: Any = None) -> float:
    """The exponent κ with P(|θ| > t) ~ t^(−κ) for θ' = Aθ + b, A one of `matrices` `(n, k, k)`.

    The root of k(κ) = 1, k(s) the spectral radius of f ↦ E|Au|^s f(Au/|Au|) on directions u: of
    E|A|^s for k = 1; for k = 2 on a grid of angles, extrapolated in its spacing. Infinite where no
    power of the norm grows: the law then has bounded support, or tails thinner than any power, and
    so it is for many small data sets. Needs label noise: b = 0 leaves θ = 0.

    **Arguments:** `probabilities` `(n,)`, equal by default.

    Raises `ValueError` for k > 2, and `ImproperLawError` where E ln|A…A| grows: the chain diverges.
    Source: Kesten (1973); the recipe is derived.

    >>> round(matrix_tail_index([[[0.5]], [[1.5]]]), 2)
    1.0
    """
    a = np.asarray(finite_array("matrices", matrices, ndim=3), dtype=np.float64)
    if a.shape[1] != a.shape[2] or a.shape[1] > 2:
        raise ValueError(f"matrices must have shape (n, 1, 1) or (n, 2, 2), got {a.shape}")
    given = np.ones(len(a)) if probabilities is None else probabilities
    p = np.atleast_1d(non_negative("probabilities", given))
    if p.shape != a.shape[:1] or not p.sum() > 0:
        raise ValueError(f"probabilities must have shape ({len(a)},), got {p.shape}")
    p = p / p.sum()
    a, p = a[p > 0], p[p > 0]
    if a.shape[1] == 1:
        return _root(_OnTheLine(np.abs(a[:, 0, 0]), p))
    bounded = bool(np.linalg.norm(a, ord=2, axis=(1, 2)).max() <= 1)
    coarse, fine = (_root(_OnAngles(a, p, number), bounded=bounded) for number in _ANGLES)
    if not (np.isfinite(coarse) and np.isfinite(fine)):
        return np.inf
    better = fine + (fine - coarse) / 3  # of second order in the spacing
    require_accurate("tail index", abs(better - fine) / fine)
    return better


class _OnTheLine:
    """ln k(s) = ln E|A|^s."""

    def __init__(self, sizes: Float[Any, " n"], weights: Float[Any, " n"]):
        self.weights = weights[sizes > 0]
        self.logs = np.log(sizes[sizes > 0])
        self.vanishes = bool(np.any(sizes == 0))
        self.bounded = bool(np.max(sizes) <= 1)

    def __call__(self, power: float) -> float:
        logs = power * self.logs + np.log(self.weights)
        top = np.max(logs)
        return float(top + np.log(np.sum(np.exp(logs - top))))


class _OnAngles:
    """ln k(s) by power iteration on a grid of angles with linear interpolation."""

    bounded = False

    def __init__(self, matrices: Float[Any, "n 2 2"], weights: Float[Any, " n"], number: int):
        angle = np.arange(number) * np.pi / number
        image = matrices @ np.stack([np.cos(angle), np.sin(angle)])
        size = np.linalg.norm(image, axis=1)
        with np.errstate(divide="ignore"):
            self.logs = np.log(size)
        place = (np.arctan2(image[:, 1], image[:, 0]) % np.pi) * number / np.pi
        left = np.floor(place).astype(int)
        self.share, self.left = place - left, left % number
        self.weights, self.number = weights, number
        self.start = np.ones(number)

    def __call__(self, power: float) -> float:
        n = self.number
        mass = self.weights[:, None] * np.exp(power * self.logs)
        rows = np.broadcast_to(np.arange(n), mass.shape)
        entries = np.concatenate([(mass * (1 - self.share)).ravel(), (mass * self.share).ravel()])
        columns = np.concatenate([self.left.ravel(), ((self.left + 1) % n).ravel()])
        step = csr_array((entries, (np.tile(rows.ravel(), 2), columns)), shape=(n, n))
        step.sum_duplicates()
        value, before = 0.0, np.inf
        for _ in range(5000):
            moved = step @ self.start
            value = float(np.max(moved))
            self.start = moved / value
            if abs(value - before) < 1e-12 * value:
                break
            before = value
        else:  # nearly a rotation: the leading eigenvalues are of nearly one size
            value = float(np.max(np.abs(eigs(step, 1, v0=self.start, return_eigenvectors=False))))
        return float(np.log(value))


def _root(log_moment: Any, *, bounded: bool = False) -> float:
    """The positive root of a convex function that is zero at zero; infinite where there is none."""
    slope = log_moment(_SMALL) / _SMALL
    vanishes = getattr(log_moment, "vanishes", False)
    if not vanishes and slope >= 0:
        raise ImproperLawError(
            f"E log|A...A| = {slope:.4g} a step must be negative: the chain diverges"
        )
    if bounded or log_moment.bounded:
        return np.inf
    high = 1.0
    while log_moment(high) < 0:
        high *= 2
        if high > _LARGEST:
            return np.inf
    return float(brentq(log_moment, _SMALL if high == 1 else high / 2, high, xtol=1e-9))
