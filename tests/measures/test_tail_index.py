"""Estimators of tail indices on known laws, batches against exact kurtosis, recorded noise."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import levy_stable

from statsgd import measures, problems
from statsgd.measures import (
    batch_gaussianity,
    gradient_noise,
    noise_excess_kurtosis,
    tail_index,
)
from statsgd.noise import Isotropic, Minibatch

NUMBER, REPEATS = 10_000, 24


def laws():
    rng = np.random.default_rng(7)
    shape = (NUMBER, REPEATS)
    stable = levy_stable.rvs(1.5, 0, size=shape, random_state=rng)
    return {
        "stable": stable,
        "student": rng.standard_t(3, shape),
        "normal": rng.normal(size=shape),
        "laplace": rng.laplace(size=shape),
        "mixture": np.exp(rng.normal(size=shape) / 2) * rng.normal(size=shape),
    }


LAWS = laws()
# Medians of 100 repeats of 10⁴ numbers, with the spread of one.
CALIBRATION = {
    ("stable", "hill", "square_root"): (1.52, 0.16),
    ("student", "hill", "square_root"): (2.89, 0.28),
    ("normal", "hill", "square_root"): (9.0, 0.9),
    ("laplace", "hill", "square_root"): (5.5, 0.5),
    ("stable", "hill", "tenth"): (1.71, 0.06),
    ("student", "hill", "tenth"): (2.46, 0.08),
    ("normal", "hill", "tenth"): (4.7, 0.1),
    ("stable", "block", 10): (1.51, 0.04),
    ("student", "block", 10): (1.66, 0.04),
    ("normal", "block", 10): (2.01, 0.06),
    ("laplace", "block", 10): (1.63, 0.04),
    ("mixture", "block", 10): (1.69, 0.04),
    ("laplace", "block", 100): (1.79, 0.08),
    ("stable", "quantiles", None): (1.50, 0.02),
    ("student", "quantiles", None): (1.53, 0.02),
    ("laplace", "quantiles", None): (1.45, 0.02),
    ("stable", "student_t", None): (2.18, 0.07),
    ("student", "student_t", None): (2.99, 0.10),
    ("laplace", "student_t", None): (3.31, 0.11),
}


@pytest.mark.parametrize(("law", "method", "option"), CALIBRATION)
def test_calibration(law, method, option):
    middle, spread = CALIBRATION[law, method, option]
    options = {"hill": "threshold", "block": "block"}
    chosen = {options[method]: option} if method in options else {}
    repeats = 8 if method == "student_t" else REPEATS
    found = tail_index(LAWS[law][:, :repeats], method, **chosen)
    # A median's error is 1.25 times a mean's; printed to half a unit of the last digit.
    error = spread * np.hypot(1.25 / np.sqrt(repeats), 0.125)
    assert abs(np.median(found.value) - middle) < 4 * error + 0.006


@pytest.mark.parametrize(
    ("law", "method", "truth"),
    [
        ("stable", "hill", None),
        ("stable", "block", 1.5),
        ("stable", "quantiles", 1.5),
        ("stable", "log_moment", 1.5),
        ("student", "student_t", 3.0),
        ("normal", "block", 2.0),
        ("normal", "log_moment", 2.0),
    ],
)
def test_errors_are_those_of_repeats(law, method, truth):
    found = tail_index(LAWS[law], method, **({"block": 10} if method == "block" else {}))
    scatter = found.value.std(ddof=1)
    # 24 repeats know a standard deviation to 15 %.
    assert np.mean(found.standard_error) == pytest.approx(scatter, rel=0.6)
    if truth:
        assert abs(found.value.mean() - truth) < 4 * scatter / np.sqrt(REPEATS) + 0.005


def test_one_column_is_one_number_and_normal_numbers_have_no_tail():
    x = LAWS["student"][:, 0]
    one = tail_index(x)
    assert np.shape(one.value) == ()
    assert one.value == tail_index(LAWS["student"]).value[0]
    assert one.standard_error == pytest.approx(one.value / 10)  # k = √n = 100
    value, error, _ = tail_index(LAWS["normal"][:, 0], "student_t")
    assert value == np.inf
    assert np.isnan(error)


def test_an_exact_power_law_and_its_threshold():
    # Quantiles of P(x > t) = t^(−2.5): Hill at any k, about zero.
    x = ((np.arange(20_000) + 0.5) / 20_000) ** (-1 / 2.5)
    for threshold in ("square_root", "tenth", 500):
        found = tail_index(x, threshold=threshold, location=0.0)
        assert found.value == pytest.approx(2.5, rel=0.02)
    chosen = tail_index(x, threshold="distance", location=0.0)
    assert chosen.value == pytest.approx(2.5, rel=1e-3)
    assert chosen.standard_error < 0.03  # nearly all of them
    body = tail_index(LAWS["stable"][:, :8], threshold="distance").value
    assert np.median(body) == pytest.approx(1.72, abs=0.1)


def test_dependence_makes_normal_numbers_look_heavy():
    # 1/α = ½ + ln V/(2 ln K), V = Var Y/(K Var x): 1.0742 and 1.2363 for ρ = 0.9, K = 10 and 100.
    rng = np.random.default_rng(3)
    path = rng.normal(size=400_000)
    for i in range(1, len(path)):
        path[i] = 0.9 * path[i - 1] + 0.19**0.5 * path[i]
    for block, expected in ((10, 1.0742), (100, 1.2363)):
        assert tail_index(path, "block", block=block).value == pytest.approx(expected, abs=0.02)


SKEW = np.array([0.0, 1.0, 1.0, 2.0, 5.0, -3.0, 0.5])


def test_kurtosis_of_batches_is_that_of_all_subsets():
    printed = {1: 0.0800184, 2: -0.8496022, 3: -1.0820074, 4: -1.0820074, 6: 0.0800184}
    for size, expected in printed.items():
        sums = np.array([np.sum(s) for s in itertools.combinations(SKEW - SKEW.mean(), size)])
        enumerated = np.mean(sums**4) / np.mean(sums**2) ** 2 - 3
        found = noise_excess_kurtosis(SKEW, size, "without_replacement")
        np.testing.assert_allclose(found, enumerated, rtol=1e-9)
        np.testing.assert_allclose(found, expected, atol=1e-7)
        np.testing.assert_allclose(noise_excess_kurtosis(SKEW, size), 0.0800184 / size, atol=1e-7)
    u = (np.arange(100) + 0.5) / 100
    scores = np.where(u < 0.5, np.log(2 * u), -np.log(2 - 2 * u))
    both = np.stack([scores, 3 * scores], axis=1)
    for size, expected in ((5, 0.223164), (10, 0.037274), (25, -0.070761), (50, -0.095692)):
        found = noise_excess_kurtosis(both, size, "without_replacement")
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_batches_of_finite_variance_become_normal():
    # Products of two normals have γ₂ = 6: 1.5 and .375 in batches of 4 and 16.
    rng = np.random.default_rng(5)
    sizes = (1, 4, 16, 64)
    draws = {s: np.prod(rng.normal(size=(2, 20_000, s)), axis=0).mean(axis=1) for s in sizes}
    found = batch_gaussianity(draws)
    assert np.all(np.abs(found.excess_kurtosis.deviation(6 / np.array(sizes))) < 4)
    assert found.p_value[0] < 1e-6
    assert found.p_value[-1] > 1e-4
    later = batch_gaussianity({s: draws[s] for s in (16, 64)})
    assert abs(later.spread_exponent.deviation(-0.5)) < 4.5
    assert later.stable_index.value > 1.8
    # The block estimator calls these very numbers stable: 2 only for infinite blocks.
    assert tail_index(draws[1], "block", block=10).value < 1.7


def test_batches_of_stable_noise_do_not():
    rng = np.random.default_rng(6)
    draws = {
        s: levy_stable.rvs(1.5, 0, size=(4000, s), random_state=rng).mean(axis=1)
        for s in (1, 4, 16)
    }
    found = batch_gaussianity(draws)
    assert abs(found.spread_exponent.deviation(1 / 1.5 - 1)) < 4
    assert abs(found.stable_index.deviation(1.5)) < 4
    assert found.stable_index.standard_error < 0.05
    assert np.all(found.p_value < 1e-6)


REGRESSION = problems.linear_regression(
    np.random.default_rng(0).normal(size=(30, 2)), np.random.default_rng(1).normal(size=30)
)


def test_recorded_noise_is_that_of_the_examples():
    at = np.array([0.4, -0.2])
    found = gradient_noise(REGRESSION, at)
    x, y = (np.asarray(part, dtype=float) for part in REGRESSION.examples)
    rows = x * (x @ at - y)[:, None]
    np.testing.assert_allclose(found, rows - rows.mean(axis=0), rtol=1e-6, atol=1e-8)
    drawn = gradient_noise(REGRESSION, at, Minibatch(4), draws=4000, seed=2)
    assert drawn.shape == (4000, 2)
    variance = measures.noise_covariance(REGRESSION, at, Minibatch(4))
    np.testing.assert_allclose(np.cov(drawn.T), variance, rtol=0.15, atol=0.02)
    expected = noise_excess_kurtosis(found, 4)
    z = drawn / drawn.std(axis=0)
    error = (z**4).std(axis=0) / np.sqrt(4000)
    assert np.all(np.abs(np.mean(z**4, axis=0) - 3 - expected) < 5 * error)


@pytest.mark.usefixtures("unchecked")
def test_wrong_arguments_are_named():
    good = LAWS["normal"][:, 0]
    with pytest.raises(ValueError, match="samples must be finite, got 1 NaN"):
        tail_index(np.append(good, np.nan))
    with pytest.raises(ValueError, match="samples must be at least 50 for a tail index, got 3"):
        tail_index([1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="samples must not all be equal"):
        tail_index(np.ones(100))
    with pytest.raises(ValueError, match="method must be one of 'hill', 'block'"):
        tail_index(good, "guess")
    with pytest.raises(ValueError, match="threshold must be one of"):
        tail_index(good, threshold="best")
    with pytest.raises(ValueError, match="threshold must be at most 9999"):
        tail_index(good, threshold=10_000)
    with pytest.raises(ValueError, match="block must be at least 2"):
        tail_index(good, "block", block=1)
    with pytest.raises(ValueError, match=r"samples must have shape \(n,\) or \(n, k\)"):
        tail_index(np.zeros((60, 2, 2)))
    with pytest.raises(ValueError, match="noise must have draws of two batch sizes"):
        batch_gaussianity({1: good})
    with pytest.raises(ValueError, match=r"noise\[4\] must be at least 100 draws"):
        batch_gaussianity({1: good, 4: good[:20]})
    with pytest.raises(ValueError, match="batch_size must be below the number of examples 7"):
        noise_excess_kurtosis(SKEW, 7, "without_replacement")
    bowl = problems.landscape(lambda p: jnp.sum(p**2), np.zeros(2))
    with pytest.raises(ValueError, match="noise must be given for"):
        gradient_noise(bowl, np.zeros(2))
    assert gradient_noise(bowl, np.zeros(2), Isotropic(1.0), draws=5).shape == (5, 2)
