"""First exits of an ensemble to the very step, without records of the way."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Int, PyTree

from statsgd.arguments import count, kinds_checked, random_seed
from statsgd.dynamics import Dynamics, SettingsGrid
from statsgd.dynamics.launch import launch
from statsgd.measures.escape.exits import ExitTimes
from statsgd.problems import Problem
from statsgd.running.blocks import Blocks, Lanes, over_blocks
from statsgd.running.keys import unpack
from statsgd.running.stacked import Stacked

type Region = Callable[[PyTree], Bool[Any, ""]]


@kinds_checked
def first_passage(
    problem: Problem,
    dynamics: Dynamics,
    inside: Region,
    *,
    steps: int,
    replicas: int,
    seed: int,
    start: PyTree | None = None,
    allow_unstable: bool = False,
    block_size: int = 64,
) -> ExitTimes:
    """Run replicas until each leaves a region, or for `steps` steps, which censors it.

    The replicas are those of `simulate` with the same arguments, so that the exits are those one
    would read off observing `inside` at every step; but each run ends when it leaves, and nothing
    is recorded. Exits seen on coarser records come late, and miss those that return.

    **Arguments:** `inside`, `params -> bool` in JAX; parameters that are not finite are outside.
    The others as in `simulate`, but that `start` is no ensemble.

    Raises `ValueError` for a region that does not give one boolean, and for starts outside.

    Numbers are float64.

    >>> import numpy as np
    >>> from statsgd import SGD, noise
    >>> from statsgd.problems import quadratic
    >>> sgd = SGD(0.1, noise.Isotropic(1.0))
    >>> exits = first_passage(
    ...     quadratic(np.eye(1)), sgd, lambda params: abs(params[0]) < 0.1,
    ...     steps=1000, replicas=4, seed=0,
    ... )
    >>> exits.left.tolist()
    [True, True, True, True]
    """
    total, number = count("steps", steps), count("replicas", replicas)
    size = count("block_size", block_size)
    blocks = Blocks.over(None, cells=1, lanes=number, size=size)
    shape = jax.eval_shape(inside, problem.template)
    if getattr(shape, "shape", None) != () or shape.dtype != jnp.bool_:
        raise ValueError(f"inside must return one boolean, got {shape}")
    settings = SettingsGrid(dynamics, {})
    settings.check(problem, allow_unstable=allow_unstable, first=0, last=total)
    lanes = launch(
        problem, settings, start, replicas=number, seeds=[random_seed(seed)], steps=total
    )
    outside = int(np.sum(~np.asarray(_held(inside, lanes.moving.state.params))))
    if outside:
        raise ValueError(f"start must lie inside the region, got {outside} replicas outside")
    taken, left = blocks.join(
        _exits(
            settings.stacked(),
            problem,
            inside,
            blocks.place(lanes),
            np.int32(total),
            mesh=blocks.mesh,
        )
    )
    return ExitTimes(taken.astype(np.float64), left)


@eqx.filter_jit
def _held(inside: Region, params: PyTree) -> Bool[Any, " replica"]:
    return jax.vmap(inside)(params)


@eqx.filter_jit
def _exits(
    settings: Stacked,
    problem: Problem,
    inside: Region,
    replicas: Lanes,
    steps: Int[Any, ""],
    *,
    mesh: Mesh,
) -> tuple[Int[Any, "blocks size"], Bool[Any, "blocks size"]]:
    """Steps that every replica took, and whether it has left."""

    def run_block(block: Lanes, steps):
        dynamics = settings.cell(block.cell[0])

        def run(key, state):
            def going(carry):
                _, taken, left = carry
                return ~left & (taken < steps)

            def move(carry):
                state, taken, _ = carry
                moved = dynamics.step(key, problem, state)
                finite = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(moved.params)]
                held = inside(moved.params) & jnp.all(jnp.stack(finite))
                return moved, taken + 1, ~held

            begin = (state, jnp.zeros((), jnp.int32), jnp.zeros((), bool))
            _, taken, left = jax.lax.while_loop(going, move, begin)
            return taken, left

        return jax.vmap(run)(block.fixed.key, unpack(block.moving.state))

    return over_blocks(run_block, replicas, steps, mesh=mesh)
