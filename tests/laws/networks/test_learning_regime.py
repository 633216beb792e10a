import numpy as np
import pytest

from statsgd.laws import DiagonalNetworkLaw
from statsgd.laws.networks import DataMoments, bimodal_end, learning_regime
from statsgd.laws.networks.learning_regime import stationary_points


@pytest.mark.parametrize(
    ("teacher", "std", "t", "regime"),
    [
        (1, 1, 0.10, "III"),
        (1, 1, 0.15, "IIb"),
        (1, 1, 0.21, "IIa"),
        (1, 1, 0.40, "Ia"),
        (0.1, 1, 0.05, "IIa"),
        (2, 0.8, 0.30, "Ib"),
    ],
)
def test_regimes_of_gaussian_inputs(teacher, std, t, regime):
    assert learning_regime(DataMoments.teacher(1, 2, teacher, std), t) == regime


def test_published_end_of_the_bimodal_regime():
    # Gaussian inputs: T* = (4κ + √42 σ)/(4(21σ² − 8κ²)).
    assert bimodal_end(DataMoments.teacher(1, 2, 1, 1)) == pytest.approx(0.201553, abs=5e-7)
    weak = DataMoments.teacher(1, 2, 0.1, 1)
    assert bimodal_end(weak) == pytest.approx(0.08223, abs=5e-6)
    # T* lies above T = .05, yet both roots are negative: no local maximum.
    np.testing.assert_allclose(stationary_points(weak, 0.05), [-1.2238, -0.0619], atol=5e-5)
    assert np.isnan(bimodal_end(DataMoments.teacher(1, 2, 2, 0.8)))


def test_metastable_maximum_above_the_threshold():
    moments = DataMoments.teacher(1, 2, 2, 0.8)
    law = DiagonalNetworkLaw(2, 1, moments, 0.3)
    np.testing.assert_allclose(law.critical_noise_scale, 0.23148, atol=5e-6)
    np.testing.assert_allclose(stationary_points(moments, 0.3)[-1], 1.89229, atol=5e-6)


def test_modes_are_where_the_density_is_largest():
    # Small T: f̂ = b2/b1 + T(10a2b2/b1² − 7a1b2²/b1³ − 3a3/b1).
    m, t = DataMoments.teacher(1.5, 2, 0.8, 0.6), 1e-5
    expected = m.b2 / m.b1 + t * (
        10 * m.a2 * m.b2 / m.b1**2 - 7 * m.a1 * m.b2**2 / m.b1**3 - 3 * m.a3 / m.b1
    )
    np.testing.assert_allclose(DiagonalNetworkLaw(2, 1, m, t).modes()[0], expected, atol=1e-8)
    law = DiagonalNetworkLaw(2, 1, m, 0.1)
    f = np.linspace(0.01, 3, 30001)
    best = f[np.argmax(law.log_density(f[:, None]))]
    np.testing.assert_allclose(law.modes()[-1], best, atol=2e-4)
    deep = DiagonalNetworkLaw(3, 2, m, 0.1)
    best = f[np.argmax(deep.log_density(f[:, None]))]
    np.testing.assert_allclose(deep.modes()[0], best, atol=2e-4)
