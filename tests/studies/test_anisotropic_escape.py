"""The study of anisotropic noise: exact probabilities, digits with wrong labels, its verdicts."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from statsgd import problems
from statsgd.noise import Minibatch
from studies import anisotropic_escape
from studies.anisotropy import network, plane
from studies.digits_network import digits_network


def test_exact_probabilities_are_those_of_point_data():
    # Survival of an autoregressive coordinate on a grid, 499 iterates, Tr W = .01.
    exact = plane.exact_leave_probabilities(0.01, 499)
    assert exact["isotropic"] == exact["diagonal"] == pytest.approx(0.09232, abs=1e-5)
    assert exact["hessian"] == exact["leading"] == pytest.approx(0.87072, abs=1e-5)
    # One direction across: 1 − (1 − q)ⁿ with q = .00590291.
    assert exact["top"] == pytest.approx(1 - (1 - 0.00590291) ** 499, abs=1e-5)


@pytest.mark.slow
def test_amplified_noise_has_the_trace_asked_for_and_the_gradient_as_mean():
    problem, params = problems.two_basins(), jnp.array([0.9, 1.1])
    noise = plane.Amplified(Minibatch(1), np.float64(400.0))
    assert float(jnp.trace(noise.covariance(problem, params))) == pytest.approx(400, rel=1e-5)
    keys = jax.random.split(jax.random.key(0), 4000)
    draws = np.asarray(jax.jit(jax.vmap(lambda k: noise.draw(k, problem, params)))(keys))
    # One deviation of the mean of 4000 draws is 20/√4000 = .32 in the norm.
    assert np.linalg.norm(draws.mean(0) - problem.gradient(params)) < 4 * 0.32
    assert np.trace(np.cov(draws.T)) == pytest.approx(400, rel=0.1)


def test_a_fifth_of_the_training_labels_is_wrong_and_no_image_is_seen_twice():
    clean, network = digits_network(200, 5, 0.0, seed=3), digits_network(200, 5, 0.2, seed=3)
    wrong = np.asarray(network.problem.examples[1]) != np.asarray(clean.problem.examples[1])
    assert wrong.sum() == 40
    np.testing.assert_array_equal(wrong, network.corrupted)
    assert len(network.test_labels) == 1797 - 200
    # 16 inputs, 5 hidden units, 10 classes.
    assert network.problem.dimension == 16 * 5 + 5 + 5 * 10 + 10
    assert not np.allclose(network.test_inputs[0], np.asarray(network.problem.examples[0])[0])
    guess = network.test_accuracy(network.problem.initial_params(jax.random.key(0)))
    assert 0 <= float(guess) < 0.4


def test_excess_is_paired_by_data_set():
    sgd = [np.array([3.0, 5.0]) + shift for shift in range(8)]
    other = [np.array([1.0, 1.0]) + shift for shift in range(8)]
    found = {network.SGD: sgd, "isotropic": other}
    # Data sets differ by up to 7, the difference does not: 4 − 1 on all of them.
    assert network.excess(found, "isotropic") == (3.0, 0.0, 8)
    # One data set: the error is over its two runs, √(2/2) = 1 for SGD.
    one = {name: values[:1] for name, values in found.items()}
    assert network.excess(one, "isotropic") == pytest.approx((3.0, 1.0, 2))
    # No run of 10 left: (0 + 1)/(10 + 2) stands for the share in the error.
    none = [np.zeros(10, dtype=bool)]
    found = network.over_splits(none)
    assert found == pytest.approx((0.0, (1 / 12 * 11 / 12 / 10) ** 0.5, 10))


def test_settings_out_of_range_are_refused(unchecked):
    quick = anisotropic_escape.Config.quick()
    for field, value in (("plane_trace", 0.0), ("plane_data_sets", 0), ("replicas", 1)):
        with pytest.raises(ValueError, match=field):
            anisotropic_escape.run(dataclasses.replace(quick, **{field: value}))
    with pytest.raises(ValueError, match="num_examples must be at most 1700"):
        digits_network(1701)
    with pytest.raises(ValueError, match="corrupted"):
        digits_network(corrupted=1.0)


@pytest.mark.slow
def test_quick_study_finds_what_theory_says():
    tree = anisotropic_escape.run(
        dataclasses.replace(anisotropic_escape.Config.quick(), progress=False)
    )
    summary = json.loads(tree.attrs["summary"])
    verdicts = {name: part["verdict"] for name, part in summary.items()}
    assert verdicts["plane, shapes"] == "holds"
    assert verdicts["plane, minibatches"] == "does not hold"
    assert verdicts["plane, SGD"] == "does not hold"
    assert verdicts["network, alignment"] == "holds"
    assert verdicts["network, climbing"] == "holds"
    assert verdicts["network, flatness"] == "holds"
    for row in summary["plane, exact"]["quantities"].values():
        assert abs(row["measured"]) < 4 * row["standard_error"] + 0.005  # spread of the data
    for row in summary["network, first step"]["quantities"].values():
        # Third-order terms of a step of η = .02 are below 5 %.
        assert abs(row["measured"] - 1) < 4 * row["standard_error"] + 0.05
    assert (
        summary["plane, SGD"]["quantities"]["P(left), SGD as it is, above isotropic"]["measured"]
        == 0
    )
