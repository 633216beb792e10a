"""Losses of whole batches: their expectation, the noise of batches, models that normalise."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from numpy.testing import assert_allclose

import statsgd
from statsgd.dynamics.noise import covariance
from statsgd.laws import ModeLaw
from statsgd.measures import (
    noise_and_curvature_along,
    noise_covariance_along_estimate,
    noise_spectrum,
)
from statsgd.noise import Minibatch, noise_covariance
from statsgd.problems import batch_risk, hessian, hessian_product
from statsgd.running import stream_key

N, S = 7, 3
RNG = np.random.default_rng(6)
X = RNG.normal(size=N)
AT = np.array([0.7, -0.2])


def spread_loss(theta, batch):
    """(θ₁ · variance of the batch − θ₂)² + |θ|²: not a mean over examples."""
    return (theta[0] * jnp.var(batch) - theta[1]) ** 2 + jnp.sum(theta**2)


def by_hand(batches, at=AT):
    """Losses and gradients of batches, from NumPy."""
    v = np.array([np.var(X[list(batch)]) for batch in batches])
    gap = v * at[0] - at[1]
    return gap**2 + at @ at, np.stack([2 * gap * v, -2 * gap], axis=1) + 2 * at


SUBSETS = list(itertools.combinations(range(N), S))
TUPLES = list(itertools.product(range(N), repeat=S))


@pytest.fixture(scope="module")
def problem():
    return batch_risk(spread_loss, X, AT, batch_size=S)


def test_the_loss_is_the_expectation_over_all_batches(problem):
    losses, gradients = by_hand(SUBSETS)
    np.testing.assert_allclose(problem.loss(AT), losses.mean(), rtol=1e-6)
    np.testing.assert_allclose(problem.gradient(AT), gradients.mean(axis=0), rtol=1e-5)
    assert problem.loss_estimate(AT).standard_error == 0
    v = np.array([np.var(X[list(batch)]) for batch in SUBSETS])
    cross = -2 * v.mean()
    expected = np.array([[2 * np.mean(v**2) + 2, cross], [cross, 4.0]])
    np.testing.assert_allclose(hessian(problem, AT), expected, rtol=1e-10)


def test_every_example_counts_alike_in_whole_epochs():
    data = np.random.default_rng(1).normal(size=(40, 3))
    problem = batch_risk(
        lambda p, batch: jnp.mean(batch @ p), data, np.ones(3), batch_size=4, loss_batches=20
    )
    assert not problem.exact_loss
    assert_allclose(problem.gradient(np.ones(3)), data.mean(axis=0), rtol=1e-5)


def test_many_batches_are_sampled_with_an_error():
    data = np.random.default_rng(7).normal(size=200)
    many = batch_risk(lambda t, b: t * jnp.var(b), data, np.array(1.0), batch_size=10)
    found = many.loss_estimate(np.array(1.0))
    # The variance over a batch without repeats has the mean (S−1)/S · the unbiased one.
    assert 0 < found.standard_error < 0.05
    assert abs(found.deviation(0.9 * data.var(ddof=1))) < 4


@pytest.mark.parametrize(
    ("sampling", "batches"),
    [("without_replacement", SUBSETS), ("with_replacement", TUPLES), ("reshuffle", SUBSETS)],
)
def test_noise_is_the_covariance_over_batches(problem, sampling, batches):
    noise = Minibatch(S, sampling, **({"drop_last": True} if sampling == "reshuffle" else {}))
    gradients = by_hand(batches)[1]
    expected = np.cov(gradients.T, bias=True)
    np.testing.assert_allclose(noise_covariance(problem, AT, noise), expected, rtol=1e-8)
    number = 20_000
    keys = jax.vmap(lambda i: jax.random.fold_in(stream_key(5), i))(jnp.arange(number))
    drawn = np.asarray(jax.jit(jax.vmap(lambda k: noise.draw(k, problem, jnp.asarray(AT))))(keys))
    gap = drawn - gradients.mean(axis=0)
    products = gap[:, :, None] * gap[:, None, :]
    for value, target in ((drawn, gradients.mean(axis=0)), (products, expected)):
        error = value.std(axis=0) / np.sqrt(number)
        assert np.all(np.abs(value.mean(axis=0) - target) < 4 * error + 1e-6)


def test_sampled_covariances_have_errors():
    data = np.random.default_rng(8).normal(size=60)
    noise = Minibatch(6, "without_replacement")
    many = batch_risk(lambda t, b: t * jnp.mean(b**2), data, np.array(1.0), batch_size=6)
    found = noise.covariance_estimate(many, np.array(1.0))
    # A mean over a subset: Var(x²)(N−S)/(S(N−1)).
    expected = np.var(data**2) * 54 / (6 * 59)
    assert 0 < found.standard_error[0, 0] < 0.15 * expected
    assert abs(found.deviation(expected)[0, 0]) < 4


def test_noise_along_directions_and_products_are_of_the_whole_covariance(problem, monkeypatch):
    noise = Minibatch(S, "without_replacement")
    whole = np.cov(by_hand(SUBSETS)[1].T, bias=True)
    columns = np.linalg.qr(np.random.default_rng(3).normal(size=(2, 2)))[0]
    found = noise_covariance_along_estimate(problem, AT, noise, columns)
    np.testing.assert_allclose(found.value, columns.T @ whole @ columns, rtol=1e-6)
    np.testing.assert_array_equal(found.standard_error, 0)
    both, curvature = noise_and_curvature_along(problem, AT, noise, columns)
    np.testing.assert_allclose(both, found.value, rtol=1e-12)
    along = np.diagonal(columns.T @ np.asarray(hessian(problem, AT)) @ columns)
    np.testing.assert_allclose(curvature, along, rtol=1e-8)
    product = hessian_product(problem, AT, double=True)
    np.testing.assert_allclose(product(AT), np.asarray(hessian(problem, AT)) @ AT, rtol=1e-8)
    monkeypatch.setattr(covariance, "DENSE_LIMIT", 1)
    products = noise_covariance(problem, AT, noise)
    np.testing.assert_allclose(products @ AT, whole @ AT, rtol=1e-6)


def test_the_law_in_modes_is_that_of_batches(problem):
    sgd = statsgd.SGD(0.02, Minibatch(S, "without_replacement"), 0.5, 0.1)
    runs = statsgd.simulate(problem, sgd, steps=6, replicas=2, seed=0, start=AT, progress=False)
    law = ModeLaw.from_checkpoint(problem, sgd, AT, 2, 6, pilot=runs)
    curvature, noise = np.asarray(hessian(problem, AT)), np.cov(by_hand(SUBSETS)[1].T, bias=True)
    values, vectors = np.linalg.eigh(curvature)
    np.testing.assert_allclose(law.curvatures, values[::-1] + 0.1, rtol=1e-8)
    signs = np.sign(np.sum(law.modes * vectors[:, ::-1], axis=0))
    expected = vectors[:, ::-1].T @ noise @ vectors[:, ::-1] * np.outer(signs, signs)
    np.testing.assert_allclose(law.noise_covariance, expected, rtol=1e-6)
    assert law.noise_error is None
    ends = runs["endpoints"]["params"].values
    at_ends = [np.cov(by_hand(SUBSETS, end)[1].T, bias=True) for end in ends]
    along = law.modes.T @ np.mean(at_ends, axis=0) @ law.modes
    np.testing.assert_allclose(law.pilot.noise_covariance, along, rtol=1e-5)
    spectrum = noise_spectrum(problem, AT, sgd, starts=4)
    assert abs(spectrum.noise_trace / np.trace(noise) - 1) < 4 * np.sqrt(2 / 64)


@pytest.mark.parametrize("kept", [None, 3, 1])
def test_a_smaller_last_batch_is_a_batch_of_its_own(kept):
    # Of 7 examples two batches of 3 leave one over, whose variance is zero.
    whole = batch_risk(spread_loss, X, AT)
    indices = np.array([4, 0, 6])
    rows = indices if kept is None else indices[:kept]
    for gradient in (whole.stochastic_gradient, jax.jit(lambda *a: whole.stochastic_gradient(*a))):
        given = () if kept is None else (jnp.asarray(kept),)
        found = gradient(jax.random.key(0), jnp.asarray(AT), jnp.asarray(indices), *given)
        np.testing.assert_allclose(found, by_hand([rows])[1][0], rtol=1e-5)


def test_an_epoch_ends_with_the_batch_that_is_left():
    sgd = statsgd.SGD(0.1, Minibatch(S, "reshuffle", drop_last=False))
    ask = {"steps": 3, "replicas": 8, "seed": 3, "start": AT, "progress": False}
    ends = statsgd.simulate(batch_risk(spread_loss, X, AT), sgd, **ask)["endpoints"]["params"]
    # All ends of one epoch: the two batches in either order, and then the example left over.
    possible = []
    for first in SUBSETS:
        for second in itertools.combinations(sorted(set(range(N)) - set(first)), S):
            last = sorted(set(range(N)) - set(first) - set(second))
            at = AT
            for batch in (first, second, last):
                at = at - 0.1 * by_hand([batch], at)[1][0]
            possible.append(at)
    gaps = np.abs(ends.values[:, None] - np.array(possible)).max(axis=2).min(axis=1)
    assert np.all(gaps < 1e-5)
    assert len(np.unique(ends.values, axis=0)) > 1


class Normalised(nnx.Module):
    def __init__(self, rngs):
        self.linear, self.out = nnx.Linear(1, 3, rngs=rngs), nnx.Linear(3, 1, rngs=rngs)
        self.norm = nnx.BatchNorm(3, rngs=rngs)

    def __call__(self, x):
        return self.out(jnp.tanh(self.norm(self.linear(x))))


def nnx_loss(model, batch):
    return jnp.mean((model(batch[:, None]) - jnp.sin(batch)[:, None]) ** 2)


def test_batch_normalisation_of_nnx_runs_under_sgd():
    model = Normalised(nnx.Rngs(0))
    problem = batch_risk(nnx_loss, np.linspace(-1, 1, 24), model)
    assert problem.names[-2:] == ["out.bias", "out.kernel"]
    whole = jnp.linspace(-1, 1, 24)
    np.testing.assert_allclose(problem.loss(model), nnx_loss(model, whole), rtol=1e-5)
    before = problem.flatten(problem.initial_params(jax.random.key(0)))
    sgd = statsgd.SGD(0.1, Minibatch(8), momentum=0.5)
    ran = statsgd.simulate(problem, sgd, steps=60, replicas=2, seed=0, progress=False)
    assert np.all(ran["run"]["loss"].values < 0.5 * float(problem.loss(problem.unflatten(before))))
    trained = problem.model(before)
    assert isinstance(trained, Normalised)


class EquinoxNormalised(eqx.Module):
    norm: eqx.nn.BatchNorm
    out: eqx.nn.Linear


@pytest.mark.slow
def test_batch_normalisation_of_equinox_runs_under_sgd():
    def make(key):
        return EquinoxNormalised(
            eqx.nn.BatchNorm(2, "batch", mode="batch"), eqx.nn.Linear(2, 1, key=key)
        )

    model, state = eqx.nn.make_with_state(make)(key=jax.random.key(0))

    def loss(whole, batch):
        model, state = whole
        x, y = batch

        def one(x):
            normalised, _ = model.norm(x, state)
            return model.out(normalised)[0]

        return jnp.mean((jax.vmap(one, axis_name="batch")(x) - y) ** 2)

    rng = np.random.default_rng(1)
    data = 5 + rng.normal(size=(20, 2)), rng.normal(size=20)
    # The state beside the model is constant, as is every other State.
    problem = batch_risk(loss, data, (model, state), batch_size=5, loss_batches=8)
    assert problem.dimension == 2 + 2 + 3
    sgd = statsgd.SGD(0.05, Minibatch(5, "reshuffle"))
    ran = statsgd.simulate(problem, sgd, steps=8, replicas=2, seed=0, progress=False)
    assert np.all(np.isfinite(ran["run"]["loss"].values))


def test_batch_losses_may_take_keys():
    noisy = batch_risk(
        lambda t, b, key: t * jnp.mean(b) + jax.random.normal(key), X, np.array(1.0), batch_size=2
    )
    found = noisy.loss_estimate(np.array(1.0))
    assert abs(found.deviation(X.mean())) < 4
    assert found.standard_error > 0.05


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda p: Minibatch(2).check(p), "batch_size must be 3, that of the batch_risk"),
        (lambda p: batch_risk(spread_loss, X, AT, batch_size=8), "batch_size must be at most 7"),
        (lambda p: batch_risk(lambda t, b: t * b, X, 1.0), "batch_loss must return one scalar"),
        (lambda p: Minibatch(3, "fresh").check(p), "sampling must be one of"),
    ],
)
def test_bad_input_is_named(build, message, problem):
    with pytest.raises(ValueError, match=message):
        build(problem)
