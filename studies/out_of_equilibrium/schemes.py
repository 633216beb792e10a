"""How minibatches are drawn, and what that does to the spread of SGD near a minimum."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr
from jaxtyping import Float

import statsgd
from statsgd.comparison import Claim, Quantity
from statsgd.comparison.statistics import cluster_variance
from statsgd.laws import EpochNoiseGaussian, HeavyBallGaussian
from statsgd.laws.minimum import crossover_curvature, single_shuffle_variance
from statsgd.problems import EmpiricalRisk, empirical_risk
from statsgd.reports import Chart, Series

EXAMPLES, BATCH, LEARNING_RATE = 40, 4, 0.1
BATCHES = EXAMPLES // BATCH
_FINITE = (EXAMPLES - BATCH) / (EXAMPLES - 1)
#: ηh of the modes, from far below the crossover to near the edge of stability.
STEEPNESS = np.array([0.005, 0.02, 0.06, 0.2, 0.6, 1.2, 1.8])
MOMENTA = np.array([0.0, 0.9])
#: Name, sampling and number of phases of the epoch at which endpoints are taken.
SCHEMES = {
    "with replacement": ("with_replacement", 1),
    "without replacement": ("without_replacement", 1),
    "reshuffled, at a random step": ("reshuffle", BATCHES),
    "reshuffled, after whole epochs": ("reshuffle", 1),
    "one order for ever": ("single_shuffle", 1),
}


class Spread(NamedTuple):
    """Measured and predicted variance of each mode, by momentum `(momenta, modes)`."""

    value: Float[Any, "b d"]
    standard_error: Float[Any, "b d"]
    predicted: Float[Any, "b d"]

    def mean_ratio(self, row: int) -> tuple[float, float]:
        """Measured over predicted variance, mean over the modes (which are independent)."""
        error = np.linalg.norm(self.standard_error[row] / self.predicted[row])
        size = self.predicted.shape[1]
        return float(np.mean(self.value[row] / self.predicted[row])), float(error / size)


def additive_noise_problem() -> EmpiricalRisk:
    """½θᵀHθ − θ·ξ_n: a quadratic whose gradient noise is the same everywhere, Σ₁ = I exactly."""
    noise = np.random.default_rng(0).standard_normal((EXAMPLES, len(STEEPNESS)))
    noise = np.linalg.qr(noise - noise.mean(axis=0))[0] * np.sqrt(EXAMPLES)
    curvature = STEEPNESS / LEARNING_RATE

    def loss(params, example):
        return 0.5 * (curvature * params) @ params - params @ example

    return empirical_risk(loss, noise, np.zeros(len(STEEPNESS)))


def spreads(replicas: int, seed: int, progress: bool) -> dict[str, Spread]:
    """Variances at the end of independent runs, under every scheme and momentum."""
    problem = additive_noise_problem()
    # Variance forgets its start at twice the rate ηh of the flattest mode (faster with momentum).
    epochs = int(np.ceil(np.log(1e4) / (2 * STEEPNESS.min() * BATCHES)))
    found = {}
    for index, (name, (sampling, phases)) in enumerate(SCHEMES.items()):
        noise = statsgd.noise.Minibatch(BATCH, sampling)
        ensemble = statsgd.simulate(
            problem,
            statsgd.grid(statsgd.SGD(LEARNING_RATE, noise), momentum=MOMENTA),
            steps=epochs * BATCHES + phases - 1,
            replicas=replicas,
            seed=seed + index,
            progress=progress,
            phases=phases,
            devices=jax.devices(),
        )
        ends = ensemble["endpoints"].to_dataset()["params"].values.astype(float)
        estimates = [cluster_variance(runs[:, None, :]) for runs in ends]
        factor = noise.variance_factor(problem)
        found[name] = Spread(
            np.stack([one.value for one in estimates]),
            np.stack([one.standard_error for one in estimates]),
            np.stack([predicted_variance(name, factor, beta) for beta in MOMENTA]),
        )
    return found


def predicted_variance(
    scheme: str, noise: float, momentum: float, steepness: Float[Any, " d"] = STEEPNESS
) -> Float[Any, " d"]:
    """Exact variance of modes of given ηh for noise of variance `noise` a batch."""
    curvature, eye = steepness / LEARNING_RATE, np.eye(len(steepness))
    sampling, phases = SCHEMES[scheme]
    if sampling == "single_shuffle":
        return single_shuffle_variance(curvature, noise, LEARNING_RATE, BATCHES, momentum)
    hessian, covariance = np.diag(curvature), noise * eye
    if sampling == "reshuffle":
        phase: int | str = "random" if phases > 1 else 0
        law: Any = EpochNoiseGaussian(
            hessian, covariance, LEARNING_RATE, BATCHES, momentum, phase=phase
        )
    else:
        law = HeavyBallGaussian(hessian, covariance, LEARNING_RATE, momentum)
    return np.diagonal(law.covariance())


def claims(replicas: int, margin: float, seed: int, progress: bool) -> Mapping[str, xr.DataTree]:
    """What is claimed of the schemes."""
    found = spreads(replicas, seed, progress)
    charts = [chart(found, row) for row in range(len(MOMENTA))]
    return {
        "white noise": one_law_for_all(found, margin).to_datatree(charts[0]),
        "without replacement": finite_population(found).to_datatree(),
        "crossover": crossover(found).to_datatree(charts[1]),
        "exact laws": exact_laws(found, margin).to_datatree(ratio_chart(found)),
    }


def one_law_for_all(found: Mapping[str, Spread], margin: float) -> Claim:
    """The white-noise law, whatever the sampling."""
    white = found["with replacement"]
    quantities = []
    for name, spread in found.items():
        value = spread.value[0, 0] / white.predicted[0, 0]
        error = spread.standard_error[0, 0] / white.predicted[0, 0]
        title = f"flattest mode, {name}"
        # C itself differs by (N−S)/(N−1) without repeats: not the point here.
        if name != "without replacement":
            quantities.append(Quantity(title, value, error, 1.0, "=", margin))
    epochs = found["reshuffled, after whole epochs"].value[0, 0] / white.predicted[0, 0]
    return Claim(
        "The variance of SGD around a minimum is that of white noise of covariance C, however "
        "minibatches are drawn.",
        "Mandt, Hoffman, Blei (2017), arXiv:1704.04289 (assumption of white noise)",
        quantities,
        "Variance of the flattest mode over the one of that law: SGD on a quadratic with "
        f" {EXAMPLES} examples, S = {BATCH}, η = {LEARNING_RATE:g}, without "
        "momentum. With replacement the law holds. The batches of a shuffled epoch sum to the full "
        "gradient: what one of them does the rest undo, and directions that relax over many "
        f"epochs hardly move. After whole epochs {epochs:.2g} of the variance is left.",
        origin="extension",
        place="the assumption of white noise, extended to every way of drawing",
        data_sets=1,
        unit="runs",
    )


def finite_population(found: Mapping[str, Spread]) -> Claim:
    """Without repeats the noise is (N−S)/(N−1) times that with repeats."""
    ratios, errors = [], []
    for row in range(len(MOMENTA)):
        parts = [found[name] for name in ("without replacement", "with replacement")]
        relative = [part.standard_error[row] / part.value[row] for part in parts]
        ratios.append(parts[0].value[row] / parts[1].value[row])
        errors.append(ratios[-1] * np.hypot(*relative))
    weights = 1 / np.ravel(errors) ** 2
    value = float(np.sum(np.ravel(ratios) * weights) / weights.sum())
    return Claim(
        "A fresh batch without repeats makes less noise than one with repeats, by (N−S)/(N−1).",
        "Hoffer, Hubara, Soudry (2017), arXiv:1705.08741; textbook sampling theory",
        [
            Quantity("variance ratio, all modes", value, weights.sum() ** -0.5,
                     _FINITE, "=", 0.05),
            Quantity("the same, below 1", value, weights.sum() ** -0.5, 1.0, "<"),
        ],
        "Both schemes are white: only the strength of the noise differs.",
        origin="source",
        place="the covariance of a batch",
        data_sets=1,
        unit="runs",
    )  # fmt: skip


def crossover(found: Mapping[str, Spread]) -> Claim:
    """Reshuffling quietens what is flatter than the crossover."""
    quantities = []
    name = "reshuffled, at a random step"
    for row, beta in enumerate(MOMENTA):
        steepness = LEARNING_RATE * crossover_curvature(LEARNING_RATE, BATCHES, beta)
        without = found["without replacement"].predicted[row]
        ratio, error = (part[row] / without for part in found[name][:2])
        flat, steep = np.argmin(STEEPNESS), np.argmax(STEEPNESS)
        for index, relation, where in ((flat, "<", "below"), (steep, ">", "above")):
            title = f"β = {beta:g}, ηh = {STEEPNESS[index]:g}, {where} {steepness:.2g}"
            quantities.append(Quantity(title, ratio[index], error[index], 0.5, relation))
    return Claim(
        "Reshuffled epochs quieten the directions flatter than h = 3(1−β)/(η(M+1)) and leave the "
        "others nearly as they are.",
        "Kühn, Rosenow (2023), arXiv:2306.05300",
        quantities,
        "Variance at a random step of the epoch over that with batches without repeats drawn "
        "afresh each step, whose noise has the same strength; below and above the crossover.",
        origin="source",
        place="abstract: two regimes parted by a curvature; its value is derived",
        data_sets=1,
        unit="runs",
    )


def exact_laws(found: Mapping[str, Spread], margin: float) -> Claim:
    """The library's laws of each scheme."""
    quantities = [
        Quantity(f"{name}, β = {beta:g}", *spread.mean_ratio(row), 1.0, "=", margin)
        for name, spread in found.items()
        for row, beta in enumerate(MOMENTA)
    ]  # fmt: skip
    return Claim(
        "For noise that does not depend on θ the variance under each scheme, at each phase of the "
        "epoch, is known exactly.",
        "derived; Kühn, Rosenow (2023), arXiv:2306.05300, for the correlation of the noise",
        quantities,
        f"Measured over predicted variance, means over {len(STEEPNESS)} modes; the figures "
        "show each. After whole epochs momentum "
        "leaves a floor under the flat modes, because the buffer does not empty.",
        origin="derived",
        data_sets=1,
        unit="runs",
    )


def chart(found: Mapping[str, Spread], row: int) -> Chart:
    """Variance against curvature."""
    fine = np.geomspace(STEEPNESS.min(), STEEPNESS.max(), 60)
    series = []
    for name, spread in found.items():
        if name != "without replacement":  # hardly to be told from that with replacement
            noise = (1 if name == "with replacement" else _FINITE) / BATCH
            curve = predicted_variance(name, noise, MOMENTA[row], fine)
            points = Series(name, STEEPNESS, spread.value[row], spread.standard_error[row])
            series += [points, Series("", fine, curve, look="line", group=name)]
    title = f"Variance by curvature and sampling, β = {MOMENTA[row]:g} (lines: laws)"
    return Chart(title, "ηh", "variance of θ (params²)", tuple(series), "xy")


def ratio_chart(found: Mapping[str, Spread]) -> Chart:
    """Measured over predicted variance of every mode, reshuffled."""
    series: list[Series] = []
    for name in ("reshuffled, at a random step", "reshuffled, after whole epochs"):
        for row in range(len(MOMENTA)):
            ratio, error = (part[row] / found[name].predicted[row] for part in found[name][:2])
            # Side by side, so that bars do not cover each other.
            place = STEEPNESS * 1.1 ** (len(series) - 1.5)
            series.append(Series("" if row else name, place, ratio, error, group=name))
    title = "Measured over predicted variance, β = 0 (left of each pair) and β = 0.9"
    return Chart(title, "ηh", "ratio", tuple(series), "x", level=1.0)
