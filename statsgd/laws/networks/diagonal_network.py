"""Stationary law of the slope of a diagonal linear network, for any depth and width."""

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Self

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Float
from scipy.optimize import minimize_scalar

from statsgd.arguments import count, is_traced, non_negative, positive
from statsgd.dynamics.sgd import SGD
from statsgd.laws.bases.line import LineTable
from statsgd.laws.bases.slope import SlopeLaw
from statsgd.laws.domain import SmallNumber
from statsgd.laws.law import ImproperLawError, register
from statsgd.laws.networks.data_moments import DataMoments, log_noise, noise_scale
from statsgd.laws.networks.growth import FactorShrinkage, LogSlopeSteps
from statsgd.laws.networks.learning_regime import stationary_points
from statsgd.precision import formula, in_double_precision
from statsgd.problems import DiagonalLinearNetwork, Problem


@register
class DiagonalNetworkLaw(SlopeLaw):
    """Stationary law of the slope f = Σᵢ Πⱼ uᵢⱼ of a diagonal linear network trained by SGD.

    M subnetworks of P factors, loss (f x − y)², diffusion limit. All factors see one Wiener
    process, so the surviving subnetworks balance: their factors become equal in modulus. With the
    tangent kernel A(f) = P M^(2/P−1) f^(2(P−1)/P) and the `DataMoments` b1, b2, g,

        p(f) ∝ A^(−3/2) g^(−1) exp(−(1/T) ∫ [(b1 f − b2)/(A g) + λ P f/(2 A² g)] df),   f > 0

    - P = 1 (regression): Pearson IV on the whole line; Student-t with ν = 1 + b1/(T a1) where
      y = κx + independent noise and λ = 0; Normal where x² is constant. Always proper; the
      variance is infinite for T ≥ (b1 + λ/2)/a1.
    - P = 2: independent of M. Proper iff T < T_c = (b2 − λ/2)/a3; from T_c on the network
      collapses to zero. Where x² is constant, Gamma((T_c/T − 1)/2, rate b1/(2Ta3)).
    - P > 2: proper at every T for λ = 0; with λ > 0 only the zero network is stationary. Where x²
      is constant and P = 4, √f is generalised inverse Gaussian.

    The tail is f^(−5+3/P) where x² varies (P ≥ 2): E f² is finite, E f⁴ is not. The full set of
    stationary laws is (1−z)δ₀ + z p, with z set by the start alone; this is the law of a network
    that has not collapsed. `collapse_weight` is the weight of the atom that dynamics enforces.

    At f* = b2/b1, ηAb1 ≤ 0.02 with, for P = 2, ηAb1 ≤ 0.04 (T_c/T − 1), and for P > 2 a relative
    variance TAg/(b1f²) ≤ 0.2, keep total variation from the chain below 5 % (measured for P ≤ 30,
    inputs of two sizes and Gaussian ones).

    `params` `(1,)` holds f; the site `weights` `(M, P)` holds the network. For P = 2 the factors
    of subnetwork i are rᵢ√(f/Σr²): the `ratios` r = u + w are conserved by SGD.

    **Arguments:** `num_layers` P (hidden layers + 1), `width` M (subnetworks not stuck at zero),
    `moments`, `noise_scale` T (see `laws.networks.noise_scale`), `weight_decay` λ, `ratios` `(M,)`
    (P = 2).

    Source: Ziyin, Li, Ueda (2023), arXiv:2308.06671; λ at any depth, the named special cases and
    discrete variances are derived.

    >>> import numpy as np
    >>> from statsgd import SGD, noise, problems
    >>> x, error = np.random.default_rng(0).normal(size=(2, 100))
    >>> network = problems.diagonal_linear_network(x, x + error, num_layers=2)
    >>> law = DiagonalNetworkLaw.from_sgd(network, SGD(0.05, noise.Minibatch(1)))
    >>> law.quantile(0.5).round(3)
    array([0.975])
    """

    setting: ClassVar[str] = "SGD on y ~ f x by a diagonal linear network, i.i.d. minibatches"
    exactness: ClassVar[str] = (
        "exact for the SDE on the balanced set; for the chain within 5 % where ηA(f*)b1 ≤ 0.02, "
        "not too near collapse, and relative variances of f ≤ 0.2"
    )
    citation: ClassVar[str] = "Ziyin, Li, Ueda (2023), arXiv:2308.06671"

    num_layers: int = eqx.field(static=True)
    width: int = eqx.field(static=True)
    moments: DataMoments
    noise_scale: Float[Any, ""]
    weight_decay: Float[Any, ""]
    ratios: Float[Any, " M"]
    table: LineTable

    def __init__(
        self,
        num_layers: int,
        width: int,
        moments: DataMoments,
        noise_scale: Any,
        weight_decay: Any = 0.0,
        ratios: Any = None,
    ):
        self.num_layers = count("num_layers", num_layers)
        self.width = count("width", width)
        if self.num_layers == 1 and self.width != 1:
            raise ValueError(f"width must be 1 for num_layers = 1, got {width}")
        if not isinstance(moments, DataMoments):
            raise ValueError(f"moments must be DataMoments, got {moments!r}")
        self.moments = moments
        self.noise_scale = positive("noise_scale", noise_scale)
        self.weight_decay = non_negative("weight_decay", weight_decay)
        self.ratios = positive("ratios", np.ones(width) if ratios is None else ratios)
        if self.ratios.shape != (width,):
            raise ValueError(f"ratios must have shape ({width},), got {self.ratios.shape}")
        self.correction = None
        self.table = self.tabulated()

    @classmethod
    def from_sgd(cls, problem: Problem, sgd: SGD, *, discrete_correction: bool = False) -> Self:
        """The law for i.i.d. minibatch `sgd` on a `diagonal_linear_network` problem.

        Assumes that every subnetwork survives (start them positive). Momentum enters through T
        alone. With the **discrete correction** the law is that of the chain to the next order in η,
        for P ≥ 2, batches with replacement and no momentum: off by O(η²) where label noise is
        symmetric, and within 5 % for steps of 0.03, and of 0.1 (T_c/T − 1). Raises
        `ValueError` for other problems and noise, reshuffling included.
        """
        if not isinstance(problem, DiagonalLinearNetwork):
            raise ValueError(
                f"the law speaks about diagonal_linear_network, got {type(problem).__name__}"
            )
        moments = DataMoments.of_data(problem.inputs, problem.targets, problem.loss_factor)
        scale = noise_scale(problem, sgd)
        law = cls(problem.num_layers, problem.width, moments, scale, sgd.weight_decay)
        if not discrete_correction:
            return law
        if law.num_layers == 1:
            raise ValueError("num_layers must be at least 2 for the discrete correction, got 1")
        return law.corrected(LogSlopeSteps(FactorShrinkage.of(problem, sgd)))

    def small_numbers(self, problem: Problem, sgd: SGD) -> Sequence[SmallNumber]:
        """ηA(f*)b1; for two layers that over T_c/T − 1, for more the relative variance of f."""
        step = float(sgd.learning_rate) / (1 - float(sgd.momentum)) * self._step_per_rate()
        plain = self.correction is None
        found = [SmallNumber("ηA(f*)b₁", step, 0.02 if plain else 0.03)]
        if self.num_layers == 2:
            way = float(self.critical_noise_scale / self.noise_scale) - 1
            found.append(SmallNumber("ηA(f*)b₁ ÷ (T_c/T − 1)", step / way, 0.04 if plain else 0.1))
        elif self.num_layers > 2:
            found.append(SmallNumber("TA(f*)g(f*) ÷ b₁f*²", self._relative_variance(), 0.2))
        return found

    @classmethod
    def examples(cls) -> Iterable[Self]:
        """Depths one to four, with and without noise in the inputs."""
        gaussian = DataMoments.teacher(1, 2, 1, 1)
        labels = DataMoments.teacher(1, 0, 0.05, 1)
        yield cls(1, 1, gaussian, 0.1)
        yield cls(1, 1, gaussian, 0.05, 0.5)
        yield cls(2, 1, gaussian, 0.1)
        yield cls(2, 2, labels, 0.01, ratios=[1.0, 2.0])
        yield cls(3, 2, DataMoments.teacher(1, 2, 0.8, 0.6), 0.1)
        yield cls(4, 1, DataMoments.teacher(1, 0, 1, 1), 0.1)

    @classmethod
    def improper_examples(cls) -> Sequence[Self]:
        """Noise above the critical scale, decay of a deep network, and interpolation."""
        gaussian = DataMoments.teacher(1, 2, 1, 1)
        return (
            cls(2, 1, gaussian, 0.4),
            cls(3, 1, gaussian, 0.1, 0.1),
            cls(2, 1, DataMoments.teacher(1, 2, 1, 0), 0.1),
        )

    @property
    def critical_noise_scale(self) -> Any:
        """T_c = (b2 − λ/2)/a3 for two layers; infinite without decay for others."""
        if self.num_layers == 2:
            return (self.moments.b2 - self.weight_decay / 2) / self.moments.a3
        return np.inf

    @property
    def collapse_weight(self) -> float:
        """Weight of the atom at the zero network: one where it is the only law, else zero."""
        decayed = self.num_layers > 2 and self.weight_decay > 0
        return float(self.num_layers > 1 and (decayed or self._above_critical()))

    def require_proper(self) -> None:
        """Raise `ImproperLawError` with the condition that fails; see the class."""
        moments, layers = self.moments, self.num_layers
        delta = float(moments.delta)
        if not moments.pure_label_noise and delta <= 1e-12 * float(moments.a1 * moments.a3):
            raise ImproperLawError(
                f"Delta = a1*a3 - a2**2 = {delta:.6g} must be positive: the targets are "
                "interpolated, see InterpolationLaw"
            )
        if float(moments.a3) == 0:
            raise ImproperLawError("a3 = Var(xy) = 0 must be positive: there is no gradient noise")
        if layers > 1 and float(moments.b2) <= 0:
            raise ImproperLawError(
                f"b2 = E xy = {float(moments.b2):.6g} must be positive: flip the sign of y first "
                "(DataMoments.mirrored)"
            )
        if layers == 2 and self._above_critical():
            raise ImproperLawError(
                f"not normalisable: noise_scale T={float(self.noise_scale):.6g} ≥ critical "
                f"T_c=(b2-λ/2)/a3={float(self.critical_noise_scale):.6g}; the stationary law is a "
                "point mass at 0"
            )
        if layers > 2 and float(self.weight_decay) > 0:
            raise ImproperLawError(
                f"weight_decay = {float(self.weight_decay):.6g} must be 0 for {layers} > 2 "
                "layers: only the zero network is stationary"
            )

    def _above_critical(self) -> bool:
        return self.num_layers == 2 and bool(self.noise_scale >= self.critical_noise_scale)

    @formula
    def weights(self, slope: Any) -> Any:
        """The balanced network `(M, P)` of slope f."""
        if self.num_layers == 1:
            return jnp.reshape(slope, (1, 1))
        if self.num_layers == 2:
            factor = self.ratios * jnp.sqrt(slope / jnp.sum(self.ratios**2))
        else:
            factor = jnp.full(self.width, 1.0) * (slope / self.width) ** (1 / self.num_layers)
        return jnp.tile(factor[:, None], (1, self.num_layers))

    def push_forward(self, slope: Float[Any, ""]) -> None:
        """Site `weights`."""
        numpyro.deterministic("weights", self.weights(slope))

    def tangent_kernel(self, slope: Any) -> Any:
        """A(f) = |∇f|² on the balanced set."""
        layers, width = self.num_layers, self.width
        return layers * width ** (2 / layers - 1) * slope ** (2 * (layers - 1) / layers)

    def _mean(self, variable: str) -> Float[Any, " 1"]:
        if self.num_layers > 1:
            return super()._mean(variable)
        return (self.moments.b2 / (self.moments.b1 + self.weight_decay / 2))[None]

    def _covariance(self, variable: str, other: str) -> Float[Any, "1 1"]:
        if self.num_layers > 1:
            return super()._covariance(variable, other)
        return _regression_variance(self, 0.0)[None, None]

    def discrete_variance(self, learning_rate: Any) -> Float[Any, ""]:
        """Var f of the discrete chain at a learning rate η: exact for P = 1, else to first order.

        P = 1: T g(f*)/(b1λ − η b1λ² − T a1), infinite where the denominator is not positive.
        P ≥ 2: Var f/(1 − ηA(f*)b1), f* = b2/b1, for small T; raises `ImproperLawError` unless
        ηA(f*)b1 < 1, where the chain itself is unstable. `covariance` of a corrected law is it.
        """
        self.ensure_proper()
        if self.correction is not None:
            return self.covariance()[0, 0]
        eta = positive("learning_rate", learning_rate)
        if self.num_layers == 1:
            return _regression_variance(self, eta)
        step = eta * self._step_per_rate()
        if not step < 1:
            raise ImproperLawError(
                f"learning_rate*A(f*)*b1 = {float(step):.6g} must be below 1: the chain is unstable"
            )
        return self.covariance()[0, 0] / (1 - step)

    def _step_per_rate(self) -> float:
        """A(f*)b1 at f* = b2/b1: η times it is the step, unstable from one on."""
        return float(self.tangent_kernel(self.moments.best_slope) * self.moments.b1)

    def _relative_variance(self) -> float:
        """Var f/f*² for small T."""
        best = self.moments.best_slope
        spread = self.noise_scale * self.tangent_kernel(best) * self.moments.noise(best)
        return float(spread / (self.moments.b1 * best**2))

    def density_modes(self) -> Float[Any, " k"]:
        """Local maxima of p on the support, ascending; the divergence at 0 of P = 2 is not one."""
        self.ensure_proper()
        if self.num_layers == 2 and self.correction is None:
            points = stationary_points(self.moments, self.noise_scale, self.weight_decay)
            # p falls for large f, so the largest stationary point is a maximum.
            return points[-1:][points[-1:] > 0]
        grid = in_double_precision(self.slope_at, self.table.points)
        height = self.log_density(grid[:, None])
        best = int(np.argmax(height))
        result = minimize_scalar(
            lambda f: -float(self.log_density(np.array([f]))),
            bounds=(grid[best - 1], grid[best + 1]),
            method="bounded",
            options={"xatol": 1e-10 * abs(grid[best])},
        )
        return np.array([result.x])

    def exact_distribution(self) -> dist.Distribution | None:
        """Normal, Student-t or Gamma where the law is one."""
        m, t = self.moments, self.noise_scale
        if self.num_layers == 1:
            b = m.b1 + self.weight_decay / 2
            center = m.b2 / b
            if m.pure_label_noise:
                return dist.Normal(center, (t * m.a3 / b) ** 0.5)
            if is_traced(m, t, self.weight_decay) or abs(m.a2 * b - m.a1 * m.b2) > 1e-12 * m.a1:
                return None
            nu = 1 + b / (t * m.a1)
            return dist.StudentT(nu, center, (m.noise(center) / (m.a1 * nu)) ** 0.5)
        if self.num_layers == 2 and m.pure_label_noise:
            return dist.Gamma((self.critical_noise_scale / t - 1) / 2, m.b1 / (2 * t * m.a3))
        return None

    def supports(self, slope: Any) -> Any:
        """f > 0, or every f for one layer."""
        return slope > 0 if self.num_layers > 1 else slope == slope

    def slope_at(self, coordinate: Any) -> Any:
        """exp s; for one layer (a2 + √Δ sinh s)/a1, or f* + s√(Ta3/b1λ) where a1 = 0."""
        if self.num_layers > 1:
            return jnp.exp(coordinate)
        location, scale = self._regression_scale()
        stretched = coordinate if self.moments.pure_label_noise else jnp.sinh(coordinate)
        return location + scale * stretched

    def coordinate_of(self, slope: Any) -> Any:
        """The inverse of `slope_at`."""
        if self.num_layers > 1:
            return jnp.log(slope)
        location, scale = self._regression_scale()
        standard = (slope - location) / scale
        return standard if self.moments.pure_label_noise else jnp.arcsinh(standard)

    def log_jacobian(self, coordinate: Any) -> Any:
        """ln df/ds."""
        if self.num_layers > 1:
            return coordinate
        _, scale = self._regression_scale()
        if self.moments.pure_label_noise:
            return jnp.log(scale) + 0 * coordinate
        return jnp.log(scale) + _log_cosh(coordinate)

    def log_mass(self, coordinate: Any) -> Any:
        """ln p + ln df/ds, up to a constant."""
        m, t = self.moments, self.noise_scale
        if self.num_layers > 1:
            log_kernel = 2 * (self.num_layers - 1) / self.num_layers * coordinate
            exponent = self._drift_integral(coordinate) / t
            return coordinate - 1.5 * log_kernel - log_noise(m, coordinate) - exponent
        if m.pure_label_noise:
            return -0.5 * coordinate**2
        # Pearson IV in f = (a2 + √Δ sinh s)/a1: g = (Δ/a1) cosh² s, arctan sinh s = gd s.
        b = m.b1 + self.weight_decay / 2
        skewness = (m.a2 * b - m.a1 * m.b2) / (t * m.a1 * jnp.sqrt(m.delta))
        decay = 1 + b / (t * m.a1)
        return -decay * _log_cosh(coordinate) - skewness * jnp.arctan(jnp.sinh(coordinate))

    def _drift_integral(self, log_slope: Any) -> Any:
        """∫ (b1 f − b2)/(A g) df for P ≥ 2, in closed form.

        In u = (f/M)^(1/P) the integrand is −(b2/a3) u^(1−P), which is singular at 0, plus
        M u (k + a1 b2 M u^P)/(a3 g), k = a3 b1 − 2a2 b2: rational, so a sum of logarithms over the
        roots of g(M u^P).
        """
        m, layers, width = self.moments, self.num_layers, self.width
        b2 = m.b2 - self.weight_decay / 2 if layers == 2 else m.b2
        log_u = (log_slope - np.log(width)) / layers
        singular = log_u if layers == 2 else jnp.exp((2 - layers) * log_u) / (2 - layers)
        if m.pure_label_noise:
            regular = 0.5 * m.b1 * width / m.a3 * jnp.exp(2 * log_u)
            return regular - b2 / m.a3 * singular
        root = (m.a2 + 1j * jnp.sqrt(m.delta)) / m.a1
        numerator = m.a3 * m.b1 - 2 * m.a2 * b2 + m.a1 * b2 * root
        log_root = (jnp.log(root / width) + 2j * jnp.pi * jnp.arange(layers)) / layers
        residue = jnp.exp(2 * log_root) * numerator / (2j * jnp.sqrt(m.delta) * layers * root)
        modulus, argument = _log_one_minus(log_u[..., None] - log_root.real, log_root.imag)
        regular = 2 * jnp.sum(residue.real * modulus - residue.imag * argument, axis=-1)
        return width / m.a3 * regular - b2 / m.a3 * singular

    def reach(self) -> tuple[Any, Any, Any]:
        """About the best slope b2/b1; near T_c the left tail is long."""
        m = self.moments
        if self.num_layers == 1:
            center = self.coordinate_of(m.b2 / (m.b1 + self.weight_decay / 2))
            return center, 60.0, 60.0
        left: Any = 100.0
        if self.num_layers == 2:
            rate = (self.critical_noise_scale / self.noise_scale - 1) / 2
            left = left + 60 / jnp.clip(rate, 1e-6, None)
        return jnp.log(m.b2 / m.b1), left, 100.0

    def _regression_scale(self) -> tuple[Any, Any]:
        m = self.moments
        if not m.pure_label_noise:
            return m.a2 / m.a1, jnp.sqrt(m.delta) / m.a1
        b = m.b1 + self.weight_decay / 2
        return m.b2 / b, jnp.sqrt(self.noise_scale * m.a3 / b)


@formula
def _regression_variance(law: DiagonalNetworkLaw, eta: Any) -> Any:
    m, b, t = law.moments, law.moments.b1 + law.weight_decay / 2, law.noise_scale
    rate = b - eta * b**2 - t * m.a1
    variance = t * m.noise(m.b2 / b) / jnp.where(rate > 0, rate, 1)
    return jnp.where(rate > 0, variance, jnp.inf)


def _log_cosh(x: Any) -> Any:
    return jnp.abs(x) + jnp.log1p(jnp.exp(-2 * jnp.abs(x))) - np.log(2)


def _log_one_minus(log_ratio: Any, angle: Any) -> tuple[Any, Any]:
    """ln|1 − z| and arg(1 − z) for z = exp(log_ratio − i angle), at any size of z."""
    ratio = jnp.exp(-jnp.abs(log_ratio))
    square = (1 - ratio) ** 2 + 4 * ratio * jnp.sin(angle / 2) ** 2
    large = jnp.exp(jnp.minimum(log_ratio, 0))
    one = jnp.exp(jnp.minimum(-log_ratio, 0))
    argument = jnp.arctan2(large * jnp.sin(angle), one - large * jnp.cos(angle))
    return jnp.maximum(log_ratio, 0) + 0.5 * jnp.log(square), argument
