"""Cost of ensembles side by side with other ways to write them, on the machine at hand.

Every contestant of a case runs the same problem. Costs are marginal, the time of a long run less
that of a short one, so that compilation and start-up do not count (but for the grid, where they
are the question); contestants take turns, and ratios are formed within a round, so that a busy
machine slows them alike. Peers that are not installed are left out; the extra `bench` has them.

    python -m studies.benchmark --repeats 5
"""

import dataclasses
import functools
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
import xarray as xr

from statsgd.provenance import provenance
from studies.peers import (
    convolutional,
    curvature,
    grid,
    learning_coefficient,
    machine,
    network,
    regression,
    samplers,
    sampling,
    sde,
)
from studies.peers.race import race, race_whole, table

_PER = ("second", "gradient")


@dataclasses.dataclass(frozen=True)
class Config:
    """What to measure."""

    cases: Sequence[str] = (
        "sde",
        "regression",
        "network",
        "convolutional",
        "grid",
        "sampling",
        "kernels",
        "curvature",
        "learning_coefficient",
    )
    repeats: int = 5
    sde_replicas: int = 2**14
    regression_sizes: Sequence[tuple[int, int]] = ((8, 8), (8, 64), (64, 8), (64, 64))
    """Pairs of dimension and batch size."""
    regression_replicas: int = 1024
    network_replicas: int = 64
    convolutional_replicas: Sequence[int] = (1, 4, 32)
    convolutional_width: int = 16
    """About 82 width² parameters."""
    grid_cells: int = 64
    grid_replicas: int = 64
    grid_steps: int = 200
    sampling_replicas: int = 64
    kernel_chains: int = 256
    kernel_draws: int = 1000
    """Of each of four chains, after as many steps of warm-up, in the comparison of whole runs."""
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

    Remarks say what share of our cost the random words and the bytes read from memory would take
    if the machine did nothing else on as many cores; of whole runs of kernels, how long the first
    took, compilation included, and the effective draws of the later ones, by second and by
    gradient.
    """
    attrs = result.attrs
    lines = [
        f"{attrs['machine']}, {attrs['cores']} cores, JAX {attrs['jax_version']}; "
        f"{float(attrs['nanoseconds_per_word']):.2f} ns for a random word, "
        f"{float(attrs['nanoseconds_per_byte']):.3f} ns for a byte, on one core.",
        "",
        "| case | contestant | cost | ratio to statsgd (range) | remarks |",
        "| --- | --- | ---: | ---: | --- |",
    ]
    for name, group in result.children.items():
        for contestant in group.contestant.values:
            one = group.sel(contestant=contestant)
            resolved = one.ratio.notnull().mean() > 0.5
            cost, ratio = "not resolved", ""
            if resolved:
                low, middle, high = one.ratio.quantile([0, 0.5, 1], skipna=True).values
                cost = _time(float(one.cost.median(skipna=True)))
                ratio = f"{middle:.2f} ({low:.2f} to {high:.2f})"
            lines.append(f"| {name} | {contestant} | {cost} | {ratio} | {_remark(one, attrs)} |")
    return "\n".join(lines)


def _remark(one: xr.DataTree, machine_attrs: dict) -> str:
    if "remark" in one:
        return str(one.remark.values)
    if "ess_per_second" in one:
        by_second, by_gradient = (float(one[f"ess_per_{per}"].median()) for per in _PER)
        return (
            f"first run {float(one['first']):.1f} s; {by_second:.3g} effective draws/s, "
            f"{by_gradient:.2g} a gradient"
        )
    if "words" not in one.attrs or str(one.contestant.values) != "statsgd":
        return ""
    remarks = []
    for what, unit in (("words", "word"), ("bytes", "byte")):
        at_best = one.attrs[what] * float(machine_attrs[f"nanoseconds_per_{unit}"])
        share = at_best / len(jax.devices()) / float(one.cost.median())
        remarks.append(f"{one.attrs[what]} {what} ({share:.0%})")
    return "; ".join(remarks)


def _time(nanoseconds: float) -> str:
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if nanoseconds >= 0.9995 * size:  # what is rounded to 1
            return f"{nanoseconds / size:.3g} {unit}"
    return f"{nanoseconds:.3g} ns"


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


def _convolutional(config: Config) -> dict[str, xr.Dataset]:
    width = config.convolutional_width
    return {
        f"convolutional network, {replicas} replica(s)": race(
            convolutional.contestants(replicas, width), replicas=replicas, repeats=config.repeats
        )
        for replicas in config.convolutional_replicas
    }


def _grid(config: Config) -> dict[str, xr.Dataset]:
    runs = grid.contestants(
        cells=config.grid_cells,
        replicas=config.grid_replicas,
        steps=config.grid_steps,
        examples=config.examples,
    )
    name = f"grid of {config.grid_cells} learning rates"
    return {name: race_whole(runs, repeats=config.repeats)}


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


def _kernels(config: Config) -> dict[str, xr.Dataset]:
    cases = {
        f"{name}, one gradient": race(
            contestants, replicas=config.kernel_chains, repeats=config.repeats
        )
        for name, contestants in samplers.steppers(
            config.kernel_chains, examples=config.examples, batch_size=config.batch_size
        ).items()
    }
    length = {"warmup": config.kernel_draws, "draws": config.kernel_draws, "chains": 4}
    for name in samplers.targets():
        runs = samplers.efficiency(name, **length, repeats=config.repeats)
        cases[f"second run, {name}"] = table(
            list(runs.contestant.values), runs.second.values * 1e9
        ).assign(
            {"first": runs["first"]} | {f"ess_per_{per}": runs[f"ess_per_{per}"] for per in _PER}
        )
    return cases


def _curvature(config: Config) -> dict[str, xr.Dataset]:
    spectra = {name: make() for name, make in curvature.spectra().items()}
    cases = {
        "Hessian product, d=101770": race(
            {name: one.products for name, one in spectra.items()},
            replicas=1,
            repeats=config.repeats,
        )
    }
    for what, say in (("eigenvalues", _largest_difference), ("trace", _with_error)):
        whole = race_whole(
            {name: (getattr(one, what), 1) for name, one in spectra.items()},
            repeats=config.repeats,
        )
        values = {name: getattr(one, what)() for name, one in spectra.items()}
        remarks = [
            f"{say(values, name)}; {curvature.peak_memory(name, what) / 2**20:.0f} MiB"
            for name in spectra
        ]
        cases[f"{what} of the Hessian"] = whole.assign(remark=("contestant", remarks))
    return cases


def _largest_difference(values: dict[str, np.ndarray], name: str) -> str:
    ours = values["statsgd"]
    return f"largest {values[name][0]:.4f}; within {np.max(abs(values[name] / ours - 1)):.0e}"


def _with_error(values: dict[str, tuple[float, float]], name: str) -> str:
    return "{:.3g} ± {:.2g}".format(*values[name])


def _learning_coefficient(config: Config) -> dict[str, xr.Dataset]:
    """Whole runs, value and error included, whatever number of gradients they take."""
    contestants = learning_coefficient.contestants()
    calls = {name: functools.partial(one.run, 0) for name, one in contestants.items()}
    whole = race_whole({name: (call, 1) for name, call in calls.items()}, repeats=config.repeats)
    steps = learning_coefficient.CHAINS * (
        learning_coefficient.STEPS + learning_coefficient.BURN_IN
    )
    values = {name: call() for name, call in calls.items()}
    remarks = [
        f"{_with_error(values, name)}; "
        f"{_time(float(whole.cost.sel(contestant=name).median()) / steps)} a step of a chain, "
        f"gradients: {one.gradients} in {one.precision} precision"
        for name, one in contestants.items()
    ]
    return {"learning coefficient, whole run": whole.assign(remark=("contestant", remarks))}


CASES = {
    "sde": _sde,
    "regression": _regression,
    "network": _network,
    "convolutional": _convolutional,
    "grid": _grid,
    "sampling": _sampling,
    "kernels": _kernels,
    "curvature": _curvature,
    "learning_coefficient": _learning_coefficient,
}


if __name__ == "__main__":
    import tyro

    # One XLA device runs small steps on one core; this must come before JAX computes anything.
    jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)
    print(summary(run(tyro.cli(Config))))
