"""Variance of weights along directions, and how it goes with curvature or flatness."""

import warnings
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from statsgd.arguments import count, finite_array, non_negative, positive
from statsgd.estimate import Estimate
from statsgd.measures.runs.averages import bootstrap, mean_over_clusters
from statsgd.problems import ConvergenceWarning

_ROUNDS, _TOLERANCE = 100, 1e-10


class PowerLawFit(NamedTuple):
    """ln y = intercept + exponent · ln x, weighted by the errors of both."""

    exponent: float
    standard_error: float
    """From the errors given, which must be independent."""
    intercept: float
    chi_square: float
    """Weighted residuals; about `degrees_of_freedom` if a power law fits within the errors."""
    degrees_of_freedom: int


def ensemble_variance(
    params: Float[Any, "replica d"], directions: Float[Any, "d k"] | None = None
) -> Estimate:
    """Variance of independent endpoints along each direction, about their own mean (params²).

    `directions` are columns, such as eigenvectors of the Hessian; by default the coordinates. The
    error is that of the mean of squares, for any law with a fourth moment: relative √(2/n) for a
    Gaussian.

    Raises `ValueError` for fewer than two endpoints and for directions that do not fit.

    Numbers are float64.

    >>> import numpy as np
    >>> ensemble_variance(np.array([[1.0], [2.0], [3.0]])).value
    array([1.])
    """
    values = _along(finite_array("params", params, ndim=2), directions)
    return _scaled(mean_over_clusters(_squares(values)), len(values) / (len(values) - 1))


def window_variances(
    params: Float[Any, "replica step d"],
    window: int,
    directions: Float[Any, "d k"] | None = None,
) -> Estimate:
    """Variance within windows of `window` records, each about its own mean, along each direction.

    What one trajectory shows: flat directions that move little within a window have a small
    variance there whatever their stationary one, see `laws.networks.window_variance`. Windows
    follow each other without overlap, and count as independent.

    Raises `ValueError` for windows of fewer than two records and fewer than two windows in all.

    Source: Feng, Tu (2021), arXiv:2001.01678.

    >>> import numpy as np
    >>> run = np.array([[[0.0], [2.0], [5.0], [7.0]]])  # one run of four steps
    >>> window_variances(run, window=2).value
    array([1.])
    """
    return mean_over_clusters(_windows(params, window, directions))


def power_law_fit(
    x: Float[Any, " k"], y: Float[Any, " k"], x_error: Any = 0.0, y_error: Any = 0.0
) -> PowerLawFit:
    """The power law y ∝ x^b by weighted least squares of ln y on ln x, with errors in both.

    It minimises Σ (ln y − a − b ln x)²/(s_y² + b²s_x²), s the relative errors. Ignoring errors in
    x flattens b. Without any errors all points weigh alike, and b has the error of ordinary least
    squares.

    Raises `ValueError` for numbers that are not positive, fewer than three points, x that do not
    differ, and errors of which some but not all vanish. Warns (`ConvergenceWarning`) where the
    iteration does not settle.

    Source: York (1968).

    Numbers are float64.

    >>> import numpy as np
    >>> x = np.array([1.0, 2.0, 4.0, 8.0])
    >>> fit = power_law_fit(x, 3 * x**2)
    >>> round(float(fit.exponent), 6)
    2.0
    """
    across, up = (np.log(positive(name, value)) for name, value in (("x", x), ("y", y)))
    if across.ndim != 1 or across.shape != up.shape or len(across) < 3 or not np.ptp(across) > 0:
        raise ValueError(
            f"x and y must be three or more numbers each, x different ones, got shapes "
            f"{across.shape} and {up.shape}"
        )
    s_x = non_negative("x_error", x_error) / np.exp(across)
    s_y = non_negative("y_error", y_error) / np.exp(up)
    b, freedom = float(np.polyfit(across, up, 1)[0]), len(across) - 2
    plain = not (np.any(s_x) or np.any(s_y))
    if not plain and not np.all(s_x**2 + s_y**2 > 0):
        raise ValueError("y_error must be positive at every point, or zero at all of them")
    for _ in range(_ROUNDS):
        weights = np.ones_like(up) if plain else 1 / (s_y**2 + b**2 * s_x**2)
        u, v = across - np.average(across, weights=weights), up - np.average(up, weights=weights)
        # York's iteration: points are moved along their error ellipses to the line.
        shift = weights * (s_y**2 * u + b * s_x**2 * v) if not plain else u
        before, b = b, float(np.sum(weights * shift * v) / np.sum(weights * shift * u))
        if abs(b - before) <= _TOLERANCE * (1 + abs(b)):
            break
    else:
        warnings.warn(
            f"fit: the exponent still moves by {abs(b - before):.2g} after {_ROUNDS} rounds",
            ConvergenceWarning,
            stacklevel=2,
        )
    off = v - b * u
    chi_square = float(np.sum(weights * off**2))
    if plain:
        scatter = chi_square / freedom
        error = np.sqrt(scatter / np.sum(u**2))
    else:
        centred = shift - np.average(shift, weights=weights)
        error = 1 / np.sqrt(np.sum(weights * centred**2))
    a = np.average(up, weights=weights) - b * np.average(across, weights=weights)
    return PowerLawFit(b, float(error), float(a), chi_square, freedom)


def variance_exponent(
    params: Float[Any, "replica d"] | Float[Any, "replica step d"],
    directions: Float[Any, "d k"] | None,
    against: Float[Any, " k"],
    against_error: Any = 0.0,
    *,
    window: int | None = None,
    seed: int = 0,
    resamples: int = 400,
) -> Estimate:
    """Exponent b of σ² ∝ x^b over directions, x = `against` their curvature or flatness.

    With x the curvature h, σ² ∝ h^b; with x the flatness F, b = −ψ of σ² ∝ F^(−ψ). Directions are
    weighted by the errors of both sides (`power_law_fit`). The interval is the bootstrap's over
    replicas, or over windows of a trajectory, which keeps what directions have in common; in each
    resample x is drawn within its error too. That adds scatter the fit does not correct, so errors
    of x should be below the spread of ln x. The prediction near a minimum is
    `laws.networks.variance_flatness_exponent`.

    **Arguments:** `params` `(replica, d)` independent endpoints, or `(replica, step, d)` with
    `window`: the variances within windows. Directions by principal components of the same data
    make a spectrum of their own: take those of the Hessian.

    Raises `ValueError` as `power_law_fit`.

    Source: Feng, Tu (2021), arXiv:2001.01678, for the relation.

    Numbers are float64.

    >>> import numpy as np
    >>> h = np.array([1.0, 2.0, 4.0, 8.0])
    >>> ends = np.random.default_rng(0).normal(size=(1000, 4)) * h  # σ² ∝ h²
    >>> round(float(variance_exponent(ends, None, against=h).value), 1)
    2.0
    """
    x = np.asarray(positive("against", against), dtype=np.float64)
    x_error = np.broadcast_to(non_negative("against_error", against_error), x.shape)
    if window is None:
        points = _along(finite_array("params", params, ndim=2), directions)
    else:
        points = _windows(params, window, directions)
    if points.shape[1:] != x.shape:
        raise ValueError(f"against must have shape {points.shape[1:]}, got {x.shape}")

    def variances(these: np.ndarray) -> Estimate:
        return mean_over_clusters(_squares(these) if window is None else these)

    y_error = np.asarray(variances(points).standard_error)
    rng = np.random.default_rng(seed)
    drawn = np.exp(rng.normal(size=(count("resamples", resamples, at_least=50), *x.shape)))
    shifts = iter(np.concatenate([drawn ** (x_error / x), np.ones((1, *x.shape))]))

    def exponent(these: np.ndarray) -> float:
        return power_law_fit(x * next(shifts), variances(these).value, x_error, y_error).exponent

    return bootstrap(exponent, points, seed=seed + 1, resamples=resamples)


def _along(values: Any, directions: Any) -> np.ndarray:
    points = np.asarray(values, dtype=np.float64)
    if directions is None:
        return points
    q = np.asarray(finite_array("directions", directions, ndim=2), dtype=np.float64)
    if q.shape[0] != points.shape[-1]:
        raise ValueError(f"directions must have {points.shape[-1]} rows, got shape {q.shape}")
    return points @ q


def _squares(points: np.ndarray) -> np.ndarray:
    return (points - points.mean(axis=0)) ** 2


def _scaled(measured: Estimate, factor: float) -> Estimate:
    return measured._replace(
        value=factor * measured.value, standard_error=factor * measured.standard_error
    )


def _windows(params: Any, window: int, directions: Any) -> Float[Any, "n k"]:
    values = _along(finite_array("params", params, ndim=3), directions)
    length = count("window", window, at_least=2)
    number = values.shape[1] // length
    if number * len(values) < 2:
        raise ValueError(
            f"window must fit twice into the runs of {values.shape[1]} records, got {window}"
        )
    cut = values[:, values.shape[1] - number * length :]
    return cut.reshape(len(values) * number, length, -1).var(axis=1)
