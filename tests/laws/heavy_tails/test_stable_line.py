"""The stable law on the line against closed forms, series, SciPy and its own integral."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import gamma, gammaln
from scipy.stats import levy_stable

from statsgd.laws.heavy_tails import SymmetricStable, tail_constant
from statsgd.laws.heavy_tails.stable_line import log_density, quantile, upper_probability
from statsgd.precision import in_double_precision
from tests.statistical import assert_printed


def density(x, alpha):
    x = np.asarray(x, dtype=float)
    return np.exp(in_double_precision(log_density, x, np.float64(alpha)))


def above(x, alpha):
    return in_double_precision(upper_probability, np.asarray(x, dtype=float), np.float64(alpha))


def series(x, alpha, terms, order):
    """The tail series of P(X > x) (order 0) or of the density (order 1)."""
    k = np.arange(1, terms)
    logs = gammaln(alpha * k + order) - gammaln(k + 1) - (alpha * k + order) * np.log(x)
    return np.sum(-((-1.0) ** k) * np.exp(logs) * np.sin(np.pi * k * alpha / 2)) / np.pi


def test_closed_forms():
    x = np.array([-3.0, 0.0, 0.1, 1.0, 5.0, 100.0, 1e8])
    np.testing.assert_allclose(density(x, 1.0), 1 / (np.pi * (1 + x**2)), rtol=1e-9)
    np.testing.assert_allclose(above(x[:-1], 1.0), 0.5 - np.arctan(x[:-1]) / np.pi, rtol=1e-9)
    x = x[:5]
    np.testing.assert_allclose(density(x, 2.0), np.exp(-(x**2) / 4) / np.sqrt(4 * np.pi), rtol=1e-9)
    for alpha in (0.1, 0.5, 1.3, 1.9):
        np.testing.assert_allclose(density(0.0, alpha), gamma(1 + 1 / alpha) / np.pi, rtol=1e-9)
        np.testing.assert_allclose(above(0.0, alpha), 0.5, rtol=1e-12)


@pytest.mark.parametrize("alpha", [0.1, 0.2, 0.5])
def test_below_one_the_tail_series_converges(alpha):
    # Of both branches, and far beyond where the leading terms take over.
    for x in (2.0, 30.0, 1e3, 1e6, 1e15):
        np.testing.assert_allclose(above(x, alpha), series(x, alpha, 150, 0), rtol=1e-8)
        np.testing.assert_allclose(density(x, alpha), series(x, alpha, 150, 1), rtol=1e-8)


@pytest.mark.parametrize("alpha", [1.2, 1.5, 1.8])
def test_above_one_near_scipy_and_far_the_series(alpha):
    x = np.array([0.2, 0.99, 1.01, 3.0, 12.0])
    np.testing.assert_allclose(density(x, alpha), levy_stable.pdf(x, alpha, 0), rtol=1e-6)
    np.testing.assert_allclose(above(x, alpha), levy_stable.sf(x, alpha, 0), rtol=2e-6)
    # SciPy's own is exactly zero at some hundred scales.
    for far in (300.0, 1e3, 1e6):
        np.testing.assert_allclose(above(far, alpha), series(far, alpha, 7, 0), rtol=1e-7)
        np.testing.assert_allclose(density(far, alpha), series(far, alpha, 7, 1), rtol=1e-7)


def test_density_integrates_to_the_probability():
    for alpha in (0.3, 1.01, 1.97):
        found = quad(lambda x, a=alpha: density(x, a), 0.4, 2.7, epsabs=0, epsrel=1e-10)[0]
        np.testing.assert_allclose(found, above(0.4, alpha) - above(2.7, alpha), rtol=1e-8)


def test_printed_values():
    assert_printed(tail_constant(1.5), ".1994711")
    assert tail_constant(2.0) == 0
    assert_printed(above(10, 1.5), ".006639809")
    assert_printed(above(10, 1.2), ".01796792")
    assert_printed(above(10, 1.8), ".001547907")
    for value, printed in zip(
        quantile([0.75, 0.9, 0.95, 0.99, 0.99999], 1.5),
        (".968933", "2.061463", "3.051941", "7.736446", "735.546"),
        strict=True,
    ):
        assert_printed(value, printed)
    np.testing.assert_allclose(quantile([0.5, 0.25], 1.5), [0, -0.968933], atol=1e-6)


@pytest.mark.parametrize("alpha", [0.3, 1.0, 1.7, 2.0])
def test_quantiles_invert_far_out_too(alpha):
    levels = np.array([1e-12, 0.3, 0.5000001, 0.9, 1 - 1e-9])
    found = quantile(levels, alpha)
    below, over = above(-found, alpha), above(found, alpha)
    np.testing.assert_allclose(np.minimum(below, over), np.minimum(levels, 1 - levels), rtol=1e-6)
    assert np.all(np.diff(found) > 0)


def test_single_precision_and_slopes():
    x = jnp.array([0.0, 0.1, 1.0, 3.0, 30.0, 1e4, 1e10], jnp.float32)
    alpha = jnp.float32(1.5)
    found = jax.jit(log_density)(x, alpha)
    np.testing.assert_allclose(found, np.log(density(x, 1.5)), rtol=2e-5, atol=2e-6)
    slope = jax.jit(jax.vmap(jax.grad(log_density), (0, None)))(x, alpha)
    np.testing.assert_allclose(slope[-1] * x[-1], -2.5, rtol=1e-4)
    assert np.all(np.isfinite(slope))


@pytest.mark.slow
def test_the_numpyro_law_has_the_density_and_is_shifted_and_scaled():
    law = SymmetricStable(1.5, 2.0, 3.0)
    value = jnp.array([-4.0, 2.0, 11.0])
    wanted = np.log(density((np.asarray(value) - 2) / 3, 1.5) / 3)
    np.testing.assert_allclose(jax.jit(law.log_prob)(value), wanted, rtol=1e-5)
    np.testing.assert_allclose(
        jax.jit(law.cdf)(value), 1 - above((np.asarray(value) - 2) / 3, 1.5), rtol=1e-5
    )
    drawn = np.asarray(law.sample(jax.random.key(0), (40_000,)))
    for level in (0.05, 0.5, 0.99):
        place = 2 + 3 * quantile(level, 1.5)
        error = np.sqrt(level * (1 - level) / len(drawn))
        assert abs(np.mean(drawn <= place) - level) < 4 * error
    assert law.mean == 2.0
    assert np.isinf(law.variance)
    assert np.isnan(SymmetricStable(0.9).mean)
