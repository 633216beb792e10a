"""Two basins in the plane: known masses, and escapes of SGD under noise of several shapes."""

import jax
import numpy as np
import pytest
from scipy import integrate
from scipy.stats import norm

from statsgd import SGD, noise, problems, simulate
from statsgd.laws import AnisotropicQuadraticLaw, TwoBasinGibbs
from statsgd.laws.gibbs import leave_probability
from statsgd.problems import hessian
from tests.statistical import assert_printed

RATE = 0.005
SHARP = np.array([[110.0, 90.0], [90.0, 110.0]])


def succeeded(w):
    return (w[0] < -0.5) & (w[1] < -0.5)


@pytest.mark.parametrize(
    ("temperature", "normalizer", "flat", "success", "loss"),
    [
        (0.5, "1.620469", "0.969347", "0.686163", "0.499999"),
        (1.0, "3.240630", "0.969356", "0.560316", "0.999353"),
    ],
)
def test_masses(temperature, normalizer, flat, success, loss):
    law = TwoBasinGibbs(temperature)
    assert_printed(np.exp(law.log_normalizer()), normalizer)
    assert law.flat_probability() == pytest.approx(float(flat), abs=2e-5)
    # To a row of the quadrature's cells, which the edge of the region cuts.
    assert law.expectation(succeeded) == pytest.approx(float(success), abs=2.5e-3)

    draws = np.asarray(law.draw(jax.random.key(0), (20_000,)))
    losses = np.asarray(jax.vmap(law.potential)(draws)) * temperature
    error = losses.std() / np.sqrt(len(losses))
    assert abs(losses.mean() - float(loss)) < 4 * error
    share = succeeded(draws.T).mean()
    assert abs(share - float(success)) < 4 * np.sqrt(share * (1 - share) / len(draws))


@pytest.mark.parametrize(
    ("temperature", "success"), [(0.25, 0.822866), (0.5, 0.686163), (1.0, 0.560316)]
)
def test_expectations_of_indicators_state_their_error(temperature, success):
    law = TwoBasinGibbs(temperature)
    found = law.expectation_estimate(succeeded)
    assert abs(found.value - success) < found.standard_error < 2e-4


@pytest.mark.parametrize(("temperature", "normalizer"), [(0.5, 1.620469), (1.0, 3.240630)])
def test_expectations_where_one_parabola_is_alone(temperature, normalizer):
    # At w₁ < −½ the sharp parabola is higher by far: the density there is a normal one.
    law = TwoBasinGibbs(temperature)
    share = np.pi * temperature / normalizer
    expected = norm.cdf(0.5 / np.sqrt(temperature / 2)) * share
    found = law.expectation_estimate(left)
    assert abs(found.value - expected) < found.standard_error < 2e-4


def left(w):
    return w[0] < -0.5


def test_curvatures():
    problem = problems.two_basins(spread=0.0, num_points=1)
    np.testing.assert_allclose(hessian(problem, np.ones(2)), SHARP, rtol=1e-6)
    np.testing.assert_allclose(hessian(problem, -np.ones(2)), 2 * np.eye(2), rtol=1e-6)


@pytest.mark.parametrize(
    ("variances", "trace", "climb", "leave", "within_100"),
    [
        ((0.005, 0.005), "1.1", ".763158", ".09232", ".01900"),
        ((0.01 / 11, 0.1 / 11), "1.836364", ".956938", ".87072", ".33610"),
        ((0.0, 0.01), "2.0", "1.0", ".94788", ".44680"),
    ],
)
def test_leaving_the_sharp_basin(variances, trace, climb, leave, within_100):
    # Tr(HW), the chain's stationary height, and the survival iterated on a grid.
    u, v = variances
    assert_printed(20 * u + 200 * v, trace)
    law = AnisotropicQuadraticLaw(np.diag([20.0, 200.0]), np.diag([u, v]) / RATE**2, RATE)
    assert_printed(law.climb(), climb)
    assert_printed(leave_probability(u, v, 499), leave)
    assert_printed(leave_probability(u, v, 100), within_100)


@pytest.mark.parametrize(
    ("u", "v"), [(1.0, 1.0), (0.04, 1e-8), (0.01, 1e-12), (1e-4, 1e-4), (100.0, 1e-6)]
)
def test_leaving_in_one_step_is_the_mass_outside_an_ellipse(u, v):
    # 9u² + 99v² − 4√2 v = 8, in polar coordinates of the standardised noise: e^(−r²/2) at its rim.
    a, c = 9 * u, 99 * v
    b = 4 * np.sqrt(2 * v)

    def beyond(angle):
        across, along = np.sin(angle), np.cos(angle)
        square, linear = a * along**2 + c * across**2, b * across
        # The positive root, without cancellation.
        rim = 16 / (-linear + np.sqrt(linear**2 + 32 * square))
        return np.exp(-(rim**2) / 2) / (2 * np.pi)

    expected = integrate.quad(
        beyond,
        0,
        2 * np.pi,
        points=[0, np.pi / 2, np.pi, 3 * np.pi / 2],
        epsabs=0,
        epsrel=1e-9,
        limit=500,
    )[0]
    assert leave_probability(u, v, 1) == pytest.approx(expected, rel=1e-6)


def test_steps_that_are_short_along_u_are_independent_of_one_another():
    assert leave_probability(1e-12, 0.01, 100) == pytest.approx(
        leave_probability(0.0, 0.01, 100), rel=1e-9
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "success"), [("isotropic", 0.0206), ("hessian", 0.3165), ("top", 0.4646)]
)
def test_success_of_trace_matched_noise(shape, success):
    # Last iterate in w₁, w₂ < −.5 after 500 steps from the sharp minimum, point data.
    problem = problems.two_basins(spread=0.0, num_points=1)
    shaped = noise.TraceMatched(noise.Isotropic(1.0), shape, trace=0.01 / RATE**2)
    ends = simulate(problem, SGD(RATE, shaped), steps=500, replicas=8000, seed=4, progress=False)
    share = succeeded(ends["endpoints"]["params"].values.T).mean()
    error = np.sqrt(success * (1 - success) / 8000)
    assert abs(share - success) < 4 * np.hypot(error, 0.0015)


@pytest.mark.slow
def test_sgd_itself_never_leaves():
    # Its own steps have a trace 91 times smaller.
    problem = problems.two_basins()
    ends = simulate(
        problem, SGD(RATE, noise.Minibatch(1)), steps=500, replicas=2000, seed=5, progress=False
    )
    assert np.all(ends["endpoints"]["params"].values > 0)


def test_refusals():
    with pytest.raises(ValueError, match="temperature"):
        TwoBasinGibbs(0.0)
    with pytest.raises(ValueError, match="spread"):
        problems.two_basins(-1.0)
    with pytest.raises(ValueError, match="variance_v"):
        leave_probability(0.1, 0.0, 10)
