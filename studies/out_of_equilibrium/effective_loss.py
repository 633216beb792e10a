"""Where the mean of SGD is: at the minimum of the loss, or of another one."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Float

import statsgd
from statsgd.comparison import Claim, Quantity
from statsgd.comparison.statistics import cluster_mean, cluster_variance
from statsgd.estimate import Estimate
from statsgd.laws.minimum import reshuffle_effective_loss, reshuffle_mean_shift
from statsgd.problems import EmpiricalRisk, LinearRegression, empirical_risk, linear_regression
from statsgd.reports import Chart, Series

BATCH = 2
RATES = np.array([0.02, 0.05, 0.1, 0.2])
#: The learning rate at which numbers are compared.
JUDGED = 1
LOOKS, SPACING = 10, 12
SCHEMES = {"reshuffled": "reshuffle", "with replacement": "with_replacement"}
#: Relative to the shift of the other scheme: what counts as no shift.
NONE = 0.25


def least_squares() -> LinearRegression:
    """Six examples in two dimensions."""
    inputs = [[1.0, 0], [0, 1], [1, 1], [2, -1], [-1, 0.5], [0.5, 2]]
    return linear_regression(inputs, [1.0, -1, 0.5, 2, 0, -1.5])


def counts_problem() -> EmpiricalRisk:
    """e^θ − yθ on six counts y: the log of a Poisson rate, a loss that is steep on one side."""
    counts = np.array([0.0, 1, 1, 2, 3, 5])
    return empirical_risk(lambda params, y: jnp.exp(params[0]) - y * params[0], counts, np.zeros(1))


def ends(
    problem: EmpiricalRisk, sampling: str, start: Any, replicas: int, seed: int, progress: bool
) -> Float[Any, "rate replica look d"]:
    """Parameters after whole epochs, past burn-in from the minimum."""
    noise = statsgd.noise.Minibatch(BATCH, sampling)
    # From the minimum, whose distance to the mean is small, a few relaxation times do.
    first = int(np.ceil(6 / (RATES.min() * SPACING))) * SPACING
    looks = [first + i * SPACING for i in range(LOOKS)]
    ensemble = statsgd.simulate(
        problem,
        statsgd.grid(statsgd.SGD(0.1, noise), learning_rate=RATES),
        steps=looks[-1],
        replicas=replicas,
        seed=seed,
        start=np.asarray(start, dtype=np.float32),
        keep=looks,
        progress=progress,
        devices=jax.devices(),
    )
    return ensemble["snapshots"].to_dataset()["params"].values.astype(float)


def claims(replicas: int, margin: float, seed: int, progress: bool) -> Mapping[str, xr.DataTree]:
    """What is claimed of the mean."""
    return {
        "effective loss": of_least_squares(replicas, margin, seed, progress),
        "beyond quadratics": of_counts(replicas, margin, seed + 10, progress),
    }


def of_least_squares(replicas: int, margin: float, seed: int, progress: bool) -> xr.DataTree:
    """The shift of the mean on a quadratic: with reshuffling only."""
    problem = least_squares()
    minimum = problem.minimiser()
    eta = RATES[JUDGED]
    shift = statsgd.minimise(reshuffle_effective_loss(problem, eta, BATCH)).params - minimum
    direction = shift / np.linalg.norm(shift)
    per_rate = reshuffle_mean_shift(problem, minimum, 1.0, BATCH) @ direction
    found: dict[str, list[Estimate]] = {}
    for index, (name, sampling) in enumerate(SCHEMES.items()):
        runs = ends(problem, sampling, minimum, replicas, seed + index, progress)
        along = (runs - minimum) @ direction
        found[name] = [cluster_mean(one[..., None]) for one in along]
    predicted = float(np.linalg.norm(shift))
    shuffled, white = (_pair(found[name][JUDGED]) for name in SCHEMES)
    claim = Claim(
        "The mean of reshuffled SGD is the minimum of L + (η/4)[|∇L|² + (N−S)/(S(N−1)) tr Σ₁]; "
        "batches with replacement keep that of L.",
        "Adhikari et al. (2023), arXiv:2306.03521; Smith, Dherin, Barrett, De (2021), "
        "arXiv:2101.12176",
        [
            Quantity("shift of the mean, reshuffled", *shuffled, predicted, "=", margin),
            Quantity("shift with replacement, over that",
                     white[0] / predicted, white[1] / predicted, 0.0, "=", NONE),
        ],
        f"Least squares on six examples, S = {BATCH}, η = {eta:g}, endpoints after whole epochs, "
        "along the predicted direction. The prediction is right up to the square of η.",
        origin="source",
        place="the effective loss of SGD with and without replacement",
        data_sets=1,
        unit="runs",
    )  # fmt: skip
    series = [_series(name, found[name]) for name in SCHEMES]
    series.append(Series("predicted, reshuffled", RATES, per_rate * RATES, look="line",
                         group="reshuffled"))  # fmt: skip
    title = "Shift of the mean off the minimum, least squares"
    chart = Chart(title, "learning rate η", "shift (params)", tuple(series), level=0.0)
    return claim.to_datatree(chart)


def of_counts(replicas: int, margin: float, seed: int, progress: bool) -> xr.DataTree:
    """The shift of the mean on a loss that is not quadratic: with independent batches."""
    problem = counts_problem()
    minimum = np.log(np.mean(problem.examples))
    means: dict[str, list[Estimate]] = {}
    bent = []
    for index, (name, sampling) in enumerate(SCHEMES.items()):
        runs = ends(problem, sampling, [minimum], replicas, seed + index, progress) - minimum
        means[name] = [cluster_mean(one) for one in runs]
        if name == "with replacement":
            # −½ L''' Var/L'', with L'' = L''' = e^θ.
            bent = [-0.5 * float(cluster_variance(one).value[0]) for one in runs]
    white, shuffled = (_pair(means[n][JUDGED]) for n in ("with replacement", "reshuffled"))
    size = abs(bent[JUDGED])
    claim = Claim(
        "Batches with replacement leave the mean of SGD at the minimum to first order in the "
        "learning rate, on any loss.",
        "Adhikari et al. (2023), arXiv:2306.03521 (drift ∇L), read as a statement on the mean",
        [
            Quantity("shift with replacement, over ½L'''Var θ/L''",
                     white[0] / size, white[1] / size, 0.0, "=", margin),
        ],
        "On e^θ − yθ the average force at the mean is that of the loss averaged over the spread: "
        f"the mean moves to the flat side by ½L'''Var θ/L'' = {size:.3g} (measured "
        f"{-white[0]:.3g}). Reshuffling leaves a shift of {-shuffled[0]:.2g} ± {shuffled[1]:.1g}: "
        "where the noise does not depend on θ there is no first-order change of the effective "
        "loss, and hardly any spread. So which scheme moves the mean depends on the loss.",
        origin="reading",
        place="the drift ∇L, read as a statement on the mean",
        data_sets=1,
        unit="runs",
    )  # fmt: skip
    series = [_series(name, means[name]) for name in SCHEMES]
    series.append(Series("−½L'''Var θ/L'', with replacement", RATES, bent, look="line",
                         group="with replacement"))  # fmt: skip
    title = "Shift of the mean off the minimum, Poisson loss"
    chart = Chart(title, "learning rate η", "shift (params)", tuple(series), level=0.0)
    return claim.to_datatree(chart)


def _pair(estimate: Estimate) -> tuple[float, float]:
    return float(estimate.value[0]), float(estimate.standard_error[0])


def _series(name: str, estimates: list[Estimate]) -> Series:
    values, errors = zip(*map(_pair, estimates), strict=True)
    return Series(name, RATES, values, errors)
