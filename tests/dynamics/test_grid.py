"""Grids: one compilation, named dims, and cells equal to separate runs."""

import jax.numpy as jnp
import numpy as np
import pytest

import statsgd
from statsgd.noise import Isotropic, LossScaled, Minibatch
from statsgd.problems import landscape, linear_regression

RNG = np.random.default_rng(2)
INPUTS = RNG.normal(size=(24, 3))
PROBLEM = linear_regression(INPUTS, INPUTS @ [1.0, -1.0, 0.5] + RNG.normal(size=24))
OPTIONS = {"steps": 40, "replicas": 5, "seed": 3, "progress": False, "keep": [8, 40]}


def test_cells_equal_separate_runs_bit_for_bit():
    sgd = statsgd.SGD(0.05, Minibatch(4, "reshuffle"))
    grid = statsgd.grid(sgd, learning_rate=[0.02, 0.05, 0.1], momentum=[0.0, 0.9])
    result = statsgd.simulate(PROBLEM, grid, observe={"norm": jnp.linalg.norm}, **OPTIONS)
    assert result["endpoints"].params.dims[:3] == ("learning_rate", "momentum", "replica")
    assert result["run"].loss.dims == ("learning_rate", "momentum", "replica")
    assert result["snapshots"].params.dims[:4] == ("learning_rate", "momentum", "replica", "step")
    assert result["observables"].norm.shape == (3, 2, 5, 40)
    for rate in (0.02, 0.05, 0.1):
        for momentum in (0.0, 0.9):
            alone = statsgd.simulate(
                PROBLEM,
                statsgd.SGD(rate, Minibatch(4, "reshuffle"), momentum),
                observe={"norm": jnp.linalg.norm},
                **OPTIONS,
            )
            cell = result.sel(learning_rate=rate, momentum=momentum)
            for group in alone.children:
                one = cell[group].to_dataset().drop_vars(["learning_rate", "momentum"])
                assert one.equals(alone[group].to_dataset()), (rate, momentum, group)


def test_dotted_names_reach_the_noise():
    problem = landscape(lambda x: 0.5 * jnp.sum(x**2), np.zeros(2))
    sgd = statsgd.SGD(0.1, Isotropic(1.0))
    grid = statsgd.grid(sgd, {"noise.variance": [0.25, 1.0, 4.0]})
    options = OPTIONS | {"replicas": 3000, "steps": 120, "keep": None}
    result = statsgd.simulate(problem, grid, **options)
    variance = result["endpoints"].params.var(("replica", "params_dim_0"))
    assert variance.dims == ("noise.variance",)
    # Var = ηc/(2h − ηh²)
    expected = 0.1 * np.array([0.25, 1.0, 4.0]) / (2 - 0.1)
    np.testing.assert_allclose(variance, expected, rtol=4 * np.sqrt(2 / 6000))


def test_a_grid_is_one_compilation():
    traces = []

    def loss(params):
        traces.append(None)
        return 0.5 * jnp.sum(params**2)

    problem = landscape(loss, np.ones(2))

    def count(rates):
        before = len(traces)
        sgd = statsgd.SGD(0.1, LossScaled(0.5))
        grid = statsgd.grid(sgd, {"noise.strength": [0.1, 0.2]}, learning_rate=rates)
        statsgd.simulate(problem, grid, steps=20, replicas=2, seed=0, progress=False)
        return len(traces) - before

    one_cell_more = count([0.1])
    assert one_cell_more == count(np.linspace(0.01, 0.1, 16).tolist())
    assert count(np.linspace(0.02, 0.2, 16).tolist()) == 0


@pytest.mark.usefixtures("unchecked")
def test_wrong_axes_are_named():
    sgd = statsgd.SGD(0.1, Minibatch(4))
    with pytest.raises(ValueError, match="at least one axis"):
        statsgd.grid(sgd)
    with pytest.raises(ValueError, match="'rate' names no setting of SGD"):
        statsgd.grid(sgd, rate=[0.1])
    with pytest.raises(ValueError, match=r"'noise\.variance' names no setting of SGD"):
        statsgd.grid(sgd, {"noise.variance": [0.1]})
    with pytest.raises(ValueError, match="settings that change the program need a run each"):
        statsgd.grid(sgd, {"noise.batch_size": [2, 4]})
    with pytest.raises(ValueError, match="non-empty sequence"):
        statsgd.grid(sgd, learning_rate=[])
    with pytest.raises(ValueError, match="momentum must be in"):
        statsgd.grid(sgd, momentum=[0.5, 1.0])
    with pytest.raises(ValueError, match=r"learning_rate must be below .*got 9"):
        statsgd.simulate(PROBLEM, statsgd.grid(sgd, learning_rate=[0.1, 9.0]), **OPTIONS)
