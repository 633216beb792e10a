"""The gap of the underdamped equation: closed form of wells, and another basis for two of them."""

import jax.numpy as jnp
import numpy as np
import pytest

from statsgd import problems
from statsgd.laws.gibbs import relaxation_gap_1d, underdamped_gap_1d
from statsgd.laws.law import UnresolvedWarning
from tests.statistical import assert_printed

WELLS = problems.landscape(lambda x: jnp.sum(x**4 / 4 - x**2 / 2), np.ones(1))


@pytest.mark.parametrize(
    ("curvature", "friction"),
    [pytest.param(1.0, 3.0, marks=pytest.mark.slow), (4.0, 0.2)],
)  # the last turns ten times faster than it decays
def test_gap_of_a_quadratic_well(curvature, friction):
    well = problems.landscape(lambda x: jnp.sum(curvature * (x - 0.5) ** 2) / 2, np.ones(1))
    # −μ/2 ± √(μ²/4 − h), complex below critical friction.
    expected = friction / 2 - np.sqrt(complex(friction**2 / 4 - curvature)).real
    assert underdamped_gap_1d(well, 0.3, friction) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("friction", "printed"),
    [
        pytest.param(1.0, ".0225192", marks=pytest.mark.slow),
        (3.0, ".0104544"),
    ],
)
def test_gap_of_two_wells(friction, printed):
    assert_printed(underdamped_gap_1d(WELLS, 0.1, friction), printed)


@pytest.mark.slow
def test_strong_friction_is_the_overdamped_equation():
    # In the time t/μ, with a correction of second order in 1/μ.
    overdamped = relaxation_gap_1d(WELLS, 0.2)
    errors = [mu * underdamped_gap_1d(WELLS, 0.2, mu) / overdamped - 1 for mu in (10.0, 20.0)]
    assert abs(errors[1]) < 3e-3
    assert errors[0] / errors[1] == pytest.approx(4, abs=0.3)


def test_what_is_not_resolved_says_so():
    with pytest.warns(UnresolvedWarning, match="is off by about .* in a basis"):
        underdamped_gap_1d(WELLS, 0.1, 0.05)


def test_refusals():
    plane = problems.landscape(lambda x: jnp.sum(x**2), np.ones(2))
    with pytest.raises(ValueError, match="one parameter, got d = 2"):
        underdamped_gap_1d(plane, 0.1, 1.0)
    with pytest.raises(ValueError, match="friction must be positive"):
        underdamped_gap_1d(WELLS, 0.1, 0.0)
