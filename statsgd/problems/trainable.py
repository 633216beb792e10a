"""Which leaves of a model are parameters, and which of these are trained."""

import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from statsgd.arguments import told
from statsgd.problems import nnx_modules
from statsgd.problems.parameters import leaf_names, listed_by_name

#: A pytree of truth values, names, a function of a parameter's name or of its array, or a filter
#: of Flax NNX.
type Trainable = PyTree | Callable[..., bool]


def parameters(model: PyTree) -> PyTree:
    """`nnx_modules.opened(model)` with True for every parameter and False for the rest.

    Those are inexact arrays, and floats in plain containers; of the variables of Flax Linen what is
    in the collection "params".
    """

    def within(node: Any) -> PyTree:
        if is_state(node):
            return jax.tree.map(lambda _: False, node)
        if is_variables(node):
            return jax.tree_util.tree_map_with_path(_in_params, node)
        return _is_inexact_array(node)

    def of(node: Any) -> PyTree:
        if nnx_modules.is_module(node):
            return jax.tree.map(_is_inexact_array, nnx_modules.opened(node))
        if _is_custom(node) or is_variables(node):
            return jax.tree.map(within, node, is_leaf=lambda x: is_state(x) or is_variables(x))
        return _is_inexact_array(node) or isinstance(node, float | complex)

    return jax.tree.map(of, model, is_leaf=lambda node: _is_custom(node) or is_variables(node))


def is_state(node: Any) -> bool:
    """Whether `node` is running statistics of Equinox's layers."""
    return isinstance(node, eqx.nn.State | eqx.nn.StateIndex)


def is_variables(node: Any) -> bool:
    """Whether `node` is variables of Flax Linen: collections, and "params" among them."""
    # Elsewhere a dict is a dict, whatever its keys are called.
    return (
        "flax.linen" in sys.modules
        and isinstance(node, Mapping)
        and not nnx_modules.is_module(node)
        and "params" in node
        and all(isinstance(collection, Mapping) for collection in node.values())
    )


def _in_params(path: tuple[Any, ...], leaf: Any) -> bool:
    number = _is_inexact_array(leaf) or isinstance(leaf, float | complex)
    return number and getattr(path[0], "key", None) == "params"


def _is_custom(node: Any) -> bool:
    """Whether `node` is a module or the like, and neither a plain container nor a leaf."""
    return not isinstance(node, dict | list | tuple) and not jax.tree_util.all_leaves([node])


def _is_inexact_array(leaf: Any) -> bool:
    # Equinox's own test of the like fails for tracers.
    is_array = isinstance(leaf, np.generic | np.ndarray | jax.Array)
    return is_array and bool(jnp.issubdtype(jnp.result_type(leaf), jnp.inexact))


def trained(model: PyTree, trainable: Trainable | None) -> PyTree:
    """`parameters(model)` with False also for what is not trained.

    Raises `ValueError` for a choice of nothing, and for what chooses by anything but truth values.
    """
    possible = parameters(model)
    if trainable is None:
        return possible
    graph = nnx_modules.opened(model)
    numbers = eqx.filter(graph, possible)
    names, mine = leaf_names(numbers), jax.tree.leaves(possible)
    listed = [trainable] if isinstance(trainable, str) else trainable
    if _is_filter(listed):
        outer = jax.tree.leaves(model, is_leaf=nnx_modules.is_module)
        if not any(map(nnx_modules.is_module, outer)):
            what = f"the class {listed.__name__}" if isinstance(listed, type) else told(listed)
            raise ValueError(
                "trainable must be truth values, names, or a function of one name or one array, "
                f"got {what}: a filter of Flax NNX is for its modules"
            )
        said = jax.tree.leaves(nnx_modules.matches(model, listed, _truth))
        kept = [each for each, one in zip(said, mine, strict=True) if one]
    elif (named := listed_by_name("trainable", listed, names)) is not None:
        kept = named
    elif callable(listed) and jax.tree_util.all_leaves([listed]):
        kept = _said(listed, names, jax.tree.leaves(numbers))
    else:
        kept = _marked(graph, listed, mine)
    if not any(kept):
        raise ValueError(f"trainable must choose at least one of {names}, got none of them")
    each = iter(kept)
    return jax.tree.map(lambda mine: mine and next(each), possible)


def _is_filter(given: Any) -> bool:
    """Whether `given` chooses as NNX does: by a class, by path and value, or by any of such."""
    if isinstance(given, list | tuple):
        return bool(given) and all(map(_is_filter, given))
    if isinstance(given, type) or given is ...:
        return True
    if not (callable(given) and jax.tree_util.all_leaves([given])):
        return False
    try:
        signature = inspect.signature(given)
    except (TypeError, ValueError):
        return False
    asked = [
        parameter
        for parameter in signature.parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    return len(asked) == 2


def _said(predicate: Callable[[Any], Any], names: list[str], arrays: list[Any]) -> list[bool]:
    """What a predicate says of all names; of all arrays if it cannot take those or chooses none."""
    answers, refused = [], ""
    for values in (names, arrays):
        try:
            said = [predicate(value) for value in values]
        except (TypeError, AttributeError, ValueError) as error:
            refused = str(error)
            continue
        if all(map(_is_truth, said)) and any(said):
            return [bool(one) for one in said]
        answers.append(said)
    if not answers:
        raise ValueError(
            f"trainable must be a function of one name or of one array, got {told(predicate)}, "
            f"which takes neither: {refused}"
        )
    return [_truth(one) for said in answers for one in said]


def _is_truth(value: Any) -> bool:
    return isinstance(value, bool) or (
        getattr(value, "dtype", None) == np.bool_ and getattr(value, "shape", None) == ()
    )


def _truth(value: Any) -> bool:
    if not _is_truth(value):
        raise ValueError(f"trainable must choose by True or False, got {told(value)}")
    return bool(value)


def _marked(graph: PyTree, marks: PyTree, possible: list[bool]) -> list[bool]:
    """What a pytree of truth values, or of functions of an array, says of each parameter."""
    left_out = object()
    leaves, structure = jax.tree.flatten(nnx_modules.opened(marks))
    try:
        spec = jax.tree.unflatten(structure, [_truthful(leaf) for leaf in leaves])
        marked = jax.tree.leaves(eqx.filter(graph, spec, replace=left_out))
    except (ValueError, TypeError) as error:
        raise ValueError(
            "trainable must be truth values in the structure of initial_params, names, or a "
            f"function of either: {error}"
        ) from None
    return [leaf is not left_out for leaf, mine in zip(marked, possible, strict=True) if mine]


def _truthful(mark: Any) -> Any:
    """A truth value as it is, and a function so that it gives nothing else."""
    if callable(mark) and not isinstance(mark, type):
        return lambda leaf: _truth(mark(leaf))
    return _truth(mark)
