"""Every labelled measure has a section: its sentence has the numbers, its figure is drawn."""

import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from statsgd import SGD, measures, noise, problems, simulate
from statsgd.reports import SECTIONS, sections

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


def test_motion(ensemble):
    moved = measures.displacement_dataset(ensemble, [1, 2, 4, 8])
    section = section_of(moved)
    assert f"lag^({moved.attrs['anomalous_exponent']:.3f}" in section.finding
    currents = measures.currents_dataset(PROBLEM, DYNAMICS, ensemble)
    section = section_of(currents)
    assert f"{currents.attrs['entropy_production']:.4g} ±" in section.finding
    spread = measures.variance_dataset(ensemble, np.eye(3), np.array([2.0, 1.0, 0.5]))
    assert f"ψ = {spread.attrs['psi']:.3f}" in section_of(spread).finding
    climb = measures.loss_climb_dataset(ensemble, start_loss=np.zeros(200))
    assert f"{float(climb['climb'][-1]):.4g} ±" in section_of(climb).finding


def test_escape_and_basins(ensemble):
    time = np.random.default_rng(0).geometric(0.05, 300).astype(float)
    exits = measures.ExitTimes(np.minimum(time, 40.0), time <= 40)
    survival = measures.survival_dataset(exits)
    section = section_of(survival)
    assert f"rate of {survival.attrs['escape_rate']:.4g}" in section.finding
    assert f"{int((time > 40).sum())} were still inside" in section.finding
    basins = measures.basins_dataset(PROBLEM, ensemble, np.zeros((1, 3)), radius=0.1)
    assert "basin 0: 1.0000" in section_of(basins).finding


def test_stationarity_and_balance():
    relations = xr.Dataset(
        {
            name: ("relation", [value])
            for name, value in {
                "left": 1.0, "left_error": 0.1, "right": 2.0, "right_error": 0.1, "gap": -1.0,
                "gap_error": 0.14, "t": -7.1, "p_value": 1e-9,
            }.items()
        },
        coords={"relation": ["first"]},
        attrs={"kind": "fluctuation_dissipation"},
    )  # fmt: skip
    assert section_of(relations).finding.endswith("They are not stationary.")
    quiet = relations.assign(p_value=("relation", [0.4]))
    assert section_of(quiet).finding.endswith("Nothing says that they are not stationary.")
    charges = xr.Dataset(
        {
            "charge": (("replica", "step", "symmetry"), np.full((5, 3, 1), -0.5)),
            "size": (("replica", "step", "symmetry"), np.full((5, 3, 1), 2.0)),
        },
        coords={"symmetry": ["layers"], "step": [0, 1, 2]},
        attrs={"kind": "charges"},
    )
    assert "layers: 0.25 ± 0" in section_of(charges).finding


def test_every_kind_that_measures_write_has_a_section():
    kinds = {
        "measure", "survival", "loss_climb", "displacement", "variance_flatness",
        "fluctuation_dissipation", "currents", "charges", "basins",
    }  # fmt: skip
    assert kinds <= set(SECTIONS)
