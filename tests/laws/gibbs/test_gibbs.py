import equinox as eqx
import jax
import numpy as np
import numpyro.handlers
import pytest
from numpy.testing import assert_allclose
from scipy.integrate import quad

from statsgd import SGD, ImproperLawError, noise, simulate
from statsgd.laws.gibbs.gibbs import Gibbs, gibbs_temperature
from statsgd.laws.minimum.heavy_ball import HeavyBallGaussian
from statsgd.problems import landscape, linear_regression
from statsgd.problems.landscapes import quadratic, quartic_wells, smooth_wells, valley_wells

SADDLE = 0.6585913  # of smooth_wells(2)


@pytest.mark.parametrize(
    ("momentum", "variance", "step_variance", "leading"),
    # Var θ = (ηc/h)(1+β)/((1−β)(2(1+β)−ηh)), Var δ = 2η²c/((1−β)(2(1+β)−ηh)), and τ/h.
    [
        (0.0, 0.00694444, 0.00277778, 0.00625),
        (0.5, 0.01339286, 0.00357143, 0.0125),
        (0.9, 0.06597222, 0.01388889, 0.0625),
    ],
)
def test_quadratic_with_and_without_the_correction(momentum, variance, step_variance, leading):
    problem = quadratic([[2.0]])
    law = Gibbs.from_noise(problem, 0.1, 0.25, momentum)
    assert_allclose(law.covariance(), [[leading]], rtol=1e-9)
    corrected = Gibbs.from_noise(problem, 0.1, 0.25, momentum, discrete_correction=True)
    assert_allclose(corrected.covariance(), [[variance]], atol=5.1e-9)
    chain = HeavyBallGaussian([[2.0]], [[0.25]], 0.1, momentum)
    assert_allclose(corrected.covariance(), chain.covariance(), rtol=1e-12)
    assert_allclose(0.1**2 * chain.covariance("momentum_buffer"), [[step_variance]], atol=5.1e-9)


@pytest.mark.parametrize(
    ("temperature", "flat"), [(0.05, 0.710365), (0.02, 0.733882), (0.01, 0.743155)]
)
def test_mass_of_the_flat_well(temperature, flat):
    # ∫_{−∞}^{saddle} exp(−L/τ) / ∫ exp(−L/τ)
    law = Gibbs(smooth_wells(), temperature)
    assert_allclose(law.cdf(np.array([SADDLE])), [flat], atol=6e-7)
    assert_allclose(law.quantile(flat), SADDLE, atol=2e-3)


@pytest.mark.parametrize(("temperature", "flat"), [(0.1, 0.732577), (0.05, 0.742904)])
def test_mass_of_the_flat_well_of_the_valley(temperature, flat):
    # Summation of the unnormalised law on a grid; its marginal is exp(−(x²−1)²/4τ) k^(−1/2).
    law = Gibbs(valley_wells(), temperature)
    assert not law.normalized
    x, y = np.linspace(-2.5, 2.5, 401), np.linspace(-4, 4, 401)
    points = np.stack(np.meshgrid(x, y, indexing="ij"), -1)
    density = np.exp(law.log_density(points)).sum(axis=1)
    k = 5 + 4 * np.tanh(2 * x) / np.tanh(2)
    marginal = np.exp(-((x**2 - 1) ** 2) / (4 * temperature)) / np.sqrt(k)
    assert_allclose(density / density.sum(), marginal / marginal.sum(), atol=1e-8)
    below = np.where(x < 0, 1.0, np.where(x == 0, 0.5, 0.0))
    assert_allclose(below @ marginal / marginal.sum(), flat, atol=2e-6)


def test_density_is_normalised_and_moments_agree_with_quadrature():
    law = Gibbs(smooth_wells(), 0.05, weight_decay=0.3)

    def density(x):
        return np.exp(-(0.5 * (x * (1 - x) * (1 + 2 * x**2)) ** 2 + 0.15 * x**2) / 0.05)

    z = quad(density, -3, 3, points=[0, 1], epsabs=1e-13)[0]
    mean = quad(lambda x: x * density(x) / z, -3, 3, points=[0, 1], epsabs=1e-13)[0]
    square = quad(lambda x: x**2 * density(x) / z, -3, 3, points=[0, 1], epsabs=1e-13)[0]
    assert_allclose(law.log_normalizer(), np.log(z), atol=1e-9)
    assert_allclose(law.mean(), [mean], rtol=1e-8)
    assert_allclose(law.covariance(), [[square - mean**2]], rtol=1e-8)
    assert_allclose(law.log_density(np.array([0.4])), np.log(density(0.4) / z), rtol=1e-9)


@pytest.mark.parametrize(
    ("temperature", "mean", "square"),
    [(0.4, ".14946332", ".31699910"), (1.0, ".10729465", ".54547206")],
)
def test_moments_of_an_anharmonic_well(temperature, mean, square):
    # L = x⁴/4 + .3x² − .2x; momentum enters as τ/(1−β) alone.
    problem = landscape(lambda x: x[0] ** 4 / 4 + 0.3 * x[0] ** 2 - 0.2 * x[0], np.zeros(1))
    law = Gibbs(problem, temperature)
    assert law.mean()[0] == pytest.approx(float(mean), rel=1e-6)
    assert law.covariance()[0, 0] + law.mean()[0] ** 2 == pytest.approx(float(square), rel=1e-6)


def test_heavy_tails_are_tabulated_and_too_heavy_ones_refused():
    # L = log(1+x²)/2 and τ give a Student law with ν = 1/τ − 1 degrees of freedom.
    problem = landscape(lambda params: 0.5 * jax.numpy.log1p(params[0] ** 2), np.zeros(1))
    law = Gibbs(problem, 0.2)
    assert_allclose(law.covariance(), [[1 / (4 - 2)]], rtol=1e-6)  # scale² = 1/ν, Var 1/(ν−2)
    with pytest.raises(ImproperLawError, match=r"flat directions .* = 0.8\d* there and must"):
        Gibbs(problem, 1.25).log_density(np.array([0.0]))


@pytest.mark.slow
def test_draws_follow_the_law():
    # 40 000 draws: 1 % standard error of a variance, 0.25 % of a probability.
    law = Gibbs(smooth_wells(), 0.05)
    draws = law.draw(jax.random.key(0), (40_000,))[:, 0]
    flat = np.mean(draws < SADDLE)
    assert abs(flat - 0.710365) < 4 * np.sqrt(0.71 * 0.29 / len(draws))
    spread = draws.var()
    error = np.sqrt(np.var((draws - draws.mean()) ** 2) / len(draws))
    assert abs(spread - law.covariance()[0, 0]) < 4 * error < 0.1 * spread


def test_linear_regression_is_an_exact_normal_law():
    inputs = np.array([[1.0, 0.5], [0.2, -1.0], [1.5, 1.0]])
    problem = linear_regression(inputs, [1.0, 0.0, -1.0])
    law = Gibbs.from_sgd(problem, SGD(0.1, noise.Isotropic(0.5), 0.5, 0.2))
    curvature = inputs.T @ inputs / 3 + 0.2 * np.eye(2)
    assert_allclose(law.temperature, 0.1 * 0.5 / (2 * 0.5))
    assert_allclose(law.covariance(), 0.05 * np.linalg.inv(curvature), rtol=1e-9)
    mean = np.linalg.solve(curvature, inputs.T @ [1.0, 0.0, -1.0] / 3)
    assert_allclose(law.mean(), mean, rtol=1e-9)
    # log Z belongs to U with its value at the minimum: the normal density comes out.
    quadratic_part = 0.5 * np.linalg.slogdet(2 * np.pi * law.covariance())[1]
    assert_allclose(law.log_density(mean), -quadratic_part, rtol=1e-9)
    draws = law.draw(jax.random.key(1), (40_000,))
    assert_allclose(np.cov(draws.T), law.covariance(), rtol=0.03, atol=3e-3)
    assert_allclose(law.cdf(law.quantile(0.3)), [0.3, 0.3], rtol=1e-9)


def test_joint_law_with_the_momentum_buffer():
    law = Gibbs.phase_space(smooth_wells(), 0.1, 0.1, 0.9)
    assert law.variables == ("params", "momentum_buffer")
    temperature = gibbs_temperature(0.1, 0.1, 0.9)
    assert_allclose(law.covariance("momentum_buffer"), [[temperature / 0.1]])
    # exp(−(L + |z|²/2)/τ) with z = −√η m
    x, moving, still = np.array([0.3]), np.array([0.7]), np.array([0.0])
    ratio = law.log_density(x, moving) - law.log_density(x, still)
    assert_allclose(ratio, -0.1 * 0.7**2 / (2 * temperature))
    draws = law.draw_variables(jax.random.key(2), (20_000,))
    buffer = np.asarray(draws["momentum_buffer"])[:, 0]
    assert abs(buffer.var() / (temperature / 0.1) - 1) < 4 * np.sqrt(2 / 20_000)
    trace = numpyro.handlers.trace(
        numpyro.handlers.seed(Gibbs.phase_space(quadratic([[2.0]]), 0.1, 0.1, 0.9).model, 0)
    ).get_trace()
    assert {"params", "momentum_buffer"} <= set(trace)
    with pytest.raises(ValueError, match="a law of params alone"):
        Gibbs(smooth_wells(), 0.1).log_density(np.zeros(1), np.zeros(1))


@pytest.mark.slow
def test_laws_stack_and_trace():
    laws = [Gibbs(smooth_wells(), temperature) for temperature in (0.02, 0.05)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *laws)
    values = eqx.filter_vmap(lambda law: law.log_density(np.array([0.3])))(stacked)
    assert_allclose(values, [law.log_density(np.array([0.3])) for law in laws], rtol=1e-5)
    # d log p/dτ = (L − E L)/τ², with Z differentiated by quadrature between the bounds.
    slope = jax.grad(
        lambda t: Gibbs(quadratic([[1.0]]), t, bounds=(-8.0, 8.0)).log_density(np.array([0.3]))
    )(0.5)
    assert_allclose(slope, (0.5 * 0.3**2 - 0.5 * 0.5) / 0.5**2, rtol=1e-4)


def test_bounds_restrict_the_law():
    law = Gibbs(quadratic([[1.0]]), 1.0, bounds=(0.0, 9.0))
    assert_allclose(law.mean(), [np.sqrt(2 / np.pi)], rtol=1e-8)  # half-normal
    assert law.log_density(np.array([-0.1])) == -np.inf
    site = numpyro.handlers.trace(
        numpyro.handlers.substitute(law.model, {"params": np.array([1.0])})
    ).get_trace()["params"]
    assert site["fn"].support.base_constraint.upper_bound == 9.0


def test_flat_directions_are_listed():
    with pytest.raises(ImproperLawError, match=r"flat directions \[0\].*need weight_decay > 0"):
        Gibbs.quadratic(np.diag([1.0, 0.0]), 0.1).covariance()
    with pytest.raises(ImproperLawError, match=r"discrete_step\*h = 2.1 >= 2"):
        Gibbs(quadratic([[2.1]]), 0.1, discrete_step=1.0).mean()
    with pytest.raises(ValueError, match="temperature must be positive"):
        Gibbs(smooth_wells(), -1.0)
    with pytest.raises(ValueError, match="noise must be Isotropic"):
        Gibbs.from_sgd(smooth_wells(), SGD(0.1, noise.LossScaled(1.0)))


def test_frozen_noise_is_the_mean_variance_there():
    sgd = SGD(0.1, noise.LossScaled(1.0, 0.5))
    law = Gibbs.from_sgd(quadratic(np.eye(2)), sgd, at=np.array([1.0, 0.0]))
    assert_allclose(law.temperature, 0.05 * (0.5 + 0.5))  # ησ(L + c₀)/2 at that point


@pytest.mark.slow
def test_sgd_in_two_wells_prefers_the_flat_one_as_the_chain_formula_says():
    # Exact chain at η = 0.04, τ = 0.02: 0.7525 (SDE 0.7339), after 5 relaxation times of 2688
    # steps. 6000 runs: standard error 0.0056, so the SDE value fails.
    start = np.where(np.arange(6000) % 4 == 0, 1.0, 0.0)[:, None]
    sgd = SGD(0.04, noise.Isotropic(1.0))
    runs = simulate(
        smooth_wells(), sgd, steps=10_000, replicas=6000, seed=1, start=start, progress=False
    )
    flat = np.mean(runs["endpoints"]["params"].values < SADDLE)
    assert abs(flat - 0.7525) < 4 * np.sqrt(0.7525 * 0.2475 / 6000)


def test_momentum_sgd_has_the_gibbs_law_of_its_effective_temperature():
    # Fraction at x > 0 after k steps from −1 tends to ½(1 − exp(−gap √η k)), gap 0.0225192 per
    # unit of √η k, at η = 0.01, β = 0.9, c = 2 (τ = 0.1).
    sgd = SGD(0.01, noise.Isotropic(2.0), momentum=0.9)
    assert_allclose(Gibbs.from_sgd(quartic_wells(), sgd).temperature, 0.1)
    runs = simulate(
        quartic_wells(), sgd, steps=888, replicas=6000, seed=2, observe={"x": lambda p: p[0]},
        observe_at=[444, 888], progress=False,
    )  # fmt: skip
    right = (runs["observables"]["x"].values > 0).mean(axis=0)
    assert_allclose(right, [0.3160, 0.4323], atol=0.02)
    assert_allclose(right, 0.5 * (1 - np.exp(-0.0225192 * 0.1 * np.array([444, 888]))), atol=0.03)
