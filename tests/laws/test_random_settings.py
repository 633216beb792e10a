"""Laws with few numbers at random settings, against adaptive rules that share nothing with them."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import gammaln, ive
from scipy.stats import kstest

from statsgd.laws import StrataLaw, TorusPowerOfLossLaw, TwoBasinGibbs, TwoValleyLaw
from statsgd.problems.two_valley import TwoValleyLandscape
from tests.laws.bases.random_wells import LEVELS, NODES, WEIGHTS, integrals

DRAWS = 2000
#: What a rule of twelve digits and logarithms of large numbers leave.
ROUNDING = 1e-9


def assert_mean(draws, expected):
    error = np.std(draws, ddof=1) / np.sqrt(len(draws))
    assert abs(np.mean(draws) - expected) < 4.5 * error + 1e-12


def check_strata(above, log_saturation):
    ratio, saturation = 4 + above, 10.0**log_saturation
    law, alpha = StrataLaw(ratio, saturation), 1 + 2 / ratio

    def mass(power, share):
        # ∫ g(r²/2) dA over log r, of spheres of area 4π r^power `share`(r) in units of √(2 L_sat).
        def log_density(w):
            log_radius = np.log(2 * saturation) / 2 + w
            over = np.exp(2 * w)
            profile = np.log1p(over) - alpha * (2 * log_radius - np.log(2)) - (alpha - 1) * over
            part = np.log(4 * np.pi * share(np.exp(log_radius)))
            return profile + (power + 1) * log_radius + part

        slope = min(3 - 2 * alpha, 1.0)  # of the logarithm far inside
        low, high = -40 / slope, np.log(60 / (alpha - 1)) / 2 + 0.5
        breaks = np.union1d(np.linspace(low, high, 60), -np.log(8 * saturation) / 2)
        return integrals(log_density, breaks, low, high)[1]

    segment = mass(2, np.ones_like)

    def towards(r):
        # Of the sphere in four dimensions, the part with z > −½.
        angle = np.arccos(np.clip(-0.5 / np.maximum(r, 0.5), -1, 1))
        return angle / 2 - np.sin(2 * angle) / 4

    point = mass(3, towards)
    whole = segment + 2 * point
    assert abs(law.log_normalizer() - np.log(whole)) < ROUNDING
    assert abs(law.segment_probability() - segment / whole) < ROUNDING
    draws = law.draw(jax.random.key(0), (DRAWS,))
    assert_mean((draws[:, 3] >= 0) & (draws[:, 3] <= 1), segment / whole)
    assert_mean(draws[:, 3] > 1.5, point / whole)


def check_torus(codimension, factor):
    ratio = 4 * factor / (codimension - 2)
    law, alpha = TorusPowerOfLossLaw(codimension, ratio), 1 + 2 / ratio

    def log_partition(power):
        # log ∫ t^(power−1) (e^(−t) I₀(t))^q dt/Γ(power) over log t; far out I₀ ~ e^t (2πt)^(−½).
        def log_density(w):
            t = np.exp(np.minimum(w, 300.0))
            with np.errstate(divide="ignore", invalid="ignore"):
                near = np.log(ive(0, np.minimum(t, 1e8)))
            far = -0.5 * np.log(2 * np.pi) - w / 2
            return power * w + codimension * np.where(w > 18, far, near)

        low, high = -40 / power, 40 / (codimension / 2 - power)
        breaks = np.union1d(np.linspace(low, high, 60), np.arange(-4.0, 19.0))
        return np.log(integrals(log_density, breaks, low, high)[1]) - gammaln(power)

    stated = float(law.error_estimate) + ROUNDING
    log_z = codimension * np.log(2 * np.pi) + log_partition(alpha)
    # Beyond t = e¹⁸ the far form is off by e⁻¹⁸/8.
    assert abs(law.log_normalizer() - log_z) < stated + 2e-9
    mean = np.exp(log_partition(alpha - 1) - log_partition(alpha))
    assert abs(law.mean_loss() - mean) < (stated + 4e-9) * codimension
    draws = np.asarray(law.draw(jax.random.key(0), (DRAWS,)), np.float64)
    assert np.all(np.abs(draws) <= np.pi * (1 + 1e-6))
    assert_mean(2 * np.sum(np.sin(draws / 2) ** 2, axis=1), mean)


def check_two_valleys(along, log_noise, power, sharp):
    landscape = TwoValleyLandscape(sharp_width=sharp)
    (g1, g2), (f1, f2) = landscape.widths(along), landscape.flatness(along)
    level = 10.0**log_noise * min(g1, g2) ** 2 / (2 / f2) ** (power - 1)
    law = TwoValleyLaw(landscape, along, level, power)
    d1, d2 = level * (2 / f1) ** power, level * (2 / f2) ** power

    # Itô: D p is continuous at the ridge. Both sides as the functions they are, also at x = 0.
    def right(x):
        return -x * (x - g1) / f1 / d1 - np.log(d1)

    def left(x):
        return -x * (x + g2) / f2 / d2 - np.log(d2)

    top = max(right(g1 / 2), left(-g2 / 2))
    reach = [g1 / 2 + 9 * np.sqrt(d1 * f1 / 2), g2 / 2 + 9 * np.sqrt(d2 * f2 / 2)]
    sides = [
        integrals(lambda x: right(x) - top, np.linspace(0, reach[0], 40), 0.0, reach[0]),
        integrals(lambda x: left(x) - top, np.linspace(-reach[1], 0, 40), -reach[1], 0.0),
    ]
    (over_right, flat), (over_left, steep) = sides
    whole = flat + steep

    def expected(function):
        return (over_right(0.0, reach[0], function) + over_left(-reach[1], 0.0, function)) / whole

    assert abs(law.flat_probability() - flat / whole) < ROUNDING
    mean = expected(lambda x: x)
    assert abs(law.mean()[0] - mean) < ROUNDING * (g1 + g2)
    spread = expected(lambda x: (x - mean) ** 2)
    assert abs(law.covariance()[0, 0] - spread) < ROUNDING * (g1 + g2) ** 2
    for level, x in zip(LEVELS, law.quantile(LEVELS)[:, 0], strict=True):
        below = over_left(-reach[1], min(x, 0.0)) + (over_right(0.0, x) if x > 0 else 0.0)
        assert abs(below / whole - level) < ROUNDING
    at = np.array([0.6 * g1])
    assert abs(law.log_density(at) - (right(at[0]) - top - np.log(whole))) < 1e-8
    drawn = np.asarray(law.draw(jax.random.key(0), (DRAWS,)), np.float64)
    assert kstest(law.cdf(drawn)[:, 0], "uniform").pvalue > 1e-4


def check_two_basins(log_temperature):
    temperature = 10.0**log_temperature
    law = TwoBasinGibbs(temperature)
    # Inside the ellipse 9u² + 99(v − c)² = K the sharp parabola is lower; rays from its minimum.
    c = 2 * np.sqrt(2) / 99
    angle = 2 * np.pi * np.arange(1200) / 1200
    a = 9 * np.cos(angle) ** 2 + 99 * np.sin(angle) ** 2
    b = 99 * c * np.sin(angle)
    edge = (b + np.sqrt(b**2 + 8 * a)) / a
    scale = np.sqrt(temperature / (20 * np.cos(angle) ** 2 + 200 * np.sin(angle) ** 2))
    # Panels in deviations of the sharp basin, up to the edge.
    ends = np.minimum(np.linspace(0, 12, 13)[:, None] * scale, edge)
    ends = np.concatenate([ends, edge[None]])
    length = np.diff(ends, axis=0)[..., None]
    r = ends[:-1, :, None] + length * (1 + NODES) / 2
    u, v = r * np.cos(angle)[:, None], r * np.sin(angle)[:, None]
    sharp = 10 * u**2 + 100 * v**2
    flat = u**2 + v**2 + 8 + 4 * np.sqrt(2) * v
    rise = np.exp(-sharp / temperature) - np.exp(-flat / temperature)
    inside = np.sum(length * WEIGHTS / 2 * r * rise) * 2 * np.pi / len(angle)
    whole = np.pi * temperature + inside
    stated = float(law.error_estimate) + ROUNDING
    assert stated < 1e-5
    assert abs(law.log_normalizer() - np.log(whole)) < stated + 1e-8
    drawn = np.asarray(law.draw(jax.random.key(0), (DRAWS,)), np.float64)
    outside = np.sum(length * WEIGHTS / 2 * r * np.exp(-sharp / temperature))
    share = 1 - outside * 2 * np.pi / len(angle) / whole
    w = drawn - 1
    u, v = (w[:, 0] - w[:, 1]) / np.sqrt(2), (w[:, 0] + w[:, 1]) / np.sqrt(2)
    assert_mean(9 * u**2 + 99 * (v - c) ** 2 > 8 + 99 * c**2, share)


CHECKS = {
    "strata": (
        check_strata,
        {"above": st.floats(0.3, 30), "log_saturation": st.floats(-4, 4)},
        3,
    ),
    "torus": (
        check_torus,
        {"codimension": st.integers(3, 7), "factor": st.floats(1.1, 8)},
        2,
    ),
    "two_valleys": (
        check_two_valleys,
        {
            "along": st.floats(0.5, 50),
            "log_noise": st.floats(-4, 1),
            "power": st.sampled_from([0.0, 1.0, 2.0]),
            "sharp": st.floats(0.3, 0.79),
        },
        3,
    ),
    "two_basins": (check_two_basins, {"log_temperature": st.floats(-3, 1)}, 2),
}


@pytest.mark.parametrize("name", CHECKS)
def test_few_random_settings(name):
    check, arguments, examples = CHECKS[name]
    settings(max_examples=examples)(given(**arguments)(check))()


@pytest.mark.slow
@pytest.mark.parametrize("name", CHECKS)
def test_many_random_settings(name):
    check, arguments, _ = CHECKS[name]
    settings(max_examples=40)(given(**arguments)(check))()
