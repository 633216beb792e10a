import jax.numpy as jnp
import numpy as np
import pytest

from statsgd import SGD, ImproperLawError, noise, problems
from statsgd.laws.grids import Grid
from statsgd.laws.grids.automatic_box import automatic_box, box_around_minima, lattice_minima
from statsgd.problems import ConvergenceWarning


def gaussian_masses(centre, deviation):
    def masses(grid):
        density = np.exp(-0.5 * np.sum(((grid.points() - centre) / deviation) ** 2, axis=1))
        return (density / density.sum()).reshape(grid.cells)

    return masses


def test_box_follows_the_mass():
    lower, upper = automatic_box(gaussian_masses(3.0, 0.5), np.array([-1.0]), np.array([1.0]), 512)
    # Tails of 10⁻⁷ lie 5.2 standard deviations out.
    assert 3 - 3.3 < lower[0] < 3 - 2.55
    assert 3 + 2.55 < upper[0] < 3 + 3.3


def test_box_shrinks_to_the_mass_in_the_plane():
    lower, upper = automatic_box(
        gaussian_masses([0.0, 1.0], [0.1, 0.02]), np.array([-9.0, -9.0]), np.array([9.0, 9.0]), 64
    )
    assert np.all(upper - lower < 16 * np.array([0.1, 0.02]))
    assert np.all(upper - lower > 8 * np.array([0.1, 0.02]))


def test_mass_that_keeps_moving_has_no_box():
    with pytest.raises(ImproperLawError, match="no box holds the law"):
        automatic_box(
            lambda grid: np.full(grid.cells, 1 / grid.size), np.array([-1.0]), np.array([1.0]), 64
        )


def test_both_wells_are_seen_from_one():
    problem = problems.landscape(lambda x: jnp.sum((x**2 - 1) ** 2) / 4, np.array([1.0]))
    # Standard deviation √(ηc/(2h)) = 0.1: eight of them about −1 and 1.
    lower, upper = box_around_minima(problem, SGD(0.04, noise.Isotropic(1.0)))
    assert lower[0] == pytest.approx(-1.8, abs=0.02)
    assert upper[0] == pytest.approx(1.8, abs=0.02)


def test_a_box_about_no_minimum_says_so():
    problem = problems.landscape(lambda x: jnp.sum(jnp.logaddexp(0, -x) - x), np.ones(1))
    message = "box of the grid: no minimum was found, the gradient norm reached is 1$"
    with pytest.warns(ConvergenceWarning, match=message):
        box_around_minima(problem, SGD(0.04, noise.Isotropic(1.0)))


def test_lattice_minima_in_the_plane():
    grid = Grid([-2.0, -2.0], [2.0, 2.0], 81)
    found = lattice_minima(lambda x: (x[0] ** 2 - 1) ** 2 + (x[1] - 0.5) ** 2, grid)
    np.testing.assert_allclose(found[np.argsort(found[:, 0])], [[-1, 0.5], [1, 0.5]], atol=0.026)
