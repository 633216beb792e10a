"""Blocks: nothing is lost in them, and where they lie does not change a bit."""

import itertools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from statsgd import SGD, simulate
from statsgd.noise import Minibatch, NoNoise
from statsgd.problems import empirical_risk, landscape
from statsgd.running import blocks as blocks_module
from statsgd.running.blocks import Blocks, lanes_in_cache, over_blocks
from tests.running.cases import start


@pytest.mark.parametrize(
    ("cells", "lanes", "size", "devices"),
    list(itertools.product([1, 3], [1, 5, 8], [1, 4, 8], [1, 2, 3])),
)
def test_joining_inverts_splitting(cells, lanes, size, devices):
    blocks = Blocks(cells, lanes, min(size, lanes), tuple(jax.devices()[:1]) * devices)
    values = np.arange(cells * lanes * 2.0).reshape(cells * lanes, 2)
    cell = np.repeat(np.arange(cells), lanes)
    split = blocks.split({"values": values, "cell": cell})
    assert split["values"].shape[1:] == (min(size, lanes), 2)
    assert len(split["values"]) % devices == 0
    # No block is of two cells.
    assert np.all(split["cell"] == split["cell"][:, :1])
    joined = blocks.join(split)
    np.testing.assert_array_equal(joined["values"], values)
    np.testing.assert_array_equal(joined["cell"], cell)


def test_a_block_is_as_large_as_an_equal_share_allows():
    def size(lanes, size=None):
        return Blocks.over(jax.devices()[:1], cells=1, lanes=lanes, size=size).size

    assert (size(5), size(1000), size(5, 64), size(1000, 100)) == (5, 64, 5, 100)
    # What does not divide is rounded up: one block for each of three devices, not four for three.
    shared = Blocks.over(jax.devices()[:1] * 3, cells=1, lanes=8, size=None)
    assert (shared.size, shared.number, len(shared.devices)) == (3, 3, 3)


def test_devices_that_would_work_on_copies_are_left_out():
    def devices(cells, lanes, size):
        three = jax.devices()[:1] * 3
        return len(Blocks.over(three, cells=cells, lanes=lanes, size=size).devices)

    assert (devices(1, 1, None), devices(1, 8, 4), devices(2, 8, 4), devices(1, 8, None)) == (
        1, 2, 3, 3,
    )  # fmt: skip


@pytest.fixture
def at_once(monkeypatch):
    """A function that makes so many blocks be done at once, as on a GPU whose memory allows it."""

    def so_many(number):
        jax.clear_caches()
        monkeypatch.setattr(blocks_module, "_at_once", lambda mesh, blocks: number)

    yield so_many
    jax.clear_caches()


def test_an_accelerator_works_on_as_many_blocks_as_its_memory_allows(unchecked):
    def so_many(platform, memory):
        device = types.SimpleNamespace(platform=platform, memory_stats=lambda: memory)
        mesh = types.SimpleNamespace(devices=np.array([device], dtype=object))
        state = {"a": jnp.zeros((10, 4, 2)), "key": jax.random.split(jax.random.key(0), (10, 4))}
        return blocks_module._at_once(mesh, state)

    # A block takes 4 · 2 · 4 bytes and 4 keys of 8, and 16 times that on the way.
    assert so_many("cpu", {"bytes_limit": 2**40}) == 1
    assert so_many("gpu", None) == 10
    assert so_many("gpu", {"bytes_limit": 2**40}) == 10
    assert so_many("gpu", {"bytes_limit": 3 * 16 * 64 + 1}) == 3
    assert so_many("gpu", {"bytes_limit": 1}) == 1


@pytest.mark.parametrize("number", [2, 1000])
def test_a_function_of_every_block(at_once, number):
    at_once(number)
    blocks = Blocks.over(None, cells=1, lanes=6, size=2)
    lanes = jnp.arange(6.0)
    found = over_blocks(
        lambda block, factor: factor * jnp.cumsum(block), blocks.place(lanes), 2.0, mesh=blocks.mesh
    )
    np.testing.assert_array_equal(blocks.join(found), [0, 2, 4, 10, 8, 18])


@pytest.mark.parametrize(
    ("phases", "number"), [pytest.param(1, 2, marks=pytest.mark.slow), (10, 2), (10, 3)]
)
def test_replicas_are_the_same_one_by_one_and_at_once(at_once, phases, number):
    # Some diverge, in one of the blocks at a time: θ ← θ + ηθ³ overflows from θ > 0.
    problem = landscape(lambda params: -0.25 * jnp.sum(params**4), np.zeros(1))
    begin = np.array([[0.0], [1.0], [2.0], [0.0], [0.5], [0.01]], dtype=np.float32)
    options = {"steps": 100, "replicas": 6, "seed": 0, "start": begin, "block_size": 2}

    def run():
        return simulate(problem, SGD(0.1, NoNoise()), phases=phases, progress=False, **options)

    one_by_one = run()
    at_once(number)
    together = run()
    for name in ("diverged_at", "steps"):
        np.testing.assert_array_equal(one_by_one["run"][name], together["run"][name])
    np.testing.assert_allclose(
        one_by_one["endpoints"].params, together["endpoints"].params, rtol=1e-5
    )


DEVICES = """
import sys
import jax
jax.config.update("jax_num_cpu_devices", 2)
from tests.running.cases import CASES
name, options = sys.argv[1], {"ensemble": {"replicas": 23, "block_size": 4}, "draws": {"chains": 5}}
one, two = (
    CASES[name].run(devices=jax.devices()[:number], **options[name]) for number in (1, 2)
)
assert len(jax.devices()) == 2
assert one.identical(two)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ensemble", "draws"])
def test_two_devices_give_the_same_bits_as_one(name):
    with start(DEVICES, name) as process:
        assert process.wait(timeout=300) == 0


@pytest.mark.parametrize(
    ("parameters", "lanes"),
    [(0, 64), (1000, 64), (1100, 48), (2410, 16), (7000, 8), (9000, 1), (30_000, 1), (150_000, 1)],
)
def test_lanes_that_are_advanced_together_stay_in_a_cache_of_a_quarter_megabyte(parameters, lanes):
    assert lanes_in_cache(4 * parameters) == lanes
    assert lanes == 1 or lanes * 4 * parameters <= 2**18


@pytest.mark.slow
def test_the_size_of_blocks_changes_a_network_by_rounding_alone():
    # 8008 parameters: blocks of 8 by default.
    def loss(params, example):
        hidden = jnp.tanh(params["hidden"] @ example)
        return jnp.sum((params["out"] @ hidden - example[:8]) ** 2)

    rng = np.random.default_rng(0)
    begin = {"hidden": rng.normal(size=(143, 48)) / 8, "out": rng.normal(size=(8, 143)) / 12}
    begin = jax.tree.map(lambda leaf: leaf.astype(np.float32), begin)
    problem = empirical_risk(loss, rng.normal(size=(20, 48)).astype(np.float32), begin)
    options = {"steps": 20, "replicas": 3, "seed": 0, "progress": False}
    ends = [
        simulate(problem, SGD(0.01, Minibatch(4)), **options, block_size=size)["endpoints"]
        for size in (None, 8, 1)
    ]
    for name in begin:
        np.testing.assert_array_equal(ends[0][name], ends[1][name])
        np.testing.assert_allclose(ends[0][name], ends[2][name], rtol=1e-4, atol=1e-6)
