"""Reports: self-contained, escaped, verdict first, and readable by machines and people."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import xarray as xr

from statsgd import SGD, compare, noise, problems, report, sample, simulate
from statsgd.kernels import MALA
from statsgd.laws import HeavyBallGaussian, PhaseSpaceGaussian
from studies.digits.modes import modes_in_phase_space

HESSIAN = np.diag([2.0, 0.5])


@pytest.fixture(scope="module")
def results():
    problem = problems.landscape(lambda x: 0.5 * x @ HESSIAN @ x, np.zeros(2))
    sgd = SGD(0.2, noise.Anisotropic(HESSIAN), 0.5)
    ensemble = simulate(problem, sgd, steps=200, replicas=400, seed=0, progress=False)
    laws = {
        "chain": HeavyBallGaussian.from_sgd(problem, sgd),
        "model": PhaseSpaceGaussian.from_sgd(problem, sgd),
    }
    tree = xr.DataTree.from_dict(
        {
            "comparison": compare(ensemble, laws["chain"], seed=0, margin=0.3).to_datatree(),
            "modes": modes_in_phase_space(ensemble, laws),
            "draws": sample(laws["chain"], MALA(), seed=0, warmup=200, draws=300, progress=False),
            "ensemble": ensemble,
        }
    )
    tree.attrs = {"title": "A <b>bold</b> title", "question": "q?", "finding": "found", "x": "<i>"}
    return tree


@pytest.fixture(scope="module")
def folder(results, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "deep"
    report(results, folder / "report.html")
    return folder


@pytest.fixture
def text(folder):
    return (folder / "report.html").read_text()


class Page(HTMLParser):
    """Collects what a reader and a browser need to know of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.images, self.links, self.headings = [], [], [], []
        self.inside = None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        if tag == "img":
            self.images.append(attrs)
        self.links += [attrs[name] for name in ("href", "src", "srcset") if name in attrs]
        self.inside = tag if tag in ("h1", "h2") else None

    def handle_data(self, data):
        if self.inside and data.strip():
            self.headings.append(data.strip())


def test_page_is_self_contained_and_complete(folder, text):
    page = Page(text)
    assert all(link.startswith(("data:image/png;base64,", "#")) for link in page.links)
    assert "script" not in page.tags
    # Variance ratios of two variables, three figures of two modes each, two of convergence.
    assert len(page.images) == 2 + 2 + 2 + 2 + 2
    assert sum(bool(image["alt"]) for image in page.images) == 5  # one text for each figure
    assert page.tags.count("source") == len(page.images)  # every panel in the dark, too
    assert page.headings[1:] == [
        "HeavyBallGaussian",
        "Mode by mode",
        "Draws from HeavyBallGaussian",
        "The ensemble",
        "Provenance",
    ]
    assert len(text) < 5_000_000
    assert not list(folder.glob("**/*.partial"))


def test_verdict_comes_before_everything_else(results, text):
    verdict = results["comparison"].attrs["verdict"]
    assert text.index(verdict) < text.index("<section>")
    assert "R-hat" in text
    assert "arXiv:2012.03636" in text


def test_what_users_write_is_escaped(text):
    assert "A &lt;b&gt;bold&lt;/b&gt; title" in text
    assert "<b>bold" not in text
    assert "&lt;i&gt;" in text


def test_figures_of_known_data_have_the_numbers_in_words(results, text):
    ratios = results["comparison"]["table"].to_dataset().to_dataframe()
    rows = (ratios["statistic"] == "variance ratio") & (ratios["variable"] == "params")
    low, high = ratios[rows]["effect"].min(), ratios[rows]["effect"].max()
    assert re.search(rf"The measured variance is {low:.3f} to\s+{high:.3f} times", text)


@pytest.mark.slow
def test_machines_read_what_people_read(results, tmp_path):
    path = report(results, tmp_path / "report.html", files=True)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["title"] == results.attrs["title"]
    comparison = summary["sections"][0]
    assert comparison["verdict"] == results["comparison"].attrs["verdict"]
    table = results["comparison"]["table"].to_dataset().to_dataframe()
    assert len(comparison["table"]) == len(table)
    assert comparison["table"][0]["effect"] == pytest.approx(table["effect"].iloc[0])
    drawn = [name for section in summary["sections"] for name in section["figures"]]
    assert len(drawn) == 10
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in drawn)
    assert f'id="{comparison["name"]}"' in path.read_text()


@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_named(results, tmp_path):
    with pytest.raises(ValueError, match="path must be a file to write, got the folder"):
        report(results, tmp_path)
    with pytest.raises(ValueError, match="at least one node of a known kind"):
        report(xr.DataTree(), tmp_path / "r.html")
