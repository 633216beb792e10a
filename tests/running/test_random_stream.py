"""Statistical tests of the counter-based stream and of its Gaussian numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from statsgd.running import stream_key
from statsgd.running.random_stream import normal

WORDS = 2**20


def words(seed=0, replicas=2**10, steps=2**5, number=2**5):
    """Words by replica, step and position, keyed as an ensemble keys them."""
    root = jax.random.fold_in(stream_key(seed), 0)

    def run(replica):
        key = jax.random.fold_in(root, replica)
        return jax.vmap(lambda step: jax.random.bits(jax.random.fold_in(key, step), (number,)))(
            jnp.arange(steps)
        )

    return np.asarray(jax.jit(jax.vmap(run))(jnp.arange(replicas)))


SHAPES = {"replicas": (2**15, 8, 4), "steps": (8, 2**15, 4), "positions": (4, 8, 2**15)}


@pytest.fixture(scope="module", params=list(SHAPES))
def block(request):
    return words(3, *SHAPES[request.param])


def test_bytes_and_bits_are_uniform(block):
    # Chi-square of each byte of the word, and each bit's count, over a million words.
    for shift in (0, 8, 16, 24):
        counts = np.bincount(((block >> shift) & 255).ravel(), minlength=256)
        assert 1e-5 < stats.chisquare(counts).pvalue < 1 - 1e-5
    for bit in range(32):
        ones = int(((block >> bit) & 1).sum())
        assert abs(ones - block.size / 2) < 4.5 * np.sqrt(block.size) / 2


def test_high_bits_of_words_are_uniform(block):
    counts = np.bincount((block >> 16).ravel(), minlength=2**16)
    assert 1e-5 < stats.chisquare(counts).pvalue < 1 - 1e-5


@pytest.mark.parametrize("axis", [0, 1, 2], ids=["replicas", "steps", "positions"])
def test_neighbours_are_independent(block, axis):
    # Joint chi-square of the top, and of the bottom, nibbles of neighbouring words, and serial
    # correlation at lags 1 to 3.
    uniform = block / 2**32 - 0.5
    for lag in (1, 2, 3):
        one = np.take(block, range(block.shape[axis] - lag), axis).ravel()
        two = np.take(block, range(lag, block.shape[axis]), axis).ravel()
        for shift in (28, 0):
            pairs = ((one >> shift) & 15) * 16 + ((two >> shift) & 15)
            counts = np.bincount(pairs.ravel(), minlength=256)
            assert 1e-5 < stats.chisquare(counts).pvalue < 1 - 1e-5
        a = np.take(uniform, range(block.shape[axis] - lag), axis)
        b = np.take(uniform, range(lag, block.shape[axis]), axis)
        assert abs(np.mean(a * b) * 12 * np.sqrt(a.size)) < 4.5


def test_words_do_not_repeat_more_often_than_chance():
    # Among 2^20 words n²/2^33 = 128 pairs coincide on average.
    distinct = len(np.unique(words(5)))
    assert abs(WORDS - distinct - 128) < 5 * np.sqrt(128)


def data(key):
    return np.asarray(jax.random.key_data(key))


def flips(one, other):
    return np.unpackbits((one ^ other).view(np.uint8), axis=-1).mean(axis=0)


@pytest.mark.parametrize("what", ["seed", "replica", "step"])
def test_any_bit_changed_changes_half_of_all_bits(what):
    number = 20_000
    base = np.random.default_rng(0).integers(0, 2**31, number, dtype=np.uint32)
    root = stream_key(1)

    def word(value):
        if what == "seed":
            key = jax.vmap(lambda v: jax.random.fold_in(stream_key(v), 7))(value)
        elif what == "replica":
            key = jax.vmap(lambda v: jax.random.fold_in(jax.random.fold_in(root, v), 7))(value)
        else:
            key = jax.vmap(lambda v: jax.random.fold_in(root, v))(value)
        return jax.vmap(lambda k: jax.random.bits(k, (2,)))(key)

    word = jax.jit(word)
    for bit in (0, 1, 7, 15, 16, 30):
        share = flips(np.asarray(word(base)), np.asarray(word(base ^ np.uint32(1 << bit))))
        assert np.all(np.abs(share - 0.5) < 5 * 0.5 / np.sqrt(number))


def test_replicas_are_independent_at_every_step():
    block = words(8, 64, 2**12, 2) / 2**32 - 0.5
    correlation = np.corrcoef(block.reshape(64, -1))[np.triu_indices(64, 1)]
    scores = correlation * np.sqrt(2**13)
    assert np.abs(scores).max() < 5
    assert scores.std() == pytest.approx(1, abs=0.07)


def test_split_and_fold_in_give_different_keys():
    root = stream_key(4)
    children = data(jax.random.split(root, 4096))
    folded = data(jax.vmap(jax.random.fold_in, (None, 0))(root, jnp.arange(4096)))
    both = np.concatenate([children, folded])
    assert len(np.unique(both, axis=0)) == 8192
    one = np.asarray(jax.vmap(lambda k: jax.random.bits(k))(jax.random.split(root, 4096)))
    two = np.asarray(
        jax.vmap(lambda i: jax.random.bits(jax.random.fold_in(root, i)))(jnp.arange(4096))
    )
    assert abs(np.corrcoef(one, two)[0, 1]) < 4.5 / np.sqrt(4096)


def test_nested_folds_do_not_commute():
    root = stream_key(4)
    one = data(jax.random.fold_in(jax.random.fold_in(root, 1), 2))
    two = data(jax.random.fold_in(jax.random.fold_in(root, 2), 1))
    assert not np.array_equal(one, two)


def counts_beyond(number, thresholds):
    draw = jax.jit(
        lambda keys: jnp.stack(
            [jnp.sum(jnp.abs(jax.vmap(lambda k: normal(k, (64,)))(keys)) > t) for t in thresholds]
        )
    )
    total = np.zeros(len(thresholds), dtype=np.int64)
    chunk = 2**16
    for i in range(number // (64 * chunk)):
        total += np.asarray(draw(jax.random.split(stream_key(i), chunk)))
    return total, (number // (64 * chunk)) * 64 * chunk


@pytest.mark.slow
def test_gaussian_tails_are_exact():
    thresholds = np.array([0.5, 1.0, 2.0, 3.0, 4.0, 4.5, 5.0])
    beyond, number = counts_beyond(2**27, thresholds)
    expected = 2 * stats.norm.sf(thresholds) * number  # 77 beyond 5σ
    error = np.sqrt(expected * (1 - expected / number))
    assert np.all(np.abs(beyond - expected) < 4 * error)


def test_gaussian_bulk_pairs_and_moments():
    draws = np.asarray(
        jax.jit(jax.vmap(lambda k: normal(k, (4,))))(jax.random.split(stream_key(21), 2**18)),
        dtype=np.float64,
    )
    assert stats.kstest(draws.ravel(), "norm").pvalue > 1e-4
    # 256 cells of equal probability, jointly for the two members of a pair and of different pairs.
    cells = np.minimum((stats.norm.cdf(draws) * 16).astype(int), 15)
    for i in range(4):
        for j in range(i):
            counts = np.bincount(cells[:, i] * 16 + cells[:, j], minlength=256)
            assert stats.chisquare(counts).pvalue > 1e-5
    size = draws.size
    for power, mean, variance in [(1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)]:
        assert abs((draws**power).mean() - mean) < 4 * np.sqrt(variance / size)


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 5)])
def test_gaussian_shapes_and_dtypes(shape):
    assert normal(stream_key(0), shape).shape == shape
    assert normal(stream_key(0), shape).dtype == jnp.float32
    with jax.enable_x64(True):
        assert normal(stream_key(0), shape, jnp.float64).dtype == jnp.float64
