"""How heavy tails are, and so what an interval on moments is worth."""

from typing import Any

import numpy as np
from jaxtyping import Float

#: Tail index below which an interval on a variance, or on a mean, is not to be trusted: the fourth
#: and the second moment would be infinite.
FOR_VARIANCE, FOR_MEAN = 4.0, 2.0
#: Points below which nothing is said on tails.
_FEWEST = 200


def tail_index(points: Float[Any, "n k"]) -> Float[Any, " k"]:
    """Hill's estimate of the tail index of each column, one standard error up.

    From the hundredth (at least ten) farthest from the median: 8 for a normal law, 5 for an
    exponential one. Infinite for fewer than 200 points. Source: Hill (1975).
    """
    number = len(points)
    if number < _FEWEST:
        return np.full(points.shape[1], np.inf)
    farthest = max(10, number // 100)
    distance = np.abs(points - np.median(points, axis=0))
    ordered = np.partition(distance, number - farthest - 1, axis=0)[-farthest - 1 :]
    edge = ordered[0]
    logs = np.log(np.divide(ordered[1:], edge, out=np.ones_like(ordered[1:]), where=edge > 0))
    mean = logs.mean(axis=0)
    index = np.divide(1.0, mean, out=np.full(points.shape[1], np.inf), where=mean > 0)
    return index * (1 + 1 / np.sqrt(farthest))
