"""Expected sharpness against known values."""

import jax.numpy as jnp
import numpy as np
import pytest

from statsgd import problems
from statsgd.measures import expected_sharpness, over_replicas


@pytest.mark.parametrize(("hessian", "value"), [((20.0, 200.0), 0.011), ((2.0, 2.0), 0.0002)])
def test_two_basins(hessian, value):
    # (ε²/2) Tr H at ε = .01; one draw scatters by ε²√(Tr H²/2), .0142127 in the sharp basin.
    found = expected_sharpness(problems.quadratic(np.diag(hessian)), np.zeros(2), 0.01, draws=4000)
    spread = 1e-4 * np.sqrt(np.sum(np.square(hessian)) / 2)
    assert found.standard_error == pytest.approx(spread / np.sqrt(2000), rel=0.1)
    assert abs(found.value - value) < 4 * found.standard_error


def test_quartic():
    # Σ(3/2 θ²ε² + 3/4 ε⁴) = .726975 at (.5, −1, 2), ε = .3; the Hessian alone gives .70875.
    problem = problems.landscape(lambda x: jnp.sum(x**4) / 4, np.zeros(3))
    at = np.array([0.5, -1.0, 2.0])
    found = expected_sharpness(problem, at, 0.3, draws=200_000)
    assert found.standard_error < 0.004
    assert abs(found.value - 0.726975) < 4 * found.standard_error
    assert abs(found.value - 0.70875) > 4 * found.standard_error
    # Away from a minimum the absolute variant measures the gradient, ε|∇L|√(2/π) at least.
    absolute = expected_sharpness(problem, at, 0.3, draws=20_000, absolute=True)
    assert absolute.value > 0.9 * 0.3 * np.linalg.norm(at**3) * np.sqrt(2 / np.pi)


def test_over_replicas():
    # (ε²/2) Tr H at each of them, with displacements of their own.
    problem = problems.quadratic(np.diag([20.0, 200.0]))
    found = over_replicas(
        expected_sharpness, problem, np.zeros((3, 2)), seed=1, radius=0.01, draws=2000
    )
    assert np.all(np.abs(found.value - 0.011) < 4 * found.standard_error)
    assert np.ptp(found.value) > 0


def test_refusals():
    problem = problems.quadratic(np.eye(2))
    with pytest.raises(ValueError, match="radius"):
        expected_sharpness(problem, np.zeros(2), 0.0)
    with pytest.raises(ValueError, match="draws"):
        expected_sharpness(problem, np.zeros(2), 0.1, draws=2)
    wall = problems.landscape(lambda x: jnp.sum(jnp.sqrt(x)), np.ones(2))
    with pytest.raises(ValueError, match="losses not finite"):
        expected_sharpness(wall, np.full(2, 0.1), 1.0)
