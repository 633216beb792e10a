import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import dawsn, log_ndtr

import statsgd
from statsgd import SGD, noise
from statsgd.laws import ImproperLawError, TwoValleyLaw
from statsgd.laws.law import UnresolvedWarning
from statsgd.laws.valleys import (
    TwoValleyHopping,
    freezing,
    freezing_chain,
    freezing_point_scaling,
    freezing_prediction,
    two_valley_chain_law,
    two_valley_noise,
)
from statsgd.laws.valleys.freezing import freezing_drive, valley_drift
from statsgd.laws.valleys.two_valley_hopping import committed_start
from statsgd.problems import TwoValleyLandscape, landscape

VALLEYS = TwoValleyLandscape()


def test_geometry():
    # g_i = 2x_i y/(y+y_b), f_i = f₀(x_i²/x₀²)(y+y_f)²/(y+y_b)², γ = (x₁/x₂)²
    np.testing.assert_allclose(VALLEYS.widths(5.0), (0.228571, 0.185714), atol=6e-7)
    np.testing.assert_allclose(VALLEYS.flatness(5.0), (0.326531, 0.215561), atol=6e-7)
    assert VALLEYS.barrier(5.0) == pytest.approx(0.04)
    gamma = VALLEYS.flatness_ratio
    assert gamma == pytest.approx(1.514793, abs=6e-7)
    assert gamma / (1 + gamma) == pytest.approx(0.602353, abs=6e-7)
    assert np.sqrt(gamma) / (1 + np.sqrt(gamma)) == pytest.approx(0.551724, abs=6e-7)
    with pytest.raises(ValueError, match="flat_width must exceed sharp_width"):
        TwoValleyLandscape(0.5, 0.65)


@pytest.mark.slow
def test_landscape_has_its_minima_and_curvatures():
    y, (g1, g2), (f1, f2) = 5.0, VALLEYS.widths(5.0), VALLEYS.flatness(5.0)
    bottom = float(VALLEYS.descent(y) - VALLEYS.barrier(y))
    at = jax.jit(lambda v: (VALLEYS.loss(v), VALLEYS.gradient(v), jax.hessian(VALLEYS.loss)(v)))
    for x, f in [(g1 / 2, f1), (-g2 / 2, f2)]:
        loss, gradient, curvature = at(jnp.array([x, y]))
        assert loss == pytest.approx(bottom, abs=1e-6)
        assert gradient[0] == pytest.approx(0, abs=1e-5)
        assert curvature[0, 0] == pytest.approx(2 / f, rel=1e-5)
    values = np.linalg.eigvalsh(VALLEYS.clipped_hessian(jnp.array([0.01, y])))
    assert values[0] >= -1e-6


# P_flat/P_sharp = γ^a e^{(g₁²−g₂²)/(8Δ_S)} Φ(g₁/(2√Δ_S))/Φ(g₂/(2√Δ_S))
@pytest.mark.parametrize(
    ("y", "level", "values"),
    [
        (5, 1e-3, (0.93315, 0.91898, 0.90211, 0.91349)),
        (3, 1e-3, (0.79160, 0.75527, 0.71490, 0.75354)),
        (10, 5e-3, (0.85609, 0.82857, 0.79704, 0.81893)),
    ],
)
def test_occupation_in_every_reading(y, level, values):
    readings = ("ito", "stratonovich", "anti_ito", "published_rates")
    for reading, value in zip(readings, values, strict=True):
        law = TwoValleyLaw(VALLEYS, y, level, reading=reading)
        assert law.flat_probability() == pytest.approx(value, abs=6e-6)


def test_other_powers_of_the_curvature():
    # D = ησ(2/f)², and isotropic D, where the reading does not matter
    for reading, value in [("ito", 0.97456), ("stratonovich", 0.96197), ("anti_ito", 0.94350)]:
        law = TwoValleyLaw(VALLEYS, 5, 2e-4, 2.0, reading=reading)
        assert law.flat_probability() == pytest.approx(value, abs=6e-6)
        isotropic = TwoValleyLaw(VALLEYS, 5, 0.04 / 6, 0.0, reading=reading)
        assert isotropic.flat_probability() == pytest.approx(0.55172, abs=6e-6)


def test_well_moments():
    means, deviations = TwoValleyLaw(VALLEYS, 5, 1e-3).well_moments()
    np.testing.assert_allclose(means, (0.114304, -0.093027), atol=6e-7)
    np.testing.assert_allclose(deviations, (0.031590, 0.031372), atol=6e-7)


def test_density_is_normalised_and_jumps_at_the_ridge():
    law = TwoValleyLaw(VALLEYS, 5, 4e-3)
    x = np.linspace(-0.8, 0.9, 400_001)
    p = np.exp(law.log_density(x[:, None]))
    assert np.trapezoid(p, x) == pytest.approx(1, abs=1e-5)
    assert np.trapezoid(p * x, x) == pytest.approx(law.mean()[0], abs=1e-6)
    spread = np.trapezoid(p * (x - law.mean()[0]) ** 2, x)
    assert spread == pytest.approx(law.covariance()[0, 0], abs=1e-6)
    # D p is continuous: p(0⁺)/p(0⁻) = γ
    jump = law.log_density(np.array([1e-9])) - law.log_density(np.array([-1e-9]))
    assert np.exp(jump) == pytest.approx(VALLEYS.flatness_ratio, rel=1e-6)
    assert law.cdf(np.array([0.0]))[0] == pytest.approx(1 - law.flat_probability())
    evaluate = jax.jit(lambda level, v: TwoValleyLaw(VALLEYS, 5, level).log_density(v))
    traced = evaluate(4e-3, x[:3, None])
    np.testing.assert_allclose(traced, law.log_density(x[:3, None]), rtol=1e-3)


def test_published_rates_are_traceable():
    value = jax.jit(
        lambda level: TwoValleyLaw(VALLEYS, 5, level, reading="published_rates").flat_probability()
    )(1e-3)
    assert float(value) == pytest.approx(0.91349, abs=1e-4)


@pytest.mark.slow
def test_draws():
    law = TwoValleyLaw(VALLEYS, 5, 4e-3)
    n = 20_000
    x = np.asarray(law.draw(jax.random.key(0), (n,)))[:, 0]
    p = law.flat_probability()
    assert abs(np.mean(x > 0) - p) < 4 * np.sqrt(p * (1 - p) / n)
    assert abs(x.mean() - law.mean()[0]) < 4 * x.std() / np.sqrt(n)


def test_refusals():
    with pytest.raises(ImproperLawError, match=r"learning_rate = 0.25 must be below f2 = 0.215561"):
        TwoValleyLaw(VALLEYS, 5.0, 1e-3, learning_rate=0.25).mean()
    with pytest.raises(ValueError, match="needs reading 'ito'"):
        TwoValleyLaw(VALLEYS, 5.0, 1e-3, learning_rate=0.01, reading="anti_ito")
    with pytest.raises(ImproperLawError, match="edge of stability"):
        two_valley_chain_law(TwoValleyLaw(VALLEYS, 5.0, 1e-3), 0.3)
    frozen = VALLEYS.frozen(5.0)
    with pytest.raises(ValueError, match="speaks about TwoValleyLandscape"):
        TwoValleyLaw.from_sgd(VALLEYS, SGD(0.01, noise.HessianScaled(0.2)))
    with pytest.raises(ValueError, match="momentum = 0"):
        TwoValleyLaw.from_sgd(frozen, SGD(0.01, noise.HessianScaled(0.2), momentum=0.5))
    with pytest.raises(ValueError, match="HessianScaled noise without floor"):
        TwoValleyLaw.from_sgd(frozen, SGD(0.01, noise.LossScaled(0.2)))


# stationary vector of x' ~ N(x − ηL', 2ηD); Itô limit .93315
@pytest.mark.parametrize(("eta", "value"), [(0.02, 0.92202), (0.01, 0.92325), (0.002, 0.92691)])
def test_law_of_the_chain(eta, value):
    chain = two_valley_chain_law(TwoValleyLaw(VALLEYS, 5, 1e-3), eta)
    assert chain.flat_probability == pytest.approx(value, abs=1.1e-5)
    assert chain.probability.sum() == pytest.approx(1)


@pytest.mark.slow
def test_law_of_the_chain_at_a_tiny_step():
    chain = two_valley_chain_law(TwoValleyLaw(VALLEYS, 5, 1e-3), 1e-4)
    assert chain.flat_probability == pytest.approx(0.93137, abs=1.1e-5)


def test_chain_with_isotropic_noise():
    law = TwoValleyLaw(VALLEYS, 5, 0.04 / 6, 0.0)
    assert two_valley_chain_law(law, 1e-3).flat_probability == pytest.approx(0.55234, abs=1.1e-5)


def test_root_correction_brings_the_law_to_the_chain():
    # ln odds lower by K·2√(ΔLη/Δ_S), K = 0.24368
    law, eta = TwoValleyLaw(VALLEYS, 5, 1e-3), 5e-5
    bare, corrected = law.log_odds(), TwoValleyLaw(VALLEYS, 5, 1e-3, learning_rate=eta).log_odds()
    assert bare - corrected == pytest.approx(0.24368 * 2 * np.sqrt(0.04 * eta / 1e-3), rel=1e-4)
    # the chain at η = 1e−4 has 0.93137
    near = TwoValleyLaw(VALLEYS, 5, 1e-3, learning_rate=1e-4).flat_probability()
    assert abs(near - 0.93137) < 0.15 * abs(law.flat_probability() - 0.93137)


@pytest.mark.slow
def test_sgd_follows_the_chain_law_and_not_the_isotropic_one():
    problem = VALLEYS.frozen(3.0)
    eta, level = 0.02, 1e-3
    sgd = SGD(eta, noise.HessianScaled(2 * level / eta))
    law = TwoValleyLaw.from_sgd(problem, sgd)
    assert law.flat_probability() == pytest.approx(0.79160, abs=6e-6)
    n = 10_000
    tree = statsgd.simulate(problem, sgd, steps=3000, replicas=n, seed=0, progress=False)
    share = np.mean(tree["endpoints"]["params"].values[:, 0] > 0)
    chain = two_valley_chain_law(law, eta).flat_probability
    error = np.sqrt(chain * (1 - chain) / n)  # 0.4 %
    assert abs(share - chain) < 4 * error
    assert abs(share - TwoValleyLaw(VALLEYS, 3.0, level, reading="anti_ito").flat_probability()) > (
        8 * error
    )


# τ = (1/D)∫e^{U/D}∫e^{−U/D}; (π/2) f erfi(z); 1/√(2ΔL/(πΔ_S f)) e^{z²}; k sum; λ₁
@pytest.mark.parametrize(
    ("y", "level", "flat", "sharp", "total", "relaxation"),
    [
        (5, 1e-3, (85.763, 86.082, 77.661), (7.963, 8.153, 6.857), 0.074516, 0.07647),
        (10, 2e-3, (2356.86, 2357.25, 2222.25), (66.564, 66.797, 60.352), 0.008479, 0.00863),
    ],
)
def test_hopping(y, level, flat, sharp, total, relaxation):
    hopping = TwoValleyHopping(TwoValleyLaw(VALLEYS, y, level))
    for form, *values in zip(("exact", "erfi", "asymptotic"), flat, sharp, strict=True):
        np.testing.assert_allclose(hopping.passage_times(form), values, rtol=1e-6, atol=6e-3)
    assert hopping.passage_times()[1] == pytest.approx(sharp[0], abs=6e-4)
    assert hopping.rates().sum() == pytest.approx(total, abs=6e-7)
    assert hopping.relaxation_rate() == pytest.approx(relaxation, abs=6e-6)
    exact = hopping.exact_rates()
    assert exact[1] / exact.sum() == pytest.approx(hopping.law.flat_probability())


@pytest.mark.parametrize("level", [1e-3, 3e-4])
def test_rates_that_rounding_would_take_from_an_eigenvalue(level):
    # λ₁ of 10⁻¹⁴ and 10⁻⁴⁸: the sum of both rates, with a correction of order 1/z².
    hopping = TwoValleyHopping(TwoValleyLaw(VALLEYS, 20.0, level))
    rate, depth = hopping.relaxation_rate(), np.min(hopping.wells.barrier_height)
    assert rate == pytest.approx(hopping.rates().sum(), rel=0.1 / depth)
    assert rate == pytest.approx(hopping.relaxation_rate(1000), rel=2e-5)
    for time, square, f in zip(
        hopping.passage_times(), hopping.wells.barrier_height, hopping.wells.flatness, strict=True
    ):
        exact = quad(lambda u: np.exp(u**2 / 2 + log_ndtr(u)), 0, np.sqrt(2 * square), epsrel=1e-13)
        assert time == pytest.approx(f / 2 * np.sqrt(2 * np.pi) * exact[0], rel=1e-11)


def test_drift_and_start():
    law = TwoValleyLaw(VALLEYS, 5, 1e-3)
    drift = valley_drift(VALLEYS, 5.0, law, float(law.flat_probability()))
    assert drift == pytest.approx(0.022388, abs=6e-7)
    # well bottom: (L_d/y_d)e^{−y/y_d} + 2x₀²y_f y/(f₀(y+y_f)³)
    bottom = np.exp(-0.05) / 100 + 2 * 20 * 5 / 25**3
    assert bottom == pytest.approx(0.022312, abs=6e-7)
    assert np.mean(committed_start(law.wells, 0.01)) == pytest.approx(0.5375, abs=6e-5)


def test_published_scaling_of_the_freezing_point():
    assert freezing_drive(VALLEYS) == pytest.approx(1.33265e-5, abs=6e-11)
    for level, along, flat in [(1e-3, 5.040, 0.9211), (1e-2, 31.383, 0.9548)]:
        point = freezing_point_scaling(VALLEYS, level, 30.0)
        assert point.along == pytest.approx(along, abs=6e-4)
        assert point.flat_probability == pytest.approx(flat, abs=6e-5)
    with pytest.raises(ValueError, match=r"no finite freezing point: s = .* must lie in \(0, x2\)"):
        freezing_point_scaling(VALLEYS, 0.1, 30.0)


# dP/dt = λ₁(P_Itô − P) along the drift of y, 20 000 steps; mean y at freezing in simulations.
@pytest.mark.parametrize(
    ("eta", "sigma", "flat", "along"),
    [
        pytest.param(0.01, 0.01, 0.5000, None, marks=pytest.mark.slow),
        pytest.param(0.1, 0.01, 0.9222, None, marks=pytest.mark.slow),
        (0.01, 0.1, 0.9224, 5.23),
        (0.1, 0.1, 0.9809, 30.08),
    ],
)
def test_freezing_at_the_level_of_the_sde(eta, sigma, flat, along):
    result = freezing_prediction(VALLEYS, eta, sigma, 20_000)
    assert result.final_flat_probability == pytest.approx(flat, abs=3e-4)
    assert result.error < 1e-5
    assert np.all(np.diff(result.last_hop_cdf) > -1e-6)
    assert result.last_hop_cdf[-1] == pytest.approx(1)
    if along is not None:
        assert result.freezing_along == pytest.approx(along, rel=0.12 if eta == 0.1 else 0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("eta", "sigma", "flat"), [(0.1, 0.01, 0.9812), (0.01, 0.1, 0.9050), (0.1, 0.1, 0.9803)]
)
def test_freezing_at_the_level_of_the_chain(eta, sigma, flat):
    result = freezing_chain(VALLEYS, eta, sigma, 20_000)
    assert result.final_flat_probability == pytest.approx(flat, abs=3e-4)
    assert result.error < 5e-3


@pytest.mark.slow
def test_freezing_of_the_chain_knows_its_error():
    fine = freezing_chain(VALLEYS, 0.1, 0.01, 400, resolution=12, refresh=1)
    assert fine.error < 1e-3
    usual = freezing_chain(VALLEYS, 0.1, 0.01, 400)
    assert np.max(np.abs(usual.flat_probability - fine.flat_probability[::25])) < usual.error
    with pytest.warns(UnresolvedWarning, match="final occupation of the flat valley"):
        rough = freezing_chain(VALLEYS, 0.1, 0.01, 400, resolution=2, refresh=200)
    off = abs(rough.final_flat_probability - fine.final_flat_probability)
    assert off < rough.error


@pytest.mark.slow
def test_freezing_of_sgd_in_two_dimensions():
    # η/f₂ ≈ 0.5, where the level of the SDE is off by 0.05 and that of the chain is not
    eta, sigma, steps, n = 0.1, 0.01, 400, 2000
    chain = freezing_chain(VALLEYS, eta, sigma, steps)
    sgd = SGD(eta, two_valley_noise(VALLEYS, sigma))
    tree = statsgd.simulate(VALLEYS, sgd, steps=steps, replicas=n, seed=0, progress=False)
    params = tree["endpoints"]["params"].values
    share, expected = np.mean(params[:, 0] > 0), chain.final_flat_probability
    error = np.sqrt(expected * (1 - expected) / n)  # 0.4 %
    assert abs(share - expected) < 4 * error
    assert params[:, 1].mean() == pytest.approx(chain.along[-1], rel=0.01)
    sde = freezing_prediction(VALLEYS, eta, sigma, steps).final_flat_probability
    assert abs(share - sde) > 8 * error


def test_frozen_is_a_slice_of_the_landscape():
    frozen = VALLEYS.frozen(7.0)
    for x in (-0.2, 0.3):
        whole = float(VALLEYS.loss(jnp.array([x, 7.0])) - VALLEYS.descent(7.0))
        assert float(frozen.loss(jnp.array([x]))) == pytest.approx(whole, abs=1e-6)
    assert landscape(frozen.loss, np.zeros(1)).dimension == 1


@pytest.mark.parametrize("level", [1e-1, 1e-3, 1e-6, 1e-12])
def test_quadrature_at_any_noise(level):
    law = TwoValleyLaw(VALLEYS, 5.0, level)
    points, weights = law.quadrature()
    assert weights @ points == pytest.approx(law.mean(), rel=1e-9)
    spread = weights @ (points - law.mean()) ** 2
    assert spread == pytest.approx(law.covariance()[0], rel=1e-9)


@pytest.mark.parametrize("level", [1e-1, 1e-3, 1e-6])
def test_published_ratio_of_rates(level):
    # f₊ erfi(z₊)/(f₋ erfi(z₋)), erfi(z) = (2/√π) e^(z²) D(z) with Dawson's integral D.
    law = TwoValleyLaw(VALLEYS, 5.0, level, reading="published_rates")
    squares, f = law.wells.barrier_height, law.wells.flatness
    logs = np.log(f * dawsn(np.sqrt(squares))) + squares
    assert law.log_odds() == pytest.approx(logs[0] - logs[1], rel=1e-10)


@pytest.mark.slow
def test_three_times_as_many_places_freeze_the_same(monkeypatch):
    few = freezing_prediction(VALLEYS, 1e-3, 1.0, 20_000)
    monkeypatch.setattr(freezing, "_TABLE", 240)
    monkeypatch.setattr(freezing, "_POINTS", 1200)
    many = freezing_prediction(VALLEYS, 1e-3, 1.0, 20_000)
    assert few.final_flat_probability == pytest.approx(many.final_flat_probability, abs=1e-5)
    assert few.freezing_along == pytest.approx(many.freezing_along, rel=1e-5)
