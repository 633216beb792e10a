"""Charts of what is measured over a grid of learning rates and batch sizes."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from statsgd.estimate import Estimate
from statsgd.reports import Chart, Map, Series


class Grid(Protocol):
    """Learning rates η and batch sizes S, of which all pairs are run."""

    @property
    def learning_rates(self) -> Sequence[float]:
        """Ascending."""

    @property
    def batch_sizes(self) -> Sequence[int]:
        """Ascending."""


def grid_map(
    title: str, unit: str, found: Estimate, grid: Grid, centre: float | None = None
) -> Map:
    """A number in every cell."""
    rates = [float(rate) for rate in grid.learning_rates]
    sizes = list(grid.batch_sizes)
    labels = "batch size S", "learning rate η"
    return Map(title, *labels, sizes, rates, found.value, unit, centre=centre)


def threshold_chart(sharpness: Estimate, grid: Grid) -> Chart:
    """The threshold 2/h_max at the end, and the learning rate that led there."""
    rates = np.asarray(grid.learning_rates, dtype=float)
    threshold = 2 / sharpness.value
    error = threshold * sharpness.standard_error / sharpness.value
    series = [
        Series(f"2/h_max, S = {size}", rates, threshold[:, j], error[:, j])
        for j, size in enumerate(grid.batch_sizes)
    ]
    series.append(Series("η itself", rates, rates, look="line"))
    title = "Threshold of stability where training ends"
    return Chart(title, "learning rate η", "learning rate", tuple(series), "xy")


def ratio_chart(curvature: Estimate, grid: Grid) -> Chart:
    """Curvature against η/S."""
    rates = np.asarray(grid.learning_rates, dtype=float)
    values, errors = curvature.value, curvature.standard_error
    series = [
        Series(f"S = {size}", rates / size, values[:, j], errors[:, j])
        for j, size in enumerate(grid.batch_sizes)
    ]
    title = "Curvature at the end and the ratio η/S"
    return Chart(title, "η/S", "Tr H (loss/params²)", tuple(series), "x")
