"""The atlas of laws of loss-scaled noise, of wells, walks and finite steps, in known cells."""

import jax
import numpy as np
import pytest
from scipy.stats import norm

import statsgd
from statsgd import SGD, noise
from statsgd.comparison import accuracy
from statsgd.laws import TorusPowerOfLossLaw
from statsgd.problems import empirical_risk, landscapes
from studies.atlas_families import FAMILIES
from studies.atlas_families.family import Effort


def cell(law, *numbers, replicas=4000):
    return FAMILIES[law].cell(Effort(replicas, 0), *numbers)


def errors(law, *numbers, replicas=4000):
    compared = cell(law, *numbers, replicas=replicas)
    return accuracy(compared.truth, compared.law, compared.threshold)


def below(marginal, threshold):
    return float(marginal.cdf(np.array([threshold]))[0])


@pytest.mark.parametrize(
    "law",
    [
        "LossScaledLaw",
        pytest.param("FlooredPowerOfLossLaw", marks=pytest.mark.slow),
        pytest.param("SaturatedPowerOfLossLaw", marks=pytest.mark.slow),
        pytest.param("ScalarNoiseLaw", marks=pytest.mark.slow),
    ],
)
def test_laws_exact_for_the_sde_are_off_by_the_step(law):
    near, far = (cell(law, step, 1.0) for step in (0.03, 0.3))
    assert near.sde_to_law < 1e-3
    distances = [accuracy(c.truth, c.law).total_variation.value for c in (near, far)]
    # First order in the learning rate, with a second order that is not small at 0.3.
    assert distances[0] < 0.01
    np.testing.assert_allclose(distances[1] / distances[0], 10, rtol=0.4)


@pytest.mark.parametrize(
    # Mean loss and P(L < 0.1) of the chain in three dimensions at ησ = 8 and L_sat = 1.
    ("step", "loss", "small"),
    [(0.01, 3.1061, 0.2025), pytest.param(0.0025, 3.0260, 0.2177, marks=pytest.mark.slow)],
)
def test_the_chain_of_distances_has_its_known_moments(step, loss, small):
    compared = cell("SaturatingLossScaledLaw", step, 8.0)
    mean, variance = compared.truth.moments()
    np.testing.assert_allclose((mean**2 + variance) / 2, loss, atol=5e-4)
    np.testing.assert_allclose(below(compared.truth, np.sqrt(0.2)), small, atol=1e-4)
    # (a + w)/b with a = w/2 = b = 1/4.
    mean, variance = compared.law.moments()
    np.testing.assert_allclose((mean**2 + variance) / 2, 3.0, rtol=1e-4)


@pytest.mark.parametrize(
    "kurtosis", [2.0, *(pytest.param(k, marks=pytest.mark.slow) for k in (1.0, 3.0))]
)
def test_real_sgd_and_the_outlier_law_differ_by_known_variances(kurtosis):
    found = errors("OutlierPowerLaw", 0.1, kurtosis)
    # η/(2 − η) of the law against η/(2 − ηκ) of the chain.
    expected = (2 - 0.1 * kurtosis) / (2 - 0.1) - 1
    np.testing.assert_allclose(found.variance.value, expected, atol=2e-4)


@pytest.mark.slow
def test_the_chain_feels_the_kink():
    # η = 0.05 and τ = 0.2: the jump of L' is 6, the barrier 1.125. Exact chain 0.864, law 3/4.
    compared = cell("KinkedWellsGibbs", 36 * 0.05 / (2 * 0.2), 1.125 / 0.2)
    np.testing.assert_allclose(below(compared.truth, 0.5), 0.864, atol=6e-4)
    np.testing.assert_allclose(below(compared.law, 0.5), 0.75, atol=1e-4)


@pytest.mark.slow
def test_the_well_behind_weaker_noise_wins():
    # η/(2S) = 0.02, so 2SΔΦ/η = ΔΦ/0.02; 0.905783 by quadrature.
    compared = cell("EffectivePotentialGibbs", 0.1, 0.0673892 / 0.02)
    np.testing.assert_allclose(below(compared.law, 0.6585913), 0.905783, atol=1e-5)
    found = accuracy(compared.truth, compared.law, compared.threshold)
    assert found.total_variation.value < 0.01
    assert compared.sde_to_law < 1e-3


@pytest.mark.parametrize("inverse", [0.01, pytest.param(0.0025, marks=pytest.mark.slow)])
def test_a_walk_is_normal_up_to_its_skewness(inverse):
    found = errors("LogMultiplicativeWalk", inverse, 0.9)
    logs = np.log(np.abs(1 - 0.9 * (2 * np.arange(64) - 63) / 64))
    skewness = np.mean((logs - logs.mean()) ** 3) / np.std(logs) ** 3 * np.sqrt(inverse)
    # First term of the Edgeworth series: |γ|/12 E|z³ − 3z| for standard normal z.
    first = abs(skewness) / 6 * (norm.pdf(0) + 4 * norm.pdf(np.sqrt(3)))
    np.testing.assert_allclose(found.total_variation.value, first, rtol=0.1)
    np.testing.assert_allclose(found.mean.value, 0, atol=1e-6)
    np.testing.assert_allclose(found.variance.value, 0, atol=1e-3)


@pytest.mark.slow
def test_a_quadratic_law_holds_at_any_step_on_a_quadratic_only():
    for step in (0.03, 1.0):
        found = errors("AnisotropicQuadraticLaw", 0.003, step, replicas=10_000)
        # Standard error of a variance 0.018; a wrong factor 1.1 would fail.
        assert abs(found.variance.value) < 4 * found.variance.standard_error
        assert found.variance.standard_error < 0.02
    assert errors("AnisotropicQuadraticLaw", 3.0, 0.03).variance.value > 0.2


@pytest.mark.slow
def test_the_exact_walk_is_that_of_sgd():
    steps, curvatures = 10, 0.9 * (2 * np.arange(64) - 63) / 64
    problem = empirical_risk(lambda w, h: h * w[0] ** 2 / 2, curvatures, np.ones(1))
    ensemble = statsgd.simulate(
        problem, SGD(1.0, noise.Minibatch(1)), steps=steps, replicas=8000, seed=0, progress=False
    )
    (ends,) = ensemble["endpoints"].to_dataset().data_vars.values()
    logs = np.log(np.abs(np.asarray(ends, np.float64)[:, 0]))
    truth = cell("LogMultiplicativeWalk", 1 / steps, 0.9).truth
    at = np.quantile(logs, [0.05, 0.25, 0.5, 0.75, 0.95])
    expected = truth.cdf(at)
    spread = np.sqrt(expected * (1 - expected) / 8000)
    assert np.all(np.abs(expected - [0.05, 0.25, 0.5, 0.75, 0.95]) < 4 * spread)


@pytest.mark.slow
def test_the_chain_of_distances_is_that_of_sgd():
    step, strength = 0.1, 8.0
    ensemble = statsgd.simulate(
        landscapes.quadratic(np.eye(3)),
        SGD(step, noise.LossScaled(strength / step, saturation=1.0)),
        steps=600,
        replicas=8000,
        seed=0,
        start=np.ones(3),
        progress=False,
    )
    (ends,) = ensemble["endpoints"].to_dataset().data_vars.values()
    distances = np.linalg.norm(np.asarray(ends, np.float64), axis=1)
    levels = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
    expected = cell("SaturatingLossScaledLaw", step, strength).truth.cdf(
        np.quantile(distances, levels)
    )
    # Standard errors of at most 0.0056, where the law itself is off by 0.18.
    assert np.all(np.abs(expected - levels) < 4 * np.sqrt(levels * (1 - levels) / 8000))


@pytest.mark.slow
def test_epochs_follow_their_law_until_curvature_and_gradient_go_together():
    # s = ηhM = 1: the variance of epoch ends is far below that of white noise.
    found = errors("EpochNoiseGaussian", 0.01, 1.0)
    assert abs(found.variance.value) < 4 * found.variance.standard_error
    assert abs(found.mean.value) < 4 * found.mean.standard_error
    assert abs(errors("EpochNoiseGaussian", 0.9, 0.1).mean.value) > 0.3


@pytest.mark.slow
def test_the_chain_needs_cells_below_its_step():
    # Fourfold standard errors below 0.1 of the variance.
    found = errors("DiscreteChainLaw", 0.5, 0.3)
    assert abs(found.variance.value) < 4 * found.variance.standard_error < 0.12
    assert abs(found.basin.value) < 4 * found.basin.standard_error
    assert errors("DiscreteChainLaw", 8.0, 0.3).total_variation.value > 0.2


@pytest.mark.slow
def test_the_chain_overheats_the_sharp_basin():
    small, large = (errors("TwoBasinGibbs", step, 4.0) for step in (0.1, 1.6))
    assert abs(small.basin.value) < 4 * small.basin.standard_error + 0.003
    # The law gives 1/(1 + √1000) = 0.031 to the sharp basin, the chain next to nothing.
    np.testing.assert_allclose(large.basin.value, 0.025, atol=0.01)


@pytest.mark.slow
def test_the_torus_has_a_higher_loss_than_its_law():
    compared = cell("TorusPowerOfLossLaw", 0.03, 10.0)
    law = TorusPowerOfLossLaw(3, 10.0).mean_loss()
    spread = compared.law.points.std() / np.sqrt(4000)
    assert abs(compared.law.points.mean() - law) < 4 * spread
    assert compared.truth.points.mean() - law > 4 * spread


@pytest.mark.slow
def test_strata_hold_their_shares():
    compared = cell("StrataLaw", 0.03, 8.0)
    # P(z < 1.5) = 1 − (1 − 0.207787)/2, with standard error 0.0077.
    expected = 1 - (1 - 0.207787) / 2
    assert abs(below(compared.law, 1.5) - expected) < 4 * 0.0077
    assert abs(below(compared.truth, 1.5) - expected) < 4 * 0.0077
    assert jax.numpy.isfinite(compared.truth.points).all()
