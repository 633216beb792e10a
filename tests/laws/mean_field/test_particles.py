import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from scipy import integrate, stats

from statsgd import ImproperLawError, simulate
from statsgd.laws import MeanFieldLaw, MeanFieldLimit
from statsgd.laws.mean_field import (
    log_sobolev_bound,
    particle_sgd,
    tanh_features,
    two_layer_mean_field,
)
from tests.laws.examples import example


def shown(value, expected, digits):
    np.testing.assert_allclose(value, expected, rtol=1e-6, atol=0.5 * 10.0**-digits)


@pytest.mark.parametrize(
    ("decay", "tau", "target", "expected", "acceptance", "gap"),
    [
        (1, 0.1, 0.8, (0.34028, 0.20214, 0.05771, 0.37995, 0.22628), 0.79630, 0.022778),
        (0.5, 0.2, 0.5, (0.26526, -0.03432, 0.20272, 0.34128, 0.47783), 0.70472, 0.069992),
    ],
)
@pytest.mark.slow
def test_one_example(decay, tau, target, expected, acceptance, gap):
    # h = tanh x: M*, 𝓛*, Var h, E x, E x²; Z_∞ = (1 + Var h b/τ)^(−1/2), gap (τ/2) ln(1 + …).
    law = MeanFieldLimit(tanh_features([1.0]), target, decay, tau)
    values = (
        law.feature_mean()[0],
        law.free_energy(),
        law.feature_covariance()[0, 0],
        law.mean()[0],
        law.expectation(lambda x: x[0] ** 2),
    )
    shown(values, expected, 5)
    limit = MeanFieldLaw(law, 10).limit_acceptance()
    shown(limit, acceptance, 5)
    shown(-tau * np.log(limit), gap, 6)
    # Fixed point: c = (b/n)(M* − y), and 𝓛* = F(μ*) + τ Ent(μ*) by quadrature.
    np.testing.assert_allclose(law.dual, law.feature_mean() - target, atol=1e-10)

    def density(x):
        return np.exp(float(law.log_density(jnp.array([x]))))

    x = np.linspace(-6, 6, 1201)
    p = np.array(jax.vmap(law.log_density)(jnp.asarray(x[:, None])), dtype=float)
    entropy = np.sum(np.exp(p) * p) * 0.01
    functional = decay / 2 * values[4] + 0.5 * (values[0] - target) ** 2
    np.testing.assert_allclose(functional + tau * entropy, values[1], atol=1e-5)
    np.testing.assert_allclose(integrate.quad(density, -8, 8, limit=100)[0], 1, rtol=1e-5)


def test_two_examples():
    # z = (1, −2), h_j = tanh(z_j x), y = (.6, .3), λ = .5, τ = .1.
    law = two_layer_mean_field([1.0, -2.0], [0.6, 0.3], 0.5, 0.1, 20)
    shown(law.limit.feature_mean(), [0.0336363, -0.0398883], 7)
    shown(law.limit.free_energy(), 0.0990438, 7)
    shown(law.limit.expectation(lambda x: x[0] ** 2), 0.2100704, 7)
    shown(law.limit_acceptance(), 0.528845, 6)
    shown(-0.1 * np.log(law.limit_acceptance()), 0.063706, 6)
    with pytest.raises(ValueError, match="quadrature needs one example"):
        law.acceptance()
    # N = 20: Z = .52669 ± .0005 as the mean weight of independent particles.
    rng = np.random.default_rng(0)
    x = rng.choice(law.limit.grid[:, 0], p=law.limit.probabilities, size=(20_000, 20))
    h = np.stack([np.tanh(x), np.tanh(-2 * x)], -1).mean(1) - law.limit.feature_mean()
    weights = np.exp(-20 / (4 * 0.1) * np.sum(h**2, -1))
    error = weights.std() / np.sqrt(len(weights))
    assert abs(weights.mean() - 0.52669) < 4 * np.hypot(error, 0.0005)


@pytest.mark.parametrize(
    ("decay", "tau", "target", "number", "expected"),
    [
        (1, 0.1, 0.8, 2, (0.79617, 0.34870, 0.21616, 0.03669, 0.022794)),
        (1, 0.1, 0.8, 5, (0.79619, 0.34353, 0.22218, 0.03666, 0.022792)),
        (0.5, 0.2, 0.5, 5, (0.70092, 0.27228, 0.45360, 0.10303, 0.071073)),
        (0.5, 0.2, 0.5, 80, (0.70449, 0.26567, 0.47637, 0.10081, 0.070056)),
    ],
)
def test_finitely_many_particles(decay, tau, target, number, expected):
    # Z_N, E h̄, E x², N Var h̄, N gap by the characteristic function of h.
    law = two_layer_mean_field([1.0], target, decay, tau, number)
    moments = law.feature_moments()
    values = (
        law.acceptance(),
        moments.mean,
        law.particle_expectation(lambda x: x[0] ** 2),
        number * moments.variance,
    )
    shown(values, expected[:4], 5)
    shown(number * law.free_energy_gap(), expected[4], 6)
    bound = law.limit.strength / 2 * np.trace(law.limit.feature_covariance()) / number
    assert 0 <= law.free_energy_gap() <= bound


def test_two_forms_of_the_law_agree():
    # −(N/τ)F(μ_X) = Σ ln μ*(xᵢ) − (Nb/2nτ)|h̄ − M*|² up to a constant.
    law = two_layer_mean_field([1.0, -2.0], [0.6, 0.3], 0.5, 0.1, 4)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(6, 4)))
    gaps = []
    for row in x:
        h = jnp.tanh(row[:, None] * jnp.array([1.0, -2.0])).mean(0)
        product = jnp.sum(jax.vmap(law.limit.log_density)(row[:, None]))
        weight = 4 / (2 * 2 * 0.1) * jnp.sum((h - law.limit.feature_mean()) ** 2)
        gaps.append(float(law.log_density(row) - product + weight))
        # The model's density is the same, up to the prior's constant.
        log_joint = numpyro.infer.util.log_density(law.model, (), {}, {"params": row})[0]
        constant = 4 * 0.5 * np.log(2 * np.pi * 0.1 / 0.5)
        np.testing.assert_allclose(log_joint + constant, law.log_density(row), rtol=1e-4)
    np.testing.assert_allclose(gaps, gaps[0], atol=2e-4)


def test_rejection_sampler_is_exact():
    # N = 5, λ = 1, τ = .1, y = .8; 8000 draws. Independent particles would have N Var h̄ = .0577.
    law = two_layer_mean_field([1.0], 0.8, 1, 0.1, 5)
    draws = np.asarray(law.draw(jax.random.key(1), (8000,)), dtype=float)
    output = np.tanh(draws).mean(1)
    moments = law.feature_moments()
    assert abs(output.mean() - moments.mean) < 4 * np.sqrt(moments.variance / 8000)
    assert abs(output.var() / moments.variance - 1) < 4 * np.sqrt(2 / 8000)
    square = (draws**2).mean(1)
    error = square.std() / np.sqrt(8000)
    assert abs(square.mean() - law.particle_expectation(lambda x: x[0] ** 2)) < 4 * error


@pytest.mark.slow
def test_draws_of_the_limit():
    law = example("MeanFieldLimit")
    draws = np.asarray(law.draw(jax.random.key(0), (5000,)))[:, 0]
    assert stats.kstest(draws, lambda x: law.cdf(x[:, None])[:, 0]).pvalue > 1e-4
    plane = two_layer_mean_field([[1.0, 0.5]], 0.5, 1.0, 0.2, 1).limit
    draws = np.asarray(plane.draw(jax.random.key(1), (5000,)), dtype=float)
    error = np.sqrt(np.diagonal(plane.covariance()) / 5000)
    assert np.all(np.abs(draws.mean(0) - plane.mean()) < 4 * error)
    ratio = np.cov(draws.T) - plane.covariance()
    assert np.all(np.abs(ratio) < 4 * np.sqrt(2 / 5000) * plane.covariance().max())


def test_two_dimensions_reduce_to_one():
    # A second coordinate that the features do not see is N(0, τ/λ).
    plane = two_layer_mean_field([[1.0, 0.0]], 0.8, 1.0, 0.1, 1).limit
    line = example("MeanFieldLimit")
    np.testing.assert_allclose(plane.feature_mean(), line.feature_mean(), rtol=1e-8)
    np.testing.assert_allclose(plane.covariance()[1, 1], 0.1, rtol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize(("eta", "expected"), [(0.02, (0.34314, 0.22309, 0.03727))])
def test_particle_sgd(eta, expected):
    # The discrete chain at η = .02: E h̄ .34314, E x² .22309, N Var h̄ .03727 (simulated), against
    # .34353, .22218, .03666 of the law. 4000 runs of 600 steps: 2.2 % of a variance, not the 10 %
    # of a wrong temperature.
    law = two_layer_mean_field([1.0], 0.8, 1, 0.1, 5)
    run = simulate(
        law.problem(),
        particle_sgd(0.1, 5, eta),
        steps=600,
        replicas=4000,
        seed=0,
        progress=False,
    )
    x = run["endpoints"]["params"].values.astype(float)
    output, square = np.tanh(x).mean(1), (x**2).mean(1)
    assert abs(output.mean() - expected[0]) < 4 * output.std() / np.sqrt(4000) + 2e-4
    assert abs(square.mean() - expected[1]) < 4 * square.std() / np.sqrt(4000) + 2e-4
    assert abs(5 * output.var() / expected[2] - 1) < 4 * np.sqrt(2 / 4000)


def test_log_sobolev_bound():
    law = example("MeanFieldLimit")
    # osc of (M* − y) tanh x over the line is 2|M* − y|.
    expected = 10 * np.exp(-2 * abs(0.34028472 - 0.8) / 0.1)
    np.testing.assert_allclose(law.log_sobolev_bound(), expected, rtol=1e-3)
    assert log_sobolev_bound(1, 0.5, 0) == 2


def test_refusals():
    with pytest.raises(ImproperLawError, match="enlarge radius"):
        MeanFieldLimit.improper_examples()[0].mean()
    with pytest.raises(ValueError, match="particle_dimension must be 1 or 2"):
        MeanFieldLimit(tanh_features([1.0]), 0.8, 1, 0.1, particle_dimension=3)
    with pytest.raises(ValueError, match="features must map a particle"):
        MeanFieldLimit(tanh_features([1.0]), [0.8, 0.1], 1, 0.1)
    with pytest.raises(ValueError, match="weight_decay must be positive"):
        MeanFieldLimit(tanh_features([1.0]), 0.8, 0, 0.1)
    with pytest.raises(ValueError, match="cannot be inferred"):
        example("MeanFieldLaw").model(obs=np.zeros((1, 2)))
