"""Stability thresholds against known values, enumeration and simulated squares."""

import numpy as np
import pytest

from statsgd.measures import (
    fresh_mean_square_threshold,
    mean_square_growth,
    mean_square_threshold,
    momentum_mean_square_growth,
    stability_bounds,
)
from tests.statistical import assert_printed

ORTHOGONAL = np.diag(np.sqrt([1.0, 2.0, 3.0, 4.0]))
SCALAR = np.array([[1.0], [3.0]])
FEATURES = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0], [-1.0, 1.0]])


@pytest.mark.parametrize(
    ("gradients", "sampling", "size", "threshold", "bounds"),
    [
        (ORTHOGONAL, "with_replacement", 1, ".5", (".666667", ".8", "2.309401", "2")),
        (ORTHOGONAL, "with_replacement", 2, ".8", ("1.066667", "1.6", "3.265986", "2")),
        (ORTHOGONAL, "without_replacement", 2, "1.0", ("1.333333", "2.4", "4.0", "2")),
        (2 * np.eye(4), "with_replacement", 1, ".5", (".5", ".5", ".577350", "2")),
        (SCALAR, "with_replacement", 1, ".24390244", (".243902", ".4", ".25", ".4")),
        (SCALAR, "with_replacement", 2, ".30303030", (".303030", ".8", ".353553", ".4")),
        (FEATURES, "with_replacement", 1, ".64401005", (".72", ".888889", ".917663", "1.333333")),
        (
            FEATURES,
            "with_replacement",
            2,
            ".87363643",
            (".993103", "1.777778", "1.297771", "1.333333"),
        ),
    ],
)
def test_thresholds_and_bounds(gradients, sampling, size, threshold, bounds):
    found = mean_square_threshold(gradients, size, sampling)
    assert_printed(found, threshold)
    for value, text in zip(stability_bounds(gradients, size, sampling), bounds, strict=True):
        assert_printed(value, text)
        assert value > found - 1e-9
    # Growth is one exactly there.
    assert mean_square_growth(gradients, size, found, sampling) == pytest.approx(1, abs=1e-9)
    assert momentum_mean_square_growth(gradients, size, found, 0.0, sampling) == pytest.approx(1)


def test_growth():
    assert_printed(mean_square_growth(FEATURES, 1, 0.5), ".6875")
    # A scalar pair: E(1 − ηa²)² = 1.0625 at η = .25, though a typical run converges.
    assert mean_square_growth(SCALAR, 1, 0.25) == pytest.approx(1.0625)
    multipliers = 1 - 0.25 * SCALAR[:, 0] ** 2
    assert_printed(np.mean(np.log(np.abs(multipliers))), "-.0322693")


def test_orthogonal_features_with_batches_of_four():
    # min 2/(|a|²(b + (1−b)/N)): above 2/Tr G, the bound of single examples.
    found = mean_square_threshold(ORTHOGONAL, 4)
    assert_printed(found, "1.142857")
    assert found > 2 / np.trace(ORTHOGONAL.T @ ORTHOGONAL / 4)


@pytest.mark.parametrize("size", [1, 3])
def test_many_orthogonal_features(size):
    # min 2/(q(b + (1−b)/N)), in more dimensions than matrices of moments are formed for.
    squares = np.linspace(1, 2, 30)
    found = mean_square_threshold(np.diag(np.sqrt(squares)), size)
    assert found == pytest.approx(2 / (2 * (1 / size + (1 - 1 / size) / 30)), rel=1e-10)


def test_many_correlated_features_grow_as_their_moments():
    # One round of P → E[(I − ηaaᵀ)P(I − ηaaᵀ)] over all examples, iterated from the identity.
    features = np.random.default_rng(3).standard_normal((40, 25))
    eta = mean_square_threshold(features, 1)
    steps = np.eye(25) - eta * features[:, :, None] * features[:, None, :]
    moments = np.eye(25)
    for _ in range(3000):
        before = np.linalg.norm(moments)
        moments = np.mean(steps @ moments @ steps, axis=0) / before
    assert np.linalg.norm(moments) == pytest.approx(1, abs=1e-7)
    assert mean_square_growth(features, 1, 1.5 * eta) > 1


def test_full_batches_without_repeats_leave_the_full_batch_threshold():
    assert mean_square_threshold(FEATURES, 4, "without_replacement") == pytest.approx(4 / 3)
    assert stability_bounds(FEATURES, 4, "without_replacement").trace == np.inf


def test_momentum_lowers_the_threshold():
    # Scalar pair, β = .5: .20547945, against .24390244 without.
    assert momentum_mean_square_growth(SCALAR, 1, 0.20547945, 0.5) == pytest.approx(1, abs=1e-7)
    assert momentum_mean_square_growth(SCALAR, 1, 0.22, 0.5) > 1
    assert mean_square_growth(SCALAR, 1, 0.22) < 1


def test_fresh_gaussian_inputs():
    # 2S/(S + d + 1) for unit covariance.
    assert_printed(fresh_mean_square_threshold(np.ones(10), 1), ".16666667")
    assert fresh_mean_square_threshold(np.ones(5), 4) == pytest.approx(8 / 10)
    # Directions without inputs count for nothing.
    assert fresh_mean_square_threshold([0.0, 1.0, 1.0], 1) == pytest.approx(2 / 4)
    assert fresh_mean_square_threshold([0.0], 1) == np.inf


def test_chains_grow_in_mean_square_as_said():
    # Below the threshold, 2e5 chains of single examples: E ζ² after 12 steps to about 1 %.
    rng = np.random.default_rng(1)
    rate, steps, chains = 0.24, 12, 200_000
    chosen = rng.integers(0, 2, (steps, chains))
    squares = np.prod((1 - rate * SCALAR[chosen, 0] ** 2) ** 2, axis=0)
    expected = mean_square_growth(SCALAR, 1, rate) ** steps
    error = squares.std() / np.sqrt(chains)
    assert error < 0.01 * expected
    assert abs(squares.mean() - expected) < 4 * error


def test_refusals():
    with pytest.raises(ValueError, match="does not cover sampling='reshuffle'"):
        mean_square_threshold(FEATURES, 1, "reshuffle")
    with pytest.raises(ValueError, match="at most the number of rows 4"):
        mean_square_threshold(FEATURES, 5, "without_replacement")
    with pytest.raises(ValueError, match="must not all vanish"):
        mean_square_threshold(np.zeros((3, 2)), 1)
    with pytest.raises(ValueError, match="learning_rate"):
        mean_square_growth(FEATURES, 1, -0.1)
