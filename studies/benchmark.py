"""Cost of ensembles side by side with other ways to write them, on the machine at hand.

Every contestant of a case runs the same problem. Costs are marginal, the time of a long run less
that of a short one, so that compilation and start-up do not count (but for the grid, where they
are the question); contestants take turns, and ratios are formed within a round, so that a busy
machine slows them alike. Peers that are not installed are left out; the extra `bench` has them.

    python -m studies.benchmark --repeats 5
"""

import dataclasses
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
import xarray as xr

from statsgd.provenance import provenance
from studies.peers import grid, machine, network, regression, sampling, sde
from studies.peers.race import race, race_whole


@dataclasses.dataclass(frozen=True)
class Config:
    """What to measure."""

    cases: Sequence[str] = ("sde", "regression", "network", "grid", "sampling")
    repeats: int = 5
    sde_replicas: int = 2**14
    regression_sizes: Sequence[tuple[int, int]] = ((8, 8), (8, 64), (64, 8), (64, 64))
    """Pairs of dimension and batch size."""
    regression_replicas: int = 1024
    network_replicas: int = 64
    grid_cells: int = 64
    grid_replicas: int = 64
    grid_steps: int = 200
    sampling_replicas: int = 64
    examples: int = 1792
    batch_size: int = 8


def run(config: Config | None = None) -> xr.DataTree:
    """A group for each case: costs in ns for a replica and step, and ratios to that of statsgd.

    Raises `ValueError` for a case that does not exist.
    """
    config = config or Config()
    unknown = sorted(set(config.cases) - set(CASES))
    if unknown:
        raise ValueError(f"cases must be among {', '.join(CASES)}, got {', '.join(unknown)}")
    measured: dict[str, xr.Dataset] = {}
    for case in config.cases:
        measured |= CASES[case](config)
    result = xr.DataTree.from_dict(measured)
    result.attrs = provenance(
        "benchmark",
        machine=_processor(),
        cores=os.cpu_count(),
        nanoseconds_per_word=machine.nanoseconds_per_word(),
        nanoseconds_per_byte=machine.nanoseconds_per_byte(),
    )
    return result


def summary(result: xr.DataTree) -> str:
    """Markdown: median costs, and ratios to statsgd with their range over the rounds.

    The last columns are the shares of our cost that the random words and the bytes read from
    memory would take if the machine did nothing else, on as many cores.
    """
    attrs = result.attrs
    cores = len(jax.devices())
    lines = [
        f"{attrs['machine']}, {attrs['cores']} cores, JAX {attrs['jax_version']}; "
        f"{float(attrs['nanoseconds_per_word']):.2f} ns for a random word, "
        f"{float(attrs['nanoseconds_per_byte']):.3f} ns for a byte, on one core.",
        "",
        "| case | contestant | ns | ratio to statsgd (range) | random words | bytes |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for name, group in result.children.items():
        for i, contestant in enumerate(group.contestant.values):
            one = group.sel(contestant=contestant)
            low, middle, high = one.ratio.quantile([0, 0.5, 1]).values
            cost = float(one.cost.median())
            shares = ["", ""]
            if i == 0 and "words" in group.attrs:
                for j, (what, unit) in enumerate((("words", "word"), ("bytes", "byte"))):
                    at_best = group.attrs[what] * float(attrs[f"nanoseconds_per_{unit}"]) / cores
                    shares[j] = f"{group.attrs[what]} ({at_best / cost:.0%})"
            lines.append(
                f"| {name} | {contestant} | {cost:.3g} | {middle:.2f} ({low:.2f} to {high:.2f}) | "
                f"{shares[0]} | {shares[1]} |"
            )
    return "\n".join(lines)


def _processor() -> str:
    models = [
        line.partition(":")[2].strip()
        for line in (
            Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else []
        )
        if line.startswith("model name")
    ]
    return models[0] if models else platform.processor() or platform.machine()


def _sde(config: Config) -> dict[str, xr.Dataset]:
    replicas = config.sde_replicas
    measured = race(
        sde.contestants(replicas),
        replicas=replicas,
        repeats=config.repeats,
    )
    return {"SDE, d=2": measured.assign_attrs(words=2, bytes=0)}


def _regression(config: Config) -> dict[str, xr.Dataset]:
    cases = {}
    for dimension, size in config.regression_sizes:
        measured = race(
            regression.contestants(
                examples=config.examples,
                dimension=dimension,
                size=size,
                replicas=config.regression_replicas,
            ),
            replicas=config.regression_replicas,
            repeats=config.repeats,
        )
        cases[f"regression, d={dimension}, S={size}"] = measured.assign_attrs(
            words=size, bytes=4 * size * (dimension + 1)
        )
    return cases


def _network(config: Config) -> dict[str, xr.Dataset]:
    replicas = config.network_replicas
    return {
        "network on digits": race(
            network.contestants(replicas),
            replicas=replicas,
            repeats=config.repeats,
        )
    }


def _grid(config: Config) -> dict[str, xr.Dataset]:
    runs = grid.contestants(
        cells=config.grid_cells,
        replicas=config.grid_replicas,
        steps=config.grid_steps,
        examples=config.examples,
    )
    work = config.grid_steps * config.grid_replicas * config.grid_cells
    name = f"grid of {config.grid_cells} learning rates"
    return {name: race_whole(runs, pieces=work, repeats=config.repeats)}


def _sampling(config: Config) -> dict[str, xr.Dataset]:
    shape = {
        "examples": config.examples,
        "size": config.batch_size,
        "replicas": config.sampling_replicas,
    }
    return {
        f"sampling {name}": race(
            contestants(**shape),
            replicas=config.sampling_replicas,
            repeats=config.repeats,
        )
        for name, contestants in (
            ("without replacement", sampling.subsets),
            ("by epochs", sampling.epochs),
        )
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

    # One XLA device runs small steps on one core; this must come before JAX computes anything.
    jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)
    print(summary(run(tyro.cli(Config))))
