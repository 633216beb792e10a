"""What people read."""

from statsgd.reports import coefficient_sections as coefficient_sections  # registers its sections
from statsgd.reports import comparison_sections as comparison_sections
from statsgd.reports import diagnosis_sections as diagnosis_sections
from statsgd.reports import fit_sections as fit_sections
from statsgd.reports import grid_sections as grid_sections
from statsgd.reports import measure_sections as measure_sections
from statsgd.reports.charts import Chart, Map, Series
from statsgd.reports.gallery import gallery, judged
from statsgd.reports.panels import DARK, LIGHT, Figure, Panel, Theme
from statsgd.reports.report import report
from statsgd.reports.saved import save
from statsgd.reports.sections import SECTIONS, Section, register, sections
from statsgd.reports.show import figure, show

__all__ = [
    "DARK",
    "LIGHT",
    "SECTIONS",
    "Chart",
    "Figure",
    "Map",
    "Panel",
    "Section",
    "Series",
    "Theme",
    "figure",
    "gallery",
    "judged",
    "register",
    "report",
    "save",
    "sections",
    "show",
]


def __dir__() -> list[str]:
    return sorted(__all__)
