import jax.numpy as jnp
import numpy as np
import pytest

from statsgd import SGD, ImproperLawError, noise, simulate
from statsgd.laws import RescalingGibbs
from statsgd.laws.balance import langevin_charge_growth
from statsgd.laws.law import UnresolvedWarning
from statsgd.problems import landscape
from tests.laws.examples import example


def test_moments():
    # λ = .2, τ = .05, y = 1: p(f) ∝ K₀(λ|f|/τ) exp(−(f−y)²/τ), E[q²|f] = 4f² K₁(x)/(x K₀(x)).
    law = RescalingGibbs(1.0, 0.05, 0.2)
    mean = law.slope_expectation(lambda f: f)
    variance = law.slope_expectation(lambda f: (f - mean) ** 2)
    np.testing.assert_allclose(
        [mean, variance, law.charge_variance()], [0.886255, 0.0254025, 1.004047], atol=5e-7
    )


@pytest.mark.parametrize("index", [0, 1], ids=("branches", "origin"))
def test_against_quadrature_in_the_plane(index):
    law = example("RescalingGibbs", index)
    axis = np.linspace(-6, 6, 1201)
    u, w = np.meshgrid(axis, axis, indexing="ij")
    density = np.exp(law.log_density(np.stack([u, w], -1))) * 1e-4
    np.testing.assert_allclose(density.sum(), 1, rtol=1e-6)
    second = np.array([[(u * u * density).sum(), (u * w * density).sum()]])
    np.testing.assert_allclose(second, law.covariance()[:1], rtol=1e-6, atol=1e-12)
    charge = ((u**2 - w**2) ** 2 * density).sum()
    np.testing.assert_allclose(charge, law.charge_variance(), rtol=1e-6)


@pytest.mark.slow
def test_charge_grows_without_decay():
    # τ = .05 from (1, 1), y = 1, t = 2: E q² = q₀² + 8τ∫E(u² + w²)dt; 4000 runs, η = .005.
    eta, tau = 0.005, 0.05
    problem = landscape(lambda p: (p[0] * p[1] - 1) ** 2, np.ones(2))
    run = simulate(
        problem,
        SGD(eta, noise.Isotropic(2 * tau / eta)),
        steps=400,
        replicas=4000,
        seed=0,
        observe={"square": lambda p: jnp.sum(p**2)},
        observe_at=1,
        progress=False,
    )
    squares = run["observables"]["square"].values.astype(float)
    grown = langevin_charge_growth(0.0, tau, squares.mean(0).sum() * eta)
    x = run["endpoints"]["params"].values.astype(float)
    q = x[:, 0] ** 2 - x[:, 1] ** 2
    error = (q**2).std() / np.sqrt(4000)
    assert abs(np.mean(q**2) - grown) < 4 * error + 0.02
    np.testing.assert_allclose(grown, 1.719, rtol=0.03)


def test_improper_without_decay():
    with pytest.raises(ImproperLawError, match="improper along the rescaling orbit"):
        RescalingGibbs(1.0, 0.05, 0.0).log_density(np.ones(2))


def test_what_quadrature_does_not_resolve_is_said():
    law = RescalingGibbs(1.0, 0.1, 0.1)
    with pytest.warns(UnresolvedWarning, match="expectation over slopes"):
        law.slope_expectation(lambda f: float(np.sign(np.sin(1e4 * f))))
