"""First exit by one jump: limits, the exact chain, simulation."""

import jax.numpy as jnp
import numpy as np
import pytest

from statsgd import SGD, problems
from statsgd.laws import ImproperLawError
from statsgd.laws.heavy_tails import (
    norm_tail_constant,
    stable_exit,
    stable_exit_ball,
    stable_exit_steps,
    stable_well_weights,
)
from statsgd.measures import first_passage, restricted_mean
from statsgd.noise import Stable
from tests.statistical import assert_printed

BOWL = problems.landscape(lambda p: 0.5 * jnp.sum(p**2), np.zeros(1))


@pytest.mark.parametrize(
    ("alpha", "s", "right", "limit"),
    [
        (1.5, 0.3, 1.0, "482.4008"),
        (1.5, 0.1, 1.0, "2506.628"),
        (1.5, 0.03, 1.0, "15254.85"),
        (1.5, 0.1, 2.0, "3703.775"),
        (1.2, 0.1, 1.0, "451.8466"),
        (1.8, 0.1, 1.0, "21727.45"),
    ],
)
def test_limits(alpha, s, right, limit):
    found = stable_exit(1.0, right, alpha, s, 0.1)
    assert_printed(found.steps, limit)
    assert found.right == pytest.approx(1 / (1 + right**alpha))
    if right == 2.0:
        assert_printed(found.right, ".261204")


def test_momentum_multiplies_the_jump():
    assert_printed(stable_exit(1, 1, 1.5, 0.03, 0.1, 0.9, 1.0).steps, "3655.6")
    assert_printed(stable_exit(1, 1, 1.5, 0.05, 0.1, 0.5, 1.0).steps, "4018.9")


@pytest.mark.parametrize(
    ("alpha", "s", "h", "ends", "printed"),
    [
        (1.5, 0.3, 1.0, (1.0, 1.0), "448.4990"),
        (1.5, 0.1, 1.0, (1.0, 1.0), "2472.930"),
        (1.5, 0.1, 3.0, (1.0, 1.0), "2496.545"),
        (1.5, 0.1, 1.0, (1.0, 2.0), "3665.306"),
        (1.5, 0.1, 1.0, (0.5, 0.5), "852.437"),
        (1.2, 0.1, 1.0, (1.0, 1.0), "440.6788"),
        (1.8, 0.1, 1.0, (1.0, 1.0), "21596.60"),
        (2.0, 0.6, 1.0, (0.5, 0.5), "264.178"),
        (2.0, 0.6, 1.0, (1.0, 1.0), "4.80491e6"),
    ],
)
def test_exact_means(alpha, s, h, ends, printed):
    assert_printed(stable_exit_steps(*ends, alpha, s, 0.1, h), printed)


def test_real_chains_leave_in_the_exact_time():
    # Jumps of ηs = 0.05: a mean of some 150 steps; its error is 2.5 % of 1600 runs.
    exits = first_passage(
        BOWL, SGD(0.1, Stable(1.5, 0.5)), lambda p: jnp.abs(p[0]) < 0.8,
        steps=20_000, replicas=2500, seed=4,
    )  # fmt: skip
    assert exits.left.all()
    found = restricted_mean(exits, 20_000)
    assert abs(found.deviation(stable_exit_steps(0.8, 0.8, 1.5, 0.5, 0.1, 1.0))) < 4
    assert 4 * found.standard_error < 0.1 * found.value


def test_balls():
    for dimension, form, printed in (
        (2, "isotropic", ".7169832"), (10, "isotropic", "2.560904"), (100, "isotropic", "14.64126"),
        (2, "independent", ".7978846"), (10, "independent", "3.989423"),
    ):  # fmt: skip
        assert_printed(norm_tail_constant(1.5, dimension, form), printed)
    assert_printed(stable_exit_ball(1.0, 2, 1.5, 0.1, 0.1), "1394.7")
    assert_printed(stable_exit_ball(1.0, 10, 1.5, 0.1, 0.1, "independent"), "250.66")
    np.testing.assert_allclose(
        stable_exit_ball(1.0, 1, 1.5, 0.1, 0.1), stable_exit(1, 1, 1.5, 0.1, 0.1).steps, rtol=1e-9
    )


def test_wells():
    weights = stable_well_weights([1.0, 2.0], 1.5)
    assert_printed(weights[1] / weights[0], "2.828427")


def test_refusals(unchecked):
    with pytest.raises(ValueError, match="alpha must be below 2 for an exit by one jump"):
        stable_exit(1, 1, 2.0, 0.1, 0.1)
    with pytest.raises(ValueError, match=r"alpha must be in \(0, 2\]"):
        stable_exit(1, 1, 2.1, 0.1, 0.1)
    with pytest.raises(ValueError, match="left must be a positive distance"):
        stable_exit(0, 1, 1.5, 0.1, 0.1)
    with pytest.raises(ValueError, match="curvature must be given with momentum"):
        stable_exit(1, 1, 1.5, 0.1, 0.1, 0.9)
    with pytest.raises(ValueError, match="use stable_exit there"):
        stable_exit_steps(1, 1, 1.5, 0.001, 0.1, 1.0)
    with pytest.raises(ImproperLawError, match="must be below 2"):
        stable_exit_steps(1, 1, 1.5, 0.1, 1.0, 3.0)
