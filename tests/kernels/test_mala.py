"""MALA: detailed balance of its acceptance, and its adaptation."""

import jax
import jax.numpy as jnp
import numpy as np

from statsgd.kernels import MALA, mala
from statsgd.kernels.mala import init, step
from statsgd.kernels.preconditioner import as_preconditioner
from statsgd.kernels.tree import random_like


def quartic(x):
    return x**4 / 4 - 0.3 * x


def test_acceptance_satisfies_detailed_balance():
    # p(x) q(x→y) a(x→y) = p(y) q(y→x) a(y→x), with a recomputed from its definition.
    h, temperature = 0.3, 0.7
    gradient = jax.grad(quartic)

    def log_proposal(y, x):
        return -((y - x + h * gradient(x)) ** 2) / (4 * h * temperature)

    key = jax.random.key(3)
    parameters = {"step_size": jnp.asarray(h), "temperature": jnp.asarray(temperature)}
    parameters["preconditioner"] = as_preconditioner("preconditioner", 1.0)
    for k in jax.random.split(key, 20):
        x = jnp.asarray(0.4)
        start = init(x, quartic, parameters)
        _, info = step(k, start, quartic, parameters)
        noise_key, _ = jax.random.split(k)
        xi = random_like(noise_key, x)
        y = x - h * gradient(x) + jnp.sqrt(2 * h * temperature) * xi
        log_ratio = (quartic(x) - quartic(y)) / temperature
        log_ratio += log_proposal(x, y) - log_proposal(y, x)
        expected = np.exp(min(0.0, float(log_ratio)))
        np.testing.assert_allclose(info.accept_prob, expected, rtol=1e-4)


def test_step_size_adapts_to_the_target_acceptance():
    from numpyro.infer import MCMC

    kernel = MALA(potential_fn=lambda z: 50 * jnp.sum(z["x"] ** 2), step_size=10.0)
    mcmc = MCMC(
        kernel, num_warmup=2000, num_samples=2000, num_chains=2, chain_method="vectorized",
        progress_bar=False,
    )  # fmt: skip
    mcmc.run(
        jax.random.key(0),
        init_params={"x": jnp.ones((2, 20))},
        extra_fields=("accept_prob", "step_size"),
    )
    fields = mcmc.get_extra_fields()
    assert abs(float(fields["accept_prob"].mean()) - 0.574) < 0.05
    per_chain = mcmc.get_extra_fields(group_by_chain=True)["step_size"]
    assert np.all(per_chain == per_chain[:, :1]), "the step is fixed after warm-up"


def test_core_is_usable_without_numpyro():
    parameters = {"step_size": jnp.asarray(0.5), "temperature": jnp.asarray(1.0)}
    parameters["preconditioner"] = as_preconditioner("preconditioner", 1.0)

    def body(state, key):
        state, _ = mala.step(key, state, quartic, parameters)
        return state, state.position

    start = mala.init(jnp.asarray(0.0), quartic, parameters)
    _, path = jax.lax.scan(body, start, jax.random.split(jax.random.key(0), 1000))
    assert np.all(np.isfinite(path))
