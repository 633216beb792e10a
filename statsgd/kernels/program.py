"""The compiled heart of `sample`: every chain of every cell of a grid some steps further."""

import copy
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import UInt32

from statsgd.kernels.adapter import LangevinKernel
from statsgd.kernels.kernel_state import KernelState
from statsgd.kernels.starts import unconstrained
from statsgd.laws import Law
from statsgd.running.blocks import Lanes, over_blocks
from statsgd.running.keys import pack, unpack
from statsgd.running.random_stream import stream_key
from statsgd.running.stacked import Stacked

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
        return self.target.chain_model if isinstance(self.target, Law) else self.target


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


@eqx.filter_jit
def launch(
    program: Program,
    settings: Stacked,
    seed: UInt32[Any, ""],
    warmup: Any,
    starts: Any,
    cells: int,
    chains: int,
) -> Lanes:
    """All chains of all cells at rest, cell by cell; their states are packed.

    Chain i has its own key, folded from that of `seed`, whatever the number of chains and cells.
    `starts` are constrained values of the latent sites with a leading axis of chains, or None.
    """
    # Fused into all that follows, it would be computed, and compiled, many times over.
    root = jax.lax.optimization_barrier(stream_key(seed))
    keys = jax.vmap(jax.random.fold_in, (None, 0))(root, jnp.arange(chains))
    cell = jnp.repeat(jnp.arange(cells, dtype=jnp.int32), chains)

    def one(key, cell, start) -> KernelState:
        kernel = program.on(settings.cell(cell))
        if start is not None and kernel.model is not None:
            start = unconstrained(kernel, key, start)
        return kernel.init(key, warmup, start, (), {})

    axes = (0, 0, None if starts is None else 0)
    state = jax.vmap(one, axes)(jnp.tile(keys, cells), cell, starts)
    return Lanes(pack(state), (), cell)


@eqx.filter_jit
def advance(
    program: Program, settings: Stacked, chains: Lanes, steps: Any, thinning: Any, *, mesh: Mesh
) -> tuple[Lanes, tuple[Any, Any]]:
    """Every chain `steps` steps further, and every `thinning`-th draw with its report.

    `chains` are blocks. Draws have leading axes (block, lane, CAPACITY); those beyond
    `steps // thinning` mean nothing. Both numbers are traced, so that warm-up and chunks of any
    length share one compilation.
    """

    def advance_block(block: Lanes, steps, thinning):
        kernel = program.on(settings.cell(block.cell[0]))
        # Read the model here: what it caches must not belong to the trace of the loop.
        constrain = kernel.postprocess_fn((), {})

        def draw_of(state):
            return state.z, jax.vmap(kernel.report)(state)

        def step(i, carry):
            state, kept = carry
            moved = kernel.sample(state, (), {})
            place = jnp.minimum(i // thinning, CAPACITY - 1)
            # Written over until the last of its `thinning` steps.
            kept = jax.tree.map(
                lambda draws, now: jax.lax.dynamic_update_index_in_dim(draws, now, place, 0),
                kept,
                draw_of(moved),
            )
            return moved, kept

        state = unpack(block.moving)
        empty = jax.tree.map(
            lambda leaf: jnp.zeros((CAPACITY, *leaf.shape), leaf.dtype), draw_of(state)
        )
        state, (z, report) = jax.lax.fori_loop(0, steps, step, (state, empty))
        draws = (jax.vmap(jax.vmap(constrain))(z), report)
        by_chain = jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), draws)
        return block._replace(moving=pack(state)), by_chain

    return over_blocks(advance_block, chains, steps, thinning, mesh=mesh)
