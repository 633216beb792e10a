"""Basins by gradient flow, against an independent integrator and known boundaries."""

import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from scipy.integrate import solve_ivp

from statsgd import SGD, noise, problems, simulate
from statsgd.comparison import BasinProbabilities, FlatPreference
from statsgd.comparison.effects import Sides
from statsgd.measures import assign_basins, endpoint_trajectories, gradient_flow
from statsgd.measures.escape.basins import BasinLabel, cluster_minima

SADDLE = 0.6585913  # of ½[x(1−x)(1+2x²)]², minima 0 and 1
WELLS = problems.smooth_wells()
VALLEY = problems.valley_wells()
MINIMA = np.array([[-1.0, 0.0], [1.0, 0.0]])


def test_basins_on_a_line_end_at_the_saddle():
    x = np.array([-0.4, 0.2, SADDLE - 1e-4, SADDLE + 1e-4, 0.9, 1.3])[:, None]
    found = assign_basins(WELLS, x, [np.zeros(1), np.ones(1)], radius=0.05)
    assert found.index.tolist() == [0, 0, 0, 1, 1, 1]
    assert found.end.converged.all()
    assert found.end.gradient_norm.max() <= 1e-6
    np.testing.assert_allclose(found.end.params[:, 0], [0, 0, 0, 1, 1, 1], atol=2e-6)


def test_basins_in_the_plane_against_another_integrator():
    # The boundary is not x = 0: off the axis the force −½k'(x)y² pushes to the flat well.
    rng = np.random.default_rng(0)
    points = rng.uniform([-1.5, -1.5], [1.5, 1.5], size=(60, 2))
    points[:2] = [[0.15, 1.0], [0.15, 0.0]]
    found = assign_basins(VALLEY, points, MINIMA, radius=0.05)

    def down(_, y):  # (x²−1)²/4 + ½ky², k = 5 + 4 tanh(2x)/tanh 2, by hand
        k = 5 + 4 * np.tanh(2 * y[0]) / np.tanh(2)
        bend = 8 / np.cosh(2 * y[0]) ** 2 / np.tanh(2)
        return -np.array([y[0] * (y[0] ** 2 - 1) + bend * y[1] ** 2 / 2, k * y[1]])

    ends = [solve_ivp(down, (0, 30), p, rtol=1e-8, atol=1e-10).y[:, -1] for p in points]
    np.testing.assert_array_equal(found.index, [int(end[0] > 0) for end in ends])
    assert found.index[:2].tolist() == [0, 1]
    assert not np.array_equal(found.index, (points[:, 0] > 0).astype(int))


def test_what_belongs_nowhere_is_said_to():
    points = np.array([[0.0, 0.4], [0.5, 0.0], [-0.5, 0.0]])
    # The saddle itself stays where it is; a minimum that was not declared is none.
    both = assign_basins(VALLEY, np.append(points, [[0.0, 0.0]], 0), MINIMA, radius=0.05)
    assert both.index.tolist() == [0, 1, 0, -1]
    one = assign_basins(VALLEY, points, MINIMA[:1], radius=0.05)
    assert one.index.tolist() == [0, -1, 0]
    shares = one.shares()
    np.testing.assert_allclose([shares.value[0], shares.standard_error[0]], [2 / 3, 1 / 3])
    short = gradient_flow(VALLEY, points, steps=3)
    assert not short.converged.any()
    falling = problems.landscape(lambda x: jnp.sum(-x), np.zeros(1))
    assert (
        assign_basins(falling, np.ones((1, 1)), np.ones((1, 1)), radius=1.0, steps=50).index == -1
    )


def test_minima_need_not_be_declared():
    points = np.array([[0.5, 0.3], [-0.2, 0.1], [1.2, -0.3], [-1.0, 0.0]])
    tilted = problems.landscape(
        lambda p: VALLEY.loss(p) + 0.05 * p[0], np.zeros(2)
    )  # the left well is lower now, and comes first
    found = assign_basins(tilted, points, radius=0.1)
    assert found.index.tolist() == [1, 0, 1, 0]
    assert found.minima[0, 0] < 0 < found.minima[1, 0]
    # Minimum of x⁴/4 − x²/2 + .05x + const near −1: x³ − x + .05 = 0.
    assert found.minima[0, 0] ** 3 - found.minima[0, 0] == pytest.approx(-0.05, abs=1e-2)
    assert cluster_minima(tilted, np.zeros((0, 2)), 0.1).shape == (0, 2)


@pytest.fixture(scope="module")
def run():
    # Endpoints as `simulate` returns them.
    x = np.random.default_rng(0).normal([0.0, 1.0], 0.25, size=(500, 2)).reshape(-1, 1)
    return xr.DataTree.from_dict(
        {"endpoints": xr.Dataset({"params": (("replica", "params_dim_0"), x)})}
    )


def test_shares_of_an_ensemble(run):
    ends = endpoint_trajectories(run).params[:, 0]
    found = assign_basins(WELLS, ends, np.array([[0.0], [1.0]]), radius=0.05)
    right = run["endpoints"].params.values[:, 0] > SADDLE
    np.testing.assert_array_equal(found.index, right.astype(int))
    share, shares = right.mean(), found.shares()
    np.testing.assert_allclose(shares.value, [1 - share, share])
    np.testing.assert_allclose(shares.standard_error, np.sqrt(share * (1 - share) / 999))
    assert found.end.converged.all()


@pytest.mark.slow
def test_shares_of_the_chain_in_the_long_run():
    # η = .04, c = 1: the exact chain has .7525 in the flat well, the diffusion's law .7339.
    ensemble = simulate(
        WELLS,
        SGD(0.04, noise.Isotropic(1.0)),
        steps=12_000,
        replicas=4000,
        seed=0,
        start=np.repeat([[0.0], [1.0]], [3000, 1000], axis=0),
        progress=False,
    )
    ends = endpoint_trajectories(ensemble).params[:, 0]
    found = assign_basins(WELLS, ends, np.array([[0.0], [1.0]]), radius=0.05)
    assert found.index.min() == 0
    shares = found.shares()
    assert 4 * shares.standard_error[0] < 0.04
    assert abs(shares.value[0] - 0.7525) < 4 * shares.standard_error[0]


@pytest.mark.slow
def test_comparisons_follow_the_flow(run):
    # The same rows as with the basins cut at the saddle; nobody is lost.
    points = run["endpoints"].params.values[:, None].astype(float)
    sides = Sides(points[::2], points[1::2], None)
    label = BasinLabel(WELLS, np.array([[0.0], [1.0]]), 0.05)
    cut = lambda x: jnp.where(x[0] < SADDLE, 0, 1)  # noqa: E731
    for effect in (BasinProbabilities, FlatPreference):
        setting = 2 if effect is BasinProbabilities else [0.0, np.log(9.0)]
        one, other = effect(label, setting), effect(cut, setting)
        assert one.rows(sides, 0.02).equals(other.rows(sides, 0.02))
    # A basin that was not declared: its points are nobody's, and the others' shares stay.
    left = BasinLabel(WELLS, np.array([[0.0]]), 0.05)
    rows = BasinProbabilities(left, 2).rows(sides, 0.02)
    np.testing.assert_allclose(rows["measured"], [np.mean(points[::2] < SADDLE), 0.0])


def test_bad_input(unchecked):
    with pytest.raises(ValueError, match=r"minima must have shape \(k, 2\)"):
        BasinLabel(VALLEY, np.zeros((1, 3)), 0.1)
    with pytest.raises(ValueError, match="radius must be positive"):
        assign_basins(VALLEY, np.zeros((1, 2)), MINIMA, radius=0.0)
    with pytest.raises(ValueError, match="tolerance must be positive"):
        gradient_flow(VALLEY, np.zeros((1, 2)), tolerance=-1.0)
