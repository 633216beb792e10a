"""The Gibbs law of SGD with constant isotropic gradient noise."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Float, PRNGKeyArray, PyTree

from statsgd.arguments import fraction, is_traced, non_negative, positive
from statsgd.dynamics.noise import Isotropic, noise_covariance
from statsgd.dynamics.sgd import SGD
from statsgd.laws.bases.gaussian import PAIR, GaussianLaw
from statsgd.laws.bases.tabulated import check_bounds
from statsgd.laws.gibbs.objective import ObjectiveLaw
from statsgd.laws.law import ImproperLawError, Law, register
from statsgd.precision import in_double_precision
from statsgd.problems import Problem, landscapes
from statsgd.problems.landscapes import Quadratic, quadratic_form, smooth_wells


@register
class Gibbs(ObjectiveLaw):
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

    >>> from statsgd import SGD, noise, problems
    >>> law = Gibbs.from_sgd(problems.quartic_wells(), SGD(0.1, noise.Isotropic(1.0)))
    >>> round(float(law.temperature), 4)  # ηC/2
    0.05
    """

    setting: ClassVar[str] = "SGD on any loss, constant isotropic noise, any momentum"
    exactness: ClassVar[str] = "exact for its SDE; relative error about ηh/4 for the chain"
    citation: ClassVar[str] = "Dai, Zhu (2018), arXiv:1812.00542"

    derived: ClassVar[tuple[str, ...]] = (*ObjectiveLaw.derived, "normal", "normal_log_z")

    temperature: Float[Any, ""]
    discrete_step: Float[Any, ""] | None
    learning_rate: Float[Any, ""] | None
    form: Quadratic | None
    """Hessian and minimiser of L, where L is known to be quadratic."""
    normal: GaussianLaw | None
    """The law of `params` on a quadratic."""
    normal_log_z: Float[Any, ""] | None

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
        self.growth = self.support = self.table = self.normal = self.normal_log_z = None
        if self.form is None:
            self._tabulate()
        else:
            self.normal, self.normal_log_z = self._normal(self.form)

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
        sgd.require_heavy_ball()
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
    def examples(cls) -> Iterable[Self]:
        """A normal law, two wells on the line, a valley, and a joint law with momentum."""
        yield cls.quadratic([[2.0, 0.3], [0.3, 0.5]], 0.2, 0.1, [0.5, -1.0])
        yield cls(smooth_wells(), 0.05)
        yield cls.from_noise(smooth_wells(), 0.02, 1, discrete_correction=True, bounds=(-0.5, 1.15))
        yield cls(landscapes.valley_wells(), 0.2)
        yield cls.phase_space(landscapes.quadratic([[2.0]]), 0.1, 0.5, 0.9)

    @classmethod
    def improper_examples(cls) -> Sequence[Self]:
        """A flat direction, and a discrete correction beyond the neighbourhood of a minimum."""
        return (
            cls.quadratic(np.diag([1.0, 0.0]), 0.1),
            cls(smooth_wells(), 0.05, discrete_step=0.04),
            cls(smooth_wells(), 0.05, discrete_step=0.04, bounds=(-0.5, 1.4)),
        )

    @property
    def variables(self) -> tuple[str, ...]:
        """`params`, and `momentum_buffer` where the learning rate is given."""
        return PAIR[: 1 if self.learning_rate is None else 2]

    @property
    def exact_draws(self) -> bool:
        """On quadratics and with one parameter."""
        return self.form is not None or super().exact_draws

    @property
    def normalized(self) -> bool:
        """On quadratics and with one parameter."""
        return self.normal is not None or super().normalized

    def potential(self, params: Float[Any, " d"]) -> Float[Any, ""]:
        """U/τ, with the discrete correction where that is on; infinite outside `bounds`."""
        if self.discrete_step is None:
            energy = self.objective(params) / self.temperature
        else:
            value, slope = jax.value_and_grad(self.objective)(params)
            corrected = value - self.discrete_step / 4 * jnp.sum(slope**2)
            curvature = jnp.trace(jax.hessian(self.objective)(params))
            energy = corrected / self.temperature + self.discrete_step / 2 * curvature
        return self.within(params, energy)

    def _log_normalizer(self) -> Any:
        return super()._log_normalizer() if self.normal is None else self.normal_log_z

    def _joint_log_density(
        self, params: Float[Any, " d"], momentum_buffer: Float[Any, " d"]
    ) -> Float[Any, ""]:
        return self._log_density(params) + self._buffer().log_prob(momentum_buffer)

    def model(self, obs: Float[Any, "n d"] | None = None) -> None:
        """Site `params`, and `momentum_buffer` if that is part of the law and nothing observed.

        Multivariate normal for a quadratic, else a flat prior with the factor exp(−U/τ).
        """
        self.require_proper()
        if self.normal is None:
            super().model(obs)
        else:
            # Checked when the law was made; NumPyro's own checks compile some forty programs.
            normal = dist.MultivariateNormal(
                self.normal.location, self.normal.joint, validate_args=False
            )
            if obs is None:
                numpyro.sample("params", normal)
            else:
                with numpyro.plate("replica", obs.shape[0]):
                    numpyro.sample("params", normal, obs=obs)
        if self.learning_rate is not None and obs is None:
            numpyro.sample("momentum_buffer", self._buffer())

    def _mean(self, variable: str) -> Float[Any, " d"]:
        if variable == "momentum_buffer":
            return np.zeros(self.dimension)
        return super()._mean(variable) if self.normal is None else self.normal._mean(variable)

    def _covariance(self, variable: str, other: str) -> Float[Any, "d d"]:
        identity = np.eye(self.dimension)
        if variable != other:
            return 0 * identity
        if variable == "momentum_buffer":
            return self._buffer_variance() * identity
        if self.normal is None:
            return super()._covariance(variable, other)
        return self.normal._covariance(variable, other)

    def _cdf(self, params: Float[Any, "... d"]) -> Float[Any, "... d"]:
        return super()._cdf(params) if self.normal is None else self.normal._cdf(params)

    def _quantile(self, probability: Float[Any, "..."]) -> Float[Any, "... d"]:
        if self.normal is None:
            return super()._quantile(probability)
        return self.normal._quantile(probability)

    def _draw(self, key: PRNGKeyArray, number: int) -> Mapping[str, Float[Any, "number d"]]:
        if self.normal is not None:
            return Law._draw(self, key, number)
        draws = dict(super()._draw(key, number))
        if self.learning_rate is not None:
            draws["momentum_buffer"] = self._buffer().sample(jax.random.fold_in(key, 1), (number,))
        return draws

    def starting_points(
        self, key: PRNGKeyArray, number: int
    ) -> Mapping[str, Float[Any, "number d"]] | None:
        """Exact draws where d = 1, in every well; None on a quadratic and in several dimensions."""
        return None if self.normal is not None else super().starting_points(key, number)

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
        slow, least = self._slow_directions()
        if slow:
            cause = "" if self.discrete_step is None else " (the discrete correction counts)"
            raise ImproperLawError(
                f"exp(-L/tau) is not normalisable: flat directions {slow[:8]} need "
                f"weight_decay > 0 or bounds{cause}; d(U/tau)/dlog|params| = {least:.4g} there "
                f"and must exceed d = {self.dimension}"
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

    def _normal(self, form: Quadratic) -> tuple[GaussianLaw | None, Any]:
        """The normal law on a quadratic and log Z; None where it does not exist."""
        try:
            self.require_proper()
        except ImproperLawError:
            return None, None
        mean, covariance, log_z = in_double_precision(_normal_moments, form, self._bare())
        return GaussianLaw(mean, covariance), log_z

    def _buffer_variance(self) -> Any:
        return self.temperature / self.learning_rate

    def _buffer(self) -> dist.Distribution:
        normal = dist.Normal(0.0, jnp.sqrt(self._buffer_variance()))
        return normal.expand([self.dimension]).to_event(1)


def _normal_moments(form: Quadratic, law: Gibbs) -> tuple[Any, Any, Any]:
    """Mean, covariance and log ∫exp(−potential) on a quadratic."""
    d = law.dimension
    curvature = form.hessian + law.weight_decay * jnp.eye(d)
    mean = jnp.linalg.solve(curvature, form.hessian @ form.minimiser)
    precision = curvature / law.temperature
    if law.discrete_step is not None:
        precision = precision - law.discrete_step / 2 * curvature @ precision
    determinant = jnp.linalg.slogdet(precision)[1]
    log_z = 0.5 * d * jnp.log(2 * jnp.pi) - 0.5 * determinant - law.potential(mean)
    return mean, jnp.linalg.inv(precision), log_z


def gibbs_temperature(learning_rate: Any, noise_variance: Any, momentum: Any = 0.0) -> Any:
    """τ = ηc/(2(1−β)), unit of loss; `noise_variance` c per coordinate, batch size included.

    >>> round(float(gibbs_temperature(0.1, noise_variance=2.0, momentum=0.9)), 4)
    1.0
    """
    eta, beta = positive("learning_rate", learning_rate), fraction("momentum", momentum)
    return eta * positive("noise_variance", noise_variance) / (2 * (1 - beta))
