"""Endpoints made elsewhere are read as those of `simulate`: same order, same checks."""

import collections

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import statsgd
from statsgd import SGD, compare, laws, measures, noise, problems
from statsgd.ensembles import ORDER, endpoint_trajectories

RNG = np.random.default_rng(0)
W, B = RNG.normal(size=(5, 2, 3)).astype(np.float32), RNG.normal(size=5)
ROWS = np.concatenate([B[:, None], W.reshape(5, 6)], axis=1)  # "b" before "w", as JAX has it


def flat(tree):
    return endpoint_trajectories(tree).params[:, 0]


def checkpoints():
    return [{"w": w, "b": b} for w, b in zip(W, B, strict=True)]


def npz(folder):
    paths = [folder / f"{i}.npz" for i in range(5)]
    for path, params in zip(paths, checkpoints(), strict=True):
        np.savez(path, **params)
    return paths


def safetensors(folder):
    save = pytest.importorskip("safetensors.numpy").save_file
    paths = [str(folder / f"{i}.safetensors") for i in range(5)]
    for path, params in zip(paths, checkpoints(), strict=True):
        save({name: np.asarray(leaf) for name, leaf in params.items()}, path)
    return paths


@pytest.mark.parametrize(
    "made",
    [
        lambda _: {"w": W, "b": B},
        lambda _: {"w": jnp.asarray(W), "b": B},
        lambda _: checkpoints(),
        npz,
        safetensors,
    ],
    ids=["pytree", "jax", "list", "npz", "safetensors"],
)
def test_all_forms_give_one_ensemble(made, tmp_path):
    tree = statsgd.ensemble(made(tmp_path))
    np.testing.assert_allclose(flat(tree), ROWS, rtol=1e-6)
    ends = tree["endpoints"]
    assert ends.attrs[ORDER] == ["b", "w"]
    assert ends["w"].dims == ("replica", "w_dim_0", "w_dim_1")
    assert ends["w"].dtype == np.float32
    assert not tree["run"].diverged.any()


def test_state_dicts_keep_their_order_and_lose_their_counters():
    dicts = [
        collections.OrderedDict([("w", w), ("b", b), ("batches", np.int64(3))])
        for w, b in zip(W, B, strict=True)
    ]
    tree = statsgd.ensemble(dicts)
    assert tree["endpoints"].attrs[ORDER] == ["w", "b"]
    assert list(tree["endpoints"].data_vars) == ["w", "b"]


class Tensor:
    """What of a PyTorch tensor is relied upon."""

    def __init__(self, values, dtype="torch.float32"):
        self.values, self.dtype = values, dtype

    def detach(self):
        return Tensor(self.values, self.dtype)

    cpu = detach

    def float(self):
        return Tensor(self.values, "torch.float32")

    def __array__(self, dtype=None, copy=None):
        assert "bfloat16" not in self.dtype, "NumPy has no such numbers"
        return np.array(self.values, dtype=dtype)


def test_tensors_are_read_without_their_library():
    tree = statsgd.ensemble({"w": Tensor(W, "torch.bfloat16"), "b": Tensor(B)})
    np.testing.assert_allclose(flat(tree), ROWS, rtol=1e-6)
    # As of list(module.parameters()), one list a run.
    lists = [[Tensor(W[i]), Tensor(B[i])] for i in range(len(W))]
    assert statsgd.ensemble(lists)["endpoints"]["0"].shape == W.shape


def test_modules_are_read_as_simulate_names_them():
    def model(key):
        return eqx.nn.MLP(2, 1, 3, 1, key=jax.random.key(key))

    inputs, targets = RNG.normal(size=(8, 2)), RNG.normal(size=8)
    problem = problems.empirical_risk(
        lambda network, example: (network(example[0])[0] - example[1]) ** 2,
        (inputs, targets),
        model(0),
    )
    models = [model(key) for key in range(3)]
    tree = statsgd.ensemble(models, problem=problem, learning_rate=0.1)
    assert tree["endpoints"].attrs[ORDER] == problem.names
    found = measures.over_endpoints(lambda p, params: p.loss(params), problem, tree, name="loss")
    assert np.allclose(found["loss"].values, tree["run"].loss.values, rtol=1e-5)
    # Flat rows are cut into the same leaves.
    again = statsgd.ensemble(flat(tree), problem=problem)
    np.testing.assert_array_equal(flat(again), flat(tree))


def test_a_problem_picks_its_parameters_out():
    problem = problems.landscape(lambda p: jnp.sum(p["w"] ** 2), {"w": np.zeros((2, 3))})
    tree = statsgd.ensemble(checkpoints(), problem=problem)
    assert list(tree["endpoints"].data_vars) == ["w"]
    with pytest.raises(ValueError, match=r"params must hold the params \['w'\].*w missing"):
        statsgd.ensemble({"b": B}, problem=problem)
    with pytest.raises(ValueError, match=r"params 'w' must have shape \(n, 2, 3\)"):
        statsgd.ensemble({"w": W[:, :1]}, problem=problem)


@pytest.mark.parametrize(
    ("momentum", "variables"),
    [(0.5, 2), *(pytest.param(*one, marks=pytest.mark.slow) for one in ((0.0, 1), (None, 2)))],
)
def test_comparisons_read_it_like_one_of_simulate(momentum, variables):
    # Draws of the law itself: spread and location agree.
    law = laws.HeavyBallGaussian([[2.0]], [[1.0]], learning_rate=0.1, momentum=0.5)
    pairs = law.draw_variables(jax.random.key(0), (4000,))
    tree = statsgd.ensemble(
        np.asarray(pairs["params"]),
        momentum_buffer=np.asarray(pairs["momentum_buffer"]),
        learning_rate=0.1,
        momentum=momentum,
        steps=2,
    )
    comparison = compare(tree, law, seed=0, margin=0.2)
    assert comparison.table["variable"].isin(["params", "momentum_buffer"]).any()
    known = set(comparison.table["variable"]) - {"joint"}
    assert len(known) == variables
    assert comparison.parts["spread"].verdict == "agrees within 20 %"
    # Two steps are too few, which the learning rate and the law's rates tell.
    assert comparison.parts["stationarity"].verdict.startswith("not stationary")


def test_runs_go_on_from_it():
    problem = problems.landscape(lambda x: 0.5 * jnp.sum(x**2), np.zeros(2))
    points, sgd = RNG.normal(size=(4, 2)).astype(np.float32), SGD(0.5, noise.NoNoise())
    tree = statsgd.ensemble(points, momentum_buffer=points, steps=7, problem=problem)
    later = statsgd.simulate(problem, sgd, steps=1, seed=0, start=tree, progress=False)
    np.testing.assert_allclose(later["endpoints"].params, points / 2)
    assert later["run"].steps.values.tolist() == [8] * 4
    with pytest.raises(ValueError, match="start must say how many steps it took"):
        statsgd.simulate(
            problem, sgd, steps=1, seed=0, start=statsgd.ensemble(points), progress=False
        )


def test_other_files_are_read_by_a_reader(tmp_path):
    path = tmp_path / "0.pt"
    path.write_text("1 2")
    tree = statsgd.ensemble([path, path], reader=np.loadtxt)
    assert flat(tree).tolist() == [[1.0, 2.0]] * 2
    with pytest.raises(ValueError, match=r"got '0.pt'; for other formats pass reader="):
        statsgd.ensemble([path])
    with pytest.raises(ValueError, match=r"files that exist, got '.*none.npz'"):
        statsgd.ensemble(str(tmp_path / "none.npz"))


@pytest.mark.usefixtures("unchecked")
def test_orbax_checkpoints_are_read_by_its_reader(tmp_path):
    orbax = pytest.importorskip("orbax.checkpoint")
    with orbax.StandardCheckpointer() as checkpointer:
        for i, params in enumerate(checkpoints()):
            checkpointer.save(tmp_path / str(i), {k: np.asarray(v) for k, v in params.items()})
        checkpointer.wait_until_finished()
        paths = [tmp_path / str(i) for i in range(5)]
        template = {"w": W[0], "b": B[0]}
        tree = statsgd.ensemble(paths, reader=lambda path: checkpointer.restore(path, template))
    np.testing.assert_allclose(flat(tree), ROWS, rtol=1e-6)


BROKEN = np.where(np.arange(5)[:, None] == 3, np.nan, ROWS)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"params": ROWS[0]}, r"params must have shape \(n, d\), one row an endpoint, got \(7,\)"),
        ({"params": []}, "at least one checkpoint"),
        ({"params": {}}, "at least one array"),
        ({"params": BROKEN}, r"NaN or infinity in 1 of 5 replicas \(3\): mark them by diverged="),
        ({"params": {"w": W, "b": B[:4]}}, r"leading axis of replicas in every leaf, got shapes"),
        ({"params": [W[0], W[0, 0]]}, r"with shape \(2, 3\) in the first and shape \(3,\) in num"),
        ({"params": [{"w": B}, {"v": B}]}, "'w' with shape .* in the first and none in number 1"),
        ({"params": {"w": "ten"}}, "params must hold arrays of numbers, got 'ten'"),
        ({"params": ROWS + 1j}, "params must be real"),
        ({"params": ROWS, "momentum_buffer": ROWS[:, :2]}, "must have the leaves of params"),
        ({"params": ROWS, "learning_rate": -1.0}, "learning_rate must be positive"),
        ({"params": ROWS, "steps": 1.5}, "steps must be an integer"),
        ({"params": ROWS, "loss": [1.0]}, r"loss must have shape \(5,\)"),
        ({"params": ROWS, "optimiser": object()}, "optimiser must be a number or a text"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        statsgd.ensemble(**arguments)


def test_runs_that_failed_are_kept_and_counted():
    tree = statsgd.ensemble(BROKEN, diverged=np.arange(5) == 3)
    assert tree["run"].diverged.values.tolist() == [False, False, False, True, False]
    with pytest.raises(ValueError, match="1 of 5 replicas diverged"):
        endpoint_trajectories(tree)
    assert len(endpoint_trajectories(tree, condition_on_survival=True).params) == 4


@pytest.mark.usefixtures("unchecked")
def test_trees_of_other_makers_are_read_or_told_what_is_missing():
    law = laws.HeavyBallGaussian([[2.0]], [[1.0]], learning_rate=0.1)

    def tree(dim="replica", values=ROWS, group="endpoints"):
        return xr.DataTree.from_dict({group: xr.Dataset({"params": ((dim, "p"), values[:, :1])})})

    with pytest.raises(ValueError, match=r"the dim 'replica'.*'params' with the dims \['chain', "):
        compare(tree("chain"), law, seed=0)
    with pytest.raises(
        ValueError, match=r"the group 'endpoints', got the groups .'ends'.; statsgd"
    ):
        compare(tree(group="ends"), law, seed=0)
    with pytest.raises(ValueError, match="endpoints must be finite, got NaN or infinity in 1 of 5"):
        compare(tree(values=BROKEN), law, seed=0)
    with pytest.raises(ValueError, match="endpoints must be finite"):
        compare(BROKEN[:, :1], law, seed=0)
    swept = tree()["endpoints"].to_dataset().expand_dims(learning_rate=[0.1])
    with pytest.raises(ValueError, match=r"cell of a grid.*tree.sel\(learning_rate=…\)"):
        compare(xr.DataTree.from_dict({"endpoints": swept}), law, seed=0)
