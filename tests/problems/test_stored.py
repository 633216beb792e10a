"""Examples on disk and in batches: the same numbers as in memory, without their memory."""

import itertools
import json
import shutil
import subprocess
import sys
import tempfile
from collections import namedtuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zarr

import statsgd
from statsgd.dynamics.noise import subspace
from statsgd.measures import example_slopes
from statsgd.noise import Minibatch, noise_covariance
from statsgd.problems import batch_risk, empirical_risk, hessian, hessian_product, stored

N = 53
RNG = np.random.default_rng(5)
X = RNG.normal(size=(N, 3)).astype(np.float32)
Y = RNG.integers(0, 2, N)
AT = np.array([0.3, -0.6, 0.2])
Batch = namedtuple("Batch", ["x", "y"])


def loss(theta, example):
    x, y = example
    return jnp.log1p(jnp.exp(-(2 * y - 1) * (x @ theta)))


IN_MEMORY = empirical_risk(loss, (X, Y), AT)


def mapped(folder):
    arrays = []
    for name, array in (("x", X), ("y", Y)):
        file = np.memmap(folder / name, array.dtype, "w+", shape=array.shape)
        file[:] = array
        file.flush()
        arrays.append(np.memmap(folder / name, array.dtype, "r", shape=array.shape))
    return tuple(arrays)


def zarrs(folder):
    arrays = []
    for name, array in (("x", X), ("y", Y)):
        kept = zarr.create_array(folder / name, shape=array.shape, dtype=array.dtype, chunks=(
            7, *array.shape[1:]
        ))  # fmt: skip
        kept[:] = array
        arrays.append(kept)
    return tuple(arrays)


class Loader:
    """Batches as a loader of PyTorch gives them: lists, and a smaller one in the end."""

    def __iter__(self):
        for i in range(0, N, 8):
            yield [X[i : i + 8], Y[i : i + 8]]


class Tensor:
    """What a loader of PyTorch yields: no array, but with a way to one."""

    def __init__(self, array):
        self.array, self.shape = array, array.shape

    def __array__(self, dtype=None, copy=None):
        return np.array(self.array, dtype=dtype)


class Numbers:
    """A tensor that NumPy does not know how to read."""

    def __init__(self, array):
        self.array = array

    def numpy(self):
        return self.array


SOURCES = {
    "mapped": mapped,
    "zarr": zarrs,
    "loader": lambda _: Loader(),
    "generator": lambda _: (Batch(X[i : i + 9], Y[i : i + 9]) for i in range(0, N, 9)),
    "function": lambda _: lambda: iter(Loader()),
    "tensors": lambda _: ((Tensor(x), Tensor(y)) for x, y in Loader()),
    "numpy()": lambda _: ((Numbers(x), Numbers(y)) for x, y in Loader()),
}


@pytest.mark.parametrize("source", SOURCES)
def test_numbers_are_those_of_arrays_in_memory(source, tmp_path, monkeypatch):
    on_disk = empirical_risk(loss, SOURCES[source](tmp_path), AT, memory_budget=300)
    assert on_disk.num_examples == N
    np.testing.assert_allclose(on_disk.loss(AT), IN_MEMORY.loss(AT), rtol=1e-6)
    np.testing.assert_allclose(on_disk.gradient(AT), IN_MEMORY.gradient(AT), rtol=1e-5)
    matrix = hessian(IN_MEMORY, AT)
    product = hessian_product(on_disk, AT, double=True)(AT)
    np.testing.assert_allclose(product, matrix @ AT, rtol=1e-10)
    columns = np.eye(3)[:, :2]
    with monkeypatch.context() as few:
        few.setattr(subspace, "_ROWS", 20)
        slopes = example_slopes(on_disk, AT, columns)
    np.testing.assert_allclose(slopes, example_slopes(IN_MEMORY, AT, columns), rtol=1e-10)
    if source in ("mapped", "zarr"):
        np.testing.assert_allclose(hessian(on_disk, AT), matrix, rtol=1e-10)
        noise = Minibatch(4, "reshuffle", drop_last=True)
        np.testing.assert_allclose(
            noise_covariance(on_disk, AT, noise), noise_covariance(IN_MEMORY, AT, noise), rtol=1e-8
        )


@pytest.mark.parametrize("source", ["mapped", pytest.param("zarr", marks=pytest.mark.slow)])
def test_sgd_on_disk_is_sgd_in_memory(source, tmp_path):
    on_disk = empirical_risk(loss, SOURCES[source](tmp_path), AT)
    sgd = statsgd.SGD(0.1, Minibatch(5, "reshuffle", drop_last=False), momentum=0.5)
    ask = {"steps": 15, "replicas": 4, "seed": 2, "progress": False}
    one, other = (statsgd.simulate(problem, sgd, **ask) for problem in (on_disk, IN_MEMORY))
    np.testing.assert_allclose(
        one["endpoints"]["params"].values, other["endpoints"]["params"].values, rtol=1e-5
    )
    np.testing.assert_allclose(one["run"]["loss"].values, other["run"]["loss"].values, rtol=1e-5)


def test_batches_on_disk_are_those_in_memory(tmp_path):
    def of_batch(theta, batch):
        x, y = batch
        return jnp.var(x @ theta - y) + jnp.sum(theta**2)

    ask = {"batch_size": 5, "loss_batches": 20}
    both = [batch_risk(of_batch, data, AT, **ask) for data in (mapped(tmp_path), (X, Y))]
    # From NumPy, over the batches that both have.
    batches = both[0]._batches()
    by_hand = np.mean([np.var(X[rows].astype(float) @ AT - Y[rows]) for rows in batches]) + AT @ AT
    for problem in both:
        np.testing.assert_allclose(problem.loss(AT), by_hand, rtol=1e-5)
    one, other = (problem.gradient(AT) for problem in both)
    np.testing.assert_allclose(one, other, rtol=1e-5)
    noise = Minibatch(5, "reshuffle", drop_last=False)
    sgd = statsgd.SGD(0.05, noise)
    runs = {"steps": 13, "replicas": 3, "seed": 4, "progress": False}
    one, other = (statsgd.simulate(problem, sgd, **runs)["endpoints"]["params"] for problem in both)
    np.testing.assert_allclose(one.values, other.values, rtol=1e-5)


def test_a_run_on_disk_is_resumed_where_the_data_are_the_same(tmp_path):
    sgd = statsgd.SGD(0.1, Minibatch(5))
    ask = {"steps": 4, "replicas": 2, "seed": 2, "progress": False, "store": tmp_path / "run"}
    first = statsgd.simulate(empirical_risk(loss, mapped(tmp_path), AT), sgd, **ask)
    again = statsgd.simulate(empirical_risk(loss, mapped(tmp_path), AT), sgd, **ask)
    np.testing.assert_array_equal(
        first["endpoints"]["params"].values, again["endpoints"]["params"].values
    )
    other = np.memmap(tmp_path / "x", np.float32, "r+", shape=X.shape)
    other[0] += 1
    other.flush()
    changed = tuple(
        np.memmap(tmp_path / name, array.dtype, "r", shape=array.shape)
        for name, array in (("x", X), ("y", Y))
    )
    with pytest.raises(ValueError, match="examples"):
        statsgd.simulate(empirical_risk(loss, changed, AT), sgd, **ask)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("examples", "message"),
    [
        (lambda: iter([]), "examples must hold at least one batch"),
        (lambda: iter([(X[:3], Y[:2])]), "examples must come in batches of arrays that differ"),
        (lambda: iter([(X[:3], Y[:3]), (X[:3, :2], Y[:3])]), "after 3 examples"),
        (lambda: iter([(X[:3], 1.0)]), "batches of arrays with a leading axis"),
        (lambda: iter([(X[:3] * np.nan, Y[:3])]), r"examples\[0\] must be finite, got 9 NaN"),
        (lambda: iter([(X[:3], Y[:3]), (X[:3], X[:3, 0])]), "float32 after 3 examples of int64"),
        (lambda: iter([(X[:3], np.array(["a", "b", "c"]))]), "must be batches of numbers, got dt"),
        (lambda: iter([(X[:3], np.array([{}, {}, {}]))]), "must be batches of numbers, got dtype"),
    ],
)
def test_bad_batches_are_named(examples, message):
    with pytest.raises(ValueError, match=message):
        empirical_risk(loss, examples(), AT)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("limit", ["budget", "disk"])
def test_data_without_end_are_refused_before_the_disk_is_full(limit, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    rows = X[:8].nbytes + Y[:8].nbytes
    if limit == "budget":
        monkeypatch.setattr(stored, "DISK_BUDGET", 5 * rows)
    else:
        free = shutil.disk_usage(tmp_path)._replace(free=10 * rows)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    drawn = []
    endless = (drawn.append(0) or (X[:8], Y[:8]) for _ in itertools.count())
    message = f"must fit into {5 * rows} bytes .*got 40 examples .*end after one epoch.*DISK_BUDGET"
    with pytest.raises(ValueError, match=message):
        empirical_risk(loss, endless, AT)
    assert len(drawn) == 6
    assert not list(tmp_path.iterdir())
    # What ends within the limit is taken.
    five = itertools.repeat((X[:8], Y[:8]), 5)
    assert empirical_risk(loss, lambda: five, AT).num_examples == 40


@pytest.mark.slow
def test_all_local_devices_share_the_examples():
    # A process of its own: devices are counted when JAX starts.
    code = """
import json, jax, numpy as np
jax.config.update("jax_num_cpu_devices", 3)
from tests.problems.test_stored import AT, X, Y, loss
from statsgd.problems import empirical_risk, hessian_product
problem = empirical_risk(loss, (X, Y), AT, memory_budget=1)
found = problem.loss(AT), problem.gradient(AT), hessian_product(problem, AT, double=True)(AT)
print(json.dumps([jax.local_device_count(), *[np.asarray(part).tolist() for part in found]]))
"""
    devices, value, gradient, product = json.loads(run(code))
    assert devices == 3
    np.testing.assert_allclose(value, IN_MEMORY.loss(AT), rtol=1e-6)
    np.testing.assert_allclose(gradient, IN_MEMORY.gradient(AT), rtol=1e-5)
    np.testing.assert_allclose(product, hessian(IN_MEMORY, AT) @ AT, rtol=1e-10)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_examples(tmp_path):
    # Peak resident memory in MB after sums over 40 MB and over 400 MB of examples on disk.
    small, large = (float(run(MEASURED.format(folder=str(tmp_path), rows=n))) for n in (1e5, 1e6))
    assert large < small + 40


MEASURED = """
import jax.numpy as jnp, numpy as np
from statsgd.problems import empirical_risk, hessian_product
rows = int({rows})
path = "{folder}/%d" % rows
with open(path, "wb") as file:
    for start in range(0, rows, 10000):
        file.write(np.random.default_rng(start).normal(size=(10000, 100)).astype("f4").tobytes())
data = np.memmap(path, "f4", "r", shape=(rows, 100))
problem = empirical_risk(lambda w, x: jnp.sum(jnp.tanh(w @ x) ** 2), data, np.ones((30, 100)) / 9)
w = np.ones((30, 100)) / 9
problem.loss(w), problem.gradient(w)
hessian_product(problem, w)(np.ones(3000))
# Not getrusage: what that says after exec is at least the memory of the parent.
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(int(status["VmHWM"].split()[0]) / 1024)
"""


def run(code):
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip().splitlines()[-1]


def test_rows_come_in_the_precision_of_the_program_whoever_reads_them():
    # Callbacks run in threads of their own, to which 64 bits are not known.
    inputs, targets = empirical_risk(loss, iter(Loader()), AT).examples
    with jax.enable_x64(True):
        rows = jnp.array([4, 0, 2])
        programs = [jax.jit(kept.fetch).lower(rows).compile() for kept in (inputs, targets)]
    for program, whole in zip(programs, (X.astype(np.float64), Y), strict=True):
        assert program(rows).dtype == whole.dtype
        np.testing.assert_array_equal(program(rows), whole[[4, 0, 2]])
