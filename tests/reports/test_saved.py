"""Results on disk: what is read back is what was found, and what is missing is named."""

import importlib.util

import numpy as np
import pytest
import xarray as xr

from statsgd import compare, laws
from statsgd.comparison import Claim, Quantity
from statsgd.reports import save, show

CLAIM = Claim("One is two.", "derived", [Quantity("x", 1.0, 0.1, 2.0, "=", 0.1)])


@pytest.mark.skipif(importlib.util.find_spec("zarr") is None, reason="Zarr is not installed")
def test_results_are_read_back(tmp_path):
    law = laws.HeavyBallGaussian([[2.0]], [[1.0]], learning_rate=0.1)
    comparison = compare(np.random.default_rng(0).normal(size=(40, 1)), law, seed=0)
    results = {"comparison": comparison, "claim": CLAIM, "number": 1.5}
    path = save(results, tmp_path / "deep" / "results.zarr")
    save(results, path)  # once more in its place
    again = xr.open_datatree(path, engine="zarr", consolidated=False)
    assert again["comparison"].attrs["verdict"] == comparison.verdict
    table = again["comparison/table"].to_dataset().to_dataframe()
    np.testing.assert_array_equal(table["effect"], comparison.table["effect"])
    assert table["verdict"].tolist() == comparison.table["verdict"].tolist()
    assert comparison.verdict in repr(show(again))


def test_what_cannot_be_written_is_named(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"path must end in .zarr or .nc, got 'r.html'"):
        save(CLAIM, tmp_path / "r.html")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for ending, extra in ((".nc", "netcdf"), (".zarr", "store")):
        with pytest.raises(ValueError, match=rf"not installed: pip install \"statsgd\[{extra}\]\""):
            save(CLAIM, tmp_path / f"results{ending}")
