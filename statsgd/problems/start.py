"""A model as what is trained and what is not: its parameters, its constants, and back."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray, PyTree

from statsgd.arguments import finite_array, told
from statsgd.problems.nnx_modules import Graph, graphs, loaded, modules, opened
from statsgd.problems.parameters import as_arrays, leaf_names, listed_numbers, require_real
from statsgd.problems.trainable import Trainable, is_state, is_variables, parameters, trained


class Start(eqx.Module):
    """Where parameters come from: a model, a pytree, or a function of a key that returns one.

    Parameters are the inexact arrays of it. Everything else is constant: integers, functions,
    Python's floats within a module (a rate of dropout), running statistics (`eqx.nn.State`), what
    `trainable` leaves out, of Flax NNX modules all that is no `nnx.Param`, and of Flax Linen
    variables (a dict of collections, "params" among them) every other collection. Python's floats
    in dicts, lists and tuples are parameters. A function of a key must give the same constants for
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
        no name; of Flax NNX modules also a filter of theirs (a class of variables, a function of
        path and variable, a list of these). The others keep their value; `batch_statistics`,
        whether a model may normalise over a batch, which one example has not.

        Raises `ValueError` where nothing is left to train, for what chooses by anything but True
        and False, and for parameters that are complex or not finite.
        """
        initial_params = listed_numbers(initial_params)
        model, draw, what = initial_params, None, "initial_params"
        if not any(jax.tree.leaves(parameters(model))):
            if not callable(initial_params):
                raise ValueError(
                    "initial_params must be a pytree of floating arrays or a function of a key, "
                    f"got {told(initial_params)}"
                )
            draw, what = initial_params, "initial_params(key)"
            model = initial_params(jax.random.key(0))
            if not any(jax.tree.leaves(parameters(model))):
                raise ValueError(f"{what} must return a pytree with at least one array")
        if not batch_statistics:
            _require_no_batch_statistics(model)
        chosen = trained(model, trainable)
        numbers, constants = eqx.partition(opened(model), chosen)
        require_real(what, numbers)
        if draw is None:
            for name, leaf in zip(leaf_names(numbers), jax.tree.leaves(numbers), strict=True):
                finite_array(f"initial_params {name!r}", leaf)
        return cls(
            as_arrays(numbers) if draw is None else None,
            draw,
            jax.tree.map(lambda mine: mine or None, chosen),
            constants,
            graphs(model),
        )

    def __call__(self, key: PRNGKeyArray) -> PyTree:
        """Parameters for `key`."""
        if self.draw is None:
            return as_arrays(self.params)
        return as_arrays(eqx.filter(opened(self.draw(key)), self._mask))

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
        given = opened(model)
        # The result is of the problem's own structure, whatever constants the model has.
        for mask in (self.chosen, self._mask):
            mine, leaves = jax.tree.leaves(mask), jax.tree.leaves(given)
            if len(leaves) == len(mine) and leaf_names(given) == leaf_names(mask):
                found = [leaf for leaf, one in zip(leaves, mine, strict=True) if one]
                return jax.tree.unflatten(wanted, found)
        # Nor need it be as many: variables of Flax Linen may have further collections.
        numbers = eqx.filter(given, parameters(model))
        if leaf_names(numbers) == leaf_names(self.chosen):
            return jax.tree.unflatten(wanted, jax.tree.leaves(numbers))
        raise ValueError(
            f"params must be those of the problem, {leaf_names(self.chosen)}, or a whole model "
            f"with them, got the structure {jax.tree.structure(model)}"
        )

    def complete(self, params: PyTree) -> PyTree:
        """The model with these parameters, as the user's functions expect it."""
        whole = eqx.combine(
            self.select(params), jax.tree.map(_renewed, self.constants, is_leaf=is_state)
        )
        if self.graphs is None:
            return whole
        return jax.tree.map(
            lambda graph, part: graph.module(part) if isinstance(graph, Graph) else part,
            self.graphs,
            whole,
            is_leaf=lambda node: isinstance(node, Graph),
        )


def _require_no_batch_statistics(model: Any) -> None:
    nnx = loaded()
    layers = jax.tree.leaves(model, is_leaf=lambda node: isinstance(node, eqx.nn.BatchNorm))
    at_work = any(isinstance(one, eqx.nn.BatchNorm) and not one.inference for one in layers)
    for module in [] if nnx is None else modules(model):
        statistics = any(isinstance(part, nnx.BatchStat) for part in vars(module).values())
        at_work |= statistics and getattr(module, "use_running_average", None) is not True
    # What a loss makes of the variables of Linen they do not say.
    given = filter(is_variables, jax.tree.leaves(model, is_leaf=is_variables))
    at_work |= any(jax.tree.leaves(variables.get("batch_stats")) != [] for variables in given)
    if at_work:
        raise ValueError(
            "initial_params must have no batch statistics for a loss of single examples, got batch "
            "normalisation at work: give problems.batch_risk a loss of whole batches, or freeze "
            "the statistics (model.eval() in Flax NNX, eqx.nn.inference_mode in Equinox; in Flax "
            "Linen give {'params': …} alone and the batch_stats to a loss that uses their averages)"
        )


def _renewed(node: Any) -> Any:
    """Statistics as values of the program that is traced: Equinox compares them with new ones."""
    if not isinstance(node, eqx.nn.State):
        return node
    return jax.tree.map(lambda leaf: jnp.where(jnp.ones((), bool), leaf, leaf), node)
