"""Student-t laws with so many degrees of freedom that both gamma functions are huge."""

import numpy as np
import pytest
from scipy import stats

from statsgd.laws import FlooredLossScaledLaw


@pytest.mark.parametrize("noise_ratio", [0.3, 1e-2, 2e-4, 1e-6, 1e-9, 1e-13])
@pytest.mark.parametrize("d", [2, 4])
def test_the_density_keeps_its_digits(d, noise_ratio):
    # In even dimensions Γ((ν+d)/2)/Γ(ν/2) is a product: ν/2 · (ν/2 + 1) for four.
    law = FlooredLossScaledLaw(np.diag(np.arange(1.0, d + 1)), noise_ratio, 0.5)
    nu, scale = float(law.degrees_of_freedom), np.diagonal(law.scale)
    x = np.sqrt(scale) * np.linspace(-1, 2, d)
    expected = -d / 2 * np.log(2 * np.pi) - np.sum(np.log(scale)) / 2
    expected += np.log1p(2 / nu) if d == 4 else 0.0
    expected -= (nu + d) / 2 * np.log1p(np.sum(x**2 / scale) / nu)
    assert law.log_density(x) == pytest.approx(expected, rel=1e-12)


def test_one_parameter_agrees_with_scipy_and_with_the_normal_law():
    for noise_ratio in (3.0, 0.05, 1e-3):
        law = FlooredLossScaledLaw([[2.0]], noise_ratio, 0.5)
        width = np.sqrt(law.scale[0, 0])
        known = stats.t(law.degrees_of_freedom, scale=width).logpdf(1.3 * width)
        assert law.log_density(np.array([1.3 * width])) == pytest.approx(known, rel=1e-9)
    width = np.sqrt(FlooredLossScaledLaw([[2.0]], 1e-13, 0.5).scale[0, 0])
    found = FlooredLossScaledLaw([[2.0]], 1e-13, 0.5).log_density(np.array([1.3 * width]))
    assert found == pytest.approx(stats.norm(scale=width).logpdf(1.3 * width), rel=1e-11)
