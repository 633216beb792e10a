"""Networks of the study `real_network`, trained side by side: a device of its own for each."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import xarray as xr
from jaxtyping import PyTree

import statsgd
from statsgd.ensembles import endpoint_trajectories
from statsgd.measures import top_eigenpairs
from statsgd.noise import Minibatch
from statsgd.problems import BatchRisk, EmpiricalRisk


def noise_of(problem: EmpiricalRisk | BatchRisk, batch_size: int) -> Minibatch:
    """Independent batches; without repeats, of which there are none in a `batch_risk`."""
    sampling = "with_replacement" if isinstance(problem, EmpiricalRisk) else "without_replacement"
    return Minibatch(batch_size, sampling)


def setting(config: Any, noise: Minibatch) -> statsgd.SGD:
    """The SGD of the study with these batches."""
    return statsgd.SGD(config.learning_rate, noise, config.momentum, config.weight_decay)


def ends_of_training(
    problem: EmpiricalRisk | BatchRisk,
    sgd: statsgd.SGD,
    starts: Sequence[PyTree],
    config: Any,
    steps: int,
    seed: int,
) -> list[PyTree]:
    """The last iterates of one run from each of `starts`."""
    return _last(problem, _run(problem, sgd, _stacked(starts), len(starts), config, steps, seed))


def sharpness_of_large_batches(
    problem: EmpiricalRisk, starts: Sequence[PyTree], config: Any
) -> list[tuple[float, float]]:
    """Largest curvatures where large batches end, after equal steps and after equal epochs.

    One run from each of `starts`, which is looked at when it has seen as many epochs.
    """
    ask = problem, setting(config, Minibatch(config.large_batch))
    epochs = max(config.training * config.batch_size // config.large_batch, 1)
    run = _run(*ask, _stacked(starts), len(starts), config, epochs, config.seed)
    places = [_last(problem, run)]
    if config.training > epochs:
        left = config.training - epochs
        run = _run(*ask, run, len(starts), config, left, config.seed + 1)
    places.insert(0, _last(problem, run))

    def sharpness(params: PyTree) -> float:
        return config.weight_decay + float(
            top_eigenpairs(problem, params, 1, double=False).values[0]
        )

    return [(sharpness(steps), sharpness(epochs)) for steps, epochs in zip(*places, strict=True)]


def near_minima(
    problem: EmpiricalRisk | BatchRisk, places: Sequence[PyTree], config: Any
) -> list[PyTree]:
    """Where SGD comes to from `places` at a tenth of its learning rate, with fresh batches.

    A descent goes on into places that are sharper than SGD goes, and one by fixed batches fits what
    they are made of.
    """
    small = setting(config, noise_of(problem, config.batch_size))
    annealed = dataclasses.replace(small, learning_rate=config.learning_rate / 10)
    return ends_of_training(problem, annealed, places, config, config.annealing, config.seed + 2)


def _run(
    problem: EmpiricalRisk | BatchRisk,
    sgd: statsgd.SGD,
    start: Any,
    number: int,
    config: Any,
    steps: int,
    seed: int,
) -> xr.DataTree:
    return statsgd.simulate(
        problem,
        sgd,
        steps=steps,
        replicas=number,
        seed=seed,
        start=start,
        progress=config.progress,
        devices=jax.devices(),
    )


def _stacked(starts: Sequence[PyTree]) -> PyTree:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts)


def _last(problem: EmpiricalRisk | BatchRisk, run: xr.DataTree) -> list[PyTree]:
    """The last iterates of all replicas."""
    ends = endpoint_trajectories(run, problem.names).params[:, 0]
    return [problem.unflatten(jnp.asarray(end)) for end in ends]
