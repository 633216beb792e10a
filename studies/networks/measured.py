"""What the study `real_network` measures of one trained network."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Float, PyTree

import statsgd
from statsgd.diagnosis.gradients import noise_draws, noise_trace, standing
from statsgd.ensembles import endpoint_trajectories, flat
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
    secant_curvature,
    top_eigenpairs,
)
from statsgd.measures.noise.noise_quadrature import NoiseSpectrum
from statsgd.noise import Minibatch
from statsgd.problems import BatchRisk, EmpiricalRisk, linear_twin
from studies.networks.training import (
    ends_of_training,
    near_minima,
    noise_of,
    setting,
    sharpness_of_large_batches,
)

#: Random starts and steps of the quadrature over curvatures.
_STARTS, _DEPTH = 4, 16
#: Replicas where noise and curvature are measured once more, and the quadrature there.
_PILOTS, _PILOT_STARTS, _PILOT_DEPTH = 2, 2, 10
_LOOKS = 6
#: Growth of the noise on the way from which on a law with constant noise is not asked for.
MILD = 1.5


class Compared(NamedTuple):
    """A quantity of replicas beside what the linear chain says of it."""

    measured: Estimate
    plain: Estimate
    """With noise and curvature of the place that replicas leave."""
    piloted: Estimate | None
    """With those of the places where two other replicas end; None where noise grows too much."""


class Setting(NamedTuple):
    """Learning rate, batch size and momentum of replicas, and how far they go."""

    learning_rate: float
    batch_size: int
    momentum: float
    displacement: Compared
    """E|θ_K − θ₀|² after the last step."""
    exponent: Compared
    """Slope of its logarithm on that of K."""
    rise: Compared
    """Rise of L + λ|θ|²/2 after the last step."""
    growth: float
    """Noise where replicas end over that where they start, Tr C̄/Tr C₀."""
    kinks: float
    """Curvature between the ends of a replica's way over the mean of that on it."""


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
    twins: Float[Any, "replica two k"]
    """Squares of distances from their mean along the modes, of replicas and of their linear twins
    on the same batches."""
    dimension: int


def trained(problems: Sequence[EmpiricalRisk | BatchRisk], config: Any) -> list[Found]:
    """Train networks that differ in their weights alone, and look at each of them."""
    problem = problems[0]
    starts = [one.initial_params(jax.random.key(0)) for one in problems]
    small = setting(config, noise_of(problem, config.batch_size))
    ends = ends_of_training(problem, small, starts, config, config.training, config.seed)
    minima = near_minima(problem, ends, config)
    sharp: Sequence[tuple[float, float] | None] = [None] * len(ends)
    if isinstance(problem, EmpiricalRisk):
        sharp = sharpness_of_large_batches(problem, starts, config)
    every = enumerate(zip(ends, minima, sharp, strict=True))
    return [looked_at(problem, *one, config, config.seed + index) for index, one in every]


def looked_at(
    problem: EmpiricalRisk | BatchRisk,
    params: PyTree,
    minimum: PyTree,
    sharp: tuple[float, float] | None,
    config: Any,
    seed: int,
) -> Found:
    """Diagnose a network where its training ends, and follow replicas from the minimum near it."""
    tree = statsgd.diagnose(
        problem,
        params,
        setting(config, noise_of(problem, config.batch_size)),
        modes=config.modes,
        replicas=config.replicas,
        steps=config.steps,
        seed=seed,
        learning_coefficient=False,
        progress=config.progress,
    )
    below = config.weight_decay + float(top_eigenpairs(problem, minimum, 1, double=False).values[0])
    settings = followed(problem, minimum, below, config, seed)
    shuffled = None
    if isinstance(problem, EmpiricalRisk):
        shuffled = reshuffled(problem, params, tree, config, seed)
    twins = beside_twins(problem, params, tree, config, seed)
    return Found(tree, settings, below, sharp, shuffled, twins, problem.dimension)


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
    """Replicas of every stable setting of the grid against quadratures over noise and curvature.

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
    own = noise_of(problem, config.batch_size)
    spectrum = noise_spectrum(
        problem, params, setting(config, own), starts=_STARTS, depth=_DEPTH, seed=seed, double=False
    )
    at_start, factor = _noise_trace(problem, params, own, seed), own.variance_factor(problem)
    rows = []
    for rate, size, momentum in grid:
        noise = noise_of(problem, size)
        sgd = statsgd.SGD(rate, noise, momentum, config.weight_decay)
        # Noise of independent batches is that of examples over their number.
        scale = noise.variance_factor(problem) / factor
        squares, steps, ends = _away(problem, params, sgd, config, seed + 1)
        pilots = [problem.unflatten(end) for end in ends[:_PILOTS]]
        growth = float(np.mean([_noise_trace(problem, at, own, seed) for at in pilots])) / at_start
        spectra = [] if growth >= MILD else [
            noise_spectrum(
                problem, at, sgd, starts=_PILOT_STARTS, depth=_PILOT_DEPTH,
                seed=seed + 3 + index, checkpoint=params, double=False,
            )
            for index, at in enumerate(pilots)
        ]  # fmt: skip
        said = spectrum.with_noise_times(scale), spectra, sgd
        way = secant_curvature(problem, params, pilots[0])
        rises = _rises(problem, params, ends[_PILOTS:], config.weight_decay)
        rows.append(
            Setting(
                rate,
                size,
                momentum,
                _compared(
                    mean_over_clusters(squares[_PILOTS:, -1]),
                    predicted_displacement,
                    *said,
                    steps[-1:],
                ),
                _compared(_exponent(squares[_PILOTS:], steps), predicted_exponent, *said, steps),
                _compared(mean_over_clusters(rises), predicted_rise, *said, steps[-1:]),
                growth,
                way.between / way.on_the_way,
            )
        )
    return rows


def _away(
    problem: Any, params: PyTree, sgd: statsgd.SGD, config: Any, seed: int
) -> tuple[Float[Any, "replica step"], Any, Float[Any, "replica d"]]:
    """|θ_K − θ₀|² of replicas at a few steps K, these, and where they end."""
    steps = np.unique(np.geomspace(config.steps / 10, config.steps, _LOOKS).round()).astype(int)
    run = statsgd.simulate(
        problem,
        sgd,
        steps=config.steps,
        replicas=config.grid_replicas + _PILOTS,
        seed=seed,
        start=params,
        observe={"square": _Distance(params)},
        observe_at=steps.tolist(),
        progress=config.progress,
        devices=jax.devices(),
        allow_unstable=True,
    )
    squares = run["observables"]["square"].transpose("replica", "step").values.astype(float)
    return squares, steps, endpoint_trajectories(run, problem.names).params[:, 0]


def _compared(
    measured: Estimate,
    predicted: Callable[..., Estimate],
    plain: NoiseSpectrum,
    spectra: Sequence[NoiseSpectrum],
    sgd: statsgd.SGD,
    steps: Any,
) -> Compared:
    """What replicas do, and what the chain predicts of it by each spectrum."""
    of_start, *of_pilots = (
        _single(predicted(spectrum, sgd, steps.tolist())) for spectrum in (plain, *spectra)
    )
    if not of_pilots:
        return Compared(measured, of_start, None)
    values, errors = (
        np.array(column) for column in zip(*(of[:2] for of in of_pilots), strict=True)
    )
    number = len(of_pilots)
    error = np.hypot(values.std(ddof=1), np.sqrt(np.mean(errors**2))) / np.sqrt(number)
    return Compared(measured, of_start, Estimate(float(values.mean()), float(error), number))


def _single(found: Estimate) -> Estimate:
    """An estimate of one number as one of numbers, whatever its shape."""
    value, error = (np.ravel(part)[0] for part in found[:2])
    return found._replace(value=float(value), standard_error=float(error))


def _noise_trace(problem: Any, params: PyTree, noise: Minibatch, seed: int) -> float:
    gradient = standing(problem, params).gradient
    draws = None
    if not noise.knows_examples(problem):
        draws = noise_draws(problem, params, noise, gradient, seed)
    return float(noise_trace(problem, params, noise, gradient, draws).value)


def _exponent(squares: Float[Any, "replica step"], steps: Any) -> Estimate:
    return jackknife(lambda mean: displacement_exponent(steps.astype(float), mean), squares)


def _rises(
    problem: Any, params: PyTree, ends: Float[Any, "replica d"], decay: float
) -> Float[Any, " replica"]:
    begin = _regularised(problem, params, decay)
    return np.array([_regularised(problem, problem.unflatten(end), decay) - begin for end in ends])


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


def beside_twins(
    problem: EmpiricalRisk | BatchRisk, params: PyTree, tree: xr.DataTree, config: Any, seed: int
) -> Float[Any, "replica two k"]:
    """Half as many replicas as of the diagnosis, and their linear twins on the same batches."""
    modes = tree["curvature"].to_dataset()["direction"].values
    both, alive = [], np.ones(config.replicas // 2, dtype=bool)
    for one in (problem, linear_twin(problem, params)):
        run = statsgd.simulate(
            one,
            setting(config, noise_of(problem, config.batch_size)),
            steps=config.steps,
            replicas=config.replicas // 2,
            seed=seed + 6,
            start=params,
            progress=config.progress,
            devices=jax.devices(),
            allow_unstable=True,
        )
        # Far from the checkpoint a twin diverges where SGD does not: pairs are of two that live.
        alive &= ~run["run"].to_dataset()["diverged"].values
        both.append(flat(run["endpoints"].to_dataset(), ("replica", "step"), problem.names)[:, 0])
    pairs = np.stack(both, axis=1)[alive] @ modes
    return (pairs - pairs.mean(axis=0)) ** 2


def over_groups(values: Any, k: int) -> Sequence[tuple[str, Any]]:
    """Groups of eight modes, each with its part of an array over modes."""
    return [(f"modes {i + 1}–{min(i + 8, k)}", values[i : i + 8]) for i in range(0, k, 8)]
