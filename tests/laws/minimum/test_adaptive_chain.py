"""Adaptive optimisers in one parameter as they run, against printed values and limits."""

import numpy as np
import optax
import pytest

from statsgd import OptaxDynamics, noise, problems
from statsgd.laws import AdaptiveGaussian
from statsgd.laws.grids import Grid
from statsgd.laws.minimum import Adam, ClippedOptimiser, LinearOptimiser, SignDescent


def mode(optimiser, minimum=None):
    return AdaptiveGaussian([[1.0]], [[1.0]], optimiser, minimum)


@pytest.mark.parametrize(
    ("rate", "printed"),
    [(0.05, 12.73045559), (0.2, 3.33334418), (0.5, 1.45826852), (1, 0.83840156), (2, 0.53538442)],
)
def test_sign_descent_is_its_birth_and_death_chain(rate, printed):
    # E x²/η² over offsets, by sums over the lattice.
    law = mode(SignDescent(rate)).refined()
    assert law.covariance()[0, 0] / rate**2 == pytest.approx(printed, rel=3e-4)
    assert law.mean()[0] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("rate", "decay", "simulated", "error"),
    [
        # 10⁵ chains each.
        pytest.param(0.1, 0.99, 0.051064, 0.000014, marks=pytest.mark.slow),
        pytest.param(0.1, 0.9, 0.049716, 0.000016, marks=pytest.mark.slow),
        pytest.param(1.0, 0.999, 0.640032, 0.000056, marks=pytest.mark.slow),
    ],
)
def test_running_second_moments(rate, decay, simulated, error):
    law = mode(Adam(rate, 0.0, decay, epsilon=0)).refined()
    found = law.covariance()[0, 0]
    assert abs(found - simulated) < 4 * error
    # The mean of v' = β₂v + (1−β₂)g² is that of g².
    second_moment = law.expectation(lambda state: np.e ** state[1])
    assert second_moment == pytest.approx(1 + found, rel=1e-3)


def test_small_steps_have_the_ratio_of_two_integrals():
    # ℛ(β₂) of the variance to η√c/(2h) as ηh/√c → 0, where it is off by O(ηh/√c).
    law = mode(Adam(0.02, 0.0, 0.9, epsilon=0)).refined()
    assert law.covariance()[0, 0] / 0.01 == pytest.approx(0.97203053, rel=5e-3)


def test_optimisers_of_optax_and_decay():
    bowl, kicks = problems.quadratic([[1.0]]), noise.Isotropic(1.0)
    root = OptaxDynamics(optax.rmsprop(0.5, decay=0.9, eps=1e-12), kicks)
    grid = Grid([-3.5, -3.0], [3.5, 3.0], [80, 40])
    found = AdaptiveGaussian.from_dynamics(bowl, root).refined(grid)
    ours = mode(Adam(0.5, 0.0, 0.9, epsilon=0)).refined(grid)
    np.testing.assert_allclose(found.covariance(), ours.covariance(), rtol=1e-4, atol=1e-9)


@pytest.mark.slow
def test_decoupled_decay_moves_the_mean():
    # θ* = 1, with the frozen mean off by O(1−β₂).
    law = mode(Adam(0.5, 0.0, 0.99, decoupled_weight_decay=0.5), [1.0])
    assert law.refined().mean()[0] == pytest.approx(law.mean()[0], rel=0.01)


@pytest.mark.parametrize(
    ("law", "why"),
    [
        (mode(Adam(0.1)), "must have no momentum for a chain on a grid"),
        (AdaptiveGaussian(np.eye(2), np.eye(2), SignDescent(0.1, 2)), "dimension must be 1"),
        (mode(Adam(0.1, 0.0, 0.3)), "second_moment_decay must be at least 0.5"),
        (mode(ClippedOptimiser(LinearOptimiser.sgd(0.1), 1.0)), "must not clip gradients"),
    ],
)
def test_refusals(law, why):
    with pytest.raises(ValueError, match=why):
        law.refined()
