"""Grids, starts, thinning and other targets of the runner."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from statsgd import sample
from statsgd.kernels import MALA, ReplicaExchange
from statsgd.laws import Gibbs, HeavyBallGaussian
from statsgd.problems.landscapes import smooth_wells, valley_wells
from tests.statistical import assert_mean_within

QUIET = {"progress": False, "diagnose": False}
FIXED = {"adapt_step_size": False}
LAW = HeavyBallGaussian([[2.0]], [[0.3]], 0.5, 0.5)


def params(tree):
    return tree["posterior"]["params"].values


def test_a_grid_is_one_compilation_and_its_cells_are_separate_runs(monkeypatch):
    traced = []
    original = HeavyBallGaussian.model

    def counted(self, obs=None):
        traced.append(1)
        return original(self, obs)

    monkeypatch.setattr(HeavyBallGaussian, "model", counted)
    steps = np.geomspace(0.05, 1.0, 64)
    settings = {"seed": 3, "warmup": 100, "draws": 300, "chains": 32, **QUIET}
    tree = sample(LAW, MALA(**FIXED), grid={"step_size": steps}, **settings)
    assert tree["posterior"]["params"].dims == ("step_size", "chain", "draw", "params_dim_0")
    np.testing.assert_allclose(tree["posterior"]["step_size"], steps)
    acceptance = tree["sample_stats"]["acceptance_rate"].mean(("chain", "draw")).values
    assert acceptance[0] > 0.95 > 0.8 > acceptance[-1]
    first = len(traced)
    sample(LAW, MALA(**FIXED), grid={"step_size": steps / 2}, **(settings | {"seed": 4}))
    assert len(traced) == first
    alone = sample(LAW, MALA(step_size=steps[40], **FIXED), **settings)
    np.testing.assert_array_equal(params(tree)[40], params(alone))


@pytest.mark.slow
def test_a_grid_over_the_law_and_the_temperature():
    grid = {"law.learning_rate": [0.1, 0.4], "temperature": [0.5, 1.0, 2.0]}
    settings = {"seed": 0, "warmup": 200, "draws": 300, "chains": 100, **QUIET}
    tree = sample(LAW, MALA(step_size=0.5), grid=grid, thinning=3, **settings)
    draws = tree["posterior"]["params"]
    assert draws.dims[:2] == ("law.learning_rate", "temperature")
    # The model of a Gaussian law is standard normal numbers pushed forward: T scales the variance.
    for i, rate in enumerate(grid["law.learning_rate"]):
        law = HeavyBallGaussian([[2.0]], [[0.3]], rate, 0.5)
        for j, temperature in enumerate(grid["temperature"]):
            squares = (draws.values[i, j, ..., 0] ** 2).mean(axis=1)
            assert_mean_within(squares, temperature * law.covariance().item())
    exact = sample(LAW, grid={"law.learning_rate": [0.1, 0.4]}, seed=0, draws=50, **QUIET)
    assert params(exact).shape == (2, 4, 50, 1)
    assert not np.array_equal(params(exact)[0], params(exact)[1])


def test_thinning_keeps_every_so_many_draws():
    settings = {"seed": 1, "warmup": 7, "chains": 3, **QUIET}
    every = params(sample(LAW, MALA(**FIXED), draws=600, **settings))
    third = params(sample(LAW, MALA(**FIXED), draws=200, thinning=3, **settings))
    np.testing.assert_array_equal(every[:, 2::3], third)


@pytest.mark.slow
def test_chain_does_not_depend_on_the_number_of_chains():
    settings = {"seed": 1, "warmup": 20, "draws": 50, **QUIET}
    few, many = (
        params(sample(LAW, MALA(), chains=chains, block_size=2, **settings)) for chains in (2, 4)
    )
    np.testing.assert_array_equal(few, many[:2])


@pytest.mark.slow
def test_where_chains_start():
    law = Gibbs(valley_wells(), 0.05)
    settings = {"seed": 0, "warmup": 0, "draws": 1, "chains": 4, **QUIET}
    still = MALA(step_size=1e-10, **FIXED)
    wells = [[-1.0, 0.0], [1.0, 0.0]]
    found = params(sample(law, still, starts="wells", **settings))[:, 0]
    expected = [[-1.0, 0.0], [1.0, 0.0]] * 2
    np.testing.assert_allclose(np.sort(found, axis=0), np.sort(expected, axis=0), atol=1e-4)
    given = params(sample(law, still, starts=np.array(wells), **settings))[:, 0]
    np.testing.assert_allclose(given, expected, atol=1e-4)
    # On the line the law itself says where: at draws, 71 % of them in the flat well.
    line = Gibbs(smooth_wells(), 0.05)
    many = params(sample(line, still, **(settings | {"chains": 4000})))
    assert_mean_within(many[:, 0, 0] < 0.6585913, 0.710365)


def logistic():
    numpyro.sample("rate", dist.Gamma(3.0, 2.0))
    numpyro.sample("x", dist.Normal(jnp.zeros(2), 2.0).to_event(1))


@pytest.mark.slow
def test_draws_from_a_plain_model_and_from_a_kernel_s_own_target():
    settings = {"seed": 2, "warmup": 300, "draws": 400, "chains": 40, **QUIET}
    tree = sample(logistic, MALA(), **settings)
    assert set(tree["posterior"].data_vars) == {"rate", "x"}
    assert_mean_within(tree["posterior"]["rate"].values.mean(axis=1), 1.5)
    started = {"rate": np.ones(1), "x": np.zeros((1, 2))}
    sample(logistic, MALA(), starts=started, **(settings | {"draws": 5}))
    kernel = MALA(potential_fn=lambda z: jnp.sum(z["y"] ** 2), step_size=0.3)
    own = sample(None, kernel, starts={"y": np.zeros((1, 3))}, **settings)
    assert_mean_within((own["posterior"]["y"].values ** 2).mean(axis=(1, 2)), 0.5)


@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_named():
    for kernel, changes, message in (
        (MALA(**FIXED), {"grid": {"colour": [1.0]}}, "grid names must be .* got 'colour'"),
        (MALA(**FIXED), {"grid": {"law.colour": [1.0]}}, "known here: law.hessian"),
        (MALA(**FIXED), {"grid": {"step_size": []}}, "grid 'step_size' must be a non-empty"),
        (MALA(**FIXED), {"grid": {"step_size": [-1.0]}}, "grid 'step_size' must be positive"),
        (MALA(), {"grid": {"step_size": [1.0]}}, "grid over step_size needs a kernel with"),
        (
            ReplicaExchange(MALA(), temperatures=[1.0, 2.0]),
            {"grid": {"temperatures": [1.0]}},
            "got 'temperatures'",
        ),
        (MALA(), {"starts": "anywhere"}, "starts must be None, 'wells'"),
        (MALA(), {"starts": np.array([[np.nan]])}, "starts must be finite"),
        (MALA(), {"starts": np.zeros((1, 1))}, "starts must have, after an axis of points, the"),
        (MALA(), {"thinning": 0}, "thinning must be at least 1"),
        (MALA(), {"block_size": 0}, "block_size must be at least 1"),
        (None, {"store": "somewhere"}, "store needs a kernel"),
    ):
        with pytest.raises(ValueError, match=message):
            sample(LAW, kernel, seed=0, draws=5, warmup=5, **(QUIET | changes))
    with pytest.raises(ValueError, match="law must be given where the kernel is None"):
        sample(None, seed=0)
