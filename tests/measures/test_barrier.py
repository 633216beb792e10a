"""A ridge of the loss between two places."""

import jax.numpy as jnp
import numpy as np
import pytest

from statsgd import problems
from statsgd.measures import loss_barrier


def test_two_wells_and_one():
    # L(x) = x⁴/4 − x²/2: the ridge at 0 lies ¼ above the wells at ±1, and from .5 to 1 it sags.
    wells = problems.quartic_wells()
    assert loss_barrier(wells, np.array([-1.0]), np.array([1.0])) == pytest.approx(0.25)
    assert loss_barrier(wells, np.array([0.9]), np.array([1.1])) == 0.0
    # From −1 to the foot at −.5: the line between the ends lies below the loss in between.
    x = np.linspace(-1, -0.2, 17)
    values = x**4 / 4 - x**2 / 2
    expected = np.max(values - np.linspace(values[0], values[-1], 17))
    found = loss_barrier(wells, np.array([-1.0]), np.array([-0.2]), places=17)
    assert found == pytest.approx(expected, rel=1e-5)


def test_a_network_with_its_units_in_another_order():
    # The same function with hidden units exchanged has the same loss; half-way units are equal.
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(50, 3)).astype(np.float32)
    teacher = {"in": np.array([[2.0, -1.0, 0.5], [-1.0, 1.5, 1.0]]), "out": np.array([1.0, -2.0])}

    def predict(params, x):
        return params["out"] @ jnp.tanh(params["in"] @ x)

    targets = np.array([predict(teacher, x) for x in inputs])
    problem = problems.empirical_risk(
        lambda params, example: (predict(params, example[0]) - example[1]) ** 2 / 2,
        (inputs, targets.astype(np.float32)),
        teacher,
    )
    other = {name: leaf[::-1].copy() for name, leaf in teacher.items()}
    middle = {name: (teacher[name] + other[name]) / 2 for name in teacher}
    residuals = np.array([predict(middle, x) for x in inputs]) - targets
    expected = np.mean(residuals**2) / 2
    assert loss_barrier(problem, teacher, other) == pytest.approx(expected, rel=1e-4)
    assert expected > 0.1


def test_too_few_places_are_refused():
    with pytest.raises(ValueError, match="places must be at least 3, got 2"):
        loss_barrier(problems.quadratic(np.eye(2)), np.zeros(2), np.ones(2), places=2)
