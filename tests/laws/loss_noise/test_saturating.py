import itertools

import jax
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import gammaln, i0e

import statsgd
from statsgd import SGD, noise
from statsgd.laws import (
    ImproperLawError,
    SaturatedPowerOfLossLaw,
    SaturatingLossScaledLaw,
    StrataLaw,
    TorusPowerOfLossLaw,
    ZeroLossCircleLaw,
)
from statsgd.precision import in_double_precision
from statsgd.problems import landscape


# a = q/2 − α, b = (α−1)/L_sat, w = a/(q/2 − 1), E L = (a + w)/b, P(L < 0.1) of the mixture
@pytest.mark.parametrize(
    ("q", "epsilon", "saturation", "a", "b", "w", "mean", "low"),
    [
        (3, 6, 1, 1 / 6, 1 / 3, 1 / 3, 1.5, 0.411463),
        (3, 8, 1, 0.25, 0.25, 0.5, 3.0, 0.222586),
        (50, 0.1, 1, 4, 20, 1 / 6, 0.208333, 0.127839),
        (10, 0.8, 0.5, 1.5, 5, 0.375, 0.375, 0.138255),
    ],
)
def test_law_of_the_loss(q, epsilon, saturation, a, b, w, mean, low):
    law = SaturatingLossScaledLaw(np.eye(q), epsilon, saturation).loss_law
    assert (law.shape, law.rate, law.weight) == pytest.approx((a, b, w))
    assert law.mean() == pytest.approx(mean, abs=4e-7)
    assert law.cdf(0.1) == pytest.approx(low, abs=6e-7)


def test_small_loss_and_median():
    law = SaturatingLossScaledLaw(np.eye(3), 8.0, 1.0).loss_law
    assert law.cdf(0.01) == pytest.approx(0.123533, abs=6e-7)
    assert law.quantile(0.5) == pytest.approx(1.435116, abs=6e-7)


def test_density_integrates_to_one_and_matches_the_loss_law():
    # In q dimensions with Hessian H the volume of {L < s} is det(H)^(−1/2)(2πs)^(q/2)/Γ(q/2+1).
    hessian = np.diag([1.0, 4.0, 9.0])
    law = SaturatingLossScaledLaw(hessian, 8.0, 1.0, [0.5, -1, 2])
    log_loss = np.linspace(-170, 6, 100_001)
    loss = np.exp(log_loss)
    points = law.location + np.sqrt(2 * loss)[:, None] * [1.0, 0, 0]
    points[:, 0] = law.location[0] + np.sqrt(2 * loss)
    density = np.exp(law.loss_law.log_profile(loss) - law.loss_law.log_mass()) * 6.0
    volume = 4 * np.pi * np.sqrt(2 * loss) / 6.0
    np.testing.assert_allclose(
        np.log(density[85_000:]), law.log_density(points[85_000:]), atol=1e-6
    )
    assert np.trapezoid(density * volume * loss, log_loss) == pytest.approx(1, rel=1e-6)


@pytest.mark.slow
def test_draws_match_loss_and_covariance():
    law = SaturatingLossScaledLaw.examples()[0]
    n = 30_000
    x = np.asarray(law.draw(jax.random.key(0), (n,)), dtype=np.float64) - law.location
    loss = 0.5 * np.sum(x * (x @ law.hessian), -1)
    assert abs(loss.mean() - 3.0) < 4 * loss.std() / np.sqrt(n)  # 0.7 %
    sample, exact = x.T @ x / n, law.covariance()
    for i in range(3):
        error = np.std(x[:, i] ** 2) / np.sqrt(n)
        assert abs(sample[i, i] - exact[i, i]) < 4 * error  # 1.3 %
    for level, p in [(0.01, 0.123533), (0.1, 0.222586)]:
        assert abs(np.mean(loss < level) - p) < 4 * np.sqrt(p * (1 - p) / n)


def test_refusals():
    with pytest.raises(ImproperLawError, match=r"must exceed 4/\(q-2\) = 4 for codimension q = 3"):
        SaturatingLossScaledLaw(np.eye(3), 3.5, 1.0).mean()
    with pytest.raises(ImproperLawError, match="codimension 2 <= 2"):
        SaturatingLossScaledLaw(np.eye(2), 50.0, 1.0).covariance()
    for law in SaturatedPowerOfLossLaw.improper_examples():
        with pytest.raises(ImproperLawError):
            law.require_proper()
    problem = landscape(lambda v: 0.5 * v @ v, np.ones(3))
    with pytest.raises(ValueError, match="with saturation and without floor"):
        SaturatingLossScaledLaw.from_sgd(problem, SGD(0.01, noise.LossScaled(800.0)))


def test_general_law_is_the_quadratic_one_on_a_quadratic():
    exact = SaturatingLossScaledLaw(np.eye(3), 8.0, 1.0)
    general = SaturatedPowerOfLossLaw(lambda v: 0.5 * v @ v, 3, 8.0, 1.0, codimension=3)
    points = jax.random.normal(jax.random.key(0), (5, 3))
    gap = [float(general.log_density(v) - exact.log_density(np.asarray(v))) for v in points]
    assert np.ptp(gap) < 1e-4


def start(key):
    return jax.random.normal(key, (3,))


@pytest.mark.slow
def test_sgd_follows_the_saturated_law():
    # chain at η = 0.01 has E L = 3.1061 and P(L < 0.1) = 0.2025 (exact kernel, H = I)
    problem = landscape(lambda v: 0.5 * v @ v, start)
    dynamics = SGD(0.01, noise.LossScaled(800.0, saturation=1.0))
    law = SaturatingLossScaledLaw.from_sgd(problem, dynamics)
    assert law.loss_law.mean() == pytest.approx(3.0, rel=1e-5)
    n = 5_000
    tree = statsgd.simulate(problem, dynamics, steps=8000, replicas=n, seed=7, progress=False)
    loss = tree["run"]["loss"].values
    error = loss.std() / np.sqrt(n)
    assert abs(loss.mean() - 3.1061) < 4 * error  # 1.7 %
    assert abs(np.mean(loss < 0.1) - 0.2025) < 4 * np.sqrt(0.2 * 0.8 / n)


# E cos ϕ = −I₁(κ)/I₀(κ), κ = qa/2 marginally and αa in the distance tube
def test_circle():
    law = ZeroLossCircleLaw(3, 1.0, 8.0, 1.0)
    assert law.mean_cosine() == pytest.approx(-0.596133, abs=6e-7)
    assert law.mean_cosine("distance") == pytest.approx(-0.527996, abs=6e-7)
    angles = np.linspace(-np.pi, np.pi, 101)[1:]
    for tube in ("loss", "distance"):
        weight = np.array([law.point_weight(a, tube) for a in angles])
        assert np.sum(weight * np.cos(angles)) / weight.sum() == pytest.approx(
            law.mean_cosine(tube)
        )


@pytest.mark.slow
def test_circle_draws_and_density():
    law = ZeroLossCircleLaw(3, 1.0, 8.0, 1.0)
    n = 100_000
    draws = np.asarray(law.draw(jax.random.key(0), (n,)), dtype=np.float64)
    cosine, radius = np.cos(draws[:, 0]), np.linalg.norm(draws[:, 1:], axis=1)
    assert abs(cosine.mean() - law.mean_cosine()) < 4 * cosine.std() / np.sqrt(n)
    near = radius < 0.03
    error = cosine[near].std() / np.sqrt(near.sum())
    assert abs(cosine[near].mean() - law.mean_cosine("distance")) < 4 * error + 0.002
    # ∫ p dy at fixed ϕ is the von Mises density about π
    log_r = np.linspace(-120, 3, 40_001)
    r = np.exp(log_r)
    state = np.stack([np.full_like(r, 2.0), r, 0 * r, 0 * r], -1)
    marginal = np.trapezoid(np.exp(law.log_density(state)) * 4 * np.pi * r**3, log_r)
    kappa = law.concentration()
    expected = np.exp(-kappa * np.cos(2.0)) / (2 * np.pi * np.i0(kappa))
    assert marginal == pytest.approx(expected, rel=1e-6)


# P(z∈[0,1]) = ∫g√(2L)dL / ∫g[√(2L) + 2(πL/2 + J)]dL
@pytest.mark.parametrize(("epsilon", "segment"), [(4.2, 0.720527), (5, 0.393433), (8, 0.207787)])
def test_strata(epsilon, segment):
    law = StrataLaw(epsilon)
    assert law.segment_probability() == pytest.approx(segment, abs=6e-7)
    assert law.point_probability() == pytest.approx((1 - segment) / 2, abs=6e-7)


def test_strata_density_is_normalised():
    # radius of y in logarithmic, z in plain steps: ∫ p 4πr² dr dz = 1
    law = StrataLaw(8.0)
    log_r = np.linspace(-60, 3.2, 1501)
    z = np.linspace(-12, 14, 10_401)
    r = np.exp(log_r)

    def slab(place):
        points = np.stack([r, 0 * r, 0 * r, np.full_like(r, place)], -1)
        return points

    total = 0.0
    evaluate = jax.jit(jax.vmap(lambda v: -law.potential(v)))
    with jax.enable_x64(True):
        for place in z[::2] + 1e-9:
            p = np.exp(np.asarray(evaluate(slab(place)), dtype=np.float64))
            total += np.trapezoid(p * 4 * np.pi * r**3, log_r)
    assert total * (z[2] - z[0]) == pytest.approx(np.exp(law.log_normalizer()), rel=5e-3)
    assert in_double_precision(law.potential, np.array([0.3, 0, 0, 0.5])) == pytest.approx(
        -law._loss_law.log_profile(0.045)
    )


@pytest.mark.slow
@pytest.mark.parametrize(("epsilon", "saturation"), [(4.2, 1.0), (8.0, 1.0), (8.0, 0.02)])
def test_strata_draws(epsilon, saturation):
    # Shares by quadrature over the loss; distribution of z and of |y| by quadrature of the density.
    law, n = StrataLaw(epsilon, saturation), 200_000
    draws = np.asarray(law.draw(jax.random.key(1), (n,)), dtype=np.float64)
    y, z = np.linalg.norm(draws[:, :3], axis=1), draws[:, 3]
    for share, seen in (
        (law.segment_probability(), (z >= 0) & (z <= 1)),
        (law.point_probability(), z > 1.5),
    ):
        assert abs(seen.mean() - share) < 4 * np.sqrt(share * (1 - share) / n)
    # ∫ g(½r² + ½s²) 4πr² dr over r < limit, on the segment, s = 0, and at distances s beyond it.
    s = (np.arange(500) + 0.5) / 1000

    def over_r(places, limit):
        log_r = np.linspace(-300, np.log(limit), 6001)
        loss = 0.5 * (np.exp(2 * log_r) + places[:, None] ** 2)
        density = np.exp(law._loss_law.log_profile(loss) + 3 * log_r)
        return 4 * np.pi * np.trapezoid(density, log_r)

    for limit, low, high in ((0.2, 0, 1), (1.0, 0, 1), (1.0, 1, 1.5), (100.0, 1, 1.25)):
        if high == 1:
            mass = over_r(np.zeros(1), limit)[0]
        else:
            mass = over_r(s[s < high - 1], limit).sum() / 1000
        share = mass / np.exp(law.log_normalizer())
        seen = (y < limit) & (z > low) & (z < high)
        assert abs(seen.mean() - share) < 4 * np.sqrt(share * (1 - share) / n) + 1e-3 * share
    # Of every direction alike.
    assert np.all(np.abs(np.mean(draws[:, :3] > 0, axis=0) - 0.5) < 2 / np.sqrt(n))


@pytest.mark.slow
def test_sgd_collapses_onto_the_strata_that_attract():
    # ε = 3 lies between the critical ratios 2 of the point and 4 of the segment: from the basin of
    # the point 70 % reach L < 1e−4 on the segment by t = 60 and 0.4 % at the point. At ε = 1.5 both
    # absorb, in shares that depend on the start.
    def near_point(key):
        offset = 0.1 * jax.random.normal(key, (4,))
        return offset.at[3].add(2.0)

    problem, n = landscape(StrataLaw.loss, near_point), 4000
    shares = []
    for epsilon in (3.0, 1.5):
        dynamics = SGD(0.01, noise.LossScaled(epsilon / 0.01, saturation=1.0))
        tree = statsgd.simulate(problem, dynamics, steps=6000, replicas=n, seed=1, progress=False)
        z = tree["endpoints"]["params"].values[:, 3]
        dead = tree["run"]["loss"].values < 1e-4
        shares.append((np.mean(dead & (z < 1.5)), np.mean(dead & (z > 1.5))))
    (segment, point), (also_segment, also_point) = shares
    assert abs(segment - 0.70) < 4 * np.sqrt(0.21 / n) + 0.06
    assert point < 0.02
    assert also_segment > 0.05
    assert also_point > 0.5
    assert also_segment + also_point > 0.95


@pytest.mark.parametrize(
    ("noise_ratio", "saturation"), [(4.0001, 1.0), (4.000001, 1.0), (4.1, 1e-6), (20.0, 1e6)]
)
def test_strata_near_the_critical_noise_and_at_any_saturation(noise_ratio, saturation):
    # Z = 4π ∫ g [√(2L) + πL + 2J(L)] dL in log L, below e^low by its power laws.
    alpha = 1 + 2 / noise_ratio
    rate, cut = (alpha - 1) / saturation, np.log(1 / 8)

    def density(log_loss, power):
        loss = np.exp(log_loss)
        return (1 + loss / saturation) * np.exp(-rate * loss + power * log_loss)

    def around(log_loss):
        angle = np.arcsin(min(1.0, 0.5 * np.exp(-(np.log(2) + log_loss) / 2)))
        return density(log_loss, 2 - alpha) * (np.pi + 2 * angle + np.sin(2 * angle))

    def segment(log_loss):
        return np.sqrt(2) * density(log_loss, 1.5 - alpha)

    low, high = np.log(min(1 / 8, saturation)) - 60, np.log(80 / rate)
    places = np.concatenate([np.linspace(low, high, 40), [cut]])
    ends = np.unique(places[places <= high])
    parts = [
        sum(quad(part, *pair, epsabs=0, epsrel=1e-11)[0] for pair in itertools.pairwise(ends))
        for part in (segment, around)
    ]
    beside = parts[0] + np.sqrt(2) * np.exp((1.5 - alpha) * low) / (1.5 - alpha)
    total = beside + parts[1] + 2 * np.pi * np.exp((2 - alpha) * low) / (2 - alpha)
    law = StrataLaw(noise_ratio, saturation)
    assert law.log_normalizer() == pytest.approx(np.log(4 * np.pi * total), abs=1e-8)
    outside = (total - beside) / total
    assert 2 * law.point_probability() == pytest.approx(outside, rel=1e-5)


@pytest.mark.parametrize(("q", "noise_ratio"), [(3, 8.0), (3, 4.001), (3, 4.00001), (40, 0.2)])
def test_torus_near_its_critical_noise(q, noise_ratio):
    # E L = Z(α−1)/Z(α) of Z(α) = (2π)^q/Γ(α) ∫ t^(α−1) (e^(−t)I₀(t))^q dt.
    def log_partition(alpha):
        def integrand(log_t):
            return np.exp(alpha * log_t + q * np.log(i0e(np.exp(log_t))))

        ends = np.linspace(-40 / alpha, 14, 30)
        inside = sum(quad(integrand, *pair, epsrel=1e-12)[0] for pair in itertools.pairwise(ends))
        # I₀ by its asymptotic series: e^(−t)I₀ = (2πt)^(−½)(1 + 1/(8t) + …)
        power, end = q / 2 - alpha, 14
        beyond = (2 * np.pi) ** (-q / 2) * np.exp(-power * end) / power
        return np.log(inside + beyond) + q * np.log(2 * np.pi) - gammaln(alpha)

    alpha = 1 + 2 / noise_ratio
    law = TorusPowerOfLossLaw(q, noise_ratio)
    assert law.log_normalizer() == pytest.approx(log_partition(alpha), abs=1e-6)
    expected = np.exp(log_partition(alpha - 1) - log_partition(alpha))
    assert law.mean_loss() == pytest.approx(expected, rel=1e-5)
    assert law.error_estimate < 1e-8
