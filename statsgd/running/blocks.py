"""Blocks of lanes, shared out over devices, and one program over all of them.

A lane is a replica of an ensemble or a chain of draws. Lanes are independent, so that blocks of
them can be advanced anywhere, in any order.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Int, PyTree

from statsgd.arguments import count
from statsgd.running.processes import gathered, share_of

_LANE = PartitionSpec("lane")
_LARGEST_SHARE = 64
_CACHE = 2**18  # bytes of parameters of a block, its state and minibatches being a few times that
_WORKING = 16  # times the state of a block that its gradients and activations may take on the way
_VECTOR = 16  # lanes; blocks of multiples of it round alike


def lanes_in_cache(bytes_each: int) -> int:
    """Lanes that are best advanced together where the parameters of each take so many bytes.

    64, and where these would not stay in the cache fewer: a multiple of 16, then 8, and one by one
    where parameters are many. A rule and no timing, so that a run is the same everywhere.
    """
    fit = min(_LARGEST_SHARE, max(1, _CACHE // max(bytes_each, 1)))
    return fit // _VECTOR * _VECTOR if fit >= _VECTOR else 8 if fit >= 8 else 1


class Lanes(NamedTuple):
    """Lanes on their way. Every leaf has a leading axis of lanes, or two of (block, lane)."""

    moving: PyTree
    """What changes on the way; checkpoints hold it."""
    fixed: PyTree
    """What does not."""
    cell: Int[Any, "..."]
    """Which cell of a grid of settings a lane belongs to, 0 where there is none."""


class Blocks(NamedTuple):
    """How lanes are divided: into blocks of `size`, none of them across two cells of a grid.

    So a cell is computed exactly as the separate run of its settings would be. Every device gets
    the same number of blocks. What is left over is filled with copies, which `join` drops again.
    Every process has the blocks of its own devices.
    """

    cells: int
    lanes: int
    """Of each cell."""
    size: int
    devices: tuple[jax.Device, ...]
    """Of this process."""
    processes: int = 1

    @classmethod
    def over(
        cls, devices: Sequence[jax.Device] | None, *, cells: int, lanes: int, size: int | None
    ) -> "Blocks":
        """Blocks over `devices`, as `share_of` reads them.

        Without a `size` every device gets an equal share, of up to 64 lanes a block. Devices
        beyond the number of blocks would work on copies, in the way of those that share their
        cores, and are left out.
        """
        own, processes = share_of(devices)
        if size is None:
            size = min(_LARGEST_SHARE, -(-lanes // (len(own) * processes)))
        blocks = cls(cells, lanes, min(count("block_size", size), lanes), tuple(own), processes)
        if processes == 1:
            return blocks._replace(devices=blocks.devices[: blocks.number])
        return blocks

    @property
    def mesh(self) -> Mesh:
        """The devices of this process, along one axis."""
        return Mesh(np.array(self.devices), ("lane",), axis_types=(AxisType.Auto,))

    @property
    def number(self) -> int:
        """Number of blocks, without those that only fill up."""
        return self.cells * -(-self.lanes // self.size)

    @eqx.filter_jit
    def split(self, lanes: PyTree) -> PyTree:
        """Leaves with a leading axis of lanes, cell by cell, to leading axes (block, lane)."""

        def blocked(leaf):
            rest = leaf.shape[1:]
            leaf = leaf.reshape(self.cells, self.lanes, *rest)
            filling = jnp.repeat(leaf[:, :1], -self.lanes % self.size, axis=1)
            leaf = jnp.concatenate([leaf, filling], axis=1).reshape(self.number, self.size, *rest)
            missing = -self.number % (len(self.devices) * self.processes)
            leaf = jnp.concatenate([leaf, jnp.repeat(leaf[:1], missing, axis=0)])
            if self.processes == 1:
                return leaf
            share = len(leaf) // self.processes
            return leaf[share * jax.process_index() :][:share]

        return jax.tree.map(blocked, lanes)

    def place(self, lanes: PyTree) -> PyTree:
        """`split`, with every block on its device."""
        return jax.device_put(self.split(lanes), NamedSharding(self.mesh, _LANE))

    def join(self, tree: PyTree) -> PyTree:
        """The inverse of `split`, on the host, the same in every process."""

        def joined(leaf):
            rest = leaf.shape[2:]
            each = self.number // self.cells * self.size
            leaf = np.asarray(leaf)[: self.number].reshape(self.cells, each, *rest)
            return leaf[:, : self.lanes].reshape(self.cells * self.lanes, *rest)

        return jax.tree.map(joined, jax.device_get(gathered(tree, self.processes)))


def over_blocks[R](function: Callable[..., R], blocks: PyTree, *shared: PyTree, mesh: Mesh) -> R:
    """`function(block, *shared)` of every block, where it lies, with a leading axis of blocks."""

    def on_device(blocks, *shared):
        def of_block(block):
            return function(block, *shared)

        number = jax.tree.leaves(blocks)[0].shape[0]
        together = _at_once(mesh, blocks)
        if together == 1:
            return jax.lax.map(of_block, blocks)
        if together >= number:
            return jax.vmap(of_block)(blocks)
        return jax.lax.map(of_block, blocks, batch_size=together)

    return jax.shard_map(
        on_device,
        mesh=mesh,
        in_specs=(_LANE, *[PartitionSpec()] * len(shared)),
        out_specs=_LANE,
        # Loop counters start out the same on every device, which the check would refuse.
        check_vma=False,
    )(blocks, *shared)


def _at_once(mesh: Mesh, blocks: PyTree) -> int:
    """How many blocks a device works on together.

    On a CPU one, whose parameters and minibatches stay in cache so. A GPU wants all at once, and
    gets as many as its memory allows, a few times what the blocks themselves take.
    """
    device = mesh.devices.flat[0]
    if device.platform == "cpu":
        return 1
    number, memory = jax.tree.leaves(blocks)[0].shape[0], _memory(device)
    if memory is None:
        return number
    each = sum(_bytes(leaf) for leaf in jax.tree.leaves(blocks)) / number
    return int(max(1, min(number, memory // (_WORKING * max(each, 1)))))


def _bytes(leaf: Any) -> int:
    # Keys have a dtype of their own, of a few words.
    width = 8 if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf.dtype.itemsize
    return leaf.size * width


def _memory(device: jax.Device) -> int | None:
    """Bytes of a device that JAX may use; None where it does not say."""
    known = device.memory_stats()
    return None if known is None else known.get("bytes_limit")
