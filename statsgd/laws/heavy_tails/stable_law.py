"""The stationary law of heavy-ball SGD on a quadratic under stable gradient noise."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Float, PRNGKeyArray, PyTree
from scipy.special import gamma

from statsgd.arguments import (
    finite_array,
    fraction,
    is_traced,
    location_vector,
    non_negative,
    one_of,
    positive,
    symmetric,
)
from statsgd.dynamics.noise.heavy_tailed import Stable
from statsgd.dynamics.sgd import SGD
from statsgd.laws.bases.nested import log_integral
from statsgd.laws.heavy_tails import stable_line
from statsgd.laws.heavy_tails.distribution import PositiveStable, SymmetricStable
from statsgd.laws.heavy_tails.impulse import impulse_response, response_size, slowest_root
from statsgd.laws.law import ImproperLawError, Law, register
from statsgd.laws.minimum.gaussian import eigenmodes
from statsgd.laws.minimum.heavy_ball import require_stable_mean
from statsgd.laws.minimum.local_quadratic import minimum_near
from statsgd.precision import over_points
from statsgd.problems import Problem, hessian

_REMAINDER = 1e-9  # of the noise that draws of several modes together leave out
_DRAWN = 2**22  # numbers drawn at once
_AGREED = 1e-8
_TIMES = np.linspace(-40.0, 8.0, 801)  # log t of integrals over e^{−ht}, in units of 1/h


@register
class StableLaw(Law):
    """Stationary law of heavy-ball SGD on a quadratic when the gradient noise is α-stable.

    L = ½(θ−θ*)ᵀH(θ−θ*), ĝ = ∇L + ξ, and ξ symmetric stable of index α and scale s at every θ
    (`noise.Stable`). Every coordinate, and every combination u·θ, is then symmetric α-stable about
    θ*. With h an eigenvalue of H + λI, one mode has exactly the scale

        η s (Σ_k |ψ_k|^α)^(1/α),   ψ_{k+1} = (1+β−ηh)ψ_k − βψ_{k−1}, ψ_{−1} = 0, ψ_0 = 1,

    which without momentum is η s (1 − |1−ηh|^α)^(−1/α). It exists iff 0 < ηh < 2(1+β). Momentum
    widens a law of α < 2 by more than the effective step η/(1−β) says.

    α = 2 is the normal law for noise of variance 2s². For α < 2 the covariance is infinite and for
    α ≤ 1 the mean is NaN; moments of order α and above are refused (`absolute_moment`). The joint
    density is known where the modes are independent: for one parameter, for α = 2, and for
    independent noise along the axes of a diagonal H. Elsewhere the coordinates' own laws and draws
    are: those sum the noise of as many steps as leave 10⁻⁹ of it.

    **Arguments:** `hessian` H `(d, d)`, loss/params²; `alpha` α in (0, 2]; `scale` s > 0,
    loss/params, a number or, for independent noise, `(d,)`; η, β, λ as in `SGD`; `location`
    `(d,)`, the minimiser of L + (λ/2)|θ|², zero by default; `form` as in `noise.Stable`; `time`,
    `"discrete"` for the chain or `"continuous"` for its limit (see `continuous`). All of them are
    numbers: the law is computed when it is built.

    Source: derived; the setting is that of Şimşekli, Sagun, Gürbüzbalaban (2019), arXiv:1901.06053.

    >>> import numpy as np
    >>> from statsgd import SGD, noise, problems
    >>> bowl = problems.quadratic(np.eye(1))
    >>> StableLaw.from_sgd(bowl, SGD(0.1, noise.Stable(1.5, 1.0))).quantile(0.95).round(3)
    array([1.1])
    """

    setting: ClassVar[str] = "heavy-ball SGD, quadratic loss, α-stable gradient noise"
    exactness: ClassVar[str] = "exact at any learning rate (chain), exact for the SDE (continuous)"
    citation: ClassVar[str] = (
        "derived; setting of Şimşekli, Sagun, Gürbüzbalaban (2019), arXiv:1901.06053"
    )

    hessian: Float[Any, "d d"]
    alpha: Float[Any, ""]
    scale: Float[Any, "*d"]
    learning_rate: Float[Any, ""]
    momentum: Float[Any, ""]
    weight_decay: Float[Any, ""]
    location: Float[Any, " d"]
    form: str = eqx.field(static=True)
    time: str = eqx.field(static=True)
    curvatures: Float[Any, " d"]
    """Eigenvalues h of H + λI, ascending."""
    vectors: Float[Any, "d d"]
    """Their eigenvectors, as columns."""
    mode_scales: Float[Any, " d"]
    """Scale of every mode; NaN where the law does not exist."""
    coordinate_scales: Float[Any, " d"]
    """Scale of every parameter."""
    independent_modes: bool = eqx.field(static=True)
    """Whether the modes are independent, so that the joint density is known."""
    response: Float[Any, "steps d"] | None
    """ψ_k of every mode, which draws of dependent modes sum."""

    def __init__(
        self,
        hessian: Any,
        alpha: Any,
        scale: Any,
        learning_rate: Any,
        momentum: Any = 0.0,
        weight_decay: Any = 0.0,
        location: Any = None,
        form: str = "isotropic",
        time: str = "discrete",
    ):
        noise = Stable(alpha, scale, form)
        self.hessian = symmetric("hessian", hessian)
        d = self.hessian.shape[0]
        if np.ndim(noise.scale) and np.shape(noise.scale) != (d,):
            raise ValueError(f"scale must be one number or have shape ({d},), got {scale}")
        self.alpha, self.scale, self.form = noise.alpha, noise.scale, noise.form
        self.learning_rate = positive("learning_rate", learning_rate)
        self.momentum = fraction("momentum", momentum)
        self.weight_decay = non_negative("weight_decay", weight_decay)
        self.location = location_vector(location, d)
        self.time = one_of("time", time, ("discrete", "continuous"))
        if self.time == "continuous" and np.any(self.momentum != 0):
            raise ValueError(f"momentum must be 0 in continuous time, got {float(self.momentum)}")
        modes = eigenmodes(self.hessian, self.weight_decay)
        self.curvatures, self.vectors = modes.curvatures, modes.vectors
        off_diagonal = self.hessian - np.diag(np.diagonal(self.hessian))
        normal = self.form == "isotropic" and float(self.alpha) == 2
        axes = self.form == "independent" and not np.any(off_diagonal)
        self.independent_modes = d == 1 or normal or axes
        self.mode_scales = self.coordinate_scales = np.full(d, np.nan)
        self.response = None
        try:
            self.require_proper()
        except ImproperLawError:
            return
        self.mode_scales = self._scales_along(self.vectors)
        self.coordinate_scales = self._scales_along(np.eye(d))
        if not self.independent_modes and self.time == "discrete":
            remainder = _REMAINDER ** (1 / min(float(self.alpha), 1.0))
            reach = self.learning_rate * self.curvatures
            self.response = impulse_response(reach, self.momentum, remainder=remainder)

    @classmethod
    def continuous(
        cls,
        hessian: Any,
        alpha: Any,
        scale: Any,
        learning_rate: Any,
        weight_decay: Any = 0.0,
        location: Any = None,
        form: str = "isotropic",
    ) -> Self:
        """The law of dθ = −(H+λI)(θ−θ*) dt + σ dL with σ = η^(1−1/α) s, E e^{iuL_t} = e^{−t|u|^α}.

        One mode has the scale σ(αh)^(−1/α); that of the chain is 1 + (α−1)ηh/(2α) + O(η²) times
        it. Arguments as for the law itself.
        """
        return cls(
            hessian, alpha, scale, learning_rate, 0.0, weight_decay, location, form, "continuous"
        )

    @classmethod
    def from_sgd(
        cls, problem: Problem, sgd: SGD, at: PyTree | None = None, time: str = "discrete"
    ) -> Self:
        """The law for `sgd` with `noise.Stable` near a minimum of `problem`, with its Hessian.

        `at` gives the minimum; by default it is found. Exact where the loss is quadratic; under
        heavy tails no other loss is near a quadratic for ever. Raises `ValueError` for other noise
        and as `local_quadratic`.
        """
        sgd.require_heavy_ball()
        if not isinstance(sgd.noise, Stable):
            raise ValueError(f"noise must be Stable for StableLaw, got {type(sgd.noise).__name__}")
        sgd.noise.check(problem)
        place = minimum_near(problem, sgd.weight_decay, at)
        return cls(
            np.asarray(hessian(problem, place)),
            sgd.noise.alpha,
            sgd.noise.scale,
            sgd.learning_rate,
            sgd.momentum,
            sgd.weight_decay,
            np.asarray(problem.flatten(place), dtype=np.float64),
            sgd.noise.form,
            time,
        )

    @classmethod
    def examples(cls) -> Iterable[Self]:
        """One parameter, two with isotropic noise, independent ones, the continuous law."""
        skew = [[1.6, 0.6], [0.6, 0.9]]
        yield cls([[1.0]], 1.5, 0.3, 0.4, location=[0.5])
        yield cls(skew, 1.6, 0.3, 0.5, 0.3, weight_decay=0.1)
        yield cls(np.diag([2.0, 0.5]), 1.7, [0.3, 0.2], 0.3, 0.5, form="independent")
        yield cls.continuous([[2.0]], 0.8, 0.3, 0.1)
        yield cls(skew, 2.0, 0.3, 0.5)

    @classmethod
    def improper_examples(cls) -> Sequence[Self]:
        """A learning rate above the threshold, and a flat direction in either time."""
        flat = np.diag([1.0, 0.0])
        return (
            cls([[2.0]], 1.5, 0.3, 1.0),
            cls(flat, 1.5, 0.3, 0.1, 0.9),
            cls.continuous(flat, 1.5, 0.3, 0.1),
        )

    @property
    def dimension(self) -> int:
        """Number of parameters d."""
        return self.location.shape[-1]

    @property
    def exact_draws(self) -> bool:
        """False for dependent modes in continuous time, whose noise has no finite sum."""
        return self.time == "discrete" or self.independent_modes

    def require_proper(self) -> None:
        """Raise `ImproperLawError` unless 0 < ηh < 2(1+β) in every mode; 0 < h if continuous."""
        if is_traced(self.curvatures, self.learning_rate, self.momentum):
            return
        if self.time == "discrete":
            require_stable_mean(self.curvatures, float(self.learning_rate), float(self.momentum))
        elif not np.min(self.curvatures) > 0:
            raise ImproperLawError(
                "hessian + weight_decay*I must have positive eigenvalues, got "
                f"{float(np.min(self.curvatures)):.6g}: no stationary law"
            )

    def scale_along(self, direction: Any) -> float:
        """Scale of the stable number u·θ for u = `direction` `(d,)`, of any length."""
        self.ensure_proper()
        u = np.asarray(finite_array("direction", direction, ndim=1), dtype=np.float64)
        if u.shape != (self.dimension,):
            raise ValueError(f"direction must have shape ({self.dimension},), got {u.shape}")
        return float(self._scales_along(u[:, None])[0])

    def absolute_moment(self, order: Any) -> Float[Any, " d"]:
        """E|θ_j − θ*_j|^p of every parameter, for an order p with 0 < p < α (any p for α = 2).

            (2γ)^p Γ((1+p)/2) Γ(1−p/α)/(√π Γ(1−p/2))

        Raises `ValueError` for other orders: the moment is infinite.
        """
        self.ensure_proper()
        p, alpha = float(positive("order", order)), float(self.alpha)
        if alpha < 2 and p >= alpha:
            raise ValueError(
                f"order must be below alpha = {alpha:.6g}, where moments are finite, got {p:.6g}"
            )
        ratio = 1.0 if alpha == 2 else gamma(1 - p / alpha) / gamma(1 - p / 2)
        widths = (2 * np.asarray(self.coordinate_scales)) ** p
        return widths * gamma((1 + p) / 2) * ratio / np.sqrt(np.pi)

    def directions(self) -> Float[Any, "d d"]:
        """The modes: eigenvectors of H + λI."""
        return np.asarray(self.vectors)

    def kept(
        self, steps: int, learning_rate: float | None = None, momentum: float | None = None
    ) -> Float[Any, " d"] | None:
        """Share of a displacement that each mode has kept after `steps`, at most 1."""
        eta = float(self.learning_rate if learning_rate is None else learning_rate)
        beta = float(self.momentum if momentum is None else momentum)
        return np.minimum(slowest_root(eta * np.asarray(self.curvatures), beta), 1.0) ** steps

    def model(self, obs: Float[Any, "n d"] | None = None) -> None:
        """Site `params`, pushed forward from independent modes `z`, or from the `noise` of steps.

        Isotropic noise is drawn by its `sizes` and what they leave normal. Raises
        `IntractableError` for `obs` where the density is not known.
        """
        self.ensure_proper()
        if self.independent_modes:
            z = SymmetricStable(self.alpha, 0.0, jnp.asarray(self.mode_scales)).to_event(1)
            move = _RigidMotion(jnp.asarray(self.location), jnp.asarray(self.vectors))
            law = dist.TransformedDistribution(z, move)
            if obs is None:
                numpyro.sample("params", law)
                return
            with numpyro.plate("replica", obs.shape[0]):
                numpyro.sample("params", law, obs=obs)
            return
        if obs is not None or self.response is None:
            self._cannot_say("density")
        response = jnp.asarray(self.response)
        eta, q = jnp.asarray(self.learning_rate), jnp.asarray(self.vectors)
        if self.form == "isotropic":
            shape = response.shape[:1]
            sizes = numpyro.sample("sizes", PositiveStable(self.alpha / 2).expand(shape).to_event())
            normal = dist.Normal(0.0, 1.0).expand(response.shape[1:]).to_event(1)
            width = jnp.asarray(self.scale) * jnp.sqrt(2 * sizes @ response**2)
            modes = eta * width * numpyro.sample("normal", normal)
        else:
            scales = jnp.broadcast_to(jnp.asarray(self.scale), response.shape)
            noise = numpyro.sample("noise", SymmetricStable(self.alpha, 0.0, scales).to_event(2))
            modes = -eta * jnp.sum(response * (noise @ q), axis=0)
        numpyro.deterministic("params", jnp.asarray(self.location) + q @ modes)

    def _draw(self, key: PRNGKeyArray, number: int) -> Mapping[str, Any]:
        """In turns where a draw takes many numbers."""
        if self.response is None:
            return {"params": self._independent_draws(key, number)}
        at_once = max(1, _DRAWN // self.response.size)
        turns = [
            super(StableLaw, self)._draw(part, min(at_once, number - i * at_once))["params"]
            for i, part in enumerate(jax.random.split(key, -(-number // at_once)))
        ]
        return {"params": jnp.concatenate(turns)}

    def _independent_draws(self, key: PRNGKeyArray, number: int) -> Float[Any, "n d"]:
        z = SymmetricStable(self.alpha, 0.0, jnp.asarray(self.mode_scales))
        return jnp.asarray(self.location) + z.sample(key, (number,)) @ jnp.asarray(self.vectors).T

    def _log_density(self, params: Float[Any, " d"]) -> Float[Any, ""]:
        if not self.independent_modes:
            self._cannot_say("joint density of dependent modes")
        modes = (params - jnp.asarray(self.location)) @ jnp.asarray(self.vectors)
        widths = jnp.asarray(self.mode_scales)
        logs = stable_line.log_density(modes / widths, jnp.asarray(self.alpha))
        return jnp.sum(logs - jnp.log(widths))

    def _mean(self, variable: str) -> Float[Any, " d"]:
        return np.asarray(self.location) if self.alpha > 1 else np.full(self.dimension, np.nan)

    def _covariance(self, variable: str, other: str) -> Float[Any, "d d"]:
        if self.alpha < 2:
            return np.full((self.dimension, self.dimension), np.inf)
        if self.form == "isotropic":
            return (self.vectors * (2 * self.mode_scales**2)) @ self.vectors.T
        response = impulse_response(self.learning_rate * self.curvatures, self.momentum)
        noise = np.diag(np.broadcast_to(2 * self.scale**2, self.dimension))
        noise = self.vectors.T @ noise @ self.vectors
        modes = self.learning_rate**2 * noise * (response.T @ response)
        return self.vectors @ modes @ self.vectors.T

    def _cdf(self, params: Float[Any, "... d"]) -> Float[Any, "... d"]:
        return over_points(
            _cdf_at, params, self.location, self.coordinate_scales, np.float64(self.alpha)
        )

    def _quantile(self, probability: Float[Any, "..."]) -> Float[Any, "... d"]:
        standard = stable_line.quantile(probability, float(self.alpha))
        return self.location + standard[..., None] * self.coordinate_scales

    def _scales_along(self, directions: Float[np.ndarray, "d k"]) -> Float[np.ndarray, " k"]:
        """Scales of u·θ for columns u."""
        alpha, eta = float(self.alpha), float(self.learning_rate)
        h, inside = np.asarray(self.curvatures), self.vectors.T @ directions
        strength = np.broadcast_to(self.scale, self.dimension)
        if self.independent_modes:
            # With a diagonal H every mode is a coordinate, whose noise has a scale of its own.
            sized = np.abs(self.vectors).T @ strength if self.form == "independent" else strength
            if self.time == "continuous":
                widths = eta ** (1 - 1 / alpha) * sized * (alpha * h) ** (-1 / alpha)
            else:
                widths = eta * sized * response_size(eta * h, self.momentum, alpha)
            return np.sum((np.abs(inside) * widths[:, None]) ** alpha, axis=0) ** (1 / alpha)
        if self.time == "continuous":
            return np.array([self._lasting_scale(one) for one in inside.T])
        left = impulse_response(eta * h, self.momentum, remainder=1e-16 ** (1 / min(alpha, 1)))
        return np.array([eta * np.sum(self._sizes(left * one)) ** (1 / alpha) for one in inside.T])

    def _lasting_scale(self, direction: Float[np.ndarray, " d"]) -> float:
        """Of a direction, given in modes, in continuous time: (∫|e^{−Ht}u|^α dt/η)^(1/α) η.

        By the trapezoidal rule in log t where half as many places agree, for which it takes a
        smooth integrand: one that vanishes on the way has a cusp there.
        """
        alpha, eta, slowest = float(self.alpha), float(self.learning_rate), np.min(self.curvatures)

        def log_size(log_time: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
            left = np.exp(-np.exp(log_time)[:, None] * (self.curvatures / slowest)) * direction
            with np.errstate(divide="ignore"):
                return np.log(self._sizes(left)) + log_time

        sizes = np.exp(log_size(_TIMES))
        whole, rough = np.sum(sizes), 2 * np.sum(sizes[::2])
        integral = whole * (_TIMES[1] - _TIMES[0])
        if abs(whole - rough) > _AGREED * whole:
            integral = log_integral(log_size, _TIMES[0], _TIMES[-1]).number("scale of the law")
        return float(eta * (integral / (slowest * eta)) ** (1 / alpha))

    def _sizes(self, left: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
        """The α-th powers of the scales of a kick, of which so much is `left` in modes."""
        alpha = float(self.alpha)
        if self.form == "isotropic":
            return float(self.scale) ** alpha * np.linalg.norm(left, axis=1) ** alpha
        return np.sum((np.abs(left @ self.vectors.T) * self.scale) ** alpha, axis=1)


class _RigidMotion(dist.transforms.Transform):
    """x = location + Q z, Q orthogonal."""

    domain = dist.constraints.real_vector
    codomain = dist.constraints.real_vector

    def __init__(self, location: Float[Any, " d"], vectors: Float[Any, "d d"]):
        self.location, self.vectors = location, vectors

    def __call__(self, x: Float[Any, "... d"]) -> Float[Any, "... d"]:
        return self.location + x @ self.vectors.T

    def _inverse(self, y: Float[Any, "... d"]) -> Float[Any, "... d"]:
        return (y - self.location) @ self.vectors

    def log_abs_det_jacobian(self, x: Any, y: Any, intermediates: Any = None) -> Float[Any, "..."]:
        return jnp.zeros(jnp.shape(x)[:-1])

    def tree_flatten(self) -> Any:
        return (self.location, self.vectors), (("location", "vectors"), {})


def _cdf_at(
    params: Float[Any, " d"], location: Float[Any, " d"], scales: Float[Any, " d"], alpha: Any
) -> Float[Any, " d"]:
    return stable_line.upper_probability((location - params) / scales, alpha)
