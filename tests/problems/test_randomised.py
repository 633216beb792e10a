"""Losses that take a key: their expectation, and what their keys add to gradient noise."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import statsgd
from statsgd.dynamics.noise import covariance
from statsgd.laws import ModeLaw
from statsgd.measures import (
    noise_and_curvature_along,
    noise_covariance_along_estimate,
    noise_spectrum,
    predicted_displacement,
)
from statsgd.noise import LabelNoise, Minibatch, noise_covariance
from statsgd.problems import empirical_risk, hessian, population_risk
from statsgd.running import stream_key
from tests.statistical import assert_variance_within

N, S, KEEP = 12, 3, 0.75
RNG = np.random.default_rng(2)
X = RNG.normal(size=(N, 2))
Y = X @ [1.0, -0.5] + 0.3 * RNG.normal(size=N)
AT = np.array([0.4, 0.7])


def dropped(theta, example, key):
    """½(x·(mθ) − y)² with a random mask m of mean one."""
    x, y = example
    mask = jax.random.bernoulli(key, KEEP, (2,)) / KEEP
    return 0.5 * (x @ (mask * theta) - y) ** 2


def masks():
    """All four masks with their probabilities."""
    bits = np.array([[a, b] for a in (0, 1) for b in (0, 1)])
    return bits / KEEP, np.prod(np.where(bits == 1, KEEP, 1 - KEEP), axis=1)


def exact_moments():
    """Loss, and mean and covariances of the gradient by enumeration of all masks."""
    values, weights = masks()
    residual = np.einsum("ni,mi->nm", X, values * AT) - Y[:, None]
    loss = np.mean(0.5 * residual**2 @ weights)
    gradients = residual[:, :, None] * X[:, None, :] * values[None]
    each = np.einsum("nmi,m->ni", gradients, weights)
    second = np.einsum("nmi,nmj,m->ij", gradients, gradients, weights) / N
    within = second - each.T @ each / N
    return loss, each.mean(axis=0), np.cov(each.T, bias=True), within


@pytest.fixture(scope="module")
def problem():
    return empirical_risk(dropped, (X, Y), AT, loss_draws=256)


def test_the_loss_is_the_expectation_over_keys(problem):
    loss, mean, _, _ = exact_moments()
    found = problem.loss_estimate(AT)
    assert 0 < found.standard_error < 0.05 * loss
    assert abs(found.deviation(loss)) < 4
    np.testing.assert_allclose(problem.loss(AT), found.value, rtol=1e-6)
    np.testing.assert_allclose(problem.gradient(AT), mean, atol=4 * 0.02)
    values, weights = masks()
    expected = np.einsum("ni,nj,mi,mj,m->ij", X, X, values, values, weights) / N
    np.testing.assert_allclose(hessian(problem, AT), expected, atol=4 * 0.02)


@pytest.mark.slow
@pytest.mark.parametrize(
    "sampling",
    ["with_replacement", "without_replacement"],
)
def test_keys_are_gradient_noise(problem, sampling):
    noise = Minibatch(S, sampling)
    _, mean, between, within = exact_moments()
    expected = noise.variance_factor(problem) * between + within / S
    found = noise.covariance_estimate(problem, AT)
    assert np.all(np.asarray(found.standard_error) < 0.05 * np.trace(expected))
    assert np.all(np.abs(found.deviation(expected)) < 4)
    double = noise_covariance(problem, AT, noise)  # of the same keys, with other draws
    assert np.all(np.abs(double - expected) < 4 * np.asarray(found.standard_error))
    number = 40_000
    keys = jax.vmap(lambda i: jax.random.fold_in(stream_key(5), i))(jnp.arange(number))
    drawn = np.asarray(jax.jit(jax.vmap(lambda k: noise.draw(k, problem, jnp.asarray(AT))))(keys))
    np.testing.assert_array_less(
        np.abs(drawn.mean(axis=0) - mean), 4 * drawn.std(axis=0) / np.sqrt(number)
    )
    products = (drawn - mean)[:, :, None] * (drawn - mean)[:, None, :]
    error = products.std(axis=0) / np.sqrt(number)
    assert np.all(error < 0.05 * np.trace(expected))
    assert np.all(np.abs(products.mean(axis=0) - expected) < 4 * error)


def test_sgd_runs_with_fresh_keys_of_its_own_stream(problem):
    sgd = statsgd.SGD(0.05, Minibatch(N, "without_replacement"))
    ask = {"steps": 3, "replicas": 3, "start": AT, "progress": False}
    one = statsgd.simulate(problem, sgd, seed=1, **ask)["endpoints"]["params"].values
    again = statsgd.simulate(problem, sgd, seed=1, **ask)["endpoints"]["params"].values
    np.testing.assert_array_equal(one, again)
    # All data at every step: only the keys differ between replicas.
    assert np.all(one.std(axis=0) > 1e-3)


def test_keys_are_told_by_the_signature():
    def by_name(theta, example, *, key):
        return dropped(theta, example, key)

    assert empirical_risk(by_name, (X, Y), AT).loss_draws == 16
    plain = empirical_risk(lambda t, e, scale=1.0: scale * jnp.sum(t * e[0]), (X, Y), AT)
    assert plain.loss_draws == 0
    assert plain.loss_estimate(AT).standard_error == 0
    hidden = empirical_risk(lambda *given: dropped(*given), (X, Y), AT, randomised=True)
    assert hidden.loss_draws == 16
    fresh = population_risk(dropped, lambda key: (jax.random.normal(key, (2,)), 0.0), AT)
    # ½ E(Σ m_i θ_i x_i)² = ½ Σ θ_i²/keep for standard normal x; the deviation of the square is
    # below thrice its mean.
    expected = 0.5 * np.sum(AT**2) / KEEP
    assert abs(float(fresh.loss(AT)) - expected) < 4 * 3 * expected / np.sqrt(4096)


class Dropping(nnx.Module):
    def __init__(self, rngs):
        self.linear, self.drop = nnx.Linear(2, 1, rngs=rngs), nnx.Dropout(0.25)

    def __call__(self, x, key):
        return self.linear(self.drop(x, rngs=nnx.Rngs(dropout=key)))[0]


class EquinoxDropping(eqx.Module):
    linear: eqx.nn.Linear
    drop: eqx.nn.Dropout

    def __call__(self, x, key):
        return self.linear(self.drop(x, key=key))[0]


@pytest.mark.parametrize(
    "model",
    [
        Dropping(nnx.Rngs(0)),
        EquinoxDropping(eqx.nn.Linear(2, 1, key=jax.random.key(0)), eqx.nn.Dropout(0.25)),
    ],
    ids=["nnx", "equinox"],
)
def test_dropout_layers_of_both_libraries(model):
    problem = empirical_risk(lambda m, e, key: (m(e[0], key) - e[1]) ** 2, (X, Y), model)
    assert problem.dimension == 3
    sgd = statsgd.SGD(0.05, Minibatch(2, "reshuffle"))
    found = statsgd.simulate(problem, sgd, steps=4, replicas=2, seed=0, progress=False)
    assert np.all(np.isfinite(found["run"]["loss"].values))
    assert problem.loss_estimate(model).standard_error > 0


@pytest.mark.usefixtures("unchecked")
def test_what_random_losses_cannot_do_is_said(problem):
    with pytest.raises(ValueError, match="LabelNoise must act on losses of single examples"):
        LabelNoise(0.1, 2).check(problem)
    with pytest.raises(ValueError, match="loss_draws must be at least 4"):
        empirical_risk(dropped, (X, Y), AT, loss_draws=2)


@pytest.mark.slow
def test_noise_along_directions_and_products_are_of_the_whole_covariance(problem, monkeypatch):
    noise = Minibatch(S, "without_replacement")
    whole = np.asarray(noise_covariance(problem, AT, noise))
    columns = np.linalg.qr(np.random.default_rng(3).normal(size=(len(AT), 2)))[0]
    found = noise_covariance_along_estimate(problem, AT, noise, columns)
    np.testing.assert_allclose(found.value, columns.T @ whole @ columns, rtol=1e-8)
    _, _, between, within = exact_moments()
    expected = noise.variance_factor(problem) * between + within / S
    assert np.all(np.abs(found.deviation(columns.T @ expected @ columns)) < 4)
    assert np.all(found.standard_error < 0.05 * np.trace(expected))
    both, curvature = noise_and_curvature_along(problem, AT, noise, columns)
    np.testing.assert_allclose(both, found.value, rtol=1e-12)
    along = np.diagonal(columns.T @ np.asarray(hessian(problem, AT)) @ columns)
    np.testing.assert_allclose(curvature, along, rtol=1e-8)
    monkeypatch.setattr(covariance, "DENSE_LIMIT", 1)
    products = noise_covariance(problem, AT, noise)
    np.testing.assert_allclose(products @ AT, whole @ AT, rtol=1e-8)


def test_the_law_in_modes_knows_the_noise_of_keys(problem):
    sgd = statsgd.SGD(0.001, Minibatch(S), 0.5, 0.1)
    law = ModeLaw.from_checkpoint(problem, sgd, AT, 2, 6, pilot=2)
    _, _, between, within = exact_moments()
    expected = law.modes.T @ (between + within) @ law.modes / S
    assert np.all(np.abs(law.noise_covariance - expected) < 4 * law.noise_error)
    # Without what keys add, a fifth or more of the noise would be missing.
    assert np.all(law.noise_error.diagonal() < 0.1 * expected.diagonal())
    assert np.all(np.diagonal(law.modes.T @ within @ law.modes) / S > 0.2 * expected.diagonal())
    runs = statsgd.simulate(problem, sgd, steps=6, replicas=5000, seed=0, start=AT, progress=False)
    moved = law.project(runs)["endpoints"]["params"].values
    known = ModeLaw(law.curvatures, expected, 0.001, 0.5, 6).covariance()
    for mode in range(2):  # steps are so small that noise hardly changes
        assert_variance_within(moved[:, mode], known[mode, mode])
    np.testing.assert_allclose(law.pilot.noise_growth.value, 1, atol=0.2)


def test_under_epochs_keys_are_new_in_every_batch(problem, monkeypatch):
    # After a whole epoch of four batches the choice of examples leaves little; keys leave all.
    _, _, between, within = exact_moments()
    sgd = statsgd.SGD(0.001, Minibatch(S, "reshuffle"), 0.5, 0.1)
    chosen = sgd.noise.variance_factor(problem) * between
    law = ModeLaw.from_checkpoint(problem, sgd, AT, 2, 8, pilot=2)

    def known(chosen, own):
        chosen, own = (law.modes.T @ part @ law.modes for part in (chosen, own))
        ask = {"num_batches": 4, "independent_noise": own}
        return ModeLaw(law.curvatures, chosen + own, 0.001, 0.5, 8, **ask).covariance().diagonal()

    expected, without = known(chosen, within / S), known(chosen + within / S, 0 * within)
    assert np.all(without < 0.7 * expected)
    runs = statsgd.simulate(problem, sgd, steps=8, replicas=5000, seed=0, start=AT, progress=False)
    moved = law.project(runs)["endpoints"]["params"].values
    for mode in range(2):
        assert_variance_within(moved[:, mode], expected[mode])
    error = 4 * law.noise_error.diagonal() / law.noise_covariance.diagonal()
    # Two replicas of a pilot have gone a little way, over which noise changes.
    for found, change in ((law, 0.0), (law.corrected, 0.05)):
        off = np.abs(found.covariance().diagonal() / expected - 1)
        assert np.all(off < error + change)
    draws = 4000
    monkeypatch.setattr("statsgd.measures.noise.noise_quadrature.DRAWS", draws)
    spectrum = noise_spectrum(problem, AT, sgd, starts=40)
    still = spectrum._replace(gradient_weights=0 * spectrum.gradient_weights, fewer=None)
    spread = predicted_displacement(still, sgd, [8]).value[0]
    # The trace of so many draws in two dimensions is known to √(2/draws), 2 %.
    assert abs(spread / expected.sum() - 1) < 4 * np.sqrt(2 / draws)
