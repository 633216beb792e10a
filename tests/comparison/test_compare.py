"""Verdicts: agreement where there is, planted errors caught, nothing conditioned silently."""

import numpy as np
import pytest
import xarray as xr

from statsgd import SGD, compare, noise, problems, sample, simulate
from statsgd.kernels import MALA
from statsgd.laws import HeavyBallGaussian, PhaseSpaceGaussian

HESSIAN, NOISE = np.diag([2.0, 0.5]), np.array([[1.0, 0.6], [0.6, 0.8]])
RATE, MOMENTUM = 0.25, 0.5


@pytest.fixture(scope="module")
def ensemble():
    problem = problems.landscape(lambda x: 0.5 * x @ HESSIAN @ x, np.zeros(2))
    sgd = SGD(RATE, noise.Anisotropic(NOISE), MOMENTUM)
    return simulate(
        problem, sgd, steps=400, replicas=6000, seed=0, keep=[250, 300, 350, 400], progress=False
    )


def law(rate=RATE, momentum=MOMENTUM, scale=1.0):
    return HeavyBallGaussian(HESSIAN, scale * NOISE, rate, momentum)


def test_right_law_agrees(ensemble):
    comparison = compare(ensemble, law(), seed=0, margin=0.1, include_snapshots=True)
    assert comparison.verdict == "agrees within 10 %"
    assert set(comparison.table["verdict"]) == {"agrees within 10 %"}
    ratios = comparison.effects("variance ratio")
    assert np.all((ratios["low"] < 1) & (ratios["high"] > 1))
    assert comparison.distances["p_value"].min() > 0.005
    assert comparison.verdict_on("variance ratio", "tail ratio") == "agrees within 10 %"
    told = "agrees within 10 % in location, spread, shape and stationarity"
    assert f"against HeavyBallGaussian: {told}" in str(comparison)


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        (law(scale=1.3), "temperature too high"),
        (law(momentum=0.0), "momentum factor missing"),
        (PhaseSpaceGaussian(HESSIAN, NOISE, RATE, MOMENTUM), "finite learning rate ignored"),
    ],
)
def test_planted_error_is_caught(ensemble, wrong, what):
    comparison = compare(ensemble, wrong, seed=0, margin=0.1, include_snapshots=True)
    assert comparison.verdict == "differs by more than 10 %", what


def test_shifted_mean_is_caught(ensemble):
    shifted = HeavyBallGaussian(HESSIAN, NOISE, RATE, MOMENTUM, location=[0.3, 0.0])
    comparison = compare(ensemble, shifted, seed=0, margin=0.1)
    shifts = comparison.effects("mean shift")
    assert (shifts["verdict"] == "differs by more than 10 %").any()
    np.testing.assert_allclose(
        shifts["effect"][0], -0.3 / np.sqrt(shifted.covariance()[0, 0]), atol=0.06
    )


def test_too_few_endpoints_leave_it_undecided(ensemble):
    few = xr.DataTree.from_dict(
        {
            name: ensemble[name].to_dataset().isel(replica=slice(60))
            for name in ("endpoints", "momentum_buffer", "run")
        }
    )
    assert compare(few, law(), seed=0, margin=0.05).verdict == "undecided"


def test_draws_stand_in_for_a_law_with_their_own_error(ensemble):
    draws = sample(law(), MALA(), seed=0, warmup=500, draws=2000, chains=4, progress=False)
    exact = compare(ensemble, law(), seed=0, margin=0.2).effects("variance ratio")
    drawn = compare(ensemble, draws, seed=0, margin=0.2).effects("variance ratio")
    assert np.all(drawn["standard_error"] > exact["standard_error"])
    assert np.all((drawn["low"] < 1) & (drawn["high"] > 1))


def test_diverged_replicas_are_not_dropped_silently(ensemble):
    damaged = ensemble.copy()
    run = damaged["run"].to_dataset()
    damaged["run"] = xr.DataTree(run.assign(diverged=("replica", np.arange(6000) < 12)))
    with pytest.raises(ValueError, match=r"12 of 6000 replicas diverged.*condition_on_survival"):
        compare(damaged, law(), seed=0)
    comparison = compare(damaged, law(), seed=0, condition_on_survival=True)
    assert comparison.settings["diverged"] == 12
    told = "12 of 6000 replicas diverged and were left out"
    assert told in str(comparison)
    assert told in repr(comparison)
    assert told in comparison._repr_html_()
    assert told in comparison.to_datatree().attrs["notes"]


def test_tree_holds_the_table_and_the_verdict(ensemble):
    comparison = compare(ensemble, law(), seed=0)
    tree = comparison.to_datatree()
    assert tree.attrs["verdict"] == comparison.verdict
    # Two variables along two coordinates and two modes, four quantities each; three of the whole.
    assert tree["table"].sizes["quantity"] == len(comparison.table) == 2 * 4 * 4 + 3
    assert (
        "half of the error over 32 intervals along directions, half over 3 of the whole"
        in (tree.attrs["multiplicity"])
    )
    parts = tree["parts"].to_dataset()
    assert parts["part"].values.tolist() == ["location", "spread", "shape", "stationarity"]
    assert parts["verdict"].values.tolist() == [p.verdict for p in comparison.parts.values()]


@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_named(ensemble):
    with pytest.raises(ValueError, match="the law has 1 parameters, the endpoints have 2"):
        compare(ensemble, HeavyBallGaussian([[1.0]], [[1.0]], 0.1), seed=0)
    with pytest.raises(ValueError, match=r"modes must have shape \(2, k\)"):
        compare(ensemble, law(), seed=0, modes=np.eye(3))
    with pytest.raises(ValueError, match=r"wells must have shape \(k, 2\)"):
        compare(ensemble, law(), seed=0, wells=np.eye(3))
    with pytest.raises(ValueError, match="statistics must be some of the table's"):
        compare(ensemble, law(), seed=0).verdict_on("kurtosis")
    with pytest.raises(ValueError, match="margin must be positive"):
        compare(ensemble, law(), seed=0, margin=0.0)
    with pytest.raises(ValueError, match="with the group 'endpoints'"):
        compare(xr.DataTree(), law(), seed=0)
    with pytest.raises(ValueError, match="simulated with keep"):
        compare(xr.DataTree.from_dict({"endpoints": xr.Dataset()}), law(), seed=0,
                include_snapshots=True)  # fmt: skip
