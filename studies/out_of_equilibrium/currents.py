"""Currents and entropy production of SGD near a minimum."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy.stats import multivariate_normal

import statsgd
from statsgd.comparison import Claim, Quantity
from statsgd.laws import HeavyBallGaussian
from statsgd.laws.minimum import entropy_production_rate, stochastic_area
from statsgd.problems.landscapes import quadratic
from statsgd.reports import Chart, Series

HESSIAN = np.diag([2.0, 0.5])
LEARNING_RATE = 0.1
MOMENTA = np.array([0.0, 0.9])
NOISES = {
    "skew noise": np.array([[1.0, 0.6], [0.6, 0.8]]),
    "noise ∝ H": 0.3 * HESSIAN,
}
SKEW, COMMUTING = NOISES
SPACING = 20
#: What counts as no current, relative to the one of `SKEW`.
NONE = 0.1


class Pairs(NamedTuple):
    """Parameters before and after single steps, past burn-in."""

    before: Float[Any, "momentum replica look d"]
    after: Float[Any, "momentum replica look d"]

    def area(self) -> tuple[Any, Any]:
        """½(x dy − y dx) a step, by momentum, with standard errors over runs."""
        move = self.after - self.before
        swept = self.before[..., 0] * move[..., 1] - self.before[..., 1] * move[..., 0]
        per_run = 0.5 * swept.mean(axis=2)
        return per_run.mean(axis=1), per_run.std(axis=1, ddof=1) / np.sqrt(per_run.shape[1])


def pairs(covariance: Any, replicas: int, looks: int, seed: int, progress: bool) -> Pairs:
    """Pairs of successive parameters of independent runs."""
    # Variances forget their start by e^(−2ηh) a step, with momentum by β: here both e^(−.1).
    first = int(np.ceil(np.log(1e4) / 0.1))
    at = [first + i * SPACING for i in range(looks)]
    sgd = statsgd.SGD(LEARNING_RATE, statsgd.noise.Anisotropic(covariance))
    ensemble = statsgd.simulate(
        quadratic(HESSIAN),
        statsgd.grid(sgd, momentum=MOMENTA),
        steps=at[-1] + 1,
        replicas=replicas,
        seed=seed,
        start=np.zeros(2, dtype=np.float32),
        keep=[step for one in at for step in (one, one + 1)],
        progress=progress,
        devices=jax.devices(),
    )
    kept = ensemble["snapshots"].to_dataset()["params"].values.astype(float)
    return Pairs(kept[:, :, ::2], kept[:, :, 1::2])


def entropy_of_steps(law: HeavyBallGaussian, before: Any, after: Any) -> Any:
    """σ = ln[p(y₀)W(y₁|y₀)] − ln[p(y₁)W(y₀|y₁)] of each step, without momentum (nats)."""
    contraction = np.eye(2) - law.learning_rate * law.hessian
    move = multivariate_normal(cov=law.learning_rate**2 * law.noise_covariance)
    stationary = multivariate_normal(law.mean(), law.covariance())
    forward = stationary.logpdf(before) + move.logpdf(after - before @ contraction.T)
    backward = stationary.logpdf(after) + move.logpdf(before - after @ contraction.T)
    return forward - backward


def claims(
    replicas: int, looks: int, margin: float, seed: int, progress: bool
) -> Mapping[str, xr.DataTree]:
    """What is claimed of the currents."""
    found = {
        name: pairs(covariance, replicas, looks, seed + index, progress)
        for index, (name, covariance) in enumerate(NOISES.items())
    }
    laws = {
        name: [HeavyBallGaussian(HESSIAN, c, LEARNING_RATE, beta) for beta in MOMENTA]
        for name, c in NOISES.items()
    }
    entropies = {
        name: entropy_of_steps(laws[name][0], one.before[0], one.after[0])
        for name, one in found.items()
    }
    return {
        "currents": currents(found, laws, margin).to_datatree(area_chart(found, laws)),
        "detailed balance": detailed_balance(entropies, laws).to_datatree(),
        "fluctuation theorem": fluctuation_theorem(entropies, laws, margin).to_datatree(
            symmetry_chart(entropies[SKEW])
        ),
    }


def currents(found: Mapping[str, Pairs], laws: Mapping[str, Any], margin: float) -> Claim:
    """Areas swept per step against the law."""
    quantities = []
    measured = {name: one.area() for name, one in found.items()}
    for row, beta in enumerate(MOMENTA):
        exact = stochastic_area(laws[SKEW][row])[0, 1]
        value, error = (part[row] for part in measured[SKEW])
        title = f"area per step, {SKEW}, β = {beta:g}"
        quantities.append(Quantity(title, value, error, exact, "=", margin))
        value, error = (part[row] / exact for part in measured[COMMUTING])
        title = f"the same, {COMMUTING}, over that, β = {beta:g}"
        quantities.append(Quantity(title, value, error, 0.0, "=", NONE))
    return Claim(
        "The stationary state of SGD carries a persistent current unless noise and curvature "
        "commute.",
        "Adhikari et al. (2023), arXiv:2306.03521; Kunin et al. (2021), arXiv:2107.09133",
        quantities,
        "Areas ½⟨x dy − y dx⟩ swept per step in the plane of two modes, from single steps of "
        f"independent runs on a quadratic with Gaussian noise; {SKEW} does not commute with H. The "
        "law is (η/2)(HV − VH)/(1−β).",
        origin="source",
        place="abstracts: persistent and oscillating currents",
        data_sets=0,
        unit="runs",
    )


def detailed_balance(entropies: Mapping[str, Any], laws: Mapping[str, Any]) -> Claim:
    """Equilibrium, as a Gibbs law with a potential has it."""
    produced = {name: _mean(sigma) for name, sigma in entropies.items()}
    rate = entropy_production_rate(laws[SKEW][0])
    return Claim(
        "Near a minimum SGD settles in equilibrium: forward and backward steps are equally likely.",
        "the Gibbs picture of SGD, e.g. Jastrzębski et al. (2017), arXiv:1711.04623",
        [
            Quantity(f"entropy production, {name}", value / rate, error / rate, 0.0, "=", NONE)
            for name, (value, error) in produced.items()
        ],
        f"In units of the law's for {SKEW} (it does not commute with H). It is "
        f"{produced[SKEW][0]:.4f} nats a step (the law: {rate:.4f}). Endpoints alone "
        "do not show it: successive steps do.",
        origin="reading",
        place="the Gibbs law, read as detailed balance",
        data_sets=0,
        unit="runs",
    )


def fluctuation_theorem(
    entropies: Mapping[str, Any], laws: Mapping[str, Any], margin: float
) -> Claim:
    """⟨e^{−σ}⟩ = 1 and the mean of σ."""
    sigma = entropies[SKEW]
    return Claim(
        "The entropy σ of a step obeys ⟨e^(−σ)⟩ = 1 and P(σ)/P(−σ) = e^σ.",
        "Adhikari et al. (2023), arXiv:2306.03521",
        [
            Quantity("⟨e^(−σ)⟩", *_mean(np.exp(-sigma)), 1.0, "=", 0.02),
            Quantity("⟨σ⟩ (nats per step)", *_mean(sigma),
                     entropy_production_rate(laws[SKEW][0]), "=", margin),
            Quantity("slope of ln P(σ)/P(−σ)", *symmetry_slope(sigma), 1.0, "=", 0.1),
        ],
        f"{sigma.size} single steps without momentum, {SKEW}. The prediction of ⟨σ⟩ is the "
        "entropy production of the chain from its spectral density.",
        origin="source",
        place="abstract: fluctuation theorems",
        data_sets=0,
        unit="runs",
    )  # fmt: skip


def symmetry(sigma: Any) -> tuple[Any, Any, Any]:
    """σ > 0, and ln P(σ)/P(−σ) with its standard error, over bins with enough counts."""
    edges = np.linspace(0, np.quantile(np.abs(sigma), 0.98), 13)
    more, fewer = (np.histogram(sign * sigma, edges)[0] for sign in (1, -1))
    enough = np.minimum(more, fewer) > 25
    centres = 0.5 * (edges[1:] + edges[:-1])[enough]
    return centres, np.log(more / fewer)[enough], np.sqrt(1 / more + 1 / fewer)[enough]


def symmetry_slope(sigma: Any) -> tuple[float, float]:
    """Slope through the origin of `symmetry`, by weighted least squares, and its error."""
    x, y, error = symmetry(sigma)
    information = np.sum((x / error) ** 2)
    return float(np.sum(x * y / error**2) / information), float(information**-0.5)


def area_chart(found: Mapping[str, Pairs], laws: Mapping[str, Any]) -> Chart:
    """Areas over the number of steps: they grow for ever."""
    steps = np.arange(1, 101)
    series = []
    for name, one in found.items():
        value, error = (part[0] for part in one.area())
        exact = stochastic_area(laws[name][0])[0, 1]
        few = steps[9::10]
        series.append(Series(name, few, few * value, few * error))
        series.append(Series("", steps, steps * exact, look="line", group=name))
    title = "Area swept in the plane of two modes, β = 0 (lines: the law)"
    return Chart(title, "steps", "area (params²)", tuple(series))


def symmetry_chart(sigma: Any) -> Chart:
    """ln P(σ)/P(−σ) against σ."""
    x, y, error = symmetry(sigma)
    line = Series("σ", np.array([0.0, x.max()]), np.array([0.0, x.max()]), look="line")
    title = "Forward against backward steps"
    return Chart(title, "σ (nats)", "ln P(σ)/P(−σ)", (Series("SGD", x, y, error), line))


def _mean(values: Float[Any, "replica look"]) -> tuple[float, float]:
    per_run = values.mean(axis=1)
    return float(per_run.mean()), float(per_run.std(ddof=1) / np.sqrt(len(per_run)))
