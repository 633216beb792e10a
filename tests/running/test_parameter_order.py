"""Parameters keep their order through memory, stores, sweeps and interruptions, for every reader.

Their names sort differently from their order, and so does what a file system lists.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr

import statsgd
from statsgd import SGD, noise, problems
from statsgd.comparison import compare_grid, fit_law, gap_decomposition
from statsgd.comparison.samples import read_ensemble
from statsgd.ensembles import ORDER, endpoint_trajectories, trajectories
from statsgd.laws import DiscreteChainLaw, FokkerPlanckLaw, Gibbs, HeavyBallGaussian
from statsgd.laws.grids.grid import Grid
from statsgd.measures import fluctuation_dissipation, over_endpoints
from tests.statistical import assert_variance_within

NAMES = ["enc", "dec", "bias", "w1", "w2", "head"]
CURVATURE = 2.0 ** np.arange(6)
RATE, REPLICAS, STEPS = 0.02, 8000, 400


class Network(NamedTuple):
    enc: float
    dec: float
    bias: float
    w1: float
    w2: float
    head: float


def loss(params):
    return 0.5 * jnp.sum(jnp.asarray(CURVATURE) * jnp.stack(params) ** 2)


PROBLEM = problems.landscape(loss, Network(*[0.0] * 6))
DYNAMICS = SGD(RATE, noise.Isotropic(1.0))
LAW = HeavyBallGaussian(np.diag(CURVATURE), np.eye(6), RATE, 0.0)
#: SGD with gradient noise of variance 1 is AR(1): Var = η / (c (2 − ηc)).
VARIANCE = RATE / (CURVATURE * (2 - RATE * CURVATURE))


def simulate(store=None, dynamics=DYNAMICS, **changes):
    options = {"steps": STEPS, "replicas": REPLICAS, "seed": 0, "keep": [200, 400]} | changes
    return statsgd.simulate(PROBLEM, dynamics, store=store, progress=False, **options)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("memory", marks=pytest.mark.slow),
        pytest.param("store", marks=pytest.mark.slow),
        "resumed",
        "sweep",
        "shuffled",
    ],
)
def ensemble(request, tmp_path_factory):
    store = tmp_path_factory.mktemp("order") / "store"
    if request.param == "memory":
        return simulate()
    if request.param == "sweep":

        def run(cell):
            return simulate(replicas=cell["replicas"])

        tree = statsgd.sweep(run, {"replicas": [REPLICAS]}, store=store, seed=0, progress=False)
        return tree["results"].isel(replicas=0)
    tree = simulate(store)
    if request.param == "resumed":
        return simulate(store)
    if request.param == "shuffled":  # what another file system may list
        groups = {name: node.to_dataset() for name, node in tree.children.items()}
        for name in ("endpoints", "snapshots", "momentum_buffer", "snapshots_momentum_buffer"):
            groups[name] = groups[name][sorted(groups[name].data_vars)]
        return xr.DataTree.from_dict(groups)
    return tree


def test_every_group_of_parameters_says_their_order(ensemble):
    for group in ("endpoints", "snapshots", "momentum_buffer", "snapshots_momentum_buffer"):
        assert list(ensemble[group].attrs[ORDER]) == NAMES
    assert ORDER not in ensemble["run"].attrs


def test_readers(ensemble):
    ends, kept = endpoint_trajectories(ensemble).params, trajectories(ensemble)
    assert_variance_within(ends[:, 0], VARIANCE, mean=0.0)
    assert_variance_within(kept.params[:, 0], VARIANCE, mean=0.0)
    # The gradient noise and the drift together, m = (θ_{t−1} − θ_t)/η: Var m = 2c² Var/(ηc).
    assert_variance_within(kept.momentum_buffer[:, 1], 2 * CURVATURE * VARIANCE / RATE, mean=0.0)
    np.testing.assert_array_equal(read_ensemble(ensemble)["params"], ends)
    np.testing.assert_array_equal(trajectories(ensemble, PROBLEM.names).params, kept.params)


@pytest.fixture(scope="module")
def comparison(ensemble):
    # Curvatures are a factor of two apart: any other order is far outside of this margin.
    return statsgd.compare(ensemble, LAW, seed=0, modes=np.eye(6), margin=0.15)


def test_comparisons(comparison):
    ratios = comparison.effects("variance ratio")["effect"]
    assert ratios.between(1 - 4 * np.sqrt(2 / REPLICAS), 1 + 4 * np.sqrt(2 / REPLICAS)).all()
    assert comparison.verdict == "agrees within 15 %"


def test_measures(ensemble):
    few = ensemble.isel(replica=slice(64))
    ends = endpoint_trajectories(few).params[:, 0]
    losses = over_endpoints(lambda problem, params: problem.loss(params), PROBLEM, few, name="loss")
    np.testing.assert_allclose(losses["loss"], 0.5 * (ends**2) @ CURVATURE, rtol=1e-6)
    relations = fluctuation_dissipation(PROBLEM, DYNAMICS, ensemble)
    for relation in relations.values():
        assert abs(relation.gap.value) < 4 * relation.gap.standard_error


@pytest.mark.slow
def test_fits(ensemble):
    def family(temperature):
        return Gibbs.quadratic(np.diag(CURVATURE), temperature)

    few = ensemble.isel(replica=slice(400))
    fit = fit_law(
        family, few, {"temperature": dist.LogNormal(-4.0, 2.0)}, seed=0, warmup=200, draws=200
    )
    # The likelihood of a normal law sees the mean of c_k q_k² over replicas and parameters.
    expected = float(np.mean(CURVATURE * endpoint_trajectories(few).params[:, 0] ** 2))
    found = fit["posterior"]["temperature"]
    assert abs(float(found.mean()) - expected) < 4 * float(found.std()) / np.sqrt(100)


@pytest.mark.slow
def test_grids(tmp_path):
    swept = simulate(
        tmp_path / "store", statsgd.grid(DYNAMICS, {"noise.variance": [1.0, 2.0]}), replicas=2000
    )

    def law_at(learning_rate, variance):
        return HeavyBallGaussian(np.diag(CURVATURE), variance * np.eye(6), learning_rate, 0.0)

    found = compare_grid(
        {"learning_rate": [RATE], "variance": [1.0, 2.0]},
        lambda learning_rate, variance: swept.sel({"noise.variance": variance}),
        law_at,
        seed=0,
        margin=0.25,
    )
    assert (found["cells"].verdict == "agrees within 25 %").all()


class Pair(NamedTuple):
    z: float
    a: float


@pytest.mark.slow
def test_decomposition_of_the_gap(tmp_path):
    hessian = np.diag([1.0, 16.0])
    problem = problems.landscape(
        lambda params: 0.5 * params.z**2 + 8.0 * params.a**2, Pair(0.0, 0.0)
    )
    plane = problems.landscapes.quadratic(hessian)
    sgd = SGD(0.05, noise.Isotropic(1.0))
    ends = statsgd.simulate(
        problem, sgd, steps=200, replicas=2000, seed=0, store=tmp_path / "store", progress=False
    )
    grid = Grid([-1.0, -0.3], [1.0, 0.3], [60, 60])
    found = gap_decomposition(
        ends,
        Gibbs.from_sgd(plane, sgd),
        chain=DiscreteChainLaw.from_sgd(plane, sgd, grid=grid),
        sde=FokkerPlanckLaw.from_sgd(plane, sgd, grid=grid),
        grid=Grid([-0.8, -0.25], [0.8, 0.25], [6, 6]),
        bootstraps=100,
        seed=0,
    )
    assert float(found["p_value"].sel(part="Monte Carlo")) > 1e-4


def test_reports(comparison, tmp_path):
    tree = xr.DataTree.from_dict({"comparison": comparison.to_datatree()})
    tree.attrs = {"title": "t", "question": "q", "finding": "f"}
    page = statsgd.report(tree, tmp_path / "report.html").read_text()
    assert "agrees within 15 %" in page
    assert "differs by more" not in page


def test_a_store_of_other_parameters_is_refused(tmp_path):
    class Renamed(NamedTuple):
        enc: float
        bias: float
        dec: float
        w1: float
        w2: float
        head: float

    simulate(tmp_path / "store", replicas=2, steps=20, keep=None)
    other = problems.landscape(loss, Renamed(*[0.0] * 6))
    with pytest.raises(ValueError, match=r"problem\.\S* is "):
        statsgd.simulate(
            other, DYNAMICS, steps=20, replicas=2, seed=0, store=tmp_path / "store", progress=False
        )


def test_a_store_without_the_order_is_refused(tmp_path):
    tree = simulate(tmp_path / "store", replicas=40, steps=20, keep=None)
    del tree["endpoints"].attrs[ORDER]
    with pytest.raises(ValueError, match="in no known one"):
        statsgd.compare(tree, LAW, seed=0)
