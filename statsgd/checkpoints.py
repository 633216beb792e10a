"""Endpoints made elsewhere, as the data tree that comparisons, measures and reports read.

A trained model comes as arrays, as a pytree, as PyTorch tensors or as files: here it gets the names
and the order of parameters that `simulate` would have given it.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
import xarray as xr
from jaxtyping import PyTree

from statsgd.arguments import count, fraction, kinds_checked, positive, told
from statsgd.problems import Problem
from statsgd.problems.parameters import leaf_names
from statsgd.provenance import provenance
from statsgd.running.records import Layout


@kinds_checked
def ensemble(
    params: Any,
    *,
    momentum_buffer: Any = None,
    learning_rate: float | None = None,
    momentum: float | None = None,
    steps: int | None = None,
    loss: Any = None,
    diverged: Any = None,
    problem: Problem | None = None,
    reader: Callable[[Any], Any] | None = None,
    **settings: Any,
) -> xr.DataTree:
    """Endpoints made elsewhere, by any program, as the ensemble that `simulate` would return.

    >>> import numpy as np, statsgd
    >>> points = np.random.default_rng(0).normal(size=(100, 3))
    >>> tree = statsgd.ensemble(points, learning_rate=0.1, batch_size=32)
    >>> dict(tree["endpoints"].sizes)
    {'replica': 100, 'params_dim_0': 3}

    **Arguments:**

    - `params`: one entry a replica, as

        - an array `(n, d)`, of NumPy, JAX or PyTorch;
        - a pytree (dict, `state_dict`, Equinox module, …) whose leaves have a leading axis of n;
        - a list of n checkpoints, each an array, a pytree, or the path of a file: `.npy`, `.npz`,
          `.safetensors`, and with `reader` any other;
        - the path of one file that holds all of them behind a leading axis.

    - `momentum_buffer`: the optimiser's buffer m at the end, in any of these forms; the velocity
      is −m (as in `torch.optim.SGD`, whose buffer is m).
    - `learning_rate`, `momentum`, `steps`: those of the run, if they are known. A comparison then
      knows that the buffer of SGD without momentum is a single gradient, and judges from `steps`
      whether the law's slowest direction has forgotten its start.
    - `loss`: loss at the end, shape `(n,)`; by default that of `problem`, where it is given.
    - `diverged`: truth values `(n,)`, runs that failed. They alone may hold NaN or infinity, and
      nothing reads them unless it is told to.
    - `problem`: whose params these are. It gives the names and the order of parameters, picks them
      out of checkpoints that hold more, and cuts an array `(n, d)` into them.
    - `reader`: `path -> pytree`, for files in other formats: `torch.load`, Orbax's `restore`.
    - `settings`: what else is known of the runs (`batch_size=32`), for provenance.

    Leaves keep their dtype; without `problem` leaves that are no floating numbers (counters,
    functions) are left out, unless all are whole numbers. Parameters have the order of the pytree's
    leaves: that of insertion in a `state_dict`, of the alphabet in a plain dict.

    **Returns** a `DataTree` of the kind "ensemble": `endpoints`, `momentum_buffer` where it is
    given, and `run` with `diverged` and what is known of `loss` and `steps`. Raises `ValueError`
    naming the argument, for leaves without a common leading axis, for checkpoints that differ in
    names or shapes, for entries that are not finite, and for files that nothing here can read.
    """
    known = _settings(learning_rate, momentum, settings)
    points = _numbers("params", _stacked("params", params, reader, problem), problem)
    n = _replicas("params", points)
    failed = _diverged(diverged, n)
    _require_finite("params", points, failed)
    groups = {"endpoints": points}
    if momentum_buffer is not None:
        read = _stacked("momentum_buffer", momentum_buffer, reader, problem)
        buffer = _numbers("momentum_buffer", read, problem)
        _require_alike(points, buffer)
        _require_finite("momentum_buffer", buffer, failed)
        groups["momentum_buffer"] = buffer
    run: dict[str, Any] = {"diverged": failed, "diverged_at": np.where(failed, 0, -1)}
    if steps is not None:
        run["steps"] = np.full(n, count("steps", steps))
    if loss is not None:
        run["loss"] = _per_replica("loss", loss, n)
    elif problem is not None:
        run["loss"] = np.asarray(jax.lax.map(problem.loss, points))
    layout = Layout({}, n, lane="replica", record="step", orders=[leaf_names(points)])
    for group, tree in groups.items():
        layout.require_names(group, tree)
    trees = {group: layout.dataset(tree) for group, tree in (groups | {"run": run}).items()}
    result = xr.DataTree.from_dict(trees)
    taken: dict[str, Any] = {} if steps is None else {"steps": int(steps)}
    result.attrs = provenance("ensemble", made="elsewhere", replicas=n, dynamics=known, **taken)
    return result


def _settings(learning_rate: Any, momentum: Any, others: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of the dynamics, as plain values."""
    known: dict[str, Any] = {}
    if learning_rate is not None:
        known["learning_rate"] = float(positive("learning_rate", learning_rate))
    if momentum is not None:
        known["momentum"] = float(fraction("momentum", momentum))
    for name, value in others.items():
        plain = value.item() if isinstance(value, np.generic) else value
        try:
            known[name] = json.loads(json.dumps(plain))
        except TypeError:
            raise ValueError(
                f"{name} must be a number or a text, a setting for provenance, got {value!r}"
            ) from None
    return known


# Reading.


def _stacked(name: str, value: Any, reader: Any, problem: Problem | None) -> PyTree:
    """`value` as a pytree of arrays with a leading axis of replicas."""
    if isinstance(value, str | os.PathLike):
        return _read(name, value, reader)
    # Params that are a list themselves are told from a list of checkpoints by the problem.
    listed = problem is not None and _alike(value, problem.template)
    if listed or not isinstance(value, list):
        return value
    if not value:
        raise ValueError(f"{name} must hold at least one checkpoint, got an empty list")
    trees = []
    for i, one in enumerate(value):
        read = _read(name, one, reader) if isinstance(one, str | os.PathLike) else one
        # Numbers in a list are a row; arrays in a list are leaves.
        row = isinstance(read, list) and not any(map(np.ndim, read))
        rows = np.asarray(read, dtype=np.float64) if row else read
        trees.append(_arrays(f"{name}[{i}]", rows))
    first = _shapes(trees[0])
    for i, tree in enumerate(trees[1:], 1):
        here = _shapes(tree)
        if here != first:
            raise ValueError(f"{name} must be checkpoints alike, got {_difference(first, here, i)}")
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def _difference(first: dict[str, Any], here: dict[str, Any], i: int) -> str:
    for leaf in dict.fromkeys([*first, *here]):
        if first.get(leaf) != here.get(leaf):
            told = [f"shape {one[leaf]}" if leaf in one else "none" for one in (first, here)]
            return f"{leaf!r} with {told[0]} in the first and {told[1]} in number {i}"
    return f"leaves in another order in number {i}"


def _read(name: str, path: str | os.PathLike[str], reader: Any) -> PyTree:
    """The pytree in a file."""
    where = Path(path)
    if not where.exists():
        raise ValueError(f"{name} must be paths of files that exist, got {str(path)!r}")
    if reader is not None:
        return reader(path)
    match where.suffix:
        case ".npy":
            return np.load(where, allow_pickle=False)
        case ".npz":
            with np.load(where, allow_pickle=False) as archive:
                return {leaf: archive[leaf] for leaf in archive.files}
        case ".safetensors":
            try:
                from safetensors.numpy import load_file
            except ImportError:
                raise ValueError(
                    f"{name} must be read by the package safetensors, which is not installed: "
                    'pip install "statsgd[checkpoints]", or pass reader='
                ) from None
            return load_file(where)
    raise ValueError(
        f"{name} must be .npy, .npz or .safetensors files, got {where.name!r}; for other formats "
        "pass reader=, a function of the path such as torch.load"
    )


def _arrays(name: str, tree: PyTree) -> PyTree:
    """`tree` with NumPy arrays for leaves; functions and the like are no numbers and left out."""

    def array(leaf: Any) -> Any:
        if callable(leaf):
            return None
        if hasattr(leaf, "detach"):  # a PyTorch tensor
            leaf = leaf.detach().cpu()
            leaf = leaf.float() if "bfloat16" in str(leaf.dtype) else leaf
        try:
            found = np.asarray(leaf)
        except (TypeError, ValueError, RuntimeError):
            raise ValueError(f"{name} must hold arrays of numbers, got {leaf!r}") from None
        if found.dtype.kind == "V":  # bfloat16 of JAX
            found = found.astype(np.float32)
        if found.dtype.kind not in "biufc":
            raise ValueError(f"{name} must hold arrays of numbers, got {leaf!r}")
        if found.dtype.kind == "c":
            raise ValueError(f"{name} must be real, got dtype {found.dtype}")
        return found

    numbers, _ = eqx.partition(tree, lambda leaf: not callable(leaf))
    return jax.tree.map(array, numbers)


def _numbers(name: str, tree: PyTree, problem: Problem | None) -> PyTree:
    """The floating leaves of `tree`, each with a leading axis; as those of `problem`, if given."""
    arrays = _arrays(name, tree)
    leaves = jax.tree.leaves(arrays)
    if not leaves:
        raise ValueError(f"{name} must hold at least one array, got {told(tree)}")
    if len(leaves) == 1 and _alike(arrays, 0.0):
        if leaves[0].ndim < 2:
            raise ValueError(
                f"{name} must have shape (n, d), one row an endpoint, got {leaves[0].shape}"
            )
        if problem is not None:
            return _cut(name, leaves[0], problem)
    if problem is not None:
        arrays = _of_problem(name, arrays, problem)
    if all(leaf.dtype.kind in "iub" for leaf in jax.tree.leaves(arrays)):
        return jax.tree.map(lambda leaf: leaf.astype(np.float64), arrays)
    floating, _ = eqx.partition(arrays, lambda leaf: leaf.dtype.kind == "f")
    return floating


def _cut(name: str, points: Any, problem: Problem) -> PyTree:
    """Rows of flat parameters as the pytree of the problem."""
    template = problem.template
    whole, flat = jax.tree.leaves(template), (len(points), problem.dimension)
    if len(whole) == 1 and points.shape[1:] == whole[0].shape:
        return jax.tree.map(lambda _: points, template)
    if points.shape != flat:
        raise ValueError(f"{name} must have shape (n, {flat[1]}) for this problem, got "
                         f"{points.shape}")  # fmt: skip
    ends = np.cumsum([int(np.prod(leaf.shape)) for leaf in whole])[:-1]
    parts = np.split(points, ends, axis=1)
    shaped = [p.reshape(len(points), *leaf.shape) for p, leaf in zip(parts, whole, strict=True)]
    return jax.tree.unflatten(jax.tree.structure(template), shaped)


def _of_problem(name: str, arrays: PyTree, problem: Problem) -> PyTree:
    """The leaves that the problem's params have, by name, in its structure."""
    found = dict(zip(leaf_names(arrays), jax.tree.leaves(arrays), strict=True))
    wanted, shapes = problem.names, [leaf.shape for leaf in jax.tree.leaves(problem.template)]
    missing = [leaf for leaf in wanted if leaf not in found]
    if missing:
        raise ValueError(
            f"{name} must hold the params {wanted} of the problem, got {list(found)}: "
            f"{', '.join(missing)} missing"
        )
    for leaf, shape in zip(wanted, shapes, strict=True):
        if found[leaf].shape[1:] != shape:
            raise ValueError(
                f"{name} {leaf!r} must have shape (n, {', '.join(map(str, shape))}) for this "
                f"problem, got {found[leaf].shape}"
            )
    return jax.tree.unflatten(
        jax.tree.structure(problem.template), [found[leaf] for leaf in wanted]
    )


# Checks.


def _replicas(name: str, tree: PyTree) -> int:
    shapes = _shapes(tree)
    leading = {shape[0] if shape else 0 for shape in shapes.values()}
    if len(leading) != 1 or 0 in leading:
        raise ValueError(
            f"{name} must have one leading axis of replicas in every leaf, got shapes {shapes}"
        )
    return leading.pop()


def _alike(tree: PyTree, other: PyTree) -> bool:
    """Whether two pytrees have the same structure."""
    one: Any = jax.tree.structure(tree)
    return one == jax.tree.structure(other)


def _shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree.leaves(tree)
    return dict(zip(leaf_names(tree), (leaf.shape for leaf in leaves), strict=True))


def _require_alike(params: PyTree, buffer: PyTree) -> None:
    if _shapes(params) != _shapes(buffer):
        raise ValueError(
            f"momentum_buffer must have the leaves of params, {_shapes(params)}, got "
            f"{_shapes(buffer)}"
        )


def _diverged(diverged: Any, n: int) -> Any:
    if diverged is None:
        return np.zeros(n, dtype=bool)
    return _per_replica("diverged", diverged, n).astype(bool)


def _per_replica(name: str, values: Any, n: int) -> Any:
    array = jax.tree.leaves(
        _arrays(name, np.asarray(values) if isinstance(values, list) else values)
    )
    if len(array) != 1 or array[0].shape != (n,):
        raise ValueError(f"{name} must have shape ({n},), one entry a replica, got {values!r}")
    return array[0]


def _require_finite(name: str, tree: PyTree, diverged: Any) -> None:
    """Raise `ValueError` for a replica that is not finite and not said to have diverged."""
    leaves: Sequence[Any] = jax.tree.leaves(tree)
    finite = [np.isfinite(leaf).reshape(len(leaf), -1).all(axis=1) for leaf in leaves]
    bad = np.flatnonzero(~(np.logical_and.reduce(finite) | diverged))
    if bad.size:
        listed = ", ".join(map(str, bad[:5])) + (", …" if bad.size > 5 else "")
        raise ValueError(
            f"{name} must be finite, got NaN or infinity in {bad.size} of {len(diverged)} replicas "
            f"({listed}): mark them by diverged=, or leave them out"
        )
