import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.integrate import quad
from scipy.special import ndtr

from statsgd import SGD, ImproperLawError, noise, simulate
from statsgd.laws.gibbs.effective_potential import EffectivePotentialGibbs
from statsgd.laws.gibbs.gibbs import Gibbs
from statsgd.laws.law import IntractableError
from statsgd.problems import landscape, linear_regression
from statsgd.problems.landscapes import quadratic, smooth_wells

SADDLE = 0.6585913


WELLS, BOWL = smooth_wells(), quadratic([[1.0]])


def one_plus_square(params):
    return 1 + params[0] ** 2


def step_up(params):
    return 1.5 + 0.5 * jnp.tanh(3 * (params[0] - 0.5))


@pytest.mark.parametrize(("learning_rate", "variance"), [(0.1, 0.0526316), (0.4, 0.25)])
def test_student_law(learning_rate, variance):
    # v₁ = 1+x², L = x²/2, S = 1: p ∝ (1+x²)^(−1−1/η), Student ν = 1+2/η, Var = 1/(ν−2).
    law = EffectivePotentialGibbs(BOWL, one_plus_square, learning_rate)
    assert_allclose(law.covariance(), [[variance]], atol=5.1e-8)
    x = np.array([[0.0], [0.7]])
    ratio = np.diff(law.log_density(x))
    assert_allclose(ratio, [-(1 + 1 / learning_rate) * np.log(1.49)], rtol=1e-9)


@pytest.mark.parametrize(("scale", "flat"), [(0.02, 0.905783), (0.005, 0.995928)])
def test_weaker_noise_wins_exponentially(scale, flat):
    # The cumulative integral of exp(−U_eff) up to the saddle; scale = η/(2S) with S = 1.
    law = EffectivePotentialGibbs(WELLS, step_up, 2 * scale)
    assert_allclose(law.cdf(np.array([SADDLE])), [flat], atol=6e-7)
    assert_allclose(law.effective_loss(np.array([1.0])), 0.0206264, atol=5.1e-8)  # ∫L'/v₁
    assert_allclose(law.effective_loss(np.array([SADDLE])), 0.0673892, atol=5.1e-8)


def test_noise_set_by_the_loss_keeps_the_tie():
    wells = smooth_wells()
    law = EffectivePotentialGibbs(wells, lambda p: 1 + 2 * wells.loss(p), 0.02)
    assert_allclose(law.cdf(np.array([SADDLE])), [0.743042], atol=6e-7)
    assert_allclose(law.effective_loss(np.array([1.0])), 0.0, atol=1e-12)


def test_constant_noise_is_the_gibbs_law():
    law = EffectivePotentialGibbs(smooth_wells(), lambda p: jnp.full((), 0.5), 0.2, 0.1)
    gibbs = Gibbs.from_noise(smooth_wells(), 0.2, 0.5, weight_decay=0.1)
    x = np.linspace(-0.5, 1.2, 7)[:, None]
    assert_allclose(law.log_density(x), gibbs.log_density(x), atol=1e-8)


@pytest.mark.slow
def test_loss_scaled_noise_in_the_plane():
    # c = σ(L + f) in any dimension: U_eff = (1 + 2/(ησ)) log(L + f) + const.
    bowl = quadratic(np.diag([1.0, 2.0]))
    sgd = SGD(0.2, noise.LossScaled(1.5, 0.3))
    law = EffectivePotentialGibbs.from_sgd(bowl, sgd)
    points = np.array([[0.0, 0.0], [0.5, -1.0], [3.0, 2.0]])
    losses = 0.5 * (points[:, 0] ** 2 + 2 * points[:, 1] ** 2)
    expected = -(1 + 2 / 0.3) * np.log(losses / 0.3 + 1)
    assert_allclose(np.diff(law.log_density(points)), np.diff(expected), rtol=1e-7)


@pytest.mark.parametrize(
    "start", [-1e6, *(pytest.param(s, marks=pytest.mark.slow) for s in (0.0, 50.0, 1e3))]
)
def test_law_of_sgd_does_not_depend_on_where_the_problem_starts(start):
    # c = σ(L + f), L = x²/2: Student, Var = 2fε/(4 − ε) at ε = ησ = .3.
    sgd = SGD(0.2, noise.LossScaled(1.5, 0.3))
    problem = landscape(lambda x: 0.5 * jnp.sum(x**2), np.full(1, start))
    law = EffectivePotentialGibbs.from_sgd(problem, sgd)
    assert_allclose(law.covariance(), [[0.6 * 0.3 / 3.7]], rtol=1e-6)


def test_law_of_sgd_in_the_plane_does_not_depend_on_where_the_problem_starts():
    problem = landscape(lambda x: 0.5 * (x[0] ** 2 + 2 * x[1] ** 2), np.array([1e4, -1e3]))
    law = EffectivePotentialGibbs.from_sgd(problem, SGD(0.2, noise.LossScaled(1.5, 0.3)))
    points = np.array([[0.0, 0.0], [0.5, -1.0], [3.0, 2.0]])
    losses = 0.5 * (points[:, 0] ** 2 + 2 * points[:, 1] ** 2)
    expected = -(1 + 2 / 0.3) * np.log(losses / 0.3 + 1)
    assert_allclose(np.diff(law.log_density(points)), np.diff(expected), rtol=1e-7)


@pytest.mark.slow
def test_noise_may_vanish_at_the_minimum():
    # c = σL: U_eff = (1 + 2/(ησ)) log L, from a place where there is noise.
    problem = landscape(lambda x: 0.5 * jnp.sum(x**2), np.ones(2))
    law = EffectivePotentialGibbs.from_sgd(problem, SGD(0.2, noise.LossScaled(1.5, 0.0)))
    gap = np.diff([law.potential(np.array(x)) for x in ([0.5, 0.0], [1.0, 1.0])])
    assert_allclose(gap, [(1 + 2 / 0.3) * np.log(8)], rtol=1e-5)


def test_gradient_and_hessian_of_the_potential_are_exact():
    law = EffectivePotentialGibbs(WELLS, step_up, 0.04)
    x = jnp.array([0.3])

    def drift(params):
        return jax.grad(smooth_wells().loss)(params) / step_up(params)

    assert_allclose(jax.jit(jax.grad(lambda p: law.effective_loss(p)))(x), drift(x), rtol=1e-5)
    curvature = jax.jit(jax.hessian(lambda p: law.effective_loss(p)))(x)
    assert_allclose(curvature, jax.jit(jax.jacobian(drift))(x), rtol=1e-5)


@pytest.mark.slow
def test_single_parameter_regression_may_have_any_minibatch_noise():
    # C(θ) = Var_i(x_i(x_iθ − y_i))/S is a quadratic in θ; d = 1 makes every noise isotropic.
    x, y = np.array([1.0, 0.5, -1.5, 2.0]), np.array([0.3, 1.0, -1.0, 1.5])
    problem = linear_regression(x[:, None], y)
    law = EffectivePotentialGibbs.from_sgd(problem, SGD(0.05, noise.Minibatch(2)))
    points = np.linspace(-0.5, 2.0, 5)
    variance = [np.var(x * (x * t - y)) / 2 for t in points]
    assert_allclose([law.noise_variance(np.array([t])) for t in points], variance, rtol=1e-5)
    # Stationary Itô moment: E[θ-drift·(θ−θ*)] balance 2h Var = η E C, Pearson family: exact.
    h, place = np.mean(x**2), np.mean(x * y) / np.mean(x**2)
    assert_allclose(law.mean(), [place], rtol=1e-6)
    curved = np.mean((x**2 - h) ** 2) / 2
    floor = np.var(x * (x * place - y)) / 2
    assert_allclose(law.covariance(), [[0.05 * floor / (2 * h - 0.05 * curved)]], rtol=1e-5)


def test_refusals():
    with pytest.raises(ValueError, match=r"grad c and grad L are not parallel \(max \|curl\| = "):
        EffectivePotentialGibbs(quadratic(np.eye(2)), lambda p: 1 + p[0] ** 2, 0.1)
    with pytest.raises(ValueError, match="momentum must be 0"):
        EffectivePotentialGibbs.from_sgd(smooth_wells(), SGD(0.1, noise.LossScaled(1.0, 1.0), 0.5))
    with pytest.raises(ValueError, match="noise must be isotropic"):
        EffectivePotentialGibbs.from_sgd(
            quadratic(np.eye(2)), SGD(0.1, noise.Anisotropic(np.diag([1.0, 2.0])))
        )
    with pytest.raises(ImproperLawError, match=r"= 0\.8 and must exceed d = 1"):
        EffectivePotentialGibbs.improper_examples()[0].mean()


@pytest.mark.slow
def test_sgd_with_varying_noise_has_the_student_law_at_small_steps():
    # Var of the chain: (η/S)/(2 − η − η/S) = 0.0555556 at η = 0.1, S = 1, against 0.0526316 of
    # the SDE. ν = 21, kurtosis 3.35: standard error 1.1 % at 20 000 runs, so the 5.4 % shows.
    sgd = SGD(0.1, noise.Anisotropic(lambda p: (1 + p[0] ** 2).reshape(1, 1)))
    problem = quadratic([[1.0]])
    runs = simulate(problem, sgd, steps=120, replicas=20_000, seed=3, progress=False)
    spread = runs["endpoints"]["params"].values.var()
    assert abs(spread / 0.0555556 - 1) < 4 * np.sqrt(2.4 / 20_000)
    law = EffectivePotentialGibbs.from_sgd(problem, sgd)
    assert_allclose(law.covariance(), [[0.0526316]], rtol=1e-6)


@pytest.mark.slow
def test_draws_follow_the_law():
    law = EffectivePotentialGibbs(BOWL, one_plus_square, 0.1)
    draws = law.draw(jax.random.key(0), (40_000,))
    assert abs(draws.var() / 0.0526316 - 1) < 4 * np.sqrt(2.4 / 40_000)


def raised_wells(params):
    """Parabolas of curvatures 1 and 9 with bottoms at .10 and .05, cut where they meet."""
    x = params[0]
    return jnp.minimum(0.1 + (x + 1) ** 2 / 2, 0.05 + 9 * (x - 1) ** 2 / 2)


@pytest.mark.parametrize(("ratio", "printed"), [(0.1, 2.02e-6), (0.35, 0.0388358)])
def test_noise_that_grows_with_the_loss_of_kinked_wells(ratio, printed):
    # C = σL, ε = ησ: p ∝ L^(−1−2/ε) exactly, and Φ = log L/σ, whose slope jumps at the kink.
    power = 1 + 2 / ratio
    split = (5 - np.sqrt(7.2)) / 4  # 4x² − 10x + 4.45 = 0

    def well(bottom, curvature, place):
        def density(x):
            return (0.05 / (bottom + curvature * (x - place) ** 2 / 2)) ** power

        return lambda *ends: sum(
            quad(density, *pair, epsabs=0, epsrel=1e-11)[0] for pair in itertools.pairwise(ends)
        )

    flat = well(0.1, 1, -1)(-np.inf, -3, -1, split)
    sharp = well(0.05, 9, 1)(split, 1, 2, np.inf)
    expected = flat / (flat + sharp)
    assert expected == pytest.approx(printed, rel=2e-3)
    law = EffectivePotentialGibbs(landscape(raised_wells, np.zeros(1)), raised_wells, ratio)
    assert_allclose(law.cdf(np.array([split])), [expected], rtol=1e-6)
    assert law.error_estimate < 1e-8
    score = -power * 9 * (0.7 - 1) / (0.05 + 4.5 * 0.09)
    assert_allclose(law.score(np.array([0.7])), [score], rtol=1e-9)


class QuietRing(eqx.Module):
    """1/c = 1 + A e^{−((L − ½)/w)²/2}: quiet in a ring of losses."""

    depth: float = eqx.field(static=True)
    width: float = eqx.field(static=True)

    def __call__(self, params):
        loss = (params[0] ** 2 + 2 * params[1] ** 2) / 2
        return 1 / (1 + self.depth * jnp.exp(-(((loss - 0.5) / self.width) ** 2) / 2))


@pytest.mark.slow
def test_quiet_rings_in_the_plane_take_more_panels_or_are_refused():
    bowl = quadratic(np.diag([1.0, 2.0]))
    law = EffectivePotentialGibbs(bowl, QuietRing(50.0, 1e-2), 0.2)
    assert law.panels > 1
    assert law.error_estimate < 1e-6
    for x, y in ([0.4, 0.3], [1.5, 0.2], [0.1, -1.3]):
        level = (x**2 + 2 * y**2) / 2
        ring = 50 * 1e-2 * np.sqrt(2 * np.pi) * (ndtr((level - 0.5) / 1e-2) - ndtr(-0.5 / 1e-2))
        assert law.effective_loss(np.array([x, y])) == pytest.approx(level + ring, abs=1e-8)
    with pytest.raises(IntractableError, match="does not resolve the line integral"):
        EffectivePotentialGibbs(bowl, QuietRing(4000.0, 1e-4), 0.2)
