"""Kesten tails: printed roots, closed thresholds, finite data, real chains."""

import itertools

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import chi2

from statsgd.laws import ImproperLawError
from statsgd.laws.heavy_tails import (
    batch_matrices,
    gaussian_tail_index,
    gaussian_tail_learning_rate,
    matrix_tail_index,
    small_step_tail_index,
)
from tests.statistical import assert_printed


@pytest.mark.parametrize(
    ("d", "size", "eta", "printed"),
    [
        (1, 1, 0.02, "89.1104"),
        (1, 1, 0.5, "2.903966"),
        (1, 1, 0.8, "1.546399"),
        (2, 1, 0.1, "16.83414"),
        (2, 1, 0.5, "2.0000"),
        (2, 1, 0.8, ".40118"),
        (5, 1, 0.3, "1.51456"),
        (10, 1, 0.05, "31.46132"),
        (10, 2, 0.3, "2.57632"),
        (10, 32, 0.3, "139.0004"),
    ],
)
def test_printed_roots(d, size, eta, printed):
    assert_printed(gaussian_tail_index(eta, size, d), printed)


def moment(power, size):
    """E|1 − 0.1q|^power for q of χ²_S, by quadrature in r = √q, where nothing is singular."""

    def integrand(r):
        return abs(1 - r * r / 10) ** power * chi2.pdf(r * r, size) * 2 * r

    ends = [0, 10**0.5, 6, 9, 12, 16, 40]
    return sum(quad(integrand, *part)[0] for part in itertools.pairwise(ends))


def test_it_is_no_function_of_the_ratio_and_one_parameter_is_known():
    for size, printed in ((1, "17.28459"), (2, "15.84544"), (4, "13.33820"), (8, "9.248178")):
        found = gaussian_tail_index(0.1 * size, size)
        assert_printed(found, printed)
        np.testing.assert_allclose(moment(found, size), 1, rtol=1e-7)
    np.testing.assert_allclose(gaussian_tail_index(0.05, 2, 3, 4.0), gaussian_tail_index(0.2, 2, 3))


def test_thresholds():
    for size, d, power, printed in (
        (1, 1, 4, ".383451"), (1, 1, 2, ".666667"), (1, 1, 0, "2.421250"), (4, 1, 1, "1.744906"),
        (1, 10, 4, ".153562"), (1, 10, 0, ".179889"), (10, 100, 0, ".180891"),
    ):  # fmt: skip
        assert_printed(gaussian_tail_learning_rate(power, size, d), printed)
    # The variance is finite below 2S/(S+d+1), exactly.
    np.testing.assert_allclose(
        gaussian_tail_learning_rate(2, 10, 100, 2.0), 20 / 111 / 2, rtol=1e-9
    )


@pytest.mark.parametrize(("eta", "size"), [(1e-3, 1), (1e-3, 8), (1e-4, 1)])
def test_the_tail_index_of_short_steps_is_resolved(eta, size):
    # ln E|1 − (η/S) q|^κ, q ~ χ²_S, by adaptive quadrature in pieces a tenth of the range long.
    kappa = gaussian_tail_index(eta, size)
    law, end = chi2(size), 8 * kappa + 100

    def moment(root):
        q = root**2
        return np.exp(kappa * np.log(abs(1 - eta / size * q)) + law.logpdf(q)) * 2 * root

    pieces = itertools.pairwise(np.linspace(0, np.sqrt(end), 80))
    total = sum(quad(moment, *piece, epsrel=1e-11, epsabs=1e-14)[0] for piece in pieces)
    # It rises with κ by ln(v − 1) = 0.95, v = 3.59, where the power has its maximum.
    assert abs(np.log(total)) < 2e-7 * kappa


def test_steps_too_short_for_quadrature_say_so():
    with pytest.raises(ValueError, match="small_step_tail_index"):
        gaussian_tail_index(1e-9, 8)


def test_small_steps():
    assert_printed(small_step_tail_index(1.0), "1.795561")
    # ηκ falls linearly in η: 1.782208 at .02, so 1.7889 at .01.
    assert gaussian_tail_index(0.01) * 0.01 == pytest.approx(1.7889, abs=1e-4)


def test_momentum():
    # k(2) = 1 at η = 3/7 for β = ½, S = 1: from the spectral radius of E[A⊗A].
    assert gaussian_tail_index(3 / 7, momentum=0.5) == pytest.approx(2.0, abs=2e-3)
    assert gaussian_tail_index(0.3, momentum=0.5) == pytest.approx(3.1045, abs=2e-3)


def test_divergence_is_refused():
    with pytest.raises(ImproperLawError, match="must be negative: the chain diverges"):
        gaussian_tail_index(0.2, 1, 10)
    with pytest.raises(ImproperLawError, match="must be negative: the chain diverges"):
        matrix_tail_index([[[1.5]], [[0.9]]])
    with pytest.raises(ImproperLawError, match="must be negative: the chain diverges"):
        matrix_tail_index([np.diag([1.5, 0.1]), np.eye(2)])


def test_finite_data_in_one_dimension():
    inputs = np.sqrt([[0.1], [0.5], [1.0], [3.0]])
    for eta, size, sampling, printed in (
        (0.8, 1, "with_replacement", "3.317296"),
        (0.9, 1, "with_replacement", "1.975312"),
        (0.9, 2, "with_replacement", "4.976963"),
    ):
        assert_printed(
            matrix_tail_index(*batch_matrices(inputs, eta, size, 0.0, sampling)), printed
        )
    # Drawn without replacement no batch makes |1 − ηh_B| larger than 0.8: no tail at all.
    found = batch_matrices(inputs, 0.9, 2, sampling="without_replacement")
    assert np.abs(found.matrices).max() == pytest.approx(0.8)
    assert matrix_tail_index(*found) == np.inf


def test_finite_data_in_two_dimensions():
    inputs = np.array([[1.0, 0.0], [1.0, 1.0], [0.5, -1.5], [2.0, 0.5]])
    matrices, weights = batch_matrices(inputs, 0.6)
    products = np.einsum("nij,nkl->ikjl", matrices, matrices).reshape(4, 4) / 4
    assert_printed(np.abs(np.linalg.eigvals(products)).max(), ".9206398")
    assert matrix_tail_index(matrices, weights) == pytest.approx(2.37116, abs=2e-5)
    # At κ = 2 the second moment is marginal: the step where ρ(E[A⊗A]) = 1.
    assert matrix_tail_index(*batch_matrices(inputs, 0.05)) == np.inf


def test_batches_of_finite_data_are_enumerated():
    inputs = np.array([[1.0], [2.0], [3.0]])
    again = batch_matrices(inputs, 0.1, 2)
    assert again.probabilities.sum() == pytest.approx(1)
    np.testing.assert_allclose(
        again.probabilities @ again.matrices[:, 0, 0], 1 - 0.1 * 14 / 3, rtol=1e-12
    )
    assert len(again.probabilities) == 6
    once = batch_matrices(inputs, 0.1, 2, sampling="without_replacement")
    np.testing.assert_allclose(once.probabilities, np.full(3, 1 / 3))
    assert batch_matrices(inputs, 0.1, 1, 0.5).matrices.shape == (3, 2, 2)
    np.testing.assert_allclose(
        batch_matrices(inputs, 0.1, 1, 0.5).matrices[0], [[0.9, -0.05], [1, 0.5]]
    )


def test_wrong_arguments_are_named(unchecked):
    with pytest.raises(ValueError, match="dimension must be 1 with momentum"):
        gaussian_tail_index(0.1, 1, 2, momentum=0.5)
    with pytest.raises(ValueError, match=r"matrices must have shape \(n, 1, 1\) or \(n, 2, 2\)"):
        matrix_tail_index(np.zeros((2, 3, 3)))
    with pytest.raises(ValueError, match="batch_size must leave at most"):
        batch_matrices(np.zeros((100, 1)), 0.1, 6)
    with pytest.raises(ValueError, match="learning_rate must be positive"):
        gaussian_tail_index(0.0)
