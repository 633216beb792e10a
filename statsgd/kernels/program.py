"""The compiled heart of the runner: every chain of every cell of a grid some steps further."""

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Int, PyTree
from numpyro.infer.util import unconstrain_fn

from statsgd.kernels.adapter import LangevinKernel
from statsgd.kernels.kernel_state import KernelState
from statsgd.laws import Law

#: Draws that one call can return.
CAPACITY = 256


class Settings(NamedTuple):
    """What one cell of a grid runs on: a target and the numbers of the kernel."""

    target: Any
    """A law, a NumPyro model without arguments, or None for the kernel's own."""
    parameters: dict[str, Any]

    @property
    def model(self) -> Any:
        """The NumPyro model of the target."""
        return self.target.model if isinstance(self.target, Law) else self.target


class Cells(NamedTuple):
    """Settings of all cells: the leaves that vary, stacked, and those that do not."""

    varied: Settings
    shared: Settings

    @classmethod
    def of(cls, cells: Sequence[Settings]) -> "Cells":
        """Stack `cells`. Raises `ValueError` where they differ in more than numbers."""
        arrays, statics = zip(*(eqx.partition(cell, _is_number) for cell in cells), strict=True)
        structures = [jax.tree.structure(array) for array in arrays]
        shapes = [[np.shape(leaf) for leaf in jax.tree.leaves(array)] for array in arrays]
        if any(not eqx.tree_equal(static, statics[0]) for static in statics) or any(
            found != (structures[0], shapes[0]) for found in zip(structures, shapes, strict=True)
        ):
            raise ValueError(
                "grid must vary numbers only: the laws of its cells have other shapes or programs"
            )

        def divide(*leaves):
            same = all(np.array_equal(leaf, leaves[0]) for leaf in leaves)
            return (None, leaves[0]) if same else (np.stack(leaves), None)

        columns = zip(*(jax.tree.leaves(array) for array in arrays), strict=True)
        pairs = [divide(*column) for column in columns]
        varied, shared = (
            jax.tree.unflatten(structures[0], [pair[i] for pair in pairs]) for i in range(2)
        )
        return cls(varied, eqx.combine(shared, statics[0]))

    def cell(self, index: Any) -> Settings:
        """The settings of one cell."""
        chosen = jax.tree.map(lambda leaf: jnp.asarray(leaf)[index], self.varied)
        return eqx.combine(chosen, self.shared)


def _is_number(leaf: Any) -> bool:
    return eqx.is_array(leaf) or isinstance(leaf, float)


class Program:
    """A kernel without its numbers; equal for kernels that compile to the same program."""

    def __init__(self, kernel: LangevinKernel, bound: bool):
        self.template = copy.copy(kernel)
        self.template._forget()
        self.key: tuple = kernel.structure
        if not bound:
            self.key = (*self.key, kernel._model, kernel._potential_fn)

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Program) and self.key == other.key

    def on(self, settings: Settings) -> LangevinKernel:
        """The kernel with its target and numbers."""
        if settings.target is not None:
            return self.template.bind(settings.model, settings.parameters)
        kernel = copy.copy(self.template)
        kernel.parameters = dict(settings.parameters)
        kernel._forget()
        return kernel


class KeyData(eqx.Module):
    """A random key as plain numbers, which can be reshaped and stored."""

    data: Any
    generator: Any = eqx.field(static=True)


def pack(state: PyTree) -> PyTree:
    """`state` with its keys as numbers."""

    def packed(leaf):
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        if not is_key:
            return leaf
        return KeyData(jax.random.key_data(leaf), jax.random.key_impl(leaf))

    return jax.tree.map(packed, state)


def unpack(state: PyTree) -> Any:
    """The inverse of `pack`."""

    def is_key(leaf):
        return isinstance(leaf, KeyData)

    def unpacked(leaf):
        if not is_key(leaf):
            return leaf
        return jax.random.wrap_key_data(leaf.data, impl=leaf.generator)

    return jax.tree.map(unpacked, state, is_leaf=is_key)


class Chains(NamedTuple):
    """Chains on their way, with leading axes (block, lane); states are packed."""

    state: Any
    cell: Int[Any, "..."]


@eqx.filter_jit
def launch(
    program: Program, cells: Cells, root: Any, warmup: Any, starts: Any, number: int, chains: int
) -> Chains:
    """All chains of all `number` cells at rest: one leading axis of lanes, cell by cell.

    Chain i has its own key, folded from `root`, whatever the number of chains and cells. `starts`
    are constrained values of the latent sites with a leading axis of lanes, or None.
    """
    keys = jax.vmap(jax.random.fold_in, (None, 0))(root, jnp.arange(chains))
    cell = jnp.repeat(jnp.arange(number, dtype=jnp.int32), chains)

    def one(key, cell, start) -> KernelState:
        settings = cells.cell(cell)
        kernel = program.on(settings)
        if start is not None and kernel.model is not None:
            start = _unconstrained(kernel, key, start)
        return kernel.init(key, warmup, start, (), {})

    axes = (0, 0, None if starts is None else 0)
    state = jax.vmap(one, axes)(jnp.tile(keys, number), cell, starts)
    return Chains(pack(state), cell)


def _unconstrained(kernel: LangevinKernel, key: Any, start: Any) -> PyTree:
    latents = kernel._read_model(key, (), {}, kernel._init_strategy)
    wanted = {name: jnp.shape(value) for name, value in latents.items()}
    constrained = {name: jnp.asarray(value, float) for name, value in start.items()}
    if set(constrained) == set(wanted):
        position = unconstrain_fn(kernel.model, (), {}, constrained)
        if {name: value.shape for name, value in position.items()} == wanted:
            return position
    shapes = {name: value.shape for name, value in constrained.items()}
    raise ValueError(
        f"starts must have, after an axis of points, the latent sites {wanted}, got {shapes}"
    )


@eqx.filter_jit
def advance(
    program: Program, cells: Cells, flight: Chains, steps: Any, thinning: Any, *, mesh: Mesh
) -> tuple[Chains, tuple[Any, Any]]:
    """Every chain `steps` steps further, and every `thinning`-th draw with its report.

    Draws have leading axes (block, CAPACITY, lane); those beyond `steps // thinning` mean nothing.
    Both numbers are traced, so that warm-up and chunks of any length share one compilation.
    """

    def run_block(block: Chains, steps, thinning):
        kernel = program.on(cells.cell(block.cell[0]))
        # Read the model here: what it caches must not belong to the trace of the loop.
        constrain = kernel.postprocess_fn((), {})

        def look(state):
            return state.z, jax.vmap(kernel.report)(state)

        def step(i, carry):
            state, kept = carry
            moved = kernel.sample(state, (), {})
            place = jnp.minimum(i // thinning, CAPACITY - 1)
            # Written over until the last of its `thinning` steps.
            kept = jax.tree.map(
                lambda all_of_it, now: jax.lax.dynamic_update_index_in_dim(
                    all_of_it, now, place, 0
                ),
                kept,
                look(moved),
            )
            return moved, kept

        state = unpack(block.state)
        empty = jax.tree.map(
            lambda leaf: jnp.zeros((CAPACITY, *leaf.shape), leaf.dtype), look(state)
        )
        state, (z, report) = jax.lax.fori_loop(0, steps, step, (state, empty))
        return Chains(pack(state), block.cell), (jax.vmap(jax.vmap(constrain))(z), report)

    def run_blocks(flight, steps, thinning):
        # On a CPU a block stays in cache; a GPU wants all of them at once.
        if mesh.devices.flat[0].platform == "cpu":
            return jax.lax.map(lambda block: run_block(block, steps, thinning), flight)
        return jax.vmap(lambda block: run_block(block, steps, thinning))(flight)

    spec = PartitionSpec("chain")
    # The loop counter starts out the same on every device, which shard_map's check would refuse.
    return jax.shard_map(
        run_blocks,
        mesh=mesh,
        in_specs=(spec, PartitionSpec(), PartitionSpec()),
        out_specs=spec,
        check_vma=False,
    )(flight, steps, thinning)
