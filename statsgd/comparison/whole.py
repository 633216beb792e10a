"""All variables side by side in units of the law: positions and momenta as one distribution."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from statsgd.comparison.directions import NOISELESS
from statsgd.comparison.reference import Reference
from statsgd.comparison.samples import Clusters
from statsgd.comparison.tails import FOR_VARIANCE, tail_index
from statsgd.laws import IntractableError, Law

#: Points of a law without covariance are drawn in to this many median deviations.
_REACH = 3.0
#: A direction of the correlation matrix with less than this has no noise.
_SINGULAR = 1e-8


class Whitening(NamedTuple):
    """The map to coordinates in which a law has covariance one, as far as it has noise."""

    centre: Float[Any, " d"]
    unit: Float[Any, " d"]
    """Standard deviation of each coordinate; median deviations where none exist."""
    middle: Float[Any, " d"]
    """Mean in these units."""
    columns: Float[Any, "d k"]
    null: Float[Any, "d q"]
    """Orthonormal columns, in these units, along which the law has no noise."""
    reach: float
    """Norm to which longer points are drawn in, in a fixed direction; infinite for none."""

    def scaled(self, points: Float[Any, "... d"]) -> Float[Any, "... d"]:
        """Points in units of the law, drawn in where it has no covariance."""
        scaled = (points - self.centre) / self.unit
        if np.isfinite(self.reach):
            norm = np.linalg.norm(scaled, axis=-1, keepdims=True)
            scaled = scaled * np.minimum(1.0, self.reach / np.maximum(norm, 1e-300))
        return scaled

    def __call__(self, points: Float[Any, "... d"]) -> Float[Any, "... k"]:
        """The whitened points."""
        return (self.scaled(points) - self.middle) @ self.columns


class Whole(NamedTuple):
    """Whitened endpoints and draws of all variables that a law speaks about."""

    measured: Clusters
    draws: Clusters
    scattered: Float[Any, "m k"]
    """Independent draws."""
    exact: bool
    """Whether the law's own covariance, which is then one, is known."""
    off_support: Clusters
    """Deviations of endpoints along directions without noise, in units of the law."""
    reason: str
    """Why their covariance gets no verdict, where tails are too heavy for it."""


def whole(
    samples: dict[str, Clusters], stated: dict[str, Reference], source: Any, heavy: bool
) -> Whole:
    """Endpoints and law as one distribution over all `stated` variables.

    The covariance of a `heavy` law is not used, whether or not it exists.
    """
    measured = np.concatenate([samples[name] for name in stated], axis=2)
    draws = np.concatenate([one.draws for one in stated.values()], axis=2)
    scattered = np.concatenate([one.independent.values for one in stated.values()], axis=1)
    mean = np.concatenate([one.mean for one in stated.values()])
    covariance, exact = _joint_covariance(stated, source, draws)
    if heavy:
        covariance = np.full_like(covariance, np.inf)
    map_to = whitening(mean, covariance, scattered)
    white = map_to(measured)
    clipped = np.isfinite(map_to.reach)
    index = np.inf if clipped else float(np.min(tail_index(white[:, -1]), initial=np.inf))
    reason = ""
    if index < FOR_VARIANCE:
        reason = f"tails of the endpoints (index {index:.2g}) leave their variance without an error"
    return Whole(
        white,
        map_to(draws),
        map_to(scattered),
        exact and not clipped,
        (map_to.scaled(measured) - map_to.middle) @ map_to.null,
        reason,
    )


def whitening(
    mean: Float[Any, " d"], covariance: Float[Any, "d d"], draws: Float[Any, "m d"]
) -> Whitening:
    """The whitening of a law; by its draws where its covariance does not exist."""
    if np.all(np.isfinite(covariance)):
        variance = np.diagonal(covariance)
        noisy = variance > NOISELESS * np.max(variance, initial=0.0)
        # A coordinate without noise is measured by the noisiest, and without any as it is.
        unit = np.sqrt(np.where(noisy, variance, np.max(variance, initial=0.0) or 1.0))
        columns, null = _roots(covariance / np.outer(unit, unit))
        return Whitening(mean, unit, np.zeros(len(mean)), columns, null, np.inf)
    centre = np.median(draws, axis=0)
    unit = np.median(np.abs(draws - centre), axis=0)
    unit = np.where(unit > 0, unit, np.max(unit, initial=0.0) or 1.0)
    reach = _REACH * np.sqrt(len(unit))
    blank = np.zeros((len(unit), 0))
    unclipped = Whitening(centre, unit, np.zeros(len(unit)), blank, blank, reach)
    scaled = unclipped.scaled(draws)
    columns, null = _roots(np.atleast_2d(np.cov(scaled.T)))
    return unclipped._replace(middle=scaled.mean(axis=0), columns=columns, null=null)


def _roots(correlation: Float[Any, "d d"]) -> tuple[Float[Any, "d k"], Float[Any, "d q"]]:
    values, vectors = np.linalg.eigh((correlation + correlation.T) / 2)
    keep = values > _SINGULAR
    return vectors[:, keep] / np.sqrt(values[keep]), vectors[:, ~keep]


def _joint_covariance(
    stated: dict[str, Reference], source: Any, draws: Clusters
) -> tuple[Float[Any, "d d"], bool]:
    """Covariance of all variables together, and whether the law states it."""
    if not all(one.has_covariance for one in stated.values()):
        return np.full((draws.shape[2],) * 2, np.inf), False
    exact = all(one.exact for one in stated.values()) and isinstance(source, Law)
    names = list(stated)
    if exact:
        try:
            blocks = [[np.asarray(source.covariance(a, b)) for b in names] for a in names]
            return np.block(blocks), True
        except IntractableError:
            pass
    flat = draws.reshape(-1, draws.shape[2])
    return np.atleast_2d(np.cov(flat.T)), False
