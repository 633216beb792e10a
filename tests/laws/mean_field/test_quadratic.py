import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from scipy import stats

from statsgd import ImproperLawError, simulate
from statsgd.laws import QuadraticMeanField
from statsgd.laws.mean_field import entropy_sandwich, particle_sgd, shared_minibatch_variance
from statsgd.problems import landscape
from tests.laws.examples import example


@pytest.mark.parametrize(
    ("settings", "center", "within", "marginal"),
    [
        ((20, 0.01), 0.00512821, 0.47738693, 0.48251514),
        ((20, 0.2), 0.0100000, 0.52777778, 0.53777778),
        ((200, 0.05, 0.0, 1.0), 0.0920000, 0.51025641, 0.60225641),
        ((20, 0.2, 0.5), 0.0075000, 0.50892857, 0.51642857),
    ],
)
def test_chain_of_particles(settings, center, within, marginal):
    # a, b, y, τ = 1, 4, 2, .5: Var X̄ = (τ/(N(a+b)))/(1 − η(a+b)/2) + ηb²s²/((a+b)(2 − η(a+b))),
    # E[within] = (τ/a)(1 − 1/N)/(1 − ηa/2).
    law = QuadraticMeanField.scalar(1, 4, 2, 0.5, *settings)
    half = 5e-9
    np.testing.assert_allclose(law.particle_mean(), 1.6)
    np.testing.assert_allclose(law.center_covariance(), center, atol=half)
    share = 1 - 1 / law.num_particles
    np.testing.assert_allclose(share * law.cloud_covariance(), within, atol=half)
    np.testing.assert_allclose(law.particle_covariance(), marginal, atol=half)
    np.testing.assert_allclose(np.diagonal(law.covariance()), marginal, atol=half)


def test_transient():
    # First row of the table, all particles at 0, after 50 steps.
    law = QuadraticMeanField.scalar(1, 4, 2, 0.5, 20, 0.01)
    after = law.transient(50, [0.0])
    values = [float(part.item()) for part in after]
    np.testing.assert_allclose(values, [1.47688804, 0.00509784, 0.30264788], atol=5e-9)


def test_free_energy_gap():
    # (τ/2N) ln(1 + b/a)
    gap = QuadraticMeanField.scalar(1, 4, 2, 0.5, 20).free_energy_gap()
    np.testing.assert_allclose(gap, 0.02011797, atol=5e-9)


def test_limit_is_the_gibbs_law_of_the_particles():
    # η → 0: −(N/τ)F(μ_X), up to a constant.
    law = QuadraticMeanField([[1.0, 0.3], [0.3, 2.0]], [[1.0, -1]], [0.5], 0.4, 3)
    rng = np.random.default_rng(0)
    gaps = []
    for x in rng.normal(size=(4, 3, 2)):
        center = x.mean(0)
        functional = 0.5 * np.einsum("ni,ij,nj->", x, law.decay, x) / 3
        functional += 0.5 * (law.features @ center - 0.5).item() ** 2
        gaps.append(law.log_density(x.ravel()) + 3 / 0.4 * functional)
    np.testing.assert_allclose(gaps, gaps[0], atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("index", [0, 1], ids=("limit", "chain"))
def test_density_and_draws(index):
    law = example("QuadraticMeanField", index)
    exact = stats.multivariate_normal(law.mean(), law.covariance())
    x = law.mean() + 0.3 * np.arange(law.dimension)
    np.testing.assert_allclose(law.log_density(x), exact.logpdf(x), rtol=1e-9)
    np.testing.assert_allclose(
        jax.jit(lambda v: law.log_density(v))(jnp.asarray(x)), exact.logpdf(x), rtol=1e-4
    )
    log_joint, _ = numpyro.infer.util.log_density(law.model, (np.stack([x, x]),), {}, {})
    np.testing.assert_allclose(log_joint, 2 * exact.logpdf(x), rtol=1e-4)
    draws = np.asarray(law.draw(jax.random.key(0), (20_000,)), dtype=float)
    deviation = (draws - law.mean()) @ np.linalg.inv(np.linalg.cholesky(law.covariance())).T
    np.testing.assert_allclose(deviation.mean(0), 0, atol=4 / np.sqrt(20_000))
    np.testing.assert_allclose(np.cov(deviation.T), np.eye(law.dimension), atol=0.04)


@pytest.mark.parametrize("beta", [pytest.param(0.0, marks=pytest.mark.slow), 0.5])
def test_against_simulated_particles(beta):
    # 4000 runs of 5 particles at η = .2: standard errors 2.2 % (mean), 1.1 % (cloud).
    n, eta, tau = 5, 0.2, 0.5
    law = QuadraticMeanField.scalar(1, 4, 2, tau, n, eta, beta)

    def functional(x):
        return 0.5 * jnp.mean(x**2) + 2 * (jnp.mean(x) - 2) ** 2

    run = simulate(
        landscape(functional, np.zeros(n)),
        particle_sgd(tau, n, eta, beta),
        steps=100,
        replicas=4000,
        seed=2,
        progress=False,
    )
    x = run["endpoints"]["params"].values.astype(float)
    center = x.mean(1)
    assert abs(center.mean() - 1.6) < 4 * center.std() / np.sqrt(4000)
    assert abs(center.var() / law.center_covariance().item() - 1) < 4 * np.sqrt(2 / 4000)
    within = x.var(1).mean() / (0.8 * law.cloud_covariance().item())
    assert abs(within - 1) < 4 * np.sqrt(2 / 16_000)


def test_entropy_sandwich():
    # a, b, y, τ = 1, 4, 2, .5: τKL(μ‖μ*), 𝓛(μ) − 𝓛*, τKL(μ‖μ̂).
    np.testing.assert_allclose(
        entropy_sandwich(0.3, 0.9, 1, 4, 2, 0.5), [0.898053, 4.278053, 21.178053], atol=5e-7
    )
    np.testing.assert_allclose(entropy_sandwich(1.6, 0.5, 1, 4, 2, 0.5), 0, atol=1e-12)
    # Along the flow: m − m* ~ e^(−(a+b)t), v − τ/a ~ e^(−2at); the bound is e^(−2at) of the start.
    start = entropy_sandwich(0.3, 0.9, 1, 4, 2, 0.5).free_energy
    for t, gap, bound in ((0.25, 0.369224, 2.594771), (1, 0.001559, 0.578972)):
        m, v = 1.6 - 1.3 * np.exp(-5 * t), 0.5 + 0.4 * np.exp(-2 * t)
        value = entropy_sandwich(m, v, 1, 4, 2, 0.5).free_energy
        np.testing.assert_allclose(value, gap, atol=5e-7)
        np.testing.assert_allclose(np.exp(-2 * t) * start, bound, atol=1e-6)


def test_shared_minibatches():
    rng = np.random.default_rng(0)
    z = rng.normal(size=50)
    y = 2 * z + rng.normal(size=50)
    settings = (0.5, 0.2, 100, 0.05)
    np.testing.assert_allclose(np.mean(z * y) / (0.5 + np.mean(z**2)), 1.187134, atol=5e-7)
    with_replacement = shared_minibatch_variance(z, y, *settings, 2)
    np.testing.assert_allclose(with_replacement, 0.01347666, atol=5e-9)
    without = shared_minibatch_variance(z, y, *settings, 10, "without_replacement")
    np.testing.assert_allclose(without, 0.00346707, atol=5e-9)
    full = shared_minibatch_variance(z, y, *settings, 50, "without_replacement")
    np.testing.assert_allclose(full, 0.00153674, atol=5e-9)
    # The recursion for X̄, 4000 runs: standard error 2.2 %.
    center = np.full(4000, 1.2)
    for _ in range(300):
        batch = rng.integers(50, size=(4000, 2))
        gradient = 0.5 * center + np.mean(z[batch] * (z[batch] * center[:, None] - y[batch]), 1)
        center = center - 0.05 * gradient
        center += np.sqrt(2 * 0.2 * 0.05 / 100) * rng.normal(size=4000)
    assert abs(center.var() / with_replacement - 1) < 4 * np.sqrt(2 / 4000)


def test_refusals():
    with pytest.raises(ImproperLawError, match=r"mean mode unstable: .* = 2 ≥ 2"):
        QuadraticMeanField.scalar(1, 4, 2, 0.5, 3, 0.4).mean()
    with pytest.raises(ImproperLawError, match=r"mode unstable"):
        QuadraticMeanField.scalar(5, 0.1, 2, 0.5, 3, 0.41).draw(jax.random.key(0))
    with pytest.raises(ImproperLawError, match="destabilises the mean"):
        shared_minibatch_variance([1.0, 10.0], [1.0, 1.0], 0.5, 0.2, 10, 0.03, 1)
    with pytest.raises(ValueError, match="transients need momentum 0"):
        QuadraticMeanField.scalar(1, 4, 2, 0.5, 3).transient(5, [0.0])
    with pytest.raises(ValueError, match="temperature must be positive"):
        QuadraticMeanField.scalar(1, 4, 2, 0.0, 3)
