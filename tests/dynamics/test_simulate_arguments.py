"""What `simulate` is given: starts, seeds, names of leaves, and arguments that are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from statsgd import SGD, noise, problems, simulate

RNG = np.random.default_rng(0)
INPUTS, TARGETS = RNG.normal(size=(30, 3)), RNG.normal(size=30)


def regression():
    return problems.linear_regression(INPUTS, TARGETS)


def run(**changes):
    settings = {"steps": 40, "replicas": 30, "seed": 7, "progress": False}
    sgd = SGD(0.1, noise.Minibatch(4), momentum=0.5)
    return simulate(regression(), sgd, **(settings | changes))


def test_leaves_are_named_by_their_path():
    problem = problems.landscape(
        lambda p: jnp.sum(p["layer"]["w"] ** 2) + p["b"] ** 2,
        {"layer": {"w": np.ones((2, 3))}, "b": 1.0},
    )
    tree = simulate(problem, SGD(0.1, noise.NoNoise()), steps=1, replicas=2, seed=0, progress=False)
    assert set(tree["endpoints"].data_vars) == {"b", "layer.w"}
    assert tree["endpoints"]["layer.w"].dims == ("replica", "layer.w_dim_0", "layer.w_dim_1")


def test_seeds_and_replicas_are_different_runs():
    ends = run()["endpoints"]["params"].values
    assert len(np.unique(ends, axis=0)) == 30
    assert not np.array_equal(ends, run(seed=8)["endpoints"]["params"].values)


def test_starts():
    problem = regression()
    sgd = SGD(0.1, noise.NoNoise())
    common = {"steps": 1, "replicas": 3, "seed": 0, "progress": False}
    together = simulate(problem, sgd, start=np.ones(3), **common)["endpoints"]["params"].values
    assert np.all(together == together[0])
    apart = np.arange(9.0).reshape(3, 3)
    each = simulate(problem, sgd, start=apart, **common)["endpoints"]["params"].values
    gradient = np.stack([problem.gradient(jnp.asarray(row)) for row in apart])
    np.testing.assert_allclose(each, apart - 0.1 * gradient, rtol=1e-5)
    drawn = problems.landscape(lambda x: x**2, lambda key: jax.random.normal(key))
    ends = simulate(drawn, sgd, **(common | {"replicas": 1000}))["endpoints"]["params"].values
    # Half of the square root of 2/1000, times four: the spread of the start, times 0.8².
    assert abs(ends.std() - 0.8) < 4 * 0.8 / np.sqrt(2000)


@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        run(**changes)
