import itertools

import jax
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import gamma
from scipy.stats import t as student_t

import statsgd
from statsgd import SGD, noise
from statsgd.laws import FlooredLossScaledLaw, FlooredPowerOfLossLaw, ImproperLawError
from statsgd.laws.loss_noise import (
    floor_second_moments,
    floor_well_weights,
    log_loss_mfpt,
    log_loss_mfpt_1d,
    regression_tail_index,
)
from statsgd.laws.loss_noise.loss_potential import unequal_wells
from statsgd.precision import in_double_precision
from statsgd.problems import landscape, population_risk
from tests.laws.examples import example


def test_one_dimension():
    # α = 1 + 2/ε, ν = 2 + 4/ε − d, scale² = 2c₀/(νh), Var = 2c₀ε/(4 − dε)/h
    law = FlooredLossScaledLaw([[1.0]], 0.8, 0.5)
    assert law.loss_exponent == pytest.approx(3.5)
    assert law.degrees_of_freedom == pytest.approx(6.0)
    assert law.scale[0, 0] == pytest.approx(1 / 6)
    assert law.covariance()[0, 0] == pytest.approx(0.25)
    assert 2 * law.cdf(np.array([-2.0]))[0] == pytest.approx(0.00271368, abs=6e-9)


def test_two_dimensions():
    # E L = c₀d/(ν−2); L/c₀ ~ BetaPrime(d/2, ν/2): P(L < 0.5) = 1 − 2^(−5/2) = 0.8232233
    law = FlooredLossScaledLaw(np.diag([1.0, 4.0]), 0.8, 0.5)
    assert law.degrees_of_freedom == pytest.approx(5.0)
    np.testing.assert_allclose(np.diagonal(law.covariance()), [1 / 3, 1 / 12], rtol=1e-12)
    assert law.loss_cdf(0.5) == pytest.approx(0.8232233, abs=6e-8)
    assert law.mean_loss() == pytest.approx(0.5 * np.trace(law.covariance() @ law.hessian))


@pytest.mark.slow
def test_draws_follow_covariance_and_loss():
    law = example("FlooredLossScaledLaw", 2)
    n = 30_000
    draws = np.asarray(law.draw(jax.random.key(0), (n,)), dtype=np.float64) - law.location
    sample = draws.T @ draws / n
    for i in range(3):
        for j in range(3):
            error = np.std(draws[:, i] * draws[:, j]) / np.sqrt(n)  # about 1.3 %
            assert abs(sample[i, j] - law.covariance()[i, j]) < 4 * error
    loss = 0.5 * np.sum(draws * (draws @ law.hessian), -1)
    for level in (0.1, 0.5):
        p = law.loss_cdf(level)
        assert abs(np.mean(loss < level) - p) < 4 * np.sqrt(p * (1 - p) / n)


def test_density_is_the_power_of_the_loss_and_normalised():
    law = FlooredLossScaledLaw([[2.0]], 0.8, 0.5, [0.3])
    x = np.linspace(-60, 60, 400_001)
    density = np.exp(law.log_density(x[:, None]))
    assert np.trapezoid(density, x) == pytest.approx(1, abs=1e-6)
    power = ((x - 0.3) ** 2 + 0.5) ** -3.5
    np.testing.assert_allclose(density / density[0], power / power[0], rtol=1e-10)
    np.testing.assert_allclose(law.quantile(law.cdf(np.array([0.7]))), [[0.7]])
    traced = jax.jit(lambda v: law.log_density(v))(np.array([0.7]))
    assert float(traced) == pytest.approx(float(law.log_density(np.array([0.7]))), rel=1e-5)


def test_improper_and_infinite_variance():
    with pytest.raises(ImproperLawError, match=r"df = 2\*alpha - dim = -0.1111 must be positive"):
        FlooredLossScaledLaw(np.eye(3), 4.5, 0.5).draw(jax.random.key(0))
    heavy = FlooredLossScaledLaw(np.eye(3), 2.0, 0.5)  # ν = 1
    assert np.all(np.isinf(heavy.covariance()))
    assert np.isinf(heavy.mean_loss())
    for law in FlooredPowerOfLossLaw.improper_examples():
        with pytest.raises(ImproperLawError, match="non-normalisable tail"):
            law.require_proper()


# Q = (σ/2)Σh_i v_i, E L = c₀Q/(1−Q), Var θ_i = σc₀v_i/(1−Q)
def test_exact_chain_moments():
    one = floor_second_moments([1.0], 80.0, 0.5, 0.01)
    assert one.variance[0] == pytest.approx(0.2515723, abs=6e-8)
    two = floor_second_moments([1.0, 4.0], 80.0, 0.5, 0.01)
    assert two.feedback == pytest.approx(0.4050867, abs=6e-8)
    np.testing.assert_allclose(two.variance, [0.3378728, 0.0857611], atol=6e-8)
    heavy_ball = floor_second_moments([1.0, 4.0], 4.0, 0.5, 0.05, 0.5)
    assert heavy_ball.feedback == pytest.approx(0.2088378, abs=6e-8)
    assert heavy_ball.mean_loss == pytest.approx(0.1319816, abs=6e-8)
    np.testing.assert_allclose(heavy_ball.variance, [0.1285386, 0.0338562], atol=6e-8)
    with pytest.raises(ImproperLawError, match=r"Q = 1\.005 >= 1"):
        floor_second_moments([1.0], 400.0, 0.5, 0.01)
    with pytest.raises(ImproperLawError, match="must lie in"):
        floor_second_moments([1.0], 1.0, 0.5, 2.5)


@pytest.mark.slow
def test_chain_moments_hold_for_sgd_with_momentum_and_weight_decay():
    problem = landscape(lambda v: 0.5 * (v[0] ** 2 + 4 * v[1] ** 2), np.zeros(2))
    dynamics = SGD(0.05, noise.LossScaled(4.0, floor=0.5), momentum=0.5, weight_decay=0.3)
    n = 20_000
    tree = statsgd.simulate(problem, dynamics, steps=400, replicas=n, seed=5, progress=False)
    params = tree["endpoints"]["params"].values.astype(np.float64)
    exact = floor_second_moments([1.0, 4.0], 4.0, 0.5, 0.05, 0.5, 0.3).variance
    square = params**2
    error = square.std(0) / np.sqrt(n)  # 1 to 2 %
    assert np.all(np.abs(square.mean(0) - exact) < 4 * error)


def test_label_noise_regression():
    # ν = 1 + S/η, scale² = s²/(2ν), Var_SDE = (ηs²/S)/(2 − 2η/S)
    law = FlooredLossScaledLaw.label_noise_regression(1.0, 0.2, 1)
    assert law.degrees_of_freedom == pytest.approx(6)
    assert law.scale[0, 0] == pytest.approx(1 / 12)
    assert law.covariance()[0, 0] == pytest.approx(0.125)
    other = FlooredLossScaledLaw.label_noise_regression(1.0, 0.1, 1)
    assert other.degrees_of_freedom == pytest.approx(11)
    assert other.covariance()[0, 0] == pytest.approx(0.0555556, abs=6e-8)
    # Var_chain = (ηs²/S)/(2 − η(1 + 2/S)), from the law with the exact moments
    for eta, variance in [(0.2, 0.1428571), (0.1, 0.0588235)]:
        exact = statsgd.laws.LinearRegressionGaussian.gaussian_inputs([[1.0]], 1.0, 1, eta)
        assert exact.covariance()[0, 0] == pytest.approx(variance, abs=6e-8)


# E|1 − ηa²|^κ = 1
@pytest.mark.parametrize(("eta", "index"), [(0.2, 8.3026), (0.1, 17.2846)])
def test_regression_tail_index(eta, index):
    assert regression_tail_index(eta) == pytest.approx(index, abs=6e-5)


@pytest.mark.parametrize(
    ("size", "equal"), [(1, 0.471841), (2, 0.577022), (4, 0.615195), (8, 0.615278)]
)
def test_tails_of_the_chain_are_lighter_than_those_of_the_sde_at_small_steps_only(size, equal):
    # E|1 − ηA|^(1 + S/η) = 1 at `equal`, the Gamma density of A integrated by scipy.
    def moment(eta, power):
        ends = [0, eta**-0.5, eta**-0.5 + 2, eta**-0.5 + 5, eta**-0.5 + 20]
        law = gamma(size / 2, scale=2 / size)
        parts = itertools.pairwise(ends)
        # a = r² removes the singularity at zero.
        return sum(
            quad(lambda r: abs(1 - eta * r * r) ** power * law.pdf(r * r) * 2 * r, *part)[0]
            for part in parts
        )

    assert moment(equal, 1 + size / equal) == pytest.approx(1, abs=3e-5)
    for eta, lighter in ((0.5 * equal, True), (0.99 * equal, True), (1.01 * equal, False)):
        assert (regression_tail_index(eta, size) > 1 + size / eta) == lighter
        assert (moment(eta, 1 + size / eta) < 1) == lighter


def test_regression_tail_index_refuses_a_diverging_chain():
    with pytest.raises(ImproperLawError, match="the chain diverges"):
        regression_tail_index(20.0)


@pytest.mark.slow
def test_bulk_of_real_regression_follows_the_law():
    def draw(key):
        return jax.random.normal(key, (2,))

    problem = population_risk(
        lambda v, e: 0.5 * (e[0] * v[0] - e[1]) ** 2,
        draw,
        np.zeros(1),
        exact_loss=lambda v: 0.5 * v[0] ** 2 + 0.5,
    )
    dynamics = SGD(0.05, noise.Minibatch(1, "fresh"))
    n = 20_000
    tree = statsgd.simulate(problem, dynamics, steps=200, replicas=n, seed=2, progress=False)
    x = tree["endpoints"]["params"].values[:, 0]
    law = FlooredLossScaledLaw.label_noise_regression(1.0, 0.05, 1)
    for q in (0.25, 0.75):
        place = law.quantile(np.array(q))
        # four standard errors (0.3 %) and the O(η) difference of chain and SDE, half of 3 % in sd
        assert abs(np.mean(x < place) - q) < 4 * np.sqrt(q * (1 - q) / n) + 0.008
    # The assumption broken: the Gaussian limit misses the bulk of a heavy-tailed chain.
    assert student_t.cdf(1.0, 6) < 0.83


def test_from_sgd_recognises_a_quadratic_and_counts_its_least_loss():
    problem = landscape(lambda v: 0.2 + 0.5 * (v[0] - 1) ** 2 + 2 * v[1] ** 2, np.zeros(2))
    law = FlooredLossScaledLaw.from_sgd(problem, SGD(0.01, noise.LossScaled(40.0, floor=0.3)))
    assert isinstance(law, FlooredLossScaledLaw)
    np.testing.assert_allclose(law.hessian, np.diag([1.0, 4.0]), atol=1e-6)
    np.testing.assert_allclose(law.location, [1, 0], atol=1e-6)
    assert law.floor == pytest.approx(0.5, abs=1e-6)
    wells = landscape(unequal_wells, np.zeros(1))
    general = FlooredLossScaledLaw.from_sgd(
        wells, SGD(0.01, noise.LossScaled(40.0, floor=0.3)), growth=8.0
    )
    assert isinstance(general, FlooredPowerOfLossLaw)
    with pytest.raises(ValueError, match="without saturation"):
        FlooredLossScaledLaw.from_sgd(
            problem, SGD(0.01, noise.LossScaled(40.0, floor=0.3, saturation=1.0))
        )


def test_sgd_follows_the_student_law():
    problem = landscape(lambda v: 0.5 * (v[0] ** 2 + 4 * v[1] ** 2), np.zeros(2))
    dynamics = SGD(0.01, noise.LossScaled(40.0, floor=0.5))
    law = FlooredLossScaledLaw.from_sgd(problem, dynamics)
    n = 20_000
    tree = statsgd.simulate(problem, dynamics, steps=700, replicas=n, seed=1, progress=False)
    params = tree["endpoints"]["params"].values.astype(np.float64)
    loss = 0.5 * (params[:, 0] ** 2 + 4 * params[:, 1] ** 2)
    for level in (0.1, 0.5):
        p = law.loss_cdf(level)
        # four standard errors and 1 % for the finite step
        assert abs(np.mean(loss < level) - p) < 4 * np.sqrt(p * (1 - p) / n) + 0.01


# weight_i ∝ det(H_i)^(−1/2) c_i^(d/2−α)
def test_well_weights():
    for epsilon, quadrature in [(0.2, 0.00206732), (0.5, 0.117062)]:
        flat = floor_well_weights([1.0, 9.0 * 2 / 2], [0.10, 0.05], epsilon)[0]
        assert flat == pytest.approx(quadrature, rel=5e-6)
    assert floor_well_weights([1.0, 9.0], [0.05, 0.05], 0.5)[0] == pytest.approx(0.75)


def test_well_weights_against_quadrature_of_the_law():
    law = FlooredLossScaledLaw.of_loss(
        lambda v: v[0] ** 2 * (1 - v[0]) ** 2 * (1 + 2 * v[0] ** 2) ** 2 / 2,
        1,
        0.5,
        0.05,
        growth=8.0,
    )
    x = np.linspace(-5, 5, 200_001)
    p = np.exp(in_double_precision(jax.vmap(lambda v: -law.potential(v)), x[:, None]))
    flat, cut = np.trapezoid(np.where(x < 0.6585913, p, 0), x), np.trapezoid(p, x)
    assert flat / cut == pytest.approx(0.739192, rel=2e-4)
    assert flat / cut == pytest.approx(
        floor_well_weights([1.0, 9.0], [0.05, 0.05], 0.5)[0], rel=0.02
    )


# L = c₀ + (x²−1)²/4, −1 → 1, c₀ = 0.05, ε = 0.4: exact 81031.5, Kramers form 84624.6
def test_passage_over_a_log_barrier():
    exact = log_loss_mfpt_1d(lambda x: 0.05 + (x**2 - 1) ** 2 / 4, -1.0, 1.0, 0.4, reflect_at=-20.0)
    assert exact == pytest.approx(81031.5, rel=1e-6)
    assert log_loss_mfpt(0.05, 0.3, 2.0, -1.0, 0.4) == pytest.approx(84624.6, rel=1e-6)
    with pytest.raises(ValueError, match="exactly one negative"):
        log_loss_mfpt(0.05, 0.3, 2.0, 1.0, 0.4)
