"""Random laws on the line against adaptive quadrature: off by no more than what they state."""

import itertools
import warnings

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float
from scipy.integrate import IntegrationWarning, quad
from scipy.stats import norm

from statsgd.laws import FlooredPowerOfLossLaw, Gibbs
from statsgd.laws.law import IntractableError, UnresolvedWarning
from statsgd.problems import landscape

LEVELS = np.array([0.01, 0.2, 0.5, 0.77, 0.999])
#: What SciPy's rule and the ends of the support leave.
ROUNDING = 1e-10


class RandomWells(eqx.Module):
    """The least of parabolas, with a kink of its own, and at most five wells."""

    places: Float[np.ndarray, " 5"]
    heights: Float[np.ndarray, " 5"]
    curvatures: Float[np.ndarray, " 5"]
    kink: Float[np.ndarray, " 2"]

    def __call__(self, x):
        x = x[..., :1]
        branches = self.heights + self.curvatures * (x - self.places) ** 2 / 2
        return jnp.min(branches, axis=-1) + self.kink[0] * jnp.abs(x[..., 0] - self.kink[1])

    def at(self, x):
        branches = self.heights + self.curvatures * (x - self.places) ** 2 / 2
        return np.min(branches) + self.kink[0] * abs(x - self.kink[1])

    def breaks(self, temperature):
        """Where the loss has a kink, and a few widths about every well."""
        found = [self.kink[1] + temperature / (self.kink[0] + 1e-300) * np.array([-9, -1, 0, 1, 9])]
        for i, (place, h) in enumerate(zip(self.places, self.curvatures, strict=True)):
            found.append(place + np.sqrt(temperature / h) * np.arange(-10, 11))
            for j in range(i):
                curved = (h - self.curvatures[j]) / 2
                linear = self.curvatures[j] * self.places[j] - h * place
                squares = h * place**2 - self.curvatures[j] * self.places[j] ** 2
                constant = squares / 2 + self.heights[i] - self.heights[j]
                roots = np.roots([curved, linear, constant])
                found.append(roots[np.isreal(roots)].real)
        return np.unique(np.concatenate(found))


def integrals(log_density, breaks, low, high):
    """The integral of the density times a function, between any two ends."""

    def over(begin, end, function=lambda x: 1.0):
        ends = [begin, *breaks[(breaks > begin) & (breaks < end)], end]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", IntegrationWarning)
            parts = [
                quad(lambda x: function(x) * np.exp(log_density(x)), *pair, epsabs=0, epsrel=1e-12)[
                    0
                ]
                for pair in itertools.pairwise(ends)
            ]
        return sum(parts)

    return over, over(low, high)


def assert_within_what_is_stated(law, log_density, breaks):
    low, high = float(law.support.low), float(law.support.high)
    over, normalizer = integrals(log_density, breaks, low, high)
    stated = float(law.error_estimate) + ROUNDING
    # Of the two densities, which are normalised differently.
    middle = float(law.table.center)
    offset = float(log_density(middle) + law.potentials(np.array([middle])))
    assert abs(law.log_normalizer() - np.log(normalizer) + offset) < stated
    mean = over(low, high, lambda x: x) / normalizer
    assert abs(law.mean()[0] - mean) < stated * (high - low)
    spread = over(low, high, lambda x: (x - mean) ** 2) / normalizer
    assert abs(law.covariance()[0, 0] - spread) < 2 * stated * (high - low) ** 2
    for level, x in zip(LEVELS, law.quantile(LEVELS)[:, 0], strict=True):
        assert abs(over(low, x) / normalizer - level) < stated
        assert abs(law.cdf(np.array([x]))[0] - level) < stated
    return stated


def check_wells(seed, number, log_temperature, kink):
    rng = np.random.default_rng(seed)
    temperature = 10.0**log_temperature
    heights = np.full(5, np.inf)
    heights[:number] = rng.uniform(0, 6 * temperature, number)
    heights[0] = 0
    # A kink less steep than would push the wells around.
    slope = kink * min(np.sqrt(temperature), 1.0)
    loss = RandomWells(
        np.sort(rng.uniform(-3, 3, 5)), heights, 10 ** rng.uniform(-1, 2, 5), np.array([slope, 0.3])
    )
    law = Gibbs(landscape(loss, np.zeros(1)), temperature)
    kept = RandomWells(loss.places[:number], heights[:number], loss.curvatures[:number], loss.kink)
    lowest = min(kept.at(x) for x in (*kept.places, 0.3))
    stated = assert_within_what_is_stated(
        law, lambda x: (lowest - kept.at(x)) / temperature, kept.breaks(temperature)
    )
    assert stated < 1e-4


WELLS = {
    "seed": st.integers(0, 10**6),
    "number": st.integers(1, 5),
    "log_temperature": st.floats(-7, 1),
    "kink": st.sampled_from([0.0, 0.5]),
}


@settings(max_examples=8, deadline=None, derandomize=True)
@given(**WELLS)
def test_gibbs_laws_of_random_wells(seed, number, log_temperature, kink):
    check_wells(seed, number, log_temperature, kink)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
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


@settings(max_examples=4, deadline=None, derandomize=True)
@given(log_floor=st.floats(-12, 1), noise_ratio=st.floats(0.05, 0.6))
def test_floors_under_a_cusp(log_floor, noise_ratio):
    check_floor(log_floor, noise_ratio)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
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
