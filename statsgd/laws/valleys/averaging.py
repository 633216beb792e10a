"""A valley averaged over its fast directions: drift, diffusion and density along it."""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jaxtyping import Float

from statsgd.arguments import is_traced
from statsgd.laws.loss_noise.scalar_noise import READINGS
from statsgd.laws.valleys.coordinate import Constant, ValleyCoordinate

_PANELS = 32
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(6)


class AveragedValley(eqx.Module):
    """L = L₀(x) + ½ Σ h_i(x) y_i² with diagonal diffusion, y averaged at fixed x.

    The fields are those of `ValleyLaw`, which says what they mean.
    """

    curvature: Callable[[Float[Any, ""]], Float[Any, "..."]]
    across_diffusion: Callable[[Float[Any, ""]], Float[Any, "..."]]
    along_diffusion: Callable[[Float[Any, ""]], Float[Any, ""]]
    floor: Callable[[Float[Any, ""]], Float[Any, ""]]
    coordinate: ValleyCoordinate
    learning_rate: Float[Any, ""]
    momentum: Float[Any, ""]
    reading: str = eqx.field(static=True)
    second_order: bool = eqx.field(static=True)

    @property
    def transverse(self) -> int:
        """Number m of directions across the valley."""
        shape = jax.eval_shape(self.curvature, jnp.zeros(())).shape
        return int(np.prod(shape, dtype=int))

    @property
    def constant_diffusion(self) -> bool:
        """Whether both diffusions were given as numbers."""
        return isinstance(self.across_diffusion, Constant) and isinstance(
            self.along_diffusion, Constant
        )

    @property
    def stability_limit(self) -> Any:
        """s = 2(1+β)."""
        return 2 * (1 + self.momentum)

    def curvatures(self, x: Any) -> Any:
        """h, `(m,)`."""
        return jnp.atleast_1d(self.curvature(x))

    def curvature_slopes(self, x: Any) -> Any:
        """h', `(m,)`."""
        return jnp.atleast_1d(jax.jacfwd(self.curvature)(jnp.asarray(x, dtype=float)))

    def across(self, x: Any) -> Any:
        """D_i/(1−β), `(m,)`."""
        across = jnp.atleast_1d(self.across_diffusion(x)) / (1 - self.momentum)
        return jnp.broadcast_to(across, (self.transverse,))

    def along(self, x: Any) -> Any:
        """D_x/(1−β)."""
        return jnp.sum(self.along_diffusion(x)) / (1 - self.momentum)

    def softening(self, x: Any) -> Any:
        """1 − ηh/s."""
        return 1 - self.learning_rate * self.curvatures(x) / self.stability_limit

    def variance(self, x: Any) -> Any:
        """Var(y | x), `(m,)`."""
        return self.across(x) / (self.curvatures(x) * self.softening(x))

    def drift(self, x: Any) -> Any:
        """dx/dt, averaged over y."""
        slope = jax.grad(self.floor)(jnp.asarray(x, dtype=float))
        pressure = jnp.sum(self.curvature_slopes(x) * self.variance(x)) / 2
        return -slope - pressure

    def log_shape(self, x: Any) -> Any:
        """log p(x) up to a constant."""
        if self._integrates:
            return self._integral(x) - self.log_prefactor(x)
        soft = self.softening(x)
        logs = jnp.log(self.curvatures(x)) - jnp.log(jnp.where(soft > 0, soft, 0.0))
        return -(self.floor(x) + jnp.sum(self.across(x) * logs) / 2) / self.along(x)

    @property
    def _integrates(self) -> bool:
        """Whether log p has to be integrated: its integral is known for constant diffusion."""
        return self.second_order or not self.constant_diffusion

    def rate(self, x: Any) -> Any:
        """Drift over diffusion along the valley, the integrand of log p."""
        if self.second_order:
            diffusion, drift = self.second_order_terms(x)
            return drift / diffusion
        return self.drift(x) / self.along(x)

    def log_prefactor(self, x: Any) -> Any:
        """a log D_x, or the log of the second-order diffusion."""
        if self.second_order:
            return jnp.log(self.second_order_terms(x)[0])
        return READINGS[self.reading] * jnp.log(self.along(x))

    def second_order_terms(self, x: Any) -> tuple[Any, Any]:
        """Diffusion and drift along the valley to the next order in D_y (for η = 0, m = 1)."""
        x = jnp.asarray(x, dtype=float)
        across = self.across(x)[0]
        kappa, h = across / self.along(x), self.curvatures(x)[0]

        def steepness(u):
            return jnp.sum(self.curvature_slopes(u)) / jnp.sum(self.curvatures(u))

        q, slope = steepness(x), jax.grad(steepness)(x)
        floor = jax.grad(self.floor)(x)
        diffusion = across / kappa + across**2 * (1 - 2 / kappa) * q**2 / (4 * h)
        bend = (1 - 2 / kappa) * q * slope / 4 + q**3 / 8 - (q * slope - q**3) / (4 * kappa)
        drift = -floor - across * q / 2 + across**2 * bend / h + across * floor * q**2 / (4 * h)
        return diffusion, drift

    def log_joint(self, params: Any) -> Any:
        """log p(x) + log p(y | x) up to a constant, at (x, y)."""
        variance = self.variance(params[0])
        squares = params[1:] ** 2 / variance + jnp.log(2 * jnp.pi * variance)
        return self.log_shape(params[0]) - jnp.sum(squares) / 2

    def anisotropy(self, x: Any) -> Any:
        """κ = D_i/D_x, `(m,)`."""
        return self.across(x) / self.along(x)

    def effective_loss(self, x: Any) -> Any:
        """(κ−1)[L₀ − D_y ln F], for equal diffusion across."""
        flatness = -0.5 * jnp.sum(jnp.log(self.curvatures(x)))
        potential = self.floor(x) - self.across(x)[0] * flatness
        return (self.anisotropy(x)[0] - 1) * potential

    def adiabaticity(self, x: Any) -> Any:
        """The largest κ D_y h'²/(4h³)."""
        h, slope = self.curvatures(x), self.curvature_slopes(x)
        return jnp.max(self.anisotropy(x) * self.across(x) * slope**2 / (4 * h**3))

    def _integral(self, x: Any) -> Any:
        """∫ rate dx from v = 0 to x, in the coordinate v."""
        end = self.coordinate.parameter(x)
        starts = np.arange(_PANELS) / _PANELS
        v = end * (starts[:, None] + (1 + _NODES) / (2 * _PANELS)).ravel()
        return end / (2 * _PANELS) * jnp.sum(np.tile(_WEIGHTS, _PANELS) * self._rate_in_v(v))

    def _rate_in_v(self, v: Any) -> Any:
        return jax.vmap(self.rate)(self.coordinate.place(v)) * jnp.exp(
            self.coordinate.log_stretch(v)
        )

    def _log_shape_at_knots(self, v: Any) -> Any:
        """`log_shape` at all knots, the integral summed from one to the next."""
        x = self.coordinate.place(v)
        if not self._integrates:
            return jax.vmap(self.log_shape)(x)
        step = v[1] - v[0]
        inside = (v[:-1, None] + step * (1 + _NODES) / 2).ravel()
        pieces = step / 2 * self._rate_in_v(inside).reshape(-1, len(_NODES)) @ _WEIGHTS
        integral = jnp.concatenate([jnp.zeros(1), jnp.cumsum(pieces)])
        return integral - integral[len(v) // 2] - jax.vmap(self.log_prefactor)(x)

    def tables(self) -> tuple[Any, Any, Any, Any]:
        """log of the integral of exp(log_shape); density and distribution function of v at the
        knots; and max ηh/s, where it is, and the power with which p falls at the ends of a line.
        """
        v = jnp.asarray(self.coordinate.knots)
        x = self.coordinate.place(v)
        log_shape = self._log_shape_at_knots(v)
        logs = log_shape + self.coordinate.log_stretch(v)
        ends = jnp.ones_like(v).at[jnp.array([0, -1])].set(0.5)
        log_mass = logsumexp(logs + jnp.log(ends)) + jnp.log(v[1] - v[0])
        density = jnp.exp(logs - log_mass)
        steps = (density[1:] + density[:-1]) / 2 * (v[1] - v[0])
        cumulative = jnp.concatenate([jnp.zeros(1), jnp.cumsum(steps)])
        h = jax.vmap(lambda place: jnp.max(self.curvatures(place)))(x)
        sharpest = jnp.argmax(h)
        tail = jnp.asarray(jnp.inf)
        if not self.coordinate.bounded:
            # −d log p/d log|x| over the last unit of log|x|, the lesser of the two ends
            unit = round(1 / float(self.coordinate.knots[1] - self.coordinate.knots[0]))
            falls = [log_shape[unit] - log_shape[0], log_shape[-1 - unit] - log_shape[-1]]
            spans = [jnp.log(x[0] / x[unit]), jnp.log(x[-1] / x[-1 - unit])]
            tail = jnp.minimum(falls[0] / spans[0], falls[1] / spans[1])
        excess = self.learning_rate * h[sharpest] / self.stability_limit
        return (
            log_mass,
            density,
            cumulative / cumulative[-1],
            jnp.stack([excess, x[sharpest], tail]),
        )


@eqx.filter_jit
def _tabulate(valley: AveragedValley) -> tuple[Any, Any, Any, Any]:
    return valley.tables()


@eqx.filter_jit
def _map(function: Callable, valley: AveragedValley, points: Any) -> Any:
    return jax.vmap(lambda point: function(valley, point))(points)


def tabulate(valley: AveragedValley) -> tuple[Any, Any, Any, Any]:
    """`valley.tables()`, in double precision unless something is traced."""
    if is_traced(valley):
        return valley.tables()
    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, _tabulate(valley))


def evaluate(function: Callable, valley: AveragedValley, points: Any, event: int = 0) -> Any:
    """A method of `AveragedValley` at every point, in double precision unless something is traced.

    `event` is the number of trailing axes that make one point.
    """
    if is_traced(points, valley):
        traced = functools.partial(function, valley)
        for _ in range(jnp.ndim(points) - event):
            traced = jax.vmap(traced)
        return traced(jnp.asarray(points))
    places = np.asarray(points, dtype=np.float64)
    lead, trail = places.shape[: places.ndim - event], places.shape[places.ndim - event :]
    with jax.enable_x64(True):
        values = np.asarray(_map(function, valley, places.reshape(-1, *trail)))
    return values.reshape(lead + values.shape[1:])
