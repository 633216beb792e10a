"""The Gibbs-like law of SGD whose isotropic gradient noise varies with the parameters."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree

from statsgd.arguments import is_traced, location_vector, non_negative, positive
from statsgd.dynamics.noise import GradientNoise
from statsgd.dynamics.noise.injected import IsotropicNoise
from statsgd.dynamics.sgd import SGD
from statsgd.laws.bases.antiderivative import LAST, Antiderivative
from statsgd.laws.bases.tabulated import check_bounds
from statsgd.laws.gibbs.objective import ObjectiveLaw
from statsgd.laws.law import ImproperLawError, register, require_accurate
from statsgd.precision import in_double_precision, over_points
from statsgd.problems import Problem, landscape, minimise
from statsgd.problems.landscapes import quadratic, smooth_wells

type NoiseVariance = Callable[[PyTree], Float[Any, ""]]

# Of each panel of a line integral in the plane and beyond.
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(64)
_PROBES = 32
_PANELS = (1, 4, 16, 64)
_TOLERANCE = 1e-6
_FARTHEST = 60.0  # arcsinh of a distance
_RESOLVED = 1e-10  # error of the potential in a cell, on the line
_SETTLED = 1e-6  # and at a probe, beyond it
_DEEP = 45.0  # rise of the potential above which a probe is left out


class GradientVariance(eqx.Module):
    """c(θ), the variance of each coordinate of the stochastic gradient of `noise` on `problem`."""

    noise: GradientNoise
    problem: Problem

    def __call__(self, params: PyTree) -> Float[Any, ""]:
        """c at `params`."""
        if isinstance(self.noise, IsotropicNoise):
            return self.noise.variance_at(self.problem, params)
        return self.noise.covariance(self.problem, params)[0, 0]


@register
class EffectivePotentialGibbs(ObjectiveLaw):
    """Stationary law of SGD when its gradient noise is isotropic but varies, C = c(θ)I.

    Where ∇c is parallel to ∇U (always if d = 1; in general if c is a function of the loss) the
    SDE is reversible and its law is, exactly,

        p = exp(−U_eff)/Z,   U_eff = log c + (2/η)Φ,   ∇Φ = ∇U/c,   U = L + (λ/2)|θ|²

    The factor 1/c is the Itô one. With c = v₁/S, SΦ replaces Φ: at equal heights of L two wells
    are equally high in Φ only if c is a function of the loss. Otherwise the well reached through
    the weaker noise wins, exponentially in the batch size. Otherwise still, where ∇c and ∇L are
    not parallel, there is no detailed balance and no explicit law.

    Φ is a line integral of ∇U/c from `start`, graded for distances far above 1, and its gradient is
    exact. With one parameter it is integrated adaptively, also across jumps of ∇U/c, and its error
    is part of `error_estimate`. With more it is integrated by panels of 64 nodes, as many as U_eff
    at probe points about the start takes; `error_estimate` is what is left there, which warns
    (`UnresolvedWarning`) above 10⁻³ and raises `IntractableError` above a tenth. Traced, one panel.

    **Arguments:** `problem`; `noise_variance`, a positive function of params, c with the batch
    size included, (loss/params)²; `learning_rate` η; `weight_decay` λ; `bounds` as in `Gibbs`;
    `start` `(d,)`, where Φ = 0, a place with noise and near the mass: the problem's initial params
    by default, a minimum in `from_sgd`.
    Raises `ValueError` where ∇c and ∇U are not parallel at probe points about the start.

    With one parameter the normaliser, distribution function and moments come from quadrature.

    Source: Dai, Zhu (2018), arXiv:1812.00542, for the law; the condition in d > 1 and its limits
    are derived.

    >>> import numpy as np
    >>> from statsgd import SGD, noise, problems
    >>> sgd = SGD(0.1, noise.LossScaled(4.0, floor=1.0))  # C = 4(L + 1)I
    >>> law = EffectivePotentialGibbs.from_sgd(problems.quadratic(np.eye(1)), sgd)
    >>> round(float(law.log_density(np.zeros(1)) - law.log_density(np.ones(1))), 3)  # 6 ln 1.5
    2.433
    """

    setting: ClassVar[str] = "SGD without momentum, isotropic noise that varies along the gradient"
    exactness: ClassVar[str] = "exact for its SDE; relative error of order ηh for the chain"
    citation: ClassVar[str] = "Dai, Zhu (2018), arXiv:1812.00542"

    noise_variance: NoiseVariance
    learning_rate: Float[Any, ""]
    start: Float[Any, " d"]
    """Where Φ = 0."""
    line: Antiderivative | None
    """Φ on the line, in arcsinh of the distance; None in the plane and beyond, and where traced."""
    panels: int = eqx.field(static=True)
    """Of the line integral in the plane and beyond."""
    probed_error: Float[Any, ""]
    """Of U_eff at probe points; zero on the line, NaN where traced."""

    def __init__(
        self,
        problem: Problem,
        noise_variance: NoiseVariance,
        learning_rate: Any,
        weight_decay: Any = 0.0,
        *,
        bounds: Any = None,
        start: Any = None,
    ):
        if not callable(noise_variance):
            raise ValueError(f"noise_variance must be a function of params, got {noise_variance!r}")
        self.problem = problem
        self.noise_variance = noise_variance
        self.learning_rate = positive("learning_rate", learning_rate)
        self.weight_decay = non_negative("weight_decay", weight_decay)
        self.bounds = check_bounds(bounds, problem.dimension)
        self.start = self.origin() if start is None else location_vector(start, self.dimension)
        self.growth = self.support = self.table = self.line = None
        self.panels, self.probed_error = _PANELS[0], np.float64(np.nan)
        if not is_traced(self):
            self._require_parallel()
            if self.dimension == 1:
                self.line, self.probed_error = self._integrated(), np.float64(0)
            else:
                self.panels, self.probed_error = self._settled()
        self._tabulate()

    @classmethod
    def from_sgd(cls, problem: Problem, sgd: SGD, *, bounds: Any = None) -> Self:
        """The law for `sgd`: isotropic noise, or any white noise if there is one parameter.

        Raises `ValueError` for momentum (no explicit law is known), for noise that is not
        isotropic or not independent between steps, and where ∇c and ∇L are not parallel.
        """
        sgd.require_heavy_ball()
        if not is_traced(sgd.momentum) and sgd.momentum != 0:
            raise ValueError(
                "momentum must be 0: no explicit law is known for varying noise with momentum, "
                f"got {float(sgd.momentum)}"
            )
        isotropic = isinstance(sgd.noise, IsotropicNoise) or problem.dimension == 1
        if not (isotropic and sgd.noise.white):
            raise ValueError(
                "noise must be isotropic and independent from step to step, got "
                f"{type(sgd.noise).__name__} in d = {problem.dimension}"
            )
        sgd.noise.check(problem)
        sgd.noise.require_variance()
        variance = GradientVariance(sgd.noise, problem)
        start = None
        if not is_traced(problem, sgd):
            minimum = minimise(problem, weight_decay=float(sgd.weight_decay)).params
            place = np.asarray(problem.flatten(minimum), dtype=np.float64)
            # Without noise there Φ has no zero there: it is infinitely lower than all else.
            noisy = in_double_precision(_variance_at, place, problem, variance) > 0
            start = place if noisy else None
        return cls(
            problem, variance, sgd.learning_rate, sgd.weight_decay, bounds=bounds, start=start
        )

    @classmethod
    def examples(cls) -> Iterable[Self]:
        """A Student law, wells with noise that breaks their tie, and noise set by the loss."""
        bowl = quadratic(np.diag([1.0, 2.0]))
        yield cls(quadratic([[1.0]]), _one_plus_square, 0.1)
        yield cls(smooth_wells(), _step_up, 0.04)
        yield cls(bowl, OneMoreThanLoss(bowl), 0.2)

    @classmethod
    def improper_examples(cls) -> Sequence[Self]:
        """Tails too heavy: strong noise on a loss that grows as a logarithm."""
        saturating = landscape(lambda params: jnp.log1p(params[0] ** 2), np.zeros(1))
        return (cls(saturating, lambda params: jnp.ones(()), 5.0),)

    def variance(self, params: Float[Any, " d"]) -> Float[Any, ""]:
        """c(θ), for flat params."""
        return self.noise_variance(self.problem.unflatten(params))

    def effective_loss(self, params: Float[Any, " d"]) -> Float[Any, ""]:
        """Φ(θ) with ∇Φ = ∇U/c, zero at `start`; dimension of params²/loss."""
        return in_double_precision(_line_integral, self._bare(), params)

    def potential(self, params: Float[Any, " d"]) -> Float[Any, ""]:
        """U_eff = log c + (2/η)Φ; infinite outside `bounds`."""
        phi = _line_integral(self, params)
        energy = jnp.log(self.variance(params)) + 2 / self.learning_rate * phi
        return self.within(params, energy)

    @property
    def error_estimate(self) -> Float[Any, ""]:
        """That of the table, with what the error of Φ does to the density; without, of U_eff."""
        found = super().error_estimate
        if self.dimension > 1:
            return self.probed_error
        if self.line is None or self.support is None:
            return found
        ends = (np.arcsinh(end - self.start[0]) for end in (self.support.low, self.support.high))
        return found + self.line.error_between(*ends)

    def _integrated(self) -> Antiderivative:
        """(2/η)Φ in w, θ = start + sinh w."""

        def integrand(w: Float[Any, " n"]) -> Float[Any, " n"]:
            return over_points(_energy_slope, w[:, None], self)

        low, high = -_FARTHEST, _FARTHEST
        if self.bounds is not None:
            low, high = (float(np.arcsinh(end[0] - self.start[0])) for end in self.bounds)
        return Antiderivative.of(integrand, min(low, 0.0), max(high, 0.0), _RESOLVED)

    def require_proper(self) -> None:
        """Raise `ImproperLawError` unless exp(−U_eff) can be normalised."""
        slow, least = self._slow_directions()
        if slow:
            raise ImproperLawError(
                f"exp(-U_eff) is not normalisable: in directions {slow[:8]} dU_eff/dlog|params| = "
                f"{least:.4g} and must exceed d = {self.dimension}; weight_decay > 0 or bounds help"
            )

    def _probes(self, *scales: float) -> Float[np.ndarray, "n d"]:
        """Points about the start, at a few scales."""
        cloud = np.random.default_rng(0).standard_normal((_PROBES, self.dimension))
        return self.start + np.concatenate([scale * cloud for scale in scales])

    def _settled(self) -> tuple[int, Float[Any, ""]]:
        """Panels of the line integral that resolve it, and the error that they leave in U_eff."""
        probes, scale = self._probes(10.0, 3.0, 1.0, 0.1, 0.01), 2 / float(self.learning_rate)
        before = over_points(_by_panels, probes, self, _PANELS[0])
        for panels, more in itertools.pairwise(_PANELS):
            phi = over_points(_by_panels, probes, self, more)
            # Where there is no mass, nothing has to be resolved; nor what the start lies above.
            rise = scale * (phi - np.min(phi[np.isfinite(phi)], initial=np.inf))
            error = np.max(scale * np.abs(phi - before), where=rise < _DEEP, initial=0.0)
            if error <= _SETTLED:
                return panels, error
            before = phi
        require_accurate("line integral of the potential", error)
        return more, error

    def _require_parallel(self) -> None:
        if self.dimension == 1:
            return
        # Two scales: noise may be flat near the start and skew further out.
        curl, scale = over_points(_curl, self._probes(1.0, 0.1), self._bare())
        if np.max(curl) > _TOLERANCE * np.max(scale):
            raise ValueError(
                "no closed-form law: grad c and grad L are not parallel (max |curl| = "
                f"{float(np.max(curl)):.4g})"
            )


class OneMoreThanLoss(eqx.Module):
    """c = 1 + L, in units where one loss is one squared gradient."""

    problem: Problem

    def __call__(self, params: PyTree) -> Float[Any, ""]:
        """c at `params`."""
        return 1 + self.problem.loss(params)


def _one_plus_square(params: Float[Any, " 1"]) -> Float[Any, ""]:
    return 1 + params[0] ** 2


def _step_up(params: Float[Any, " 1"]) -> Float[Any, ""]:
    return 1.5 + 0.5 * jnp.tanh(3 * (params[0] - 0.5))


def _variance_at(params: Any, problem: Problem, noise_variance: NoiseVariance) -> Any:
    return noise_variance(problem.unflatten(params))


def _drift_over_variance(law: EffectivePotentialGibbs, params: Any) -> Any:
    return jax.grad(law.objective)(params) / law.variance(params)


def _energy_slope(w: Float[Any, " 1"], law: EffectivePotentialGibbs) -> Any:
    """d((2/η)Φ)/dw at θ = start + sinh w."""
    slope = _drift_over_variance(law, law.start + jnp.sinh(w))[0]
    return 2 / law.learning_rate * slope * jnp.cosh(w[0])


def _energy_at(w: Float[Any, " 1"], law: EffectivePotentialGibbs, line: Antiderivative) -> Any:
    return line.at(w[0], lambda place: _energy_slope(place[None], law))


def _line_integral(law: EffectivePotentialGibbs, params: Any) -> Any:
    """∫∇U/c along the straight line from the origin to `params`."""
    end = jax.lax.stop_gradient(params)
    if law.line is not None:
        phi = law.learning_rate / 2 * _energy_at(jnp.arcsinh(end - law.start), law, law.line)
        return phi + _last_stretch(law, end, params)
    return _by_panels(end, law, law.panels) + _last_stretch(law, end, params)


def _by_panels(end: Any, law: EffectivePotentialGibbs, panels: int) -> Any:
    distance = jnp.sqrt(jnp.sum((end - law.start) ** 2) + 1e-30)
    direction = (end - law.start) / distance
    # Points at distance sinh w: a far end does not starve the region near the origin of nodes.
    reach = jnp.arcsinh(distance)
    # Typed here: JAX 0.12 mixes up NumPy constants captured under both settings of enable_x64.
    nodes, weights = (jnp.asarray(rule, dtype=reach.dtype) for rule in (_NODES, _WEIGHTS))
    starts = jnp.arange(panels, dtype=reach.dtype)[:, None]
    coordinate = reach * (starts + (1 + nodes) / 2).ravel() / panels

    def integrand(offset):
        return _drift_over_variance(law, law.start + offset * direction) @ direction

    values = jax.vmap(integrand)(jnp.sinh(coordinate)) * jnp.cosh(coordinate)
    return reach / (2 * panels) * jnp.sum(jnp.tile(weights, panels) * values)


def _last_stretch(law: EffectivePotentialGibbs, end: Any, params: Any) -> Any:
    # A last stretch of length zero carries the derivatives: two nodes make them exact up to the
    # fourth, where differentiating the quadrature would only approximate ∇U/c.
    step = params - end
    last = sum(_drift_over_variance(law, end + step * (1 + node) / 2) for node in LAST)
    return last @ step / 2


def _curl(params: Float[Any, " d"], law: EffectivePotentialGibbs) -> tuple[Any, Any]:
    """Largest entry of ∇(1/c) ∧ ∇U, and the size it would have at right angles."""
    slope, rise = jax.grad(law.objective)(params), jax.grad(law.variance)(params)
    wedge = jnp.outer(rise, slope) - jnp.outer(slope, rise)
    size = jnp.linalg.norm(rise) * jnp.linalg.norm(slope)
    unit = law.variance(params) ** 2
    return jnp.max(jnp.abs(wedge)) / unit, size / unit
