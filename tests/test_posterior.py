"""ArviZ reads ensembles as it reads draws, alone and beside those of a law."""

import warnings

import numpy as np
import pytest

import statsgd
from statsgd import laws

POINTS = np.random.default_rng(0).normal(size=(402, 2))
TREE = statsgd.ensemble(POINTS, momentum_buffer=-POINTS)
LAW = laws.GaussianLaw(np.zeros(2), np.eye(2))


@pytest.fixture(scope="module")
def arviz():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own imports
        return pytest.importorskip("arviz")


def test_endpoints_are_draws_of_chains():
    posterior = statsgd.as_posterior(TREE)["posterior"]
    assert dict(posterior.sizes) == {
        "chain": 4, "draw": 100, "params_dim_0": 2, "momentum_buffer_dim_0": 2
    }  # fmt: skip
    np.testing.assert_array_equal(posterior.params.values.reshape(-1, 2), POINTS[:400])
    np.testing.assert_array_equal(posterior.momentum_buffer, -posterior.params.values)


@pytest.mark.slow
def test_arviz_reads_them_beside_a_law(arviz):
    draws = statsgd.sample(LAW, draws=100, chains=4, seed=0)
    both = {"SGD": statsgd.as_posterior(TREE), "law": draws}
    table = arviz.summary(both["SGD"], var_names=["params"], round_to="none")
    np.testing.assert_allclose(table["mean"], POINTS[:400].mean(axis=0))
    assert (table["r_hat"] < 1.05).all()
    for plot in (arviz.plot_forest, arviz.plot_dist):
        plot(both, var_names=["params"], backend="none")
        plot(both["SGD"], backend="none")
    arviz.plot_pair(both["SGD"], var_names=["params"], backend="none")


@pytest.mark.usefixtures("unchecked")
def test_bad_input():
    with pytest.raises(ValueError, match="ensemble must be a DataTree of simulate, got an array"):
        statsgd.as_posterior(POINTS)
    with pytest.raises(ValueError, match="chains must be at most half of the 402 endpoints"):
        statsgd.as_posterior(TREE, chains=300)
    failed = statsgd.ensemble(POINTS, diverged=np.arange(402) == 1)
    with pytest.raises(ValueError, match="1 of 402 replicas diverged"):
        statsgd.as_posterior(failed)
    alive = statsgd.as_posterior(failed, condition_on_survival=True)
    assert alive["posterior"].params.values[0, 1].tolist() == POINTS[2].tolist()
