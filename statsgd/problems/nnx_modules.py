"""Modules of Flax NNX as pytrees of their parameters, and back."""

import sys
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from jaxtyping import PyTree


def loaded() -> Any:
    """Flax's NNX where it was loaded; elsewhere nothing can be of it."""
    return sys.modules.get("flax.nnx")


def is_module(node: Any) -> bool:
    """Whether `node` is a module of NNX or the state of one."""
    nnx = loaded()
    return nnx is not None and isinstance(node, nnx.Module | nnx.State)


def modules(model: PyTree) -> list[Any]:
    """Every module within `model`."""
    nnx = loaded()
    outer = jax.tree.leaves(model, is_leaf=is_module)
    whole = [one for one in outer if isinstance(one, nnx.Module)]
    nodes = [node for one in whole for _, node in nnx.iter_graph(one)]
    return [node for node in nodes if isinstance(node, nnx.Module)]


def opened(model: PyTree) -> PyTree:
    """`model` with dicts of their `nnx.Param`s in the place of modules."""
    if loaded() is None:
        return model
    return jax.tree.map(
        lambda node: loaded().to_pure_dict(_params(node)) if is_module(node) else node,
        model,
        is_leaf=is_module,
    )


def _params(node: Any) -> Any:
    nnx = loaded()
    return node if isinstance(node, nnx.State) else nnx.state(node, nnx.Param)


def matches(model: PyTree, wanted: Any, truth: Callable[[Any], bool]) -> PyTree:
    """`opened(model)` with the `truth` of what a filter of NNX says of each leaf in its place.

    A path of it begins outside of the modules, as of a model that is a dict of them.
    """
    nnx = loaded()
    predicate: Callable[[Any, Any], Any] = nnx.filterlib.to_predicate(wanted)

    def of(path: tuple[Any, ...], node: Any) -> Any:
        outer = tuple(getattr(key, "key", getattr(key, "idx", None)) for key in path)
        if not is_module(node):
            return hasattr(node, "dtype") and truth(predicate(outer, node))
        found = nnx.map_state(
            lambda inner, leaf: truth(predicate((*outer, *inner), leaf)), _params(node)
        )
        return nnx.to_pure_dict(found)

    return jax.tree_util.tree_map_with_path(of, model, is_leaf=is_module)


def graphs(model: PyTree) -> PyTree | None:
    """What modules are besides parameters, in their places; None without any."""
    leaves, structure = jax.tree.flatten(model, is_leaf=is_module)
    found = [is_module(leaf) and Graph.of(leaf) for leaf in leaves]
    return jax.tree.unflatten(structure, found) if any(found) else None


class Graph(eqx.Module):
    """A module without the values of its parameters, or a `nnx.State` without them."""

    graph: Any = eqx.field(static=True)
    structures: tuple[Any, ...] = eqx.field(static=True)
    rest: list[Any]

    @classmethod
    def of(cls, module: Any) -> "Graph":
        """Of a module or a `nnx.State`."""
        nnx = loaded()
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
        return loaded().merge(
            self.graph, numbers, jax.tree.unflatten(self.structures[1], self.rest)
        )
