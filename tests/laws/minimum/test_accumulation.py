"""Optimisers that average the gradients of several steps have the law of their updates."""

import numpy as np
import optax
import pytest

import statsgd
from statsgd import SGD, OptaxDynamics, noise, problems
from statsgd.laws import AdaptiveGaussian, LinearOptimiserGaussian, applicable
from statsgd.laws.minimum import Adam

BOWL = problems.quadratic(np.diag([2.0, 0.5]))
KICKS = noise.Isotropic(1.0)
INPUTS = [[1, 0], [0, 1], [1, 1], [2, -1], [-1, 0.5], [0.5, 2]]
DATA = problems.linear_regression(np.array(INPUTS), np.array([1, -1, 0.5, 2, 0, -1.5]))


def law(transformation, problem=BOWL, kicks=KICKS):
    return LinearOptimiserGaussian.from_dynamics(problem, OptaxDynamics(transformation, kicks))


@pytest.mark.parametrize(
    "transformation",
    [
        optax.MultiSteps(optax.sgd(0.1, 0.9), 4),
        optax.MultiSteps(optax.sgd(0.1, 0.9), 4).gradient_transformation(),
        optax.MultiSteps(optax.sgd(0.025, 0.9), 4, use_grad_mean=False),
    ],
)
def test_constant_noise_is_divided(transformation):
    found = law(transformation)
    plain = LinearOptimiserGaussian.from_dynamics(BOWL, SGD(0.1, noise.Isotropic(0.25), 0.9))
    assert found.steps_per_update == 4
    np.testing.assert_allclose(found.covariance(), plain.covariance(), rtol=1e-6)
    means = [each.after(7, mean=[1.0, 1.0]).mean() for each in (found, plain)]
    np.testing.assert_allclose(*means, rtol=1e-6)
    averages = [each.average(length=20).covariance() for each in (found, plain)]
    np.testing.assert_allclose(*averages, rtol=1e-6)


@pytest.mark.parametrize("sampling", ["with_replacement", "reshuffle"])
def test_batches_become_one(sampling):
    found = law(optax.MultiSteps(optax.sgd(0.1, 0.5), 3), DATA, noise.Minibatch(1, sampling))
    one = LinearOptimiserGaussian.from_dynamics(DATA, SGD(0.1, noise.Minibatch(3, sampling), 0.5))
    np.testing.assert_allclose(found.covariance(), one.covariance(), rtol=1e-6)
    assert found.num_batches == one.num_batches


def test_adam_sees_the_mean_gradient():
    dynamics = OptaxDynamics(optax.MultiSteps(optax.adam(0.1), 4), KICKS)
    found = AdaptiveGaussian.from_dynamics(BOWL, dynamics)
    plain = AdaptiveGaussian(np.diag([2.0, 0.5]), np.eye(2) / 4, Adam(0.1, dimension=2))
    assert found.steps_per_update == 4
    np.testing.assert_allclose(found.covariance(), plain.covariance(), rtol=1e-6)


def test_simulation_at_every_step():
    # 4 standard errors of a variance over 2·10⁴ runs: .04. Updates are at 198 and 201.
    dynamics = OptaxDynamics(optax.MultiSteps(optax.sgd(0.2, 0.5), 3), KICKS)
    run = statsgd.simulate(
        BOWL, dynamics, steps=201, replicas=20_000, seed=2, keep=[198, 199, 200, 201],
        progress=False,
    )  # fmt: skip
    params = run["snapshots"].params.values
    wide = np.diag(LinearOptimiserGaussian.from_dynamics(BOWL, dynamics).covariance())
    ratio = params.var(axis=0, ddof=1) / wide
    assert np.all(np.abs(ratio - 1) < 4 * np.sqrt(2 / 20_000))
    np.testing.assert_array_equal(params[:, 1], params[:, 0])
    np.testing.assert_array_equal(params[:, 2], params[:, 0])
    assert not np.any(params[:, 3] == params[:, 0])


@pytest.mark.parametrize(
    ("transformation", "why"),
    [
        (optax.MultiSteps(optax.sgd(0.1), lambda n: 2 + n % 2), r"the same number .* got \[2, 3\]"),
        (
            optax.chain(
                optax.trace(0.9), optax.MultiSteps(optax.sgd(0.1), 3).gradient_transformation()
            ),
            "no more than add gradients up between its updates",
        ),
        (optax.MultiSteps(optax.sgd(0.1), 5000), "must update within 4096 steps"),
    ],
)
def test_what_is_no_plain_accumulation_is_refused(transformation, why):
    with pytest.raises(ValueError, match=why):
        law(transformation)


def test_shuffled_epochs_must_hold_whole_updates():
    with pytest.raises(ValueError, match=r"a divisor of the 6 batches of an epoch .* got 4"):
        law(optax.MultiSteps(optax.sgd(0.1), 4), DATA, noise.Minibatch(1, "reshuffle"))


def test_applicable_speaks_about_it():
    dynamics = OptaxDynamics(optax.MultiSteps(optax.sgd(0.1), 4), KICKS)
    table = applicable(BOWL, dynamics, progress=False).set_index("law")
    assert list(table.index[table.applies]) == ["LinearOptimiserGaussian"]
