"""Whether chains have mixed: R-hat, effective sample sizes, and travel between wells."""

import importlib.util
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from statsgd.arguments import finite_array

#: Vehtari et al. (2021): R-hat up to 1.01, and 100 effective draws a chain.
LARGEST_RHAT = 1.01
LEAST_DRAWS_PER_CHAIN = 100
#: Below a tenth a kernel that aims at 0.57 or 0.65 has frozen.
LEAST_ACCEPTANCE = 0.1

_LOOKED_AT = 256  # elements of a variable that `sample` looks at unasked
_CORE = 0.5  # how much of the way from the ridge to a well counts as having arrived there


class MixingWarning(UserWarning):
    """The draws of `statsgd.sample` are not yet draws of its law."""


class Mixing(NamedTuple):
    """What `mixing` finds."""

    variables: xr.Dataset
    """`rhat`, `ess_bulk` and `ess_tail` along the dim `element`, named `params[0]`."""
    occupation: xr.DataArray | None
    """Share of draws in each well, dims `chain`, `well` (after those of a grid)."""
    round_trips: xr.DataArray | None
    """How often each chain left the well it was in first for another and came back."""
    mixed: bool
    verdict: str
    """One sentence."""


def mixing(
    draws: xr.DataTree,
    wells: Float[Any, "wells d"] | Callable[[Any], Any] | None = None,
    *,
    variable: str = "params",
) -> Mixing:
    """Whether the chains of `statsgd.sample` have forgotten where they started.

    R-hat (rank-normalised, split) must not exceed 1.01, and bulk and tail effective sample sizes
    must reach 100 a chain, for every element of every variable and every cell of a grid. No
    chain may accept less than a tenth of its steps.

    **Arguments:** `wells` makes travel between wells part of the verdict: positions `(wells, d)`
    in the space of `variable` (`find_wells`), or a function from `(…, d)` to the number of a well.
    With positions a draw belongs to the nearest, and a chain has moved once it is half the way from
    the ridge to another: jitter on the ridge is no travel. With `wells`, chains count as mixed only
    if every well is visited and there is at least one round trip a chain on average. R-hat alone
    cannot see a well that no chain found.

    Raises `ValueError` for draws without chains. Source: Vehtari, Gelman, Simpson, Carpenter,
    Bürkner (2021), arXiv:1903.08008.

    >>> from statsgd import laws, sample
    >>> law = laws.GaussianLaw([0.0], [[1.0]])
    >>> mixing(sample(law, draws=400, chains=2, seed=0, progress=False)).mixed
    True
    """
    if "posterior" not in draws.children or "chain" not in draws["posterior"].dims:
        raise ValueError("draws must have a group posterior with dims chain and draw")
    posterior = draws["posterior"].to_dataset()
    statistics = _statistics(posterior, None)
    chains = posterior.sizes["chain"]
    faults = _refusals(draws) + _faults(statistics, chains)
    occupation = round_trips = None
    journey = ""
    if wells is not None:
        occupation, round_trips = _travel(posterior[variable], wells)
        visited = int(np.sum(np.any(occupation.values > 0, axis=tuple(range(occupation.ndim - 1)))))
        number, trips = occupation.sizes["well"], float(round_trips.mean())
        journey = f"{visited} of {number} wells visited, {trips:.3g} round trips a chain"
        if visited < number or trips < 1:
            faults.append(journey)
    if faults:
        return Mixing(
            statistics, occupation, round_trips, False, f"the chains have not mixed: {faults[0]}"
        )
    least = float(np.nanmin([statistics["ess_bulk"].min(), statistics["ess_tail"].min()]))
    verdict = (
        f"the chains have mixed: R-hat at most {float(statistics['rhat'].max()):.4f}, at least "
        f"{least:.0f} effective draws" + (f", {journey}" if journey else "")
    )
    return Mixing(statistics, occupation, round_trips, True, verdict)


def warn_of_poor_mixing(draws: xr.DataTree) -> None:
    """Warn if at most 256 elements of each variable, evenly spaced, say so. Needs arviz_stats."""
    if importlib.util.find_spec("arviz_stats") is None:
        return
    posterior = draws["posterior"].to_dataset()
    faults = _refusals(draws)
    faults += _faults(_statistics(posterior, _LOOKED_AT), posterior.sizes["chain"])
    if faults:
        warnings.warn(
            f"the chains have not mixed: {faults[0]}; statsgd.kernels.mixing says more",
            MixingWarning,
            stacklevel=3,
        )


def _statistics(posterior: xr.Dataset, most: int | None) -> xr.Dataset:
    from arviz_stats.base import array_stats

    names: list[str] = []
    series: list[np.ndarray] = []
    for variable, array in posterior.data_vars.items():
        ordered = array.transpose(..., "chain", "draw")
        values = np.asarray(ordered.values, dtype=float)
        shape = values.shape[:-2]
        flat = values.reshape(-1, *values.shape[-2:])
        chosen = np.arange(len(flat))
        if most is not None and len(flat) > most:
            chosen = np.unique(np.linspace(0, len(flat) - 1, most).astype(int))
        for i in chosen:
            if np.all(flat[i] == flat[i].flat[0]):
                continue  # a constant of the model, on which all chains agree
            index = ",".join(map(str, np.unravel_index(i, shape))) if shape else ""
            names.append(f"{variable}[{index}]" if shape else str(variable))
            series.append(flat[i])
    chains, draws = posterior.sizes["chain"], posterior.sizes["draw"]
    if draws < 4 or not series:
        blank = np.full(len(series), np.nan)
        found = {"rhat": blank, "ess_bulk": blank, "ess_tail": blank}
    else:
        stacked = np.stack(series)
        axes = {"chain_axis": 1, "draw_axis": 2}
        with np.errstate(all="ignore"):
            found = {
                # One chain is compared with itself, half against half.
                "rhat": array_stats.rhat(stacked, **axes),
                "ess_bulk": array_stats.ess(stacked, **axes, method="bulk"),
                "ess_tail": array_stats.ess(stacked, **axes, method="tail", prob=(0.05, 0.95)),
            }
    variables = {name: ("element", np.asarray(values)) for name, values in found.items()}
    return xr.Dataset(variables, coords={"element": names}, attrs={"chains": chains})


def _refusals(draws: xr.DataTree) -> list[str]:
    """A chain that hardly ever moves, whatever its draws look like."""
    if "sample_stats" not in draws.children or "acceptance_rate" not in draws["sample_stats"]:
        return []
    rates = draws["sample_stats"]["acceptance_rate"].mean("draw")
    lowest = float(rates.min())
    if lowest >= LEAST_ACCEPTANCE:
        return []
    return [f"a chain accepts {lowest:.1%} of its steps: step_size is too large for it"]


def _faults(statistics: xr.Dataset, chains: int) -> list[str]:
    """What is wrong, the worst first, in words."""
    if not statistics.sizes["element"]:
        return ["no chain has moved"]
    faults = []
    rhat = statistics["rhat"].values
    worst = int(np.argmax(np.where(np.isnan(rhat), np.inf, rhat)))
    if not rhat[worst] <= LARGEST_RHAT:
        name = statistics["element"].values[worst]
        faults.append(f"R-hat of {name} is {rhat[worst]:.3f}, above {LARGEST_RHAT}")
    least = LEAST_DRAWS_PER_CHAIN * chains
    for kind in ("bulk", "tail"):
        size = statistics[f"ess_{kind}"].values
        worst = int(np.argmin(np.where(np.isnan(size), -np.inf, size)))
        if not size[worst] >= least:
            name = statistics["element"].values[worst]
            faults.append(
                f"{kind} effective sample size of {name} is {size[worst]:.0f}, below {least} "
                f"({LEAST_DRAWS_PER_CHAIN} a chain)"
            )
    return faults


def _travel(draws: xr.DataArray, wells: Any) -> tuple[xr.DataArray, xr.DataArray]:
    """Occupation of wells, and round trips, of each chain."""
    lead = [dim for dim in draws.dims if dim not in ("chain", "draw")][:-1]
    last = [dim for dim in draws.dims if dim not in ("chain", "draw")][-1]
    values = np.asarray(draws.transpose(*lead, "chain", "draw", last).values, dtype=float)
    if callable(wells):
        nearest = np.asarray(wells(values)).astype(int)
        arrived = np.ones(nearest.shape, dtype=bool)
        number = int(nearest.max()) + 1
    else:
        centres: Any = finite_array("wells", wells, ndim=2)
        if centres.shape[1] != values.shape[-1]:
            raise ValueError(
                f"wells must have shape (wells, {values.shape[-1]}), got {centres.shape}"
            )
        number = len(centres)
        nearest, arrived = _nearest(values, np.asarray(centres))
    shares = np.stack([(nearest == i).mean(axis=-1) for i in range(number)], axis=-1)
    draws_last = (-1, nearest.shape[-1])
    paths = zip(nearest.reshape(draws_last), arrived.reshape(draws_last), strict=True)
    trips = np.array([_round_trips(label[there]) for label, there in paths])
    dims = (*lead, "chain")
    return (
        xr.DataArray(shares, dims=(*dims, "well")),
        xr.DataArray(trips.reshape(shares.shape[:-1]), dims=dims),
    )


def _nearest(values: np.ndarray, wells: np.ndarray) -> tuple[Int[Any, "..."], Any]:
    """The nearest well, and whether it has been reached.

    s = (|x − w'|² − |x − w|²)/|w − w'|² is 1 at the well w and −1 at w', whatever the distance to
    the line between them, which grows with the dimension.
    """
    squares = np.sum(wells**2, axis=1) - 2 * values @ wells.T  # |x − w|² − |x|²
    nearest = np.argmin(squares, axis=-1)
    apart = np.sum((wells[:, None] - wells) ** 2, axis=-1)[nearest]
    gain = squares - np.min(squares, axis=-1, keepdims=True)
    others = np.arange(len(wells)) != nearest[..., None]
    return nearest, np.all((gain >= _CORE * apart) | ~others, axis=-1)


def _round_trips(labels: Int[Any, " visits"]) -> int:
    """Returns to the first well after a visit to another."""
    if not len(labels):
        return 0
    at_home = labels == labels[0]
    return int(np.sum(at_home[1:] & ~at_home[:-1]))
