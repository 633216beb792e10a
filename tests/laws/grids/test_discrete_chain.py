import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from statsgd import SGD, ImproperLawError, noise, problems, simulate
from statsgd.laws import DiscreteChainLaw, HeavyBallGaussian, LinearRegressionGaussian
from statsgd.laws.grids import FiniteNoise, Grid, GridWarning, minibatch_noise
from tests.laws.examples import example

SADDLE = 0.6585913  # of smooth_wells


def smooth_wells(x):
    # Minima at 0 (curvature 1) and 1 (curvature 9), equal heights.
    return 0.5 * (x * (1 - x) * (1 + 2 * x**2)) ** 2


def down(loss):
    """−∇L of a loss of one number, as a drift of shape (1,)."""
    return lambda x: -jax.vmap(jax.grad(loss))(x)


def from_edge(edge, spacing, below, above):
    """A grid with an edge of cells at `edge`, reaching `below` and `above` it."""
    low, high = int(np.ceil(below / spacing)), int(np.ceil(above / spacing))
    return Grid(edge - low * spacing, edge + high * spacing, low + high)


def wells_chain(rate, variance, momentum=0.0, fineness=2.0):
    spacing = rate * np.sqrt(variance) / fineness
    grid = from_edge(SADDLE, spacing, 1.3, 0.7)
    return DiscreteChainLaw(down(smooth_wells), [[variance]], rate, grid, momentum=momentum)


def at_most(law, x):
    return float(law.cdf(np.full(law.dimension, x))[0])


# --- quadratics: exact moments -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("momentum", "variance", "step_variance"),
    [(0.5, 0.01339286, 0.00357143), (0.9, 0.06597222, 0.01388889)],
)
def test_heavy_ball_on_a_quadratic(momentum, variance, step_variance):
    # h = 2, η = 0.1, c = 0.25: Var θ, Var δ and Cov(θ, m) = −Var δ/(2η) of the heavy-ball chain.
    rate = 0.1
    reach = 7.5 * np.sqrt(variance)
    grid = Grid(-reach, reach, int(np.ceil(2 * reach / (0.6 * rate * 0.5))))
    law = DiscreteChainLaw(lambda x: -2 * x, [[0.25]], rate, grid, momentum=momentum)
    exact = HeavyBallGaussian([[2.0]], [[0.25]], rate, momentum)
    assert law.covariance()[0, 0] == pytest.approx(variance, rel=1e-6)
    mean, buffer, cross = law.momentum_buffer_moments()
    assert mean == pytest.approx(0, abs=1e-9)
    assert rate**2 * buffer == pytest.approx(step_variance, rel=1e-6)
    assert cross == pytest.approx(float(exact.covariance("params", "momentum_buffer")[0, 0]))
    x = np.linspace(-2, 2, 9) * np.sqrt(variance)
    gaussian = norm.logpdf(x, scale=np.sqrt(variance))
    # Interpolated linearly between midpoints: (spacing/deviation)²/8 at the centre.
    np.testing.assert_allclose(law.log_density(x[:, None]), gaussian, atol=0.02)


def test_chain_without_momentum_on_a_quadratic():
    # Var θ = ηc/(h(2 − ηh)) = 0.00694444, to the accuracy of the midpoint rule.
    law = DiscreteChainLaw(lambda x: -2 * x, [[0.25]], 0.1, Grid(-0.7, 0.7, 56))
    assert law.covariance()[0, 0] == pytest.approx(0.1 * 0.25 / (2 * (2 - 0.2)), rel=1e-10)
    assert law.covariance()[0, 0] == pytest.approx(0.00694444, rel=1e-6)
    assert law.relaxation_rate() == pytest.approx(-np.log(0.8), rel=1e-8)


def test_momentum_turns_relaxation_into_oscillation():
    # max|roots of z² − (1+β−ηh)z + β| = √0.9 for h = 2, η = 0.1, β = 0.9.
    law = DiscreteChainLaw(lambda x: -2 * x, [[0.25]], 0.1, Grid(-1.6, 1.6, 54), momentum=0.9)
    assert np.exp(-law.relaxation_rate()) == pytest.approx(0.948683, rel=1e-4)


@pytest.mark.slow
def test_correlated_noise_in_two_dimensions():
    # H = diag(1, 2), η = 0.1: V_ij = ηC_ij/(h_i + h_j − ηh_ih_j).
    law = example("DiscreteChainLaw", 2)
    expected = [[0.0526316, 0.0178571], [0.0178571, 0.0277778]]
    np.testing.assert_allclose(law.covariance(), expected, rtol=3e-6)
    assert law.relaxation_rate() == pytest.approx(-np.log(0.9), rel=1e-6)


def test_weight_decay_adds_to_the_curvature():
    grid = Grid(-0.7, 0.7, 56)
    decayed = DiscreteChainLaw(lambda x: -1.5 * x, [[0.25]], 0.1, grid, weight_decay=0.5)
    assert decayed.covariance()[0, 0] == pytest.approx(0.1 * 0.25 / (2 * (2 - 0.2)), rel=1e-9)


@pytest.mark.parametrize(("rate", "expected"), [(0.1, 0.0555556), (0.4, 0.333333)])
def test_noise_that_grows_with_the_state(rate, expected):
    # C = 1 + x², L = x²/2: Var = η/(2 − η − η) exactly.
    law = DiscreteChainLaw(
        lambda x: -x, lambda x: (1 + x**2)[:, None], rate, Grid(-14, 14, int(28 / rate * 1.5))
    )
    assert law.covariance()[0, 0] == pytest.approx(expected, rel=2e-4 if rate == 0.4 else 2e-6)


@pytest.mark.parametrize(("rate", "expected"), [(0.2, 0.1428571), (0.1, 0.0588235)])
def test_label_noise_regression_variance(rate, expected):
    # C = 2θ² + 1: Var = η/(2 − 3η), whatever the law of the noise.
    law = DiscreteChainLaw(
        lambda x: -x, lambda x: (2 * x**2 + 1)[:, None], rate, Grid(-10, 10, int(20 / rate * 1.5))
    )
    assert law.covariance()[0, 0] == pytest.approx(expected, rel=6e-5)


def test_floored_loss_scaled_noise():
    # h = 1, σ = 80, c₀ = 0.5, η = 0.01: Var = 0.2515723 (0.25 for the SDE).
    law = DiscreteChainLaw(
        lambda x: -x, lambda x: (80 * (x**2 / 2 + 0.5))[:, None], 0.01, Grid(-30, 30, 1400)
    )
    assert law.covariance()[0, 0] == pytest.approx(0.2515723, rel=4e-6)


# --- which well ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("rate", "expected"), [(0.04, 0.7525), (0.01, 0.7374)])
def test_the_chain_prefers_the_flat_well_more_than_its_diffusion(rate, expected):
    # τ = ηc/2 = 0.02; the SDE gives 0.733882.
    assert at_most(wells_chain(rate, 0.04 / rate), SADDLE) == pytest.approx(expected, abs=5e-5)


def test_cells_as_long_as_a_step_are_enough():
    coarse, fine = (at_most(wells_chain(0.04, 1.0, fineness=n), SADDLE) for n in (1.0, 4.0))
    assert coarse == pytest.approx(fine, abs=1e-6)


@pytest.mark.parametrize(
    ("momentum", "variance", "simulated", "error"),
    [
        (0.5, 0.5, 0.7465, 0.003),
        pytest.param(0.9, 0.1, 0.768, 0.004, marks=pytest.mark.slow),
    ],
)
def test_wells_with_momentum(momentum, variance, simulated, error):
    # η = 0.04, temperature ηc/(2(1−β)) = 0.02.
    law = wells_chain(0.04, variance, momentum, fineness=1.0)
    assert at_most(law, SADDLE) == pytest.approx(simulated, abs=4 * error)


@pytest.mark.parametrize(
    ("rate", "temperature", "expected"),
    [(0.05, 0.2, 0.864), (0.05, 0.1, 0.941), (0.01, 0.2, 0.768)],
)
def test_kinked_wells_shift_the_chain_strongly(rate, temperature, expected):
    # min((x+1)²/2, 9(x−1)²/2): 0.75 for the SDE at every τ. The kink lies on an edge.
    def loss(x):
        return jnp.where(x < 0.5, (x + 1) ** 2 / 2, 9 * (x - 1) ** 2 / 2)

    step = np.sqrt(2 * temperature * rate)
    grid = from_edge(0.5, step / 12, 5.5, 2.5)
    law = DiscreteChainLaw(down(loss), [[2 * temperature / rate]], rate, grid)
    assert at_most(law, 0.5) == pytest.approx(expected, abs=6e-4)


@pytest.mark.parametrize(("rate", "expected"), [(0.01, 0.7420), (0.0025, 0.7398)])
def test_floor_wells(rate, expected):
    # L = 0.05 + wells, C = σL, ησ = 0.5; the SDE gives 0.739192.
    def loss(x):
        return 0.05 + smooth_wells(x)

    grid = from_edge(SADDLE, np.sqrt(rate * 0.5 * 0.05) / 2, 1.5, 1.0)
    law = DiscreteChainLaw(down(loss), lambda x: 0.5 / rate * loss(x)[:, None], rate, grid)
    assert at_most(law, SADDLE) == pytest.approx(expected, abs=6e-5)


def test_two_dimensional_valley():
    # τ = 0.1, η = 0.05: SDE 0.732577, simulated chain 0.749 ± 0.0034.
    def loss(x):
        stiffness = 5 + 4 * jnp.tanh(2 * x[0]) / np.tanh(2)
        return (x[0] ** 2 - 1) ** 2 / 4 + stiffness * x[1] ** 2 / 2

    law = DiscreteChainLaw(
        lambda x: -jax.grad(loss)(x), 4 * np.eye(2), 0.05, Grid([-2.2, -2.0], [2.2, 2.0], [46, 42])
    )
    assert at_most(law, 0.0) == pytest.approx(0.749, abs=4 * 0.0034)
    assert at_most(law, 0.0) > 0.74


def test_evolution_of_the_chain():
    # From the sharp minimum, η = 0.04, c = 1: P(flat) after 250, 2500, 8000 and 25000 steps.
    rate = 0.04
    # An edge at the saddle and a midpoint at the sharp minimum.
    spacing = (1 - SADDLE) / 17.5
    grid = from_edge(SADDLE, spacing, 1.3, 0.7)
    law = DiscreteChainLaw(down(smooth_wells), [[1.0]], rate, grid)
    masses = np.zeros(grid.cells)
    masses[grid.locate(np.array([1.0]))[0]] = 1.0
    taken = 0
    for steps, expected in ((250, 0.0695), (2500, 0.4751), (8000, 0.722), (25000, 0.7525)):
        masses = law.evolve(masses, steps - taken)
        taken = steps
        digits = 5e-4 if steps == 8000 else 5e-5
        if steps == 2500:
            digits = 4e-4  # 0.4748 on every grid of this scheme; 0.4751 holds a grid error
        assert masses[grid.centres() < SADDLE].sum() == pytest.approx(expected, abs=1.2 * digits)
    # The chain relaxes faster than the SDE, whose rate is 0.00930 per unit of time.
    assert law.relaxation_rate() / rate == pytest.approx(0.01000, abs=5e-6)


@pytest.mark.slow
def test_simulated_endpoints_agree():
    # Half the replicas start in each well; both groups follow the law after 8 relaxation times.
    problem = problems.landscape(lambda x: jnp.sum(smooth_wells(x)), np.zeros(1))
    sgd = SGD(0.04, noise.Isotropic(3.0))
    law = DiscreteChainLaw.from_sgd(problem, sgd)
    number = 4000
    steps = int(8 / law.relaxation_rate())
    start = np.repeat([[0.0], [1.0]], number // 2, axis=0)
    run = simulate(problem, sgd, steps=steps, replicas=number, seed=0, start=start, progress=False)
    ends = run["endpoints"]["params"].values[:, 0]
    flat = at_most(law, SADDLE)
    for group in (ends[: number // 2], ends[number // 2 :]):
        error = np.sqrt(flat * (1 - flat) / len(group))
        assert np.mean(group < SADDLE) == pytest.approx(flat, abs=4 * error)
    # A fourth moment of the law gives the error of the second; 4σ is below 10 %.
    mean, variance = law.mean()[0], law.covariance()[0, 0]
    fourth = law.expectation(lambda x: (x[0] - mean) ** 4)
    error = np.sqrt((fourth - variance**2) / number)
    assert 4 * error < 0.1 * variance
    assert np.mean((ends - mean) ** 2) == pytest.approx(variance, abs=4 * error)


# --- passage times ------------------------------------------------------------------------------


def extrapolated(value, coarse):
    """The limit of a second-order quantity from cells a number `coarse` and twice as many."""
    first, second = value(coarse), value(2 * coarse)
    return (4 * second - first) / 3


def escape_by_cells(rate, number):
    """1 → 0 in the wells at τ = 0.02 from integrals of the step over cells, as an oracle."""
    deviation = np.sqrt(0.04 * rate)
    grid = from_edge(0.0, 1 / (np.ceil(number / deviation) + 0.5), 0.8, 1.3)
    x, edges = grid.centres(), grid.edges()
    slope = x * (1 - x) * (1 + 2 * x**2) * (1 - 2 * x + 6 * x**2 - 8 * x**3)
    probability = np.diff(norm.cdf((edges - (x - rate * slope)[:, None]) / deviation), axis=1)
    probability /= probability.sum(axis=1, keepdims=True)
    right = x > 0
    times = np.linalg.solve(
        np.eye(right.sum()) - probability[right][:, right], np.ones(right.sum())
    )
    return rate * np.interp(1.0, x[right], times)


@pytest.mark.parametrize(
    ("rate", "expected", "published"), [(0.02, 146.929, 146.82), (0.04, 138.985, 138.93)]
)
def test_escape_of_the_chain_from_the_sharp_well(rate, expected, published):
    # 1 → 0 at τ = 0.02, in time ηk; the SDE takes 152.376. The level 0 lies on an edge and the
    # start on a midpoint. `published` was computed on cells of finite size.
    def time(number):
        spacing = 1 / (np.ceil(number / np.sqrt(0.04 * rate)) + 0.5)
        law = DiscreteChainLaw(
            down(smooth_wells), [[0.04 / rate]], rate, from_edge(0.0, spacing, 0.9, 1.4)
        )
        return rate * law.mean_first_passage(lambda x: x[0] < 0, [1.0])

    value = extrapolated(time, 3)
    assert value == pytest.approx(expected, rel=1e-5)
    assert value == pytest.approx(published, rel=1e-3)
    assert value == pytest.approx(extrapolated(lambda n: escape_by_cells(rate, n), 6), rel=1e-4)


def test_escape_of_the_chain_to_a_saddle():
    # Quartic x⁴/4 − x²/2, −1 → 0, τ = 0.1, η = 0.02: 33.41; the SDE takes 30.82.
    def time(number):
        grid = from_edge(0.0, 1 / (number + 0.5), 2.2, 2.2)
        law = DiscreteChainLaw(lambda x: x - x**3, [[10.0]], 0.02, grid)
        return 0.02 * law.mean_first_passage(lambda x: x[0] > 0, [-1.0])

    assert extrapolated(time, 80) == pytest.approx(33.41, abs=0.01)


def test_steps_to_leave_a_quadratic_basin():
    # h = 1, D = 0.25, R = 1: simulated 5.25 ± 0.05 and 4.87 ± 0.045 at steps of 0.01 and 0.002.
    for rate, simulated, error, shifted in ((0.01, 5.25, 0.05, 5.298), (0.002, 4.87, 0.045, 4.840)):
        law = DiscreteChainLaw(
            lambda x: -x, [[0.5 / rate]], rate, from_edge(1.0, 2 / 401, 4.0, 2.0)
        )
        time = rate * law.mean_first_passage(lambda x: jnp.abs(x[0]) > 1, [0.0])
        assert time == pytest.approx(simulated, abs=4 * error)
        # The boundary moved outwards by 0.5826 standard deviations of a step.
        assert time == pytest.approx(shifted, rel=0.02)


def test_escape_of_the_tilted_quartic():
    # f = ½(θ⁴ − 16θ² + 5θ), D = 6, η = 0.0005, left minimum → saddle: 105.6 (SDE 100.23).
    left, saddle = -2.9035340278, 0.1567312568

    def time(number):
        grid = from_edge(saddle, (saddle - left) / (number + 0.5), 5.2, 5.0)
        law = DiscreteChainLaw(lambda x: -(2 * x**3 - 16 * x + 2.5), [[12 / 0.0005]], 0.0005, grid)
        return 0.0005 * law.mean_first_passage(lambda x: x[0] > saddle, [left])

    assert extrapolated(time, 100) == pytest.approx(105.6, abs=0.15)


def test_escape_with_piecewise_curvature_noise():
    # The same with D = 0.3|H| frozen at the minimum and the saddle, switched at the inflection;
    # η = 0.002: 52.5 (SDE 54.15).
    left, saddle, switch = -2.9035340278, 0.1567312568, -1.6329931619

    def time(number):
        law = DiscreteChainLaw(
            lambda x: -(2 * x**3 - 16 * x + 2.5),
            lambda x: 0.6 / 0.002 * jnp.where(x < switch, 34.5830591, 15.8526119)[:, None],
            0.002,
            from_edge(saddle, (saddle - switch) / number, 5.2, 5.0),
        )
        return 0.002 * law.mean_first_passage(lambda x: x[0] > saddle, [left])

    assert extrapolated(time, 100) == pytest.approx(52.5, abs=0.1)


@pytest.mark.parametrize(("level", "expected"), [(1.25, 11.579), (1.5, 111.97)])
def test_regression_with_two_point_inputs_leaves_its_basin(level, expected):
    # Inputs 0 or ±√2, half each, unit label noise, η = 0.1: every second step, on average, is
    # θ' = (1 − 2η)θ + η√2ξ, the others do nothing. L = ½(1 + θ²), steps times η until L > c/2.
    radius = np.sqrt(level - 1)

    def time(number):
        grid = from_edge(radius, radius / (number + 0.5), 3.5, 1.5)
        law = DiscreteChainLaw(lambda x: -2 * x, [[2.0]], 0.1, grid)
        # Its law is N(0, η/(2(1−η))).
        assert law.covariance()[0, 0] == pytest.approx(0.1 / (2 * (1 - 0.1)), rel=1e-8)
        return 2 * 0.1 * law.mean_first_passage(lambda x: jnp.abs(x[0]) > radius, [0.0])

    assert extrapolated(time, 20) == pytest.approx(expected, rel=2e-4)


def test_committor_starts_even_in_a_symmetric_well():
    law = example("DiscreteChainLaw")
    value = law.committor(lambda x: x[0] > 1, lambda x: x[0] < -1, [0.0])
    assert value == pytest.approx(0.5, abs=1e-9)


@pytest.mark.slow
def test_momentum_chain_crosses_a_quartic():
    # η = 0.01, β = 0.9, c = 2 from −1: simulated fractions right of 0 after 444 and 888 steps 0.311
    # and 0.430 ± 0.006; ½(1 − e^(−gap k)) follows. −1 → 1 takes 975 ± 17 simulated steps. The
    # kinetic SDE has the gap 0.0225192·√η.
    law = DiscreteChainLaw(
        lambda x: x - x**3, [[2.0]], 0.01, from_edge(0.0, 2 / 135, 1.85, 1.85), momentum=0.9
    )
    n = law.grid.size
    start = np.zeros((n, n))
    at = int(law.grid.locate(np.array([-1.0]))[0])
    start[at, at] = 1.0
    after = law.evolve(start, 444)
    right = law.grid.centres() > 0
    assert after[right].sum() == pytest.approx(0.311, abs=4 * 0.006)
    assert law.evolve(after, 444)[right].sum() == pytest.approx(0.430, abs=4 * 0.006)
    assert law.relaxation_rate() / np.sqrt(0.01) == pytest.approx(0.0225192, rel=0.03)


@pytest.mark.slow
def test_momentum_chain_takes_its_time():
    # As above: −1 → 1 takes 975 ± 17 simulated steps.
    law = DiscreteChainLaw(
        lambda x: x - x**3, [[2.0]], 0.01, from_edge(1.0, 2 / 135.5, 2.85, 0.85), momentum=0.9
    )
    steps = law.mean_first_passage(lambda x: x[0] > 1, [-1.0])
    assert steps == pytest.approx(975, abs=4 * 17)


# --- two valleys, rings --------------------------------------------------------------------------


def frozen_chain(level, rate, power, fineness, y=5):
    """Two valleys across, frozen at y; C = 2σH^p, level = ησ; the ridge lies on an edge."""

    def width(x0):
        return x0**2 * (y + 20) ** 2 / (y + 30) ** 2

    f1, f2 = width(0.8), width(0.65)
    g1, g2 = 2 * 0.8 * y / (y + 30), 2 * 0.65 * y / (y + 30)

    def drift(x):
        return -jnp.where(x > 0, (2 * x - g1) / f1, (2 * x + g2) / f2)

    def covariance(x):
        return 2 * level / rate * (jnp.where(x > 0, 2 / f1, 2 / f2) ** power)[:, None]

    step = np.sqrt(2 * level * rate * (2 / f1) ** power)
    well = np.sqrt(level * (2 / f1) ** (power - 1))
    grid = from_edge(0.0, step / fineness, g2 / 2 + 8 * well, g1 / 2 + 8 * well)
    law = DiscreteChainLaw(drift, covariance, rate, grid)
    return 1 - at_most(law, 0.0)


@pytest.mark.parametrize(
    ("level", "rate", "power", "expected"),
    [
        (1e-3, 0.02, 1, 0.92202),
        (1e-3, 0.01, 1, 0.92325),
        (1e-3, 0.002, 1, 0.92691),
        pytest.param(1e-3, 1e-4, 1, 0.93137, marks=pytest.mark.slow),
        (0.04 / 6, 0.001, 0, 0.55234),
    ],
)
def test_frozen_valleys(level, rate, power, expected):
    # The jump at the ridge leaves an error of second order, extrapolated away.
    coarse, fine = (frozen_chain(level, rate, power, n) for n in (8, 16))
    assert (4 * fine - coarse) / 3 == pytest.approx(expected, abs=1e-5)


@pytest.mark.slow
def test_ring_valley_at_a_large_learning_rate():
    # h = 2e^(0.5cos x), D_y = 0.02, κ = 4, η = 0.2: simulated E[−cos x] = 0.5234 ± 0.0031. For any
    # such chain E[h y²(1 − ηh/2)] = D_y exactly.
    rate, level, kappa = 0.2, 0.02, 4.0

    def curvature(x):
        return 2 * jnp.exp(0.5 * jnp.cos(x[0]))

    law = DiscreteChainLaw(
        lambda x: -jax.grad(lambda s: curvature(s) * s[1] ** 2 / 2)(x),
        2 * level / rate * np.diag([1 / kappa, 1.0]),
        rate,
        Grid([-np.pi, -0.85], [np.pi, 0.85], [160, 24], [True, False]),
    )
    assert law.expectation(lambda x: -jnp.cos(x[0])) == pytest.approx(0.5234, abs=4 * 0.0031)
    identity = law.expectation(lambda x: curvature(x) * x[1] ** 2 * (1 - rate * curvature(x) / 2))
    assert identity == pytest.approx(level, rel=1e-5)


@pytest.mark.slow
def test_ring_valley_with_noise_that_follows_the_curvature():
    # h = 2e^(0.5cos x), D_y = 0.2e^(0.5cos x), κ = 4, η = 0.02: simulated 0.5975 ± 0.0010. The
    # Itô reading of the adiabatic law gives 0.60079, the anti-Itô one below 0.46.
    rate, level, kappa = 0.02, 0.2, 4.0

    def height(x):
        return jnp.exp(0.5 * jnp.cos(x[0]))

    law = DiscreteChainLaw(
        lambda x: -jax.grad(lambda s: height(s) * s[1] ** 2)(x),
        lambda x: 2 * level / rate * height(x) * jnp.diag(jnp.array([1 / kappa, 1.0])),
        rate,
        Grid([-np.pi, -2.3], [np.pi, 2.3], [190, 70], [True, False]),
    )
    assert law.expectation(lambda x: -jnp.cos(x[0])) == pytest.approx(0.5975, abs=4 * 0.0010)
    curvature = law.expectation(
        lambda x: 2 * height(x) * x[1] ** 2 * (1 - rate * height(x)) - level * height(x)
    )
    assert curvature == pytest.approx(0, abs=1e-5 * level)


@pytest.mark.slow
def test_valley_of_sharpness():
    # h = 2 + 1.5cos x, C = diag(1, h), η = 0.1: simulated E cos x = −0.3766 ± 0.0013.
    def curvature(x):
        return 2 + 1.5 * jnp.cos(x[0])

    law = DiscreteChainLaw(
        lambda x: -jax.grad(lambda s: curvature(s) * s[1] ** 2 / 2)(x),
        lambda x: jnp.diag(jnp.array([1.0, curvature(x)])),
        0.1,
        Grid([-np.pi, -1.8], [np.pi, 1.8], [64, 52], [True, False]),
    )
    assert law.expectation(lambda x: jnp.cos(x[0])) == pytest.approx(-0.3766, abs=4 * 0.0013)


# --- minibatches ---------------------------------------------------------------------------------

INPUTS, TARGETS = np.array([1.0, 2.0, -1.0, 0.5]), np.array([1.0, -1.0, 0.5, 2.0])


@pytest.mark.parametrize(
    ("sampling", "momentum", "decay"),
    [("with_replacement", 0.0, 0.0), ("without_replacement", 0.5, 0.1)],
)
def test_minibatches_on_least_squares(sampling, momentum, decay):
    # The exact moments of minibatch SGD on least squares.
    problem = problems.linear_regression(INPUTS[:, None], TARGETS)
    sgd = SGD(0.1, noise.Minibatch(2, sampling), momentum=momentum, weight_decay=decay)
    law, exact = (
        DiscreteChainLaw.from_sgd(problem, sgd),
        LinearRegressionGaussian.from_sgd(problem, sgd),
    )
    assert law.mean()[0] == pytest.approx(float(exact.mean()[0]), abs=1e-6)
    excess = law.covariance()[0, 0] / float(exact.covariance()[0, 0]) - 1
    # Linear interpolation inflates the variance by what it says it does, to first order.
    assert 0 < law.numerical_diffusion < 0.005
    assert excess == pytest.approx(law.numerical_diffusion, rel=0.15)


def test_minibatches_in_two_dimensions():
    inputs = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [2.0, -1.0], [-1.0, 0.5]])
    problem = problems.linear_regression(inputs, np.array([1.0, -1.0, 0.5, 2.0, 0.0]))
    sgd = SGD(0.2, noise.Minibatch(1))
    law = DiscreteChainLaw.from_sgd(problem, sgd, Grid([-0.7, -3.5], [2.7, 1.8], [180, 200]))
    exact = LinearRegressionGaussian.from_sgd(problem, sgd)
    np.testing.assert_allclose(law.mean(), exact.mean(), atol=1e-4)
    np.testing.assert_allclose(law.covariance(), exact.covariance(), rtol=0.03, atol=1e-3)


def test_batches_are_enumerated_with_their_probabilities():
    problem = problems.linear_regression(INPUTS[:, None], TARGETS)
    theta = np.array([0.3])
    for scheme in (noise.Minibatch(2), noise.Minibatch(3, "without_replacement")):
        kicks = minibatch_noise(problem, scheme)
        values = np.asarray(kicks.values(theta))
        np.testing.assert_allclose(kicks.probabilities @ values, 0, atol=1e-6)
        variance = kicks.probabilities @ values[:, 0] ** 2
        assert variance == pytest.approx(float(scheme.covariance(problem, theta)[0, 0]), rel=1e-5)
    assert len(minibatch_noise(problem, noise.Minibatch(2)).probabilities) == 10
    large = problems.linear_regression(np.ones((100, 1)), np.arange(100.0))
    with pytest.raises(ValueError, match="at most 2000 different batches"):
        minibatch_noise(large, noise.Minibatch(3))


def test_two_valued_noise_without_a_density():
    # θ' = θ/2 ± 1/2: uniform on [−1, 1], a Bernoulli convolution; variance 1/3.
    law = DiscreteChainLaw(
        lambda x: -0.5 * x,
        FiniteNoise(lambda x: jnp.array([[-0.5], [0.5]]), [0.5, 0.5]),
        1.0,
        Grid(-1.5, 1.5, 3000),
    )
    assert law.covariance()[0, 0] == pytest.approx(1 / 3, rel=1e-5)
    np.testing.assert_allclose(
        law.cdf(np.array([[-0.5], [0.0], [0.9]]))[:, 0], [0.25, 0.5, 0.95], atol=1e-3
    )


# --- grids that are too coarse, and refusals ---------------------------------------------------


@pytest.mark.parametrize("fineness", [0.7, 0.95])
def test_steps_below_a_cell_keep_their_variance(fineness):
    # Linear interpolation with its variance taken off the noise: Var stays within 1 %.
    spacing = 0.05 / fineness
    grid = Grid(-16.3 * spacing, 15.7 * spacing, 32)
    law = DiscreteChainLaw(lambda x: -2 * x, [[0.25]], 0.1, grid)
    assert law.covariance()[0, 0] == pytest.approx(0.00694444, rel=0.01)


def test_singular_noise_in_two_dimensions():
    # Noise along one diagonal: V_ij = ηC_ij/(h_i + h_j − ηh_ih_j) holds for singular C too.
    h, c, rate = np.array([1.0, 2.0]), np.array([[1.0, 1.0], [1.0, 1.0]]), 0.2
    law = DiscreteChainLaw(lambda x: -h * x, c, rate, Grid([-2.0, -1.5], [2.0, 1.5], [100, 76]))
    exact = rate * c / (h[:, None] + h - rate * np.outer(h, h))
    np.testing.assert_allclose(law.covariance(), exact, rtol=0.01)


def test_warnings():
    with pytest.warns(GridWarning, match="leaves the box"):
        DiscreteChainLaw(lambda x: -2 * x, [[0.25]], 0.1, Grid(-0.3, 0.3, 24))
    with pytest.warns(GridWarning, match="the grid adds"):
        DiscreteChainLaw(lambda x: -2 * x, [[0.0025]], 0.1, Grid(-0.7, 0.71, 30))


def test_refusals():
    grid, plane = Grid(-1.0, 1.0, 20), Grid([-1.0, -1.0], [1.0, 1.0], 20)
    with pytest.raises(ValueError, match="1 axis, or 2 without momentum"):
        DiscreteChainLaw(lambda x: -x, np.eye(2), 0.1, plane, momentum=0.5)
    with pytest.raises(ValueError, match="momentum must be"):
        DiscreteChainLaw(lambda x: -x, [[1.0]], 0.1, grid, momentum=1.0)
    with pytest.raises(ValueError, match="sums to 1"):
        DiscreteChainLaw(
            lambda x: -x, FiniteNoise(lambda x: jnp.ones((2, 1)), [0.5, 0.6]), 0.1, grid
        )
    with pytest.raises(ValueError, match="momentum must be positive"):
        example("DiscreteChainLaw").momentum_buffer_moments()
    space = problems.landscape(lambda x: jnp.sum(x**2), np.zeros(3))
    with pytest.raises(ValueError, match="d = 1 parameter, or 2"):
        DiscreteChainLaw.from_sgd(space, SGD(0.1, noise.Isotropic(1.0)))
    fresh = problems.population_risk(
        lambda p, e: jnp.sum((p - e) ** 2), lambda key: jax.random.normal(key, (1,)), np.zeros(1)
    )
    with pytest.raises(ValueError, match="noise must be Gaussian, or Minibatch on a data set"):
        DiscreteChainLaw.from_sgd(fresh, SGD(0.1, noise.Minibatch(1, "fresh")))
    (law,) = DiscreteChainLaw.improper_examples()
    with pytest.raises(ImproperLawError, match="not unique"):
        law.relaxation_rate()


@pytest.mark.slow
def test_draws_follow_the_masses():
    law = example("DiscreteChainLaw")
    number = 40000
    draws = np.asarray(law.draw(jax.random.key(3), (number,)))[:, 0]
    variance = law.covariance()[0, 0]
    fourth = law.expectation(lambda x: x[0] ** 4)
    assert abs(draws.mean()) < 4 * np.sqrt(variance / number)
    assert np.mean(draws**2) == pytest.approx(
        variance, abs=4 * np.sqrt((fourth - variance**2) / number) + law.grid.spacing[0] ** 2 / 12
    )


@pytest.mark.parametrize("cells", [400, 50, 30])
def test_the_error_of_an_expectation_holds_what_the_grid_does(cells):
    # θ' = .9 θ + .1 ξ: normal of variance η²/(1 − .81); on 30 cells steps are shorter than a cell.
    law = DiscreteChainLaw(lambda x: -x, [[1.0]], 0.1, Grid(-1.8, 1.8, cells))
    variance = 0.01 / 0.19
    for power, expected in ((2, variance), (4, 3 * variance**2)):
        found = law.expectation_estimate(lambda x, power=power: x[0] ** power)
        assert abs(found.value - expected) < found.standard_error
    assert np.isnan(law.error_estimate) == (cells == 50)


def test_the_error_of_an_expectation_under_finite_noise():
    # Steps of ±η: the fourth cumulant of a sum of signs with weights η aᵏ is −2η⁴/(1 − a⁴).
    signs = FiniteNoise(lambda x: np.array([[1.0], [-1.0]]), np.array([0.5, 0.5]))
    law = DiscreteChainLaw(lambda x: -x, signs, 0.1, Grid(-1.2, 1.2, 400))
    variance = 0.01 / 0.19
    fourth = 3 * variance**2 - 2e-4 / (1 - 0.9**4)
    for power, expected in ((2, variance), (4, fourth)):
        found = law.expectation_estimate(lambda x, power=power: x[0] ** power)
        assert found.standard_error / 3 < abs(found.value - expected) < found.standard_error
