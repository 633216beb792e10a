"""Fluctuation–dissipation relations: do the endpoints of SGD obey what stationarity implies?"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Float

from statsgd.arguments import finite_array, fraction, kinds_checked, non_negative, positive
from statsgd.dynamics.optimiser import OptaxDynamics
from statsgd.dynamics.sgd import SGD
from statsgd.ensembles import endpoint_trajectories, trajectories
from statsgd.estimate import Estimate
from statsgd.measures.runs.averages import cut, mean_over_clusters, stretch_count
from statsgd.precision import in_double_precision
from statsgd.problems import Problem

_POINTS_AT_ONCE = 256


class FluctuationDissipation(NamedTuple):
    """Both sides of a relation, and their difference with its error."""

    left: Estimate
    right: Estimate
    gap: Estimate
    """left − right; `gap.deviation(0)` is Student's t, `gap.p_value(0)` its p-value."""

    @property
    def relative_gap(self) -> Any:
        """The gap over the mean of the sides."""
        return 2 * self.gap.value / (self.left.value + self.right.value)


def first_fluctuation_relation(
    params: Float[Any, "replica step d"],
    gradients: Float[Any, "replica step d"],
    momentum_buffer: Float[Any, "replica step d"],
    learning_rate: Any,
    momentum: Any = 0.0,
    directions: Float[Any, "d k"] | None = None,
) -> FluctuationDissipation:
    """The first relation, at stationarity for any loss and noise, i.i.d. batches:

        ⟨θ·∇⟩ = (η/2)(1+β) ⟨|m|²⟩

    θ and m are those after the same step, ∇ = ∇L + λθ at that θ. It tests stationarity and the
    white noise at once: reshuffled batches fail it. With stochastic gradients in place of ∇ (see
    `stochastic_gradients`) it holds for every stationary sequence, and tests that alone. Every
    direction must be stationary, flat ones too.

    Replicas are independent; a few of them, or one long run, are cut into stretches long against
    the correlation time, so that the p-value holds for correlated steps too. θ is taken from the
    mean of the other clusters, which changes no expectation at stationarity and lowers the error.

    **Arguments:** `directions`, columns along which the relation is tested one by one (it holds
    along each); by default the sum over all parameters.

    Raises `ValueError` for shapes that do not fit and runs too short for an error.

    Source: Yaida (2018), arXiv:1810.00004, with momentum; the centring is derived.

    Numbers are float64.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)  # θ' = θ − m with m = θ + noise: white in time
    >>> noise = rng.normal(size=(50, 41, 1))
    >>> params, buffer = -noise[:, 1:], -noise[:, :-1] + noise[:, 1:]
    >>> found = first_fluctuation_relation(params, params, buffer, learning_rate=1.0)
    >>> bool(abs(found.gap.deviation(0.0)) < 4)
    True
    """
    theta, grad, buffer = _same_shape(params, gradients, momentum_buffer)
    factor = _factor(learning_rate, momentum)
    if directions is not None:
        q = np.asarray(finite_array("directions", directions, ndim=2), dtype=np.float64)
        theta, grad, buffer = theta @ q, grad @ q, buffer @ q

    def summed(values: Any) -> Any:
        return values if directions is not None else values.sum(axis=-1, keepdims=True)

    theta = theta - theta.mean(axis=(0, 1))
    cuts = stretch_count(summed(theta * grad - factor * buffer**2))
    forces = cut(grad, cuts).mean(axis=1)
    centres = cut(theta, cuts).mean(axis=1)
    others = (centres.sum(axis=0) - centres) / (len(centres) - 1)
    left = summed(cut(theta * grad, cuts).mean(axis=1) - others * forces)
    right = summed(factor * cut(buffer**2, cuts).mean(axis=1))
    return _relation(left, right, directions is None)


def second_fluctuation_relation(
    gradients: Float[Any, "replica step d"],
    curvature_along_buffer: Float[Any, "replica step"],
    learning_rate: Any,
    momentum: Any = 0.0,
) -> FluctuationDissipation:
    """The second relation, exact for a quadratic loss, else up to O(η²) without momentum:

        ⟨|∇|²⟩ = (η/2)(1+β) ⟨mᵀ(H + λI)m⟩

    **Arguments:** `gradients` ∇L + λθ; `curvature_along_buffer` mᵀ(H + λI)m at the same steps.
    Errors as in `first_fluctuation_relation`, without its centring. Raises as there.

    Source: Yaida (2018), arXiv:1810.00004, without momentum; with it derived.

    Numbers are float64.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)  # θ' = θ − m with m = θ + noise, H = 1
    >>> noise = rng.normal(size=(50, 41, 1))
    >>> params, buffer = -noise[:, 1:], -noise[:, :-1] + noise[:, 1:]
    >>> found = second_fluctuation_relation(params, (buffer**2).sum(-1), learning_rate=1.0)
    >>> bool(abs(found.gap.deviation(0.0)) < 4)
    True
    """
    grad = np.asarray(finite_array("gradients", gradients, ndim=3), dtype=np.float64)
    bent = np.asarray(
        finite_array("curvature_along_buffer", curvature_along_buffer, ndim=2), dtype=np.float64
    )
    if bent.shape != grad.shape[:2]:
        raise ValueError(
            f"curvature_along_buffer must have shape {grad.shape[:2]}, got {bent.shape}"
        )
    left, right = np.sum(grad**2, axis=2), _factor(learning_rate, momentum) * bent
    cuts = stretch_count(left - right)
    left, right = (cut(side, cuts).mean(axis=1)[:, None] for side in (left, right))
    return _relation(left, right, True)


def stochastic_gradients(
    momentum_buffer: Float[Any, "replica step d"], momentum: Any = 0.0
) -> Float[Any, "replica earlier d"]:
    """ĝ + λθ at all but the last of consecutive steps, m_{k+1} − βm_k, at θ_k.

    >>> import numpy as np
    >>> buffer = np.array([[[1.0], [1.5], [1.75]]])  # one run of three steps
    >>> stochastic_gradients(buffer, momentum=0.5)
    array([[[1.],
            [1.]]])
    """
    buffer = np.asarray(finite_array("momentum_buffer", momentum_buffer, ndim=3), dtype=np.float64)
    return buffer[:, 1:] - float(fraction("momentum", momentum)) * buffer[:, :-1]


@kinds_checked
def full_gradients(
    problem: Problem, params: Float[Any, "replica step d"], weight_decay: Any = 0.0
) -> Float[Any, "replica step d"]:
    """∇L + λθ at every point, in float64.

    >>> import numpy as np
    >>> from statsgd.problems import quadratic
    >>> full_gradients(quadratic(np.diag([3.0, 2.0])), np.ones((1, 1, 2)), weight_decay=0.5)
    array([[[3.5, 2.5]]])
    """
    points = np.asarray(finite_array("params", params, ndim=3), dtype=np.float64)
    decay = float(non_negative("weight_decay", weight_decay))
    found = in_double_precision(_gradients, problem, points.reshape(-1, points.shape[2]))
    return found.reshape(points.shape) + decay * points


def displacement_relations(
    problem: Problem, params: Float[Any, "replica step d"], moved: Float[Any, "replica step d"]
) -> dict[str, FluctuationDissipation]:
    """Two relations for any optimiser, of steps δ = `moved` from θ = `params`, both stationary:

        −⟨θ·δ⟩ = ½ ⟨|δ|²⟩          that |θ|² is as large after as before
        −⟨∇L·δ⟩ = ½ ⟨δᵀHδ⟩         that L is; up to O(δ³) where L is no quadratic

    They know nothing of learning rates, momentum and decay, and test stationarity alone. For SGD
    without momentum the second is `second_fluctuation_relation` times the learning rate. Errors
    and centring as in `first_fluctuation_relation`.

    Source: *derived*, after Yaida (2018), arXiv:1810.00004.
    """
    names = zip(("params", "moved"), (params, moved), strict=True)
    theta, delta = (
        np.asarray(finite_array(name, array, ndim=3), dtype=np.float64) for name, array in names
    )
    if theta.shape != delta.shape:
        raise ValueError(f"moved must have shape {theta.shape}, got {delta.shape}")
    grad = full_gradients(problem, theta)
    rows = (part.reshape(-1, part.shape[2]) for part in (theta, delta))
    bent = in_double_precision(_bends, problem, *rows).reshape(theta.shape[:2]) / 2
    falls = -np.sum(grad * delta, axis=2)
    cuts = stretch_count(falls - bent)
    sides = [cut(side, cuts).mean(axis=1)[:, None] for side in (falls, bent)]
    return {
        "first": first_fluctuation_relation(theta, -delta, delta, 1.0),
        "second": _relation(sides[0], sides[1], True),
    }


@kinds_checked
def fluctuation_dissipation(
    problem: Problem, sgd: SGD | OptaxDynamics, tree: xr.DataTree, *, snapshots: bool = False
) -> dict[str, FluctuationDissipation]:
    """Both relations, `"first"` and `"second"`, for an ensemble of `sgd` on `problem`.

    At the endpoints, or, with `snapshots`, at all kept steps, which must be stationary. Full
    gradients and products with the Hessian are computed at every point. For optimisers other than
    heavy-ball SGD they are the `displacement_relations` of kept steps that follow one another,
    such as `keep=[499, 500, 599, 600]`.

    Raises `ValueError` without momentum buffers, or without such steps, as the relations, and as
    `trajectories`.

    Numbers are float64.

    >>> import numpy as np
    >>> from statsgd import noise, simulate
    >>> from statsgd.problems import quadratic
    >>> bowl, sgd = quadratic(np.eye(1)), SGD(0.1, noise.Isotropic(1.0))
    >>> tree = simulate(bowl, sgd, steps=200, replicas=400, seed=0, progress=False)
    >>> found = fluctuation_dissipation(bowl, sgd, tree)
    >>> {name: bool(abs(one.gap.deviation(0.0)) < 4) for name, one in found.items()}
    {'first': True, 'second': True}
    """
    if not (isinstance(sgd, SGD) and sgd.is_heavy_ball):
        if not snapshots:
            raise ValueError(
                "snapshots must be True for optimisers other than heavy-ball SGD, of whose steps "
                "endpoints say nothing; keep pairs of steps that follow one another"
            )
        path = trajectories(tree, problem.names)
        before = np.flatnonzero(np.diff(path.steps) == 1)
        if not len(before):
            raise ValueError(
                "tree must hold kept steps that follow one another, such as keep=[499, 500], got "
                f"{path.steps.tolist()}"
            )
        theta = path.params[:, before]
        return displacement_relations(problem, theta, path.params[:, before + 1] - theta)
    read = trajectories if snapshots else endpoint_trajectories
    run = read(tree, problem.names)
    if run.momentum_buffer is None:
        raise ValueError("tree must hold momentum buffers (an ensemble of SGD), got none")
    decay = float(sgd.weight_decay)
    grad = full_gradients(problem, run.params, decay)

    rows = (part.reshape(-1, part.shape[2]) for part in (run.params, run.momentum_buffer))
    bent = in_double_precision(_bends, problem, *rows).reshape(run.params.shape[:2])
    bent = bent + decay * np.sum(run.momentum_buffer**2, axis=2)
    eta, beta = sgd.learning_rate, sgd.momentum
    return {
        "first": first_fluctuation_relation(run.params, grad, run.momentum_buffer, eta, beta),
        "second": second_fluctuation_relation(grad, bent, eta, beta),
    }


def _gradients(problem: Problem, points: Float[Any, "n d"]) -> Float[Any, "n d"]:
    return jax.lax.map(lambda flat: _gradient(problem, flat), points, batch_size=_POINTS_AT_ONCE)


def _bends(
    problem: Problem, points: Float[Any, "n d"], buffers: Float[Any, "n d"]
) -> Float[Any, " n"]:
    """mᵀHm at each point θ for its m."""

    def one(pair: tuple[Any, Any]) -> Float[Any, ""]:
        theta, m = pair
        return m @ jax.jvp(lambda at: _gradient(problem, at), (theta,), (m,))[1]

    return jax.lax.map(one, (points, buffers), batch_size=_POINTS_AT_ONCE)


def _gradient(problem: Problem, flat: Float[Any, " d"]) -> Float[Any, " d"]:
    return jnp.asarray(problem.flatten(problem.gradient(problem.unflatten(flat))))


def _factor(learning_rate: Any, momentum: Any) -> float:
    eta, beta = positive("learning_rate", learning_rate), fraction("momentum", momentum)
    return float(eta * (1 + beta) / 2)


def _relation(left: Any, right: Any, alone: bool) -> FluctuationDissipation:
    sides = [side[:, 0] if alone else side for side in (left, right, left - right)]
    return FluctuationDissipation(*(mean_over_clusters(side) for side in sides))


def _same_shape(*arrays: Any) -> list[np.ndarray]:
    names = ("params", "gradients", "momentum_buffer")
    found = [
        np.asarray(finite_array(name, array, ndim=3), dtype=np.float64)
        for name, array in zip(names, arrays, strict=True)
    ]
    for name, array in zip(names, found, strict=True):
        if array.shape != found[0].shape:
            raise ValueError(f"{name} must have shape {found[0].shape}, got {array.shape}")
    return found
