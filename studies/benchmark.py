"""Cost of ensembles side by side with other ways to write them, on the machine at hand.

Every contestant runs the same problem. Costs are marginal, the time of a long run less that of a
short one, so that compilation and start-up do not count (but for the grid, where they are the
question); contestants take turns within each repeat, and ratios are formed within a repeat, so
that a busy machine slows them alike. Peers that are not installed are left out.

    python -m studies.benchmark --repeats 5
"""

import dataclasses
import functools
import importlib.util
import os
import platform
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr

import statsgd
from statsgd.dynamics import Dynamics, sampling, stream_key
from statsgd.noise import Isotropic, Minibatch
from statsgd.problems import Problem, empirical_risk, landscape, linear_regression
from statsgd.provenance import provenance

type Runner = Callable[[int], object]
"""Runs so many steps and returns what must be waited for."""


@dataclasses.dataclass(frozen=True)
class Config:
    """What to measure."""

    cases: Sequence[str] = ("sde", "regression", "network", "grid", "sampling")
    repeats: int = 5
    sde_replicas: int = 2**14
    sde_steps: int = 400
    regression_sizes: Sequence[tuple[int, int]] = ((8, 8), (8, 64), (64, 8), (64, 64))
    """Pairs of dimension and batch size."""
    regression_replicas: int = 1024
    regression_steps: int = 200
    network_replicas: int = 64
    network_steps: int = 40
    grid_cells: int = 64
    grid_replicas: int = 64
    grid_steps: int = 200
    sampling_replicas: int = 64
    sampling_steps: int = 10
    examples: int = 1792
    batch_size: int = 8


def run(config: Config | None = None) -> xr.DataTree:
    """Costs of all cases, ns per replica and step, and their ratios to the cost of statsgd."""
    config = config or Config()
    measured: dict[str, xr.Dataset] = {}
    for case in config.cases:
        measured |= CASES[case](config)
    result = xr.DataTree.from_dict(measured)
    result.attrs = provenance(
        "benchmark", machine=platform.processor() or platform.machine(), cores=os.cpu_count()
    )
    return result


def summary(result: xr.DataTree) -> str:
    """A table of median costs, and of ratios to statsgd with their spread over repeats."""
    lines = [f"{'case':<24}{'contestant':<20}{'ns/replica/step':>16}{'ratio (range)':>32}"]
    for name, group in result.children.items():
        for contestant in group.contestant.values:
            one = group.sel(contestant=contestant)
            low, middle, high = one.ratio.quantile([0, 0.5, 1]).values
            lines.append(
                f"{name:<24}{contestant:<20}{float(one.cost.median()):>16.1f}"
                f"{f'{middle:.2f} ({low:.2f} to {high:.2f})':>32}"
            )
    return "\n".join(lines)


def _race(contestants: dict[str, Runner], steps: int, replicas: int, repeats: int) -> xr.Dataset:
    def seconds(runner: Runner, number: int) -> float:
        begin = time.perf_counter()
        jax.block_until_ready(runner(number))
        return time.perf_counter() - begin

    for runner in contestants.values():
        seconds(runner, steps)
        seconds(runner, 4 * steps)
    costs = np.empty((len(contestants), repeats))
    for repeat in range(repeats):
        for i, runner in enumerate(contestants.values()):
            marginal = seconds(runner, 4 * steps) - seconds(runner, steps)
            costs[i, repeat] = marginal / (3 * steps * replicas) * 1e9
    return _table(list(contestants), costs)


def _table(contestants: list[str], costs: np.ndarray) -> xr.Dataset:
    dims = ("contestant", "repeat")
    return xr.Dataset(
        {"cost": (dims, costs, {"units": "ns"}), "ratio": (dims, costs / costs[0])},
        coords={"contestant": contestants},
    )


def _simulated(problem: Problem, dynamics: Dynamics, replicas: int) -> Runner:
    def runner(steps: int) -> np.ndarray:
        result = statsgd.simulate(
            problem, dynamics, steps=steps, replicas=replicas, seed=0, progress=False
        )
        return result["run"].loss.values

    return runner


def _sde(config: Config) -> dict[str, xr.Dataset]:
    """dθ = −Hθ dt + √η dW in two dimensions."""
    curvature, rate, replicas = jnp.array([2.0, 0.5]), 0.1, config.sde_replicas
    problem = landscape(lambda x: 0.5 * jnp.sum(curvature * x**2), np.zeros(2))
    sgd = statsgd.SGD(rate, Isotropic(1.0))
    signs = sgd.diffusion_limit(problem, rate, "two_point")

    @jax.jit
    def one_key_a_replica(steps):
        def step(_, carry):
            theta, key = carry
            key, fresh = jax.random.split(key)
            noise = jax.random.normal(fresh, (2,))
            return theta - rate * (jax.grad(problem.loss)(theta) + noise), key

        def one(key):
            return jax.lax.fori_loop(0, steps, step, (jnp.zeros(2), key))[0]

        return jax.vmap(one)(jax.random.split(jax.random.key(0), replicas))

    @jax.jit
    def one_key_a_step(steps):
        def step(i, theta):
            noise = jax.random.normal(jax.random.fold_in(jax.random.key(0), i), theta.shape)
            return theta - rate * (curvature * theta + noise)

        return jax.lax.fori_loop(0, steps, step, jnp.zeros((replicas, 2)))

    contestants: dict[str, Runner] = {
        "statsgd": _simulated(problem, sgd, replicas),
        "statsgd, signs": _simulated(problem, signs, replicas),
        "jax, key a replica": one_key_a_replica,
        "jax, key a step": one_key_a_step,
    }
    if importlib.util.find_spec("torch"):
        contestants["torch"] = functools.partial(_torch_sde, replicas, rate)
    if importlib.util.find_spec("numba"):
        contestants["numba"] = _numba_sde(replicas, rate)
    return {"sde": _race(contestants, config.sde_steps, replicas, config.repeats)}


def _torch_sde(replicas: int, rate: float, steps: int):
    import torch

    curvature = torch.tensor([2.0, 0.5])
    theta = torch.zeros(replicas, 2)
    for _ in range(steps):
        theta -= rate * (curvature * theta + torch.randn_like(theta))
    return theta.numpy()


def _numba_sde(replicas: int, rate: float) -> Runner:
    import numba

    @numba.njit(parallel=True, fastmath=True)
    def runner(steps):
        ends = np.zeros((replicas, 2), dtype=np.float32)
        for r in numba.prange(replicas):
            a, b = np.float32(0), np.float32(0)
            for _ in range(steps):
                a -= rate * (2.0 * a + np.random.standard_normal())  # noqa: NPY002
                b -= rate * (0.5 * b + np.random.standard_normal())  # noqa: NPY002
            ends[r, 0], ends[r, 1] = a, b
        return ends

    return runner


def _optax_idiom(loss, examples, start, replicas: int, size: int, rate: float) -> Runner:
    """What one writes first: optax, `lax.scan`'s loop, `vmap`, threefry and `randint`."""
    optimiser = optax.sgd(rate)
    number = jax.tree.leaves(examples)[0].shape[0]
    examples = jax.tree.map(jnp.asarray, examples)

    @jax.jit
    def runner(steps):
        def step(_, carry):
            params, state, key = carry
            key, fresh = jax.random.split(key)
            chosen = jax.random.randint(fresh, (size,), 0, number)
            batch = jax.tree.map(lambda leaf: leaf[chosen], examples)
            gradient = jax.grad(lambda params: jnp.mean(jax.vmap(loss, (None, 0))(params, batch)))(
                params
            )
            updates, state = optimiser.update(gradient, state, params)
            return optax.apply_updates(params, updates), state, key

        def one(key):
            begin = (start, optimiser.init(start), key)
            return jax.lax.fori_loop(0, steps, step, begin)[0]

        return jax.vmap(one)(jax.random.split(jax.random.key(0), replicas))

    return runner


def _regression(config: Config) -> dict[str, xr.Dataset]:
    """Minibatch SGD on linear regression."""
    cases = {}
    for dimension, size in config.regression_sizes:
        rng = np.random.default_rng(0)
        inputs = rng.normal(size=(config.examples, dimension)).astype(np.float32)
        targets = (inputs @ rng.normal(size=dimension) + rng.normal(size=config.examples)).astype(
            np.float32
        )
        problem = linear_regression(inputs, targets)
        replicas, rate = config.regression_replicas, 0.1 / dimension
        contestants: dict[str, Runner] = {
            "statsgd": _simulated(problem, statsgd.SGD(rate, Minibatch(size)), replicas),
            "optax": _optax_idiom(
                lambda theta, example: 0.5 * (example[0] @ theta - example[1]) ** 2,
                (inputs, targets),
                jnp.zeros(dimension),
                replicas,
                size,
                rate,
            ),
        }
        if importlib.util.find_spec("numba"):
            contestants["numba"] = _numba_regression(inputs, targets, replicas, size, rate)
        cases[f"regression d={dimension} S={size}"] = _race(
            contestants, config.regression_steps, replicas, config.repeats
        )
    return cases


def _numba_regression(inputs, targets, replicas: int, size: int, rate: float) -> Runner:
    import numba

    number, dimension = inputs.shape

    @numba.njit(parallel=True, fastmath=True)
    def runner(steps):
        ends = np.zeros((replicas, dimension), dtype=np.float32)
        for r in numba.prange(replicas):
            theta = np.zeros(dimension, dtype=np.float32)
            gradient = np.zeros(dimension, dtype=np.float32)
            word = np.uint32(2463534242 + 7919 * r)
            for _ in range(steps):
                gradient[:] = 0
                for _ in range(size):
                    word ^= word << np.uint32(13)
                    word ^= word >> np.uint32(17)
                    word ^= word << np.uint32(5)
                    row = int((np.uint64(word) * np.uint64(number)) >> np.uint64(32))
                    residual = -targets[row]
                    for j in range(dimension):
                        residual += inputs[row, j] * theta[j]
                    for j in range(dimension):
                        gradient[j] += residual * inputs[row, j]
                for j in range(dimension):
                    theta[j] -= rate / size * gradient[j]
            ends[r] = theta
        return ends

    return runner


def _network(config: Config) -> dict[str, xr.Dataset]:
    """A network of two layers on the digits bundled with scikit-learn."""
    from sklearn.datasets import load_digits

    inputs, labels = load_digits(return_X_y=True)
    examples = ((inputs / 16).astype(np.float32), labels.astype(np.int32))
    rng = np.random.default_rng(0)
    start = {
        "first": jnp.asarray(rng.normal(size=(64, 32)) / 8, jnp.float32),
        "second": jnp.asarray(rng.normal(size=(32, 10)) / 6, jnp.float32),
    }

    def loss(params, example):
        x, label = example
        return -jax.nn.log_softmax(jnp.tanh(x @ params["first"]) @ params["second"])[label]

    problem = empirical_risk(loss, examples, start)
    replicas, size = config.network_replicas, 32
    contestants = {
        "statsgd": _simulated(problem, statsgd.SGD(0.1, Minibatch(size)), replicas),
        "optax": _optax_idiom(loss, examples, start, replicas, size, 0.1),
    }
    return {"network": _race(contestants, config.network_steps, replicas, config.repeats)}


def _grid(config: Config) -> dict[str, xr.Dataset]:
    """A grid of learning rates against a run for each of them."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(config.examples, 8)).astype(np.float32)
    problem = linear_regression(inputs, rng.normal(size=config.examples).astype(np.float32))
    sgd = statsgd.SGD(0.01, Minibatch(8))
    rates = np.geomspace(1e-3, 0.1, config.grid_cells)
    options: dict = {
        "steps": config.grid_steps,
        "replicas": config.grid_replicas,
        "seed": 0,
        "progress": False,
    }

    def together():
        return statsgd.simulate(problem, statsgd.grid(sgd, learning_rate=rates), **options)[
            "endpoints"
        ].params.values

    def apart():
        return [
            statsgd.simulate(problem, dataclasses.replace(sgd, learning_rate=rate), **options)[
                "endpoints"
            ].params.values
            for rate in rates
        ]

    # The whole call is compared, start-up included, for that is what a run for each cell repeats.
    runners = {"statsgd": together, "a run for each": apart}
    costs = np.empty((2, config.repeats))
    for repeat in range(-1, config.repeats):  # the first round compiles and is written over
        for i, runner in enumerate(runners.values()):
            begin = time.perf_counter()
            runner()
            costs[i, repeat] = time.perf_counter() - begin
    steps = config.grid_steps * config.grid_replicas * config.grid_cells
    return {"grid": _table(list(runners), costs / steps * 1e9)}


def _sampling(config: Config) -> dict[str, xr.Dataset]:
    """Index sampling alone."""
    number, size, replicas = config.examples, config.batch_size, config.sampling_replicas

    def repeated(choose):
        @jax.jit
        def runner(steps):
            def one(key):
                def step(i, total):
                    return total + choose(key, i)

                return jax.lax.fori_loop(0, steps, step, jnp.zeros(size, jnp.int32))

            return jax.vmap(one)(jax.random.split(stream_key(0), replicas))

        return runner

    def threefry(key, i):
        words = jax.random.key_data(key)
        return jax.random.fold_in(jax.random.wrap_key_data(words, impl="threefry2x32"), i)

    subset = {
        "statsgd": repeated(
            lambda key, i: sampling.without_replacement(jax.random.fold_in(key, i), number, size)
        ),
        "jax choice": repeated(
            lambda key, i: jax.random.choice(threefry(key, i), number, (size,), replace=False)
        ),
    }
    shuffled = {
        "statsgd": repeated(lambda key, i: sampling.reshuffle(key, i, number, size)),
        "jax permutation": repeated(
            lambda key, i: jax.lax.dynamic_slice(
                jax.random.permutation(threefry(key, i // (number // size)), number),
                (i % (number // size) * size,),
                (size,),
            )
        ),
    }
    return {
        "without replacement": _race(subset, config.sampling_steps, replicas, config.repeats),
        "reshuffle": _race(shuffled, config.sampling_steps, replicas, config.repeats),
    }


CASES = {
    "sde": _sde,
    "regression": _regression,
    "network": _network,
    "grid": _grid,
    "sampling": _sampling,
}


if __name__ == "__main__":
    import tyro

    print(summary(run(tyro.cli(Config))))
