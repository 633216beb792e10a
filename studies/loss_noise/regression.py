"""Real minibatches against noise that scales with the loss: one dimension, several, real data."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Float, PRNGKeyArray

import statsgd
from statsgd import SGD, noise
from statsgd.comparison import Claim, Quantity
from statsgd.estimate import Estimate
from statsgd.laws import FlooredLossScaledLaw, LinearRegressionGaussian
from statsgd.laws.loss_noise import (
    linear_regression_collapse_threshold,
    linear_regression_growth_rate,
    regression_tail_index,
)
from statsgd.measures import jackknife, mean_over_clusters
from statsgd.problems import linear_regression, population_risk
from statsgd.reports.charts import Chart, Series
from studies.loss_noise.collapse import TWO
from studies.measured import (
    claimed,
    observed,
    points,
    share_of_runs,
    variance_over_runs,
    zero_crossing,
)

OUTLIERS = "Mori, Ziyin, Liu, Ueda (2022), arXiv:2105.09557"


def _half_square(params: Float[Any, " d"], example: Any) -> Float[Any, ""]:
    inputs, target = example
    return 0.5 * (inputs @ params - target) ** 2


def _noisy_label(key: PRNGKeyArray) -> tuple[Float[Any, " 1"], Float[Any, ""]]:
    first, second = jax.random.split(key)
    return jax.random.normal(first, (1,)), jax.random.normal(second)


def _clean_label(key: PRNGKeyArray) -> tuple[Float[Any, " 5"], Float[Any, ""]]:
    return jax.random.normal(key, (5,)), jnp.zeros(())


def _half_norm(params: Float[Any, " d"]) -> Float[Any, ""]:
    return 0.5 * jnp.sum(params**2)


def _first(params: Float[Any, " d"]) -> Float[Any, ""]:
    return params[0]


def _log_distance(params: Float[Any, " d"]) -> Float[Any, ""]:
    return 0.5 * jnp.log(jnp.sum(params**2))


def label_noise_claims(
    *, replicas: int, seed: int, margin: float, progress: bool
) -> dict[str, xr.DataTree]:
    """Regression on one number with noisy labels, single examples: Student-t and its limits."""
    rates = np.array([0.02, 0.05, 0.1, 0.2])
    problem = population_risk(_half_square, _noisy_label, np.zeros(1), exact_loss=_half_norm)
    steps = round(16 / rates[0])
    run = statsgd.simulate(
        problem,
        statsgd.grid(SGD(rates[0], noise.Minibatch(1, "fresh")), learning_rate=rates),
        steps=steps,
        replicas=replicas,
        seed=seed,
        observe={"weight": _first},
        observe_at=[round(steps * (9 + i) / 16) for i in range(8)],
        progress=progress,
    )
    weights = observed(run, "weight")
    student = [FlooredLossScaledLaw.label_noise_regression(1.0, rate, 1) for rate in rates]
    chain = [
        float(LinearRegressionGaussian.gaussian_inputs(np.eye(1), 1.0, 1, rate).covariance()[0, 0])
        for rate in rates
    ]
    variances = [variance_over_runs(row) for row in weights]
    bulk, chains, students = [], [], []
    for rate, row, law, exact, variance in zip(
        rates, weights, student, chain, variances, strict=True
    ):
        quartile = float(law.quantile(0.75)[0])
        inside = share_of_runs(np.abs(row) < quartile)
        bulk.append(
            claimed(
                f"η = {rate:g}: share between the quartiles of the Student law",
                inside,
                "=",
                0.5,
                margin,
            )
        )
        chains.append(
            claimed(
                f"η = {rate:g}: variance against that of the chain", variance, "=", exact, margin
            )
        )
        students.append(
            claimed(f"η = {rate:g}: variance against the Student law", variance, "=",
                   law.covariance()[0, 0], 0.05)
        )  # fmt: skip
    one_dimension = Claim(
        statement=(
            "In one dimension real minibatch noise is loss-scaled, and SGD on noisy labels follows "
            "a Student law of 1 + S/η degrees of freedom in the bulk, at small learning rates."
        ),
        source=f"derived, for the noise of {TWO}",
        quantities=bulk[:2],
        why=(
            "y independent of x ~ N(0, 1), fresh examples: C = 2θ² + 1 = 4(L + 1/4) exactly. "
            "Degrees of freedom at these learning rates: "
            f"{', '.join(f'{float(law.degrees_of_freedom):g}' for law in student)}. At "
            f"η = {rates[-1]:g} the share is {bulk[-1].measured:.3f}: finite steps widen the law "
            "and round its peak."
        ),
        origin="derived",
        data_sets=0,
        unit="runs",
    )
    excess = [_excess_kurtosis(row) for row in weights]
    heavy = [6 / (float(law.degrees_of_freedom) - 4) for law in student]
    tails = Claim(
        statement="SGD on noisy labels has the heavy tails of that Student law.",
        source=f"the power law of {OUTLIERS}, read for one direction of real SGD",
        quantities=[
            claimed(f"η = {rate:g}: excess kurtosis", row, "=", student_excess, 0.25)
            for rate, row, student_excess in zip(rates[1:3], excess[1:3], heavy[1:3], strict=True)
        ],
        why=(
            "The diffusion replaces the product of input and label by a Gaussian of the same "
            "variance. That changes the fourth moment to the order at which the Student law "
            "differs from a Gaussian: the chain stays close to Gaussian in the bulk, and its far "
            f"tail has an index of its own, {regression_tail_index(rates[2]):.1f} at "
            f"η = {rates[2]:g} against {float(student[2].degrees_of_freedom):g}."
        ),
        origin="reading",
        place="the power law in outlier directions, read for one direction",
        data_sets=0,
        unit="runs",
    )
    both = Claim(
        statement="The Student law of the diffusion gives the variance of SGD at these steps too.",
        source=f"derived, for the noise of {TWO}",
        quantities=students,
        why=(
            "It belongs to small steps. The chain's own variance, η/(2 − 3η), is larger than the "
            f"Student law's by {chain[0] / float(student[0].covariance()[0, 0]) - 1:.1%} at "
            f"η = {rates[0]:g} and {chain[-1] / float(student[-1].covariance()[0, 0]) - 1:.1%} at "
            f"η = {rates[-1]:g}."
        ),
        origin="derived",
        data_sets=0,
        unit="runs",
    )
    gaussian = Claim(
        statement=(
            "The exact second moment of single-example regression, η/(2 − 3η), holds at any "
            "learning rate below 2/3, though the law is not Gaussian."
        ),
        source="derived",
        quantities=chains,
        why=(
            "`LinearRegressionGaussian` has the moments of the chain with state-dependent noise. "
            f"The measured excess kurtosis is {', '.join(f'{row.value:.2f}' for row in excess)}."
        ),
        origin="derived",
        data_sets=0,
        unit="runs",
    )
    chart = _label_noise_chart(rates[-1], weights[-1], student[-1], chain[-1])
    return {
        "label noise in one dimension": one_dimension.to_datatree(chart),
        "tails of the Student law": tails.to_datatree(),
        "variance of the Student law": both.to_datatree(),
        "variance of the chain": gaussian.to_datatree(),
    }


def _excess_kurtosis(weights: Float[Any, "n t"]) -> Estimate:
    """About zero, the mean by symmetry."""
    moments = np.stack([np.mean(weights**2, axis=1), np.mean(weights**4, axis=1)], axis=1)
    return jackknife(lambda mean: mean[1] / mean[0] ** 2 - 3, moments)


def _label_noise_chart(
    rate: float, weights: Float[Any, "n t"], law: FlooredLossScaledLaw, variance: float
) -> Chart:
    reach = 4 * np.sqrt(variance)
    edges = np.linspace(-reach, reach, 41)
    middle = (edges[1:] + edges[:-1]) / 2
    counts = np.histogram(weights, edges)[0] / (weights.size * np.diff(edges))
    seen = counts > 0
    return Chart(
        f"Regression with label noise at η = {rate:g}",
        "weight θ",
        "density",
        (
            Series("SGD", middle[seen], counts[seen]),
            Series("Student law", middle, np.exp(law.log_density(middle[:, None])), look="line"),
            Series(
                "Gaussian with the chain's variance",
                middle,
                np.exp(-(middle**2) / (2 * variance)) / np.sqrt(2 * np.pi * variance),
                look="line",
            ),
        ),
        log="y",
    )


def isotropy_claims(
    *, replicas: int, seed: int, margin: float, progress: bool
) -> dict[str, xr.DataTree]:
    """Noise of real regression in several dimensions is loss-scaled, but not isotropic."""
    thresholds = linear_regression_collapse_threshold(5)
    rates = thresholds.discrete * np.array([0.5, 0.75, 0.9, 1.1, 1.25, 1.5, 1.9])
    steps = 40
    run = statsgd.simulate(
        population_risk(_half_square, _clean_label, np.full(5, 5**-0.5), exact_loss=_half_norm),
        statsgd.grid(SGD(rates[0], noise.Minibatch(1, "fresh")), learning_rate=rates),
        steps=steps,
        replicas=replicas,
        seed=seed,
        observe={"log_distance": _log_distance},
        observe_at=[steps],
        progress=progress,
    )
    growth = observed(run, "log_distance")[..., 0] / steps
    crossing = zero_crossing(rates[:6], growth[:6])
    claim = Claim(
        statement=(
            "SGD on noiseless regression collapses onto the solution below the critical noise of "
            "isotropic loss-scaled noise, η = 2/(q−2)."
        ),
        source=f"isotropic law of {TWO}, read for real minibatches",
        quantities=[
            claimed(
                "critical learning rate, q = 5, against 2/(q−2)",
                crossing,
                "=",
                thresholds.isotropic,
                margin,
            ),
        ],
        why=(
            f"Measured {crossing.value:.3f} ± {crossing.standard_error:.3f}. With x ~ N(0, I) the "
            "noise is 2L(I + θ̂θ̂ᵀ), not isotropic, and steps of this size are no diffusion: the "
            f"SDE with the true noise has {thresholds.sde:.3f}, the exact criterion of the chain "
            f"{thresholds.discrete:.3f}, the mean loss grows from {thresholds.mean_square:.3f} on."
        ),
        origin="reading",
        place="isotropic noise in proportion to the loss, read for minibatches",
        data_sets=0,
        unit="runs",
    )
    exact = Claim(
        statement=(
            "SGD on noiseless regression collapses onto the solution where E ln|I − ηxxᵀ| along "
            "the error is negative."
        ),
        source="derived",
        quantities=[
            claimed(
                "critical learning rate, q = 5, against the exact criterion",
                crossing,
                "=",
                thresholds.discrete,
                margin,
            ),
        ],
        why="Fresh examples, one a step; the direction of the error does not matter.",
        origin="derived",
        data_sets=0,
        unit="runs",
    )
    rows = [mean_over_clusters(row) for row in growth]
    fine = np.linspace(rates[0], rates[-1], 30)
    chart = Chart(
        "Growth of the error on noiseless regression, five dimensions",
        "learning rate η",
        "mean of d ln|θ − θ*| per step",
        (
            points("SGD", rates, rows),
            Series(
                "exact",
                fine,
                [linear_regression_growth_rate(5, rate) for rate in fine],
                look="line",
            ),
            Series("isotropic noise, diffusion", fine, fine * (2 * fine * 3 / 4 - 1), look="line"),
        ),
        level=0.0,
    )
    return {
        "isotropic threshold on regression": claim.to_datatree(chart),
        "exact threshold on regression": exact.to_datatree(),
        "noise on real data": real_data_claim(seed),
    }


def real_data_claim(seed: int) -> xr.DataTree:
    """The noise of regression on the diabetes data at random points about the minimum."""
    from sklearn.datasets import load_diabetes

    inputs, targets = load_diabetes(return_X_y=True)
    inputs = (inputs - inputs.mean(axis=0)) / inputs.std(axis=0)
    problem = linear_regression(inputs, (targets - targets.mean()) / targets.std())
    q, best = problem.dimension, problem.minimiser()
    rng = np.random.default_rng(seed)
    direction = rng.standard_normal((300, q))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    places = best + direction * rng.uniform(0.1, 2.0, (300, 1))
    minibatch = noise.Minibatch(1)

    @jax.jit
    @jax.vmap
    def noise_at(point: Float[Any, " q"], away: Float[Any, " q"]) -> Any:
        covariance = minibatch.covariance(problem, point)
        return problem.loss(point), jnp.trace(covariance), away @ covariance @ away

    loss, trace, radial = (
        np.asarray(values, dtype=np.float64) for values in noise_at(places, direction)
    )
    correlation = float(np.corrcoef(loss, trace)[0, 1])
    ratio = mean_over_clusters(q * radial / trace)
    spread = np.linalg.eigvalsh(np.asarray(minibatch.covariance(problem, jnp.asarray(best))))
    claim = Claim(
        statement=(
            "The gradient noise of regression on real data is proportional to the loss and "
            "isotropic, C = σ(L + c₀) I."
        ),
        source=f"assumption of {TWO}, in its isotropic form",
        quantities=[
            Quantity(
                "correlation of the trace of C with the loss",
                correlation,
                (1 - correlation**2) / np.sqrt(len(loss)),
                0.9,
                ">",
            ),
            claimed("noise along the error over the mean of all directions", ratio, "=", 1.0, 0.1),
            Quantity(
                "largest over smallest eigenvalue of C at the minimum",
                float(spread[-1] / spread[0]),
                0.0,
                1.1,
                "<",
            ),
        ],
        why=(
            f"Ten measurements of {problem.num_examples} patients, {len(loss)} points about the "
            f"minimum. The trace grows with the loss (correlation {correlation:.3f}), but the "
            "noise has the shape of the curvature and of the error, as "
            f"{OUTLIERS} builds in with C ≈ (2L/S)H: laws of isotropic noise are tests for "
            "synthetic noise and for one dimension."
        ),
        origin="reading",
        place="the noise model, in its isotropic form, read for real data",
        data_sets=1,
        unit="points",
    )
    chart = Chart(
        "Gradient noise against loss, regression on the diabetes data",
        "loss L",
        "trace of the noise covariance of one example",
        (Series("points about the minimum", loss[::2], trace[::2]),),
    )
    return claim.to_datatree(chart)
