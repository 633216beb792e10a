"""Whatever the library returns can be reported and shown, with where all parts come from."""

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import statsgd
from statsgd import SGD, compare, kernels, laws, measures, noise, problems, report
from statsgd.comparison import Claim, Quantity
from statsgd.estimate import Discrepancy, Estimate
from statsgd.reports import figure, show

LAW = laws.HeavyBallGaussian([[2.0]], [[1.0]], learning_rate=0.1)
POINTS = np.random.default_rng(0).normal(size=(40, 1))
PROBLEM = problems.landscape(lambda x: 0.5 * x @ x, np.zeros(1))
TREE = statsgd.ensemble(POINTS, learning_rate=0.1)

RESULTS = {
    "comparison": compare(POINTS, LAW, seed=0),
    "claim": Claim("One is two.", "derived", [Quantity("x", 1.0, 0.1, 2.0, "=", 0.1)]),
    "estimate": Estimate(np.array([1.0, 2.5]), np.array([0.1, 0.2])),
    "distance": Discrepancy(0.1, 0.01, 0.2, True),
    "number": 3.25,
    "array": np.arange(50.0),
    "minimum": problems.Minimum(np.zeros(1), 0.5, 0.0, True),
    "measure": measures.over_endpoints(lambda p, x: p.loss(x), PROBLEM, TREE, name="loss"),
    "dataset": xr.Dataset({"a": ("x", [1.0, 2.0])}),
    "array of data": xr.DataArray([1.0], name="b"),
    "table": pd.DataFrame({"law": ["A", "B"], "applies": [True, False]}),
    "ensemble": TREE,
    "law": LAW,
    "sgd": SGD(0.1, noise.Isotropic(1.0)),
    "noise": noise.NoNoise(),
    "problem": PROBLEM,
    "kernel": kernels.MALA(),
    "list": [Estimate(1.0, 0.1), 2.0],
    "nested": {"a/b": {"c": LAW}, "d": [LAW, Estimate(0.5, 0.1)]},
}


#: All of them come on one page below; alone a few by default, the others with the slow tests.
ALONE = {"comparison", "claim", "measure", "ensemble", "law", "nested"}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in ALONE else [pytest.mark.slow]) for n in RESULTS]
)
def test_each_is_reported_and_shown(name, tmp_path):
    page = report(RESULTS[name], tmp_path / "r.html").read_text()
    assert "<h2" in page
    assert repr(show(RESULTS[name]))


def test_all_of_them_on_one_page(tmp_path):
    path = report(RESULTS, tmp_path / "r.html", files=True)
    summary = json.loads((tmp_path / "summary.json").read_text())
    sections = {part["name"]: part for part in summary["sections"]}
    assert set(RESULTS) - {"array of data", "nested"} <= {*sections}
    rows = sections["estimate"]["table"]
    assert [(row["value"], row["standard_error"]) for row in rows] == [(1.0, 0.1), (2.5, 0.2)]
    assert "estimate[1]: 2.5 ± 0.2" in sections["estimate"]["finding"]
    assert "learning_rate=0.1 time/step" in sections["law"]["finding"]
    assert RESULTS["comparison"].verdict == sections["comparison"]["verdict"]
    assert path.stat().st_size < 2_000_000


def test_provenance_is_gathered_from_the_parts(tmp_path):
    two = {"one": compare(POINTS, LAW, seed=1), "two": compare(POINTS, LAW, seed=2, margin=0.2)}
    report(two, tmp_path / "r.html", files=True)
    said = json.loads((tmp_path / "summary.json").read_text())["provenance"]
    assert said["statsgd_version"] == statsgd.__version__
    assert said["confidence"] == "0.95"  # common to both
    assert (said["one: seed"], said["two: seed"]) == ("1", "2")
    assert (said["one: margin"], said["two: margin"]) == ("0.1", "0.2")


def test_figures_of_anything():
    assert len(figure(RESULTS["comparison"]).axes) == 1
    with pytest.raises(ValueError, match="results must hold something to draw"):
        figure(LAW)


@pytest.mark.usefixtures("unchecked")
def test_what_is_no_result_is_refused(tmp_path):
    with pytest.raises(ValueError, match="results must be something that statsgd returns"):
        report(object(), tmp_path / "r.html")
    with pytest.raises(ValueError, match="results must be something that statsgd returns"):
        show({"a": LAW, "b": report})
