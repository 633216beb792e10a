import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from statsgd.laws.gibbs.zero_flux import require_zero_flux, zero_flux_residual
from statsgd.laws.minimum.heavy_ball import HeavyBallGaussian
from statsgd.problems.landscapes import quadratic

H, C, ETA = np.diag([1.0, 2.0]), np.array([[1.0, 0.5], [0.5, 1.0]]), 0.1


def test_gaussian_law_without_detailed_balance():
    residual = zero_flux_residual(quadratic(H), lambda p: jnp.asarray(ETA / 2 * C), [0.3, -0.2])
    assert_allclose(residual[0, 1], 13.3333, atol=5.1e-5)  # −(D⁻¹H)_12 + (D⁻¹H)_21
    assert_allclose(residual, -residual.T)
    # chain: V_ij = ηC_ij/(h_i + h_j − ηh_ih_j)
    chain = HeavyBallGaussian(H, C, ETA).covariance()
    assert_allclose(chain, [[0.0526316, 0.0178571], [0.0178571, 0.0277778]], atol=5.1e-8)
    with pytest.raises(ValueError, match=r"flux does not vanish, max \|curl\| = 13.3333"):
        require_zero_flux(quadratic(H), lambda p: jnp.asarray(ETA / 2 * C), [0.3, -0.2])


def test_noise_that_is_a_function_of_the_loss_has_zero_flux():
    problem = quadratic(H)
    require_zero_flux(problem, lambda p: (1 + problem.loss(p)) * jnp.eye(2), [0.3, -0.2])


def test_isotropic_noise_along_one_axis_has_flux():
    with pytest.raises(ValueError, match="no potential"):
        require_zero_flux(quadratic(H), lambda p: (1 + p[0] ** 2) * jnp.eye(2), [0.3, -0.2])
