import numpy as np
import pytest

from statsgd import SGD, noise
from statsgd.laws.networks import DataMoments, noise_scale
from statsgd.problems import diagonal_linear_network

X, Y = np.array([-1.5, -0.5, 0.5, 1, 2]), np.array([-1, 0.2, 0.3, 0.6, 1.4])


def numbers(moments):
    names = ("b1", "b2", "a1", "a2", "a3", "delta")
    return [float(getattr(moments, name)) for name in names]


def test_moments_of_five_examples():
    # b1 = E x², b2 = E xy, a1 = Var x², a2 = Cov(x², xy), a3 = Var xy, Δ = a1a3 − a2².
    moments = DataMoments.of_data(X, Y)
    np.testing.assert_allclose(
        numbers(moments), [1.55, 0.99, 2.035, 1.503, 1.1164, 0.012865], atol=5e-8, rtol=1e-6
    )
    f = 0.48
    gradients = 2 * (f * X - Y) * X  # Var[dℓ/df] = 4 g(f)
    np.testing.assert_allclose(4 * moments.noise(f), np.var(gradients), rtol=1e-12)
    half = DataMoments.of_data(X, Y, loss_factor=0.5)
    np.testing.assert_allclose(4 * half.noise(f), np.var(gradients) / 4, rtol=1e-12)
    mirrored = DataMoments.of_data(X, -Y)
    np.testing.assert_allclose(numbers(moments.mirrored()), numbers(mirrored))


def test_named_distributions():
    # x ~ N(0, 1): 1, κ, 2, 2κ, 2κ² + σ², 2σ²;  x = ±1: 1, κ, 0, 0, σ², 0.
    gaussian = DataMoments.teacher(1, 2, 0.7, 0.5)
    np.testing.assert_allclose(numbers(gaussian), [1, 0.7, 2, 1.4, 1.23, 0.5])
    signs = DataMoments.of_data([1, 1, -1, -1], [0.7 + 0.5, 0.2, -1.2, -0.2])
    np.testing.assert_allclose(numbers(signs), [1, 0.7, 0, 0, 0.25, 0], atol=1e-15)
    assert signs.pure_label_noise
    assert not gaussian.pure_label_noise


def test_impossible_moments_are_refused():
    with pytest.raises(ValueError, match="not moments of a distribution: Delta ="):
        DataMoments(1, 1, 1, 2, 1)
    with pytest.raises(ValueError, match="not moments of a distribution"):
        DataMoments(1, 1, -1, 0, 1)


def test_noise_scale_of_sgd():
    problem = diagonal_linear_network(X, Y)
    assert noise_scale(problem, SGD(0.1, noise.Minibatch(2))) == 0.05
    without = SGD(0.1, noise.Minibatch(2, "without_replacement"), momentum=0.5)
    np.testing.assert_allclose(noise_scale(problem, without), 0.2 * 3 / (2 * 4))
    with pytest.raises(ValueError, match="Minibatch"):
        noise_scale(problem, SGD(0.1, noise.Isotropic(1.0)))
