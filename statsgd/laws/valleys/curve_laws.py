"""Laws on a curve of minimisers: what isotropic noise and label-like noise settle to there."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Self

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Float, PRNGKeyArray

from statsgd.arguments import instance, is_traced, positive, real
from statsgd.laws.bases.tabulated import TabulatedLaw, check_bounds
from statsgd.laws.law import ImproperLawError, register
from statsgd.precision import over_points

_LOOKED_AT = 4097  # places of a valley, for the sharpest of them

#: The Hessian across the valley: a positive number, or an (r, r) matrix for r normal directions.
type NormalHessian = Callable[[Float[Any, " 1"]], Float[Any, "..."]]

CIRCLE = (-np.pi, np.pi)


class CosineCurvature(eqx.Module):
    """h(x) = h₀ + h₁ cos x, the curvature across a valley that closes on itself.

    >>> import numpy as np
    >>> curvature = CosineCurvature(2.0, 1.0)
    >>> float(curvature(np.array([0.0])))
    3.0
    """

    mean: Float[Any, ""]
    amplitude: Float[Any, ""]

    def __init__(self, mean: Any, amplitude: Any):
        self.mean = positive("mean", mean)
        self.amplitude = real("amplitude", amplitude, allowed="finite", valid=np.isfinite)
        if not is_traced(self.mean, self.amplitude) and abs(self.amplitude) >= self.mean:
            raise ValueError(
                f"amplitude must be below mean = {float(self.mean):.6g} in size, so that the "
                f"curvature stays positive, got {float(self.amplitude):.6g}"
            )

    def __call__(self, params: Float[Any, " 1"]) -> Float[Any, ""]:
        """h at the angle `params`."""
        x = jnp.asarray(params)[0]
        return jnp.asarray(self.mean, x.dtype) + jnp.asarray(self.amplitude, x.dtype) * jnp.cos(x)


class ValleyCurveLaw(TabulatedLaw):
    """A law over the intrinsic coordinate x (arc length or angle) of a curve of minimisers Γ.

    `params` is (x,); the endpoint of SGD is the point of Γ at x. Densities are with respect to
    arc length. The curve ends at `bounds`, or is closed with `bounds` one period apart.
    """

    normal_hessian: NormalHessian

    @property
    def dimension(self) -> int:
        """One, the coordinate along the curve."""
        return 1

    def across(self, params: Float[Any, " 1"]) -> Float[Any, "r r"]:
        """The Hessian across the valley as a matrix."""
        value = jnp.asarray(self.normal_hessian(params))
        return value if value.ndim == 2 else jnp.reshape(value, (1, 1))

    def require_proper(self) -> None:
        """Raise `ImproperLawError` on an endless curve along which the density does not decay."""
        slow, least = self._slow_directions()
        if slow:
            side = "positive" if "+0" in slow else "negative"
            raise ImproperLawError(
                f"law on the valley not normalisable: tr H bounded along the {side} side, "
                f"-dlog p/dlog|x| = {least:.4g} and must exceed 1"
            )


@register
class ValleyEntropyLaw(ValleyCurveLaw):
    """Stationary law along a curve of minimisers when the gradient noise is isotropic.

    C = cI: p ∝ |H|₊^(−1/2) with respect to arc length, |H|₊ the product of the non-zero
    eigenvalues; the drift of the slow motion is −(c/4)P_T∇log|H|₊ per s = η²k. For L = h(x)z²/2
    this is the exact Gibbs marginal at any temperature. A factor 1/|H|₊ would come from confusing
    s with t.

    **Arguments:** `normal_hessian`, a function of (x,); `bounds`, the ends or one period
    (`CIRCLE`), or None for an endless curve.

    Source: derived, from the framework of Li, Wang, Arora (2022), arXiv:2110.06914.

    >>> import numpy as np
    >>> law = ValleyEntropyLaw(CosineCurvature(2.0, 1.0))  # flattest at π
    >>> round(float(law.log_density(np.array([np.pi])) - law.log_density(np.zeros(1))), 3)  # ½ ln 3
    0.549
    """

    setting: ClassVar[str] = "SGD after zero loss on a curve of minimisers, isotropic noise"
    exactness: ClassVar[str] = "leading order in the learning rate; exact for L = h(x)z²/2"
    citation: ClassVar[str] = "derived; Li, Wang, Arora (2022), arXiv:2110.06914"

    def __init__(self, normal_hessian: NormalHessian, bounds: Any = CIRCLE):
        self.normal_hessian = instance(
            "normal_hessian", normal_hessian, Callable, "a function of the place along the valley"
        )
        self.bounds = check_bounds(bounds, 1)
        self._tabulate()

    @classmethod
    def examples(cls) -> Sequence[Self]:
        """A closed valley."""
        return (cls(CosineCurvature(2.0, 1.5)),)

    @classmethod
    def improper_examples(cls) -> Sequence[Self]:
        """An endless valley of bounded curvature."""
        return (cls(CosineCurvature(2.0, 1.5), bounds=None),)

    def potential(self, params: Float[Any, " 1"]) -> Float[Any, ""]:
        """½ log|H|₊."""
        return self.within(params, 0.5 * jnp.linalg.slogdet(self.across(params))[1])


@register
class ValleySharpnessLaw(ValleyCurveLaw):
    """Stationary law along a curve of minimisers under label-like and tangential noise.

    C = cH + wP_T: p ∝ exp(−(c/(2w)) Tr H) with respect to arc length, a law of flat minima that
    does not depend on learning rate or batch size. On h = h₀ + h₁cos x it is von Mises about π
    with concentration ch₁/(2w), sampled exactly.

    With `learning_rate` η the finite-step correction for one normal direction, whose variance is
    (ηc/2)/(1 − ηh/2), is applied: p ∝ (1 − ηh/2)^(c/(ηw)).

    **Arguments:** `normal_hessian`, a function of (x,); `normal_noise` c > 0 (loss);
    `tangential_noise` w > 0, (loss/params)²; `bounds` as in `ValleyEntropyLaw`. Raises
    `ImproperLawError` on an endless curve with bounded Tr H and where ηh ≥ 2.

    Source: derived, from the framework of Li, Wang, Arora (2022), arXiv:2110.06914.

    >>> import numpy as np
    >>> law = ValleySharpnessLaw(CosineCurvature(2.0, 1.0), normal_noise=1.0, tangential_noise=0.5)
    >>> round(float(law.log_density(np.array([np.pi])) - law.log_density(np.zeros(1))), 3)  # ch₁/w
    2.0
    """

    setting: ClassVar[str] = "SGD after zero loss on a curve of minimisers, noise cH + w along it"
    exactness: ClassVar[str] = "leading order in the learning rate"
    citation: ClassVar[str] = "derived; Li, Wang, Arora (2022), arXiv:2110.06914"

    normal_noise: Float[Any, ""]
    tangential_noise: Float[Any, ""]
    learning_rate: Float[Any, ""] | None
    von_mises: bool = eqx.field(static=True)
    """Whether that is the law: a cosine around a circle, not corrected for the learning rate."""

    def __init__(
        self,
        normal_hessian: NormalHessian,
        normal_noise: Any,
        tangential_noise: Any,
        bounds: Any = CIRCLE,
        *,
        learning_rate: Any = None,
    ):
        self.normal_hessian = normal_hessian
        self.normal_noise = positive("normal_noise", normal_noise)
        self.tangential_noise = positive("tangential_noise", tangential_noise)
        self.learning_rate = (
            None if learning_rate is None else positive("learning_rate", learning_rate)
        )
        self.bounds = check_bounds(bounds, 1)
        cosine = isinstance(normal_hessian, CosineCurvature)
        self.von_mises = cosine and bounds is CIRCLE and learning_rate is None
        self._tabulate()

    @classmethod
    def examples(cls) -> Iterable[Self]:
        """The von Mises law, its discrete correction, and two normal directions on a line."""
        valley = CosineCurvature(2.0, 1.5)
        yield cls(valley, 1.0, 1.0)
        yield cls(valley, 1.0, 1.0, learning_rate=0.1)
        yield cls(_widening, 1.0, 0.5, bounds=None)

    @classmethod
    def improper_examples(cls) -> Sequence[Self]:
        """An endless valley of bounded curvature, and one too sharp for the learning rate."""
        valley = CosineCurvature(2.0, 1.5)
        return cls(valley, 1.0, 1.0, bounds=None), cls(valley, 1.0, 1.0, learning_rate=0.6)

    def potential(self, params: Float[Any, " 1"]) -> Float[Any, ""]:
        """(c/(2w)) Tr H, or −(c/(ηw)) log(1 − ηh/2) with the correction."""
        ratio = self.normal_noise / self.tangential_noise
        trace = jnp.trace(self.across(params))
        if self.learning_rate is None:
            return self.within(params, ratio / 2 * trace)
        room = 1 - self.learning_rate * trace / 2
        energy = -ratio / self.learning_rate * jnp.log(jnp.where(room > 0, room, 1.0))
        return self.within(params, jnp.where(room > 0, energy, jnp.inf))

    def model(self, obs: Float[Any, "n 1"] | None = None) -> None:
        """Site `params`; on a cosine valley pushed forward from a von Mises `angle`."""
        valley = self.normal_hessian
        if not (self.von_mises and isinstance(valley, CosineCurvature)) or obs is not None:
            super().model(obs)
            return
        self.require_proper()
        concentration = self.normal_noise * valley.amplitude / (2 * self.tangential_noise)
        # The flat side is at π for a positive amplitude, at 0 for a negative one.
        centre = jnp.where(concentration > 0, jnp.pi, 0.0)
        angle = numpyro.sample("angle", dist.VonMises(centre, jnp.abs(concentration)))
        numpyro.deterministic("params", angle[None])

    def starting_points(
        self, key: PRNGKeyArray, number: int
    ) -> Mapping[str, Float[Any, "number 1"]] | None:
        """Exact draws, unless the site of the model is the `angle`."""
        return None if self.von_mises else super().starting_points(key, number)

    def require_proper(self) -> None:
        """Raise `ImproperLawError` unless the law decays and, where corrected, ηh < 2."""
        super().require_proper()
        if self.learning_rate is None or self.bounds is None or is_traced(self):
            return
        low, high = self.bounds
        grid = np.linspace(low, high, _LOOKED_AT)
        sharpest = float(np.max(over_points(_trace_across, grid, self._bare())))
        if self.learning_rate * sharpest >= 2:
            raise ImproperLawError(
                f"learning_rate*h = {float(self.learning_rate) * sharpest:.6g} must be below 2 "
                "everywhere on the valley: the walls throw SGD out"
            )


def _trace_across(params: Float[Any, " 1"], law: ValleyCurveLaw) -> Float[Any, ""]:
    return jnp.trace(law.across(params))


def _widening(params: Float[Any, " 1"]) -> Float[Any, "2 2"]:
    x = params[0]
    return jnp.diag(jnp.stack([1 + x**2, 2 + 0 * x]))
