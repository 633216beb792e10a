import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad

import statsgd
from statsgd import SGD, noise
from statsgd.laws import ImproperLawError, LossScaledLaw, ScalarNoiseLaw
from statsgd.laws.loss_noise import effective_noise_ratio
from statsgd.laws.loss_noise.loss_potential import unequal_wells
from statsgd.laws.loss_noise.torus import cosine_loss
from statsgd.precision import in_double_precision
from statsgd.problems import landscape
from tests.laws.examples import example


def density_integral(law, low, high, weight=lambda x: 1.0):
    """∫ exp(−U) weight dx in one dimension, on a fine midpoint grid in double precision."""
    x = low + (high - low) * (np.arange(200_000) + 0.5) / 200_000
    potential = in_double_precision(jax.vmap(law.potential), x[:, None])
    return np.mean(np.exp(-potential) * weight(x)) * (high - low)


# E L = (α−1) ∫t^(α−2)(e^(−t)I₀)^q / ∫t^(α−1)(e^(−t)I₀)^q
@pytest.mark.parametrize(("q", "epsilon", "mean"), [(3, 8, 1.360094), (5, 2, 2.987967)])
def test_torus_mean_loss(q, epsilon, mean):
    assert LossScaledLaw.torus(q, epsilon).mean_loss() == pytest.approx(mean, abs=6e-7)


# The share of low loss, known to 5·10⁻⁴ from importance sampling.
@pytest.mark.slow
@pytest.mark.parametrize(("q", "epsilon", "low"), [(3, 8, 0.2780), (5, 2, 0.0626)])
def test_torus_draws_have_the_mean_loss_and_the_low_loss_share(q, epsilon, low):
    law = LossScaledLaw.torus(q, epsilon)
    n = 50_000
    draws = law.draw(jax.random.key(1), (n,))
    loss = np.asarray(jax.vmap(cosine_loss)(draws))
    # standard error of E L about 0.006, so that a factor 1.1 is 20 errors away
    assert abs(loss.mean() - law.mean_loss()) < 4 * loss.std() / np.sqrt(n)
    share = np.mean(loss < 0.1)
    assert abs(share - low) < 4 * np.sqrt(low * (1 - low) / n) + 5e-4
    assert np.all(np.abs(draws) <= np.pi)


@pytest.mark.slow
def test_torus_density_is_normalised():
    # q = 3 near 𝓜 by its power, elsewhere on a grid: p = L^(−α)/Z; the radius-0.5 ball in closed
    # form up to the relative 1/60 by which cosine departs from the quadratic there.
    law = LossScaledLaw.torus(3, 8.0)
    n = 160
    axis = (np.arange(n) + 0.5) / n * np.pi
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    loss = 2 * np.sum(np.sin(grid / 2) ** 2, -1)
    alpha = 1.25
    far = np.sum(loss**2, -1) > 0
    # Subtract the same integral of a quadratic loss on the cube by midpoint; add it back exactly.
    quadratic = np.sum(grid**2, -1) / 2
    cell = (np.pi / n) ** 3 * 8
    difference = np.sum(loss[far] ** -alpha - quadratic[far] ** -alpha) * cell

    def shell(t):  # ∫_cube L^(−α) = 1/Γ(α) ∫ t^(α−1) (∫_{−π}^{π} e^(−tx²/2))³ dt
        from scipy.special import erf, gamma

        return (
            t ** (alpha - 1)
            * (np.sqrt(2 * np.pi / t) * erf(np.pi * np.sqrt(t / 2))) ** 3
            / (gamma(alpha))
        )

    exact = quad(lambda x: shell(np.exp(x)) * np.exp(x), -35, 170, limit=800)[0]
    assert difference + exact == pytest.approx(np.exp(law.log_normalizer()), rel=2e-3)


def test_torus_normaliser_is_traceable_and_the_same():
    value = jax.jit(lambda e: LossScaledLaw.torus(3, e).log_normalizer())(8.0)
    assert float(value) == pytest.approx(
        float(LossScaledLaw.torus(3, 8.0).log_normalizer()), rel=1e-4
    )


def test_general_law_on_the_torus_agrees_with_the_exact_one_up_to_a_constant():
    general = LossScaledLaw(cosine_loss, 3, 8.0, codimension=3, periodic=True)
    exact = LossScaledLaw.torus(3, 8.0)
    points = jax.random.uniform(jax.random.key(0), (5, 3), minval=-3, maxval=3)
    gap = [float(general.log_density(x) - exact.log_density(x)) for x in points]
    assert np.ptp(gap) < 1e-4


@pytest.mark.parametrize(
    ("reading", "exponent"), [("ito", 1.25), ("stratonovich", 0.75), ("anti_ito", 0.25)]
)
def test_readings_shift_the_exponent(reading, exponent):
    # L^(−1−2/ε), L^(−1/2−2/ε), L^(−2/ε) at ε = 8
    assert LossScaledLaw.torus(3, 8.0, reading).loss_exponent == exponent
    law = LossScaledLaw(cosine_loss, 3, 8.0, codimension=3, periodic=True, reading=reading)
    assert law.loss_exponent == exponent


def test_equal_wells_prefer_the_flat_one():
    # P(flat) of 0.05 + ½[x(1−x)(1+2x²)]² at ε = 0.5, cut at 0.6585913: 0.739192
    law = LossScaledLaw(unequal_wells, 1, 0.5, codimension=None, growth=8.0)
    flat = density_integral(law, -6, 0.6585913)
    sharp = density_integral(law, 0.6585913, 6)
    assert flat / (flat + sharp) == pytest.approx(0.739192, rel=2e-6)


@pytest.mark.parametrize(
    ("law", "message"),
    [
        (LossScaledLaw.torus(3, 3.0), r"noise_ratio 3 must exceed 4/\(q-2\) = 4 for"),
        (LossScaledLaw.torus(2, 30.0), "no noise_ratio works for codimension 2 <= 2"),
        (
            LossScaledLaw(cosine_loss, 3, 8.0, codimension=3),
            r"alpha\*p = 2.5 must exceed dim = 3",
        ),
        (
            LossScaledLaw(lambda x: jnp.sum(x**2) ** 3, 12, 1.5, codimension=12, growth=6.0),
            r"explosive: alpha = 2.333 < 1\+\(d-2\)/p = 2.667",
        ),
    ],
)
def test_improper_laws_are_refused(law, message):
    for read in (law.model, lambda: law.log_density(np.ones(law.dimension))):
        with pytest.raises(ImproperLawError, match=message):
            read()


def torus_problem():
    return landscape(cosine_loss, lambda key: jax.random.uniform(key, (3,), minval=-3, maxval=3))


def test_from_sgd_reads_the_noise_and_refuses_what_the_law_excludes():
    problem = torus_problem()
    law = LossScaledLaw.from_sgd(
        problem, SGD(0.01, noise.LossScaled(800.0)), codimension=3, periodic=True
    )
    law.require_proper()
    assert law.noise_ratio == pytest.approx(8.0)
    for bad, message in [
        (SGD(0.01, noise.Isotropic(1.0)), "noise must be LossScaled"),
        (SGD(0.01, noise.LossScaled(800.0), momentum=0.5), "need momentum = 0; got 0.5"),
        (SGD(0.01, noise.LossScaled(800.0), weight_decay=0.1), "need weight_decay = 0; got 0.1"),
        (SGD(0.01, noise.LossScaled(800.0, floor=0.1)), "floor 0 and no saturation"),
        (SGD(0.01, noise.LossScaled(800.0, saturation=1.0)), "floor 0 and no saturation"),
    ]:
        with pytest.raises(ValueError, match=message):
            LossScaledLaw.from_sgd(problem, bad, codimension=3, periodic=True)


def test_effective_noise_ratio_counts_momentum():
    assert effective_noise_ratio(0.002, 500.0, 0.5) == pytest.approx(2.0)


@pytest.mark.slow
def test_slow_variable_with_momentum_follows_the_effective_noise_ratio():
    # codimension 3, h = 1, β = 0.5, η = 0.002, ε' = 2: d log|θ|/dt' = ε'/4 − 1 = −0.5 in
    # t' = ηk/(1−β), up to the 2 % by which ηh ≪ (1−β)² is not yet reached
    eta, beta, n = 0.002, 0.5, 2000
    sgd = SGD(eta, noise.LossScaled(2.0 * (1 - beta) / eta), momentum=beta)
    problem = landscape(lambda v: 0.5 * v @ v, lambda key: jax.random.normal(key, (3,)))
    tree = statsgd.simulate(
        problem,
        sgd,
        steps=2500,
        replicas=n,
        seed=0,
        progress=False,
        observe={"log": lambda v: 0.5 * jnp.log(v @ v)},
        observe_at=[500, 2500],
    )
    log = tree["observables"]["log"].values
    slope = (log[:, 1] - log[:, 0]) / (2000 * eta / (1 - beta))
    assert abs(slope.mean() + 0.5) < 4 * slope.std() / np.sqrt(n) + 0.01


@pytest.mark.slow
def test_sgd_on_the_torus_has_the_mean_loss_up_to_its_step():
    # chain at η = 0.0025: 1.372 ± 0.016 against the law's 1.360; the bias is O(η)
    eta, replicas = 0.0025, 6000
    dynamics = SGD(eta, noise.LossScaled(8.0 / eta))
    tree = statsgd.simulate(
        torus_problem(), dynamics, steps=8000, replicas=replicas, seed=3, progress=False
    )
    loss = tree["run"]["loss"].values
    error = loss.std() / np.sqrt(replicas)
    assert abs(loss.mean() - 1.360094) < 4 * error + 0.025


# φ = √(1+s), L = (x² + 4y²)/2, ε = 0.8: E L = 0.48000, P(L < 0.2) = 0.379497
def test_scalar_noise_of_any_profile():
    law = ScalarNoiseLaw(
        lambda v: 0.5 * (v[0] ** 2 + 4 * v[1] ** 2),
        2,
        lambda s: jnp.sqrt(1 + s),
        0.8,
        codimension=2,
    )
    law.require_proper()
    # In two dimensions the volume of {L < s} grows evenly: the density of L is exp(−U).
    loss = np.linspace(0, 60, 60_001)
    points = np.stack([np.sqrt(2 * loss), np.zeros_like(loss)], -1)
    log_p = -in_double_precision(jax.vmap(law.potential), points)
    p = np.exp(log_p - log_p.max())
    mass = np.trapezoid(p, loss)
    assert np.trapezoid(p * loss, loss) / mass == pytest.approx(0.48, abs=5e-6)
    low = loss <= 0.2 + 1e-12
    assert np.trapezoid(p[low], loss[low]) / mass == pytest.approx(0.379497, abs=1e-6)
    # (1+L)^(−1/2) exp(−(4/ε)√(1+L))
    expected = -0.5 * np.log1p(loss) - 4 / 0.8 * np.sqrt(1 + loss)
    np.testing.assert_allclose(log_p - log_p[0], expected - expected[0], atol=1e-8)


@pytest.mark.parametrize(
    ("reading", "power"),
    [
        ("ito", 2.5),
        *(
            pytest.param(*one, marks=pytest.mark.slow)
            for one in (("stratonovich", 2), ("anti_ito", 1.5))
        ),
    ],
)
def test_scalar_noise_proportional_to_the_loss_is_the_power_law(reading, power):
    # exponent α = a + 2/ε with ε = 4/3
    law = ScalarNoiseLaw(
        cosine_loss, 3, lambda s: s, 4 / 3, codimension=None, growth=4.0, reading=reading
    )
    points = jax.random.uniform(jax.random.key(0), (4, 3), minval=0.2, maxval=1.0)
    for x in points:
        assert float(law.potential(x)) == pytest.approx(
            power * float(jnp.log(cosine_loss(x))), abs=1e-4
        )


def test_scalar_noise_judges_properness_from_its_profile():
    for law in ScalarNoiseLaw.improper_examples():
        with pytest.raises(ImproperLawError, match=r"integrable|non-normalisable"):
            law.require_proper()
    # saturating noise makes the quadratic proper iff ε > 4 in three dimensions
    profile = lambda s: s / (1 + s)  # noqa: E731
    ScalarNoiseLaw(cosine_loss, 3, profile, 4.5, codimension=3).require_proper()
    with pytest.raises(ImproperLawError, match="zero-loss set"):
        ScalarNoiseLaw(cosine_loss, 3, profile, 3.5, codimension=3).require_proper()


def test_scalar_noise_works_inside_jit():
    law = example("ScalarNoiseLaw", 1)
    value = jax.jit(lambda v: law.log_density(v))(jnp.ones(2))
    assert float(value) == pytest.approx(float(law.log_density(jnp.ones(2))), rel=1e-5)


def test_scalar_noise_from_sgd_holds_floor_and_saturation_at_once():
    # φ = (s + c₀)/(1 + s/L_sat): ∫ds/φ = s/L_sat + (1 − c₀/L_sat) log(s + c₀)
    problem = landscape(lambda v: 0.5 * v @ v, np.zeros(2))
    sgd = SGD(0.01, noise.LossScaled(80.0, floor=0.3, saturation=2.0))
    law = ScalarNoiseLaw.from_sgd(problem, sgd, codimension=2)
    law.require_proper()
    loss = np.array([1e-3, 0.1, 1.0, 20.0])
    points = np.stack([np.sqrt(2 * loss), 0 * loss], -1)
    potential = in_double_precision(jax.vmap(law.potential), points)
    integral = loss / 2 + (1 - 0.3 / 2) * np.log(loss + 0.3)
    expected = np.log((loss + 0.3) / (1 + loss / 2)) + 2 / 0.8 * integral
    np.testing.assert_allclose(potential - potential[0], expected - expected[0], atol=1e-8)
