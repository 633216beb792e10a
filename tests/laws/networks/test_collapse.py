import numpy as np
import pytest
from numpy.polynomial.hermite_e import hermegauss
from scipy.optimize import brentq

from statsgd import SGD, noise, simulate
from statsgd.laws.networks import collapse_exponent
from statsgd.problems import diagonal_linear_network

SIGNS = np.array([1.05, -0.95])  # xy = κ ± σ with κ = .05, σ = 1


@pytest.mark.parametrize(
    ("size", "low", "high"), [(1, 0.0501253, 0.733498), (2, 0.0995122, 0.710435)]
)
def test_zeros_for_rademacher_labels(size, low, high):
    # Λ(η) = E ln|1 + 2η mean_B(xy)|.
    def exponent(eta):
        return collapse_exponent(SIGNS, eta, size)

    # The logarithm is −∞ where a batch zeroes u + w, at η = 1/1.9: stay clear of it.
    np.testing.assert_allclose(brentq(exponent, 0.01, 0.3, xtol=1e-12), low, atol=5e-8)
    np.testing.assert_allclose(brentq(exponent, 0.56, 0.9, xtol=1e-12), high, atol=5e-7)


def test_values():
    assert collapse_exponent(SIGNS, 0.06) == pytest.approx(-0.0011834, abs=5e-8)
    # κ/(σ² − κ²) is the exact lower zero at S = 1.
    np.testing.assert_allclose(collapse_exponent(SIGNS, 0.05 / (1 - 0.05**2)), 0, atol=1e-15)
    # Small η: 2η(b2 − λ/2 − T a3) with a3 = 1.
    eta = 1e-4
    slow = collapse_exponent(SIGNS, eta, weight_decay=0.02)
    np.testing.assert_allclose(slow, 2 * eta * (0.05 - 0.01 - eta), rtol=1e-3)
    half = collapse_exponent(SIGNS, 0.12, loss_factor=0.5)
    np.testing.assert_allclose(half, collapse_exponent(SIGNS, 0.06), rtol=1e-12)


@pytest.mark.parametrize(("teacher", "window"), [(0.1, (0.093, 0.63)), (0.2, (0.225, 0.44))])
def test_window_of_collapse_for_gaussian_data(teacher, window):
    # x, ε standard normal: xy = κx² + xε by quadrature; the logarithm is integrable, so 1 %.
    node, mass = hermegauss(200)
    x, e = (grid.ravel() for grid in np.meshgrid(node, node))
    weights = np.outer(mass, mass).ravel()

    def exponent(eta):
        return collapse_exponent(teacher * x**2 + x * e, eta, weights=weights)

    assert exponent(0.85 * window[0]) > 0 > exponent(1.1 * window[0])
    assert exponent(0.9 * window[1]) < 0 < exponent(1.15 * window[1])


@pytest.mark.slow
def test_sgd_collapses_where_the_exponent_is_negative():
    # Λ changes sign at η = .0501: collapse at .1, a network near (b2 − ηa3)/b1 = .03 at .02.
    problem = diagonal_linear_network([1, 1, -1, -1], [1.05, -0.95, 0.95, -1.05])
    sizes = {}
    for eta in (0.1, 0.02):
        run = simulate(
            problem,
            SGD(eta, noise.Minibatch(1)),
            steps=8000,
            replicas=128,
            seed=1,
            progress=False,
            start=np.full((1, 2), 0.2),
        )
        slopes = np.prod(run["endpoints"]["params"].values.astype(float), -1).ravel()
        sizes[eta] = np.median(np.abs(slopes))
        assert (collapse_exponent(SIGNS, eta) < 0) == (eta == 0.1)
    assert sizes[0.1] < 1e-10
    assert 0.005 < sizes[0.02] < 0.2


def test_refusals():
    with pytest.raises(ValueError, match="different batches"):
        collapse_exponent(np.arange(100.0), 0.1, 20)
    with pytest.raises(ValueError, match="weights must be one for each"):
        collapse_exponent(SIGNS, 0.1, weights=[1.0])
    assert collapse_exponent([-1.0, 1.0], 0.5) == -np.inf
