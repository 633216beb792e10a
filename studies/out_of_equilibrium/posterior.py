"""Langevin dynamics with minibatches as a sampler of posteriors: with and without replacement."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr
from jaxtyping import Float

import statsgd
from statsgd.comparison import Claim, Quantity
from statsgd.comparison.statistics import cluster_mean
from statsgd.kernels import SGLD, SGWORLD
from statsgd.laws import EpochNoiseGaussian, HeavyBallGaussian
from statsgd.noise import Minibatch
from statsgd.problems import LinearRegression, linear_regression
from statsgd.reports import Chart, Series

#: ε = (step size) × (curvature of U along its steepest direction).
STEEPNESS = np.array([0.05, 0.1, 0.2, 0.4])
#: The steepness at which the order of the bias is judged.
JUDGED = 1
KERNELS = {"SGLD": (SGLD, "with_replacement"), "SGWORLD": (SGWORLD, "reshuffle")}


class Bias(NamedTuple):
    """Var θ over that of the posterior, less one: mean over its directions, by step size."""

    value: Float[Any, " step"]
    standard_error: Float[Any, " step"]
    predicted: Float[Any, " step"]


class Posterior(NamedTuple):
    """N(mean, (N·hessian)⁻¹) of a linear regression with noise of unit variance, flat prior."""

    problem: LinearRegression
    batches: int
    """Minibatches M in an epoch."""

    @property
    def precision(self) -> Float[Any, "d d"]:
        """Hessian of U."""
        return self.problem.num_examples * self.problem.hessian_matrix()

    @property
    def mean(self) -> Float[Any, " d"]:
        """The least-squares solution."""
        return self.problem.minimiser()

    def step_sizes(self) -> Float[Any, " step"]:
        """h of each ε of `STEEPNESS`."""
        return STEEPNESS / np.linalg.eigvalsh(self.precision)[-1]


def gaussian_mean() -> Posterior:
    """The mean of 10 numbers of unit (unbiased) variance and mean zero."""
    data = np.random.default_rng(0).standard_normal(10)
    data = (data - data.mean()) / data.std(ddof=1)
    return Posterior(linear_regression(np.ones((10, 1)), data), 5)


def diabetes() -> Posterior:
    """Progression of diabetes in 440 patients on four principal components of ten measurements."""
    from sklearn.datasets import load_diabetes

    inputs, progression = load_diabetes(return_X_y=True)
    # 440 is divided by the number of batches in an epoch; 442 is not.
    inputs, progression = inputs[:440], progression[:440]
    inputs = inputs - inputs.mean(axis=0)
    components = inputs @ np.linalg.svd(inputs, full_matrices=False)[2][:4].T
    components /= components.std(axis=0)[0]
    targets = progression - progression.mean()
    fit = components @ np.linalg.lstsq(components, targets, rcond=None)[0]
    # In units of the residual noise, so that its variance is one.
    return Posterior(linear_regression(components, targets / (targets - fit).std(ddof=4)), 20)


def bias(
    posterior: Posterior, name: str, steps: int, chains: int, seed: int, progress: bool
) -> Bias:
    """The bias of a kernel for every step size, from `steps` minibatches a chain."""
    kind, sampling = KERNELS[name]
    noise = Minibatch(posterior.problem.num_examples // posterior.batches, sampling)
    kernel = kind.from_problem(posterior.problem, noise, step_size=posterior.step_sizes()[0])
    # A step of SGWORLD is an epoch.
    pace = 1 if name == "SGWORLD" else posterior.batches
    epochs = max(steps // posterior.batches, 1)
    start = np.random.default_rng(seed).multivariate_normal(
        posterior.mean, np.linalg.inv(posterior.precision), size=chains
    )
    draws = statsgd.sample(
        None,
        kernel,
        warmup=pace * int(np.ceil(7.5 / (STEEPNESS.min() * posterior.batches))),
        draws=epochs,
        thinning=pace,
        chains=chains,
        seed=seed,
        starts=start,
        grid={"step_size": posterior.step_sizes()},
        progress=progress,
        diagnose=False,
        devices=jax.devices(),
    )
    params = next(iter(draws["posterior"].to_dataset().values())).values.astype(float)
    # θᵀ(precision)θ/d is 1 on the posterior, whose mean linear regression keeps (to O(h²) here).
    deviation = params - posterior.mean
    energy = np.einsum("hcti,ij,hctj->hct", deviation, posterior.precision, deviation)
    estimates = [cluster_mean(one[..., None] / deviation.shape[-1]) for one in energy]
    return Bias(
        np.array([one.value[0] for one in estimates]) - 1,
        np.array([one.standard_error[0] for one in estimates]),
        np.array([predicted_bias(posterior, name, h) for h in posterior.step_sizes()]),
    )


def predicted_bias(posterior: Posterior, name: str, step_size: float) -> float:
    """From Langevin's own variance and that of SGD with the noise of the minibatches, at the mean.

    On a quadratic the two add up: SGLD moves by both noises, which are independent.
    """
    precision, number = posterior.precision, posterior.problem.num_examples
    d = len(precision)
    langevin = HeavyBallGaussian(precision, 2 / step_size * np.eye(d), step_size).covariance()
    sampling = "with_replacement" if name == "SGLD" else "without_replacement"
    noise = Minibatch(number // posterior.batches, sampling)
    c = number**2 * np.asarray(noise.covariance(posterior.problem, posterior.mean), np.float64)
    law: Any = (
        HeavyBallGaussian(precision, c, step_size)
        if name == "SGLD"
        else EpochNoiseGaussian(precision, c, step_size, posterior.batches)
    )
    return float(np.trace(precision @ (langevin + law.covariance())) / d - 1)


#: Posteriors by name.
TARGETS = {"mean of a Gaussian": gaussian_mean, "diabetes regression": diabetes}


def claims(
    targets: Sequence[str], steps: int, chains: int, margin: float, seed: int, progress: bool
) -> Mapping[str, xr.DataTree]:
    """What is claimed of the two samplers on the posteriors `targets`."""
    parts: dict[str, xr.DataTree] = {}
    found = {}
    for place, target in enumerate(targets):
        posterior = TARGETS[target]()
        found[target] = {
            name: bias(posterior, name, steps, chains, seed + 2 * place + i, progress)
            for i, name in enumerate(KERNELS)
        }
        claim = better(target, posterior.batches, found[target])
        parts[f"posterior: {target}"] = claim.to_datatree(chart(target, found[target]))
    parts["variance of the samplers"] = closed_forms(found, margin).to_datatree()
    first = targets[0]
    parts["order of the bias"] = order(TARGETS[first](), found[first]["SGWORLD"]).to_datatree()
    return parts


def better(target: str, batches: int, found: Mapping[str, Bias]) -> Claim:
    """Without replacement the posterior is sampled with less bias, at the same cost."""
    with_, without = found["SGLD"], found["SGWORLD"]
    quantities = []
    for i, steepness in enumerate(STEEPNESS):
        value = without.value[i] / with_.value[i]
        error = abs(value) * np.hypot(
            with_.standard_error[i] / with_.value[i], without.standard_error[i] / without.value[i]
        )
        title = f"ratio of biases, ε = {steepness:g}"
        quantities.append(Quantity(title, value, error, 1.0, "<"))
    return Claim(
        f"Drawn without replacement, minibatches bias Langevin sampling less at the same cost: "
        f"{target}.",
        "Adhikari et al. (2023), arXiv:2306.03521; Shaw, Whalley (2025), arXiv:2501.16055",
        quantities,
        "Bias of the variance, SGWORLD over SGLD. "
        f"M = {batches} batches an epoch, draws at the ends of epochs; ε is step size times the "
        "steepest curvature. The noise of the batches of an epoch cancels but for the motion "
        "within it.",
        origin="source",
        place="abstracts: less bias without replacement",
        data_sets=1,
        unit="chains",
    )


def closed_forms(found: Mapping[str, Mapping[str, Bias]], margin: float) -> Claim:
    """Variances of both samplers against the laws of SGD."""
    quantities = []
    for target, kernels in found.items():
        for name, one in kernels.items():
            for i in (0, len(STEEPNESS) // 2):
                quantities.append(
                    Quantity(
                        f"{name}, {target}, ε = {STEEPNESS[i]:g}",
                        1 + one.value[i],
                        one.standard_error[i],
                        1 + one.predicted[i],
                        "=",
                        margin,
                    )
                )
    return Claim(
        "The variance of SGLD is that of Langevin's own steps plus that of SGD with the same "
        "minibatches; SGWORLD's with the law of reshuffled epochs.",
        "derived",
        quantities,
        "Variances over those of the posterior. Exact for noise that does not depend on θ, as in "
        "the mean of a Gaussian. In regression the curvature of batches differs too, which "
        "adds a few parts in a hundred.",
        origin="derived",
        data_sets=len(found),
        unit="chains",
    )


def order(posterior: Posterior, shuffled: Bias) -> Claim:
    """What reshuffling leaves."""
    curvatures = np.linalg.eigvalsh(posterior.precision)
    exact = posterior.step_sizes()[JUDGED]
    euler = np.mean(1 / (1 - exact * curvatures / 2)) - 1
    value, error = (part[JUDGED] / STEEPNESS[JUDGED] for part in shuffled[:2])
    return Claim(
        "Reshuffling makes the bias of stochastic-gradient Langevin dynamics second order in the "
        "step size.",
        "a reading of Shaw, Whalley (2025), arXiv:2501.16055, for the Euler scheme",
        [Quantity(f"bias of the variance over ε, at ε = {STEEPNESS[JUDGED]:g}", value, error, 0.0,
                  "=", 0.1)],
        "Only the share of the minibatches becomes small. Euler's own bias, the same as with full "
        f"gradients, is first order: {euler:.3g} at ε = {STEEPNESS[JUDGED]:g}, where "
        f"SGWORLD has {shuffled.value[JUDGED]:.3g} (predicted {shuffled.predicted[JUDGED]:.3g}).",
        origin="reading",
        place="the order of the bias, read for the Euler scheme",
        data_sets=1,
        unit="chains",
    )  # fmt: skip


def chart(target: str, found: Mapping[str, Bias]) -> Chart:
    """Bias against step size."""
    series = []
    for name, one in found.items():
        series.append(Series(name, STEEPNESS, one.value, one.standard_error))
        series.append(Series("", STEEPNESS, one.predicted, look="line", group=name))
    title = f"Bias of the posterior variance: {target}"
    return Chart(title, "ε (step size × curvature)", "Var/Var(posterior) − 1", tuple(series), "xy")
