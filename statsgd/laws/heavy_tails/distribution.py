"""Stable laws as NumPyro distributions."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Float, PRNGKeyArray
from numpyro.distributions import constraints
from numpyro.distributions.util import promote_shapes

from statsgd.dynamics.noise.stable_numbers import positive_stable, symmetric_stable
from statsgd.laws.heavy_tails.stable_line import log_density, upper_probability


class SymmetricStable(dist.Distribution):
    """The symmetric stable law, E e^{iu(x−loc)} = e^{−|scale·u|^α}.

    `alpha` α in (0, 2] is one number. α = 2 is normal with variance 2 scale². `log_prob` is a
    quadrature (`stable_line`); draws are exact.

    >>> SymmetricStable(2.0, loc=0.0, scale=1.0).variance
    Array(2., dtype=float32, weak_type=True)
    """

    arg_constraints: ClassVar = {
        "alpha": constraints.interval(0.0, 2.0),
        "loc": constraints.real,
        "scale": constraints.positive,
    }
    support = constraints.real
    reparametrized_params: ClassVar = ["loc", "scale"]

    def __init__(
        self, alpha: Any, loc: Any = 0.0, scale: Any = 1.0, *, validate_args: bool | None = None
    ):
        self.alpha = jnp.asarray(alpha)
        self.loc, self.scale = promote_shapes(loc, scale)
        shape = jax.lax.broadcast_shapes(jnp.shape(loc), jnp.shape(scale))
        super().__init__(batch_shape=shape, validate_args=validate_args)

    def sample(self, key: PRNGKeyArray, sample_shape: tuple[int, ...] = ()) -> Float[Any, "*shape"]:
        """Draws by the method of Chambers, Mallows and Stuck."""
        dtype = jnp.result_type(float)
        shape = sample_shape + self.batch_shape
        return self.loc + self.scale * symmetric_stable(key, self.alpha, shape, dtype)

    def log_prob(self, value: Float[Any, "..."]) -> Float[Any, "..."]:
        """Log density."""
        return log_density((value - self.loc) / self.scale, self.alpha) - jnp.log(self.scale)

    def cdf(self, value: Float[Any, "..."]) -> Float[Any, "..."]:
        """Distribution function."""
        return upper_probability((self.loc - value) / self.scale, self.alpha)

    @property
    def mean(self) -> Float[Any, "..."]:
        """NaN for α ≤ 1."""
        return jnp.broadcast_to(jnp.where(self.alpha > 1, self.loc, jnp.nan), self.batch_shape)

    @property
    def variance(self) -> Float[Any, "..."]:
        """Infinite for α < 2."""
        spread = jnp.where(self.alpha < 2, jnp.inf, 2 * jnp.square(self.scale))
        return jnp.broadcast_to(spread, self.batch_shape)


class PositiveStable(dist.Distribution):
    """The positive stable law of index a in (0, 1], E e^{−tA} = e^{−t^a}, to draw from.

    √(2A) times a standard normal vector is an isotropic stable vector of α = 2a.

    >>> import jax
    >>> PositiveStable(0.75).sample(jax.random.key(0), (3,)).shape
    (3,)
    """

    arg_constraints: ClassVar = {"index": constraints.unit_interval}
    support = constraints.positive

    def __init__(self, index: Any, *, validate_args: bool | None = None):
        self.index = jnp.asarray(index)
        super().__init__(batch_shape=jnp.shape(index), validate_args=validate_args)

    def sample(self, key: PRNGKeyArray, sample_shape: tuple[int, ...] = ()) -> Float[Any, "*shape"]:
        """Draws by the method of Kanter."""
        dtype = jnp.result_type(float)
        return positive_stable(key, self.index, sample_shape + self.batch_shape, dtype)

    def log_prob(self, value: Float[Any, "..."]) -> Float[Any, "..."]:
        """Not known here."""
        raise NotImplementedError("PositiveStable is there to be drawn from and has no log_prob")
