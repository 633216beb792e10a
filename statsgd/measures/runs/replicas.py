"""Measures over an ensemble: any measure, at every replica, in one compiled call."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np
import xarray as xr
from jaxtyping import PyTree

from statsgd.arguments import count, kinds_checked
from statsgd.description import describe
from statsgd.measures.curvature.probes import chunked_map, random_key
from statsgd.precision import in_double_precision
from statsgd.problems import Problem
from statsgd.problems.parameters import leaf_names
from statsgd.provenance import provenance

type Measure = Callable[..., PyTree]


@kinds_checked
def over_replicas(
    measure: Measure,
    problem: Problem,
    params: PyTree,
    /,
    *,
    seed: int | None = None,
    replicas_at_once: int = 8,
    **options: Any,
) -> PyTree:
    """`measure(problem, params, **options)` at every entry of the leading axis of `params`.

    The measures of this package whose first arguments are `(problem, params)` can be passed
    (matrices as `curvature_matrix`), and any function of that form that JAX can trace and whose
    result is an array or a pytree of arrays. One compilation serves all replicas, which are
    computed in double precision, at most `replicas_at_once` together: memory grows with that number
    alone. Where a measure would raise at a single point (a vanishing loss, say), its entry is not
    finite.

    **Arguments:** `seed`, for measures that draw random numbers: replica i gets `seed=key` of a
    stream of its own. Without it all use the measure's own seed, so the same random numbers, which
    makes small differences between replicas visible and their errors dependent.

    **Returns** what the measure returns, with a leading axis of replicas, as NumPy arrays. Raises
    `ValueError` unless `params` has the leaves of the problem's params with one common leading
    axis.

    >>> import numpy as np
    >>> from statsgd.measures import trace
    >>> from statsgd.problems import quartic_wells
    >>> over_replicas(trace, quartic_wells(), np.array([[-1.0], [0.0], [1.0]])).value
    array([ 2., -1.,  2.])
    """
    at_once = count("replicas_at_once", replicas_at_once)
    indices = np.arange(_replicas(problem, params), dtype=np.uint32)
    key = None if seed is None else random_key(seed)
    bound = _Bound(measure, options)
    return in_double_precision(_at_each, bound, problem, params, indices, key, at_once)


class _Bound(eqx.Module):
    """A measure with its options, of which only arrays are traced."""

    measure: Measure
    options: dict[str, Any]


def _at_each(
    bound: _Bound, problem: Problem, params: PyTree, indices: Any, key: Any, at_once: int
) -> PyTree:
    def at(one: tuple[PyTree, Any]) -> PyTree:
        point, index = one
        drawn = {} if key is None else {"seed": jax.random.fold_in(key, index)}
        return bound.measure(problem, point, **bound.options, **drawn)

    return chunked_map(at, (params, indices), at_once)


@kinds_checked
def over_endpoints(
    measure: Measure,
    problem: Problem,
    endpoints: xr.DataTree,
    /,
    *,
    name: str | None = None,
    group: str = "endpoints",
    seed: int | None = None,
    replicas_at_once: int = 8,
    **options: Any,
) -> xr.Dataset:
    """A measure at every replica of an ensemble of `simulate`: `over_replicas`, labelled.

    **Arguments:** `endpoints`, the `DataTree` of `simulate`; `group`, where the parameters are read
    (`"snapshots"` for those kept on the way); `name`, of the variable where the measure returns one
    array, by default that of the measure. The others as in `over_replicas`.

    **Returns** a `Dataset` with a variable for each array the measure returns, the dims of the
    ensemble (`replica`, before it those of a grid, after it `step` for snapshots) before its own,
    and `diverged` where the ensemble says so: such replicas are measured where they froze. Raises
    `ValueError` where the group or one of the problem's params is missing.

    Numbers are float64.

    >>> from statsgd import SGD, noise, problems, simulate
    >>> problem, sgd = problems.quartic_wells(), SGD(0.1, noise.NoNoise())
    >>> runs = simulate(problem, sgd, steps=50, replicas=2, seed=0, progress=False)
    >>> def loss(problem, params):
    ...     return problem.loss(params)
    >>> over_endpoints(loss, problem, runs)["loss"].values.round(4)
    array([-0.25, -0.25])
    """
    if group not in endpoints.children:
        raise ValueError(
            f"endpoints must be a DataTree of simulate with the group {group!r}, got the groups "
            f"{sorted(endpoints.children)}"
        )
    ensemble = endpoints[group].to_dataset()
    missing = [variable for variable in problem.names if variable not in ensemble]
    if missing:
        raise ValueError(
            f"endpoints must hold the params {problem.names} of the problem, got "
            f"{list(ensemble.data_vars)}"
        )
    leaves, structure = jax.tree.flatten(problem.template)
    arrays = [ensemble[variable] for variable in problem.names]
    depth = arrays[0].ndim - len(leaves[0].shape)
    dims, shape = arrays[0].dims[:depth], arrays[0].shape[:depth]
    number = math.prod(shape)
    stacked = [
        array.values.reshape(number, *leaf.shape)
        for array, leaf in zip(arrays, leaves, strict=True)
    ]
    found = over_replicas(
        measure,
        problem,
        jax.tree.unflatten(structure, stacked),
        seed=seed,
        replicas_at_once=replicas_at_once,
        **options,
    )
    function = getattr(measure, "func", measure)  # of a partial
    title = name or str(getattr(function, "__name__", type(function).__name__))
    variables: dict[str, Any] = {}
    for variable, leaf in zip(leaf_names(found, title), jax.tree.leaves(found), strict=True):
        values = leaf.reshape(*shape, *leaf.shape[1:])
        own = [f"{variable}_dim_{i}" for i in range(values.ndim - depth)]
        variables[variable] = ((*dims, *own), values)
    coords = {dim: ensemble.coords[dim] for dim in dims if dim in ensemble.coords}
    if "run" in endpoints.children and "diverged" in endpoints["run"]:
        variables["diverged"] = endpoints["run"]["diverged"].variable
    settings = {key: describe(value) for key, value in options.items()}
    drawn: dict[str, Any] = {} if seed is None else {"seed": int(seed)}
    attributes = provenance("measure", measure=title, options=settings, group=group, **drawn)
    return xr.Dataset(variables, coords=coords, attrs=attributes)


def _replicas(problem: Problem, params: PyTree) -> int:
    expected, found = jax.tree.leaves(problem.template), jax.tree.leaves(params)
    shapes = [np.shape(leaf) for leaf in found]
    leading = {shape[0] for shape in shapes if shape}
    wanted = [leaf.shape for leaf in expected]
    if len(leading) != 1 or 0 in leading or [shape[1:] for shape in shapes] != wanted:
        raise ValueError(
            f"params must have leaves of shapes {wanted} behind one leading axis of replicas, got "
            f"{shapes}"
        )
    return leading.pop()
