"""Runs that go on: one long run where nothing changes, and what changes where something does."""

import json
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray as xr

import statsgd
from statsgd import SGD, Diffusion, OptaxDynamics, problems
from statsgd.dynamics.ensemble import Ensemble
from statsgd.ensembles import ORDER
from statsgd.noise import Isotropic, Minibatch, NoNoise
from statsgd.reports.sections import ensemble_section
from tests.running.cases import same
from tests.statistical import assert_variance_within

RNG = np.random.default_rng(2)
INPUTS = RNG.normal(size=(24, 3))
PROBLEM = problems.linear_regression(INPUTS, INPUTS @ [1.0, -1.0, 0.5] + RNG.normal(size=24))
CURVATURE = np.array([3.0, 0.5])
BOWL = problems.landscape(
    lambda at: 0.5 * jnp.sum(jnp.asarray(CURVATURE) * at["w"] ** 2) + 0.5 * at["b"] ** 2,
    {"b": 1.0, "w": np.array([1.0, -2.0])},
)
RESHUFFLED = SGD(0.05, Minibatch(4, "reshuffle"), 0.5)
NOISY = OptaxDynamics(optax.noisy_sgd(0.1, eta=1.0, gamma=0.0, key=0), NoNoise())


def norm(params):
    return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))


def run(dynamics, steps, problem=PROBLEM, **changes):
    options = {"seed": 3, "observe": {"norm": norm}, "observe_at": 5, "progress": False}
    if "start" not in changes or not isinstance(changes["start"], xr.DataTree):
        options["replicas"] = 6
    return statsgd.simulate(problem, dynamics, steps=steps, **(options | changes))


def assert_same_state(one, other):
    """But for `observables`, which hold what a call saw."""
    groups = set(one.children) - {"observables"}
    assert groups == set(other.children) - {"observables"}
    for group in groups:
        assert one[group].to_dataset().equals(other[group].to_dataset()), group


def cut_off(self, lanes, done, steps, advance=Ensemble.advance):
    """`Ensemble.advance`, for 25 steps."""
    if done >= 25:
        raise KeyboardInterrupt
    return advance(self, lanes, done, steps)


SCHEDULE = optax.cosine_decay_schedule(0.2, 40)
ALIKE = {
    # 20 steps end in the middle of an epoch of six.
    "reshuffled": (RESHUFFLED, PROBLEM),
    "single shuffle": (SGD(0.05, Minibatch(4, "single_shuffle")), PROBLEM),
    "diffusion": (Diffusion(PROBLEM.gradient, 0.1, 0.01), PROBLEM),
    "adam": (OptaxDynamics(optax.adam(0.1, mu_dtype=jnp.bfloat16), NoNoise()), BOWL),
    "schedule": (OptaxDynamics(optax.chain(optax.sgd(SCHEDULE, 0.5)), NoNoise()), BOWL),
    "keys in the state": (NOISY, BOWL),
    "grid": (statsgd.grid(RESHUFFLED, learning_rate=[0.02, 0.05]), PROBLEM),
}


SLOW = {"single shuffle", "diffusion"}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in ALIKE]
)
def test_a_continued_run_is_one_long_run(name, tmp_path):
    dynamics, problem = ALIKE[name]
    whole = run(dynamics, 50, problem)
    first = run(dynamics, 20, problem, store=tmp_path / "first")
    second = run(dynamics, 30, problem, start=first)
    assert_same_state(second, whole)
    parts = [one["observables"].norm for one in (first, second)]
    assert [part.step.values.tolist() for part in parts] == [[5, 10, 15, 20], [*range(25, 51, 5)]]
    joined = xr.concat(parts, "step")
    assert joined.equals(whole["observables"].norm)
    with xr.open_datatree(tmp_path / "first", engine="zarr", consolidated=False) as opened:
        assert same(run(dynamics, 30, problem, start=opened), second)
    assert same(run(dynamics, 20, problem, store=tmp_path / "first"), first)
    assert same(run([dynamics, dynamics], [20, 30], problem), whole)


def test_stages_are_calls_that_continue_one_another(tmp_path, monkeypatch):
    # A decayed learning rate, a larger batch, another momentum, and back.
    stages = [RESHUFFLED, SGD(0.01, Minibatch(8, "reshuffle"), 0.9), RESHUFFLED]
    steps = [20, 17, 13]
    whole = run(stages, steps, keep=[0, 20, 37, 50])
    assert json.loads(whole.attrs["steps"]) == steps
    assert "6 independent runs of 20 + 17 + 13 steps" in ensemble_section("", whole).finding
    *_, last = chain = [run(stages[0], 20)]
    for dynamics, number in zip(stages[1:], steps[1:], strict=True):
        chain.append(last := run(dynamics, number, start=last))
    for group in ("endpoints", "momentum_buffer", "run"):
        assert whole[group].to_dataset().equals(last[group].to_dataset())
    joined = xr.concat([one["observables"].norm for one in chain], "step")
    assert joined.equals(whole["observables"].norm)
    kept = whole["snapshots"].params.sel(step=20)
    np.testing.assert_array_equal(kept, chain[0]["endpoints"].params)

    options = {"keep": [0, 20, 37, 50], "store": tmp_path / "store"}
    monkeypatch.setattr("statsgd.running.storage._SHARE_OF_TIME", np.inf)  # at every chunk
    with monkeypatch.context() as patch:
        patch.setattr(Ensemble, "advance", cut_off)
        with pytest.raises(KeyboardInterrupt):
            run(stages, steps, **options)
    assert same(run(stages, steps, **options), whole)


def test_what_was_interrupted_goes_on(monkeypatch):
    whole = run(RESHUFFLED, 50)
    with monkeypatch.context() as patch:
        patch.setattr(Ensemble, "advance", cut_off)
        with pytest.raises(statsgd.Interrupted) as stop:
            run(RESHUFFLED, 50)
    assert_same_state(run(RESHUFFLED, 25, start=stop.value.result), whole)


def test_momentum_is_carried_into_the_first_step():
    # θ ← θ − η′(β′ m + ∇L(θ)) with the buffer m of before: from zero it would be −η′∇L alone.
    first = run(SGD(0.1, NoNoise(), 0.9), 7, BOWL)
    second = run(SGD(0.02, NoNoise(), 0.5), 1, BOWL, start=first, seed=8)
    for name, curvature in (("b", 1.0), ("w", CURVATURE)):
        theta, m = first["endpoints"][name].values, first["momentum_buffer"][name].values
        moved = second["endpoints"][name].values - theta
        assert np.all(np.abs(0.5 * m) > 0.05)
        np.testing.assert_allclose(moved, -0.02 * (0.5 * m + curvature * theta), rtol=1e-4)


def test_optimisers_state_is_kept_by_name():
    tree = run(OptaxDynamics(optax.adam(0.1), NoNoise()), 7, BOWL)
    state = tree["optimiser_state"]
    assert state.attrs[ORDER] == ["0.count", "0.mu.b", "0.mu.w", "0.nu.b", "0.nu.w"]
    # Adam's moments by their recursion, from gradients at the points it went through.
    theta, m, v = np.array([1.0, -2.0]), np.zeros(2), np.zeros(2)
    for k in range(1, 8):
        g = CURVATURE * theta
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        theta = theta - 0.1 * (m / (1 - 0.9**k)) / (np.sqrt(v / (1 - 0.999**k)) + 1e-8)
    np.testing.assert_allclose(state["0.mu.w"].values[0], m, rtol=1e-4)
    np.testing.assert_allclose(state["0.nu.w"].values[0], v, rtol=1e-4)
    assert state["0.count"].values.tolist() == [7] * 6


def test_noise_free_optimisers_do_not_see_the_seed():
    dynamics, _ = ALIKE["schedule"]
    second = run(dynamics, 30, BOWL, start=run(dynamics, 20, BOWL), seed=8)
    assert_same_state(second, run(dynamics, 50, BOWL))


def test_after_a_decay_the_variance_is_that_of_the_recursion():
    # θ ← (1 − η)θ + η n: V ← (1 − η)² V + η², with V = η/(2 − η) at first.
    bowl = problems.landscape(lambda x: 0.5 * jnp.sum(x**2), np.zeros(2))
    common = {"problem": bowl, "observe": None, "observe_at": None}
    settled = run(SGD(0.4, Isotropic(1.0)), 60, replicas=8000, **common)
    slower = SGD(0.1, Isotropic(1.0))
    for seed in (3, 8):
        variance = 0.4 / 1.6
        for _ in range(5):
            variance = 0.9**2 * variance + 0.1**2
        found = run(slower, 5, start=settled, seed=seed, **common)["endpoints"].params.values
        assert_variance_within(found, variance, mean=0.0)


def test_a_grid_continues_cell_by_cell():
    rates = {"learning_rate": [0.02, 0.05]}
    origin = run(statsgd.grid(RESHUFFLED, rates), 20)
    slower = statsgd.grid(RESHUFFLED, learning_rate=[0.002, 0.005])
    tree = run(slower, 30, start=origin)
    assert tree["endpoints"].learning_rate.values.tolist() == [0.002, 0.005]
    for i, rate in enumerate(rates["learning_rate"]):
        cell = origin.isel(learning_rate=i)
        alone = run(SGD(rate / 10, RESHUFFLED.noise, 0.5), 30, start=cell)
        for group in ("endpoints", "momentum_buffer", "run"):
            one = tree[group].to_dataset().isel(learning_rate=i, drop=True)
            assert one.equals(alone[group].to_dataset())
    # One dynamics in every cell, and every cell from one ensemble.
    tree = run(RESHUFFLED, 30, start=origin)
    for i in range(2):
        alone = run(RESHUFFLED, 30, start=origin.isel(learning_rate=i))
        np.testing.assert_array_equal(tree["endpoints"].params[i], alone["endpoints"].params)
    fan = run(statsgd.grid(RESHUFFLED, rates), 30, start=origin.isel(learning_rate=1))
    np.testing.assert_array_equal(fan["endpoints"].params[1], tree["endpoints"].params[1])


def test_what_diverged_stays_frozen_and_counted():
    steep = problems.landscape(
        lambda x: 0.5 * jnp.sum(x**2), lambda key: jax.random.choice(key, jnp.array([1.0, 1e36]))
    )
    first = run(SGD(3.0, NoNoise()), 30, steep, replicas=20)
    diverged = first["run"].diverged.values
    assert 0 < diverged.sum() < 20
    second = run(SGD(0.1, NoNoise()), 10, steep, start=first)
    np.testing.assert_array_equal(second["run"].diverged, diverged)
    np.testing.assert_array_equal(second["run"].diverged_at, first["run"].diverged_at)
    one, other = first["endpoints"].params.values, second["endpoints"].params.values
    np.testing.assert_array_equal(one[diverged], other[diverged])
    np.testing.assert_allclose(other[~diverged], 0.9**10 * one[~diverged], rtol=1e-5)
    steps = np.where(diverged, first["run"].diverged_at - 1, 40)
    np.testing.assert_array_equal(second["run"].steps, steps)


def test_the_result_says_where_it_came_from(tmp_path):
    first = run(RESHUFFLED, 20, seed=5)
    second = run(SGD(0.01, Minibatch(8)), 30, start=first, store=tmp_path / "store")
    note = json.loads(second["run"].attrs["origin"])
    assert (note["steps"], note["seed"]) == (20, 5)
    said = json.loads(second.attrs["start"])["ensemble"]
    assert said["dynamics"] == json.loads(first.attrs["dynamics"])
    third = run(RESHUFFLED, 10, start=second)
    assert json.loads(third.attrs["start"])["ensemble"]["start"]["ensemble"] == said
    assert json.loads(third["run"].attrs["origin"])["steps"] == 50
    assert "origin" not in first["run"].attrs
    assert "They continue runs of 50 steps." in ensemble_section("", third).finding
    # A store is of one origin.
    again = run(SGD(0.01, Minibatch(8)), 30, start=first, store=tmp_path / "store")
    assert same(again, second)
    other = run(RESHUFFLED, 20, seed=6)
    with pytest.raises(ValueError, match=r"start\.ensemble\.seed is 5 there and 6 here"):
        run(SGD(0.01, Minibatch(8)), 30, start=other, store=tmp_path / "store")
    turned = first.isel(replica=[1, 0, 2, 3, 4, 5])
    with pytest.raises(ValueError, match=r"start\.state is"):
        run(SGD(0.01, Minibatch(8)), 30, start=turned, store=tmp_path / "store")


class Other(NamedTuple):
    b: float
    v: float


@pytest.mark.usefixtures("unchecked")
def test_what_cannot_be_continued_is_refused_by_name():
    first = run(SGD(0.1, NoNoise()), 6, BOWL)
    renamed = problems.landscape(lambda at: at.b**2 + at.v**2, Other(0.0, 0.0))
    reshaped = problems.landscape(
        lambda at: jnp.sum(at["w"] ** 2) + at["b"] ** 2, {"b": 1.0, "w": np.ones(3)}
    )
    grid = statsgd.grid(SGD(0.1, NoNoise()), learning_rate=[0.1, 0.2])
    momenta = statsgd.grid(SGD(0.1, NoNoise()), momentum=[0.0, 0.5])
    adam = OptaxDynamics(optax.adam(0.1), NoNoise())
    for changes, message in [
        ({"problem": renamed}, r"start must have the endpoints \['b', 'v'\], got \['b', 'w'\]"),
        ({"problem": reshaped}, r"endpoints 'w' of shape \(3,\), got \(2,\)"),
        ({"dynamics": adam}, "with the group 'optimiser_state'"),
        ({"replicas": 5}, "replicas must be 6, those of start, got 5"),
        ({"start": xr.DataTree()}, "start must be a result of simulate with the group 'run'"),
        ({"start": first.isel(replica=0)}, "start must have the dim 'replica'"),
        ({"start": run(SGD(0.1, NoNoise()), 6, BOWL, phases=4)}, "equally many steps, got 3 to 6"),
        ({"start": run(grid, 6, BOWL), "dynamics": momenta}, r"lengths \{'learning_rate': 2\}"),
        ({"keep": [3]}, "keep must be steps between 6 and 12"),
        ({"dynamics": [SGD(0.1, NoNoise()), adam], "steps": [3, 3]}, "SGD and OptaxDynamics do"),
        ({"dynamics": [SGD(0.1, NoNoise())] * 2, "steps": [3]}, "a number for each of 2 dynamics"),
        ({"dynamics": [SGD(0.1, NoNoise())] * 2, "steps": 3}, "steps must be one number for one"),
        ({"dynamics": [NoNoise()], "steps": [3]}, "dynamics must be of statsgd.dynamics"),
        ({"steps": [3]}, "steps must be one number for one"),
        ({"start": None, "replicas": None}, "replicas must be an integer"),
    ]:  # fmt: skip
        options = {"dynamics": SGD(0.1, NoNoise()), "steps": 6, "problem": BOWL, "start": first}
        with pytest.raises(ValueError, match=message):
            run(**(options | changes))
