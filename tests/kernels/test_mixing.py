"""The diagnosis of mixing, on chains whose answer is known."""

import json

import arviz
import numpy as np
import pytest
import xarray as xr

from statsgd import sample
from statsgd.kernels import MALA, MixingWarning, find_wells, mixing
from statsgd.laws import Gibbs
from statsgd.problems.landscapes import quartic_wells, valley_wells

WELLS = np.array([[-1.0, 0.0], [1.0, 0.0]])


def tree(params):
    """Chains `(chain, draw, d)` as `sample` returns them."""
    data = xr.Dataset({"params": (("chain", "draw", "params_dim_0"), params)})
    return xr.DataTree.from_dict({"posterior": data})


def hopping(labels, seed=0, dimension=2):
    """Points about the wells ±1 on the first axis that `labels` say."""
    rng = np.random.default_rng(seed)
    noise = 0.15 * rng.normal(size=(*labels.shape, dimension))
    noise[..., 0] += 2 * labels - 1
    return noise


def test_good_chains_pass_with_the_numbers_of_arviz():
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=(4, 1000))
    draws = tree(hopping(labels))
    found = mixing(draws, WELLS)
    assert found.mixed
    assert found.verdict.startswith("the chains have mixed: R-hat at most 1.0")
    assert "2 of 2 wells visited" in found.verdict
    dataset = draws["posterior"].to_dataset()
    for name, reference in (
        ("rhat", arviz.rhat(dataset)),
        ("ess_bulk", arviz.ess(dataset, method="bulk")),
        ("ess_tail", arviz.ess(dataset, method="tail", prob=(0.05, 0.95))),
    ):
        np.testing.assert_allclose(found.variables[name], reference["params"], rtol=1e-6)
    np.testing.assert_allclose(found.occupation[:, 1], labels.mean(axis=1))


@pytest.mark.parametrize("dimension", [2, 400])
def test_round_trips_are_counted_whatever_the_dimension(dimension):
    # Away and back, twice, and away once more: two round trips. The other chain stays.
    path = np.repeat([0, 1, 0, 1, 0, 1], 200)
    labels = np.stack([path, np.zeros(1200, int)])
    wells = np.zeros((2, dimension))
    wells[:, 0] = [-1, 1]
    found = mixing(tree(hopping(labels, dimension=dimension)), wells)
    np.testing.assert_array_equal(found.round_trips, [2, 0])
    np.testing.assert_allclose(found.occupation, [[0.5, 0.5], [1, 0]])
    by_function = mixing(tree(hopping(labels)), lambda x: (x[..., 0] > 0).astype(int))
    np.testing.assert_array_equal(by_function.round_trips, [2, 0])


def test_jitter_on_the_ridge_is_no_travel():
    rng = np.random.default_rng(1)
    x = np.stack([0.1 * rng.normal(size=(2, 500)) - 0.05, rng.normal(size=(2, 500))], axis=-1)
    x[:, 0, 0] = -1.0
    assert mixing(tree(x), WELLS).round_trips.sum() == 0


def test_faults_are_named():
    stuck = hopping(np.repeat([[0], [0], [1], [1]], 1000, axis=1))
    found = mixing(tree(stuck))
    assert not found.mixed
    assert "R-hat of params[0] is" in found.verdict
    walk = np.cumsum(np.random.default_rng(3).normal(size=(4, 300, 1)), axis=1)
    assert not mixing(tree(walk)).mixed
    short = np.random.default_rng(3).normal(size=(4, 60, 1))
    assert "effective sample size of params[0]" in mixing(tree(short)).verdict
    assert not mixing(tree(short[:, :2])).mixed
    # R-hat cannot see the well that no chain has found.
    missed = mixing(tree(hopping(np.zeros((4, 1000), int))), WELLS)
    assert missed.variables["rhat"].max() < 1.01
    assert missed.verdict == (
        "the chains have not mixed: 1 of 2 wells visited, 0 round trips a chain"
    )
    frozen = mixing(tree(np.zeros((4, 100, 1))))
    assert frozen.verdict == "the chains have not mixed: no chain has moved"


def test_sample_warns():
    law = Gibbs(quartic_wells(), 0.01)  # barrier of 25 T
    settings = {"warmup": 200, "draws": 600, "seed": 0, "progress": False}
    with pytest.warns(MixingWarning, match="the chains have not mixed: R-hat of params"):
        draws = sample(law, MALA(), starts="wells", **settings)
    wells = find_wells(law, seed=0)
    np.testing.assert_allclose(np.sort(wells[:, 0]), [-1.0, 1.0], atol=1e-4)
    # Kept with the draws, for comparisons.
    np.testing.assert_array_equal(json.loads(draws.attrs["wells"]), wells)
    assert "round trips" not in mixing(draws).verdict
    assert mixing(draws, wells).round_trips.sum() == 0


def test_wells_of_a_valley_come_with_the_deepest_first():
    # k(−1) = 1 and k(1) = 9 do not change the height of the minima, weight decay does not either.
    wells = find_wells(Gibbs(valley_wells(), 0.1), seed=1)
    np.testing.assert_allclose(wells[np.argsort(wells[:, 0])], WELLS, atol=1e-4)


@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_named():
    with pytest.raises(ValueError, match="draws must have a group posterior"):
        mixing(xr.DataTree())
    with pytest.raises(ValueError, match=r"wells must have shape \(wells, 2\)"):
        mixing(tree(np.random.default_rng(0).normal(size=(2, 50, 2))), np.zeros((2, 3)))
    for settings, message in (
        ({"seed": 0, "attempts": 0}, "attempts must be at least 1"),
        ({"seed": 0, "reach": -1.0}, "reach must be positive"),
    ):
        with pytest.raises(ValueError, match=message):
            find_wells(Gibbs(valley_wells(), 0.1), **settings)


def test_a_frozen_chain_is_told_by_its_acceptance():
    rng = np.random.default_rng(0)
    draws = tree(rng.normal(size=(4, 1000, 2)))
    rates = np.full((4, 1000), 0.6)
    rates[2] = 0.02
    draws["sample_stats"] = xr.Dataset({"acceptance_rate": (("chain", "draw"), rates)})
    found = mixing(draws)
    assert not found.mixed
    assert "a chain accepts 2.0% of its steps" in found.verdict
