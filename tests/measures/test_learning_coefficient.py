"""Local learning coefficients against exact chains, quadrature, and known singularities."""

import pickle

import arviz_stats
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from scipy.stats import norm

from statsgd import noise, problems
from statsgd.kernels import MixingWarning
from statsgd.measures import local_learning_coefficient, over_replicas
from statsgd.measures.curvature.learning_coefficient import (
    DivergedChainsError,
    effective_sample_size,
)

CURVATURES = np.array([1.0, 2.0, 4.0])


@pytest.mark.parametrize("double", [True, False])
def test_regular_minimum_and_step_size_bias(double):
    # On a quadratic each coordinate is AR(1) with variance 1/(a(1 − ha/2)), a = nβ λ_i + γ, so that
    # λ̂ = Σ nβ λ_i/(2a(1 − ha/2)) at step size h, and d/2 as h → 0 and nβ → ∞.
    strength, step = 100.0, 1e-3
    stiffness = strength * CURVATURES + 1

    def expected(h):
        return np.sum(strength * CURVATURES / (2 * stiffness * (1 - h * stiffness / 2)))

    found = local_learning_coefficient(
        problems.quadratic(np.diag(CURVATURES)),
        np.zeros(3),
        step_size=step,
        steps=8000,
        burn_in=500,
        thinning=4,
        chains=32,
        inverse_temperature=strength,
        double=double,
    )
    assert found.value.dtype == (np.float64 if double else np.float32)
    assert 4 * found.standard_error < 0.05 * expected(step)
    assert abs(found.value - expected(step)) < 4 * found.standard_error
    bias = 2 * (expected(step) - expected(step / 2))
    assert 4 * found.step_size_bias_standard_error < bias
    assert abs(found.step_size_bias - bias) < 4 * found.step_size_bias_standard_error
    assert (found.baseline, found.baseline_standard_error) == (0, 0)
    assert found.rhat < 1.01
    regular = found.value - found.step_size_bias
    assert abs(regular - 1.5) < 0.02 + 4 * found.step_size_bias_standard_error


def test_a_step_that_biases_is_said():
    # h(nβ + γ) = 1.5: λ̂ is 0.5/(1 − 0.75) = 2 times nβ/(nβ + γ), and 0.8 times that at h/2.
    with pytest.warns(MixingWarning, match="the step size is too large: its bias is 2"):
        found = local_learning_coefficient(
            problems.quadratic(np.eye(1)), np.zeros(1), step_size=1.5 / 101, steps=2000,
            burn_in=50, inverse_temperature=100.0,
        )  # fmt: skip
    assert found.doubts()[-1].startswith("the step size is too large")
    apart = found._replace(rhat=1.05, step_size_bias=0.0)
    assert apart.doubts() == ["the chains have not mixed: R-hat of the loss is 1.050, above 1.01"]
    unknown = found._replace(step_size_bias=np.nan)
    assert unknown.doubts()[-1].startswith("the step size's bias is not known")


def singular_expectation(power, strength, localization):
    """E nβL of L = w₁² s, s = w₂^power, under the localized law, by quadrature over log w₂."""
    w = np.exp(np.linspace(-60, 4, 200_000))
    inner = 2 * strength * w**power
    weight = w * np.exp(-localization * w**2 / 2) / np.sqrt(inner + localization)
    return np.sum(weight * inner / (inner + localization)) / 2 / np.sum(weight)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("power", "coefficient", "multiplicity", "step"),
    [(2, 0.5, 2, 1e-4), (4, 0.25, 1, 2e-4)],
)
def test_normal_crossings(power, coefficient, multiplicity, step):
    # w₁²w₂²: λ = 1/2 with m = 2;  (w₁w₂²)²: λ = 1/4.
    far = 1e24
    limit = coefficient - (multiplicity - 1) / np.log(far)
    assert singular_expectation(power, far, 4.0) == pytest.approx(limit, abs=3e-3)
    problem = problems.landscape(lambda w: w[0] ** 2 * w[1] ** power, np.zeros(2))
    found = local_learning_coefficient(
        problem,
        np.zeros(2),
        step_size=step,
        steps=20_000,
        burn_in=4000,
        thinning=20,
        chains=64,
        inverse_temperature=1000.0,
        localization=4.0,
    )
    expected = singular_expectation(power, 1000.0, 4.0)
    assert 4 * found.standard_error < 0.1 * expected
    bias = abs(found.step_size_bias) + 4 * found.step_size_bias_standard_error
    assert bias < 0.25 * expected
    assert abs(found.value - expected) < 4 * found.standard_error + bias


@pytest.mark.slow
def test_stochastic_gradients_and_losses():
    # Noisy losses give the baseline an error; λ̂ is d/2 of the regular model up to O(1/nβ).
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(200, 2))
    problem = problems.linear_regression(inputs, inputs @ [1.0, 2.0] + 0.3 * rng.normal(size=200))
    options = {
        "step_size": 4e-4,
        "steps": 6000,
        "burn_in": 1000,
        "thinning": 6,
        "chains": 16,
        "noise": noise.Minibatch(50),
        "loss_examples": 50,
    }
    minimum = problem.minimiser()
    found = over_replicas(
        local_learning_coefficient, problem, np.stack([minimum, minimum]), seed=0, **options
    )
    strength = 200 / np.log(200)
    true = 0.5 * np.mean((inputs @ minimum - problem.targets) ** 2)
    assert np.all(np.abs(found.baseline - true) < 4 * found.baseline_standard_error)
    assert np.all(found.standard_error > strength * found.baseline_standard_error)
    stiffness = strength * np.linalg.eigvalsh(problem.hessian_matrix())
    expected = np.sum(stiffness / (stiffness + 1)) / 2
    corrected = found.value - found.step_size_bias
    error = np.hypot(found.standard_error, found.step_size_bias_standard_error)
    assert np.all(4 * error < 0.6)
    assert np.all(np.abs(corrected - expected) < 4 * error)
    assert np.ptp(found.value) > 0


def ball(radius):
    """|w|²/2 with no number beyond the radius: chains that go there diverge."""

    def loss(w):
        square = jnp.sum(w**2)
        return jnp.where(square < radius**2, square / 2, jnp.nan)

    return problems.landscape(loss, np.zeros(2))


def test_diverged_chains_are_counted_and_left_out():
    # nβ = 100: a radius of 4.3 standard deviations, left now and then.
    options = {"step_size": 2e-3, "steps": 1200, "burn_in": 50, "thinning": 4, "chains": 16}
    options |= {"inverse_temperature": 100.0, "localization": 0.0}
    with pytest.warns(MixingWarning, match="of 16 chains diverged"):
        found = local_learning_coefficient(ball(0.43), np.zeros(2), **options)
    lost = np.isnan(found.chain_losses).any(axis=1)
    assert found.diverged_chains == lost.sum()
    assert 2 < lost.sum() < 14
    assert f"{lost.sum()} of 16 chains diverged" in found.doubts()
    # Until then they were as the others.
    for losses in found.chain_losses[lost]:
        assert np.isnan(losses[np.argmax(np.isnan(losses)) :]).all()
    assert np.isfinite(found.chain_losses[lost, 0]).any()
    assert np.array_equal(np.isnan(found.chain_values), lost)
    kept = found.chain_losses[~lost]
    assert kept.shape == (16 - lost.sum(), 300)
    assert found.value == pytest.approx(100 * kept.mean())
    dataset = xr.Dataset({"x": (("chain", "draw"), kept)})
    size = float(arviz_stats.ess(dataset, method="mean")["x"])
    assert found.effective_sample_size == pytest.approx(size, rel=0.05)
    within, between = kept.var(axis=1, ddof=1).mean(), kept.mean(axis=1).var(ddof=1)
    assert found.rhat == pytest.approx(np.sqrt(299 / 300 + between / within), rel=1e-9)
    error = 100 * kept.std() / np.sqrt(size)
    assert found.standard_error == pytest.approx(error, rel=0.05)
    # χ²/2 with 2 degrees, cut at 4.3²/2, with the step's factor 1/(1 − h nβ/2).
    cut = 0.9 * 4.3**2 / 2
    expected = (1 - cut / np.expm1(cut)) / 0.9
    assert 4 * found.standard_error < 0.1 * expected
    assert abs(found.value - expected) < 4 * found.standard_error + 0.02 * expected


def test_without_two_chains_there_is_no_estimate(unchecked):
    options = {"step_size": 2e-3, "burn_in": 0, "chains": 3, "localization": 0.0}
    options |= {"inverse_temperature": 100.0, "steps": 4000}
    with pytest.raises(DivergedChainsError, match="3 of 3 chains diverged") as error:
        local_learning_coefficient(ball(0.25), np.zeros(2), **options)
    again = pickle.loads(pickle.dumps(error.value))  # as from a process of workers
    assert str(again) == str(error.value)
    np.testing.assert_array_equal(again.found.chain_losses, error.value.found.chain_losses)
    found = error.value.found
    assert np.isfinite(found.chain_losses[:, 0]).all()
    assert np.isnan([found.value, found.standard_error, found.rhat, *found.chain_values]).all()
    assert found.doubts() == ["3 of 3 chains diverged"]
    # Replicas of an ensemble do not fail together.
    points = np.array([[0.0, 0.0], [0.6, 0.0]])
    options |= {"steps": 400, "step_size": 5e-4, "burn_in": 0}
    each = over_replicas(local_learning_coefficient, ball(0.5), points, seed=0, **options)
    assert each.diverged_chains[0] == 0
    assert np.isfinite(each.value[0])
    assert each.diverged_chains[1] == 3
    assert np.isnan(each.value[1])


def test_every_chain_has_a_value_and_a_bounded_trace():
    problem = problems.quadratic(np.eye(2))
    options = {"step_size": 1e-3, "burn_in": 100, "inverse_temperature": 100.0, "thinning": 2}
    options |= {"localization": 0.0, "chains": 5}
    short = local_learning_coefficient(problem, np.zeros(2), steps=1000, **options)
    assert short.chain_losses.shape == (5, 500)
    assert short.chain_steps.tolist() == list(range(2, 1001, 2))
    np.testing.assert_allclose(short.chain_values, 100 * short.chain_losses.mean(axis=1))
    assert short.value == pytest.approx(short.chain_values.mean())
    assert short.diverged_chains == 0
    # The same chains for longer: every third look at the loss is kept.
    long = local_learning_coefficient(problem, np.zeros(2), steps=2800, **options)
    assert long.chain_losses.shape == (5, 467)
    assert long.chain_steps.tolist() == list(range(2, 2801, 6))
    np.testing.assert_allclose(long.chain_losses[:, :167], short.chain_losses[:, ::3])
    assert not np.allclose(long.chain_values, 100 * long.chain_losses.mean(axis=1))


def test_a_box_keeps_chains_in_and_the_density_as_it_is():
    # One half becomes ½(1 − 2zφ(z)/(2Φ(z) − 1)), for a narrow direction and a wide one.
    radius, strength, curvatures = 0.1, 100.0, np.array([9.0, 1.0, 0.0])
    found = local_learning_coefficient(
        problems.quadratic(np.diag(curvatures)), np.array([0.0, 0.0, 1.0]), step_size=2e-4,
        steps=8000, burn_in=1000, thinning=8, chains=32, inverse_temperature=strength,
        localization=0.0, box_radius=radius,
    )  # fmt: skip
    z = radius * np.sqrt(strength * curvatures[:2])
    expected = np.sum(1 - 2 * z * norm.pdf(z) / (2 * norm.cdf(z) - 1)) / 2
    assert expected < 0.65  # 1 without the box
    corrected = found.value - found.step_size_bias
    error = np.hypot(found.standard_error, found.step_size_bias_standard_error)
    assert 4 * error < 0.1 * expected
    assert abs(corrected - expected) < 4 * error


def test_a_box_is_around_the_checkpoint_and_holds_what_would_leave(unchecked):
    def loss(w):
        return -jnp.sum((w - 1.5) ** 2) + w[0]

    problem, at = problems.landscape(loss, np.zeros(1)), np.array([1.5])
    options = {"steps": 4000, "burn_in": 500, "thinning": 4, "inverse_temperature": 50.0}
    options |= {"step_size": 1e-4, "localization": 0.0, "chains": 32}
    found = local_learning_coefficient(problem, at, box_radius=0.2, **options)
    assert np.all(found.chain_losses >= -(0.2**2) + 1.3)
    away = np.linspace(-0.2, 0.2, 20_001)
    rise = away - away**2
    weight = np.exp(-50 * rise)
    expected = 50 * np.sum(rise * weight) / np.sum(weight)
    error = np.hypot(found.standard_error, found.step_size_bias_standard_error)
    assert 4 * error < 0.1 * abs(expected)
    assert abs(found.value - found.step_size_bias - expected) < 4 * error
    options["step_size"] = 0.1
    with pytest.raises(DivergedChainsError):
        local_learning_coefficient(problem, at, **options)
    with pytest.raises(ValueError, match=r"box_radius must be positive and finite, got 0"):
        local_learning_coefficient(problem, at, box_radius=0, **options)


PARTS = {"a": np.zeros(2), "b": np.zeros(3)}
MATRIX = np.array(
    [[4, 1, 1, 0, 0], [1, 3, 0, 1, 0], [1, 0, 2, 0, 0.5], [0, 1, 0, 2, 0], [0, 0, 0.5, 0, 1.0]]
)


@pytest.mark.parametrize(
    ("chosen", "indices"),
    [
        ("a", [0, 1]),
        (["b"], [2, 3, 4]),
        ({"a": True, "b": False}, [0, 1]),
        ({"a": np.array([False, True]), "b": np.array([True, False, True])}, [1, 2, 4]),
        ({"a": np.zeros(2, bool), "b": np.ones(3, bool)}, [2, 3, 4]),
    ],
)
def test_a_part_of_the_parameters(chosen, indices):
    # γ = nβ: each eigenvalue of the part's block of the Hessian counts nβλ/(2(nβλ + γ)).
    def loss(params):
        flat = jnp.concatenate([params["a"], params["b"]])
        return flat @ MATRIX @ flat / 2

    problem = problems.landscape(loss, PARTS)
    options = {"step_size": 5e-4, "steps": 6000, "burn_in": 500, "thinning": 6, "chains": 32}
    options |= {"inverse_temperature": 100.0, "localization": 100.0, "restricted_to": chosen}
    found = local_learning_coefficient(problem, PARTS, **options)
    values = np.linalg.eigvalsh(MATRIX[np.ix_(indices, indices)])
    expected = np.sum(values / (values + 1)) / 2
    corrected = found.value - found.step_size_bias
    error = np.hypot(found.standard_error, found.step_size_bias_standard_error)
    assert 4 * error < 0.08 * expected  # the other blocks are further away than that
    assert abs(corrected - expected) < 4 * error


def test_what_does_not_move_stays_at_the_checkpoint():
    # L = (1 + c)²w²/2 at c = 2: λ̂ of w alone is ½ · 9nβ/(9nβ + γ), over an ensemble too.
    def loss(params):
        return (1 + params["c"]) ** 2 * params["w"] ** 2 / 2

    problem = problems.landscape(loss, {"c": 0.0, "w": 0.0})
    points = {"c": np.array([2.0, 0.0]), "w": np.zeros(2)}
    options = {"step_size": 2e-4, "steps": 4000, "burn_in": 400, "thinning": 4, "chains": 64}
    options |= {"inverse_temperature": 100.0, "localization": 300.0, "seed": 0}
    expected = np.array([0.5 * 9 / 12, 0.5 / 4])
    named, marked = (
        over_replicas(local_learning_coefficient, problem, points, restricted_to=part, **options)
        for part in ("w", {"c": np.array(False), "w": np.array(True)})
    )
    for found in (named, marked):
        corrected = found.value - found.step_size_bias
        error = np.hypot(found.standard_error, found.step_size_bias_standard_error)
        assert np.all(4 * error < 0.15 * expected)
        assert np.all(np.abs(corrected - expected) < 4 * error)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ("c", r"restricted_to must be names among \['a', 'b'\], got \['c'\]"),
        ([], r"restricted_to must choose something of \['a', 'b'\]"),
        ({"a": False, "b": np.zeros(3, bool)}, "restricted_to must choose something"),
        ({"a": True}, "restricted_to must be names, or truth values in the structure of params"),
        ({"a": np.ones(3, bool), "b": True}, r"of shape \(2,\) for 'a', got \(3,\)"),
        ({"a": 1.0, "b": True}, "restricted_to must be a truth value or .* for 'a', got 1.0"),
    ],
)
def test_parts_that_are_refused(chosen, message):
    problem = problems.landscape(lambda p: jnp.sum(p["a"]) + jnp.sum(p["b"]), PARTS)
    with pytest.raises(ValueError, match=message):
        local_learning_coefficient(
            problem, PARTS, step_size=0.01, steps=10, burn_in=0, inverse_temperature=10.0,
            restricted_to=chosen,
        )  # fmt: skip


def test_effective_sample_size_is_that_of_arviz():
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(4, 500))
    for i in range(1, 500):
        draws[:, i] += 0.7 * draws[:, i - 1]
    expected = arviz_stats.ess(xr.Dataset({"x": (("chain", "draw"), draws)}), method="mean")["x"]
    assert effective_sample_size(draws) == pytest.approx(float(expected), rel=0.02)


def test_refusals(unchecked):
    problem = problems.quadratic(np.eye(2))
    options = {"step_size": 0.01, "steps": 10, "burn_in": 0}
    with pytest.raises(ValueError, match="inverse_temperature must be given without a data set"):
        local_learning_coefficient(problem, np.zeros(2), **options)
    options["inverse_temperature"] = 10.0
    with pytest.raises(ValueError, match="chains must be at least 2"):
        local_learning_coefficient(problem, np.zeros(2), chains=1, **options)
    with pytest.raises(ValueError, match="loss_examples must be None"):
        local_learning_coefficient(problem, np.zeros(2), loss_examples=5, **options)
    data = problems.linear_regression(np.eye(4), np.zeros(4))
    with pytest.raises(ValueError, match="noise must be white"):
        local_learning_coefficient(
            data, np.zeros(4), noise=noise.Minibatch(2, "reshuffle"), **options
        )
    cubic = problems.landscape(lambda x: jnp.sum(x**6), np.zeros(2))
    with pytest.raises(ValueError, match="step_size must keep at least two chains finite"):
        local_learning_coefficient(
            cubic, np.full(2, 9.0), step_size=1.0, steps=40, burn_in=0, inverse_temperature=10.0
        )
