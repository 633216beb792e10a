"""Chains of a kernel: a run whose records are draws."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from statsgd.kernels.program import Program, advance
from statsgd.running.blocks import Lanes
from statsgd.running.records import Records
from statsgd.running.run import Run
from statsgd.running.stacked import Stacked


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chains(Run):
    """Chains of `sample`: warm-up, then draws."""

    program: Program
    settings: Stacked
    warmup: int
    thinning: int

    def advance(self, lanes: Lanes, done: int, steps: int) -> tuple[Lanes, dict[str, Records]]:
        """Chains later, with their draws once they are warm."""
        moved, draws = self._advance(lanes, steps)
        if done < self.warmup:
            return moved, {}
        first = (done - self.warmup) // self.thinning
        number = steps // self.thinning
        return moved, {group: Records(first, number, values) for group, values in draws.items()}

    def templates(self, lanes: Lanes) -> dict[str, PyTree]:
        """Those of draws and of what the kernel reports."""
        blocks = self.blocks.split
        _, draws = eqx.filter_eval_shape(lambda: self._advance(blocks(lanes), 1))
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[3:], leaf.dtype), draws)

    def _advance(self, lanes: Lanes, steps: int) -> tuple[Lanes, dict[str, Any]]:
        moved, (posterior, report) = advance(
            self.program,
            self.settings,
            lanes,
            jnp.int32(steps),
            jnp.int32(self.thinning),
            mesh=self.blocks.mesh,
        )
        # What is a coordinate of the grid, as the step size may be, is not a variable too.
        stats = {name: value for name, value in report.items() if name not in self.layout.coords}
        return moved, {"posterior": posterior, "sample_stats": stats}

    def ends(self, lanes: Lanes) -> dict[str, PyTree]:
        """None: the last draw is where the chains are."""
        return {}

    def so_far(self, done: int) -> tuple[int, int, str]:
        """Draws."""
        drawn = max(0, done - self.warmup) // self.thinning
        return drawn, len(self.schedules["posterior"]), "draws"
