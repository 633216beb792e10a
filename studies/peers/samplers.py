"""Langevin kernels: cost of a gradient, effective draws, and the price of another run."""

import functools
import importlib.util
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from arviz_stats.base import array_stats
from numpyro.infer import MCMC, NUTS
from numpyro.infer.initialization import init_to_median

import statsgd
from statsgd.kernels import MALA, OBABO, LangevinKernel
from statsgd.laws import FlooredLossScaledLaw, Gibbs, Law
from statsgd.problems import quadratic
from studies.peers.race import Runner

_STEP = {"MALA": 0.6, "OBABO": 0.9}


def targets() -> dict[str, Law]:
    """Small laws of the catalogue: a Gaussian of eight curvatures, and heavy tails."""
    curvatures = np.geomspace(1.0, 10.0, 8)
    return {
        "Gibbs, d=8": Gibbs(quadratic(np.diag(curvatures)), 1.0),
        "FlooredLossScaledLaw": FlooredLossScaledLaw.examples()[0],
    }


def steppers(chains: int) -> dict[str, dict[str, Runner]]:
    """By kernel: ours against blackjax's on the Gaussian, all draws kept."""
    law = targets()["Gibbs, d=8"]
    found: dict[str, dict[str, Runner]] = {
        "MALA": {"statsgd": _ours(law, MALA(step_size=0.02, adapt_step_size=False), chains)},
        "OBABO": {"statsgd": _ours(law, OBABO(step_size=0.1, adapt_step_size=False), chains)},
    }
    if importlib.util.find_spec("blackjax"):
        found["MALA"]["blackjax"] = _blackjax(law, "mala", chains)
        found["OBABO"]["blackjax GHMC"] = _blackjax(law, "ghmc", chains)
    return found


def whole_runs(name: str, *, warmup: int, draws: int, chains: int) -> dict[str, Callable[[], Any]]:
    """Complete runs on a small law: ours, and NumPyro's driver with our kernel and with NUTS."""
    law = targets()[name]

    def ours(kernel: LangevinKernel):
        return lambda: (
            statsgd.sample(
                law,
                kernel,
                warmup=warmup,
                draws=draws,
                chains=chains,
                seed=0,
                progress=False,
                diagnose=False,
            )["posterior"].params.values
        )

    def numpyros(kernel: Callable[[], Any]):
        def run():
            mcmc = MCMC(
                kernel(),  # NUTS keeps what it compiled for one driver, and fails with another
                num_warmup=warmup,
                num_samples=draws,
                num_chains=chains,
                chain_method="vectorized",
                progress_bar=False,
            )
            mcmc.run(jax.random.key(0))
            return np.asarray(mcmc.get_samples(group_by_chain=True)["params"])

        return run

    return {
        "statsgd MALA": ours(MALA(adapt_preconditioner="diagonal")),
        "statsgd OBABO": ours(OBABO(adapt_preconditioner="diagonal")),
        "numpyro MALA": numpyros(lambda: MALA(law.model, adapt_preconditioner="diagonal")),
        "numpyro NUTS": numpyros(lambda: NUTS(law.model, init_strategy=init_to_median)),
    }


def efficiency(name: str, *, warmup: int, draws: int, chains: int, repeats: int) -> xr.Dataset:
    """First and second runs: seconds, and effective draws (the least element's) per second.

    Dims `contestant` and `repeat`, in which rounds of second runs take turns.
    """
    runs = whole_runs(name, warmup=warmup, draws=draws, chains=chains)
    first = np.empty(len(runs))
    second, effective = np.empty((2, len(runs), repeats))
    for repeat in range(-1, repeats):
        for i, run in enumerate(runs.values()):
            begin = time.perf_counter()
            values = run()
            taken = time.perf_counter() - begin
            if repeat < 0:
                first[i] = taken
            else:
                second[i, repeat] = taken
                axes = {"chain_axis": 0, "draw_axis": 1}
                effective[i, repeat] = np.min(array_stats.ess(np.asarray(values, float), **axes))
    dims = ("contestant", "repeat")
    return xr.Dataset(
        {
            "first": ("contestant", first, {"units": "s"}),
            "second": (dims, second, {"units": "s"}),
            "ess_per_second": (dims, effective / second, {"units": "1/s"}),
        },
        coords={"contestant": list(runs)},
    )


def _ours(law: Law, kernel: LangevinKernel, chains: int) -> Runner:
    def runner(steps):
        return statsgd.sample(
            law,
            kernel,
            warmup=0,
            draws=steps,
            chains=chains,
            seed=0,
            progress=False,
            diagnose=False,
            devices=jax.devices(),
        )["posterior"].params.values

    return runner


def _blackjax(law: Law, name: str, chains: int) -> Runner:
    import blackjax

    @functools.partial(jax.jit, static_argnums=0)
    def run(steps):
        position = jnp.zeros((chains, law.dimension))
        keys = jax.random.split(jax.random.key(0), chains)
        if name == "mala":
            algorithm = blackjax.mala(law.log_density, 0.02)
            state = jax.vmap(algorithm.init)(position)
        else:
            algorithm = blackjax.ghmc(law.log_density, 0.1, jnp.ones(law.dimension), 0.1, 0.1)
            state = jax.vmap(algorithm.init)(position, keys)

        def step(state, key):
            moved, _ = jax.vmap(algorithm.step)(jax.random.split(key, chains), state)
            return moved, moved.position

        return jax.lax.scan(step, state, jax.random.split(jax.random.key(1), steps))[1]

    return lambda steps: np.asarray(run(steps))
