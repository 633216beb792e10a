"""Intervals and p-values of estimates against tables, and estimates inside programs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from statsgd.estimate import Discrepancy, Estimate, exact, sample_mean


def test_quantiles_are_those_of_the_tables():
    # Student's t at 95 %: 2.776 for 4 degrees of freedom; the normal one 1.960.
    few, many = Estimate(1.0, 0.5, 5), Estimate(1.0, 0.5)
    np.testing.assert_allclose(few.interval(), (1 - 2.776 * 0.5, 1 + 2.776 * 0.5), atol=3e-4)
    np.testing.assert_allclose(many.interval(), (1 - 1.96 * 0.5, 1 + 1.96 * 0.5), atol=3e-5)
    assert few.deviation(0.0) == 2
    assert few.p_value(1 - 2.776 * 0.5) == pytest.approx(0.05, abs=5e-5)
    assert many.p_value(1 - 1.96 * 0.5) == pytest.approx(0.05, abs=2e-5)
    np.testing.assert_array_equal(
        Estimate(np.ones(3), np.zeros(3)).deviation([1, 0, 2]), [0, np.inf, -np.inf]
    )
    with pytest.raises(ValueError, match=r"confidence must be in \(0, 1\)"):
        many.interval(1.0)


def test_programs_return_estimates():
    values = np.random.default_rng(0).normal(size=(5, 40))
    found = jax.jit(jax.vmap(sample_mean))(jnp.asarray(values))
    assert isinstance(found, Estimate)
    np.testing.assert_allclose(found.value, values.mean(axis=1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        found.standard_error, values.std(axis=1, ddof=1) / np.sqrt(40), rtol=1e-5
    )
    # The number of units is no array, whatever the program.
    assert found.clusters == 40
    assert len(jax.tree.leaves(found)) == 2
    assert exact(jnp.ones(3)).clusters is None


@pytest.mark.parametrize(
    ("discrepancy", "words"),
    [
        (Discrepancy(0.0512, 0.0021, 0.055, True), "5.1 ± 0.2 %"),
        (Discrepancy(0.0124, 3e-7, 0.0124, True), "1.2 %"),
        (Discrepancy(0.00534, 0.00042, 0.0062, True), "0.53 ± 0.04 %"),
        (Discrepancy(0.4, 0.1, 0.5, True), "40 ± 10 %"),
        # A bound is rounded up.
        (Discrepancy(0.001, 0.002, 0.00681, False), "below 0.69 %"),
        (Discrepancy(0.0, 0.002, 0.01, False), "below 1 %"),
        (Discrepancy(0.0, 0.0, 0.0, False), "0 %"),
        (Discrepancy(np.nan, np.nan, np.nan, False), "unknown"),
    ],
)
def test_discrepancies_tell_their_error_or_their_bound(discrepancy, words):
    assert str(discrepancy) == words


def test_a_discrepancy_is_at_most_its_value_or_its_bound():
    found = Discrepancy(np.array([0.1, 0.0]), 0.01, np.array([0.12, 0.02]), np.array([True, False]))
    np.testing.assert_array_equal(found.at_most, [0.1, 0.02])
