"""A model as what is trained and what is not: its parameters, its constants, and back."""

import sys
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray, PyTree

from statsgd.arguments import finite_array, told
from statsgd.problems.parameters import as_arrays, leaf_names, listed_numbers, require_real

#: A pytree of truth values, names, or a function of a parameter's name or of its array.
type Trainable = PyTree | Callable[[Any], bool]


class Start(eqx.Module):
    """Where parameters come from: a model, a pytree, or a function of a key that returns one.

    Parameters are the inexact arrays of it. Everything else is constant: integers, functions,
    Python's floats within a module (a rate of dropout), running statistics (`eqx.nn.State`), what
    `trainable` leaves out, and of Flax NNX modules all that is no `nnx.Param`. Python's floats in
    dicts, lists and tuples are parameters. A function of a key must give the same constants for
    every key.
    """

    params: PyTree | None
    draw: Callable[[PRNGKeyArray], PyTree] | None
    chosen: PyTree
    """The model with True for each parameter and None for the rest; dicts for NNX modules."""
    constants: PyTree
    """The same with None for parameters."""
    graphs: PyTree | None
    """What NNX modules are besides parameters, in their places; None without any."""

    @classmethod
    def of(
        cls,
        initial_params: Any,
        trainable: Trainable | None = None,
        *,
        batch_statistics: bool = True,
    ) -> "Start":
        """From a model, a params pytree or a function `key -> params`.

        **Arguments:** `trainable`, the parameters that are trained, by default all: a pytree of
        truth values like the model (or like its outer part), names or a list of them as in
        `Problem.names`, a function of the name of a parameter, or of its array if it says yes to
        no name. The others keep their value; `batch_statistics`, whether a model may normalise
        over a batch, which one example has not.

        Raises `ValueError` where nothing is left to train, and for parameters that are complex or
        not finite.
        """
        initial_params = listed_numbers(initial_params)
        model, graph = initial_params, _opened(initial_params)
        draw, what = None, "initial_params"
        if not _has_parameters(graph):
            if not callable(initial_params):
                raise ValueError(
                    "initial_params must be a pytree of floating arrays or a function of a key, "
                    f"got {told(initial_params)}"
                )
            draw, what = initial_params, "initial_params(key)"
            model = initial_params(jax.random.key(0))
            graph = _opened(model)
            if not _has_parameters(graph):
                raise ValueError(f"{what} must return a pytree with at least one array")
        if not batch_statistics:
            _require_no_batch_statistics(model)
        chosen = _trained(graph, trainable)
        numbers, constants = eqx.partition(graph, chosen)
        require_real(what, numbers)
        if draw is None:
            for name, leaf in zip(leaf_names(numbers), jax.tree.leaves(numbers), strict=True):
                finite_array(f"initial_params {name!r}", leaf)
        return cls(
            as_arrays(numbers) if draw is None else None,
            draw,
            jax.tree.map(lambda mine: mine or None, chosen),
            constants,
            _graphs(model),
        )

    def __call__(self, key: PRNGKeyArray) -> PyTree:
        """Parameters for `key`."""
        if self.draw is None:
            return as_arrays(self.params)
        return as_arrays(eqx.filter(_opened(self.draw(key)), self._mask))

    @property
    def _mask(self) -> PyTree:
        """Whether each leaf of the model is a parameter."""
        return eqx.combine(self.chosen, jax.tree.map(lambda _: False, self.constants))

    def select(self, model: Any) -> PyTree:
        """The parameters of a whole model, or `model` if it is a pytree of parameters already.

        Raises `ValueError` for anything else.
        """
        model = listed_numbers(model)
        wanted: Any = jax.tree.structure(self.chosen)
        if jax.tree.structure(model) == wanted:
            return model
        given = _opened(model)
        # The result is of the problem's own structure, whatever constants the model has.
        for mask in (self.chosen, self._mask):
            mine, leaves = jax.tree.leaves(mask), jax.tree.leaves(given)
            if len(leaves) == len(mine) and leaf_names(given) == leaf_names(mask):
                found = [leaf for leaf, one in zip(leaves, mine, strict=True) if one]
                return jax.tree.unflatten(wanted, found)
        raise ValueError(
            f"params must be those of the problem, {leaf_names(self.chosen)}, or a whole model "
            f"with them, got the structure {jax.tree.structure(model)}"
        )

    def complete(self, params: PyTree) -> PyTree:
        """The model with these parameters, as the user's functions expect it."""
        whole = eqx.combine(
            self.select(params), jax.tree.map(_renewed, self.constants, is_leaf=_is_state)
        )
        if self.graphs is None:
            return whole
        return jax.tree.map(
            lambda graph, part: graph.module(part) if isinstance(graph, _Graph) else part,
            self.graphs,
            whole,
            is_leaf=lambda node: isinstance(node, _Graph),
        )


def _require_no_batch_statistics(model: Any) -> None:
    nnx = _nnx()
    layers = jax.tree.leaves(model, is_leaf=lambda node: isinstance(node, eqx.nn.BatchNorm))
    at_work = any(isinstance(one, eqx.nn.BatchNorm) and not one.inference for one in layers)
    for module in [] if nnx is None else _modules(model):
        statistics = any(isinstance(part, nnx.BatchStat) for part in vars(module).values())
        at_work |= statistics and getattr(module, "use_running_average", None) is not True
    if at_work:
        raise ValueError(
            "initial_params must have no batch statistics for a loss of single examples, got batch "
            "normalisation at work: give problems.batch_risk a loss of whole batches, or freeze "
            "the statistics (model.eval() in Flax NNX, eqx.nn.inference_mode in Equinox)"
        )


def _parameters(graph: PyTree) -> PyTree:
    """Which leaves are inexact arrays, or floats in plain containers."""

    def within(node: Any) -> PyTree:
        if _is_state(node):
            return jax.tree.map(lambda _: False, node)
        return _is_inexact_array(node)

    def of(node: Any) -> PyTree:
        if _is_custom(node):
            return jax.tree.map(within, node, is_leaf=_is_state)
        return _is_inexact_array(node) or isinstance(node, float | complex)

    return jax.tree.map(of, graph, is_leaf=_is_custom)


def _has_parameters(graph: PyTree) -> bool:
    return any(jax.tree.leaves(_parameters(graph)))


def _is_custom(node: Any) -> bool:
    """Whether `node` is a module or the like, and neither a plain container nor a leaf."""
    return not isinstance(node, dict | list | tuple) and not jax.tree_util.all_leaves([node])


def _is_state(node: Any) -> bool:
    """Running statistics of Equinox's layers."""
    return isinstance(node, eqx.nn.State | eqx.nn.StateIndex)


def _renewed(node: Any) -> Any:
    """Statistics as values of the program that is traced: Equinox compares them with new ones."""
    if not isinstance(node, eqx.nn.State):
        return node
    return jax.tree.map(lambda leaf: jnp.where(jnp.ones((), bool), leaf, leaf), node)


def _is_inexact_array(leaf: Any) -> bool:
    # Equinox's own test of the like fails for tracers.
    is_array = isinstance(leaf, np.generic | np.ndarray | jax.Array)
    return is_array and bool(jnp.issubdtype(jnp.result_type(leaf), jnp.inexact))


def _trained(graph: PyTree, trainable: Trainable | None) -> PyTree:
    """Which leaves are parameters that are trained."""
    possible = _parameters(graph)
    if trainable is None:
        return possible
    numbers = eqx.filter(graph, possible)
    names, arrays = leaf_names(numbers), jax.tree.leaves(numbers)
    listed = [trainable] if isinstance(trainable, str) else trainable
    if isinstance(listed, list | tuple | set | frozenset) and all(
        isinstance(name, str) for name in listed
    ):
        unknown = sorted(set(listed) - set(names))
        if unknown:
            raise ValueError(f"trainable must be names among {names}, got {unknown}")
        kept = [name in listed for name in names]
    elif callable(listed) and jax.tree_util.all_leaves([listed]):
        kept = _said(listed, names) or _said(listed, arrays) or []
    else:
        kept = _marked(graph, listed, jax.tree.leaves(possible))
    if not any(kept):
        raise ValueError(f"trainable must choose at least one of {names}, got none of them")
    each = iter(kept)
    return jax.tree.map(lambda mine: mine and next(each), possible)


def _said(predicate: Callable[[Any], Any], values: list[Any]) -> list[bool] | None:
    """What a predicate says of all values; None if it cannot take them or says no to all."""
    try:
        said = [bool(predicate(value)) for value in values]
    except (TypeError, AttributeError, ValueError):
        return None
    return said if any(said) else None


def _marked(graph: PyTree, marks: PyTree, possible: list[bool]) -> list[bool]:
    """What a pytree of truth values says of each leaf that is a parameter."""
    left_out = object()
    try:
        marked = jax.tree.leaves(eqx.filter(graph, _opened(marks), replace=left_out))
    except (ValueError, TypeError) as error:
        raise ValueError(
            "trainable must be truth values in the structure of initial_params, names, or a "
            f"function of either: {error}"
        ) from None
    return [leaf is not left_out for leaf, mine in zip(marked, possible, strict=True) if mine]


def _nnx() -> Any:
    """Flax's NNX where it was loaded; elsewhere nothing can be of it."""
    return sys.modules.get("flax.nnx")


def _is_module(node: Any) -> bool:
    nnx = _nnx()
    return nnx is not None and isinstance(node, nnx.Module | nnx.State)


def _modules(model: PyTree) -> list[Any]:
    """Every NNX module within `model`."""
    nnx = _nnx()
    outer = jax.tree.leaves(model, is_leaf=_is_module)
    whole = [one for one in outer if isinstance(one, nnx.Module)]
    nodes = [node for one in whole for _, node in nnx.iter_graph(one)]
    return [node for node in nodes if isinstance(node, nnx.Module)]


def _opened(model: PyTree) -> PyTree:
    """`model` with dicts of their `nnx.Param`s in the place of NNX modules."""
    nnx = _nnx()

    def opened(node: Any) -> Any:
        if not _is_module(node):
            return node
        return nnx.to_pure_dict(node if isinstance(node, nnx.State) else nnx.state(node, nnx.Param))

    return model if nnx is None else jax.tree.map(opened, model, is_leaf=_is_module)


def _graphs(model: PyTree) -> PyTree | None:
    """What NNX modules are besides parameters, in their places; None without any."""
    leaves, structure = jax.tree.flatten(model, is_leaf=_is_module)
    found = [_is_module(leaf) and _Graph.of(leaf) for leaf in leaves]
    return jax.tree.unflatten(structure, found) if any(found) else None


class _Graph(eqx.Module):
    """An NNX module without the values of its parameters, or a `nnx.State` without them."""

    graph: Any = eqx.field(static=True)
    structures: tuple[Any, ...] = eqx.field(static=True)
    rest: list[Any]

    @classmethod
    def of(cls, module: Any) -> "_Graph":
        nnx = _nnx()
        if isinstance(module, nnx.State):
            return cls(None, (jax.tree.structure(module),), [])
        graph, params, rest = nnx.split(module, nnx.Param, ...)
        leaves, structure = jax.tree.flatten(rest)
        return cls(graph, (jax.tree.structure(params), structure), leaves)

    def module(self, params: PyTree) -> Any:
        """The module with these parameters, a dict; new at every call, so that it may change."""
        numbers = jax.tree.unflatten(self.structures[0], jax.tree.leaves(params))
        if self.graph is None:
            return numbers
        return _nnx().merge(self.graph, numbers, jax.tree.unflatten(self.structures[1], self.rest))
