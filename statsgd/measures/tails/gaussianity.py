"""Does minibatch noise become normal as batches grow, as the central limit theorem says?"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import normaltest

from statsgd.arguments import count, finite_array, one_of
from statsgd.estimate import Estimate

_FEWEST = 100


class BatchGaussianity(NamedTuple):
    """Noise of one direction by batch size S."""

    batch_sizes: Int[Any, " sizes"]
    """In increasing order."""
    excess_kurtosis: Estimate
    """At every S: γ₂/S for independent examples of finite fourth moment, 0 if normal."""
    p_value: Float[Any, " sizes"]
    """Of skewness and kurtosis being those of a normal law (D'Agostino and Pearson)."""
    spread_exponent: Estimate
    """Slope of the logarithm of the interquartile range on ln S: −½ where the variance is finite
    and S is large enough, 1/α − 1 for stable noise of any S."""

    @property
    def stable_index(self) -> Estimate:
        """The α that the growth of the spread stands for, 1/(1 + slope): 2 by the central limit."""
        slope, error, _ = self.spread_exponent
        return Estimate(1 / (1 + slope), error / (1 + slope) ** 2)


def batch_gaussianity(noise: Mapping[int, Any]) -> BatchGaussianity:
    """Test of normality by batch size: noise that is not normal, or does not become so either.

    Estimators that take a law for stable find α < 2 in much that has every moment. Averages of
    stable noise keep their shape and shrink as S^(1/α−1); those of noise with a variance become
    normal, with an excess kurtosis that falls as 1/S and a spread that falls as S^(−½).

    **Arguments:** `noise`, for two or more batch sizes S, independent draws `(n,)` of the noise of
    one coordinate or direction (`gradient_noise` records them), n ≥ 100. Draws of different S are
    independent of one another. To see an excess of γ₂/S takes n of about 160 S²/γ₂².

    Raises `ValueError` for draws that are not finite, too few, or all equal. Source: derived.

    Numbers are float64.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> laplace = {size: rng.laplace(size=(4000, size)).mean(1) for size in (1, 4)}
    >>> found = batch_gaussianity(laplace)
    >>> found.batch_sizes.tolist(), (found.p_value < 0.01).tolist()
    ([1, 4], [True, True])
    """
    if len(noise) < 2:
        raise ValueError(f"noise must have draws of two batch sizes or more, got {len(noise)}")
    sizes = sorted(count("batch sizes of noise", size) for size in noise)
    rows = [_checked(size, noise[size]) for size in sizes]
    kurtosis = [_excess_kurtosis(row) for row in rows]
    spreads = np.array([_log_spread(row) for row in rows])
    weight = spreads[:, 1] ** -2.0
    place = np.log(sizes) - weight @ np.log(sizes) / weight.sum()
    total = weight @ place**2
    slope = (weight * place) @ spreads[:, 0] / total
    return BatchGaussianity(
        np.array(sizes),
        Estimate(*np.array(kurtosis).T),
        np.array([normaltest(row).pvalue for row in rows]),
        Estimate(float(slope), float(total**-0.5)),
    )


def noise_excess_kurtosis(
    gradients: Any, batch_size: int, sampling: str = "with_replacement"
) -> Float[Any, "*d"]:
    """Excess kurtosis of minibatch noise in every coordinate, exactly, from examples' gradients.

    γ₂/S with replacement. Without it the fourth moment of a sum over a random subset, by its
    probabilities p_r = S…(S−r+1)/(N…(N−r+1)): symmetric under S ↔ N − S, and below zero once S/N
    is above some tenths, so that noise which is not normal need not be heavy.

    **Arguments:** `gradients` `(N,)` or `(N, d)`; `batch_size`; `sampling`, `"with_replacement"` or
    `"without_replacement"`. NaN for coordinates without noise.

    Raises `ValueError` for S of N or more without replacement. Source: derived.

    Numbers are float64.

    >>> import numpy as np
    >>> noise_excess_kurtosis(np.array([-1.0, 1.0]), batch_size=2)  # −2/S
    np.float64(-1.0)
    """
    g = np.asarray(finite_array("gradients", gradients), dtype=np.float64)
    if g.ndim not in (1, 2) or len(g) < 2:
        raise ValueError(f"gradients must have shape (N,) or (N, d) with N >= 2, got {g.shape}")
    n, s = len(g), count("batch_size", batch_size)
    d = g - g.mean(axis=0)
    squares, fourths = np.sum(d**2, axis=0), np.sum(d**4, axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        if one_of("sampling", sampling, ("with_replacement", "without_replacement")) == (
            "with_replacement"
        ):
            return (n * fourths / squares**2 - 3) / s
        if s >= n:
            raise ValueError(f"batch_size must be below the number of examples {n}, got {s}")
        # P(r given examples are all in the batch), for r = 1 to 4.
        ratios = [max(s - i, 0) / (n - i) if n > i else 0.0 for i in range(4)]
        p1, p2, p3, p4 = np.cumprod(ratios)
        fourth = (
            p1 * fourths
            - 4 * p2 * fourths
            + 3 * p2 * (squares**2 - fourths)
            + 6 * p3 * (2 * fourths - squares**2)
            + p4 * (3 * squares**2 - 6 * fourths)
        )
        variance = s * (n - s) * squares / (n * (n - 1))
        return fourth / variance**2 - 3


def _checked(size: int, draws: Any) -> Float[np.ndarray, " n"]:
    row = np.asarray(finite_array(f"noise[{size}]", draws, ndim=1), dtype=np.float64)
    if len(row) < _FEWEST or np.ptp(row) == 0:
        raise ValueError(
            f"noise[{size}] must be at least {_FEWEST} draws that differ, got {len(row)}"
        )
    return row


def _excess_kurtosis(row: Float[np.ndarray, " n"]) -> tuple[float, float]:
    z = (row - row.mean()) / row.std()
    fourth = np.mean(z**4)
    influence = z**4 - fourth - 2 * fourth * (z**2 - 1) - 4 * np.mean(z**3) * z
    return fourth - 3, influence.std() / np.sqrt(len(z))


def _log_spread(row: Float[np.ndarray, " n"]) -> tuple[float, float]:
    """ln of the interquartile range, and its error by order statistics a deviation apart."""
    step = np.sqrt(3 / 16 / len(row))
    low, high = (
        (np.quantile(row, p), np.diff(np.quantile(row, [p - step, p + step]))[0] / 2)
        for p in (0.25, 0.75)
    )
    width = high[0] - low[0]
    if not width > 0:
        raise ValueError("noise must differ between its quartiles, got equal ones")
    # Quartiles of one sample are correlated by 1/3.
    variance = low[1] ** 2 + high[1] ** 2 - 2 / 3 * low[1] * high[1]
    return float(np.log(width)), float(np.sqrt(variance) / width)
