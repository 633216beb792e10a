"""A diagnosis against dense truth on a small network, and what it refuses."""

import importlib
import re
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from scipy.linalg import eigh

import statsgd
from statsgd import SGD, diagnose, hessian, noise_covariance, simulate
from statsgd.diagnosis import CheckpointWarning, stability
from statsgd.diagnosis.gradients import noise_draws, noise_trace, standing
from statsgd.diagnosis.modes import TRACE_PRODUCTS, told_curvature, told_standing
from statsgd.diagnosis.part import judged
from statsgd.diagnosis.request import checked
from statsgd.diagnosis.spread import over_corrected, replicas, told
from statsgd.diagnosis.ways import over_second_derivatives
from statsgd.ensembles import endpoint_trajectories
from statsgd.laws import ModeLaw
from statsgd.noise import Minibatch
from statsgd.problems import batch_risk, empirical_risk

DECAY, RATE, MOMENTUM, SIZE, STEPS = 0.05, 0.02, 0.8, 16, 40


def example_loss(params, example):
    hidden = jnp.tanh(params["hidden"] @ example[0])
    return (params["out"] @ hidden - example[1]) ** 2 / 2


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(160, 4)).astype(np.float32)
    targets = np.sin(inputs @ [1.0, -0.5, 0.3, 0.0]) + 0.3 * rng.normal(size=160)
    begin = {"hidden": rng.normal(size=(4, 4)) / 2, "out": rng.normal(size=4) / 2}
    begin = jax.tree.map(lambda leaf: leaf.astype(np.float32), begin)
    return empirical_risk(example_loss, (inputs, targets.astype(np.float32)), begin)


SETTING = SGD(RATE, Minibatch(SIZE), MOMENTUM, DECAY)


@pytest.fixture(scope="module")
def checkpoint(problem):
    run = simulate(problem, SETTING, steps=4000, replicas=1, seed=0, progress=False)
    ends = run["endpoints"].to_dataset()
    return {name: jnp.asarray(ends[name].values[0]) for name in ("hidden", "out")}


@pytest.fixture(scope="module")
def tree(problem, checkpoint):
    return diagnose(
        problem, checkpoint, SETTING, modes=5, replicas=64, steps=STEPS, seed=1, progress=False
    )


@pytest.fixture(scope="module")
def dense(problem, checkpoint):
    """Hessian with weight decay and noise covariance, as whole matrices."""
    curvature = np.asarray(hessian(problem, checkpoint)) + DECAY * np.eye(problem.dimension)
    return curvature, np.asarray(noise_covariance(problem, checkpoint, SETTING.noise))


def test_curvature_and_noise_of_the_modes_are_those_of_the_whole_matrices(tree, dense):
    curvature, noise = dense
    values, vectors = eigh(curvature)
    seen = tree["curvature"].to_dataset()
    np.testing.assert_allclose(seen["curvature"], values[::-1][:5], rtol=1e-8)
    along = np.diagonal(vectors.T @ noise @ vectors)[::-1][:5]
    np.testing.assert_allclose(seen["noise"], along, rtol=1e-6)
    trace = np.trace(curvature) - DECAY * len(curvature)
    assert abs(float(seen["hessian_trace"]) - trace) < 5 * float(seen["hessian_trace_error"])
    assert float(seen["hessian_trace_error"]) < 0.1 * trace
    ratio = np.trace(curvature @ noise) / np.trace(noise) - DECAY
    assert abs(float(seen["curvature_of_noise"]) - ratio) < 5 * float(
        seen["curvature_of_noise_error"]
    )


def test_the_first_look_is_that_of_the_whole_data_set(tree, problem, checkpoint, dense):
    seen = tree["standing"].to_dataset()
    np.testing.assert_allclose(seen["loss"], problem.loss(checkpoint), rtol=1e-5)
    np.testing.assert_allclose(seen["noise_trace"], np.trace(dense[1]), rtol=1e-6)
    flat = np.asarray(problem.flatten(checkpoint), np.float64)
    force = np.asarray(problem.flatten(problem.gradient(checkpoint)), np.float64) + DECAY * flat
    np.testing.assert_allclose(seen["gradient_norm"], np.linalg.norm(force), rtol=1e-3)


def test_the_predicted_variance_is_that_of_the_dense_chain(tree, dense):
    # θ and m of all parameters, moved by the whole matrices; then looked at along the modes.
    curvature, noise = dense
    d = len(curvature)
    eye = np.eye(d)
    step = np.block([[eye - RATE * curvature, -RATE * MOMENTUM * eye], [curvature, MOMENTUM * eye]])
    push = np.concatenate([-RATE * eye, eye])
    covariance = np.zeros((2 * d, 2 * d))
    for _ in range(STEPS):
        covariance = step @ covariance @ step.T + push @ noise @ push.T
    vectors = eigh(curvature)[1][:, ::-1][:, :5]
    expected = np.diagonal(vectors.T @ covariance[:d, :d] @ vectors)
    last = tree["spread"].to_dataset().isel(step=-1)
    np.testing.assert_allclose(last["predicted_variance"], expected, rtol=1e-6)
    buffer = np.diagonal(vectors.T @ covariance[d:, d:] @ vectors)
    np.testing.assert_allclose(last["predicted_buffer_variance"], buffer, rtol=1e-6)
    # So does the pilot's correction predict, with its own noise and curvature.
    assert 0.5 < float((last["corrected_variance"] / last["predicted_variance"]).mean()) < 2
    # The replicas: 64 × 5 values give 8 % of the mean ratio, so that a factor 1.5 would be seen.
    ratio = float((last["variance"] / last["predicted_variance"]).mean())
    assert abs(ratio - 1) < 4 * np.sqrt(2 / 63 / 5) + 0.1


def test_the_budget_of_batches_is_that_of_the_chain_with_their_curvatures(
    tree, problem, checkpoint, dense
):
    # Second moments of (x, m) along the modes, x ← x − ηm, m ← βm + (G_B + λ)x, iterated with the
    # Hessian of every example: they neither grow nor shrink where the stated threshold is.
    vectors = eigh(dense[0])[1][:, ::-1][:, :5]
    rows = []
    for example in range(160):
        one = jax.tree.map(lambda leaf: leaf[example : example + 1], problem.examples)  # noqa: B023
        alone = empirical_risk(example_loss, one, checkpoint)
        rows.append(vectors.T @ np.asarray(hessian(alone, checkpoint)) @ vectors)
    curvatures = np.array(rows)
    seen = tree["stability"].to_dataset()
    kappa = np.diagonal(curvatures.var(axis=0)) / SIZE
    np.testing.assert_allclose(seen["batch_curvature_variance"], kappa, rtol=1e-5)
    np.testing.assert_allclose(seen["mean_square_share"], RATE / seen["mean_square_threshold"])
    assert np.all(np.diff(seen["mean_square_threshold"]) <= 1e-9)
    mean, rest = curvatures.mean(axis=0) + DECAY * np.eye(5), curvatures - curvatures.mean(axis=0)
    for number in (1, 5):
        eta, one = float(seen["mean_square_threshold"][number - 1]), np.eye(number)
        g, d = mean[:number, :number], rest[:, :number, :number]
        step = np.block([[one - eta * g, -eta * MOMENTUM * one], [g, MOMENTUM * one]])
        push, moments = np.concatenate([-eta * one, one]), np.eye(2 * number)
        for _ in range(3000):
            before = np.linalg.norm(moments)
            noise = np.mean(d @ moments[:number, :number] @ d, axis=0) / SIZE
            moments = (step @ moments @ step.T + push @ noise @ push.T) / before
        assert np.linalg.norm(moments) == pytest.approx(1, abs=1e-6)


def test_a_budget_without_batches_says_so(problem, checkpoint):
    isotropic = SGD(RATE, statsgd.noise.Isotropic(0.1), MOMENTUM, DECAY)
    sizes = {"modes": 2, "replicas": 8, "steps": 4, "seed": 0, "progress": False}
    request = checked(problem, checkpoint, isotropic, learning_coefficient=False, **sizes)
    part = stability.told(xr.Dataset({"mean_share": ("mode", [0.1, 0.05])}), request)
    assert part.verdict == "stable: SGD uses 10% of its stability budget"
    assert "for those of a data set alone" in part.finding


def test_the_strength_of_noise_that_is_not_of_minibatches_is_drawn(problem, checkpoint, dense):
    gradient = standing(problem, checkpoint).gradient
    subsets = Minibatch(SIZE, "without_replacement")
    found = noise_trace(problem, checkpoint, subsets, gradient, None)
    np.testing.assert_allclose(found.value, (160 - SIZE) / 159 * np.trace(dense[1]), rtol=1e-6)
    isotropic = statsgd.noise.Isotropic(0.3)
    draws = noise_draws(problem, checkpoint, isotropic, gradient, 0)
    expected = problem.dimension * np.asarray(isotropic.covariance(problem, checkpoint))[0, 0]
    found = noise_trace(problem, checkpoint, isotropic, gradient, draws)
    assert abs(found.deviation(expected)) < 4
    assert found.standard_error < 0.2 * expected


def test_every_part_says_what_it_means_and_a_report_shows_it(tree, tmp_path):
    assert list(tree.children) == [
        "standing", "stability", "spread", "stationarity", "curvature", "flatness",
        "learning_coefficient",
    ]  # fmt: skip
    for part in tree.children.values():
        assert part.attrs["finding"]
        assert "nan" not in part.attrs["finding"]
    page = statsgd.report(tree, tmp_path / "page.html").read_text()
    for part in tree.children.values():
        assert part.attrs["title"] in page
    assert "What to do" in page


def test_chains_that_diverge_are_told_and_do_not_stop_a_diagnosis(
    tree, problem, checkpoint, monkeypatch, tmp_path
):
    from statsgd.diagnosis import learning

    known = tree["learning_coefficient"].to_dataset()
    assert known["chain_losses"].shape == (4, 200)
    assert known["chain_coefficients"].mean() == pytest.approx(float(known["coefficient"]))
    monkeypatch.setattr(learning, "_STIFFNESS", 30.0)  # 2 is the edge
    short = {"modes": 1, "replicas": 8, "steps": 10, "seed": 1, "progress": False}
    found = diagnose(problem, checkpoint, SETTING, store=tmp_path / "store", identity="t", **short)
    part = found["learning_coefficient"]
    assert part.attrs["verdict"] == "not estimated: 4 of 4 chains diverged"
    assert "nothing could be estimated" in part.attrs["finding"]
    assert "nan" not in part.attrs["finding"]
    size = float(part["step_size"])
    assert size == pytest.approx(100 * float(known["step_size"]), rel=0.01)
    assert f"a step size well below {size:.2g}" in part.attrs["advice"]
    assert part.attrs["advice"] in found.attrs["finding"]
    page = statsgd.report(found, tmp_path / "page.html").read_text()
    assert "not estimated: 4 of 4 chains diverged" in page
    assert "Chains of the learning coefficient" in page
    sizes = {"modes": 5, "replicas": 64, "steps": STEPS, "seed": 1, "progress": False}
    request = checked(problem, checkpoint, SETTING, **sizes, learning_coefficient=True)
    some = known.assign(
        chain_coefficients=known["chain_coefficients"].where(known["chain"] > 0),
        step_size_bias=np.nan,
    ).assign_attrs(doubts="1 of 4 chains diverged")
    part = learning.told(some, request)
    assert part.verdict == "undecided: 1 of 4 chains diverged"
    assert "its 3 chains say" in part.finding
    assert "nan" not in part.finding
    assert f"a step size below {float(known['step_size']):.2g}" in part.advice


def test_a_store_goes_on_where_it_was_cut_off(tree, problem, checkpoint, tmp_path, monkeypatch):
    from statsgd.diagnosis import flatness, modes

    options = {"modes": 5, "replicas": 64, "steps": STEPS, "seed": 1, "progress": False}
    options |= {"store": tmp_path / "store", "identity": "test 1", "learning_coefficient": False}

    def cut_off(request):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(flatness, "flatness", cut_off)
        with pytest.raises(KeyboardInterrupt):
            diagnose(problem, checkpoint, SETTING, **options)
    monkeypatch.setattr(modes, "law_at", cut_off)  # it must not be measured again
    again = diagnose(problem, checkpoint, SETTING, **options)
    assert set(tree.children) - {*again.children} == {"learning_coefficient"}
    for name in again.children:
        assert again[name].attrs["finding"] == tree[name].attrs["finding"]
    with pytest.raises(ValueError, match="seed is 1 there and 2 here"):
        diagnose(problem, checkpoint, SETTING, **options | {"seed": 2})


def test_a_store_of_other_parts_is_refused(problem, checkpoint, tmp_path, monkeypatch):
    options = {"modes": 1, "replicas": 8, "steps": 5, "seed": 0, "progress": False}
    options |= {"store": tmp_path, "identity": "test", "learning_coefficient": False}
    diagnosed = importlib.import_module("statsgd.diagnosis.diagnose")
    monkeypatch.setattr(diagnosed, "_LAYOUT", 1)
    diagnose(problem, checkpoint, SETTING, **options)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="layout"):
        diagnose(problem, checkpoint, SETTING, **options)


def test_checkpoints_of_ones_own_run_take_the_place_of_replicas(problem, checkpoint):
    run = simulate(
        problem, SETTING, steps=40_000, replicas=1, seed=5, start=checkpoint, progress=False,
        keep=40,
    )  # fmt: skip
    kept = run["snapshots"].to_dataset()
    points = {name: kept[name].values[0] for name in ("hidden", "out")}
    options = {"modes": 3, "steps": 40, "seed": 1, "progress": False}
    options["learning_coefficient"] = False
    found = diagnose(problem, checkpoint, SETTING, checkpoints=points, **options)
    seen = found["own_run"].to_dataset()
    assert np.isfinite(seen["variance"][0])
    # Two thousand relaxation times along the sharpest mode: a factor 1.5 would be seen.
    ratio = float(seen["variance"][0] / seen["predicted_variance"][0])
    error = float(seen["variance_error"][0] / seen["predicted_variance"][0])
    assert abs(ratio - 1) < 4 * error + 0.25
    with pytest.raises(ValueError, match="checkpoints must hold parameters of the problem"):
        diagnose(problem, checkpoint, SETTING, checkpoints=[{"hidden": np.zeros(3)}], **options)


def spring_loss(params, example):
    return jnp.sum(jnp.array([2.0, 1.0, 0.5]) * (params["at"] - example) ** 2) / 2


@pytest.mark.slow
@pytest.mark.parametrize("apart", [4, 6])  # whole epochs apart, and at two phases in turn
def test_ones_own_run_over_epochs_is_held_against_the_law_of_epochs(apart):
    # Linear forces: the law is exact. White noise would have the variance .05 along the first mode,
    # epochs of four batches have .0013 at their ends.
    examples = np.random.default_rng(1).normal(size=(40, 3)).astype(np.float32)
    problem = empirical_risk(spring_loss, examples, {"at": np.zeros(3, np.float32)})
    sgd = SGD(0.1, Minibatch(10, "reshuffle"), 0.5)
    middle = {"at": examples.mean(axis=0)}
    run = simulate(
        problem, sgd, steps=48_000, replicas=1, seed=2, start=middle, progress=False, keep=apart
    )
    points = {"at": run["snapshots"].to_dataset()["at"].values[0]}
    tree = diagnose(
        problem, middle, sgd, modes=2, steps=apart, seed=1, checkpoints=points,
        learning_coefficient=False, progress=False,
    )  # fmt: skip
    assert "learning_coefficient" not in tree.children
    seen = tree["own_run"].to_dataset()
    off = seen["variance"] - seen["predicted_variance"]
    assert np.all(np.abs(off) < 4 * seen["variance_error"])
    assert np.all(seen["variance_error"] < 0.025 * seen["predicted_variance"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modes": 20}, "modes must be fewer than the 20 parameters, got 20"),
        ({"replicas": 4}, "replicas must be at least 8, got 4"),
        ({"sgd": SGD(0.1, Minibatch(161))}, "batch size of sgd must be at most 160, got 161"),
        ({"sgd": SGD(0.1, Minibatch(16), 0.9, nesterov=True)}, "nesterov=False"),
        ({"sgd": "adam"}, "sgd must be statsgd.SGD, whose law in modes is known, got str"),
        ({"params": {"hidden": np.zeros((4, 4))}}, "params must be those of the problem"),
        (
            {"params": {"hidden": np.zeros((4, 3)), "out": np.zeros(4)}},
            "params must have leaves of shapes",
        ),
        (
            {"params": {"hidden": np.full((4, 4), 1e30), "out": np.full(4, np.inf)}},
            "params must have a finite loss and gradient",
        ),
    ],
)
def test_bad_input_is_refused_with_its_number(unchecked, problem, checkpoint, changes, message):
    asked = {"params": checkpoint, "sgd": SETTING, "modes": 5, "replicas": 8, "steps": 4}
    asked |= {"seed": 0, "progress": False} | changes
    with pytest.raises(ValueError, match=message):
        diagnose(problem, **asked)


def normalised(params, batch):
    """A network of the same shapes that normalises its hidden neurons over the batch."""
    hidden = batch[0] @ params["hidden"].T
    hidden = jnp.tanh((hidden - hidden.mean(0)) / jnp.sqrt(hidden.var(0) + 1e-3))
    return jnp.mean((hidden @ params["out"] - batch[1]) ** 2) / 2


def dropped(params, example, key):
    """The network with a fifth of its hidden neurons dropped."""
    kept = jax.random.bernoulli(key, 0.8, (4,)) / 0.8
    return (params["out"] @ (kept * jnp.tanh(params["hidden"] @ example[0])) - example[1]) ** 2 / 2


@pytest.mark.slow
@pytest.mark.parametrize("which", ["normalised", "dropped"])
def test_noise_that_is_known_from_draws_alone(which, problem, checkpoint):
    sampling = "without_replacement" if which == "normalised" else "reshuffle"
    sgd = SGD(0.02, Minibatch(SIZE, sampling), 0.5, DECAY)
    own: Any = (
        batch_risk(normalised, problem.examples, checkpoint, batch_size=SIZE)
        if which == "normalised"
        else empirical_risk(dropped, problem.examples, checkpoint)
    )
    run = simulate(own, sgd, steps=3000, replicas=1, seed=0, progress=False)
    ends = run["endpoints"].to_dataset()
    there = {name: jnp.asarray(ends[name].values[0]) for name in ("hidden", "out")}
    found = diagnose(own, there, sgd, modes=4, replicas=128, steps=20, seed=1, progress=False)
    seen = found["curvature"].to_dataset()
    whole = np.asarray(noise_covariance(own, there, sgd.noise))
    along = np.diagonal(seen["direction"].values.T @ whole @ seen["direction"].values)
    np.testing.assert_allclose(seen["noise"], along, rtol=1e-6)
    assert np.all(np.diagonal(seen["noise_covariance_error"]) < 0.2 * along)
    last = found["spread"].to_dataset().isel(step=-1)
    ratio = float((last["variance"] / last["corrected_variance"]).mean())
    assert abs(ratio - 1) < 4 * np.sqrt(2 / 127 / 4) + 0.1
    assert ("independent_noise" in seen) == (which == "dropped")
    budget = found["stability"]
    assert not bool(budget["exact"])
    assert 0 < float(budget["mean_square_share"][-1]) < 1
    assert "drawn" in budget.attrs["finding"]


def test_the_error_of_a_corrected_law_counts_its_pilot():
    # Endpoints whose noise scatters by a fifth, all modes of one alike: the mean of eight is off by
    # 7 %, far more than the variances of 10 000 replicas.
    factors = 1 + 0.2 * np.random.default_rng(0).normal(size=8)
    rest = [np.delete(factors, index).mean() for index in range(8)]
    last = xr.Dataset(
        {
            "variance": ("mode", np.full(5, 3.0)),
            "corrected_variance": ("mode", np.full(5, factors.mean())),
            "corrected_variance_without": (("pilot", "mode"), np.tile(rest, (5, 1)).T),
            "replicas": 10_000,
        }
    )
    ratio, error = over_corrected(last, slice(1, 4))
    assert ratio == pytest.approx(3 / factors.mean())
    share = factors.std(ddof=1) / np.sqrt(8) / factors.mean()
    assert error == pytest.approx(ratio * share, rel=0.1)
    pairs = (0.1, 0.02), (0.2, 0.02), (0.2, 0.3), (1.0, 0.3)
    told = [judged(*pair, 0.1, "predicted", "off") for pair in pairs]
    assert told == ["predicted", "off", "undecided", "off"]


def test_curvature_in_kinks_is_told(tree, checkpoint, problem):
    seen = tree["spread"].to_dataset()
    smooth = over_second_derivatives(seen)
    assert smooth.value == pytest.approx(1.0, abs=0.005)
    assert "1.00" in tree["spread"].attrs["finding"].split("ended the gradient changes")[1]
    assert "kinks" not in tree["spread"].attrs["finding"]
    kinked = seen.assign(secant_curvature=1.1 * seen["secant_curvature"])
    request = asked_of(problem, checkpoint)
    found = told(kinked, tree["standing"].to_dataset(), request).finding
    assert "1.10" in found.split("ended the gradient changes")[1]
    assert "kinks of the loss" in found
    # Nothing is said where second derivatives curve downwards on a way.
    downwards = seen.assign(curvature_on_the_way=-seen["curvature_on_the_way"])
    assert over_second_derivatives(downwards) is None


def asked_of(problem, checkpoint, sgd=SETTING):
    sizes = {"modes": 5, "replicas": 64, "steps": STEPS, "seed": 1}
    return checked(problem, checkpoint, sgd, **sizes, learning_coefficient=False, progress=False)


def test_ridges_on_the_way_are_told(tree, problem, checkpoint):
    seen, look = (tree[name].to_dataset() for name in ("spread", "standing"))
    assert "no ridge lies on them" in tree["spread"].attrs["finding"]
    rises = seen["secant_curvature"] * seen["distance"] ** 2 / 2
    assert np.all(seen["loss_barrier"].values < 0.05 * np.abs(rises.values))
    high = seen.assign(loss_barrier=("way", [0.0, 1.0, 0.0, 0.0, 0.0, 0.0]))
    assert "1 of 6 lead over a ridge" in told(high, look, asked_of(problem, checkpoint)).finding


@pytest.mark.filterwarnings("ignore::statsgd.diagnosis.CheckpointWarning")
def test_sgd_that_diverges_is_diagnosed_and_no_error(problem, checkpoint, tmp_path):
    wild = SGD(20.0, Minibatch(SIZE), MOMENTUM, DECAY)
    found = diagnose(
        problem, checkpoint, wild, modes=2, replicas=8, steps=60, seed=0, progress=False,
        learning_coefficient=False,
    )  # fmt: skip
    seen = found["spread"].to_dataset()
    assert int(seen["diverged"]) == 8
    assert found["spread"].attrs["verdict"] == "off: 8 of 8 replicas diverged"
    assert "stationarity" not in found.children
    assert found["stability"].attrs["verdict"].startswith("unstable")
    assert "8 of 8 replicas diverged" in statsgd.report(found, tmp_path / "a.html").read_text()


@pytest.mark.filterwarnings("ignore::statsgd.diagnosis.CheckpointWarning")
def test_replicas_whose_loss_overflows_count_as_diverged():
    # x ← −3x: after 45 steps x is 10²¹, finite in single precision, and x² is not.
    bowl = statsgd.problems.quadratic(np.eye(4))
    found = diagnose(
        bowl, np.ones(4), SGD(4.0, statsgd.noise.Isotropic(0.1)), modes=1, replicas=8, steps=45,
        seed=0, progress=False,
    )  # fmt: skip
    assert found["spread"].attrs["verdict"] == "off: 8 of 8 replicas diverged"


def test_nothing_is_divided_by_a_loss_or_a_noise_of_zero():
    bowl, sizes = statsgd.problems.quadratic(np.eye(4)), {"modes": 1, "replicas": 8, "steps": 9}
    ask = {**sizes, "seed": 0, "progress": False}
    found = diagnose(bowl, np.zeros(4), SGD(0.1, statsgd.noise.Isotropic(0.1)), **ask)
    assert "of the loss itself (0)" in found["flatness"].attrs["finding"]
    with pytest.raises(ValueError, match="sgd must have gradient noise at params, got none"):
        diagnose(bowl, np.zeros(4), SGD(0.1, statsgd.noise.NoNoise()), **ask)


def test_the_cost_is_told_before_the_long_part(problem, checkpoint, capsys, monkeypatch):
    diagnose(
        problem, checkpoint, SETTING, modes=2, replicas=8, steps=20, seed=0,
        learning_coefficient=False,
    )  # fmt: skip
    out = capsys.readouterr().out
    # 6 products a mode and those of the traces; 8 · 20 steps.
    assert re.search(rf"diagnose: about .*: {12 + TRACE_PRODUCTS} products with the Hessian", out)
    assert "160 steps of" in out


def test_alignment_is_told_as_it_is(unchecked):
    look = xr.Dataset({"noise_trace": 1.0})
    request = types.SimpleNamespace(
        problem=types.SimpleNamespace(dimension=10), decay=0.0, steps=10,
        sgd=types.SimpleNamespace(learning_rate=0.1, momentum=0.0),
    )  # fmt: skip
    law = ModeLaw([2.0, 1.0], np.eye(2), 0.1, 0.0, 10, residuals=np.zeros(2))

    def said(along, error, trace, look_error):
        whole = xr.Dataset(
            {
                "curvature_of_noise": along, "curvature_of_noise_error": error,
                "hessian_trace": trace, "hessian_trace_error": look_error,
            }
        )  # fmt: skip
        return told_curvature(law, look, whole, request).finding

    assert "noise and curvature are aligned" in said(2.0, 0.1, 5.0, 0.5)
    assert "noise avoids curvature" in said(0.1, 0.05, 5.0, 0.5)
    assert "as if it were the same in all directions" in said(0.55, 0.1, 5.0, 0.5)
    assert "not known to be positive" in said(0.5, 0.1, -5.0, 0.5)
    # Where noise leads downwards no level of the gradient is kept up.
    whole = xr.Dataset({"curvature_of_noise": -0.5, "curvature_of_noise_error": 0.1})
    look = xr.Dataset({"noise_trace": 1.0, "gradient_norm": 0.1, "loss": 1.0})
    assert told_standing(look, whole, request).verdict.startswith("undecided: noise may lead down")


def test_distances_of_networks_of_16_bits_are_in_single_precision(problem, checkpoint):
    small = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), checkpoint)
    half = empirical_risk(
        example_loss,
        jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), problem.examples),
        small,
    )
    request = asked_of(half, small)
    modes = np.linalg.qr(np.random.default_rng(0).normal(size=(problem.dimension, 3)))[0]
    law = ModeLaw(
        np.ones(3), np.eye(3), RATE, MOMENTUM, STEPS, modes=modes, checkpoint=request.flat
    )
    run = replicas(request, law)
    ends = endpoint_trajectories(run, half.names).params[:, 0]
    along = run["observables"]["along"].transpose("replica", "step", ...).values[:, -1]
    away = ends - request.flat
    np.testing.assert_allclose(along[:, :-1], away @ modes, atol=1e-5)
    np.testing.assert_allclose(along[:, -1], np.sum(away**2, axis=1), rtol=1e-4)


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        (statsgd.noise.StudentT(1.5, 0.1), "noise must have a finite variance"),
        (statsgd.noise.Anisotropic(np.eye(4)), "the covariance of Anisotropic is formed"),
    ],
)
def test_noise_without_a_law_is_refused_before_anything_long(noise, message, monkeypatch):
    monkeypatch.setattr("statsgd.dynamics.noise.subspace.DENSE_LIMIT", 3)
    monkeypatch.setattr("statsgd.diagnosis.modes.first_look", None)
    bowl = statsgd.problems.quadratic(np.eye(4))
    with pytest.raises(ValueError, match=message):
        diagnose(bowl, np.ones(4), SGD(0.1, noise), modes=1, seed=0, progress=False)


def test_a_checkpoint_far_from_any_minimum_is_named(problem, checkpoint, monkeypatch):
    from statsgd.diagnosis import modes

    def stop(request):
        raise KeyboardInterrupt

    monkeypatch.setattr(modes, "law_at", stop)  # the warning comes before the long part
    far = jax.tree.map(lambda leaf: 10 * leaf, checkpoint)
    with (
        pytest.warns(CheckpointWarning, match="times the noise of one batch"),
        pytest.raises(KeyboardInterrupt),
    ):
        diagnose(problem, far, SETTING, modes=5, seed=0, progress=False)
