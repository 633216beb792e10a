"""One part of a diagnosis: numbers, and what they mean in words."""

import dataclasses

import xarray as xr

from statsgd.reports.charts import Chart


@dataclasses.dataclass(frozen=True)
class Part:
    """What is told of one subject, beside the numbers it rests on."""

    title: str
    finding: str
    """What was found; every symbol is explained on the same page."""
    advice: str = ""
    """What to do about it."""
    verdict: str = ""
    """A few words for the overview."""
    source: str = ""
    charts: tuple[Chart, ...] = ()

    def to_datatree(self, numbers: xr.Dataset) -> xr.DataTree:
        """`numbers` with the words in the attributes and the charts below."""
        words = dataclasses.asdict(dataclasses.replace(self, charts=()))
        del words["charts"]
        tree = xr.DataTree(numbers.assign_attrs({"kind": "diagnosis_part"} | words))
        for index, chart in enumerate(self.charts):
            tree[f"chart_{index}"] = chart.to_datatree()
        return tree


def judged(gap: float, error: float, margin: float, near: str, far: str) -> str:
    """`far` where a gap is above `margin` by two errors, else `near`.

    "undecided" in place of `near` where the error itself is above the margin.
    """
    if abs(gap) > margin + 2 * error:
        return far
    return near if error <= margin else "undecided"
