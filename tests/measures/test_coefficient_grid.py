"""Learning coefficients over step sizes and localizations: known values, and where they fail."""

import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import statsgd
from statsgd import problems
from statsgd.measures import learning_coefficient_grid, local_learning_coefficient
from statsgd.reports import sections

STRENGTH = 100.0
STEPS, SPRINGS = [1e-6, 2e-4, 4e-4, 1e-3, 0.05], [0.0, 100.0]


def loss(w):
    return (w[0] ** 2 + w[1] ** 2) / 2 + w[2] ** 4


@pytest.fixture(scope="module")
def grid():
    return learning_coefficient_grid(
        problems.landscape(loss, np.zeros(3)), np.zeros(3), step_sizes=STEPS,
        localizations=SPRINGS, steps=6000, burn_in=1000, thinning=10, chains=32,
        inverse_temperature=STRENGTH,
    )  # fmt: skip


def test_the_estimate_is_flat_where_it_can_be_trusted(grid):
    # γ = 0: ½ of each quadratic direction and, exactly, ¼ of the quartic one. γ = nβ: half of the
    # former, and a quadrature.
    w = np.linspace(-3, 3, 200_001)
    weight = np.exp(-STRENGTH * (w**4 + w**2 / 2))
    quartic = STRENGTH * np.sum(w**4 * weight) / np.sum(weight)
    exact = xr.DataArray([1.25, 0.5 + quartic], dims="localization")
    sound = grid.sel(step_size=slice(1e-4, 1e-3))
    assert (sound["doubts"] == "").all()
    off = sound["value"] - sound["step_size_bias"] - exact
    error = np.hypot(sound["standard_error"], sound["step_size_bias_standard_error"])
    assert (4 * error < 0.2 * exact).all()
    assert (np.abs(off) < 4 * error).all()
    # Together, as their random numbers are independent, they would show a tenth.
    together = np.sqrt((error**2).sum("step_size")) / 3
    assert (4 * together < 0.1 * exact).all()
    assert (np.abs(off.mean("step_size")) < 4 * together).all()
    assert len(np.unique(sound["value"])) == 6


def test_settings_that_cannot_be_trusted_say_why(grid):
    slow, large = grid.sel(step_size=1e-6), grid.sel(step_size=0.05)
    assert (slow["rhat"] > 1.01).all()
    assert all("have not mixed" in str(doubt) for doubt in slow["doubts"].values)
    # Quadratic directions had ½(1 − e^(−2nβt)) by the time t, on average 0.52 of the two at γ = 0.
    assert abs(slow["value"].sel(localization=0) - 0.55) < 0.1
    assert (large["diverged_chains"] == 32).all()
    assert large["value"].isnull().all()
    assert (large["doubts"] == "32 of 32 chains diverged").all()
    assert (grid["diverged_chains"].sel(step_size=slice(0, 0.01)) == 0).all()


def test_a_report_shows_it(grid, tmp_path):
    ((_, section),) = sections(xr.DataTree(grid))
    assert section.finding.startswith("Nothing speaks against 6 of 10 estimates. Localization 0: ")
    low, high = (grid["value"].sel(localization=0)[1:4].quantile(q).item() for q in (0, 1))
    told = f"from {low:.4g} to {high:.4g} over step sizes from 0.0002 to 0.001"
    assert told in section.finding
    assert "nan" not in section.finding
    assert len(section.table) == 10
    (figure,) = section.figures
    assert len(figure.panels) == 4
    for panel in figure.panels:
        assert panel.png().startswith(b"\x89PNG")
    grid.to_zarr(tmp_path / "grid", consolidated=False)
    kept = xr.open_zarr(tmp_path / "grid", consolidated=False)
    page = statsgd.report(kept, tmp_path / "page.html").read_text()
    assert "Learning coefficient over step size and localization" in page
    assert told in page


def test_a_grid_of_failures_is_shown_too(grid, tmp_path):
    lost = grid.sel(step_size=[0.05], localization=[0.0])
    ((_, section),) = sections(xr.DataTree(lost))
    assert section.finding.endswith("Localization 0: no step size can be trusted.")
    assert len(section.figures[0].panels) == 3
    assert all(panel.png().startswith(b"\x89PNG") for panel in section.figures[0].panels)


def test_a_cell_is_the_estimate_with_its_settings():
    problem = problems.quadratic(np.eye(2))
    options = {"steps": 400, "burn_in": 50, "inverse_temperature": STRENGTH, "box_radius": 0.05}
    options["restricted_to"] = np.array([True, False])
    found = learning_coefficient_grid(problem, np.zeros(2), step_sizes=[1e-3], **options)
    assert found.sizes == {"localization": 1, "step_size": 1}
    assert found.attrs["kind"] == "learning_coefficient_grid"
    # ½(1 − 2zφ(z)/(2Φ(z) − 1)) at z = ½ of one direction is .04, without box or part 1.
    assert float(found["value"].item()) == pytest.approx(0.04, abs=0.01)
    single = local_learning_coefficient(problem, np.zeros(2), step_size=1e-3, seed=3, **options)
    assert float(single.value) == pytest.approx(found["value"].item(), abs=0.01)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"step_sizes": [0.1, 0.1]}, "step_sizes must be at least one number, increasing"),
        ({"step_sizes": []}, "step_sizes must be at least one number, increasing"),
        ({"step_sizes": 0.1}, r"step_sizes must have 1 axes, got shape \(\)"),
        ({"localizations": [-1.0]}, "localizations must be non-negative and finite"),
        ({"chains": 1}, "chains must be at least 2, got 1"),
    ],
)
def test_refusals(changes, message):
    options = {"step_sizes": [0.1], "steps": 10, "burn_in": 0, "inverse_temperature": 1.0}
    with pytest.raises(ValueError, match=message):
        learning_coefficient_grid(
            problems.landscape(lambda w: jnp.sum(w**2), np.zeros(1)), np.zeros(1),
            **options | changes,
        )  # fmt: skip
