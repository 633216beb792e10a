"""Names that ArviZ and Zarr cannot hold are mapped and given back; clashes are said at once."""

import itertools
from urllib.parse import unquote

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray as xr
from numpyro import handlers

import statsgd
from statsgd import SGD, noise, problems
from statsgd.ensembles import ORDER, endpoint_trajectories
from statsgd.kernels import MALA
from statsgd.measures import over_endpoints
from statsgd.problems.parameters import DIMENSIONS, variable_name

AWKWARD = ["w/kernel", "a%2Fb", "a/b", "%", "..", "__w", "zarr.json", "plain", *DIMENSIONS]
PROBLEM = problems.landscape(
    lambda params: sum((i + 1) * jnp.sum(params[name] ** 2) for i, name in enumerate(AWKWARD)),
    {name: np.ones(2) if i % 2 else 1.0 for i, name in enumerate(AWKWARD)},
)


def simulate(problem, **changes):
    options = {"steps": 3, "replicas": 2, "seed": 0, "progress": False} | changes
    return statsgd.simulate(problem, SGD(0.01, noise.Isotropic(1.0)), **options)


in_memory_and_stored = pytest.mark.parametrize(
    "stored", [pytest.param(False, marks=pytest.mark.slow), True], ids=["memory", "store"]
)


@in_memory_and_stored
def test_every_name_comes_back(tmp_path, stored):
    store = tmp_path / "store" if stored else None
    observe = {name: lambda params: params["plain"].sum() for name in AWKWARD}
    tree = simulate(PROBLEM, store=store, observe=observe, keep=[1, 3])
    for group in ("endpoints", "snapshots", "momentum_buffer", "observables"):
        assert sorted(map(unquote, tree[group].data_vars)) == sorted(AWKWARD)
    assert [unquote(name) for name in tree["endpoints"].attrs[ORDER]] == sorted(AWKWARD)
    found = endpoint_trajectories(tree).params[:, 0]
    losses = over_endpoints(lambda problem, at: problem.loss(at), PROBLEM, tree, name="a/loss")
    np.testing.assert_allclose(losses["a%2Floss"], tree["run"].loss, rtol=1e-5)
    # Without noise and decay nothing would move: curvatures tell the columns apart.
    curvatures = np.concatenate(
        [np.full(2 if AWKWARD.index(n) % 2 else 1, AWKWARD.index(n) + 1.0) for n in sorted(AWKWARD)]
    )
    np.testing.assert_allclose((found**2) @ curvatures, tree["run"].loss, rtol=1e-5)


def test_the_rule_is_reversible_and_leaves_plain_names_alone():
    parts = ["", "a", "/", "%", "2F", ".", "step", "__", "ä", " "]
    names = {"".join(some) for some in itertools.product(parts, repeat=3)} - {""}
    assert all(unquote(variable_name(name)) == name for name in names)
    assert len({variable_name(name) for name in names}) == len(names)
    assert not any("/" in variable_name(name) for name in names)
    for name in ("params", "layers.0.weight", "momentum_buffer", "a b", "steps"):
        assert variable_name(name) == name
    assert variable_name("replica") == "%72eplica"


@in_memory_and_stored
def test_draws_of_scoped_models(tmp_path, stored):
    def model():
        with handlers.scope(prefix="net"):
            numpyro.sample("w", dist.Normal(0.0, jnp.ones(3)).to_event(1))
        numpyro.sample("step", dist.Normal(0.0, 1.0))

    tree = statsgd.sample(
        model, MALA(step_size=0.5), warmup=50, draws=50, chains=4, seed=0, progress=False,
        diagnose=False, store=tmp_path / "store" if stored else None,
    )  # fmt: skip
    assert sorted(map(unquote, tree["posterior"].data_vars)) == ["net/w", "step"]
    assert tree["posterior"]["net%2Fw"].shape == (4, 50, 3)


@pytest.mark.parametrize(
    ("params", "changes", "message"),
    [
        ({"a": np.ones(2), "a_dim_0": 1.0}, {}, "must not hold the name 'a_dim_0'"),
        ({"learning_rate": 1.0}, {"grid": True}, "must not hold the name 'learning_rate'"),
    ],
)
def test_clashes_are_refused_before_anything_is_computed(tmp_path, monkeypatch, params, changes,
                                                         message):  # fmt: skip
    problem = problems.landscape(lambda p: sum(jnp.sum(leaf**2) for leaf in p.values()), params)
    dynamics = SGD(0.01, noise.Isotropic(1.0))
    if changes:
        dynamics = statsgd.grid(dynamics, learning_rate=[0.1, 0.2])
    monkeypatch.setattr("statsgd.dynamics.ensemble.advance", None)
    with pytest.raises(ValueError, match=message):
        statsgd.simulate(
            problem, dynamics, steps=3, replicas=2, seed=0, progress=False, store=tmp_path / "store"
        )
    assert not (tmp_path / "store").exists()


def test_sweeps(tmp_path):
    def run(cell):
        return xr.Dataset({"w/x": cell["rate"], "plain": 2.0})

    tree = statsgd.sweep(
        run, {"rate": [1.0, 2.0]}, store=tmp_path / "store", seed=0, progress=False
    )
    assert sorted(map(unquote, tree["results"].data_vars)) == ["plain", "w/x"]
    assert tree["results"]["w%2Fx"].values.tolist() == [1.0, 2.0]
