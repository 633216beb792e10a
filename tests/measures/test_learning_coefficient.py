"""Local learning coefficients against exact chains, quadrature, and known singularities."""

import arviz_stats
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from statsgd import noise, problems
from statsgd.kernels import MixingWarning
from statsgd.measures import local_learning_coefficient, over_replicas
from statsgd.measures.curvature.learning_coefficient import effective_sample_size

CURVATURES = np.array([1.0, 2.0, 4.0])


@pytest.mark.parametrize("double", [True, False])
def test_regular_minimum_and_step_size_bias(double):
    # On a quadratic each coordinate is AR(1) with variance 1/(a(1 − ha/2)), a = nβ λ_i + γ, so that
    # λ̂ = Σ nβ λ_i/(2a(1 − ha/2)) at step size h, and d/2 as h → 0 and nβ → ∞.
    strength, step = 100.0, 1e-3
    stiffness = strength * CURVATURES + 1

    def expected(h):
        return np.sum(strength * CURVATURES / (2 * stiffness * (1 - h * stiffness / 2)))

    found = local_learning_coefficient(
        problems.quadratic(np.diag(CURVATURES)),
        np.zeros(3),
        step_size=step,
        steps=8000,
        burn_in=500,
        thinning=4,
        chains=32,
        inverse_temperature=strength,
        double=double,
    )
    assert found.value.dtype == (np.float64 if double else np.float32)
    assert 4 * found.standard_error < 0.05 * expected(step)
    assert abs(found.value - expected(step)) < 4 * found.standard_error
    bias = 2 * (expected(step) - expected(step / 2))
    assert 4 * found.step_size_bias_standard_error < bias
    assert abs(found.step_size_bias - bias) < 4 * found.step_size_bias_standard_error
    assert (found.baseline, found.baseline_standard_error) == (0, 0)
    assert found.rhat < 1.01
    regular = found.value - found.step_size_bias
    assert abs(regular - 1.5) < 0.02 + 4 * found.step_size_bias_standard_error


def test_a_step_that_biases_is_said():
    # h(nβ + γ) = 1.5: λ̂ is 0.5/(1 − 0.75) = 2 times nβ/(nβ + γ), and 0.8 times that at h/2.
    with pytest.warns(MixingWarning, match="the step size is too large: its bias is 2"):
        found = local_learning_coefficient(
            problems.quadratic(np.eye(1)), np.zeros(1), step_size=1.5 / 101, steps=2000,
            burn_in=50, inverse_temperature=100.0,
        )  # fmt: skip
    assert found.doubts()[-1].startswith("the step size is too large")
    apart = found._replace(rhat=1.05, step_size_bias=0.0)
    assert apart.doubts() == ["the chains have not mixed: R-hat of the loss is 1.050, above 1.01"]


def singular_expectation(power, strength, localization):
    """E nβL of L = w₁² s, s = w₂^power, under the localized law, by quadrature over log w₂."""
    w = np.exp(np.linspace(-60, 4, 200_000))
    inner = 2 * strength * w**power
    weight = w * np.exp(-localization * w**2 / 2) / np.sqrt(inner + localization)
    return np.sum(weight * inner / (inner + localization)) / 2 / np.sum(weight)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("power", "coefficient", "multiplicity", "step"),
    [(2, 0.5, 2, 1e-4), (4, 0.25, 1, 2e-4)],
)
def test_normal_crossings(power, coefficient, multiplicity, step):
    # w₁²w₂²: λ = 1/2 with m = 2;  (w₁w₂²)²: λ = 1/4.
    far = 1e24
    limit = coefficient - (multiplicity - 1) / np.log(far)
    assert singular_expectation(power, far, 4.0) == pytest.approx(limit, abs=3e-3)
    problem = problems.landscape(lambda w: w[0] ** 2 * w[1] ** power, np.zeros(2))
    found = local_learning_coefficient(
        problem,
        np.zeros(2),
        step_size=step,
        steps=20_000,
        burn_in=4000,
        thinning=20,
        chains=64,
        inverse_temperature=1000.0,
        localization=4.0,
    )
    expected = singular_expectation(power, 1000.0, 4.0)
    assert 4 * found.standard_error < 0.1 * expected
    bias = abs(found.step_size_bias) + 4 * found.step_size_bias_standard_error
    assert bias < 0.25 * expected
    assert abs(found.value - expected) < 4 * found.standard_error + bias


@pytest.mark.slow
def test_stochastic_gradients_and_losses():
    # Noisy losses give the baseline an error; λ̂ is d/2 of the regular model up to O(1/nβ).
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(200, 2))
    problem = problems.linear_regression(inputs, inputs @ [1.0, 2.0] + 0.3 * rng.normal(size=200))
    options = {
        "step_size": 4e-4,
        "steps": 6000,
        "burn_in": 1000,
        "thinning": 6,
        "chains": 16,
        "noise": noise.Minibatch(50),
        "loss_examples": 50,
    }
    minimum = problem.minimiser()
    found = over_replicas(
        local_learning_coefficient, problem, np.stack([minimum, minimum]), seed=0, **options
    )
    strength = 200 / np.log(200)
    true = 0.5 * np.mean((inputs @ minimum - problem.targets) ** 2)
    assert np.all(np.abs(found.baseline - true) < 4 * found.baseline_standard_error)
    assert np.all(found.standard_error > strength * found.baseline_standard_error)
    stiffness = strength * np.linalg.eigvalsh(problem.hessian_matrix())
    expected = np.sum(stiffness / (stiffness + 1)) / 2
    corrected = found.value - found.step_size_bias
    error = np.hypot(found.standard_error, found.step_size_bias_standard_error)
    assert np.all(4 * error < 0.6)
    assert np.all(np.abs(corrected - expected) < 4 * error)
    assert np.ptp(found.value) > 0


def test_effective_sample_size_is_that_of_arviz():
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(4, 500))
    for i in range(1, 500):
        draws[:, i] += 0.7 * draws[:, i - 1]
    expected = arviz_stats.ess(xr.Dataset({"x": (("chain", "draw"), draws)}), method="mean")["x"]
    assert effective_sample_size(draws) == pytest.approx(float(expected), rel=0.02)


def test_refusals(unchecked):
    problem = problems.quadratic(np.eye(2))
    options = {"step_size": 0.01, "steps": 10, "burn_in": 0}
    with pytest.raises(ValueError, match="inverse_temperature must be given without a data set"):
        local_learning_coefficient(problem, np.zeros(2), **options)
    options["inverse_temperature"] = 10.0
    with pytest.raises(ValueError, match="chains must be at least 2"):
        local_learning_coefficient(problem, np.zeros(2), chains=1, **options)
    with pytest.raises(ValueError, match="loss_examples must be None"):
        local_learning_coefficient(problem, np.zeros(2), loss_examples=5, **options)
    data = problems.linear_regression(np.eye(4), np.zeros(4))
    with pytest.raises(ValueError, match="noise must be white"):
        local_learning_coefficient(
            data, np.zeros(4), noise=noise.Minibatch(2, "reshuffle"), **options
        )
    cubic = problems.landscape(lambda x: jnp.sum(x**6), np.zeros(2))
    with pytest.raises(ValueError, match="step_size must keep chains finite"):
        local_learning_coefficient(
            cubic, np.full(2, 9.0), step_size=1.0, steps=40, burn_in=0, inverse_temperature=10.0
        )
