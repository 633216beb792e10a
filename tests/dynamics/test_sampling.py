"""Index sampling: bijections, uniformity, and the correlations that shuffling brings."""

import itertools
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from statsgd.dynamics import sampling
from statsgd.noise import Minibatch
from statsgd.problems import landscape, linear_regression, population_risk
from statsgd.running import stream_key

X = np.array([1.0, -1.0, 2.0, 0.5, -0.5, 1.5])
Y = np.array([1.0, 0.0, 1.0, 1.0, -1.0, 2.0])
SMALL = linear_regression(X[:, None], Y)


def keys(number, seed=0):
    return jax.random.split(stream_key(seed), number)


def order(key, n):
    return sampling.permuted(key, jnp.arange(n, dtype=jnp.int32), n)


@pytest.mark.parametrize("n", [1, 2, 6, 64, 65, 100, 1797, 70001])
def test_permutation_is_a_bijection_for_every_key(n):
    orders = np.asarray(jax.vmap(order, (0, None))(keys(16, n), n))
    assert np.array_equal(np.sort(orders, axis=1), np.tile(np.arange(n), (16, 1)))


def test_a_position_has_one_image_however_it_is_asked_for():
    whole = order(stream_key(3), 1797)
    part = sampling.permuted(stream_key(3), jnp.array([5, 1700], jnp.int32), 1797)
    assert np.array_equal(whole[jnp.array([5, 1700])], part)


def test_small_permutations_are_uniform_over_all_orders():
    orders = np.asarray(jax.vmap(order, (0, None))(keys(72_000), 6))
    codes = orders @ 6 ** np.arange(6)
    _, counts = np.unique(codes, return_counts=True)
    assert len(counts) == 720
    assert stats.chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize("n", [65, 96])
def test_images_of_any_two_positions_are_uniform_over_distinct_pairs(n):
    # Just above RANK_LIMIT the network has its smallest rectangle: the hardest case for it.
    places = jnp.array([0, 1, 7, n // 2, n - 1], jnp.int32)
    images = jax.jit(jax.vmap(lambda key: sampling.permuted(key, places, n)))(keys(2**18, 7))
    images = np.asarray(images)
    for one, other in itertools.combinations(range(5), 2):
        counts = np.bincount(images[:, one] * n + images[:, other], minlength=n * n)
        counts = counts.reshape(n, n)
        assert np.all(np.diag(counts) == 0)
        assert stats.chisquare(counts[~np.eye(n, dtype=bool)]).pvalue > 1e-4
        assert stats.chisquare(counts.sum(1)).pvalue > 1e-4


@pytest.mark.parametrize("n", [1000, 1797, 60_000])
def test_large_permutations_have_uniform_images_and_uncorrelated_neighbours(n):
    images = np.asarray(
        jax.jit(jax.vmap(lambda key: sampling.permuted(key, jnp.arange(8), n)))(keys(2**16, 9))
    )
    for place in range(8):
        cells = np.bincount(images[:, place] * 64 // n, minlength=64)
        edges = np.diff(np.ceil(np.arange(65) * n / 64))
        assert stats.chisquare(cells, edges / n * len(images)).pvalue > 1e-5
    correlations = np.corrcoef(images.T)[np.triu_indices(8, 1)]
    # Drawing without repeats: correlation −1/(N−1) between any two.
    assert np.all(np.abs(correlations + 1 / (n - 1)) < 4.5 / np.sqrt(len(images)))


def test_subsets_without_replacement_are_uniform():
    chosen = jax.vmap(lambda key: sampling.without_replacement(key, 7, 3))(keys(70_000, 5))
    codes = (2 ** np.asarray(chosen)).sum(1)
    counts = np.unique(codes, return_counts=True)[1]
    assert len(counts) == 35
    assert stats.chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize("scheme", ["reshuffle", "single_shuffle"])
@pytest.mark.parametrize(("n", "size"), [(6, 2), (60, 6), (200, 10)])
def test_an_epoch_visits_every_example_once(scheme, n, size):
    choose = getattr(sampling, scheme)
    steps = jnp.arange(3 * n // size)
    epochs = jax.vmap(lambda step: choose(stream_key(1), step, n, size))(steps).reshape(3, n)
    assert np.array_equal(np.sort(epochs, axis=1), np.tile(np.arange(n), (3, 1)))
    assert bool(np.all(epochs[0] == epochs[1])) is (scheme == "single_shuffle")
    other = jax.vmap(lambda step: choose(stream_key(2), step, n, size))(steps).reshape(3, n)
    assert not np.array_equal(epochs[0], other[0])


def test_batch_noise_is_anticorrelated_within_an_epoch_and_independent_between():
    # R(0) = c, R(n) = −c/(M−1) within the epoch, 0 across epochs; c = Σ₁(N−S)/(S(N−1)).
    noise, params = Minibatch(2, "reshuffle"), jnp.array([0.3])
    number = 40_000

    def gradients(key):
        return jax.vmap(lambda step: noise.at_step(key, step, SMALL, params)[0])(jnp.arange(6))

    batches = np.asarray(jax.jit(jax.vmap(gradients))(keys(number, 11)), dtype=np.float64)
    example = (X * 0.3 - Y) * X
    np.testing.assert_allclose(batches.reshape(-1, 3).mean(1), example.mean(), atol=1e-6)
    c = example.var() * 4 / (2 * 5)
    expected = np.kron(np.eye(2), c * (1.5 * np.eye(3) - 0.5))
    deviations = batches - example.mean()
    products = deviations[:, :, None] * deviations[:, None, :]
    error = np.maximum(products.std(0) / np.sqrt(number), 1e-9)
    assert np.all(np.abs(products.mean(0) - expected) < 4 * error)
    assert error[0, 0] < 0.02 * c  # a factor 1.1 would show
    # Replicas: the products of neighbours have mean zero.
    across = deviations[::2] * deviations[1::2]
    assert np.all(np.abs(across.mean(0)) < 4 * across.std(0) / np.sqrt(number / 2))
    drawn = jax.vmap(lambda key: noise.draw(key, SMALL, params)[0])(keys(number, 12))
    assert np.var(drawn) == pytest.approx(c, rel=4 * np.sqrt(2 / number))


def test_a_change_of_batch_size_meets_no_earlier_order():
    # Epochs 0 to 9 of 12 and 6 batches; one order for ever is that of every batch size.
    def orders(choose, size):
        steps = jnp.arange(10 * (24 // size), dtype=jnp.int32)
        chosen = jax.vmap(lambda step: choose(stream_key(5), step, 24, size))(steps)
        return set(map(tuple, np.asarray(chosen).reshape(10, 24)))

    for choose, different in ((sampling.reshuffle, 20), (sampling.single_shuffle, 1)):
        assert len(orders(choose, 2) | orders(choose, 4)) == different


def test_covariance_of_a_batch_carries_the_finite_population_factor():
    # c for Σ₁ = 1, N = 200, S = 10: with / without replacement .1 / .0954774.
    problem = linear_regression(np.ones((200, 1)), np.tile([1.0, -1.0], 100))
    for scheme, expected in [
        ("with_replacement", 0.1),
        ("without_replacement", 0.0954774),
        ("reshuffle", 0.0954774),
        ("single_shuffle", 0.0954774),
    ]:
        covariance = Minibatch(10, scheme).covariance(problem, jnp.zeros(1))
        assert float(covariance[0, 0]) == pytest.approx(expected, rel=1e-6)
        assert float(Fraction(190, 10 * 199)) == pytest.approx(0.0954774, rel=1e-6)


def test_only_schemes_without_memory_are_white():
    white = {scheme for scheme in Minibatch.SAMPLING if Minibatch(2, scheme).white}
    assert white == {"with_replacement", "without_replacement", "fresh"}


@pytest.mark.parametrize("scheme", ["reshuffle", "single_shuffle"])
def test_batches_must_fit_the_data(scheme):
    with pytest.raises(ValueError, match=r"batch_size must divide num_examples .*remainder 2"):
        Minibatch(4, scheme).check(SMALL)
    with pytest.raises(ValueError, match="batch_size must be at most num_examples = 6"):
        Minibatch(12, scheme).check(SMALL)
    with pytest.raises(ValueError, match="sampling must be 'fresh'"):
        Minibatch(2, scheme).check(landscape(lambda x: x @ x, np.ones(2)))


def test_fresh_sampling_needs_a_population():
    with pytest.raises(ValueError, match=r"'reshuffle', 'single_shuffle'\) on a data set"):
        Minibatch(2, "fresh").check(SMALL)
    problem = population_risk(
        lambda params, example: 0.5 * (params[0] - example) ** 2, jax.random.normal, np.zeros(1)
    )
    Minibatch(2, "fresh").check(problem)
    gradients = jax.vmap(lambda key: Minibatch(4, "fresh").draw(key, problem, jnp.zeros(1))[0])(
        keys(20_000)
    )
    assert np.var(gradients) == pytest.approx(0.25, rel=0.04)
