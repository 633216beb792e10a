"""The exponent of a tail P(|x| > t) ~ t^(−κ), by estimators that assume different things."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from statsgd.arguments import count, finite_array, one_of, real
from statsgd.estimate import Estimate
from statsgd.measures.tails.hill import THRESHOLDS, hill
from statsgd.measures.tails.stable_family import block_index, log_moment_index, quantile_index
from statsgd.measures.tails.student import student_index

FEWEST = 50

_METHODS: Mapping[str, Callable[..., tuple[float, float]]] = {
    "hill": hill,
    "block": block_index,
    "student_t": student_index,
    "quantiles": quantile_index,
    "log_moment": log_moment_index,
}


def tail_index(
    samples: Any,
    method: str = "hill",
    *,
    threshold: str | int = "square_root",
    block: int | None = None,
    location: Any = None,
) -> Estimate:
    """Tail index of independent samples, with the standard error that its own model gives it.

    - `"hill"`: of any power law. 1/κ = mean of ln(|x|_(i)/|x|_(k+1)) over the k largest, error
      κ/√k. `threshold` chooses k: `"square_root"` (√n), `"tenth"` (n/10), `"distance"` (the k from
      10 to n/2 whose Pareto fit has the least Kolmogorov distance, which favours large k), or a
      number. Few of the largest mean a large error and many a bias: look at several.
    - `"block"`: of stable laws, α, from how sums of `block` values grow, √n by default.
    - `"quantiles"`, `"log_moment"`: of stable laws, from quantiles (McCulloch; at most 2) and from
      Var ln|x|.
    - `"student_t"`: degrees of freedom by maximum likelihood; infinite, with a NaN error, above
      100: no tail is seen.

    Errors leave out the bias of a wrong model, which is the rule and not the exception. The
    estimators of stable laws return α < 2 for much that is not stable and has every moment: 1.63
    for Laplace numbers in blocks of 10 and 1.81 in blocks of 300. They say "infinite variance" only
    where they do not rise with the block, and where Hill's does not rise with n either. Samples of
    one run that remember one another, and coordinates of unequal variance in one pool, look heavy
    too: thin and standardise first. `batch_gaussianity` asks whether batches become normal.

    **Arguments:** `samples` `(n,)`, or `(n, k)` for one estimate a column, n ≥ 50; `location`, what
    |x| is measured from, by default the median (`block`: the mean); 0 for norms.

    Raises `ValueError` for samples that are not finite, too few, or whose tail is not spread.

    Source: Hill (1975); Mohammadi, Mohammadpour, Ogata (2015), as in Şimşekli, Sagun, Gürbüzbalaban
    (2019), arXiv:1901.06053; McCulloch (1986). Calibration derived.

    Numbers are float64.

    >>> import numpy as np
    >>> found = tail_index(np.random.default_rng(0).pareto(1.5, 4000) + 1, "hill")
    >>> abs(float(found.value) - 1.5) < 4 * float(found.standard_error)
    True
    """
    estimate = _METHODS[one_of("method", method, _METHODS)]
    values = np.asarray(finite_array("samples", samples), dtype=np.float64)
    if values.ndim not in (1, 2):
        raise ValueError(f"samples must have shape (n,) or (n, k), got {values.shape}")
    if len(values) < FEWEST:
        raise ValueError(f"samples must be at least {FEWEST} for a tail index, got {len(values)}")
    if np.any(np.ptp(values, axis=0) == 0):
        raise ValueError("samples must not all be equal: they have no tail")
    centre = (np.mean if method == "block" else np.median)(values, axis=0)
    if location is not None:
        centre = real("location", location, allowed="finite", valid=np.isfinite)
    options: dict[str, Any] = {}
    if method == "hill":
        options["number"] = _threshold(threshold, len(values))
    if method == "block":
        most = len(values) // 2
        size = int(len(values) ** 0.5) if block is None else block
        options["block"] = count("block", size, at_least=2, at_most=most)
    columns = (values - centre).reshape(len(values), -1).T
    found = np.array([estimate(column, **options) for column in columns])
    value, error = found.T if values.ndim == 2 else found[0]
    return Estimate(value, error)


def _threshold(threshold: str | int, number: int) -> str | int:
    if isinstance(threshold, str):
        one_of("threshold", threshold, THRESHOLDS)
        rules = {"square_root": int(number**0.5), "tenth": number // 10}
        return rules.get(threshold, threshold)
    return count("threshold", threshold, at_least=2, at_most=number - 1)
