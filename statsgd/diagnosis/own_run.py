"""Parameters that the user saved on a run of their own, against the stationary law in modes."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import xarray as xr
from jaxtyping import Float, PyTree

from statsgd.diagnosis.part import Part, judged
from statsgd.diagnosis.request import Request
from statsgd.diagnosis.spread import AGREEMENT
from statsgd.laws.networks.mode_law import ModeLaw
from statsgd.measures.runs.averages import cut, jackknife, stretch_count
from statsgd.problems import Problem

#: Relaxation times that a run must cover for its variance along a mode to mean anything.
_COVERED = 40


def saved_points(checkpoints: PyTree | Sequence[PyTree], request: Request) -> Float[Any, "T d"]:
    """Flat parameters of a list of pytrees, or of one whose leaves have a leading axis of times."""
    problem = request.problem
    shapes = [leaf.shape for leaf in jax.tree.leaves(problem.template)]

    def flat(tree: PyTree) -> Any:
        found = [np.shape(leaf) for leaf in jax.tree.leaves(tree)]
        if found != shapes:
            raise ValueError(f"checkpoints must have leaves of shapes {shapes}, got {found}")
        return np.asarray(problem.flatten(tree), dtype=np.float64)

    leaves = jax.tree.leaves(checkpoints)
    stacked = len(leaves) == len(shapes) and all(
        np.shape(leaf)[1:] == shape for leaf, shape in zip(leaves, shapes, strict=True)
    )
    if stacked:
        times = len(leaves[0])
        rows = [jax.tree.map(lambda leaf: leaf[i], checkpoints) for i in range(times)]  # noqa: B023
    else:
        rows = [_parameters(problem, row) for row in checkpoints]
    points = np.stack([flat(row) for row in rows]) if rows else np.zeros((0, problem.dimension))
    if len(points) < 2:
        raise ValueError(f"checkpoints must be at least 2 of one run, got {len(points)}")
    if not np.all(np.isfinite(points)):
        raise ValueError("checkpoints must be finite, got NaN or infinite parameters")
    return points


def _parameters(problem: Problem, model: PyTree) -> PyTree:
    try:
        return problem.parameters(model)
    except ValueError as error:
        raise ValueError(f"checkpoints must hold parameters of the problem: {error}") from None


def own_run(request: Request, law: ModeLaw, points: Float[Any, "T d"]) -> xr.Dataset:
    """Variance along every mode over the run, with its error, and that of the stationary law."""
    x = np.asarray(law.project(points))
    h = law.curvatures
    predicted, times = _stationary(request, law), len(points) * request.time * h
    value, error = np.full((2, len(h)), np.nan)
    for i in np.flatnonzero(times >= _COVERED):
        moments = _over_phases(x[:, i] - x[:, i].mean(), request, law)
        try:
            cuts = stretch_count(moments[..., 1])
        except ValueError:
            continue
        clusters = cut(moments, cuts).mean(axis=1)
        found = jackknife(lambda mean: mean[1] - mean[0] ** 2, clusters)
        value[i], error[i] = found.value, found.standard_error
    return xr.Dataset(
        {
            "variance": ("mode", value),
            "variance_error": ("mode", error),
            "predicted_variance": ("mode", predicted),
            "relaxation_times": ("mode", times),
            "saved": len(points),
        },
        coords={"mode": np.arange(1, len(h) + 1)},
    )


def _over_phases(series: Float[Any, " T"], request: Request, law: ModeLaw) -> Float[Any, "1 t 2"]:
    """x and x², averaged over as many saves as it takes to come back to one phase of an epoch.

    Phases differ in variance, and would look like a correlation that never ends.
    """
    batches = law.num_batches or 1
    phases = batches // math.gcd(batches, request.steps)
    whole = series[: len(series) // phases * phases].reshape(-1, phases)
    return np.stack([whole.mean(axis=1), np.mean(whole**2, axis=1)], axis=-1)[None]


def _stationary(request: Request, law: ModeLaw) -> Float[Any, " k"]:
    """Stationary variance of every mode, infinite where it has none.

    Under epochs, the mean over the phases at which points are saved, the ends among them.
    """
    eta, beta = float(request.sgd.learning_rate), float(request.sgd.momentum)
    h = law.curvatures
    stable = (h > 0) & (eta * h < 2 * (1 + beta))
    predicted, batches = np.full(len(h), np.inf), law.num_batches or 1
    phases = range(0, batches, math.gcd(batches, request.steps))
    kept, own = np.ix_(stable, stable), law.independent_noise
    variances = [
        ModeLaw(
            h[stable],
            law.noise_covariance[kept],
            eta,
            beta,
            num_batches=law.epoch,
            phase=phase,
            independent_noise=None if own is None else own[kept],
        ).covariance()
        for phase in phases
    ]
    predicted[stable] = np.mean([one.diagonal() for one in variances], axis=0)
    return predicted


def told(numbers: xr.Dataset, request: Request) -> Part:
    """How well the stationary law describes the run."""
    ratio = (numbers["variance"] / numbers["predicted_variance"]).values
    error = (numbers["variance_error"] / numbers["predicted_variance"]).values
    known = np.isfinite(ratio)
    finding = (
        f"{int(numbers['saved'])} saved checkpoints of one run, {request.steps} steps apart, are "
        f"long enough for {int(known.sum())} of {ratio.size} modes: {_COVERED} of their relaxation "
        "times (1−β)/(ηh) or more."
    )
    title, source = "Your own run", "stationary law of the linear chain, derived"
    if not known.any():
        return Part(title, finding, "Save more checkpoints, or leave them out: fresh replicas need "
                    "no stationary run.", "undecided: the run is too short", source)  # fmt: skip
    mean = ratio[known].mean()
    width = float(np.sqrt(np.sum(error[known] ** 2)) / known.sum())
    finding += (
        f" Its variance along them over that of the stationary law, with curvature and noise of "
        f"the checkpoint, is {mean:.2f} ± {width:.2f} on average."
    )
    words = f"variance along the modes is {mean:.2f} ± {width:.2f} times the law's"
    verdict = f"{judged(mean - 1, width, AGREEMENT, 'predicted', 'off')}: {words}"
    return Part(title, finding, "", verdict, source)
