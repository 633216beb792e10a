"""Tables of densities on the line against SciPy's distributions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.integrate import quad
from scipy.stats import norm, t, truncnorm

from statsgd.laws.bases.line import one_well, tabulate
from statsgd.precision import in_double_precision
from studies.compilations import compilations

LEVELS = np.array([[1e-6, 0.01, 0.25], [0.5, 0.9, 0.999]])


class TwoWells:
    """0.7 N(−1, 0.2²) + 0.3 N(2, 0.05²)."""

    wells = ((0.7, norm(-1, 0.2)), (0.3, norm(2, 0.05)))

    def cdf(self, x):
        return sum(share * well.cdf(x) for share, well in self.wells)

    def mean(self):
        return sum(share * well.mean() for share, well in self.wells)

    def var(self):
        squares = sum(share * (well.var() + well.mean() ** 2) for share, well in self.wells)
        return squares - self.mean() ** 2


def normal(x):
    return -0.5 * ((x - 0.3) / 2) ** 2


def heavy(x):
    return -3 * jnp.log1p(x**2 / 5)  # Student t, ν = 5


def two_wells(x):
    return jnp.logaddexp(
        jnp.log(0.7 / 0.2) - 0.5 * ((x + 1) / 0.2) ** 2,
        jnp.log(0.3 / 0.05) - 0.5 * ((x - 2) / 0.05) ** 2,
    )


def cut(x):
    return -0.5 * x**2  # at −0.5 and 2, where it is far from zero


CASES = {
    # log mass, (center, scale, low, high), distribution, its log normaliser
    "normal": (normal, (0.3, 2.0, -19.7, 20.3), norm(0.3, 2), np.log(2 * np.sqrt(2 * np.pi))),
    "heavy": (heavy, (0.0, 1.0, -1e7, 1e7), t(5), -t(5).logpdf(0)),
    "two_wells": (two_wells, (2.0, 0.05, -3.0, 2.5), TwoWells(), np.log(np.sqrt(2 * np.pi))),
    "cut": (
        cut,
        (0.0, 1.0, -0.5, 2.0),
        truncnorm(-0.5, 2),
        np.log(np.sqrt(2 * np.pi) * (norm.cdf(2) - norm.cdf(-0.5))),
    ),
}


def tabulated(log_mass, center, width, low, high):
    return tabulate(log_mass, one_well(center, width), low, high)


def table_of(name):
    log_mass, place, _, _ = CASES[name]
    return in_double_precision(tabulated, log_mass, *place)


@pytest.mark.parametrize("name", CASES)
def test_table_against_the_known_distribution(name):
    _, (_, _, low, high), truth, log_normalizer = CASES[name]
    table = table_of(name)
    assert_allclose(table.log_normalizer, log_normalizer, atol=1e-10)
    assert_allclose(table.weights.sum(), 1, rtol=1e-14)
    mean = table.weights @ table.points
    assert_allclose(mean, truth.mean(), atol=1e-10)
    assert_allclose(table.weights @ (table.points - mean) ** 2, truth.var(), rtol=1e-9)
    x = np.linspace(max(low, -4), min(high, 4), 301)
    assert_allclose(table.cdf(x), truth.cdf(x), atol=1e-10)
    assert_allclose(truth.cdf(table.quantile(LEVELS)), LEVELS, atol=1e-10)
    assert_allclose(table.cdf(np.array([low - 1, low, high, high + 1])), [0, 0, 1, 1], atol=1e-12)


def test_expectation_of_a_function_against_quadrature():
    table = table_of("cut")
    expected = quad(lambda x: np.cos(3 * x) * truncnorm.pdf(x, -0.5, 2), -0.5, 2, epsabs=1e-13)[0]
    assert_allclose(table.weights @ np.cos(3 * table.points), expected, atol=1e-10)


@pytest.mark.parametrize("name", CASES)
def test_traced_and_concrete_agree(name):
    table, x = table_of(name), np.linspace(-1.2, 2.2, 5)
    for wide, tolerance in ((False, 1e-5), (True, 1e-12)):
        with jax.enable_x64(wide):
            below = jax.jit(lambda x: table.cdf(x))(x)
            assert_allclose(below, table.cdf(x), atol=tolerance)
            quantiles = jax.jit(lambda levels: table.quantile(levels))(LEVELS[1])
            assert_allclose(table.cdf(quantiles), LEVELS[1], atol=tolerance)


@pytest.mark.slow
def test_derivative_by_a_parameter_of_the_density():
    # d log Z/dσ of exp(−x²/(2σ²)) is 1/σ.
    def log_normalizer(width):
        return tabulated(lambda x: -0.5 * (x / width) ** 2, 0.0, 1.0, -9.0, 9.0).log_normalizer

    assert_allclose(jax.grad(log_normalizer)(0.8), 1 / 0.8, rtol=1e-5)


def test_second_calls_compile_nothing():
    for count in (None, 0):
        with compilations() as lowered:
            table = in_double_precision(tabulated, normal, 0.3, 2.0, -19.7, 20.3)
            for number in (3, 7):
                table.cdf(np.linspace(0, 1, number))
                table.quantile(np.linspace(0.1, 0.9, number))
            assert table.points.shape == table.weights.shape
            if count is not None:
                assert lowered() == count
