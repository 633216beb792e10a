"""Alignment from diagonals and products against the same of whole matrices."""

import numpy as np
import pytest
from scipy.sparse.linalg import aslinearoperator

from statsgd.estimate import Estimate
from statsgd.measures import (
    alignment_coefficient,
    alignment_range,
    isotropic_ratio,
    isotropic_ratio_bound,
    loss_scaled_alignment,
)
from statsgd.measures.noise.alignment import AlignmentWarning

MEASURES = (isotropic_ratio, alignment_coefficient, isotropic_ratio_bound)
RNG = np.random.default_rng(3)
DIMENSION = 60


def decaying(rotation):
    values = np.arange(1, DIMENSION + 1) ** -1.0
    return rotation * values @ rotation.T


ROTATIONS = [np.linalg.qr(RNG.normal(size=(DIMENSION, DIMENSION)))[0] for _ in range(2)]
HESSIAN = decaying(ROTATIONS[0])
# Aligned in part, so that no number is one.
COVARIANCE = HESSIAN + 0.3 * decaying(ROTATIONS[1])


@pytest.mark.parametrize("measure", MEASURES)
def test_diagonals_are_exact_at_any_dimension(measure):
    h, c = RNG.random(40) + 0.1, RNG.random(40)
    assert measure(h, c) == pytest.approx(measure(np.diag(h), np.diag(c)), rel=1e-12)
    assert measure(np.diag(h), c) == pytest.approx(measure(h, c), rel=1e-12)
    full = np.diag(h) + 0.01
    assert measure(full, c) == pytest.approx(measure(full, np.diag(c)), rel=1e-12)


@pytest.mark.parametrize("decay", [0.75, 1.5])
def test_spectra_of_a_million_parameters(decay):
    # Ten eigenvalues 1, the rest d^{−ρ}, C = H: sums in closed form.
    d = 1_000_000
    values = np.full(d, d**-decay)
    values[:10] = 1
    trace = 10 + (d - 10) * d**-decay
    expected = d * (10 + (d - 10) * d ** (-2 * decay)) / trace**2
    assert isotropic_ratio(values, values) == pytest.approx(expected, rel=1e-9)
    assert alignment_coefficient(values, values) == pytest.approx(1, rel=1e-9)
    assert isotropic_ratio_bound(values, values) == pytest.approx(d / trace**2, rel=1e-9)


@pytest.mark.parametrize("measure", MEASURES)
def test_products_say_the_same_within_their_error(measure):
    exact = measure(HESSIAN, COVARIANCE)
    found = measure(aslinearoperator(HESSIAN), aslinearoperator(COVARIANCE), samples=400)
    assert isinstance(found, Estimate)
    assert found.standard_error < 0.04 * exact
    assert abs(found.deviation(exact)) < 4
    # What is known of one of them is used.
    for pair in ((HESSIAN, aslinearoperator(COVARIANCE)), (aslinearoperator(HESSIAN), COVARIANCE)):
        assert abs(measure(*pair, samples=400).deviation(exact)) < 4


def test_stated_errors_are_those_of_repetition():
    exact = isotropic_ratio(HESSIAN, COVARIANCE)
    h, c = aslinearoperator(HESSIAN), aslinearoperator(COVARIANCE)
    found = [isotropic_ratio(h, c, samples=50, seed=seed) for seed in range(300)]
    values = np.array([one.value for one in found])
    stated = np.sqrt(np.mean([one.standard_error**2 for one in found]))
    # 300 repetitions know a standard deviation to 4 %.
    assert values.std(ddof=1) / stated == pytest.approx(1, abs=0.17)
    # The bias of a ratio of means is of second order.
    assert (
        abs(values.mean() - exact) < 4 * values.std(ddof=1) / np.sqrt(300) + 0.3 * stated**2 / exact
    )


def test_repeated_sharpest_directions_count_with_their_mean():
    values = np.append(np.ones(8), np.full(DIMENSION - 8, 0.1))
    hessian = ROTATIONS[0] * values @ ROTATIONS[0].T
    exact = alignment_coefficient(hessian, COVARIANCE)
    found = alignment_coefficient(aslinearoperator(hessian), COVARIANCE, samples=2000)
    # One of the eight would be off by far more.
    assert found.standard_error < 0.25 * exact
    assert abs(found.deviation(exact)) < 4
    # Above the number of axes that are looked at one by one.
    diagonal = np.append(np.ones(100), np.full(200, 0.5))
    noise = RNG.random(300)
    found = alignment_coefficient(diagonal, noise)
    expected = noise[:100].mean() * diagonal.sum() / noise.sum()
    assert (found.value if isinstance(found, Estimate) else found) == pytest.approx(expected)


def test_large_matrices_find_a_simple_direction_exactly(monkeypatch):
    monkeypatch.setattr("statsgd.measures.noise.symmetric_matrix.DENSE_LIMIT", 10)
    iterated = alignment_coefficient(HESSIAN, COVARIANCE)
    monkeypatch.undo()
    assert isinstance(iterated, float)
    assert iterated == pytest.approx(alignment_coefficient(HESSIAN, COVARIANCE), rel=1e-9)


def test_products_of_a_saddle_warn():
    saddle = np.diag(np.append(-2.0, np.linspace(1, 2, 39)))
    with pytest.warns(AlignmentWarning, match="min eigenvalue -2"):
        isotropic_ratio_bound(aslinearoperator(saddle), np.ones(40))
    with pytest.warns(AlignmentWarning, match="min eigenvalue -2"):
        isotropic_ratio_bound(np.diagonal(saddle).copy(), np.ones(40))


def test_wide_features_are_rotated_into_their_span():
    # Measures of the features are those of any rotation of parameters, zeros appended or not.
    features, residuals = RNG.normal(size=(5, 3)), RNG.normal(size=5)
    wide = (
        np.concatenate([features, np.zeros((5, 40))], axis=1)
        @ np.linalg.qr(RNG.normal(size=(43, 43)))[0]
    )
    for one, other in (
        (loss_scaled_alignment(wide, residuals), loss_scaled_alignment(features, residuals)),
        (alignment_range(wide), alignment_range(features)),
    ):
        np.testing.assert_allclose(one, other, rtol=1e-9)


@pytest.mark.usefixtures("unchecked")
def test_refusals():
    with pytest.raises(ValueError, match="noise_covariance must have 3 rows, got 2"):
        isotropic_ratio(np.ones(3), np.ones(2))
    with pytest.raises(ValueError, match="positive semi-definite, got smallest entry -1"):
        isotropic_ratio(np.ones(2), np.array([-1.0, 2.0]))
    with pytest.raises(ValueError, match="positive semi-definite, got smallest eigenvalue -1"):
        isotropic_ratio(np.ones(2), np.diag([-1.0, 2.0]))
    with pytest.raises(ValueError, match="the trace of hessian must be positive"):
        isotropic_ratio(-np.ones(2), np.ones(2))
