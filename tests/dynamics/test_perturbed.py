"""Sharpness-aware minimisation and weight noise: laws on quadratics, drift along valleys."""

import numpy as np
import pytest

import statsgd
from statsgd.dynamics import SharpnessAware, WeightNoise
from statsgd.laws import ImproperLawError, LinearOptimiserGaussian, applicable
from statsgd.laws.valleys import sharpness_aware_drift
from statsgd.noise import Isotropic, Minibatch, NoNoise
from statsgd.problems import quadratic
from tests.statistical import assert_printed

TWO = quadratic(np.array([[2.0]]))
ONE = quadratic(np.array([[1.0]]))
LOUD = Isotropic(1.0)


def variance(problem, dynamics):
    return LinearOptimiserGaussian.from_dynamics(problem, dynamics).covariance()[0, 0]


@pytest.mark.parametrize(
    ("ascent", "plain", "heavy"),
    [
        ("same", ".04411765", ".78082192"),
        ("fresh", ".02450980", ".43378995"),
        ("full", ".01960784", ".34703196"),
    ],
)
def test_laws_of_sharpness_aware_minimisation(ascent, plain, heavy):
    options = {"ascent": ascent, "normalised": False}
    assert_printed(variance(TWO, SharpnessAware(0.1, LOUD, 0.25, **options)), plain)
    assert_printed(variance(ONE, SharpnessAware(0.1, LOUD, 0.5, 0.9, **options)), heavy)


def test_stability_of_sharpness_aware_minimisation():
    # h < (√(1 + 8ρ/η) − 1)/(2ρ)
    for h, stable in ((7.165, True), (7.166, False)):
        dynamics = SharpnessAware(0.1, LOUD, 0.25, normalised=False)
        law = LinearOptimiserGaussian.from_dynamics(quadratic(np.array([[h]])), dynamics)
        if stable:
            law.require_proper()
        else:
            with pytest.raises(ImproperLawError, match="where this optimiser is stable"):
                law.require_proper()


@pytest.mark.parametrize(
    ("dynamics", "expected"),
    [
        pytest.param(
            SharpnessAware(0.1, LOUD, 0.25, normalised=False), 0.04411765, marks=pytest.mark.slow
        ),
        (SharpnessAware(0.1, LOUD, 0.25, normalised=False, ascent="fresh"), 0.02450980),
        pytest.param(
            SharpnessAware(0.1, LOUD, 0.25, normalised=False, ascent="full"),
            0.01960784,
            marks=pytest.mark.slow,
        ),
        # ηc/(h(2 − ηh)) with c = 1 + σ²h².
        (WeightNoise(0.1, LOUD, 0.5), 0.1 * 2.0 / (2 * 1.8)),
    ],
)
def test_simulation(dynamics, expected):
    result = statsgd.simulate(TWO, dynamics, steps=100, replicas=20_000, seed=1, progress=False)
    found = float(result["endpoints"].params.var())
    assert found == pytest.approx(expected, rel=4 * np.sqrt(2 / 20_000))
    assert variance(TWO, dynamics) == pytest.approx(expected, rel=1e-6)


def test_normalised_steps_end_in_a_two_cycle():
    # x = ±ηρh/(2 − ηh)
    dynamics = SharpnessAware(0.1, NoNoise(), 0.5)
    run = statsgd.simulate(
        ONE, dynamics, steps=401, replicas=1, seed=0, start=np.array([1.0], np.float32),
        keep=[400, 401], progress=False,
    )  # fmt: skip
    kept = run["snapshots"].params.values.ravel()
    np.testing.assert_allclose(np.abs(kept), 0.02631579, rtol=1e-4)
    assert kept[0] * kept[1] < 0


def test_applicable_speaks_about_them():
    for dynamics in (SharpnessAware(0.1, LOUD, 0.25, normalised=False), WeightNoise(0.1, LOUD, 1)):
        table = applicable(TWO, dynamics).set_index("law")
        assert set(table.index[table["applies"]]) == {"LinearOptimiserGaussian"}
    refused = applicable(TWO, SharpnessAware(0.1, LOUD, 0.25)).set_index("law")
    assert not refused["applies"].any()
    reason = refused.loc["LinearOptimiserGaussian", "reason"]
    assert "normalised must be False for a law" in reason


@pytest.mark.parametrize(
    ("rate", "radius", "printed"),
    [(0.05, 0.0, 6.578947e-4), (0.05, 0.1, 1.648936e-3), (0.01, 0.2, 2.347870e-3)],
)
def test_drift_along_a_valley(rate, radius, printed):
    # h = 1 + u² at u = 1, c = .05.
    found = sharpness_aware_drift([[2.0]], [[2.0]], [[0.05]], rate, radius)
    assert -found / rate == pytest.approx(printed, rel=1e-6)


@pytest.mark.usefixtures("unchecked")
def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"radius must be positive and finite, got 0"):
        SharpnessAware(0.1, LOUD, 0)
    with pytest.raises(ValueError, match="ascent must be one of 'same', 'fresh', 'full'"):
        SharpnessAware(0.1, LOUD, 0.1, ascent="up")
    with pytest.raises(ValueError, match="ascent must not be 'fresh'"):
        SharpnessAware(0.1, Minibatch(2, "reshuffle"), 0.1, ascent="fresh")
    with pytest.raises(ValueError, match="noise must be one of statsgd"):
        WeightNoise(0.1, 3, 0.1)
    with pytest.raises(ValueError, match=r"learning_rate must keep ηh\(1\+ρh\) below 2"):
        sharpness_aware_drift([[2.0]], [[2.0]], [[0.05]], 1.1)
