"""Adaptive integrals of exponentials against closed forms: right to the error that they state."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import erf, logsumexp

from statsgd.laws.bases.nested import LogIntegral, log_integral, log_nested_integral
from statsgd.laws.law import IntractableError, UnresolvedWarning

#: What twelve digits leave after sums over thousands of cells.
ROUNDING = 1e-11


@pytest.mark.slow
@settings(max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    number=st.integers(1, 5),
    decades=st.floats(0, 3.5),
    height=st.floats(0, 2000),
)
def test_mixtures_of_wells_with_kinks(seed, number, decades, height):
    # Of normal laws and of Laplace laws, whose kinks lie at no node.
    rng = np.random.default_rng(seed)
    places, widths = rng.uniform(-1, 1, number), 10 ** rng.uniform(-decades, 0, number) / 10
    logs = height * rng.uniform(0, 1, number)
    kinked = rng.random(number) < 0.5

    def log_function(x):
        u = np.abs(x[:, None] - places) / widths
        return logsumexp(logs - np.where(kinked, u, u**2 / 2), axis=1)

    sizes = np.where(kinked, 2, np.sqrt(2 * np.pi)) * widths
    expected = logsumexp(logs, b=sizes)
    found = log_integral(log_function, -9.0, 8.0)
    assert abs(found.value - expected) < found.error + ROUNDING * max(1, height)
    assert found.error < 1e-8


def test_a_jump_at_no_knot():
    found = log_integral(lambda x: 5.0 * (x > 0.123456), -3.0, 2.0)
    assert abs(found.value - np.log(np.exp(5) * 1.876544 + 3.123456)) < found.error + ROUNDING
    assert found.error < 1e-9


@pytest.mark.parametrize("depth", [0.1, 3.0, 30.0, 300.0, 3000.0])
def test_integrals_of_integrals_over_any_barrier(depth):
    # ∫₀¹ e^{Ky²} ∫₀^y e^{−Kz²} dz dy in units of e^K; both factors overflow at the deepest.
    found = log_nested_integral(lambda y: depth * y**2, lambda z: -depth * z**2, 0.0, 1.0)

    def scaled(y):
        return np.exp(depth * (y**2 - 1)) * np.sqrt(np.pi / depth) / 2 * erf(np.sqrt(depth) * y)

    points = [max(1 - 9 / depth, 0.1)]
    expected = quad(scaled, 0, 1, points=points, epsabs=0, epsrel=1e-13)[0]
    assert abs(found.value - depth - np.log(expected)) < found.error + ROUNDING
    assert found.error < 1e-9


def test_what_is_not_resolved_warns_or_is_refused():
    found = log_integral(lambda x: 3 * np.sin(1e7 * x), 0.0, 1.0)
    assert found.error > 0.1
    with pytest.raises(IntractableError, match="does not resolve the mean exit time: off by"):
        found.number("mean exit time")
    with pytest.warns(UnresolvedWarning, match=r"mean exit time is not resolved: .* about 0\.02"):
        assert LogIntegral(0.0, 0.02).number("mean exit time") == 1
    assert LogIntegral(np.log(2.0), 1e-4).number("mean exit time") == pytest.approx(2)
