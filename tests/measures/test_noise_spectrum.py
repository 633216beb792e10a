"""Leading noise directions and alignment by products, against matrices."""

import numpy as np
import pytest

from statsgd import noise, problems
from statsgd.measures import (
    hessian,
    isotropic_ratio,
    isotropic_ratio_bound,
    leading_alignment,
    low_rank_noise,
    noise_alignment,
    noise_covariance,
    over_replicas,
)
from statsgd.measures.noise import leading
from tests.measures.problem_cases import PARAMS, network
from tests.statistical import assert_mean_within, assert_printed

MINIBATCH = noise.Minibatch(3, "without_replacement")


def _few_examples():
    rng = np.random.default_rng(0)
    return problems.linear_regression(rng.normal(size=(6, 9)), rng.normal(size=6))


@pytest.mark.parametrize(
    ("problem", "at", "depth"),
    [
        (_few_examples(), np.ones(9), None),  # N < d: from products of gradients
        (network(), PARAMS, 10),  # N > d: from products with the matrix
    ],
)
def test_leading_noise_directions(problem, at, depth):
    covariance = noise_covariance(problem, at, MINIBATCH)
    values = np.linalg.eigvalsh(covariance)[::-1]
    found = low_rank_noise(problem, at, MINIBATCH, 3, depth=depth)
    np.testing.assert_allclose(found.values, values[:3], rtol=1e-8)
    np.testing.assert_allclose(
        covariance @ found.vectors.T, found.vectors.T * values[:3], atol=1e-7 * values[0]
    )
    assert found.trace == pytest.approx(values.sum())
    assert found.captured == pytest.approx(values[:3].sum() / values.sum())


def test_null_directions_of_few_examples():
    # Six centred gradients span five dimensions.
    found = low_rank_noise(_few_examples(), np.ones(9), MINIBATCH, 6)
    assert found.values[5] < 1e-12 * found.values[0]
    assert found.captured == pytest.approx(1)


SHARP = np.diag([10.0, 1.0, 0.1])


@pytest.mark.parametrize(
    ("covariance", "product", "ratio"),
    [
        (1.3 * SHARP / 11.1, "11.83", "2.459459"),
        (1.3 / 3 * np.eye(3), "4.81", "1"),
        (np.diag([1.3, 0, 0]), "13.0", "2.702703"),
    ],
)
def test_alignment_of_known_pairs(covariance, product, ratio):
    # Tr(HC) and d Tr(HC)/(Tr H Tr C).
    found = noise_alignment(problems.quadratic(SHARP), np.zeros(3), noise.Anisotropic(covariance))
    assert abs(found.product - float(product)) < 0.006
    assert_printed(found.ratio, ratio)
    assert found.noise_trace == pytest.approx(1.3)
    assert found.ratio_standard_error == 0


@pytest.mark.parametrize("samples", [None, 4096])
def test_noise_along_the_sharpest_direction(samples):
    # The pair of matrices that does not commute: â = .423168.
    hessian_, covariance = np.array([[3.0, 1], [1, 2]]), np.array([[0.5, -0.2], [-0.2, 1]])
    found = leading_alignment(
        problems.quadratic(hessian_), np.zeros(2), noise.Anisotropic(covariance), samples=samples
    )
    bound = isotropic_ratio_bound(hessian_, covariance)
    if samples is None:
        assert_printed(found.coefficient, ".423168")
        assert found.ratio_bound == pytest.approx(bound)
        assert found.coefficient_standard_error == found.ratio_bound_standard_error == 0
    else:
        assert abs(found.coefficient - 0.423168) < 4 * found.coefficient_standard_error < 0.04
        assert abs(found.ratio_bound - bound) < 4 * found.ratio_bound_standard_error


def test_standard_errors_over_seeds():
    # The same point 200 times, each with random vectors of its own: estimates scatter as they say.
    problem = problems.linear_regression(*_few_examples().examples)
    found = over_replicas(
        noise_alignment, problem, np.ones((200, 9)), seed=1, noise=MINIBATCH, samples=48
    )
    h, c = hessian(problem, np.ones(9)), noise_covariance(problem, np.ones(9), MINIBATCH)
    for value, error, expected in (
        (found.product, found.product_standard_error, np.trace(h @ c)),
        (found.ratio, found.ratio_standard_error, None),  # biased by O(1/samples)
        (found.curvature_trace, found.curvature_trace_standard_error, np.trace(h)),
        (found.noise_trace, found.noise_trace_standard_error, np.trace(c)),
    ):
        assert np.std(value) == pytest.approx(np.mean(error), rel=0.2)  # 5 % is one sigma
        if expected is not None:
            assert_mean_within(value, expected)
    assert np.mean(found.ratio) == pytest.approx(isotropic_ratio(h, c), rel=0.1)


def test_refusals(monkeypatch):
    with pytest.raises(ValueError, match="number must be at most the 10 rows"):
        low_rank_noise(network(), PARAMS, MINIBATCH, 11)
    monkeypatch.setattr(leading, "DENSE_LIMIT", 4)
    with pytest.raises(ValueError, match="noise must be Minibatch above d = 4, got Isotropic"):
        low_rank_noise(network(), PARAMS, noise.Isotropic(1.0), 2)
