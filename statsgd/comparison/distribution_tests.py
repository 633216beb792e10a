"""Whole distributions against each other: distances and tests on whitened points."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import pandas as pd
from scipy.spatial.distance import cdist

from statsgd.arguments import one_of
from statsgd.comparison.multiplicity import holm
from statsgd.comparison.reference import Reference
from statsgd.comparison.samples import Clusters
from statsgd.comparison.stein import kernel_stein_discrepancy
from statsgd.comparison.two_sample import TWO_SAMPLE_TESTS, energy
from statsgd.comparison.whole import Whitening, whitening
from statsgd.laws import Law

#: Points of each sample that enter a test, whose cost is quadratic.
MAX_POINTS = 1000

#: Tests that `compare` knows by name.
TESTS = (*TWO_SAMPLE_TESTS, "kernel_stein_discrepancy")


def distances(
    samples: dict[str, Clusters], references: dict[str, Reference], seed: int
) -> pd.DataFrame:
    """The energy distance of every variable, whitened by the law's covariance."""
    rows = [_distance(name, samples[name], one, seed) for name, one in references.items()]
    return pd.DataFrame(rows)


def _distance(variable: str, samples: Clusters, reference: Reference, seed: int) -> dict[str, Any]:
    whiten = _whitening(reference)
    x, y = _points(samples, reference, whiten)
    if not x.shape[1] or min(len(x), len(y)) < 2:
        # A law without noise, or a single point.
        blank = dict.fromkeys(("energy_distance", "coefficient", "p_value"), np.nan)
        return {"variable": variable} | blank | {"endpoints": len(x), "draws": len(y)}
    test = energy(x, y, jax.random.key(seed))
    return {
        "variable": variable,
        "energy_distance": test.statistic,
        # 0 for equal laws, at most 1.
        "coefficient": test.statistic / (2 * cdist(x, y).mean()),
        "p_value": test.p_value,
        "endpoints": len(x),
        "draws": len(y),
    }


def distribution_tests(
    samples: dict[str, Clusters],
    references: dict[str, Reference],
    source: Any,
    names: Sequence[str],
    seed: int,
) -> pd.DataFrame:
    """Tests of every variable, with p-values adjusted by Holm for all of them together.

    The Stein test is of `params` alone and needs the law itself. Raises `ValueError` for unknown
    names and for the Stein test of draws.
    """
    rows = []
    for name in names:
        one_of("tests", name, TESTS)
    key = jax.random.key(seed)
    for variable, reference in references.items():
        whiten = _whitening(reference)
        x, y = _points(samples[variable], reference, whiten)
        for index, name in enumerate(names):
            of_test = jax.random.fold_in(key, index)
            if name in TWO_SAMPLE_TESTS:
                outcome = TWO_SAMPLE_TESTS[name](x, y, of_test)
                against = f"{len(y)} draws ({reference.independent.describe()})"
                null = "permutations"
            elif variable == "params":
                if not isinstance(source, Law):
                    raise ValueError(
                        "kernel_stein_discrepancy needs a Law for its score, got draws"
                    )
                points = samples[variable][:MAX_POINTS, -1]
                if np.isfinite(whiten.reach):
                    raise ValueError(
                        "kernel_stein_discrepancy needs a law with a covariance to whiten by"
                    )
                # ∇ log p in the whitened coordinates: the covector of the inverse map.
                score = np.asarray(source.score(points)) * whiten.unit
                score = score @ np.linalg.pinv(whiten.columns).T
                outcome = kernel_stein_discrepancy(x, score, of_test)
                against, null = "the score of the law", "wild bootstrap"
            else:
                continue
            rows.append(
                {
                    "variable": variable,
                    "test": name,
                    "statistic": outcome.statistic,
                    "p_value": outcome.p_value,
                    "endpoints": len(x),
                    "against": against,
                    "null": null,
                }
            )
    table = pd.DataFrame(rows)
    if len(table):
        table.insert(4, "adjusted_p_value", holm(table["p_value"].to_numpy()))
    return table


def _whitening(reference: Reference) -> Whitening:
    return whitening(reference.mean, reference.covariance, reference.independent.values)


def _points(samples: Clusters, reference: Reference, whiten: Whitening) -> tuple[Any, Any]:
    # One point a cluster: the nulls need independent points.
    x = whiten(samples[:MAX_POINTS, -1])
    y = whiten(reference.independent.values[:MAX_POINTS])
    return x, y
