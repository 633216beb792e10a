"""What a law, or draws from one, say about each variable."""

from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr
from jaxtyping import Float

from statsgd.comparison.dependence import Thinned, thin_by_effective_size
from statsgd.comparison.samples import Clusters, read_chains, stretches
from statsgd.laws import Law
from statsgd.laws.bases.tabulated import TabulatedLaw

#: Exact draws for the moments of a law that does not state them.
_FOR_MOMENTS = 100_000


class Reference(NamedTuple):
    """Moments of one variable, with errors where they come from draws, and draws."""

    mean: Float[Any, " d"]
    covariance: Float[Any, "d d"]
    draws: Clusters
    independent: Thinned
    """The draws as independent points."""
    exact: bool
    """Whether the moments are the law's own."""


def references(
    source: Any, variables: tuple[str, ...], seed: int, number: int
) -> dict[str, Reference]:
    """What `source` says of those `variables` that it knows; a law gives `number` exact draws.

    Moments that a law does not state are those of so many draws that their error, which enters as
    that of any draws, is small. Raises `ValueError` for a law without exact draws.
    """
    if isinstance(source, xr.DataTree):
        chains = read_chains(source, variables)
        if not chains:
            raise ValueError(f"the draws hold none of {', '.join(variables)}")
        return {name: _of_draws(values) for name, values in chains.items()}
    if not (isinstance(source, Law) and _draws_exactly(source)):
        raise ValueError(
            "law_or_draws must be a Law with exact draws or draws from statsgd.sample, got "
            f"{type(source).__name__}; draw from it first"
        )
    source.require_proper()
    known = hasattr(source, "covariance")
    total = number if known else max(number, _FOR_MOMENTS)
    exact = source.draw_variables(jax.random.key(seed), (total,))
    found = {}
    for name in variables:
        if name in source.variables:
            points = np.asarray(exact[name], dtype=np.float64)
            some = points[:number]
            found[name] = Reference(
                np.asarray(_moment(source, "mean", name), dtype=np.float64)
                if known
                else points.mean(axis=0),
                np.asarray(_moment(source, "covariance", name), dtype=np.float64)
                if known
                else np.atleast_2d(np.cov(points.T)),
                points[:, None],
                Thinned(some, 1, len(some), float(len(some))),
                known,
            )
    return found


def _of_draws(chains: Float[Any, "chain draw d"]) -> Reference:
    clusters = stretches(chains)
    flat = clusters.reshape(-1, clusters.shape[2])
    covariance = np.atleast_2d(np.cov(flat.T))
    return Reference(flat.mean(axis=0), covariance, clusters, thin_by_effective_size(chains), False)


def _draws_exactly(law: Law) -> bool:
    # Quadrature inverts the distribution function of a law with one parameter.
    return law.generative or (isinstance(law, TabulatedLaw) and law.dimension == 1)


def _moment(law: Law, name: str, variable: str) -> Any:
    # Laws of the parameters alone take no variable.
    method = getattr(law, name)
    return method() if variable == "params" else method(variable)
