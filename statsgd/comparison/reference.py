"""What a law, or draws from one, say about each variable."""

from typing import Any, NamedTuple, Self

import jax
import numpy as np
import xarray as xr
from jaxtyping import Float

from statsgd.arguments import finite_array
from statsgd.comparison import statistics
from statsgd.comparison.dependence import Thinned, effective_sizes, thin_by_effective_size
from statsgd.comparison.samples import Clusters, read_chains, stretches
from statsgd.laws import IntractableError, Law

#: Exact draws for the moments of a law that does not state them.
_FOR_MOMENTS = 100_000


class Reference(NamedTuple):
    """Moments of one variable, with errors where they come from draws, and draws."""

    mean: Float[Any, " d"]
    covariance: Float[Any, "d d"]
    """Infinite throughout where any of it does not exist."""
    draws: Clusters
    independent: Thinned
    """The draws as independent points."""
    exact: bool
    """Whether the moments are the law's own."""
    chains: Float[Any, "chain draw d"] | None = None
    """The draws as chains, where they are correlated."""

    def seen_along(self, columns: Float[Any, "d k"]) -> Self:
        """The same of the projections on `columns`."""
        covariance = np.full((columns.shape[1],) * 2, np.inf)
        if self.has_covariance:
            covariance = columns.T @ self.covariance @ columns
        return self._replace(
            mean=self.mean @ columns,
            covariance=covariance,
            draws=self.draws @ columns,
            independent=self.independent._replace(values=self.independent.values @ columns),
            chains=None if self.chains is None else self.chains @ columns,
        )

    @property
    def has_covariance(self) -> bool:
        """Whether second moments exist."""
        return bool(np.all(np.isfinite(self.covariance)))

    def errors(self) -> tuple[Float[Any, " d"], Float[Any, " d"]]:
        """Standard errors of the mean and, relative to it, of the variance: zero where exact.

        Of chains from their effective sample sizes, else from the scatter of independent draws.
        """
        if self.exact:
            return np.zeros(len(self.mean)), np.zeros(len(self.mean))
        if self.chains is None:
            spread = statistics.cluster_variance(self.draws)
            mean = statistics.cluster_mean(self.draws).standard_error
            return mean, spread.standard_error / spread.value
        squared = (self.chains - self.chains.mean(axis=(0, 1))) ** 2
        means = [
            values.std(axis=(0, 1)) / np.sqrt(effective_sizes(values, "mean"))
            for values in (self.chains, squared)
        ]
        return means[0], means[1] / squared.mean(axis=(0, 1))


def references(
    source: Any, variables: tuple[str, ...], seed: int, number: int
) -> dict[str, Reference]:
    """What `source` says of those `variables` that it knows; a law gives `number` exact draws.

    Moments that a law does not state are those of so many draws that their error, which enters as
    that of any draws, is small. Raises `ValueError` for a law without exact draws.
    """
    if isinstance(source, np.ndarray | jax.Array):
        points = np.asarray(finite_array("law_or_draws", source, ndim=2), dtype=np.float64)
        return {"params": _of_points(points)}
    if isinstance(source, xr.DataTree):
        chains = read_chains(source, variables)
        if not chains:
            raise ValueError(f"the draws hold none of {', '.join(variables)}")
        return {name: _of_draws(values) for name, values in chains.items()}
    if not (isinstance(source, Law) and source.exact_draws):
        raise ValueError(
            "law_or_draws must be a Law with exact draws or draws from statsgd.sample, got "
            f"{type(source).__name__}; draw from it first"
        )
    known = {name: _moments(source, name) for name in variables if name in source.variables}
    total = max(number, _FOR_MOMENTS) if None in known.values() else number
    exact = source.draw_variables(jax.random.key(seed), (total,))
    found = {}
    for name, moments in known.items():
        points = np.asarray(exact[name], dtype=np.float64)
        mean, covariance = moments or (points.mean(axis=0), np.atleast_2d(np.cov(points.T)))
        if not np.all(np.isfinite(covariance)):
            mean, covariance = np.median(points, axis=0), np.full_like(covariance, np.inf)
        thinned = Thinned(points[:number], 1, min(number, total), float(min(number, total)))
        found[name] = Reference(mean, covariance, points[:, None], thinned, moments is not None)
    return found


def _moments(law: Law, variable: str) -> tuple[Float[Any, " d"], Float[Any, "d d"]] | None:
    """Mean and covariance of a variable where the law states them."""
    try:
        mean, covariance = law.mean(variable), law.covariance(variable)
    except IntractableError:
        return None
    return np.asarray(mean, dtype=np.float64), np.asarray(covariance, dtype=np.float64)


def _of_points(points: Float[Any, "n d"]) -> Reference:
    thinned = Thinned(points, 1, len(points), float(len(points)))
    covariance = np.atleast_2d(np.cov(points.T))
    return Reference(points.mean(axis=0), covariance, points[:, None], thinned, False)


def _of_draws(chains: Float[Any, "chain draw d"]) -> Reference:
    clusters = stretches(chains)
    flat = clusters.reshape(-1, clusters.shape[2])
    covariance = np.atleast_2d(np.cov(flat.T))
    thinned = thin_by_effective_size(chains)
    # Of chains that are too short the stretches are all that is known of errors.
    known = chains if chains.shape[1] >= 4 else None
    return Reference(flat.mean(axis=0), covariance, clusters, thinned, False, known)
