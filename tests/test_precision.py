"""One evaluation in double precision: widened, cached, and out of the way of tracers."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from statsgd.precision import BATCHES, formula, in_double_precision, over_points
from studies.compilations import compilations


def _cancelling(x, shift):
    return (x + shift) - shift


def _total(x):
    return jnp.sum(x)


class _Scaled(eqx.Module):
    scale: jax.Array

    def times(self, x):
        return self.scale * x


@formula
def _sum_of_squares(x):
    return jnp.sum(x**2)


def test_digits_that_float32_would_lose_are_kept():
    x = np.float64(1e-9)
    assert in_double_precision(_cancelling, x, 1.0) == pytest.approx(1e-9, rel=1e-6)
    assert in_double_precision(_cancelling, np.float32(0.25), 1.0).dtype == np.float64


def test_methods_of_modules_take_their_arrays_along():
    module = _Scaled(jnp.float32(0.1))
    assert in_double_precision(module.times, 2.0) == 2 * np.float64(np.float32(0.1))


def test_the_setting_of_the_user_stays():
    before = jax.config.jax_enable_x64
    _sum_of_squares(np.ones(3))
    assert jax.config.jax_enable_x64 == before


def test_traced_arguments_run_in_the_precision_of_the_caller():
    value = jax.jit(_sum_of_squares)(jnp.ones(3))
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(jax.grad(_sum_of_squares)(jnp.ones(3)), 2.0)


def test_concrete_arguments_give_concrete_results_inside_somebody_elses_trace():
    def shifted(x):
        assert float(_sum_of_squares(np.ones(3))) == 3
        return x + 1

    assert jax.jit(shifted)(1.0) == 2
    assert jax.vmap(shifted)(jnp.ones(2)).shape == (2,)


def test_second_calls_compile_nothing():
    _sum_of_squares(np.ones(5))
    in_double_precision(_Scaled(jnp.float32(0.1)).times, 2.0)
    with compilations() as count:
        _sum_of_squares(np.arange(5.0))
        in_double_precision(_Scaled(jnp.float32(0.3)).times, 1.0)
    assert count() == 0
    with compilations() as count:
        in_double_precision(lambda x: x + 1, 2.0)
    assert count() == 1


def test_an_array_that_a_function_closes_over_keeps_the_precision_of_later_programs():
    matrix = np.array([[2.0, 1.0], [0.0, 3.0]])

    def image(x):
        return jnp.asarray(matrix) @ x

    assert in_double_precision(image, np.ones(2)).dtype == np.float64
    assert jnp.asarray(matrix).dtype == jnp.float32
    assert jax.jit(image)(jnp.ones(2)).dtype == jnp.float32


@pytest.mark.parametrize("lead", [(), (1,), (9,), (2, 3), (0,), (BATCHES[-1] + 1,)])
def test_points_may_have_any_leading_axes(lead):
    points = np.random.default_rng(0).normal(size=(*lead, 2))
    found = over_points(_cancelling, points, np.array([1.0, 2.0]))
    assert found.shape == (*lead, 2)
    np.testing.assert_allclose(found, points, atol=1e-15)
    sums = over_points(_total, points)
    assert sums.shape == lead
    np.testing.assert_allclose(sums, points.sum(-1), atol=1e-15)


def test_any_number_of_points_runs_one_of_a_few_programs():
    over_points(_cancelling, np.ones((60, 2)), 1.0)
    with compilations() as count:
        over_points(_cancelling, np.ones((33, 2)), 2.0)
    assert count() == 0
