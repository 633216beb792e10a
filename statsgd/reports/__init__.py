"""What people read."""

from statsgd.reports.report import report
from statsgd.reports.sections import SECTIONS, Figure, Section

__all__ = ["SECTIONS", "Figure", "Section", "report"]
