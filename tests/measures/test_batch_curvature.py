"""Hessians of batches along directions, and their mean-square stability, against dense matrices."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from statsgd import noise, problems
from statsgd.measures import (
    batch_curvature_along,
    mean_square_growth,
    mean_square_threshold,
    momentum_mean_square_growth,
)
from tests.measures.problem_cases import PARAMS, network

SIZE, DECAY = 3, 0.1
SAMPLINGS = ["with_replacement", "without_replacement"]


@pytest.fixture(scope="module")
def problem():
    return network()


@pytest.fixture(scope="module")
def curvatures(problem):
    """The Hessian of every example `(N, d, d)`, by reverse differentiation."""

    def loss(flat, example):
        return problem.example_loss(problem.unflatten(flat), example)

    flat = jnp.asarray(problem.flatten(PARAMS))
    return np.asarray(jax.vmap(jax.hessian(loss), (None, 0))(flat, problem.examples), np.float64)


def spread(matrices, params):
    """Mean of (K − K̄) P (K − K̄)."""
    rest = matrices - matrices.mean(axis=0)
    return np.mean(rest @ params @ rest, axis=0)


def factor(number, sampling):
    return 1 / SIZE if sampling == "with_replacement" else (number - SIZE) / (SIZE * (number - 1))


def one_step(matrices, size_factor, eta, beta):
    """E T⊗T over batches, T of one batch: a dense matrix of (2k)² rows."""
    k = matrices.shape[1]
    push, read = np.concatenate([-eta * np.eye(k), np.eye(k)]), np.eye(k, 2 * k)
    mean = matrices.mean(axis=0)
    still = np.block([[np.eye(k), -eta * beta * np.eye(k)], [np.zeros((k, k)), beta * np.eye(k)]])
    whole = still + push @ mean @ read
    growth = np.kron(whole, whole)
    for one in push @ (matrices - mean) @ read:
        growth += size_factor / len(matrices) * np.kron(one, one)
    return growth


def radius(matrix):
    return np.abs(np.linalg.eigvals(matrix)).max()


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_moments_along_directions_are_those_of_every_examples_hessian(
    problem, curvatures, sampling
):
    rng = np.random.default_rng(0)
    directions, params = rng.normal(size=(10, 4)), rng.normal(size=(4, 4))
    found = batch_curvature_along(problem, PARAMS, noise.Minibatch(SIZE, sampling), directions)
    along = directions.T @ curvatures @ directions
    np.testing.assert_allclose(found.mean, along.mean(axis=0), rtol=1e-4, atol=1e-5)
    seen = np.sum(found.deviations @ params @ found.deviations, axis=0)
    expected = factor(len(along), sampling) * spread(along, params)
    np.testing.assert_allclose(seen, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    assert found.exact
    assert len(found.deviations) <= 10
    minibatch = noise.Minibatch(SIZE, sampling)
    single = batch_curvature_along(problem, PARAMS, minibatch, directions, double=False)
    seen = np.sum(single.deviations @ params @ single.deviations, axis=0)
    np.testing.assert_allclose(seen, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("beta", [0.0, 0.7])
def test_growth_along_all_directions_is_that_of_the_dense_step(problem, curvatures, sampling, beta):
    # Twenty numbers (ζ, m): moments of 400, still as a dense matrix.
    minibatch = noise.Minibatch(SIZE, sampling)
    found = batch_curvature_along(problem, PARAMS, minibatch, np.eye(10))
    matrices = curvatures + DECAY * np.eye(10)
    for eta in (0.05, 0.6):
        expected = radius(one_step(matrices, factor(len(matrices), sampling), eta, beta))
        growth = found.mean_square_growth(eta, beta, DECAY)
        assert growth == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_where_directions_span_everything_it_is_the_threshold_of_interpolation(sampling):
    inputs = np.random.default_rng(1).normal(size=(9, 4))
    problem = problems.linear_regression(inputs, np.zeros(9))
    basis = np.linalg.qr(np.random.default_rng(2).normal(size=(4, 4)))[0]
    found = batch_curvature_along(problem, np.zeros(4), noise.Minibatch(SIZE, sampling), basis)
    threshold = mean_square_threshold(inputs, SIZE, sampling)
    assert found.mean_square_threshold() == pytest.approx(threshold, rel=1e-6)
    expected = mean_square_growth(inputs, SIZE, 0.3, sampling)
    assert found.mean_square_growth(0.3) == pytest.approx(expected, rel=1e-6)
    expected = momentum_mean_square_growth(inputs, SIZE, 0.3, 0.5, sampling)
    assert found.mean_square_growth(0.3, 0.5) == pytest.approx(expected, rel=1e-6)


def leading_modes(matrices):
    """Eigenvectors of the mean with weight decay that bend upwards, the sharpest first."""
    values, vectors = np.linalg.eigh(matrices.mean(axis=0) + DECAY * np.eye(10))
    return vectors[:, ::-1][:, : np.sum(values > 0.01)]


@pytest.mark.parametrize("beta", [0.0, 0.8])
def test_more_modes_lower_the_threshold_where_growth_is_one(problem, curvatures, beta):
    modes, minibatch = leading_modes(curvatures), noise.Minibatch(1)
    assert modes.shape[1] >= 5
    thresholds = []
    for number in range(1, modes.shape[1] + 1):
        found = batch_curvature_along(problem, PARAMS, minibatch, modes[:, :number])
        threshold = found.mean_square_threshold(beta, DECAY)
        growth = found.mean_square_growth(threshold, beta, DECAY)
        assert growth == pytest.approx(1, abs=1e-7)
        assert found.mean_square_growth(1.1 * threshold, beta, DECAY) > 1
        thresholds.append(threshold)
    # One direction alone: η(κ + (1−β)h²/(1+β)) = 2(1−β)h.
    along = np.einsum("i,nij,j->n", modes[:, 0], curvatures, modes[:, 0])
    h = along.mean() + DECAY
    alone = 2 * (1 - beta) * h / (along.var() + (1 - beta) / (1 + beta) * h**2)
    assert thresholds[0] == pytest.approx(alone, rel=1e-4)
    assert np.all(np.diff(thresholds) < 1e-9)
    assert thresholds[-1] < 0.97 * thresholds[0]  # the others matter


def test_without_momentum_more_directions_of_any_kind_grow_faster(problem):
    directions = np.linalg.qr(np.random.default_rng(3).normal(size=(10, 10)))[0]
    ask = problem, PARAMS, noise.Minibatch(2)
    growth = [
        batch_curvature_along(*ask, directions[:, :number]).mean_square_growth(0.8)
        for number in range(1, 11)
    ]
    assert np.all(np.diff(growth) > -1e-9)
    assert growth[-1] > 1.05 * growth[0]


def test_moments_of_many_directions_grow_as_they_are_iterated():
    # 24 numbers (ζ, m), more than matrices of their moments are formed for.
    rng = np.random.default_rng(4)
    inputs, eta, beta = rng.normal(size=(30, 12)), 0.05, 0.5
    problem = problems.linear_regression(inputs, np.zeros(30))
    found = batch_curvature_along(problem, np.zeros(12), noise.Minibatch(1), np.eye(12))
    matrices = inputs[:, :, None] * inputs[:, None, :]
    eye, moments = np.eye(12), np.eye(24)
    upper = np.concatenate([eye - eta * matrices, np.tile(-eta * beta * eye, (30, 1, 1))], axis=2)
    lower = np.concatenate([matrices, np.tile(beta * eye, (30, 1, 1))], axis=2)
    steps = np.concatenate([upper, lower], axis=1)
    for _ in range(2000):
        before = np.linalg.norm(moments)
        moments = np.mean(steps @ moments @ steps.transpose(0, 2, 1), axis=0) / before
    growth = found.mean_square_growth(eta, beta)
    assert growth == pytest.approx(np.linalg.norm(moments), rel=1e-5)
    features = momentum_mean_square_growth(inputs, 1, eta, beta)
    assert features == pytest.approx(growth, rel=1e-5)


def dropped(theta, example, key):
    """½(x·(mθ) − y)² with a random mask m of mean one."""
    mask = jax.random.bernoulli(key, 0.75, (2,)) / 0.75
    return 0.5 * (example[0] @ (mask * theta) - example[1]) ** 2


def test_keys_of_random_losses_add_to_the_spread():
    inputs = np.random.default_rng(5).normal(size=(12, 2))
    problem = problems.empirical_risk(dropped, (inputs, np.zeros(12)), np.zeros(2), loss_draws=512)
    bits = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    weights = np.prod(np.where(bits == 1, 0.75, 0.25), axis=1)
    masked = inputs[:, None] * bits / 0.75
    each = masked[..., :, None] * masked[..., None, :]  # example, mask
    middle = np.einsum("m,nmij->nij", weights, each)
    within = np.einsum("m,nmij->ij", weights, (each - middle[:, None]) ** 2) / 12
    for sampling in SAMPLINGS:
        minibatch = noise.Minibatch(SIZE, sampling)
        found = batch_curvature_along(problem, np.zeros(2), minibatch, np.eye(2))
        between = factor(12, sampling) * middle.var(axis=0)
        # Masks of 12 × 512 keys: 1.3 % of a spread, counted with their fourth moments.
        seen = np.sum(found.deviations**2, axis=0)
        np.testing.assert_allclose(seen, between + within / SIZE, rtol=0.05)
        np.testing.assert_allclose(found.mean, middle.mean(axis=0), rtol=0.05, atol=0.03)
        assert not found.exact
        assert np.all(within / SIZE > 0.2 * between)  # the keys would be missed


def spread_loss(theta, batch):
    """(θ₁ · variance of the batch − θ₂)² + |θ|²: not a mean over examples."""
    return (theta[0] * jnp.var(batch) - theta[1]) ** 2 + jnp.sum(theta**2)


def test_batches_of_a_batch_risk_are_gone_through():
    data = np.random.default_rng(6).normal(size=7)
    problem = problems.batch_risk(spread_loss, data, np.zeros(2), batch_size=3)
    v = np.array([np.var(data[list(rows)]) for rows in itertools.combinations(range(7), 3)])
    matrices = np.array([[2 * v**2 + 2, -2 * v], [-2 * v, 0 * v + 4]]).transpose(2, 0, 1)
    minibatch = noise.Minibatch(3, "without_replacement")
    found = batch_curvature_along(problem, np.zeros(2), minibatch, np.eye(2))
    assert found.exact
    np.testing.assert_allclose(found.mean, matrices.mean(axis=0), rtol=1e-6)
    for beta in (0.0, 0.6):
        expected = radius(one_step(matrices, 1, 0.3, beta))
        assert found.mean_square_growth(0.3, beta) == pytest.approx(expected, rel=1e-6)
    # Of 22 examples there are 1540 subsets: 256 are drawn, 4 standard errors of a variance.
    data = np.random.default_rng(7).normal(size=22)
    many = problems.batch_risk(spread_loss, data, np.zeros(2), batch_size=3)
    found = batch_curvature_along(many, np.zeros(2), minibatch, np.eye(2))
    v = np.array([np.var(data[list(rows)]) for rows in itertools.combinations(range(22), 3)])
    squares = (v - v.mean()) ** 2
    error = 4 * squares.std() / np.sqrt(256)
    assert not found.exact
    assert abs(np.sum(found.deviations[:, 0, 1] ** 2) - 4 * squares.mean()) < 4 * error


@pytest.mark.usefixtures("unchecked")
def test_refusals_and_saddles(problem):
    with pytest.raises(ValueError, match=r"directions must have shape \(10, k\)"):
        batch_curvature_along(problem, PARAMS, noise.Minibatch(2), np.eye(9))
    bowl = problems.landscape(lambda x: x @ x, np.zeros(2))
    with pytest.raises(ValueError, match="noise other than Minibatch on a landscape"):
        batch_curvature_along(bowl, np.zeros(2), noise.Minibatch(2), np.eye(2))
    saddle = problems.empirical_risk(lambda x, e: x[0] ** 2 - e * x[1] ** 2, np.ones(3), np.ones(2))
    found = batch_curvature_along(saddle, np.ones(2), noise.Minibatch(2), np.eye(2))
    assert found.mean_square_threshold() == 0
    assert found.mean_square_growth(0.1) == pytest.approx(1.2**2)
    with pytest.raises(ValueError, match="weight_decay must"):
        found.mean_square_threshold(weight_decay=-1.0)
