"""A law over a grid of settings: where it holds, where it does not, and what a report shows."""

import numpy as np
import pytest
import xarray as xr

from statsgd import SGD, grid, noise, problems, simulate
from statsgd.comparison import compare_grid
from statsgd.laws import Gibbs, LinearRegressionGaussian
from statsgd.reports import sections

RATES = [0.05, 0.2, 0.8]
VARIANCES = [0.5, 1.0]


@pytest.fixture(scope="module")
def compared():
    """Gibbs against the chain on h = 1: the variance is 1/(1 − η/2) times the law's."""
    problem = problems.landscapes.quadratic([[1.0]])
    runs = grid(
        SGD(0.1, noise.Isotropic(1.0)),
        {"learning_rate": RATES, "noise.variance": VARIANCES},
    )
    ensemble = simulate(problem, runs, steps=200, replicas=4000, seed=0, progress=False)

    def endpoints_at(learning_rate, variance):
        return ensemble.sel({"learning_rate": learning_rate, "noise.variance": variance})

    def law_at(learning_rate, variance):
        return Gibbs.from_sgd(problem, SGD(learning_rate, noise.Isotropic(variance)))

    axes = {"learning_rate": RATES, "variance": VARIANCES}
    return compare_grid(axes, endpoints_at, law_at, seed=0, margin=0.25)


def test_cells_hold_the_error_of_the_law(compared):
    cells = compared["cells"].to_dataset()
    expected = 1 / (1 - np.asarray(RATES) / 2)
    # Standard error of a variance ratio over 4000 normal endpoints: √(2/4000) of it.
    error = np.abs(cells["effect"].values / expected[:, None] - 1)
    assert (error < 4 * np.sqrt(2 / 4000)).all()
    verdicts = cells["verdict"].values
    assert (verdicts[0] == "agrees within 25 %").all()
    assert (verdicts[2] == "differs by more than 25 %").all()
    assert (cells["low"] < cells["effect"]).all()
    assert (cells["survived"] == 1).all()


def test_marginals_are_shares(compared):
    marginals = compared["marginals"].to_dataset()
    # Within four standard deviations of the law lie 99.99 % of it.
    np.testing.assert_allclose(marginals["law"].sum("bin"), 0.99994, atol=4e-4)
    spread = ((marginals["endpoints"] * marginals["bin"] ** 2).sum("bin")).values
    assert (spread[2] > 1.3 * spread[0]).all()


def test_report_shows_phase_diagram_and_small_multiples(compared):
    ((_, section),) = sections(compared)
    assert "agrees within 25 %: " in section.finding
    assert "learning rate 0.8" in section.finding
    (figure,) = section.figures
    assert len(figure.panels) == 2
    assert all(len(panel.png()) > 5000 for panel in figure.panels)
    assert len(section.table) == 6


@pytest.mark.slow
def test_improper_and_diverged_cells_are_said():
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(30, 2))
    problem = problems.linear_regression(inputs, inputs @ [1.0, 0.5] + rng.normal(size=30))

    def sgd(learning_rate, batch_size):
        return SGD(learning_rate, noise.Minibatch(batch_size))

    def endpoints_at(**setting):
        return simulate(
            problem, sgd(**setting), steps=300, replicas=2000, seed=1, progress=False,
            allow_unstable=True,
        )  # fmt: skip

    def law_at(**setting):
        return LinearRegressionGaussian.from_sgd(problem, sgd(**setting))

    axes = {"learning_rate": [0.05, 8.0], "batch_size": [2]}
    compared = compare_grid(axes, endpoints_at, law_at, seed=0, margin=0.4)
    cells = compared["cells"].to_dataset()
    assert cells["verdict"].values[0, 0] == "agrees within 40 %"
    assert cells["verdict"].values[1, 0] in ("diverged", "improper")
    assert np.isnan(cells["effect"].values[1, 0])
    assert isinstance(next(iter(sections(compared)))[1].finding, str)


def test_axes_are_two():
    with pytest.raises(ValueError, match="axes must name two settings"):
        compare_grid({"a": [1]}, xr.DataTree, Gibbs, seed=0)
