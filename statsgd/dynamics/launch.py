"""Replicas at rest at their starts, each with its own key."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from statsgd.dynamics.advance import Replicas
from statsgd.dynamics.grid import Grid
from statsgd.dynamics.processes import gathered
from statsgd.dynamics.random_stream import stream_key
from statsgd.dynamics.sampling import bounded
from statsgd.problems import Problem
from statsgd.problems.parameters import as_arrays


def launch(
    problem: Problem,
    settings: Grid,
    start: PyTree | None,
    *,
    replicas: int,
    seeds: Sequence[int],
    steps: int,
    phases: int,
) -> Replicas:
    """All replicas of all cells, in lanes: cell by cell, one leading axis.

    `seeds` has one seed for all cells or one for each.
    """
    given = None if start is None else _given_start(problem, start, replicas)

    def ready(seed: int):
        root = stream_key(seed)

        def keys(purpose: int):
            stream = jax.random.fold_in(root, purpose)
            return jax.vmap(jax.random.fold_in, (None, 0))(stream, jnp.arange(replicas))

        params = jax.vmap(problem.initial_params)(keys(1)) if given is None else given
        early = jax.vmap(lambda key: bounded(jax.random.bits(key, (), jnp.uint32), phases))(keys(2))
        return params, keys(0), (steps - early).astype(jnp.int32)

    by_seed = [ready(seed) for seed in seeds]
    repeats = settings.cells // len(by_seed)
    lanes, key, ends_at = jax.tree.map(lambda *leaves: jnp.concatenate(leaves * repeats), *by_seed)
    cell = jnp.repeat(jnp.arange(settings.cells, dtype=jnp.int32), replicas)
    varied, shared = settings.parts()

    def at_rest(cell, params):
        setting = jax.tree.map(lambda leaf: jnp.asarray(leaf)[cell], varied)
        return eqx.combine(setting, shared).init(problem, params)

    state = jax.vmap(at_rest)(cell, lanes)
    return Replicas(
        state,
        key,
        cell,
        ends_at,
        jnp.full(settings.cells * replicas, -1, dtype=jnp.int32),
    )


def _given_start(problem: Problem, start: PyTree, replicas: int) -> PyTree:
    template = problem.template
    given: Any = jax.tree.structure(start)
    if given != jax.tree.structure(template):
        raise ValueError(
            f"start must have the structure of the problem's params, "
            f"{jax.tree.structure(template)}, got {given}"
        )
    start = as_arrays(start)
    leaves, wanted = jax.tree.leaves(start), jax.tree.leaves(template)
    pairs = list(zip(leaves, wanted, strict=True))
    if not all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in leaves):
        raise ValueError("start must be finite, got NaN or infinite entries")
    if all(leaf.shape == like.shape for leaf, like in pairs):
        return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (replicas, *leaf.shape)), start)
    if all(leaf.shape == (replicas, *like.shape) for leaf, like in pairs):
        return start
    raise ValueError(
        f"start must have leaves of shape {[like.shape for like in wanted]}, with or without a "
        f"leading axis of {replicas} replicas, got {[leaf.shape for leaf in leaves]}"
    )


class Blocks(NamedTuple):
    """How replicas are divided: into blocks of `size`, none of them across two cells of a grid.

    So a cell is computed exactly as the separate run of its settings would be. Every device gets
    the same number of blocks. What is left over is filled with copies, which `join` drops again.
    Every process has the blocks of its own devices.
    """

    cells: int
    replicas: int
    size: int
    devices: int
    """Of all processes together."""
    processes: int = 1

    def split(self, lanes: PyTree) -> PyTree:
        """Leaves with a leading axis of lanes, cell by cell, to leading axes (block, lane)."""
        blocks = self.cells * -(-self.replicas // self.size)

        def blocked(leaf):
            rest = leaf.shape[1:]
            leaf = leaf.reshape(self.cells, self.replicas, *rest)
            filling = jnp.repeat(leaf[:, :1], -self.replicas % self.size, axis=1)
            leaf = jnp.concatenate([leaf, filling], axis=1).reshape(blocks, self.size, *rest)
            leaf = jnp.concatenate([leaf, jnp.repeat(leaf[:1], -blocks % self.devices, axis=0)])
            if self.processes == 1:
                return leaf
            share = len(leaf) // self.processes
            return leaf[share * jax.process_index() :][:share]

        return jax.tree.map(blocked, lanes)

    def join(self, tree: PyTree) -> PyTree:
        """The inverse of `split`, on the host, the same in every process."""
        blocks = self.cells * -(-self.replicas // self.size)

        def joined(leaf):
            rest = leaf.shape[2:]
            leaf = np.asarray(leaf)[:blocks].reshape(self.cells, -1, *rest)
            return leaf[:, : self.replicas].reshape(-1, *rest)

        return jax.tree.map(joined, jax.device_get(gathered(tree, self.processes)))
