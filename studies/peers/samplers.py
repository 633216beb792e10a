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
from statsgd.kernels import MALA, OBABO, SGLD, LangevinKernel
from statsgd.laws import FlooredLossScaledLaw, Gibbs, Law
from statsgd.noise import Minibatch
from statsgd.problems import linear_regression, quadratic
from studies.peers.race import Runner

_SGLD_STEP = 0.02  # times the curvature of the mean loss


def targets() -> dict[str, Law]:
    """Small laws of the catalogue: a Gaussian of eight curvatures, and heavy tails."""
    curvatures = np.geomspace(1.0, 10.0, 8)
    return {
        "Gibbs, d=8": Gibbs(quadratic(np.diag(curvatures)), 1.0),
        "FlooredLossScaledLaw": next(iter(FlooredLossScaledLaw.examples())),
    }


def steppers(
    chains: int, *, examples: int = 1792, batch_size: int = 8
) -> dict[str, dict[str, Runner]]:
    """By kernel: ours against blackjax's, all draws kept.

    MALA and OBABO on the Gaussian, SGLD on a linear regression of as many parameters.
    """
    law = targets()["Gibbs, d=8"]
    data = _regression_data(examples, law.dimension)
    subsampled = SGLD.from_problem(
        linear_regression(*data),
        Minibatch(batch_size, "with_replacement"),
        step_size=_SGLD_STEP / examples,
    )
    found: dict[str, dict[str, Runner]] = {
        "MALA": {"statsgd": _ours(law, MALA(step_size=0.02, adapt_step_size=False), chains)},
        "OBABO": {"statsgd": _ours(law, OBABO(step_size=0.1, adapt_step_size=False), chains)},
        "SGLD": {"statsgd": _ours(None, subsampled, chains)},
    }
    if importlib.util.find_spec("blackjax"):
        found["MALA"]["blackjax"] = _blackjax(law, "mala", chains)
        found["OBABO"]["blackjax GHMC"] = _blackjax(law, "ghmc", chains)
        found["SGLD"]["blackjax"] = _blackjax_sgld(data, batch_size, chains)
    return found


def whole_runs(
    name: str, *, warmup: int, draws: int, chains: int
) -> dict[str, Callable[[], tuple[np.ndarray, int]]]:
    """Complete runs on a small law: ours, and NumPyro's driver with our kernel and with NUTS.

    Each returns its draws, and how many gradients were taken for them, warm-up not counted.
    """
    law = targets()[name]

    def ours(kernel: LangevinKernel):
        def run():
            tree = statsgd.sample(
                law,
                kernel,
                warmup=warmup,
                draws=draws,
                chains=chains,
                seed=0,
                progress=False,
                diagnose=False,
            )
            return tree["posterior"].params.values, draws * chains

        return run

    def numpyros(kernel: Callable[[], Any], steps: str = ""):
        def run():
            mcmc = MCMC(
                kernel(),  # NUTS keeps what it compiled for one driver, and fails with another
                num_warmup=warmup,
                num_samples=draws,
                num_chains=chains,
                chain_method="vectorized",
                progress_bar=False,
            )
            mcmc.run(jax.random.key(0), extra_fields=(steps,) if steps else ())
            taken = int(np.sum(mcmc.get_extra_fields()[steps])) if steps else draws * chains
            return np.asarray(mcmc.get_samples(group_by_chain=True)["params"]), taken

        return run

    return {
        "statsgd MALA": ours(MALA(adapt_preconditioner="diagonal")),
        "statsgd OBABO": ours(OBABO(adapt_preconditioner="diagonal")),
        "numpyro MALA": numpyros(lambda: MALA(law.model, adapt_preconditioner="diagonal")),
        "numpyro NUTS": numpyros(
            lambda: NUTS(law.model, init_strategy=init_to_median), steps="num_steps"
        ),
    }


def efficiency(name: str, *, warmup: int, draws: int, chains: int, repeats: int) -> xr.Dataset:
    """First and second runs: seconds, and effective draws (the least element's) per second and
    per gradient.

    Dims `contestant` and `repeat`, in which rounds of second runs take turns.
    """
    runs = whole_runs(name, warmup=warmup, draws=draws, chains=chains)
    first = np.empty(len(runs))
    second, effective, gradients = np.empty((3, len(runs), repeats))
    for repeat in range(-1, repeats):
        for i, run in enumerate(runs.values()):
            begin = time.perf_counter()
            values, number = run()
            taken = time.perf_counter() - begin
            if repeat < 0:
                first[i] = taken
            else:
                second[i, repeat], gradients[i, repeat] = taken, number
                axes = {"chain_axis": 0, "draw_axis": 1}
                effective[i, repeat] = np.min(array_stats.ess(np.asarray(values, float), **axes))
    dims = ("contestant", "repeat")
    return xr.Dataset(
        {
            "first": ("contestant", first, {"units": "s"}),
            "second": (dims, second, {"units": "s"}),
            "ess_per_second": (dims, effective / second, {"units": "1/s"}),
            "ess_per_gradient": (dims, effective / gradients),
        },
        coords={"contestant": list(runs)},
    )


def _regression_data(examples: int, dimension: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(examples, dimension)).astype(np.float32)
    truth = inputs @ rng.normal(size=dimension)
    return inputs, (truth + rng.normal(size=examples)).astype(np.float32)


def _ours(law: Law | None, kernel: LangevinKernel, chains: int) -> Runner:
    def runner(steps):
        tree = statsgd.sample(
            law,
            kernel,
            warmup=0,
            draws=steps,
            chains=chains,
            seed=0,
            progress=False,
            diagnose=False,
            devices=jax.devices(),
        )
        (draws,) = tree["posterior"].data_vars.values()
        return draws.values

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


def _blackjax_sgld(data: tuple[np.ndarray, np.ndarray], size: int, chains: int) -> Runner:
    import blackjax
    from blackjax.sgmcmc.gradients import grad_estimator

    inputs, targets = jax.tree.map(jnp.asarray, data)
    number, dimension = inputs.shape

    def log_likelihood(theta, example):
        return -0.5 * (example[0] @ theta - example[1]) ** 2

    algorithm = blackjax.sgld(grad_estimator(lambda theta: 0.0, log_likelihood, number))

    @functools.partial(jax.jit, static_argnums=0)
    def run(steps):
        def one(key, theta):
            batch_key, key = jax.random.split(key)
            chosen = jax.random.randint(batch_key, (size,), 0, number)
            batch = inputs[chosen], targets[chosen]
            return algorithm.step(key, theta, batch, _SGLD_STEP / number)

        def step(theta, key):
            moved = jax.vmap(one)(jax.random.split(key, chains), theta)
            return moved, moved

        keys = jax.random.split(jax.random.key(1), steps)
        return jax.lax.scan(step, jnp.zeros((chains, dimension)), keys)[1]

    return lambda steps: np.asarray(run(steps))
