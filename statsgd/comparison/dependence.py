"""Draws of chains thinned until they are as good as independent."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float


class Thinned(NamedTuple):
    """Every `step`-th draw of all chains."""

    values: Float[Any, "n d"]
    step: int
    draws: int
    """Number of draws before thinning."""
    effective: float
    """Smallest effective sample size over coordinates and their squares, bulk and tails."""

    def describe(self) -> str:
        """What was done, for the reader of a result."""
        if self.step == 1:
            return f"all {self.draws} draws, effective sample size {self.effective:.0f}"
        return (
            f"{len(self.values)} of {self.draws} draws, every {self.step}th: they are correlated, "
            f"with an effective sample size of {self.effective:.0f}"
        )


def thin_by_effective_size(chains: Float[Any, "chain draw d"]) -> Thinned:
    """Thin draws of chains to their effective sample size.

    The size is the smallest over coordinates and their squared deviations, of the bulk and tail
    estimates; draws that are already independent stay as they are. Of chains with fewer than 4
    draws, which say nothing on their correlation, the last draws are kept.

    Source: Vehtari et al. (2021), arXiv:1903.08008, for the estimates.

    >>> import numpy as np
    >>> chains = np.random.default_rng(0).normal(size=(4, 100, 1))
    >>> thin_by_effective_size(chains)._fields
    ('values', 'step', 'draws', 'effective')
    """
    chain, draw, d = chains.shape
    values = np.asarray(chains, dtype=np.float64)
    if draw < 4:
        return Thinned(values[:, -1], draw, chain * draw, float(chain))
    looked_at = np.concatenate([values, (values - values.mean(axis=(0, 1))) ** 2], axis=2)
    total = chain * draw
    sizes = [effective_sizes(looked_at, method).min() for method in ("bulk", "tail")]
    effective = float(min(total, *sizes))
    # Estimates on independent draws scatter by a few per cent about the number of draws.
    step = 1 if effective > 0.8 * total else int(np.ceil(total / max(effective, 1.0)))
    return Thinned(values[:, ::step].reshape(-1, d), step, total, effective)


def effective_sizes(chains: Float[Any, "chain draw d"], method: str) -> Float[Any, " d"]:
    """Effective sample size of each column by one `method` of ArviZ.

    Columns that never move count every draw. Needs at least 4 draws a chain.
    """
    from arviz_stats.base import array_stats  # seconds to import

    sizes = np.full(chains.shape[2], float(chains.shape[0] * chains.shape[1]))
    moving = np.ptp(chains, axis=(0, 1)) > 0
    if moving.any():
        columns = np.moveaxis(chains[:, :, moving], 2, 0)
        tails = {"prob": (0.05, 0.95)} if method == "tail" else {}
        sizes[moving] = array_stats.ess(columns, chain_axis=1, draw_axis=2, method=method, **tails)
    return sizes


def largest_rhat(chains: Float[Any, "chain draw d"]) -> tuple[float, int]:
    """Rank-normalised split R-hat of the column where it is largest, and which that is.

    1 where nothing is known, of chains with fewer than 4 draws. Source: Vehtari et al. (2021),
    arXiv:1903.08008.
    """
    if chains.shape[1] < 4:
        return 1.0, 0
    from arviz_stats.base import array_stats

    columns = np.moveaxis(np.asarray(chains, dtype=np.float64), 2, 0)
    found = np.ones(len(columns))
    moving = np.ptp(columns, axis=(1, 2)) > 0
    if moving.any():
        found[moving] = array_stats.rhat(columns[moving], chain_axis=1, draw_axis=2)
    # Chains that stand still at different places have none: they have not mixed.
    found = np.where(np.isnan(found), np.inf, found)
    return float(found.max()), int(found.argmax())
