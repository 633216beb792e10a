"""Gradient noise with power-law tails: stable and Student's t."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PRNGKeyArray, PyTree

from statsgd.arguments import is_traced, one_of, positive
from statsgd.dynamics.noise.gradient_noise import GradientNoise, register
from statsgd.dynamics.noise.stable_numbers import positive_stable, stability_index, symmetric_stable
from statsgd.problems import Problem

#: How the coordinates of one draw belong together.
FORMS = ("isotropic", "independent")


class HeavyTailedNoise(GradientNoise):
    """ĝ = ∇L + s ξ with ξ of a stated law whose variance may not exist.

    `isotropic`: ξ is one normal vector times one random size, so that its law has no preferred
    direction and all coordinates are large at once. `independent`: every coordinate is drawn by
    itself, so that the law depends on the axes and one coordinate is large at a time. In one
    dimension they are the same.
    """

    scale: Float[Any, "*d"]
    form: str = eqx.field(static=True)

    def __init__(self, scale: Any, form: str):
        self.form = one_of("form", form, FORMS)
        self.scale = positive("scale", scale)
        most = 0 if self.form == "isotropic" else 1
        if np.ndim(self.scale) > most:
            raise ValueError(
                f"scale must be one number{' or (d,)' if most else ''} for {self.form} noise, got "
                f"shape {np.shape(self.scale)}"
            )

    @abc.abstractmethod
    def _size(self, key: PRNGKeyArray, shape: tuple[int, ...], dtype: Any) -> Float[Any, "..."]:
        """The random sizes of normal vectors."""

    @abc.abstractmethod
    def _number(self, key: PRNGKeyArray, shape: tuple[int, ...], dtype: Any) -> Float[Any, "..."]:
        """Independent numbers of unit scale."""

    @abc.abstractmethod
    def _variance(self) -> Float[Any, ""]:
        """Var ξ of a coordinate, infinite where there is none."""

    def noise(self, key: PRNGKeyArray, dimension: int, dtype: Any) -> Float[Any, " d"]:
        """s ξ, one draw in flat coordinates."""
        scale = jnp.asarray(self.scale, dtype)
        if self.form == "independent":
            return scale * self._number(key, (dimension,), dtype)
        size, direction = jax.random.split(key)
        vector = jax.random.normal(direction, (dimension,), dtype)
        return scale * self._size(size, (), dtype) * vector

    def draw(self, key: PRNGKeyArray, problem: Problem, params: PyTree) -> PyTree:
        """∇L plus the noise."""
        gradient = problem.gradient(params)
        flat = problem.flatten(gradient)
        noise = self.noise(key, problem.dimension, flat.dtype)
        return jax.tree.map(
            lambda g, n: (g + n).astype(g.dtype), gradient, problem.unflatten(noise)
        )

    def covariance(self, problem: Problem, params: PyTree) -> Float[Any, "d d"]:
        """s² Var ξ on the diagonal; where there is none `ValueError`, and infinite if traced."""
        self.require_variance()
        variance = jnp.asarray(self.scale) ** 2 * self._variance()
        return jnp.diag(jnp.broadcast_to(variance, (problem.dimension,)))

    def check(self, problem: Problem) -> None:
        """Raise `ValueError` unless `scale` is one number or one for each parameter."""
        if np.ndim(self.scale) and np.shape(self.scale) != (problem.dimension,):
            raise ValueError(
                f"scale must be one number or have shape ({problem.dimension},) for this problem, "
                f"got shape {np.shape(self.scale)}"
            )


@register
class Stable(HeavyTailedNoise):
    """Symmetric α-stable noise of scale s in every coordinate: tails x^(−α), no variance if α < 2.

    E e^{iuξ} = e^{−|su|^α}.

    α = 2 is normal with variance 2s² (not s²) and α = 1 is Cauchy of half-width s. For α < 2 the
    tails are P(|ξ| > x) ~ 2c_α (x/s)^(−α), c_α = Γ(α) sin(πα/2)/π, and the variance is infinite;
    for α ≤ 1 there is no mean either, and ĝ is not an unbiased gradient. The mean of S such draws
    has scale s S^(1/α−1).

    **Arguments:** `alpha` α in (0, 2]; `scale` s > 0, loss/params, one number or, for independent
    noise, `(d,)`; `form`, `"isotropic"` (ξ = √(2A) G with A positive stable of index α/2, that is
    E e^{iu·ξ} = e^{−(s|u|)^α}) or `"independent"` coordinates.

    `covariance` raises `ValueError` for α < 2. In single precision tails are those of the law up to
    probabilities of about 10⁻⁹ (Chambers–Mallows–Stuck, and Kanter).

    Source: Şimşekli, Sagun, Gürbüzbalaban (2019), arXiv:1901.06053, for the setting.

    >>> Stable(1.5, 1.0)
    Stable(scale=1, alpha=1.5)
    """

    alpha: Float[Any, ""]

    def __init__(self, alpha: Any, scale: Any, form: str = "isotropic"):
        self.alpha = stability_index("alpha", alpha)
        super().__init__(scale, form)

    def _size(self, key: PRNGKeyArray, shape: tuple[int, ...], dtype: Any) -> Float[Any, "..."]:
        return jnp.sqrt(2 * positive_stable(key, jnp.asarray(self.alpha, dtype) / 2, shape, dtype))

    def _number(self, key: PRNGKeyArray, shape: tuple[int, ...], dtype: Any) -> Float[Any, "..."]:
        return symmetric_stable(key, jnp.asarray(self.alpha, dtype), shape, dtype)

    def _variance(self) -> Float[Any, ""]:
        return jnp.where(jnp.asarray(self.alpha) < 2, jnp.inf, 2.0)

    def require_variance(self) -> None:
        """Raise `ValueError` for α < 2."""
        if not is_traced(self.alpha) and np.any(self.alpha < 2):
            raise ValueError(
                f"noise must have a finite variance here: Stable noise has one for alpha = 2 "
                f"alone, got alpha = {float(np.min(self.alpha)):.6g}; laws.StableLaw speaks about "
                "it"
            )


@register
class StudentT(HeavyTailedNoise):
    """Student-t noise of ν degrees of freedom: tails x^(−ν), variance s²ν/(ν−2) if ν > 2.

    **Arguments:** `dof` ν > 0; `scale` s > 0, loss/params, one number or, for independent noise,
    `(d,)`; `form`, `"isotropic"` (the multivariate law, G/√(χ²_ν/ν)) or `"independent"`.

    `covariance` raises `ValueError` for ν ≤ 2.

    >>> import numpy as np
    >>> from statsgd import problems
    >>> bowl = problems.quadratic(np.eye(1))
    >>> StudentT(dof=4.0, scale=1.0).covariance(bowl, np.zeros(1))  # ν/(ν−2)
    Array([[2.]], dtype=float32)
    """

    dof: Float[Any, ""]

    def __init__(self, dof: Any, scale: Any, form: str = "isotropic"):
        self.dof = positive("dof", dof)
        super().__init__(scale, form)

    def _size(self, key: PRNGKeyArray, shape: tuple[int, ...], dtype: Any) -> Float[Any, "..."]:
        nu = jnp.asarray(self.dof, dtype)
        return jnp.sqrt(nu / (2 * jax.random.gamma(key, nu / 2, shape, dtype)))

    def _number(self, key: PRNGKeyArray, shape: tuple[int, ...], dtype: Any) -> Float[Any, "..."]:
        size, number = jax.random.split(key)
        return self._size(size, shape, dtype) * jax.random.normal(number, shape, dtype)

    def _variance(self) -> Float[Any, ""]:
        nu = jnp.asarray(self.dof)
        return jnp.where(nu > 2, nu / jnp.where(nu > 2, nu - 2, 1.0), jnp.inf)

    def require_variance(self) -> None:
        """Raise `ValueError` for ν ≤ 2."""
        if not is_traced(self.dof) and np.any(self.dof <= 2):
            raise ValueError(
                "noise must have a finite variance here: StudentT noise has one for dof > 2, got "
                f"dof = {float(np.min(self.dof)):.6g}"
            )
