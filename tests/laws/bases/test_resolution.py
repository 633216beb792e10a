"""Random laws on the line against adaptive quadrature: off by no more than what they state."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from statsgd.laws import FlooredPowerOfLossLaw, Gibbs
from statsgd.laws.law import IntractableError, UnresolvedWarning
from statsgd.problems import landscape
from tests.laws.bases.random_wells import WELLS, assert_within_what_is_stated, random_wells


def check_wells(seed, number, log_temperature, kink):
    temperature = 10.0**log_temperature
    loss = random_wells(seed, number, temperature, kink)
    law = Gibbs(landscape(loss, np.zeros(1)), temperature)
    kept = loss.first(number)
    lowest = min(kept.at(x) for x in (*kept.places, 0.3))
    stated = assert_within_what_is_stated(
        law, lambda x: (lowest - kept.at(x)) / temperature, kept.breaks(temperature)
    )
    assert stated < 1e-4


@pytest.mark.slow
@settings(max_examples=8)
@given(**WELLS)
def test_gibbs_laws_of_random_wells(seed, number, log_temperature, kink):
    check_wells(seed, number, log_temperature, kink)


@pytest.mark.slow
@settings(max_examples=150)
@given(**WELLS)
def test_gibbs_laws_of_many_random_wells(seed, number, log_temperature, kink):
    check_wells(seed, number, log_temperature, kink)


def cusp(params):
    return jnp.abs(params[0]) + params[0] ** 2 / 2


def check_floor(log_floor, noise_ratio):
    floor = 10.0**log_floor
    law = FlooredPowerOfLossLaw(cusp, 1, noise_ratio, floor)
    power = 1 + 2 / noise_ratio
    far = np.geomspace(floor * 1e-2, 1e12, 80)
    assert_within_what_is_stated(
        law,
        lambda x: -power * np.log1p((abs(x) + x**2 / 2) / floor),
        np.concatenate([-far[::-1], [0.0], far]),
    )


@pytest.mark.slow
@settings(max_examples=4)
@given(log_floor=st.floats(-12, 1), noise_ratio=st.floats(0.05, 0.6))
def test_floors_under_a_cusp(log_floor, noise_ratio):
    check_floor(log_floor, noise_ratio)


@pytest.mark.slow
@settings(max_examples=60)
@given(log_floor=st.floats(-12, 1), noise_ratio=st.floats(0.05, 0.6))
def test_many_floors_under_a_cusp(log_floor, noise_ratio):
    check_floor(log_floor, noise_ratio)


def comb(params):
    """A bowl cut into more teeth than any number of knots resolves."""
    return params[0] ** 2 / 2 + jnp.sin(1e7 * params[0])


def test_what_is_not_resolved_says_so():
    with pytest.warns(UnresolvedWarning, match=r"off by about .* on 65537 knots"):
        law = Gibbs(landscape(comb, np.zeros(1)), 0.05)
    assert law.error_estimate > 0.1
    with pytest.raises(IntractableError, match="does not resolve the density"):
        law.mean()
    with pytest.raises(IntractableError, match="does not resolve the density"):
        law.log_normalizer()


def step_like(params):
    return 30 * jnp.arctan((params[0] - norm.ppf(0.7)) * 1e9) / jnp.pi + params[0] ** 2 / 2


def test_a_step_takes_more_knots():
    law = Gibbs(landscape(step_like, np.zeros(1)), 5.0)
    assert len(law.table.knots) == 65537
    assert 1e-7 < law.error_estimate < 1e-3
    # The temperature is 5 and the step ±15, so that weights above it are e⁻⁶ of those below.
    left, right = (norm.cdf(norm.ppf(0.7) / np.sqrt(5)), norm.sf(norm.ppf(0.7) / np.sqrt(5)))
    share = left / (left + right * np.exp(-6))
    found = law.cdf(np.array([norm.ppf(0.7)]))[0]
    assert abs(found - share) < law.error_estimate
