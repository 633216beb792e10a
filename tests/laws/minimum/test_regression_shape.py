"""Skewness and kurtosis of regression: enumerated batches, quadrature and real runs."""

import itertools

import numpy as np
import pytest
from scipy import stats
from scipy.integrate import quad
from scipy.optimize import brentq

from statsgd import SGD, ImproperLawError, noise, problems, simulate
from statsgd.laws import LinearRegressionGaussian
from statsgd.laws.minimum import gaussian_regression_kurtosis, regression_shape

INPUTS, TARGETS = np.array([[1.0], [2.0], [-0.5], [1.5]]), np.array([1.0, 1.0, 2.0, 5.0])


@pytest.mark.parametrize(
    ("sampling", "size"),
    [("with_replacement", size) for size in (1, 2, 3, 5)]
    + [("without_replacement", size) for size in (1, 2, 3)],
)
def test_one_parameter_by_enumeration_of_all_batches(sampling, size):
    # θ ← fθ + g over every batch; moments of the fixed point of E(fθ + g)^k, k = 1 … 4.
    if sampling == "with_replacement":
        batches = itertools.product(range(4), repeat=size)
    else:
        batches = itertools.combinations(range(4), size)
    eta, decay = 0.2, 0.1
    x, y = INPUTS[:, 0], TARGETS
    chosen = [list(batch) for batch in batches]
    f = np.array([1 - eta * (np.mean(x[b] ** 2) + decay) for b in chosen])
    g = np.array([eta * np.mean(x[b] * y[b]) for b in chosen])
    raw = [1.0]
    for k in range(1, 5):
        ways = [1, k, k * (k - 1) / 2, k * (k - 1) * (k - 2) / 6, 1]
        lower = sum(ways[j] * np.mean(f ** (k - j) * g**j) * raw[k - j] for j in range(1, k))
        raw.append((lower + np.mean(g**k)) / (1 - np.mean(f**k)))
    variance = raw[2] - raw[1] ** 2
    third = raw[3] - 3 * raw[1] * raw[2] + 2 * raw[1] ** 3
    fourth = raw[4] - 4 * raw[1] * raw[3] + 6 * raw[1] ** 2 * raw[2] - 3 * raw[1] ** 4
    problem = problems.linear_regression(INPUTS, TARGETS)
    shape = regression_shape(problem, SGD(eta, noise.Minibatch(size, sampling), 0.0, decay))
    assert shape.skewness[0] == pytest.approx(third / variance**1.5, rel=1e-8)
    assert shape.excess_kurtosis[0] == pytest.approx(fourth / variance**2 - 3, rel=1e-8)


@pytest.mark.parametrize(
    ("targets", "size"), [(TARGETS, 4), (2 * INPUTS[:, 0], 1)], ids=["full batch", "no residuals"]
)
def test_what_does_not_move_has_no_shape(targets, size):
    sgd = SGD(0.2, noise.Minibatch(size, "without_replacement"))
    shape = regression_shape(problems.linear_regression(INPUTS, targets), sgd)
    assert np.isnan(shape.skewness[0])
    assert np.isnan(shape.excess_kurtosis[0])


@pytest.mark.parametrize("beta", [0.0, 0.6])
def test_two_parameters_by_iterating_over_the_batches(beta):
    # E s⊗s⊗s⊗s of s = (θ, m, 1), taken through every pair of examples until it stays.
    inputs = np.array([[1, 0], [0, 1], [1, 1], [2, -1]])
    targets = np.array([1.0, -1.0, 2.0, 0.5])
    eta, eye = 0.25, np.eye(2)
    steps = []
    for pair in itertools.combinations(range(4), 2):
        x, y = inputs[list(pair)], targets[list(pair)]
        h, b = x.T @ x / 2, x.T @ y / 2
        steps.append(
            np.block([
                [eye - eta * h, -eta * beta * eye, eta * b[:, None]],
                [h, beta * eye, -b[:, None]],
                [np.zeros((1, 4)), np.ones((1, 1))],
            ])
        )  # fmt: skip
    moments = np.zeros((5,) * 4)
    moments[-1, -1, -1, -1] = 1.0
    for _ in range(400):
        images = [
            np.einsum("ai,bj,ck,dl,ijkl->abcd", s, s, s, s, moments, optimize=True) for s in steps
        ]
        moments = np.mean(images, axis=0)
    mean = moments[:2, -1, -1, -1]
    problem = problems.linear_regression(inputs, targets)
    shape = regression_shape(problem, SGD(eta, noise.Minibatch(2, "without_replacement"), beta))
    for i in range(2):
        raw = [moments[(i,) * k + (-1,) * (4 - k)] for k in range(5)]
        variance = raw[2] - mean[i] ** 2
        third = raw[3] - 3 * mean[i] * raw[2] + 2 * mean[i] ** 3
        fourth = raw[4] - 4 * mean[i] * raw[3] + 6 * mean[i] ** 2 * raw[2] - 3 * mean[i] ** 4
        assert shape.skewness[i] == pytest.approx(third / variance**1.5, rel=1e-6)
        assert shape.excess_kurtosis[i] == pytest.approx(fourth / variance**2 - 3, rel=1e-6)


def test_large_batches_drawn_with_replacement_are_nearly_gaussian():
    sgd = SGD(0.2, noise.Minibatch(10_000))
    shape = regression_shape(problems.linear_regression(INPUTS, TARGETS), sgd)
    assert np.abs(shape.skewness[0]) < 0.02
    assert np.abs(shape.excess_kurtosis[0]) < 1e-3


@pytest.mark.slow
def test_kurtosis_of_real_runs():
    # 40 000 endpoints: √(96/n) = 5 % if they were normal, against a kurtosis of order one.
    problem = problems.linear_regression(INPUTS, TARGETS)
    sgd = SGD(0.2, noise.Minibatch(1))
    tree = simulate(problem, sgd, steps=60, replicas=40_000, seed=4, progress=False)
    ends = tree["endpoints"]["params"].values[:, 0].astype(np.float64)
    law = LinearRegressionGaussian.from_sgd(problem, sgd)
    standard = (ends - law.mean()[0]) / law.covariance()[0, 0] ** 0.5
    shape = regression_shape(problem, sgd)
    for power, expected in ((3, shape.skewness[0]), (4, 3 + shape.excess_kurtosis[0])):
        values = standard**power
        error = values.std() / np.sqrt(len(values))
        assert abs(values.mean() - expected) < 4 * error


@pytest.mark.parametrize(
    ("size", "eta"), [(1, 0.383451), (4, 0.926089)], ids=["one example", "four examples"]
)
def test_fourth_moments_of_gaussian_inputs_end_where_the_tail_index_is_four(size, eta):
    assert np.isfinite(gaussian_regression_kurtosis(0.9999 * eta, size))
    with pytest.raises(ImproperLawError, match="the fourth moment of SGD is infinite"):
        gaussian_regression_kurtosis(1.0001 * eta, size)


@pytest.mark.parametrize(("eta", "size"), [(0.1, 1), (0.3, 2), (0.8, 6)])
def test_gaussian_inputs_by_quadrature(eta, size):
    # E over u ~ χ²_S of (1 − ηu/S)^a u^b, in r = √u.
    def mean(power, times):
        def integrand(r):
            u = r * r
            return (1 - eta * u / size) ** power * u**times * stats.chi2.pdf(u, size) * 2 * r

        return quad(integrand, 0, 12, epsabs=1e-13, limit=200)[0]

    push = (eta / size) ** 2
    square = push * mean(0, 1) / (1 - mean(2, 0))
    fourth = (6 * push * mean(2, 1) * square + 3 * push**2 * mean(0, 2)) / (1 - mean(4, 0))
    assert gaussian_regression_kurtosis(eta, size) == pytest.approx(fourth / square**2 - 3)


def test_tails_are_not_always_heavier_than_gaussian():
    # Inputs 1, targets ±1: θ is a sum of ±η(1−η)^k, of cumulants κ₄/κ₂² = −2(1−r²)²/(1−r⁴).
    problem = problems.linear_regression(np.ones((2, 1)), np.array([1.0, -1.0]))
    for eta in (0.05, 0.3):
        shape = regression_shape(problem, SGD(eta, noise.Minibatch(1)))
        square = (1 - eta) ** 2
        expected = -2 * (1 - square) ** 2 / (1 - square**2)
        assert shape.excess_kurtosis[0] == pytest.approx(expected, rel=1e-8)
        assert shape.skewness[0] == pytest.approx(0, abs=1e-9)


def test_refusals():
    wells = problems.landscape(lambda x: x @ x, np.zeros(1))
    with pytest.raises(ValueError, match="for linear_regression problems, got Landscape"):
        regression_shape(wells, SGD(0.1, noise.Isotropic(1.0)))
    problem = problems.linear_regression(INPUTS, TARGETS)
    with pytest.raises(ValueError, match=r"i\.i\.d\. Minibatch noise"):
        regression_shape(problem, SGD(0.1, noise.Isotropic(1.0)))
    wide = problems.linear_regression(np.eye(4), np.ones(4))
    with pytest.raises(ValueError, match="9⁴ fourth moments"):
        regression_shape(wide, SGD(0.1, noise.Minibatch(1), 0.5))
    # E(1 − ηx²)⁴ = 1 at the root of a cubic.
    powers = [np.mean(INPUTS[:, 0] ** (2 * k)) for k in range(5)]
    edge = brentq(
        lambda e: 6 * powers[2] * e - 4 * powers[1] - 4 * powers[3] * e**2 + powers[4] * e**3,
        0.1,
        1,
    )
    regression_shape(problem, SGD(0.999 * edge, noise.Minibatch(1)))
    with pytest.raises(ImproperLawError, match="they grow by 1"):
        regression_shape(problem, SGD(1.001 * edge, noise.Minibatch(1)))
