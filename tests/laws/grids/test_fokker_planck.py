import itertools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import i0e, i1e

from statsgd import SGD, ImproperLawError, noise, problems
from statsgd.laws import FokkerPlanckLaw
from statsgd.laws.grids import Grid, GridWarning
from tests.laws.examples import example

SADDLE = 0.6585913  # of smooth_wells


def smooth_wells(x):
    # Minima at 0 (curvature 1) and 1 (curvature 9), equal heights.
    return 0.5 * (x * (1 - x) * (1 + 2 * x**2)) ** 2


def down(loss):
    """−∇L of a loss of one number, as a drift of shape (1,)."""
    return lambda x: -jax.vmap(jax.grad(loss))(x)


def through(left, right, steps, margin_left, margin_right):
    """A grid with midpoints at `left` and `right`, `steps` cells apart."""
    h = (right - left) / steps
    before, after = int(np.ceil(margin_left / h)), int(np.ceil(margin_right / h))
    return Grid(left - (before + 0.5) * h, right + (after + 0.5) * h, before + after + steps + 1)


def at_most(law, x):
    return float(law.cdf(np.full(law.dimension, x))[0])


# --- Gibbs laws in one dimension -------------------------------------------------------------


@pytest.mark.parametrize(
    ("temperature", "expected"), [(0.05, 0.710365), (0.02, 0.733882), (0.01, 0.743155)]
)
def test_wells_have_the_gibbs_weights(temperature, expected):
    # P(x < saddle) of exp(−L/τ) by quadrature.
    law = FokkerPlanckLaw(
        down(smooth_wells), [[1.0]], 2 * temperature, through(SADDLE, 1.4, 1000, 1.6, 0.01)
    )
    edge = SADDLE - law.grid.spacing[0] / 2
    value = (at_most(law, edge) + at_most(law, edge + law.grid.spacing[0])) / 2
    assert value == pytest.approx(expected, abs=2e-5)
    assert law.error_estimate < 1e-3


def test_convergence_in_one_dimension_is_of_second_order():
    # Quartic double well with noise that varies: p = exp(−∫L'/D)/D by quadrature.
    def diffusion(x):
        return 0.1 * (1 + 0.5 * np.sin(2 * x))

    def phase(x):
        return quad(lambda s: (s**3 - s) / diffusion(s), 0, x, epsabs=1e-12)[0]

    def density(x):
        return np.exp(-phase(x)) / diffusion(x)

    total = quad(density, -2.4, 2.4, epsabs=1e-11, limit=200)[0]
    second = quad(lambda x: x**2 * density(x), -2.4, 2.4, epsabs=1e-11, limit=200)[0] / total
    errors, estimates = [], []
    for cells in (64, 128, 256):
        law = FokkerPlanckLaw(
            lambda x: x - x**3,
            lambda x: 0.2 * (1 + 0.5 * jnp.sin(2 * x))[:, None],
            1.0,
            Grid(-2.4, 2.4, cells),
        )
        found = law.expectation_estimate(lambda x: x[0] ** 2)
        errors.append(abs(found.value - second))
        assert errors[-1] < found.standard_error < 20 * errors[-1]
        estimates.append(law.error_estimate)
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    np.testing.assert_allclose(orders, 2, atol=0.1)
    np.testing.assert_allclose(np.log2(estimates[0] / estimates[2]) / 2, 2, atol=0.2)


def test_error_estimate_is_the_error():
    # Against the exact cell masses of exp(−L/τ).
    law = FokkerPlanckLaw(lambda x: x - x**3, [[0.2]], 1.0, Grid(-2.2, 2.2, 100))

    def density(x):
        return np.exp(-(x**4 / 4 - x**2 / 2) / 0.1)

    edges = law.grid.edges()
    exact = np.array([quad(density, a, b)[0] for a, b in itertools.pairwise(edges)])
    error = 0.5 * np.abs(law.masses - exact / exact.sum()).sum()
    assert 0.5 < law.error_estimate / error < 2


@pytest.mark.parametrize(("strength", "expected"), [(0.02, 0.905783), (0.005, 0.995928)])
def test_noise_that_varies_changes_the_weights_of_the_wells(strength, expected):
    # v₁ = 1.5 + 0.5 tanh(3(x − 0.5)), η/(2S) = strength: Itô density exp(−Φ/strength)/v₁.
    law = FokkerPlanckLaw(
        down(smooth_wells),
        lambda x: (1.5 + 0.5 * jnp.tanh(3 * (x - 0.5)))[:, None],
        2 * strength,
        Grid(SADDLE - 1.5, SADDLE + 0.9, 3200),
    )
    assert at_most(law, SADDLE) == pytest.approx(expected, abs=3e-5)


def test_loss_scaled_noise_in_wells_of_equal_height():
    # v₁ = 1 + 2L, η/(2S) = 0.01: p ∝ (1 + 2L)^(−1−S/η).
    law = FokkerPlanckLaw(
        down(smooth_wells),
        lambda x: (1 + 2 * smooth_wells(x))[:, None],
        0.02,
        Grid(SADDLE - 1.5, SADDLE + 0.9, 2400),
    )
    assert at_most(law, SADDLE) == pytest.approx(0.743042, abs=2e-5)


@pytest.mark.parametrize(("rate", "expected"), [(0.1, 0.0526316), (0.4, 0.25)])
def test_multiplicative_noise_gives_student_t(rate, expected):
    # v₁ = 1 + x², L = x²/2, S = 1: Student-t, ν = 1 + 2/η, Var = 1/(ν − 2).
    law = FokkerPlanckLaw(lambda x: -x, lambda x: (1 + x**2)[:, None], rate, Grid(-25, 25, 20000))
    assert law.covariance()[0, 0] == pytest.approx(expected, rel=4e-5)


def test_floored_loss_scaled_noise():
    # d = 1, h = 1, ε = ησ = 0.8, c₀ = 0.5: ν = 6, Var 0.25, P(|θ| > 2) = 0.00271368.
    law = FokkerPlanckLaw(
        lambda x: -x, lambda x: (80 * (x**2 / 2 + 0.5))[:, None], 0.01, Grid(-40, 40, 32000)
    )
    assert law.covariance()[0, 0] == pytest.approx(0.25, rel=1e-5)
    assert 2 * at_most(law, -2.0) == pytest.approx(0.00271368, rel=1e-4)


@pytest.mark.parametrize(("rate", "expected"), [(0.2, 0.125), (0.1, 0.0555556)])
def test_label_noise_regression_variance(rate, expected):
    # C = 2θ² + s², s = 1, S = 1: Var_SDE = ηs²/(2 − 2η).
    law = FokkerPlanckLaw(
        lambda x: -x, lambda x: (2 * x**2 + 1)[:, None], rate, Grid(-15, 15, 16000)
    )
    assert law.covariance()[0, 0] == pytest.approx(expected, rel=2e-5)


@pytest.mark.parametrize(("ratio", "expected"), [(0.2, 0.00206732), (0.5, 0.117062)])
def test_kinked_floor_wells(ratio, expected):
    # min((x+1)²/2 + 0.10, 9(x−1)²/2 + 0.05), C = σL: weights det(H)^(−1/2) c^(1/2−α). The kink
    # lies on an edge of cells.
    crossing = float(np.roots([8 / 2, -10, 8 / 2 - 0.05])[1])

    def loss(x):
        return jnp.where(x < crossing, (x + 1) ** 2 / 2 + 0.10, 9 * (x - 1) ** 2 / 2 + 0.05)

    law = FokkerPlanckLaw(
        down(loss), lambda x: loss(x)[:, None], ratio, Grid(crossing - 12, crossing + 4, 32000)
    )
    assert at_most(law, crossing) == pytest.approx(expected, rel=2e-3)


def test_smooth_floor_wells():
    # L = 0.05 + wells, ε = 0.5: p ∝ L^(−1−2/ε), 0.739192 left of the saddle by quadrature.
    def loss(x):
        return 0.05 + smooth_wells(x)

    law = FokkerPlanckLaw(
        down(loss), lambda x: loss(x)[:, None], 0.5, Grid(SADDLE - 2, SADDLE + 1.5, 7000)
    )
    assert at_most(law, SADDLE) == pytest.approx(0.739192, abs=2e-5)


@pytest.mark.parametrize(
    ("temperature", "raised", "expected"),
    [(0.2, 0.0, 0.75), (0.02, 0.05, 0.197596), (0.1, 0.05, 0.645339)],
)
def test_kinked_gibbs_wells(temperature, raised, expected):
    # min((x+1)²/2 + Δ, 9(x−1)²/2): P(flat) = 3/4 for every τ without Δ.
    crossing = float(np.roots([4.0, -10.0, 4.0 - raised])[1])

    def loss(x):
        return jnp.where(x < crossing, (x + 1) ** 2 / 2 + raised, 9 * (x - 1) ** 2 / 2)

    law = FokkerPlanckLaw(
        down(loss), [[2 * temperature]], 1.0, Grid(crossing - 5.5, crossing + 2.5, 8000)
    )
    assert at_most(law, crossing) == pytest.approx(expected, abs=3e-5)


# --- relaxation, escape and exit in one dimension ---------------------------------------------


@pytest.mark.parametrize(
    # The last by quadrature of the inverse passage times between the minima.
    ("temperature", "expected"),
    [(0.02, 0.00930206), (0.01, 1.21680e-4), (0.005, 1.87006e-8)],
)
def test_spectral_gap_of_the_wells(temperature, expected):
    law = FokkerPlanckLaw(down(smooth_wells), [[1.0]], 2 * temperature, Grid(-0.9, 1.5, 3000))
    assert law.spectral_gap() == pytest.approx(expected, rel=4e-4)


@pytest.mark.parametrize(("temperature", "expected"), [(0.1, 0.0335453), (0.05, 0.00277614)])
def test_spectral_gap_of_the_quartic(temperature, expected):
    law = FokkerPlanckLaw(lambda x: x - x**3, [[2 * temperature]], 1.0, Grid(-2.2, 2.2, 3000))
    assert law.spectral_gap() == pytest.approx(expected, rel=2e-5)


def test_escape_times_of_the_wells():
    # T(a→b) = (1/τ)∫∫ exp((L(y) − L(z))/τ), τ = 0.02.
    law = FokkerPlanckLaw(down(smooth_wells), [[1.0]], 0.04, through(0.0, 1.0, 2000, 0.9, 0.5))
    assert law.mean_first_passage(lambda x: x[0] > 1 - 1e-9, [0.0]) == pytest.approx(
        410.620, rel=3e-5
    )
    assert law.mean_first_passage(lambda x: x[0] < 1e-9, [1.0]) == pytest.approx(152.376, rel=3e-5)


@pytest.mark.parametrize(
    ("temperature", "across", "to_saddle"), [(0.1, 66.26863, 30.82130), (0.05, 729.670, 361.904)]
)
def test_escape_times_of_the_quartic(temperature, across, to_saddle):
    # T(a→b) = (1/τ)∫∫ exp((L(y) − L(z))/τ) by adaptive quadrature.
    law = FokkerPlanckLaw(
        lambda x: x - x**3, [[2 * temperature]], 1.0, through(-1.0, 1.0, 4000, 1.3, 1.3)
    )
    assert law.mean_first_passage(lambda x: x[0] > 1 - 1e-9, [-1.0]) == pytest.approx(
        across, rel=2e-5
    )
    assert law.mean_first_passage(lambda x: x[0] > -1e-9, [-1.0]) == pytest.approx(
        to_saddle, rel=2e-5
    )


def test_mass_reaches_the_flat_well_in_time():
    # P(flat) at t = 10, 100, 1000 from the sharp minimum, τ = 0.02; and 0.696 at t = 320, η = 0.04
    # c = 1, which is the same diffusion.
    law = FokkerPlanckLaw(down(smooth_wells), [[1.0]], 0.04, through(SADDLE, 1.0, 300, 1.5, 0.5))
    start = np.zeros(law.grid.cells)
    start[law.grid.locate(np.array([1.0]))[0]] = 1
    left = law.grid.centres() < SADDLE - 1e-9
    saddle = law.grid.locate(np.array([SADDLE]))[0]
    for time, expected in ((10, 0.0633), (100, 0.4436), (320, 0.696), (1000, 0.7339)):
        masses = law.evolve(start, time)
        assert masses.sum() == pytest.approx(1, abs=1e-7)
        digits = 5e-4 if time == 320 else 6e-5
        assert masses[left].sum() + masses[saddle] / 2 == pytest.approx(expected, abs=digits + 1e-4)


def test_evolution_of_a_gaussian():
    # Ornstein–Uhlenbeck from a point: variance τ(1 − e^(−2t)), mean e^(−t).
    law = FokkerPlanckLaw(lambda x: -x, [[0.5]], 1.0, through(0.0, 1.0, 200, 4.0, 3.0))
    start = np.zeros(law.grid.cells)
    start[law.grid.locate(np.array([1.0]))[0]] = 1
    masses = law.evolve(start, 0.7)
    x = law.grid.centres()
    mean = masses @ x
    assert mean == pytest.approx(np.exp(-0.7), abs=1e-5)
    assert masses @ (x - mean) ** 2 == pytest.approx(0.25 * (1 - np.exp(-1.4)), rel=1e-4)


QUARTIC_STARTS = (-2.9035340278, 0.1567312568, 2.7468027710)


@pytest.mark.parametrize(
    ("diffusion", "to_saddle", "across"), [(4, 2599.978, 5308.13), (6, 100.2323, 206.610)]
)
def test_white_noise_escape_of_the_tilted_quartic(diffusion, to_saddle, across):
    # f = ½(θ⁴ − 16θ² + 5θ) from its left minimum.
    left, saddle, right = QUARTIC_STARTS

    def drift(x):
        return -(2 * x**3 - 16 * x + 2.5)

    law = FokkerPlanckLaw(drift, [[2.0 * diffusion]], 1.0, through(left, saddle, 2400, 2.0, 5.0))
    assert law.mean_first_passage(lambda x: x[0] > saddle - 1e-9, [left]) == pytest.approx(
        to_saddle, rel=3e-5
    )
    law = FokkerPlanckLaw(drift, [[2.0 * diffusion]], 1.0, through(left, right, 4000, 2.0, 2.0))
    assert law.mean_first_passage(lambda x: x[0] > right - 1e-9, [left]) == pytest.approx(
        across, rel=3e-5
    )


def test_piecewise_curvature_noise_escape():
    # D = q̂|H| frozen at the minimum and at the saddle, switched at the inflection; q̂ = 0.3. The
    # switch lies on an edge and the saddle on a midpoint.
    left, saddle, _ = QUARTIC_STARTS
    switch = -1.6329931619
    h = (saddle - switch) / 3000.5
    n = int(np.ceil((switch + 5) / h))
    grid = Grid(switch - n * h, switch + 3020 * h, n + 3020)
    law = FokkerPlanckLaw(
        lambda x: -(2 * x**3 - 16 * x + 2.5),
        lambda x: 0.6 * jnp.where(x < switch, 34.5830591, 15.8526119)[:, None],
        1.0,
        grid,
        reflecting=True,
    )
    time = law.mean_first_passage(lambda x: x[0] > saddle - 1e-9, [left])
    assert time == pytest.approx(54.1531, rel=2e-5)


@pytest.mark.parametrize(("diffusion", "expected"), [(0.25, 4.501602), (0.1, 66.2282)])
def test_exit_from_a_quadratic_basin(diffusion, expected):
    law = FokkerPlanckLaw(
        lambda x: -x, [[2 * diffusion]], 1.0, through(-1.0, 1.0, 2000, 0.01, 0.01), reflecting=True
    )
    exit_time = law.mean_first_passage(lambda x: jnp.abs(x[0]) > 1 - 1e-9, [0.0])
    assert exit_time == pytest.approx(expected, rel=2e-5)


@pytest.mark.parametrize(("curvature", "expected"), [(0.8, 7.61111), (0.0, 33.1141)])
def test_exit_with_multiplicative_noise(curvature, expected):
    # drift −2(f−1), B² = 0.4(2(f−1)² + 1), and frozen at the centre.
    law = FokkerPlanckLaw(
        lambda x: -2 * (x - 1),
        lambda x: (curvature * (x - 1) ** 2 + 0.4)[:, None],
        1.0,
        through(0.0, 2.0, 2000, 0.01, 0.01),
        reflecting=True,
    )
    exit_time = law.mean_first_passage(lambda x: jnp.abs(x[0] - 1) > 1 - 1e-9, [1.0])
    assert exit_time == pytest.approx(expected, rel=2e-5)


@pytest.mark.parametrize(("level", "expected"), [(1.25, 6.213068), (1.5, 35.63495), (2, 574.1016)])
def test_exit_from_an_outlier_basin(level, expected):
    # L = ½(1 + z²), D = L/β̂, β̂ = 10, from 0 to L = c/2: |z| = √(c − 1).
    radius = np.sqrt(level - 1)
    law = FokkerPlanckLaw(
        lambda z: -z,
        lambda z: ((1 + z**2) / 10)[:, None],
        1.0,
        through(-radius, radius, 2000, 0.01, 0.01),
        reflecting=True,
    )
    time = law.mean_first_passage(lambda z: jnp.abs(z[0]) > radius - 1e-9, [0.0])
    assert time == pytest.approx(expected, rel=3e-5)


def test_log_barrier_escape():
    # L = c₀ + (x²−1)²/4, C = σL, c₀ = 0.05, ε = 0.4: T(−1→1) = 81031.5.
    def loss(x):
        return 0.05 + (x**2 - 1) ** 2 / 4

    law = FokkerPlanckLaw(
        down(loss), lambda x: 0.4 * loss(x)[:, None], 1.0, through(-1.0, 1.0, 3000, 2.0, 2.0)
    )
    time = law.mean_first_passage(lambda x: x[0] > 1 - 1e-9, [-1.0])
    assert time == pytest.approx(81031.5, rel=1e-4)


@pytest.mark.parametrize(("ratio", "expected"), [(1.0, 0.0988087), (4.0, 0.216)])
def test_committor_between_two_zeros_of_the_noise(ratio, expected):
    # L = x²(1−x)²/2, C = σL: P(→1 | 0.3) = I_{0.3}(4/ε + 1, 4/ε + 1).
    def loss(x):
        return x**2 * (1 - x) ** 2 / 2

    law = FokkerPlanckLaw(
        down(loss), lambda x: ratio * loss(x)[:, None], 1.0, Grid(0.0, 1.0, 1000), reflecting=True
    )
    value = law.committor(lambda x: x[0] > 0.999, lambda x: x[0] < 0.001, [0.3])
    assert value == pytest.approx(expected, rel=1e-3)


# --- two valleys at a frozen position: D jumps at the ridge -----------------------------------


def two_valleys(y):
    def width(x0):
        return x0**2 * (y + 20) ** 2 / (y + 30) ** 2

    def gap(x0):
        return 2 * x0 * y / (y + 30)

    return width(0.8), width(0.65), gap(0.8), gap(0.65)


def frozen_law(y, level, power=1, cells=4000, box=None):
    f1, f2, g1, g2 = two_valleys(y)

    def drift(x):
        return -jnp.where(x > 0, (2 * x - g1) / f1, (2 * x + g2) / f2)

    def covariance(x):
        return 2 * level * (jnp.where(x > 0, 2 / f1, 2 / f2) ** power)[:, None]

    reach = 9 * np.sqrt(level * max(1, (2 / f2) ** (power - 1)))
    low, high = (-g2 / 2 - reach, g1 / 2 + reach) if box is None else box
    h = (high - low) / cells
    below, above = int(np.ceil(-low / h)), int(np.ceil(high / h))
    return FokkerPlanckLaw(drift, covariance, 1.0, Grid(-below * h, above * h, below + above))


@pytest.mark.parametrize(
    ("y", "level", "power", "expected"),
    [
        (5, 1e-3, 1, 0.93315),
        (3, 1e-3, 1, 0.79160),
        (10, 5e-3, 1, 0.85609),
        (5, 2e-4, 2, 0.97456),
        (5, 0.04 / 6, 0, 0.55172),
    ],
)
def test_frozen_valleys_have_the_ito_weights(y, level, power, expected):
    law = frozen_law(y, level, power)
    assert 1 - at_most(law, 0.0) == pytest.approx(expected, abs=1.5e-5)


def test_frozen_wells_have_the_same_variance():
    law = frozen_law(5, 1e-3)
    x, p = law.grid.centres(), law.masses
    for side, mean, deviation in ((x > 0, 0.114304, 0.031590), (x < 0, -0.093027, 0.031372)):
        weight = p[side] / p[side].sum()
        centre = weight @ x[side]
        assert centre == pytest.approx(mean, abs=2e-6)
        assert np.sqrt(weight @ (x[side] - centre) ** 2) == pytest.approx(deviation, abs=2e-6)


@pytest.mark.parametrize(
    ("y", "level", "flat", "sharp", "rate"),
    [(5, 1e-3, 85.763, 7.963, 0.07647), (10, 2e-3, 2356.86, 66.564, 0.00863)],
)
def test_hopping_between_frozen_valleys(y, level, flat, sharp, rate):
    # Mean times from the well bottoms to the ridge, and the relaxation rate over it.
    f1, f2, g1, g2 = two_valleys(y)
    for width, gap, expected in ((f1, g1, flat), (f2, g2, sharp)):
        one_sided = FokkerPlanckLaw(
            lambda x, width=width, gap=gap: -(2 * x - gap) / width,
            [[4 * level / width]],
            1.0,
            through(0.0, gap / 2, 1000, 0.001, 9 * np.sqrt(level)),
            reflecting=True,
        )
        time = one_sided.mean_first_passage(lambda x: x[0] < 1e-9, [gap / 2])
        assert time == pytest.approx(expected, rel=1e-4)
    assert frozen_law(y, level).spectral_gap() == pytest.approx(rate, abs=6e-6)


# --- two and three dimensions ------------------------------------------------------------------


def test_quadratic_with_noise_that_breaks_detailed_balance_converges_at_second_order():
    # HV + VH = ηC: V_ij = ηC_ij/(h_i + h_j).
    h, c, rate = np.array([1.0, 2.0]), np.array([[1.0, 0.5], [0.5, 1.0]]), 0.1
    exact = rate * c / (h[:, None] + h)
    np.testing.assert_allclose(exact, [[0.05, 0.0166667], [0.0166667, 0.025]], atol=5e-8)
    errors = []
    for cells in (40, 80, 160):
        grid = Grid([-1.3, -1.1], [1.3, 1.1], cells)
        law = FokkerPlanckLaw(lambda x: -h * x, c, rate, grid)
        errors.append(np.abs(law.covariance() - exact).max())
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    np.testing.assert_allclose(orders, 2, atol=0.15)
    assert errors[-1] < 1e-4 * exact[0, 0] * 10
    # The stationary current of a linear SDE is (b − D∇log p)p = (−H + DV⁻¹)x p.
    masses = law.masses
    velocity = law.current() * law.grid.cell_volume / np.maximum(masses, 1e-300)[..., None]
    x = law.grid.points().reshape(*law.grid.cells, 2)
    expected = x @ (-np.diag(h) + rate * c / 2 @ np.linalg.inv(exact)).T
    bulk = masses > 1e-2 * masses.max()
    np.testing.assert_allclose(velocity[bulk], expected[bulk], atol=0.01)


def test_gradient_system_has_no_current():
    law = FokkerPlanckLaw(
        lambda x: -jnp.array([x[0] ** 3 - x[0] + 0.3 * x[1], x[1] + 0.3 * x[0]]),
        0.4 * np.eye(2),
        1.0,
        Grid([-2.6, -2.6], [2.6, 2.6], 60),
    )
    scale = law.masses.max() / law.grid.cell_volume
    assert np.abs(law.current()).max() < 1e-12 * scale


@pytest.mark.parametrize(("temperature", "expected"), [(0.1, 0.732577), (0.05, 0.742904)])
def test_two_dimensional_valley(temperature, expected):
    # L = (x²−1)²/4 + ½k(x)y²: marginal of x ∝ exp(−(x²−1)²/(4τ)) k^(−1/2).
    def loss(x):
        stiffness = 5 + 4 * jnp.tanh(2 * x[0]) / np.tanh(2)
        return (x[0] ** 2 - 1) ** 2 / 4 + stiffness * x[1] ** 2 / 2

    law = FokkerPlanckLaw(
        lambda x: -jax.grad(loss)(x),
        2 * temperature * np.eye(2),
        1.0,
        Grid([-2.2, -2.0], [2.2, 2.0], [200, 200]),
    )
    assert at_most(law, 0.0) == pytest.approx(expected, abs=4e-4)


def ring(a, level, kappa, floor, exponent, cells):
    """Valley h = 2e^(a cos x) y²/2 + b(1 − cos x) on a circle, D_y = D₀e^(exponent·cos x)."""

    def loss(x):
        return jnp.exp(a * jnp.cos(x[0])) * x[1] ** 2 + floor * (1 - jnp.cos(x[0]))

    def covariance(x):
        noise = 2 * level * jnp.exp(exponent * jnp.cos(x[0]))
        return noise * jnp.diag(jnp.array([1 / kappa, 1.0]))

    reach = 7 * np.sqrt(level / 2 * np.exp(a + exponent))
    law = FokkerPlanckLaw(
        lambda x: -jax.grad(loss)(x),
        covariance,
        1.0,
        Grid([-np.pi, -reach], [np.pi, reach], cells, [True, False]),
    )
    return law.expectation(lambda x: -jnp.cos(x[0]))


@pytest.mark.parametrize(
    ("level", "kappa", "floor", "exponent", "expected"),
    [
        pytest.param(0.02, 1, 0, 0, 0.12403, marks=pytest.mark.slow),
        (0.02, 4, 0, 0, 0.44579),
        pytest.param(0.2, 4, 0, 0, 0.44084, marks=pytest.mark.slow),
        (0.2, 10, 0, 0, 0.75516),
        (0.02, 4, 0.01, 0, -0.44616),
        pytest.param(0.02, 4, 0.005, 0, -0.00024, marks=pytest.mark.slow),
        (0.02, 4, 0, 0.5, 0.59581),
        pytest.param(0.2, 4, 0, 0.5, 0.59301, marks=pytest.mark.slow),
    ],
)
def test_ring_valley_matches_the_spectral_solution(level, kappa, floor, exponent, expected):
    # The values are converged Fourier–Hermite solutions of the same equation.
    # Extrapolated to zero spacing, which also checks that the error is of second order.
    coarse, fine = (
        ring(0.5, level, kappa, floor, exponent, cells) for cells in ((40, 80), (80, 160))
    )
    assert fine == pytest.approx(expected, abs=1.5e-3)
    assert (4 * fine - coarse) / 3 == pytest.approx(expected, abs=1e-4)


def test_valley_marginal_with_equal_noise_is_gibbs():
    # h = 2 + 1.5cos x, C = cI: p(x) ∝ h^(−1/2), E cos x = −0.232133 at any temperature.
    def loss(x):
        return (2 + 1.5 * jnp.cos(x[0])) * x[1] ** 2 / 2

    law = FokkerPlanckLaw(
        lambda x: -jax.grad(loss)(x),
        0.1 * np.eye(2),
        1.0,
        Grid([-np.pi, -2.4], [np.pi, 2.4], [100, 200], [True, False]),
    )
    assert law.expectation(lambda x: jnp.cos(x[0])) == pytest.approx(-0.232133, abs=2e-4)


@pytest.mark.slow
def test_noise_that_grows_like_the_root_of_the_loss():
    # C = σ√(1+L)I, L = (x² + 4y²)/2, ε = 0.8: p ∝ (1+L)^(−1/2) exp(−5√(1+L)), E L = 0.48.
    def loss(x):
        return (x[0] ** 2 + 4 * x[1] ** 2) / 2

    law = FokkerPlanckLaw(
        lambda x: -jax.grad(loss)(x),
        lambda x: 0.8 * jnp.sqrt(1 + loss(x)) * jnp.eye(2),
        1.0,
        Grid([-6.5, -3.25], [6.5, 3.25], 200),
    )
    assert law.expectation(loss) == pytest.approx(0.48, rel=2e-3)
    assert law.basin_mass(lambda x: loss(x) < 0.2) == pytest.approx(0.379497, abs=4e-3)


def test_floored_law_in_two_dimensions():
    # H = (1, 4), ε = 0.8, c₀ = 0.5: Var (1/3, 1/12), P(L < 0.5) = 0.8232233. ν = 5.
    def loss(x):
        return (x[0] ** 2 + 4 * x[1] ** 2) / 2

    law = FokkerPlanckLaw(
        lambda x: -jax.grad(loss)(x),
        lambda x: 0.8 * (loss(x) + 0.5) * jnp.eye(2),
        1.0,
        Grid([-12, -6], [12, 6], 240),
    )
    # The box cuts a tail of relative variance (Var beyond 12) about 2·10⁻³.
    np.testing.assert_allclose(np.diag(law.covariance()), [1 / 3, 1 / 12], rtol=8e-3)
    assert law.basin_mass(lambda x: loss(x) < 0.5) == pytest.approx(0.8232233, abs=4e-3)


def test_exit_times_in_the_plane():
    # 2-D box |x|, |y| < 1, h = (1, 3), D = (0.2, 0.3): 5.588; ball, h = 1, D = 0.25: 1.841936.
    h = 2 / 100
    grid = Grid([-1 - 1.5 * h] * 2, [1 + 1.5 * h] * 2, 103)
    stiffness = np.array([1.0, 3.0])
    box = FokkerPlanckLaw(lambda x: -stiffness * x, np.diag([0.4, 0.6]), 1.0, grid, reflecting=True)
    time = box.mean_first_passage(lambda x: jnp.max(jnp.abs(x)) > 1 - 1e-9, [0.0, 0.0])
    assert time == pytest.approx(5.588, abs=2e-3)
    ball = FokkerPlanckLaw(lambda x: -x, 0.5 * np.eye(2), 1.0, grid, reflecting=True)
    time = ball.mean_first_passage(lambda x: jnp.sum(x**2) > 1, [0.0, 0.0])
    # Cells on the circle make its radius uncertain by about half a cell.
    assert time == pytest.approx(1.841936, rel=0.03)


def test_three_dimensions():
    # HV + VH = ηC with full C.
    h = np.array([1.0, 2.0, 3.0])
    c = np.array([[1.0, 0.5, 0.2], [0.5, 1.0, 0.3], [0.2, 0.3, 1.0]])
    law = FokkerPlanckLaw(lambda x: -h * x, c, 0.1, Grid([-1.0, -0.72, -0.6], [1.0, 0.72, 0.6], 24))
    np.testing.assert_allclose(law.covariance(), 0.1 * c / (h[:, None] + h), rtol=0.05)
    assert law.marginal(1).shape == (24,)
    assert law.covariance()[0, 0] == pytest.approx(0.05, rel=0.02)


@pytest.mark.filterwarnings("ignore::statsgd.laws.grids.GridWarning")
def test_kinetic_equation_with_noise_in_one_coordinate():
    # dx = v, dv = −x − v + √(2T) dW, T = 0.25: Var x = Var v = 0.25 although D is singular. Upwind
    # transport is of first order: the error falls with the spacing.
    errors = []
    for cells in (60, 120):
        law = FokkerPlanckLaw(
            lambda s: jnp.array([s[1], -s[0] - s[1]]),
            np.diag([0.0, 0.5]),
            1.0,
            Grid([-3.0, -3.0], [3.0, 3.0], cells),
        )
        errors.append(abs(law.covariance()[0, 0] - 0.25))
    assert 1.5 < errors[0] / errors[1] < 2.5


def underdamped_gap(temperature, friction, number=36, width=0.35):
    """Of dx = v, dv = x − x³ − γv + √(2γT) dW, by Hermite functions of x and v."""
    lower = np.diag(np.sqrt(np.arange(1, number + 8)), 1)
    x, slope = (lower + lower.T) / np.sqrt(2) * width, (lower - lower.T) / np.sqrt(2) / width
    root = np.sqrt(temperature)
    force = (x @ x @ x - x) / (2 * root)
    transport = (root * slope + force)[:number, :number]
    raise_v = np.diag(np.sqrt(np.arange(1, number)), -1)
    flow = np.kron(raise_v, transport) - np.kron(raise_v.T, transport.T)
    damping = friction * np.kron(np.diag(np.arange(number)), np.eye(number))
    return np.sort(np.linalg.eigvals(damping + flow).real)[1]


def underdamped_law(friction, force, reach, cells, temperature=0.1):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the law is off", GridWarning)
        return FokkerPlanckLaw(
            lambda s: jnp.array([s[1], force(s[0]) - friction * s[1]]),
            np.diag([0.0, 2 * friction * temperature]),
            1.0,
            Grid([-reach, -2.0], [reach, 2.0], cells),
        )


@pytest.mark.slow
@pytest.mark.parametrize(("friction", "expected"), [(0.5, 0.02658078), (3.0, 0.01045435)])
def test_underdamped_gaps_by_hermite_functions(friction, expected):
    assert underdamped_gap(0.1, friction) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("friction", "exact"), [(0.5, 0.02658078), (3.0, 0.01045435)])
def test_spectral_gap_covers_the_truth_where_the_scheme_is_of_first_order(friction, exact):
    for cells in (60, 120):
        law = underdamped_law(friction, lambda x: x - x**3, 2.2, cells)
        with pytest.warns(GridWarning, match="the spectral gap .* is off by about"):
            gap = law.spectral_gap()
        stated = law.spectral_gap_error()
        assert abs(gap - exact) < stated
        # One grid by itself is further off than that, by numerical diffusion.
        assert -law.process.slowest_eigenvalue().real - exact > 1.2 * stated


def test_spectral_gap_of_a_well_that_turns():
    # Rates μ/2 ± i√(h − μ²/4): the slowest is μ/2, although that of their sum, μ, is nearer to 0.
    law = underdamped_law(1.0, lambda x: -4 * x, 1.5, 120)
    assert abs(law.spectral_gap() - 0.5) < law.spectral_gap_error() < 0.005


# --- from problems --------------------------------------------------------------------------


def test_from_sgd_finds_the_box():
    problem = problems.landscape(lambda x: jnp.sum(smooth_wells(x)), np.array([0.1]))
    law = FokkerPlanckLaw.from_sgd(problem, SGD(0.04, noise.Isotropic(1.0)))
    assert at_most(law, SADDLE) == pytest.approx(0.733882, abs=5e-5)
    assert law.grid.boundary_mass(law.masses) < 1e-5


def test_from_sgd_with_minibatches_and_weight_decay():
    # One parameter, drift −(h+λ)θ + …, C quadratic: moments of the Pearson diffusion.
    inputs, targets = np.array([1.0, 2.0, -1.0, 0.5]), np.array([1.0, -1.0, 0.5, 2.0])
    problem = problems.linear_regression(inputs[:, None], targets)
    rate, decay, batch = 0.05, 0.3, 2
    law = FokkerPlanckLaw.from_sgd(problem, SGD(rate, noise.Minibatch(batch), weight_decay=decay))
    h, g = np.mean(inputs**2), np.mean(inputs * targets)
    mean = g / (h + decay)
    # (h+λ)·2·Var = η E C, with C = a θ² + bθ + c.
    slope, shift = inputs**2 - h, inputs * targets - g
    a, b, c = (np.mean(v) / batch for v in (slope**2, -2 * slope * shift, shift**2))
    variance = rate * (a * mean**2 + b * mean + c) / (2 * (h + decay) - rate * a)
    assert law.mean()[0] == pytest.approx(mean, abs=1e-5)
    assert law.covariance()[0, 0] == pytest.approx(variance, rel=1e-4)


def test_from_sgd_refuses_what_it_does_not_cover():
    plane = problems.landscape(lambda x: jnp.sum(x**2), np.zeros(2))
    space = problems.landscape(lambda x: jnp.sum(x**2), np.zeros(4))
    with pytest.raises(ValueError, match="momentum must be 0"):
        FokkerPlanckLaw.from_sgd(plane, SGD(0.1, noise.Isotropic(1.0), momentum=0.5))
    with pytest.raises(ValueError, match="d ≤ 3"):
        FokkerPlanckLaw.from_sgd(space, SGD(0.1, noise.Isotropic(1.0)))
    with pytest.raises(ValueError, match="grid must have 2 axes"):
        FokkerPlanckLaw.from_sgd(plane, SGD(0.1, noise.Isotropic(1.0)), Grid(-1, 1, 10))
    flat = problems.landscape(lambda x: jnp.sum(jnp.log1p(x**2)), np.ones(1))
    with pytest.raises(ImproperLawError, match="no box holds the law"):
        # exp(−L/τ) = (1 + x²)^(−1/τ), τ = 4: tails that do not integrate.
        FokkerPlanckLaw.from_sgd(flat, SGD(0.1, noise.Isotropic(80.0)))


def test_warnings_and_errors():
    with pytest.warns(GridWarning, match="near the walls"):
        FokkerPlanckLaw(lambda x: -x, [[2.0]], 1.0, Grid(-2.0, 2.0, 400))
    with pytest.warns(GridWarning, match="use more cells"):
        FokkerPlanckLaw(lambda x: x - x**3 + 0.1, [[0.2]], 1.0, Grid(-2.0, 2.0, 12))
    FokkerPlanckLaw(lambda x: -x, [[2.0]], 1.0, Grid(-2.0, 2.0, 400), reflecting=True)
    grid = Grid(-1.0, 1.0, 20)
    with pytest.raises(ValueError, match="drift must have shape"):
        FokkerPlanckLaw(lambda x: jnp.zeros(2), [[1.0]], 0.1, grid)
    with pytest.raises(ValueError, match="drift must be finite"):
        FokkerPlanckLaw(lambda x: jnp.log(x), [[1.0]], 0.1, grid)
    with pytest.raises(ValueError, match="positive semi-definite"):
        FokkerPlanckLaw(lambda x: -x, [[-1.0]], 0.1, grid)
    with pytest.raises(ValueError, match="symmetric"):
        FokkerPlanckLaw(lambda x: -x, [[1.0, 0.5], [0.0, 1.0]], 0.1, Grid([-1, -1], [1, 1], 10))
    with pytest.raises(ValueError, match="learning_rate"):
        FokkerPlanckLaw(lambda x: -x, [[1.0]], -0.1, grid)
    with pytest.raises(ValueError, match="at most 3 axes"):
        FokkerPlanckLaw(lambda x: -x, np.eye(4), 0.1, Grid([-1] * 4, [1] * 4, 4))


def test_improper_examples_are_refused():
    (law,) = FokkerPlanckLaw.improper_examples()
    for read in (
        law.mean,
        law.probabilities,
        lambda: law.draw(jax.random.key(0)),
        lambda: law.log_density(np.zeros(1)),
        law.spectral_gap,
    ):
        with pytest.raises(ImproperLawError, match="2 > 1 sets of cells"):
            read()


# --- what every law offers --------------------------------------------------------------------


def test_numpy_functions_give_the_same_law():
    grid = Grid(-np.pi, np.pi, 100, True)
    traced = FokkerPlanckLaw(lambda x: -jnp.sin(x), [[1.0]], 0.5, grid)
    plain = FokkerPlanckLaw(lambda x: -np.sin(np.asarray(x)), [[1.0]], 0.5, grid)
    np.testing.assert_allclose(plain.masses, traced.masses, rtol=1e-12)
    # On the circle: von Mises, E cos = I₁(1/τ)/I₀(1/τ) with τ = 0.25.
    assert traced.expectation(lambda x: jnp.cos(x[0])) == pytest.approx(i1e(4) / i0e(4), rel=2e-3)


@pytest.mark.slow
def test_draws_follow_the_cells():
    law = example("FokkerPlanckLaw", 1)
    number = 40000
    draws = np.asarray(law.draw(jax.random.key(2), (number,)))
    mean, covariance = law.mean(), law.covariance()
    error = np.sqrt(np.diag(covariance) / number)
    assert np.all(np.abs(draws.mean(0) - mean) < 4 * error)
    # Gaussian: Var of v_ij is (V_iiV_jj + V_ij²)/n; 4σ is 4 %, well under a factor 1.1.
    variance = np.diag(covariance)
    spread = np.sqrt((np.outer(variance, variance) + covariance**2) / number)
    assert np.all(np.abs(np.cov(draws.T) - covariance) < 4 * spread)


def test_density_distribution_function_and_quantiles_agree():
    law = example("FokkerPlanckLaw")
    x = np.linspace(law.grid.lower[0], law.grid.upper[0], 100001)
    density = np.exp(law.log_density(x[:, None]))
    assert np.trapezoid(density, x) == pytest.approx(1, abs=1e-9)
    # exp(−L/τ) with L = x⁴/4 − x²/2, τ = 0.1.
    gibbs = np.exp(-(x**4 / 4 - x**2 / 2) / 0.1)
    np.testing.assert_allclose(density, gibbs / np.trapezoid(gibbs, x), atol=3e-5)
    levels = np.array([0.01, 0.3, 0.5, 0.99])
    np.testing.assert_allclose(law.cdf(law.quantile(levels))[:, 0], levels, atol=1e-12)
    assert law.log_density(np.array([9.0])) == -np.inf
    assert law.basin_mass(lambda x: x[0] > 0) == pytest.approx(0.5, abs=1e-9)
    jitted = jax.jit(jax.vmap(lambda p: law.log_density(p)))(jnp.asarray(x[::5000, None]))
    np.testing.assert_allclose(jitted, law.log_density(x[::5000, None]), rtol=1e-4, atol=2e-3)


def test_passage_arguments_are_checked():
    law = example("FokkerPlanckLaw")
    with pytest.raises(ValueError, match="target must hold"):
        law.mean_first_passage(lambda x: x[0] > 99, [0.0])
    with pytest.raises(ValueError, match="boolean array of shape"):
        law.mean_first_passage(np.ones(3, dtype=bool))
    with pytest.raises(ValueError, match="start must lie in the box"):
        law.mean_first_passage(lambda x: x[0] > 1, [7.0])
    with pytest.raises(ValueError, match="disjoint"):
        law.committor(lambda x: x[0] > 0, lambda x: x[0] > 1)
    with pytest.raises(ValueError, match="masses must have shape"):
        law.evolve(np.ones(3), 1.0)
