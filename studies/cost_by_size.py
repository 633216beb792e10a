"""Cost against size: time and memory of ensembles, and sweeps over one worker and two.

An ensemble of linear regressions is run for more and more replicas, parameters and steps, each in
a process of its own: the time is that of a second call, which compiles nothing, and the memory is
the peak of the process above what it held before the calls.

    python -m studies.cost_by_size              # table, and the figure of the benchmark's page
    python -m studies.cost_by_size --workers    # sweeps over one local dask worker and over two,
                                                # an ensemble over one process of JAX and over two
    python -m studies.cost_by_size --diagnosis  # a diagnosis of a network of 10⁵ parameters
"""

import argparse
import functools
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd
import xarray as xr

import statsgd
from statsgd.reports import Chart, Series, figure
from studies.memory import peak_memory
from studies.networks.convolutions import convolutional
from studies.networks.images import images
from studies.networks.training import ends_of_training, noise_of, setting
from studies.real_network import Config
from studies.tables import markdown

PICTURE = Path(__file__).parent / "pictures" / "cost-by-size.png"
_EXAMPLES, _BATCH = 1792, 8


class Size(NamedTuple):
    """Of one ensemble."""

    replicas: int = 1000
    parameters: int = 8
    steps: int = 1000


#: An ensemble that takes seconds on one core, for processes that share it.
_SHARED = Size(replicas=100_000, steps=2000)

#: What grows, one at a time.
SIZES = {
    "replicas": [Size(replicas=n, steps=200) for n in (10**2, 10**3, 10**4, 10**5, 10**6)],
    "parameters": [Size(parameters=d) for d in (2, 8, 32, 128, 512)],
    "steps": [Size(steps=n) for n in (10**2, 10**3, 10**4, 10**5)],
}


def measured() -> xr.DataTree:
    """Seconds and memory by what grows, each a group with the sizes along `size`."""
    groups = {}
    for grows, sizes in SIZES.items():
        found = [_in_a_process(size) for size in sizes]
        groups[grows] = xr.Dataset(
            {
                "seconds": ("size", [one["seconds"] for one in found]),
                "memory": ("size", [one["memory"] for one in found]),
            },
            coords={"size": [getattr(size, grows) for size in sizes]},
        )
    return xr.DataTree.from_dict(groups)


def _in_a_process(size: Size) -> dict[str, float]:
    command = [sys.executable, "-m", "studies.cost_by_size", "--once", *map(str, size)]
    told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(told.stdout.splitlines()[-1])


def once(size: Size) -> dict[str, float]:
    """Seconds of a second call, and MiB above what the process held before the first."""
    problem, sgd = _setting(size.parameters)
    small = functools.partial(statsgd.simulate, problem, sgd, seed=0, progress=False)
    run = functools.partial(small, steps=size.steps, replicas=size.replicas, devices=jax.devices())
    small(steps=1, replicas=1)
    with peak_memory() as peak:
        run()
        begin = time.perf_counter()
        run()
        return {"seconds": time.perf_counter() - begin, "memory": peak() / 2**20}


def _setting(parameters: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(_EXAMPLES, parameters))
    targets = inputs.sum(axis=1) + rng.normal(size=_EXAMPLES)
    problem = statsgd.problems.linear_regression(inputs, targets)
    return problem, statsgd.SGD(0.5 / parameters / 4, statsgd.noise.Minibatch(_BATCH))


def charts(found: xr.DataTree) -> xr.DataTree:
    """Cost of a replica and step, and memory of a replica, against what grows."""
    fixed = {grows: sizes[0]._asdict() for grows, sizes in SIZES.items()}
    cost, memory = [], []
    for grows, group in found.children.items():
        sizes = group.size.values.astype(float)
        shape = [Size(**fixed[grows] | {grows: int(one)}) for one in sizes]
        work = np.array([one.replicas * one.steps for one in shape])
        cost.append(Series(grows, sizes, group.seconds.values / work * 1e9))
        memory.append(Series(grows, sizes, group.memory.values))
    tree = xr.DataTree.from_dict(
        {
            "cost": Chart(
                "A step of a replica",
                "replicas, parameters or steps", "ns", tuple(cost), log="xy",
            ).to_datatree(),
            "memory": Chart(
                "Memory of an ensemble",
                "replicas, parameters or steps", "MiB above the start", tuple(memory), log="xy",
            ).to_datatree(),
        }
    )  # fmt: skip
    tree.attrs = {"kind": "charts", "title": "Cost by size", "finding": __doc__ or ""}
    return tree


def table(found: xr.DataTree) -> str:
    """Markdown: time, time of a step of a replica, and memory."""
    rows = []
    for grows, sizes in SIZES.items():
        for size, seconds, memory in zip(
            sizes, found[grows].seconds.values, found[grows].memory.values, strict=True
        ):
            cost = seconds / (size.replicas * size.steps) * 1e9
            rows.append((*size, f"{seconds:.2g} s", f"{cost:.3g} ns", f"{memory:.0f} MiB"))
    columns = [*Size._fields, "time", "a step of a replica", "memory"]
    return markdown(pd.DataFrame(rows, columns=columns))


# Sweeps over workers.


def cell(one: Any, steps: int) -> xr.Dataset:
    """A run of a network at one learning rate."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(512, 16))
    problem = statsgd.problems.multilayer_perceptron(inputs, inputs[:, :1], hidden=[64])
    sgd = statsgd.SGD(one["learning_rate"], statsgd.noise.Minibatch(_BATCH))
    found = statsgd.simulate(problem, sgd, steps=steps, replicas=8, seed=one.seed, progress=False)
    return xr.Dataset({"loss": found["run"].loss.mean()})


def over_workers(numbers: Sequence[int], cells: int, steps: int) -> dict[int, float]:
    """Seconds that a sweep takes over so many local dask workers, of one core each."""
    from dask.distributed import Client, LocalCluster

    taken = {}
    run = functools.partial(cell, steps=steps)
    rates = {"learning_rate": np.linspace(0.005, 0.02, cells).tolist()}
    for number in numbers:
        cluster = LocalCluster(
            n_workers=number, threads_per_worker=1, processes=True, dashboard_address=":0"
        )
        with cluster, Client(cluster) as client, tempfile.TemporaryDirectory() as folder:
            options: Any = {"seed": 0, "executor": client, "progress": False}
            addresses = list(client.scheduler_info()["workers"])
            client.run(_on_own_core, addresses)
            # Every worker compiles before the clock starts.
            client.gather([client.submit(_compiled, run, workers=[at], pure=False)
                           for at in addresses])  # fmt: skip
            begin = time.perf_counter()
            statsgd.sweep(run, rates, store=f"{folder}/store", **options)
            taken[number] = time.perf_counter() - begin
    return taken


def _compiled(run: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = f"{folder}/store"
        statsgd.sweep(run, {"learning_rate": [0.001]}, store=store, seed=0, progress=False)


def _on_own_core(addresses: Sequence[str], dask_worker: Any) -> None:
    """Keep a worker, and the threads that it starts from now on, to one core of its own."""
    _keep_to_core(addresses.index(dask_worker.address))


def _keep_to_core(rank: int) -> None:
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[rank % len(cores)]})


def over_processes(numbers: Sequence[int], size: Size) -> dict[int, float]:
    """Seconds of an ensemble over so many processes under `jax.distributed`, of one core each."""
    taken = {}
    for number in numbers:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [sys.executable, "-m", "studies.cost_by_size", "--share", *map(str, size)]
        processes = [
            subprocess.Popen([*command, str(rank), str(number), str(port)], stdout=subprocess.PIPE)
            for rank in range(number)
        ]
        outputs = [process.communicate()[0] for process in processes]
        if any(process.returncode for process in processes):
            raise RuntimeError(f"a process of {number} under jax.distributed failed")
        # Gloo writes lines of its own before.
        taken[number] = max(float(output.split()[-1]) for output in outputs)
    return taken


def share(size: Size, rank: int, number: int, port: int) -> float:
    """Seconds of a second call, which this process of `number` makes with the others."""
    _keep_to_core(rank)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=number, process_id=rank)
    return once(size)["seconds"]


def diagnosis(config: Config) -> str:
    """Train the convolutional network of `real_network`, and time its diagnosis."""
    given = images(config.dataset, config.data_dir, config.examples, 0)
    problem = convolutional(given, config.width, 0)
    sgd = setting(config, noise_of(problem, config.batch_size))
    start = problem.initial_params(jax.random.key(0))
    (params,) = ends_of_training(problem, sgd, [start], config, config.training, 0)
    asked = {"modes": config.modes, "replicas": config.replicas, "steps": config.steps}
    with peak_memory() as peak:
        begin = time.perf_counter()
        statsgd.diagnose(problem, params, sgd, **asked, seed=0, progress=False)  # type: ignore[arg-type]
        taken, held = time.perf_counter() - begin, peak() / 2**20
    words = ", ".join(f"{n} {name}" for name, n in asked.items())
    return f"{problem.dimension} parameters, {words}: {taken:.0f} s, {held:.0f} MiB"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table; without options draw the figure of the page too."""
    parser = argparse.ArgumentParser(prog="python -m studies.cost_by_size")
    parser.add_argument("--workers", action="store_true", help="time sweeps over local workers")
    parser.add_argument("--cells", type=int, default=32, help="of the sweep")
    parser.add_argument("--cell-steps", type=int, default=8000, help="steps of each cell")
    parser.add_argument("--diagnosis", action="store_true", help="time one of a large network")
    parser.add_argument("--width", type=int, default=35, help="of that network")
    parser.add_argument("--once", type=int, nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--share", type=int, nargs=6, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.once:
        jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)
        print(json.dumps(once(Size(*given.once))))
    elif given.share:
        print(share(Size(*given.share[:3]), *given.share[3:]))
    elif given.diagnosis:
        jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)
        large = Config(
            progress=False, examples=5000, width=given.width, modes=32, replicas=64, steps=500
        )
        print(diagnosis(large))
    elif given.workers:
        sweeps = over_workers((1, 2), given.cells, given.cell_steps)
        ensembles = over_processes((1, 2), _SHARED)
        for name, taken in {"worker(s)": sweeps, "process(es)": ensembles}.items():
            for number, seconds in taken.items():
                print(f"{number} {name}: {seconds:.1f} s, {taken[1] / seconds:.2f} times as fast")
    else:
        found = measured()
        print(table(found))
        figure(charts(found)).savefig(PICTURE, dpi=110)


if __name__ == "__main__":
    main()
