"""Stages of a run: dynamics that follow one another, each for a number of steps."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jaxtyping import PyTree

from statsgd.arguments import step_count
from statsgd.dynamics.dynamics import Dynamics
from statsgd.dynamics.grid import SettingsGrid
from statsgd.problems import Problem
from statsgd.running.keys import pack
from statsgd.running.stacked import Stacked


class Stage(NamedTuple):
    """What moves replicas up to a number of steps."""

    settings: Stacked
    end: int


def in_turn(
    dynamics: Any, steps: int | Sequence[int], axes: Mapping[str, Any]
) -> tuple[list[SettingsGrid], list[int]]:
    """The settings of every stage, all with the same cells, and its number of steps.

    `axes` are those of the ensemble that the first stage continues; settings without axes hold in
    every cell.

    Raises `ValueError` unless there are as many numbers of steps as dynamics, and for axes of
    other names or lengths.
    """
    alone = isinstance(dynamics, Dynamics | SettingsGrid)
    if alone == isinstance(steps, Sequence):
        raise ValueError(
            "steps must be one number for one dynamics and a sequence of them for a sequence of "
            f"dynamics, got {steps!r}"
        )
    several: Any = [dynamics] if alone else list(dynamics)
    numbers = [steps] if alone else list(steps)  # type: ignore[arg-type]
    if len(several) != len(numbers) or not several:
        raise ValueError(
            f"steps must be a number for each of {len(several)} dynamics, got {steps!r}"
        )
    grids = [one if isinstance(one, SettingsGrid) else SettingsGrid(one, {}) for one in several]
    known = [shared for shared in (axes, *(grid.axes for grid in grids)) if shared]
    lengths = [{name: len(values) for name, values in shared.items()} for shared in known]
    for other in lengths[1:]:
        if list(other.items()) != list(lengths[0].items()):
            raise ValueError(
                "dynamics must have the axes of what it continues, of the lengths "
                f"{lengths[0]}, got {other}"
            )
    shared = {**known[-1]} if known else {}
    return [grid._replace(axes=shared) for grid in grids], [step_count("steps", n) for n in numbers]


def state_shape(problem: Problem, settings: Sequence[SettingsGrid]) -> Any:
    """Shapes and dtypes of the state that all stages hold, with random keys as numbers.

    Raises `ValueError` if they hold different ones.
    """

    def shape(grid: SettingsGrid) -> PyTree:
        # Of the first cell: settings do not change shapes.
        cell = grid.stacked().cell(0)
        return jax.eval_shape(lambda params: pack(cell.init(problem, params)), problem.template)

    shapes = [shape(grid) for grid in settings]
    structures: list[Any] = [jax.tree.structure(each) for each in shapes]
    leaves = [[(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(each)] for each in shapes]
    for grid, structure, found in zip(settings, structures, leaves, strict=True):
        if structure != structures[0] or found != leaves[0]:
            raise ValueError(
                "dynamics of one call must hold the same state, which "
                f"{type(settings[0].dynamics).__name__} and {type(grid.dynamics).__name__} do "
                "not; continue with start=ensemble instead"
            )
    return shapes[0]
