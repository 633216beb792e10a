"""Endpoints against a law: effect sizes with intervals, and a verdict with a practical margin."""

import dataclasses
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float

from statsgd.arguments import count, fraction, positive
from statsgd.comparison import statistics
from statsgd.comparison.samples import Clusters, read_draws, read_ensemble
from statsgd.laws import GaussianLaw, Law
from statsgd.provenance import provenance

#: Points of each sample that enter the energy distance, whose cost is quadratic.
MAX_DISTANCE_POINTS = 1000

#: What a verdict can say, `{margin}` filled in.
AGREES, DIFFERS, UNDECIDED = "agrees within {margin}", "differs by more than {margin}", "undecided"


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The result of `compare`."""

    subject: str
    """What is compared with what."""
    margin: float
    """Relative difference that counts as agreement."""
    confidence: float
    """Level at which all intervals of `table` hold simultaneously."""
    table: pd.DataFrame
    """One row a quantity: variable, statistic, direction, index, measured, predicted, effect,
    standard_error, low, high, verdict. The effect is measured/predicted for a variance, and the
    difference in units of the predicted standard deviation for a mean."""
    distances: pd.DataFrame
    """One row a variable: energy distance, its coefficient and p-value, points used."""
    settings: dict[str, Any]
    """The law, and how the comparison was made."""

    @property
    def verdict(self) -> str:
        """The verdict on all quantities together."""
        verdicts = set(self.table["verdict"])
        if self._word(DIFFERS) in verdicts:
            return self._word(DIFFERS)
        return self._word(UNDECIDED if self._word(UNDECIDED) in verdicts else AGREES)

    def effects(self, statistic: str, variable: str = "params") -> pd.DataFrame:
        """The rows of one statistic (`"variance ratio"`, `"mean shift"`) of one variable."""
        rows = (self.table["statistic"] == statistic) & (self.table["variable"] == variable)
        return self.table[rows].reset_index(drop=True)

    def summary(self) -> pd.DataFrame:
        """One row per variable and statistic: range of the effects and how many agree."""
        rows = []
        for (variable, statistic, direction), group in self.table.groupby(
            ["variable", "statistic", "direction"], sort=False
        ):
            rows.append(
                {
                    "variable": variable,
                    "statistic": statistic,
                    "direction": direction,
                    "quantities": len(group),
                    "smallest": group["effect"].min(),
                    "largest": group["effect"].max(),
                    "median_standard_error": group["standard_error"].median(),
                    "agree": int((group["verdict"] == self._word(AGREES)).sum()),
                    "differ": int((group["verdict"] == self._word(DIFFERS)).sum()),
                    "undecided": int((group["verdict"] == UNDECIDED).sum()),
                }
            )
        return pd.DataFrame(rows)

    def to_datatree(self) -> xr.DataTree:
        """Groups `table` and `distances`, with the verdict and settings in the attributes."""
        groups = {
            "table": xr.Dataset.from_dataframe(self.table.rename_axis("quantity")),
            "distances": xr.Dataset.from_dataframe(self.distances.rename_axis("test")),
        }
        tree = xr.DataTree.from_dict(groups)
        tree.attrs = provenance(
            "comparison",
            subject=self.subject,
            verdict=self.verdict,
            margin=self.margin,
            confidence=self.confidence,
            **self.settings,
        )
        return tree

    def _word(self, template: str) -> str:
        return template.format(margin=f"{100 * self.margin:g} %")

    def __str__(self) -> str:
        lines = [f"{self.subject}: {self.verdict}"]
        lines.append(self.summary().to_string(index=False, float_format=lambda x: f"{x:.4g}"))
        lines.append(self.distances.to_string(index=False, float_format=lambda x: f"{x:.3g}"))
        return "\n".join(lines)


class _Reference(NamedTuple):
    """What the law says of one variable: moments, with errors where they come from draws."""

    mean: Float[Any, " d"]
    covariance: Float[Any, "d d"]
    draws: Clusters
    exact: bool


def compare(
    endpoints: xr.DataTree,
    law_or_draws: Law | xr.DataTree,
    *,
    seed: int,
    margin: float = 0.1,
    confidence: float = 0.95,
    modes: Float[Any, "d k"] | None = None,
    coordinates: bool = True,
    include_snapshots: bool = False,
    condition_on_survival: bool = False,
) -> Comparison:
    """Compare the endpoints of an ensemble with a law, or with draws from one.

    For every variable that both know (`params`, `momentum_buffer`) the variance and the mean along
    each coordinate and each mode, with intervals that hold simultaneously at `confidence`. The
    verdict on a quantity is *agrees within m* if its interval lies inside [1 − m, 1 + m] (for a
    mean: [−m, m] predicted standard deviations), *differs by more than m* if it lies outside, and
    *undecided* otherwise: a p-value decides nothing. The energy distance between endpoints and
    draws, whitened by the law's covariance, is reported with its permutation p-value.

    **Arguments:**

    - `endpoints`: result of `simulate`; only the replicas need to be independent.
    - `law_or_draws`: a `Law` with moments, or a `DataTree` with a `posterior` group, whose Monte
      Carlo error then enters the intervals.
    - `modes`: orthonormal columns to project on; by default the law's own `modes()`, else the
      eigenvectors of its covariance.
    - `coordinates`: whether to compare along coordinates too.
    - `include_snapshots`: pool the steps kept by `simulate(keep=…)`, which must be stationary.
    - `condition_on_survival`: leave out replicas that diverged; otherwise they are an error.

    Raises `ValueError` for data that do not match the law.
    """
    margin = float(positive("margin", margin))
    confidence = float(fraction("confidence", confidence))
    count("seed", seed, at_least=0)
    samples = read_ensemble(
        endpoints,
        include_snapshots=include_snapshots,
        condition_on_survival=condition_on_survival,
    )
    references = _references(law_or_draws, tuple(samples), seed)
    for variable, reference in references.items():
        have, want = samples[variable].shape[2], len(reference.mean)
        if have != want:
            raise ValueError(f"the law has {want} parameters, the endpoints have {have}")
    directions = _directions(law_or_draws, references, modes, coordinates)
    comparisons = 2 * len(references) * sum(d.shape[1] for d in directions.values())
    tables = [
        _effects(
            variable, samples[variable], reference, name, columns, comparisons, margin, confidence
        )
        for variable, reference in references.items()
        for name, columns in directions.items()
    ]
    distances = [
        _distance(variable, samples[variable], reference, seed)
        for variable, reference in references.items()
    ]
    name = type(law_or_draws).__name__ if isinstance(law_or_draws, Law) else "draws"
    settings: dict[str, Any] = {
        "law": law_or_draws.describe() if isinstance(law_or_draws, Law) else "draws",
        "seed": seed,
        "multiplicity": f"Bonferroni over {comparisons} intervals",
        "include_snapshots": int(include_snapshots),
    }
    settings |= _survival(endpoints)
    return Comparison(
        f"endpoints of the discrete chain against {name}",
        margin,
        confidence,
        pd.concat(tables, ignore_index=True),
        pd.DataFrame(distances),
        settings,
    )


def _survival(endpoints: xr.DataTree) -> dict[str, Any]:
    if "run" not in endpoints.children:
        return {}
    diverged = endpoints["run"].to_dataset()["diverged"].values
    return {"diverged": int(diverged.sum()), "replicas": int(diverged.size)}


def _references(source: Any, variables: tuple[str, ...], seed: int) -> dict[str, _Reference]:
    if isinstance(source, xr.DataTree):
        draws = read_draws(source, variables)
        if not draws:
            raise ValueError(f"the draws hold none of {', '.join(variables)}")
        return {
            name: _Reference(
                values.mean(axis=(0, 1)),
                np.atleast_2d(np.cov(values.reshape(-1, values.shape[2]).T)),
                values,
                False,
            )
            for name, values in draws.items()
        }
    if not (isinstance(source, Law) and hasattr(source, "covariance") and source.generative):
        raise ValueError(
            "law_or_draws must be a Law with known moments or draws from statsgd.sample, got "
            f"{type(source).__name__}; draw from it first"
        )
    source.require_proper()
    key = jax.random.key(seed)
    exact = source.draw_variables(key, (MAX_DISTANCE_POINTS,))
    return {
        name: _Reference(
            np.asarray(_moment(source, "mean", name), dtype=np.float64),
            np.asarray(_moment(source, "covariance", name), dtype=np.float64),
            np.asarray(exact[name], dtype=np.float64)[:, None],
            True,
        )
        for name in variables
        if name in source.variables
    }


def _moment(law: Law, name: str, variable: str) -> Any:
    # Laws of the parameters alone take no variable.
    method = getattr(law, name)
    return method() if variable == "params" else method(variable)


def _directions(source, references, modes, coordinates) -> dict[str, Float[Any, "d k"]]:
    reference = references.get("params") or next(iter(references.values()))
    d = len(reference.mean)
    if modes is None:
        if isinstance(source, GaussianLaw):
            modes = source.modes().vectors
        else:
            modes = np.linalg.eigh(reference.covariance)[1]
    columns = np.asarray(modes, dtype=np.float64)
    if columns.ndim != 2 or columns.shape[0] != d:
        raise ValueError(f"modes must have shape ({d}, k), got {columns.shape}")
    return ({"coordinate": np.eye(d)} if coordinates else {}) | {"mode": columns}


def _effects(
    variable: str,
    samples: Clusters,
    reference: _Reference,
    direction: str,
    columns: Float[Any, "d k"],
    comparisons: int,
    margin: float,
    confidence: float,
) -> pd.DataFrame:
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
    z = statistics.critical_value(confidence, mean.clusters, comparisons)
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
    variances["verdict"] = _verdicts(variances, 1.0, margin)
    means["verdict"] = _verdicts(means, 0.0, margin)
    return pd.concat([variances, means], ignore_index=True)


def _verdicts(rows: pd.DataFrame, centre: float, margin: float) -> list[str]:
    low, high = rows["low"].to_numpy(), rows["high"].to_numpy()
    inside = (low >= centre - margin) & (high <= centre + margin)
    outside = (low > centre + margin) | (high < centre - margin)
    text = f"{100 * margin:g} %"
    agrees, differs = AGREES.format(margin=text), DIFFERS.format(margin=text)
    return np.where(inside, agrees, np.where(outside, differs, UNDECIDED)).tolist()


def _independent(draws: Clusters) -> Float[Any, "m d"]:
    """Draws thinned to their effective number, by the worst coordinate's batch-means estimate."""
    flat = draws.reshape(-1, draws.shape[2])
    if draws.shape[1] == 1:
        return flat
    error = statistics.cluster_mean(draws).standard_error
    effective = np.min(flat.var(axis=0) / error**2)
    return flat[:: max(int(np.ceil(len(flat) / max(effective, 2))), 1)]


def _distance(variable: str, samples: Clusters, reference: _Reference, seed: int) -> dict[str, Any]:
    values, vectors = np.linalg.eigh(reference.covariance)
    keep = values > 1e-12 * values[-1]
    whiten = vectors[:, keep] / np.sqrt(values[keep])
    # One point a cluster: the permutation null needs independent points.
    x = ((samples[:, -1] - reference.mean) @ whiten)[:MAX_DISTANCE_POINTS]
    y = ((_independent(reference.draws) - reference.mean) @ whiten)[:MAX_DISTANCE_POINTS]
    test = statistics.energy_distance(x, y, seed)
    return {
        "variable": variable,
        "energy_distance": test.distance,
        "coefficient": test.coefficient,
        "p_value": test.p_value,
        "endpoints": len(x),
        "draws": len(y),
    }
