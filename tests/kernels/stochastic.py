"""A Gaussian mean model as a problem and as a NumPyro model, and independent chains on it."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from statsgd.problems import empirical_risk


def mean_problem(data, variance=1.0):
    """L = mean of (y − θ)²/(2s²), so that U = N L has precision N/s²."""
    return empirical_risk(
        lambda params, y: (y - params["x"]) ** 2 / (2 * variance), data, {"x": jnp.zeros(())}
    )


def normal_scores(number, ddof):
    """Data of mean zero and unit variance with `ddof` taken off their number."""
    data = np.linspace(-1, 1, number) ** 3 + 0.2 * np.linspace(-1, 1, number) ** 2
    data -= data.mean()
    return data / data.std(ddof=ddof)


def plate_model(data, batch_size, width=10.0):
    """y ~ N(x, 1) with x ~ N(0, width²), subsampled."""
    x = numpyro.sample("x", dist.Normal(0.0, width))
    with numpyro.plate("data", len(data), subsample_size=batch_size):
        batch = numpyro.subsample(jnp.asarray(data), event_dim=0)
        numpyro.sample("y", dist.Normal(x, 1.0), obs=batch)


def walk(kernel, start, steps, seed=0):
    """The state after `steps` of independent chains from `start`, with a leading axis of chains."""
    number = len(jax.tree.leaves(start)[0])

    @jax.jit
    def go(key, start):
        state = kernel.init(jax.random.split(key, number), 0, start, (), {})
        return jax.lax.fori_loop(0, steps, lambda _, s: kernel.sample(s, (), {}), state)

    return go(jax.random.key(seed), jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), start))
