"""Power-law tails of linear regression on fresh Gaussian data, whose noise multiplies the error.

The chain θ' = Aθ + B, A = I − (η/S)Σ x xᵀ, has the tail P(u·θ > t) ~ const t^(−κ) in every
direction u with κ > 0 the root of k(κ) = E|Ae|^κ = 1 (Kesten), from data without heavy tails. κ is
a number of the iterates; the index α of stable noise is another.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq
from scipy.special import lambertw
from scipy.stats import chi

from statsgd.arguments import count, fraction, non_negative, positive
from statsgd.laws.heavy_tails.random_matrices import heavy_ball_matrix, matrix_tail_index
from statsgd.laws.law import ImproperLawError, IntractableError

_NODE, _WEIGHT = np.polynomial.legendre.leggauss(8)
_HALVINGS = 30  # panels shrink by half towards where |Ae| vanishes
_LARGEST = 1e5
_WIDE, _PANELS = 2.0, 600  # of a chi distribution, whose width is at most one


class _Factor(NamedTuple):
    """ln|Ae| at points, with the logarithms of their weights, good up to a power of |Ae|."""

    log_size: Float[Any, " n"]
    log_weight: Float[Any, " n"]

    def drift(self) -> float:
        """E ln|Ae|."""
        return float(np.exp(self.log_weight) @ self.log_size)

    def log_moment(self, power: float) -> float:
        """ln E|Ae|^power."""
        logs = power * self.log_size + self.log_weight
        top = float(np.max(logs))
        return top + float(np.log(np.sum(np.exp(logs - top))))


def gaussian_tail_index(
    learning_rate: Any,
    batch_size: int = 1,
    dimension: int = 1,
    input_variance: Any = 1.0,
    momentum: Any = 0.0,
) -> float:
    """The exponent κ of regression ½(x·θ − y)² on fresh x ~ N(0, aI_d) with noisy labels.

        |Ae|² = (1 − (η/S)q)² + (η/S)² q r,   q ~ χ²_S, r ~ χ²_{d−1} independent   (η for ηa)

    κ falls with η and d and rises with S, though it is no function of η/S; it is 2 at
    η = 2S/(S+d+1), and tends to 1.7956 S/η (`small_step_tail_index`). With momentum, for d = 1, the
    factor is the matrix of (θ, m). In one dimension `loss_noise.regression_tail_index` is the same.

    Raises `ImproperLawError` where E ln|Ae| ≥ 0: the chain diverges, and `IntractableError` for
    η/S below some 10⁻⁶. Source: Gürbüzbalaban,
    Şimşekli, Zhu (2021), arXiv:2006.04740, for the setting; the formula is derived.

    >>> round(gaussian_tail_index(2 / 3), 4)  # 2 at η = 2S/(S + d + 1)
    2.0
    """
    eta, size = _step(learning_rate, input_variance), count("batch_size", batch_size)
    d, beta = count("dimension", dimension), float(fraction("momentum", momentum))
    if beta:
        if d > 1:
            raise ValueError(f"dimension must be 1 with momentum, got {d}")
        x, log_weight = _line(np.sqrt(size / eta), chi(size), 40.0 + 4 * size**0.5)
        matrices = heavy_ball_matrix(x**2 / size, eta, beta)
        return matrix_tail_index(matrices, np.exp(log_weight))
    factor = _factor(eta, size, d, 1.0)
    drift = factor.drift()
    if drift >= 0:
        raise ImproperLawError(
            f"E log|A e| = {drift:.4g} must be negative: the chain diverges at learning_rate = "
            f"{eta:.6g}, batch_size = {size}, dimension = {d}"
        )
    high = 1.0
    while (factor := _factor(eta, size, d, high)).log_moment(high) < 0:
        high *= 2
        if high > _LARGEST:
            raise ImproperLawError(f"the tail index is above {_LARGEST:.0e}: use 1.7956 S/η")
    return float(brentq(factor.log_moment, max(high / 2, 1e-6) if high > 1 else 1e-6, high))


def gaussian_tail_learning_rate(
    tail_index: Any, batch_size: int = 1, dimension: int = 1, input_variance: Any = 1.0
) -> float:
    """The learning rate at which `gaussian_tail_index` is `tail_index`, 0 where the chain diverges.

    2S/(S+d+1) over the input variance at 2. Source: derived.

    >>> round(gaussian_tail_learning_rate(2.0), 4)
    0.6667
    """
    power, size = float(non_negative("tail_index", tail_index)), count("batch_size", batch_size)
    d, a = count("dimension", dimension), float(positive("input_variance", input_variance))

    def excess(eta: float) -> float:
        factor = _factor(eta, size, d, max(power, 1.0))
        return factor.log_moment(power) if power else factor.drift()

    middle = 2 * size / (size + d + 1)
    low, high = middle, middle
    while excess(low) > 0:
        low /= 2
    while excess(high) < 0:
        high *= 1.5
    return float(brentq(excess, low, high, rtol=1e-12)) / a if low < high else middle / a


def small_step_tail_index(
    learning_rate: Any, batch_size: int = 1, input_variance: Any = 1.0
) -> float:
    """κ as η → 0 at fixed S and d: c* S/η with v(ln v − 1) = 1, c* = v/2 = 1.795561.

    Neither the 2S/η of decoupled noise nor the S/η of the diffusion: tails are the chain's own.
    Source: derived (large deviations).

    >>> round(small_step_tail_index(0.01, batch_size=4), 2)  # 1.7956 S/η
    718.22
    """
    c = np.exp(1 + float(lambertw(np.exp(-1)).real)) / 2
    return float(c * count("batch_size", batch_size) / _step(learning_rate, input_variance))


def _step(learning_rate: Any, input_variance: Any) -> float:
    return float(
        positive("learning_rate", learning_rate) * positive("input_variance", input_variance)
    )


def _factor(eta: float, size: int, dimension: int, power: float) -> _Factor:
    """|Ae| over q = x² and r = y², which matter up to where the power's maximum lies."""
    step = eta / size
    spread = np.sqrt(2 * (2 * power + size))
    x, log_x = _line(step**-0.5, chi(size), np.sqrt(1 / step + 2 * power + size + 20 * spread + 60))
    along = 1 - step * x**2
    with np.errstate(divide="ignore"):
        if dimension == 1:
            return _Factor(np.log(np.abs(along)), log_x)
        spread = np.sqrt(2 * (2 * power + dimension))
        across = chi(dimension - 1)
        y, log_y = _line(0.0, across, np.sqrt(2 * power + dimension + 20 * spread + 60))
        square = along[:, None] ** 2 + (step * x[:, None] * y) ** 2
        return _Factor(np.log(square).ravel() / 2, (log_x[:, None] + log_y).ravel())


def _line(zero: float, law: Any, end: float) -> tuple[Float[Any, " n"], Float[Any, " n"]]:
    """Nodes in (0, end), denser towards `zero`, and logarithms of their weights under `law`."""
    if not end <= _WIDE * _PANELS:
        raise IntractableError(
            f"learning_rate is too small for quadrature, which would take {end / _WIDE:.2g} > "
            f"{_PANELS} panels: use small_step_tail_index"
        )
    halves = end * 0.5 ** np.arange(_HALVINGS)
    even = np.linspace(0, end, max(32, int(np.ceil(end / _WIDE))) + 1)
    edges = np.concatenate([even, zero + halves, zero - halves, [zero]])
    edges = np.unique(edges[(edges >= 0) & (edges <= end)])
    half = np.diff(edges) / 2
    nodes = (edges[:-1] + half)[:, None] + half[:, None] * _NODE
    weights = np.log(half)[:, None] + np.log(_WEIGHT)
    return nodes.ravel(), weights.ravel() + law.logpdf(nodes.ravel())
