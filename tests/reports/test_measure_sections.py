"""A measure over an ensemble has a section: its sentence has the numbers, its figure is drawn."""

import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from statsgd import SGD, measures, noise, problems, simulate
from statsgd.reports import sections

PROBLEM = problems.landscapes.quadratic(np.diag([2.0, 1.0, 0.5]))
DYNAMICS = SGD(0.1, noise.Isotropic(1.0), 0.5)


@pytest.fixture(scope="module")
def ensemble():
    return simulate(
        PROBLEM, DYNAMICS, steps=60, replicas=200, seed=0, progress=False,
        keep=range(20, 61), observe={"loss": PROBLEM.loss},
    )  # fmt: skip


def section_of(data):
    ((_, section),) = sections(xr.DataTree.from_dict({"measure": data}))
    for figure in section.figures:
        assert figure.alt
        assert all(panel.png().startswith(b"\x89PNG") for panel in figure.panels)
    return section


def test_a_measure_over_endpoints(ensemble):
    def expected_loss(problem, params):
        return problem.loss(params)

    data = measures.over_endpoints(expected_loss, PROBLEM, ensemble)
    section = section_of(data)
    losses = data["expected_loss"].values
    error = losses.std(ddof=1) / np.sqrt(200)
    assert section.title == "Expected loss"
    assert f"expected_loss is {losses.mean():.4g} ± {error:.2g}" in section.finding
    assert len(section.figures[0].panels) == 1

    def squares(problem, params):
        return jnp.square(params)

    section = section_of(measures.over_endpoints(squares, PROBLEM, ensemble))
    assert "squares at squares_dim_0 1 is" in section.finding
    assert len(section.table) == 3


def test_chains_of_learning_coefficients_have_values_and_no_row_for_each_step(ensemble):
    some = xr.DataTree.from_dict({"endpoints": ensemble["endpoints"].isel(replica=slice(3))})
    data = measures.over_endpoints(
        measures.local_learning_coefficient, PROBLEM, some, step_size=1e-3, steps=100, burn_in=0,
        inverse_temperature=100.0, chains=2, localization=0.0, seed=0,
    )  # fmt: skip
    assert data["chain_losses"].shape == (3, 2, 100)
    section = section_of(data)
    quantities = list(section.table["quantity"])
    assert "chain_values at chain_values_dim_0 1" in quantities
    assert "diverged_chains" in quantities
    assert len(quantities) == 10
