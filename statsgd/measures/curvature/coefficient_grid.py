"""How the local learning coefficient depends on the settings of its chains."""

import warnings
from typing import Any

import jax
import numpy as np
import xarray as xr
from jaxtyping import PyTree

from statsgd.arguments import finite_array, kinds_checked, non_negative, positive, random_seed
from statsgd.description import describe
from statsgd.kernels import MixingWarning
from statsgd.measures.curvature.learning_coefficient import (
    DivergedChainsError,
    LearningCoefficient,
    local_learning_coefficient,
)
from statsgd.measures.curvature.probes import random_key
from statsgd.problems import Problem
from statsgd.provenance import provenance

_NUMBERS = (
    "value", "standard_error", "step_size_bias", "step_size_bias_standard_error", "rhat",
    "effective_sample_size", "diverged_chains",
)  # fmt: skip


@kinds_checked
def learning_coefficient_grid(
    problem: Problem,
    params: PyTree,
    *,
    step_sizes: Any,
    localizations: Any = (1.0,),
    seed: int = 0,
    **options: Any,
) -> xr.Dataset:
    """`local_learning_coefficient` at every pair of a step size and a localization.

    The estimate is to be trusted where it depends on neither: where the step is small enough for
    its bias and large enough for chains to mix, and the localization holds chains near w* without
    adding a curvature of its own. `report` draws it with R-hat and chains that diverged.

    **Arguments:** `step_sizes` and `localizations`, increasing numbers; `seed`, of which every pair
    has random numbers of its own; `options` of `local_learning_coefficient`, `steps` and `burn_in`
    among them. All pairs run one program, each with as many steps: chains with small steps see less
    of the density.

    **Returns** a `Dataset` with the dims `localization` and `step_size`: `value`, `standard_error`,
    `step_size_bias` with its error, `rhat`, `effective_sample_size`, `diverged_chains`, and
    `doubts`, what speaks against the value in words, empty for nothing. No pair raises where its
    chains diverge: the value is not a number where fewer than two are left. Raises `ValueError` for
    numbers that do not increase, and otherwise as `local_learning_coefficient`.

    Numbers are float64.

    >>> from statsgd.problems import quadratic
    >>> found = learning_coefficient_grid(
    ...     quadratic(np.eye(2)), np.zeros(2), step_sizes=[5e-4, 1e-3], localizations=[1.0, 100.0],
    ...     steps=2000, burn_in=500, inverse_temperature=100.0,
    ... )
    >>> found["value"].mean("step_size").values.round(1)  # half of it at γ = nβ
    array([1. , 0.5])
    """
    steps = _increasing("step_sizes", positive("step_sizes", step_sizes))
    springs = _increasing("localizations", non_negative("localizations", localizations))
    key = random_key(random_seed(seed))
    shape = (len(springs), len(steps))
    columns = {name: np.full(shape, np.nan) for name in _NUMBERS}
    doubts = np.full(shape, "", dtype=object)
    for i, place in enumerate(np.ndindex(shape)):
        found = _found(
            problem, params, step_size=steps[place[1]], localization=springs[place[0]],
            seed=jax.random.fold_in(key, i), **options,
        )  # fmt: skip
        for name in _NUMBERS:
            columns[name][place] = getattr(found, name)
        doubts[place] = "; ".join(found.doubts())
    columns["diverged_chains"] = columns["diverged_chains"].astype(int)
    table = {name: (("localization", "step_size"), array) for name, array in columns.items()}
    return xr.Dataset(
        table | {"doubts": (("localization", "step_size"), doubts.astype(str))},
        coords={"localization": springs, "step_size": steps},
        attrs=provenance(
            "learning_coefficient_grid",
            seed=int(seed),
            options={name: describe(value) for name, value in options.items()},
        ),
    )


def _found(problem: Problem, params: PyTree, **options: Any) -> LearningCoefficient:
    """An estimate, or what there is of one: doubts are in the table."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MixingWarning)
        try:
            return local_learning_coefficient(problem, params, **options)
        except DivergedChainsError as error:
            return error.found


def _increasing(name: str, values: Any) -> np.ndarray:
    array = np.asarray(finite_array(name, values, ndim=1))
    if not len(array) or np.any(np.diff(array) <= 0):
        raise ValueError(f"{name} must be at least one number, increasing, got {values!r}")
    return array
