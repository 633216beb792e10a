"""Shuffled epochs whose batch size does not divide the data, against a rule written in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import statsgd
from statsgd.laws import EpochNoiseGaussian
from statsgd.noise import LabelNoise, Minibatch
from statsgd.problems import linear_regression
from statsgd.running import stream_key

N, S = 11, 4
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(N, 2)), RNG.normal(size=N)
PROBLEM = linear_regression(X, Y)
START = np.array([0.5, -1.0])


def epoch(noise, key, number):
    """Indices of every batch of epoch `number`, as long as they count."""
    batches = noise.batches_per_epoch(N)
    steps = range(number * batches, (number + 1) * batches)
    found = [np.asarray(noise.indices(key, jnp.int32(step), N)) for step in steps]
    return [*found[:-1], found[-1][: N % S]] if noise.drop_last is False else found


@pytest.mark.parametrize("sampling", ["reshuffle", "single_shuffle"])
@pytest.mark.parametrize("drop_last", [True, False])
def test_epochs_are_those_of_a_loader(sampling, drop_last):
    noise, key = Minibatch(S, sampling, drop_last=drop_last), stream_key(3)
    first, second = (np.concatenate(epoch(noise, key, i)) for i in (0, 1))
    assert noise.batches_per_epoch(N) == (2 if drop_last else 3)
    for one in (first, second):
        assert len(one) == len(set(one)) == (8 if drop_last else N)
    assert np.array_equal(first, second) == (sampling == "single_shuffle")


@pytest.mark.parametrize("sampling", ["reshuffle", "single_shuffle"])
@pytest.mark.parametrize("drop_last", [True, False])
def test_sgd_takes_the_mean_over_each_batch(sampling, drop_last):
    noise, eta = Minibatch(S, sampling, drop_last=drop_last), 0.05
    steps = 2 * noise.batches_per_epoch(N)
    sgd = statsgd.SGD(eta, noise)
    ran = statsgd.simulate(
        PROBLEM, sgd, steps=steps, replicas=2, seed=4, start=START, progress=False
    )
    for replica in range(2):
        key = jax.random.fold_in(jax.random.fold_in(stream_key(4), 0), replica)
        theta = START.copy()
        for batch in [*epoch(noise, key, 0), *epoch(noise, key, 1)]:
            theta -= eta * X[batch].T @ (X[batch] @ theta - Y[batch]) / len(batch)
        found = ran["endpoints"]["params"].values[replica]
        np.testing.assert_allclose(found, theta, rtol=1e-5)


def test_dropped_examples_change_from_epoch_to_epoch():
    noise, key = Minibatch(S, "reshuffle", drop_last=True), stream_key(0)
    number = 3000
    used = np.zeros(N)
    each = jax.jit(jax.vmap(lambda step: noise.indices(key, step, N)))
    np.add.at(used, np.asarray(each(jnp.arange(2 * number))).reshape(-1), 1)
    share = 8 / N
    error = np.sqrt(share * (1 - share) / number)
    assert np.all(np.abs(used / number - share) < 4 * error)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Minibatch(S, "reshuffle").check(PROBLEM), "remainder 3; drop_last=True or False"),
        (lambda: Minibatch(S, drop_last=True), "drop_last must go with sampling 'reshuffle' or"),
        (lambda: LabelNoise(0.1, S, "reshuffle").check(PROBLEM), "batch_size must divide"),
        (lambda: Minibatch(12, "reshuffle", drop_last=False).check(PROBLEM), "at most num_examp"),
        (
            lambda: EpochNoiseGaussian.from_sgd(
                PROBLEM, statsgd.SGD(0.1, Minibatch(S, "reshuffle", drop_last=False))
            ),
            "batch_size must divide num_examples .* remainder 3; white sampling",
        ),
    ],
)
def test_what_needs_equal_batches_says_so(build, message):
    with pytest.raises(ValueError, match=message):
        build()
