"""Cells of the atlas where theory knows the answer: networks, orbits, particles and valleys."""

import dataclasses

import numpy as np
import pytest
from scipy import stats

from statsgd import SGD, noise, simulate
from statsgd.laws import MeanFieldLaw, TwoValleyLaw
from statsgd.laws.grids.grid import total_variation
from statsgd.problems import diagonal_linear_network
from studies import atlas
from studies.atlas_families import FAMILIES, balance, mean_field, valleys
from studies.atlas_families.family import DivergedError, Effort


class Setting(dict):
    """Settings of a cell, as a sweep hands them on."""

    seed = 0


def evaluated(law, *numbers, replicas=0):
    return atlas.evaluate(law, replicas, Setting(zip(FAMILIES[law].axes, numbers, strict=True)))


def distance(one, other):
    """Total variation between two densities on an even grid over a whole circle, unnormalised."""
    return total_variation(one / one.sum(), other / other.sum())


@pytest.mark.slow
def test_two_layers_are_off_in_proportion_to_the_step():
    small, large = (evaluated("DiagonalNetworkLaw", step, 0.3) for step in (0.003, 0.01))
    assert large["total_variation"] < 0.01
    np.testing.assert_allclose(
        large["total_variation"] / small["total_variation"], 10 / 3, rtol=0.1
    )
    assert evaluated("DiagonalNetworkLaw", 0.3, 0.3)["total_variation"] > 0.2


@pytest.mark.slow
def test_the_balanced_chain_is_what_sgd_ends_as():
    # η = 0.05 and T/T_c = 0.3: eight relaxation times 1.2/η. The 0.1 % level of Kolmogorov's test
    # is 1.95/√n.
    data, n = balance._data(np.sqrt(0.3 / 0.05 - 0.25)), 3000
    truth = FAMILIES["DiagonalNetworkLaw"].cell(Effort(0, 0), 0.1, 0.3).truth
    run = simulate(
        diagonal_linear_network(*data, initial_params=np.array([[1.2, 0.8]])),
        SGD(0.05, noise.Minibatch(1)),
        steps=200, replicas=n, seed=0, progress=False,
    )  # fmt: skip
    slope = np.prod(run["endpoints"]["params"].values.astype(float), axis=(1, 2))
    assert stats.kstest(np.log(slope), truth.cdf).statistic < 1.95 / np.sqrt(n)


@pytest.mark.slow
def test_infinite_depth_is_off_in_proportion_to_inverse_depth():
    deep, shallow = (
        evaluated("InfiniteDepthNetworkLaw", inverse, 0.0003)["total_variation"]
        for inverse in (0.01, 0.02)
    )
    np.testing.assert_allclose(shallow / deep, 2, rtol=0.2)


@pytest.mark.slow
def test_interpolation_with_small_steps():
    cell = evaluated("InterpolationLaw", 0.03, 1.0, replicas=2000)
    assert abs(cell["mean"]) < 4 * cell["mean_uncertainty"] + 0.01
    assert evaluated("InterpolationLaw", 0.8, 1.0)["status"] == "improper"


def test_a_factor_has_the_variance_of_the_law():
    law = balance._orbit(0.3)
    marginal = balance._Factor(law).marginal()
    np.testing.assert_allclose(marginal.moments()[1], law.covariance()[0, 0], rtol=1e-5)
    draws = balance._Factor(law).draw(Effort(20_000, 0))
    # E uw = E f; the standard error of the mean of a product is at most 0.01 here.
    np.testing.assert_allclose(
        np.mean(draws[:, 0] * draws[:, 1]), law.covariance()[0, 1], atol=0.03
    )


@pytest.mark.slow
def test_one_neuron_against_the_limit_of_many():
    # With N = 1 the truth is exp(−[λx²/2 + (tanh x − y)²/2]/τ), up to the step.
    cell = evaluated("MeanFieldLimit", 1.0, 0.03, replicas=2000)
    x = np.linspace(-8, 8, 4001)
    weights = np.exp(-(0.25 * x**2 + 0.5 * (np.tanh(x) - 0.5) ** 2) / 0.2)
    weights /= weights.sum()
    mean = weights @ x
    np.testing.assert_allclose(
        MeanFieldLaw(mean_field._limit(), 1).particle_expectation(lambda p: p[0]),
        mean,
        rtol=1e-4,
    )
    ratio = mean_field._limit().covariance()[0, 0] / (weights @ (x - mean) ** 2)
    assert abs(cell["variance"] - (ratio - 1)) < 4 * cell["variance_uncertainty"] + 0.03


def test_particles_of_a_quadratic_functional_are_exact_far_from_small_steps():
    cell = evaluated("QuadraticMeanField", 1.9, 2.0, replicas=4000)
    assert abs(cell["variance"]) < 4 * cell["variance_uncertainty"]
    assert abs(cell["mean"]) < 4 * cell["mean_uncertainty"]


@pytest.mark.slow
def test_odds_of_two_valleys_are_off_by_the_root_of_the_step():
    found = [float(evaluated("TwoValleyLaw", step, 8.0)["basin"]) for step in (0.0003, 0.001)]
    law = valleys._two_wells(8.0)
    for step, off in zip((0.0003, 0.001), found, strict=True):
        eta = step * float(law.wells.flatness[1]) / 2
        corrected = TwoValleyLaw(law.landscape, law.along, law.noise_level, learning_rate=eta)
        # Below the ridge is the sharp valley: the law holds too little of it.
        expected = float(corrected.flat_probability() - law.flat_probability())
        np.testing.assert_allclose(off, expected, rtol=0.15)


@pytest.mark.slow
def test_isotropic_noise_in_a_valley_feels_the_step():
    # Where angles are slow y has variance τ/(h(1 − ηh/2)), and p ∝ ((1 − ηh/2)/h)^½.
    x = np.linspace(0, 2 * np.pi, 2001)
    h = 2 + 1.5 * np.cos(x)
    expected = distance(np.sqrt((1 - 1.8 / 3.5 * h / 2) / h), h**-0.5)
    cell = evaluated("ValleyEntropyLaw", 1.8, 0.03, replicas=8000)
    assert abs(cell["total_variation"] - expected) < 4 * cell["total_variation_uncertainty"] + 0.01


@pytest.mark.slow
def test_noise_like_the_curvature_feels_the_step():
    # p ∝ (1 − ηh/2)^(c/(ηw)) with c = w, against exp(−h/2).
    x = np.linspace(0, 2 * np.pi, 2001)
    h, eta = 2 + 1.5 * np.cos(x), 1.8 / 3.5
    expected = distance((1 - eta * h / 2) ** (1 / eta), np.exp(-h / 2))
    cell = evaluated("ValleySharpnessLaw", 1.8, 0.03, replicas=8000)
    assert abs(cell["total_variation"] - expected) < 4 * cell["total_variation_uncertainty"] + 0.01


@pytest.mark.slow
def test_circle_and_ring_inside_and_outside():
    for law, inside, outside in (
        ("ZeroLossCircleLaw", (0.1, 32.0), (10.0, 32.0)),
        ("ValleyLaw", (0.01, 1.2), (1.0, 1.6)),
    ):
        assert evaluated(law, *inside, replicas=4000)["total_variation"] < 0.05
        assert evaluated(law, *outside, replicas=4000)["total_variation"] > 0.1


def test_runs_that_diverge_leave_a_cell_that_says_so(monkeypatch):
    def diverge(effort, *numbers):
        raise DivergedError("all runs diverged")

    family = dataclasses.replace(FAMILIES["ValleyLaw"], cell=diverge)
    monkeypatch.setitem(FAMILIES, "ValleyLaw", family)
    assert evaluated("ValleyLaw", 0.1, 1.2)["status"] == "diverged"
