"""Laws known as cell masses on a grid, with the Markov process they are stationary for."""

import copy
import warnings
from collections.abc import Callable
from typing import Any, ClassVar, Self

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Bool, Float

from statsgd.arguments import finite_array
from statsgd.laws.bases.potential import density_model
from statsgd.laws.expected import Columns, Expected
from statsgd.laws.grids.cell_average import cell_average
from statsgd.laws.grids.grid import Grid, GridWarning, at_points
from statsgd.laws.grids.markov import Generator
from statsgd.laws.law import ImproperLawError, Law
from statsgd.precision import formula, in_double_precision

_WEIGHT_ERROR = 0.01

type Region = Callable[[Any], Any] | Bool[Any, "..."]


class GridLaw(Law):
    """A law given by the stationary masses of a Markov process on the cells of a grid.

    The process may live on more coordinates than the parameters; these are the first `dimension`
    axes of `states`. Regions of parameter space are given as a function `params -> bool` (decided
    at the midpoint of each cell) or as a boolean array over the cells of `grid`.
    """

    masses: Float[Any, "..."]
    """Probability of every cell of `states`."""
    states: Grid
    process: Generator = eqx.field(static=True)
    num_params: int = eqx.field(static=True)

    @property
    def dimension(self) -> int:
        """Number of parameters d."""
        return self.num_params

    @property
    def grid(self) -> Grid:
        """The grid over parameters."""
        d, states = self.num_params, self.states
        return Grid(states.lower[:d], states.upper[:d], states.cells[:d], states.periodic[:d])

    def require_proper(self) -> None:
        """Raise `ImproperLawError` unless the process has exactly one stationary law."""
        self.process.require_unique()
        if not np.all(np.isfinite(self.masses)):
            raise ImproperLawError("the stationary equations have no finite solution on this grid")

    def _evaluated(self) -> Self:
        # The process, which no formula reads, would be compiled in by its identity, and kept.
        bare = copy.copy(self)
        object.__setattr__(bare, "process", None)
        return bare

    def probabilities(self) -> Float[Any, "..."]:
        """Mass of every cell of `grid`."""
        self.ensure_proper()
        return self._parameter_masses()

    def _parameter_masses(self) -> Float[Any, "..."]:
        return self.masses.sum(axis=tuple(range(self.num_params, self.states.dimension)))

    def model(self, obs: Float[Any, "n d"] | None = None) -> None:
        """Site `quantile`, uniform on [0, 1)ᵈ, and its image `params`: an exact draw.

        Draws are uniform within a cell. With `obs`, a flat prior on `params` times the density.
        """
        if obs is None:
            masses = self.probabilities()
            uniform = dist.Uniform(0.0, 1.0).expand([self.num_params]).to_event(1)
            quantile = numpyro.sample("quantile", uniform)
            numpyro.deterministic("params", self.grid.push_forward(masses, quantile))
            return
        density_model(self, dist.constraints.real_vector, obs)

    def _log_density(self, params: Float[Any, " d"]) -> Float[Any, ""]:
        """Log of the density interpolated linearly between midpoints of cells; −∞ off the box.

        The interpolated density integrates to one exactly if none of its mass lies in the outer
        half-cells.
        """
        density = self._parameter_masses() / self.grid.cell_volume
        value = self.grid.interpolate(density, params)
        tiny = jnp.finfo(value.dtype).tiny
        inside = self.grid.inside(params)
        return jnp.where(inside, jnp.log(jnp.maximum(value, tiny)), -jnp.inf)

    def _quadrature(self) -> tuple[Float[Any, "size d"], Float[Any, " size"]]:
        """The midpoint rule."""
        return self.grid.points(), self.probabilities().ravel()

    #: As the laws themselves.
    warned: ClassVar[float] = 0.01
    #: Whether masses are those of a density at midpoints, rather than integrals over cells.
    sampled: ClassVar[bool] = False

    def _averaged(self, values: Columns) -> Expected:
        found, by_cell = cell_average(values, self.grid, self.probabilities(), sampled=self.sampled)
        return found._replace(error=found.error + self._law_error(by_cell - found.value))

    def _law_error(self, deviation: Float[Any, "..."]) -> Float[Any, " k"]:
        """What the law's own error does to E f, from f − E f in every cell."""
        return np.full(deviation.shape[-1], np.nan)

    def marginal(self, axis: int = 0) -> Float[Any, " n"]:
        """Mass of every cell along one axis of `grid`."""
        masses = self.probabilities()
        return masses.sum(axis=tuple(i for i in range(self.num_params) if i != axis))

    def _cdf(self, params: Float[Any, "... d"]) -> Float[Any, "... d"]:
        return _marginal_cdf(params, *self._marginals())

    def _quantile(self, probability: Float[Any, "..."]) -> Float[Any, "... d"]:
        return _marginal_quantile(probability, *self._marginals())

    def _marginals(self) -> tuple[list[Float[Any, " ends"]], list[Float[Any, " n"]]]:
        """Ends and masses of the cells along every axis."""
        axes = range(self.num_params)
        return [self.grid.edges(axis) for axis in axes], [self.marginal(axis) for axis in axes]

    def cell_masses(self, grid: Grid) -> Float[Any, "..."]:
        """Masses of the cells of another grid, over which each cell is spread evenly."""
        masses = self.probabilities()
        for axis in range(grid.dimension):
            fine, coarse = self.grid.edges(axis), grid.edges(axis).copy()
            coarse[0], coarse[-1] = min(coarse[0], fine[0]), max(coarse[-1], fine[-1])
            low = np.maximum(coarse[:-1, None], fine[:-1])
            high = np.minimum(coarse[1:, None], fine[1:])
            overlap = np.maximum(high - low, 0.0) / np.diff(fine)
            masses = np.moveaxis(np.tensordot(overlap, masses, axes=(1, axis)), 0, axis)
        return masses

    def basin_mass(self, basin: Region) -> float:
        """Probability of a region; put its boundary on edges of cells for second-order accuracy."""
        return float(self.probabilities()[self._region("basin", basin)].sum())

    def mean_first_passage(self, target: Region, start: Any = None) -> Any:
        """Mean time to reach the region `target`: from `start`, or from every cell.

        Unit: time t for a diffusion, steps for a chain. A process with momentum starts at rest.
        From every cell the result has the shape of `grid`. For second-order accuracy put the
        boundary of the target on midpoints of cells for a diffusion, which cannot jump over it, and
        on edges for a chain. Raises `ValueError` for an empty target.
        """
        times = self.process.mean_passage(self._states_of("target", target))
        return self._read(times, start)

    def committor(self, target: Region, other: Region, start: Any = None) -> Any:
        """Probability of reaching `target` before `other`: from `start`, or from every cell."""
        reached = self._states_of("target", target)
        avoided = self._states_of("other", other)
        if np.any(reached & avoided):
            raise ValueError("target and other must be disjoint, got regions that share cells")
        return self._read(self.process.committor(reached, avoided), start)

    def current(self) -> Float[Any, "... d"]:
        """Probability current J in every cell of `states`: mass per area and unit time (or step).

        Zero where the law is in detailed balance, up to O(spacing²). The axes of the current are
        those of `states`.
        """
        self.ensure_proper()
        entries = self.process.matrix.tocoo()
        flow = self.masses.ravel()[entries.row] * entries.data
        cells = np.array(self.states.cells)
        start = np.stack(np.unravel_index(entries.row, self.states.cells), axis=-1)
        end = np.stack(np.unravel_index(entries.col, self.states.cells), axis=-1)
        jump = end - start
        jump = np.where(self.states.periodic, (jump + cells // 2) % cells - cells // 2, jump)
        current = np.empty((self.states.size, len(cells)))
        for axis, spacing in enumerate(self.states.spacing):
            # An edge lies half in each of its two cells.
            moved = 0.5 * flow * jump[:, axis] * spacing
            current[:, axis] = np.bincount(entries.row, moved, self.states.size)
            current[:, axis] += np.bincount(entries.col, moved, self.states.size)
        return (current / self.states.cell_volume).reshape(*self.states.cells, -1)

    def _warn_of_lost_weights(self) -> None:
        """Issue `GridWarning` if rounding spoils the weights of wells."""
        error = self.process.weight_error
        if error > _WEIGHT_ERROR:
            warnings.warn(
                "barriers between wells are too high for double precision: their weights are off "
                f"by about {error:.2g}",
                GridWarning,
                stacklevel=4,
            )

    def _region(self, name: str, region: Region) -> Bool[Any, "..."]:
        if callable(region):
            inside = at_points(region, (), name)(self.grid.points()) > 0.5
            return inside.reshape(self.grid.cells)
        mask = np.asarray(region)
        if mask.dtype != np.bool_ or mask.shape != self.grid.cells:
            raise ValueError(
                f"{name} must be a function params -> bool or a boolean array of shape "
                f"{self.grid.cells}, got dtype {mask.dtype} and shape {mask.shape}"
            )
        return mask

    def _states_of(self, name: str, region: Region) -> Bool[Any, " n"]:
        self.ensure_proper()
        mask = self._region(name, region)
        if not mask.any():
            raise ValueError(f"{name} must hold the midpoint of at least one cell, got none")
        extra = self.states.dimension - self.num_params
        expanded = mask.reshape(*mask.shape, *([1] * extra))
        return np.broadcast_to(expanded, self.states.cells).ravel()

    def _read(self, values: np.ndarray, start: Any) -> Any:
        """Values of states seen from parameters: those at rest, whose copies agree."""
        table = values.reshape(self.states.cells)
        if self.states.dimension > self.num_params:
            table = np.diagonal(table)
        if start is None:
            return table
        point = np.atleast_1d(np.asarray(finite_array("start", start), dtype=np.float64))
        if point.shape != (self.num_params,):
            raise ValueError(f"start must have shape ({self.num_params},), got {point.shape}")
        if not self.grid.inside(point):
            raise ValueError(f"start must lie in the box, got {point}")
        return float(in_double_precision(self.grid.interpolate, table, point))


@formula
def _marginal_cdf(params: Any, edges: list[Any], masses: list[Any]) -> Any:
    columns = [
        jnp.interp(params[..., axis], ends, _below(mass))
        for axis, (ends, mass) in enumerate(zip(edges, masses, strict=True))
    ]
    return jnp.stack(columns, axis=-1)


@formula
def _marginal_quantile(probability: Any, edges: list[Any], masses: list[Any]) -> Any:
    columns = [
        jnp.interp(probability, _below(mass), ends)
        for ends, mass in zip(edges, masses, strict=True)
    ]
    return jnp.stack(columns, axis=-1)


def _below(masses: Float[Any, " n"]) -> Float[Any, " ends"]:
    """Probability below each end of a cell."""
    return jnp.concatenate([jnp.zeros_like(masses[:1]), jnp.cumsum(masses)])
