"""Climbing out of a quadratic minimum: known values, the equation of motion, and SGD."""

import itertools

import numpy as np
import pytest

from statsgd import SGD, ImproperLawError, noise, problems, simulate
from statsgd.laws import AnisotropicQuadraticLaw, HeavyBallGaussian
from statsgd.laws.minimum import escape_efficiency
from tests.statistical import assert_printed

SHARP = np.diag([10.0, 1.0, 0.1])
TILTED = np.array([[3.0, 1.0], [1.0, 2.0]])
SKEW = np.array([[0.5, -0.2], [-0.2, 1.0]])


@pytest.mark.parametrize(
    ("covariance", "chain", "sde"),
    [
        (
            1.3 * SHARP / 11.1,
            (".05915", ".06131947", ".06193485"),
            (".02585330", ".03186403", ".0325"),
        ),
        (
            1.3 / 3 * np.eye(3),
            (".02405", ".03366636", ".04395795"),
            (".01154547", ".02216428", ".0325"),
        ),
        (np.diag([1.3, 0, 0]), (".065", ".065", ".065"), (".02810160", ".03250000", ".0325")),
    ],
)
def test_climb(covariance, chain, sde):
    # (η/2)Tr[(2−ηH)⁻¹(1−(1−ηH)^{2k})C] after 1, 10 and all steps; (η/4)Tr[(1−e^{−2Ht})C].
    steps = [1, 10, np.inf]
    for value, text in zip(escape_efficiency(SHARP, covariance, 0.1, steps), chain, strict=True):
        assert_printed(value, text)
    after = escape_efficiency(SHARP, covariance, 0.1, steps, "continuous")
    for value, text in zip(after, sde, strict=True):
        assert_printed(value, text)


def test_climb_where_noise_and_curvature_do_not_commute():
    chain = escape_efficiency(TILTED, SKEW, 0.3, [1, 4, np.inf])
    for value, text in zip(chain, (".1395", ".17243494", ".17379310"), strict=True):
        assert_printed(value, text)
    sde = escape_efficiency(TILTED, SKEW, 0.3, [1, 4, np.inf], "continuous")
    for value, text in zip(sde, (".07450769", ".10966310", ".1125"), strict=True):
        assert_printed(value, text)
    # One step climbs ½η²Tr(HC), Tr(HC) = 3.1.
    assert chain[0] == pytest.approx(0.5 * 0.3**2 * 3.1)


def test_stationary_climb_with_momentum():
    # η(1+β)/(2(1−β)) Tr[(2(1+β) − ηH)⁻¹C].
    law = HeavyBallGaussian([[10.0]], [[1.3]], 0.1, 0.9)
    assert_printed(0.5 * 10 * law.covariance()[0, 0], ".44107143")


def test_covariance_solves_the_recursion():
    law = [AnisotropicQuadraticLaw(TILTED, SKEW, 0.3, k).covariance() for k in range(4)]
    np.testing.assert_allclose(law[0], 0, atol=1e-15)
    kept = np.eye(2) - 0.3 * TILTED
    for before, after in itertools.pairwise(law):
        np.testing.assert_allclose(after, kept @ before @ kept + 0.09 * SKEW, rtol=1e-12)
    end = AnisotropicQuadraticLaw(TILTED, SKEW, 0.3).covariance()
    np.testing.assert_allclose(end, HeavyBallGaussian(TILTED, SKEW, 0.3).covariance(), rtol=1e-12)


def test_flat_directions_diffuse():
    flat = np.diag([1.0, 0.0])
    law = AnisotropicQuadraticLaw(flat, np.eye(2), 0.1, 50)
    assert law.covariance()[1, 1] == pytest.approx(50 * 0.1**2)
    with pytest.raises(ImproperLawError, match=r"flat direction\(s\) 1 with noise 1"):
        AnisotropicQuadraticLaw(flat, np.eye(2), 0.1).covariance()
    quiet = AnisotropicQuadraticLaw(flat, flat, 0.1).covariance()
    np.testing.assert_allclose(quiet, np.diag([0.1 / 1.9, 0]), atol=1e-15)


def test_the_loss_settles_where_flat_directions_diffuse():
    # (η/2) Σ C_ii/(2 − ηh_i) over the curved directions of the chain, (η/4) Σ C_ii of the SDE.
    covariance = np.array([[1.0, 0.4, 0.3], [0.4, 2.0, 0.1], [0.3, 0.1, 5.0]])
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))[0]
    hessian, noise = (turn @ m @ turn.T for m in (np.diag([4.0, 1.0, 0.0]), covariance))
    chain = escape_efficiency(hessian, noise, 0.2, np.inf)
    np.testing.assert_allclose(chain, 0.1 * (1 / 1.2 + 2 / 1.8), rtol=1e-12)
    np.testing.assert_allclose(
        escape_efficiency(hessian, noise, 0.2, np.inf, "continuous"), 0.15, rtol=1e-12
    )
    law = AnisotropicQuadraticLaw(hessian, noise, 0.2)
    with pytest.raises(ImproperLawError, match="flat direction"):
        law.covariance()
    with pytest.raises(ImproperLawError, match=r"learning_rate\*max_eigenvalue = 2\.4"):
        escape_efficiency(hessian, noise, 0.6, np.inf)
    with pytest.raises(ImproperLawError, match="negative eigenvalue"):
        escape_efficiency(np.diag([1.0, -1.0]), np.eye(2), 0.1, np.inf)


@pytest.mark.parametrize(("time", "expected"), [("discrete", 0.18881579), ("continuous", 0.125)])
def test_a_noisy_flat_direction_leaves_the_loss_its_limit(time, expected):
    # ηh = 1 and 0.1: (η/4)(2·29/12 + (20/19)·31/12) of the chain, (η/4)(29/12 + 31/12) of the SDE.
    hessian, noise = np.diag([10.0, 1.0, 0.0]), np.diag([29 / 12, 31 / 12, 7.0])
    settled = escape_efficiency(hessian, noise, 0.1, np.inf, time)
    np.testing.assert_allclose(settled, expected, atol=5e-9)
    # The limit of long times, which the iterated recursion θ' = (1 − ηh)θ + ηξ reaches.
    second = np.zeros(3)
    for _ in range(400):
        second = (1 - 0.1 * np.diag(hessian)) ** 2 * second + 0.01 * np.diag(noise)
    late = escape_efficiency(hessian, noise, 0.1, 400)
    np.testing.assert_allclose(late, np.diag(hessian) @ second / 2, rtol=1e-10)
    np.testing.assert_allclose(late, 0.18881579, atol=5e-9)


def test_the_loss_without_any_curvature_does_not_rise():
    np.testing.assert_array_equal(
        escape_efficiency(np.zeros((2, 2)), np.eye(2), 0.1, [1, np.inf]), [0.0, 0.0]
    )


@pytest.mark.slow
def test_sgd_climbs_as_said():
    # 16384 runs from the minimum, four steps: the mean loss to about 1 %.
    problem = problems.quadratic(TILTED)
    sgd = SGD(0.3, noise.Anisotropic(SKEW))
    ends = simulate(
        problem, sgd, steps=4, replicas=2**14, seed=0, start=np.zeros(2), progress=False
    )
    loss = ends["run"].loss.values
    law = AnisotropicQuadraticLaw.from_sgd(problem, sgd, steps=4)
    error = loss.std() / np.sqrt(len(loss))
    assert error < 0.012 * law.climb()
    assert abs(loss.mean() - law.climb()) < 4 * error
    # The SDE is off by more than a third here.
    late = AnisotropicQuadraticLaw(TILTED, SKEW, 0.3, 4, time="continuous").climb()
    assert abs(loss.mean() - late) > 20 * error


def test_refusals():
    with pytest.raises(ImproperLawError, match=r"no stationary law.*= 3 >= 2"):
        AnisotropicQuadraticLaw(SHARP, SHARP, 0.3).climb()
    with pytest.raises(ImproperLawError, match="negative eigenvalue -1"):
        AnisotropicQuadraticLaw(np.diag([1.0, -1.0]), np.eye(2), 0.1, 2).climb()
    with pytest.raises(ValueError, match="whole number"):
        AnisotropicQuadraticLaw(SHARP, SHARP, 0.1, 1.5)
    with pytest.raises(ValueError, match="momentum and weight_decay must be 0"):
        AnisotropicQuadraticLaw.from_sgd(
            problems.quadratic(TILTED), SGD(0.1, noise.Isotropic(1.0), 0.5)
        )
