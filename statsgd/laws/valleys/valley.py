"""A valley of (nearly) equal minima: noise across it makes the flat stretches likelier."""

import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Float
from scipy.special import ndtr

from statsgd.arguments import fraction, is_traced, non_negative, one_of, positive, real
from statsgd.dynamics.sgd import SGD
from statsgd.laws.bases.expectation import on_table, on_table_and_normal
from statsgd.laws.bases.line import LineTable, require_resolved, resolved
from statsgd.laws.bases.nested import log_integral
from statsgd.laws.bases.potential import density_model
from statsgd.laws.expected import Columns, Expected
from statsgd.laws.law import ImproperLawError, Law, register, require_accurate
from statsgd.laws.loss_noise.setting import READINGS
from statsgd.laws.valleys.averaging import (
    AveragedValley,
    across_table,
    along_valley,
    tabulated,
)
from statsgd.laws.valleys.coordinate import (
    Constant,
    CosineFloor,
    FlatFloor,
    LineCurvature,
    RingCurvature,
    ValleyCoordinate,
)
from statsgd.laws.valleys.setting import valley_setting
from statsgd.precision import formula, in_double_precision, over_points
from statsgd.problems import Problem

_ACROSS = 16  # nodes of Gauss–Hermite rules
_ALIKE = 1e-7  # share of E|f| by which two of them may differ
_MIXED = 2048  # normal laws in the marginal across, at least
_LOOKED_AT = 64  # places across
_SETTLED = 1e-6  # change of its distribution function with twice as many
_ADIABATIC = 0.05  # relative error of the averaging above which to warn
_OCCUPIED = 1e-8  # share of the largest weight below which a place has no mass


class AdiabaticWarning(UserWarning):
    """The motion across a valley is not fast enough for the law along it."""


@register
class ValleyLaw(Law):
    """Adiabatic law of SGD in a valley L(x, y) = L₀(x) + ½ Σ_i h_i(x) y_i².

    θ = (x, y_1, …, y_m): x runs along the valley, slowly, y across it, fast. Noise is diagonal,
    D = ηC/2 across (D_i) and along (D_x). With s = 2(1+β), and D → D/(1−β) for momentum β,

        y_i | x ~ Normal(0, D_i/[h_i(1 − ηh_i/s)])
        p(x) ∝ D_x^(−a) exp{−∫ [L₀' + ½ Σ_i h_i' D_i/(h_i(1 − ηh_i/s))]/D_x dx}

    a = 1 in the Itô reading, which is SGD. For constant D_y = κD_x and m = 1, η → 0,

        p(x) ∝ F^κ e^(−κL₀/D_y),     F = h^(−1/2)  the flatness

    so that noise anisotropy κ > 1 adds the effective loss (κ−1)[L₀ − D_y ln F] to L (κ = 1 is
    Boltzmann). **Only the marginal of x and the conditional law of y are claimed**: for κ ≠ 1 the
    probability flux circulates and the joint density is not a stationary density in 2-D.

    Proper if ηh < s on the whole support and p can be normalised (on a line, F ~ |x|^(−r) needs
    κr > 1 where L₀ does not grow). Its relative error is of the order of `adiabatic_parameter`, or
    of its square with `second_order`; `AdiabaticWarning` says so where that is above 0.05.

    **Arguments:**

    - `curvature`: h, a JAX function of x, scalar or `(m,)`;
    - `across_diffusion`, `along_diffusion`: D_i = ηC_ii/2 and D_x = ηC_xx/2 (loss/time of params²),
      numbers or JAX functions of x, D_i scalar or `(m,)`;
    - `floor`: L₀, a JAX function of x, zero by default;
    - `support`: `"ring"` (x in (−π, π]), `"line"` with its length `scale`, or a pair (low, high);
    - `learning_rate` η for the finite-step factor 1 − ηh/s, zero by default (the SDE), and
      `momentum` β;
    - `reading`: `"ito"` (SGD), `"stratonovich"` (a = ½) or `"anti_ito"` (a = 0, the flux Ap − D∇p);
      it matters for diffusion that varies along the valley;
    - `second_order`: the next order of the averaging in D_y, for constant diffusion, one transverse
      direction and η = 0; removes most of the adiabatic error of the marginal.

    Source: Yang, Tang, Tu (2023), arXiv:2206.01246, for the effective loss; readings, finite step,
    momentum and second order are derived.

    >>> import jax
    >>> law = ValleyLaw.ring(2.0, 0.5, across_diffusion=0.01, anisotropy=2.0, learning_rate=0.05)
    >>> law.draw(jax.random.key(0), (3,)).shape  # (x, y)
    (3, 2)
    """

    setting: ClassVar[str] = "SGD in a nearly degenerate valley, anisotropic noise"
    exactness: ClassVar[str] = "adiabatic: marginal along and conditional law across the valley"
    citation: ClassVar[str] = "Yang, Tang, Tu (2023), arXiv:2206.01246"

    valley: AveragedValley
    #: Of the coordinate v along the valley.
    table: LineTable
    #: See `AveragedValley.limits`.
    limits: Float[Any, "3"]
    adiabaticity: Float[Any, ""]

    def __init__(
        self,
        curvature: Callable,
        across_diffusion: Any,
        along_diffusion: Any,
        *,
        floor: Callable | None = None,
        support: Any = "ring",
        scale: Any = 1.0,
        learning_rate: Any = 0.0,
        momentum: Any = 0.0,
        reading: str = "ito",
        second_order: bool = False,
    ):
        valley = AveragedValley(
            curvature,
            _diffusion("across_diffusion", across_diffusion),
            _diffusion("along_diffusion", along_diffusion),
            FlatFloor() if floor is None else floor,
            ValleyCoordinate.of(support, scale),
            non_negative("learning_rate", learning_rate),
            fraction("momentum", momentum),
            one_of("reading", reading, READINGS),
            bool(second_order),
        )
        if second_order and not (
            valley.constant_diffusion
            and valley.transverse == 1
            and not np.any(np.asarray(valley.learning_rate))
        ):
            raise ValueError(
                "second_order needs constant diffusion, one transverse direction and "
                "learning_rate = 0: add the finite-step shift to its expectations"
            )
        self.table, self.limits, sums = resolved(
            partial(tabulated, valley), table=lambda found: found[0]
        )
        self.valley = valley.with_sums(sums)
        self.adiabaticity = in_double_precision(_largest_adiabaticity, self.valley, self.table)

    @classmethod
    def from_sgd(
        cls, problem: Problem, sgd: SGD, *, support: Any, scale: Any = 1.0, **options: Any
    ) -> Self:
        """The law for `sgd` on a problem whose first flat parameter is x and whose others are y.

        The floor of the valley must lie at y = 0, with diagonal curvature and diagonal noise there;
        h, L₀ and C are read off along it, weight decay and momentum counted. `support`, `scale` and
        the `options` `reading` and `second_order` are those of the class; with `second_order` the
        finite-step factor is left out. Raises `ValueError` where an assumption fails.
        """
        setting = valley_setting(problem, sgd, ValleyCoordinate.of(support, scale))
        return cls(
            setting.curvature,
            setting.across_diffusion,
            setting.along_diffusion,
            floor=setting.floor,
            support=support,
            scale=scale,
            learning_rate=0.0 if options.get("second_order") else sgd.learning_rate,
            momentum=sgd.momentum,
            **options,
        )

    @classmethod
    def ring(
        cls,
        base_curvature: Any,
        modulation: Any,
        across_diffusion: Any,
        anisotropy: Any,
        floor_height: Any = 0.0,
        **options: Any,
    ) -> Self:
        """h = h₀e^(a cos x), L₀ = b(1 − cos x), D_y = κD_x constant.

        For η → 0 x is von Mises about 0 with concentration κ(b/D_y − a/2), about π where that is
        negative: floor and flatness balance at D_y = 2b/a for every κ.
        """
        across = positive("across_diffusion", across_diffusion)
        height = real("floor_height", floor_height, allowed="finite", valid=np.isfinite)
        return cls(
            RingCurvature(
                positive("base_curvature", base_curvature),
                real("modulation", modulation, allowed="finite", valid=np.isfinite),
            ),
            across,
            across / positive("anisotropy", anisotropy),
            floor=CosineFloor(height),
            **options,
        )

    @classmethod
    def line(
        cls,
        base_curvature: Any,
        length: Any,
        across_diffusion: Any,
        anisotropy: Any,
        learning_rate: Any = 0.0,
        momentum: Any = 0.0,
        **options: Any,
    ) -> Self:
        """h = h₀(1 + x²/l²), L₀ = 0, D_y = κD_x constant.

        For η → 0 x is Student-t with ν = κ−1 and scale l/√ν, of variance l²/(κ−3); needs κ > 1.
        A finite η cuts the support where ηh = 2(1+β): a run that reaches it diverges.
        """
        across = positive("across_diffusion", across_diffusion)
        h0, size = positive("base_curvature", base_curvature), positive("length", length)
        support: Any = "line"
        if is_traced(learning_rate) or float(learning_rate) > 0:
            edge = _stable_reach(h0, size, learning_rate, momentum)
            support = (-edge, edge)
        return cls(
            LineCurvature(h0, size),
            across,
            across / positive("anisotropy", anisotropy),
            support=support,
            scale=size,
            learning_rate=learning_rate,
            momentum=momentum,
            **options,
        )

    @classmethod
    def examples(cls) -> Iterable[Self]:
        """A ring, a line with a step, and a ring whose diffusion follows its curvature.

        Rings are flat at zero, so that few draws lie where the angle jumps.
        """
        rings = (RingCurvature(np.float64(base), np.float64(-0.5)) for base in (2.0, 0.02, 0.005))
        yield cls.ring(2.0, -0.5, 0.02, 4.0, learning_rate=0.05)
        yield cls.line(1.0, 1.0, 0.03, 9.0, learning_rate=0.05)
        yield cls(*rings)

    @classmethod
    def improper_examples(cls) -> Sequence[Self]:
        """A tail too heavy, and a step too large for the sharp side."""
        return (
            cls.line(1.0, 1.0, 0.05, 0.9),
            cls.ring(2.0, 0.5, 0.02, 4.0, learning_rate=0.7),
        )

    @property
    def error_estimate(self) -> Float[Any, ""]:
        """See `LineTable.error_estimate`, of the marginal along the valley."""
        return self.table.error_estimate

    @property
    def dimension(self) -> int:
        """1 + m."""
        return 1 + self.valley.transverse

    def require_proper(self) -> None:
        """Raise `ImproperLawError` unless ηh < 2(1+β) on the support and p is normalisable.

        Warns (`AdiabaticWarning`) where the averaging is not accurate.
        """
        if is_traced(self.limits, self.valley):
            return
        excess, where, tail = (float(value) for value in self.limits)
        limit = float(self.valley.stability_limit)
        if excess > 1 + 1e-9:
            raise ImproperLawError(
                f"edge of stability inside the valley: eta*h = {excess * limit:.6g} at x = "
                f"{where:.6g} must be below 2(1+momentum) = {limit:.6g}"
            )
        if not tail > 1:
            raise ImproperLawError(
                f"valley marginal not normalisable: kappa*r = {tail:.4g} must exceed 1, where it "
                "falls as |x|^(-kappa*r)"
            )
        if not np.isfinite(self.table.log_normalizer):
            raise ImproperLawError(
                "valley marginal not normalisable: its integral is not finite (curvature and "
                "diffusion must be positive and finite on the support)"
            )
        require_resolved(self.table)
        parameter, order = self.adiabatic_parameter(), 2 if self.valley.second_order else 1
        if parameter**order > _ADIABATIC:
            warnings.warn(
                f"adiabatic parameter {parameter:.3g} makes the law off by a share of order "
                f"{parameter**order:.2g}: it should be below {_ADIABATIC ** (1 / order):.2g}",
                AdiabaticWarning,
                stacklevel=2,
            )

    def conditional_variance(self, x: Any) -> Any:
        """Var(y | x) = D_i/[h_i(1 − ηh_i/s)], with D_i/(1−β) under momentum; shape `(..., m)`."""
        self.require_proper()
        return along_valley(AveragedValley.variance, self.valley, x)

    def log_marginal(self, x: Any) -> Any:
        """Log density of x, normalised; −∞ off the support."""
        self.require_proper()
        shape = along_valley(AveragedValley.log_along, self.valley, x)
        return shape - self.table.log_normalizer

    def _log_density(self, params: Float[Any, " d"]) -> Float[Any, ""]:
        return self.valley.log_joint(params) - self.table.log_normalizer

    def model(self, obs: Float[Any, "n d"] | None = None) -> None:
        """Sites `level` (uniform; x is its quantile) and `across`; `params` = (x, y).

        With `obs` the density itself is used.
        """
        self.require_proper()
        if obs is not None:
            density_model(self, dist.constraints.real_vector, obs)
            return
        level = numpyro.sample("level", dist.Uniform(0.0, 1.0))
        x = self.valley.coordinate.place(self.table.quantile(level))
        scale = jnp.sqrt(self.valley.variance(x))
        y = numpyro.sample("across", dist.Normal(0.0, scale).to_event(1))
        numpyro.deterministic("params", jnp.concatenate([x[None], y]))

    def expectation_along(self, function: Callable[[Any], Any]) -> float:
        """E f(x), f a NumPy function of x; infinite where the tail of the integrand grows.

        Warns and raises as `expectation`.
        """
        self.require_proper()

        def along(v: Float[np.ndarray, "n 1"]) -> Any:
            # Far out the curvature may overflow or vanish, with no mass there.
            with np.errstate(invalid="ignore"):
                x = over_points(_placed, v, self.valley.coordinate)[:, 0]
                return np.asarray(function(x), dtype=np.float64)[:, None]

        weights = self.table.weights
        values = np.where(weights > 0, along(self.table.points[:, None])[:, 0] * weights, 0.0)
        # Points of equal weight in Simpson's rule.
        grows = (abs(values[1]) > abs(values[41]), abs(values[-2]) > abs(values[-42]))
        if not self.valley.coordinate.bounded and any(grows):
            return np.inf
        found = on_table(self.table, along, self.error_estimate)
        if found.size > 0:
            require_accurate("expectation", float((found.error / found.size)[0]))
        return float(found.value[0])

    def _mean(self, variable: str) -> Float[Any, " d"]:
        along = self.expectation_along(lambda x: x)
        exists = np.isfinite(self.expectation_along(np.abs))
        return np.concatenate([[along if exists else np.nan], np.zeros(self.valley.transverse)])

    def _covariance(self, variable: str, other: str) -> Float[Any, "d d"]:
        """Diagonal: Var x and E Var(y | x)."""
        center = np.nan_to_num(self._mean("params")[0])
        along = self.expectation_along(lambda x: (x - center) ** 2)

        def across(index: int) -> float:
            return self.expectation_along(lambda x: self.conditional_variance(x)[:, index])

        variances = [across(index) for index in range(self.valley.transverse)]
        return np.diag([along, *variances])

    def _quadrature(self) -> tuple[Float[Any, "n d"], Float[Any, " n"]] | None:
        """Gauss–Hermite across, at every point along; for one direction across."""
        if self.valley.transverse > 1:
            return None
        nodes, weights = np.polynomial.hermite_e.hermegauss(_ACROSS)
        kept = self.table.weights > 0
        x = self.valley.coordinate.place(self.table.points)[kept]
        y = np.sqrt(self.conditional_variance(x)) * nodes
        points = np.stack([np.broadcast_to(x[:, None], y.shape), y], axis=-1).reshape(-1, 2)
        return points, np.outer(self.table.weights[kept], weights / weights.sum()).ravel()

    def _averaged(self, values: Columns) -> Expected:
        """As `_quadrature` where rules of two orders across agree; else on cells of the plane."""
        if self.valley.transverse > 1:
            self._cannot_say("expectations")

        def at(v: Any, z: Any) -> Any:
            """Where points v of the table and deviations z lie, a row a point."""
            x = over_points(_placed, v, self.valley.coordinate)
            y = np.sqrt(along_valley(AveragedValley.variance, self.valley, x[:, 0])) * z
            return np.stack([np.broadcast_to(x, y.shape), y], axis=-1)

        def along(v: Any, order: int = _ACROSS) -> Any:
            nodes, weights = np.polynomial.hermite_e.hermegauss(order)
            points = at(v, nodes)
            found = values(points.reshape(-1, 2)).reshape(*points.shape[:2], -1)
            return np.einsum("nmk,m->nk", found, weights / weights.sum())

        kept = self.table.weights > 0
        weights, points = self.table.weights[kept], self.table.points[kept, None]
        fine, rough = (along(points, order) for order in (_ACROSS, _ACROSS - 3))
        size = weights @ np.abs(fine)
        if np.all(weights @ np.abs(fine - rough) <= _ALIKE * size):
            return on_table(self.table, along, self.error_estimate)
        scale = np.where(size > 0, size, 1.0)
        return on_table_and_normal(
            self.table,
            lambda v, z: values(at(v, z[:, None])[:, 0]),
            scale,
            self.error_estimate,
        )

    def _cdf(self, params: Float[Any, "... d"]) -> Float[Any, "... d"]:
        along = self.table.cdf(self.valley.coordinate.parameter(params[..., 0]))
        across = [
            table.cdf(params[..., 1 + index]) for index, table in enumerate(self._across_tables())
        ]
        return np.stack([along, *across], axis=-1)

    def _quantile(self, probability: Float[Any, "..."]) -> Float[Any, "... d"]:
        along = self.valley.coordinate.place(self.table.quantile(probability))
        across = [table.quantile(probability) for table in self._across_tables()]
        return np.stack([along, *across], axis=-1)

    def _across_tables(self) -> list[LineTable]:
        """The marginal laws of y_i: mixtures over as many places along as it takes."""
        every = (len(self.table.knots) - 1) // _MIXED
        widths, shares = self._mixture(every)
        while True:
            finer = self._mixture(every // 2)
            off = _largest_change((widths, shares), finer)
            if off <= _SETTLED:
                break
            every, (widths, shares) = every // 2, finer
            if every == 1:
                break
        require_accurate("marginal across the valley", off + float(self.error_estimate))
        tables = [
            resolved(partial(in_double_precision, across_table, width, shares))
            for width in widths.T
        ]
        return [require_resolved(table) for table in tables]

    def _mixture(self, every: int) -> tuple[Float[Any, "n m"], Float[Any, " n"]]:
        """Deviations across at one in `every` of the knots along, and the masses there."""
        masses = np.array(self.table.density[::every])
        masses[[0, -1]] /= 2  # an end stands for half an interval
        kept = masses > 0
        x = self.valley.coordinate.place(self.table.points)[::every]
        widths = np.sqrt(self.conditional_variance(np.where(kept, x, x[np.argmax(masses)])))
        return widths, masses / masses.sum()

    def anisotropy(self, x: Any) -> Any:
        """κ = D_y/D_x; shape `(..., m)`."""
        return along_valley(AveragedValley.anisotropy, self.valley, x)

    def effective_loss(self, x: Any) -> Any:
        """L_SGD = (κ−1)[L₀ − D_y ln F], ln F = −½ Σ ln h_i: what the noise adds to the loss.

        For constant, equal diffusion across; else `ValueError`.
        """
        constant = self.valley.constant_diffusion
        if not constant or np.ptp(along_valley(AveragedValley.across, self.valley, 0.0)) != 0:
            raise ValueError("effective_loss needs constant and equal diffusion across the valley")
        return along_valley(AveragedValley.effective_loss, self.valley, x)

    def drift(self, x: Any) -> Any:
        """dx/dt = −L₀' − ½ Σ h_i' D_i/(h_i(1 − ηh_i/s)), per unit t = ηk."""
        return along_valley(AveragedValley.drift, self.valley, x)

    def slide_time(self, start: float, end: float) -> float:
        """Time t = ηk that the mean drift takes from `start` to `end`, without diffusion along.

        Raises `ValueError` where the drift does not point from start to end all the way.
        """
        direction = np.sign(end - start)

        def log_slowness(distance: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
            speed = direction * self.drift(start + direction * distance)
            if not np.all(speed > 0):
                raise ValueError(f"the drift does not carry x from start = {start} to end = {end}")
            return -np.log(speed)

        return log_integral(log_slowness, 0.0, abs(end - start)).number("time of the slide")

    def adiabatic_parameter(self) -> float:
        """Largest κ D_y h'²/(4h³) where the law has mass: wanted well below one."""
        return float(self.adiabaticity)


def _largest_change(rough: Any, fine: Any) -> float:
    """How far apart the distribution functions of two mixtures of centred normal laws are."""
    widths, shares = rough
    seen = widths[shares > 0]
    places = np.geomspace(seen.min(axis=0) / 4, 4 * seen.max(axis=0), _LOOKED_AT)

    def distribution(widths: Any, shares: Any) -> Any:
        return np.stack([shares @ ndtr(y / widths) for y in places])

    return float(np.max(np.abs(distribution(*rough) - distribution(*fine))))


def _placed(v: Float[Any, " 1"], coordinate: ValleyCoordinate) -> Float[Any, " 1"]:
    return coordinate.place(v)


def _largest_adiabaticity(valley: AveragedValley, table: LineTable) -> Float[Any, ""]:
    values = jax.vmap(valley.adiabaticity)(valley.coordinate.place(table.points))
    occupied = table.weights > _OCCUPIED * jnp.max(table.weights)
    return jnp.max(jnp.where(occupied, values, 0.0))


def _diffusion(name: str, value: Any) -> Callable:
    return value if callable(value) else Constant(positive(name, value))


@formula
def _stable_reach(base: Any, length: Any, learning_rate: Any, momentum: Any) -> Any:
    """|x| where ηh₀(1 + x²/l²) = 2(1+β); the length where there is no such place."""
    room = 2 * (1 + momentum) / (learning_rate * base) - 1
    return length * jnp.sqrt(jnp.where(room > 0, room, 1.0))
