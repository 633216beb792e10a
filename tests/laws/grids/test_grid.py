import jax
import jax.numpy as jnp
import numpy as np
import pytest

from statsgd.laws.grids import Grid, total_variation
from statsgd.laws.grids.grid import at_points


def test_cells_edges_and_points():
    grid = Grid([0.0, -1.0], [1.0, 1.0], [2, 4])
    assert (grid.dimension, grid.size, grid.cell_volume) == (2, 8, 0.25)
    np.testing.assert_allclose(grid.edges(1), [-1, -0.5, 0, 0.5, 1])
    np.testing.assert_allclose(grid.centres(0), [0.25, 0.75])
    np.testing.assert_allclose(grid.points()[:3], [[0.25, -0.75], [0.25, -0.25], [0.25, 0.25]])
    assert grid.axis(1) == Grid(-1.0, 1.0, 4)


def test_points_are_located_and_counted():
    line, circle = Grid(0.0, 4.0, 4), Grid(0.0, 4.0, 4, True)
    points = np.array([[-0.5], [0.0], [1.5], [4.0], [4.5]])
    np.testing.assert_array_equal(line.locate(points)[:, 0], [0, 0, 1, 3, 3])
    np.testing.assert_array_equal(circle.locate(points)[:, 0], [3, 0, 1, 0, 0])
    np.testing.assert_allclose(line.histogram(points), [0.4, 0.2, 0, 0.4])


def test_coarse_cells_hold_the_mass_of_theirs():
    grid = Grid([0.0, 0.0], [1.0, 1.0], [4, 6])
    masses = np.arange(24.0).reshape(4, 6)
    coarse = grid.coarsen()
    assert coarse.cells == (2, 3)
    added = grid.add_up(masses, coarse)
    assert added[0, 0] == masses[:2, :2].sum()
    assert added[1, 2] == masses[2:, 4:].sum()
    assert Grid(0.0, 1.0, 5).coarsen().cells == (5,)
    with pytest.raises(ValueError, match="coarse must divide the cells"):
        grid.add_up(masses, Grid([0.0, 0.0], [1.0, 1.0], [3, 3]))


@pytest.mark.parametrize("periodic", [False, True])
def test_interpolation_is_linear_and_keeps_the_integral(periodic):
    grid = Grid([0.0, 0.0], [2.0, 3.0], [5, 4], [periodic, False])
    rng = np.random.default_rng(0)
    values = rng.uniform(size=grid.cells)
    at_midpoints = grid.interpolate(values, grid.points())
    np.testing.assert_allclose(at_midpoints, values.ravel(), atol=1e-12)
    fine = Grid(grid.lower, grid.upper, [100, 120])
    total = grid.interpolate(values, fine.points()).sum() * fine.cell_volume
    assert total == pytest.approx(values.sum() * grid.cell_volume, rel=1e-10)
    traced = jax.jit(jax.vmap(lambda x: grid.interpolate(values, x)))(fine.points())
    np.testing.assert_allclose(traced, grid.interpolate(values, fine.points()), rtol=1e-4)


def test_uniform_numbers_map_to_the_masses():
    # A lattice of quantiles must fill every cell with its mass, up to the lattice's own coarseness.
    grid = Grid([0.0, 0.0], [1.0, 2.0], [3, 4])
    masses = np.random.default_rng(1).dirichlet(np.ones(12)).reshape(3, 4)
    masses[1, 2] = 0
    masses /= masses.sum()
    side = (np.arange(200) + 0.5) / 200
    uniforms = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    draws = jax.vmap(lambda u: grid.push_forward(masses, u))(jnp.asarray(uniforms))
    np.testing.assert_allclose(grid.histogram(np.asarray(draws)), masses, atol=5e-3)
    # Within a cell draws are uniform.
    first = np.asarray(draws)[np.asarray(draws)[:, 0] < 1 / 3, 0]
    assert np.mean(first) == pytest.approx(1 / 6, abs=2e-3)


def test_boundary_mass_ignores_circles():
    masses = np.full((10, 10), 0.01)
    assert Grid([0, 0], [1, 1], 10).boundary_mass(masses, 0.1) == pytest.approx(0.36)
    assert Grid([0, 0], [1, 1], 10, [True, False]).boundary_mass(masses, 0.1) == pytest.approx(0.2)


def test_total_variation():
    assert total_variation(np.array([0.5, 0.5, 0]), np.array([0.25, 0.5, 0.25])) == 0.25
    assert total_variation(np.array([1.0, 0]), np.array([0, 1.0])) == 1
    with pytest.raises(ValueError, match="one grid"):
        total_variation(np.ones(2), np.ones(3))


def test_functions_at_points():
    points = np.linspace(0, 1, 5)[:, None]
    np.testing.assert_allclose(at_points(lambda x: 2 * x, (1,), "f")(points), 2 * points)
    np.testing.assert_allclose(at_points(np.array([[3.0]]), (1, 1), "f")(points)[:, 0, 0], 3)
    # Not traceable by JAX: called point by point.
    plain = at_points(lambda x: np.array([float(x[0]) ** 2]), (1,), "f")
    np.testing.assert_allclose(plain(points), points**2)
    with pytest.raises(ValueError, match=r"f must have shape \(2,\)"):
        at_points(lambda x: x, (2,), "f")(points)
    with pytest.raises(ValueError, match="f must be finite"):
        at_points(lambda x: 1 / x, (1,), "f")(points)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1.0, 0.0, 4), "lower must be below upper"),
        ((0.0, np.inf, 4), "upper must be finite"),
        ((0.0, 1.0, 1), "cells must be at least 2"),
        ((0.0, 1.0, 2.5), "cells must be an integer"),
        (([0.0, 0.0], [1.0, 1.0, 1.0], 4), "must be one value or one for each"),
    ],
)
def test_wrong_grids_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Grid(*arguments)
