"""Means and variances along coordinates and modes against those of a law."""

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from statsgd.comparison import statistics
from statsgd.comparison.reference import Reference
from statsgd.comparison.samples import Clusters
from statsgd.comparison.verdicts import verdicts_on
from statsgd.laws import Law


def directions(
    source: Any, references: dict[str, Reference], modes: Any, coordinates: bool
) -> dict[str, Float[Any, "d k"]]:
    """Orthonormal columns to look along: the coordinates, and `modes` or those of the law."""
    reference = references.get("params") or next(iter(references.values()))
    d = len(reference.mean)
    if modes is None:
        modes = np.linalg.eigh(reference.covariance)[1]
        if isinstance(source, Law) and reference.exact:
            modes = source.directions()
    columns = np.asarray(modes, dtype=np.float64)
    if columns.ndim != 2 or columns.shape[0] != d:
        raise ValueError(f"modes must have shape ({d}, k), got {columns.shape}")
    return ({"coordinate": np.eye(d)} if coordinates else {}) | {"mode": columns}


def moment_effects(
    variable: str,
    samples: Clusters,
    reference: Reference,
    direction: str,
    columns: Float[Any, "d k"],
    comparisons: int,
    margin: float,
    confidence: float,
) -> pd.DataFrame:
    """Rows of one variable along `columns`: variance ratios, then mean shifts."""
    measured = samples @ columns
    mean = statistics.cluster_mean(measured)
    variance = statistics.cluster_variance(measured)
    law_mean = reference.mean @ columns
    law_variance = np.einsum("ik,ij,jk->k", columns, reference.covariance, columns)
    mean_error, variance_error = mean.standard_error, variance.standard_error / variance.value
    if not reference.exact:
        drawn = reference.draws @ columns
        mean_error = np.hypot(mean_error, statistics.cluster_mean(drawn).standard_error)
        spread = statistics.cluster_variance(drawn)
        variance_error = np.hypot(variance_error, spread.standard_error / spread.value)
    z = statistics.critical_value(confidence, len(samples), comparisons)
    sd = np.sqrt(law_variance)
    common = {"variable": variable, "direction": direction, "index": np.arange(columns.shape[1])}
    ratio, shift = variance.value / law_variance, (mean.value - law_mean) / sd
    variances = pd.DataFrame(
        common
        | {
            "statistic": "variance ratio",
            "measured": variance.value,
            "predicted": law_variance,
            "effect": ratio,
            "standard_error": ratio * variance_error,
            # The error of a variance is multiplicative: the interval is set on its logarithm.
            "low": ratio * np.exp(-z * variance_error),
            "high": ratio * np.exp(z * variance_error),
        }
    )
    means = pd.DataFrame(
        common
        | {
            "statistic": "mean shift",
            "measured": mean.value,
            "predicted": law_mean,
            "effect": shift,
            "standard_error": mean_error / sd,
            "low": shift - z * mean_error / sd,
            "high": shift + z * mean_error / sd,
        }
    )
    variances["verdict"] = verdicts_on(variances, 1.0, margin)
    means["verdict"] = verdicts_on(means, 0.0, margin)
    return pd.concat([variances, means], ignore_index=True)
