"""The law of SGD under stable noise: scales in closed form and printed, draws, real chains."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.infer.util import log_density as model_log_density
from scipy.integrate import quad
from scipy.optimize import brentq

import statsgd
from statsgd import SGD, noise, problems
from statsgd.laws import (
    HeavyBallGaussian,
    ImproperLawError,
    IntractableError,
    StableLaw,
    applicable,
)
from tests.statistical import assert_mean_within, assert_printed


def one(h, alpha, scale, eta, beta=0.0, **other):
    return StableLaw([[h]], alpha, scale, eta, beta, **other)


@pytest.mark.parametrize(
    ("h", "alpha", "eta", "beta", "printed"),
    [
        (1, 1.5, 0.1, 0.0, ".3603557"),
        (1, 1.0, 0.1, 0.0, "1.000000"),
        (1, 2.0, 0.1, 0.0, ".2294157"),
        (2, 1.2, 0.5, 0.0, ".5"),
        (3, 1.2, 0.5, 0.0, ".8049570"),
        (1, 1.5, 0.1, 0.5, ".4602886"),
        (1, 1.5, 0.1, 0.9, "1.213490"),
        (1, 1.5, 0.1, 0.99, "5.650283"),
        (1, 1.0, 0.1, 0.9, "4.003957"),
    ],
)
def test_scales_of_one_mode(h, alpha, eta, beta, printed):
    assert_printed(one(h, alpha, 1.0, eta, beta).mode_scales[0], printed)


def test_small_steps_without_cancellation():
    law = one(1.0, 1.5, 1.0, 1e-12)
    np.testing.assert_allclose(law.mode_scales, 1e-12 * (1.5e-12) ** (-1 / 1.5), rtol=1e-9)


def test_continuous_limit():
    for alpha, printed in ((1.5, ".3542195"), (1.0, "1"), (2.0, ".2236068")):
        assert_printed(StableLaw.continuous([[1.0]], alpha, 1.0, 0.1).mode_scales[0], printed)
    ratio = (
        one(1, 1.5, 1, 1e-3).mode_scales / StableLaw.continuous([[1.0]], 1.5, 1, 1e-3).mode_scales
    )
    np.testing.assert_allclose(ratio - 1, 0.5 * 1e-3 / 3, rtol=1e-2)
    # Dependent modes: ∫|e^{−Ht}u|^α dt by adaptive quadrature.
    hessian, u = np.array([[1.6, 0.6], [0.6, 0.9]]), np.array([0.3, -1.0])
    law = StableLaw.continuous(hessian, 1.4, 0.7, 0.2)
    h, q = np.linalg.eigh(hessian)

    def left(t):
        return np.linalg.norm(np.exp(-h * t) * (q.T @ u)) ** 1.4

    wanted = 0.7 * 0.2 ** (1 - 1 / 1.4) * quad(left, 0, 60, epsrel=1e-11)[0] ** (1 / 1.4)
    np.testing.assert_allclose(law.scale_along(u), wanted, rtol=1e-8)
    assert not law.exact_draws
    with pytest.raises(IntractableError, match="exact sampler"):
        law.draw(jax.random.key(0))


def test_kicks_that_turn_round_on_the_way_leave_a_cusp():
    # Independent kicks: Σ_j |(e^{−Ht}u)_j|^α, of which the second passes zero.
    hessian, u = np.array([[1.0, 0.6], [0.6, 2.0]]), np.array([1.0, 0.3])
    h, q = np.linalg.eigh(hessian)

    def left(t):
        return q @ (np.exp(-h * t) * (q.T @ u))

    zero = brentq(lambda t: left(t)[1], 0, 5)
    pieces = [(0, zero), (zero, 2), (2, 200)]
    for alpha in (0.6, 1.2):
        whole = sum(
            quad(lambda t: np.sum(np.abs(left(t)) ** alpha), *piece, epsrel=1e-11, limit=200)[0]  # noqa: B023
            for piece in pieces
        )
        law = StableLaw.continuous(hessian, alpha, 0.7, 0.2, form="independent")
        wanted = 0.7 * 0.2 ** (1 - 1 / alpha) * whole ** (1 / alpha)
        assert law.scale_along(u) == pytest.approx(wanted, rel=1e-8)


TURNED = np.array([[np.cos(np.pi / 6), -np.sin(np.pi / 6)], [np.sin(np.pi / 6), np.cos(np.pi / 6)]])


@pytest.mark.parametrize(
    ("form", "modes", "axes"),
    [
        ("isotropic", (".231200", ".567064"), (".358128", ".508169")),
        ("independent", (".255170", ".625856"), (".382822", ".541683")),
    ],
)
def test_scales_of_turned_modes(form, modes, axes):
    law = StableLaw(TURNED @ np.diag([2.0, 0.5]) @ TURNED.T, 1.5, 1.0, 0.1, form=form)
    for scales, printed in ((law.mode_scales[::-1], modes), (law.coordinate_scales, axes)):
        for value, text in zip(scales, printed, strict=True):
            assert_printed(value, text)
    if form == "isotropic":
        # Not elliptical: an ellipse would have .433021 here.
        assert_printed(law.scale_along(TURNED @ [0.5**0.5, 0.5**0.5]), ".440571")


@pytest.mark.parametrize("form", ["isotropic", "independent"])
def test_joint_draws_have_the_scales_of_every_direction(form):
    law = StableLaw(TURNED @ np.diag([2.0, 0.5]) @ TURNED.T, 1.5, 1.0, 0.3, 0.4, form=form)
    drawn = np.asarray(law.draw(jax.random.key(1), (40_000,)), dtype=float)
    for u in ([1.0, 0.0], [0.6, -0.8], [1.0, 2.0]):
        scale = law.scale_along(u)
        for v in (0.5, 1.0):
            assert_mean_within(np.cos(v * drawn @ u / scale), np.exp(-(v**1.5)))


def test_real_chains_have_the_quantiles_of_the_law():
    bowl = problems.landscape(lambda p: 0.5 * jnp.sum(p**2), np.zeros(1))
    sgd = SGD(0.1, noise.Stable(1.5, 1.0), 0.9)
    law = StableLaw.from_sgd(bowl, sgd)
    for level, printed in ((0.75, "1.17579"), (0.95, "3.70350"), (0.99, "9.38810")):
        assert_printed(law.quantile(level)[0], printed)  # of |θ|: 0.5, 0.9, 0.98
    tree = statsgd.simulate(bowl, sgd, steps=200, replicas=20_000, seed=1, progress=False)
    size = np.abs(tree["endpoints"]["params"].values[:, 0])
    for level in (0.5, 0.9, 0.98):
        edge = law.quantile((1 + level) / 2)[0]
        assert abs(np.mean(size < edge) - level) < 4 * np.sqrt(level * (1 - level) / len(size))
    assert_mean_within(np.cos(size / law.mode_scales[0]), np.exp(-1.0))


def test_at_two_it_is_the_normal_law():
    hessian = np.array([[1.6, 0.6], [0.6, 0.9]])
    law = StableLaw(hessian, 2.0, 0.3, 0.5, 0.4, 0.1)
    normal = HeavyBallGaussian(hessian, 2 * 0.09 * np.eye(2), 0.5, 0.4, 0.1)
    np.testing.assert_allclose(law.covariance(), normal.covariance(), rtol=1e-9)
    points = np.array([[0.1, -0.4], [3.0, 1.0]])
    np.testing.assert_allclose(law.log_density(points), normal.log_density(points), rtol=1e-9)
    np.testing.assert_allclose(law.cdf(points), normal.cdf(points), rtol=1e-9)
    apart = StableLaw(hessian, 2.0, [0.3, 0.5], 0.5, 0.4, form="independent")
    normal = HeavyBallGaussian(hessian, 2 * np.diag([0.09, 0.25]), 0.5, 0.4)
    np.testing.assert_allclose(apart.covariance(), normal.covariance(), rtol=1e-9)
    np.testing.assert_allclose(
        apart.coordinate_scales**2 * 2, np.diag(normal.covariance()), rtol=1e-9
    )


def test_moments():
    law = one(1.0, 1.5, 1.0, 0.1, location=[2.0])
    width = law.mode_scales[0]
    np.testing.assert_allclose(law.absolute_moment(1.0) / width, 1.705465, rtol=1e-6)
    np.testing.assert_allclose(law.absolute_moment(0.5) / width**0.5, 1.080430, rtol=1e-6)
    normal = one(1.0, 2.0, 1.0, 0.1)
    np.testing.assert_allclose(normal.absolute_moment(4.0), 12 * normal.mode_scales**4, rtol=1e-9)
    assert law.mean()[0] == 2.0
    assert np.all(np.isinf(law.covariance()))
    assert np.all(np.isnan(one(1.0, 1.0, 1.0, 0.1).mean()))
    for order in (1.5, 2.0):
        with pytest.raises(ValueError, match=r"order must be below alpha = 1\.5"):
            law.absolute_moment(order)


def test_independent_modes_have_a_joint_density():
    law = StableLaw(np.diag([2.0, 0.5]), 1.3, [0.4, 0.2], 0.3, form="independent")
    parts = [one(h, 1.3, s, 0.3) for h, s in ((2.0, 0.4), (0.5, 0.2))]
    x = np.array([0.3, -1.4])
    wanted = sum(float(part.log_density(x[i : i + 1])) for i, part in enumerate(parts))
    np.testing.assert_allclose(law.log_density(x), wanted, rtol=1e-9)
    np.testing.assert_allclose(law.mode_scales[::-1], [p.mode_scales[0] for p in parts], rtol=1e-12)
    conditioned = jax.jit(lambda at: model_log_density(law.model, (at,), {}, {})[0])
    found = conditioned(jnp.asarray(x[None]))
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    dependent = StableLaw(np.diag([2.0, 0.5]), 1.3, 0.4, 0.3)
    with pytest.raises(IntractableError, match="joint density of dependent modes"):
        dependent.log_density(x)


def test_improper_laws_say_the_threshold():
    with pytest.raises(ImproperLawError, match=r"learning_rate\*h = 2.2 outside .*\(0, 2\)"):
        one(2.0, 1.5, 1.0, 1.1).mean()
    assert np.all(np.isnan(one(2.0, 1.5, 1.0, 1.1).mode_scales))
    with pytest.raises(ImproperLawError, match=r"\(0, 3\.8\)"):
        one(2.0, 1.5, 1.0, 1.9, 0.9).quantile(0.5)


def test_from_sgd_takes_minimum_decay_and_form():
    bowl = problems.landscape(
        lambda p: jnp.sum(jnp.array([1.0, 3.0]) * (p - 1.0) ** 2) / 2, np.zeros(2)
    )
    sgd = SGD(0.2, noise.Stable(1.5, [0.1, 0.3], "independent"), 0.5, 0.5)
    law = StableLaw.from_sgd(bowl, sgd)
    np.testing.assert_allclose(law.location, [1 / 1.5, 3 / 3.5], rtol=1e-6)
    wanted = [one(h, 1.5, s, 0.2, 0.5).mode_scales[0] for h, s in ((1.5, 0.1), (3.5, 0.3))]
    np.testing.assert_allclose(law.coordinate_scales, wanted, rtol=1e-6)
    with pytest.raises(ValueError, match="noise must be Stable for StableLaw, got Isotropic"):
        StableLaw.from_sgd(bowl, SGD(0.2, noise.Isotropic(1.0)))


@pytest.mark.usefixtures("unchecked")
def test_wrong_arguments_are_named():
    for alpha in (0.0, 2.5):
        with pytest.raises(ValueError, match=r"alpha must be in \(0, 2\]"):
            one(1.0, alpha, 1.0, 0.1)
    with pytest.raises(ValueError, match="momentum must be 0 in continuous time"):
        one(1.0, 1.5, 1.0, 0.1, 0.5, time="continuous")
    with pytest.raises(ValueError, match="scale must be one number or have shape"):
        StableLaw(np.eye(2), 1.5, [1.0, 1.0, 1.0], 0.1, form="independent")
    with pytest.raises(ValueError, match="direction must have shape"):
        one(1.0, 1.5, 1.0, 0.1).scale_along([1.0, 2.0])


@pytest.mark.slow
@pytest.mark.parametrize("heavy", [noise.Stable(1.5, 0.3), noise.StudentT(2.0, 0.3)])
def test_laws_that_need_a_variance_refuse(heavy):
    bowl = problems.landscape(lambda p: 0.5 * jnp.sum(p**2), np.zeros(1))
    table = applicable(bowl, SGD(0.1, heavy)).set_index("law")
    speaks = {"StableLaw"} if isinstance(heavy, noise.Stable) else set()
    assert set(table.index[table["applies"]]) == speaks
    assert "finite variance" in table.loc["HeavyBallGaussian", "reason"]
    assert "finite variance" in table.loc["EffectivePotentialGibbs", "reason"]
