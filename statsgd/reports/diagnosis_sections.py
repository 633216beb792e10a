"""What a report says of the parts of a diagnosis."""

import numpy as np
import pandas as pd
import xarray as xr

from statsgd.reports.sections import Section, register


@register("diagnosis_part")
def diagnosis_section(name: str, node: xr.DataTree) -> Section:
    """One part: what was found, what to do about it, and the numbers by mode."""
    words = {key: str(node.attrs[key]) for key in ("title", "finding", "advice", "source")}
    text = words["finding"]
    if words["advice"]:
        text += f" What to do: {words['advice']}"
    verdict = str(node.attrs["verdict"]) or None
    return Section(
        words["title"], text, table=_table(node), verdict=verdict, source=words["source"]
    )


def _table(node: xr.DataTree) -> pd.DataFrame | None:
    """Numbers by mode, of the last step where there are several; else single numbers by name."""
    data = node.to_dataset()
    if "step" in data.dims:
        data = data.isel(step=-1)
    columns = {str(name): data[name] for name in data.data_vars if data[name].dims == ("mode",)}
    if columns:
        values = {name: array.values.astype(float) for name, array in columns.items()}
        return pd.DataFrame({"mode": data["mode"].values} | values)
    rows = [
        (str(name).replace("_", " "), float(data[name]))
        for name in data.data_vars
        if not data[name].dims and np.isfinite(float(data[name]))
    ]
    return pd.DataFrame(rows, columns=["number", "value"]) if rows else None
