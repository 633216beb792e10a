"""SGWORLD: its stationary variance at epoch ends, and its epochs."""

import itertools

import jax
import numpy as np
import pytest

from statsgd.dynamics.noise import Minibatch
from statsgd.kernels import SGWORLD, sgld_variance, sgworld_variance
from statsgd.problems import empirical_risk
from tests.kernels.stochastic import mean_problem, normal_scores, plate_model, walk
from tests.statistical import assert_printed, assert_variance_within

CHAINS = 20000


def variance(epsilon, noise_ratio, batches):
    """V·h = [2ε s₂ + ε²(C'/h)(s₂ − s₁²/M)]/(1 − r^(2M))."""
    powers = (1 - epsilon) ** np.arange(batches)
    first, second = powers.sum(), np.sum(powers**2)
    gain = epsilon**2 * noise_ratio * (second - first**2 / batches)
    return (2 * epsilon * second + gain) / (1 - (1 - epsilon) ** (2 * batches))


# V·h − 1 for C' = hM.
TABLE = [(20, 0.01, ".00536131"), (20, 0.1, ".32205914"), (5, 0.1, ".05831536")]


@pytest.mark.parametrize(
    ("batches", "epsilon", "printed"),
    [pytest.param(*row, marks=pytest.mark.slow) if row != TABLE[2] else row for row in TABLE],
)
def test_variance_at_epoch_ends(batches, epsilon, printed):
    assert_printed(variance(epsilon, batches, batches) - 1, printed)
    # Data of unbiased variance s² = 1: C' = N² s²/(s⁴S) = hM.
    number = 20 if batches == 20 else 10
    problem = mean_problem(normal_scores(number, 1))
    noise = Minibatch(number // batches, "reshuffle")
    kernel = SGWORLD.from_problem(problem, noise, step_size=epsilon / number)
    start = np.random.default_rng(1).standard_normal(CHAINS) / np.sqrt(number)
    end = walk(kernel, {"x": start}, int(4 / epsilon) // batches)
    assert_variance_within(end.z["x"], (1 + float(printed)) / number)
    assert np.all(end.core.estimate.step == int(4 / epsilon) // batches * batches)


def test_variance_is_where_an_epoch_keeps_it():
    # All orders of three batches whose noise sums to zero: θ ← (1 − hλ)θ − hv + √(2hT)ζ.
    h, curvature, temperature = 0.4, 1.5, 0.7
    noise = np.array([1.0, -3.0, 2.0])
    kept = (1 - h * curvature) ** np.arange(3)[::-1]
    pushes = [-h * kept @ noise[list(order)] for order in itertools.permutations(range(3))]
    value = sgworld_variance(h, curvature, 3, np.mean(noise**2), temperature)
    thermal = 2 * h * temperature * np.sum(kept**2)
    after = (1 - h * curvature) ** 6 * value + np.mean(np.square(pushes)) + thermal
    assert after == pytest.approx(value, rel=1e-12)
    # The printed ones: C' = hM and C' = MC/(M−1).
    for batches, epsilon, printed in TABLE:
        assert_printed(sgworld_variance(epsilon, 1.0, batches, batches - 1.0) - 1, printed)


def test_an_epoch_of_one_batch_is_a_langevin_step():
    value = sgworld_variance(0.4, 1.5, 1, temperature=0.7)
    assert value == pytest.approx(sgld_variance(0.4, 1.5, temperature=0.7), rel=1e-12)
    with pytest.raises(ValueError, match="batches must be at least 2"):
        sgworld_variance(0.4, 1.5, 1, 1.0)


@pytest.mark.slow
def test_an_epoch_uses_every_example_once():
    # With a loss −y·x and next to no injected noise the move of an epoch is h·(N/S)·Σ y for every
    # order; were an example left out or used twice, it would be another.
    data = np.arange(1.0, 13.0)
    problem = empirical_risk(lambda p, y: -y * p["x"], data, {"x": np.zeros(())})
    kernel = SGWORLD.from_problem(
        problem, Minibatch(3, "reshuffle"), step_size=0.01, temperature=1e-12
    )
    end = walk(kernel, {"x": np.zeros(50)}, 5)
    np.testing.assert_allclose(end.z["x"], 5 * 0.01 * 4 * data.sum(), rtol=1e-5)


@pytest.mark.slow
def test_epochs_of_a_model_and_their_memory():
    def begun(number):
        kernel = SGWORLD(plate_model)
        data = np.zeros(number)
        state = kernel.init(jax.random.key(0), 0, None, (data, 10), {})
        return kernel._potential((data, 10), {}), state

    potential, state = begun(100)
    order = state.core.estimate.order
    batches = [potential.batch(order, step)["data"] for step in np.arange(20)]
    first, second = np.concatenate(batches[:10]), np.concatenate(batches[10:])
    assert potential.batches == 10
    assert np.array_equal(np.sort(first), np.arange(100))
    assert np.array_equal(np.sort(second), np.arange(100))
    assert not np.array_equal(first, second)
    # A chain carries nothing of the size of the data.
    sizes = [[leaf.size for leaf in jax.tree.leaves(one)] for one in (state, begun(1000)[1])]
    assert sizes[0] == sizes[1]


@pytest.mark.usefixtures("unchecked")
def test_bad_settings_are_named():
    problem = mean_problem(normal_scores(10, 0))
    with pytest.raises(ValueError, match=r"noise.sampling must be 'reshuffle'"):
        SGWORLD.from_problem(problem, Minibatch(2))
    with pytest.raises(ValueError, match="batch_size must divide num_examples"):
        SGWORLD.from_problem(problem, Minibatch(3, "reshuffle"))
    with pytest.raises(ValueError, match="sampling must be left out"):
        SGWORLD(sampling="with_replacement")
