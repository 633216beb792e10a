"""What the study `real_network` measures of one trained network."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Float, PyTree

import statsgd
from statsgd.diagnosis.gradients import noise_draws, noise_trace, standing
from statsgd.ensembles import endpoint_trajectories
from statsgd.estimate import Estimate
from statsgd.laws import ModeLaw
from statsgd.laws.minimum import displacement_exponent
from statsgd.measures import (
    jackknife,
    mean_over_clusters,
    noise_spectrum,
    predicted_displacement,
    predicted_exponent,
    predicted_rise,
    top_eigenpairs,
)
from statsgd.noise import Minibatch
from statsgd.problems import BatchRisk, EmpiricalRisk, minimise

#: Random starts and steps of the quadrature over curvatures.
_STARTS, _DEPTH = 4, 24
_LOOKS = 6
_ENDS = 2  # at which noise is measured


class Setting(NamedTuple):
    """Learning rate, batch size and momentum of replicas, and how far they go."""

    learning_rate: float
    batch_size: int
    momentum: float
    displacement: tuple[Estimate, Estimate]
    """E|θ_K − θ₀|² after the last step: measured and predicted."""
    exponent: tuple[Estimate, Estimate]
    """Slope of its logarithm on that of K."""
    rise: tuple[Estimate, Estimate]
    """Rise of L + λ|θ|²/2 after the last step."""
    growth: float
    """Noise where replicas end over that where they start, Tr C̄/Tr C₀."""


class Found(NamedTuple):
    """What is measured of one trained network."""

    tree: xr.DataTree
    """Its diagnosis."""
    settings: list[Setting]
    """Whole displacements over the grid, where its settings are stable."""
    below: float
    """Largest curvature, decay included, near the minimum below the checkpoint."""
    sharp: tuple[float, float] | None
    """Largest curvature, decay included, where the large batch ends after as many steps, and after
    as many epochs; None where the loss depends on the batch size."""
    reshuffled: xr.Dataset | None
    """Spread of replicas under reshuffled epochs; None where their noise has no law."""
    dimension: int


def trained(problem: EmpiricalRisk | BatchRisk, config: Any, seed: int) -> Found:
    """Train one network, diagnose where it ends, and follow replicas from there."""
    small = setting(config, noise_of(problem, config.batch_size))
    params = end_of_training(problem, small, config, config.training, seed)
    tree = statsgd.diagnose(
        problem,
        params,
        small,
        modes=config.modes,
        replicas=config.replicas,
        steps=config.steps,
        seed=seed,
        learning_coefficient=False,
        progress=config.progress,
    )
    minimum = near_minimum(problem, params, config, seed)
    below = float(top_eigenpairs(problem, minimum, 1).values[0]) + config.weight_decay
    settings = followed(problem, minimum, below, config, seed)
    sharp = shuffled = None
    if isinstance(problem, EmpiricalRisk):
        sharp = sharpness_of_large_batches(problem, config, seed)
        shuffled = reshuffled(problem, params, tree, config, seed)
    return Found(tree, settings, below, sharp, shuffled, problem.dimension)


def noise_of(problem: EmpiricalRisk | BatchRisk, batch_size: int) -> Minibatch:
    """Independent batches; without repeats, of which there are none in a `batch_risk`."""
    sampling = "with_replacement" if isinstance(problem, EmpiricalRisk) else "without_replacement"
    return Minibatch(batch_size, sampling)


def setting(config: Any, noise: Minibatch) -> statsgd.SGD:
    """The SGD of the study with these batches."""
    return statsgd.SGD(config.learning_rate, noise, config.momentum, config.weight_decay)


def end_of_training(
    problem: EmpiricalRisk | BatchRisk,
    sgd: statsgd.SGD,
    config: Any,
    steps: int,
    seed: int,
    start: PyTree = None,
) -> PyTree:
    """The last iterate of one run, from `start` or from fresh weights."""
    run = statsgd.simulate(
        problem, sgd, steps=steps, replicas=1, seed=seed, start=start, progress=config.progress
    )
    ends = run["endpoints"].to_dataset()
    flat = np.concatenate([ends[name].values[0].ravel() for name in problem.names])
    return problem.unflatten(jnp.asarray(flat))


def sharpness_of_large_batches(
    problem: EmpiricalRisk, config: Any, seed: int
) -> tuple[float, float]:
    """Largest curvatures where large batches end, after equal steps and after equal epochs."""
    sgd = setting(config, Minibatch(config.large_batch))
    equal_epochs = max(config.training * config.batch_size // config.large_batch, 1)

    def sharpness(steps: int) -> float:
        params = end_of_training(problem, sgd, config, steps, seed)
        return float(top_eigenpairs(problem, params, 1).values[0]) + config.weight_decay

    return sharpness(config.training), sharpness(equal_epochs)


def near_minimum(
    problem: EmpiricalRisk | BatchRisk, params: PyTree, config: Any, seed: int
) -> PyTree:
    """Where a descent of the whole loss from `params` comes to, in the precision of training.

    The whole loss of batches is not at hand, and a descent by fixed ones would fit what they are
    made of. There the learning rate falls to a tenth instead.
    """
    if isinstance(problem, BatchRisk):
        small = setting(config, noise_of(problem, config.batch_size))
        annealed = dataclasses.replace(small, learning_rate=config.learning_rate / 10)
        return end_of_training(problem, annealed, config, config.annealing, seed + 2, params)
    found = minimise(
        problem,
        params,
        weight_decay=config.weight_decay,
        tolerance=1e-6,
        max_iterations=config.descent,
    )
    return jax.tree.map(
        lambda leaf, like: jnp.asarray(leaf, like.dtype), found.params, problem.template
    )


class _Distance(eqx.Module):
    """|θ − θ₀|²: an observable."""

    origin: PyTree

    def __call__(self, params: PyTree) -> Float[Any, ""]:
        """The square."""
        away = jax.tree.map(lambda leaf, start: jnp.sum((leaf - start) ** 2), params, self.origin)
        return jnp.asarray(sum(jax.tree.leaves(away)))


def stable(learning_rate: float, momentum: float, curvature: float) -> bool:
    """Whether steps of the whole loss are stable."""
    return learning_rate * curvature < 2 * (1 + momentum)


def followed(
    problem: EmpiricalRisk | BatchRisk, params: PyTree, steepest: float, config: Any, seed: int
) -> list[Setting]:
    """Replicas of every stable setting of the grid against one quadrature over noise and curvature.

    They leave from near a minimum, with the largest curvature `steepest`: at an iterate of SGD the
    loss still falls along directions that curve downwards, which no linear chain survives for long.
    """
    grid = [
        (rate, size, momentum)
        for rate, size, momentum in config.grid(isinstance(problem, EmpiricalRisk))
        if stable(rate, momentum, steepest)
    ]
    if not grid:
        return []
    base = setting(config, noise_of(problem, config.batch_size))
    spectrum = noise_spectrum(problem, params, base, starts=_STARTS, depth=_DEPTH, seed=seed)
    own = noise_of(problem, config.batch_size)

    def strength(points: Any) -> float:
        return float(np.mean([_noise_trace(problem, point, own, seed) for point in points]))

    at_start = strength([problem.flatten(params)])
    factor = own.variance_factor(problem)
    begin, rows = _regularised(problem, params, config.weight_decay), []
    for rate, size, momentum in grid:
        sgd = statsgd.SGD(rate, noise_of(problem, size), momentum, config.weight_decay)
        # Noise of independent batches is that of examples over their number.
        scale = noise_of(problem, size).variance_factor(problem) / factor
        mine = spectrum._replace(
            weights=scale * spectrum.weights, noise_trace=scale * spectrum.noise_trace
        )
        steps = np.unique(np.geomspace(config.steps / 10, config.steps, _LOOKS).round()).astype(int)
        run = statsgd.simulate(
            problem,
            sgd,
            steps=config.steps,
            replicas=config.grid_replicas,
            seed=seed + 1,
            start=params,
            observe={"square": _Distance(params)},
            observe_at=steps.tolist(),
            progress=config.progress,
            devices=jax.devices(),
            allow_unstable=True,
        )
        squares = run["observables"]["square"].transpose("replica", "step").values.astype(float)
        ends = endpoint_trajectories(run, problem.names).params[:, 0]
        rises = [
            _regularised(problem, problem.unflatten(end), config.weight_decay) - begin
            for end in ends
        ]
        last = [config.steps]
        rows.append(
            Setting(
                rate,
                size,
                momentum,
                (
                    mean_over_clusters(squares[:, -1]),
                    _first(predicted_displacement(mine, sgd, last)),
                ),
                (_exponent(squares, steps), predicted_exponent(mine, sgd, steps.tolist())),
                (
                    mean_over_clusters(np.array(rises)),
                    _first(predicted_rise(mine, sgd, last)),
                ),
                strength(ends[:_ENDS]) / at_start,
            )
        )
    return rows


def _noise_trace(problem: Any, point: Any, noise: Minibatch, seed: int) -> float:
    params = problem.unflatten(point)
    gradient = standing(problem, params).gradient
    draws = None
    if not noise.knows_examples(problem):
        draws = noise_draws(problem, params, noise, gradient, seed)
    return float(noise_trace(problem, params, noise, gradient, draws).value)


def _exponent(squares: Float[Any, "replica step"], steps: Any) -> Estimate:
    return jackknife(lambda mean: displacement_exponent(steps.astype(float), mean), squares)


def _first(found: Estimate) -> Estimate:
    return Estimate(float(found.value[0]), float(found.standard_error[0]), found.clusters)


def _regularised(problem: Any, params: PyTree, decay: float) -> float:
    flat = np.asarray(problem.flatten(params), dtype=np.float64)
    return float(problem.loss(params)) + decay / 2 * float(flat @ flat)


def reshuffled(
    problem: EmpiricalRisk, params: PyTree, tree: xr.DataTree, config: Any, seed: int
) -> xr.Dataset:
    """Variances along the modes of replicas under reshuffled epochs, and those of their law."""
    seen = tree["curvature"].to_dataset()
    noise = Minibatch(config.batch_size, "reshuffle")
    sgd, factor = setting(config, noise), noise.variance_factor(problem) * config.batch_size
    law = ModeLaw(
        seen["curvature"].values,
        factor * seen["noise_covariance"].values,
        config.learning_rate,
        config.momentum,
        config.steps,
        gradient=seen["gradient"].values,
        num_batches=problem.num_examples // config.batch_size,
        modes=seen["direction"].values,
        checkpoint=np.asarray(problem.flatten(params)),
    )
    run = statsgd.simulate(
        problem,
        sgd,
        steps=config.steps,
        replicas=config.replicas,
        seed=seed,
        start=params,
        progress=config.progress,
        devices=jax.devices(),
    )
    along = law.project(run)["endpoints"]["params"].values
    predicted = np.diagonal(np.asarray(law.covariance()))
    columns = {"variance": along.var(axis=0, ddof=1), "predicted_variance": predicted}
    return xr.Dataset({name: ("mode", values) for name, values in columns.items()})


def over_groups(values: Any, k: int) -> Sequence[tuple[str, Any]]:
    """Groups of eight modes, each with its part of an array over modes."""
    return [(f"modes {i + 1}–{min(i + 8, k)}", values[i : i + 8]) for i in range(0, k, 8)]
