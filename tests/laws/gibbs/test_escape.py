import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.integrate import quad
from scipy.linalg import eigh_tridiagonal
from scipy.special import ndtr

from statsgd.laws.gibbs.curvature_noise_escape import (
    PiecewiseDiffusion,
    curvature_noise_escape_time,
    curvature_noise_scale,
)
from statsgd.laws.gibbs.escape import (
    barrier_exponent_1d,
    kramers_escape_time,
    langer_escape_time,
    mean_first_passage_1d,
)
from statsgd.laws.gibbs.gibbs import gibbs_temperature
from statsgd.laws.gibbs.relaxation import relaxation_gap_1d
from statsgd.problems import landscape
from statsgd.problems.landscapes import (
    quadratic,
    quartic_wells,
    shifted_tilted_quartic,
    smooth_wells,
    tilted_quartic,
    valley_wells,
)

WELLS, QUARTIC, TILTED = smooth_wells(), quartic_wells(), tilted_quartic()
FLAT, SHARP, SADDLE = np.array([0.0]), np.array([1.0]), np.array([0.6585913])
A, B, OTHER, INFLECTION = -2.9035340278, 0.1567312568, 2.7468027710, -1.6329931619


def test_kramers():
    # (2π/√(|h_s| h_a)) exp(ΔL/τ)
    assert_allclose(kramers_escape_time(WELLS, FLAT, SADDLE, 0.02), 374.989, rtol=2e-6)
    assert_allclose(kramers_escape_time(WELLS, SHARP, SADDLE, 0.02), 124.996, rtol=5e-6)
    minimum, saddle = np.array([-1.0]), np.array([0.0])
    assert_allclose(kramers_escape_time(QUARTIC, minimum, saddle, 0.1), 54.125, rtol=1e-5)
    assert_allclose(kramers_escape_time(QUARTIC, minimum, saddle, 0.05), 659.38, rtol=1e-5)
    for temperature, value in ((4.0, 5039.048), (6.0, 189.5825)):
        time = kramers_escape_time(TILTED, np.array([A]), np.array([B]), temperature)
        assert_allclose(time, value, rtol=1e-6)


@pytest.mark.parametrize(("learning_rate", "chain"), [(0.02, 146.96), (0.04, 141.55)])
def test_discrete_correction_of_kramers(learning_rate, chain):
    # exact SDE time 152.376 times 1 + (η/4)(Tr H_s + 2|h_s| − Tr H_a)
    plain = kramers_escape_time(WELLS, SHARP, SADDLE, 0.02)
    corrected = kramers_escape_time(WELLS, SHARP, SADDLE, 0.02, learning_rate=learning_rate)
    assert_allclose(152.376 * corrected / plain, chain, atol=6e-3)


def test_kramers_in_the_plane():
    # (2π/1) √(1·5/(2·1)) exp(0.25/τ) from the flat well, Hessians diag(−1, 5) and diag(2, 1)
    time = kramers_escape_time(valley_wells(), np.array([-1.0, 0]), np.array([0.0, 0]), 0.05)
    assert_allclose(time, 2 * np.pi * np.sqrt(2.5) * np.exp(5.0), rtol=1e-6)


@pytest.mark.parametrize(
    ("problem", "temperature", "start", "target", "time"),
    # Nested adaptive quadrature of (1/τ)∫e^{L/τ}∫e^{−L/τ} with another integrator.
    [
        (WELLS, 0.02, 0.0, 1.0, 410.6216134),
        (WELLS, 0.02, 1.0, 0.0, 152.3763),
        (QUARTIC, 0.1, -1.0, 1.0, 66.26862636),
        (QUARTIC, 0.05, -1.0, 1.0, 729.6706919),
        (QUARTIC, 0.1, -1.0, 0.0, 30.82130247),
        (QUARTIC, 0.05, -1.0, 0.0, 361.9037595),
        (TILTED, 4.0, A, B, 2599.977551),
        (TILTED, 6.0, A, B, 100.2322821),
        (TILTED, 4.0, A, OTHER, 5308.13),
        (TILTED, 6.0, A, OTHER, 206.610),
    ],
)
def test_exact_passage_times(problem, temperature, start, target, time):
    assert_allclose(mean_first_passage_1d(problem, temperature, start, target), time, rtol=2e-6)


def test_passage_to_the_saddle_is_half_of_the_way():
    there = mean_first_passage_1d(QUARTIC, 0.02, -1.0, 1.0)
    half = mean_first_passage_1d(QUARTIC, 0.02, -1.0, 0.0)
    assert_allclose(half / there, 0.5, rtol=1e-3)


def test_passage_of_an_ornstein_uhlenbeck_process():
    # √(2π) ∫₀¹ Φ(y) e^{y²/2} dy at unit variance and rate
    expected = quad(lambda y: np.sqrt(2 * np.pi) * ndtr(y) * np.exp(y**2 / 2), 0, 1)[0]
    assert_allclose(mean_first_passage_1d(quadratic([[1.0]]), 1.0, 0.0, 1.0), expected, rtol=1e-8)


def notched(params):
    """A bowl with a narrow notch on the way and a kink."""
    x = params[0]
    notch = 0.12 * jnp.exp(-(((x - 0.31) / 4e-4) ** 2) / 2)
    return x**2 / 2 - notch + 0.1 * jnp.abs(x - 0.7)


@pytest.mark.parametrize("calculus", ["ito", pytest.param("fick", marks=pytest.mark.slow)])
def test_passage_over_a_notch_and_an_unannounced_jump_of_the_diffusion(calculus):
    # A notch of width 4·10⁻⁴ and depth 12 temperatures holds a fifth of the mass.
    def diffusion(x):
        return np.where(x < 0.1234, 0.01, 0.02)

    def slope(x):
        notch = 0.12 * np.exp(-(((x - 0.31) / 4e-4) ** 2) / 2)
        return x + notch * (x - 0.31) / 4e-4**2 + 0.1 * np.sign(x - 0.7)

    # Far finer than any structure, with every jump at a knot.
    cuts = [-1.0, 0.1234, 0.30, 0.32, 0.7, 1.0]
    x = np.concatenate([np.linspace(*pair, 200_001)[:-1] for pair in itertools.pairwise(cuts)])
    x = np.append(x, 1.0)
    middle, step = (x[1:] + x[:-1]) / 2, np.diff(x)
    d = diffusion(middle)
    psi = np.cumsum(slope(middle) / d * step) - slope(middle) / d * step / 2
    inner = np.exp(-psi) / (d if calculus == "ito" else 1) * step
    outer = np.exp(psi) / (1 if calculus == "ito" else d) * step
    before = np.cumsum(inner) - inner / 2
    expected = np.sum((outer * before)[middle > -0.5])

    def in_jax(params):
        return jnp.where(params[0] < 0.1234, 0.01, 0.02)

    time = mean_first_passage_1d(
        landscape(notched, np.zeros(1)), in_jax, -0.5, 1.0, calculus=calculus
    )
    assert_allclose(time, expected, rtol=2e-6)


@pytest.mark.parametrize(
    ("problem", "temperature", "start", "target", "learning_rate", "level"),
    [(QUARTIC, 0.1, -1.0, 0.0, 0.02, 33.62), (TILTED, 6.0, A, B, 0.0005, 105.98)],
)
def test_shifted_level(problem, temperature, start, target, learning_rate, level):
    # The level moves outward by 0.5826 √(2ητ).
    time = mean_first_passage_1d(problem, temperature, start, target, learning_rate=learning_rate)
    assert_allclose(time, level, atol=6e-3)
    moved = target + 0.5826 * np.sqrt(2 * learning_rate * temperature)
    assert_allclose(time, mean_first_passage_1d(problem, temperature, start, moved), rtol=1e-9)


def test_chain_passes_the_shifted_level():
    # SGD with C = cI at η = 0.02, τ = 0.1: exact chain 33.41, SDE 30.82. 4000 chains: 1.6 %.
    rng = np.random.default_rng(0)
    x, times = np.full(4000, -1.0), np.zeros(4000)
    alive = np.arange(4000)
    for step in range(1, 40_000):
        y = x[alive]
        y = y - 0.02 * (y**3 - y) + np.sqrt(2 * 0.02 * 0.1) * rng.standard_normal(len(y))
        x[alive] = y
        times[alive[y > 0]] = 0.02 * step
        alive = alive[y <= 0]
        if not len(alive):
            break
    assert not len(alive)
    shifted = mean_first_passage_1d(QUARTIC, 0.1, -1.0, 0.0, learning_rate=0.02)
    error = times.std() / np.sqrt(len(times))
    assert abs(times.mean() - 33.41) < 4 * error < 0.1 * 33.41
    assert abs(times.mean() - shifted) < 4 * error


@pytest.mark.parametrize(
    ("problem", "temperature", "gap", "tolerance"),
    [
        (WELLS, 0.02, 0.00930206, 1e-6),
        (WELLS, 0.01, 1.21680e-4, 5e-6),
        (WELLS, 0.005, 1.87004e-8, 3e-5),
        (QUARTIC, 0.1, 0.0335453, 2e-6),
        (QUARTIC, 0.05, 0.00277614, 2e-6),
        (quadratic([[2.0]]), 0.1, 2.0, 1e-9),
    ],
)
def test_relaxation_gap(problem, temperature, gap, tolerance):
    assert_allclose(relaxation_gap_1d(problem, temperature), gap, rtol=tolerance)


@pytest.mark.parametrize("temperature", [0.003, 0.0005])
def test_tiny_gaps_are_the_sum_of_inverse_passage_times(temperature):
    # Far below what rounding leaves of an eigenvalue: 10⁻¹³ and 10⁻⁷⁷.
    times = [mean_first_passage_1d(WELLS, temperature, *ends) for ends in ((0.0, 1.0), (1.0, 0.0))]
    assert_allclose(relaxation_gap_1d(WELLS, temperature), sum(1 / np.array(times)), rtol=1e-9)


def test_the_gap_of_a_notch_and_a_kink():
    # Finite volumes on cells far smaller than the notch, twelve temperatures deep.
    cuts = (-1.0, 0.305, 0.315, 1.2)
    parts = [np.linspace(*pair, 1000, endpoint=False) for pair in itertools.pairwise(cuts)]
    edges = np.append(np.concatenate(parts), cuts[-1])
    x, step = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
    losses = [
        place**2 / 2
        - 0.12 * np.exp(-(((place - 0.31) / 4e-4) ** 2) / 2)
        + 0.1 * np.abs(place - 0.7)
        for place in (x, edges[1:-1])
    ]
    weight, at_edges = (np.exp(-(loss + 0.05) / 0.01) for loss in losses)
    conductance, mass = 0.01 * at_edges / np.diff(x), weight * step
    diagonal = np.append(conductance, 0) + np.append(0, conductance)
    off = -conductance / np.sqrt(mass[1:] * mass[:-1])
    values = eigh_tridiagonal(diagonal / mass, off, select="i", select_range=(0, 1))[0]
    gap = relaxation_gap_1d(landscape(notched, np.zeros(1)), 0.01)
    assert_allclose(gap, values[1], rtol=1e-3)


def test_gap_is_near_the_sum_of_kramers_rates():
    for temperature, value in ((0.02, 0.0106670), (0.01, 1.29927e-4), (0.005, 1.92758e-8)):
        rates = [1 / kramers_escape_time(WELLS, a, SADDLE, temperature) for a in (FLAT, SHARP)]
        assert_allclose(sum(rates), value, rtol=5e-6)


def test_momentum():
    # η = 0.01, β = 0.9, c = 2: τ_m = 0.1, μ = 1, λ₊ = 0.618034
    temperature = gibbs_temperature(0.01, 2.0, 0.9)
    assert_allclose(temperature, 0.1)
    minimum, saddle = np.array([-1.0]), np.array([0.0])
    time = langer_escape_time(QUARTIC, minimum, saddle, temperature, 0.01, 0.9)
    assert_allclose(time / np.sqrt(0.01), 875.8, atol=0.05)
    assert_allclose(2 / time, 0.0228371, rtol=3e-6)  # both wells
    # Overdamped: λ₊ → |h_s|/μ, so steps → (1−β)/η times the SGD time.
    overdamped = langer_escape_time(QUARTIC, minimum, saddle, 0.1, 1e-6, 0.9)
    sgd = kramers_escape_time(QUARTIC, minimum, saddle, 0.1)
    assert_allclose(overdamped / np.sqrt(1e-6), 0.1 / 1e-6 * sgd, rtol=2e-4)


def test_curvature_noise():
    s, scale = 0.4396628, 0.3
    path = TILTED, np.array([A]), np.array([B]), scale
    fick = curvature_noise_escape_time(*path, switch=s, prefactor="fick")
    assert_allclose(fick, 217.085, rtol=2e-6)  # (2π/15.8526119) e^6.305747
    ito = curvature_noise_escape_time(*path, switch=s)
    assert_allclose(ito / fick, 15.8526119 / 34.5830591, rtol=1e-6)
    piecewise = PiecewiseDiffusion(scale * 34.5830591, scale * 15.8526119, INFLECTION)
    passage = mean_first_passage_1d(TILTED, piecewise, A, B, breaks=(INFLECTION,))
    assert_allclose(passage, 54.1531, atol=6e-5)
    assert_allclose(2 * passage / ito, 1.0884, atol=5.1e-5)
    other = mean_first_passage_1d(TILTED, piecewise, A, B, breaks=(INFLECTION,), calculus="fick")
    assert_allclose(2 * other / fick, 1.0445, atol=5.1e-5)


def test_curvature_noise_slopes():
    # log T is linear in S, and flat minima win exponentially where white noise gives a power.
    def time(problem, batch):
        scale = curvature_noise_scale(0.02, 600.0, batch)
        return curvature_noise_escape_time(problem, np.array([A]), np.array([B]), scale)

    logs = np.log([time(TILTED, batch) for batch in (10, 20, 30)])
    assert_allclose(logs[1] - logs[0], logs[2] - logs[1], rtol=1e-9)
    # ΔL = 1, s = ½, q̂ = 0.1, H = (1, 4): exp[(sΔL/q̂)(1 − ¼)] against √4
    assert_allclose(np.exp(0.5 / 0.1 * (1 / 1 - 1 / 4)), 42.52, atol=6e-3)


def test_data_shift_exponent():
    # ∫_a^b L'/V with V = s²(6θ²+6s²−16)² + 72θ²s⁴ + 24s⁶, and 2S/η times it
    problem = shifted_tilted_quartic(1.0)

    def variance(params):
        return (6 * params[0] ** 2 - 10) ** 2 + 72 * params[0] ** 2 + 24

    assert_allclose(variance(np.array([-2.351910])), 959.9917, rtol=1e-6)
    assert_allclose(variance(np.array([0.253248])), 121.0696, rtol=1e-6)
    integral = barrier_exponent_1d(problem, variance, -2.351910, 0.253248)
    assert_allclose(integral, 0.1211879, rtol=1e-6)
    exponent = barrier_exponent_1d(
        problem, lambda p: 0.01 / (2 * 10) * variance(p), -2.351910, 0.253248
    )
    assert_allclose(exponent, 242.376, rtol=2e-6)


def test_refusals():
    with pytest.raises(ValueError, match=r"diffusion vanishes at -1\.63299: use a piecewise"):
        mean_first_passage_1d(TILTED, lambda p: jnp.abs(6 * p[0] ** 2 - 16), A, B)
    with pytest.raises(ValueError, match="exactly one negative eigenvalue, got 0"):
        kramers_escape_time(QUARTIC, np.array([-1.0]), np.array([1.1]), 0.05)
    with pytest.warns(UserWarning, match=r"barrier/temperature = 1\.25 < 2"):
        kramers_escape_time(QUARTIC, np.array([-1.0]), np.array([0.0]), 0.2)
    slope = landscape(lambda params: -params[0], np.zeros(1))
    with pytest.raises(ValueError, match="start must be confined"):
        mean_first_passage_1d(slope, 0.1, 0.0, -1.0)
    with pytest.raises(ValueError, match="target must differ from start"):
        mean_first_passage_1d(QUARTIC, 0.1, 0.0, 0.0)
    with pytest.raises(ValueError, match=r"switch must be in \(0, 1\)"):
        curvature_noise_escape_time(TILTED, np.array([A]), np.array([B]), 0.3, switch=1.0)
