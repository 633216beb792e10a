"""What a report says of fitted laws, from posteriors that are known in closed form."""

import numpy as np
import pytest
import xarray as xr
from scipy.stats import norm, t

from statsgd.comparison import fitted_laws
from statsgd.reports import sections

POINTS = t.rvs(5, size=400, random_state=0) * np.sqrt(3 / 5)  # variance 1


def fit(log_density):
    """A fit whose scale parameter has the posterior Normal(1, 0.03²)."""
    scale = 1 + 0.03 * np.random.default_rng(1).normal(size=(2, 200))
    likelihood = log_density(POINTS / scale[..., None]) - np.log(scale)[..., None]
    lead = ("chain", "draw")
    return xr.DataTree.from_dict(
        {
            "posterior": xr.Dataset({"scale": (lead, scale)}),
            "log_likelihood": xr.Dataset({"endpoints": ((*lead, "replica"), likelihood)}),
        }
    )


@pytest.fixture(scope="module")
def tree():
    student = fit(lambda z: t.logpdf(z / np.sqrt(3 / 5), 5) - 0.5 * np.log(3 / 5))
    fits = {"Student": student, "normal": fit(norm.logpdf)}
    theory = {"Student": {"scale": 1.0}, "normal": {"scale": 1.5}}
    return fitted_laws(fits, theory, margin=0.2)


def test_ranking_and_parameters_are_said_and_drawn(tree):
    ((_, section),) = sections(tree)
    assert section.finding.startswith("Student predicts endpoints best; normal follows")
    assert "(theory 1): agrees within 20 %." in section.finding
    assert "(theory 1.5): differs by more than 20 %." in section.finding
    (figure,) = section.figures
    assert len(figure.panels) == 3
    assert all(len(panel.png()) > 5000 for panel in figure.panels)
    assert list(section.table["law"]) == ["Student", "normal"]


def test_behind_is_the_difference_of_predictive_densities(tree):
    ranking = tree["ranking"].to_dataset().to_dataframe()
    # The posterior is narrow: elpd is the log density at scale 1, up to the effective parameter.
    at_one = t.logpdf(POINTS / np.sqrt(3 / 5), 5) - 0.5 * np.log(3 / 5) - norm.logpdf(POINTS)
    difference, error = at_one.sum(), at_one.std() * np.sqrt(400)
    assert abs(-ranking["elpd_diff"]["normal"] - difference) < 3
    np.testing.assert_allclose(ranking["dse"]["normal"], error, rtol=0.15)
