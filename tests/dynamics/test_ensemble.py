"""Ensembles: what they return, that nothing but the seed matters, and that nothing is lost."""

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


def test_result_has_the_promised_groups():
    tree = run(observe={"loss": regression().loss, "size": jnp.sum}, keep=[0, 20, 40])
    ends = tree["endpoints"]["params"]
    assert ends.dims == ("replica", "params_dim_0")
    assert ends.shape == (30, 3)
    assert tree["momentum_buffer"]["params"].shape == (30, 3)
    assert tree["observables"]["loss"].dims == ("replica", "step")
    assert tree["observables"].sizes["step"] == 40
    snapshots = tree["snapshots"]["params"]
    assert snapshots.dims == ("replica", "step", "params_dim_0")
    assert np.all(snapshots.sel(step=0) == 0)
    assert np.array_equal(snapshots.sel(step=40), ends)
    final = jax.vmap(regression().loss)(ends.values)
    np.testing.assert_allclose(tree["run"]["loss"], final, rtol=1e-5)
    np.testing.assert_array_equal(tree["observables"]["loss"].sel(step=40), tree["run"]["loss"])
    assert not tree["run"]["diverged"].any()
    assert np.all(tree["run"]["diverged_at"] == -1)
    assert tree.attrs["seed"] == 7
    assert "learning_rate" in tree.attrs["dynamics"]


def test_leaves_are_named_by_their_path():
    problem = problems.landscape(
        lambda p: jnp.sum(p["layer"]["w"] ** 2) + p["b"] ** 2,
        {"layer": {"w": np.ones((2, 3))}, "b": 1.0},
    )
    tree = simulate(problem, SGD(0.1, noise.NoNoise()), steps=1, replicas=2, seed=0, progress=False)
    assert set(tree["endpoints"].data_vars) == {"b", "layer.w"}
    assert tree["endpoints"]["layer.w"].dims == ("replica", "layer.w_dim_0", "layer.w_dim_1")


@pytest.mark.parametrize("changes", [{"block_size": 1}, {"block_size": 7}, {"keep": 3}])
def test_blocks_and_chunks_do_not_change_a_bit(changes):
    reference, other = run(), run(**changes)
    for group in ("endpoints", "momentum_buffer"):
        np.testing.assert_array_equal(reference[group]["params"], other[group]["params"])


def test_replicas_do_not_depend_on_how_many_there_are():
    few, many = run(replicas=5), run(replicas=50)
    np.testing.assert_array_equal(few["endpoints"]["params"], many["endpoints"]["params"][:5])


def test_seeds_and_replicas_are_different_runs():
    ends = run()["endpoints"]["params"].values
    assert len(np.unique(ends, axis=0)) == 30
    assert not np.array_equal(ends, run(seed=8)["endpoints"]["params"].values)


def test_one_compilation_serves_other_numbers():
    calls = []

    def loss(x):
        calls.append(1)
        return jnp.sum(x**2)

    problem = problems.landscape(loss, np.ones(2))

    def go(rate, momentum, variance, steps, seed):
        sgd = SGD(rate, noise.Isotropic(variance), momentum)
        simulate(problem, sgd, steps=steps, replicas=4, seed=seed, progress=False)

    go(0.1, 0.0, 1.0, 10, 0)
    first = len(calls)
    go(0.2, 0.9, 0.5, 33, 5)
    go(0.3, 0.2, 2.5, 7, 6)
    # The checks of a new run trace shapes, but the gradient of a step is traced once for all.
    assert len(calls) == first


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


def test_diverged_replica_is_frozen_flagged_and_counted():
    # x' = x − 0.1·(−x³): from 0.5 the cube pushes slowly outward, from 30 it explodes at once.
    problem = problems.landscape(lambda x: -(x**4) / 4, 0.0)
    start = np.array([0.0, 30.0])
    tree = simulate(
        problem,
        SGD(0.1, noise.NoNoise()),
        steps=50,
        replicas=2,
        seed=0,
        start=start,
        progress=False,
        observe={"x": lambda x: x},
        observe_at=1,
    )
    assert tree["run"]["diverged"].values.tolist() == [False, True]
    # The step at which float32 overflows, by hand.
    x, step = np.float32(30.0), 0
    with np.errstate(over="ignore"):
        while np.isfinite(x):
            last, step = x, step + 1
            x = np.float32(x + np.float32(0.1) * x * x * x)
    assert tree["run"]["diverged_at"].values[1] == step
    np.testing.assert_allclose(tree["endpoints"]["params"][1], last, rtol=1e-4)
    assert np.all(np.isfinite(tree["observables"]["x"]))
    assert tree["endpoints"]["params"].values[0] == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"replicas": 0}, "replicas must be at least 1, got 0"),
        ({"replicas": 2.0}, "replicas must be an integer"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"start": np.ones(4)}, r"start must have leaves of shape \[\(3,\)\]"),
        ({"start": {"w": np.ones(3)}}, "start must have the structure"),
        ({"start": np.full(3, np.nan)}, "start must be finite"),
        ({"keep": [50]}, "keep must be steps between 0 and 40"),
        ({"observe": {"loss": 3}}, "observe must map names to functions"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        run(**changes)
