"""Draws of chains thinned until they are as good as independent."""

from typing import Any, NamedTuple

import numpy as np
import xarray as xr
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
    """
    chain, draw, d = chains.shape
    values = np.asarray(chains, dtype=np.float64)
    if draw < 4:
        return Thinned(values[:, -1], draw, chain * draw, float(chain))
    import arviz_stats  # seconds to import

    looked_at = np.concatenate([values, (values - values.mean(axis=(0, 1))) ** 2], axis=2)
    moving = np.ptp(looked_at, axis=(0, 1)) > 0
    total, effective = chain * draw, float(chain * draw)
    if moving.any():
        dataset = xr.Dataset({"x": (("chain", "draw", "column"), looked_at[:, :, moving])})
        for method in ("bulk", "tail"):
            size = float(arviz_stats.ess(dataset, method=method)["x"].min())
            effective = min(effective, size)
    # Estimates on independent draws scatter by a few per cent about the number of draws.
    step = 1 if effective > 0.8 * total else int(np.ceil(total / max(effective, 1.0)))
    return Thinned(values[:, ::step].reshape(-1, d), step, total, effective)
