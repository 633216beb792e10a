import jax.numpy as jnp
import numpy as np
import pytest

from statsgd import SGD, noise, problems, simulate
from statsgd.laws import DiscreteChainLaw, FokkerPlanckLaw, HeavyBallGaussian
from statsgd.laws.discrepancy import law_masses, split_discrepancy
from statsgd.laws.grids import Grid, total_variation


def gaussian(variance):
    """A Gaussian law of the given variance, as that of a chain with tiny steps."""
    return HeavyBallGaussian([[1.0]], [[1.0]], 2 * variance / (1 + variance))


def test_masses_of_a_gaussian():
    law = gaussian(0.3)
    grid = Grid(-4.0, 4.0, 20)
    expected = np.diff(law.cdf(grid.edges()[:, None])[:, 0])
    np.testing.assert_allclose(law_masses(law, grid), expected, atol=1e-10)


def test_the_gap_splits_into_its_parts():
    # Quadratic h = 1 with C = 1: chain variance η/(2 − η), SDE η/2; the "law" is a Gaussian of
    # twice that, so that every part is known in closed form.
    rate = 0.5
    problem = problems.landscape(lambda x: jnp.sum(x**2) / 2, np.zeros(1))
    sgd = SGD(rate, noise.Isotropic(1.0))
    run = simulate(problem, sgd, steps=30, replicas=20000, seed=1, progress=False)
    endpoints = run["endpoints"]["params"].values
    chain = DiscreteChainLaw.from_sgd(problem, sgd, Grid(-4.5, 4.5, 450))
    sde = FokkerPlanckLaw.from_sgd(problem, sgd, Grid(-4.0, 4.0, 800))
    grid = Grid(-2.5, 2.5, 25)
    parts = split_discrepancy(endpoints, chain, sde, gaussian(rate), grid)
    exact = [law_masses(gaussian(v), grid) for v in (rate / (2 - rate), rate / 2, rate)]
    assert parts.chain_to_sde == pytest.approx(total_variation(exact[0], exact[1]), abs=1e-3)
    assert parts.sde_to_law == pytest.approx(total_variation(exact[1], exact[2]), abs=1e-3)
    # The histogram of exact draws fluctuates about its expected distance by about a fifth of it.
    assert 0.4 * parts.sampling < parts.endpoints_to_chain < 1.8 * parts.sampling
    total = parts.endpoints_to_chain + parts.chain_to_sde + parts.sde_to_law
    assert parts.endpoints_to_law <= total + 1e-12


def test_refusals():
    chain = DiscreteChainLaw(lambda x: -x, [[1.0]], 0.5, Grid(-4.0, 4.0, 60))
    grid = Grid(-4.0, 4.0, 16)
    with pytest.raises(ValueError, match="at least one replica"):
        split_discrepancy(np.zeros((0, 1)), chain, chain, gaussian(0.3), grid)
    with pytest.raises(ValueError, match="one dimension"):
        split_discrepancy(np.zeros((5, 1)), chain, chain, gaussian(0.3), Grid([0, 0], [1, 1], 4))
