"""Laws of random wells under random noise: off by no more than what they state, or refused."""

import warnings

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float

from statsgd.laws import (
    EffectivePotentialGibbs,
    LossScaledLaw,
    MeanFieldLimit,
    SaturatedPowerOfLossLaw,
    ScalarNoiseLaw,
    ValleyLaw,
)
from statsgd.laws.law import IntractableError, UnresolvedWarning
from statsgd.problems import landscape
from tests.laws.bases.random_wells import (
    LEVELS,
    ROUNDING,
    WELLS,
    RandomWells,
    assert_within_what_is_stated,
    integrals,
    random_wells,
)

#: Where noise jumps, at no knot of anything.
JUMP = 0.1234
LOSSES = {
    "seed": st.integers(0, 10**6),
    "number": st.integers(1, 5),
    "log_floor": st.floats(-12, 0),
    "noise_ratio": st.floats(0.1, 0.6),
}


class KinkedProfile(eqx.Module):
    """φ = c₀ + min(s, 3c₀), which stops growing at a kink."""

    floor: Float[np.ndarray, ""]

    def __call__(self, loss):
        return self.floor + jnp.minimum(loss, 3 * self.floor)

    def resistance(self, loss):
        inside = np.log1p(np.minimum(loss, 3 * self.floor) / self.floor)
        return inside + np.maximum(loss - 3 * self.floor, 0) / (4 * self.floor)


def check_profile(seed, number, log_floor, noise_ratio):
    floor = np.float64(10.0**log_floor)
    wells, profile = random_wells(seed, number, floor, 0.0), KinkedProfile(floor)
    law = ScalarNoiseLaw(wells, 1, profile, noise_ratio, codimension=1)
    kept = wells.first(number)

    def log_density(x):
        loss = kept.at(x)
        at_zero = np.log(floor)
        prefactor = np.log(floor + np.minimum(loss, 3 * floor)) - at_zero
        return -prefactor - 2 / noise_ratio * profile.resistance(loss)

    kinks = [
        place + side * np.sqrt(2 * max(3 * floor - height, 0) / curvature)
        for place, height, curvature in zip(kept.places, kept.heights, kept.curvatures, strict=True)
        for side in (-1, 1)
    ]
    breaks = np.unique(np.concatenate([kept.breaks(floor), kinks]))
    assert assert_within_what_is_stated(law, log_density, breaks) < 1e-3


def check_powers(seed, number, log_floor, noise_ratio):
    floor = np.float64(10.0**log_floor)
    wells = random_wells(seed, number, floor, 0.0, lowest=floor)
    kept, alpha = wells.first(number), 1 + 2 / noise_ratio
    breaks = np.unique(np.concatenate([kept.breaks(floor), np.geomspace(1e-4, 1e8, 60)]))
    breaks = np.unique(np.concatenate([breaks, -breaks]))

    def power(x):
        return -alpha * np.log(kept.at(x) / floor)

    law = LossScaledLaw(wells, 1, noise_ratio, codimension=None)
    assert assert_within_what_is_stated(law, power, breaks) < 1e-3
    saturation = 5 * floor
    law = SaturatedPowerOfLossLaw(wells, 1, noise_ratio, saturation, codimension=None)

    def saturated(x):
        over = kept.at(x) / saturation
        return power(x) + np.log1p(over) - (alpha - 1) * over

    assert assert_within_what_is_stated(law, saturated, breaks) < 1e-3


class Step(eqx.Module):
    """A number, and twice as much beyond the jump."""

    size: Float[np.ndarray, ""]

    def __call__(self, params):
        return self.size * jnp.where(jnp.sum(params) < JUMP, 1.0, 2.0)


def across_the_jump(kept, temperature):
    """−log D − ∫L'/D for D = τ that doubles at the jump."""

    def log_density(x):
        rise = (kept.at(x) - kept.at(JUMP)) / temperature
        return np.where(x < JUMP, -rise, -rise / 2 - np.log(2))

    return log_density


def check_jump_of_noise(seed, number, log_temperature, kink):
    temperature = 10.0**log_temperature
    wells = random_wells(seed, number, temperature, kink)
    kept = wells.first(number)
    law = EffectivePotentialGibbs(
        landscape(wells, np.zeros(1)), Step(np.float64(1.0)), 2 * temperature, start=kept.places[:1]
    )
    breaks = np.union1d(kept.breaks(temperature), JUMP)
    top = max(across_the_jump(kept, temperature)(x) for x in (*kept.places, JUMP, 0.3))
    stated = assert_within_what_is_stated(
        law,
        lambda x: across_the_jump(kept, temperature)(x) - top,
        breaks,
        rounding=4 * np.finfo(float).eps * kept.at(JUMP) / temperature,
    )
    assert stated < 1e-3


class OnLine(eqx.Module):
    wells: RandomWells

    def __call__(self, x):
        return self.wells(x[None])


def unit_curvature(x):
    return 1 + 0 * x


def check_valley(seed, number, log_temperature, kink):
    temperature = 10.0**log_temperature
    wells = random_wells(seed, number, temperature, kink)
    kept = wells.first(number)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnresolvedWarning)
        law = ValleyLaw(
            unit_curvature,
            0.1,
            Step(np.float64(temperature)),
            floor=OnLine(wells),
            support=(-4.0, 4.0),
        )
    log_density = across_the_jump(kept, temperature)
    top = max(log_density(x) for x in (*kept.places, JUMP, 0.3))
    breaks = np.union1d(kept.breaks(temperature), JUMP)
    over, normalizer = integrals(lambda x: log_density(x) - top, breaks, -4.0, 4.0)
    stated = float(law.error_estimate) + ROUNDING
    try:
        mean = law.mean()[0]
    except IntractableError:
        assert stated > 0.1
        # Where a kink of the floor is steeper than the cells of the rate are short.
        assert temperature < 1e-3
        return
    assert abs(mean - over(-4.0, 4.0, lambda x: x) / normalizer) < 8 * stated
    for level, x in zip(LEVELS, law.quantile(LEVELS)[:, 0], strict=True):
        assert abs(over(-4.0, x) / normalizer - level) < 2 * stated
        if level in (LEVELS[0], LEVELS[-1]):
            continue  # in a rare well errors of probabilities bound no ratio of densities
        # The density at one place is off by what the integral of the rate is off by there.
        found = law.log_marginal(np.array(x))
        assert abs(found - (log_density(x) - top - np.log(normalizer))) < 0.02 + 20 * stated


def check_particle(log_temperature, steepness, target):
    temperature = 10.0**log_temperature

    law = MeanFieldLimit(TanhOf(steepness), target, 1.0, temperature)
    dual = float(law.dual[0])

    def log_density(x):
        return -(x**2 / 2 + dual * np.tanh(steepness * x)) / temperature

    grid = np.linspace(-3, 3, 60_001)
    best = grid[np.argmax(log_density(grid))]
    near = np.concatenate([place + np.sqrt(temperature) * np.arange(-9, 10) for place in (0, best)])
    breaks = np.unique(np.concatenate([near, np.arange(-10, 11) / steepness]))
    low, high = best - 30 * np.sqrt(temperature) - 3, best + 30 * np.sqrt(temperature) + 3
    top = log_density(best)
    over, normalizer = integrals(lambda x: log_density(x) - top, breaks, low, high)
    stated = float(law.error_estimate) + 1e-9
    try:
        found = law.feature_mean()[0]
    except IntractableError:
        assert stated > 0.1
        return
    mean = over(low, high, lambda x: np.tanh(steepness * x)) / normalizer
    assert abs(found - mean) < 10 * stated
    # The fixed point: c = M − y.
    assert abs(dual - (mean - target)) < 10 * stated
    for level, x in zip(LEVELS, law.quantile(LEVELS)[:, 0], strict=True):
        assert abs(over(low, x) / normalizer - level) < 2 * stated


class TanhOf(eqx.Module):
    steepness: float = eqx.field(static=True)

    def __call__(self, particle):
        return jnp.tanh(self.steepness * particle)


PARTICLES = {
    "log_temperature": st.floats(-5, 1),
    "steepness": st.sampled_from([1.0, 300.0]),
    "target": st.floats(-0.9, 0.9),
}
CHECKS = {
    "scalar_noise": (check_profile, LOSSES, 3),
    "powers_of_the_loss": (check_powers, LOSSES, 2),
    "jump_of_noise": (check_jump_of_noise, WELLS, 3),
    "valley": (check_valley, WELLS, 2),
    "particle": (check_particle, PARTICLES, 2),
}


#: Whose few are left to the many.
COSTLY = ("jump_of_noise", "valley")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in COSTLY)) for n in CHECKS]
)
def test_few_random_laws(name):
    check, arguments, examples = CHECKS[name]
    settings(max_examples=examples)(given(**arguments)(check))()


@pytest.mark.slow
@pytest.mark.parametrize("name", CHECKS)
def test_many_random_laws(name):
    check, arguments, _ = CHECKS[name]
    settings(max_examples=60)(given(**arguments)(check))()
