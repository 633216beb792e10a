"""Mean-field Langevin dynamics: the study's headline numbers."""

import re

import numpy as np
import pytest

from studies import mean_field
from studies.particles import network, quadratic


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"particles": (4,)}, "particles must be at least two different numbers"),
        ({"widths": (4, 4)}, "widths must be at least two different numbers"),
        ({"widths": (1, 4)}, "widths must be at least 2, got 1"),
        ({"patients": 400}, "patients must be at most 300, got 400"),
        ({"margin": 0.0}, "margin must be positive"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        mean_field.Config(**settings)


def test_moments_split_the_variance():
    # Var X_i about the mean is that of the centre plus that within the cloud.
    x = np.random.default_rng(0).normal(1.0, size=(20, 30, 5))
    found = quadratic.moments(x, 0.4)
    whole = np.mean((x - 0.4) ** 2)
    np.testing.assert_allclose(found.marginal.value[0], whole)
    np.testing.assert_allclose(found.centre.value[0] + found.within.value[0], whole)


def test_power_of_a_power():
    x = np.array([2.0, 4, 8])
    exponent, error = network.power(x, 3 * x**-0.7, 0.01 * x**-0.7)
    np.testing.assert_allclose(exponent, -0.7)
    # Equal relative errors e: e over the root of the spread of ln x.
    np.testing.assert_allclose(error, 0.01 / 3 / np.sqrt(2 * np.log(2) ** 2))


def test_patients_to_test_on_are_not_learnt_from():
    seen, unseen = network.diabetes(300)
    assert seen.inputs.shape == (300, 11)
    assert unseen.inputs.shape == (142, 11)
    assert not set(map(tuple, seen.inputs)) & set(map(tuple, unseen.inputs))


def test_free_energy_claim():
    # λ, τ, y = 1, .1, .8 and .5, .2, .5: N·gap at N = 80 and its limit.
    claim = network.free_energy(0.05)
    assert claim.verdict == "holds within 5 %"
    numbers = {q.name: (q.measured, q.predicted) for q in claim.quantities}
    np.testing.assert_allclose(numbers["N × gap, N = 80, λ = 0.5, τ = 0.2"][0], 0.070056, atol=1e-6)
    np.testing.assert_allclose(numbers["N × gap, N = 80, λ = 1, τ = 0.1"][1], 0.022778, atol=1e-6)


@pytest.mark.slow
def test_quick_study():
    config = mean_field.Config.quick()
    results = mean_field.run(mean_field.Config(**vars(config) | {"progress": False}))
    # How small a difference is says the number: that it is below the margin is what is demanded.
    words = {name: part.attrs["verdict"] for name, part in results.children.items()}
    verdicts = {name: re.sub("^holds .*", "holds", word) for name, word in words.items()}
    assert verdicts == {
        "finitely many particles": "holds",
        "finite steps": "holds",
        "minibatches": "does not hold",
        "free energy": "holds",
        "real data": "holds",
    }

    def row(part, quantity):
        table = results[part]["table"].to_dataset().to_dataframe().set_index("quantity")
        return table.loc[quantity]

    # a, b, τ, η = 1, 4, .5, .05: N Var X̄ = τ/(a+b)/(1 − η(a+b)/2).
    centre = row("finitely many particles", "N Var X̄, N = 8")
    np.testing.assert_allclose(centre["predicted"], 0.1 / 0.875)
    assert abs(centre["measured"] - 0.1 / 0.875) < 4 * centre["standard_error"]
    shared = row("minibatches", "Var X̄ against the law, N = 64")
    assert abs(shared["measured"] - shared["predicted"]) < 4 * shared["standard_error"]
    balance = row("real data", "energy balance, N = 32")
    assert abs(balance["measured"] - 1) < 4 * balance["standard_error"]
    assert balance["standard_error"] < 0.03
