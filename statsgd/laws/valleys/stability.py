"""Upper bounds of the learning rate in a valley: where the noise stops being survivable."""

from typing import Any, NamedTuple

import numpy as np

from statsgd.arguments import count, fraction, non_negative, positive
from statsgd.laws.minimum.linear_regression import gaussian_critical_learning_rate


class LearningRateBounds(NamedTuple):
    """Learning rates below which a valley is stable, each by one criterion."""

    edge_of_stability: float
    """2(1+β)/h_max: the mean across the sharpest stretch the walker can reach."""
    curvature_noise: float | None
    """2h/(h² + s_h²), least over the directions: mean square under random curvature. None if no
    curvature variance was given, or with momentum, for which it is not known."""
    least_squares: float | None
    """Mean square for least squares with fresh Gaussian inputs of covariance diag(h). None if no
    batch size was given."""

    @property
    def smallest(self) -> float:
        """The binding one."""
        return min(bound for bound in self if bound is not None)


def max_stable_learning_rate(
    curvatures: Any,
    momentum: Any = 0.0,
    *,
    curvature_variance: Any = None,
    batch_size: int | None = None,
) -> LearningRateBounds:
    """Upper bounds of the learning rate across a valley.

    **Arguments:** `curvatures` h_i, positive, the largest that the walker can reach; `momentum` β;
    `curvature_variance` s_h² of a minibatch's curvature (one example's divided by S), per
    direction; `batch_size` S for the least-squares bound, the smallest root η of
    (η/S) Σ h_i/(2 − ηh_i − ηh_i/S) = 1 (for equal h: 2/(h[1 + (d+1)/S])).

    Yang, Tang, Tu (2023), arXiv:2206.01246, publish that such a bound exists; these are derived.

    >>> max_stable_learning_rate([4.0, 1.0], momentum=0.5)
    LearningRateBounds(edge_of_stability=0.75, curvature_noise=None, least_squares=None)
    """
    h = np.atleast_1d(positive("curvatures", curvatures))
    beta = float(fraction("momentum", momentum))
    curvature_noise = least_squares = None
    if curvature_variance is not None and beta == 0:
        variance = non_negative("curvature_variance", curvature_variance)
        curvature_noise = float(np.min(2 * h / (h**2 + variance)))
    if batch_size is not None:
        s = count("batch_size", batch_size)
        least_squares = gaussian_critical_learning_rate(np.diag(h), s, beta)
    return LearningRateBounds(2 * (1 + beta) / float(np.max(h)), curvature_noise, least_squares)
