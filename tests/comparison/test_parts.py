"""Parts of a verdict: what each one sees, and what is said where nothing can be."""

import json

import jax
import numpy as np
import pytest
import xarray as xr
from scipy.stats import norm
from scipy.stats import t as student

from statsgd import SGD, compare, noise, problems, simulate
from statsgd.comparison.power import power
from statsgd.laws import (
    FlooredLossScaledLaw,
    GaussianLaw,
    Gibbs,
    HeavyBallGaussian,
    LinearRegressionGaussian,
    OrnsteinUhlenbeckLaw,
)
from statsgd.problems.landscapes import smooth_wells

STANDARD = GaussianLaw(np.zeros(2), np.eye(2))
STANDARD_LINE = GaussianLaw(np.zeros(1), np.eye(1))


def normal(number, covariance=None, seed=0):
    covariance = np.eye(2) if covariance is None else covariance
    rng = np.random.default_rng(seed)
    return rng.multivariate_normal(np.zeros(len(covariance)), covariance, size=number)


def draws(values):
    return xr.DataTree.from_dict(
        {"posterior": xr.Dataset({"params": (("chain", "draw", "i"), values)})}
    )


def student_law(nu):
    """In the plane ν = 2 + 4/ε − d."""
    return FlooredLossScaledLaw(np.diag([1.0, 2.0]), 4 / nu, 1.0)


def test_a_correlation_that_the_law_forgets_is_not_agreement():
    # H = diag(1, 2), noise of correlation 0.9, η = 0.05: variances η/2 and correlation
    # 0.9·2√2/3 = 0.8485, which a law with C = diag(1, 2) does not know.
    law = OrnsteinUhlenbeckLaw(np.diag([1.0, 2.0]), np.diag([1.0, 2.0]), 0.05)
    correlation = 0.9 * 2 * np.sqrt(2) / 3
    points = normal(40_000, 0.025 * np.array([[1, correlation], [correlation, 1]]))
    found = compare(points, law, seed=0)
    assert found.verdict == "differs by more than 10 %"
    assert set(found.effects("variance ratio")["verdict"]) == {"agrees within 10 %"}
    assert found.parts["location"].verdict == "agrees within 10 %"
    assert found.parts["spread"].verdict == "differs by more than 10 %"
    largest = found.effects("largest joint variance ratio", "joint").iloc[0]
    assert largest["low"] < 1 + correlation < largest["high"]
    smallest = found.effects("smallest joint variance ratio", "joint").iloc[0]
    assert smallest["low"] < 1 - correlation < smallest["high"]
    # Total variation of N(0, 1 + c sin 2φ) from N(0, 1), averaged over φ.
    ratio = 1 + correlation * np.sin(2 * np.pi * (np.arange(400) + 0.5) / 400)
    x = np.sqrt(ratio * np.log(ratio) / (ratio - 1))
    distance = np.mean(2 * np.abs(norm.cdf(x) - norm.cdf(x / np.sqrt(ratio))))
    sliced = found.effects("sliced total variation", "joint").iloc[0]
    assert sliced["low"] < distance < sliced["high"]
    assert "differs by more than 10 % in spread and shape" in str(found)


def test_agreement_names_what_was_looked_at():
    found = compare(normal(12_000), STANDARD, seed=0)
    assert found.sentence == "agrees within 10 % in location, spread and shape"
    assert list(found.parts) == ["location", "spread", "shape"]
    for part in found.parts.values():
        assert part.low <= part.effect <= part.high
        assert part.excess < 0


@pytest.mark.parametrize(
    "nu", [0.8, *(pytest.param(nu, marks=pytest.mark.slow) for nu in (1.5, 2.5))]
)
def test_heavy_tails_are_compared_by_quantiles(nu):
    law = student_law(nu)
    points = np.asarray(law.draw(jax.random.key(7), (2000,)))
    found = compare(points, law, seed=0)
    assert not found.verdict.startswith("differs")
    for statistic, true in (("median shift", 0.0), ("median deviation ratio", 1.0)):
        rows = found.effects(statistic)
        assert np.all((rows["low"] < true) & (rows["high"] > true))
    # The median deviation of a wrong law is caught all the same.
    wide = compare(1.4 * points, law, seed=0)
    assert wide.parts["spread"].verdict == "differs by more than 10 %"
    assert wide.parts["spread"].low > 1.1


def test_tails_of_endpoints_leave_their_variance_without_a_verdict():
    rng = np.random.default_rng(0)
    # Of variance one, as the law says, with three degrees of freedom.
    points = rng.standard_t(3, size=(4000, 2)) / np.sqrt(3)
    found = compare(points, STANDARD, seed=0)
    assert found.parts["spread"].verdict == "undecided"
    assert "leave their variance without an error" in found.parts["spread"].reason
    assert set(found.effects("variance ratio")["verdict"]) == {"no verdict"}
    # Half of a normal law's deviation: t quantile 0.7649/√3 over 0.6745.
    assert found.parts["shape"].verdict == "differs by more than 10 %"


@pytest.mark.slow
def test_regression_with_exact_moments_does_not_differ_in_spread():
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(500, 2))
    problem = problems.linear_regression(inputs, inputs @ [1.0, -1.0] + rng.normal(size=500))
    sgd = SGD(0.45, noise.Minibatch(1))
    law = LinearRegressionGaussian.from_sgd(problem, sgd)
    for seed in range(6):
        ensemble = simulate(problem, sgd, steps=400, replicas=4000, seed=seed, progress=False)
        assert compare(ensemble, law, seed=seed).parts["spread"].verdict == "undecided"


@pytest.mark.parametrize(("where", "word"), [(0.0, "agrees"), (1.0, "differs")])
def test_a_law_without_any_noise_is_a_point(where, word):
    law = GaussianLaw(np.zeros(2), np.zeros((2, 2)))
    found = compare(np.full((100, 2), where), law, seed=0)
    assert found.verdict.startswith(word)
    assert list(found.parts) == ["location"]


@pytest.mark.parametrize(
    "turn",
    [
        pytest.param(np.eye(2), marks=pytest.mark.slow),
        np.array([[1.0, 1.0], [1.0, -1.0]]) / np.sqrt(2),
    ],
)
def test_directions_without_noise(turn):
    law = GaussianLaw(np.zeros(2), turn @ np.diag([1.0, 0.0]) @ turn.T)
    points = normal(8000) * [1.0, 0.0]
    assert compare(points @ turn.T, law, seed=0).verdict == "agrees within 10 %"
    off = compare((points + np.array([0.0, 1.0])) @ turn.T, law, seed=0)
    assert off.parts["location"].verdict == "differs by more than 10 %"
    assert off.parts["spread"].verdict == "agrees within 10 %"


@pytest.mark.parametrize("number", [1, 19])
def test_few_endpoints_decide_nothing(number):
    found = compare(10 * normal(number), STANDARD, seed=0)
    assert found.verdict == "undecided"
    assert f"{number} endpoints are fewer than the 20" in str(found)
    assert {part.verdict for part in found.parts.values()} == {"undecided"}


def test_undecided_says_how_many_endpoints_would_decide():
    found = compare(normal(1000), STANDARD, seed=0)
    assert found.verdict == "undecided"
    assert found.parts["spread"].more > 1000
    enough = compare(normal(20_000), STANDARD, seed=0)
    assert enough.verdict == "agrees within 10 %"
    assert "more endpoints would decide" in str(found)


def test_power_is_that_of_large_samples():
    # At 200 points and 2.5 % a variance of 1.1 is log 1.1/√(2/200) = 0.953 errors away.
    table = power(200, 0.025).set_index("statistic")["power"]
    z = student.isf(0.025, 199)
    np.testing.assert_allclose(table["variance ratio"], norm.sf(z - 0.9531), rtol=1e-3)
    np.testing.assert_allclose(table["well share"], norm.sf(z - 0.05 * 2 * np.sqrt(200)), rtol=1e-3)
    assert np.all(power(40_000, 0.001)["power"] > 0.99)


@pytest.mark.slow
def test_power_is_reached():
    # Student tails of 5 degrees at 1500 points: how often the tail ratio leaves out 1.
    rng, hits = np.random.default_rng(0), 0
    for repeat in range(60):
        points = rng.standard_t(5, size=(1500, 1)) / np.sqrt(5 / 3)
        found = compare(points, GaussianLaw(np.zeros(1), np.eye(1)), seed=repeat)
        hits += found.effects("tail ratio")["low"][0] > 1
    stated = found.power.set_index("statistic")["power"]["tail ratio"]
    assert 0.2 < stated < 0.98
    assert abs(hits / 60 - stated) < 0.15 + 4 * np.sqrt(stated * (1 - stated) / 60)


def test_chains_that_disagree_decide_nothing():
    rng = np.random.default_rng(1)
    apart = 0.5 * rng.normal(size=(4, 400, 2)) + np.array([-1, -0.5, 0.5, 1])[:, None, None]
    found = compare(3 * normal(2000), draws(apart), seed=0)
    assert found.verdict == "undecided"
    assert "the draws have not mixed: R-hat" in str(found)


def test_errors_of_chains_are_those_of_their_effective_number():
    rng = np.random.default_rng(2)
    chains = np.empty((4, 2000, 1))
    chains[:, 0] = rng.normal(size=(4, 1))
    for step in range(1, 2000):
        chains[:, step] = 0.9 * chains[:, step - 1] + np.sqrt(0.19) * rng.normal(size=(4, 1))
    points = normal(200_000, np.eye(1))
    row = compare(points, draws(chains), seed=0).effects("mean shift").iloc[0]
    # 8000 draws with correlation 0.9 are worth 8000·0.1/1.9 = 421: an error of 0.0487.
    np.testing.assert_allclose(row["standard_error"], np.sqrt(1 / 421 + 1 / 2e5), rtol=0.15)


@pytest.mark.slow
def test_endpoints_that_have_not_settled_do_not_blame_the_law():
    # The slow mode keeps (1 − 0.05·0.01)^1000 = 0.6065 of a start at 3.
    hessian = np.diag([0.01, 1.0])
    problem = problems.landscape(lambda x: 0.5 * x @ hessian @ x, 3 * np.ones(2))
    sgd = SGD(0.05, noise.Isotropic(1.0))
    law = HeavyBallGaussian(hessian, np.eye(2), 0.05)
    settings = {"replicas": 500, "seed": 0, "progress": False}
    early = simulate(problem, sgd, steps=1000, observe={"x": lambda x: x[0]}, **settings)
    found = compare(early, law, seed=0)
    part = found.parts["stationarity"]
    assert found.verdict == "undecided"
    np.testing.assert_allclose(part.effect, 0.6065, rtol=1e-3)
    assert "not stationary: the slowest compared direction (mode 0) has kept 0.61" in str(found)
    # A law without time scales: observables give it away.
    unknown = compare(early, GaussianLaw(np.zeros(2), law.covariance()), seed=0)
    assert unknown.verdict == "undecided"
    assert unknown.parts["stationarity"].verdict.startswith("not stationary: between its third")
    late = simulate(problem, sgd, steps=20_000, **settings)
    assert compare(late, law, seed=0).parts["stationarity"].verdict == "agrees within 10 %"


def test_replicas_left_out_are_told_wherever_a_comparison_is():
    # Beyond |x| = 5 the quartic throws a walker out.
    problem = problems.landscape(lambda x: 0.5 * x @ x - 0.02 * (x @ x) ** 2, np.zeros(1))
    run = simulate(problem, SGD(0.5, noise.Isotropic(1.8)), steps=300, replicas=500, seed=0,
                   progress=False, allow_unstable=True)  # fmt: skip
    lost = int(run["run"]["diverged"].sum())
    assert lost > 0
    found = compare(run, STANDARD_LINE, seed=0, condition_on_survival=True)
    for told in (str(found), found.to_datatree().attrs["notes"]):
        assert f"{lost} of 500 replicas diverged and were left out" in told


def test_the_buffer_of_plain_sgd_is_left_out():
    hessian = np.diag([2.0, 0.5])
    problem = problems.landscape(lambda x: 0.5 * x @ hessian @ x, np.zeros(2))
    plain = simulate(problem, SGD(0.2, noise.Isotropic(1.0)), steps=200, replicas=1000, seed=0,
                     progress=False)  # fmt: skip
    law = HeavyBallGaussian(hessian, np.eye(2), 0.2)
    assert set(compare(plain, law, seed=0).table["variable"]) == {"params", "joint"}
    both = compare(plain, law, seed=0, variables=("params", "momentum_buffer"))
    assert "momentum_buffer" in set(both.table["variable"])
    with pytest.raises(ValueError, match="variables must be among"):
        compare(plain, law, seed=0, variables=("velocity",))


def test_wells_are_found_and_weighed():
    law = Gibbs(smooth_wells(), 0.02)
    points = np.asarray(law.draw(jax.random.key(1), (6000,)))
    right = compare(points, law, seed=0)
    assert right.parts["wells"].verdict == "agrees within 10 %"
    shares = right.effects("well share")
    # P(x < saddle) at τ = 0.02, by quadrature.
    np.testing.assert_allclose(shares["predicted"][0], 0.733882, atol=5e-3)
    flat, steep = points[points[:, 0] < 0.6585913], points[points[:, 0] >= 0.6585913]
    moved = np.concatenate([flat[: len(flat) // 2], steep])
    assert compare(moved, law, seed=0).parts["wells"].verdict == "differs by more than 10 %"
    # A third well that neither side has been to.
    missed = compare(points, law, seed=0, wells=np.array([[0.0], [1.0], [50.0]]))
    assert missed.parts["wells"].verdict == "undecided"
    assert "neither side has visited 1 of 3 wells" in str(missed)


def test_wells_that_chains_were_started_in_are_weighed():
    # Two wells at ±3 along the diagonal, of equal weight, and one far off, where nobody has been.
    rng = np.random.default_rng(0)
    wells = np.array([[-3.0, -3.0], [3.0, 3.0], [30.0, -30.0]])
    chains = wells[np.array([0, 1, 0, 1])][:, None] + rng.normal(size=(4, 500, 2))
    tree = draws(chains)
    tree.attrs["wells"] = json.dumps(wells.tolist())
    ends = wells[rng.integers(2, size=2000)] + rng.normal(size=(2000, 2))
    found = compare(ends, tree, seed=0)
    np.testing.assert_allclose(found.effects("well share")["predicted"], [0.5, 0.5, 0.0])
    assert "neither side has visited 1 of 3 wells" in set(found.effects("well share")["reason"])
    tree.attrs["wells"] = json.dumps(wells[:1].tolist())
    assert "nearest well" not in set(compare(ends, tree, seed=0).table["direction"])


def test_one_well_is_not_parted():
    assert "wells" not in compare(normal(500), STANDARD, seed=0).parts


@pytest.mark.slow
@pytest.mark.parametrize("number", [25, 400, 4000])
def test_exact_draws_rarely_differ(number):
    # At most 5 % of the comparisons: 4 standard errors above in 60 repeats are 16 %.
    words = [compare(normal(number, seed=s), STANDARD, seed=s).verdict for s in range(60)]
    assert sum(word.startswith("differs") for word in words) <= 60 * 0.16


@pytest.mark.slow
@pytest.mark.parametrize("wrong", ["variance", "mean", "correlation"])
def test_errors_at_the_margin_rarely_agree(wrong):
    covariance = {
        "variance": np.diag([1.1, 1.0]),
        "mean": np.eye(2),
        "correlation": np.array([[1.0, 0.1], [0.1, 1.0]]),
    }[wrong]
    shift = np.array([0.1, 0.0]) * (wrong == "mean")
    words = [
        compare(normal(20_000, covariance, seed=s) + shift, STANDARD, seed=s).verdict
        for s in range(40)
    ]
    assert sum(word.startswith("agrees") for word in words) <= 40 * 0.19
