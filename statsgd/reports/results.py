"""Anything that the library returns as a data tree that has sections: what a report reads.

Objects that know their own tree (`to_datatree`) say it themselves. The rest is a table: settings of
laws and dynamics, values with their errors, rows of a table; and mappings and sequences of all
these are trees with a child for each.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import pandas as pd
import xarray as xr

from statsgd.arguments import told
from statsgd.display import UNITS, number, settings, spoken
from statsgd.dynamics import Dynamics, GradientNoise
from statsgd.estimate import Discrepancy, Estimate
from statsgd.kernels import LangevinKernel
from statsgd.laws import Law
from statsgd.problems import Problem
from statsgd.reports.sections import SECTIONS, WITHOUT_SECTION, Section, register

_LISTED = 12  # entries of an array that get a row each
_OBJECTS = (Law, Dynamics, GradientNoise, Problem, LangevinKernel)


def as_tree(results: Any, name: str = "results") -> xr.DataTree:
    """`results` as a data tree of sections.

    Takes data trees, datasets and data arrays; comparisons, claims, charts and all else with
    `to_datatree`; estimates, arrays, numbers, words; tables; laws, dynamics, noises, problems and
    kernels; and mappings, sequences and named tuples of these. Raises `ValueError` for the rest.
    """
    if isinstance(results, xr.DataTree):
        known = SECTIONS.keys() | WITHOUT_SECTION
        if any(node.attrs.get("kind") in known for node in results.subtree):
            return results
        if any("kind" in node.attrs for node in results.subtree) or not _has_data(results):
            return results  # which kinds there are, the report says
        sets = {node.path.strip("/") or name: node.to_dataset() for node in results.subtree}
        return as_tree({title: data for title, data in sets.items() if data.data_vars})
    if hasattr(results, "to_datatree"):
        return results.to_datatree()
    if isinstance(results, xr.DataArray):
        results = results.to_dataset(name=results.name or name)
    if isinstance(results, xr.Dataset):
        kind = results.attrs.get("kind")
        return xr.DataTree(results) if kind in SECTIONS else _table(_of_dataset(results), name)
    if isinstance(results, pd.DataFrame):
        return _frame(results, name)
    if isinstance(results, _OBJECTS):
        return _object(results)
    if not isinstance(results, Mapping) and _is_value(results):
        return _table(list(_rows(name, results)), name)
    parts = _parts(results)
    if parts is None:
        raise ValueError(f"results must be something that statsgd returns, got {told(results)}")
    if parts and all(_is_value(part) for part in parts.values()):
        title = name if isinstance(results, dict | list) else type(results).__name__
        return _table([row for key, part in parts.items() for row in _rows(key, part)], title)
    trees = {_child(key, i): as_tree(part, key) for i, (key, part) in enumerate(parts.items())}
    return xr.DataTree.from_dict(trees)


def _parts(results: Any) -> dict[str, Any] | None:
    if isinstance(results, Mapping):
        return {str(key): part for key, part in results.items()}
    if hasattr(results, "_asdict"):
        return _with_errors({k: part for k, part in results._asdict().items() if part is not None})
    if dataclasses.is_dataclass(results) and not isinstance(results, type):
        names = [field.name for field in dataclasses.fields(results)]
        return {name: getattr(results, name) for name in names}
    if isinstance(results, list | tuple):
        return {str(i): part for i, part in enumerate(results, 1)}
    return None


def _with_errors(fields: dict[str, Any]) -> dict[str, Any]:
    """Fields whose standard errors are fields of their own, as estimates."""
    errors = {f"{key}_standard_error": key for key in fields}
    known = {errors[name]: part for name, part in fields.items() if name in errors}
    return {
        key: Estimate(part, known[key]) if key in known else part
        for key, part in fields.items()
        if key not in errors
    }


def _child(key: str, place: int) -> str:
    """A name that a data tree can hold."""
    return key.replace("/", "∕") or f"part {place + 1}"


def _has_data(tree: xr.DataTree) -> bool:
    return any(node.data_vars for node in tree.subtree)


def _is_value(value: Any) -> bool:
    """Whether something is one or several numbers, or a word."""
    single = (str, bool, int, float, np.ndarray, np.generic, jax.Array, Estimate, Discrepancy)
    return value is None or isinstance(value, single)


def _rows(name: str, value: Any) -> Iterator[tuple[str, float, float, str]]:
    """Rows of a table: quantity, value, standard error, and words where it is no number."""
    error: Any = np.nan
    if isinstance(value, Estimate | Discrepancy):
        value, error = value.value, value.standard_error
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        yield name, np.nan, np.nan, str(value)
        return
    if array.dtype.kind == "b" and not array.ndim:
        yield name, np.nan, np.nan, "yes" if value else "no"
        return
    numbers, errors = array.astype(float), np.broadcast_to(error, array.shape)
    if numbers.size > _LISTED:
        finite = numbers[np.isfinite(numbers)]
        told = f"of {list(array.shape)} entries"
        for word, function in (("least", np.min), ("median", np.median), ("largest", np.max)):
            found = float(function(finite)) if finite.size else np.nan
            yield f"{name}, {word}", found, np.nan, told
        return
    for place in np.ndindex(numbers.shape):
        at = f"{name}[{', '.join(map(str, place))}]" if place else name
        yield at, float(numbers[place]), float(errors[place]), ""


def _of_dataset(data: xr.Dataset) -> list[tuple[str, float, float, str]]:
    return [row for key, one in data.data_vars.items() for row in _rows(str(key), one.values)]


def _table(rows: list[tuple[str, float, float, str]], title: str) -> xr.DataTree:
    columns = dict(zip(("quantity", "value", "standard_error", "note"), zip(*rows, strict=True),
                       strict=True)) if rows else {}  # fmt: skip
    data = xr.Dataset({key: ("row", np.asarray(column)) for key, column in columns.items()})
    return xr.DataTree(data.assign_attrs(kind="values", title=title))


def _frame(table: pd.DataFrame, title: str) -> xr.DataTree:
    kept = table.reset_index() if table.index.name else table
    columns = {str(key): ("row", _plain(kept[key])) for key in kept.columns}
    return xr.DataTree(xr.Dataset(columns, attrs={"kind": "table", "title": title}))


def _plain(column: pd.Series) -> np.ndarray:
    values = column.to_numpy()
    return values if values.dtype.kind in "biuf" else np.asarray([str(one) for one in column])


def _object(value: Any) -> xr.DataTree:
    """A law, a dynamics, …: what it is, and its settings with units."""
    told = {} if isinstance(value, Problem) else settings(value)
    units = {name: UNITS.get(name, "") for name in told}
    rows = [(name, told[name].removesuffix(f" {unit}"), unit) for name, unit in units.items()]
    columns = zip(*rows, strict=True) if rows else ((), (), ())
    data = {
        name: ("row", np.asarray(column, dtype=str))
        for name, column in zip(("setting", "value", "unit"), columns, strict=True)
    }
    said = value.describe() if isinstance(value, Law) else {}
    doc = (type(value).__doc__ or "").strip().splitlines()
    attributes = {"kind": "object", "title": type(value).__name__, "written": spoken_line(value)}
    attributes |= {"what": said.get("setting") or (doc[0] if doc else "")}
    attributes |= {"source": said.get("citation", ""), "exactness": said.get("exactness", "")}
    return xr.DataTree(xr.Dataset(data, attrs=attributes))


def spoken_line(value: Any) -> str:
    """An object in one line."""
    return repr(value) if isinstance(value, Problem | LangevinKernel) else spoken(value)


@register("values")
def values_section(name: str, node: xr.DataTree) -> Section:
    """Numbers with their standard errors, in words where they are few."""
    data = node.to_dataset()
    table = pd.DataFrame({str(key): data[key].values for key in data.data_vars})
    if not len(table):
        return Section(str(node.attrs["title"]), "Nothing was measured.")
    sentences = [_in_words(row) for row in table.head(_LISTED).itertuples()]
    shown = table if table["note"].any() else table.drop(columns="note")
    if not np.isfinite(table["standard_error"]).any():
        shown = shown.drop(columns="standard_error")
    return Section(_title(node.attrs["title"]), "; ".join(sentences) + ".", table=shown)


def _in_words(row: Any) -> str:
    if np.isnan(row.value) and row.note:
        return f"{row.quantity}: {row.note}"
    error = f" ± {row.standard_error:.2g}" if np.isfinite(row.standard_error) else ""
    return f"{row.quantity}: {number(row.value)}{error}"


@register("table")
def table_section(name: str, node: xr.DataTree) -> Section:
    """Rows as they are."""
    data = node.to_dataset()
    table = pd.DataFrame({str(key): data[key].values for key in data.data_vars})
    return Section(_title(node.attrs["title"]), f"{len(table)} rows.", table=table)


@register("object")
def object_section(name: str, node: xr.DataTree) -> Section:
    """What a law, a dynamics, a noise, a problem or a kernel is."""
    data, said = node.to_dataset(), node.attrs
    table = pd.DataFrame({str(key): data[key].values for key in data.data_vars})
    parts = [said["written"], said["what"], said["exactness"]]
    finding = ". ".join(str(part).rstrip(".:") for part in parts if part) + "."
    return Section(
        str(said["title"]), finding, table=table if len(table) else None, source=said["source"]
    )


def gathered(results: xr.DataTree, shown: frozenset[str]) -> list[tuple[str, str]]:
    """Where results come from: what their root says, then what all parts say, then each alone.

    `shown` are attributes that the page tells elsewhere.
    """
    rows = _said(results, shown)
    parts = {
        node.path.strip("/"): _said(node, shown)
        for node in results.subtree
        if node.path != "/" and "kind" in node.attrs
    }
    for key in dict.fromkeys(key for part in parts.values() for key in part):
        values = {where: part[key] for where, part in parts.items() if key in part}
        if key in rows:
            values = {where: value for where, value in values.items() if value != rows[key]}
        elif len(set(values.values())) == 1 and len(values) == len(parts):
            rows[key], values = next(iter(values.values())), {}
        rows |= {f"{where}: {key}": value for where, value in values.items()}
    return list(rows.items())


def _said(node: xr.DataTree, shown: frozenset[str]) -> dict[str, str]:
    rows = {str(key): value for key, value in node.attrs.items() if key not in shown}
    config = rows.pop("config", None)
    found = {key: str(value) for key, value in rows.items()}
    if config is not None:
        found |= {f"config: {key}": str(value) for key, value in json.loads(config).items()}
    return found


def _title(text: Any) -> str:
    words = str(text).replace("_", " ")
    return words[:1].upper() + words[1:]
