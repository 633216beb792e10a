"""Every law of the family over batches of points, and what quadrature knows of one parameter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import t as student_t

from statsgd.laws import (
    LAWS,
    FlooredPowerOfLossLaw,
    LossScaledLaw,
    SaturatedPowerOfLossLaw,
    ScalarNoiseLaw,
)
from statsgd.laws.law import IntractableError
from statsgd.laws.loss_noise.loss_potential import half_square
from statsgd.laws.loss_noise.scalar_noise import root_profile

EXAMPLES = [
    pytest.param(law, id=f"{name}-{i}")
    for name, kind in LAWS.items()
    if kind.__module__.startswith("statsgd.laws.loss_noise.")
    for i, law in enumerate(kind.examples())
]


def asked(function, *arguments):
    try:
        return function(*arguments)
    except IntractableError as unknown:
        pytest.skip(str(unknown))


@pytest.mark.parametrize("law", EXAMPLES)
@pytest.mark.parametrize("name", ["log_density", "score", "cdf"])
def test_leading_axes_are_batch_axes(law, name):
    points = np.random.default_rng(0).uniform(0.2, 1.2, (6, law.dimension))
    read = getattr(law, name)
    values = asked(read, points)
    assert values.shape == (points.shape if name != "log_density" else (6,))
    assert values.dtype == np.float64
    np.testing.assert_array_equal(
        read(points.reshape(2, 3, -1)),
        values.reshape(2, 3, -1).squeeze(-1 if name == "log_density" else ()),
    )
    np.testing.assert_allclose([read(point) for point in points], values, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("law", EXAMPLES)
def test_quantiles_invert_the_distribution_function(law):
    levels = np.array([[0.01, 0.2, 0.5], [0.7, 0.9, 0.999]])
    places = asked(law.quantile, levels)
    assert places.shape == (2, 3, law.dimension)
    for axis in range(law.dimension):
        along = law.cdf(places)[..., axis]
        np.testing.assert_allclose(along, levels, rtol=1e-7)
    np.testing.assert_allclose(law.quantile(0.7), places[1, 0], rtol=1e-10)
