"""Mean-field Langevin: the finite-step laws of its particles, and the scaling with their number."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.infer import MCMC

from statsgd import sample
from statsgd.kernels import MeanFieldFunctional, MeanFieldLangevin
from statsgd.laws import ImproperLawError, MeanFieldLaw, QuadraticMeanField
from statsgd.laws.mean_field import (
    shared_minibatch_variance,
    two_layer_mean_field,
    variance_reduced_variance,
)
from tests.laws.examples import example
from tests.statistical import assert_mean_within, assert_variance_within

QUIET = {"progress": False, "diagnose": False}
RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=50)
TARGETS = 2 * INPUTS + RNG.normal(size=50)


def run(kernel, particles, **settings):
    tree = sample(None, kernel, starts={"x": np.asarray(particles)}, **(QUIET | settings))
    return tree["posterior"]["x"].values.astype(float)


@pytest.mark.parametrize(
    ("momentum", "center", "within"),
    [(0.0, 0.0100000, 0.52777778), (0.5, 0.0075000, 0.50892857)],
)
def test_particles_on_a_quadratic_have_the_law_of_their_chain(momentum, center, within):
    # a, b, y, τ, N, η = 1, 4, 2, .5, 20, .2: Var X̄ = (τ/N(a+b))/(1 − η(a+b)/2) and
    # E[within] = (τ/a)(1 − 1/N)/(1 − ηa/2); with momentum 2(1+β) in place of 2.
    law = QuadraticMeanField.scalar(1, 4, 2, 0.5, 20, 0.2, momentum)
    kernel = MeanFieldLangevin.on_law(law, learning_rate=0.2, momentum=momentum)
    x = run(kernel, np.full((1, 20, 1), 1.6), seed=0, warmup=50, draws=400, chains=64)[..., 0]
    assert_mean_within(x.mean(axis=(1, 2)), 1.6)
    assert_mean_within(((x.mean(axis=2) - 1.6) ** 2).mean(axis=1), center)
    assert_mean_within(x.var(axis=2).mean(axis=1), within)


@pytest.mark.slow
def test_transient():
    # η = .01, all particles at 0: after 50 steps E X̄, Var X̄ and E[within] in closed form.
    law = QuadraticMeanField.scalar(1, 4, 2, 0.5, 20, 0.01)
    kernel = MeanFieldLangevin.on_law(law, learning_rate=0.01)
    x = run(kernel, np.zeros((1, 20, 1)), seed=1, warmup=49, draws=1, chains=4000)[:, 0, :, 0]
    assert_mean_within(x.mean(axis=1), 1.47688804)
    assert_variance_within(x.mean(axis=1), 0.00509784)
    assert_mean_within(x.var(axis=1), 0.30264788)


def regression():
    """½(z E x − y)² on fifty examples, weight decay .5."""
    return MeanFieldFunctional(
        lambda x, example: example["z"] * x[0],
        lambda output, example: 0.5 * (output - example["y"]) ** 2,
        {"z": INPUTS, "y": TARGETS},
        0.5,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"gradient": "full"}, 0.00153674),
        ({"gradient": "minibatch", "batch_size": 2}, 0.01347666),
        (
            {"gradient": "minibatch", "batch_size": 10, "sampling": "without_replacement"},
            0.00346707,
        ),
        ({"gradient": "svrg", "batch_size": 2, "refresh_every": 25}, None),
    ],
    ids=lambda value: value.get("sampling", value["gradient"]) if isinstance(value, dict) else "",
)
def test_shared_minibatches_and_their_reduced_variance(settings, expected):
    # τ = .2, N = 100, η = .05. SVRG: by its exact recursion, about the full-batch value.
    problem = (0.5, 0.2, 100, 0.05)
    if expected is None:
        expected = variance_reduced_variance(INPUTS, *problem, 2, 25).at_refresh
    elif settings["gradient"] == "minibatch":
        predicted = shared_minibatch_variance(
            INPUTS, TARGETS, *problem, settings["batch_size"],
            settings.get("sampling", "with_replacement"),
        )  # fmt: skip
        np.testing.assert_allclose(predicted, expected, atol=5e-9)
    kernel = MeanFieldLangevin(functional=regression(), step_size=0.05, temperature=0.2, **settings)
    start = np.full((1, 100, 1), 1.187134)
    thinning = 1 if settings["gradient"] == "svrg" else 8
    x = run(kernel, start, seed=2, warmup=120, draws=200, chains=64, thinning=thinning)[..., 0]
    center = x.mean(axis=2) - 1.187134
    assert_mean_within((center**2).mean(axis=1), expected)
    # What particles have for themselves is the same: (τ/a)(1 − 1/N)/(1 − ηa/2).
    assert_mean_within(x.var(axis=2).mean(axis=1), 0.4 * 0.99 / (1 - 0.0125))


def test_reduced_variance_against_its_recursion():
    # The scalar chain itself, 4000 runs of 12 rounds: standard error 2.2 %.
    exact = variance_reduced_variance(INPUTS, 0.5, 0.2, 1, 0.3, 1, 5)
    a, b, noise = 0.5, np.mean(INPUTS**2), np.sqrt(2 * 0.2 * 0.3)
    rng, e = np.random.default_rng(1), np.zeros(4000)
    phases = []
    for _ in range(12):
        snapshot = e.copy()
        phases = [e**2]
        for _ in range(5):
            curvature = a + INPUTS[rng.integers(50, size=4000)] ** 2
            e = e - 0.3 * ((a + b) * snapshot + curvature * (e - snapshot))
            e = e + noise * rng.normal(size=4000)
            phases.append(e**2)
    assert_mean_within(phases[0], exact.at_refresh, resolve=1.2)
    assert_mean_within(np.mean(phases[:-1], axis=0), exact.average, resolve=1.2)


def test_reduced_variance_of_an_unstable_mean_is_refused():
    with pytest.raises(ImproperLawError, match="destabilises the mean: reduce learning_rate or"):
        variance_reduced_variance([1.0, 10.0], 0.5, 0.2, 10, 0.05, 1, 20)


@pytest.mark.slow
def test_tanh_neurons_at_a_finite_step():
    # λ, τ, y, N, η = 1, .1, .8, 5, .2: long simulation, errors .0002.
    law = two_layer_mean_field([1.0], [0.8], 1.0, 0.1, 5)
    assert isinstance(law, MeanFieldLaw)
    kernel = MeanFieldLangevin.on_law(law, learning_rate=0.2)
    tree = sample(law, kernel, seed=3, warmup=50, draws=400, chains=256, **QUIET)
    x = tree["posterior"]["params"].values.astype(float)
    feature = np.tanh(x).mean(axis=2)
    measured = {
        0.34082: feature.mean(axis=1),
        0.23434: (x**2).mean(axis=(1, 2)),
        0.04496: 5 * ((feature - 0.34082) ** 2).mean(axis=1),
    }
    for expected, samples in measured.items():
        error = np.hypot(samples.std() / np.sqrt(len(samples)), 0.0002)
        assert 4 * error < 0.1 * expected
        assert abs(samples.mean() - expected) < 4 * error


@pytest.mark.slow
def test_particles_feel_n_times_the_gradient_of_the_loss():
    # v_i = ∇(δF/δμ)(x_i) = (1/n) Σ_j ℓ'_j ∇h_j(x_i) + λ x_i, and U/τ is the law's potential.
    law = two_layer_mean_field([1.0, -2.0], [0.6, 0.3], 0.5, 0.1, 3)
    functional, x = MeanFieldFunctional.of(law), np.array([0.3, -1.0, 2.0])
    z, y = np.array([1.0, -2.0]), np.array([0.6, 0.3])
    residual = np.tanh(np.outer(x, z)).mean(axis=0) - y
    expected = (residual * z / np.cosh(np.outer(x, z)) ** 2).mean(axis=1) + 0.5 * x
    found = jax.grad(functional.potential)(jnp.asarray(x))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(functional.value(jnp.asarray(x)[:, None]), law.functional(x))
    gap = [float(functional.potential(jnp.asarray(s * x))) for s in (1.0, 0.2)]
    densities = [float(law.log_density(s * x)) for s in (1.0, 0.2)]
    np.testing.assert_allclose((gap[1] - gap[0]) / 0.1, densities[0] - densities[1], rtol=1e-5)


@pytest.mark.slow
def test_on_the_model_of_the_law_the_step_is_in_units_of_its_potential():
    # On the law U = (N/τ)F: temperature 1 and step ητ are the same path as τ and η on N F.
    law = two_layer_mean_field([1.0], [0.8], 1.0, 0.1, 4)
    start = {"params": jnp.tile(jnp.linspace(-0.5, 0.5, 4), (2, 1))}
    paths = []
    for kernel in (
        MeanFieldLangevin(law.model, step_size=0.2 * 0.1),
        MeanFieldLangevin.on_law(law, learning_rate=0.2),
    ):
        mcmc = MCMC(
            kernel, num_warmup=5, num_samples=20, num_chains=2, chain_method="vectorized",
            progress_bar=False,
        )  # fmt: skip
        mcmc.run(jax.random.key(0), init_params=start)
        paths.append(mcmc.get_samples()["params"])
    np.testing.assert_allclose(paths[0], paths[1], rtol=1e-3, atol=1e-4)


@pytest.mark.usefixtures("unchecked")
def test_bad_settings_are_named():
    data, functional = {"z": INPUTS}, regression()
    with pytest.raises(ValueError, match="proximal Gibbs law not normalisable: add weight_decay"):
        MeanFieldFunctional(lambda x, e: x, lambda o, e: o, data, 0.0)
    with pytest.raises(ValueError, match="examples must have one leading axis"):
        MeanFieldFunctional(lambda x, e: x, lambda o, e: o, {"z": INPUTS, "y": [1.0]}, 1.0)
    for settings, message in (
        ({"gradient": "some"}, "gradient must be one of"),
        ({"gradient": "minibatch"}, "needs functional"),
        ({"gradient": "minibatch", "functional": functional}, "batch_size must be an integer"),
        (
            {
                "gradient": "minibatch",
                "functional": functional,
                "batch_size": 51,
                "sampling": "without_replacement",
            },
            "batch_size must be at most the number of examples 50",
        ),
        (
            {"gradient": "svrg", "functional": functional, "batch_size": 2},
            "refresh_every must be an integer",
        ),
        ({"functional": functional, "potential_fn": lambda z: z}, "functional takes the place"),
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\)"),
    ):
        with pytest.raises(ValueError, match=message):
            MeanFieldLangevin(**settings)
    with pytest.raises(ValueError, match="law must be a MeanFieldLaw or a QuadraticMeanField"):
        MeanFieldFunctional.of(example("Gibbs"))
