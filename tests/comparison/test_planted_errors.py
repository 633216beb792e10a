"""SGD itself against laws with one error planted in each: every comparison catches it."""

import jax
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr

from statsgd import SGD, compare, noise, problems, simulate
from statsgd.comparison import (
    TESTS,
    BasinProbabilities,
    compare_laws,
    fit_law,
    gap_decomposition,
    parameter_verdicts,
)
from statsgd.laws import (
    DiscreteChainLaw,
    FlooredLossScaledLaw,
    FokkerPlanckLaw,
    Gibbs,
    HeavyBallGaussian,
)
from statsgd.laws.grids.grid import Grid

HESSIAN = np.diag([2.0, 0.5])
RATE = 0.05


def stratonovich(noise_ratio, floor):
    """The density (L + c₀)^(−½ − 2/ε) of the Stratonovich reading: the Itô law at another ε."""
    return FlooredLossScaledLaw([[1.0]], 2 / (2 / noise_ratio - 0.5), floor)


@pytest.fixture(scope="module")
def multiplicative():
    """Noise that grows with the loss: η = 0.02, ε = ησ = 0.5, c₀ = 1."""
    problem = problems.landscapes.quadratic([[1.0]])
    sgd = SGD(0.02, noise.LossScaled(25.0, 1.0))
    ensemble = simulate(problem, sgd, steps=400, replicas=12_000, seed=0, progress=False)
    return problem, sgd, ensemble


@pytest.fixture(scope="module")
def settings(multiplicative):
    """Chain and SDE of the same SGD, and the cells that points are counted in."""
    problem, sgd, _ = multiplicative
    chain, sde = (law.from_sgd(problem, sgd) for law in (DiscreteChainLaw, FokkerPlanckLaw))
    return {"chain": chain, "sde": sde, "grid": Grid(-3.0, 3.0, 24), "seed": 0}


@pytest.fixture(scope="module")
def heavy_ball():
    problem = problems.landscapes.quadratic(HESSIAN)
    sgd = SGD(RATE, noise.Isotropic(1.0), 0.5)
    return simulate(problem, sgd, steps=600, replicas=4000, seed=1, progress=False)


def test_moments_and_tests_catch_a_wrong_ito_term(multiplicative):
    *_, ensemble = multiplicative
    # Variances 2c₀/(ν − 2) = 2/7 (ν = 9, Itô) and 2/6 (ν = 8); finite η adds 1.1 %.
    right = compare(ensemble, FlooredLossScaledLaw([[1.0]], 0.5, 1.0), seed=0, margin=0.1)
    wrong = compare(ensemble, stratonovich(0.5, 1.0), seed=0, margin=0.05)
    assert right.verdict == "agrees within 10 %"
    assert wrong.verdict == "differs by more than 5 %"
    ratio = wrong.effects("variance ratio").iloc[0]
    assert abs(ratio["effect"] - 6 / 7 * 1.011) < 4 * ratio["standard_error"]


def test_gap_is_put_down_to_the_theory_where_the_ito_term_is_wrong(multiplicative, settings):
    *_, ensemble = multiplicative
    right = gap_decomposition(ensemble, FlooredLossScaledLaw([[1.0]], 0.5, 1.0), **settings)
    wrong = gap_decomposition(ensemble, stratonovich(0.5, 1.0), **settings)
    assert float(right["distance"].sel(part="theory")) < 1e-3
    # Student laws with 9 and 8 degrees of freedom and scale² 2/ν, in the same cells.
    edges = np.concatenate([[-np.inf], Grid(-3.0, 3.0, 24).edges()[1:-1], [np.inf]])
    masses = [
        np.diff(dist_cdf(edges, nu)) for nu in (9, 8)
    ]  # fmt: skip
    expected = 0.5 * np.abs(masses[0] - masses[1]).sum()
    np.testing.assert_allclose(wrong["distance"].sel(part="theory"), expected, atol=1e-3)
    assert expected > 0.02
    for result in (right, wrong):
        part = result.sel(part="Monte Carlo")
        assert float(part["p_value"]) > 0.001
        whole = float(result["distance"].sel(part="all together"))
        parts = result["distance"].sel(part=["Monte Carlo", "finite learning rate", "theory"])
        assert whole <= float(parts.sum()) + 1e-12
    assert "finite learning rate is the larger" in right.attrs["finding"]
    assert "theory's approximation is the larger" in wrong.attrs["finding"]


def dist_cdf(x, nu):
    from scipy.stats import t

    return t.cdf(np.asarray(x) / np.sqrt(2 / nu), nu)


@pytest.mark.slow
def test_gap_sees_a_burn_in_that_was_too_short_and_a_biased_sampler(multiplicative, settings):
    problem, sgd, _ = multiplicative
    early = simulate(problem, sgd, steps=20, replicas=2000, seed=3, progress=False)
    law = FlooredLossScaledLaw([[1.0]], 0.5, 1.0)
    biased = 1.2 * np.asarray(law.draw(jax.random.key(0), (4, 1000)))
    draws = xr.DataTree.from_dict(
        {"posterior": xr.Dataset({"params": (("chain", "draw", "i"), biased)})}
    )
    result = gap_decomposition(early, law, draws=draws, **settings)
    assert float(result["p_value"].sel(part="Monte Carlo")) < 0.01
    assert float(result["p_value"].sel(part="sampler")) < 0.01
    assert "they are not stationary" in result.attrs["finding"]
    with pytest.raises(ValueError, match="must all have one dimension or all two"):
        gap_decomposition(early, law, **settings | {"grid": Grid([0, 0], 1, 4)})


@pytest.mark.slow
def test_gap_in_the_plane():
    problem = problems.landscapes.quadratic(HESSIAN)
    sgd = SGD(0.2, noise.Isotropic(1.0))
    ensemble = simulate(problem, sgd, steps=100, replicas=3000, seed=2, progress=False)
    chain = DiscreteChainLaw.from_sgd(problem, sgd, Grid([-1.3, -2.4], [1.3, 2.4], [40, 56]))
    sde = FokkerPlanckLaw.from_sgd(problem, sgd, Grid([-1.3, -2.4], [1.3, 2.4], [80, 80]))
    grid = Grid([-0.8, -1.5], [0.8, 1.5], [6, 6])
    law = Gibbs.from_sgd(problem, sgd)
    result = gap_decomposition(ensemble, law, chain=chain, sde=sde, grid=grid, seed=0)
    assert float(result["distance"].sel(part="theory")) < 3e-3
    # Variances of the chain exceed the law's by 1/(1 − ηh/2): 1.25 and 1.0526.
    chain_law = Gibbs.from_sgd(problem, sgd, discrete_correction=True)
    wide = np.diag(chain_law.covariance()) / np.diag(law.covariance())
    np.testing.assert_allclose(wide, [1.25, 1 / 0.95], rtol=1e-9)
    assert 0.04 < float(result["distance"].sel(part="finite learning rate")) < 0.09
    assert float(result["p_value"].sel(part="Monte Carlo")) > 0.001


@pytest.mark.slow
def test_every_test_catches_a_missing_momentum_factor(heavy_ball):
    right = HeavyBallGaussian(HESSIAN, np.eye(2), RATE, 0.5)
    wrong = HeavyBallGaussian(HESSIAN, np.eye(2), RATE)
    few = xr.DataTree.from_dict(
        {
            name: heavy_ball[name].to_dataset().isel(replica=slice(400))
            for name in ("endpoints", "momentum_buffer", "run")
        }
    )
    tested = compare(few, wrong, seed=0, tests=TESTS).tests
    # Of the parameters all tests, of the momentum buffer all but Stein's.
    assert len(tested) == 2 * len(TESTS) - 1
    caught = tested[tested["variable"] == "params"]
    assert (caught["adjusted_p_value"] < 0.05).all(), tested.to_string()
    assert np.all(tested["adjusted_p_value"] >= tested["p_value"])
    fair = compare(few, right, seed=0, tests=TESTS)
    assert (fair.tests["adjusted_p_value"] > 0.05).all(), fair.tests.to_string()
    assert "adjusted by Holm for 13 tests" in fair.settings["tests"]
    assert "tests" in fair.to_datatree().children


@pytest.mark.slow
def test_posterior_of_the_temperature_against_theory(heavy_ball):
    def family(temperature):
        return Gibbs.quadratic(HESSIAN, temperature)

    fit = fit_law(
        family, heavy_ball, {"temperature": dist.LogNormal(-3.0, 1.0)}, seed=0, chains=2, draws=300
    )
    assert fit["log_likelihood"]["endpoints"].dims == ("chain", "draw", "replica")
    assert fit["posterior"]["temperature"].dtype == np.float64
    # Exact for a normal law: n d/2 = 4000 and the mean of θᵀHθ/2d give an inverse gamma.
    points = heavy_ball["endpoints"]["params"].values.astype(float)
    energy = 0.5 * np.sum(points**2 * np.diag(HESSIAN))
    expected, error = energy / 4000, energy / 4000 / np.sqrt(4000)
    row = parameter_verdicts(fit, {"temperature": expected}).iloc[0]
    assert abs(row["mean"] - expected) < 5 * error / np.sqrt(row["effective_draws"]) + 1e-5
    np.testing.assert_allclose(row["sd"], error, rtol=0.2)
    # τ = ηc/(2(1 − β)) = 0.05, within ηh/4 of the chain; 10 % and the momentum factor are not.
    verdict = [
        parameter_verdicts(fit, {"temperature": tau}, margin=0.05)["verdict"][0]
        for tau in (0.05, 0.05 / 1.1, 0.05 * 1.13, 0.025)
    ]
    assert verdict[0] == "agrees within 5 %"
    assert set(verdict[1:]) == {"differs by more than 5 %"}


@pytest.mark.slow
def test_fitted_laws_tell_readings_and_families_apart(multiplicative):
    ensemble = xr.DataTree.from_dict(
        {"endpoints": multiplicative[2]["endpoints"].to_dataset().isel(replica=slice(6000))}
    )
    families = {
        "Itô": lambda value: FlooredLossScaledLaw([[1.0]], value, 1.0),
        "Stratonovich": lambda value: stratonovich(value, 1.0),
        "Gibbs": lambda value: Gibbs.quadratic([[1.0]], value),
    }
    size = {"chains": 2, "warmup": 200, "draws": 200}
    fits = {
        name: fit_law(family, ensemble, {"value": dist.LogNormal(-1.0, 0.5)}, seed=0, **size)
        for name, family in families.items()
    }
    # The tails tell a Student law from a normal one: excess kurtosis 6/5 in 6000 endpoints.
    ranking = compare_laws({name: fits[name] for name in ("Itô", "Gibbs")})
    assert ranking.index[0] == "Itô"
    assert ranking["elpd_diff"]["Gibbs"] < -3 * ranking["dse"]["Gibbs"]
    # The Stratonovich reading fits as well, at ε with 2/ε − ½ = 4: the parameter gives it away.
    verdicts = {
        name: parameter_verdicts(fits[name], {"value": 0.5}, margin=0.03).iloc[0]
        for name in ("Itô", "Stratonovich")
    }
    assert verdicts["Itô"]["low"] < 1.011 < verdicts["Itô"]["high"]
    assert verdicts["Stratonovich"]["verdict"] == "differs by more than 3 %"


@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_named(heavy_ball):
    prior = {"temperature": dist.LogNormal(0.0, 1.0)}
    with pytest.raises(ValueError, match="priors must name at least one parameter"):
        fit_law(lambda: Gibbs.quadratic(HESSIAN, 1.0), heavy_ball, {}, seed=0)
    with pytest.raises(ValueError, match="the law has 1 parameters, the endpoints have 2"):
        fit_law(
            lambda temperature: Gibbs.quadratic([[1.0]], temperature), heavy_ball, prior, seed=0
        )
    wells = problems.landscapes.valley_wells()
    with pytest.raises(ValueError, match="family must return a normalised law, got Gibbs"):
        fit_law(lambda temperature: Gibbs(wells, temperature), heavy_ball, prior, seed=0)
    with pytest.raises(ValueError, match="fits must be two or more"):
        compare_laws({})
    points = np.random.default_rng(0).normal(size=(4, 50, 2))
    draws = xr.DataTree.from_dict(
        {"posterior": xr.Dataset({"params": (("chain", "draw", "i"), points)})}
    )
    points = np.random.default_rng(0).normal(size=(4, 50, 2))
    draws = xr.DataTree.from_dict(
        {"posterior": xr.Dataset({"params": (("chain", "draw", "i"), points)})}
    )
    with pytest.raises(ValueError, match="needs a Law for its score, got draws"):
        compare(heavy_ball, draws, seed=0, tests=["kernel_stein_discrepancy"])
    with pytest.raises(ValueError, match="tests must be one of"):
        compare(heavy_ball, HeavyBallGaussian(HESSIAN, np.eye(2), RATE, 0.5), seed=0, tests=["t"])
    with pytest.raises(ValueError, match="basins must be at least 2"):
        BasinProbabilities(lambda x: 0, 1)
