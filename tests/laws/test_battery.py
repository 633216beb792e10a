"""What every law in the registry must do, on the examples that it lists itself."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from numpyro.infer import Predictive
from scipy import integrate

from statsgd.laws import LAWS, ImproperLawError

EXAMPLES = [
    # Every law's first example by default, the others with the slow tests.
    pytest.param(law, id=f"{name}-{i}", marks=[pytest.mark.slow] if i else [])
    for name, kind in LAWS.items()
    for i, law in enumerate(kind.examples())
]
IMPROPER = [
    pytest.param(law, id=f"{name}-{i}")
    for name, kind in LAWS.items()
    for i, law in enumerate(kind.improper_examples())
]


@pytest.mark.parametrize("name", sorted(LAWS))
def test_law_describes_itself(name):
    law = LAWS[name]
    assert law.examples(), "a law lists at least one example"
    for text in (law.setting, law.exactness, law.citation, law.__doc__):
        assert text


@pytest.mark.parametrize("law", EXAMPLES)
def test_draws_have_the_moments_of_the_law(law):
    if not (law.generative and hasattr(law, "mean") and hasattr(law, "covariance")):
        return
    number = 40_000
    draws = np.asarray(law.draw(jax.random.key(1), (number,)), dtype=float)
    assert draws.shape == (number, law.dimension)
    mean, covariance = np.asarray(law.mean()), np.asarray(law.covariance())
    if not np.all(np.isfinite(covariance)):
        return
    scale = np.sqrt(np.diagonal(covariance))
    standard = (draws - mean) / scale
    error = standard.std(axis=0) / np.sqrt(number)
    assert np.all(np.abs(standard.mean(axis=0)) < 4 * error)
    correlation = covariance / scale[:, None] / scale
    products = standard[:, :, None] * standard[:, None, :]
    off = np.abs(products.mean(axis=0) - correlation)
    assert np.all(off < 4 * products.std(axis=0) / np.sqrt(number))


@pytest.mark.parametrize("law", EXAMPLES)
def test_normalised_density_integrates_to_one(law):
    if not law.normalized or law.dimension > 2 or not law.generative:
        return
    draws = np.asarray(law.draw(jax.random.key(2), (2000,)), dtype=float)
    density = jax.vmap(lambda x: jnp.exp(law.log_density(x)))
    if law.dimension == 1:
        low, high = draws.min(), draws.max()
        inside = np.mean((draws > low) & (draws < high))
        grid = np.linspace(low, high, 20_001)
        mass = integrate.trapezoid(np.asarray(density(grid[:, None])), grid)
        # The extreme draws leave out about 2/2000 of the mass.
        assert 0.99 * inside < mass < 1.001
    else:
        axes = [np.linspace(*np.quantile(draws[:, i], [0, 1]), 401) for i in range(2)]
        points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
        values = np.asarray(density(points)).reshape(401, 401)
        mass = integrate.trapezoid(integrate.trapezoid(values, axes[1]), axes[0])
        inside = np.prod([1 - 1 / 1000, 1 - 1 / 1000])
        assert 0.97 * inside < mass < 1.001


@pytest.mark.parametrize("law", EXAMPLES)
def test_density_is_traceable_and_agrees_in_both_precisions(law):
    point = np.asarray(law.draw(jax.random.key(3)) if law.generative else _start(law), float)
    value = law.log_density(point)
    plain = float(value)
    compiled = eqx.filter_jit(lambda law, x: law.log_density(x))
    single = float(compiled(law, jnp.asarray(point)))
    np.testing.assert_allclose(single, plain, rtol=1e-3, atol=1e-3)
    gradient = jax.grad(law.log_density)(jnp.asarray(point))
    assert np.all(np.isfinite(gradient))
    with jax.enable_x64(True):
        double = float(compiled(law, jnp.asarray(point)))
    # Laws that go through a user's loss answer in the precision that is set, others in float64.
    tolerance = 1e-8 if np.asarray(value).dtype == np.float64 else 1e-3
    np.testing.assert_allclose(double, plain, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("law", EXAMPLES)
def test_model_has_the_sites_it_promises(law):
    model = numpyro.handlers.seed(law.model, 0)
    if not law.generative:  # a flat prior cannot be drawn from
        model = numpyro.handlers.substitute(model, data={"params": _start(law)})
    trace = numpyro.handlers.trace(model).get_trace()
    for variable in law.variables:
        assert trace[variable]["value"].shape == (law.dimension,)
    sites = [site for site in trace.values() if site["type"] == "sample"]
    assert law.has_discrete_sites == any(site["fn"].is_discrete for site in sites)
    if law.generative:
        predict = eqx.filter_jit(lambda law, key: Predictive(law.model, num_samples=3)(key))
        draws = predict(law, jax.random.key(0))["params"]
        assert draws.shape == (3, law.dimension)
        assert np.all(np.isfinite(draws))


@pytest.mark.parametrize("law", IMPROPER)
def test_improper_law_refuses_every_use(law):
    point = np.zeros(law.dimension)
    for use in (law.require_proper, law.model, lambda: law.log_density(point)):
        with pytest.raises(ImproperLawError):
            use()
    if law.generative:
        with pytest.raises(ImproperLawError):
            law.draw(jax.random.key(0))


def _start(law):
    return np.full(law.dimension, 0.3)
