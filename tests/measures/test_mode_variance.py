"""Variances along modes, of a law's own draws and of runs in their modes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from statsgd import SGD, noise, problems, simulate
from statsgd.ensembles import trajectories
from statsgd.laws import ModeLaw
from statsgd.laws.minimum import (
    PhaseSpaceTransition,
    mean_squared_displacement,
    phase_plane_area,
    stochastic_area,
)
from statsgd.measures import (
    area_rate,
    equipartition,
    paired_variance_ratio,
    phase_plane_area_rate,
    squared_displacement,
)


def test_variance_is_shared_equally_where_it_is_stationary():
    law = ModeLaw([2.0, 0.3], [[1.0, 0.6], [0.6, 0.8]], 0.1, 0.5)
    for steps, reached in ((None, 1.0), (4, 0.5)):
        draws = law.after(steps).draw_variables(jax.random.key(0), (20_000,))
        found = equipartition(*draws.values(), law.curvatures, 0.1, 0.5)
        off = found.value / 1.0 - 1
        assert np.all(found.standard_error < 0.02)
        if steps is None:
            assert np.all(np.abs(off) < 4 * found.standard_error)
        assert found.value[1] < reached + 0.1


@pytest.mark.usefixtures("unchecked")
def test_pairs_on_the_same_batches_know_their_ratio_better():
    rng = np.random.default_rng(0)
    twin = rng.normal(size=(400, 3))
    real = 1.1 * twin + 0.05 * rng.normal(size=(400, 3))
    found = paired_variance_ratio(real, twin)
    truth = 1.1**2 + 0.05**2
    assert np.all(np.abs(found.value - truth) < 4 * found.standard_error)
    assert np.all(found.standard_error < 0.15 * np.sqrt(2 / 400))
    with pytest.raises(ValueError, match="twin must have shape"):
        paired_variance_ratio(real, twin[:5])


@pytest.mark.slow
def test_runs_move_in_their_modes_as_predicted():
    # Constant noise on a quadratic, whose modes are turned; 3000 replicas, 4 errors.
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    hessian = np.float32((turn * [2.0, 0.8, 0.3]) @ turn.T)
    problem = problems.landscape(lambda x: 0.5 * x @ jnp.asarray(hessian) @ x, np.zeros(3))
    sgd = SGD(0.1, noise.Anisotropic(np.diag([1.0, 0.5, 0.2]) + 0.2), 0.5)
    law = ModeLaw.from_checkpoint(problem, sgd, np.zeros(3), 2)
    keep = [1, 5, 25, *range(200, 212)]
    runs = simulate(
        problem, sgd, steps=211, replicas=3000, seed=0, start=np.zeros(3), keep=keep, progress=False
    )
    x, _, m = trajectories(law.project(runs))
    squares = x[:, :3] ** 2
    error = squares.std(0) / np.sqrt(len(x))
    expected = law.displacement(keep[:3])
    assert np.all(np.abs(squares.mean(0) - expected) < 4 * error)
    assert np.all(4 * error < 0.12 * expected)
    settled = law.heavy_ball()
    late, buffers = x[:, 3:], m[:, 3:]
    correlation = np.mean(late[:, 0] * late[:, 1], axis=0) / np.mean(late**2, axis=(0, 1))
    known = PhaseSpaceTransition.of(settled)
    # The modes of a matrix come in ascending order, those of a checkpoint in descending order.
    predicted = np.asarray(known.correlation(1, "params"))[::-1]
    np.testing.assert_allclose(correlation, predicted, atol=4 / np.sqrt(3000))
    swept = phase_plane_area_rate(late, buffers)
    areas = phase_plane_area(settled)[::-1]
    assert np.all(np.abs(swept.value - areas) < 4 * swept.standard_error)
    moved = squared_displacement(late, [1])
    lag = mean_squared_displacement(settled, [1])
    assert np.all(np.abs(moved.value - lag) < 4 * moved.standard_error)
    assert np.all(moved.standard_error < 0.03 * lag)
    area = area_rate(late)
    # The chain's coordinates are the modes of the checkpoint, in their own order.
    swept, known_area = float(area.value[0, 1]), float(stochastic_area(settled)[0, 1])
    assert abs(swept - known_area) < 4 * float(area.standard_error[0, 1])
    assert abs(known_area) > 4 * float(area.standard_error[0, 1])
    one = equipartition(late[:, 0], buffers[:, 0], law.curvatures, 0.1, 0.5)
    assert np.all(np.abs(one.value - 1) < 4 * one.standard_error)


def test_epochs_have_no_white_law():
    law = ModeLaw([2.0], [[1.0]], 0.1, num_batches=4)
    with pytest.raises(ValueError, match="noise must be white"):
        law.heavy_ball()
