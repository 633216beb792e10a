"""Which minimum a point belongs to: where the gradient flow from it ends."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, PyTree

from statsgd.arguments import count, finite_array, kinds_checked, positive
from statsgd.estimate import Estimate
from statsgd.measures.runs.averages import mean_over_clusters
from statsgd.precision import over_points
from statsgd.problems import Problem

#: Index of points that belong to no declared minimum, or whose flow did not arrive anywhere.
UNASSIGNED = -1

_GROW, _SHRINK, _SAFETY = 4.0, 0.2, 0.9


class FlowEnd(NamedTuple):
    """Where gradient flows end; arrays over points."""

    params: Float[Any, "*n d"]
    gradient_norm: Float[Any, "*n"]
    converged: Bool[Any, "*n"]
    """Whether the gradient fell to the tolerance within the steps allowed."""


class BasinAssignment(NamedTuple):
    """The minimum that each point flows to."""

    index: Int[Any, " n"]
    """Row of `minima`, or −1 (`UNASSIGNED`)."""
    end: FlowEnd
    minima: Float[Any, "k d"]

    def shares(self) -> Estimate:
        """Share of independent points in each basin `(k,)`; short of one by the unassigned."""
        held = self.index[:, None] == np.arange(len(self.minima))
        return mean_over_clusters(held.astype(np.float64))


class BasinLabel(eqx.Module):
    """The index of a point's basin as a JAX function of flat params, for comparisons.

    `compare(…, effects=[BasinProbabilities(BasinLabel(problem, minima, radius), basins)])` follows
    the gradient flow of endpoints and of draws alike. Points without a basin have the index −1.

    **Arguments:** `minima` `(k, d)` flat; `radius` (params), how far from one of them the flow may
    end; `tolerance` and `steps` as in `gradient_flow`.
    """

    problem: Problem
    minima: Float[Any, "k d"]
    radius: Float[Any, ""]
    tolerance: Float[Any, ""]
    steps: int = eqx.field(static=True)

    def __init__(
        self,
        problem: Problem,
        minima: Any,
        radius: float,
        *,
        tolerance: float = 1e-6,
        steps: int = 10_000,
    ):
        self.problem = problem
        self.minima = np.asarray(finite_array("minima", minima, ndim=2), dtype=np.float64)
        if self.minima.shape[1] != problem.dimension or not len(self.minima):
            raise ValueError(
                f"minima must have shape (k, {problem.dimension}), got {self.minima.shape}"
            )
        self.radius = positive("radius", radius)
        self.tolerance = positive("tolerance", tolerance)
        self.steps = count("steps", steps)

    def __call__(self, params: Float[Any, " d"]) -> Int[Any, ""]:
        """The index of the basin of flat `params`."""
        return self.assign(params)[0]

    def assign(self, params: Float[Any, " d"]) -> tuple[Int[Any, ""], FlowEnd]:
        """The index and where the flow ended."""
        end = _flow(params, self.problem, self.tolerance, self.steps)
        away = jnp.linalg.norm(jnp.asarray(self.minima, dtype=params.dtype) - end.params, axis=1)
        nearest = jnp.argmin(away)
        held = end.converged & (away[nearest] <= self.radius)
        return jnp.where(held, nearest, UNASSIGNED), end


@kinds_checked
def gradient_flow(
    problem: Problem,
    params: Float[Any, "n d"],
    *,
    tolerance: float = 1e-6,
    steps: int = 10_000,
) -> FlowEnd:
    """Follow dθ/dt = −∇L from every row of `params` until |∇L| ≤ `tolerance` (loss/params).

    Bogacki–Shampine steps of third order, wrong by at most 1e-3 of how far they go, in float64, all
    points at once. Steps settle at about 2.5/h_max, so that arriving takes about as many steps as
    the condition number of the minimum, times ln(1/tolerance). After `steps` of them a point is
    given up as not converged; so is one whose loss falls for ever.

    Raises `ValueError` for a tolerance or a number of steps that is not positive.

    >>> import numpy as np
    >>> from statsgd.problems import quartic_wells
    >>> end = gradient_flow(quartic_wells(), np.array([[-0.5], [0.5]]))
    >>> end.params.round(3).tolist(), end.converged.tolist()
    ([[-1.0], [1.0]], [True, True])
    """
    points = np.asarray(finite_array("params", params, ndim=2), dtype=np.float64)
    enough, most = float(positive("tolerance", tolerance)), count("steps", steps)
    return over_points(_flow, points, problem, enough, np.int32(most))


@kinds_checked
def assign_basins(
    problem: Problem,
    params: Float[Any, "n d"],
    minima: Sequence[PyTree] | Float[Any, "k d"] | None = None,
    *,
    radius: float,
    tolerance: float = 1e-6,
    steps: int = 10_000,
) -> BasinAssignment:
    """The basin of every row of `params`: the minimum its gradient flow ends at.

    This is the basin of attraction itself, where cutting at a saddle or at a distance is a guess.
    Flows that do not arrive, or that end further than `radius` from every declared minimum (at a
    saddle, at a minimum that was not declared) are unassigned, index −1, and counted.

    **Arguments:** `minima`, params pytrees or flat rows; by default the ends of the flows, those
    within `radius` of each other being one, in order of increasing loss. `tolerance`, `steps` as
    in `gradient_flow`.

    Raises `ValueError` for a radius that is not positive and for minima of another shape.

    Numbers are float64.

    >>> import numpy as np
    >>> from statsgd.problems import quartic_wells
    >>> points, minima = np.array([[-0.5], [0.5]]), np.array([[-1.0], [1.0]])
    >>> assign_basins(quartic_wells(), points, minima, radius=0.1).index.tolist()
    [0, 1]
    """
    reach = float(positive("radius", radius))
    if minima is None:
        end = gradient_flow(problem, params, tolerance=tolerance, steps=steps)
        found = cluster_minima(problem, end.params[end.converged], reach)
        away = np.linalg.norm(end.params[:, None] - found[None], axis=2)
        nearest = np.argmin(away, axis=1) if len(found) else np.zeros(len(away), dtype=int)
        held = end.converged & (away.min(axis=1, initial=np.inf) <= reach)
        return BasinAssignment(np.where(held, nearest, UNASSIGNED), end, found)
    rows = minima
    if not hasattr(minima, "shape"):
        rows = np.stack([np.asarray(problem.flatten(one), dtype=np.float64) for one in minima])
    label = BasinLabel(problem, rows, reach, tolerance=tolerance, steps=steps)
    points = np.asarray(finite_array("params", params, ndim=2), dtype=np.float64)
    index, end = over_points(_assigned, points, label)
    return BasinAssignment(index.astype(int), end, label.minima)


def cluster_minima(problem: Problem, ends: Float[Any, "n d"], radius: float) -> Float[Any, "k d"]:
    """One point for all `ends` within `radius` of it, the lowest first.

    Source: greedy, from the lowest loss up.
    """
    points = np.asarray(finite_array("ends", ends, ndim=2), dtype=np.float64)
    if not len(points):
        return points
    losses = over_points(_loss, points, problem)
    left, found = points[np.argsort(losses, kind="stable")], []
    while len(left):
        found.append(left[0])
        left = left[np.linalg.norm(left - left[0], axis=1) > radius]
    return np.stack(found)


def _assigned(params: Float[Any, " d"], label: BasinLabel) -> tuple[Any, FlowEnd]:
    return label.assign(params)


def _loss(params: Float[Any, " d"], problem: Problem) -> Float[Any, ""]:
    return problem.loss(problem.unflatten(params))


def _flow(start: Float[Any, " d"], problem: Problem, tolerance: Any, steps: Any) -> FlowEnd:
    def down(at):
        return -jnp.asarray(problem.flatten(problem.gradient(problem.unflatten(at))))

    def going(state):
        _, slope, _, taken = state
        norm = jnp.linalg.norm(slope)
        return (norm > tolerance) & jnp.isfinite(norm) & (taken < steps)

    def step(state):
        at, k1, h, taken = state
        k2 = down(at + h * k1 / 2)
        k3 = down(at + h * 3 * k2 / 4)
        there = at + h * (2 * k1 + 3 * k2 + 4 * k3) / 9
        k4 = down(there)
        wrong = jnp.linalg.norm(h * (-5 * k1 / 72 + k2 / 12 + k3 / 9 - k4 / 8))
        # Relative to the way this step goes, with a floor of the precision of the parameters.
        allowed = 1e-3 * jnp.linalg.norm(there - at) + 1e-12 * (1 + jnp.linalg.norm(at))
        ratio = jnp.where(jnp.isfinite(wrong), wrong / allowed, jnp.inf)
        taken_it = ratio <= 1
        factor = _SAFETY * jnp.maximum(ratio, 1e-6) ** (-1 / 3)
        at, k1 = jnp.where(taken_it, there, at), jnp.where(taken_it, k4, k1)
        return at, k1, h * jnp.clip(factor, _SHRINK, _GROW), taken + 1

    slope = down(start)
    # A first step that moves little: the error control takes over from there.
    first = 1e-3 * (1 + jnp.linalg.norm(start)) / jnp.maximum(jnp.linalg.norm(slope), 1e-30)
    begin = (start, slope, jnp.minimum(first, 1.0).astype(start.dtype), jnp.zeros((), jnp.int32))
    at, slope, _, _ = jax.lax.while_loop(going, step, begin)
    norm = jnp.linalg.norm(slope)
    return FlowEnd(at, norm, norm <= tolerance)
