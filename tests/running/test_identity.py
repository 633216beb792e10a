"""A store knows what it holds: all that decides a result, and nothing that does not."""

import functools
import json
import subprocess
import sys
import types
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
import xarray as xr

import statsgd
from statsgd import SGD, noise, problems
from statsgd.description import UNDESCRIBED, describe, undescribed
from statsgd.dynamics import OptaxDynamics
from statsgd.kernels import ULA
from statsgd.provenance import first_difference

SCALE, TABLE = 0.5, {"a": np.array([0.5])}
SETTINGS = types.ModuleType("settings_of_a_user")
SETTINGS.curvature, SETTINGS.unused = 0.5, 1.0  # type: ignore[attr-defined]


class Called:
    def __init__(self, a):
        self.a = a

    def __call__(self, params):
        return 0.5 * self.a * jnp.sum(params**2)

    def method(self, params):
        return self(params)


class Slotted:
    __slots__ = ("a",)

    def __init__(self, a):
        self.a = a

    def __call__(self, params):
        return 0.5 * self.a * jnp.sum(params**2)


class Held(eqx.Module):
    a: float

    def __call__(self, params):
        return 0.5 * self.a * jnp.sum(params**2)


class Point(NamedTuple):
    a: float


def scaled(params, a=1.0, *, b=1.0):
    return 0.5 * a * b * jnp.sum(params**2)


def closed(a):
    return lambda params: 0.5 * a * jnp.sum(params**2)


def reads_global(params):
    return 0.5 * SCALE * jnp.sum(params**2)


def reads_table(params):
    return 0.5 * TABLE["a"][0] * jnp.sum(params**2)


def reads_module(params):
    return 0.5 * SETTINGS.curvature * jnp.sum(params**2)


def reads_another(params):
    return reads_global(params)


def with_rule(a):
    @jax.custom_jvp
    def square(params):
        return 0.5 * jnp.sum(params**2)

    @square.defjvp
    def rule(primals, tangents):
        return square(*primals), a * jnp.sum(primals[0] * tangents[0])

    return square


def with_defaults(positional, keyword):
    function = types.FunctionType(scaled.__code__, globals(), "scaled", positional)
    function.__kwdefaults__ = keyword
    return function


PAIRS = {
    "object with __call__": (Called(0.5), Called(0.1)),
    "object with slots": (Slotted(0.5), Slotted(0.1)),
    "bound method": (Called(0.5).method, Called(0.1).method),
    "module": (Held(0.5), Held(0.1)),
    "method of a module": (Held(0.5).__call__, Held(0.1).__call__),
    "partial": (functools.partial(scaled, a=0.5), functools.partial(scaled, a=0.1)),
    "partial of an object": (functools.partial(Called(0.5)), functools.partial(Called(0.1))),
    "closure": (closed(0.5), closed(0.1)),
    "closure over an object": (closed(Called(0.5).a), closed(Called(0.1).a)),
    "jitted": (jax.jit(closed(0.5)), jax.jit(closed(0.1))),
    "jitted object": (jax.jit(Called(0.5)), jax.jit(Called(0.1))),
    "gradient rule": (with_rule(0.5), with_rule(0.1)),
    "default": (with_defaults((0.5,), {"b": 1.0}), with_defaults((0.1,), {"b": 1.0})),
    "keyword default": (with_defaults((1.0,), {"b": 0.5}), with_defaults((1.0,), {"b": 0.1})),
}


def test_problems_that_differ_in_a_number_are_told_apart():
    for name, (one, other) in PAIRS.items():
        assert undescribed([describe(one), describe(other)]) is None, name
        assert first_difference(describe(one), describe(other)) is not None, name


STORED = {"module", "closure", "jitted object"}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in STORED else [pytest.mark.slow]) for n in PAIRS]
)
def test_a_store_never_returns_the_result_of_another_problem(tmp_path, name):
    one, other = PAIRS[name]

    def simulate(loss):
        problem = problems.landscape(loss, np.ones(1))
        return statsgd.simulate(
            problem, SGD(0.1, noise.NoNoise()), steps=2, replicas=1, seed=0,
            store=tmp_path / "store", progress=False,
        )  # fmt: skip

    # Without noise θ after two steps is (1 − ηa)².
    assert simulate(one)["endpoints"].params.item() == pytest.approx((1 - 0.05) ** 2, rel=1e-5)
    with pytest.raises(ValueError, match=r"another configuration: problem\.\S+.* is .* there and"):
        simulate(other)
    assert simulate(one)["endpoints"].params.item() == pytest.approx((1 - 0.05) ** 2, rel=1e-5)


def test_one_field_is_named(tmp_path):
    store = tmp_path / "store"
    for a, message in ((0.5, None), (0.1, r"problem\.function\.a is 0\.5 there and 0\.1 here$")):
        problem = problems.landscape(Called(a), np.ones(1))
        run = functools.partial(
            statsgd.simulate, problem, SGD(0.1, noise.NoNoise()), steps=1, replicas=1, seed=0,
            store=store, progress=False,
        )  # fmt: skip
        if message is None:
            run()
        else:
            with pytest.raises(ValueError, match=message):
                run()


@pytest.mark.parametrize(
    ("function", "change", "place"),
    [
        (reads_global, ("SCALE", 0.1), "globals.SCALE"),
        (reads_another, ("SCALE", 0.1), "globals.reads_global.globals.SCALE"),
        (reads_table, ("TABLE", {"a": np.array([0.1])}), "globals.TABLE.a"),
    ],
)
def test_globals_are_followed(monkeypatch, function, change, place):
    before = describe(function)
    monkeypatch.setitem(globals(), *change)
    assert first_difference(before, describe(function))[0] == place


def test_modules_of_the_user_are_followed_as_far_as_they_are_read(monkeypatch):
    before = describe(reads_module)
    monkeypatch.setattr(SETTINGS, "unused", 2.0)
    assert describe(reads_module) == before
    monkeypatch.setattr(SETTINGS, "curvature", 0.1)
    found = first_difference(before, describe(reads_module))
    assert found == ("globals.SETTINGS.curvature", 0.5, 0.1)


def test_methods_of_the_user_are_followed(monkeypatch):
    before = describe(Called(0.5))
    monkeypatch.setattr(Called, "__call__", lambda self, params: jnp.sum(params**4))
    found = first_difference(before, describe(Called(0.5)))
    assert found[0].startswith("class code.__call__")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0),
        (True, 1),
        (Point(1.0), (1.0,)),
        ({1, 2}, {1, 3}),
        (b"a", b"b"),
        (np.array([1, 2]), np.array([1.0, 2.0])),
        (np.array([0.5], np.float32), np.array([0.5])),
        (np.array([1, 2], np.int32), np.array([1, 2])),
        (np.zeros((0, 2)), np.zeros((0, 3))),
        (np.arange(100), np.arange(1, 101)),
        (np.array([1 + 1j]), np.array([1 + 2j])),
        (jax.random.key(0), jax.random.key(1)),
        (jax.vmap(scaled, (0, None)), jax.vmap(scaled, (None, 0))),
        (jax.grad(scaled), jax.value_and_grad(scaled)),
        (optax.sgd(0.1), optax.sgd(0.2)),
        (optax.adam(0.1), optax.adam(0.1, b1=0.8)),
        (np.random.default_rng(0), np.random.default_rng(1)),
    ],
)
def test_what_differs_is_told_apart(one, other):
    assert undescribed([describe(one), describe(other)]) is None
    assert first_difference(describe(one), describe(other)) is not None


@pytest.mark.parametrize(
    "make",
    [
        lambda: Called(0.5),
        lambda: closed(np.arange(3.0)),
        lambda: optax.chain(optax.clip(1.0), optax.adam(0.1)),
        lambda: OptaxDynamics(optax.noisy_sgd(0.1, key=0), noise.Minibatch(2)),
        lambda: jax.jit(closed(0.5)),
        lambda: functools.partial(scaled, a=0.5),
        lambda: {"b": 1, "a": {3, 1, 2}},
        lambda: float("nan"),
        lambda: problems.multilayer_perceptron(np.eye(3), np.arange(3.0), [2]),
    ],
)
def test_what_is_equal_stays_equal(make):
    one, other = describe(make()), describe(make())
    assert undescribed(one) is None
    assert first_difference(json.loads(json.dumps(one)), other) is None


CODE = """
import json, sys
import tests.conftest
from tests.running import test_identity as t
print(json.dumps([t.describe(one) for pair in t.PAIRS.values() for one in pair]))
"""


@pytest.mark.slow
def test_other_processes_say_the_same():
    found = subprocess.run(
        [sys.executable, "-c", CODE], cwd=Path(__file__).parents[2], capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    here = [describe(one) for pair in PAIRS.values() for one in pair]
    assert first_difference(json.loads(found.stdout), here) is None


def counting():
    yield from range(3)


def test_what_cannot_be_described_is_refused_with_the_way_out(tmp_path):
    numbers = counting()

    def loss(params):
        assert numbers is not None
        return 0.5 * jnp.sum(params**2)

    def run(store=None, loss=loss, **options):
        problem = problems.landscape(loss, np.ones(1))
        return statsgd.simulate(
            problem, SGD(0.1, noise.NoNoise()), steps=1, replicas=1, seed=0, store=store,
            progress=False, **options,
        )  # fmt: skip

    run()
    with pytest.raises(ValueError, match=r"needs identity=.*closure\.numbers, generator counting"):
        run(tmp_path / "store")
    assert not (tmp_path / "store").exists()
    one = run(tmp_path / "store", identity="loss 1")
    assert one.attrs["identity"] == "loss 1"
    assert run(tmp_path / "store", identity="loss 1")["endpoints"].equals(one["endpoints"])
    with pytest.raises(ValueError, match="identity is 'loss 1' there and 'loss 2' here"):
        run(tmp_path / "store", identity="loss 2")
    with pytest.raises(ValueError, match="identity must be a name and version"):
        run(identity="")


def test_identity_stands_for_code_and_for_nothing_else(tmp_path):
    def run(a, rate=0.1):
        problem = problems.landscape(lambda params: a * jnp.sum(params**2), np.ones(1))
        return statsgd.simulate(
            problem, SGD(rate, noise.NoNoise()), steps=1, replicas=1, seed=0, progress=False,
            store=tmp_path / "store", identity="square 1",
        )  # fmt: skip

    one = run(0.5)
    assert run(0.7)["endpoints"].equals(one["endpoints"])
    with pytest.raises(ValueError, match=r"dynamics\.learning_rate is 0\.1 there and 0\.2 here"):
        run(0.5, 0.2)


def test_draws_know_the_target_of_their_kernel(tmp_path):
    def draw(scale):
        def model():
            numpyro.sample("x", dist.Normal(0.0, scale))

        return statsgd.sample(
            None, ULA(model, step_size=0.1), warmup=0, draws=3, chains=1, seed=0, progress=False,
            diagnose=False, store=tmp_path / "store",
        )  # fmt: skip

    one = draw(1.0)
    assert draw(1.0)["posterior"].equals(one["posterior"])
    with pytest.raises(ValueError, match=r"own target\.0\.closure\.scale is 1\.0 there and 2\.0"):
        draw(2.0)


def cell(a, cell):
    return xr.Dataset({"x": a * cell["rate"]})


def test_sweeps(tmp_path):
    def sweep(run, **options):
        return statsgd.sweep(
            run, {"rate": [1.0, 2.0]}, store=tmp_path / "store", seed=0, progress=False, **options
        )

    assert sweep(functools.partial(cell, 0.5))["results"].x.values.tolist() == [0.5, 1.0]
    with pytest.raises(ValueError, match=r"run\.args\.* is .*0\.5.* there and .*0\.1.* here"):
        sweep(functools.partial(cell, 0.1))


def test_a_description_says_where_it_fails():
    found = describe({"a": [1, counting()]})
    assert found == {"a": [1, {UNDESCRIBED: "generator counting"}]}
    assert undescribed(found) == "a.1, generator counting"
    assert undescribed(describe({"a": [1, {"b": None}]})) is None
