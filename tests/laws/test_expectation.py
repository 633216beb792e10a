"""Expectations of any function: right within the error that they state, or refused by name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import multivariate_normal, norm

from statsgd.laws import (
    DiscreteChainLaw,
    FokkerPlanckLaw,
    Gibbs,
    IntractableError,
    TwoBasinGibbs,
    ValleyEntropyLaw,
)
from statsgd.laws.grids.grid import Grid
from statsgd.laws.law import UnresolvedWarning
from statsgd.problems import landscapes
from tests.laws.bases.random_wells import integrals
from tests.laws.examples import example

#: No knot or edge of a cell of anything.
EDGE = 0.12345


def below(params):
    return params[0] < EDGE


def bent(params):
    return jnp.abs(params[0] - EDGE)


def wave(params):
    return jnp.cos(params[0])


FUNCTIONS = {"jump": below, "kink": bent, "smooth": wave}


LINES = ("Gibbs", "TwoValleyLaw", "MeanFieldLimit", "ValleyEntropyLaw")


@pytest.mark.parametrize(
    ("law", "name"),
    [
        # All functions of one law, and those that jump of all.
        pytest.param(
            law, name, marks=[] if law == "Gibbs" or name == "jump" else [pytest.mark.slow]
        )
        for law in LINES
        for name in FUNCTIONS
    ],
)
def test_on_the_line_they_are_those_of_an_independent_rule(law, name):
    law, function = example(law, 1) or example(law), FUNCTIONS[name]
    low, high = (-np.pi, np.pi) if isinstance(law, ValleyEntropyLaw) else (-8.0, 8.0)
    breaks = np.union1d(np.linspace(low, high, 100), [0.0, EDGE])

    def at(x):
        return np.asarray(jax.vmap(function)(x.reshape(-1, 1)), np.float64).reshape(x.shape)

    with jax.enable_x64(True):
        over, whole = integrals(
            lambda x: law.log_density(x[..., None]), breaks, low, np.nextafter(high, 0)
        )
        expected = over(low, np.nextafter(high, 0), at) / whole
    found = law.expectation_estimate(function)
    assert found.value == law.expectation(function)
    # What the rule leaves, and the end of the support.
    assert abs(found.value - expected) < found.standard_error + 2e-9 < 1e-7


def test_a_network_is_seen_through_its_slope():
    law = example("DiagonalNetworkLaw")
    edge = float(law.quantile(0.37)[0])
    found = law.expectation_estimate(lambda f: f[0] < edge)
    assert abs(found.value - law.cdf(np.array([edge]))[0]) < found.standard_error + 1e-9


@pytest.mark.slow
def test_jumps_across_a_valley_are_followed():
    law = example("ValleyLaw")

    def corner(x):
        across = np.sqrt(law.conditional_variance(np.array(x))[0])
        return np.exp(law.log_marginal(np.array(x))) * norm.cdf(0.05 / across)

    expected = quad(corner, -np.pi, EDGE, epsabs=1e-10)[0]
    found = law.expectation_estimate(lambda p: (p[0] < EDGE) & (p[1] < 0.05))
    assert abs(found.value - expected) < found.standard_error < 2e-4
    # Smooth across, where Gauss's rule does better.
    second = law.expectation_estimate(lambda p: p[1] ** 2)
    assert abs(second.value - law.covariance()[1, 1]) < second.standard_error + 1e-10 < 1e-8


def test_cells_in_which_a_function_jumps_are_looked_into():
    covariance = np.diag([1.0, 2.0])
    law = FokkerPlanckLaw(
        lambda x: -x, covariance, 0.2, Grid([-2.0, -2.6], [2.0, 2.6], 150)
    )  # law N(0, ηC/2)
    truth = multivariate_normal(cov=0.1 * covariance)
    found = law.expectation_estimate(lambda x: (x[0] < EDGE) & (x[1] < 0.3 * EDGE))
    assert abs(found.value - truth.cdf([EDGE, 0.3 * EDGE])) < found.standard_error < 2e-3
    found = law.expectation_estimate(lambda x: x[0] + x[1] < EDGE)
    expected = norm.cdf(EDGE / np.sqrt(0.3))
    assert abs(found.value - expected) < found.standard_error < 2e-3
    square = law.expectation_estimate(lambda x: x[0] ** 2)
    assert abs(square.value - 0.1) < square.standard_error < 5e-4


def test_the_chain_on_cells():
    law = DiscreteChainLaw(lambda x: -x, [[0.25]], 0.1, Grid(-1.2, 1.2, 96))
    spread = np.sqrt(0.01 * 0.25 / (1 - 0.9**2))
    found = law.expectation_estimate(below)
    assert abs(found.value - norm.cdf(EDGE / spread)) < found.standard_error < 1e-3
    square = law.expectation_estimate(lambda x: x[0] ** 2)
    assert abs(square.value - spread**2) < square.standard_error + 1e-12 < 1e-6


@pytest.fixture(scope="module")
def normal():
    """The normal law of variance 0.3."""
    return Gibbs(landscapes.quadratic([[1.0]]), 0.3)


def test_what_knots_do_not_follow_is_refused(normal):
    def ragged(x):
        return jnp.sin(1e5 * x[0]) > 0

    found = normal.expectation_estimate(ragged)
    assert abs(found.value - 0.5) < found.standard_error
    with pytest.raises(IntractableError, match=r"does not resolve the expectation: off by"):
        normal.expectation(ragged)


def test_what_is_off_by_a_thousandth_warns():
    law = FokkerPlanckLaw(lambda x: -x, [[1.0]], 0.2, Grid(-2.0, 2.0, 24))
    with pytest.warns(UnresolvedWarning, match="expectation is not resolved"):
        law.expectation(lambda x: x[0] ** 2)


def test_draws_have_a_standard_error(normal):
    p = norm.cdf(EDGE / np.sqrt(0.3))
    found = normal.expectation_estimate(below, jax.random.key(0), 20_000)
    assert abs(found.value - p) < 4 * found.standard_error
    np.testing.assert_allclose(found.standard_error, np.sqrt(p * (1 - p) / 20_000), rtol=0.02)
    plane = example("RescalingGibbs")
    with pytest.raises(IntractableError, match="knows no expectations"):
        plane.expectation_estimate(below)
    with pytest.raises(ValueError, match="draws"):
        normal.expectation_estimate(below, jax.random.key(0), 1)


def test_shapes_are_those_of_the_function(normal):
    found = normal.expectation_estimate(lambda x: jnp.outer(jnp.append(x, 1.0), x))
    np.testing.assert_allclose(found.value, [[0.3], [0.0]], atol=1e-9)
    assert found.standard_error.shape == (2, 1)


def test_a_point_mass_is_exact():
    law = example("NoiseEquilibrium")
    found = law.expectation_estimate(lambda w: w @ w)
    np.testing.assert_allclose(found.value, law.mean() @ law.mean(), rtol=1e-12)
    assert found.standard_error == 0


@pytest.mark.parametrize("temperature", [pytest.param(0.5, marks=pytest.mark.slow), 1.0])
def test_smooth_functions_of_the_plane(temperature):
    # E ∂ᵢ(w) = 1 = E wᵢ∂ᵢL/τ: by parts, as L has no jump.
    law = TwoBasinGibbs(temperature)
    found = law.expectation_estimate(lambda w: jax.grad(law.potential)(w) @ w)
    assert abs(found.value - 2) < found.standard_error < 1e-4
