import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import i0, i1
from scipy.stats import norm
from scipy.stats import t as student_t

import statsgd
from statsgd import SGD, noise
from statsgd.laws import ImproperLawError, IntractableError, ValleyLaw
from statsgd.laws.law import UnresolvedWarning
from statsgd.laws.valleys import (
    AdiabaticWarning,
    max_stable_learning_rate,
    random_shift_noise,
    random_shift_path,
    shift_noise_covariance,
)
from statsgd.laws.valleys.coordinate import LineCurvature, RingCurvature
from statsgd.problems import landscape
from tests.laws.examples import example

CURVATURE = RingCurvature(np.float64(2.0), np.float64(0.5))


def flat_side(law):
    return law.expectation_along(lambda x: -np.cos(x))


# E[−cos x] = I₁(κa/2)/I₀(κa/2) for b = 0; second order from D2 and B2
@pytest.mark.parametrize(
    ("diffusion", "kappa", "floor", "adiabatic", "second"),
    [
        (0.02, 1, 0, 0.12403, 0.12403),
        (0.02, 4, 0, 0.44639, 0.44579),
        (0.2, 4, 0, 0.44639, 0.44036),
        (0.2, 10, 0, 0.76500, 0.75407),
        (0.02, 4, 0.01, -0.44639, -0.44615),
        (0.02, 4, 0.005, 0, -0.00024),
    ],
)
@pytest.mark.filterwarnings("ignore::statsgd.laws.valleys.AdiabaticWarning")
def test_ring(diffusion, kappa, floor, adiabatic, second):
    law = ValleyLaw.ring(2.0, 0.5, diffusion, kappa, floor)
    assert flat_side(law) == pytest.approx(adiabatic, abs=6e-6)
    better = ValleyLaw.ring(2.0, 0.5, diffusion, kappa, floor, second_order=True)
    assert flat_side(better) == pytest.approx(second, abs=6e-6)


def test_second_order_is_nearly_exact_at_kappa_one():
    # κ = 1, L₀ = 0 gives back h^(−1/2) exactly
    law = ValleyLaw.ring(2.0, 0.5, 0.2, 1.0, second_order=True)
    x = np.linspace(-3, 3, 7)
    expected = -0.5 * np.log(2.0 * np.exp(0.5 * np.cos(x)))
    gap = law.log_marginal(x) - expected
    np.testing.assert_allclose(gap, gap[0], atol=1e-9)


# p ∝ [(1 − ηh/s)/h]^(κ/2), s = 2(1+β)
@pytest.mark.parametrize(
    ("eta", "beta", "value"), [(0.05, 0, 0.46409), (0.2, 0, 0.52460), (0.05, 0.8, 0.45608)]
)
def test_finite_step_and_momentum(eta, beta, value):
    law = ValleyLaw.ring(2.0, 0.5, 0.02, 4.0, learning_rate=eta, momentum=beta)
    assert flat_side(law) == pytest.approx(value, abs=6e-6)


@pytest.mark.slow
def test_two_transverse_directions():
    def curvature(x):
        return jnp.stack([CURVATURE(x), CURVATURE(x)])

    law = ValleyLaw(curvature, 0.02, 0.005, learning_rate=0.1)
    assert flat_side(law) == pytest.approx(0.72715, abs=6e-6)
    assert flat_side(ValleyLaw(curvature, 0.02, 0.005)) == pytest.approx(0.69777, abs=6e-6)
    assert law.draw(jax.random.key(0), (4,)).shape == (4, 3)
    assert law.covariance().shape == (3, 3)


# D_y = D₀e^(a cos x), κ = 4: exponent of F is κ+2 (Itô), κ+1, κ
@pytest.mark.parametrize(
    ("reading", "eta", "value"),
    [
        ("ito", 0.0, 0.59613),
        pytest.param("stratonovich", 0.0, 0.52800, marks=pytest.mark.slow),
        pytest.param("anti_ito", 0.0, 0.44639, marks=pytest.mark.slow),
        pytest.param("ito", 0.02, 0.60079, marks=pytest.mark.slow),
    ],
)
def test_readings_of_state_dependent_diffusion(reading, eta, value):
    law = ValleyLaw(
        CURVATURE,
        lambda x: 0.01 * CURVATURE(x),
        lambda x: 0.0025 * CURVATURE(x),
        reading=reading,
        learning_rate=eta,
    )
    assert flat_side(law) == pytest.approx(value, abs=6e-6)


@pytest.mark.slow
def test_floor_with_state_dependent_diffusion():
    # the exponent is −(κ/D₀)∫L₀'/g dx, not −κL₀/(D₀g): numerically
    def floor(x):
        return 0.01 * (1 - jnp.cos(x))

    law = ValleyLaw(
        CURVATURE, lambda x: 0.01 * CURVATURE(x), lambda x: 0.0025 * CURVATURE(x), floor=floor
    )
    x = np.linspace(0, 2.5, 20_001)
    h = 2 * np.exp(0.5 * np.cos(x))
    force = -0.01 * np.sin(x) / (0.0025 * h)
    integral = np.concatenate([[0], np.cumsum((force[1:] + force[:-1]) / 2) * (x[1] - x[0])])
    expected = integral - 3 * np.log(h)
    gap = law.log_marginal(x[::4000]) - expected[::4000]
    np.testing.assert_allclose(gap, gap[0], atol=1e-7)


# E x² = l²/(κ−3), Student-t with κ−1 degrees of freedom; a finite η cuts the support
def test_line():
    law = ValleyLaw.line(1.0, 1.0, 0.01, 9.0)
    assert law.expectation_along(lambda x: x**2) == pytest.approx(1 / 6, rel=1e-9)
    x = np.linspace(-3, 3, 13)
    exact = student_t.logpdf(x, 8, scale=1 / np.sqrt(8))
    np.testing.assert_allclose(law.log_marginal(x), exact, atol=1e-9)
    np.testing.assert_allclose(
        law.quantile(np.array([0.1, 0.9]))[:, 0], student_t.ppf([0.1, 0.9], 8) / 8**0.5, rtol=1e-4
    )
    grid = np.linspace(-80, 80, 1_600_001)
    assert np.trapezoid(np.exp(law.log_marginal(grid)) * abs(grid), grid) == pytest.approx(
        0.3125, abs=6e-6
    )


@pytest.mark.slow
def test_line_with_a_finite_step():
    law = ValleyLaw.line(1.0, 1.0, 0.01, 9.0, learning_rate=0.05)
    assert law.expectation_along(lambda x: x**2) == pytest.approx(0.15648, abs=6e-6)
    edge = np.sqrt(2 / 0.05 - 1)
    grid = np.linspace(-edge, edge, 400_001)[1:-1]
    density = np.exp(law.log_marginal(grid))
    assert np.trapezoid(density, grid) == pytest.approx(1, abs=1e-7)
    assert np.trapezoid(density * abs(grid), grid) == pytest.approx(0.30453, abs=6e-6)
    assert law.log_marginal(edge + 1) == -np.inf


def test_heavy_line_has_infinite_variance_and_the_heaviest_is_refused():
    law = ValleyLaw.line(1.0, 1.0, 0.01, 2.5)  # ν = 1.5
    assert law.covariance()[0, 0] == np.inf
    with pytest.raises(ImproperLawError, match=r"kappa\*r = 0.9 must exceed 1"):
        ValleyLaw.line(1.0, 1.0, 0.01, 0.9).draw(jax.random.key(0))


def test_edge_of_stability_is_refused():
    with pytest.raises(ImproperLawError, match=r"edge of stability .* eta\*h = 2.308"):
        ValleyLaw.ring(2.0, 0.5, 0.02, 4.0, learning_rate=0.7).log_marginal(0.0)


@pytest.mark.parametrize(
    ("diffusion", "mode"),
    [
        (0.4, 0.0),
        pytest.param(1.0, 1.0, marks=pytest.mark.slow),
        pytest.param(2.0, np.sqrt(3.0), marks=pytest.mark.slow),
    ],
)
@pytest.mark.filterwarnings("ignore::statsgd.laws.valleys.AdiabaticWarning")
def test_pitchfork(diffusion, mode):
    # L₀ = αx²/2, F = F₀(1+x²/l²)^r: the mode leaves 0 at D_y = αl²/(2r); then x*² = 2rD_y/α − l²
    law = ValleyLaw(
        lambda x: (1 + x**2) ** -2.0,
        diffusion,
        diffusion / 3,
        floor=lambda x: x**2 / 2,
        support="line",
    )
    x = np.linspace(0, 3, 3001)
    assert x[np.argmax(law.log_marginal(x))] == pytest.approx(mode, abs=2e-3)


@pytest.mark.slow
def test_effective_loss_is_what_boltzmann_lacks():
    # p(x, y) ∝ exp{−[L + L_SGD]/D_y}, so p(x) ∝ F exp{−[L₀ + L_SGD]/D_y}
    law = ValleyLaw.ring(2.0, 0.5, 0.05, 4.0, 0.02)
    x = np.linspace(-3, 3, 9)
    flatness = (2 * np.exp(0.5 * np.cos(x))) ** -0.5
    loss = 0.02 * (1 - np.cos(x)) + law.effective_loss(x)
    gap = law.log_marginal(x) - (np.log(flatness) - loss / 0.05)
    np.testing.assert_allclose(gap, gap[0], atol=1e-9)
    with pytest.raises(ValueError, match="constant and equal"):
        example("ValleyLaw", 2).effective_loss(0.0)


def test_slide_time():
    # (2/(aD_y)) [ln tan(x/2)] from x₀ to x₁
    law = ValleyLaw.ring(2.0, 0.5, 0.05, 400.0)
    assert law.slide_time(0.5, 2.0) == pytest.approx(144.654, abs=6e-4)
    with pytest.raises(ValueError, match="does not carry x"):
        law.slide_time(2.0, 0.5)


def test_adiabatic_parameter():
    # max κD_y h'²/(4h³) on a grid
    law = ValleyLaw.ring(2.0, 0.5, 0.2, 4.0)
    x = np.linspace(-np.pi, np.pi, 10_001)
    h = 2 * np.exp(0.5 * np.cos(x))
    expected = np.max(4 * 0.2 * (0.5 * np.sin(x)) ** 2 / (4 * h))
    assert law.adiabatic_parameter() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("second_order", "limit"), [(False, 0.05), (True, 0.22)])
def test_a_valley_too_slow_across_it_says_by_how_much(second_order, limit):
    # κD_y a² sin²x/(4h₀e^(a cos x)) is largest where a sin²x = −2 cos x.
    cosine = 1 - np.sqrt(2)  # for a = 1
    largest = 40 * 0.1 * (1 - cosine**2) / (8 * np.exp(cosine))
    law = ValleyLaw.ring(2.0, 1.0, 0.1, 40.0, second_order=second_order)
    assert law.adiabatic_parameter() == pytest.approx(largest, rel=1e-4)
    with pytest.warns(AdiabaticWarning, match=f"parameter {largest:.3g}.* below {limit}"):
        law.mean()
    # What it does not speak about is said without a warning.
    assert ValleyLaw.ring(2.0, 0.5, 0.05, 400.0).slide_time(0.5, 2.0) > 0


def exact_flat_side(modulation, kappa, ratio, waves=14, levels=28):
    """E[−cos x] of the ring in the plane, for D_y/h₀ = `ratio`: Fokker–Planck in Fourier × Hermite.

    u = y √(h₀/D_y) and time t h₀: dx = −½h'(x) r u² dt + √(2r/κ) dW, du = −h(x)u dt + √2 dW, with
    h = e^(a cos x); p = Σ c e^(imx) He_n(u)φ(u)/√n!, of which c_m0 is the marginal of x.
    """
    m, n = np.arange(-waves, waves + 1), np.arange(levels)
    x = 2 * np.pi * np.arange(64) / 64
    h = np.exp(modulation * np.cos(x))

    def times(values):
        series = np.fft.fft(values) / 64
        return series[(m[:, None] - m) % 64]

    along = np.diag(1j * m)
    raised = np.diag(np.sqrt(n[1:]), -1)
    u, slope = raised + raised.T, -raised
    operator = (
        np.kron(along @ times(-modulation * np.sin(x) * h), ratio / 2 * u @ u)
        + np.kron(ratio / kappa * along @ along, np.eye(levels))
        + np.kron(times(h), slope @ u)
        + np.kron(np.eye(len(m)), slope @ slope)
    )
    one = np.zeros(len(operator))
    one[waves * levels] = 1.0
    operator[waves * levels] = one  # in place of an equation that follows from the others
    return -np.linalg.solve(operator, one)[(waves + 1) * levels].real


def test_a_law_beyond_the_adiabatic_says_so_by_its_number():
    # The spectral solution gives five digits that are known at κ = 4 and 10.
    assert exact_flat_side(0.5, 4.0, 0.1) == pytest.approx(0.44084, abs=6e-6)
    assert exact_flat_side(0.5, 10.0, 0.1) == pytest.approx(0.75516, abs=6e-6)
    with pytest.warns(AdiabaticWarning, match=r"adiabatic parameter 0\.1\d+ makes"):
        first = flat_side(ValleyLaw.ring(1.0, 0.8, 0.2, 3.0))
    assert first == pytest.approx(i1(1.2) / i0(1.2), rel=1e-9)
    assert first == pytest.approx(0.5128, abs=5e-5)
    exact = exact_flat_side(0.8, 3.0, 0.2)
    assert exact == pytest.approx(0.4945, abs=5e-5)
    second = ValleyLaw.ring(1.0, 0.8, 0.2, 3.0, second_order=True)
    assert second.adiabatic_parameter() ** 2 < 0.05
    assert abs(flat_side(second) - exact) < abs(first - exact) / 2


def test_places_without_mass_do_not_count():
    # With h = (1 + x²)^(−2) the parameter is 4D x², without bound; p falls as e^(−x²/2D).
    law = ValleyLaw(
        lambda x: (1 + x**2) ** -2.0, 0.001, 0.001, floor=lambda x: x**2 / 2, support="line"
    )
    reach = 0.002 * np.log(1e8)
    assert law.adiabatic_parameter() == pytest.approx(0.004 * reach, rel=0.1)
    assert np.isfinite(law.covariance()).all()


@pytest.mark.slow
def test_draws_match_the_moments_and_the_distribution_function():
    law = ValleyLaw.ring(2.0, 0.5, 0.02, 4.0, 0.002, learning_rate=0.05)
    n = 50_000
    draws = np.asarray(law.draw(jax.random.key(0), (n,)), dtype=np.float64)
    cosine = -np.cos(draws[:, 0])
    assert abs(cosine.mean() - flat_side(law)) < 4 * cosine.std() / np.sqrt(n)  # 0.7 %
    across = draws[:, 1] ** 2
    assert abs(across.mean() - law.covariance()[1, 1]) < 4 * across.std() / np.sqrt(n)
    point = np.array([2.0, 0.1])
    p = law.cdf(point)
    assert np.all(abs(np.mean(draws < point, 0) - p) < 4 * np.sqrt(p * (1 - p) / n))


def test_density_under_jit_and_batches():
    law = example("ValleyLaw", 1)
    points = np.array([[0.2, 0.1], [-0.4, 0.3]])
    concrete = law.log_density(points)
    assert concrete.dtype == np.float64
    traced = jax.jit(lambda v: law.log_density(v))(jnp.asarray(points))
    np.testing.assert_allclose(traced, concrete, atol=1e-4)
    rebuilt = jax.jit(lambda d: ValleyLaw.ring(2.0, 0.5, d, 4.0, 0.01).log_marginal(1.0))(0.02)
    exact = ValleyLaw.ring(2.0, 0.5, 0.02, 4.0, 0.01).log_marginal(1.0)
    assert float(rebuilt) == pytest.approx(float(exact), abs=1e-4)


def ring_problem(start=None):
    def loss(v):
        return 0.5 * 2.0 * jnp.exp(0.5 * jnp.cos(v[0])) * v[1] ** 2

    def draw(key):
        return jnp.stack([jax.random.uniform(key, (), minval=-np.pi, maxval=np.pi), 0.0])

    return landscape(loss, draw if start is None else start)


def ring_sgd(eta, diffusion, kappa, **options):
    covariance = np.diag([1 / kappa, 1.0]) * 2 * diffusion / eta
    return SGD(eta, noise.Anisotropic(covariance), **options)


@pytest.mark.slow
def test_from_sgd_is_the_ring():
    sgd = ring_sgd(0.05, 0.02, 4.0, momentum=0.8)
    law = ValleyLaw.from_sgd(ring_problem(), sgd, support="ring")
    assert flat_side(law) == pytest.approx(0.45608, abs=6e-6)
    varying = SGD(
        0.02,
        noise.Anisotropic(
            lambda v: jnp.diag(jnp.array([0.25, 1.0])) * jnp.exp(0.5 * jnp.cos(v[0]))
        ),
    )
    assert flat_side(ValleyLaw.from_sgd(ring_problem(), varying, support="ring")) == pytest.approx(
        0.60079, abs=6e-6
    )


def test_from_sgd_refuses_what_is_no_valley():
    sgd = ring_sgd(0.05, 0.02, 4.0)
    tilted = landscape(lambda v: v[1] + v[1] ** 2, np.zeros(2))
    with pytest.raises(ValueError, match="must lie at zero in all but the first"):
        ValleyLaw.from_sgd(tilted, sgd, support="ring")
    ridge = landscape(lambda v: -(v[1] ** 2), np.zeros(2))
    with pytest.raises(ValueError, match="must be diagonal and positive, got a smallest entry -2"):
        ValleyLaw.from_sgd(ridge, sgd, support="ring")
    mixed = SGD(0.05, noise.Anisotropic([[1.0, 0.5], [0.5, 1.0]]))
    with pytest.raises(ValueError, match="noise covariance on the valley floor"):
        ValleyLaw.from_sgd(ring_problem(), mixed, support="ring")
    with pytest.raises(ValueError, match="support must be 'ring', 'line' or a pair"):
        ValleyLaw.from_sgd(ring_problem(), sgd, support="circle")


def test_second_order_wants_the_sde():
    with pytest.raises(ValueError, match="second_order needs constant diffusion"):
        ValleyLaw.ring(2.0, 0.5, 0.02, 4.0, learning_rate=0.1, second_order=True)


@pytest.mark.slow
def test_sgd_on_the_ring_prefers_the_flat_side_as_the_law_says():
    # η = 0.2, D_y = 0.2, κ = 4: second order plus the finite-step shift; the chain identity
    # E[h y²(1 − ηh/2)] = E D_y holds exactly, adiabatic or not
    eta, diffusion, kappa, n = 0.2, 0.2, 4.0, 4000
    problem, sgd = ring_problem(), ring_sgd(eta, diffusion, kappa)

    def identity(v):
        h = 2.0 * jnp.exp(0.5 * jnp.cos(v[0]))
        return h * v[1] ** 2 * (1 - eta * h / 2)

    tree = statsgd.simulate(
        problem,
        sgd,
        steps=1600,  # 16 relaxation times κ/(ηD_y) = 100
        replicas=n,
        seed=0,
        progress=False,
        observe={"flat": lambda v: -jnp.cos(v[0]), "identity": identity},
        observe_at=list(range(600, 1601, 100)),
    )
    first = flat_side(ValleyLaw.from_sgd(problem, sgd, support="ring"))
    second = flat_side(ValleyLaw.from_sgd(problem, sgd, support="ring", second_order=True))
    bare = flat_side(ValleyLaw.ring(2.0, 0.5, diffusion, kappa))
    expected = second + first - bare
    flat = tree["observables"]["flat"].values.mean(1)
    error = flat.std() / np.sqrt(n)  # about 1 %
    assert abs(flat.mean() - expected) < 4 * error + 0.003
    balance = tree["observables"]["identity"].values.mean(1)
    assert abs(balance.mean() - diffusion) < 4 * balance.std() / np.sqrt(n)


# Var(y|x) = ηs²h/(2 − ηh): η = 0.1, s = 0.3, h = 2
def test_random_shift_variance():
    variance, drift = random_shift_noise(lambda x: 2.0 + 0 * x, 0.1, 0.3, 0.0)
    assert variance == pytest.approx(0.01, abs=6e-8)
    assert drift == 0
    with pytest.raises(ImproperLawError, match="edge of stability"):
        random_shift_noise(lambda x: 30.0 + 0 * x, 0.1, 0.3, 0.0)


@pytest.mark.slow
def test_random_shift_slides_to_the_flat_side():
    curvature = LineCurvature(np.float64(1.0), np.float64(1.0))
    # w(k) = w(0) exp[−(ηsh₀/l)²k] for ηh → 0: 0.18394 at (ηs)²k = 1
    k = 1 / (1e-4 * 0.2) ** 2
    x = random_shift_path(curvature, 1e-4, 0.2, 1.0, [k])[0]
    assert x**2 / (1 + x**2) == pytest.approx(0.18394, abs=2e-5)
    # finite step, η = 0.05, s = 0.2: the ODE gives 0.1770
    steps = 10_000
    x = random_shift_path(curvature, 0.05, 0.2, 1.0, [0, steps])
    assert x[0] == 1.0
    assert x[1] ** 2 / (1 + x[1] ** 2) == pytest.approx(0.1770, abs=6e-5)
    problem = landscape(lambda v: 0.5 * (1 + v[0] ** 2) * v[1] ** 2, np.array([1.0, 0.0]))
    sgd = SGD(0.05, noise.Anisotropic(shift_noise_covariance(lambda x: 1 + x**2, 0.2)))
    tree = statsgd.simulate(problem, sgd, steps=steps, replicas=128, seed=0, progress=False)
    end = tree["endpoints"]["params"].values[:, 0]
    w = end**2 / (1 + end**2)
    assert abs(w.mean() - 0.1770) < 4 * w.std() / np.sqrt(128) + 0.001


def test_upper_bounds_of_the_learning_rate():
    # η_c = 2/(h[1 + (d+1)/S]); 2h/(h² + s_h²); 2(1+β)/h
    assert max_stable_learning_rate(np.ones(5), batch_size=1).least_squares == pytest.approx(
        0.285714, abs=6e-7
    )
    assert max_stable_learning_rate(np.ones(5), batch_size=4).least_squares == pytest.approx(0.8)
    bounds = max_stable_learning_rate([1.0, 2.0], curvature_variance=[3.0, 1.0])
    assert bounds.curvature_noise == pytest.approx(0.5)
    assert bounds.edge_of_stability == 1.0
    assert bounds.smallest == pytest.approx(0.5)
    assert max_stable_learning_rate([2.0], 0.5).smallest == pytest.approx(1.5)


def varying(value):
    """The same diffusion, given as a function."""
    return lambda x: value + 0 * x


def widening(x):
    return 1 + x**2


def rising(x):
    return 0.001 * x**2


@pytest.mark.slow
def test_diffusion_as_a_function_is_the_same_law():
    # κ = 4: p ∝ h^(−2) exp(−κL₀/D_y).
    def density(x):
        return np.exp(-0.4 * x**2) / (1 + x**2) ** 2

    normalizer = 2 * quad(density, 0, 30)[0]
    variance = 2 * quad(lambda x: x**2 * density(x), 0, 30)[0] / normalizer
    assert variance == pytest.approx(0.34310, abs=6e-6)
    x = np.array([-2.0, 0.0, 1.0])
    for across, along in ((0.01, 0.0025), (varying(0.01), varying(0.0025))):
        law = ValleyLaw(widening, across, along, floor=rising, support="line")
        assert law.covariance()[0, 0] == pytest.approx(variance, rel=1e-9)
        np.testing.assert_allclose(law.log_marginal(x), np.log(density(x) / normalizer), atol=1e-9)
        assert law.error_estimate < 1e-9


@pytest.mark.slow
def test_second_order_on_a_line_with_a_rising_floor():
    # Drift and diffusion of the second order for h = 1 + x², written out, with q = h'/h.
    across, kappa = 0.01, 4.0

    def rate(x):
        h, q = 1 + x**2, 2 * x / (1 + x**2)
        bend = 2 * (1 - x**2) / (1 + x**2) ** 2
        diffusion = across / kappa + across**2 * (1 - 2 / kappa) * q**2 / (4 * h)
        of_y = (1 - 2 / kappa) * q * bend / 4 + q**3 / 8 - (q * bend - q**3) / (4 * kappa)
        drift = -0.002 * x - across * q / 2 + across**2 * of_y / h
        return drift + across * 0.002 * x * q**2 / (4 * h), diffusion

    def density(x):
        exponent = quad(lambda u: rate(u)[0] / rate(u)[1], 0, x)[0]
        return np.exp(exponent) / rate(x)[1]

    normalizer = quad(density, 0, 12)[0]
    variance = quad(lambda x: x**2 * density(x), 0, 12)[0] / normalizer
    assert variance == pytest.approx(0.344793, abs=6e-7)
    law = ValleyLaw(
        widening, across, across / kappa, floor=rising, support="line", second_order=True
    )
    assert law.covariance()[0, 0] == pytest.approx(variance, rel=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("diffusion", [1e-4, 1e-5, 1e-8])
@pytest.mark.parametrize("kind", [lambda value: value, varying], ids=["number", "function"])
def test_little_diffusion_on_a_line(diffusion, kind):
    # p ∝ exp(−x²/(2D)) h^(−1/2), in units of √D.
    def density(u):
        return np.exp(-(u**2) / 2) / np.sqrt(1 + 0.1 * np.cos(np.sqrt(diffusion) * u))

    variance = quad(lambda u: u**2 * density(u), -12, 12)[0] / quad(density, -12, 12)[0]
    across = kind(diffusion)
    law = ValleyLaw(
        lambda x: 1 + 0.1 * jnp.cos(x), across, across, floor=lambda x: x**2 / 2, support="line"
    )
    assert law.covariance()[0, 0] / diffusion == pytest.approx(variance, rel=1e-9)
    median, above = law.quantile(np.array([0.5, 0.8413447460685429]))[:, 0] / np.sqrt(diffusion)
    assert abs(median) < 1e-7
    assert above == pytest.approx(1, abs=2e-5)


@pytest.mark.slow
def test_the_density_of_a_cold_place_far_along_a_line_integrates_to_one():
    # Noise that varies over a cold well at x = 3: 2·10⁵ temperatures below the origin.
    def along(x):
        return 1e-5 * (1 + 0.9 * jnp.sin(8 * x))

    law = ValleyLaw(
        lambda x: 2 + 0 * x, 0.02, along, floor=lambda x: (x - 3) ** 2 / 2, support="line"
    )
    x = np.linspace(2.95, 3.05, 4001)
    assert np.trapezoid(np.exp(law.log_marginal(x)), x) == pytest.approx(1, abs=1e-9)
    assert law.error_estimate < 1e-6


def test_the_marginal_across_a_valley_with_kinks_is_the_mixture():
    # h = 1 + 20|sin x|: ∫ p(x) Φ(y/σ(x)) dx by adaptive quadrature about the kink at zero.
    law = ValleyLaw(lambda x: 1 + 20 * jnp.abs(jnp.sin(x)), 1e-4, 1e-3)

    def below(x):
        return np.exp(law.log_marginal(x)) * norm.cdf(0.015 / law.conditional_variance(x)[0] ** 0.5)

    expected = 2 * quad(below, 0, np.pi, epsrel=1e-10, limit=300)[0]
    assert law.cdf(np.array([0.0, 0.015]))[1] == pytest.approx(expected, abs=2e-6)


def test_mass_beyond_the_ends_of_a_heavy_line_is_stated_or_refused():
    # Student-t of ν = κ − 1: at ν = 0.1 a share of some hundredths lies beyond e⁴⁰ lengths.
    with pytest.warns(UnresolvedWarning, match="not resolved"):
        law = ValleyLaw.line(1.0, 1.0, 1e-12, 1.1)
    place = np.array([1.0, 1e5, 1e15])
    found = law.table.cdf(law.valley.coordinate.parameter(place))
    error = np.abs(found - student_t(0.1, scale=1 / np.sqrt(0.1)).cdf(place))
    assert 1e-3 < np.max(error) < law.error_estimate < 0.1
    with (
        pytest.warns(UnresolvedWarning),
        pytest.raises(IntractableError, match="does not resolve"),
    ):
        ValleyLaw.line(1.0, 1.0, 1e-12, 1.02).mean()
