"""The Gibbs law of SGD with constant isotropic gradient noise."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Float, PRNGKeyArray, PyTree
from scipy.special import ndtr, ndtri

from statsgd.arguments import fraction, is_traced, non_negative, one_of, positive
from statsgd.dynamics.noise import Isotropic, noise_covariance
from statsgd.dynamics.sgd import SGD
from statsgd.laws.bases.growth import direction_names, radial_growth
from statsgd.laws.bases.tabulated import TabulatedLaw, check_bounds, evaluate
from statsgd.laws.law import ImproperLawError, register
from statsgd.problems import Problem, landscapes
from statsgd.problems.landscapes import Quadratic, quadratic_form, smooth_wells


@register
class Gibbs(TabulatedLaw):
    """Stationary law of SGD on any loss when its gradient noise is isotropic and constant.

    Noise covariance C = cI and weight decay λ give, for the SDE and exactly,

        p(θ) = exp(−U/τ)/Z,   U = L + (λ/2)|θ|²,   τ = ηc/2;   with momentum τ = ηc/(2(1−β))

    c = v₁/S where v₁ is the variance of one example's gradient in each coordinate, so τ falls as
    one over the batch size. The momentum buffer m is independent of θ and normal with variance
    τ/η; the velocity of the kinetic SDE is z = −√η m, with variance τ (`phase_space`).

    With the **discrete correction** (off by default) the law is that of the chain to first order
    in η, e = η/(1+β):

        p ∝ exp( −[U − (e/4)|∇U|²]/τ − (e/2) Tr ∇²U )

    It is meant for the neighbourhood of minima, exact on quadratics, and needs ηh ≪ (1−β)² with
    momentum. On a loss that grows faster than a quadratic it is not normalisable without `bounds`.

    The law exists iff exp(−U/τ) is integrable: U must grow faster than dτ log|θ|.

    **Arguments:** `problem`; `temperature` τ > 0, unit of loss; `weight_decay` λ ≥ 0;
    `discrete_step` e = η/(1+β) ≥ 0, for the correction; `bounds` (low, high), each a number or
    `(d,)`, a box outside which the density is zero; `learning_rate`, given if the momentum buffer
    is part of the law. Quadratic problems (`linear_regression`, `landscapes.quadratic`) have an
    exact normal model. With one parameter the normaliser, distribution function and moments come
    from quadrature.

    Source: Dai, Zhu (2018), arXiv:1812.00542; the discrete corrections are derived.
    """

    setting: ClassVar[str] = "SGD on any loss, constant isotropic noise, any momentum"
    exactness: ClassVar[str] = "exact for its SDE; relative error about ηh/4 for the chain"
    citation: ClassVar[str] = "Dai, Zhu (2018), arXiv:1812.00542"
    generative: ClassVar[Any] = property(lambda self: self.form is not None)
    variables: ClassVar[Any] = property(
        lambda self: ("params",) if self.learning_rate is None else ("params", "momentum_buffer")
    )

    derived: ClassVar[tuple[str, ...]] = ("support", "log_z", "growth")

    problem: Problem
    temperature: Float[Any, ""]
    weight_decay: Float[Any, ""]
    discrete_step: Float[Any, ""] | None
    bounds: Float[Any, "2 d"] | None
    learning_rate: Float[Any, ""] | None
    form: Quadratic | None
    """Hessian and minimiser of L, where L is known to be quadratic."""
    growth: Float[Any, " directions"] | None
    """dU/dlog|θ| far out."""

    def __init__(
        self,
        problem: Problem,
        temperature: Any,
        weight_decay: Any = 0.0,
        *,
        discrete_step: Any = None,
        bounds: Any = None,
        learning_rate: Any = None,
    ):
        if not isinstance(problem, Problem):
            raise ValueError(f"problem must be a Problem, got {problem!r}")
        self.problem = problem
        self.temperature = positive("temperature", temperature)
        self.weight_decay = non_negative("weight_decay", weight_decay)
        self.discrete_step = (
            None if discrete_step is None else non_negative("discrete_step", discrete_step)
        )
        self.bounds = check_bounds(bounds, problem.dimension)
        self.learning_rate = (
            None if learning_rate is None else positive("learning_rate", learning_rate)
        )
        self.form = None if bounds is not None else quadratic_form(problem)
        self.growth, self.support, self.log_z = None, None, None
        if self.form is not None:
            self.log_z = self._normal_log_normalizer(self.form)
        else:
            self.growth = self._growth()
            self.support, self.log_z = self._tabulate(self.bounds)

    @classmethod
    def quadratic(
        cls, hessian: Any, temperature: Any, weight_decay: Any = 0.0, location: Any = None
    ) -> Self:
        """The law on ½(θ−θ*)ᵀH(θ−θ*), θ* = `location`: normal, covariance τ(H+λI)⁻¹."""
        return cls(landscapes.quadratic(hessian, location), temperature, weight_decay)

    @classmethod
    def from_noise(
        cls,
        problem: Problem,
        learning_rate: Any,
        noise_variance: Any,
        momentum: Any = 0.0,
        weight_decay: Any = 0.0,
        *,
        discrete_correction: bool = False,
        bounds: Any = None,
    ) -> Self:
        """The law at τ = ηc/(2(1−β)), `noise_variance` c per coordinate (batch size included)."""
        eta, beta = positive("learning_rate", learning_rate), fraction("momentum", momentum)
        return cls(
            problem,
            gibbs_temperature(eta, noise_variance, beta),
            weight_decay,
            discrete_step=eta / (1 + beta) if discrete_correction else None,
            bounds=bounds,
        )

    @classmethod
    def phase_space(
        cls,
        problem: Problem,
        learning_rate: Any,
        noise_variance: Any,
        momentum: Any,
        weight_decay: Any = 0.0,
    ) -> Self:
        """The joint law of θ and the momentum buffer m: exp(−(U + η|m|²/2)/τ)."""
        temperature = gibbs_temperature(learning_rate, noise_variance, momentum)
        return cls(problem, temperature, weight_decay, learning_rate=learning_rate)

    @classmethod
    def from_sgd(
        cls,
        problem: Problem,
        sgd: SGD,
        *,
        discrete_correction: bool = False,
        bounds: Any = None,
        at: PyTree | None = None,
    ) -> Self:
        """The law for `sgd` with `noise.Isotropic`.

        For other noise that is independent between steps, `at` gives params where c = tr C/d is
        measured: an approximation, which takes the noise for isotropic and constant. Raises
        `ValueError` for such noise without `at`.
        """
        if isinstance(sgd.noise, Isotropic):
            variance = sgd.noise.variance
        elif at is not None and sgd.noise.white:
            variance = np.trace(noise_covariance(problem, at, sgd.noise)) / problem.dimension
        else:
            raise ValueError(
                "noise must be Isotropic for the Gibbs law, or white with at=params to take its "
                f"mean variance there, got {type(sgd.noise).__name__}"
            )
        return cls.from_noise(
            problem,
            sgd.learning_rate,
            variance,
            sgd.momentum,
            sgd.weight_decay,
            discrete_correction=discrete_correction,
            bounds=bounds,
        )

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """A normal law, two wells on the line, a valley, and a joint law with momentum."""
        return (
            cls.quadratic([[2.0, 0.3], [0.3, 0.5]], 0.2, 0.1, [0.5, -1.0]),
            cls(smooth_wells(), 0.05),
            cls.from_noise(smooth_wells(), 0.02, 1, discrete_correction=True, bounds=(-0.5, 1.15)),
            cls(landscapes.valley_wells(), 0.2),
            cls.phase_space(landscapes.quadratic([[2.0]]), 0.1, 0.5, 0.9),
        )

    @classmethod
    def improper_examples(cls) -> Sequence[Self]:
        """A flat direction, and a discrete correction beyond the neighbourhood of a minimum."""
        return (
            cls.quadratic(np.diag([1.0, 0.0]), 0.1),
            cls(smooth_wells(), 0.05, discrete_step=0.04),
            cls(smooth_wells(), 0.05, discrete_step=0.04, bounds=(-0.5, 1.4)),
        )

    @property
    def dimension(self) -> int:
        """Number of parameters d."""
        return self.problem.dimension

    @property
    def constraint(self) -> dist.constraints.Constraint:
        """The box, where there is one."""
        if self.bounds is None:
            return super().constraint
        return dist.constraints.independent(dist.constraints.interval(*self.bounds), 1)

    def objective(self, params: Float[Any, " d"]) -> Float[Any, ""]:
        """U(θ) = L + (λ/2)|θ|², for flat params."""
        loss = self.problem.loss(self.problem.unflatten(params))
        return loss + 0.5 * self.weight_decay * jnp.sum(params**2)

    def potential(self, params: Float[Any, " d"]) -> Float[Any, ""]:
        """U/τ, with the discrete correction where that is on; infinite outside `bounds`."""
        params = jnp.asarray(params)
        if self.discrete_step is None:
            energy = self.objective(params) / self.temperature
        else:
            value, slope = jax.value_and_grad(self.objective)(params)
            corrected = value - self.discrete_step / 4 * jnp.sum(slope**2)
            curvature = jnp.trace(jax.hessian(self.objective)(params))
            energy = corrected / self.temperature + self.discrete_step / 2 * curvature
        if self.bounds is None:
            return energy
        inside = jnp.all((params >= self.bounds[0]) & (params <= self.bounds[1]))
        return jnp.where(inside, energy, jnp.inf)

    def log_density(
        self, params: Float[Any, "... d"], momentum_buffer: Float[Any, "... d"] | None = None
    ) -> Float[Any, "..."]:
        """Log density of `params`, or of the pair with `momentum_buffer` (if part of the law)."""
        density = super().log_density(params)
        if momentum_buffer is None:
            return density
        xp = jnp if is_traced(momentum_buffer, self) else np
        white = momentum_buffer / xp.sqrt(self._buffer_variance())
        constant = 0.5 * self.dimension * xp.log(2 * np.pi * self._buffer_variance())
        return density - 0.5 * xp.sum(white**2, axis=-1) - constant

    def model(self, obs: Float[Any, "n d"] | None = None) -> None:
        """Site `params`, and `momentum_buffer` if that is part of the law and nothing observed.

        Multivariate normal for a quadratic, else a flat prior with the factor exp(−U/τ).
        """
        self.require_proper()
        if self.form is None:
            super().model(obs)
        else:
            normal = dist.MultivariateNormal(self.mean(), self.covariance())
            if obs is None:
                numpyro.sample("params", normal)
            else:
                with numpyro.plate("replica", obs.shape[0]):
                    numpyro.sample("params", normal, obs=obs)
        if self.learning_rate is not None and obs is None:
            numpyro.sample("momentum_buffer", self._buffer())

    def mean(self, variable: str = "params") -> Float[Any, " d"]:
        """Mean of a variable; of `params` for a quadratic or in one dimension."""
        self.require_proper()
        if one_of("variable", variable, self.variables) == "momentum_buffer":
            return np.zeros(self.dimension)
        if self.form is None:
            return super().mean(variable)
        xp = self._numbers()
        curvature = self.form.hessian + self.weight_decay * np.eye(self.dimension)
        return xp.linalg.solve(curvature, self.form.hessian @ self.form.minimiser)

    def covariance(self, variable: str = "params") -> Float[Any, "d d"]:
        """Covariance of a variable; of `params` for a quadratic or in one dimension."""
        self.require_proper()
        if one_of("variable", variable, self.variables) == "momentum_buffer":
            return self._buffer_variance() * np.eye(self.dimension)
        if self.form is None:
            return super().covariance(variable)
        return self._numbers().linalg.inv(self._precision(self.form))

    def cdf(self, params: Float[Any, "... d"]) -> Float[Any, "... d"]:
        """Marginal distribution functions, for a quadratic or in one dimension."""
        if self.form is None:
            return super().cdf(params)
        deviation = np.asarray(params, dtype=np.float64) - self.mean()
        return ndtr(deviation / np.sqrt(np.diagonal(self.covariance())))

    def quantile(self, probability: Any) -> Float[Any, "..."]:
        """Marginal quantiles, for a quadratic (trailing axis d) or in one dimension."""
        if self.form is None:
            return super().quantile(probability)
        spread = np.sqrt(np.diagonal(self.covariance()))
        return self.mean() + ndtri(np.asarray(probability))[..., None] * spread

    def draw_variables(
        self, key: PRNGKeyArray, shape: tuple[int, ...] = ()
    ) -> Mapping[str, Float[Any, "*shape d"]]:
        """Independent draws of all variables, for a quadratic or in one dimension."""
        draws = dict(super().draw_variables(key, shape))
        if "momentum_buffer" in self.variables and not self.generative:
            draws["momentum_buffer"] = self._buffer().sample(jax.random.fold_in(key, 1), shape)
        return draws

    def require_proper(self) -> None:
        """Raise `ImproperLawError` unless exp(−U/τ) can be normalised."""
        if is_traced(self):
            return
        if self.bounds is not None:
            self._require_mode_within_bounds()
            return
        if self.form is not None:
            self._require_positive_precision(self.form)
            return
        d = self.dimension
        growth = self._growth() if self.growth is None else self.growth
        names = direction_names(d)
        flat = [name for name, rate in zip(names, growth, strict=True) if not rate > d]
        if flat:
            worst = float(np.min(growth))
            cause = "" if self.discrete_step is None else " (the discrete correction counts)"
            raise ImproperLawError(
                f"exp(-L/tau) is not normalisable: flat directions {flat[:8]} need "
                f"weight_decay > 0 or bounds{cause}; d(U/tau)/dlog|params| = {worst:.4g} there "
                f"and must exceed d = {d}"
            )

    def _require_mode_within_bounds(self) -> None:
        """The corrected potential falls far out: bounds must cut it off before it does."""
        if self.discrete_step is None or self.support is None:
            return
        low, high, mode, _ = self.support
        if not low < mode < high:
            raise ImproperLawError(
                "the discrete correction exceeds the loss: the corrected law has its mode at the "
                f"bound {float(mode):.6g} of ({float(low):.6g}, {float(high):.6g}); narrow bounds"
            )

    def _require_positive_precision(self, form: Quadratic) -> None:
        curvatures = np.linalg.eigvalsh(form.hessian) + self.weight_decay
        flat = np.flatnonzero(curvatures <= 1e-12 * np.max(np.abs(curvatures)))
        if len(flat):
            raise ImproperLawError(
                f"exp(-L/tau) is not normalisable: flat directions {flat[:8].tolist()} "
                "(eigenvectors of the Hessian) need weight_decay > 0 or bounds; h + weight_decay = "
                f"{curvatures[flat[0]]:.6g} and must exceed 0"
            )
        reach = 0.0 if self.discrete_step is None else float(self.discrete_step * curvatures[-1])
        if reach >= 2:
            raise ImproperLawError(
                f"unstable: discrete_step*h = {reach:.6g} >= 2: learning_rate*h >= 2(1+momentum)"
            )

    def _numbers(self) -> Any:
        return jnp if is_traced(self.form, self.temperature, self.weight_decay) else np

    def _precision(self, form: Quadratic) -> Any:
        curvature = form.hessian + self.weight_decay * np.eye(self.dimension)
        if self.discrete_step is not None:
            curvature = curvature - self.discrete_step / 2 * curvature @ curvature
        return curvature / self.temperature

    def _normal_log_normalizer(self, form: Quadratic) -> Any:
        """log ∫exp(−potential), from the potential at the mean and the precision."""
        try:
            centre = self.mean()
        except ImproperLawError:
            return None
        xp = self._numbers()
        lowest = self.potential(centre) if xp is jnp else evaluate(self, centre[None])[0]
        determinant = xp.linalg.slogdet(self._precision(form))[1]
        return 0.5 * self.dimension * np.log(2 * np.pi) - 0.5 * determinant - lowest

    def _growth(self) -> Any:
        if is_traced(self) or self.bounds is not None:
            return None
        return radial_growth(lambda points: evaluate(self, points), self._origin())

    def _origin(self) -> Any:
        start = self.problem.initial_params(jax.random.key(0))
        return np.asarray(self.problem.flatten(start), dtype=np.float64)

    def _buffer_variance(self) -> Any:
        if self.learning_rate is None:
            raise ValueError("the momentum buffer is part of the law made by Gibbs.phase_space")
        return self.temperature / self.learning_rate

    def _buffer(self) -> dist.Distribution:
        normal = dist.Normal(0.0, jnp.sqrt(self._buffer_variance()))
        return normal.expand([self.dimension]).to_event(1)


def gibbs_temperature(learning_rate: Any, noise_variance: Any, momentum: Any = 0.0) -> Any:
    """τ = ηc/(2(1−β)), unit of loss; `noise_variance` c per coordinate, batch size included."""
    eta, beta = positive("learning_rate", learning_rate), fraction("momentum", momentum)
    return eta * positive("noise_variance", noise_variance) / (2 * (1 - beta))
