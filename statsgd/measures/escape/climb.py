"""Escaping efficiency: how far the loss climbs above where an ensemble was let go."""

from typing import Any

import numpy as np
from jaxtyping import Float

from statsgd.arguments import finite_array
from statsgd.estimate import Estimate
from statsgd.measures.runs.averages import mean_over_clusters


def loss_climb(losses: Float[Any, "replica step"], start_loss: Any) -> Estimate:
    """E[L(θ_k) − L(θ_0)] at every recorded step, with its error over replicas.

    At a quadratic minimum with constant noise this is `laws.minimum.escape_efficiency`: ½η² Tr(HC)
    after one step, so that at equal Tr C noise along sharp directions climbs fastest. Errors at
    different steps belong to the same replicas, and are correlated.

    **Arguments:** `start_loss` L(θ_0), one number or `(replica,)`. Unit: loss.

    Raises `ValueError` for shapes that do not fit, non-finite losses and fewer than two replicas.

    Source: Zhu, Wu, Yu, Wu, Ma (2019), arXiv:1803.00195.

    Numbers are float64.

    >>> import numpy as np
    >>> loss_climb(np.array([[1.0, 2.0], [3.0, 4.0]]), 1.0).value
    array([1., 2.])
    """
    values = np.asarray(finite_array("losses", losses, ndim=2), dtype=np.float64)
    begin = np.asarray(finite_array("start_loss", start_loss), dtype=np.float64)
    if begin.shape not in ((), (len(values),)):
        raise ValueError(f"start_loss must have shape () or ({len(values)},), got {begin.shape}")
    return mean_over_clusters(values - (begin if begin.ndim == 0 else begin[:, None]))
