import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose

from statsgd.dynamics.noise import Minibatch, noise_covariance
from statsgd.problems import hessian, minimise
from statsgd.problems.landscapes import (
    kinked_wells,
    quadratic,
    quartic_wells,
    shifted_tilted_quartic,
    smooth_wells,
    tilted_quartic,
    valley_wells,
)


def curvature(problem, *point):
    return hessian(problem, np.array(point))


def test_smooth_wells_have_equal_heights_and_the_stated_curvatures():
    problem = smooth_wells(2.0)
    for x, h in ((0.0, 1.0), (1.0, 9.0)):  # curvatures 1 and (1+a)²
        assert float(problem.loss(np.array([x]))) == 0
        assert_allclose(curvature(problem, x), [[h]])
    saddle = 0.6585913  # root of d/dx [x(1−x)(1+2x²)] = 1 − 2x + 6x² − 8x³
    assert_allclose(1 - 2 * saddle + 6 * saddle**2 - 8 * saddle**3, 0, atol=1e-6)
    assert_allclose(float(problem.loss(np.array([saddle]))), 0.0881587, atol=5.1e-8)
    assert_allclose(curvature(problem, saddle), [[-1.892382]], rtol=1e-6)


def test_valley_wells_have_the_stated_curvatures():
    problem = valley_wells()
    assert_allclose(curvature(problem, -1.0, 0.0), np.diag([2.0, 1.0]), atol=1e-12)
    assert_allclose(curvature(problem, 1.0, 0.0), np.diag([2.0, 9.0]), atol=1e-12)
    assert_allclose(curvature(problem, 0.0, 0.0), np.diag([-1.0, 5.0]), atol=1e-12)


def test_kinked_wells_are_cut_at_the_height_where_they_meet():
    problem = kinked_wells(1.0, 9.0)
    split = 0.5  # (√h_s − √h_f)/(√h_s + √h_f)
    assert_allclose(float(problem.loss(np.array([split]))), 0.5 * 1.5**2, rtol=1e-6)
    assert_allclose(float(kinked_wells(1.0, 9.0, 0.05).loss(np.array([-1.0]))), 0.05, rtol=1e-6)


def test_quartic_wells():
    problem = quartic_wells()
    assert_allclose(curvature(problem, 1.0), [[2.0]])
    assert_allclose(float(problem.loss(np.array([1.0]))), -0.25)


@pytest.mark.parametrize(
    ("start", "place", "loss", "h"),
    [
        (-2.9, -2.9035340278, -39.1661657038, 34.5830591),
        (2.7, 2.7468027710, -25.0294466553, 29.2695527763),
    ],
)
def test_minima_of_the_tilted_quartic(start, place, loss, h):
    minimum = minimise(tilted_quartic(start))
    assert_allclose(minimum.params, [place], rtol=1e-9)
    assert_allclose(minimum.loss, loss, rtol=1e-9)
    assert_allclose(curvature(tilted_quartic(), place), [[h]], rtol=2e-7)


def test_shifted_quartic_has_the_stated_mean_and_noise():
    s, theta = 0.5, -2.0
    problem = shifted_tilted_quartic(s)
    params = np.array([theta])
    shifts = s * np.asarray(jax.random.normal(jax.random.key(1), (200_000,)), dtype=float)
    x = theta - shifts
    losses = 0.5 * (x**4 - 16 * x**2 + 5 * x)
    error = losses.std() / np.sqrt(len(x))
    assert abs(losses.mean() - float(problem.loss(params))) < 4 * error
    # s²(6θ²+6s²−16)² + 72θ²s⁴ + 24s⁶; kurtosis about 4 makes 4σ of 4096 draws about 12 %.
    variance = s**2 * (6 * theta**2 + 6 * s**2 - 16) ** 2 + 72 * theta**2 * s**4 + 24 * s**6
    measured = noise_covariance(problem, params, Minibatch(1, "fresh"))
    assert_allclose(measured, [[variance]], rtol=0.12)
    slopes = 2 * x**3 - 16 * x + 2.5
    assert_allclose(slopes.var(), variance, rtol=4 * np.sqrt(3.5 / len(x)))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: smooth_wells(-1.0), "asymmetry must be non-negative"),
        (lambda: valley_wells(1.0, 80.0), "flat and sharp must differ by a factor below 55"),
        (lambda: kinked_wells(0.0), "flat must be positive"),
        (lambda: quadratic(np.eye(2), [1.0]), r"minimiser must have shape \(2,\)"),
        (lambda: shifted_tilted_quartic(0.0), "shift_std must be positive"),
    ],
)
def test_bad_arguments_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize(
    "function", [lambda p, at: p.loss(at), lambda p, at: p.flatten(at), hessian]
)
def test_params_of_another_shape_are_named(function):
    problem = quadratic(np.eye(2))
    with pytest.raises(ValueError, match=r"leaves of shapes \[\(2,\)\], got \[\(3,\)\]"):
        function(problem, np.zeros(3))
    one = quartic_wells()
    assert_allclose(function(one, 0.5), function(one, np.array([0.5])), rtol=1e-12)
