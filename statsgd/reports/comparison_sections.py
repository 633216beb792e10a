"""What reports say of comparisons beyond moments: effects, tests, and where a gap comes from."""

import numpy as np
import pandas as pd
import xarray as xr

from statsgd.reports import comparison_figures
from statsgd.reports.sections import Figure, Section, register


@register("gap")
def gap_section(name: str, node: xr.DataTree) -> Section:
    """The parts of the difference between endpoints and a law."""
    data = node.to_dataset()
    rows = data.to_dataframe().reset_index()
    rows["p_value"] = [
        "" if np.isnan(value) else f"{value:.3g}" for value in rows["p_value"].to_numpy()
    ]
    picture = Figure(
        comparison_figures.gap(data),
        "Total variation between neighbours on the way from endpoints to the law; lines are one "
        "standard error, or the numerical error of exact solutions.",
        f"Parts of the gap between endpoints and {node.attrs['law']}",
    )
    return Section(node.attrs["title"], node.attrs["finding"], (picture,), pd.DataFrame(rows))
