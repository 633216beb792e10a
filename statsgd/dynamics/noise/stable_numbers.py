"""Random numbers of stable laws, in JAX."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from statsgd.arguments import real


def stability_index(name: str, value: Any) -> Any:
    """`value`, checked: an index of stability in (0, 2]."""
    return real(name, value, allowed="in (0, 2]", valid=lambda x: (x > 0) & (x <= 2))


def symmetric_stable(
    key: PRNGKeyArray, alpha: Any, shape: tuple[int, ...], dtype: Any = jnp.float32
) -> Float[Any, "..."]:
    """Numbers with E e^{iuξ} = e^{−|u|^α}, for α in (0, 2]:

        ξ = sin(αV)/cos(V)^(1/α) · (cos((1−α)V)/E)^((1−α)/α),   V ~ U(−π/2, π/2), E ~ Exp(1)

    which is tan V at α = 1 and 2√E sin V at α = 2. Source: Chambers, Mallows, Stuck (1976).
    """
    angle, wait, sign = jax.random.split(key, 3)
    # V from its distance to ±π/2, whose size makes the tails.
    gap = jnp.pi / 2 * _uniform(angle, shape, dtype)
    v = jnp.pi / 2 - gap
    e = -jnp.log1p(-_uniform(wait, shape, dtype))
    size = (jnp.cos((1 - alpha) * v) / e) ** ((1 - alpha) / alpha)
    number = jnp.sin(alpha * v) / jnp.sin(gap) ** (1 / alpha) * size
    return number * jax.random.rademacher(sign, shape, dtype)


def positive_stable(
    key: PRNGKeyArray, index: Any, shape: tuple[int, ...], dtype: Any = jnp.float32
) -> Float[Any, "..."]:
    """Positive numbers with E e^{−tA} = e^{−t^a}, for a in (0, 1]; one at a = 1:

        A = sin(aU)/sin(U)^(1/a) · (sin((1−a)U)/E)^((1−a)/a),   U ~ U(0, π), E ~ Exp(1)

    Source: Kanter (1975).
    """
    angle, wait = jax.random.split(key)
    share = _uniform(angle, shape, dtype)
    far, near = jnp.pi * share, jnp.pi * (1 - share)  # π − U and U, each exact where it is small
    sine = jnp.sin(jnp.minimum(far, near))
    top = jnp.where(far < near, jnp.sin(jnp.pi * (1 - index) + index * far), jnp.sin(index * near))
    e = -jnp.log1p(-_uniform(wait, shape, dtype))
    size = (jnp.sin((1 - index) * near) / e) ** ((1 - index) / index)
    return top / sine ** (1 / index) * size


def _uniform(key: PRNGKeyArray, shape: tuple[int, ...], dtype: Any) -> Float[Any, "..."]:
    """Numbers in (0, 1), down to 2⁻³³ in single precision, where `jax.random` stops at 2⁻²³."""
    if jnp.dtype(dtype) != jnp.float32:
        return jax.random.uniform(key, shape, dtype, minval=np.finfo(np.float64).tiny)
    words = jax.random.bits(key, shape, jnp.uint32).astype(jnp.float32)
    return jnp.minimum((words + 0.5) * np.float32(2**-32), np.float32(1 - 2**-24))
