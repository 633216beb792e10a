"""Sampling of minibatches, currents and posteriors: the study's headline numbers."""

import re

import numpy as np
import pytest

from studies import equilibrium_or_not
from studies.out_of_equilibrium import currents, effective_loss, posterior, schemes
from studies.out_of_equilibrium.currents import symmetry_slope
from tests.statistical import assert_printed


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="replicas must be at least 2, got 1"):
        equilibrium_or_not.Config(replicas=1)
    with pytest.raises(ValueError, match="margin must be positive"):
        equilibrium_or_not.Config(margin=0.0)
    with pytest.raises(ValueError, match="posteriors must be one of"):
        equilibrium_or_not.Config(posteriors=("of the dice",))


def test_noise_of_the_schemes_is_the_identity():
    noise = np.asarray(schemes.additive_noise_problem().examples)
    np.testing.assert_allclose(noise.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(noise.T @ noise / len(noise), np.eye(7), atol=1e-12)


@pytest.mark.parametrize(
    ("name", "index", "printed"),
    [("SGLD", 1, ".31578947"), ("SGWORLD", 1, ".05831536")],
)
def test_bias_of_the_posterior_of_a_mean(name, index, printed):
    # M = 5, ε = .1, C' = hM: V·h − 1 = (1 + εC/2h)/(1 − ε/2) − 1 and
    # [2εs₂ + ε²M(s₂ − s₁²/M)]/(1 − r^(2M)) − 1. With replacement C is (N−1)/N of C'.
    target = posterior.gaussian_mean()
    found = posterior.predicted_bias(target, name, target.step_sizes()[index])
    if name == "SGLD":
        whole = (1 + 0.1 * 5 / 2) / 0.95
        assert_printed(whole - 1, printed)
        np.testing.assert_allclose(found, (1 + 0.1 * 5 * 0.9 / 2) / 0.95 - 1, rtol=1e-6)
    else:
        np.testing.assert_allclose(found, float(printed), atol=1e-7)


def test_slope_of_a_symmetric_pair_of_normals():
    # For σ ~ N(s, 2s) the ratio P(σ)/P(−σ) is e^σ.
    sigma = 0.3 + np.sqrt(0.6) * np.random.default_rng(0).standard_normal(200_000)
    slope, error = symmetry_slope(sigma)
    assert error < 0.02
    assert abs(slope - 1) < 4 * error


@pytest.fixture(scope="module")
def results():
    return equilibrium_or_not.run(
        equilibrium_or_not.Config(**vars(equilibrium_or_not.Config.quick()) | {"progress": False})
    )


def table(results, part):
    return results[part]["table"].to_dataset().to_dataframe().set_index("quantity")


@pytest.mark.slow
def test_verdicts(results):
    # How small a difference is says the number: that it is below the margin is what is demanded.
    words = {name: part.attrs["verdict"] for name, part in results.children.items()}
    verdicts = {name: re.sub("^holds .*", "holds", word) for name, word in words.items()}
    assert verdicts == {
        "white noise": "does not hold",
        "without replacement": "holds",
        "crossover": "holds",
        "exact laws": "holds",
        "effective loss": "holds",
        "beyond quadratics": "does not hold",
        "currents": "holds",
        "detailed balance": "does not hold",
        "fluctuation theorem": "holds",
        "posterior: mean of a Gaussian": "holds",
        "variance of the samplers": "holds",
        "order of the bias": "does not hold",
    }


@pytest.mark.slow
def test_headline_numbers(results):
    # Chain at H = diag(2, .5), C = [[1, .6], [.6, .8]], η = .1: areas .001875 and .03433735 a
    # step, entropy .07670455 nats a step.
    areas = table(results, "currents")
    for beta, expected in ((0, 0.001875), (0.9, 0.03433735)):
        row = areas.loc[f"area per step, {currents.SKEW}, β = {beta}"]
        np.testing.assert_allclose(row["predicted"], expected, rtol=1e-6)
        assert abs(row["measured"] - expected) < 4 * row["standard_error"]
    entropy = table(results, "fluctuation theorem").loc["⟨σ⟩ (nats per step)"]
    assert abs(entropy["measured"] - 0.07670455) < 4 * entropy["standard_error"]
    # Reshuffled mean shift of the six examples, S = 2, to first order .0538 η: within η² terms.
    shift = table(results, "effective loss").loc["shift of the mean, reshuffled"]
    first = np.hypot(0.00578829, 0.05352492) * effective_loss.RATES[effective_loss.JUDGED]
    np.testing.assert_allclose(shift["measured"], first, rtol=0.1)
    # Flat limit at a random step without momentum: η²c(M+1)/6 over ηc/2h.
    white = table(results, "white noise").loc["flattest mode, reshuffled, at a random step"]
    np.testing.assert_allclose(white["measured"], 0.005 * 11 / 3 * 36 / 39, rtol=0.15)


@pytest.mark.slow
def test_a_real_posterior_is_sampled_with_the_predicted_bias():
    target = posterior.diabetes()
    np.testing.assert_allclose(np.linalg.eigvalsh(target.precision)[-1], 440)
    found = posterior.bias(target, "SGWORLD", 800, 256, 0, False)
    assert np.all(np.abs(found.value - found.predicted) < 4 * found.standard_error + 0.03)
