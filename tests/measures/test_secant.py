"""Curvature between two places against that of the places on the way."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from statsgd import problems
from statsgd.measures import secant_curvature

WAY = np.array([-1.0, 2.0]), np.array([1.0, 2.0])


def test_second_derivatives_leave_out_what_lies_in_kinks():
    # The slope of |p₀|/2 jumps by one on a way of length two, beside the two of the smooth part.
    kinked = problems.landscape(lambda p: jnp.sum(p**2) / 2 + jnp.abs(p[0]) / 2, np.zeros(2))
    found = secant_curvature(kinked, *WAY)
    assert found == pytest.approx((1.5, 1.0, 2.0), rel=1e-5)


def test_both_are_the_mean_of_a_smooth_curvature():
    # Of p⁶/30 the curvature p⁴ has the mean 1/5 over (−1, 1); Simpson's rule over five places is
    # off by 1/120 of the fourth derivative, 24, times (½)⁴ · 2/1.5.
    bowl = problems.landscape(lambda p: jnp.sum(p**6) / 30, np.zeros(2))
    found = secant_curvature(bowl, WAY[0] * [1, 0], WAY[1] * [1, 0])
    assert found.between == pytest.approx(1 / 5, rel=1e-5)
    assert found.on_the_way == pytest.approx((2 + 8 / 16) / 12, rel=1e-5)


def test_sums_over_examples_and_whole_pytrees():
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(40, 3)).astype(np.float32)
    begin = {"a": jnp.zeros(3), "b": jnp.zeros(())}

    def loss(params, x):
        return jax.nn.relu(params["a"] @ x + params["b"]) ** 2 / 2 + params["b"] ** 2

    problem = problems.empirical_risk(loss, inputs, begin)
    end = {"a": jnp.asarray(rng.normal(size=3).astype(np.float32)), "b": jnp.asarray(0.5)}
    start = jax.tree.map(lambda leaf: leaf + 3.0, end)
    found = secant_curvature(problem, start, end)
    flat = [np.asarray(problem.flatten(at)) for at in (start, end)]
    change = problem.flatten(problem.gradient(end)) - problem.flatten(problem.gradient(start))
    way = flat[1] - flat[0]
    assert found.between == pytest.approx(float(way @ change) / float(way @ way), rel=1e-4)
    assert found.distance == pytest.approx(np.sqrt(4 * 9), rel=1e-6)


def test_a_way_of_no_length_is_refused():
    bowl = problems.quadratic(np.eye(2))
    with pytest.raises(ValueError, match=r"^end must be elsewhere than start, got the same"):
        secant_curvature(bowl, np.ones(2), np.ones(2))
