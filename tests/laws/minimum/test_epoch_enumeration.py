"""Reshuffled SGD on six examples: moments against orders run one by one, and laws against them."""

import itertools

import numpy as np
import pytest

from statsgd import SGD, ImproperLawError, noise, problems, simulate
from statsgd.laws import EpochNoiseGaussian, ReshuffledRegressionGaussian
from statsgd.laws.minimum import reshuffle_mean_shift
from tests.statistical import assert_mean_within, assert_printed, assert_variance_within

INPUTS = np.array([[1.0, 0], [0, 1], [1, 1], [2, -1], [-1, 0.5], [0.5, 2]])
TARGETS = np.array([1.0, -1, 0.5, 2, 0, -1.5])
SIX = problems.linear_regression(INPUTS, TARGETS)


def reshuffled(size, rate, momentum=0.0, decay=0.0):
    return SGD(rate, noise.Minibatch(size, "reshuffle"), momentum, decay)


def moments_by_running(number, size, rate, momentum, decay, steps):
    """Mean and covariance of (θ, m) `steps` steps into an epoch: every order is run by itself."""
    x, y = INPUTS[:number], TARGETS[:number]

    def epoch(state, order, steps):
        theta, buffer = state[:2], state[2:]
        for batch in np.reshape(order, (-1, size))[:steps]:
            residual = x[batch] @ theta - y[batch][:, None]
            gradient = x[batch].T @ residual / size + decay * theta
            buffer = momentum * buffer + gradient
            theta = theta - rate * buffer
        return np.concatenate([theta, buffer])

    starts = np.concatenate([np.eye(4), np.zeros((4, 1))], axis=1)

    def maps(steps):
        runs = [epoch(starts, order, steps) for order in itertools.permutations(range(number))]
        return [(run[:, :4] - run[:, 4:], run[:, 4]) for run in runs]

    def on_average(mean, second, maps):
        return (
            np.mean([a @ mean + b for a, b in maps], axis=0),
            np.mean(
                [
                    a @ second @ a.T + np.outer(a @ mean, b) + np.outer(b, a @ mean + b)
                    for a, b in maps
                ],
                axis=0,
            ),
        )

    mean, second, whole = np.zeros(4), np.zeros((4, 4)), maps(number // size)
    for _ in range(150):
        mean, second = on_average(mean, second, whole)
    if steps:
        mean, second = on_average(mean, second, maps(steps))
    return mean, second - np.outer(mean, mean)


@pytest.mark.parametrize(
    ("number", "size", "rate", "momentum", "decay", "steps"),
    [(4, 2, 0.2, 0.5, 0.1, 0), (4, 1, 0.2, 0.0, 0.0, 3), (4, 1, 0.1, 0.6, 0.2, 2)],
)
def test_moments_are_those_of_all_orders(number, size, rate, momentum, decay, steps):
    problem = problems.linear_regression(INPUTS[:number], TARGETS[:number])
    sgd = reshuffled(size, rate, momentum, decay)
    law = ReshuffledRegressionGaussian.from_sgd(problem, sgd, steps)
    mean, covariance = moments_by_running(number, size, rate, momentum, decay, steps)
    np.testing.assert_allclose(law.mean(), mean[:2], rtol=1e-6)
    np.testing.assert_allclose(law.mean("momentum_buffer"), mean[2:], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(law.joint, covariance, rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize(
    ("size", "rate", "mean", "covariance"),
    [
        (
            2,
            0.1,
            (".606328364", "-.722539886"),
            ("9.790897e-5", "-1.150805e-5", "7.688959e-5"),
        ),
        (
            1,
            0.05,
            (".606446200", "-.723981864"),
            ("9.793062e-5", "-6.969917e-6", "7.961099e-5"),
        ),
    ],
)
def test_known_moments_at_epoch_ends(size, rate, mean, covariance):
    law = ReshuffledRegressionGaussian.from_sgd(SIX, reshuffled(size, rate))
    for value, text in zip(law.mean(), mean, strict=True):
        assert_printed(value, text)
    for value, text in zip(law.covariance()[np.triu_indices(2)], covariance, strict=True):
        assert_printed(value, text)


def test_a_random_step_mixes_the_phases():
    sgd = reshuffled(2, 0.1, 0.5)
    phases = [ReshuffledRegressionGaussian.from_sgd(SIX, sgd, j) for j in range(3)]
    mixed = ReshuffledRegressionGaussian.from_sgd(SIX, sgd, "random")
    means = np.array([law.mean() for law in phases])
    np.testing.assert_allclose(mixed.mean(), means.mean(0), rtol=1e-12)
    inner = np.mean([law.covariance() for law in phases], axis=0)
    between = np.cov(means.T, ddof=0)
    np.testing.assert_allclose(mixed.covariance(), inner + between, rtol=1e-8)


@pytest.mark.parametrize(
    ("momentum", "phase", "order", "relative"),
    [
        # The error of the covariance is of third order in η everywhere; so is the covariance itself
        # at epoch ends without momentum, elsewhere it is of second order.
        (0.0, 0, 3, (0.22, 0.24)),
        (0.0, 1, 3, (0.0, 0.004)),
        (0.0, "random", 3, (0.0, 0.006)),
        (0.5, 0, 3, (0.0, 0.02)),
        (0.5, "random", 3, (0.0, 0.01)),
    ],
)
def test_constant_noise_is_off_by_the_third_order(momentum, phase, order, relative):
    at, errors = SIX.minimiser(0.0), []
    for rate in (0.0125, 0.00625):
        sgd = reshuffled(2, rate, momentum)
        exact = ReshuffledRegressionGaussian.from_sgd(SIX, sgd, phase).covariance()
        frozen = EpochNoiseGaussian.from_sgd(SIX, sgd, at, phase).covariance()
        errors.append(np.max(np.abs(exact - frozen)))
        share = errors[-1] / np.max(np.abs(exact))
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.08)
    assert relative[0] <= share <= relative[1]


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_mean_shift_is_off_by_the_second_order(momentum):
    at, errors = SIX.minimiser(0.0), []
    for rate in (0.0125, 0.00625):
        law = ReshuffledRegressionGaussian.from_sgd(SIX, reshuffled(2, rate, momentum))
        shift = reshuffle_mean_shift(SIX, at, rate, 2, momentum)
        errors.append(np.max(np.abs(law.mean() - at - shift)))
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.03)


def test_a_single_batch_does_not_fluctuate():
    law = ReshuffledRegressionGaussian.from_sgd(SIX, reshuffled(6, 0.1, 0.5, 0.1))
    np.testing.assert_allclose(law.mean(), SIX.minimiser(0.1), rtol=1e-12)
    np.testing.assert_allclose(law.joint, 0, atol=1e-15)


@pytest.mark.slow
def test_runs_follow_the_law():
    # 6000 runs: 4 standard errors of a variance are 7 %; constant noise would be 26 % off.
    sgd = reshuffled(2, 0.1)
    tree = simulate(SIX, sgd, steps=60, replicas=6000, seed=1, progress=False)
    ends = tree["endpoints"]["params"].values.astype(np.float64)
    law = ReshuffledRegressionGaussian.from_sgd(SIX, sgd)
    assert_variance_within(ends, np.diagonal(law.covariance()))
    assert_mean_within(ends - SIX.minimiser(0.0), law.mean() - SIX.minimiser(0.0), resolve=2.0)


@pytest.mark.usefixtures("unchecked")
def test_refusals():
    with pytest.raises(ImproperLawError, match="multiplies second moments by"):
        ReshuffledRegressionGaussian.from_sgd(SIX, reshuffled(2, 2.0)).mean()
    with pytest.raises(ValueError, match="sampled by 'reshuffle'"):
        ReshuffledRegressionGaussian.from_sgd(SIX, SGD(0.1, noise.Minibatch(2)))
    many = problems.linear_regression(np.ones((24, 1)), np.arange(24.0))
    with pytest.raises(ValueError, match=r"24 examples in batches of 2 .* more than can be"):
        ReshuffledRegressionGaussian.from_sgd(many, reshuffled(2, 0.1))
    with pytest.raises(ValueError, match="phase must be below num_batches = 3"):
        ReshuffledRegressionGaussian.from_sgd(SIX, reshuffled(2, 0.1), 3)
