"""Endpoints against laws."""

from statsgd.comparison.compare import Comparison, compare
from statsgd.comparison.modes import modes_in_phase_space
from statsgd.comparison.statistics import energy_distance

__all__ = ["Comparison", "compare", "energy_distance", "modes_in_phase_space"]
