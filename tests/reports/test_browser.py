"""The report in a browser: nothing is fetched, nothing sticks out, dark is dark."""

import re
import shutil
import subprocess

import matplotlib.image
import numpy as np
import pytest
import xarray as xr

from statsgd.comparison import Claim, Quantity
from statsgd.reports import Chart, Series, report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium"),
]
# Written into a copy of the page: what a browser makes of it.
PROBE = """<script>addEventListener("load", () => {
  const root = document.documentElement;
  const seen = [...document.images].filter(one => one.offsetParent && one.naturalWidth);
  const asked = performance.getEntriesByType("resource").filter(one => /^http/.test(one.name));
  root.dataset.probe = [root.scrollWidth, innerWidth, seen.length, asked.length].join();
})</script>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    x = np.linspace(0.0, 1.0, 20)
    claim = Claim(
        "Variance grows with the step", "derived", [Quantity("slope", 1.0, 0.01, 1.0, "=", 0.1)]
    )
    charts = [
        Chart(f"Variance, run {i}", "step", "variance", (Series("SGD", x, x**i),)) for i in (1, 2)
    ]
    results = xr.DataTree.from_dict({"claim": claim.to_datatree(*charts)})
    results.attrs = {"title": "A study", "question": "Does it?", "finding": "It does."}
    path = tmp_path_factory.mktemp("report") / "report.html"
    report(results, path)
    text = path.read_text()
    path.write_text(text.replace('loading="lazy"', "").replace("</body>", PROBE + "</body>"))
    return path


def launch(folder, *options):
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    profile = f"--user-data-dir={folder / 'profile'}"
    return subprocess.run(
        [*command, profile, *options], capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture(scope="module")
def browse(page):
    if launch(page.parent, "--dump-dom", "about:blank").returncode:
        pytest.skip("chromium does not start on this machine")

    def look(*options):
        done = launch(page.parent, *options, page.as_uri())
        assert done.returncode == 0, done.stderr
        return done.stdout

    return look


@pytest.mark.parametrize("width", [1000, 500])
def test_page_fits_its_window_and_shows_its_figures(browse, width):
    dom = browse(f"--window-size={width},900", "--dump-dom")
    scroll, inner, figures, fetched = map(
        int, re.search(r'data-probe="([\d,]+)"', dom)[1].split(",")
    )
    assert inner <= width
    assert scroll <= inner
    assert figures == 2
    assert fetched == 0


def test_dark_pages_are_dark(browse, tmp_path):
    means = {}
    for name, options in (
        ("light", []),
        ("dark", ["--force-dark-mode", "--blink-settings=preferredColorScheme=0"]),
    ):
        shot = tmp_path / f"{name}.png"
        browse(*options, "--window-size=900,900", f"--screenshot={shot}")
        means[name] = matplotlib.image.imread(shot)[..., :3].mean()
    assert means["light"] > 0.8
    assert means["dark"] < 0.35
