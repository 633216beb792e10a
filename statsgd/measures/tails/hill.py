"""Hill's estimator of a power-law tail."""

import numpy as np
from jaxtyping import Float

THRESHOLDS = ("square_root", "tenth", "distance")
_TRIED = 100
_FEWEST = 10


def hill(values: Float[np.ndarray, " n"], number: str | int) -> tuple[float, float]:
    """κ and its error from the `number` largest |x|, or from as many as fit a power law best."""
    ordered = np.sort(np.abs(values))[::-1]
    ordered = ordered[ordered > 0]
    if isinstance(number, str):
        most = len(ordered) // 2
        tried = np.unique(np.geomspace(_FEWEST, max(most, _FEWEST), _TRIED).astype(int)).tolist()
        distances = [_distance(ordered, k) for k in tried if k < len(ordered)]
        number = tried[int(np.argmin(distances))] if distances else _FEWEST
    if number >= len(ordered):
        raise ValueError(
            f"samples must have {number + 1} values off their centre for this threshold, got "
            f"{len(ordered)}"
        )
    mean = _mean_log(ordered, number)
    if mean == 0:
        raise ValueError(f"samples must differ in their tail, got {number} equal largest values")
    return 1 / mean, 1 / (mean * np.sqrt(number))


def _mean_log(ordered: Float[np.ndarray, " n"], number: int) -> float:
    return float(np.mean(np.log(ordered[:number] / ordered[number])))


def _distance(ordered: Float[np.ndarray, " n"], number: int) -> float:
    """Kolmogorov's, between the largest values and the Pareto law fitted to them."""
    mean = _mean_log(ordered, number)
    if mean == 0:
        return np.inf
    # P(above) at the i-th largest value steps from i/k to (i−1)/k.
    fitted = (ordered[:number] / ordered[number]) ** (-1 / mean)
    steps = np.arange(number + 1) / number
    return float(max(np.max(np.abs(fitted - steps[1:])), np.max(np.abs(fitted - steps[:-1]))))
