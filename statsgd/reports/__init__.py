"""What people read."""

from statsgd.reports import comparison_sections as comparison_sections  # registers its sections
from statsgd.reports.report import report
from statsgd.reports.sections import SECTIONS, Figure, Section

__all__ = ["SECTIONS", "Figure", "Section", "report"]
