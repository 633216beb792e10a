"""Masses of cells: of narrow, kinked and unbounded densities, with what cannot be resolved."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from statsgd.laws import GaussianLaw, Gibbs
from statsgd.laws.boxes import cell_integrals
from statsgd.laws.grids import Grid
from statsgd.laws.law import IntractableError
from statsgd.problems import landscape


def test_a_narrow_law_on_coarse_cells_of_the_line():
    law = GaussianLaw([0.13], [[1e-8]])
    grid = Grid(-1.0, 1.0, 7)
    expected = np.diff(stats.norm(0.13, 1e-4).cdf(grid.edges()))
    np.testing.assert_allclose(law.cell_masses(grid), expected / expected.sum(), atol=1e-12)


def test_a_narrow_law_on_coarse_cells_of_the_plane():
    # Between the nodes of a cell of sides ½.
    law = GaussianLaw([0.1, -0.2], np.diag([0.02**2, 0.03**2]))
    grid = Grid([-1.0, -1.0], [1.0, 1.0], 4)
    sides = [
        np.diff(stats.norm(mean, scale).cdf(grid.edges()))
        for mean, scale in ((0.1, 0.02), (-0.2, 0.03))
    ]
    np.testing.assert_allclose(law.cell_masses(grid), np.outer(*sides), atol=1e-6)


def test_kinks_are_followed():
    law = Gibbs(landscape(lambda w: jnp.abs(w[0] - 0.3) + jnp.abs(w[1]), np.zeros(2)), 0.05)
    grid = Grid([-1.0, -1.0], [1.0, 1.0], 5)

    def along(center):
        edges = grid.edges()
        spread = stats.laplace(center, 0.05)
        masses = np.diff(spread.cdf(edges))
        return masses / masses.sum()

    np.testing.assert_allclose(law.cell_masses(grid), np.outer(along(0.3), along(0.0)), atol=1e-5)


def test_what_is_left_is_stated():
    # A disc, whose rim is followed as far as points allow.
    def disc(points):
        return np.where(np.sum(points**2, axis=-1) < 0.5, 0.0, -np.inf)

    grid = Grid([-1.0, -1.0], [1.0, 1.0], 2)
    total, error = cell_integrals(disc, grid.points(), grid.spacing)
    assert np.all(np.abs(total - np.pi / 8) < error)
    assert error.max() < 1e-2
    expected = integrate.quad(lambda x: np.sqrt(0.5 - x**2), 0, np.sqrt(0.5))[0]
    assert expected == pytest.approx(np.pi / 8)


def test_what_is_not_resolved_is_refused():
    # A comb of a thousand teeth an axis and more, in three dimensions.
    rough = landscape(lambda w: 30 * jnp.sum(jnp.sin(3000 * w)), np.zeros(3))
    with pytest.raises(IntractableError, match="masses of the cells"):
        Gibbs(rough, 1.0, bounds=(-1.0, 1.0)).cell_masses(Grid([-1.0] * 3, [1.0] * 3, 8))
